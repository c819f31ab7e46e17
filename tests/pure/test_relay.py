"""Signed statements in a shared folder: what a peer lays there, what a relayer sends of it, and when each gives up on
the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import structlog
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from fedchain.chain.signing import sign_statement
from fedchain.peer.journal import Journal
from fedchain.peer.outbox import Outbox
from fedchain.peer.relayer import Relayer
from fedchain.protocol.actions import CommitUpdates, PostReceipt, PostReceipts, PublishOpening, PublishOpenings
from fedchain.protocol.cid import cid_of
from fedchain.protocol.ids import Address, Bitmap, Digest, Index, Root
from fedchain.protocol.signature import Signature
from fedchain.protocol.signed import Signed, decode, encode
from fedchain.protocol.state import FederationState
from fedchain.protocol.statements import OpeningStatement, ReceiptStatement, UpdateStatement

WORD = st.binary(min_size=32, max_size=32)
CIDS = st.binary(max_size=8).map(cid_of)
NUMBER = st.integers(0, 2**32 - 1)
SAID = st.one_of(
    st.builds(UpdateStatement, NUMBER, NUMBER, WORD.map(Digest), CIDS, CIDS),
    st.builds(ReceiptStatement, NUMBER, NUMBER, st.integers(0, 2**64 - 1).map(Bitmap)),
    st.builds(OpeningStatement, NUMBER, NUMBER, NUMBER, NUMBER.map(Bitmap), WORD.map(Root), CIDS),
)
KEYS = [bytes((i + 1,)) * 32 for i in range(5)]


@given(st.builds(Signed, st.integers(0, 63).map(Index), SAID, st.builds(Signature, WORD, WORD)))
def test_a_signed_statement_is_read_as_it_was_written(signed: Signed) -> None:
    content = encode(signed)
    assert decode(content) == signed
    with pytest.raises(ValueError, match="canonical"):
        decode(content.replace(b",", b", ", 1))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "result"}, "no statement"),
        ({"round": -1}, "no number"),
        ({"round": True}, "no number"),
        ({"round": "1"}, "no number"),
        ({"member": 64}, "no index"),
        ({"root": "00"}, "32 bytes"),
        ({"root": "zz" * 32}, "hex"),
        ({"cid": "Qm"}, "CIDv0"),
        ({"cid": 5}, "CIDv0"),
        ({"signature": None}, "64 bytes"),
        ({"more": 1}, "canonical"),
    ],
)
def test_a_spoilt_file_is_no_statement(change: dict[str, Any], why: str) -> None:
    said = OpeningStatement(1, 0, 0, Bitmap(7), Root(b"r" * 32), cid_of(b""))
    entries = json.loads(encode(Signed(Index(1), said, Signature(b"r" * 32, b"s" * 32)))) | change
    with pytest.raises(ValueError, match=why):
        decode(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode() + b"\n")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"[" * 4_000, b"{" * 5_000, b"\xff"])
def test_what_is_no_json_object_is_no_statement(content: bytes) -> None:
    with pytest.raises(ValueError, match="it is"):
        decode(content)


class Relay:
    """A folder, five members with real keys at the places of the stage's, and a relayer."""

    def __init__(self, stage: Any, folder: Path) -> None:
        self.stage, self.folder = stage, folder
        self.chain = stage.peer_chain()
        self.accounts = tuple(Address(Account.from_key(key).address) for key in KEYS)
        log = structlog.wrap_logger(structlog.ReturnLogger())
        self.relayer = Relayer(self.chain, self.chain, folder, log)

    def signer(self, index: int) -> Callable[[Any], Signature]:
        return lambda said: sign_statement(KEYS[index], self.chain.chain_id, self.chain.contract, said)

    def lay(self, index: int, said: Any, signer: int | None = None) -> None:
        Outbox(self.folder, Index(index), self.signer(index if signer is None else signer)).lay(said)

    def step(self, state: FederationState, now: int) -> list[Any]:
        self.chain.sent.clear()
        self.relayer.step(replace(state, accounts=self.accounts), now)
        return list(self.chain.sent)


@pytest.fixture
def relay(stage: Any, tmp_path: Path) -> Relay:
    return Relay(stage, tmp_path / "shared")


def receipt(whole: int = 0b11111, attempt: int = 0) -> ReceiptStatement:
    return ReceiptStatement(1, attempt, Bitmap(whole))


def test_one_transaction_carries_the_statements_of_all(relay: Relay) -> None:
    state, now = relay.stage.receipts, relay.stage.receipts.current.last_commit_at
    for index in range(4):
        relay.lay(index, receipt())
        assert relay.step(state, now) == [], "somebody may still speak"
    relay.lay(4, receipt(0b01111))
    (batch,) = relay.step(state, now)
    assert isinstance(batch, PostReceipts)
    assert (batch.round, batch.attempt) == (1, 0)
    assert [line.whole for line in batch.receipts] == [0b11111] * 4 + [0b01111]


def test_after_half_of_the_window_what_is_there_is_sent(relay: Relay) -> None:
    state, ended = relay.stage.receipts, relay.stage.receipts.current.last_commit_at
    relay.lay(3, receipt())
    half = ended + state.terms.receipt_window_s // 2
    assert relay.step(state, half - 1) == []
    (batch,) = relay.step(state, half)
    assert len(batch.receipts) == 1


