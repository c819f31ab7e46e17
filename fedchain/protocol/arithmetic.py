"""From a float update to integers that can be summed under encryption, and from the sum back to a model.

Every peer and every auditor computes `average` and `next_model` and must get the same bits. They do, because there is
nothing to reorder: integers below 2^53 are exact in float64, the one scale factor comes from Python's IEEE-754 scalars,
and the rest is elementwise numpy: one addition, multiplication or conversion per coordinate, each correctly rounded
(to nearest, ties to even) on every CPU. No reduction, dot product or fused multiply-add occurs. `quantise` runs on one
peer only and need not be reproducible elsewhere.

Headroom: with `bits` = 16 a value is in [1, 2^16 − 1], so a sum over 64 members stays below 2^22, its field's size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import MalformedObject, UsageError
from .charter import Update
from .ids import Index
from .model import Vector
from .state import Attempt


def weight_of(samples: int, settings: Update) -> int:
    """w_i: the weight that a member with so many samples registers, at least 1 and capped by the charter."""
    if samples < 1:
        raise UsageError("a member without samples has no weight: it has nothing to train on")
    return min(samples, settings.weight_cap) if settings.weight_cap else min(samples, 2**32 - 1)


def counted_weights(attempt: Attempt, settings: Update) -> dict[Index, int]:
    """w_i of everyone who counts in this attempt: what it registered, capped. Whoever registered more gains nothing."""
    return {index: weight_of(member.weight, settings) for index, member in attempt.members.items()}


def offset_of(settings: Update) -> int:
    """2^(bits−1): what stands for zero, so that every value is positive."""
    return 1 << (settings.bits - 1)


def step_of(settings: Update) -> float:
    """What one unit is worth: clip_value / (2^(bits−1) − 1)."""
    return settings.clip_value / (offset_of(settings) - 1)


def quantise(
    update: NDArray[np.floating], *, weight: int, max_weight: int, settings: Update, random: np.random.Generator
) -> NDArray[np.int64]:
    """The update as integers, (d,) int64 in [1, 2^bits − 1]; the trainer runs it (P1).

    1. Clip the L2 norm to clip_norm (0: leave it). 2. Weight by w_i / w_max. 3. Clip each coordinate to ±clip_value.
    4. Divide by the step and round up or down at random, so that the expectation is exact. 5. Add the offset.
    Raises UsageError for an update with values that are not finite: the training diverged.
    """
    if not 1 <= weight <= max_weight:
        raise ValueError(f"weight {weight} must be 1 to max_weight {max_weight}")
    units = _weighted(update, weight, max_weight, settings)
    units /= step_of(settings)
    # The division may land an ulp beyond the last unit; clip again in units, so that the range holds exactly.
    top = offset_of(settings) - 1
    np.clip(units, -top, top, out=units)
    down = np.floor(units)
    # Compare the fraction instead of flooring units + u: that sum would round up at the top of the range.
    up = random.random(units.shape) < units - down
    values: NDArray[np.int64] = down.astype(np.int64) + up + offset_of(settings)
    return values


def clipped_fraction(update: NDArray[np.floating], *, weight: int, max_weight: int, settings: Update) -> float:
    """Which part of the coordinates, in [0, 1], `quantise` cuts at ±clip_value: more than a few in a thousand is a
    charter whose clip_value is too small."""
    unclipped = _weighted(update, weight, max_weight, settings, clip=False)
    return float(np.mean(np.abs(unclipped) > settings.clip_value))


def average(
    sums: NDArray[np.integer], *, participants: int, total_weight: int, max_weight: int, settings: Update
) -> NDArray[np.float64]:
    """The weighted mean of the participants' updates, (d,) float64, from the exact sums ΣM, (d,) integers (P5).

    step · (ΣM − |U|·2^(bits−1)) · w_max / Σ_{i∈U} w_i. Bit-identical everywhere: see the module's head.
    Raises MalformedObject when a sum is outside what |U| honest values can give.
    """
    if not (participants >= 1 and 1 <= total_weight <= participants * max_weight):
        raise ValueError(f"{participants} participants cannot weigh {total_weight} with at most {max_weight} each")
    offset = offset_of(settings)
    least, most = participants, participants * (2 * offset - 1)
    lowest, highest = int(sums.min()), int(sums.max())
    if lowest < least or highest > most:
        raise MalformedObject("sum: range", expected=f"{least} to {most}", got=f"{lowest} to {highest}")
    centred = (sums.astype(np.int64) - participants * offset).astype(np.float64)
    mean: NDArray[np.float64] = centred * (step_of(settings) * max_weight / total_weight)
    return mean


def next_model(base: Vector, average: NDArray[np.float64]) -> Vector:
    """The new global model, (d,) float32: base + average in float64, rounded once. Bit-identical everywhere.

    Raises MalformedObject when a value leaves float32's range: such a model is never stored.
    """
    if base.shape != average.shape or base.dtype != np.float32 or average.dtype != np.float64:
        raise ValueError(f"{base.dtype} {base.shape} and {average.dtype} {average.shape} do not add to a model")
    exact = base.astype(np.float64) + average
    if not (np.abs(exact) <= np.finfo(np.float32).max).all():
        raise MalformedObject("model: values", expected="numbers within float32", got="a value beyond its range")
    return exact.astype(np.float32)


def _weighted(
    update: NDArray[np.floating], weight: int, max_weight: int, settings: Update, *, clip: bool = True
) -> NDArray[np.float64]:
    """Steps 1 to 3 of `quantise`, (d,) float64, a fresh array."""
    weighted = update.astype(np.float64)
    if not np.isfinite(weighted).all():
        count = int(np.count_nonzero(~np.isfinite(weighted)))
        raise UsageError(
            f"the update has {count} values that are NaN or infinite: the training diverged "
            "(a smaller learning rate in the task's optimizer helps)"
        )
    factor = weight / max_weight
    if settings.clip_norm:
        norm = float(np.sqrt(np.square(weighted).sum()))
        if norm > settings.clip_norm:
            factor *= settings.clip_norm / norm
    weighted *= factor
    if clip:
        np.clip(weighted, -settings.clip_value, settings.clip_value, out=weighted)
    return weighted
