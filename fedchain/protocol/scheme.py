"""The numbers of the encryption that a verdict rests on, and the public polynomials: what `Judge.sol` knows of it.

`docs/crypto.md` says where each number comes from; `crypto/parameters.py` adds those that only members need. Here every
value is a Python integer, exact and slow: one polynomial for one dispute.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import isqrt

from .ids import MAX_MEMBERS, Address, Digest

N = 2048
"""Degree of the ring: coefficients of a polynomial."""

PLAIN_MODULUS = 2**44
"""t of BFV: a plaintext coefficient is an integer below it."""

DELTA = 1002
"""Δ = (q - 1)/t: what a plaintext is multiplied by, and what noise must stay below half of."""

Q = DELTA * PLAIN_MODULUS + 1
"""q = 17627370416504833, a prime of 54 bits, ≡ 1 mod 2N."""

ETA = 42
"""Secrets and errors are centred binomial: the difference of two sums of 42 bits; |x| <= 42, variance 21, σ = 4.58."""

SHARE_PRIME = 65521
"""Shares live in F_65521: the largest prime whose elements fit two bytes."""

SIZE_PER_COEFFICIENT = 2
"""The contract's term `modelSize` counts two a coefficient, however many values stand in one (`update_format`)."""

LEAF_RESIDUES = 64
"""A Merkle leaf is 64 residues of 8 bytes; an upload is a whole number of leaves."""

LEAF_BYTES = 8 * LEAF_RESIDUES

KEY_LEAVES = N // LEAF_RESIDUES
"""Leaves of an opening, and of S."""

MAX_PARAMETERS = 2**40
"""Far beyond any model, far below what the 32-bit number of a polynomial can count."""

SEED_DOMAIN = b"fedchain polynomials v1"
WORDS = 4
"""64-bit words in a SHA-256 digest."""

ACCEPTED = (2**64 // Q) * Q
"""1046·q: a word below it is uniform mod q; five words in ten thousand are redrawn."""


def leaves_of(d: int) -> int:
    """How many leaves an update takes under a contract whose term `modelSize` is d."""
    if not 1 <= d <= MAX_PARAMETERS:
        raise ValueError(f"modelSize is 1 to {MAX_PARAMETERS}, not {d}")
    return -(-d // (SIZE_PER_COEFFICIENT * LEAF_RESIDUES))


def coefficients_of(d: int) -> int:
    """How many plaintext coefficients carry an update under a contract whose term `modelSize` is d."""
    return -(-d // SIZE_PER_COEFFICIENT)


def key_bound(participants: int) -> int:
    """The largest |coefficient| a sum of this many one-time keys can have."""
    return ETA * _counted(participants)


def noise_bound(participants: int) -> int:
    """The largest noise an opened coefficient may carry: ten standard deviations of the sum of the errors.

    An honest coefficient passes it with probability 2e-23; under a wrong key the noise of every coefficient is uniform
    on ±501, so that a chance pass of even one leaf (64 coefficients, 64 members) has probability 2e-9.
    """
    return isqrt(100 * (ETA // 2) * _counted(participants))


def place_words(chain_id: int, contract: Address, round: int, attempt: int, model_digest: Digest) -> bytes:
    """abi.encode(chain id, contract, round, attempt, model digest): five words of 32 bytes."""
    return b"".join(
        (
            chain_id.to_bytes(32, "big"),
            bytes.fromhex(contract[2:]).rjust(32, b"\0"),
            round.to_bytes(32, "big"),
            attempt.to_bytes(32, "big"),
            model_digest,
        )
    )


def polynomial_seed(words: bytes) -> bytes:
    """The seed of an attempt's public polynomials: SHA-256 of the domain and the five words of its place."""
    return hashlib.sha256(SEED_DOMAIN.ljust(32, b"\0") + words).digest()


def public_coefficient(seed: bytes, k: int, j: int) -> int:
    """Coefficient j of a_k: one hash, and one more for each word that is redrawn.

    The j mod 4-th 64-bit word (big-endian, most significant first) of SHA-256(seed ‖ k ‖ floor(j/4) ‖ retry), the three
    numbers as big-endian uint32, reduced mod q; a word of 1046·q or more is redrawn with the next retry.
    """
    group, word = divmod(j, WORDS)
    place = k.to_bytes(4, "big") + group.to_bytes(4, "big")
    retry = 0
    while True:
        digest = hashlib.sha256(seed + place + retry.to_bytes(4, "big")).digest()
        value = int.from_bytes(digest[8 * word : 8 * word + 8], "big")
        if value < ACCEPTED:
            return value % Q
        retry += 1


def public_polynomial(seed: bytes, k: int) -> tuple[int, ...]:
    """a_k: N residues; one hash for four, and one more for each word that is redrawn."""
    words: list[int] = []
    for group in range(N // WORDS):
        place = k.to_bytes(4, "big") + group.to_bytes(4, "big") + bytes(4)
        digest = hashlib.sha256(seed + place).digest()
        words += (int.from_bytes(digest[i : i + 8], "big") for i in range(0, 8 * WORDS, 8))
    return tuple(w % Q if w < ACCEPTED else public_coefficient(seed, k, j) for j, w in enumerate(words))


def product_coefficient(a: Sequence[int], s: Sequence[int], k: int) -> int:
    """(a·s)_k in Z[X]/(X^N + 1): the one coefficient, not reduced."""
    return sum(a[k - j] * s[j] if j <= k else -a[k - j + N] * s[j] for j in range(N))


def lagrange_at_zero(points: Sequence[int]) -> tuple[int, ...]:
    """λ with f(0) = Σ λ_i f(points_i) mod 65521 for every f of degree < len(points); the points are distinct."""
    weights = []
    for i, x_i in enumerate(points):
        above = below = 1
        for j, x_j in enumerate(points):
            if i != j:
                above = above * x_j % SHARE_PRIME
                below = below * (x_j - x_i) % SHARE_PRIME
        weights.append(above * pow(below, -1, SHARE_PRIME) % SHARE_PRIME)
    return tuple(weights)


def _counted(participants: int) -> int:
    if not 1 <= participants <= MAX_MEMBERS:
        raise ValueError(f"a sum has 1 to {MAX_MEMBERS} participants, not {participants}")
    return participants
