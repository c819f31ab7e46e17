"""A signed statement as a file: what a member hands to a relayer, who sends those of several in one transaction.

Canonical JSON (sorted keys, no spaces), bytes as hex. The name of a file says nothing that its content does not say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from .cid import digest_of_cid
from .ids import Address, Index
from .signature import Signature, recover
from .statements import OpeningStatement, ReceiptStatement, Statement, UpdateStatement, statement_digest

MAX_BYTES = 4_096

_KINDS: dict[str, type[Statement]] = {
    "update": UpdateStatement,
    "receipt": ReceiptStatement,
    "opening": OpeningStatement,
}
_CIDS = ("ciphertext_cid", "shares_cid", "cid")
_HASHES = ("commitment", "root")


@dataclass(frozen=True, slots=True)
class Signed:
    """What member `index` said, by its signature."""

    index: Index
    said: Statement
    signature: Signature

    @property
    def name(self) -> str:
        """The file's name: a later file of the same name says the same."""
        return f"{kind_of(self.said)}-{self.said.round}-{self.said.attempt}-{self.index}.json"

    def is_signed_by(self, account: Address, chain_id: int, federation: Address) -> bool:
        """Whether the signature is this account's."""
        return recover(statement_digest(chain_id, federation, self.said), self.signature.whole) == account


def kind_of(said: Statement) -> str:
    """update, receipt or opening."""
    return next(kind for kind, form in _KINDS.items() if isinstance(said, form))


def encode(signed: Signed) -> bytes:
    """The file's content."""
    entries: dict[str, Any] = {"kind": kind_of(signed.said), "member": int(signed.index)}
    entries["signature"] = (signed.signature.r + signed.signature.vs).hex()
    for entry in fields(signed.said):
        value = getattr(signed.said, entry.name)
        entries[entry.name] = value.hex() if isinstance(value, bytes) else value
    return json.dumps(entries, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def decode(content: bytes) -> Signed:
    """What a file says. Raises ValueError for anything that `encode` would not have written."""
    if len(content) > MAX_BYTES:
        raise ValueError("it is too long")
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is no JSON") from error
    if not isinstance(entries, dict) or entries.get("kind") not in _KINDS:
        raise ValueError("it is no statement")
    form = _KINDS[entries["kind"]]
    values: dict[str, Any] = {}
    for entry in fields(form):
        value = entries.get(entry.name)
        if entry.name in _HASHES:
            value = _octets(value, 32)
        elif entry.name in _CIDS:
            digest_of_cid(str(value))
        elif type(value) is not int or not 0 <= value < 1 << 128:
            raise ValueError(f"its {entry.name} is no number")
        values[entry.name] = value
    signature, member = _octets(entries.get("signature"), 64), entries.get("member")
    if type(member) is not int or not 0 <= member < 64:
        raise ValueError("its member is no index")
    signed = Signed(Index(member), form(**values), Signature(signature[:32], signature[32:]))
    if encode(signed) != content:
        raise ValueError("it is not canonical")
    return signed


def _octets(value: object, count: int) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * count:
        raise ValueError(f"it lacks {count} bytes in hex")
    return bytes.fromhex(value)
