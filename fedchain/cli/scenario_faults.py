"""Causes a scenario's faults while its federation runs: at their moments, and takes them back when their time is over.

It plays no part in the federation: the moments it reads from the chain, as anyone may.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from ..devnet.anvil import RpcFailed
from ..devnet.links import Link, Links
from ..devnet.network import Devnet
from ..devnet.scenario import STAGES, ChainDown, Cut, Kill, Pause, Reorg, Scenario, StoreDown, TimedFault
from ..errors import UsageError
from ..peer.crash import POINTS
from ..protocol.ids import Index
from ..protocol.phase import Phase, phase_of
from ..protocol.state import Attempt, FederationState
from .local import LocalFederation, PeerProcess

Say = Callable[[str], None]


@dataclass(order=True, slots=True)
class _Later:
    """Something to take back at a moment of the monotonic clock."""

    at: float
    number: int
    what: str = field(compare=False)
    act: Callable[[], object] = field(compare=False)


class Faults:
    """The faults of one run. `start` starts the peers; `step` does what is due, again and again."""

    def __init__(
        self,
        scenario: Scenario,
        devnet: Devnet,
        local: LocalFederation,
        links: Links,
        launcher: Path | None,
        say: Say,
    ) -> None:
        """`launcher` starts a lying peer. Raises UsageError where a fault names a point that peers do not have."""
        check_points(scenario)
        self._scenario = scenario
        self._devnet = devnet
        self._local = local
        self._say = say
        self._began = time.monotonic()
        self._waiting = list(scenario.timed)
        self._later: list[_Later] = []
        self._numbers = count()
        self._chain_downs = 0
        self._store_downs = [0] * scenario.members
        self._killed: set[int] = set()
        self._cuttable: dict[int, dict[str, Link]] = {}
        self._prepare(links, launcher)

    @property
    def never_happened(self) -> tuple[TimedFault, ...]:
        """The faults whose moments have not come."""
        return tuple(self._waiting)

    @property
    def is_over(self) -> bool:
        """Whether every fault has happened and was taken back."""
        return not self._waiting and not self._later

    @property
    def dead(self) -> frozenset[int]:
        """The peers that were killed and are not back."""
        return frozenset(self._killed)

    def start(self) -> None:
        """Start every peer."""
        self._began = time.monotonic()
        for lie in self._scenario.lies:
            when = f"in round {lie.round}" if lie.round else "in every round"
            self._say(f"{_who(lie.peers)} will misbehave {when}: {lie.name}")
        for peer in self._local.peers:
            self._start(peer)

    def step(self, state: FederationState | None, now: int) -> None:
        """Cause what is due, and take back what is over. `state` is None while the chain does not answer."""
        self._notice_points()
        while self._later and self._later[0].at <= time.monotonic():
            later = heapq.heappop(self._later)
            later.act()
            self._say(later.what)
        for fault in [fault for fault in self._waiting if self._is_due(fault, state, now)]:
            self._waiting.remove(fault)
            try:
                self._cause(fault)
            except RpcFailed as error:
                self._say(f"{fault.kind} came to nothing: {error}")

    def end(self) -> None:
        """Let everybody who stands still go on, so that it can be ended."""
        for peer in self._local.peers:
            _signal(peer, signal.SIGCONT)

    def _prepare(self, links: Links, launcher: Path | None) -> None:
        scenario, devnet = self._scenario, self._devnet
        self._local.peers = []
        for index in range(scenario.members):
            rpc, ipfs = devnet.rpc, devnet.ipfs_apis[index]
            if index in scenario.cut_off:
                to_chain, rpc = links.to(rpc)
                to_store, ipfs = links.to(ipfs)
                self._cuttable[index] = {"chain": to_chain, "store": to_store}
            peer = self._local.peer_of(devnet, index, POLL_S, rpc=rpc, ipfs=ipfs)
            peer.command += ["--confirmations", str(scenario.confirmations)]
            if scenario.stay:
                peer.command.append("--stay")
            if index in scenario.liars:
                lie = scenario.liars[index]
                # python -m fedchain.cli.main peer run … becomes python LAUNCHER NAME ROUND peer run …
                peer.command[1:3] = [str(launcher), lie.name, str(lie.round)]
                peer.environment["PYTHONPATH"] = str(Path(__file__).parents[2])
            self._local.peers.append(peer)

    def _start(self, peer: PeerProcess) -> None:
        """Start it, with the next point at which it is to be killed."""
        self._killed.discard(peer.index)
        points = [f for f in self._waiting if isinstance(f, Kill) and f.point is not None and peer.index in f.peers]
        first = min(points, key=lambda fault: fault.round, default=None)
        peer.start({"FEDCHAIN_CRASH_AT": f"{first.point}@{first.round}"} if first is not None else None)

    def _notice_points(self) -> None:
        """Who was killed at a point killed itself there."""
        for fault in list(self._waiting):
            if not isinstance(fault, Kill) or fault.point is None:
                continue
            struck = [peer for peer in self._local.peers if peer.index in fault.peers]
            if all(peer.exit_code == -signal.SIGKILL and peer.index not in self._killed for peer in struck):
                self._waiting.remove(fault)
                self._say(f"{_who(fault.peers)} killed {fault.point} in round {fault.round}")
                self._killed.update(fault.peers)
                self._bring_back(fault)

    def _is_due(self, fault: TimedFault, state: FederationState | None, now: int) -> bool:
        if fault.after_s is not None:
            return time.monotonic() - self._began >= fault.after_s
        if state is None or (isinstance(fault, Kill) and fault.point is not None):
            return False
        if fault.phase is not None:
            phase = phase_of(state, state.round, now)
            if phase is Phase.FINISHED:
                return False
            return (state.round, phase) >= (fault.round, STAGES[fault.phase])
        attempt = state.closed.get(fault.round) or state.current
        if attempt is None or attempt.round != fault.round:
            return False
        speakers = _speakers(attempt, fault.said or "")
        return bool(speakers) if fault.by is None else fault.by in speakers

    def _cause(self, fault: TimedFault) -> None:
        devnet = self._devnet
        match fault:
            case Kill():
                for peer in self._peers(fault.peers):
                    peer.kill()
                self._killed.update(fault.peers)
                self._say(f"{_who(fault.peers)} killed (kill -9)")
                self._bring_back(fault)
            case Pause():
                for peer in self._peers(fault.peers):
                    _signal(peer, signal.SIGSTOP)
                self._say(f"{_who(fault.peers)} stands still for {fault.for_s:g} s")
                self._after(fault.for_s, f"{_who(fault.peers)} goes on", lambda: self._go_on(fault.peers))
            case Cut():
                links = [self._cuttable[index][link] for index in fault.peers for link in fault.links]
                for link in links:
                    link.cut()
                self._say(f"{_who(fault.peers)} cut off from {' and '.join(fault.links)} for {fault.for_s:g} s")
                self._after(fault.for_s, f"{_who(fault.peers)} connected again", lambda: _mend(links))
            case Reorg():
                devnet.reorganise(fault.depth)
                self._say(f"the chain replaced its last {fault.depth} blocks by empty ones")
            case ChainDown():
                if not self._chain_downs:
                    devnet.kill_chain(saved=not fault.loses)
                self._chain_downs += 1
                self._say(f"the chain's node killed for {fault.for_s:g} s")
                self._after(fault.for_s, "the chain's node is back", self._chain_up)
            case StoreDown():
                for index in fault.peers:
                    if not self._store_downs[index]:
                        devnet.kill_ipfs(index)
                    self._store_downs[index] += 1
                self._say(f"the store of {_who(fault.peers)} killed")
                if fault.for_s is not None:
                    self._after(
                        fault.for_s, f"the store of {_who(fault.peers)} is back", lambda: self._stores_up(fault)
                    )

    def _peers(self, indices: tuple[int, ...]) -> list[PeerProcess]:
        return [self._local.peers[index] for index in indices]

    def _bring_back(self, fault: Kill) -> None:
        if fault.for_s is not None:
            self._after(fault.for_s, f"{_who(fault.peers)} started again", lambda: self._start_again(fault.peers))

    def _start_again(self, indices: tuple[int, ...]) -> None:
        for peer in self._peers(indices):
            if not peer.alive:
                self._start(peer)

    def _go_on(self, indices: tuple[int, ...]) -> None:
        for peer in self._peers(indices):
            _signal(peer, signal.SIGCONT)

    def _chain_up(self) -> None:
        self._chain_downs -= 1
        if not self._chain_downs:
            self._devnet.restart_chain()

    def _stores_up(self, fault: StoreDown) -> None:
        for index in fault.peers:
            self._store_downs[index] -= 1
            if not self._store_downs[index]:
                self._devnet.restart_ipfs(index)

    def _after(self, seconds: float, what: str, act: Callable[[], object]) -> None:
        heapq.heappush(self._later, _Later(time.monotonic() + seconds, next(self._numbers), what, act))


POLL_S = 0.15
"""How often peers look at the chain."""


def check_points(scenario: Scenario) -> None:
    """Raise UsageError where a kill names a point that no peer passes in a round."""
    known = [point for point in POINTS if not point.endswith("-enrol")]
    for number, fault in enumerate(scenario.faults, start=1):
        if isinstance(fault, Kill) and fault.point is not None and fault.point not in known:
            raise UsageError(f"fault {number} (kill): point: {fault.point!r} is none of {', '.join(known)}")


def _speakers(attempt: Attempt, said: str) -> set[Index]:
    """Who made this statement in an attempt, as the chain has it."""
    match said:
        case "update":
            return set(attempt.commits)
        case "receipt":
            return set(attempt.receipts)
        case "aggregate":
            return {attempt.aggregate.index} if attempt.aggregate is not None else set()
        case "opening":
            return set(attempt.openings)
        case _:
            return {attempt.result.index} if attempt.result is not None else set()


def _mend(links: list[Link]) -> None:
    for link in links:
        link.mend()


def _who(peers: tuple[int, ...]) -> str:
    return f"peer {peers[0]}" if len(peers) == 1 else f"peers {', '.join(map(str, peers))}"


def _signal(peer: PeerProcess, number: int) -> None:
    """Send a signal to a peer that runs."""
    if peer.process is not None and peer.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(peer.process.pid, number)
