"""What takes more than one bent peer: strangers, another chain, the pool, block time, what a member starts with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from in_step import Federation, Ground
from misbehave import MISBEHAVIOURS
from misbehaviours.verdict import check_outcome, play, played

from fedchain.chain.sender import Sender, VolatileJournal
from fedchain.chain.signing import sign_statement
from fedchain.errors import TransactionFailed
from fedchain.protocol.actions import (
    Action,
    CommitAggregate,
    CommitResult,
    CommitUpdate,
    CommitUpdates,
    Enrol,
    PostReceipt,
    PublishOpening,
    SignedUpdate,
    VoteToRemove,
    VoteToStop,
)
from fedchain.protocol.cid import cid_of
from fedchain.protocol.ids import Bitmap, Digest, Index, Root
from fedchain.protocol.statements import UpdateStatement

SOME, ROOT, CID = Digest(b"s" * 32), Root(b"r" * 32), cid_of(b"anything")


@pytest.fixture(scope="module")
def ground(anvil: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    before = anvil.remember()
    ground = Ground(anvil, tmp_path_factory.mktemp("around"))
    ground.enrol()
    ground.keep()
    yield ground
    anvil.take_back(before)


def sender(ground: Ground, private: bytes) -> Sender:
    """Somebody's sender, beside any peer."""
    return Sender(ground.anvil.url, ground.deployed.address, private, VolatileJournal())


def test_every_staged_misbehaviour_has_a_test_here() -> None:
    tests = " ".join(name for name in globals() if name.startswith("test_"))
    assert [name for name, it in MISBEHAVIOURS.items() if it.staged and name.replace("-", "_") not in tests] == []


def test_front_run_commitment__names_the_thief_and_costs_the_author_nothing(ground: Ground, tmp_path: Path) -> None:
    it = MISBEHAVIOURS["front-run-commitment"]
    federation = Federation(ground, tmp_path)
    thief = sender(ground, federation.peers[it.member].member.private)

    def in_the_pool(kind: type) -> type:
        class Seen(kind):  # type: ignore[misc, valid-type]
            def submit(self, key: str, action: Action) -> bytes:
                if isinstance(action, CommitUpdate) and action.round == it.round:
                    thief.submit("stolen", action)
                return super().submit(key, action)  # type: ignore[no-any-return]

        return Seen

    federation.peers[0].sender_kind = in_the_pool
    check_outcome(play(federation, it), it)


