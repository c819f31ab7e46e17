"""What runs: `devnet.json` in the devnet's directory, for people, scripts and the next `fedchain devnet` command."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

FILE = "devnet.json"
CLOCK_STEP_S = 5.0


@dataclass(frozen=True, slots=True)
class Pids:
    """The processes: the one that watches, the chain (its leash), and the IPFS nodes (0 where one is down)."""

    supervisor: int
    anvil: int
    ipfs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """A devnet's endpoints and processes. `started` is the watching process's start time, so that a reused process id
    is not taken for it; `foreground` tells that the devnet ends with the command that started it."""

    rpc: str
    chain_id: int
    ipfs_apis: tuple[str, ...]
    pids: Pids
    started: float
    foreground: bool

    @property
    def is_alive(self) -> bool:
        """Whether the watching process still runs."""
        return is_process(self.pids.supervisor, self.started)


def is_process(pid: int, started: float) -> bool:
    """Whether this process runs and is the one that started then (the clock may have been set a little since)."""
    return abs(start_time_of(pid) - started) < CLOCK_STEP_S


def start_time_of(pid: int) -> float:
    """When this process started; 0 when there is none (a zombie counts as none)."""
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return 0.0


def write_status(directory: Path, status: Status) -> None:
    """Write it whole or not at all."""
    fresh = directory / f"{FILE}.{os.getpid()}"
    fresh.write_text(json.dumps(asdict(status), indent=2) + "\n")
    fresh.replace(directory / FILE)


def read_status(directory: Path) -> Status | None:
    """The last status written here, alive or not; None where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((directory / FILE).read_text())
        pids = found["pids"]
        return Status(
            rpc=str(found["rpc"]),
            chain_id=int(found["chain_id"]),
            ipfs_apis=tuple(str(api) for api in found["ipfs_apis"]),
            pids=Pids(int(pids["supervisor"]), int(pids["anvil"]), tuple(int(pid) for pid in pids["ipfs"])),
            started=float(found["started"]),
            foreground=bool(found["foreground"]),
        )
    return None


def remove_status(directory: Path) -> None:
    """Nothing runs here any more."""
    (directory / FILE).unlink(missing_ok=True)
