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
from .packing import pack_residues
from .ring import SmallFactor, reduce_signed
from .seed import Residues, public_polynomials


def encrypt(seed: bytes, s: NDArray[np.int64], plain: NDArray[np.uint64], random: Random) -> tuple[bytes, Root]:
    """The stored ciphertext of `plain`, (d/2,) uint64 coefficients below 2**44, and the root of its Merkle tree."""
    d = p.SIZE_PER_COEFFICIENT * plain.size
    parts = [header(UPDATE, d)]
    hashes: list[bytes] = []
    leaves_left = p.leaves_of(d)
    for block in encrypted_blocks(seed, s, plain, random):
        stored = block.reshape(-1, p.LEAF_RESIDUES)[:leaves_left]
        leaves_left -= len(stored)
        parts.append(pack_residues(stored))
        hashes += hash_leaves(stored.astype("<u8", copy=False).tobytes(), p.LEAF_BYTES)
    return b"".join(parts), root_of(hashes)


def encrypted_blocks(
    seed: bytes, s: NDArray[np.int64], plain: NDArray[np.uint64], random: Random
) -> Iterator[Residues]:
    """c, up to `BLOCK` polynomials at a time; beyond the plaintext stand encryptions of zero."""
    factor = SmallFactor(s)
    try:
        polynomials = p.polynomials_of(p.SIZE_PER_COEFFICIENT * plain.size)
        for first in range(0, polynomials, p.BLOCK):
            count = min(p.BLOCK, polynomials - first)
            c = seeded_zeros(seed, factor, first, count, random)
            m = _message(plain, first, count)
            c += m * np.int64(p.DELTA)
            yield reduce_signed(c)
    finally:
        factor.erase()


def seeded_zeros(seed: bytes, s: SmallFactor, first: int, count: int, random: Random) -> NDArray[np.int64]:
    """e[k] - a_k·s, not yet reduced: (count, N) int64 in (-q - 42, 42]."""
    e = sample_binomial(count * p.N, random).reshape(count, p.N)
    e -= s.times(public_polynomials(seed, first, count)).view(np.int64)
    return e


def _message(plain: NDArray[np.uint64], first: int, count: int) -> NDArray[np.int64]:
    padded = np.zeros(count * p.N, dtype=np.int64)
    chunk = plain[first * p.N : (first + count) * p.N]
    padded[: chunk.size] = chunk
    return padded.reshape(count, p.N)
