"""What one peer's shareholder and aggregator do, and refuse, on a world in memory (P2–P5).

The cryptography is real, a dictionary is the store, a list the chain; the world is the walkthrough's (`stage.py`).
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from fedchain.errors import ChainMismatch
from fedchain.peer.journal import PromiseRefused
from fedchain.protocol.actions import CommitResult, PostReceipt, PublishOpening
from fedchain.protocol.ids import Bitmap, Cid, Digest, Index
from fedchain.protocol.phase import Phase, phase_of


def test_a_peer_vouches_only_for_what_it_could_check(stage: Any) -> None:
    peer = stage.peer(1)
    cid = stage.receipts.current.commits[Index(3)].ciphertext_cid
    content = bytearray(peer.store.objects[cid])
    content[500] ^= 1
    peer.store.objects[cid] = bytes(content)
    assert peer.act(stage.receipts, stage.now) == [PostReceipt(round=1, attempt=0, whole=Bitmap(0b10111))]


def test_an_object_that_is_missing_is_waited_for_half_the_window_and_then_left_out(stage: Any) -> None:
    peer = stage.peer(1)
    del peer.store.objects[stage.receipts.current.commits[Index(3)].shares_cid]
    ended = stage.receipts.current.last_commit_at
    half = stage.receipts.terms.receipt_window_s // 2
    assert peer.act(stage.receipts, ended + half - 1) == []
    assert peer.act(stage.receipts, ended + half) == [PostReceipt(round=1, attempt=0, whole=Bitmap(0b10111))]


def test_a_shareholder_opens_the_locked_set_once_and_for_ever(stage: Any) -> None:
    peer = stage.peer(1)
    (opened,) = peer.act(stage.opening, stage.now)
    assert isinstance(opened, PublishOpening)
    assert len(peer.store.objects[opened.cid]) == 4096
    other = stage.locked(0b01111)
    assert other.current is not None
    receipts = {i: replace(r, whole=Bitmap(0b01111)) for i, r in other.current.receipts.items()}
    allowed = replace(other, current=replace(other.current, receipts=MappingProxyType(receipts)))
    again = peer.restarted()
    assert again.act(allowed, stage.now) == []
    with pytest.raises(PromiseRefused, match="no other is ever opened"):
        again.journal.promise_opening(1, 0, 0, stage.opening.current.base_digest, Bitmap(0b01111), threshold=3)


def test_an_opening_needs_no_receipt_and_looks_at_no_sum(stage: Any) -> None:
    state = stage.locked(0b11111)
    attempt = state.current
    assert attempt is not None
    receipts = MappingProxyType({i: r for i, r in attempt.receipts.items() if i != 1})
    peer = stage.peer(1)
    state = replace(state, current=replace(attempt, receipts=receipts))
    deadline = stage.now + state.terms.receipt_window_s
    (opened,) = peer.act(state, deadline)
    assert isinstance(opened, PublishOpening)


def test_a_shareholder_that_lacks_one_share_opens_nothing(stage: Any) -> None:
    peer = stage.peer(1)
    del peer.store.objects[stage.opening.current.commits[Index(3)].shares_cid]
    assert peer.act(stage.opening, stage.now) == []


def test_a_wrong_sum_on_chain_changes_nothing(stage: Any) -> None:
    attempt, state = stage.closing.current, stage.locked(0b11111, b"w" * 32)
    assert attempt is not None and state.current is not None
    state = replace(state, current=replace(state.current, openings=attempt.openings))
    peer = stage.peer(0)
    *_, result = peer.act(state, stage.now)
    assert isinstance(result, CommitResult)
    assert result.model_digest == stage.model_digest


def test_members_post_the_result_in_turns(stage: Any) -> None:
    peer, window = stage.peer(2), stage.closing.terms.aggregate_window_s
    peer.act(stage.receipts, stage.now)
    assert peer.act(stage.closing, stage.now + 2 * window - 1) == []
    (result,) = peer.act(stage.closing, stage.now + 2 * window)
    assert isinstance(result, CommitResult)
    assert result.model_digest == stage.model_digest


def test_a_peer_restarted_after_its_opening_still_closes(stage: Any) -> None:
    peer = stage.peer(3)
    later = stage.now + 10 * stage.closing.terms.aggregate_window_s
    (result,) = peer.act(stage.closing, later)
    assert isinstance(result, CommitResult)


def test_a_shareholder_opens_no_set_that_the_rules_forbid(stage: Any) -> None:
    """An endpoint that lies, or a contract that is not ours, must not get a single update opened; nor is it the
    aggregator's fault."""
    state = stage.locked(0b00001)
    assert phase_of(state, 1, stage.now) is Phase.OPENING
    peer = stage.peer(2)
    with pytest.raises(ChainMismatch, match="the RPC endpoint shows a locked set") as refused:
        peer.act(state, stage.now)
    assert peer.chain.sent == []
    assert not any(address in str(refused.value) for address in state.accounts)


def test_an_opening_that_arrives_late_in_the_store_is_asked_for_again(stage: Any) -> None:
    peer = stage.peer(2)
    peer.act(stage.receipts, stage.now)
    later = stage.now + 10 * stage.closing.terms.aggregate_window_s
    published = stage.closing.current.openings[Index(3)].cid
    content = peer.store.objects.pop(published)
    assert peer.act(stage.closing, later) == []
    peer.store.objects[published] = content
    (result,) = peer.act(stage.closing, later)
    assert isinstance(result, CommitResult)


def test_nothing_is_built_on_a_closed_round_that_nobody_can_check(stage: Any) -> None:
    """Its closer may have withheld an opening on purpose: to look a few times and go on would follow any model."""
    peer = stage.peer(2)
    for opening in list(stage.closing.current.openings.values())[1:]:
        peer.store.objects.pop(opening.cid, None)
    state = stage.closed_with(model_digest=Digest(b"z" * 32))
    assert [peer.challenger.settled(state, stage.now) for _ in range(10)] == [False] * 10


def test_what_was_decoded_from_other_statements_is_not_used(stage: Any) -> None:
    """A reorganisation may lock another set: what this peer decoded before it belongs to no round any more."""
    peer = stage.peer(0)
    *_, result = peer.act(stage.closing, stage.now)
    assert isinstance(result, CommitResult)
    attempt = stage.closing.current
    assert attempt is not None and attempt.aggregate is not None
    moved = replace(attempt, aggregate=replace(attempt.aggregate, participants=Bitmap(0b01111)))
    state = replace(stage.closing, current=moved)
    sent = peer.aggregator.act(state, stage.now)
    assert not sent, "these openings open no sum over that set"


def test_a_withheld_update_outside_the_set_delays_nobody(stage: Any) -> None:
    attempt = stage.aggregating.current
    assert attempt is not None
    receipts = {i: replace(r, whole=Bitmap(0b01111)) for i, r in attempt.receipts.items()}
    state = replace(stage.aggregating, current=replace(attempt, receipts=MappingProxyType(receipts)))
    peer = stage.peer(0)
    asked: list[Cid] = []
    fetch = peer.store.get_file
    peer.store.get_file = lambda cid, bound, path: (asked.append(cid), fetch(cid, bound, path))
    (sum_posted,) = peer.act(state, stage.now)
    assert sum_posted.participants == 0b01111
    assert attempt.commits[Index(4)].ciphertext_cid not in asked
    assert len(asked) == 4
