"""What each event changes: `apply(state, event)`, and `fold(log)` from the first event on.

Pure: no clock, no socket. A log that the contract could not have written raises ValueError.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType

from typing_extensions import assert_never

from .events import (
    AggregateCommitted,
    AggregateRefuted,
    AggregateRestated,
    BondWithdrawn,
    Complained,
    DemandClosed,
    DutiesMissed,
    EncryptionKeyRotated,
    Event,
    FederationFounded,
    MemberAdmitted,
    MemberEnrolled,
    MemberLeaving,
    MemberSlashed,
    MotionVoted,
    OpeningPublished,
    PageDemanded,
    PageShown,
    ReceiptPosted,
    ResultCommitted,
    ResultRefuted,
    RewardWithdrawn,
    SetAbandoned,
    StopVoted,
    UpdateCommitted,
)
from .ids import Address, Bitmap, Cid, Digest, Index, members_of
from .phase import live_attempt, start_of_run
from .state import EMPTY, Attempt, Demand, FederationState, with_entry
from .votes import is_carried

MOST_STRIKES = 15
LAST_PROVEN_RULE = 5
"""R1 to R5 are proven by evidence. Silence (6) may be an honest member's that is away, and votes (7) prove nothing."""


def founded(event: FederationFounded) -> FederationState:
    """The state right after deployment."""
    return FederationState(
        terms=event.terms,
        founders=event.founders,
        founded_at=event.at,
        accounts=event.founders,
        members=MappingProxyType({}),
        model_digest=event.terms.genesis_digest,
        model_cid=event.terms.genesis_cid,
    )


def apply(state: FederationState, event: Event) -> FederationState:
    """The state after one more event of the log."""
    match event:
        case FederationFounded():
            raise ValueError("a federation is founded once; fold from `founded(event)`")
        case MemberEnrolled() | MemberAdmitted() | MemberLeaving() | EncryptionKeyRotated() | BondWithdrawn():
            return _membership(state, event)
        case UpdateCommitted() | ReceiptPosted() | Complained() | OpeningPublished() | AggregateCommitted():
            return _spoken(state, event)
        case ResultCommitted():
            return _spoken(state, event)
        case StopVoted():
            return replace(state, stop_votes=_with(state.stop_votes, event.index), last_vote_at=event.at)
        case DutiesMissed():
            state, _ = _attempt_for(state, event.round, event.attempt, event.at)
            strikes = state.strikes
            for index in members_of(event.members):
                strikes = with_entry(strikes, index, min(strikes.get(index, 0) + 1, MOST_STRIKES))
            return replace(state, strikes=strikes)
        case MotionVoted():
            return _voted(state, event)
        case SetAbandoned():
            return _abandoned(state, event)
        case AggregateRefuted():
            attempt = _locked(state, event.round, event.attempt)
            if attempt.posted_sum is None or attempt.posted_sum.index != event.index:
                raise ValueError(f"the log refutes a sum of round {event.round} that member {event.index} did not post")
            refuted = (*attempt.refuted_sums, attempt.posted_sum)
            return _put(state, replace(attempt, posted_sum=None, refuted_sums=refuted, sum_fell_at=event.at))
        case AggregateRestated():
            attempt = _locked(state, event.round, event.attempt)
            if attempt.posted_sum is not None:
                raise ValueError(f"the log restates a sum of round {event.round} that stands")
            return _put(state, replace(attempt, posted_sum=event))
        case ResultRefuted():
            return _reopened(state, event)
        case MemberSlashed():
            if not state.bonded >> event.index & 1:
                raise ValueError(f"the log slashes member {event.index}, who has no bond here")
            bonded, slashed = _without(state.bonded, event.index), _with(state.slashed, event.index)
            lied = _with(state.lied, event.index) if event.rule <= LAST_PROVEN_RULE else state.lied
            state = _credited(state, event.challenger, event.reward_wei)
            return replace(state, bonded=bonded, slashed=slashed, lied=lied, last_slash_at=event.at)
        case RewardWithdrawn():
            return replace(state, rewards=with_entry(state.rewards, event.account, 0))
        case PageDemanded() | PageShown() | DemandClosed():
            return _demanded(state, event)
        case _:
            assert_never(event)


