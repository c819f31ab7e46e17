"""A peer's log: one JSON line an event in its folder, and short lines for people. Secrets are never logged.

Who is meant: `member` is the index of this peer's own member, bound to every line; `offender` is the account of a
member that broke a rule, `author` and `dealer` of one whose statement or dealing is spoken of, while nothing is proven.
Sets of members are lists of indices.
"""

from __future__ import annotations

import json
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import structlog

LEVELS = ("debug", "info", "warning", "error")


def peer_log(path: Path, quiet: bool = False, level: str = "info") -> structlog.stdlib.BoundLogger:
    """A structured logger that appends to `path`, and unless `quiet` prints to stderr for people.

    Of less than `level` it says nothing. "debug" adds every look at the chain.
    """
    file = path.open("ab", buffering=0)
    for_people = None if quiet else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _Both(file, for_people),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return logger


class _Both:
    """The last processor: one JSON line to the file, then one for people, or none.

    A disk that is full, or a terminal that is gone, costs lines and nothing else: no duty waits for a log.
    """

    def __init__(self, file: IO[bytes], for_people: structlog.dev.ConsoleRenderer | None) -> None:
        self._file = file
        self._for_people = for_people

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        with suppress(OSError):
            self._file.write(json.dumps(event, default=str).encode() + b"\n")
        if self._for_people is not None:
            with suppress(OSError):
                logger.msg(str(self._for_people(logger, method, event)))
        raise structlog.DropEvent
