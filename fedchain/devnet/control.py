"""Starts and stops a devnet that outlives the command: `fedchain devnet up` and `down`, without the devnet itself.

The devnet runs in a detached process (`supervisor`); this module starts that process, waits for its word, and later
stops it and makes certain that nothing of it is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from ..errors import UsageError
from .processes import ProcessFailed, python_environment
from .status import Status, read_status, remove_status, start_time_of

UP_S = 90.0
DOWN_S = 20.0
LOG = "supervisor.log"


def launch(workdir: Path, arguments: Sequence[str]) -> Status:
    """Start a supervisor with these options and wait until all is healthy. Raises UsageError, ProcessFailed."""
    status = read_status(workdir)
    if status is not None and status.is_alive:
        raise UsageError(
            f"a devnet already runs in {workdir} (process {status.pids.supervisor}, RPC {status.rpc}): "
            f"use it, or stop it with `fedchain devnet down --workdir {workdir}`"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    log = workdir / LOG
    with log.open("wb") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "fedchain.devnet.supervisor", "--workdir", str(workdir), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=workdir,
            env=python_environment(),
            start_new_session=True,
        )
    end = time.monotonic() + UP_S
    try:
        while time.monotonic() < end:
            status = read_status(workdir)
            if status is not None and status.pids.supervisor == supervisor.pid and status.is_alive:
                return status
            if supervisor.poll() is not None:
                said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
                reason = said[-1].removeprefix("fedchain: ") if said else "it said nothing"
                raise (UsageError if supervisor.returncode == 2 else ProcessFailed)(reason)
            time.sleep(0.05)
    except BaseException:
        supervisor.terminate()
        raise
    supervisor.terminate()
    raise ProcessFailed(f"the devnet is not up after {UP_S:g} s (log: {log})")


def take_down(workdir: Path) -> bool:
    """Stop the devnet of this directory, whatever state it is in; False when none ran. Raises ProcessFailed."""
    status = read_status(workdir)
    if status is None:
        return False
    was_alive = status.is_alive
    if was_alive and status.foreground:
        raise UsageError(
            f"the devnet of {workdir} belongs to a running command (process {status.pids.supervisor}): stop that one"
        )
    parts = _parts(workdir, status)
    if was_alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(status.pids.supervisor).send_signal(signal.SIGTERM)
        _wait_gone(parts, DOWN_S)
    for process in parts:
        # Only what did not obey, or what a dead supervisor left.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    left = _wait_gone(parts, 5.0)
    if left:
        raise ProcessFailed(f"cannot stop process {left[0].pid}: stop it yourself, then `fedchain devnet down` again")
    remove_status(workdir)
    return was_alive


def _parts(workdir: Path, status: Status) -> list[psutil.Process]:
    """The devnet's processes that still run, those below them included; a reused process id is not one of them."""
    found: list[psutil.Process] = []
    pids = status.pids
    for pid in (pids.supervisor, pids.anvil, *pids.ipfs):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            mine = status.is_alive if pid == pids.supervisor else _is_part(process, workdir)
            if pid and mine:
                found += [process, *process.children(recursive=True)]
    return list(dict.fromkeys(found))


def _is_part(process: psutil.Process, workdir: Path) -> bool:
    """Whether this is a chain's leash or an IPFS node of this devnet, by its command line."""
    with contextlib.suppress(psutil.AccessDenied):
        words = process.cmdline()
        ours = "fedchain.store.node" in words or any(word.endswith("leash.py") for word in words)
        return ours and any(word.startswith(f"{workdir}{os.sep}") for word in words)
    return False


def _wait_gone(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    _, left = psutil.wait_procs(processes, timeout=timeout_s)
    return [process for process in left if start_time_of(process.pid)]
