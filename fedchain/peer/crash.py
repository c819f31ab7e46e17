"""Crash points: places where a test or a demonstration may have this process die as if the plug were pulled.

`FEDCHAIN_CRASH_AT="after-dealing@2"` makes the process kill itself (SIGKILL: no clean-up, no flush) when it passes that
point in round 2 (enrolment counts as round 0). With `FEDCHAIN_CRASH_ONCE=FILE` only the first process there dies:
the file is its mark.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "before-enrol",
    "after-enrol",
    "before-vote",
    "after-vote",
    "before-training",
    "after-training",
    "after-dealing",
    "before-commit",
    "after-commit",
    "before-receipt",
    "after-receipt",
    "before-aggregate",
    "after-aggregate",
    "before-opening",
    "after-opening",
    "before-result",
    "after-result",
)


def crash_point(name: str, round: int) -> None:
    """Die here if the environment asks for it; else do nothing."""
    wanted = os.environ.get("FEDCHAIN_CRASH_AT")
    if wanted is None or wanted != f"{name}@{round}":
        return
    mark = os.environ.get("FEDCHAIN_CRASH_ONCE")
    if mark is not None:
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return
        with open(mark, "w", encoding="utf-8") as file:  # noqa: PTH123 - a path from the environment, used as it is
            file.write(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)
