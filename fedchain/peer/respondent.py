"""The respondent (P5.10): shows pages that somebody demanded, so that nobody who keeps its objects falls for silence.

Duties: show the demanded pages of what this member itself has stated, at once; of what others have stated and this peer
holds or can compute, after half of the answer window, in turns. Deadline: the answer window. Refusals: it shows nothing
but what belongs to the root on record (that it would reveal nothing follows: all of it was published).
"""

from __future__ import annotations

from ..crypto import (
    Aggregate,
    Result,
    aggregate_size,
    result_size,
    show_aggregate,
    show_ciphertext,
    show_key_sum,
    show_opening,
    show_result,
)
from ..errors import MalformedObject, WorldError
from ..protocol.actions import ShowPage
from ..protocol.demands import check_shown
from ..protocol.disputes import Refused, attempt_of
from ..protocol.evidence import NO_ROOT
from ..protocol.ids import Bitmap, Root
from ..protocol.pages import Kind, Page, Words
from ..protocol.state import Attempt, Demand, FederationState
from .context import PeerContext
from .decoder import Decoder
from .holdings import Holdings

_TRIES = 8
"""How often in an answer window an object that is not to be had is looked for."""


class Respondent:
    """One peer's answers to demands."""

    def __init__(self, context: PeerContext, holdings: Holdings, decoder: Decoder) -> None:
        self._context = context
        self._holdings = holdings
        self._decoder = decoder
        self._try_at: dict[bytes, int] = {}

    def act(self, state: FederationState, now: int) -> bool:
        """Show one page that is due; whether one was shown."""
        due = (demand for demand in state.demands.values() if self._is_due(state, demand, now))
        return any(self._answer(state, demand.page, now) for demand in due)

    def _is_due(self, state: FederationState, demand: Demand, now: int) -> bool:
        page, window = demand.page, state.terms.answer_window_s
        if not demand.open or now >= demand.deadline or now < self._try_at.get(page.name, 0):
            return False
        members = len(state.accounts)
        place = (self._context.me - page.index) % members
        # The author at once, the others one after another in the second half.
        half = demand.deadline - window // 2
        return place == 0 or now >= half + (place - 1) * (window // 2) // members

    def _answer(self, state: FederationState, page: Page, now: int) -> bool:
        context = self._context
        self._try_at[page.name] = now + max(1, state.terms.answer_window_s // _TRIES)
        author, what = state.accounts[page.index], page.kind.name.lower()
        try:
            shown = self._shown(state, page)
            if shown is None:
                return False
            check_shown(state, context.reader.chain_id, context.reader.contract, shown, now)
        except (WorldError, MalformedObject, Refused) as error:
            context.log.warning("demanded page not shown", what=what, author=author, reason=str(error))
            return False
        context.sender.submit(f"show/{page.name.hex()}", shown)
        context.log.info("demanded page shown", what=what, author=author, level=page.level, position=page.position)
        return True

    def _shown(self, state: FederationState, page: Page) -> ShowPage | None:
        """What shows the page; None where this peer has not got the object."""
        attempt = attempt_of(state, page.round, page.attempt)
        if attempt is None:
            return None
        if page.kind is Kind.CIPHERTEXT:
            return self._ciphertext(state, attempt, page)
        words = self._words(state, attempt, page)
        return None if words is None else ShowPage(page, NO_ROOT, words)

    def _ciphertext(self, state: FederationState, attempt: Attempt, page: Page) -> ShowPage | None:
        commit, d = attempt.commits.get(page.index), self._context.terms.model_size
        if commit is None:
            return None
        self._holdings.examine(state, attempt, only=Bitmap(1 << page.index))
        holding = self._holdings.of(attempt, page.index)
        upload = holding.upload if holding is not None else self._holdings.malformed.get(commit)
        if upload is None:
            return None
        return ShowPage(page, upload.shares_root, show_ciphertext(page, upload.ciphertext, d))

    def _words(self, state: FederationState, attempt: Attempt, page: Page) -> Words | None:
        match page.kind:
            case Kind.OPENING if page.index in attempt.openings:
                opening = self._decoder.opening(state, attempt, page.index)
                return None if opening is None else show_opening(page, opening)
            case Kind.AGGREGATE if attempt.aggregate is not None:
                total = self._sum(state, attempt, Root(page.word))
                return None if total is None else show_aggregate(page, total)
            case Kind.KEY_SUM | Kind.RESULT if attempt.result is not None:
                result = self._result(state, attempt)
                if result is None:
                    return None
                return show_key_sum(page, result) if page.kind is Kind.KEY_SUM else show_result(page, result)
            case _:
                return None

    def _sum(self, state: FederationState, attempt: Attempt, root: Root) -> Aggregate | None:
        """The sum with this root: this peer's own, or the posted object, of somebody who computed otherwise."""
        context, posted = self._context, attempt.posted_sum
        assert attempt.aggregate is not None
        self._holdings.examine(state, attempt, only=attempt.aggregate.participants)
        total = self._decoder.sum(attempt, attempt.aggregate.participants)
        if total is not None and total.root() == root:
            return total
        if posted is None or posted.root != root:
            return None
        d = context.terms.model_size
        return Aggregate.parse(context.store.get(posted.cid, aggregate_size(d)), d)

    def _result(self, state: FederationState, attempt: Attempt) -> Result | None:
        """The result on record: as this peer decoded it, or as it was posted."""
        context, posted = self._context, attempt.result
        assert posted is not None
        kept = context.result(posted.key_sum_root, posted.result_root)
        if kept is not None:
            return Result.parse(kept, context.terms.model_size)
        outcome = self._decoder.outcome(state, attempt)
        if outcome is not None:
            own = outcome.opened.result
            if (own.key_sum_root(), own.root()) == (posted.key_sum_root, posted.result_root):
                return own
        d = context.terms.model_size
        return Result.parse(context.store.get(posted.result_cid, result_size(d)), d)
