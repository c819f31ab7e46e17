"""X25519 keys as points of the prime-order group, and proofs about discrete logarithms there (Schnorr; Chaum-Pedersen).

A key is a u-coordinate, and u leaves the sign of the point open: here it stands for the one of its two points whose
Edwards encoding (RFC 8032) has the sign bit 0. Only canonical keys of points of prime order stand for one at all: with
the others (low order, a cofactor's part beside, the twist) nothing is proven. The curve's arithmetic is libsodium's.

A proof is two scalars (c, s), 32 bytes each, little-endian, above 0 and below L. With R_i = s·G_i - c·Y_i for each base
G_i and image Y_i, c = SHA-512(statement ‖ R_1 ‖ …) mod L, and statement = SHA-512(domain ‖ binding ‖ bases ‖ images).
It shows that its maker knows x with Y_i = x·G_i for all i, and made it for this binding; nothing else about x. The
nonce is a hash of x and of all that is proven (compare RFC 8032, section 5.1.6): never one for two challenges, and no
random source to fail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_sub,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)

Point = bytes
"""32 bytes: an Edwards encoding (RFC 8032) of a point of prime order."""

PRIME = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
"""L: the order of the base point."""

PROOF_BYTES = 64

_CHALLENGE_DOMAIN = b"fedchain discrete log v1".ljust(32, b"\0")
_NONCE_DOMAIN = b"fedchain nonce v1".ljust(32, b"\0")
_SIGN = 1 << 255


def point_of_key(key: bytes) -> Point | None:
    """The point with sign bit 0 that an X25519 public key stands for; None unless canonical and of prime order."""
    u = int.from_bytes(key, "little")
    if len(key) != 32 or u >= PRIME - 1:
        return None
    # The birational map of RFC 7748, section 4.1: y = (u - 1)/(u + 1).
    point = _bytes((u - 1) * pow(u + 1, -1, PRIME) % PRIME)
    return point if is_point(point) else None


def key_of_point(point: Point) -> bytes:
    """The u-coordinate of a point: the X25519 key, or shared secret, that it stands for."""
    y = int.from_bytes(point, "little") & ~_SIGN
    return _bytes((1 + y) * pow(1 - y, -1, PRIME) % PRIME)


def is_point(point: bytes) -> bool:
    """Whether this is the canonical encoding of a point of prime order."""
    return len(point) == 32 and bool(crypto_core_ed25519_is_valid_point(point))


def exponent_of(private_key: bytes) -> int:
    """x with x·B the point that the public half of this X25519 private key stands for: clamped, mod L, sign chosen."""
    clamped = int.from_bytes(private_key, "little") & (1 << 254) - 8 | 1 << 254
    x = clamped % ORDER
    return ORDER - x if multiply(x, BASE)[31] & 0x80 else x


def multiply(x: int, point: Point) -> Point:
    """x·P, for 0 < x < L."""
    return crypto_scalarmult_ed25519_noclamp(_bytes(x), point)


def prove_exponent(x: int, bases: Sequence[Point], images: Sequence[Point], binding: bytes) -> bytes:
    """The proof that images[i] = x·bases[i], 0 < x < L, for this binding (32 bytes)."""
    stated = _statement(bases, images, binding)
    nonce = int.from_bytes(hashlib.sha512(_NONCE_DOMAIN + _bytes(x) + stated).digest(), "little") % ORDER
    c = _challenge(stated, [multiply(nonce, base) for base in bases])
    return _bytes(c) + _bytes((nonce + c * x) % ORDER)


def is_exponent_proof(proof: bytes, bases: Sequence[Point], images: Sequence[Point], binding: bytes) -> bool:
    """Whether the proof shows knowledge of one x with images[i] = x·bases[i] for all i, for this binding."""
    c, s = int.from_bytes(proof[:32], "little"), int.from_bytes(proof[32:], "little")
    if len(proof) != PROOF_BYTES or not (0 < c < ORDER and 0 < s < ORDER):
        return False
    if not all(is_point(point) for point in (*bases, *images)):
        return False
    nonces = [
        crypto_core_ed25519_sub(multiply(s, base), multiply(c, image))
        for base, image in zip(bases, images, strict=True)
    ]
    return c == _challenge(_statement(bases, images, binding), nonces)


def _statement(bases: Sequence[Point], images: Sequence[Point], binding: bytes) -> bytes:
    if len(binding) != 32:
        raise ValueError("a proof is bound by a digest of 32 bytes")
    return hashlib.sha512(_CHALLENGE_DOMAIN + binding + b"".join((*bases, *images))).digest()


def _challenge(stated: bytes, nonces: Sequence[Point]) -> int:
    return int.from_bytes(hashlib.sha512(stated + b"".join(nonces)).digest(), "little") % ORDER


def _bytes(number: int) -> bytes:
    return number.to_bytes(32, "little")


BASE: Point = crypto_scalarmult_ed25519_base_noclamp(_bytes(1))
"""B, the base point: of the X25519 key 9."""
