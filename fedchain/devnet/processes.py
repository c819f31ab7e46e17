"""Child processes that are watched, can be stopped for certain, and do not outlive us; and the ports they listen on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from ..errors import FedchainError, UsageError

LEASH = Path(__file__).with_name("leash.py")
START_S = 30.0
STOP_S = 5.0
MAX_LOG_BYTES = 4 << 20
_PR_SET_PDEATHSIG = 1
_PACKAGE_ROOT = Path(__file__).parents[2]


class ProcessFailed(FedchainError):
    """A part of the devnet did not start, or ended by itself; the text holds its last words."""


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on at this moment, all different."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
        return ports


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are winding down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def check_free(port: int, option: str) -> None:
    """Raise UsageError where the port that the operator chose is taken."""
    if not is_free(port):
        raise UsageError(f"port {port} is taken: stop what uses it, choose another {option}, or leave {option} out")


def die_with_parent() -> None:
    """For `preexec_fn`: on Linux the kernel kills the new process when the *thread* that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def python_environment() -> dict[str, str]:
    """An environment in which a child of any working directory imports the same package as we do."""
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(_PACKAGE_ROOT), *([path] if path else [])])}


class ManagedProcess:
    """One child with its log: start it, wait for its health, stop it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        leash: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`leash`: it does not watch its parent itself, and runs on a leash (see `leash`) in this directory."""
        self.name = name
        self.log = log
        self._command = list(command)
        self._leash = leash
        self._environment = dict(environment) if environment is not None else python_environment()
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """The process (or its leash); 0 while there is none."""
        return self._process.pid if self._process is not None and self._process.poll() is None else 0

    def start(self) -> None:
        """Start it; its output goes to the end of its log. A session of its own keeps a terminal's Ctrl-C from it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > MAX_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old"))
        command = self._command
        if self._leash is not None:
            command = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), str(self._leash), *command]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def wait_healthy(self, is_healthy: Callable[[], bool], timeout_s: float = START_S) -> None:
        """Wait until the check is true. Raises ProcessFailed when the process ends before or time runs out."""
        end = time.monotonic() + timeout_s
        while not is_healthy():
            if not self.pid:
                raise ProcessFailed(f"{self.name} does not start: {self.last_words()} (log: {self.log})")
            if time.monotonic() > end:
                raise ProcessFailed(f"{self.name} does not answer after {timeout_s:g} s (log: {self.log})")
            time.sleep(0.02)

    def stop(self) -> None:
        """Ask it to end; kill it where it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, as a power cut would (with its leash, the program goes too)."""
        if self._process is None:
            return
        below = _descendants(self._process.pid)
        self._process.kill()
        self._process.wait(STOP_S)
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(below, timeout=STOP_S)

    def last_words(self) -> str:
        """The last line of its log since it was started."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = [line.strip() for line in log.read()[-20_000:].decode("utf-8", "replace").splitlines()]
        said = [line for line in lines if line]
        errors = [line for line in said if "rror" in line or "fedchain" in line]
        return (errors or said or ["it said nothing"])[-1][:300]


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
