"""A whole run in one process: every member's real node, on a chain and a store in memory.

The peers are `fedchain.peer`, unchanged: they train, encrypt, deal, vouch, sum, open, decode and check each other. What
is missing is processes, an EVM, IPFS, gas and waiting. The same charter, task and members give the same models as a run
on the real parts.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import structlog

from ..chain.deployment import terms_of
from ..crypto import generate_encryption_key
from ..errors import FedchainError, UsageError
from ..learn import LocalData, Machine, Task, first_model, local_data_of
from ..peer.journal import Journal
from ..peer.kept import KeptState
from ..peer.start import Standing, enrol, run_peer
from ..protocol.charter import Charter
from ..protocol.ids import Address, Index
from ..protocol.state import FederationState
from ..protocol.update_format import fetched_model_bound
from .memory import MemoryChain, MemoryKeys, MemoryStore, Seat, Stopped

Meter = tuple[Mapping[str, Any], ...]
"""What one member metered: one entry a round (`fedchain.peer.meter`)."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run. `models` are stored models: the first one, then one a round. `datas` are the members' own data.

    `kept[i][r]` is what member i held back of itself after round r (local tensors; None where there is nothing).
    `busy_s` are the seconds that each member worked, `seconds` those of the whole run.
    """

    charter: Charter
    state: FederationState
    models: tuple[bytes, ...]
    meters: tuple[Meter, ...]
    datas: tuple[LocalData, ...]
    kept: tuple[tuple[bytes | None, ...], ...]
    busy_s: tuple[float, ...]
    seconds: float


def with_invented_members(charter: Charter, count: int) -> Charter:
    """The charter with so many founders that nobody has the keys of: for experiments."""
    return charter.with_members(tuple(Address(f"0x{i + 1:040x}") for i in range(count)))


def federate(
    charter: Charter,
    task: Task,
    *,
    start: Path | None = None,
    engine: Literal["numpy", "tenseal"] = "tenseal",
    machines: Mapping[int, Machine] = MappingProxyType({}),
) -> Run:
    """Run a federation from its founding to its end; its members are those that the charter names.

    Deterministic as far as training is: `run.seed` seeds every member's training and rounding, as in `fedchain demo`.
    `start`: the weights that the charter begins with, where it names any (`learn.read_start`). `machines`: what members
    compute with that have something else than one thread of a CPU; such runs differ in their last bits.
    Raises what the first member that failed raised, UsageError for a run that closed no round.
    """
    charter.check_complete()
    began = time.perf_counter()
    count, seed = len(charter.federation.members), charter.run.seed
    datas = tuple(local_data_of(task, i, count, seed) for i in range(count))
    with tempfile.TemporaryDirectory(prefix="fedchain-lab-") as name:
        folder = Path(name)
        (folder / "objects").mkdir()
        stores = _stores(folder / "objects", count)
        model = first_model(task, charter, start)
        terms = terms_of(charter, stores[0].put(charter.canonical()), model, stores[0].put(model))
        chain = MemoryChain(terms, tuple(Address(member) for member in charter.federation.members))
        with ThreadPoolExecutor(max_workers=count, thread_name_prefix="member") as pool:
            futures, kept = [], [_Kept(folder / f"peer-{i}", Index(i)) for i in range(count)]
            for i in range(count):
                standing = Standing(me=Index(i), charter=charter, task=task, data=datas[i])
                futures.append(pool.submit(_live, standing, chain, stores[i], kept[i], engine, machines.get(i)))
            try:
                _first_failure(futures)
            finally:
                chain.turns.stop()
        if not chain.state.closed:
            raise UsageError(
                "the run ended without a round: no model follows from its sums; a smaller outer.learning_rate,"
                " update.clip_value or privacy.clip helps"
            )
        models = [model]
        for attempt in chain.state.closed.values():
            assert attempt.result is not None
            models.append(stores[0].get(attempt.result.model_cid, fetched_model_bound(terms.model_size, charter)))
        meters = tuple(read_meter(folder / f"peer-{i}" / "rounds.jsonl") for i in range(count))
    return Run(
        charter=charter,
        state=chain.state,
        models=tuple(models),
        meters=meters,
        datas=datas,
        kept=tuple((None, *own.rounds) for own in kept),
        busy_s=tuple(chain.turns.busy_s),
        seconds=time.perf_counter() - began,
    )


def read_meter(path: Path) -> Meter:
    """The entries of a meter's file; a line that kill -9 cut short is left out."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            entries.append(json.loads(line))
    return tuple(entries)


def _stores(folder: Path, count: int) -> list[MemoryStore]:
    pins: dict[Any, set[int]] = {}
    return [MemoryStore(folder, pins, i) for i in range(count)]


class _Kept:
    """Notes what a member kept after each round, before it lets go of it."""

    def __init__(self, folder: Path, me: Index) -> None:
        self.folder = folder
        self.rounds: list[bytes | None] = []
        self._state = KeptState(folder / "kept", me)

    def watch(self, state: FederationState, now: int) -> None:
        for round in range(len(self.rounds) + 1, len(state.closed) + 1):
            self.rounds.append(self._state.latest(state, round + 1))


def _live(
    standing: Standing,
    chain: MemoryChain,
    store: MemoryStore,
    kept: _Kept,
    engine: Literal["numpy", "tenseal"],
    machine: Machine | None,
) -> None:
    """One member's life, in a thread of its own that runs only in its turns."""
    finished, folder = False, kept.folder
    try:
        chain.turns.wait(standing.me)
        seat = Seat(chain, standing.me)
        private, public = generate_encryption_key()
        folder.mkdir()
        enrol(chain.state, standing, seat, public)
        with Journal(folder / "journal.jsonl") as journal:
            run_peer(
                standing=standing,
                state=chain.state,
                address=seat.address,
                keys=MemoryKeys({public: private}),
                stay=False,
                reader=seat,
                sender=seat,
                store=store,
                journal=journal,
                folder=folder,
                seed=standing.charter.run.seed,
                engine=engine,
                machine=machine,
                log=structlog.wrap_logger(structlog.ReturnLogger(), processors=[], wrapper_class=structlog.BoundLogger),
                poll_s=0,
                watch=kept.watch,
            )
        finished = True
    finally:
        if not finished:
            chain.turns.stop()
        chain.turns.leave(standing.me)


def _first_failure(futures: Sequence[Future[None]]) -> None:
    """Wait for all; raise what the member that failed raised, not what its end did to the others."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in errors:
        if not isinstance(error, Stopped):
            raise error
    if errors:
        raise FedchainError("the experiment was stopped")
