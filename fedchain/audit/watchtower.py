"""The watchtower: follows a federation, audits each statement while it can be challenged, and proves what is wrong.

It needs no key to watch. Whoever gives it a sender lets it challenge: half of a liar's bond is the challenger's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import Evidence, TransactionFailed, WorldError
from ..ports import ChainReader, ChainWriter
from ..protocol.charter import Charter
from ..protocol.disputes import Refused, judge
from ..protocol.events import FederationFounded, ResultCommitted
from ..protocol.evidence import (
    Challenge,
    ChallengeAggregate,
    ChallengeEquivocation,
    ChallengeKeySum,
    ChallengeResidue,
    ChallengeResult,
)
from ..protocol.phase import challenges_end_at, live_attempt, start_of_run, training_end
from ..protocol.state import Attempt, FederationState, PostedSum
from .closing import check_closing
from .founding import check_charter
from .ledger import Ledger
from .proofs import prove
from .report import Outcome
from .shelf import Objects, Shelf
from .subject import Subject
from .uploads import check_uploads
from .words import gwei_in_words

_RULES: dict[type[Challenge], str] = {
    ChallengeAggregate: "R1",
    ChallengeKeySum: "R2",
    ChallengeResult: "R3",
    ChallengeResidue: "R4",
    ChallengeEquivocation: "R5",
}
_LOOKS = 20
"""How often an attempt is looked at again because something that a check needs was not to be had."""

Tell = Callable[[str], None]
"""Called with a line for people whenever something was seen or done."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one look at an attempt found: broken rules, and what the contract would uphold."""

    attempt: Attempt
    faults: tuple[Evidence, ...]
    challenges: tuple[Challenge, ...]


@dataclass(frozen=True, slots=True)
class _Seen:
    """What of an attempt was looked at; anything else on chain makes it worth another look."""

    round: int
    attempt: int
    updates: int
    posted_sum: PostedSum | None
    result: ResultCommitted | None


class Watchtower:
    """Looks at a federation through `reader` and `store`; `folder` is where it puts fetched objects for a while."""

    def __init__(self, reader: ChainReader, store: Objects, folder: Path) -> None:
        self._reader = reader
        self._store = store
        self._folder = folder
        self._charter: Charter | None = None
        self._looks: dict[_Seen, int] = {}

    def look(self) -> tuple[Sighting, ...]:
        """What is new and wrong since the last look. Raises ChainUnreachable, ChainMismatch, StoreUnreachable."""
        state, now = self._reader.refresh(), self._reader.now()
        if start_of_run(state, now) is None:
            return ()
        if self._charter is None:
            founding = self._reader.log()[0].event
            assert isinstance(founding, FederationFounded)
            self._charter = check_charter(founding, Shelf(self._store, self._folder), Ledger())
        sightings = (self._look_at(state, attempt, outcome, now) for attempt, outcome in _watched(state, now))
        return tuple(sighting for sighting in sightings if sighting is not None)

    def is_over(self) -> bool:
        """Whether nothing can be challenged any more."""
        state, now = self._reader.refresh(), self._reader.now()
        end = challenges_end_at(state, now)
        return start_of_run(state, now) is not None and end is not None and now >= end

    def _look_at(self, state: FederationState, attempt: Attempt, outcome: Outcome, now: int) -> Sighting | None:
        seen = _Seen(attempt.round, attempt.attempt, len(attempt.commits), attempt.posted_sum, attempt.result)
        if self._looks.get(seen, 0) >= _LOOKS:
            return None
        keep = self._charter.storage.keep_rounds if self._charter else 0
        subject = Subject(
            chain_id=self._reader.chain_id,
            contract=self._reader.contract,
            state=state,
            attempt=attempt,
            outcome=outcome,
            kept=outcome not in ("abandoned", "forgotten") and attempt.round > len(state.closed) - keep,
            charter=self._charter,
            # A shelf remembers what it could not get; each look asks again.
            shelf=Shelf(self._store, self._folder),
            ledger=Ledger(),
        )
        uploads = check_uploads(subject)
        recomputed = check_closing(subject, uploads)
        challenges = tuple(prove(subject, uploads, recomputed, now))
        undone = any(subject.ledger.is_blocked(subject.scope, number) for number in (3, 4, 7, 8, 9))
        # What is complete is not looked at again; what is proven is, until the contract has said so.
        self._looks[seen] = self._looks.get(seen, 0) + 1 if undone or challenges else _LOOKS
        if outcome != "open":
            subject.shelf.clear(keep=attempt.result.model_cid if attempt.result else attempt.base_cid)
        faults = tuple(fault for fault in subject.ledger.faults() if fault.round)
        return Sighting(attempt, faults, challenges) if faults or challenges else None


