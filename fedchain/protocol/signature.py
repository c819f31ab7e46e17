"""Who signed a digest: the EVM's `ecrecover`, as a pure function. Nothing here can sign."""

from __future__ import annotations

from coincurve import PublicKey
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from .ids import Address, Digest


def recover(digest: Digest, signature: bytes) -> Address | None:
    """The account that signed `digest` with r ‖ s ‖ v (65 bytes, v 27 or 28), or None where nobody can have."""
    v = signature[64]
    if v not in (27, 28):
        return None
    try:
        key = PublicKey.from_signature_and_message(signature[:64] + bytes((v - 27,)), digest, hasher=None)
    except ValueError:
        return None
    return Address(to_checksum_address(keccak(key.format(compressed=False)[1:])[-20:]))
