"""From a vector to integers of bounded length, and from integers to noisy values: what a private member sends.

Noise is added to integers and only to integers, so that no bit pattern of a float can tell a value from its noise
(Mironov 2012, doi:10.1145/2382196.2382264). The noise itself comes in from outside (`crypto.skellam`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .noising import Noise
from .parts import length_of, parts_of
from .rotation import rotate_in_place
from .update_format import UpdateFormat

MOST_TRIES = 1000
"""Rounding keeps to its bound at least two times in five; failing so often in a row is our bug."""


def bounded_units(
    vector: NDArray[np.floating],
    *,
    form: UpdateFormat,
    rotation: bytes,
    random: np.random.Generator,
    factor: float = 1.0,
) -> NDArray[np.int64]:
    """One record's or one member's vector in units, (form.values,) int64, of length at most `form.noise.units`.

    1. Take what the charter's mask sends, and cut its L2 norm to the charter's clip. 2. Multiply by `factor`, at most
    1: a member's weight. 3. Rotate, where the charter says so. 4. Round up or down at random, anew until the length
    keeps to the bound: it is integers that are measured, so the bound holds whatever floats did before. Raises
    UsageError for values that are not finite.
    """
    noise = noise_in(form)
    if vector.shape != (form.size,):
        raise ValueError(f"an update of this federation has {form.size} parameters, not {vector.shape}")
    values = np.zeros(form.values)
    exact = values[: form.sent]
    exact[:] = vector[form.places(rotation)]
    norm = length_of(exact)
    if not np.isfinite(norm):
        raise UsageError("a gradient has values that are NaN or infinite: a smaller outer.learning_rate helps")
    if norm > 0:
        exact *= factor * min(noise.clip_units / norm, 1 / noise.clip_unit)
    if form.block > 1:
        rotate_in_place(values, form.block, rotation)
    rounded = np.empty(form.values, dtype=np.int64)
    for _ in range(MOST_TRIES):
        square = 0
        for some in parts_of(form.values):
            down = np.floor(values[some])
            rounded[some] = down
            rounded[some] += random.random(down.shape) < values[some] - down
            square += int(np.dot(rounded[some], rounded[some]))
        if square <= noise.units * noise.units:
            return rounded
    raise ValueError("rounding at random never kept to its bound; was the vector cut before?")


def noisy_values(units: NDArray[np.int64], noise: NDArray[np.int64], form: UpdateFormat) -> NDArray[np.int64]:
    """The values to encrypt, (form.values,) int64 in [0, 2·steps]: `units` cut to what the noise leaves, noise, offset.

    Cutting each value moves two vectors never farther apart, so it costs no privacy. Noise beyond its reach is our bug:
    a noisy value is never cut, for a sum of cut values would be no function of the noisy sum.
    """
    reach = noise_in(form).reach
    if noise.shape != (form.values,) or units.shape != (form.values,):
        raise ValueError(f"an update of this federation has {form.values} values, not {units.shape} and {noise.shape}")
    if max(-int(noise.min()), int(noise.max())) > reach:
        raise ValueError(f"noise beyond its reach of {reach} units")
    room = form.steps - reach
    values: NDArray[np.int64] = np.clip(units, -room, room)
    values += noise
    values += form.steps
    return values


def cut_fraction(units: NDArray[np.int64], form: UpdateFormat) -> float:
    """Which part of the values, in [0, 1], `noisy_values` cuts: that costs accuracy, never privacy."""
    return float(np.mean(np.abs(units) > form.steps - noise_in(form).reach))


def noise_in(form: UpdateFormat) -> Noise:
    """The format's noise, which a private federation's has."""
    if form.noise is None:
        raise ValueError("the charter asks for no noise")
    return form.noise
