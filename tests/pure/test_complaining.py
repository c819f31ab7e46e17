"""How peers complain, and what they make of others' complaints: real roles on one round of the walkthrough."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Barrier
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from stage import walk

from fedchain.crypto import Place, charge, complaint, dealing, encode_complaint
from fedchain.crypto.aggregate import leaf_hashes
from fedchain.crypto.packing import unpack_residues
from fedchain.errors import NO_FUNDS, ObjectMissing, StoreUnreachable, TransactionFailed
from fedchain.peer.journal import PromiseRefused
from fedchain.peer.log import LEVELS
from fedchain.peer.outbox import Outbox
from fedchain.protocol.actions import CommitAggregate, Complain, PostReceipt, PublishOpening, VoteToAbandon
from fedchain.protocol.cid import cid_of
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.events import AggregateCommitted, Complained, OpeningPublished, ReceiptPosted
from fedchain.protocol.ids import Bitmap, Cid, Index, Root
from fedchain.protocol.merkle import root_of
from fedchain.protocol.signature import Signature
from fedchain.protocol.signed import decode
from fedchain.protocol.state import FederationState
from fedchain.protocol.statements import ReceiptStatement
from fedchain.protocol.transition import apply

VICTIM, DEALER = Index(1), Index(3)
WITHOUT = Bitmap(0b10111)


def wronged(stage: Any) -> FederationState:
    """The state, and the store, in which the dealer's box for the victim does not open."""
    attempt = stage.receipts.current
    commit, n, t = attempt.commits[DEALER], len(attempt.order), attempt.threshold
    shares = bytearray(stage.world.store[commit.shares_cid])
    shares[dealing.public_bytes(n, t) + VICTIM * dealing.RECORD_BYTES + 99] ^= 1
    root = root_of(dealing.leaves_of_shares(bytes(shares), n, t))
    bad = replace(commit, commitment=committed(stage, root), shares_cid=stage.world.put(bytes(shares)))
    commits = MappingProxyType({**attempt.commits, DEALER: bad})
    return replace(stage.receipts, current=replace(attempt, commits=commits))


def committed(stage: Any, shares_root: Root) -> Any:
    attempt, author = stage.receipts.current, stage.members[DEALER].address
    commit = attempt.commits[DEALER]
    content = stage.world.store[commit.ciphertext_cid]
    roots = root_of(stage_leaves(content)), shares_root
    return update_commitment(walk.CHAIN_ID, walk.CONTRACT, 1, 0, author, *roots)


def stage_leaves(ciphertext: bytes) -> list[bytes]:
    return list(leaf_hashes(unpack_residues(ciphertext[16:]).reshape(-1, 64)))


def complained(stage: Any, state: FederationState, evidence: Cid, dealers: int = 1 << DEALER) -> FederationState:
    """The state after the victim complained."""
    said = Complained(1, 0, VICTIM, Bitmap(dealers), evidence, stage.now)
    assert state.current is not None
    return replace(state, current=replace(state.current, complaints=MappingProxyType({VICTIM: said})))


def received(stage: Any, state: FederationState) -> FederationState:
    """The state with everybody's receipts: the victim's alone lacks the dealer."""
    assert state.current is not None
    receipts = dict(stage.aggregating.current.receipts)
    receipts[VICTIM] = replace(receipts[VICTIM], whole=WITHOUT)
    attempt = replace(
        state.current,
        receipts=MappingProxyType(receipts),
        last_receipt_at=stage.aggregating.current.last_receipt_at,
    )
    return replace(state, current=attempt)


def evidence_of(stage: Any, state: FederationState, *, whole: bool = False) -> bytes:
    """The victim's evidence; `whole`: about a record that is whole."""
    attempt = stage.receipts.current if whole else state.current
    keys, victim = attempt.encryption_keys, stage.members[VICTIM]
    context = walk.RoundContext(walk.CHAIN_ID, walk.CONTRACT, 1, 0, attempt.base_digest)
    place = Place(context, DEALER, stage.members[DEALER].address, keys, attempt.threshold)
    shares = stage.world.store[attempt.commits[DEALER].shares_cid]
    ciphertext = root_of(stage_leaves(stage.world.store[attempt.commits[DEALER].ciphertext_cid]))
    with pytest.MonkeyPatch.context() as patch:
        if whole:
            patch.setattr(complaint, "_fault_in", lambda *_: "anything")
        made = charge(shares, place, VICTIM, victim.private_key, ciphertext)
    assert made is not None
    return encode_complaint(VICTIM, {DEALER: made})


