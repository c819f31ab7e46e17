"""Vectors of a large model handled a part at a time, wherever the bits that come out do not depend on it.

A peer holds a model, its update and their sums; temporary copies of the same size, of which one expression may make
five, would be what it needs most memory for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 1 << 18
"""Values handled at once: two megabytes of float64, which a processor's cache holds."""


def parts_of(count: int) -> Iterator[slice]:
    """The places 0 to count − 1, as slices of at most `AT_ONCE`, ascending."""
    return (slice(first, min(first + AT_ONCE, count)) for first in range(0, count, AT_ONCE))


def length_of(vector: NDArray[np.float64]) -> float:
    """The L2 norm; its last bits depend on how the vector is cut, and nobody else computes it."""
    return float(np.sqrt(sum(float(np.square(vector[some]).sum()) for some in parts_of(vector.size))))
