"""Which of the openings fit one polynomial: shares are Reed–Solomon symbols, wrong openings are their errors.

Unique decoding up to half the redundancy by Welch and Berlekamp's equations, the textbook form of Gemmell and Sudan
(Information Processing Letters 43, 1992). Errors sit in whole openings, so one random combination of the 2048
coordinates shows where, but for a chance of 1 in 65521 an opening, which the caller's noise check catches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .parameters import SHARE_PRIME
from .shamir import Field, lagrange, powers


def trusted_symbols(points: Sequence[int], y: Field, t: int) -> list[int] | None:
    """Positions of y that are right, at least t of them, if at most (m - t)/2 of the m are wrong; else None or a guess.

    Finds E monic of degree e and Q of degree < t + e with Q(x_i) = y_i·E(x_i) everywhere: E vanishes at every error.
    """
    m = len(points)
    e = (m - t) // 2
    x = powers(points, t + e)
    system = np.hstack((x, -y[:, None] * x[:, :e])) % SHARE_PRIME
    monic = y * powers(points, e + 1)[:, e] % SHARE_PRIME
    solution = _solve(system, monic)
    if solution is None:
        return None
    locator = np.append(solution[t + e :], 1)
    at_points = powers(points, e + 1) @ locator % SHARE_PRIME
    return [i for i in range(m) if at_points[i]]


def misfits(points: Sequence[int], values: Field, chosen: Sequence[int]) -> tuple[int, ...]:
    """The positions whose values ((m, …)) do not lie on the polynomials through the chosen positions."""
    base = [points[i] for i in chosen]
    through = values[list(chosen)]
    return tuple(
        i
        for i in range(len(points))
        if i not in chosen and not np.array_equal(lagrange(base, points[i]) @ through % SHARE_PRIME, values[i])
    )


def _solve(system: Field, right: Field) -> Field | None:
    """One solution of a linear system over the field, free unknowns 0; None when there is none."""
    a = np.hstack((system, right[:, None]))
    unknowns = system.shape[1]
    pivots: list[int] = []
    for column in range(unknowns):
        row = len(pivots)
        nonzero = np.flatnonzero(a[row:, column])
        if not nonzero.size:
            continue
        swap = row + int(nonzero[0])
        a[[row, swap]] = a[[swap, row]]
        a[row] = a[row] * pow(int(a[row, column]), -1, SHARE_PRIME) % SHARE_PRIME
        others = np.arange(len(a)) != row
        a[others] = (a[others] - a[others, column][:, None] * a[row]) % SHARE_PRIME
        pivots.append(column)
        if len(pivots) == len(a):
            break
    if a[len(pivots) :, -1].any():
        return None
    solution = np.zeros(unknowns, dtype=np.int64)
    solution[pivots] = a[: len(pivots), -1]
    return solution
