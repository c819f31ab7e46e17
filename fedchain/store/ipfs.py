"""The store: objects on IPFS through a Kubo RPC, each verified against its CID before anyone sees it.

The one module that knows ipfshttpclient. That library ignores an error that comes late in a download (the bytes just
stop), sends some arguments wrongly, and refuses current daemons when asked to connect; so this module builds the client
without the check, sends every parameter itself, and believes nothing: the root block is fetched and hashed first, its
stated size bounds the download, and the CID of what arrived is computed here.

Every call ends in bounded time: `timeout_s` of silence, and overall `timeout_s` plus the size over `SLOWEST`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import ipfshttpclient
import requests
from ipfshttpclient import exceptions, multipart

from ..errors import ObjectCorrupt, ObjectMissing, StoreUnreachable, UsageError
from ..protocol.cid import CidHasher, cid_of, digest_of_cid
from ..protocol.ids import Cid
from .blocks import Block, parse_block

SLOWEST = 256 * 1024
"""Bytes a second below which a transfer is given up."""

MAX_BLOCK_BYTES = 2 << 20
MAX_REPLY_BYTES = 16 << 20
CONNECT_S = 5.0
UPLOAD_CHUNK = 1 << 20

_PROFILE = {
    "cid-version": "0",
    "raw-leaves": "false",
    "chunker": "size-262144",
    "hash": "sha2-256",
    "trickle": "false",
    "nocopy": "false",
    "wrap-with-directory": "false",
    "only-hash": "false",
    "progress": "false",
}

_T = TypeVar("_T")

# ipfshttpclient passes urllib3 an argument that no longer means anything; the notice is not for our users.
warnings.filterwarnings("ignore", message="The 'strict' parameter", category=FutureWarning)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers at an API: its peer id, the addresses that others can dial, its software."""

    peer_id: str
    addresses: tuple[str, ...]
    agent: str


class _Silence(Exception):
    """The daemon took the request and sent nothing in time."""


class _CutShort(Exception):
    """The daemon ended its answer before the object's end."""


_LOST = (exceptions.ConnectionError, exceptions.ProtocolError, requests.RequestException, _CutShort)
"""What a second try may mend."""


