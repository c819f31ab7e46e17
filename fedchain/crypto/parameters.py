"""Every number of the scheme, and the sizes that follow from them. `docs/crypto.md` says where each comes from.

The ring is R_q = Z_q[X]/(X^N + 1). log2 q = 54 at N = 2048 is the HomomorphicEncryption.org standard's limit for
128-bit security. Plaintexts sit in coefficients; how values stand in one says `protocol/update_format.py`. The numbers
that a contract judges by stand in `protocol/scheme.py`.

Here and in all of `crypto`, d is the contract's term `modelSize`, which sizes an object: two of it a coefficient.
"""

from __future__ import annotations

from ..protocol.scheme import (
    DELTA,
    ETA,
    KEY_LEAVES,
    LEAF_BYTES,
    LEAF_RESIDUES,
    MAX_PARAMETERS,
    PLAIN_MODULUS,
    SHARE_PRIME,
    SIZE_PER_COEFFICIENT,
    N,
    Q,
    coefficients_of,
    key_bound,
    leaves_of,
    noise_bound,
)

__all__ = [
    "BLOCK",
    "BLOCK_LEAVES",
    "DELTA",
    "ETA",
    "HEADER_BYTES",
    "KEY_LEAVES",
    "LEAF_BYTES",
    "LEAF_RESIDUES",
    "MASKS",
    "MAX_PARAMETERS",
    "N",
    "OPENING_BYTES",
    "PACKED_LEAF_BYTES",
    "PLAIN_MODULUS",
    "Q",
    "RESIDUE_BITS",
    "SHARE_PRIME",
    "SIZE_PER_COEFFICIENT",
    "aggregate_size",
    "ciphertext_size",
    "coefficients_of",
    "key_bound",
    "leaves_of",
    "noise_bound",
    "polynomials_of",
    "result_size",
]

RESIDUE_BITS = 54

PACKED_LEAF_BYTES = LEAF_RESIDUES * RESIDUE_BITS // 8
"""432: one leaf as it is stored."""

HEADER_BYTES = 16

BLOCK = 16
"""Polynomials handled at once: their transforms fit the second-level cache."""

BLOCK_LEAVES = BLOCK * N // LEAF_RESIDUES

MASKS = 8
"""Repetitions of the low-degree test: a false dealing passes with probability 65521**-8 < 2**-127."""

OPENING_BYTES = 2 * N


def polynomials_of(d: int) -> int:
    """How many polynomials an update takes; of the last one only whole leaves are stored."""
    return -(-leaves_of(d) * LEAF_RESIDUES // N)


def ciphertext_size(d: int) -> int:
    """Bytes of a stored ciphertext: a header and 54 bits a residue."""
    return HEADER_BYTES + leaves_of(d) * PACKED_LEAF_BYTES


def aggregate_size(d: int) -> int:
    """Bytes of a stored aggregate: as a ciphertext."""
    return ciphertext_size(d)


def result_size(d: int) -> int:
    """Bytes of a stored result: a header, S, and 54 bits a coefficient."""
    return ciphertext_size(d) + OPENING_BYTES
