"""How large a private federation's integers are: the unit of a value, the noise of one member, the room for both.

A function of charter and model alone, and only of operations that are the same on every machine: `update_format` lays
the encrypted values out by it, and a decoder multiplies by the unit.

A vector that is cut to the length `clip` becomes integers of length at most `units`, whatever its rounding did:
rounding at random is repeated until they are (Kairouz, Liu and Steinke 2021, arXiv:2102.06387, section 4, with
β = e^(-1/2)). That bound is the sensitivity that the noise is made for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

from ..errors import UsageError
from .charter import Charter
from .privacy import LEAST_UNITS, plan_of

TAIL_BITS = 100
"""Noise is cut where all that lies beyond, on both sides, has a probability below 2^-100."""

MOST_REACH = 2**20
"""Noise that reaches farther would need a table of more than two million entries."""

RECORDS_ROOM = 16
"""Room for a sum of records' gradients in one value, in sensitivities, before the spare bits are shared out."""


@dataclass(frozen=True, slots=True)
class Noise:
    """The noise of one federation's values.

    `units` is the sensitivity Δ₂ in units; `clip_units` the length, in units, that vectors are cut to before they are
    rounded, `clip_unit` what a unit of such a vector is worth, `unit` what a unit of their sum adds to the mean.
    `variance` is that of one member's noise; its absolute value is at most `reach`. `by_records`: a sum is of records,
    not of weighted updates, and the mean is taken over records.
    """

    units: int
    clip_units: float
    clip_unit: float
    unit: float
    variance: int
    reach: int
    by_records: bool

    @property
    def least_room(self) -> int:
        """The fewest units to either side of zero that a member's noisy value needs."""
        return self.reach + self.units * (RECORDS_ROOM if self.by_records else 1)


def noise_of(charter: Charter, values: int) -> Noise | None:
    """The noise of updates of so many values; None where the charter asks for none. Raises UsageError as `plan_of`."""
    plan = plan_of(charter)
    if plan is None:
        return None
    units = LEAST_UNITS
    while units * units < 4 * values:
        units *= 2
    clip_units = _clip_units(units, values)
    variance = variance_of(plan.multiplier, units, plan.shares)
    reach = reach_of(variance)
    if reach > MOST_REACH:
        raise UsageError(
            f"noise of {plan.multiplier:g} times the sensitivity is too large for a model of {values} values;"
            " a larger privacy.epsilon, or fewer rounds, need less"
        )
    by_records = charter.privacy.mode == "records"
    clip_unit = charter.privacy.clip / clip_units
    # In expectation a round's sum has `rate` of all records in it, and is divided by so many.
    return Noise(
        units, clip_units, clip_unit, clip_unit / plan.rate if by_records else clip_unit, variance, reach, by_records
    )


def variance_of(multiplier: float, units: int, shares: int) -> int:
    """The variance of one member's noise, whole and rounded up: so many of them have at least (multiplier · units)²."""
    return math.ceil(Fraction(multiplier) ** 2 * units**2 / shares)


def reach_of(variance: int) -> int:
    """Where the noise of this variance is cut: Bernstein's bound, P(|Z| ≥ a) ≤ 2·exp(−a²/(2(μ + a/3))), solved for a.

    With L = (TAIL_BITS + 1)·ln 2 < 71: a = L/3 + √(L²/9 + 2Lμ), rounded up.
    """
    bound = 71
    return bound // 3 + 2 + isqrt(bound * bound // 9 + 1 + 2 * bound * variance)


def _clip_units(units: int, values: int) -> float:
    """The c with √(c² + d/4 + c + √d/2) = units: two roundings in five of a vector of that length keep to `units`."""
    rest = units * units - values / 4 - math.sqrt(values) / 2
    return (math.sqrt(1 + 4 * rest) - 1) / 2
