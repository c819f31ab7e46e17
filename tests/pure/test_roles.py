"""What one peer's shareholder and aggregator do, and refuse, on a world in memory (P2–P5).

The cryptography is real, a dictionary is the store, a list the chain; the world is the walkthrough's.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import structlog

from fedchain.crypto import upload
from fedchain.errors import Fault, ObjectMissing
from fedchain.peer.aggregator import Aggregator
from fedchain.peer.context import PeerContext
from fedchain.peer.holdings import Holdings
from fedchain.peer.journal import Journal, PromiseRefused
from fedchain.peer.meter import Meter
from fedchain.peer.shareholder import Shareholder
from fedchain.protocol.actions import Action, CommitResult, PostReceipt, PublishOpening
from fedchain.protocol.charter import Charter, Federation
from fedchain.protocol.cid import cid_of
from fedchain.protocol.events import AggregateCommitted, ResultCommitted
from fedchain.protocol.ids import Bitmap, Cid, Digest, Index, Root
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply

SCRIPT = Path(__file__).parents[2] / "docs" / "walkthrough.py"


def load_walkthrough() -> Any:
    spec = importlib.util.spec_from_file_location("walkthrough", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


walk = load_walkthrough()


class MemoryStore:
    """Implements the store's port on a dictionary."""

    bytes_up = bytes_down = 0

    def __init__(self, objects: dict[Cid, bytes]) -> None:
        self.objects = objects

    def put(self, content: bytes) -> Cid:
        self.objects[cid_of(content)] = content
        return cid_of(content)

    def get(self, cid: Cid, max_bytes: int) -> bytes:
        if cid not in self.objects:
            raise ObjectMissing(f"nobody has {cid}")
        assert len(self.objects[cid]) <= max_bytes
        return self.objects[cid]

    def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
        path.write_bytes(self.get(cid, max_bytes))

    def pin(self, cid: Cid) -> None:
        assert cid in self.objects

    def unpin(self, cid: Cid) -> None:
        pass


class MemoryChain:
    """Implements the reader's names and the writer's `submit`: what was sent is kept and changes nothing."""

    chain_id, contract = walk.CHAIN_ID, walk.CONTRACT

    def __init__(self) -> None:
        self.sent: list[Action] = []

    def submit(self, key: str, action: Action) -> bytes:
        self.sent.append(action)
        return bytes(32)


class Peer:
    """One member's shareholder and aggregator; `restarted` is the same peer in a new process."""

    def __init__(self, world: Any, member: Any, folder: Path) -> None:
        self._world, self._member, self._folder = world, member, folder
        self.chain = MemoryChain()
        self.store = MemoryStore(dict(world.store))
        self.journal = Journal(folder / "journal.jsonl")
        self.context = PeerContext(
            me=member.index,
            address=member.address,
            encryption_private=member.private_key,
            charter=Charter(federation=Federation(name="roles"), update=walk.SETTINGS),
            terms=world.state.terms,
            task=None,  # type: ignore[arg-type]  # nobody trains here
            data=None,  # type: ignore[arg-type]
            reader=self.chain,  # type: ignore[arg-type]
            sender=self.chain,  # type: ignore[arg-type]
            store=self.store,
            journal=self.journal,
            meter=Meter(folder / "rounds.jsonl", self.store),
            folder=folder,
            seed=1,
            engine="numpy",
            log=structlog.wrap_logger(structlog.ReturnLogger()),
        )
        holdings = Holdings(self.context)
        self.shareholder = Shareholder(self.context, holdings)
        self.aggregator = Aggregator(self.context, holdings)

    def act(self, state: FederationState, now: int) -> list[Action]:
        """What it sends when both roles are asked once."""
        before = len(self.chain.sent)
        for role in (self.shareholder, self.aggregator):
            role.act(state, now)
        return self.chain.sent[before:]

    def restarted(self) -> Peer:
        self.journal.close()
        return Peer(self._world, self._member, self._folder)


