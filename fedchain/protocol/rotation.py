"""A public rotation that spreads an update evenly over its values, so that few bits write each of them well.

Suresh et al. 2017 (arXiv:1611.00429): signs drawn from a public seed, then Walsh and Hadamard's transform, here in
blocks. A rotation changes no length and no sum: the members' rotated updates add up to the rotated sum, and whoever
decodes turns that back. Turning back is integer addition and subtraction on sums of integers, and then one scale
factor, so that it gives the same bits on every machine.

A block's values are a power of four, so that its scale, one over its square root, is a power of two and exact. Block j
of m takes every m-th value from the j-th on: each gets its part of every layer, and none is a layer of large values.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ids import Digest
from .parts import AT_ONCE, parts_of

MAX_BLOCK = 1024
ROTATION_DOMAIN = b"fedchain rotation v1"


def block_of(size: int) -> int:
    """How many of `size` values are rotated together: the largest power of four up to 1024 for which filling up to
    whole blocks adds at most a sixteenth. Fewer than fifteen values are left as they are."""
    block = MAX_BLOCK
    while 16 * (-size % block) > size:
        block //= 4
    return block


def rotation_seed(round: int, attempt: int, base_model: Digest) -> bytes:
    """The seed of an attempt's rotation: SHA-256 of the domain, round, attempt and base model, words of 32 bytes.

    No chain and no contract stands in it: the same charter, data and seeds give the same models wherever they run.
    """
    words = round.to_bytes(32, "big") + attempt.to_bytes(32, "big") + base_model
    return hashlib.sha256(ROTATION_DOMAIN.ljust(32, b"\0") + words).digest()


def signs_of(seed: bytes, count: int) -> NDArray[np.int64]:
    """(count,) of 1 and -1: sign i is -1 where bit i of SHAKE-256(seed) is set, the lowest bit of each byte first."""
    return _signs(hashlib.shake_256(seed).digest(-(-count // 8)), count)


def rotate(update: NDArray[np.float64], block: int, seed: bytes) -> NDArray[np.float64]:
    """The rotated update, of the same length ‖·‖, filled up with zeros to whole blocks beforehand."""
    padded = np.zeros(-(-update.size // block) * block)
    padded[: update.size] = update
    rotate_in_place(padded, block, seed)
    return padded


def rotate_in_place(values: NDArray[np.float64], block: int, seed: bytes) -> None:
    """Rotate whole blocks of values where they stand."""
    _sign(values, seed)
    _transform(values.reshape(block, -1))
    values /= root_of_block(block)


def turn_back(sums: NDArray[np.int64], block: int, seed: bytes) -> NDArray[np.int64]:
    """√block times the sum that was rotated, exact: integers below 2^42 / block in, integers out."""
    turned = sums.copy()
    turn_back_in_place(turned, block, seed)
    return turned


def turn_back_in_place(sums: NDArray[np.int64], block: int, seed: bytes) -> None:
    """`turn_back` of whole blocks where they stand."""
    _transform(sums.reshape(block, -1))
    _sign(sums, seed)


def root_of_block(block: int) -> int:
    """√block, whole."""
    return 1 << (block.bit_length() // 2)


def _sign(values: NDArray[Any], seed: bytes) -> None:
    stream = hashlib.shake_256(seed).digest(-(-values.size // 8))
    for some in parts_of(values.size):
        values[some] *= _signs(stream[some.start // 8 : -(-some.stop // 8)], some.stop - some.start)


def _signs(stream: bytes, count: int) -> NDArray[np.int64]:
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8), count=count, bitorder="little")
    return 1 - 2 * bits.astype(np.int64)


def _transform(columns: NDArray[Any]) -> None:
    """Each column times Sylvester's Hadamard matrix, in place; only additions and subtractions."""
    width = max(1, AT_ONCE // len(columns))
    for first in range(0, columns.shape[1], width):
        rows = columns[:, first : first + width].copy()
        half = 1
        while half < len(rows):
            pairs = rows.reshape(-1, 2, half, rows.shape[1])
            upper = pairs[:, 0] - pairs[:, 1]
            pairs[:, 0] += pairs[:, 1]
            pairs[:, 1] = upper
            half *= 2
        columns[:, first : first + width] = rows
