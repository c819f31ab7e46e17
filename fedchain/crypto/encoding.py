"""Ciphertexts and aggregates as they are stored: a header of 16 bytes, then whole leaves of residues, 54 bits each.

    0   4  magic: "FCUP" (an update) or "FCAG" (an aggregate)
    4   4  version, little-endian: 1
    8   8  d, little-endian: the contract's modelSize
    16  …  leaves_of(d) leaves of 432 bytes

Everything fetched is read through here, a block at a time, so that memory does not grow with the object. Files are
read, not mapped: mapped pages would count as this process's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import MalformedObject
from . import parameters as p
from .packing import unpack_residues
from .seed import Residues

Blob = bytes | Path
"""A stored object: its bytes, or the file that holds them."""

UPDATE, AGGREGATE = b"FCUP", b"FCAG"
VERSION = 1

_NAMES = {UPDATE: "ciphertext", AGGREGATE: "aggregate"}


def header(magic: bytes, d: int) -> bytes:
    """The 16 bytes that open a stored update or aggregate of the size d."""
    return magic + VERSION.to_bytes(4, "little") + d.to_bytes(8, "little")


class StoredResidues:
    """An open update or aggregate whose size and header are as they must be. It holds no more than its place in it."""

    __slots__ = ("_file", "_leaves_read", "d", "name", "offender", "round")

    def __init__(self, file: BinaryIO, size: int, magic: bytes, d: int, offender: str, round: int) -> None:
        self._file, self._leaves_read = file, 0
        self.d, self.name, self.offender, self.round = d, _NAMES[magic], offender, round
        if size != p.ciphertext_size(d):
            raise self._malformed("size", f"{p.ciphertext_size(d)} bytes", f"{size} bytes")
        found, due = file.read(p.HEADER_BYTES), header(magic, d)
        for field, part in (("magic", slice(0, 4)), ("version", slice(4, 8)), ("length", slice(8, 16))):
            if found[part] != due[part]:
                raise self._malformed(field, due[part].hex(), found[part].hex())

    def blocks(self) -> Iterator[Residues]:
        """All that is left, block by block."""
        while self._leaves_read < p.leaves_of(self.d):
            yield self.next_block()

    def raw_blocks(self) -> Iterator[Residues]:
        """All that is left, block by block, whatever the residues are: for evidence about them."""
        while self._leaves_read < p.leaves_of(self.d):
            yield self._read()

    def next_block(self) -> Residues:
        """The next residues, flat, of at most `BLOCK` polynomials: each below q, or MalformedObject names its place."""
        first = self._leaves_read * p.LEAF_RESIDUES
        residues = self._read()
        if residues.max() >= p.Q:
            worst = int(np.argmax(residues >= p.Q))
            raise self._malformed(f"residue {first + worst}", f"below {p.Q}", str(int(residues[worst])))
        return residues

    def _read(self) -> Residues:
        leaves = min(p.leaves_of(self.d) - self._leaves_read, p.BLOCK_LEAVES)
        packed = self._file.read(leaves * p.PACKED_LEAF_BYTES)
        if len(packed) != leaves * p.PACKED_LEAF_BYTES:
            raise self._malformed("size", f"{p.ciphertext_size(self.d)} bytes", "a file that shrank while it was read")
        self._leaves_read += leaves
        return unpack_residues(packed)

    def _malformed(self, field: str, expected: str, got: str) -> MalformedObject:
        return MalformedObject(
            f"{self.name}: {field}", offender=self.offender, round=self.round, expected=expected, got=got
        )


@contextmanager
def opened(blob: Blob, magic: bytes, d: int, offender: str = "", round: int = 0) -> Iterator[StoredResidues]:
    """A stored update or aggregate of the size d. Raises MalformedObject when its size or header is not that."""
    if isinstance(blob, Path):
        with blob.open("rb") as file:
            yield StoredResidues(file, blob.stat().st_size, magic, d, offender, round)
    else:
        yield StoredResidues(BytesIO(blob), len(blob), magic, d, offender, round)
