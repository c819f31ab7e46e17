"""From a float update to integers that can be summed under encryption, and from the sum back to a model.

Every peer and every auditor computes `average` and `next_model` and must get the same bits. They do, because there is
nothing to reorder: integers below 2^53 are exact in float64, the one scale factor comes from Python's IEEE-754 scalars,
and the rest is elementwise numpy: one addition, multiplication or conversion per coordinate, each correctly rounded
(to nearest, ties to even) on every CPU. No reduction, dot product or fused multiply-add occurs. `quantise` runs on one
peer only and need not be reproducible elsewhere. A rotation is turned back on the integers, before any float appears.

How many values there are, how large, and how they stand in what is encrypted, says `update_format`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import MalformedObject, UsageError
from .charter import Update
from .ids import Index
from .model import Vector
from .parts import length_of, parts_of
from .rotation import root_of_block, rotate_in_place, turn_back_in_place
from .state import Attempt
from .update_format import UpdateFormat


class SumOutOfRange(MalformedObject):
    """A sum that no honest values give: some participant's values were out of range, and nothing shows whose."""


def weight_of(samples: int, settings: Update) -> int:
    """w_i: the weight that a member with so many samples registers, at least 1 and capped by the charter."""
    if samples < 1:
        raise UsageError("a member without samples has no weight: it has nothing to train on")
    return min(samples, settings.weight_cap) if settings.weight_cap else min(samples, 2**32 - 1)


def counted_weights(attempt: Attempt, settings: Update) -> dict[Index, int]:
    """w_i of everyone who counts in this attempt: what it registered, capped. Whoever registered more gains nothing."""
    return {index: weight_of(member.weight, settings) for index, member in attempt.members.items()}


def quantise(
    update: NDArray[np.floating],
    *,
    weight: int,
    max_weight: int,
    form: UpdateFormat,
    rotation: bytes,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """The update as integers, (form.values,) int64 in [0, 2·form.steps]; the trainer runs it (P1).

    1. Take what the charter's mask sends in the attempt with the seed `rotation`; clip its L2 norm to clip_norm (0:
    leave it). 2. Weight by w_i / w_max. 3. Rotate by the same seed if the charter says so. 4. Clip each value to
    ±clip_value. 5. Divide by the step and round up or down at random, so that the expectation is exact. 6. Add the
    offset: `form.steps` stands for zero.
    Raises UsageError for an update with values that are not finite: the training diverged.
    """
    if not 1 <= weight <= max_weight:
        raise ValueError(f"weight {weight} must be 1 to max_weight {max_weight}")
    if form.noise is not None:
        raise ValueError("the charter asks for noise: `private_values` makes such values")
    units = _weighted(update, weight, max_weight, form, rotation)
    units /= form.step
    # The division may land an ulp beyond the last unit: clip in units, so that the range holds exactly.
    np.clip(units, -form.steps, form.steps, out=units)
    # The integers take the floats' own place: of a large model there is no room for many copies.
    values: NDArray[np.int64] = units.view(np.int64)
    for some in parts_of(units.size):
        down = np.floor(units[some])
        # Compare the fraction instead of flooring units + u: that sum would round up at the top of the range.
        up = random.random(down.shape) < units[some] - down
        values[some] = down.astype(np.int64) + up + form.steps
    return values


def clipped_fraction(
    update: NDArray[np.floating], *, weight: int, max_weight: int, form: UpdateFormat, rotation: bytes
) -> float:
    """Which part of the values, in [0, 1], `quantise` cuts at ±clip_value: more than a few in a thousand is a charter
    whose clip_value is too small."""
    unclipped = _weighted(update, weight, max_weight, form, rotation)
    most = form.settings.clip_value
    cut = sum(int(np.count_nonzero(np.abs(unclipped[some]) > most)) for some in parts_of(form.values))
    return cut / form.values


def average(
    sums: NDArray[np.integer],
    *,
    participants: int,
    total_weight: int,
    max_weight: int,
    form: UpdateFormat,
    rotation: bytes,
) -> NDArray[np.float64]:
    """The weighted mean of the participants' updates, (form.size,) float64, from the values' exact sums ΣM (P5).

    step · (ΣM − |U|·steps) · w_max / Σ_{i∈U} w_i, turned back if it was rotated, and 0 for what a mask left out;
    where noise is over records, whose sum is not weighted, w_max is 1 and a weight is a number of
    records. Bit-identical everywhere: see the module's head. Raises SumOutOfRange when a sum is outside what |U|
    honest values can give.
    """
    if not (participants >= 1 and 1 <= total_weight <= participants * max_weight):
        raise ValueError(f"{participants} participants cannot weigh {total_weight} with at most {max_weight} each")
    if sums.shape != (form.values,):
        raise ValueError(f"an update of this federation has {form.values} values, not {sums.shape}")
    if participants > form.members:
        raise MalformedObject("sum: participants", expected=f"at most {form.members}", got=str(participants))
    most = 2 * participants * form.steps
    lowest, highest = int(sums.min()), int(sums.max())
    if lowest < 0 or highest > most:
        raise SumOutOfRange("sum: range", expected=f"0 to {most}", got=f"{lowest} to {highest}")
    centred = sums.astype(np.int64)
    centred -= participants * form.steps
    if form.block > 1:
        turn_back_in_place(centred, form.block, rotation)
    largest = 1 if form.noise is not None and form.noise.by_records else max_weight
    scale = form.step * largest / total_weight / root_of_block(form.block)
    # The floats take the integers' own place.
    mean: NDArray[np.float64] = centred.view(np.float64)
    for some in parts_of(form.sent):
        mean[some] = centred[some].astype(np.float64) * scale
    if form.sent == form.size:
        return mean[: form.size]
    every = np.zeros(form.size)
    every[form.places(rotation)] = mean[: form.sent]
    return every


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
    update: NDArray[np.floating], weight: int, max_weight: int, form: UpdateFormat, rotation: bytes
) -> NDArray[np.float64]:
    """Steps 1 to 3 of `quantise`, (form.values,) float64, a fresh array."""
    if update.shape != (form.size,):
        raise ValueError(f"an update of this federation has {form.size} parameters, not {update.shape}")
    values = np.zeros(form.values)
    weighted = values[: form.sent]
    weighted[:] = update[form.places(rotation)]
    if not np.isfinite(weighted).all():
        count = int(np.count_nonzero(~np.isfinite(weighted)))
        raise UsageError(
            f"the update has {count} values that are NaN or infinite: the training diverged "
            "(a smaller learning rate in the task's optimizer helps)"
        )
    factor = weight / max_weight
    if form.settings.clip_norm:
        norm = length_of(weighted)
        if norm > form.settings.clip_norm:
            factor *= form.settings.clip_norm / norm
    weighted *= factor
    if form.block > 1:
        rotate_in_place(values, form.block, rotation)
    return values
