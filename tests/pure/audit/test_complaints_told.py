"""Who complains of what, and when, is judged as any statement is; what the evidence shows is judged elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fedchain.protocol.cid import cid_of
from fedchain.protocol.events import Complained, ReceiptPosted, UpdateCommitted
from fedchain.protocol.ids import Bitmap, Index


def test_a_complaint_in_its_phase_is_in_order_and_any_other_names_its_author(named: Any, honest: Any) -> None:
    def found(*complaints: Complained, after: type = UpdateCommitted, check: int = 6) -> Any:
        play = honest.copy()
        at = max(i for i, e in enumerate(play.chain.events) if isinstance(e, after) and e.round == 2)
        play.chain.events[at + 1 : at + 1] = [replace(c, at=play.chain.events[at].at) for c in complaints]
        return {who for number, round, who in named.found(play.audit()) if (number, round) == (check, 2)}

    fair = [Complained(2, 0, Index(i), Bitmap(0b00110), cid_of(b"nowhere"), 0) for i in (3, 4)]
    assert found(*fair) == set()
    assert found(*fair, fair[0]) == {named.MEMBERS[3]}
    assert found(fair[0], after=ReceiptPosted) == {named.MEMBERS[3]}  # the last receipt ends the phase
    for dealers in (0b100000, 0b100001, 0):
        assert found(replace(fair[0], dealers=Bitmap(dealers)), check=5) == {named.MEMBERS[3]}
    assert len(found(replace(fair[0], index=Index(9)), check=3)) == 1
