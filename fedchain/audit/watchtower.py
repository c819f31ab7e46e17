"""The watchtower: follows a federation, audits each statement while it can be challenged, and proves what is wrong.

It needs no key to watch. Whoever gives it a sender lets it challenge, and demand what is kept back: half of a liar's
bond is the challenger's.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ..errors import WorldError
from ..ports import ChainReader, ChainWriter
from ..protocol.charter import Charter
from ..protocol.events import FederationFounded, ResultCommitted
from ..protocol.phase import challenges_end_at, live_attempt, start_of_run, training_end
from ..protocol.state import Attempt, FederationState, PostedSum
from .accuser import DEPOSITS, Accuser, Sighting, Tell
from .closing import check_closing
from .founding import check_charter
from .ledger import Ledger
from .proofs import prove
from .report import Outcome
from .shelf import Objects, Shelf
from .subject import Subject
from .uploads import check_uploads

_LOOKS = 20
"""How often an attempt is looked at again because something that a check needs was not to be had."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What of an attempt was looked at; anything else on chain makes it worth another look."""

    round: int
    attempt: int
    updates: int
    posted_sum: PostedSum | None
    result: ResultCommitted | None
    demands: int
    """How many demands of pages were answered or closed."""


class Watchtower:
    """Looks at a federation through `reader` and `store`; `folder` is where it puts fetched objects for a while."""

    def __init__(self, reader: ChainReader, store: Objects, folder: Path) -> None:
        self._reader = reader
        self._store = store
        self._folder = folder
        self._charter: Charter | None = None
        self._looks: dict[_Seen, int] = {}
        self._sightings: dict[_Seen, Sighting | None] = {}
        """What was seen last where it takes pages to prove it."""

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
        ended = sum(not d.open and (d.page.round, d.page.attempt) == _place(attempt) for d in state.demands.values())
        seen = _Seen(*_place(attempt), len(attempt.commits), attempt.posted_sum, attempt.result, ended)
        before = self._sightings.get(seen)
        demanded = before is not None and before.wanted and all(page.name in state.demands for page in before.wanted)
        if demanded or self._looks.get(seen, 0) >= _LOOKS:
            # Nothing changes before a page is shown, or its deadline has passed.
            return before
        subject = Subject(
            chain_id=self._reader.chain_id,
            contract=self._reader.contract,
            state=state,
            attempt=attempt,
            outcome=outcome,
            charter=self._charter,
            # A shelf remembers what it could not get; each look asks again.
            shelf=Shelf(self._store, self._folder),
            ledger=Ledger(),
        )
        uploads = check_uploads(subject)
        recomputed = check_closing(subject, uploads)
        log = [entry.event for entry in self._reader.log()]
        challenges, wanted = prove(subject, uploads, recomputed, log, now)
        undone = any(subject.ledger.is_blocked(subject.scope, number) for number in (3, 4, 7, 8, 9))
        # What is complete is not looked at again; what is proven is, until the contract has said so.
        self._looks[seen] = self._looks.get(seen, 0) + 1 if undone or challenges or wanted else _LOOKS
        if outcome != "open":
            subject.shelf.clear(keep=attempt.result.model_cid if attempt.result else attempt.base_cid)
        faults = tuple(fault for fault in subject.ledger.faults() if fault.round)
        sighting = Sighting(attempt, faults, challenges, wanted) if faults or challenges or wanted else None
        self._sightings[seen] = sighting if wanted else None
        return sighting


def follow(
    reader: ChainReader,
    store: Objects,
    sender: ChainWriter | None,
    tell: Tell,
    *,
    deposits: int = DEPOSITS,
    poll_s: float = 2.0,
) -> None:
    """Watch a federation until nothing can be challenged any more; with a sender, challenge and demand what can be.

    `deposits` bounds how many may be out, or gone, for demanded pages. The world's failures are told and tried again. A
    challenge that another's overtook is no failure.
    """
    with tempfile.TemporaryDirectory(prefix="fedchain-watch-") as folder:
        tower, said = Watchtower(reader, store, Path(folder)), _Once(tell)
        accuser = Accuser(reader, sender, said, deposits)
        while True:
            try:
                sightings = tower.look()
                for sighting in sightings:
                    _tell_faults(said, sighting)
                accuser.act(sightings)
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


def _place(attempt: Attempt) -> tuple[int, int]:
    return attempt.round, attempt.attempt


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
