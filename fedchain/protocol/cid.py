"""CIDs: the name of an object is recomputed here, so that a store need not be believed.

A `Cid` is a CIDv0 ("Qm…", base58 of a SHA-256 multihash) of a UnixFS file under one fixed import profile: 262,144-byte
chunks, DAG-PB leaves, at most 174 links a node, balanced (what `ipfs add` does with no option since 2015). The digest
inside is that of the root node, not of the bytes: the chain holds it as 32 bytes.

Formats: UnixFS and DAG-PB of https://specs.ipfs.tech/unixfs/ and https://ipld.io/specs/codecs/dag-pb/spec/.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

import base58

from .ids import Cid

CHUNK_BYTES = 262_144
MAX_LINKS = 174

_MULTIHASH = b"\x12\x20"
"""The multihash prefix: SHA-256, 32 bytes."""


def cid_of_digest(digest: bytes) -> Cid:
    """The CIDv0 whose multihash is this SHA-256 digest of a root node. Raises ValueError unless it has 32 bytes."""
    if len(digest) != 32:
        raise ValueError(f"a CID's digest has 32 bytes, not {len(digest)}")
    return Cid(base58.b58encode(_MULTIHASH + digest).decode("ascii"))


def digest_of_cid(cid: str) -> bytes:
    """The 32 bytes inside a CIDv0. Raises ValueError for anything but its one canonical spelling."""
    if len(cid) != 46 or not cid.isascii():
        raise ValueError(f"not a CIDv0 (46 characters, Qm…): {cid[:60]!r}")
    try:
        multihash = base58.b58decode(cid)
    except ValueError as error:
        raise ValueError(f"not a CIDv0 (not base58): {cid!r}") from error
    if len(multihash) != 34 or not multihash.startswith(_MULTIHASH) or base58.b58encode(multihash).decode() != cid:
        raise ValueError(f"not a CIDv0 (not a SHA-256 multihash): {cid!r}")
    return multihash[2:]


def cid_of(content: bytes | bytearray | memoryview) -> Cid:
    """The CID that a store must give these bytes."""
    hasher = CidHasher()
    hasher.update(content)
    return hasher.cid()


def cid_of_stream(stream: BinaryIO) -> Cid:
    """The same of what a stream holds from here to its end, a mebibyte of it in memory at a time."""
    hasher = CidHasher()
    while piece := stream.read(1 << 20):
        hasher.update(piece)
    return hasher.cid()


@dataclass(frozen=True, slots=True)
class _Node:
    """A finished node: its digest, the file bytes below it, and the size of its whole sub-graph (`Tsize`)."""

    digest: bytes
    file_bytes: int
    graph_bytes: int


class CidHasher:
    """The CID of a stream of bytes, in constant memory: `update` as often as you like, then `cid`."""

    def __init__(self) -> None:
        self._levels: list[list[_Node]] = [[]]
        self._tail = bytearray()
        self.size = 0

    def update(self, content: bytes | bytearray | memoryview) -> None:
        """Append bytes to the stream."""
        view = memoryview(content).cast("B")
        self.size += len(view)
        if self._tail:
            taken = CHUNK_BYTES - len(self._tail)
            self._tail += view[:taken]
            view = view[taken:]
            if len(self._tail) < CHUNK_BYTES:
                return
            self._append(0, _leaf(self._tail))
            self._tail = bytearray()
        whole = len(view) - len(view) % CHUNK_BYTES
        for start in range(0, whole, CHUNK_BYTES):
            self._append(0, _leaf(view[start : start + CHUNK_BYTES]))
        self._tail += view[whole:]

    def cid(self) -> Cid:
        """The CID of everything so far; the stream may go on after it."""
        levels = [list(level) for level in self._levels]
        try:
            if self._tail or not self.size:
                self._append(0, _leaf(self._tail))
            return cid_of_digest(self._root().digest)
        finally:
            self._levels = levels

    def _append(self, depth: int, node: _Node) -> None:
        """Add a node at this depth; a full row above it is folded into its parent first."""
        if depth == len(self._levels):
            self._levels.append([])
        row = self._levels[depth]
        if len(row) == MAX_LINKS:
            self._append(depth + 1, _parent(row))
            row.clear()
        row.append(node)

    def _root(self) -> _Node:
        """Fold every row from the leaves up; the last row's only node is the root."""
        depth = 0
        while depth + 1 < len(self._levels) or len(self._levels[depth]) > 1:
            self._append(depth + 1, _parent(self._levels[depth]))
            depth += 1
        return self._levels[depth][0]


def _leaf(chunk: bytes | bytearray | memoryview) -> _Node:
    """A DAG-PB node without links, holding a UnixFS file chunk; hashed without copying the chunk."""
    n = len(chunk)
    # UnixFS Data: Type = 2 (File), Data (left out when empty), filesize.
    head = b"\x08\x02" + (b"\x12" + _varint(n) if n else b"")
    tail = b"\x18" + _varint(n)
    inner = len(head) + n + len(tail)
    start = b"\x0a" + _varint(inner)
    hasher = hashlib.sha256(start + head)
    hasher.update(chunk)
    hasher.update(tail)
    return _Node(hasher.digest(), n, len(start) + inner)


def _parent(children: list[_Node]) -> _Node:
    """A DAG-PB node that links to its children in order; the links (field 2) are written before the data (field 1)."""
    links = bytearray()
    file_bytes = sum(child.file_bytes for child in children)
    unixfs = bytearray(b"\x08\x02\x18" + _varint(file_bytes))
    for child in children:
        link = b"\x0a\x22" + _MULTIHASH + child.digest + b"\x12\x00\x18" + _varint(child.graph_bytes)
        links += b"\x12" + _varint(len(link)) + link
        unixfs += b"\x20" + _varint(child.file_bytes)
    block = bytes(links) + b"\x0a" + _varint(len(unixfs)) + bytes(unixfs)
    return _Node(hashlib.sha256(block).digest(), file_bytes, len(block) + sum(child.graph_bytes for child in children))


def _varint(number: int) -> bytes:
    """Protocol Buffers' base-128 varint."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
