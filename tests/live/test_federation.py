"""Whole federations on real parts: anvil, IPFS nodes, each peer a process of its own with its own key."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedchain.audit import Report, audit
from fedchain.chain.reader import Reader
from fedchain.cli.local import LocalFederation
from fedchain.devnet.network import Devnet
from fedchain.peer.crash import POINTS
from fedchain.protocol.ids import size_of
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.state import FederationState
from fedchain.store.ipfs import IpfsStore

PEERS = Path(__file__).parents[2] / "peers"
WINDOWS = [
    "windows.enrol_s=60",
    "windows.training_s=60",
    "windows.receipt_s=20",
    "windows.aggregate_s=4",
    "windows.challenge_s=1",
]
PATIENCE_S = 400


@pytest.fixture
def make(devnet: Devnet, tmp_path: Path) -> Iterator[Callable[..., LocalFederation]]:
    """A function that founds, deploys and prepares a federation on the shared devnet; its peers end with the test."""
    made: list[LocalFederation] = []

    def found(name: str, source: str, members: int, *settings: str) -> LocalFederation:
        local = LocalFederation.found(tmp_path / name, PEERS / source, members, [*WINDOWS, *settings])
        local.deploy(devnet)
        local.prepare_peers(devnet, poll_s=0.1)
        made.append(local)
        return local

    yield found
    for local in made:
        local.stop_peers()


def wait_until(
    local: LocalFederation,
    devnet: Devnet,
    done: Callable[[FederationState, int], bool],
    each: Callable[[], None] = lambda: None,
) -> FederationState:
    reader = local.reader(devnet)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        each()
        state, now = reader.refresh(), reader.now()
        if done(state, now):
            return state
        time.sleep(0.1)
    words = "\n".join(f"peer {peer.index}: {peer.last_words()}" for peer in local.peers)
    raise AssertionError(f"not done after {PATIENCE_S} s; last words:\n{words}")


def finished(state: FederationState, now: int) -> bool:
    return phase_of(state, state.round, now) is Phase.FINISHED


def audited(local: LocalFederation, devnet: Devnet) -> Report:
    return audit(local.reader(devnet), IpfsStore(devnet.ipfs_apis[1]))


def test_five_peers_train_one_model_and_a_stranger_finds_no_fault(
    devnet: Devnet, make: Callable[..., LocalFederation]
) -> None:
    local = make("run", "digits", 5, "run.rounds=2")
    for peer in local.peers:
        peer.start()
    state = wait_until(local, devnet, finished)
    local.wait_for_peers(30)
    assert [peer.exit_code for peer in local.peers] == [0] * 5, [p.last_words() for p in local.peers]
    assert len(state.closed) == 2
    for attempt in state.closed.values():
        assert attempt.aggregate is not None
        assert attempt.aggregate.participants == 0b11111
    assert [a.aggregate.index for a in state.closed.values() if a.aggregate] == [0, 1]
    report = audited(local, devnet)
    assert report.faults == ()
    assert report.complete
    model = IpfsStore(devnet.ipfs_apis[2]).get(state.model_cid, 10**7)
    assert hashlib.sha256(model).digest() == state.model_digest != state.terms.genesis_digest


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    devnet: Devnet, make: Callable[..., LocalFederation]
) -> None:
    digests = []
    for name, seed in (("first", 7), ("second", 7), ("third", 8)):
        local = make(name, "hospitals", 3, "run.rounds=1", f"run.seed={seed}", "algorithm.local_epochs=1")
        for peer in local.peers:
            peer.start()
        state = wait_until(local, devnet, finished)
        local.stop_peers()
        digests.append(state.model_digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_dead_aggregator_is_passed_over_and_its_round_closes_without_it(
    devnet: Devnet, make: Callable[..., LocalFederation]
) -> None:
    local = make("run", "hospitals", 5, "run.rounds=1", "algorithm.local_epochs=1")
    for peer in local.peers:
        peer.start({"FEDCHAIN_CRASH_AT": "before-aggregate@1"} if peer.index == 0 else None)
    state = wait_until(local, devnet, finished)
    assert local.peers[0].exit_code == -signal.SIGKILL
    closed = state.closed[1]
    assert closed.aggregate is not None
    assert closed.aggregate.index == 1
    assert closed.aggregate.participants == 0b11111, "the dead member's update was whole, and counts"
    assert closed.attempt == 0
    report = audited(local, devnet)
    assert report.faults == ()


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_peer_killed_at_any_point_and_started_again_finishes_the_round(
    devnet: Devnet, make: Callable[..., LocalFederation]
) -> None:
    """The plug, pulled once at every crash point, each time on the peer whose act it is, started again at once."""
    aggregator_points = [p for p in POINTS if p.endswith(("-aggregate", "-result"))]
    others = [p for p in POINTS if p not in aggregator_points and not p.endswith(("-enrol", "-vote"))]
    rounds = len(aggregator_points) + 1
    local = make("run", "hospitals", 4, f"run.rounds={rounds}", "algorithm.local_epochs=1")
    crashes: dict[int, list[str]] = {i: [] for i in range(4)}
    for round, point in enumerate(aggregator_points, start=1):
        crashes[(round - 1) % 4].append(f"{point}@{round}")
    for number, point in enumerate(others):
        round = number // 3 + 1
        crashes[(round + number % 3) % 4].append(f"{point}@{round}")
    for plan in crashes.values():
        plan.sort(key=lambda crash: int(crash.partition("@")[2]))

    def crash_of(index: int) -> dict[str, str] | None:
        return {"FEDCHAIN_CRASH_AT": crashes[index][0]} if crashes[index] else None

    def start_again() -> None:
        for peer in local.peers:
            if peer.exit_code == -signal.SIGKILL:
                crashes[peer.index].pop(0)
                peer.start(crash_of(peer.index))

    for peer in local.peers:
        peer.start(crash_of(peer.index))
    state = wait_until(local, devnet, finished, each=start_again)
    assert crashes == {i: [] for i in range(4)}, "every planned crash happened"
    local.wait_for_peers(30)
    assert [peer.exit_code for peer in local.peers] == [0] * 4, [p.last_words() for p in local.peers]
    assert len(state.closed) == rounds
    for attempt in state.closed.values():
        assert attempt.attempt == 0, "no round had to start again"
        assert attempt.aggregate is not None
        assert size_of(attempt.aggregate.participants) == 4
    assert audited(local, devnet).faults == ()


@pytest.mark.slow
def test_a_peer_killed_while_it_enrols_or_votes_does_so_once(
    devnet: Devnet, make: Callable[..., LocalFederation]
) -> None:
    settings = ("run.rounds=3", "run.target=0.01", "algorithm.local_epochs=1")
    local = make("run", "hospitals", 4, *settings)
    crashes = {
        0: ["before-enrol@0", "before-vote@2"],
        1: ["after-enrol@0", "after-vote@2"],
        2: ["before-vote@2"],
        3: ["after-vote@2"],
    }

    def crash_of(index: int) -> dict[str, str] | None:
        return {"FEDCHAIN_CRASH_AT": crashes[index][0]} if crashes[index] else None

    def start_again() -> None:
        for peer in local.peers:
            if peer.exit_code == -signal.SIGKILL:
                crashes[peer.index].pop(0)
                peer.start(crash_of(peer.index))

    for peer in local.peers:
        peer.start(crash_of(peer.index))
    state = wait_until(local, devnet, finished, each=start_again)
    assert len(state.members) == 4
    assert len(state.closed) == 1, "t votes end the run before round 2 closes"
    assert size_of(state.stop_votes) >= state.terms.threshold
    events = [type(logged.event).__name__ for logged in refreshed(local, devnet).log()]
    assert events.count("MemberEnrolled") == 4
    assert events.count("StopVoted") == size_of(state.stop_votes)
    assert crashes[0] == [] or crashes[2] == [], "one that died before its vote came back and cast it"


def refreshed(local: LocalFederation, devnet: Devnet) -> Reader:
    reader = local.reader(devnet)
    reader.refresh()
    return reader
