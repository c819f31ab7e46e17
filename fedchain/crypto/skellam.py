"""Skellam noise from the operating system's randomness: exact to 2^-120, integers throughout, and never repeatable.

Skellam noise of variance μ is the difference of two Poisson variables of mean μ/2; sums of it are Skellam again. It is
drawn by inverting its cumulative distribution, tabulated in 128 bits by integer arithmetic: no float takes part, so
none can give the noise away, and no generator's seed exists that anybody could know. Poisson variables by rejection in
floats (numpy's) have neither property.

Not constant in time: a search in a table. What is timed is on the member's own machine.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ..protocol.parts import parts_of
from .noise import Random, os_random

PRECISION = 128
"""Bits of the tabulated distribution, and of randomness behind every draw."""

_GUARD = 200
"""Bits that the smallest number of the recurrence begins with: its roundings are 2^-200 of it, and later ones less."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The distribution on [−reach, reach]: `limits[i]` is 2^128 · P(Z ≤ i − reach), for all but the last."""

    reach: int
    limits: tuple[int, ...]
    upper: NDArray[np.uint64]


def sample_skellam(count: int, variance: int, reach: int, random: Random = os_random) -> NDArray[np.int64]:
    """`count` draws of Skellam noise of this variance, (count,) int64, given that |x| <= `reach`."""
    table = table_of(variance, reach)
    draws = np.empty(count, dtype=np.int64)
    for some in parts_of(count):
        draws[some] = _drawn(some.stop - some.start, table, random)
    return draws


def _drawn(count: int, table: Table, random: Random) -> NDArray[np.int64]:
    words = np.frombuffer(random(8 * count), dtype="<u8").astype(np.uint64)
    places = np.searchsorted(table.upper, words, side="right")
    # A draw is settled by its first 64 bits, unless they are exactly a limit's: then by 64 more.
    for i in np.flatnonzero(table.upper[np.maximum(places, 1) - 1] == words):
        word = int(words[i]) << 64 | int.from_bytes(random(8), "little")
        places[i] = bisect_right(table.limits, word)
    draws: NDArray[np.int64] = places.astype(np.int64)
    draws -= table.reach
    return draws


@lru_cache(maxsize=4)
def table_of(variance: int, reach: int) -> Table:
    """The table of one variance.

    P(Z = k) = e^−μ·I_k(μ), and I_{k−1}(μ) = I_{k+1}(μ) + (2k/μ)·I_k(μ), downwards from well beyond the reach (Miller's
    algorithm: there the recurrence is stable and its beginning is forgotten); only ratios are needed.
    """
    if variance < 1 or reach < 1:
        raise ValueError(f"no noise has the variance {variance} and the reach {reach}")
    after, here = 0, 1 << _GUARD
    masses = [0] * (reach + 1)
    for k in range(reach + reach // 2 + 8, 0, -1):
        after, here = here, after + 2 * k * here // variance
        if k - 1 <= reach:
            masses[k - 1] = here
    both = masses[:0:-1] + masses
    total = sum(both)
    limits = tuple((mass << PRECISION) // total for mass in accumulate(both[:-1]))
    upper = np.array([limit >> 64 for limit in limits], dtype=np.uint64)
    return Table(reach, limits, upper)
