"""Randomness: where it comes from, and the one distribution that secrets and errors are drawn from."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .parameters import ETA

Random = Callable[[int], bytes]
"""Gives that many random bytes. `os_random` everywhere but in known-answer vectors."""

os_random: Random = os.urandom


def sample_binomial(count: int, random: Random) -> NDArray[np.int64]:
    """`count` draws of CBD(42): (count,) int64, |x| <= 42, variance 21.

    The difference of two sums of 42 fair bits is the sum of 84 fair bits less 42: one 64-bit word and 20 bits more.
    """
    words = np.frombuffer(random(8 * count), dtype="<u8")
    rest = np.frombuffer(random(4 * count), dtype="<u4") & np.uint32(2 ** (2 * ETA - 64) - 1)
    ones: NDArray[np.int64] = np.bitwise_count(words).astype(np.int64)
    ones += np.bitwise_count(rest)
    ones -= ETA
    return ones