def follow(reader: ChainReader, store: Objects, sender: ChainWriter | None, tell: Tell, *, poll_s: float = 2.0) -> None:
    """Watch a federation until nothing can be challenged any more; with a sender, challenge what can be.

    The world's failures are told and tried again. A challenge that another's overtook is no failure.
    """
    with tempfile.TemporaryDirectory(prefix="fedchain-watch-") as folder:
        tower, said = Watchtower(reader, store, Path(folder)), _Once(tell)
        while True:
            try:
                for sighting in tower.look():
                    _tell_faults(said, sighting)
                    if _challenge(reader, sighting, sender, said):
                        break
                if tower.is_over():
                    return
            except WorldError as error:
                said(f"trying again: {error}")
            time.sleep(poll_s)


class _Once:
    """Says a line once, however often it is true."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._said: set[str] = set()

    def __call__(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._tell(line)


def _tell_faults(tell: Tell, sighting: Sighting) -> None:
    for fault in sighting.faults:
        tell(f"✗ round {fault.round}, {fault.check}: {fault.offender}: expected {fault.expected}, got {fault.got}")


def _challenge(reader: ChainReader, sighting: Sighting, sender: ChainWriter | None, tell: Tell) -> bool:
    """Hand each piece of evidence to the contract; whether the chain holds something new now."""
    state, now = reader.refresh(), reader.now()
    for challenge in sighting.challenges:
        try:
            liar = judge(state, reader.chain_id, reader.contract, challenge, now)
        except Refused:
            return True
        what = f"{_RULES[type(challenge)]} against {state.accounts[liar]} in round {sighting.attempt.round}"
        if sender is None:
            tell(f"! {what} would be upheld; give --challenge and a --key to take it to the contract")
            continue
        tell(f"! {what}: challenging")
        fallen = len(sighting.attempt.refuted_sums) + len(sighting.attempt.refuted_results)
        key = f"{type(challenge).__name__}/{sighting.attempt.round}/{sighting.attempt.attempt}/{liar}/{fallen}"
        try:
            transaction = sender.submit(key, challenge)
        except TransactionFailed as error:
            # Somebody else was quicker, or the state has moved on: the next look tells.
            tell(f"! {what}: {error}")
            return True
        reward = state.terms.bond_wei // 2 if state.bonded >> liar & 1 else 0
        tell(f"✓ {what}: upheld (0x{transaction.hex()}), {gwei_in_words(reward)} earned")
        return True
    return False


def _watched(state: FederationState, now: int) -> list[tuple[Attempt, Outcome]]:
    """The attempts that hold something to judge: closed rounds, what was given up, and the round under way."""
    found: list[tuple[Attempt, Outcome]] = [(attempt, "closed") for attempt in state.closed.values()]
    found += [(attempt, "abandoned" if attempt.aggregate else "void") for attempt in state.voided]
    found += [(attempt, "forgotten") for attempt in state.forgotten]
    current, live = state.current, live_attempt(state, now)
    if current is not None and live is not None and current.commits:
        if (live.round, live.attempt) != (current.round, current.attempt):
            found.append((current, "void"))
        elif training_end(state, current, now) is not None:
            found.append((current, "open"))
    return found
