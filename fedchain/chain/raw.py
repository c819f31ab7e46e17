"""What a raw signed transaction says, read back from its bytes: its place, its price, and its statement.

The statement is what the contract hears: recipient, coins and calldata. Nonce, gas and fees are only how it gets there.
"""

from __future__ import annotations

from dataclasses import dataclass

import rlp  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class RawTransaction:
    """The fields of a signed transaction; in a legacy one `tip` and `fee` are both the gas price."""

    nonce: int
    tip: int
    fee: int
    gas: int
    to: bytes
    value: int
    data: bytes

    @property
    def statement(self) -> tuple[bytes, int, bytes]:
        """Recipient (empty for a creation), wei and calldata."""
        return self.to, self.value, self.data


def parse_raw(raw: bytes) -> RawTransaction:
    """Read one of our own transactions: legacy (nonce, price, …), or EIP-1559 (chain id, nonce, tip, fee, …)."""
    # EIP-2718: a typed transaction is one type byte and a list; a legacy one is a list.
    if raw[0] < 0x80:
        nonce, tip, fee, gas, to, value, data = rlp.decode(raw[1:])[1:8]
    else:
        nonce, fee, gas, to, value, data = rlp.decode(raw)[:6]
        tip = fee
    return RawTransaction(
        nonce=int.from_bytes(nonce, "big"),
        tip=int.from_bytes(tip, "big"),
        fee=int.from_bytes(fee, "big"),
        gas=int.from_bytes(gas, "big"),
        to=bytes(to),
        value=int.from_bytes(value, "big"),
        data=bytes(data),
    )


def nonce_of(raw: bytes) -> int:
    """The nonce inside a raw signed transaction."""
    return parse_raw(raw).nonce
