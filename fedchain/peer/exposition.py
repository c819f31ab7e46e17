"""Serves a peer's health and metrics over HTTP: GET /healthz and GET /metrics, on this machine unless told otherwise.

It reads and changes nothing, asks nobody, and answers a few callers at a time, each in bounded time: whoever hangs on
to it keeps others from the figures, and the peer from nothing.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import structlog
from prometheus_client import ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ..errors import UsageError
from .health import Health
from .meter import Meter

CALLERS = 8
"""So many are served at once; the next one's connection is closed."""

TIMEOUT_S = 5.0


def parse_listen(listen: str, *, anywhere: bool) -> tuple[str, int]:
    """HOST:PORT as an operator writes it. Raises UsageError, also for an address that others can reach.

    Only addresses are understood, and "localhost": a name may be another machine's tomorrow.
    """
    host, _, port = listen.rpartition(":")
    host = "127.0.0.1" if host in ("", "localhost") else host.removeprefix("[").removesuffix("]")
    try:
        address, number = ip_address(host), int(port)
    except ValueError as error:
        raise UsageError(f"--metrics {listen!r}: write an address and a port, for example 127.0.0.1:9464") from error
    if not 0 <= number < 65_536:
        raise UsageError(f"--metrics {listen!r}: a port is at most 65535")
    if not address.is_loopback and not anywhere:
        raise UsageError(
            f"--metrics {listen!r}: others can reach that address, and anyone who does reads the figures; add"
            " --metrics-anywhere if that is meant, or use 127.0.0.1"
        )
    return host, number


@contextmanager
def serving(
    address: tuple[str, int], health: Health, meter: Meter, log: structlog.stdlib.BoundLogger
) -> Iterator[int | None]:
    """Serve while the body runs; gives the port, or None where it is taken.

    A port that is taken is said in the log, and the peer goes on without: a duty that is missed costs money, a figure
    does not. Who watches sees that nobody answers.
    """
    try:
        server = _Server(address, health, meter)
    except OSError as error:
        host, port = address
        log.error("no metrics: the address is taken; going on without", address=f"{host}:{port}", reason=str(error))
        yield None
        return
    ProcessCollector(registry=meter.registry)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    log.info("metrics served", address=f"{address[0]}:{server.server_address[1]}")
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(TIMEOUT_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = CALLERS

    def __init__(self, address: tuple[str, int], health: Health, meter: Meter) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.health, self.meter = health, meter
        self._slots = threading.BoundedSemaphore(CALLERS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread a caller, and no more callers than slots."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            # No thread is to be had.
            self._slots.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one caller; its connection is cut when its time is over, however it drips."""
        over = threading.Timer(TIMEOUT_S, _cut, [request])
        over.daemon = True
        over.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            over.cancel()
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is no event of the peer's."""


def _cut(connection: socket.socket) -> None:
    # Closing alone would wait for whoever reads from it; this ends the reading.
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "fedchain"
    sys_version = ""
    timeout = TIMEOUT_S

    def do_GET(self) -> None:
        """The health, or the metrics."""
        if not _is_an_address(self.headers.get("Host", "")):
            # A web page whose name was made to point here must not read the figures (DNS rebinding).
            self._reply(403, "text/plain", b"ask by address, or as localhost\n")
            return
        match self.path.partition("?")[0]:
            case "/healthz":
                healthy, known = self.server.health.verdict()
                self._reply(200 if healthy else 503, "application/json", json.dumps(known).encode() + b"\n")
            case "/metrics":
                self._reply(200, CONTENT_TYPE_LATEST, generate_latest(self.server.meter.registry))
            case _:
                self._reply(404, "text/plain", b"GET /healthz or /metrics\n")

    def do_POST(self) -> None:
        """Nothing here is changed."""
        self._reply(405, "text/plain", b"GET /healthz or /metrics\n")

    do_PUT = do_DELETE = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """No line a request."""

    def _reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _is_an_address(host: str) -> bool:
    """Whether a Host header names no name that somebody else could have chosen."""
    try:
        name = urlsplit(f"//{host}").hostname if host else "localhost"
        return name == "localhost" or bool(name and ip_address(name))
    except ValueError:
        return False