class Stage:
    """The world of the walkthrough, with the state as it was when each phase began."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with redirect_stdout(StringIO()):
            self.members = [walk.make_member(i) for i in range(walk.MEMBERS)]
            self.world = walk.found(self.members)
            walk.enrol(self.world, self.members)
            walk.train(self.world, self.members)
            walk.encrypt_and_commit(self.world, self.members)
            self.receipts = self.world.state
            walk.examine_and_post_receipts(self.world, self.members)
            self.aggregating = self.world.state
            aggregate = walk.lock_and_aggregate(self.world)
            self.opening = self.world.state
            walk.publish_openings(self.world, self.members)
            self.closing = self.world.state
            self.now = self.world.now
            walk.close(self.world, aggregate)
        self.model_digest = self.world.state.model_digest

    def peer(self, index: int) -> Peer:
        folder = self._folder / f"peer-{index}"
        folder.mkdir()
        return Peer(self.world, self.members[index], folder)

    def locked(self, participants: int, root: bytes = b"r" * 32) -> FederationState:
        """The state in which another set, or another sum, was locked."""
        event = AggregateCommitted(1, 0, 0, Index(0), Bitmap(participants), Root(root), cid_of(b""), at=self.now)
        return apply(self.aggregating, event)

    def closed_with(self, digest: bytes) -> FederationState:
        event = ResultCommitted(
            1, 0, 0, Index(4), Root(bytes(32)), Root(bytes(32)), Digest(digest), cid_of(b"invented"), at=self.now + 1
        )
        return apply(self.closing, event)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    yield Stage(tmp_path)


def test_a_peer_vouches_only_for_what_it_could_check(stage: Stage) -> None:
    peer = stage.peer(1)
    cid = stage.receipts.current.commits[Index(3)].ciphertext_cid  # type: ignore[union-attr]
    content = bytearray(peer.store.objects[cid])
    content[500] ^= 1
    peer.store.objects[cid] = bytes(content)
    assert peer.act(stage.receipts, stage.now) == [PostReceipt(round=1, attempt=0, whole=Bitmap(0b10111))]


def test_an_object_that_is_missing_is_waited_for_half_the_window_and_then_left_out(stage: Stage) -> None:
    peer = stage.peer(1)
    del peer.store.objects[stage.receipts.current.commits[Index(3)].shares_cid]  # type: ignore[union-attr]
    ended = stage.receipts.current.last_commit_at  # type: ignore[union-attr]
    half = stage.receipts.terms.receipt_window_s // 2
    assert peer.act(stage.receipts, ended + half - 1) == []
    assert peer.act(stage.receipts, ended + half) == [PostReceipt(round=1, attempt=0, whole=Bitmap(0b10111))]


def test_a_shareholder_opens_the_locked_set_once_and_for_ever(stage: Stage) -> None:
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
        again.journal.promise_opening(1, 0, 0, Bitmap(0b01111))


def test_an_opening_needs_no_receipt_and_looks_at_no_sum(stage: Stage) -> None:
    state = stage.locked(0b11111)
    attempt = state.current
    assert attempt is not None
    receipts = MappingProxyType({i: r for i, r in attempt.receipts.items() if i != 1})
    peer = stage.peer(1)
    state = replace(state, current=replace(attempt, receipts=receipts))
    deadline = stage.now + state.terms.receipt_window_s
    (opened,) = peer.act(state, deadline)
    assert isinstance(opened, PublishOpening)


def test_a_shareholder_that_lacks_one_share_opens_nothing(stage: Stage) -> None:
    peer = stage.peer(1)
    del peer.store.objects[stage.opening.current.commits[Index(3)].shares_cid]  # type: ignore[union-attr]
    assert peer.act(stage.opening, stage.now) == []


def test_a_wrong_sum_on_chain_changes_nothing(stage: Stage) -> None:
    attempt, state = stage.closing.current, stage.locked(0b11111, b"w" * 32)
    assert attempt is not None and state.current is not None
    state = replace(state, current=replace(state.current, openings=attempt.openings))
    peer = stage.peer(0)
    *_, result = peer.act(state, stage.now)
    assert isinstance(result, CommitResult)
    assert result.model_digest == stage.model_digest


def test_members_post_the_result_in_turns(stage: Stage) -> None:
    peer, window = stage.peer(2), stage.closing.terms.aggregate_window_s
    peer.act(stage.receipts, stage.now)
    assert peer.act(stage.closing, stage.now + 2 * window - 1) == []
    (result,) = peer.act(stage.closing, stage.now + 2 * window)
    assert isinstance(result, CommitResult)
    assert result.model_digest == stage.model_digest


def test_a_posted_model_that_is_not_the_decoded_one_names_its_author(stage: Stage) -> None:
    peer = stage.peer(2)
    peer.act(stage.receipts, stage.now)
    peer.act(stage.closing, stage.now)
    with pytest.raises(Fault, match="the model on chain is not the one the openings give") as caught:
        peer.aggregator.check_closed(stage.closed_with(b"z" * 32))
    assert caught.value.evidence.offender == stage.members[4].address


def test_a_round_that_closed_before_it_was_decoded_is_checked_too(stage: Stage) -> None:
    peer = stage.peer(2)
    peer.act(stage.receipts, stage.now)
    with pytest.raises(Fault, match="the model on chain"):
        peer.aggregator.check_closed(stage.closed_with(b"z" * 32))


def test_a_peer_restarted_after_its_opening_still_closes(stage: Stage) -> None:
    peer = stage.peer(3)
    later = stage.now + 10 * stage.closing.terms.aggregate_window_s
    (result,) = peer.act(stage.closing, later)
    assert isinstance(result, CommitResult)


def test_a_shareholder_opens_no_set_that_the_rules_forbid(stage: Stage) -> None:
    """An endpoint that lies, or a contract that is not ours, must not get a single update opened."""
    state = stage.locked(0b00001)
    assert phase_of(state, 1, stage.now) is Phase.OPENING
    peer = stage.peer(2)
    try:
        sent = peer.act(state, stage.now)
    except Fault:
        return
    assert sent == []


def test_an_opening_that_arrives_late_in_the_store_is_asked_for_again(stage: Stage) -> None:
    peer = stage.peer(2)
    peer.act(stage.receipts, stage.now)
    later = stage.now + 10 * stage.closing.terms.aggregate_window_s
    published = stage.closing.current.openings[Index(3)].cid  # type: ignore[union-attr]
    content = peer.store.objects.pop(published)
    assert peer.act(stage.closing, later) == []
    peer.store.objects[published] = content
    (result,) = peer.act(stage.closing, later)
    assert isinstance(result, CommitResult)


def test_nothing_is_built_on_a_closed_round_that_nobody_can_check(stage: Stage) -> None:
    """Its closer may have withheld an opening on purpose: to look a few times and go on would follow any model."""
    peer = stage.peer(2)
    for opening in list(stage.closing.current.openings.values())[1:]:  # type: ignore[union-attr]
        peer.store.objects.pop(opening.cid, None)
    state = stage.closed_with(b"z" * 32)
    assert [peer.aggregator.check_closed(state) for _ in range(10)] == [False] * 10


def test_an_update_out_of_range_spoils_its_round_and_stops_no_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, dealt = walk.quantise, []

    def quantise(*arguments: Any, **settings: Any) -> Any:
        values = honest(*arguments, **settings)
        dealt.append(values)
        return values + (2**22 - 400_000 if len(dealt) == walk.MEMBERS else 0)

    monkeypatch.setattr(walk, "quantise", quantise)
    monkeypatch.setattr(upload, "_checked", lambda values: values.astype("uint64"))
    monkeypatch.setattr(walk, "close", lambda world, aggregate: None)
    stage = Stage(tmp_path)
    peer = stage.peer(0)
    for _ in range(2):
        assert not any(isinstance(action, CommitResult) for action in peer.act(stage.closing, stage.now))


def test_what_was_decoded_from_other_statements_is_not_used(stage: Stage) -> None:
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


def test_a_withheld_update_outside_the_set_delays_nobody(stage: Stage) -> None:
    attempt = stage.aggregating.current
    assert attempt is not None
    receipts = {i: replace(r, whole=Bitmap(0b01111)) for i, r in attempt.receipts.items()}
    state = replace(stage.aggregating, current=replace(attempt, receipts=MappingProxyType(receipts)))
    peer = stage.peer(0)
    asked: list[Cid] = []
    fetch = peer.store.get_file
    peer.store.get_file = lambda cid, bound, path: (asked.append(cid), fetch(cid, bound, path))  # type: ignore[assignment,func-returns-value]
    (sum_posted,) = peer.act(state, stage.now)
    assert sum_posted.participants == 0b01111  # type: ignore[union-attr]
    assert attempt.commits[Index(4)].ciphertext_cid not in asked
    assert len(asked) == 4