def seen(peer: Any, state: FederationState, now: int) -> Bitmap:
    """The dealers that a peer finds proven, at the beginning of a window."""
    peer.holdings.complaints.wait(state, state.current, now, since=now)
    return Bitmap(peer.holdings.complaints.proven(state.current))


def test_who_was_dealt_a_bad_record_complains_and_then_vouches_for_the_others(stage: Any) -> None:
    state = wronged(stage)
    peer = stage.peer(VICTIM)
    said = peer.act(state, stage.now)
    assert said == [Complain(1, 0, Bitmap(1 << DEALER), said[0].evidence_cid), PostReceipt(1, 0, WITHOUT)]
    assert peer.store.objects[said[0].evidence_cid] == evidence_of(stage, state)
    assert stage.peer(2).act(state, stage.now) == [PostReceipt(1, 0, Bitmap(0b11111))]


def test_a_complaint_is_the_same_after_a_crash_and_is_made_once(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    state = wronged(stage)
    peer = stage.peer(VICTIM)

    class PlugPulled(BaseException):
        pass

    def crash(key: str, action: Any) -> bytes:
        raise PlugPulled

    monkeypatch.setattr(peer.chain, "submit", crash)
    with pytest.raises(PlugPulled):
        peer.act(state, stage.now)
    promised = peer.journal.complaint(1, 0)
    again = peer.restarted()
    # What it finds now does not matter any more: that is what it promised to say.
    monkeypatch.setattr(again.holdings, "charges", lambda attempt: {})
    first, receipt = again.act(state, stage.now)
    assert (first, receipt) == (Complain(1, 0, *promised), PostReceipt(1, 0, WITHOUT))
    assert again.act(complained(stage, received(stage, state), promised[1]), stage.now)[:1] != [first]
    with pytest.raises(PromiseRefused, match="another complaint"):
        again.journal.promise_complaint(1, 0, Bitmap(1), promised[1])


@pytest.mark.parametrize(("name", "times"), [("", 3), ("NonceTaken", 3), ("FederationWrongPhase", 1)])
def test_a_complaint_that_is_refused_holds_up_no_receipt_and_is_tried_again_unless_the_contract_refused_it(
    stage: Any, name: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = wronged(stage)
    peer = stage.peer(VICTIM)
    submit, tried = peer.chain.submit, []

    def refusing(key: str, action: Any) -> bytes:
        if isinstance(action, Complain):
            tried.append(action)
            raise TransactionFailed("no coins, or no such phase", name)
        return bytes(submit(key, action))

    monkeypatch.setattr(peer.chain, "submit", refusing)
    (receipt,) = peer.act(state, stage.now)
    assert receipt == PostReceipt(1, 0, WITHOUT)
    posted = {VICTIM: ReceiptPosted(1, 0, VICTIM, WITHOUT, stage.now)}
    state = replace(state, current=replace(state.current, receipts=MappingProxyType(posted)))
    for _ in range(2):
        assert peer.act(state, stage.now) == []
    assert len(tried) == times and len(set(tried)) == 1


def test_a_member_without_coins_whose_statements_a_relayer_sends_is_told_once_what_its_complaint_takes(
    stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, peer, shared = wronged(stage), stage.peer(VICTIM), tmp_path / "shared"
    said: list[tuple[str, str, dict[str, Any]]] = []

    def log(level: str, event: str, **fields: Any) -> None:
        said.append((level, event, fields))

    peer.context.log = SimpleNamespace(**{level: partial(log, level) for level in LEVELS})
    peer.context.outbox = Outbox(shared, VICTIM, lambda _: Signature(bytes(32), bytes(32)))

    def unpaid(key: str, action: Any) -> bytes:
        raise TransactionFailed("the account is empty; send it some coins first", NO_FUNDS)

    submit = peer.chain.submit
    monkeypatch.setattr(peer.chain, "submit", unpaid)
    for _ in range(3):
        assert peer.act(state, stage.now) == [], "its receipt is left to the relayer"
    (laid,) = shared.iterdir()
    assert decode(laid.read_bytes()).said == ReceiptStatement(1, 0, WITHOUT)
    ((event, fields),) = [(event, fields) for level, event, fields in said if level == "error"]
    assert event.startswith("complaint not sent: no relayer carries it") and fields["dealers"] == (DEALER,)
    assert "named by nobody" in fields["until_then"] and "send the account coins" in fields["to_do"]
    # As soon as it can pay, it complains.
    monkeypatch.setattr(peer.chain, "submit", submit)
    (complaint,) = peer.act(state, stage.now)
    assert isinstance(complaint, Complain) and complaint.dealers == 1 << DEALER


def test_who_was_dealt_whole_records_discloses_nothing(stage: Any) -> None:
    peer = stage.peer(VICTIM)
    before = set(peer.store.objects)
    assert peer.act(stage.receipts, stage.now) == [PostReceipt(1, 0, Bitmap(0b11111))]
    assert set(peer.store.objects) == before and peer.journal.complaint(1, 0) is None


@pytest.mark.parametrize(
    ("kind", "participants"), [("proven", WITHOUT), ("false", 0b11111), ("nowhere", 0b11111), ("nonsense", 0b11111)]
)
def test_an_aggregator_leaves_out_whom_evidence_names_and_is_moved_by_nothing_else(
    stage: Any, kind: str, participants: int
) -> None:
    state = stage.receipts if kind == "false" else wronged(stage)
    content = b"nonsense" if kind in ("nonsense", "nowhere") else evidence_of(stage, state, whole=kind == "false")
    cid = cid_of(content) if kind == "nowhere" else stage.world.put(content)
    peer, told = stage.peer(0), complained(stage, received(stage, state), cid)
    if kind == "nowhere":
        assert peer.act(told, stage.now) == []
    (locked,) = peer.act(told, stage.now + told.terms.aggregate_window_s // 2)
    assert isinstance(locked, CommitAggregate)
    assert locked.participants == participants


def test_nobody_opens_a_set_with_a_dealer_that_evidence_names_and_it_is_given_up(stage: Any) -> None:
    state = wronged(stage)
    state = received(stage, state)
    told = complained(stage, state, stage.world.put(evidence_of(stage, state)))
    event = AggregateCommitted(1, 0, 0, Index(0), Bitmap(0b11111), Root(b"r" * 32), cid_of(b""), at=stage.now)
    peer = stage.peer(2)
    assert peer.act(apply(told, event), stage.now) == [VoteToAbandon(1, 0)]
    assert peer.journal.next_nonce() == 0
    without = replace(event, participants=WITHOUT)
    assert isinstance(stage.peer(4).act(apply(told, without), stage.now)[0], PublishOpening)


def test_a_set_is_opened_whatever_an_unproven_complaint_says(stage: Any) -> None:
    state = complained(stage, received(stage, stage.receipts), cid_of(b"what nobody has"))
    event = AggregateCommitted(1, 0, 0, Index(0), Bitmap(0b11111), Root(b"r" * 32), cid_of(b""), at=stage.now)
    peer, half = stage.peer(2), state.terms.aggregate_window_s // 2
    assert peer.act(apply(state, event), stage.now + half - 1) == []
    assert isinstance(peer.act(apply(state, event), stage.now + half)[0], PublishOpening)


def test_evidence_that_is_kept_back_is_asked_for_now_and_then_and_not_for_ever(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = stage.peer(2)
    told = complained(stage, wronged(stage), cid_of(b"what nobody has"))
    asked = []

    def nowhere(cid: Cid, max_bytes: int) -> bytes:
        asked.append(max_bytes)
        raise ObjectMissing("nobody has it")

    monkeypatch.setattr(peer.store, "get", nowhere)
    window, wait = told.terms.aggregate_window_s, peer.holdings.complaints.wait
    for now in range(stage.now, stage.now + window):
        assert wait(told, told.current, now, since=stage.now) == (now < stage.now + window // 2)
    assert asked == [complaint.complaint_size(5, 3, 1)] * len(asked) and 4 <= len(asked) <= 5
    # Where no turn is at stake it is asked for on, ever more rarely.
    for now in range(stage.now + window, stage.now + 65 * window, window // 16):
        assert not wait(told, told.current, now, since=stage.now, late_too=True)
    assert 10 <= len(asked) <= 13


def test_who_has_opened_learns_of_evidence_that_comes_later_and_votes(stage: Any) -> None:
    """Else a bad dealer that shows its evidence between two openings would keep the set from being given up."""
    state = wronged(stage)
    content = evidence_of(stage, state)
    told = complained(stage, received(stage, state), cid_of(content))
    window = told.terms.aggregate_window_s
    event = AggregateCommitted(1, 0, 0, Index(0), Bitmap(0b11111), Root(b"r" * 32), cid_of(b""), at=stage.now)
    locked, peer = apply(told, event), stage.peer(2)
    assert peer.act(locked, stage.now) == []
    (opening,) = (a for a in peer.act(locked, stage.now + window // 2) if isinstance(a, PublishOpening))
    said = OpeningPublished(1, 0, 0, Index(2), opening.root, opening.cid, at=stage.now + window // 2)
    opened = apply(locked, said)
    assert VoteToAbandon(1, 0) not in peer.act(opened, stage.now + window)
    peer.store.put(content)
    assert VoteToAbandon(1, 0) in peer.act(opened, stage.now + 3 * window)


def test_evidence_that_comes_late_is_waited_for_half_of_the_aggregate_window(stage: Any) -> None:
    state = wronged(stage)
    content = evidence_of(stage, state)
    told, peer = complained(stage, received(stage, state), cid_of(content)), stage.peer(0)
    window = told.terms.aggregate_window_s
    turn = stage.now
    assert peer.act(told, turn) == []
    cid = peer.store.put(content)
    assert cid == told.current.complaints[VICTIM].evidence_cid
    (locked,) = peer.act(told, turn + window // 4)
    assert locked.participants == WITHOUT


def test_however_many_keep_their_evidence_back_a_look_costs_one_time_out(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, peer = received(stage, stage.receipts), stage.peer(0)
    assert state.current is not None
    said = {Index(i): Complained(1, 0, Index(i), Bitmap(1), cid_of(bytes([i])), stage.now) for i in (1, 2, 3, 4)}
    told = replace(state, current=replace(state.current, complaints=MappingProxyType(said)))
    together = Barrier(4)

    def late(cid: Cid, max_bytes: int) -> bytes:
        together.wait(timeout=30)  # passes only if all four are asked for at once
        raise ObjectMissing("nobody has it")

    monkeypatch.setattr(peer.store, "get", late)
    assert peer.holdings.complaints.wait(told, told.current, stage.now, since=stage.now)


def test_a_store_that_is_away_for_a_while_makes_nobody_deaf_to_evidence(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = wronged(stage)
    cid, peer = stage.world.put(evidence_of(stage, state)), stage.peer(0)
    told, get = complained(stage, received(stage, state), cid), peer.store.get

    def away(cid: Cid, max_bytes: int) -> bytes:
        raise StoreUnreachable("no IPFS API answers")

    monkeypatch.setattr(peer.store, "get", away)
    window = told.terms.aggregate_window_s
    for now in range(stage.now, stage.now + window // 4):
        assert peer.holdings.complaints.wait(told, told.current, now, since=stage.now)
    monkeypatch.setattr(peer.store, "get", get)
    assert not peer.holdings.complaints.wait(told, told.current, stage.now + window // 2 - 1, since=stage.now)
    assert peer.holdings.complaints.proven(told.current) == 1 << DEALER


@pytest.mark.parametrize("dealers", [0, 1 << 17, 1 << DEALER | 1 << 17])
def test_a_complaint_that_only_an_endpoint_made_up_is_about_nobody(stage: Any, dealers: int) -> None:
    told = complained(stage, stage.receipts, cid_of(b"whatever"), dealers)
    peer = stage.peer(2)
    peer.store.put(b"whatever")
    assert seen(peer, told, stage.now) == 0
    assert not peer.holdings.complaints.wait(told, told.current, stage.now, since=stage.now)


def test_a_false_complaints_evidence_is_not_kept(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a right share of an honest member's key: whoever passes it on helps who lacks one."""
    pinned: list[Cid] = []
    for number, state in enumerate((stage.receipts, wronged(stage))):
        peer = stage.peer(2 + number)
        cid = stage.world.put(evidence_of(stage, state, whole=number == 0))
        peer.store.objects[cid] = stage.world.store[cid]
        monkeypatch.setattr(peer.store, "pin", pinned.append)
        told = complained(stage, state, cid)
        seen(peer, told, stage.now)
        assert pinned == [cid] * number
