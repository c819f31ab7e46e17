"""Who complains of what, and when, is judged as any statement is; what the evidence shows is judged elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fedchain.protocol.events import Complained, ReceiptPosted, UpdateCommitted
from fedchain.protocol.ids import Bitmap, Index


def test_a_complaint_about_committed_updates_is_no_fault_and_any_other_names_its_author(
    named: Any, honest: Any
) -> None:
    def report(*complaints: Complained, after: type) -> Any:
        play = honest.copy()
        at = max(i for i, e in enumerate(play.chain.events) if isinstance(e, after) and e.round == 2)
        told = [replace(complaint, at=play.chain.events[at].at) for complaint in complaints]
        play.chain.events[at + 1 : at + 1] = told
        return play.audit()

    cid = honest.event(UpdateCommitted, round=2).ciphertext_cid
    fair = [Complained(2, 0, Index(i), Bitmap(0b00110), cid, 0) for i in (3, 4)]
    assert report(*fair, after=UpdateCommitted).faults == ()
    assert named.found(report(*fair, fair[0], after=UpdateCommitted)) == {(6, 2, named.MEMBERS[3])}
    for dealers in (0b100000, 0b100001, 0):
        unfair = replace(fair[0], dealers=Bitmap(dealers))
        assert named.found(report(unfair, after=UpdateCommitted)) == {(5, 2, named.MEMBERS[3])}
    # The last receipt ends the phase.
    assert named.found(report(fair[0], after=ReceiptPosted)) == {(6, 2, named.MEMBERS[3])}
    stranger = replace(fair[0], index=Index(9))
    assert {(check, round) for check, round, _ in named.found(report(stranger, after=UpdateCommitted))} == {(3, 2)}
