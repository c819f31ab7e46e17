"""Shamir's sharing over F_65521, every coefficient of a one-time key at once (Shamir 1979).

Member of index j holds the value at x = j + 1. Any t points give the polynomial back; t - 1 points fit every secret.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .noise import Random
from .parameters import SHARE_PRIME

Field = NDArray[np.int64]
"""int64 elements of F_65521, each in [0, 65521)."""


def point_of(index: int) -> int:
    """The x at which the member of this index holds its share; never 0, where the secret stands."""
    return index + 1


def sample_field(count: int, random: Random) -> Field:
    """`count` uniform elements: two bytes each, redrawn at 65521 and above, so that not a bit of bias is left."""
    found = np.empty(0, dtype=np.int64)
    while found.size < count:
        # 15 words in 65536 are redrawn; a few spare ones make a second draw rare.
        words = np.frombuffer(random(2 * (count - found.size + 8)), dtype="<u2").astype(np.int64)
        found = np.concatenate((found, words[words < SHARE_PRIME]))
    return found[:count]


def random_polynomials(constants: Field, t: int, random: Random) -> Field:
    """One polynomial of degree < t for each constant term: (t, m), row l the coefficients of X^l."""
    rows = sample_field((t - 1) * constants.size, random).reshape(t - 1, constants.size)
    return np.vstack((np.mod(constants, SHARE_PRIME)[None, :], rows))


def evaluate(polynomials: Field, points: Sequence[int]) -> Field:
    """The polynomials' values: (len(points), m) for (t, m)."""
    return powers(points, len(polynomials)) @ polynomials % SHARE_PRIME


def powers(points: Sequence[int], t: int) -> Field:
    """x^0 … x^(t-1) for each point: (len(points), t)."""
    rows = [[pow(x, power, SHARE_PRIME) for power in range(t)] for x in points]
    return np.array(rows, dtype=np.int64).reshape(len(rows), t)


def lagrange(points: Sequence[int], x: int) -> Field:
    """λ with f(x) = Σ λ_i f(points_i) for every f of degree < len(points); the points are distinct mod 65521."""
    weights = []
    for i, x_i in enumerate(points):
        above = below = 1
        for j, x_j in enumerate(points):
            if i != j:
                above = above * (x - x_j) % SHARE_PRIME
                below = below * (x_i - x_j) % SHARE_PRIME
        weights.append(above * pow(below, -1, SHARE_PRIME) % SHARE_PRIME)
    return np.array(weights, dtype=np.int64)


def interpolate(points: Sequence[int], values: Field, x: int = 0) -> Field:
    """What the polynomials of degree < len(points) through these values ((len(points), m)) are at x: (m,)."""
    return lagrange(points, x) @ values % SHARE_PRIME


def centred(elements: Field) -> NDArray[np.int64]:
    """The representative nearest to zero."""
    return np.where(elements > SHARE_PRIME // 2, elements - SHARE_PRIME, elements)
