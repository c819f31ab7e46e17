"""What a peer costs and where it stands: a line of figures a round, and the same and more as Prometheus metrics.

Nothing is sent anywhere: `exposition` serves them to whoever asks on this machine. No figure is secret: they are
counts, sizes and times of what the chain tells anyway, or of this process.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..ports import ChainWriter, Store
from ..protocol.actions import Action
from ..protocol.ids import Address, Index
from ..protocol.phase import Phase, aggregator_of, live_attempt, phase_of
from ..protocol.state import FederationState

STEPS = ("train", "encrypt", "commit", "receipt", "aggregate", "open", "close")
# A second series for each counter, saying when it began, which Prometheus itself does not read.
disable_created_metrics()  # type: ignore[no-untyped-call]

_BUCKETS_S = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


class Meter:
    """Collects the figures of the round under way, writes them when it closes, and keeps the metrics of the process."""

    def __init__(self, path: Path, store: Store) -> None:
        self._path = path
        self._store = store
        self.registry = CollectorRegistry()
        """This peer's metrics, and nobody else's: several peers may live in one process."""
        to = self.registry
        self._step_seconds = Histogram(
            "fedchain_step_seconds", "Wall-clock time of a step.", ["step"], buckets=_BUCKETS_S, registry=to
        )
        self._statements = Counter(
            "fedchain_statements", "Statements made on chain, and those it refused.", ["action", "outcome"], registry=to
        )
        self._errors = Counter("fedchain_errors", "Failures that the peer tried again after.", ["kind"], registry=to)
        phases = [phase.name.lower() for phase in Phase]
        self._phase = Enum("fedchain_phase", "The phase of the round under way.", states=phases, registry=to)
        self._round = Gauge("fedchain_round", "The round under way, or the last one.", registry=to)
        self._closed = Gauge("fedchain_rounds_closed", "Rounds that closed.", registry=to)
        self._due = Gauge("fedchain_duties_waiting", "What is due from this member and not yet done.", registry=to)
        self._strikes = Gauge("fedchain_strikes", "Duties that this member missed, as the chain counts.", registry=to)
        self._slashed = Gauge("fedchain_slashed", "1 where this member lost its bond.", registry=to)
        for step in STEPS:
            self._step_seconds.labels(step)
        to.register(_Sizes(store, path.with_name("journal.jsonl")))
        self.last_act: tuple[str, float] | None = None
        """The last statement that was made, and when (local clock, seconds since 1970)."""
        self._begin()

    def _begin(self) -> None:
        self._seconds = dict.fromkeys(STEPS, 0.0)
        self._notes: dict[str, Any] = {}
        self._up, self._down = self._store.bytes_up, self._store.bytes_down

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the wall-clock time of the block to one step of this round."""
        start = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - start
            self._seconds[name] += took
            self._step_seconds.labels(name).observe(took)

    def note(self, **facts: Any) -> None:
        """Remember facts of this round (loss, metrics) for its line."""
        self._notes |= facts

    def close(self, round: int, attempt: int) -> None:
        """Write the round's line and begin the next."""
        line = {
            "round": round,
            "attempt": attempt,
            "upload_bytes": self._store.bytes_up - self._up,
            "download_bytes": self._store.bytes_down - self._down,
            "seconds": {name: round_to_ms(s) for name, s in self._seconds.items()},
            **self._notes,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
        self._begin()

    def look(self, state: FederationState, now: int, me: Index) -> None:
        """Note where the federation stands, as this peer sees it."""
        self._phase.state(phase_of(state, state.round, now).name.lower())
        self._round.set(min(state.round, state.terms.rounds))
        self._closed.set(len(state.closed))
        self._due.set(len(duties_of(state, now, me)))
        self._strikes.set(state.strikes.get(me, 0))
        self._slashed.set(state.slashed >> me & 1)

    def failed(self, error: Exception) -> None:
        """Count a failure by its kind."""
        self._errors.labels(type(error).__name__).inc()

    def counted(self, sender: ChainWriter, mined: Callable[[bytes], None] = lambda transaction: None) -> ChainWriter:
        """The same sender, its statements counted; `mined` is told each transaction that made one."""
        return _Counted(self, sender, mined)

    def stated(self, action: Action, outcome: str) -> None:
        """Count a statement."""
        name = type(action).__name__
        self._statements.labels(name, outcome).inc()
        if outcome == "made":
            self.last_act = name, time.time()


def duties_of(state: FederationState, now: int, me: Index) -> tuple[str, ...]:
    """What is due from a member at this time and not yet said on chain, in words."""
    due = [f"show a page of round {d.page.round}" for d in state.demands.values() if d.open and d.page.index == me]
    attempt, phase = live_attempt(state, now), phase_of(state, state.round, now)
    if attempt is None or not state.heard & attempt.standing & 1 << me:
        return tuple(due)
    match phase:
        case Phase.TRAINING if me not in attempt.commits:
            due.append("commit an update")
        case Phase.RECEIPTS if me not in attempt.receipts:
            due.append("post a receipt")
        case Phase.AGGREGATING if aggregator_of(state, attempt, now) == me:
            due.append("post the sum")
        case Phase.OPENING if me not in attempt.openings:
            due.append("publish an opening")
        case _:
            pass
    return tuple(due)


class _Counted:
    """A sender whose statements a meter counts; implements `ports.ChainWriter`."""

    def __init__(self, meter: Meter, sender: ChainWriter, mined: Callable[[bytes], None]) -> None:
        self._meter = meter
        self._sender = sender
        self._mined = mined

    @property
    def address(self) -> Address:
        """The account."""
        return self._sender.address

    def submit(self, key: str, action: Action) -> bytes:
        """Send one action, as the sender does."""
        outcome = "failed"
        try:
            transaction = self._sender.submit(key, action)
            outcome = "made"
        finally:
            self._meter.stated(action, outcome)
        self._mined(transaction)
        return transaction


class _Sizes(Collector):
    """What is read off when somebody asks: bytes moved, and the journal's size."""

    def __init__(self, store: Store, journal: Path) -> None:
        self._store = store
        self._journal = journal

    def collect(self) -> Iterator[Metric]:
        moved = CounterMetricFamily("fedchain_store_bytes", "Bytes of objects put and got.", labels=["direction"])
        moved.add_metric(["up"], self._store.bytes_up)
        moved.add_metric(["down"], self._store.bytes_down)
        yield moved
        with suppress(OSError):
            size = self._journal.stat().st_size
            yield GaugeMetricFamily("fedchain_journal_bytes", "Size of the journal.", value=size)


def round_to_ms(seconds: float) -> float:
    """Seconds to the millisecond."""
    return round(seconds, 3)
