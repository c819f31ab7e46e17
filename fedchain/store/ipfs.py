"""The store: objects on IPFS through a Kubo RPC, each verified against its CID before anyone sees it.

A daemon is not believed. The root block is fetched and hashed first; the size it states bounds the download; and the
CID of what arrived is computed here. A lying, failing or silent store is an error that names the CID, never wrong data.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from ..errors import ObjectCorrupt, ObjectMissing
from ..protocol.cid import CidHasher, cid_of, digest_of_cid
from ..protocol.ids import Cid
from .api import CutShort, KuboApi
from .blocks import Block, parse_block

MAX_BLOCK_BYTES = 2 << 20

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
"""The import profile of `fedchain.protocol.cid`, sent whole: a daemon's defaults are not ours to know."""

_Sink = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answers at an API: its peer id, the addresses that others can dial, its software."""

    peer_id: str
    addresses: tuple[str, ...]
    agent: str


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

        A call ends after `timeout_s` of silence, and overall after `timeout_s` plus a second for every 256 KiB that it
        may transfer. An unreachable daemon is tried `attempts` times, 0.2 s apart and doubling. Raises UsageError.
        """
        self._api = KuboApi(api, timeout_s=timeout_s, attempts=attempts, token=token, headers=headers)
        self._count = threading.Lock()
        self._bytes_up = 0
        self._bytes_down = 0

    @property
    def api(self) -> str:
        """The API's address, without any password."""
        return self._api.name

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
        deadline = self._api.deadline(len(content))
        replies = self._api.attempt(
            lambda: self._api.upload(content, {**_PROFILE, "pin": "true"}, deadline=deadline),
            deadline=deadline,
            what=f"put {cid}",
        )
        given = replies[-1].get("Hash") if replies else None
        if given != cid:
            raise ObjectCorrupt(
                f"{self.api} stored {cid} as {given}: it changed the bytes, or imports under another profile "
                "(CIDv0, 262144-byte chunks, 174 links a node, balanced)"
            )
        with self._count:
            self._bytes_up += len(content)
        return cid

    def get(self, cid: Cid, max_bytes: int) -> bytes:
        """An object's bytes, verified. Raises ObjectMissing, ObjectCorrupt (also when too large), StoreUnreachable."""
        content = BytesIO()

        def start() -> _Sink:
            content.seek(0)
            content.truncate()
            return content.write

        self._download(cid, max_bytes, start)
        return content.getvalue()

    def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
        """Like `get`, into a file that appears only when it is whole and verified."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:

                def start() -> _Sink:
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
        options = {"recursive": "true", "progress": "false"}
        self._api.command("pin/add", (cid,), options, what=f"pin {cid}", refused=ObjectMissing)

    def unpin(self, cid: Cid) -> None:
        """Let an object go when space is needed; no error when it was not pinned. Raises StoreUnreachable."""
        digest_of_cid(cid)
        try:
            self._api.command("pin/rm", (cid,), {"recursive": "true"}, what=f"unpin {cid}", refused=ObjectMissing)
        except ObjectMissing as error:
            if "not pinned" not in str(error):
                raise

    def pins(self) -> tuple[Cid, ...]:
        """The roots that this store keeps. Raises StoreUnreachable."""
        replies = self._api.command("pin/ls", (), {"type": "recursive"}, what="list its pins")
        # With nothing pinned there is no "Keys".
        return tuple(Cid(cid) for reply in replies for cid in (reply.get("Keys") or {}))

    def collect(self) -> int:
        """Have the store free what is not pinned; gives the number of blocks deleted. Raises StoreUnreachable."""
        return len(self._api.command("repo/gc", (), {"quiet": "false"}, what="collect garbage"))

    def identity(self) -> Identity:
        """Who answers here. Raises StoreUnreachable."""
        replies = self._api.command("id", what="say who it is")
        reply = replies[-1] if replies else {}
        addresses = reply.get("Addresses") or ()
        return Identity(str(reply.get("ID", "")), tuple(map(str, addresses)), str(reply.get("AgentVersion", "")))

    def connect_peers(self, multiaddrs: Sequence[str]) -> None:
        """Dial these nodes now (discovery takes seconds). Raises StoreUnreachable where one does not answer."""
        for address in multiaddrs:
            self._api.command("swarm/connect", (address,), what=f"connect to {address}")

    def peers(self) -> tuple[str, ...]:
        """The peer ids that this node is connected to. Raises StoreUnreachable."""
        replies = self._api.command("swarm/peers", what="list its peers")
        # Two nodes that dialled each other at once are listed twice.
        return tuple(dict.fromkeys(str(peer["Peer"]) for reply in replies for peer in reply.get("Peers") or ()))

    def close(self) -> None:
        """Close the connections; the store may still be used, one connection a call."""
        self._api.close()

    def _download(self, cid: Cid, max_bytes: int, start: Callable[[], _Sink]) -> None:
        """The verified read: root block, size, then the bytes into what `start` gives (anew for every attempt)."""
        deadline = self._api.deadline(max_bytes)
        what = f"get {cid}"
        root = self._api.attempt(lambda: self._root(cid, deadline), deadline=deadline, what=what, refused=ObjectMissing)
        if root.file_bytes > max_bytes:
            raise ObjectCorrupt(f"{cid} holds {root.file_bytes:,} bytes where at most {max_bytes:,} are allowed")
        if root.links:
            self._api.attempt(
                lambda: self._content(cid, root.file_bytes, start(), deadline),
                deadline=deadline,
                what=what,
                refused=ObjectMissing,
            )
        elif len(root.content) == root.file_bytes and cid_of(root.content) == cid:
            start()(root.content)
            self._received(root.content)
        else:
            raise ObjectCorrupt(f"{cid} is not a file under this federation's import profile")

    def _root(self, cid: Cid, deadline: float) -> Block:
        """The object's root block, hashed; all of it where the object is small. Raises ObjectCorrupt."""
        digest = digest_of_cid(cid)
        raw = b"".join(self._api.stream("block/get", (cid,), {}, deadline=deadline, max_bytes=MAX_BLOCK_BYTES))
        if hashlib.sha256(raw).digest() != digest:
            raise ObjectCorrupt(f"{self.api} gave other bytes for {cid}: {len(raw):,} bytes that do not hash to it")
        try:
            return parse_block(raw)
        except ValueError as error:
            raise ObjectCorrupt(f"{cid} is not a file under this federation's import profile: {error}") from error

    def _content(self, cid: Cid, size: int, sink: _Sink, deadline: float) -> None:
        """Stream the whole object into a sink and compare its CID. Raises ObjectCorrupt, CutShort."""
        hasher = CidHasher()
        options = {"offset": "0", "length": str(size)}
        pieces = self._api.stream("cat", (cid,), options, deadline=deadline, max_bytes=size, patience_s=float("inf"))
        for piece in pieces:
            sink(piece)
            hasher.update(piece)
            self._received(piece)
        if hasher.size < size:
            # A late error in Kubo's answer reaches us as an early end.
            raise CutShort(f"{self.api} gave {hasher.size:,} of the {size:,} bytes of {cid}")
        if hasher.cid() != cid:
            raise ObjectCorrupt(f"{self.api} gave other bytes for {cid}: they hash to {hasher.cid()}")

    def _received(self, piece: bytes) -> None:
        with self._count:
            self._bytes_down += len(piece)
