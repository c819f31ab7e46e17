"""The public polynomials of a round: everybody expands them from one seed, a contract rebuilds any coefficient.

That is why the hash is SHA-256, which the EVM has, each call is one compression (44 bytes of input), and every
coefficient can be had without the others.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocol.ids import Address, Digest
from ..protocol.rotation import rotation_seed
from ..protocol.scheme import ACCEPTED, WORDS, place_words, polynomial_seed, public_coefficient
from .parameters import N, Q

Residues = NDArray[np.uint64]
"""(k, N) uint64: polynomials by their coefficients, each below q unless said otherwise."""


@dataclass(frozen=True, slots=True)
class RoundContext:
    """Where an encryption belongs: one chain, one contract, one round, one attempt, one base model.

    Two contexts that differ in anything have unrelated public polynomials. A retry is another attempt, so it never
    meets the polynomials of the failed one.
    """

    chain_id: int
    contract: Address
    round: int
    attempt: int
    model_digest: Digest

    def __post_init__(self) -> None:
        if len(self.model_digest) != 32 or len(bytes.fromhex(self.contract[2:])) != 20:
            raise ValueError("a context needs a 32-byte model digest and a 20-byte contract address")

    def words(self) -> bytes:
        """abi.encode(chain id, contract, round, attempt, model digest): five words of 32 bytes."""
        return place_words(self.chain_id, self.contract, self.round, self.attempt, self.model_digest)

    @property
    def seed(self) -> bytes:
        """SHA-256(abi.encode(bytes32("fedchain polynomials v1"), chain id, contract, round, attempt, model digest))."""
        return polynomial_seed(self.words())

    @property
    def rotation_seed(self) -> bytes:
        """What the attempt's rotation of updates is drawn from, where the charter has one."""
        return rotation_seed(self.round, self.attempt, self.model_digest)


_PLACES = tuple(group.to_bytes(4, "big") + bytes(4) for group in range(N // WORDS))
"""floor(j/4) ‖ retry 0, for every group of four coefficients."""


def public_polynomials(seed: bytes, first: int, count: int) -> Residues:
    """a_first … a_(first+count-1): (count, N) uint64, uniform below q.

    Coefficient j of a_k is the j mod 4-th 64-bit word (big-endian, most significant first) of
    SHA-256(seed ‖ k ‖ floor(j/4) ‖ retry), the three numbers as big-endian uint32, reduced mod q; a word of 1046·q or
    more is redrawn with the next retry, which leaves the other three words of its digest as they are.
    """
    sha256 = hashlib.sha256
    digests: list[bytes] = []
    for k in range(first, first + count):
        prefix = seed + k.to_bytes(4, "big")
        digests += [sha256(prefix + place).digest() for place in _PLACES]
    words = np.frombuffer(b"".join(digests), dtype=">u8").astype(np.uint64).reshape(count, N)
    for row, j in np.argwhere(words >= np.uint64(ACCEPTED)):
        words[row, j] = public_coefficient(seed, first + int(row), int(j))
    words %= np.uint64(Q)
    return words