def test_only_what_its_member_signed_and_the_contract_would_take_is_sent(relay: Relay) -> None:
    state, ended = relay.stage.receipts, relay.stage.receipts.current.last_commit_at
    half = ended + state.terms.receipt_window_s // 2
    relay.lay(0, receipt(), signer=1)
    relay.lay(1, receipt(attempt=1))
    relay.lay(2, receipt(0b111111))
    relay.lay(3, OpeningStatement(1, 0, 0, Bitmap(31), Root(b"r" * 32), cid_of(b"")))
    (relay.folder / "junk.json").write_text("{}")
    assert relay.step(state, half) == []
    relay.lay(4, receipt())
    (batch,) = relay.step(state, half)
    assert len(batch.receipts) == 1
    slashed = replace(state, slashed=Bitmap(0b10000))
    assert relay.step(slashed, half) == [], "who is not heard is not relayed"


def test_a_forged_file_does_not_displace_the_members_own(relay: Relay) -> None:
    state, now = relay.stage.receipts, relay.stage.receipts.current.last_commit_at
    for index in range(5):
        relay.lay(index, receipt())
    forged = Signed(Index(2), receipt(0), relay.signer(4)(receipt(0)))
    for name in ("a.json", "zzz.json"):
        (relay.folder / name).write_bytes(encode(forged))
    (batch,) = relay.step(state, now)
    assert [line.whole for line in batch.receipts] == [0b11111] * 5


def test_updates_and_openings_are_relayed_as_well(relay: Relay) -> None:
    stage = relay.stage
    receipts = stage.receipts.current
    first = replace(receipts, commits=MappingProxyType({}), started_at=receipts.last_commit_at)
    for index, commit in receipts.commits.items():
        cids = commit.ciphertext_cid, commit.shares_cid
        relay.lay(index, UpdateStatement(1, 0, commit.commitment, *cids))
    (batch,) = relay.step(replace(stage.receipts, current=first), first.started_at)
    assert isinstance(batch, CommitUpdates)
    assert [line.commitment for line in batch.updates] == [c.commitment for _, c in sorted(receipts.commits.items())]
    locked = stage.opening.current.aggregate
    for index in range(5):
        set_opened = locked.participants if index else Bitmap(1)
        relay.lay(index, OpeningStatement(1, 0, 0, set_opened, Root(bytes((index,)) * 32), cid_of(b"")))
    (batch,) = relay.step(stage.opening, locked.at + stage.opening.terms.aggregate_window_s)
    assert isinstance(batch, PublishOpenings)
    assert [line.root for line in batch.openings] == [bytes((index,)) * 32 for index in range(1, 5)]


def test_a_peer_hands_its_statement_over_and_speaks_itself_after_two_thirds(stage: Any, tmp_path: Path) -> None:
    peer, relay = stage.peer(1), Relay(stage, tmp_path / "shared")
    peer.context.outbox = Outbox(relay.folder, Index(1), relay.signer(1))
    state, ended = stage.receipts, stage.receipts.current.last_commit_at
    late = ended + 2 * state.terms.receipt_window_s // 3
    assert peer.act(state, ended) == []
    (file,) = relay.folder.glob("*.json")
    assert decode(file.read_bytes()).said == receipt()
    assert peer.journal.receipt(1, 0) == 0b11111, "it is promised before it is handed over"
    assert peer.act(state, late - 1) == []
    assert peer.act(state, late) == [PostReceipt(round=1, attempt=0, whole=Bitmap(0b11111))]


def test_an_opening_is_handed_over_with_the_set_that_it_opens(stage: Any, tmp_path: Path) -> None:
    peer, relay = stage.peer(1), Relay(stage, tmp_path / "shared")
    peer.context.outbox = Outbox(relay.folder, Index(1), relay.signer(1))
    locked = stage.opening.current.aggregate
    assert peer.act(stage.opening, locked.at) == []
    (file,) = relay.folder.glob("*.json")
    said = decode(file.read_bytes()).said
    assert isinstance(said, OpeningStatement) and said.participants == locked.participants
    assert said.cid in peer.store.objects
    (opened,) = peer.act(stage.opening, locked.at + 2 * stage.opening.terms.aggregate_window_s // 3)
    assert isinstance(opened, PublishOpening) and (opened.root, opened.cid) == (said.root, said.cid)


def test_no_second_opening_of_a_place_is_signed_whatever_a_fork_holds(stage: Any, tmp_path: Path) -> None:
    """Two signed openings of one place are a lie (R5), and a relayer may show the first."""
    peer, relay = stage.peer(1), Relay(stage, tmp_path / "shared")
    peer.context.outbox = Outbox(relay.folder, Index(1), relay.signer(1))
    locked = stage.opening.current.aggregate
    assert peer.act(stage.opening, locked.at) == []
    (file,) = relay.folder.glob("*.json")
    signed = decode(file.read_bytes()).said
    file.unlink()
    for other in (replace(signed, root=Root(b"r" * 32)), replace(signed, participants=Bitmap(0b01111))):
        assert not peer.context.is_relayed(other, locked.at, since=locked.at, window_s=60)
    path = peer.context.folder / "journal.jsonl"
    peer.journal.close()
    with Journal(path) as journal:
        assert not journal.may_sign(replace(signed, root=Root(b"r" * 32))), "a restart forgets nothing"
        assert journal.may_sign(signed) and journal.may_sign(replace(signed, attempt=1, root=Root(b"r" * 32)))
    assert list(relay.folder.glob("*.json")) == []
