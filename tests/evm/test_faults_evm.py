"""What the world does to real peers on a real contract: endpoints that fail in every way, and chains that go back.

Each time: the round closes with exactly the model of everybody's updates, every promise is kept to the byte, nobody
says two things where one is due, and nobody is blamed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_hash.auto import keccak
from faulty_wire import FAILURES, FaultyWire
from in_step import Federation, Ground

from fedchain.chain.raw import parse_raw
from fedchain.chain.reader import Reader
from fedchain.protocol.ids import size_of
from fedchain.protocol.phase import Phase, phase_of

MEMBERS = 3
PHASES = (Phase.TRAINING, Phase.RECEIPTS, Phase.AGGREGATING, Phase.OPENING, Phase.CLOSING)


class Watched(Federation):
    """A federation in which something happens whenever another phase is seen, at a depth of confirmations."""

    def __init__(self, ground: Ground, folder: Path, *, confirmations: int = 0, **options: Any) -> None:
        super().__init__(ground, folder, **options)
        self.seen: list[Phase] = []
        self._reader = Reader(self.anvil.url, ground.deployed.address, confirmations=confirmations)

    def look(self) -> Phase | None:
        """The phase, where it is another one than before; the first one once everybody is at work in it."""
        state = self._reader.refresh()
        phase = phase_of(state, state.round, self._reader.now())
        idle = phase is Phase.TRAINING and (state.current is None or not state.current.committed)
        if idle or self.seen[-1:] == [phase]:
            return None
        self.seen.append(phase)
        return phase

    def check(self) -> None:
        """One round that closed as if nothing had happened."""
        assert [peer.ended for peer in self.peers] == [None] * len(self.peers)
        closed = self.state.closed[1]
        assert closed.attempt == 0 and closed.aggregate is not None
        assert size_of(closed.aggregate.participants) == len(self.peers)
        assert self.objects[closed.result.model_cid] == self.expected_model(1)  # type: ignore[union-attr]
        for peer in self.peers:
            self.check_promises(self.folder / f"peer-{peer.index}" / "journal.jsonl")
        report = self.audit()
        assert report.faults == () and report.complete

    def check_promises(self, journal: Path) -> None:
        """Each duty has one statement, one of whose transactions succeeded, and no upload or set has a second."""
        records = [json.loads(line.partition(" ")[2]) for line in journal.read_text(encoding="utf-8").splitlines()]
        duties: dict[str, list[bytes]] = {}
        for record in records:
            if record["kind"] == "transaction":
                duties.setdefault(record["key"], []).append(bytes.fromhex(record["raw"]))
        for duty, raws in duties.items():
            assert len({parse_raw(raw).statement for raw in raws}) == 1, duty
            receipts = [self.anvil.rpc("eth_getTransactionReceipt", "0x" + keccak(raw).hex()) for raw in raws]
            assert any(receipt and receipt["status"] == "0x1" for receipt in receipts), f"{duty} is not on chain"
        for kind in ("dealt", "receipt", "opened"):
            assert len([r for r in records if r["kind"] == kind and r["round"] == 1]) <= 1, kind


def through(url: str, **options: Any) -> Any:
    """The door to an endpoint: readers and senders that use it, with these options."""

    def door(kind: Any) -> Any:
        def begin(self: Any, _: str, *place: Any, **others: Any) -> None:
            kind.__init__(self, url, *place, **(others | options))

        return type(kind.__name__, (kind,), {"__init__": begin})

    return door


@pytest.fixture
def wire(anvil: Any) -> Iterator[FaultyWire]:
    running = FaultyWire(anvil.url)
    yield running
    running.close()


@pytest.mark.parametrize(
    "shift", [0, *(pytest.param(shift, marks=pytest.mark.slow) for shift in range(1, len(FAILURES)))]
)
def test_an_endpoint_that_fails_in_every_phase_costs_time_and_nothing_else(
    chain: Any, wire: FaultyWire, tmp_path: Path, shift: int
) -> None:
    """In each phase another failure, for as many calls as a call is tried, twice over; each failure in each phase."""
    ground = Ground(chain, tmp_path / "ground", rounds=1, members=MEMBERS)
    ground.enrol()
    ground.keep()
    federation = Watched(ground, tmp_path / "run")
    for peer in federation.peers:
        peer.reader_kind = peer.sender_kind = through(wire.url)

    def fail() -> bool:
        phase = federation.look()
        if phase in PHASES:
            wire.fail(FAILURES[(PHASES.index(phase) + shift) % len(FAILURES)], calls=7)
        return phase is Phase.FINISHED

    federation.run(fail)
    federation.check()
    assert federation.seen == [*PHASES, Phase.FINISHED]
    assert set(wire.suffered.values()) == {7}
    tried = [said for peer in federation.peers for said in peer.said if said["event"] == "trying again"]
    assert tried and all("\n" not in said["reason"] for said in tried)


class Mining:
    """Blocks that come by themselves, so that statements get their confirmations."""

    def __init__(self, anvil: Any) -> None:
        self._anvil, self._ended = anvil, threading.Event()
        self._thread = threading.Thread(target=self._mine, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _mine(self) -> None:
        while not self._ended.wait(0.05):
            self._anvil.rpc("evm_mine")


CONFIRMATIONS = 2


@pytest.mark.parametrize("depth", range(1, CONFIRMATIONS + 2))
def test_a_chain_that_goes_back_in_every_phase_makes_nobody_say_another_thing(
    start_anvil: Any, tmp_path: Path, depth: int
) -> None:
    """At the moment at which the peers believe what began a phase, so many blocks are replaced by empty ones.

    Up to the confirmations that peers wait for, nothing that anybody acted on is lost; with one more it is, and comes
    again to the byte.
    """
    anvil = start_anvil("--slots-in-an-epoch", "1")
    ground = Ground(anvil, tmp_path / "ground", rounds=1, members=MEMBERS)
    ground.enrol()
    ground.keep()
    federation = Watched(ground, tmp_path / "run", confirmations=CONFIRMATIONS)
    for peer in federation.peers:
        peer.reader_kind = peer.sender_kind = through(anvil.url, confirmations=CONFIRMATIONS)
    anvil.rpc("anvil_mine", hex(CONFIRMATIONS + 1))

    def go_back() -> bool:
        phase = federation.look()
        if phase in PHASES:
            anvil.rpc("anvil_reorg", depth, [])
        return phase is Phase.FINISHED

    with Mining(anvil):
        federation.run(go_back)
        anvil.rpc("anvil_mine", hex(CONFIRMATIONS + 1))
    federation.state = ground.reader().refresh()
    federation.check()
    assert set(federation.seen) >= {*PHASES, Phase.FINISHED}


def test_a_vote_that_the_chain_takes_back_is_cast_again(start_anvil: Any, tmp_path: Path) -> None:
    """Everybody's first vote is lost with its block; a run whose members had forgotten to vote would go on."""
    anvil = start_anvil()
    ground = Ground(anvil, tmp_path / "ground", rounds=3, members=MEMBERS, settings=("run.target=0.01",))
    ground.enrol()
    ground.keep()
    federation, reader, taken = Federation(ground, tmp_path / "run"), ground.reader(), 0

    def take_back() -> bool:
        nonlocal taken
        state = reader.refresh()
        if state.stop_votes & ~taken:
            taken |= state.stop_votes
            anvil.rpc("anvil_reorg", 1, [])
            state = reader.refresh()
        return phase_of(state, state.round, reader.now()) is Phase.FINISHED

    state = federation.run(take_back)
    assert len(state.closed) == 1 and size_of(state.stop_votes) >= 2
