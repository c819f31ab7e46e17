"""The subset of Kubo's RPC that this project uses, in front of an `EmbeddedNode`; loopback only.

Same paths, options, status codes and error bodies as Kubo's (https://docs.ipfs.tech/reference/kubo/rpc/), so that
`IpfsStore` cannot tell them apart. Guarded like Kubo's: POST only, the Host must be this loopback address, no browser's
Origin, and a token where one is set. An import profile other than ours is refused, not ignored.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import parse_qs, urlsplit

from ..protocol.cid import digest_of_cid
from ..protocol.ids import Cid
from . import blocks
from .libkubo import EmbeddedNode, NodeError, NodeTimeout
from .upload import Upload, UploadError

VERSION = {"Version": "0.22.0", "Commit": "libkubo", "Repo": "14", "System": "embedded/linux", "Golang": "go1.19"}
DEFAULT_TIMEOUT_S = 60.0
MAX_TIMEOUT_S = 3600.0

_PROFILE = {
    "cid-version": {"0"},
    "chunker": {"size-262144"},
    "raw-leaves": {"false"},
    "trickle": {"false"},
    "nocopy": {"false"},
    "wrap-with-directory": {"false"},
    "hash": {"sha2-256"},
    "max-file-links": {"174"},
}


class RpcServer(ThreadingHTTPServer):
    """Serves one node; `stopping` is called when a caller asks for shutdown."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, port: int, node: EmbeddedNode, stopping: Callable[[], None], token: str = "") -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.node = node
        self.stopping = stopping
        self.token = token

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up is no event; anything else is our bug and shows in the log."""
        import sys
        import traceback

        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            traceback.print_exc()


class _Refusal(Exception):
    """An answer with a status other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: RpcServer
    protocol_version = "HTTP/1.1"
    server_version = "fedchain-ipfs/0.22.0"
    timeout = 120
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer one command."""
        url = urlsplit(self.path)
        self._query = parse_qs(url.query, keep_blank_values=True)
        self._begun = False
        command = url.path.removeprefix("/api/v0/")
        try:
            self._check_caller()
            answer = _COMMANDS.get(command) if url.path.startswith("/api/v0/") else None
            if answer is None:
                raise _Refusal(404, "404 page not found")
            answer(self)
        except _Refusal as refusal:
            self._refuse(refusal.status, str(refusal))
        except (NodeError, UploadError, ValueError, FileNotFoundError) as error:
            # Once an answer has begun it can only be broken off: the caller sees that bytes are missing.
            self.close_connection = True
            if not self._begun:
                self._refuse(500, str(error))

    def do_GET(self) -> None:
        """Kubo's RPC answers POST only, so that no web page can call it by a link."""
        self._refuse(405, "405 - Method Not Allowed")

    do_HEAD = do_PUT = do_OPTIONS = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """No line a request: the log is for what goes wrong."""

    def _check_caller(self) -> None:
        host = self.headers.get("Host", "")
        # Against names that an attacker points at this host; any port, for callers that come through a tunnel.
        if host.partition(":")[0] not in ("127.0.0.1", "localhost"):
            raise _Refusal(403, f"403 - Forbidden: this API is not served as {host!r}")
        if self.headers.get("Origin") or self.headers.get("Referer"):
            raise _Refusal(403, "403 - Forbidden: no web page may call this API")
        if self.server.token:
            scheme, _, given = self.headers.get("Authorization", "").partition(" ")
            if scheme == "Basic":
                with contextlib.suppress(ValueError):
                    given = base64.b64decode(given).decode("utf-8", "replace").partition(":")[2]
            if not hmac.compare_digest(given.encode(), self.server.token.encode()):
                raise _Refusal(401, "401 - Unauthorized: this API wants its token")

    def version(self) -> None:
        self._reply(VERSION)

    def id(self) -> None:
        node = self.server.node
        self._reply(
            {
                "ID": node.peer_id,
                "PublicKey": "",
                "Addresses": [node.address],
                "AgentVersion": "kubo/0.22.0/libkubo",
                "Protocols": [],
            }
        )

    def add(self) -> None:
        for option, allowed in _PROFILE.items():
            if not set(self._query.get(option, [])) <= allowed:
                raise _Refusal(400, f"this node imports under one profile only: {option} must be {min(allowed)}")
        incoming = self.server.node.repo / "incoming"
        incoming.mkdir(exist_ok=True)
        handle, name = tempfile.mkstemp(dir=incoming)
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                upload = Upload(cast("IO[bytes]", self.rfile), self.headers)
                for piece in upload.pieces():
                    file.write(piece)
            cid = self.server.node.add(path, pin=self._flag("pin", True), only_hash=self._flag("only-hash", False))
            self._reply({"Name": upload.file_name or cid, "Hash": cid, "Size": str(path.stat().st_size)})
        finally:
            path.unlink(missing_ok=True)

    def cat(self) -> None:
        cid = self._cid()
        self._make_whole(cid)
        repo = self.server.node.repo
        root = blocks.parse_block(blocks.path_of(repo, cid).read_bytes())
        offset, length = self._number("offset", 0), self._number("length", root.file_bytes)
        wanted = max(0, min(length, root.file_bytes - offset))
        self._start("text/plain", wanted, {"X-Content-Length": str(wanted)})
        for piece in _window(blocks.content_of(repo, cid), offset, wanted):
            self.wfile.write(piece)

    def block_get(self) -> None:
        cid = self._cid()
        if blocks.read_raw(self.server.node.repo, cid) is None:
            self._make_whole(cid)
        raw = blocks.path_of(self.server.node.repo, cid).read_bytes()
        self._start("application/octet-stream", len(raw), {})
        self.wfile.write(raw)

    def pin_add(self) -> None:
        cid = self._cid()
        self.server.node.pin(cid, self._timeout())
        self._reply({"Pins": [cid]})

    def pin_rm(self) -> None:
        cid = self._cid()
        if not self.server.node.unpin(cid):
            raise _Refusal(500, "not pinned or pinned indirectly")
        self._reply({"Pins": [cid]})

    def pin_ls(self) -> None:
        pins = self.server.node.pins()
        if self._query.get("arg"):
            cid = self._cid()
            if cid not in pins:
                raise _Refusal(500, f"path '/ipfs/{cid}' is not pinned")
            pins = [cid]
        self._reply({"Keys": {cid: {"Type": "recursive"} for cid in pins}} if pins else {})

    def swarm_connect(self) -> None:
        lines = []
        for address in self._query.get("arg", []):
            self.server.node.connect(address, self._timeout())
            lines.append(f"connect {address.rpartition('/')[2]} success")
        self._reply({"Strings": lines})

    def swarm_peers(self) -> None:
        self._reply({"Peers": [{"Addr": address, "Peer": peer} for address, peer in self.server.node.peers()]})

    def repo_gc(self) -> None:
        gone = self.server.node.collect()
        self._reply(*({"Key": {"/": path.stem}} for path in gone))

    def repo_stat(self) -> None:
        sizes = [path.stat().st_size for path in blocks.all_blocks(self.server.node.repo)]
        self._reply(
            {
                "RepoSize": sum(sizes),
                "NumObjects": len(sizes),
                "RepoPath": str(self.server.node.repo),
                "Version": "fs-repo@14",
            }
        )

    def shutdown(self) -> None:
        self._reply()
        self.server.stopping()

    def _make_whole(self, cid: Cid) -> None:
        node = self.server.node
        if self._flag("offline", False):
            if not blocks.is_whole(node.repo, cid):
                raise _Refusal(500, f"block was not found locally (offline): ipld: could not find {cid}")
            return
        try:
            node.fetch(cid, self._timeout())
        except NodeTimeout as error:
            raise _Refusal(500, f"{cid}: context deadline exceeded") from error

    def _cid(self) -> Cid:
        arguments = self._query.get("arg", [])
        if len(arguments) != 1:
            raise _Refusal(400, 'argument "ipfs-path" is required, once')
        cid = arguments[0].removeprefix("/ipfs/")
        digest_of_cid(cid)
        return Cid(cid)

    def _flag(self, name: str, default: bool) -> bool:
        given = self._query.get(name)
        return default if not given else given[-1].lower() in ("true", "1", "")

    def _number(self, name: str, default: int) -> int:
        given = self._query.get(name)
        number = int(given[-1]) if given else default
        if number < 0:
            raise _Refusal(400, f"{name} must not be negative")
        return number

    def _timeout(self) -> float:
        given = self._query.get("timeout")
        return min(_seconds(given[-1]) if given else DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S)

    def _reply(self, *items: dict[str, Any]) -> None:
        body = b"".join(json.dumps(item).encode() + b"\n" for item in items)
        self._start("application/json", len(body), {})
        self.wfile.write(body)

    def _start(self, kind: str, length: int, headers: dict[str, str], status: int = 200) -> None:
        self._begun = True
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()

    def _refuse(self, status: int, message: str) -> None:
        # What is left of a request's body would be read as the next request: hang up.
        self.close_connection = True
        body = json.dumps({"Message": message, "Code": 0, "Type": "error"}).encode() + b"\n"
        self._start("application/json", len(body), {"Connection": "close"}, status)
        if self.command != "HEAD":
            self.wfile.write(body)


