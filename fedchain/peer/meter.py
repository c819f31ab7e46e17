"""What a round cost this peer: seconds by step and bytes up and down, one JSON line a round."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..ports import Store

STEPS = ("train", "encrypt", "commit", "receipt", "aggregate", "open", "close")


class Meter:
    """Collects the figures of the round under way and writes them when it closes."""

    def __init__(self, path: Path, store: Store) -> None:
        self._path = path
        self._store = store
        self._begin()

    def _begin(self) -> None:
        self._seconds = dict.fromkeys(STEPS, 0.0)
        self._notes: dict[str, Any] = {}
        self._up, self._down = self._store.bytes_up, self._store.bytes_down

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the wall-clock time of the block to one step of this round."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start

    def note(self, **facts: Any) -> None:
        """Remember facts of this round (loss, metrics) for its line."""
        self._notes |= facts

    def close(self, round: int, attempt: int) -> None:
        """Write the round's line and begin the next."""
        line = {
            "round": round,
            "attempt": attempt,
            "upload_bytes": self._store.bytes_up - self._up,
            "download_bytes": self._store.bytes_down - self._down,
            "seconds": {name: round_to_ms(s) for name, s in self._seconds.items()},
            **self._notes,
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
        self._begin()


def round_to_ms(seconds: float) -> float:
    """Seconds to the millisecond."""
    return round(seconds, 3)
