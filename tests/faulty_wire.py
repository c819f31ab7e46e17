"""An RPC endpoint that fails as endpoints do: it stands before a real one, and spoils as many answers as it is told."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import requests

Failure = Literal["refuses", "hangs up", "resets", "babbles", "429", "503"]
FAILURES: tuple[Failure, ...] = ("refuses", "hangs up", "resets", "babbles", "429", "503")
"""Closes the connection before the call reaches the node; after it did; in the middle of the answer; answers in no
JSON; is asked too often; is down for maintenance."""


class FaultyWire:
    """`fail(how, calls)` spoils the next calls; `suffered` counts what was spoiled."""

    def __init__(self, target: str) -> None:
        self.suffered: Counter[Failure] = Counter()
        self._to_come: list[Failure] = []
        self._lock = threading.Lock()
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"]))
                how = wire._next()
                if how in ("refuses", "429", "503"):
                    answer = b""
                else:
                    answer = requests.post(target, data=asked, headers={"Content-Type": "application/json"}).content
                match how:
                    case "refuses" | "hangs up":
                        self.close_connection = True
                    case "resets":
                        self._say(200, answer, len(answer) // 2)
                        self._reset()
                    case "babbles":
                        self._say(200, b"<html>It works!</html>")
                    case "429" | "503":
                        self._say(int(how), json.dumps({"error": "later"}).encode())
                    case None:
                        self._say(200, answer)

            def _say(self, status: int, body: bytes, only: int | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:only])
                self.wfile.flush()

            def _reset(self) -> None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True

            def finish(self) -> None:
                if self.connection.fileno() >= 0:
                    super().finish()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def fail(self, how: Failure, calls: int) -> None:
        """Spoil the next calls."""
        with self._lock:
            self._to_come += [how] * calls

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _next(self) -> Failure | None:
        with self._lock:
            if not self._to_come:
                return None
            how = self._to_come.pop(0)
            self.suffered[how] += 1
            return how
