"""The relayer: gathers signed statements from a folder, and sends one transaction a phase for all (P1, P2, P4).

Anybody may be one: it needs an account with coins for gas, no bond, and nobody's trust. It sends when everybody who may
still speak has laid something there, or when half of the window has passed; peers speak for themselves after two
thirds. Refusals: it sends nothing that is not signed by its member, or that the contract would refuse.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from ..errors import TransactionFailed, WorldError
from ..ports import ChainReader, ChainWriter
from ..protocol.actions import (
    Batch,
    CommitUpdates,
    PostReceipts,
    PublishOpenings,
    SignedOpening,
    SignedReceipt,
    SignedUpdate,
)
from ..protocol.ids import Bitmap, bitmap_of, is_subset, members_of
from ..protocol.phase import Phase, live_attempt, phase_of, training_end
from ..protocol.signed import MAX_BYTES, Signed, decode, kind_of
from ..protocol.state import Attempt, FederationState
from ..protocol.statements import OpeningStatement, ReceiptStatement, UpdateStatement
from .context import GROUP


@dataclass(frozen=True, slots=True)
class Gathering:
    """What is gathered now: of which kind, from whom, and since when its window runs."""

    kind: str
    missing: Bitmap
    since: int
    window_s: int


class Relayer:
    """One account that sends what members have signed."""

    def __init__(
        self, reader: ChainReader, sender: ChainWriter, folder: Path, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._reader = reader
        self._sender = sender
        self._folder = folder
        self._log = log
        self._refused: set[bytes] = set()

    def run(self, poll_s: float) -> None:
        """Relay until the run is finished; the world's failures are logged and tried again."""
        while True:
            try:
                state, now = self._reader.refresh(), self._reader.now()
                if phase_of(state, state.round, now) is Phase.FINISHED:
                    return
                if self.step(state, now):
                    continue
            except (TransactionFailed, WorldError) as error:
                self._log.warning("trying again", reason=str(error))
            time.sleep(poll_s)

    def step(self, state: FederationState, now: int) -> bool:
        """Send what is due; whether something was sent."""
        attempt = live_attempt(state, now)
        gathering = None if attempt is None else gathering_of(state, attempt, now)
        if attempt is None or gathering is None:
            return False
        fitting = [signed for signed in self._gathered() if self._fits(state, attempt, gathering, signed)]
        lines = [line for _, line in sorted({signed.index: signed for signed in fitting}.items())]
        ready = bitmap_of([signed.index for signed in lines])
        if not ready or (ready != gathering.missing and now < gathering.since + gathering.window_s // 2):
            return False
        key = f"relay/{gathering.kind}/{attempt.round}/{attempt.attempt}/{ready}"
        self._sender.submit(key, _batch(attempt, lines))
        self._log.info("statements relayed", what=gathering.kind, round=attempt.round, members=members_of(ready))
        return True

    def _gathered(self) -> Iterator[Signed]:
        """Every statement in the folder; a file that is none is told once."""
        for path in sorted(self._folder.glob("*.json")):
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if content in self._refused:
                continue
            try:
                yield decode(content)
            except ValueError as error:
                self._refused.add(content)
                self._log.warning("a file is no signed statement", file=path.name, reason=str(error))
                continue

    def _fits(self, state: FederationState, attempt: Attempt, gathering: Gathering, signed: Signed) -> bool:
        """Whether the contract would take this line now."""
        said = signed.said
        if (kind_of(said), said.round, said.attempt) != (gathering.kind, attempt.round, attempt.attempt):
            return False
        if not gathering.missing >> signed.index & 1:
            return False
        match said:
            case ReceiptStatement() if not is_subset(said.whole, attempt.committed):
                return False
            case OpeningStatement() if attempt.aggregate is None or (said.group, said.participants) != (
                GROUP,
                attempt.aggregate.participants,
            ):
                return False
        account = state.accounts[signed.index]
        return signed.is_signed_by(account, self._reader.chain_id, self._reader.contract)


def gathering_of(state: FederationState, attempt: Attempt, now: int) -> Gathering | None:
    """What members may say now that can be relayed; None where there is nothing."""
    terms, heard = state.terms, state.heard & attempt.standing
    match phase_of(state, state.round, now):
        case Phase.TRAINING:
            missing = Bitmap(heard & ~attempt.committed)
            return Gathering("update", missing, attempt.started_at, terms.training_window_s)
        case Phase.RECEIPTS:
            ended = training_end(state, attempt, now)
            assert ended is not None
            missing = Bitmap(heard & ~bitmap_of(tuple(attempt.receipts)))
            return Gathering("receipt", missing, ended, terms.receipt_window_s)
        case Phase.OPENING | Phase.CLOSING:
            assert attempt.aggregate is not None
            missing = Bitmap(heard & ~attempt.opened)
            return Gathering("opening", missing, attempt.aggregate.at, terms.aggregate_window_s)
        case _:
            return None


def _batch(attempt: Attempt, lines: list[Signed]) -> Batch:
    """One transaction for these lines, all of one kind."""
    updates, receipts, openings = [], [], []
    for line in lines:
        match line.said:
            case UpdateStatement() as said:
                cids = said.ciphertext_cid, said.shares_cid
                updates.append(SignedUpdate(said.commitment, *cids, line.signature))
            case ReceiptStatement() as said:
                receipts.append(SignedReceipt(said.whole, line.signature))
            case OpeningStatement() as said:
                openings.append(SignedOpening(said.root, said.cid, line.signature))
    place = attempt.round, attempt.attempt
    if updates:
        return CommitUpdates(*place, tuple(updates))
    return PostReceipts(*place, tuple(receipts)) if receipts else PublishOpenings(*place, GROUP, tuple(openings))
