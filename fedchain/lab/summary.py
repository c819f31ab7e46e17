"""The comparison as rows: what the terminal, the page and the JSON file show, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from .compare import Comparison, Outcome
from .exposure import exposures

FORMAT = 1
"""The version of the JSON form."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way of training, over all seeds. `spread` is the standard deviation of `test` (None for one seed).

    `own` and `worst`: the metric on members' own held-out data, mean and worst member. `moved`: bytes that left their
    owner, of all members in one run; for centralised training the raw rows. None where nothing was measured.
    """

    way: str
    test: float
    spread: float | None
    own: float
    worst: float
    auc: float | None
    seconds: float | None
    moved: float


def rows_of(comparison: Comparison) -> tuple[Row, ...]:
    """The ways, best informed first."""
    trials = comparison.trials
    rows = [
        _row(comparison, "centralised", [[t.centralised] for t in trials], fmean(t.raw_bytes for t in trials)),
        _row(
            comparison,
            "federated, encrypted",
            [[t.federated] for t in trials],
            fmean(sum(cost.bytes_up for cost in t.costs) for t in trials),
        ),
        _tuned(comparison),
        _row(comparison, "each alone (mean)", [list(t.alone) for t in trials], 0.0),
    ]
    pick = max if comparison.higher_is_better else min
    best = [[pick(t.alone, key=lambda outcome: outcome.test[comparison.metric])] for t in trials]
    rows.append(_row(comparison, "the best alone", best, 0.0))
    return tuple(rows)


def headline(comparison: Comparison) -> str:
    """The outcome in a sentence."""
    central, federated, _, alone, best = rows_of(comparison)
    gap = abs(central.test - federated.test)
    side = "of" if gap < 0.0005 else "short of" if _is_better(comparison, central, federated) else "beyond"
    place = "the same as centralised training" if gap < 0.0005 else f"{gap:.3f} {side} centralised training"
    return (
        f"{comparison.metric} {federated.test:.3f}, {place} ({central.test:.3f});"
        f" each alone {alone.test:.3f} on average, the best {best.test:.3f}"
    )


def entries(comparison: Comparison) -> dict[str, Any]:
    """Everything for machines."""
    charter = comparison.charter
    return {
        "format": FORMAT,
        "federation": charter.federation.name,
        "task_sha256": charter.task_sha256,
        "charter": charter.model_dump(mode="json"),
        "metric": comparison.metric,
        "higher_is_better": comparison.higher_is_better,
        "parameters": comparison.parameters,
        "headline": headline(comparison),
        "rows": [asdict(row) for row in rows_of(comparison)],
        "exposures": [list(row) for row in exposures(charter)],
        "trials": [asdict(trial) for trial in comparison.trials],
        "scales": [asdict(scale) for scale in comparison.scales],
    }


def _row(comparison: Comparison, way: str, trials: Sequence[Sequence[Outcome]], moved: float) -> Row:
    """One way: outcomes by seed; several of one seed (each alone) are averaged before seeds are."""
    test = [fmean(outcome.test[comparison.metric] for outcome in outcomes) for outcomes in trials]
    own = [[value for outcome in outcomes for value in outcome.own] for outcomes in trials]
    return Row(
        way=way,
        test=fmean(test),
        spread=stdev(test) if len(test) > 1 else None,
        own=fmean(fmean(values) for values in own),
        worst=fmean(_worst(comparison, values) for values in own),
        auc=fmean(fmean(outcome.auc for outcome in outcomes) for outcomes in trials),
        seconds=fmean(sum(outcome.seconds for outcome in outcomes) for outcomes in trials),
        moved=moved,
    )


def _tuned(comparison: Comparison) -> Row:
    trials = comparison.trials
    test = [fmean(trial.tuned_test) for trial in trials]
    return Row(
        way="federated, then fine-tuned by each",
        test=fmean(test),
        spread=stdev(test) if len(test) > 1 else None,
        own=fmean(fmean(trial.tuned_own) for trial in trials),
        worst=fmean(_worst(comparison, trial.tuned_own) for trial in trials),
        auc=None,
        seconds=None,
        moved=fmean(sum(cost.bytes_up for cost in trial.costs) for trial in trials),
    )


def _worst(comparison: Comparison, values: Sequence[float]) -> float:
    return min(values) if comparison.higher_is_better else max(values)


def _is_better(comparison: Comparison, one: Row, other: Row) -> bool:
    return one.test > other.test if comparison.higher_is_better else one.test < other.test
