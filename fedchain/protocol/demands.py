"""Demands for availability (P5): whether one would be let in, answered or closed. The twin of `contracts/Demands.sol`.

A root with nothing behind it cannot be refuted, so its author must show what it committed to, page by page, if somebody
pays a deposit to see it; or what it stated falls.
"""

from __future__ import annotations

from .actions import CloseDemand, DemandPage, ShowPage
from .commitment import update_commitment
from .disputes import Refused, attempt_of, commitments_digest, openings_digest
from .evidence import NO_ROOT, running_digest
from .ids import Address, Digest, Root
from .pages import Kind, Page
from .phase import challenges_end_at, finished_at
from .state import Demand, FederationState

LISTED = (Kind.CIPHERTEXT, Kind.OPENING)
"""Statements that many members make: a list is on record."""


def check_demand(state: FederationState, demand: DemandPage, now: int) -> None:
    """Raise Refused where the contract would revert this demand.

    1. The deposit. 2. Nobody demanded this page before. 3. The statement is on record. 4. Its tree has the page. 5. Its
    author still answers for it, and something would follow from its silence.
    """
    page = demand.page
    if demand.deposit_wei != state.terms.deposit_wei:
        raise Refused("FederationWrongDeposit", str(state.terms.deposit_wei))
    if page.name in state.demands:
        raise Refused("FederationAlreadyDemanded")
    if page.group != 0:
        raise Refused("FederationBadGroup", str(page.group))
    record = _record_of(state, page)
    if record is None:
        raise Refused("FederationNoStatement")
    if record != (_list_of(demand) if page.kind in LISTED else page.word):
        raise Refused("FederationBadEvidence", "statement")
    if not page.is_in_tree(state.terms.model_size):
        raise Refused("FederationBadEvidence", "page")
    _check_owed(state, page, now)


def check_shown(state: FederationState, chain_id: int, contract: Address, shown: ShowPage, now: int) -> None:
    """Raise Refused where the contract would revert this answer."""
    page, demand = shown.page, _open_demand(state, shown.page)
    if now >= demand.deadline:
        raise Refused("FederationDemandOver", str(demand.deadline))
    root = page.shown_root(state.terms.model_size, shown.words)
    if root is None:
        raise Refused("FederationBadEvidence", "words")
    word: bytes | None = root
    if page.kind is Kind.CIPHERTEXT:
        author = state.accounts[page.index]
        word = update_commitment(chain_id, contract, page.round, page.attempt, author, root, shown.other)
    elif shown.other != NO_ROOT:
        word = None
    if word != page.word:
        raise Refused("FederationBadEvidence", "words")


def check_closed(state: FederationState, closed: CloseDemand, now: int) -> bool:
    """Whether the author is held to be silent if this demand is closed. Raises Refused where it may not be closed."""
    page, demand = closed.page, _open_demand(state, closed.page)
    if now < demand.deadline:
        raise Refused("FederationDemandOpen", str(demand.deadline))
    record, end = _record_of(state, page), challenges_end_at(state, now)
    # A list on record only grows. Once bonds are free, nothing falls any more.
    stands = record is not None and (page.kind in LISTED or record == page.word)
    return stands and (end is None or now < end)


def _open_demand(state: FederationState, page: Page) -> Demand:
    demand = state.demands.get(page.name)
    if demand is None or not demand.open:
        raise Refused("FederationNoDemand")
    return demand


def _check_owed(state: FederationState, page: Page, now: int) -> None:
    """Who has left keeps its objects for as long as who stays to the end; a result is answered for while it is new.

    With its silence a closer could else take back, at any time, all that was built on a right one.
    """
    end = finished_at(state, now)
    left = None if state.standing >> page.index & 1 else state.left_at.get(page.index)
    if left is not None and (end is None or left < end):
        end = left
    if page.kind in (Kind.KEY_SUM, Kind.RESULT):
        result = state.closed[page.round].result
        assert result is not None
        end = result.at if end is None else min(end, result.at)
    if end is not None and now >= end + state.terms.challenge_window_s:
        raise Refused("FederationChallengeOver", str(end + state.terms.challenge_window_s))
    if page.kind in LISTED and not state.bonded >> page.index & 1:
        raise Refused("FederationAlreadySlashed", str(page.index))


def _record_of(state: FederationState, page: Page) -> Digest | Root | None:
    """What is on record of this kind, by this author: the running digest of a list, or a root; None if nothing is."""
    if page.kind is Kind.CIPHERTEXT:
        said = attempt_of(state, page.round, page.attempt)
        return commitments_digest(said) if said is not None and said.commits else None
    attempt = state.closed.get(page.round, state.current)
    if attempt is None or (attempt.round, attempt.attempt) != (page.round, page.attempt):
        return None
    if page.kind is Kind.OPENING:
        return openings_digest(attempt) if attempt.openings else None
    if page.kind is Kind.AGGREGATE:
        posted = attempt.posted_sum
        return posted.root if posted is not None and posted.index == page.index else None
    if attempt.result is None or attempt.result.index != page.index:
        return None
    return attempt.result.key_sum_root if page.kind is Kind.KEY_SUM else attempt.result.result_root


def _list_of(demand: DemandPage) -> Digest | None:
    """The running digest of a list that holds the page's statement; None if it does not."""
    digest = Digest(bytes(32))
    for line in demand.lines:
        digest = running_digest(digest, line.index, line.word)
    holds = any((line.index, line.word) == (demand.page.index, demand.page.word) for line in demand.lines)
    return digest if holds else None
