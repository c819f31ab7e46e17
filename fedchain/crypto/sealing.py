"""Sealed boxes: bytes that only one X25519 key opens, from a sender that leaves no trace (libsodium's format).

A sealed box is ephemeral key (32) ‖ MAC (16) ‖ XSalsa20 ciphertext, with nonce BLAKE2b-192(ephemeral key ‖ recipient).
It is made from its parts here, and not by `crypto_box_seal`, so that known-answer vectors can fix the ephemeral key.
"""

from __future__ import annotations

from hashlib import blake2b

from nacl.bindings import crypto_box, crypto_box_NONCEBYTES, crypto_box_seal_open, crypto_scalarmult_base
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey

from .noise import Random

KEY_BYTES = 32
SEAL_BYTES = 48
"""What sealing adds: an ephemeral key and a MAC."""


def generate_encryption_key() -> tuple[bytes, bytes]:
    """A fresh X25519 key pair (private, public), 32 bytes each: a member registers the public half when it enrols."""
    private = PrivateKey.generate()
    return private.encode(), private.public_key.encode()


def seal(message: bytes, public_key: bytes, random: Random) -> bytes:
    """The message for the holder of `public_key`.

    A key of low order agrees on no secret. Its owner gets zeros, which open for nobody: one member's bad key must not
    keep the others from dealing, and must not publish its shares either.
    """
    ephemeral = random(KEY_BYTES)
    ephemeral_public = crypto_scalarmult_base(ephemeral)
    nonce = blake2b(ephemeral_public + public_key, digest_size=crypto_box_NONCEBYTES).digest()
    try:
        return ephemeral_public + crypto_box(message, nonce, public_key, ephemeral)
    except CryptoError:
        return bytes(len(message) + SEAL_BYTES)


def unseal(sealed: bytes, private_key: bytes) -> bytes | None:
    """The message, or None when it was not sealed to this key or has been touched since."""
    try:
        return crypto_box_seal_open(sealed, crypto_scalarmult_base(private_key), private_key)
    except CryptoError:
        return None
