"""Runs one program that must not outlive us: `python -I -S leash.py PARENT_PID DIRECTORY PROGRAM ARGUMENT...`.

A process of its own, standard library only, because anvil and Kubo do not watch their parents: it passes a request to
stop on to the program, ends it when PARENT_PID is no longer this process's parent (kill -9 included), and on Linux has
the kernel kill the program should the leash itself be killed. The program works in DIRECTORY, by which the leash is
also known later. Its exit code is the program's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys

TICK_S = 0.2
GRACE_S = 3.0
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run until the program ends or the parent is gone."""
    parent, directory, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def tie() -> None:
        # Runs in the new process, before the program: the kernel kills it when its parent (the leash) dies.
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    try:
        # The leash has one thread, so running Python between fork and exec is safe here.
        program = subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, preexec_fn=tie)
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127

    def stop(*_: object) -> None:
        program.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while os.getppid() == parent:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return program.wait(TICK_S)
    program.terminate()
    try:
        return program.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        program.kill()
        return program.wait(GRACE_S)


if __name__ == "__main__":
    sys.exit(main())