def test_replayed_transaction__is_refused_on_this_chain_and_on_another(
    ground: Ground, tmp_path: Path, start_anvil: Callable[..., Any]
) -> None:
    it = MISBEHAVIOURS["replayed-transaction"]
    federation = play(Federation(ground, tmp_path), it)
    raw = []
    for peer in federation.peers:
        lines = (tmp_path / f"peer-{peer.index}" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
        records = [json.loads(line.partition(" ")[2]) for line in lines]
        raw += ["0x" + record["raw"] for record in records if record["kind"] == "transaction"]
    assert len(raw) >= 17, "five commitments, receipts and openings, a sum and a result"
    before = ground.anvil.rpc("eth_blockNumber")
    other = start_anvil("--chain-id", "7")
    for chain in (ground.anvil, other):
        for one in raw:
            with pytest.raises(chain.Error):
                chain.rpc("eth_sendRawTransaction", one)
    assert ground.anvil.rpc("eth_blockNumber") == before and other.rpc("eth_blockNumber") == "0x0"
    check_outcome(federation, it)


def test_replayed_signature__is_worth_nothing_to_another_contract(ground: Ground, tmp_path: Path) -> None:
    ground.reset()
    other = Ground(ground.anvil, tmp_path)
    other.enrol()
    member, said = ground.members[2], UpdateStatement(1, 0, SOME, CID, CID)
    signature = sign_statement(member.private, ground.anvil.chain_id, ground.deployed.address, said)
    handed_in = CommitUpdates(1, 0, (SignedUpdate(SOME, CID, CID, signature),))
    stranger = bytes.fromhex(ground.anvil.keys[9][2:])
    with pytest.raises(TransactionFailed, match=MISBEHAVIOURS["replayed-signature"].expected.refused):
        sender(other, stranger).submit("replayed", handed_in)
    assert other.reader().refresh().current is None
    sender(ground, stranger).submit("relayed", handed_in)
    current = ground.reader().refresh().current
    assert current is not None and current.committed == 1 << 2, "where it belongs it counts"


@pytest.mark.parametrize(
    "action",
    [
        CommitUpdate(1, 0, SOME, CID, CID),
        PostReceipt(1, 0, Bitmap(0b11111)),
        CommitAggregate(1, 0, 0, Bitmap(0b11111), SOME, ROOT, CID),
        PublishOpening(1, 0, 0, ROOT, CID),
        CommitResult(1, 0, 0, Bitmap(0b111), SOME, ROOT, ROOT, CID, SOME, CID),
        VoteToStop(1, SOME),
        VoteToRemove(Index(1)),
    ],
    ids=lambda action: type(action).__name__,
)
def test_stranger__is_not_heard(ground: Ground, action: Action) -> None:
    stranger = sender(ground, bytes.fromhex(ground.anvil.keys[9][2:]))
    with pytest.raises(TransactionFailed, match=MISBEHAVIOURS["stranger"].expected.refused):
        stranger.submit("uninvited", action)


def test_block_clock__blames_nobody(ground: Ground, tmp_path: Path) -> None:
    it = MISBEHAVIOURS["block-clock"]
    federation = Federation(ground, tmp_path)

    def hurried(kind: type) -> type:
        class Hurried(kind):  # type: ignore[misc, valid-type]
            def submit(self, key: str, action: Action) -> bytes:
                ground.anvil.rpc("evm_increaseTime", 600)
                return super().submit(key, action)  # type: ignore[no-any-return]

        return Hurried

    for peer in federation.peers:
        peer.sender_kind = hurried
    check_outcome(play(federation, it), it)


@pytest.mark.parametrize(
    ("name", "file", "old", "new"),
    [
        ("charter-mismatch", "federation.toml", "clip_value = 0.5", "clip_value = 0.4"),
        ("task-mismatch", "task.py", "lr=0.05", "lr=5.0"),
    ],
)
def test_charter_mismatch__and_task_mismatch_keep_a_peer_from_starting(
    ground: Ground, tmp_path: Path, name: str, file: str, old: str, new: str
) -> None:
    it = MISBEHAVIOURS[name]
    federation = Federation(ground, tmp_path / "run")
    folder = tmp_path / "own"
    shutil.copytree(ground.folder, folder)
    text = (folder / file).read_text(encoding="utf-8")
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    federation.peers[it.member].folder = folder
    check_outcome(play(federation, it), it)


@pytest.mark.parametrize(
    ("name", "weight", "key"),
    [("weight-claim", 48, None), ("weight-over-cap", 1_000_000, None), ("low-order-key", 32, bytes([1]) + bytes(31))],
)
def test_weight_claim__weight_over_cap_and_low_order_key(
    chain: Any, tmp_path: Path, name: str, weight: int, key: bytes | None
) -> None:
    """What a member says of itself when it enrols: 32 samples, of at most 48."""
    it = MISBEHAVIOURS[name]
    ground = Ground(chain, tmp_path / "own", rounds=1, settings=("update.weight_cap=48",))
    ground.enrol(others_than=it.member)
    member = ground.members[it.member]
    enrolment = Enrol(key or member.x25519_public, weight, ground.reader().refresh().terms.bond_wei)
    sender(ground, member.private).submit("enrol", enrolment)
    ground.keep()
    federation = play(Federation(ground, tmp_path / "run"), it)
    check_outcome(federation, it)


def test_slashed_speaker__is_heard_no_more(ground: Ground, tmp_path: Path) -> None:
    it = MISBEHAVIOURS["wrong-sum"]
    federation = played(ground, tmp_path, it)
    state = federation.state
    assert state.slashed == 1 << it.member
    gone = sender(ground, federation.peers[it.member].member.private)
    expected = MISBEHAVIOURS["slashed-speaker"].expected.refused
    for said in (CommitUpdate(state.round, 0, SOME, CID, CID), VoteToRemove(Index(1))):
        with pytest.raises(TransactionFailed, match=expected):
            gone.submit(type(said).__name__, said)
