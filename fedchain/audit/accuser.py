"""The watchtower's voice: takes to the contract what it saw to be wrong, and demands the pages that would show it.

Newest round first: when the result of an older round falls, all that was built on it is forgotten, and with it whatever
liar sits there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import Evidence, TransactionFailed
from ..ports import ChainReader, ChainWriter
from ..protocol.actions import CloseDemand, DemandPage
from ..protocol.demands import check_demand
from ..protocol.descent import deposits_of
from ..protocol.disputes import Refused, judge
from ..protocol.evidence import (
    Challenge,
    ChallengeAggregate,
    ChallengeEquivocation,
    ChallengeKeySum,
    ChallengeResidue,
    ChallengeResult,
)
from ..protocol.pages import Kind, Page
from ..protocol.phase import challenges_end_at
from ..protocol.state import Attempt, FederationState
from .decisions import lines_of
from .words import gwei_in_words

Tell = Callable[[str], None]
"""Called with a line for people whenever something was seen or done."""

DEPOSITS = 40
"""How many deposits may be out, or gone, unless it is told otherwise: enough for the costliest lie, an S of which every
leaf is wrong."""

_RULES: dict[type[Challenge], str] = {
    ChallengeAggregate: "R1",
    ChallengeKeySum: "R2",
    ChallengeResult: "R3",
    ChallengeResidue: "R4",
    ChallengeEquivocation: "R5",
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one look at an attempt found: broken rules, what the contract would uphold, and the pages that would show
    what it cannot uphold yet."""

    attempt: Attempt
    faults: tuple[Evidence, ...]
    challenges: tuple[Challenge, ...]
    wanted: tuple[Page, ...] = ()


class Accuser:
    """Acts on sightings with `sender`, who pays; without one it tells what could be done. `deposits` bounds what it
    risks on demands."""

    def __init__(self, reader: ChainReader, sender: ChainWriter | None, tell: Tell, deposits: int = DEPOSITS) -> None:
        self._reader = reader
        self._sender = sender
        self._tell = tell
        self._deposits = deposits

    def act(self, sightings: Sequence[Sighting]) -> None:
        """Do the most urgent thing that there is to do; the next look tells what came of it."""
        if self._close_own():
            return
        held_back = False
        for sighting in sorted(sightings, key=lambda seen: (seen.attempt.round, seen.attempt.attempt), reverse=True):
            if self._challenge(sighting, held_back=held_back):
                return
            sent, pursued = self._pursue(sighting, held_back=held_back)
            if sent:
                return
            held_back = held_back or pursued

    def _challenge(self, sighting: Sighting, *, held_back: bool) -> bool:
        """Hand each piece of evidence to the contract; whether the chain may hold something new now."""
        state, now = self._reader.refresh(), self._reader.now()
        for challenge in sighting.challenges:
            try:
                liar = judge(state, self._reader.chain_id, self._reader.contract, challenge, now)
            except Refused:
                return True
            what = f"{_RULES[type(challenge)]} against {state.accounts[liar]} in round {sighting.attempt.round}"
            if self._sender is None:
                self._tell(f"! {what} would be upheld; give --challenge and a --key to take it to the contract")
                continue
            if held_back and isinstance(challenge, ChallengeKeySum | ChallengeResult) and _has_time(state, now):
                self._tell(f"! {what}: waiting until a younger round's liar has fallen")
                continue
            self._tell(f"! {what}: challenging")
            fallen = len(sighting.attempt.refuted_sums) + len(sighting.attempt.refuted_results)
            key = f"{type(challenge).__name__}/{sighting.attempt.round}/{sighting.attempt.attempt}/{liar}/{fallen}"
            try:
                transaction = self._sender.submit(key, challenge)
            except TransactionFailed as error:
                # Somebody else was quicker, or the state has moved on: the next look tells.
                self._tell(f"! {what}: {error}")
                return True
            reward = state.terms.bond_wei // 2 if state.bonded >> liar & 1 else 0
            self._tell(f"✓ {what}: upheld (0x{transaction.hex()}), {gwei_in_words(reward)} earned")
            return True
        return False

    def _pursue(self, sighting: Sighting, *, held_back: bool) -> tuple[bool, bool]:
        """Bring the pages that a proof wants nearer; whether something was sent, and whether a result is pursued."""
        sent = pursued = False
        for page in sighting.wanted:
            state, now = self._reader.refresh(), self._reader.now()
            demand = state.demands.get(page.name)
            result = sighting.attempt.result
            if held_back and page.kind is not Kind.AGGREGATE and result and _has_time(state, now, since=result.at):
                continue
            if demand is None:
                sent = self._demand(state, page, now) or sent
            elif demand.open and now >= demand.deadline + state.terms.answer_window_s // 2:
                # Whoever demanded it had its time to close it.
                sent = self._close(state, page) or sent
            pursued = pursued or page.name in self._reader.refresh().demands
        return sent, pursued and any(page.kind is not Kind.AGGREGATE for page in sighting.wanted)

    def _demand(self, state: FederationState, page: Page, now: int) -> bool:
        """Demand one page, if that is let in and the deposits allow it."""
        what = _in_words(state, page)
        action = DemandPage(page, lines_of(state, page), state.terms.deposit_wei)
        try:
            check_demand(state, action, now)
        except Refused as refused:
            self._tell(f"! {what} cannot be demanded: {refused}")
            return False
        if self._sender is None:
            self._tell(f"! {what} is kept back; give --challenge and a --key to demand it for a deposit")
            return False
        events = [entry.event for entry in self._reader.log()]
        if deposits_of(events, self._sender.address) >= self._deposits:
            self._tell(f"! {what} is not demanded: {self._deposits} deposits are out or gone (--demand-budget)")
            return False
        self._tell(f"! {what}: demanded for {gwei_in_words(action.deposit_wei)}")
        return self._submit(f"demand/{page.name.hex()}", action, what)

    def _close_own(self) -> bool:
        """Close the demands of this account that nobody answered: the deposit comes back in any case."""
        state, now = self._reader.refresh(), self._reader.now()
        if self._sender is None:
            return False
        mine = (d for d in state.demands.values() if d.open and d.demander == self._sender.address)
        overdue = [demand.page for demand in mine if now >= demand.deadline]
        for page in overdue:
            self._close(state, page)
        return bool(overdue)

    def _close(self, state: FederationState, page: Page) -> bool:
        if self._sender is None:
            return False
        what = _in_words(state, page)
        self._tell(f"! {what} stayed out: closing the demand")
        return self._submit(f"close/{page.name.hex()}", CloseDemand(page), what)

    def _submit(self, key: str, action: DemandPage | CloseDemand, what: str) -> bool:
        assert self._sender is not None
        try:
            self._sender.submit(key, action)
        except TransactionFailed as error:
            # Somebody else was quicker: the next look tells.
            self._tell(f"! {what}: {error}")
        return True


def _has_time(state: FederationState, now: int, *, since: int | None = None) -> bool:
    """Whether a challenge may wait for another's demands, or a demand about a result posted at `since`: not in the last
    quarter of its window."""
    ends = [challenges_end_at(state, now), since + state.terms.challenge_window_s if since is not None else None]
    return all(end is None or now < end - 2 * state.terms.answer_window_s for end in ends)


def _in_words(state: FederationState, page: Page) -> str:
    kind = page.kind.name.lower().replace("_", " ")
    place = f"level {page.level}, node {page.position}" if page.level else f"leaf {page.position}"
    return f"the {kind} of {state.accounts[page.index]} in round {page.round}, {place}"
