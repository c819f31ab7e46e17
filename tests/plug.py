"""Peers whose plug is pulled: each a real process that runs `fedchain peer run`, and dies by SIGKILL where told.

The processes are forked from one that has loaded everything, so that a start takes a tenth of a second; chain, store,
keys and journal are the real ones. A plug is a line of the journal and a moment: right before it is written, halfway
through it, right after it is durable, or (a transaction's) right after it was sent.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eth_hash.auto import keccak
from misbehave import lie

from fedchain.chain.account import ChainAccount
from fedchain.cli.local import PeerProcess
from fedchain.cli.main import main
from fedchain.devnet.processes import die_with_parent
from fedchain.peer.journal import Journal

Moment = Literal["before", "torn", "after", "sent"]
MOMENTS: tuple[Moment, ...] = ("before", "torn", "after", "sent")

_LOADED = ["plug", "torch._dynamo", "fedchain.crypto.tenseal_engine", "fedchain.peer.log", "fedchain.peer.start"]
_LOADED += [
    "fedchain.chain.deployment",
    "fedchain.chain.keys",
    "fedchain.chain.sender",
    "fedchain.store.ipfs",
    "getpass",
]
"""What a peer loads sooner or later, the optimizers' `torch._dynamo` alone for seconds."""


class Plug(NamedTuple):
    """Where a process dies: at this line of its journal (1 is the first), at this moment."""

    line: int
    moment: Moment


@dataclass(slots=True)
class Life:
    """What a forked process is: a command line, where its output goes, whether it lies, and where it dies.

    `room`: how large its files may grow, in bytes.
    """

    arguments: Sequence[str]
    output: Path
    environment: dict[str, str]
    liar: tuple[str, int] | None
    plug: Plug | None
    room: int | None

    def live(self) -> None:
        """Run in the forked process; never returns."""
        die_with_parent()
        with self.output.open("ab", buffering=0) as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ.update(self.environment)
        if self.room is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.room, resource.RLIM_INFINITY))
        if self.liar is not None:
            lie(*self.liar)
        if self.plug is not None:
            wire(self.plug)
        sys.argv = ["fedchain", *self.arguments]
        main()


def wire(plug: Plug) -> None:
    """Make this process die at the plug."""
    begin, write, send = Journal.__init__, Journal._write, ChainAccount.send
    journals: list[Path] = []

    def begun(journal: Any, path: Path) -> None:
        journals.append(path)
        begin(journal, path)

    def written(journal: Any, record: dict[str, Any]) -> None:
        here = lines_in(journal._path) + 1 == plug.line
        if here and plug.moment == "before":
            die()
        if here and plug.moment == "torn":
            journal._file = _Torn(journal._file)
        write(journal, record)
        if here and plug.moment == "after":
            die()

    def sent(account: Any, raw: bytes) -> None:
        send(account, raw)
        if plug.moment == "sent" and plug.line == lines_in(*journals):
            die()

    Journal.__init__, Journal._write, ChainAccount.send = begun, written, sent  # type: ignore[method-assign]


def lines_in(journal: Path) -> int:
    return journal.read_bytes().count(b"\n")


def die() -> None:
    """No clean-up, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


class _Torn:
    """A file whose next write ends halfway, and the process with it."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, line: bytes) -> int:
        self._file.write(line[: len(line) // 2])
        die()
        return 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def _found_by_name() -> Iterator[None]:
    """Let the process that all are forked from load what lies here: it knows no other path than the environment's."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(Path(__file__).parent), before)))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


class Forked:
    """A forked process, as `subprocess.Popen` would show it."""

    def __init__(self, life: Life) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_LOADED)
        with _found_by_name():
            forkserver.ensure_running()
        self._process: ForkServerProcess = context.Process(target=life.live, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a peer", timeout or 0)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()


@dataclass(slots=True)
class PluggedPeer(PeerProcess):
    """A peer of a `LocalFederation`, forked. `plugs` are pulled one after another, one a life."""

    liar: tuple[str, int] | None = None
    plugs: list[Plug] = field(default_factory=list)
    deaths: int = 0
    room: int | None = None

    @classmethod
    def of(cls, peer: PeerProcess, *options: str) -> PluggedPeer:
        return cls(peer.index, peer.folder, [*peer.command, *options], {**peer.environment, "NO_COLOR": "1"})

    def start(self, crash: dict[str, str] | None = None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = self.command[self.command.index("-m") + 2 :]
        environment = self.environment | (crash or {})
        plug = self.plugs[0] if self.plugs else None
        life = Life(arguments, self.folder / "output.log", environment, self.liar, plug, self.room)
        process: Any = Forked(life)
        self.process = process

    @property
    def died(self) -> bool:
        """Whether its plug was pulled."""
        return self.exit_code == -signal.SIGKILL

    def start_again(self) -> None:
        """Plug it in again, to be pulled at the next of its plugs."""
        self.plugs.pop(0)
        self.deaths += 1
        self.start()

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def records(self) -> list[dict[str, Any]]:
        """What its journal holds."""
        return records_of(self.journal.read_bytes())


def records_of(journal: bytes) -> list[dict[str, Any]]:
    """The records of a journal's whole lines."""
    return [json.loads(line.partition(b" ")[2]) for line in journal.split(b"\n")[:-1]]


def transactions_of(records: list[dict[str, Any]]) -> list[tuple[str, bytes]]:
    """The journalled transactions: duty and hash."""
    return [(r["key"], keccak(bytes.fromhex(r["raw"]))) for r in records if r["kind"] == "transaction"]
