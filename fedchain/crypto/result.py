"""What a closer stores of the sum it opened: S and the decoded coefficients, so that anybody can prove them wrong (P5).

0     4   magic "FCRE"
4     4   version, little-endian: 1
8     8   d, little-endian: the contract's modelSize
16    …   S mod 65521, as an opening is stored: 4,096 bytes
4112  …   leaves_of(d) leaves of 432 bytes: the coefficients, 54 bits each
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import MalformedObject
from ..protocol.ids import Root
from ..protocol.merkle import root_of
from . import parameters as p
from .aggregate import leaf_hashes
from .packing import pack_residues, unpack_residues
from .seed import Residues

MAGIC, VERSION = b"FCRE", 1


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """S and the coefficients of a sum of the size d, as somebody posted them: right or wrong.

    `elements` are S mod 65521, (2048,) uint16; `coefficients` are (leaves, 64) uint64 below 2**54.
    """

    elements: NDArray[np.uint16]
    coefficients: Residues
    d: int

    @property
    def key_sum(self) -> bytes:
        """S as an opening is stored: what a challenge hands to the contract."""
        return self.elements.astype("<u2", copy=False).tobytes()

    def pack(self) -> bytes:
        """The stored form."""
        return _header(self.d) + self.key_sum + pack_residues(self.coefficients)

    def key_sum_root(self) -> Root:
        """The Merkle root of S."""
        return root_of(leaf_hashes(self.key_sum_leaves()))

    def root(self) -> Root:
        """The Merkle root of the coefficients."""
        return root_of(leaf_hashes(self.coefficients))

    def key_sum_leaves(self) -> Residues:
        """S as its tree has it: (32, 64) uint64."""
        return self.elements.astype(np.uint64).reshape(-1, p.LEAF_RESIDUES)

    @classmethod
    def parse(cls, content: bytes, d: int, offender: str = "", round: int = 0) -> Result:
        """A fetched result. Raises MalformedObject for its size or header; what it says is for others to judge."""
        due = _header(d)
        fields = (("magic", slice(0, 4)), ("version", slice(4, 8)), ("length", slice(8, 16)))
        if len(content) != p.result_size(d):
            expected, got = f"{p.result_size(d)} bytes", f"{len(content)} bytes"
            raise MalformedObject("result: size", offender=offender, round=round, expected=expected, got=got)
        for field, part in fields:
            if content[part] != due[part]:
                expected, got = due[part].hex(), content[part].hex()
                raise MalformedObject(f"result: {field}", offender=offender, round=round, expected=expected, got=got)
        start = p.HEADER_BYTES + p.OPENING_BYTES
        elements = np.frombuffer(content, dtype="<u2", count=p.N, offset=p.HEADER_BYTES).astype(np.uint16)
        return cls(elements, unpack_residues(content[start:]).reshape(-1, p.LEAF_RESIDUES), d)


def _header(d: int) -> bytes:
    return MAGIC + VERSION.to_bytes(4, "little") + d.to_bytes(8, "little")
