"""What this peer keeps of its own training between rounds: local tensors, SCAFFOLD's control variate. It never leaves.

Written before the upload that belongs to it is promised, one file an attempt. Which file counts is read from the chain:
the one of the newest closed round whose sum held this member's update. So an attempt that became void, a round that was
missed and a result that fell leave no trace in it, and a peer that starts again goes on with the right one.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import MalformedObject, UsageError
from ..protocol.ids import Index
from ..protocol.model import flatten
from ..protocol.state import FederationState


class KeptState:
    """One peer's files, in a folder of their own."""

    def __init__(self, folder: Path, me: Index) -> None:
        self._folder = folder
        self._me = me

    def latest(self, state: FederationState, before_round: int) -> bytes | None:
        """What training in round `before_round` goes on with; None when this peer was in no sum yet, or has lost it."""
        for round in range(before_round - 1, 0, -1):
            attempt = state.closed.get(round)
            if attempt is None or attempt.aggregate is None or not attempt.aggregate.participants >> self._me & 1:
                continue
            path = self._path(round, attempt.attempt)
            if path.exists():
                return _read(path)
        return None

    def newest(self) -> bytes | None:
        """The last that was written, for when the run is over and no chain is at hand."""
        files = sorted(self._folder.glob("round-*.safetensors"))
        return _read(files[-1]) if files else None

    def write(self, round: int, attempt: int, content: bytes) -> None:
        """Keep the outcome of one attempt, durably, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(round, attempt)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def forget(self, before_round: int) -> None:
        """Let what earlier rounds left go, but for the newest of it: a peer may not have been in a sum since."""
        old = [file for file in sorted(self._folder.glob("round-*")) if _round_of(file) < before_round]
        for file in old[:-1]:
            file.unlink()

    def _path(self, round: int, attempt: int) -> Path:
        return self._folder / f"round-{round:06d}-{attempt:06d}.safetensors"


def _round_of(file: Path) -> int:
    return int(file.name.split("-")[1])


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    try:
        flatten(content)
    except MalformedObject as broken:
        raise UsageError(f"{path} is damaged ({broken}); remove it, and this member's own part begins anew") from broken
    return content
