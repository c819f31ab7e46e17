"""Whom the federation's model serves how well: each member on its own held-out data, the worst, the spread."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ..learn import Task, evaluate, local_data_of
from ..peer.kept import KeptState
from ..protocol.charter import Charter
from ..protocol.ids import Index
from ..protocol.state import FederationState


@dataclass(frozen=True, slots=True)
class Fairness:
    """For each member: the task's metric on its own held-out data, in how many rounds it took part, its local steps."""

    metric: str
    higher_is_better: bool
    own: tuple[float, ...]
    rounds: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def worst(self) -> float:
        """What the member gets that is served worst."""
        return min(self.own) if self.higher_is_better else max(self.own)

    @property
    def spread(self) -> float:
        """Between the member served best and the one served worst."""
        return max(self.own) - min(self.own)

    def entries(self) -> dict[str, Any]:
        """For machines."""
        return {
            "metric": self.metric,
            "own": list(self.own),
            "worst": self.worst,
            "mean": statistics.fmean(self.own),
            "spread": self.spread,
            "rounds": list(self.rounds),
            "steps": list(self.steps),
        }


def kept_of(folders: Sequence[Path], state: FederationState, after_round: int) -> list[bytes | None]:
    """What each peer on this machine kept of the rounds up to `after_round`."""
    return [KeptState(f / "kept", Index(i)).latest(state, after_round + 1) for i, f in enumerate(folders)]


def metrics_of_round(
    charter: Charter, task: Task, model: bytes, kept: Sequence[bytes | None], test_data: Any
) -> dict[str, float]:
    """The metrics of a round's model on the test data; the mean over the members' models where tensors stay local."""
    patterns = charter.algorithm.local_tensors
    if not patterns:
        return evaluate(task, model, test_data)
    each = [evaluate(task, model, test_data, local_tensors=patterns, kept=own) for own in kept]
    return {name: statistics.fmean(metrics[name] for metrics in each) for name in each[0]}


def fairness_of(
    charter: Charter,
    task: Task,
    state: FederationState,
    model: bytes,
    kept: Sequence[bytes | None],
    meters: Sequence[Sequence[Mapping[str, Any]]],
) -> Fairness:
    """The final model on every member's own held-out data: only where all of them are on this machine."""
    members = len(charter.federation.members)
    patterns = charter.algorithm.local_tensors
    datas = [local_data_of(task, i, members, charter.run.seed) for i in range(members)]
    sums = [attempt.aggregate.participants for attempt in state.closed.values() if attempt.aggregate is not None]
    return Fairness(
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        own=tuple(
            evaluate(task, model, data.validation, local_tensors=patterns, kept=own)[task.metric]
            for data, own in zip(datas, kept, strict=True)
        ),
        rounds=tuple(sum(participants >> i & 1 for participants in sums) for i in range(members)),
        steps=tuple(sum(int(line.get("steps", 0)) for line in peer) for peer in meters),
    )


def fairness_table(fairness: Fairness) -> Table:
    """For people."""
    table = Table(title=f"{fairness.metric} on each member's own held-out data", title_justify="left")
    for column in ("peer", fairness.metric, "in the sum of", "local steps"):
        table.add_column(column, justify="right", header_style="bold")
    for i, (own, rounds) in enumerate(zip(fairness.own, fairness.rounds, strict=True)):
        steps = f"{fairness.steps[i]:,}" if i < len(fairness.steps) else "?"
        table.add_row(str(i), f"{own:.4f}", f"{rounds} rounds", steps)
    table.add_section()
    table.add_row("worst", f"{fairness.worst:.4f}", "", "")
    table.add_row("spread", f"{fairness.spread:.4f}", "", "")
    return table
