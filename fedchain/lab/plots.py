"""The comparison as pictures, PNG. Needs matplotlib (the `plots` extra), loaded only to draw."""

from __future__ import annotations

import io
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .compare import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEDERATED, CENTRAL, ALONE, TUNED = "#2f6fd0", "#5f6b7a", "#d08c2b", "#7b62c4"
_DPI = 160


def check_plots() -> None:
    """Raise UsageError unless pictures can be drawn; asked before anything long is begun."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "plots need matplotlib: pip install 'fedchain[plots]', or add --no-plots for tables only"
        ) from error


def draw(comparison: Comparison) -> dict[str, bytes]:
    """Every picture by name, as PNG."""
    pictures = {
        "quality": _quality(comparison),
        "members": _members(comparison),
        "cost": _cost(comparison),
    }
    if len(comparison.scales) > 1:
        pictures["scaling"] = _scaling(comparison)
    return {name: _png(figure) for name, figure in pictures.items()}


def _quality(comparison: Comparison) -> Figure:
    """The metric on the test data by round; bands from the worst to the best over seeds, and over members alone."""
    figure, (axes,) = _figure(7.6, 4.2, 1)
    trials = comparison.trials
    for name, colour, style, curves in (
        ("centralised", CENTRAL, "--", [t.centralised.curve for t in trials]),
        ("federated, encrypted", FEDERATED, "-", [t.federated.curve for t in trials]),
        ("each alone (mean, worst to best)", ALONE, "-", [a.curve for t in trials for a in t.alone]),
    ):
        rounds = range(max(len(curve) for curve in curves))
        # A run that met its target keeps its model while the others go on.
        columns = [[curve[min(r, len(curve) - 1)] for curve in curves] for r in rounds]
        axes.plot(rounds, [fmean(c) for c in columns], style, color=colour, label=name, linewidth=2, marker="o", ms=3.5)
        axes.fill_between(rounds, [min(c) for c in columns], [max(c) for c in columns], color=colour, alpha=0.13, lw=0)
    private = comparison.charter.privacy.mode == "records"
    work = "one private step" if private else f"{comparison.charter.algorithm.local_epochs} local epochs"
    axes.set_xlabel(f"rounds of {work} (or as many {'passes' if private else 'epochs'})")
    axes.set_ylabel(f"{comparison.metric} on the test data")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc="lower right" if comparison.higher_is_better else "upper right")
    return figure


def _members(comparison: Comparison) -> Figure:
    """Each member's own held-out data: alone, with the federation's model, with that fine-tuned; bars over seeds."""
    trials, count = comparison.trials, len(comparison.trials[0].samples)
    figure, (axes,) = _figure(min(16, max(7.6, 1.1 * count)), 4.2, 1)
    series = (
        ("each alone", ALONE, [[t.alone[i].own[0] for t in trials] for i in range(count)]),
        ("federated", FEDERATED, [[t.federated.own[i] for t in trials] for i in range(count)]),
        ("federated, then fine-tuned", TUNED, [[t.tuned_own[i] for t in trials] for i in range(count)]),
        ("centralised", CENTRAL, [[t.centralised.own[i] for t in trials] for i in range(count)]),
    )
    for place, (name, colour, values) in enumerate(series):
        at = [i + 0.16 * (place - 1.5) for i in range(count)]
        axes.vlines(at, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.35, linewidth=5)
        axes.plot(at, [fmean(v) for v in values], "o", color=colour, label=name, ms=7)
    axes.set_xticks(range(count), [f"member {i}" for i in range(count)])
    axes.set_ylabel(f"{comparison.metric} on own held-out data")
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8.5)
    return figure


def _cost(comparison: Comparison) -> Figure:
    """What a round costs each member of the first trial: seconds, and bytes beside an unencrypted float32 update."""
    trial = comparison.trials[0]
    figure, (left, right) = _figure(9.6, 3.8, 2)
    at = range(len(trial.costs))
    training, protocol = (
        [getattr(c, name) / trial.rounds for c in trial.costs] for name in ("training_s", "protocol_s")
    )
    left.bar(at, training, 0.6, color=FEDERATED, label="training")
    left.bar(at, protocol, 0.6, bottom=training, color=TUNED, label="encrypt, check, sum, open, decode")
    left.set_ylabel("seconds a round")
    up, down = ([getattr(c, name) / trial.rounds / 1e6 for c in trial.costs] for name in ("bytes_up", "bytes_down"))
    right.bar([i - 0.2 for i in at], up, 0.36, color=FEDERATED, label="up")
    right.bar([i + 0.2 for i in at], down, 0.36, color=CENTRAL, label="down")
    right.axhline(4 * comparison.parameters / 1e6, color=ALONE, linestyle="--", label="the model as float32")
    right.set_ylabel("megabytes a round")
    for axes in (left, right):
        axes.set_xticks(at, [str(i) for i in at])
        axes.set_xlabel("member")
        axes.legend(frameon=False, fontsize=8.5)
        axes.set_ylim(top=axes.get_ylim()[1] * 1.25)
    return figure


def _scaling(comparison: Comparison) -> Figure:
    """By the number of members: the metric, and what a round costs one member."""
    scales = sorted(comparison.scales, key=lambda scale: scale.members)
    at = [scale.members for scale in scales]
    figure, (quality, seconds, size) = _figure(11, 3.6, 3)
    _line(quality, at, [s.federated for s in scales], FEDERATED, "federated")
    _line(quality, at, [s.alone for s in scales], ALONE, "each alone, mean")
    quality.set_ylabel(f"{comparison.metric} on the test data")
    _line(seconds, at, [s.training_s for s in scales], FEDERATED, "training")
    _line(seconds, at, [s.protocol_s for s in scales], TUNED, "protocol")
    seconds.set_ylabel("seconds a member and round")
    _line(size, at, [s.bytes_up / 1e6 for s in scales], FEDERATED, "up")
    _line(size, at, [s.bytes_down / 1e6 for s in scales], CENTRAL, "down")
    size.set_ylabel("megabytes a member and round")
    for axes in (quality, seconds, size):
        axes.set_xlabel("members")
        axes.set_xticks(at)
        axes.legend(frameon=False, fontsize=8.5)
    for axes in (seconds, size):
        axes.set_ylim(bottom=0)
    return figure


def _line(axes: Axes, at: Sequence[int], values: Sequence[float], colour: str, name: str) -> None:
    axes.plot(at, values, color=colour, label=name, linewidth=2, marker="o", ms=4)


def _figure(width: float, height: float, panels: int) -> tuple[Figure, Any]:
    """A figure without pyplot: no window system, and nothing global that stays behind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color="#e1e5ea", linewidth=0.8)
        each.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    # No creation date and no version: the same comparison gives the same file.
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()
