"""The sum of ciphertexts: what an aggregator publishes, and anybody repeats to the same bytes, in any order (P3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Literal

import numpy as np

from ..protocol.ids import MAX_MEMBERS, Root
from ..protocol.merkle import hash_leaves, root_of
from . import numpy_engine
from . import parameters as p
from .encoding import AGGREGATE, UPDATE, Blob, header, opened
from .packing import pack_residues
from .seed import Residues

EngineName = Literal["numpy", "tenseal"]


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """The sum mod q of the participants' ciphertexts of the size d.

    `residues` is (polynomials, N) uint64 below q; past the stored leaves stand zeros that mean nothing.
    """

    residues: Residues
    d: int

    def pack(self) -> bytes:
        """The stored form: the same bytes for every order of summation and every engine."""
        return header(AGGREGATE, self.d) + pack_residues(self._leaves())

    def root(self) -> Root:
        """The Merkle root over the stored leaves, 64 little-endian uint64 residues each."""
        return root_of(leaf_hashes(self._leaves()))

    @classmethod
    def parse(cls, blob: Blob, d: int, offender: str = "", round: int = 0) -> Aggregate:
        """A fetched aggregate. Raises MalformedObject for size, header, or a residue of q or more."""
        with opened(blob, AGGREGATE, d, offender, round) as stored:
            return cls(_gathered(stored.blocks(), d), d)

    def _leaves(self) -> Residues:
        return self.residues.reshape(-1, p.LEAF_RESIDUES)[: p.leaves_of(self.d)]


def check_ciphertext(blob: Blob, d: int, *, offender: str, round: int) -> Root:
    """The Merkle root of a fetched ciphertext of the size d that is well formed (P2).

    1. Size. 2. Header. 3. Every residue below q. Raises MalformedObject naming the field; memory is one block.
    """
    with opened(blob, UPDATE, d, offender, round) as stored:
        hashes: list[bytes] = []
        for block in stored.blocks():
            hashes += hash_leaves(block.astype("<u8", copy=False).tobytes(), p.LEAF_BYTES)
    return root_of(hashes)


def sum_ciphertexts(blobs: Sequence[Blob], d: int, engine: EngineName = "numpy") -> Aggregate:
    """The homomorphic sum of checked ciphertexts of the size d, block by block: memory does not grow with their number.

    Raises MalformedObject, naming the place in `blobs`, for what `check_ciphertext` would have refused.
    """
    if not 1 <= len(blobs) <= MAX_MEMBERS:
        raise ValueError(f"a sum has 1 to {MAX_MEMBERS} ciphertexts, not {len(blobs)}")
    add = numpy_engine.add if engine == "numpy" else tenseal().add
    with ExitStack() as files:
        updates = [
            files.enter_context(opened(blob, UPDATE, d, f"update {i} of the sum")) for i, blob in enumerate(blobs)
        ]
        sums = (add(update.next_block() for update in updates) for _ in range(0, p.leaves_of(d), p.BLOCK_LEAVES))
        return Aggregate(_gathered(sums, d), d)


def leaf_hashes(leaves: Residues) -> list[bytes]:
    """The hashes of (count, 64) residues, a leaf a row, block by block."""
    hashes: list[bytes] = []
    for start in range(0, len(leaves), p.BLOCK_LEAVES):
        part = leaves[start : start + p.BLOCK_LEAVES].astype("<u8", copy=False)
        hashes += hash_leaves(part.tobytes(), p.LEAF_BYTES)
    return hashes


def tenseal() -> ModuleType:
    """The engine that needs TenSEAL, imported only when asked for: the auditor does without it."""
    return import_module(".tenseal_engine", __package__)


def _gathered(blocks: Iterator[Residues], d: int) -> Residues:
    residues = np.zeros(p.polynomials_of(d) * p.N, dtype=np.uint64)
    place = 0
    for block in blocks:
        residues[place : place + block.size] = block
        place += block.size
    return residues.reshape(-1, p.N)
