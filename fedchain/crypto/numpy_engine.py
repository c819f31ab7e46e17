"""The scheme's two public computations in numpy alone: the homomorphic sum, and the decoding of an opened sum.

The auditor runs these; `tenseal_engine` does the same through Microsoft SEAL and must give the same integers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .parameters import DELTA, PLAIN_MODULUS, Q
from .seed import Residues


def add(blocks: Iterable[Residues]) -> Residues:
    """The sum mod q of up to 64 members' residues: partial sums of 54-bit numbers fit 64 bits, one reduction ends."""
    members = iter(blocks)
    total = next(members).copy()
    for block in members:
        total += block
    total %= np.uint64(Q)
    return total


def decode(phase: Residues) -> NDArray[np.uint64]:
    """The plaintext under C + a·S mod q: round(phase/Δ) mod t, exact because q = Δ·t + 1."""
    return (phase + np.uint64(DELTA // 2)) // np.uint64(DELTA) % np.uint64(PLAIN_MODULUS)


def noise(phase: Residues, plain: NDArray[np.uint64]) -> NDArray[np.int64]:
    """phase - Δ·plain mod q, nearest to zero: the sum of the participants' errors if key and plaintext are right."""
    e = phase.view(np.int64) - plain.view(np.int64) * np.int64(DELTA)
    # Only a plaintext of 0 under negative noise wraps around q.
    e[e > Q // 2] -= Q
    return e
