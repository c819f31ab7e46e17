"""Names for the values that travel between chain, store and peers. Bytes inside, hex at the edges only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NewType

Digest = NewType("Digest", bytes)
"""32 bytes: SHA-256 or keccak-256 of a whole object."""

Root = NewType("Root", bytes)
"""32 bytes: the root of a SHA-256 Merkle tree (`fedchain.protocol.merkle`)."""

Cid = NewType("Cid", str)
"""A CIDv0 ("Qm…") under the store's fixed import profile (`fedchain.protocol.cid`)."""

Address = NewType("Address", str)
"""An EIP-55 checksummed account or contract address."""

Index = NewType("Index", int)
"""A member's place in the founders' list, from 0; also the bit it owns in every bitmap."""

Bitmap = NewType("Bitmap", int)
"""A set of members: bit i is member i. At most `MAX_MEMBERS` bits."""

MAX_MEMBERS = 64
"""What a 16-bit value leaves room for in half a coefficient (update_format), and every loop's bound."""


def bitmap_of(indices: Iterator[int] | list[int] | tuple[int, ...] | set[int] | frozenset[int] | range) -> Bitmap:
    """The bitmap with exactly these members."""
    bits = 0
    for index in indices:
        bits |= 1 << index
    return Bitmap(bits)


def members_of(bitmap: int) -> tuple[Index, ...]:
    """The members in a bitmap, ascending."""
    return tuple(Index(i) for i in range(bitmap.bit_length()) if bitmap >> i & 1)


def size_of(bitmap: int) -> int:
    """How many members a bitmap holds."""
    return bitmap.bit_count()


def is_subset(inner: int, outer: int) -> bool:
    """Whether every member of `inner` is in `outer`."""
    return inner & ~outer == 0
