"""Which coordinates of an update are sent where the charter sends only a part of them (`update.mask`).

The random mask of Konečný et al. 2016 (arXiv:1610.05492, section 2), a structured update: members train only the
coordinates that they send, so nothing that they learn is left out. Those are drawn anew for every attempt from a public
seed. They are the same for all members, which is what lets encrypted updates be summed value by value, and always as
many, so the contract sees updates of one size. The average of what nobody sent is 0.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

MASK_DOMAIN = b"fedchain mask v1"

Places = NDArray[np.intp] | slice
"""Some coordinates of a vector, ascending, or all of them."""

EVERYWHERE = slice(None)


def sent_of(size: int, mask: float) -> int:
    """How many of `size` coordinates are sent: `mask` · size rounded up, `mask` being the decimal that one reads."""
    return ceil(Fraction(str(mask)) * size)


@lru_cache(maxsize=1)
def places_of(seed: bytes, size: int, sent: int) -> NDArray[np.intp]:
    """(sent,) ascending, read-only: the coordinates of `size` that an attempt sends, by its rotation seed.

    Coordinate i has the key of bytes 8i to 8i+7, little-endian, of SHAKE-256(domain, filled up to 32 bytes ‖ seed); the
    least keys are sent, of equal ones the first.
    """
    stream = hashlib.shake_256(MASK_DOMAIN.ljust(32, b"\0") + seed).digest(8 * size)
    keys = np.frombuffer(stream, dtype="<u8")
    # No sorting: of a large model there is no room for its keys' order.
    largest = np.partition(keys, sent - 1)[sent - 1]
    chosen = keys < largest
    chosen[np.flatnonzero(keys == largest)[: sent - np.count_nonzero(chosen)]] = True
    places = np.flatnonzero(chosen)
    places.setflags(write=False)
    return places