def check_possible(state: FederationState, event: Event) -> None:
    """Raise ValueError for an event of somebody, or about somebody, of whom the contract could not have written it.

    What `apply` trusts in, and a node that makes up logs would break: whoever judges every statement by itself (the
    audit) needs no such check.
    """
    index: Index
    match event:
        case FederationFounded() | RewardWithdrawn() | MemberAdmitted() | SetAbandoned() | PageShown() | DemandClosed():
            return
        case DutiesMissed():
            possible, who = event.members & ~state.standing == 0, f"members {event.members:#b}"
        case PageDemanded():
            possible, who = event.page.index in state.members, f"member {event.page.index}"
        case MemberEnrolled():
            # Who is no member can become one, in its own place, and nobody twice.
            index, who = event.index, f"{event.member} as member {event.index}"
            in_place = index < len(state.accounts) and state.accounts[index] == event.member
            may_enrol = start_of_run(state, event.at) is None or state.admitted >> index & 1
            possible = in_place and bool(may_enrol) and not state.bonded >> index & 1
        case _:
            possible, who = event.index in state.members, f"member {event.index}"
            possible = possible and not (isinstance(event, StopVoted) and event.round != state.round)
    if not possible:
        raise ValueError(f"a {type(event).__name__} of {who} that the contract would have refused")


def fold(events: Iterable[Event]) -> FederationState:
    """The state that a whole log leads to; the first event must be `FederationFounded`."""
    state: FederationState | None = None
    for event in events:
        if state is None:
            if not isinstance(event, FederationFounded):
                raise ValueError("the log does not begin with FederationFounded")
            state = founded(event)
        else:
            state = apply(state, event)
    if state is None:
        raise ValueError("the log is empty: no FederationFounded event")
    return state


def _membership(
    state: FederationState,
    event: MemberEnrolled | MemberAdmitted | MemberLeaving | EncryptionKeyRotated | BondWithdrawn,
) -> FederationState:
    """The state after a change of who takes part; in a run that has begun it counts from the next round on."""
    index, before_run = event.index, start_of_run(state, event.at) is None
    match event:
        case MemberEnrolled():
            members = MappingProxyType({**state.members, index: event})
            state = replace(state, members=members, bonded=_with(state.bonded, index))
            if before_run:
                return replace(state, standing=_with(state.standing, index), last_enrol_at=event.at)
            admitted, removed = _without(state.admitted, index), _without(state.removed, index)
            return replace(state, joining=_with(state.joining, index), admitted=admitted, removed=removed)
        case MemberAdmitted():
            accounts = state.accounts
            if index == len(accounts):
                accounts = (*accounts, event.member)
            if index >= len(accounts) or accounts[index] != event.member:
                raise ValueError(f"the log admits {event.member} as member {index}, who is somebody else")
            return replace(state, accounts=accounts, admitted=_with(state.admitted, index))
        case MemberLeaving():
            removed = _with(state.removed, index) if event.removed else state.removed
            leaving = Bitmap(state.leaving | 1 << index & state.standing)  # who has left already can be removed still
            return replace(state, leaving=leaving, removed=removed)
        case EncryptionKeyRotated():
            state = _with_first_attempt(state, event.at)
            member = replace(state.members[index], encryption_key=event.encryption_key)
            return replace(state, members=MappingProxyType({**state.members, index: member}))
        case BondWithdrawn():
            # Its strikes are paid for with the bond that they counted against.
            state = replace(state, bonded=_without(state.bonded, index), strikes=with_entry(state.strikes, index, 0))
            if not before_run:
                return replace(state, joining=_without(state.joining, index))
            # Nobody takes part without a stake: who leaves before the run begins is no longer enrolled.
            members = MappingProxyType({i: m for i, m in state.members.items() if i != index})
            return replace(state, members=members, standing=_without(state.standing, index))