class IpfsStore:
    """Implements `fedchain.ports.Store` on one Kubo-compatible API. Threads may share it."""

    def __init__(
        self,
        api: str,
        *,
        timeout_s: float = 60.0,
        attempts: int = 4,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`api` is http(s)://[user:password@]host:port or a multiaddress; `token` is sent as a bearer token.

        `attempts` bounds how often an unreachable daemon is tried (0.2 s apart, doubling). Raises UsageError.
        """
        address, base, auth, self.api = _address_of(api)
        sent = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        self._timeout_s = timeout_s
        self._attempts = max(1, attempts)
        # The constructor, not connect(): connect() refuses every daemon from 0.8 on.
        try:
            self._client = ipfshttpclient.Client(
                address,
                base,
                chunk_size=UPLOAD_CHUNK,
                session=True,
                auth=auth,
                headers=sent or None,
                timeout=(min(CONNECT_S, timeout_s), timeout_s),
            )
        except exceptions.AddressError as error:
            raise UsageError(f"{self.api} is not an IPFS API's address (http://127.0.0.1:5001)") from error
        if "127.0.0.1" in address or "/ip6/::1/" in address:
            # A proxy named in the environment must not see what is meant for this host.
            self._client._client._session.trust_env = False
        self._count = threading.Lock()
        self._bytes_up = 0
        self._bytes_down = 0

    @property
    def bytes_up(self) -> int:
        """Bytes of objects put since this store was made."""
        return self._bytes_up

    @property
    def bytes_down(self) -> int:
        """Bytes of objects got since this store was made."""
        return self._bytes_down

    def put(self, content: bytes) -> Cid:
        """Add and pin an object; its CID is computed here and the store's must agree.

        Raises StoreUnreachable, and ObjectCorrupt where the store imports under another profile.
        """
        cid = cid_of(content)
        deadline = self._deadline(len(content))

        def upload() -> list[dict[str, Any]]:
            body, headers = multipart.stream_files(io.BytesIO(content), chunk_size=UPLOAD_CHUNK)
            return self._ask("add", (), {**_PROFILE, "pin": "true"}, deadline, data=body, headers=headers)

        with self._refusals(f"put {cid}"):
            replies = self._retried(upload, deadline, f"put {cid}")
        given = replies[-1].get("Hash") if replies else None
        if given != cid:
            raise ObjectCorrupt(
                f"{self.api} stored {cid} as {given}: it imports under another profile "
                "(CIDv0, 262144-byte chunks, 174 links a node, balanced)"
            )
        with self._count:
            self._bytes_up += len(content)
        return cid

    def get(self, cid: Cid, max_bytes: int) -> bytes:
        """An object's bytes, verified. Raises ObjectMissing, ObjectCorrupt (also when too large), StoreUnreachable."""
        content = bytearray()

        def start() -> Callable[[bytes], object]:
            content.clear()
            return content.extend

        self._download(cid, max_bytes, start)
        return bytes(content)

    def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
        """Like `get`, into a file that appears only when it is whole and verified."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:

                def start() -> Callable[[bytes], object]:
                    file.seek(0)
                    file.truncate()
                    return file.write

                self._download(cid, max_bytes, start)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)

    def pin(self, cid: Cid) -> None:
        """Fetch and keep an object. Raises ObjectMissing, StoreUnreachable."""
        digest_of_cid(cid)
        deadline = self._deadline(0)
        with self._refusals(f"pin {cid}"):
            self._retried(
                lambda: self._ask("pin/add", (cid,), {"recursive": "true", "progress": "false"}, deadline),
                deadline,
                f"pin {cid}",
            )

    def unpin(self, cid: Cid) -> None:
        """Let an object go when space is needed; no error when it was not pinned. Raises StoreUnreachable."""
        digest_of_cid(cid)
        try:
            self._command("pin/rm", (cid,), {"recursive": "true"}, what=f"unpin {cid}")
        except ObjectMissing as error:
            if "not pinned" not in str(error):
                raise

    def pins(self) -> tuple[Cid, ...]:
        """The roots that this store keeps. Raises StoreUnreachable."""
        replies = self._command("pin/ls", (), {"type": "recursive"}, what="list the pins")
        # With nothing pinned there is no "Keys".
        return tuple(Cid(cid) for reply in replies for cid in (reply.get("Keys") or {}))

    def collect(self) -> int:
        """Have the store free what is not pinned; gives the number of blocks deleted. Raises StoreUnreachable."""
        return len(self._command("repo/gc", (), {"quiet": "false"}, what="collect garbage"))

    def identity(self) -> Identity:
        """Who answers here. Raises StoreUnreachable."""
        reply = self._command("id", (), {}, what="ask who it is")[-1]
        return Identity(str(reply["ID"]), tuple(reply.get("Addresses") or ()), str(reply.get("AgentVersion", "")))

    def connect_peers(self, multiaddrs: Sequence[str]) -> None:
        """Dial these nodes now (discovery takes seconds). Raises StoreUnreachable where one does not answer."""
        for address in multiaddrs:
            try:
                # ipfshttpclient's own swarm.connect sends every character as an argument.
                self._command("swarm/connect", (address,), {}, what=f"connect to {address}")
            except ObjectMissing as error:
                raise StoreUnreachable(str(error)) from error

    def peers(self) -> tuple[str, ...]:
        """The peer ids that this node is connected to. Raises StoreUnreachable."""
        reply = self._command("swarm/peers", (), {}, what="list its peers")[-1]
        # Two nodes that dialled each other at once are listed twice.
        return tuple(dict.fromkeys(str(peer["Peer"]) for peer in reply.get("Peers") or ()))

    def close(self) -> None:
        """Close the connections; the store may still be used, one connection a call."""
        self._client.close()

    def _download(self, cid: Cid, max_bytes: int, start: Callable[[], Callable[[bytes], object]]) -> None:
        """The verified read: root block, size, then the bytes into what `start` gives (anew for every attempt)."""
        deadline = self._deadline(max_bytes)
        with self._refusals(f"get {cid}"):
            root = self._retried(lambda: self._root(cid, deadline), deadline, f"get {cid}")
            if root.file_bytes > max_bytes:
                raise ObjectCorrupt(f"{cid} holds {root.file_bytes:,} bytes where at most {max_bytes:,} are allowed")
            if not root.links:
                # The root block is the whole object, and it has been hashed already.
                if len(root.content) != root.file_bytes:
                    raise ObjectCorrupt(f"{cid} states {root.file_bytes:,} bytes and holds {len(root.content):,}")
                start()(root.content)
                self._received(root.content)
                return
            self._retried(lambda: self._content(cid, root.file_bytes, start(), deadline), deadline, f"get {cid}")

    def _root(self, cid: Cid, deadline: float) -> Block:
        """The object's root block, hashed. Raises ObjectCorrupt."""
        digest = digest_of_cid(cid)
        raw = b"".join(self._stream("block/get", (cid,), {}, deadline, MAX_BLOCK_BYTES))
        if hashlib.sha256(raw).digest() != digest:
            raise ObjectCorrupt(f"{self.api} gave other bytes for {cid}: {len(raw):,} bytes that do not hash to it")
        try:
            return parse_block(raw)
        except ValueError as error:
            raise ObjectCorrupt(f"{cid} is not a file under this federation's import profile: {error}") from error

    def _content(self, cid: Cid, size: int, sink: Callable[[bytes], object], deadline: float) -> None:
        """Stream the whole object into a sink and compare its CID. Raises ObjectCorrupt."""
        hasher = CidHasher()
        options = {"offset": "0", "length": str(size)}
        for piece in self._stream("cat", (cid,), options, deadline, size):
            sink(piece)
            hasher.update(piece)
            self._received(piece)
        if hasher.size < size:
            # A late error in Kubo's answer reaches us as an early end.
            raise _CutShort(f"{self.api} gave {hasher.size:,} of the {size:,} bytes of {cid}")
        if hasher.cid() != cid:
            raise ObjectCorrupt(f"{self.api} gave other bytes for {cid}: they hash to {hasher.cid()}")

    def _received(self, piece: bytes) -> None:
        with self._count:
            self._bytes_down += len(piece)

    def _deadline(self, size: int) -> float:
        return time.monotonic() + self._timeout_s + size / SLOWEST

    def _command(
        self, path: str, arguments: Sequence[str], options: Mapping[str, str], *, what: str
    ) -> list[dict[str, Any]]:
        deadline = self._deadline(0)
        with self._refusals(what):
            return self._retried(lambda: self._ask(path, arguments, options, deadline), deadline, what)

    def _ask(
        self,
        path: str,
        arguments: Sequence[str],
        options: Mapping[str, str],
        deadline: float,
        data: Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """A command that answers in JSON, one object a line."""
        text = b"".join(self._stream(path, arguments, options, deadline, MAX_REPLY_BYTES, data, headers))
        try:
            replies = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise StoreUnreachable(f"{self.api} answers {path} with something that is not Kubo's JSON") from error
        for reply in replies:
            if not isinstance(reply, dict):
                raise StoreUnreachable(f"{self.api} answers {path} with something that is not Kubo's JSON")
            if reply.get("Type") == "error":
                raise exceptions.PartialErrorResponse(str(reply.get("Message")))
        return replies

    def _stream(
        self,
        path: str,
        arguments: Sequence[str],
        options: Mapping[str, str],
        deadline: float,
        max_bytes: int,
        data: Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """The bytes of one answer, no more of them than `max_bytes` and none after the deadline."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise _Silence
        # The daemon gives up a little before we do: then it says why.
        patience = max(0.05, min(left, self._timeout_s) * 0.9)
        answer = self._client._client.request(
            f"/{path}",
            tuple(arguments),
            opts={**options, "timeout": f"{int(patience * 1000)}ms"},
            decoder="none",
            stream=True,
            data=data,
            headers=dict(headers) if headers else None,
            timeout=(min(CONNECT_S, left), min(self._timeout_s, left)),
        )
        received = 0
        with answer:
            for piece in answer:
                received += len(piece)
                if received > max_bytes:
                    raise ObjectCorrupt(
                        f"{self.api} sends more than {max_bytes:,} bytes for {' '.join([path, *arguments])}"
                    )
                yield piece
                if time.monotonic() > deadline:
                    raise _Silence

    def _retried(self, call: Callable[[], _T], deadline: float, what: str) -> _T:
        """Call; again after a lost or refused connection, with growing pauses, while the deadline allows."""
        pause = 0.2
        for attempt in range(1, self._attempts + 1):
            try:
                return call()
            except (exceptions.TimeoutError, requests.Timeout, _Silence) as error:
                raise StoreUnreachable(
                    f"the IPFS API {self.api} did not answer within {self._timeout_s:g} s (to {what})"
                ) from error
            except _LOST as error:
                if _is_timeout(error):
                    raise StoreUnreachable(
                        f"the IPFS API {self.api} fell silent for {self._timeout_s:g} s (to {what})"
                    ) from error
                if attempt == self._attempts or time.monotonic() + pause > deadline:
                    raise self._given_up(error, what) from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("unreachable")

    def _given_up(self, error: Exception, what: str) -> StoreUnreachable | ObjectMissing:
        if isinstance(error, _CutShort):
            return ObjectMissing(f"{error}: the rest could not be had")
        if isinstance(error, exceptions.ConnectionError):
            return StoreUnreachable(f"no IPFS API answers at {self.api} (to {what}): is the IPFS node running?")
        return StoreUnreachable(f"the IPFS API {self.api} broke off (to {what})")

    @contextlib.contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        """Turn the daemon's own refusals into our words."""
        try:
            yield
        except exceptions.StatusError as error:
            status = getattr(getattr(error.original, "response", None), "status_code", 0)
            if status in (401, 403):
                raise UsageError(f"the IPFS API {self.api} refuses access (HTTP {status}): give its token") from error
            if status == 404:
                raise StoreUnreachable(f"{self.api} answers, but is no IPFS API (HTTP 404)") from error
            if not isinstance(error, exceptions.ErrorResponse):
                raise StoreUnreachable(f"the IPFS API {self.api} fails with HTTP {status} (to {what})") from error
            raise ObjectMissing(f"{self.api} could not {what}: {' '.join(str(error).split())[:200]}") from error


def _is_timeout(error: Exception) -> bool:
    """requests reports a stall in the middle of a body as a ConnectionError around urllib3's ReadTimeoutError."""
    return any("Read timed out" in str(cause) for cause in (error, *error.args))


def _address_of(api: str) -> tuple[str, str, tuple[str, str] | None, str]:
    """An API's address as (multiaddress, base path, basic auth, name without its password). Raises UsageError."""
    if api.startswith("/"):
        return api, "api/v0", None, api
    try:
        url = urlsplit(api)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if host is None or url.scheme not in ("http", "https") or url.query or url.fragment:
        raise UsageError(f"{api!r} is not an IPFS API's address (http://127.0.0.1:5001 or /ip4/127.0.0.1/tcp/5001)")
    port = port or (443 if url.scheme == "https" else 80)
    if host == "localhost":
        host = "127.0.0.1"
    kind = "ip6" if ":" in host else "ip4" if host.replace(".", "").isdigit() else "dns"
    base = (url.path.strip("/").removesuffix("api/v0").strip("/") + "/api/v0").lstrip("/")
    auth = (unquote(url.username or ""), unquote(url.password or "")) if url.password is not None else None
    shown = f"{url.scheme}://{'[' + host + ']' if kind == 'ip6' else host}:{port}{url.path.rstrip('/')}"
    return f"/{kind}/{host}/tcp/{port}/{url.scheme}", base, auth, shown
