"""A trainer's encryption: c[k] = -a_k·s + e[k] + Δ·m[k] mod q, one polynomial a chunk.

This is BFV (Fan and Vercauteren, ePrint 2012/144) with a_k public: everybody expands it from the round's seed, so half
of each ciphertext is never uploaded. Secure as long as s encrypts one message under one seed: `deal` draws s afresh and
forgets it, and nothing here keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..protocol.ids import Root
from ..protocol.merkle import hash_leaves, root_of
from . import parameters as p
from .encoding import UPDATE, header
from .noise import Random, sample_binomial
from .packing import join_fields, pack_residues
from .ring import SmallFactor, reduce_signed
from .seed import Residues, public_polynomials


def encrypt(seed: bytes, s: NDArray[np.int64], values: NDArray[np.uint64], random: Random) -> tuple[bytes, Root]:
    """The stored ciphertext of `values` ((d,) uint64 below 2**16) and the root of its Merkle tree."""
    d = values.size
    parts = [header(UPDATE, d)]
    hashes: list[bytes] = []
    leaves_left = p.leaves_of(d)
    for block in encrypted_blocks(seed, s, values, random):
        stored = block.reshape(-1, p.LEAF_RESIDUES)[:leaves_left]
        leaves_left -= len(stored)
        parts.append(pack_residues(stored))
        hashes += hash_leaves(stored.astype("<u8", copy=False).tobytes(), p.LEAF_BYTES)
    return b"".join(parts), root_of(hashes)


def encrypted_blocks(
    seed: bytes, s: NDArray[np.int64], values: NDArray[np.uint64], random: Random
) -> Iterator[Residues]:
    """c, up to `BLOCK` polynomials at a time; beyond the values stand encryptions of zero."""
    factor = SmallFactor(s)
    try:
        polynomials = p.polynomials_of(values.size)
        for first in range(0, polynomials, p.BLOCK):
            count = min(p.BLOCK, polynomials - first)
            c = seeded_zeros(seed, factor, first, count, random)
            m = _message(values, first, count)
            c += m * np.int64(p.DELTA)
            yield reduce_signed(c)
    finally:
        factor.erase()


def seeded_zeros(seed: bytes, s: SmallFactor, first: int, count: int, random: Random) -> NDArray[np.int64]:
    """e[k] - a_k·s, not yet reduced: (count, N) int64 in (-q - 42, 42]."""
    e = sample_binomial(count * p.N, random).reshape(count, p.N)
    e -= s.times(public_polynomials(seed, first, count)).view(np.int64)
    return e


def _message(values: NDArray[np.uint64], first: int, count: int) -> NDArray[np.int64]:
    per_polynomial = p.VALUES_PER_COEFFICIENT * p.N
    padded = np.zeros(count * per_polynomial, dtype=np.uint64)
    chunk = values[first * per_polynomial : (first + count) * per_polynomial]
    padded[: chunk.size] = chunk
    return join_fields(padded).reshape(count, p.N).view(np.int64)
