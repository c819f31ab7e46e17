"""The demander (P5.10, P5.11): makes who keeps back the object behind a wrong root show it page by page, or fall.

Duties: for the challenger, demand what leads to the wrong leaf of a sum or a result that nobody can fetch, until that
gives the evidence; close demands whose deadline passed. Turns: as for challenges; whoever comes later builds on pages
that were shown before. Refusals: it demands nothing that the contract would refuse, and nothing beyond its deposits.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from ..crypto import CommittedUpload
from ..crypto.pursuit import DeadEnd, Pages, ResultPursuit, Wanted, pursue_sum
from ..protocol.actions import CloseDemand, DemandPage
from ..protocol.demands import check_demand
from ..protocol.descent import deposits_of, shown_pages
from ..protocol.disputes import Refused
from ..protocol.events import Event, ResultCommitted
from ..protocol.evidence import Challenge, Line
from ..protocol.ids import Bitmap, Digest, Index
from ..protocol.pages import Kind, Page
from ..protocol.state import Attempt, FederationState, PostedSum
from .context import PeerContext
from .decoder import Decoder, Outcome
from .holdings import Holdings
from .turns import challenge_at


class Pursuit(Enum):
    """How far the pursuit of a wrong root is."""

    SENT = auto()  # a demand was made, or closed
    WAITING = auto()  # for a page, a deadline, or this member's turn
    STUCK = auto()  # there is nothing that this peer can do
    UNPROVABLE = auto()  # every leaf is right, and only the tree's padding is not


Found = Challenge | Wanted | DeadEnd


class Demander:
    """One peer's demands."""

    def __init__(self, context: PeerContext, holdings: Holdings, decoder: Decoder) -> None:
        self._context = context
        self._holdings = holdings
        self._decoder = decoder
        self._found: dict[PostedSum | ResultCommitted, tuple[Pages, Found]] = {}
        self._sent: set[Digest] = set()
        self._said: set[str] = set()

    def pursue_sum(self, state: FederationState, attempt: Attempt, posted: PostedSum, now: int) -> Challenge | Pursuit:
        """What to do about a wrong sum that is kept back: the evidence (R1), once it was shown."""

        def find(pages: Pages) -> Found:
            uploads, total = self._uploads(state, attempt), self._decoder.sum(attempt, _participants(attempt))
            if uploads is None or total is None:
                return DeadEnd.STUCK
            return pursue_sum(attempt, total, uploads, pages)

        return self._follow(state, attempt, posted, find, now)

    def pursue_result(
        self, state: FederationState, attempt: Attempt, outcome: Outcome, now: int
    ) -> Challenge | Pursuit:
        """What to do about a wrong result that is kept back: the evidence (R2, R3), once it was shown."""
        posted = attempt.result
        assert posted is not None

        def find(pages: Pages) -> Found:
            uploads, total = self._uploads(state, attempt), self._decoder.sum(attempt, _participants(attempt))
            if uploads is None or total is None:
                return DeadEnd.STUCK
            context, openings = self._context.round_context(attempt), self._decoder.openings(state, attempt)
            return ResultPursuit(attempt, outcome.opened.result, total, context, uploads, openings, pages).step()

        return self._follow(state, attempt, posted, find, now)

    def _follow(
        self,
        state: FederationState,
        attempt: Attempt,
        posted: PostedSum | ResultCommitted,
        find: Callable[[Pages], Found],
        now: int,
    ) -> Challenge | Pursuit:
        """What was found so far, looked for again only when pages came since: trees of large models take time."""
        pages = self._pages(state)
        if posted not in self._found or self._found[posted][0] != pages:
            self._found[posted] = pages, find(pages)
        found = self._found[posted][1]
        if isinstance(found, DeadEnd):
            return Pursuit.UNPROVABLE if found is DeadEnd.UNPROVABLE else Pursuit.STUCK
        if not isinstance(found, tuple):
            return found
        # All that is wanted is demanded at once: each answer may take its whole window.
        pursuits = {self._demand(state, attempt, page, posted, now) for page in found}
        return next(one for one in (Pursuit.STUCK, Pursuit.SENT, Pursuit.WAITING) if one in pursuits)

    def _demand(
        self, state: FederationState, attempt: Attempt, page: Page, posted: PostedSum | ResultCommitted, now: int
    ) -> Pursuit:
        """Bring a page nearer: demand it, wait for it, or close the demand."""
        context, demand = self._context, state.demands.get(page.name)
        author, what = state.accounts[page.index], page.kind.name.lower()
        if demand is None:
            # A page of an opening is wanted because of what the closer made of it.
            if now < challenge_at(state, attempt, context.me, since=posted.at, liar=posted.index):
                return Pursuit.WAITING
            # What was sent in this very look is in no log yet.
            unread = [name for name in self._sent if name not in state.demands]
            if deposits_of(self._events(), context.address) + len(unread) >= context.deposits:
                self._say_once(f"{context.deposits} deposits are out or gone; no more pages are demanded (--deposits)")
                return Pursuit.STUCK
            action = DemandPage(page, _lines(attempt, page), context.terms.deposit_wei)
            try:
                check_demand(state, action, now)
            except Refused as refused:
                self._say_once(f"a page cannot be demanded: {refused}")
                return Pursuit.STUCK
            context.sender.submit(f"demand/{page.name.hex()}", action)
            self._sent.add(page.name)
            where = {"level": page.level, "position": page.position}
            context.log.error("page demanded", what=what, round=page.round, author=author, **where)
            return Pursuit.SENT
        # Whoever demanded gets its deposit, and half a bond: it goes first.
        patience = 0 if demand.demander == context.address else context.terms.answer_window_s // 2
        if now < demand.deadline + patience:
            return Pursuit.WAITING
        context.sender.submit(f"close/{page.name.hex()}", CloseDemand(page))
        context.log.error("silence proven", what=what, round=page.round, author=author)
        return Pursuit.SENT

    def _pages(self, state: FederationState) -> Pages:
        """Every page that was shown, and those that were demanded and will not be shown any more."""
        shown = shown_pages(self._events())
        lost = frozenset(name for name, demand in state.demands.items() if not demand.open and name not in shown)
        return Pages(shown, lost)

    def _uploads(self, state: FederationState, attempt: Attempt) -> dict[Index, CommittedUpload] | None:
        self._holdings.examine(state, attempt, only=_participants(attempt))
        return self._holdings.uploads(attempt)

    def _events(self) -> list[Event]:
        return [entry.event for entry in self._context.reader.log()]

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._context.log.error(line)


def _participants(attempt: Attempt) -> Bitmap:
    assert attempt.aggregate is not None
    return attempt.aggregate.participants


def _lines(attempt: Attempt, page: Page) -> tuple[Line, ...]:
    """The list on record that an opening stands in."""
    if page.kind is not Kind.OPENING:
        return ()
    return tuple(Line(index, published.root) for index, published in attempt.openings.items())
