"""Events as JSON and back, for a bundle: strict, because whoever made the bundle may be the one who is audited."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from ..ports import Logged
from ..protocol.cid import digest_of_cid
from ..protocol.events import Event, FederationFounded, Motion, Terms
from ..protocol.ids import MAX_MEMBERS, Address, Bitmap, Cid, Digest, Index, Root
from ..protocol.pages import Kind, Page

_KINDS: dict[str, type] = {kind.__name__: kind for kind in get_args(Event)}
_MOST_WORDS = 128
"""More than a page has: 64 nodes, and a sibling for each level above."""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


@dataclass(frozen=True, slots=True)
class Mined:
    """One entry of the log with the gas of its transaction."""

    logged: Logged
    gas: int


def to_json(value: object) -> Any:
    """A value of an event for JSON: bytes in hex, integers beyond 2^53 as they are (Python reads them exactly)."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [to_json(part) for part in value]
    return value


def mined_to_json(mined: Mined) -> dict[str, Any]:
    """One entry of the log for JSON."""
    logged = mined.logged
    return {
        "event": type(logged.event).__name__,
        "says": to_json(logged.event),
        "block_number": logged.block_number,
        "block_hash": logged.block_hash.hex(),
        "transaction": logged.transaction.hex(),
        "log_index": logged.log_index,
        "gas": mined.gas,
    }


def mined_from_json(entry: object) -> Mined:
    """One entry of the log. Raises ValueError unless every field is there, of its type and within its bounds."""
    names = {"event", "says", "block_number", "block_hash", "transaction", "log_index", "gas"}
    if not isinstance(entry, dict) or set(entry) != names:
        raise ValueError("an entry of the log has other fields")
    kind = _KINDS.get(entry["event"]) if isinstance(entry["event"], str) else None
    if kind is None:
        raise ValueError("an event that this version does not know")
    event = _built(kind, entry["says"])
    if isinstance(event, FederationFounded):
        _check_founding(event)
    logged = Logged(
        event=event,
        block_number=_whole(entry["block_number"]),
        block_hash=_octets(entry["block_hash"], 32),
        transaction=_octets(entry["transaction"], 32),
        log_index=_whole(entry["log_index"]),
    )
    return Mined(logged, _whole(entry["gas"]))


def _check_founding(event: FederationFounded) -> None:
    """What the log's reader demands of a chain as well: phases divide by these."""
    terms, n = event.terms, len(event.founders)
    positive = (*terms.windows_s, terms.rounds, terms.model_size)
    if not 3 <= n <= MAX_MEMBERS or not 1 <= terms.threshold < n or 0 in positive or terms.model_size > 1 << 40:
        raise ValueError("a founding with impossible terms")


def _built(kind: type, entry: object) -> Any:
    readers = _readers(kind)
    if not isinstance(entry, dict) or set(entry) != set(readers):
        raise ValueError(f"a {kind.__name__} has other fields")
    return kind(**{name: read(entry[name]) for name, read in readers.items()})


@cache
def _readers(kind: type) -> dict[str, Callable[[object], Any]]:
    hints = get_type_hints(kind)
    return {field.name: _READERS[hints[field.name]] for field in fields(kind)}


def _whole(value: object, bound: int = 1 << 256) -> int:
    # `type(...) is int`: JSON's true is a bool, which Python counts as an int.
    if type(value) is not int or not 0 <= value < bound:
        raise ValueError("a number that is none, or out of bounds")
    return value


def _octets(value: object, length: int) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * length:
        raise ValueError(f"not {length} bytes in hex")
    return bytes.fromhex(value)


def _cid(value: object) -> Cid:
    if not isinstance(value, str):
        raise ValueError("not a CID")
    digest_of_cid(value)
    return Cid(value)


def _address(value: object) -> Address:
    if not isinstance(value, str) or not _ADDRESS.fullmatch(value):
        raise ValueError("not an address")
    return Address(value)


def _addresses(value: object) -> tuple[Address, ...]:
    if not isinstance(value, list) or len(value) > MAX_MEMBERS:
        raise ValueError("not a list of founders")
    return tuple(_address(founder) for founder in value)


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("neither true nor false")
    return value


def _words(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > _MOST_WORDS:
        raise ValueError("not a list of words")
    return tuple(_octets(word, 32) for word in value)


_READERS: dict[Any, Callable[[object], Any]] = {
    int: _whole,
    bytes: lambda value: _octets(value, 32),
    Digest: lambda value: _octets(value, 32),
    Root: lambda value: _octets(value, 32),
    Cid: _cid,
    Address: _address,
    Index: lambda value: _whole(value, MAX_MEMBERS),
    Bitmap: lambda value: _whole(value, 1 << MAX_MEMBERS),
    tuple[Address, ...]: _addresses,
    tuple[bytes, ...]: _words,
    bool: _flag,
    Motion: lambda value: Motion(_whole(value)),
    Kind: lambda value: Kind(_whole(value)),
    Page: lambda value: _built(Page, value),
    Terms: lambda value: _built(Terms, value),
}
