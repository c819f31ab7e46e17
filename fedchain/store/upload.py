"""Reads the body of an HTTP upload: chunked or of stated length, multipart, one file; in constant memory.

The standard library's HTTP server decodes neither; only what Kubo's callers send is understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from typing import IO
from urllib.parse import unquote

PIECE_BYTES = 1 << 20
MAX_HEADER_BYTES = 16_384


class UploadError(Exception):
    """The body is not one whole multipart file."""


class Upload:
    """One multipart request; iterate `pieces` to its end, then `file_name` is known."""

    def __init__(self, stream: IO[bytes], headers: Message) -> None:
        found = re.search(r'boundary="?([^";,]{1,200})"?', headers.get("Content-Type", ""))
        if found is None:
            raise UploadError("expected a multipart body with a boundary")
        self._boundary = b"\r\n--" + found[1].encode()
        self._body = _body(stream, headers)
        self.file_name = ""

    def pieces(self) -> Iterator[bytes]:
        """The first file's bytes. Raises UploadError when the body ends before it does."""
        # A boundary starts with the line break before it; the first one has none.
        buffer = bytearray(b"\r\n")
        while (at := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > MAX_HEADER_BYTES:
                raise UploadError("a part's headers are too long")
            buffer += self._more()
        head = bytes(buffer[:at])
        if not head.startswith(self._boundary):
            raise UploadError("the body does not start with its boundary")
        name = re.search(rb'filename="([^"]*)"', head)
        self.file_name = unquote(name[1].decode("utf-8", "replace")) if name else ""
        del buffer[: at + 4]
        while (at := buffer.find(self._boundary)) < 0:
            # The tail may be the beginning of a boundary: it stays until more has come.
            ready = len(buffer) - len(self._boundary)
            if ready > 0:
                yield bytes(buffer[:ready])
                del buffer[:ready]
            buffer += self._more()
        yield bytes(buffer[:at])
        for _ in self._body:
            pass  # what follows is drained: the connection is used again

    def _more(self) -> bytes:
        piece = next(self._body, b"")
        if not piece:
            raise UploadError("the body ended early")
        return piece


def _body(stream: IO[bytes], headers: Message) -> Iterator[bytes]:
    """The request's body in pieces, its transfer encoding undone."""
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        while size := _chunk_size(stream):
            yield from _exactly(stream, size)
            if stream.readline(3) not in (b"\r\n", b"\n"):
                raise UploadError("a chunk without its end")
        while stream.readline(MAX_HEADER_BYTES) not in (b"\r\n", b"\n", b""):
            pass  # trailers
    else:
        try:
            length = int(headers.get("Content-Length", "0"))
        except ValueError as error:
            raise UploadError("a Content-Length that is no number") from error
        yield from _exactly(stream, length)


def _chunk_size(stream: IO[bytes]) -> int:
    line = stream.readline(64)
    try:
        return int(line.split(b";")[0], 16)
    except ValueError as error:
        raise UploadError("a chunk without its size") from error


def _exactly(stream: IO[bytes], length: int) -> Iterator[bytes]:
    while length > 0:
        piece = stream.read(min(length, PIECE_BYTES))
        if not piece:
            raise UploadError("the connection closed in the middle of the body")
        length -= len(piece)
        yield piece
