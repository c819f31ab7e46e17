"""The outbox: where a peer lays its signed statements for a relayer, who sends those of several in one transaction.

A relayer is a convenience and has no power: what it does not send in time, each peer sends itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..protocol.ids import Index
from ..protocol.signature import Signature
from ..protocol.signed import Signed, encode
from ..protocol.statements import Statement


class Outbox:
    """One peer's part of a folder that it shares with a relayer; `sign` makes its signature over a statement."""

    def __init__(self, folder: Path, me: Index, sign: Callable[[Statement], Signature]) -> None:
        self._folder = folder
        self._me = me
        self._sign = sign
        self._laid: set[Statement] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def lay(self, said: Statement) -> None:
        """Sign a statement and lay it there, whole or not at all; once."""
        if said in self._laid:
            return
        signed = Signed(self._me, said, self._sign(said))
        part = self._folder / f".{signed.name}.part"
        part.write_bytes(encode(signed))
        part.replace(self._folder / signed.name)
        self._laid.add(said)
