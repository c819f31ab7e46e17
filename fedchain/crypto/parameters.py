"""Every number of the scheme, and the sizes that follow from them. `docs/crypto.md` says where each comes from.

The ring is R_q = Z_q[X]/(X^N + 1). log2 q = 54 at N = 2048 is the HomomorphicEncryption.org standard's limit for
128-bit security. Values sit in coefficients, two fields a coefficient.
"""

from __future__ import annotations

from math import isqrt

from ..protocol.ids import MAX_MEMBERS

N = 2048
"""Degree of the ring: coefficients of a polynomial."""

PLAIN_MODULUS = 2**44
"""t of BFV: a plaintext coefficient is an integer below it."""

DELTA = 1002
"""Δ = (q - 1)/t: what a plaintext is multiplied by, and what noise must stay below half of."""

Q = DELTA * PLAIN_MODULUS + 1
"""q = 17627370416504833, a prime of 54 bits, ≡ 1 mod 2N."""

RESIDUE_BITS = 54

ETA = 42
"""Secrets and errors are centred binomial: the difference of two sums of 42 bits; |x| <= 42, variance 21, σ = 4.58."""

SHARE_PRIME = 65521
"""Shares live in F_65521: the largest prime whose elements fit two bytes."""

FIELD_BITS = 22
"""Two fields a coefficient, v_lo + v_hi·2**22: the sum of 64 members' 16-bit values fits."""

VALUE_BITS = 16
"""A quantised value is an integer in [0, 2**16)."""

VALUES_PER_COEFFICIENT = 2

LEAF_RESIDUES = 64
"""A Merkle leaf is 64 residues of 8 bytes; an upload is a whole number of leaves."""

LEAF_BYTES = 8 * LEAF_RESIDUES

PACKED_LEAF_BYTES = LEAF_RESIDUES * RESIDUE_BITS // 8
"""432: one leaf as it is stored."""

HEADER_BYTES = 16

BLOCK = 16
"""Polynomials handled at once: their transforms fit the second-level cache."""

BLOCK_LEAVES = BLOCK * N // LEAF_RESIDUES

MASKS = 8
"""Repetitions of the low-degree test: a false dealing passes with probability 65521**-8 < 2**-127."""

OPENING_BYTES = 2 * N

MAX_PARAMETERS = 2**40
"""Far beyond any model, far below what the 32-bit number of a polynomial can count."""


def leaves_of(d: int) -> int:
    """How many leaves an update of d values takes."""
    if not 1 <= d <= MAX_PARAMETERS:
        raise ValueError(f"an update has 1 to {MAX_PARAMETERS} values, not {d}")
    return -(-d // (VALUES_PER_COEFFICIENT * LEAF_RESIDUES))


def polynomials_of(d: int) -> int:
    """How many polynomials an update of d values takes; of the last one only whole leaves are stored."""
    return -(-leaves_of(d) * LEAF_RESIDUES // N)


def ciphertext_size(d: int) -> int:
    """Bytes of a stored ciphertext of d values: a header and 54 bits a residue."""
    return HEADER_BYTES + leaves_of(d) * PACKED_LEAF_BYTES


def aggregate_size(d: int) -> int:
    """Bytes of a stored aggregate of d values: as a ciphertext."""
    return ciphertext_size(d)


def key_bound(participants: int) -> int:
    """The largest |coefficient| a sum of this many one-time keys can have."""
    return ETA * _counted(participants)


def noise_bound(participants: int) -> int:
    """The largest noise an opened coefficient may carry: ten standard deviations of the sum of the errors.

    An honest coefficient passes it with probability 2e-23; under a wrong key the noise of every coefficient is uniform
    on ±501, so that a chance pass of even one leaf (64 coefficients, 64 members) has probability 2e-9.
    """
    return isqrt(100 * (ETA // 2) * _counted(participants))


def _counted(participants: int) -> int:
    if not 1 <= participants <= MAX_MEMBERS:
        raise ValueError(f"a sum has 1 to {MAX_MEMBERS} participants, not {participants}")
    return participants
