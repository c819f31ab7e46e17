"""A trainer's upload: one fresh key, one ciphertext, one shares object; and how a shareholder takes it (P1, P2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocol.ids import Address, Index, Root
from .dealing import Place, check_shares_object, deal_shares, open_sealed_share
from .encryption import encrypt
from .noise import Random, os_random, sample_binomial
from .parameters import PLAIN_MODULUS, N
from .seed import RoundContext


@dataclass(frozen=True, slots=True)
class Upload:
    """What a trainer stores as two objects and commits to by two roots."""

    ciphertext: bytes
    shares: bytes
    ciphertext_root: Root
    shares_root: Root


def deal(
    context: RoundContext,
    *,
    dealer: Index,
    dealer_address: Address,
    encryption_keys: Mapping[Index, bytes],
    threshold: int,
    coefficients: NDArray[np.integer],
) -> Upload:
    """Encrypt one update under a fresh key and share that key out. The trainer runs it, once for each attempt.

    `coefficients` are (d/2,) integers in [0, 2**44); anything else is refused: a plaintext that overflows wraps.
    `encryption_keys` are the shareholders' registered X25519 keys, the dealer's own among them. The key is drawn from
    the operating system here, never returned, and overwritten afterwards as far as Python allows: calling twice can
    never encrypt two messages under one key.
    """
    place = Place(context, dealer, dealer_address, encryption_keys, threshold)
    return deal_with(place, coefficients, os_random)


def deal_with(place: Place, coefficients: NDArray[np.integer], random: Random) -> Upload:
    """`deal` with its randomness given: for known-answer vectors only."""
    plain = _checked(coefficients)
    s = sample_binomial(N, random)
    try:
        ciphertext, ciphertext_root = encrypt(place.context.seed, s, plain, random)
        shares, shares_root = deal_shares(place, s, random)
    finally:
        s.fill(0)
    return Upload(ciphertext, shares, ciphertext_root, shares_root)


def check_shares(
    blob: bytes,
    context: RoundContext,
    *,
    dealer: Index,
    dealer_address: Address,
    encryption_keys: Mapping[Index, bytes],
    threshold: int,
    offender: str,
) -> Root:
    """The Merkle root of a shares object that belongs here: size, header, place, ranges. Anybody runs it.

    Raises MalformedObject naming the field.
    """
    place = Place(context, dealer, dealer_address, encryption_keys, threshold)
    return check_shares_object(blob, place, offender=offender)


def open_share(
    blob: bytes,
    context: RoundContext,
    *,
    dealer: Index,
    dealer_address: Address,
    encryption_keys: Mapping[Index, bytes],
    threshold: int,
    me: Index,
    private_key: bytes,
) -> NDArray[np.uint16]:
    """My share of the dealer's key, (2048,) uint16, its commitment and proof verified. Each shareholder runs it.

    Raises a Fault that names the dealer; until the receipts are in, that is a complaint, and the update is left out.
    """
    place = Place(context, dealer, dealer_address, encryption_keys, threshold)
    return open_sealed_share(blob, place, me, private_key)


def _checked(coefficients: NDArray[np.integer]) -> NDArray[np.uint64]:
    if coefficients.ndim != 1 or coefficients.size == 0 or not np.issubdtype(coefficients.dtype, np.integer):
        raise ValueError("an update is one non-empty vector of integers")
    if coefficients.min() < 0 or coefficients.max() >= PLAIN_MODULUS:
        raise ValueError(f"coefficients are integers from 0 to {PLAIN_MODULUS - 1}")
    return coefficients.astype(np.uint64)
