"""A bundle: one federation's log and objects in one zip file, audited where there is no network.

It proves that its objects are what its log commits to, and that its log keeps the rules. That the log is the chain's
own only the chain can tell: name an RPC endpoint beside the bundle, and only the objects are taken from it.

Whoever made a bundle may be the one who is audited: nothing is unpacked, members are read by exact name and within the
size that the caller allows, every object is compared with its CID, and the log is read field by field.
"""

from __future__ import annotations

import contextlib
import json
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..chain.artifacts import load_artifact
from ..chain.deployment import creation_code
from ..errors import ChainMismatch, ObjectCorrupt, ObjectMissing, UsageError
from ..ports import ChainReader, Logged
from ..protocol.cid import CidHasher
from ..protocol.events import FederationFounded
from ..protocol.ids import Address, Cid
from ..protocol.state import FederationState
from ..protocol.transition import fold
from .codec import Mined, mined_from_json, mined_to_json
from .founding import CodeCheck
from .shelf import Objects

FORMAT = 1
MAX_LOG_BYTES = 64 << 20
MAX_LOG_VALUES = 4 << 20
"""An entry of the log has about 25 values in 700 bytes; text that holds more of them is no log, and takes more room."""

MAX_CODE_BYTES = 1 << 20
_LOG = "bundle.json"
_CHUNK = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""What the zip library raises for files that are cut, encrypted, or packed in ways it does not know."""


class BundleWriter:
    """Writes down every object that passes through: put it between an audit and its store, then call `finish`."""

    def __init__(self, store: Objects, path: Path) -> None:
        self._store = store
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(self._part, "w")
        except OSError as error:
            raise UsageError(f"the bundle {path} cannot be written: {error.strerror or error}") from error

    def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
        """The object from the store behind, kept in the bundle as well."""
        self._store.get_file(cid, max_bytes, path)
        with self._lock:
            name = f"objects/{cid}"
            if name not in self._zip.NameToInfo:
                entry = zipfile.ZipInfo(name, _EPOCH)
                with path.open("rb") as source, self._zip.open(entry, "w", force_zip64=True) as target:
                    while piece := source.read(_CHUNK):
                        target.write(piece)

    def finish(self, reader: ChainReader, code: bytes, creation: bytes, balance: int | None) -> None:
        """Add the log; the file appears whole. `code` and `creation`: the contract's code and what created it;
        `balance`: what it holds (wei), if that is known."""
        entries = [mined_to_json(Mined(logged, reader.gas_used(logged.transaction))) for logged in reader.log()]
        head: dict[str, Any] = {
            "format": FORMAT,
            "chain_id": reader.chain_id,
            "contract": reader.contract,
            "now": reader.now(),
            "balance": balance,
            "code": code.hex(),
            "creation": creation.hex(),
            "log": entries,
        }
        entry = zipfile.ZipInfo(_LOG, _EPOCH)
        entry.compress_type = zipfile.ZIP_DEFLATED
        self._zip.writestr(entry, json.dumps(head))
        self._zip.close()
        self._part.replace(self._path)

    def abandon(self) -> None:
        """Leave nothing behind; no error after `finish`."""
        self._zip.close()
        self._part.unlink(missing_ok=True)


class Bundle:
    """An opened bundle: implements `ports.ChainReader`, and gives objects as a store does."""

    def __init__(self, file: zipfile.ZipFile, name: str) -> None:
        self._file = file
        self._name = name
        self._lock = threading.Lock()
        try:
            text = self._read(_LOG, MAX_LOG_BYTES)
            if sum(text.count(mark) for mark in (b",", b"[", b"{")) > MAX_LOG_VALUES:
                raise ValueError("its log has too many values")
            head = json.loads(text)
            del text
            if not isinstance(head, dict) or head.get("format") != FORMAT or not isinstance(head.get("log"), list):
                raise ValueError("another format")
            mined = [mined_from_json(entry) for entry in head["log"]]
            if not mined or not isinstance(mined[0].logged.event, FederationFounded):
                raise ValueError("the log does not begin with FederationFounded")
            self._numbers = tuple(_natural(head[key]) for key in ("chain_id", "now"))
            self._contract = _contract(head["contract"])
            self._balance = None if head["balance"] is None else _natural(head["balance"], bits=256)
            self._code, self._creation = (_code(head[key]) for key in ("code", "creation"))
        except (ValueError, KeyError, RecursionError, TypeError) as error:
            raise UsageError(f"{name} is not a bundle of this version: {error}") from error
        self._log = tuple(entry.logged for entry in mined)
        self._gas = {entry.logged.transaction: entry.gas for entry in mined}

    @property
    def chain_id(self) -> int:
        """The chain that the log claims to be from."""
        return self._numbers[0]

    @property
    def contract(self) -> Address:
        """The contract that the log claims to be of."""
        return self._contract

    def refresh(self) -> FederationState:
        """The state that the log leads to. Raises ChainMismatch for a log that no contract writes."""
        try:
            return fold(entry.event for entry in self._log)
        except (ValueError, KeyError, ZeroDivisionError) as error:
            raise ChainMismatch(f"the log in {self._name} is impossible: {error}") from error

    def now(self) -> int:
        """The chain's time when the bundle was made."""
        return self._numbers[1]

    def log(self) -> tuple[Logged, ...]:
        """Every event, in chain order."""
        return self._log

    def gas_used(self, transaction: bytes) -> int:
        """The gas that a transaction of the log is said to have taken."""
        return self._gas[transaction]

    def balance(self) -> int | None:
        """What the contract is said to hold (wei)."""
        return self._balance

    def code_check(self) -> CodeCheck | None:
        """Compares the code in the bundle with the committed build; None where the bundle holds none."""
        return self._check_code if self._code else None

    def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
        """An object, verified against its CID. Raises ObjectMissing, ObjectCorrupt."""
        hasher = CidHasher()
        part = path.with_name(path.name + ".part")
        with self._lock, part.open("wb") as target:
            for piece in self._pieces(f"objects/{cid}", max_bytes):
                target.write(piece)
                hasher.update(piece)
        if hasher.cid() != cid:
            part.unlink()
            raise ObjectCorrupt(f"{self._name} holds other bytes for {cid}")
        part.replace(path)

    def _check_code(self) -> None:
        event = self._log[0].event
        assert isinstance(event, FederationFounded)
        if not load_artifact().matches(self._code):
            raise ChainMismatch(f"the contract's code in {self._name} is not the committed build")
        if self._creation != creation_code(event.terms, event.founders):
            raise ChainMismatch(f"the contract in {self._name} was not created with the terms that its log claims")

    def _read(self, member: str, max_bytes: int) -> bytes:
        try:
            return b"".join(self._pieces(member, max_bytes))
        except (ObjectMissing, ObjectCorrupt) as error:
            raise ValueError(str(error)) from error

    def _pieces(self, member: str, max_bytes: int) -> Iterator[bytes]:
        """A member's bytes, never more than allowed, whatever its header claims."""
        try:
            entry = self._file.getinfo(member)
        except KeyError as error:
            raise ObjectMissing(f"{self._name} does not hold {member}") from error
        left = max_bytes
        try:
            with self._file.open(entry) as source:
                while piece := source.read(min(_CHUNK, left + 1)):
                    left -= len(piece)
                    if left < 0:
                        raise ObjectCorrupt(f"{member} in {self._name} has more than {max_bytes:,} bytes")
                    yield piece
        except _BROKEN as error:
            raise ObjectCorrupt(f"{member} in {self._name} cannot be read: {error}") from error


@contextlib.contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """A bundle to audit. Raises UsageError when the file is none."""
    try:
        file = zipfile.ZipFile(path)
    except FileNotFoundError as error:
        raise UsageError(f"there is no bundle {path}") from error
    except _BROKEN as error:
        raise UsageError(f"{path} is not a bundle: {error}") from error
    with file:
        yield Bundle(file, path.name)


def _natural(value: object, *, bits: int = 64) -> int:
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise ValueError("a number that is none")
    return value


def _contract(value: object) -> Address:
    if not isinstance(value, str) or len(value) != 42 or not value.startswith("0x"):
        raise ValueError("the contract's address is none")
    bytes.fromhex(value[2:])
    return Address(value)


def _code(value: object) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * MAX_CODE_BYTES:
        raise ValueError("the contract's code is none")
    return bytes.fromhex(value)