_COMMANDS: dict[str, Callable[[_Handler], None]] = {
    "version": _Handler.version,
    "id": _Handler.id,
    "add": _Handler.add,
    "cat": _Handler.cat,
    "block/get": _Handler.block_get,
    "pin/add": _Handler.pin_add,
    "pin/rm": _Handler.pin_rm,
    "pin/ls": _Handler.pin_ls,
    "swarm/connect": _Handler.swarm_connect,
    "swarm/peers": _Handler.swarm_peers,
    "repo/gc": _Handler.repo_gc,
    "repo/stat": _Handler.repo_stat,
    "shutdown": _Handler.shutdown,
}


def _window(pieces: Iterator[bytes], offset: int, length: int) -> Iterator[bytes]:
    """The bytes [offset, offset + length) of a stream."""
    for piece in pieces:
        if offset >= len(piece):
            offset -= len(piece)
            continue
        piece = piece[offset : offset + length]
        offset = 0
        length -= len(piece)
        yield piece
        if not length:
            return


def _seconds(duration: str) -> float:
    """A Go duration ("90s", "1m30s", "250ms") in seconds. Raises ValueError."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
    if not re.fullmatch(r"([0-9.]+(h|ms|us|µs|ns|m|s))+", duration):
        raise ValueError(f"not a duration: {duration!r}")
    return sum(float(n) * units[unit] for n, unit in re.findall(r"([0-9.]+)(h|ms|us|µs|ns|m|s)", duration))