def _with_first_attempt(state: FederationState, at: int) -> FederationState:
    """The state in which the first attempt is written down, if the run has begun and nothing was said in it yet.

    It follows from the enrolments, until somebody registers another key: that is not for a round that has begun.
    """
    start = start_of_run(state, at)
    if start is None or state.current is not None:
        return state
    genesis = state.terms.genesis_digest, state.terms.genesis_cid
    return replace(state, current=state.fresh_attempt(1, 0, start, genesis))


def _spoken(
    state: FederationState,
    event: UpdateCommitted | ReceiptPosted | Complained | OpeningPublished | AggregateCommitted | ResultCommitted,
) -> FederationState:
    """The state after a statement in the round under way (P1–P5)."""
    state, attempt = _attempt_for(state, event.round, event.attempt, event.at)
    match event:
        case UpdateCommitted():
            commits = MappingProxyType({**attempt.commits, event.index: event})
            return replace(state, current=replace(attempt, commits=commits, last_commit_at=event.at))
        case ReceiptPosted():
            receipts = MappingProxyType({**attempt.receipts, event.index: event})
            return replace(state, current=replace(attempt, receipts=receipts, last_receipt_at=event.at))
        case Complained():
            complaints = MappingProxyType({**attempt.complaints, event.index: event})
            return replace(state, current=replace(attempt, complaints=complaints))
        case AggregateCommitted():
            return replace(state, current=replace(attempt, aggregate=event, posted_sum=event))
        case OpeningPublished():
            openings = MappingProxyType({**attempt.openings, event.index: event})
            return replace(state, current=replace(attempt, openings=openings))
        case ResultCommitted():
            attempt = replace(attempt, result=event, stop_votes=state.stop_votes)
            closed = MappingProxyType({**state.closed, event.round: attempt})
            base = event.model_digest, event.model_cid
            state = replace(state, closed=closed, model_digest=base[0], model_cid=base[1])
            return _begun(state, event.round + 1, state.resumes.get(event.round + 1, 0), event.at, base)


def _begun(state: FederationState, round: int, number: int, at: int, base: tuple[Digest, Cid]) -> FederationState:
    """The state as a round begins: who is joining counts from now on, who is leaving or was slashed does not."""
    standing = Bitmap((state.standing | state.joining) & ~(state.slashed | state.leaving))
    left_at = state.left_at
    for index in members_of(state.leaving):
        left_at = with_entry(left_at, index, at)
    ran_at = start_of_run(state, at) or 0
    state = replace(state, standing=standing, joining=EMPTY, leaving=EMPTY, left_at=left_at, ran_at=ran_at, began_at=at)
    return replace(state, current=state.fresh_attempt(round, number, at, base), stop_votes=EMPTY)


def _voted(state: FederationState, event: MotionVoted) -> FederationState:
    """The state after a vote; a ballot that is carried is used up, whatever it brings about."""
    ballot = state.ballot(event.motion, event.round, event.attempt, event.subject)
    votes = _with(state.ballots.get(ballot, EMPTY), event.index)
    kept = {**state.ballots, ballot: votes}
    if is_carried(state, votes):
        del kept[ballot]
    return replace(state, ballots=MappingProxyType(kept))


def _abandoned(state: FederationState, event: SetAbandoned) -> FederationState:
    """The state after a locked set was given up by vote: its round begins again on the same model."""
    attempt = _locked(state, event.round, event.attempt)
    assert attempt.aggregate is not None
    if event.round in state.closed or event.participants != attempt.aggregate.participants:
        raise ValueError(f"the log gives up a set of round {event.round}, which is closed, or has another")
    state = replace(_given_up(state, attempt), voided=(*state.voided, attempt))
    base = attempt.base_digest, attempt.base_cid
    return _begun(state, attempt.round, attempt.attempt + 1, event.at, base)


def _given_up(state: FederationState, attempt: Attempt) -> FederationState:
    """The state in which a locked set is one that may have been opened: later ones must be far from it (P3.8)."""
    assert attempt.aggregate is not None
    sets = (*state.abandoned.get(attempt.base_digest, ()), attempt.aggregate.participants)
    return replace(state, abandoned=MappingProxyType({**state.abandoned, attempt.base_digest: sets}))


