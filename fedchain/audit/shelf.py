"""Where fetched objects lie while a round is audited: files in a temporary folder, each fetched once.

Big objects never pass through memory whole; a round's objects go when the round is done, the newest model stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from ..errors import ObjectCorrupt, ObjectMissing
from ..protocol.cid import digest_of_cid
from ..protocol.ids import Cid

_AT_ONCE = 4
"""Objects fetched at a time: one that nobody has must not keep the others waiting."""


class Objects(Protocol):
    """What an audit asks of a store; every `ports.Store` does it."""

    def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
        """An object into a file that appears only when it is whole and verified against its CID."""
        ...


class Shelf:
    """Objects of a store as verified files under `folder`."""

    def __init__(self, store: Objects, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._lost: dict[Cid, ObjectMissing | ObjectCorrupt] = {}
        self.fetched_bytes = 0
        """Bytes fetched since this object was made."""

    def file(self, cid: Cid, max_bytes: int) -> Path:
        """The object as a file. Raises ObjectMissing or ObjectCorrupt (asked for once only), and StoreUnreachable."""
        self.fetch([(cid, max_bytes)])
        if cid in self._lost:
            raise self._lost[cid]
        return self._folder / cid

    def content(self, cid: Cid, max_bytes: int) -> bytes:
        """The object's bytes; for small objects, and for one model at a time."""
        return self.file(cid, max_bytes).read_bytes()

    def fetch(self, wanted: Sequence[tuple[Cid, int]]) -> None:
        """Fetch several objects side by side; what cannot be had is noted, and told when it is asked for."""
        new = {cid: size for cid, size in wanted if cid not in self._lost and not (self._folder / cid).exists()}
        if not new:
            return
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            for cid, lost in zip(new, pool.map(self._try, new.keys(), new.values()), strict=True):
                if lost is None:
                    self.fetched_bytes += (self._folder / cid).stat().st_size
                else:
                    self._lost[cid] = lost

    def clear(self, keep: Cid | None = None) -> None:
        """Let go of every file but one."""
        for path in self._folder.iterdir():
            if path.name != keep:
                path.unlink()

    def _try(self, cid: Cid, max_bytes: int) -> ObjectMissing | ObjectCorrupt | None:
        try:
            # The CID came from a log that anybody may have written: as a file name it must be what it claims to be.
            digest_of_cid(cid)
        except ValueError:
            return ObjectMissing(f"no object can have the CID {cid!r}")
        try:
            self._store.get_file(cid, max_bytes, self._folder / cid)
        except (ObjectMissing, ObjectCorrupt) as error:
            return error
        return None
