"""HTTP servers that do what no server should, for tests of whoever asks them; on raw sockets, to say anything."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType

from typing_extensions import Self

Answer = Callable[[socket.socket, bytes], None]
"""What is said to one request, given its head; the connection is closed afterwards."""

MIB = 1 << 20


class HostileServer:
    """One server on the loopback address, at `url`."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._ending = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.asked = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.asked += 1
            threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    more = connection.recv(65_536)
                    if not more:
                        return
                    request += more
                self._answer(connection, request)
            except OSError:
                return

    def silence(self, connection: socket.socket, request: bytes) -> None:
        """Take the request, and say nothing until the end of the test."""
        self._ending.wait(600)


def never() -> HostileServer:
    """A server that accepts and never answers."""
    server = HostileServer(lambda connection, request: server.silence(connection, request))
    return server


def said(head: str, body: bytes = b"") -> Answer:
    """A fixed answer, whatever is asked."""
    return lambda connection, request: connection.sendall(head.encode() + b"\r\n\r\n" + body)


def huge_length(connection: socket.socket, request: bytes) -> None:
    """Announces 10 GB, and sends what it can of it."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
    endless_bytes(connection)


def endless_chunks(connection: socket.socket, request: bytes) -> None:
    """A chunked answer without an end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
    while True:
        connection.sendall(chunk)


def huge_chunk(connection: socket.socket, request: bytes) -> None:
    """One chunk that says it is of 2^60 bytes."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000000000000000\r\n")
    endless_bytes(connection)


def endless_chunk_size(connection: socket.socket, request: bytes) -> None:
    """A chunk whose size has no end of digits."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    endless_bytes(connection)


def endless_head(connection: socket.socket, request: bytes) -> None:
    """Headers without an end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: " + b"x" * 8_000 + b"\r\n")


def endless_line(connection: socket.socket, request: bytes) -> None:
    """A status line without an end."""
    endless_bytes(connection)


def endless_bytes(connection: socket.socket) -> None:
    """Bytes for as long as somebody takes them."""
    while True:
        connection.sendall(b"0" * MIB)


def dripping(pause_s: float) -> Answer:
    """A byte every now and then."""
    return _drips(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" ", pause_s)


def dripping_head(pause_s: float) -> Answer:
    """A byte of the headers every now and then."""
    return _drips(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"x", pause_s)


def _drips(first: bytes, then: bytes, pause_s: float) -> Answer:
    """An answer that begins, and goes on with the same byte for ever."""

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(then)
            threading.Event().wait(pause_s)

    return answer


def moved(connection: socket.socket, request: bytes) -> None:
    """Sends whoever asks in a circle."""
    connection.sendall(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")
