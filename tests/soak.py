"""A long run under random faults: its plan by a seed, what peers hold while it goes on, and whether that grows.

`Soak` is a scenario like those of `devnet/scenarios/`, made by chance; `Samples` reads /proc once a round.
"""

from __future__ import annotations

import contextlib
import random
import statistics
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import psutil

from fedchain.cli.local import LocalFederation
from fedchain.devnet.network import Devnet
from fedchain.devnet.scenario import STAGES, Scenario
from fedchain.errors import FedchainError
from fedchain.protocol.state import FederationState
from fedchain.store.ipfs import IpfsStore

SURVIVORS = tuple(range(6))
"""Never killed and never lying: what they hold is measured from the first round to the last."""

MORTALS = (6, 7, 8, 9)
"""Killed and started again."""

MEMBERS = len(SURVIVORS) + len(MORTALS)
CHANCE = 0.2
"""Of a fault in each phase of each round."""

CONFIRMATIONS = 2
LIES = ("spoiler", "silent-shareholder", "silent-aggregator", "withheld-blob")
"""What delays a round and leaves no fault in what stands: each mortal does one of them, once."""

COLLECT_EVERY = 10
"""Rounds between collections of garbage on the IPFS nodes, as `ipfs daemon --enable-gc` makes by the hour."""

STEPS = tuple(stage for stage in STAGES if stage != "enrolling")
KINDS = ("kill", "kill", "pause", "cut", "cut", "reorg", "store-down", "chain-down")
"""The catalogue, the commoner ones more often."""


def soak(rounds: int, seed: int) -> Scenario:
    """The plan: the same seed gives the same faults."""
    chance = random.Random(seed)
    faults: list[dict[str, Any]] = []
    for round in range(1, rounds + 1):
        for phase in STEPS:
            if chance.random() < CHANCE:
                faults.append({"round": round, "phase": phase, **_fault(chance)})
    for liar, lie in zip(chance.sample(MORTALS, len(LIES)), LIES, strict=True):
        own_turns = [round for round in range(1, rounds + 1) if (round - 1) % MEMBERS == liar]
        moments = own_turns if lie == "silent-aggregator" and own_turns else range(1, rounds + 1)
        faults.append({"kind": "lie", "name": lie, "peers": [liar], "round": chance.choice(moments)})
    return Scenario.model_validate(
        {
            "name": "soak",
            "shows": f"{MEMBERS} peers, {rounds} rounds, a fault in a fifth of all steps, by the seed {seed}.",
            "federation": "peers/hospitals",
            "members": MEMBERS,
            "confirmations": CONFIRMATIONS,
            "charter": {
                "run": {"rounds": rounds, "seed": seed},
                "algorithm": {"local_epochs": 1},
                "storage": {"keep_rounds": 3},
                "windows": {"enrol_s": 600, "training_s": 14, "receipt_s": 16, "aggregate_s": 10},
            },
            "faults": faults,
            "expect": {"rounds_closed": rounds, "ends_within_s": 600 + 90 * rounds},
        }
    )


def _fault(chance: random.Random) -> dict[str, Any]:
    """One of the catalogue."""
    kind, seconds = chance.choice(KINDS), round(chance.uniform(2, 8), 1)
    match kind:
        case "kill":
            return {"kind": kind, "peers": [chance.choice(MORTALS)], "for_s": seconds}
        case "cut":
            peers = sorted(chance.sample(range(MEMBERS), chance.randint(1, 4)))
            links = chance.choice((["chain"], ["store"], ["chain", "store"]))
            return {"kind": kind, "peers": peers, "links": links, "for_s": seconds}
        case "reorg":
            return {"kind": kind, "depth": chance.randint(1, CONFIRMATIONS)}
        case "chain-down":
            return {"kind": kind, "for_s": seconds}
        case _:
            return {"kind": kind, "peers": [chance.randrange(MEMBERS)], "for_s": seconds}


@dataclass(frozen=True, slots=True)
class Sample:
    """What one surviving peer held when a round had closed: bytes of memory (RSS) and disk, open files, threads."""

    round: int
    peer: int
    rss: int
    disk: int
    kept: int
    files: int
    threads: int


@dataclass(slots=True)
class Samples:
    """One sample a survivor and round, taken as the run goes on (`ScenarioRun`'s `each_look`)."""

    all: list[Sample] = field(default_factory=list)
    nodes: list[tuple[int, int, int]] = field(default_factory=list)
    """(round, RSS of the IPFS nodes and of the chain together, bytes of the IPFS repositories); after a collection."""
    _round: int = 0

    def look(self, state: FederationState, local: LocalFederation, devnet: Devnet) -> None:
        """Sample once when a round has closed."""
        closed = len(state.closed)
        if closed <= self._round:
            return
        self._round = closed
        for peer in SURVIVORS:
            process = local.peers[peer].process
            assert process is not None
            folder = local.peers[peer].folder
            try:
                seen = psutil.Process(process.pid)
                rss, files, threads = seen.memory_info().rss, seen.num_fds(), seen.num_threads()
            except psutil.NoSuchProcess:
                continue
            kept = _bytes_in(folder / "models") + _bytes_in(folder / "results")
            self.all.append(Sample(closed, peer, rss, _bytes_in(folder) - kept, kept, files, threads))
        if closed % COLLECT_EVERY:
            return
        for api in devnet.ipfs_apis:
            # One that is down or cut off collects the next time.
            with contextlib.suppress(FedchainError):
                IpfsStore(api, timeout_s=30, attempts=1).collect()
        repositories = sum(_bytes_in(path) for path in devnet.workdir.glob("ipfs-*") if path.is_dir())
        self.nodes.append((closed, sum(map(_rss_below, (devnet.pids.anvil, *devnet.pids.ipfs))), repositories))

    def of(self, peer: int, what: str, since: int) -> list[tuple[int, float]]:
        """(round, value) of one survivor from a round on."""
        return [(s.round, float(getattr(s, what))) for s in self.all if s.peer == peer and s.round >= since]


def slope(points: list[tuple[int, float]]) -> float:
    """Growth a round: the median of the slopes between all pairs (Theil, Sen), which a few outliers do not move."""
    return statistics.median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x1 != x2)


def _bytes_in(folder: Path) -> int:
    """The sizes of all files below a folder, as far as they are still there."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _rss_below(pid: int) -> int:
    """RSS of a process and of those below it; 0 while it is down."""
    try:
        process = psutil.Process(pid)
        return int(sum(one.memory_info().rss for one in [process, *process.children(recursive=True)])) if pid else 0
    except psutil.NoSuchProcess:
        return 0
