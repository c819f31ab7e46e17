"""The journal: a peer's promises, written and fsynced before the act, so that kill -9 at any point loses nothing.

It holds promises only (the upload it dealt, the complaint it made, the receipt it gave, the set it opened, the opening
it signed, the raw transactions it sent); everything else a peer knows it reads from the chain. One line a record: a
SHA-256 prefix, a space, JSON. A last line that was torn by a crash was never acted on, and is dropped; any other damage
stops the peer.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from ..chain.raw import parse_raw
from ..errors import FedchainError, UsageError
from ..protocol.ids import Address, Bitmap, Cid, Digest, Root, size_of
from ..protocol.statements import OpeningStatement

_CHECK_HEX = 16


class JournalFailed(FedchainError):
    """The journal cannot be written: the peer stops, for it may promise nothing that would be forgotten."""


class PromiseRefused(FedchainError):
    """An act would contradict a promise in the journal; it is not done."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """The one upload this peer dealt in an attempt."""

    commitment: Digest
    ciphertext_cid: Cid
    shares_cid: Cid


class Journal:
    """One peer's journal; a lock keeps a second process of the same peer away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(str(path) + ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(f"another process runs this peer already ({path}.lock is held); stop it first") from error
        self._transactions: dict[str, list[bytes]] = {}
        self._by_nonce: dict[int, tuple[str, bytes]] = {}
        self._next_nonce = 0
        self._federation: tuple[int, str, str] | None = None
        self._dealt: dict[tuple[int, int], Dealt] = {}
        self._complaints: dict[tuple[int, int], tuple[Bitmap, Cid]] = {}
        self._receipts: dict[tuple[int, int], Bitmap] = {}
        self._opened: dict[tuple[int, int, str], list[tuple[int, Bitmap]]] = {}
        self._signed: dict[tuple[int, int, int], tuple[Bitmap, Root]] = {}
        for record in self._recover():
            self._take(record)
        # Unbuffered: what a full disk refused must not be written behind our back when the file is closed.
        self._file = path.open("ab", buffering=0)
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and its lock."""
        self._file.close()
        self._lock.release()

    def transaction(self, key: str) -> bytes | None:
        """The newest raw transaction promised under `key`, if any."""
        return self._transactions[key][-1] if key in self._transactions else None

    def transactions(self, key: str) -> tuple[bytes, ...]:
        """Every raw transaction promised under `key`, oldest first."""
        return tuple(self._transactions.get(key, ()))

    def promise_transaction(self, key: str, nonce: int, raw: bytes) -> None:
        """Record that these bytes are about to be sent. Raises PromiseRefused if the key has made another statement."""
        known = self._transactions.get(key, ())
        if raw in known:
            return
        if any(parse_raw(one).statement != parse_raw(raw).statement for one in known):
            raise PromiseRefused(f"the journal holds another statement for {key}; no second one is made")
        self._write({"kind": "transaction", "key": key, "nonce": nonce, "raw": raw.hex()})

    def next_nonce(self) -> int:
        """One more than the largest nonce promised; 0 when none is."""
        return self._next_nonce

    def promised_from(self, nonce: int) -> tuple[tuple[str, bytes], ...]:
        """For this nonce and each later one, ascending: the newest raw transaction, with its key."""
        return tuple(self._by_nonce[place] for place in sorted(self._by_nonce) if place >= nonce)

    def bind(self, chain_id: int, contract: Address, founded_in: bytes) -> None:
        """Tie this journal to one federation, by the transaction that founded it.

        Promises to one federation mean nothing in another, not even at the same address of a chain begun anew. Raises
        UsageError when the journal is another federation's.
        """
        federation = (chain_id, contract.lower(), founded_in.hex())
        if self._federation is None:
            self._write({"kind": "federation", "chain_id": chain_id, "contract": contract, "founded_in": federation[2]})
        if self._federation != federation:
            raise UsageError(f"{self._path} belongs to another federation; give this one a --workdir of its own")

    def dealt(self, round: int, attempt: int) -> Dealt | None:
        """The upload dealt in this attempt, if any."""
        return self._dealt.get((round, attempt))

    def promise_upload(self, round: int, attempt: int, dealt: Dealt) -> None:
        """Record the upload about to be committed; one an attempt. Raises PromiseRefused for a second."""
        known = self.dealt(round, attempt)
        if known is not None and known != dealt:
            raise PromiseRefused(f"another upload was dealt in round {round} attempt {attempt}")
        if known is None:
            self._write(
                {
                    "kind": "dealt",
                    "round": round,
                    "attempt": attempt,
                    "commitment": dealt.commitment.hex(),
                    "ciphertext_cid": dealt.ciphertext_cid,
                    "shares_cid": dealt.shares_cid,
                }
            )

    def complaint(self, round: int, attempt: int) -> tuple[Bitmap, Cid] | None:
        """The complaint promised in this attempt, if any: the dealers, and where its evidence is."""
        return self._complaints.get((round, attempt))

    def promise_complaint(self, round: int, attempt: int, dealers: Bitmap, evidence: Cid) -> None:
        """Record the complaint about to be made; one an attempt. Raises PromiseRefused for another."""
        known = self.complaint(round, attempt)
        if known is not None and known != (dealers, evidence):
            raise PromiseRefused(f"another complaint was made in round {round} attempt {attempt}")
        if known is None:
            record = {"kind": "complaint", "round": round, "attempt": attempt, "dealers": dealers, "evidence": evidence}
            self._write(record)

    def receipt(self, round: int, attempt: int) -> Bitmap | None:
        """The receipt promised in this attempt, if any."""
        return self._receipts.get((round, attempt))

    def promise_receipt(self, round: int, attempt: int, whole: Bitmap) -> None:
        """Record the receipt about to be posted; one an attempt."""
        known = self.receipt(round, attempt)
        if known is not None and known != whole:
            raise PromiseRefused(f"another receipt was given in round {round} attempt {attempt}")
        if known is None:
            self._write({"kind": "receipt", "round": round, "attempt": attempt, "whole": whole})

    def promise_opening(
        self,
        round: int,
        attempt: int,
        group: int,
        base: Digest,
        participants: Bitmap,
        *,
        threshold: int,
        given_up: Collection[Bitmap] = (),
        uncounted: Bitmap = Bitmap(0),
    ) -> None:
        """Record the set that is about to be opened in (round, group) of updates to the model `base`.

        Raises PromiseRefused for any set or attempt but the one opened before: the difference of two opened sums is a
        smaller sum (P4.2). Only where that one was `given_up` by vote, a later attempt's set is opened, and only one
        that differs from every set opened before in nobody, or in more than `threshold` members, and is no third set;
        the `uncounted` (removed by vote) are not counted. A round that begins again on another model has other
        updates.
        """
        known, other = self._opened.get((round, group, base.hex()), []), 0
        if (attempt, participants) in known:
            return
        for before, opened in known:
            said = f"round {round} was opened for the set {opened:#b} of attempt {before}"
            if opened not in given_up or attempt <= before:
                raise PromiseRefused(f"{said}; no other is ever opened")
            apart = (opened ^ participants) & ~uncounted
            if 0 < size_of(apart) <= threshold:
                raise PromiseRefused(f"{said}; one that differs in {size_of(apart)} of them is never opened")
            if apart and other not in (0, apart):
                raise PromiseRefused(f"{said}; a third set of updates to one model is never opened")
            other = apart or other
        self._write(
            {
                "kind": "opened",
                "round": round,
                "attempt": attempt,
                "group": group,
                "base": base.hex(),
                "participants": participants,
            }
        )

    def may_sign(self, said: OpeningStatement) -> bool:
        """Promise to sign this opening for a relayer, and no other of its place; False where another was signed.

        On a fork somebody may have committed to something else under the same set. What was signed there stays: two
        signed openings of one place are a lie (R5), whoever relays which.
        """
        place = said.round, said.attempt, said.group
        known, signed = self._signed.get(place), (said.participants, said.root)
        if known is None:
            names = {"round": said.round, "attempt": said.attempt, "group": said.group}
            self._write({"kind": "signed", **names, "participants": said.participants, "root": said.root.hex()})
        return known in (None, signed)

    def _write(self, record: dict[str, Any]) -> None:
        body = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        line, whole = _check(body) + b" " + body + b"\n", self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(whole)
            raise JournalFailed(
                f"the journal {self._path} cannot be written: {error}; make room, and start again"
            ) from error
        self._take(record)

    def _take(self, record: dict[str, Any]) -> None:
        match record["kind"]:
            case "transaction":
                raw = bytes.fromhex(record["raw"])
                self._transactions.setdefault(record["key"], []).append(raw)
                self._by_nonce[record["nonce"]] = record["key"], raw
                self._next_nonce = max(self._next_nonce, record["nonce"] + 1)
            case "federation":
                self._federation = record["chain_id"], record["contract"].lower(), record["founded_in"]
            case "dealt":
                self._dealt[record["round"], record["attempt"]] = Dealt(
                    commitment=Digest(bytes.fromhex(record["commitment"])),
                    ciphertext_cid=Cid(record["ciphertext_cid"]),
                    shares_cid=Cid(record["shares_cid"]),
                )
            case "complaint":
                made = Bitmap(record["dealers"]), Cid(record["evidence"])
                self._complaints[record["round"], record["attempt"]] = made
            case "receipt":
                self._receipts[record["round"], record["attempt"]] = Bitmap(record["whole"])
            case "opened":
                set_opened = (record["attempt"], Bitmap(record["participants"]))
                self._opened.setdefault((record["round"], record["group"], record["base"]), []).append(set_opened)
            case "signed":
                said = Bitmap(record["participants"]), Root(bytes.fromhex(record["root"]))
                self._signed[record["round"], record["attempt"], record["group"]] = said
            case kind:
                raise UsageError(f"{self._path}: a record of unknown kind {kind!r}; was it written by a newer version?")

    def _recover(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        content = self._path.read_bytes()
        records: list[dict[str, Any]] = []
        whole = 0
        *lines, torn = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            if not _is_whole(line):
                raise self._damaged(number)
            records.append(json.loads(line.partition(b" ")[2]))
            whole += len(line) + 1
        # A record before which a crash came has no end; one with something else for an end was acted on.
        if _is_whole(torn[:-1]):
            raise self._damaged(len(lines) + 1)
        if torn:
            with self._path.open("r+b") as file:
                file.truncate(whole)
                os.fsync(file.fileno())
        return records

    def _damaged(self, line: int) -> UsageError:
        return UsageError(f"{self._path} is damaged at line {line}; restore it from a copy: it holds promises")


def _is_whole(line: bytes) -> bool:
    check, _, body = line.partition(b" ")
    return check == _check(body)


def _check(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_CHECK_HEX].encode()
