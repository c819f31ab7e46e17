"""Sealed boxes: bytes that only one X25519 key opens, from a sender that leaves no trace (libsodium's format).

A sealed box is ephemeral key (32) ‖ MAC (16) ‖ XSalsa20 ciphertext, with nonce BLAKE2b-192(ephemeral key ‖ recipient).
It is made from its parts here, and not by `crypto_box_seal`, because its sender proves to know the ephemeral key. One
ephemeral key makes one box: two boxes under one key, to recipients that registered the same one, would share their key
stream. With the point that the two keys of a box share anybody opens it, and it alone.
"""

from __future__ import annotations

from hashlib import blake2b

from nacl.bindings import (
    crypto_box,
    crypto_box_NONCEBYTES,
    crypto_box_open,
    crypto_box_seal_open,
    crypto_scalarmult_base,
)
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey

from .curve import ORDER, Point, key_of_point, multiply

KEY_BYTES = 32
SEAL_BYTES = 48
"""What sealing adds: an ephemeral key and a MAC."""


def generate_encryption_key() -> tuple[bytes, bytes]:
    """A fresh X25519 key pair (private, public), 32 bytes each: a member registers the public half when it enrols."""
    private = PrivateKey.generate()
    return private.encode(), private.public_key.encode()


def seal(message: bytes, public_key: bytes, ephemeral: bytes) -> bytes:
    """The message for the holder of `public_key`, sealed with an ephemeral private key (32 bytes) drawn for this box.

    A recipient of low order agrees on no secret with anybody: its box is zeros, which open for nobody. One member's bad
    key must not keep the others from dealing, and must not publish its shares either.
    """
    ephemeral_public = crypto_scalarmult_base(ephemeral)
    try:
        return ephemeral_public + crypto_box(message, _nonce(ephemeral_public, public_key), public_key, ephemeral)
    except CryptoError:
        return bytes(len(message) + SEAL_BYTES)


def unseal(sealed: bytes, private_key: bytes) -> bytes | None:
    """The message, or None when it was not sealed to this key or has been touched since."""
    try:
        return crypto_box_seal_open(sealed, crypto_scalarmult_base(private_key), private_key)
    except CryptoError:
        return None


def unseal_with(sealed: bytes, public_key: bytes, shared: Point) -> bytes | None:
    """The message of a box sealed to `public_key`, by the point that its two keys share; None if that opens nothing."""
    # libsodium derives the box's key from two X25519 keys: from these two it gets u(2^254·(2^-254·shared)).
    stand_in = key_of_point(multiply(pow(_STAND_IN, -1, ORDER), shared))
    nonce = _nonce(sealed[:KEY_BYTES], public_key)
    try:
        return crypto_box_open(sealed[KEY_BYTES:], nonce, stand_in, _STAND_IN.to_bytes(KEY_BYTES, "little"))
    except CryptoError:
        return None


_STAND_IN = 2**254
"""The least private key of X25519: clamping changes nothing in it."""


def _nonce(ephemeral_public: bytes, public_key: bytes) -> bytes:
    return blake2b(ephemeral_public + public_key, digest_size=crypto_box_NONCEBYTES).digest()