def _demanded(state: FederationState, event: PageDemanded | PageShown | DemandClosed) -> FederationState:
    """The state after a demand was made, answered or closed; the deposit is whose answer, or whose demand it was."""
    if isinstance(event, PageDemanded):
        if event.demand in state.demands:
            raise ValueError("the log demands a page a second time")
        demand = Demand(event.page, event.demander, event.deadline)
        until = max(state.demands_until, event.deadline + state.terms.answer_window_s)
        demands = MappingProxyType({**state.demands, event.demand: demand})
        return replace(state, demands=demands, demands_until=until)
    known = state.demands.get(event.demand)
    if known is None or not known.open:
        raise ValueError("the log answers or closes a demand that is not open")
    state = _credited(state, event.account if isinstance(event, PageShown) else known.demander, state.terms.deposit_wei)
    demands = MappingProxyType({**state.demands, event.demand: replace(known, open=False)})
    return replace(state, demands=demands)


def _credited(state: FederationState, account: Address, wei: int) -> FederationState:
    owed = state.rewards.get(account, 0) + wei
    return replace(state, rewards=with_entry(state.rewards, account, owed)) if wei else state


def _with(members: Bitmap, index: Index) -> Bitmap:
    return Bitmap(members | 1 << index)


def _without(members: Bitmap, index: Index) -> Bitmap:
    return Bitmap(members & ~(1 << index))


def _attempt_for(state: FederationState, round: int, attempt: int, at: int) -> tuple[FederationState, Attempt]:
    """The attempt an event speaks of; a later attempt number means that time voided the one before."""
    live = live_attempt(state, at)
    if live is None or live.round != round or live.attempt != attempt:
        raise ValueError(f"the log speaks of round {round} attempt {attempt}, which was not under way at {at}")
    before = state.current
    if before is not None and before.attempt != live.attempt and before.commits:
        state = replace(state, voided=(*state.voided, before))
    return state, live


def _locked(state: FederationState, round: int, attempt: int) -> Attempt:
    """The attempt whose participant set is locked in this round, closed or under way."""
    found = state.closed.get(round, state.current)
    if found is None or (found.round, found.attempt) != (round, attempt) or found.aggregate is None:
        raise ValueError(f"the log speaks of a sum of round {round} attempt {attempt}, where no set is locked")
    return found


def _put(state: FederationState, attempt: Attempt) -> FederationState:
    """The state with one of its attempts changed, closed or under way."""
    if attempt.round in state.closed:
        return replace(state, closed=MappingProxyType({**state.closed, attempt.round: attempt}))
    return replace(state, current=attempt)


def _reopened(state: FederationState, event: ResultRefuted) -> FederationState:
    """The state after a result fell (P5): its round is open again, and what was built on its model is forgotten.

    The round keeps its set and its openings. Later rounds begin again when their turn comes, at attempt numbers that
    were never used: no (round, attempt) ever has two models.
    """
    attempt, live = state.closed.get(event.round), live_attempt(state, event.at)
    if attempt is None or live is None or attempt.result is None:
        raise ValueError(f"the log refutes a result of round {event.round}, which is not closed")
    if (attempt.result.index, attempt.attempt) != (event.index, event.attempt):
        raise ValueError(f"the log refutes a result of round {event.round} that member {event.index} did not post")
    gone = [later for round, later in sorted(state.closed.items()) if round > event.round]
    resumes = {**state.resumes, **{later.round: later.attempt + 1 for later in gone}, live.round: live.attempt + 1}
    if state.current is not None and state.current.commits:
        gone.append(state.current)
    for later in gone:
        # If the same result is posted again, the next round begins again on the same model.
        if later.round == event.round + 1 and later.aggregate is not None:
            state = _given_up(state, later)
    return replace(
        state,
        closed=MappingProxyType({round: kept for round, kept in state.closed.items() if round < event.round}),
        current=replace(
            attempt,
            result=None,
            refuted_results=(*attempt.refuted_results, attempt.result),
            reopened_at=event.at,
        ),
        forgotten=(*state.forgotten, *gone),
        resumes=MappingProxyType(resumes),
        stop_votes=attempt.stop_votes,
        began_at=event.at,
        model_digest=attempt.base_digest,
        model_cid=attempt.base_cid,
    )
