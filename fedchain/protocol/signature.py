"""Who signed a digest: the EVM's `ecrecover`, as a pure function. Nothing here can sign."""

from __future__ import annotations

from dataclasses import dataclass

from coincurve import PublicKey
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from .ids import Address, Digest


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature in the short form of EIP-2098: r, and s with v's parity in its highest bit; 32 bytes each."""

    r: bytes
    vs: bytes

    @classmethod
    def shortened(cls, signature: bytes) -> Signature:
        """The short form of r ‖ s ‖ v (65 bytes, v 27 or 28, s in the lower half: its highest bit is 0)."""
        parity = (signature[64] - 27) << 7
        return cls(signature[:32], bytes((signature[32] | parity,)) + signature[33:64])

    @property
    def whole(self) -> bytes:
        """r ‖ s ‖ v."""
        return self.r + bytes((self.vs[0] & 0x7F,)) + self.vs[1:] + bytes((27 + (self.vs[0] >> 7),))


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
