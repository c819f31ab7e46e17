"""The demander (P5.10, P5.11): makes who keeps back the object behind a wrong root show it page by page, or fall.

Duties: for the challenger, find the wrong leaf of a sum or a result that nobody can fetch, and make the evidence from
what was shown; close demands whose deadline passed. Turns: as for challenges; whoever comes later builds on pages that
were shown before. Refusals: it demands nothing that the contract would refuse, and nothing beyond its deposits.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeVar

from ..crypto import (
    CommittedUpload,
    Result,
    Tree,
    aggregate_tree,
    key_sum_tree,
    opening_proof,
    refute_aggregate,
    refute_key_sum,
    refute_result,
    result_tree,
    with_leaves,
    wrong_coefficient,
)
from ..protocol.actions import CloseDemand, DemandPage
from ..protocol.demands import check_demand
from ..protocol.descent import (
    WrongLeaf,
    aggregate_page,
    deposits_of,
    descend,
    leaf_page,
    opening_page,
    result_pages,
    shown_pages,
)
from ..protocol.disputes import Refused, judge
from ..protocol.events import Event
from ..protocol.evidence import Challenge, Line
from ..protocol.ids import Bitmap, Digest, Index, members_of, size_of
from ..protocol.merkle import node_at
from ..protocol.pages import Kind, Page, Words
from ..protocol.scheme import KEY_LEAVES
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


class Demander:
    """One peer's demands."""

    def __init__(self, context: PeerContext, holdings: Holdings, decoder: Decoder) -> None:
        self._context = context
        self._holdings = holdings
        self._decoder = decoder
        self._trees: dict[Page, Tree] = {}
        self._said: set[str] = set()

    def pursue_sum(self, state: FederationState, attempt: Attempt, posted: PostedSum, now: int) -> Challenge | Pursuit:
        """What to do about a wrong sum that is kept back: the evidence (R1), once it was shown."""
        d, since = self._context.terms.model_size, posted.at
        page = aggregate_page(posted, d)
        if page not in self._trees:
            total = self._decoder.sum(attempt, _participants(attempt))
            if total is None:
                return Pursuit.STUCK
            self._trees[page] = aggregate_tree(total)
        found = self._descend(state, attempt, page, since, now)
        if not isinstance(found, WrongLeaf):
            return found
        uploads = self._uploads(state, attempt)
        return Pursuit.STUCK if uploads is None else refute_aggregate(attempt, uploads, found, d)

    def pursue_result(
        self, state: FederationState, attempt: Attempt, outcome: Outcome, now: int
    ) -> Challenge | Pursuit:
        """What to do about a wrong result that is kept back: the evidence (R2, R3), once it was shown."""
        posted, right = attempt.result, outcome.opened.result
        assert posted is not None
        key_sum, result = result_pages(attempt, self._context.terms.model_size)
        if result not in self._trees:
            self._trees |= {key_sum: key_sum_tree(right), result: result_tree(right)}
        if posted.key_sum_root != outcome.opened.key_sum_root:
            return self._pursue_key_sum(state, attempt, right, (key_sum, result), now)
        found = self._descend(state, attempt, result, posted.at, now)
        if not isinstance(found, WrongLeaf):
            return found
        claimed = with_leaves(right.coefficients, {found.leaf: found.proof})
        return self._refuted_result(state, attempt, Result(right.elements, claimed, right.d), found)

    def _pursue_key_sum(
        self, state: FederationState, attempt: Attempt, right: Result, pages: tuple[Page, Page], now: int
    ) -> Challenge | Pursuit:
        """R2, if the openers' openings give another S; else one is wrong or gone, and R3 shows that S does not fit."""
        posted = attempt.result
        assert posted is not None
        found = self._descend(state, attempt, pages[0], posted.at, now)
        if not isinstance(found, WrongLeaf):
            return found
        openers = members_of(posted.openers)
        said = _all({i: self._opening_leaf(state, attempt, i, found.leaf, now) for i in openers})
        if said is Pursuit.SENT or said is Pursuit.WAITING:
            return said
        if not isinstance(said, Pursuit):
            challenge = refute_key_sum(attempt, said, found)
            if self._holds(state, challenge, now):
                return challenge
        return self._whole_key_sum(state, attempt, right, pages, now)

    def _whole_key_sum(
        self, state: FederationState, attempt: Attempt, right: Result, pages: tuple[Page, Page], now: int
    ) -> Challenge | Pursuit:
        """R3 from all of the posted S, each leaf that differs shown, and one leaf of the result."""
        context, posted, (key_sum, result) = self._context, attempt.result, pages
        assert posted is not None
        nodes, tree = self._shown()[key_sum.name], self._trees[key_sum]
        wrong_leaves = [leaf for leaf in range(KEY_LEAVES) if nodes[leaf] != node_at(tree, 0, leaf)]
        shown = _all({i: self._leaf(state, attempt, leaf_page(key_sum, i), posted.at, now) for i in wrong_leaves})
        if isinstance(shown, Pursuit):
            return shown
        elements = with_leaves(right.key_sum_leaves(), shown).reshape(-1).astype(right.elements.dtype)
        total = self._decoder.sum(attempt, _participants(attempt))
        if total is None:
            return Pursuit.STUCK
        wrong = Result(elements, right.coefficients, right.d)
        coefficient = wrong_coefficient(wrong, total, size_of(_participants(attempt)), context.round_context(attempt))
        if coefficient is None:
            return Pursuit.STUCK
        leaf = coefficient // right.coefficients.shape[1]
        proof = self._leaf(state, attempt, leaf_page(result, leaf), posted.at, now)
        if isinstance(proof, Pursuit):
            return proof
        return self._refuted_result(state, attempt, wrong, WrongLeaf(leaf, proof), coefficient)

    def _refuted_result(
        self,
        state: FederationState,
        attempt: Attempt,
        claimed: Result,
        found: WrongLeaf,
        coefficient: int | None = None,
    ) -> Challenge | Pursuit:
        uploads, context = self._uploads(state, attempt), self._context
        total = self._decoder.sum(attempt, _participants(attempt))
        if uploads is None or total is None:
            return Pursuit.STUCK
        if coefficient is None:
            members = size_of(_participants(attempt))
            coefficient = wrong_coefficient(claimed, total, members, context.round_context(attempt))
        if coefficient is None:
            return Pursuit.STUCK
        return refute_result(attempt, uploads, claimed.key_sum, coefficient, found, context.terms.model_size)

    def _opening_leaf(
        self, state: FederationState, attempt: Attempt, index: Index, leaf: int, now: int
    ) -> Words | Pursuit:
        """The proof of a leaf of one opener's opening: from the opening, or demanded from its author."""
        opening = self._decoder.opening(state, attempt, index)
        if opening is not None:
            return opening_proof(opening, leaf)
        assert attempt.result is not None
        page = leaf_page(opening_page(attempt.openings[index]), leaf)
        return self._leaf(state, attempt, page, attempt.result.at, now)

    def _descend(
        self, state: FederationState, attempt: Attempt, page: Page, since: int, now: int
    ) -> WrongLeaf | Pursuit:
        found = descend(page, self._shown(), self._trees[page])
        if isinstance(found, Page):
            return self._demand(state, attempt, found, since, now)
        return Pursuit.UNPROVABLE if found is None else found

    def _leaf(self, state: FederationState, attempt: Attempt, page: Page, since: int, now: int) -> Words | Pursuit:
        shown = self._shown()
        return shown[page.name] if page.name in shown else self._demand(state, attempt, page, since, now)

    def _demand(self, state: FederationState, attempt: Attempt, page: Page, since: int, now: int) -> Pursuit:
        """Bring a page nearer: demand it, wait for it, or close the demand."""
        context, demand = self._context, state.demands.get(page.name)
        author, what = state.accounts[page.index], page.kind.name.lower()
        if demand is None:
            # An opening is asked for because of what the closer made of it.
            liar = attempt.result.index if attempt.result and page.kind is Kind.OPENING else page.index
            if now < challenge_at(state, attempt, context.me, since=since, liar=liar):
                return Pursuit.WAITING
            if deposits_of(self._events(), context.address) >= context.deposits:
                self._say_once(f"{context.deposits} deposits are out or gone; no more pages are demanded (--deposits)")
                return Pursuit.STUCK
            action = DemandPage(page, _lines(attempt, page), context.terms.deposit_wei)
            try:
                check_demand(state, action, now)
            except Refused as refused:
                self._say_once(f"a page cannot be demanded: {refused}")
                return Pursuit.STUCK
            context.sender.submit(f"demand/{page.name.hex()}", action)
            where = {"level": page.level, "position": page.position}
            context.log.error("page demanded", what=what, round=page.round, author=author, **where)
            return Pursuit.SENT
        if not demand.open:
            # Closed without a page: the statement fell, or nothing follows from it any more.
            return Pursuit.STUCK
        # Whoever demanded gets its deposit, and half a bond: it goes first.
        patience = 0 if demand.demander == context.address else context.terms.answer_window_s // 2
        if now < demand.deadline + patience:
            return Pursuit.WAITING
        context.sender.submit(f"close/{page.name.hex()}", CloseDemand(page))
        context.log.error("silence proven", what=what, round=page.round, author=author)
        return Pursuit.SENT

    def _uploads(self, state: FederationState, attempt: Attempt) -> dict[Index, CommittedUpload] | None:
        self._holdings.examine(state, attempt, only=_participants(attempt))
        return self._holdings.uploads(attempt)

    def _holds(self, state: FederationState, challenge: Challenge, now: int) -> bool:
        try:
            judge(state, self._context.reader.chain_id, self._context.reader.contract, challenge, now)
        except Refused:
            return False
        return True

    def _events(self) -> list[Event]:
        return [entry.event for entry in self._context.reader.log()]

    def _shown(self) -> dict[Digest, Words]:
        return shown_pages(self._events())

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._context.log.error(line)


_Place = TypeVar("_Place", bound=int)


def _all(found: dict[_Place, Words | Pursuit]) -> dict[_Place, Words] | Pursuit:
    """Every page, or what is to be said of those that are missing: all of them were demanded at once."""
    for pursuit in (Pursuit.STUCK, Pursuit.SENT, Pursuit.WAITING):
        if pursuit in found.values():
            return pursuit
    return {place: words for place, words in found.items() if not isinstance(words, Pursuit)}


def _participants(attempt: Attempt) -> Bitmap:
    assert attempt.aggregate is not None
    return attempt.aggregate.participants


def _lines(attempt: Attempt, page: Page) -> tuple[Line, ...]:
    """The list on record that an opening stands in."""
    if page.kind is not Kind.OPENING:
        return ()
    return tuple(Line(index, published.root) for index, published in attempt.openings.items())
