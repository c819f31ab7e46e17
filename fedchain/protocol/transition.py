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
    Event,
    FederationFounded,
    MemberEnrolled,
    MemberSlashed,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    ResultRefuted,
    RewardWithdrawn,
    StopVoted,
    UpdateCommitted,
)
from .ids import Bitmap
from .phase import live_attempt, start_of_run
from .state import Attempt, FederationState


def founded(event: FederationFounded) -> FederationState:
    """The state right after deployment."""
    return FederationState(
        terms=event.terms,
        founders=event.founders,
        founded_at=event.at,
        members=MappingProxyType({}),
        last_enrol_at=0,
        current=None,
        closed=MappingProxyType({}),
        voided=(),
        stop_votes=Bitmap(0),
        withdrawn=Bitmap(0),
        model_digest=event.terms.genesis_digest,
        model_cid=event.terms.genesis_cid,
        standing=Bitmap(0),
        slashed=Bitmap(0),
    )


def apply(state: FederationState, event: Event) -> FederationState:
    """The state after one more event of the log."""
    match event:
        case FederationFounded():
            raise ValueError("a federation is founded once; fold from `founded(event)`")
        case MemberEnrolled():
            members = MappingProxyType({**state.members, event.index: event})
            standing = Bitmap(state.standing | 1 << event.index)
            return replace(state, members=members, standing=standing, last_enrol_at=event.at)
        case UpdateCommitted():
            state, attempt = _attempt_for(state, event.round, event.attempt, event.at)
            commits = MappingProxyType({**attempt.commits, event.index: event})
            return replace(state, current=replace(attempt, commits=commits, last_commit_at=event.at))
        case ReceiptPosted():
            state, attempt = _attempt_for(state, event.round, event.attempt, event.at)
            receipts = MappingProxyType({**attempt.receipts, event.index: event})
            return replace(state, current=replace(attempt, receipts=receipts, last_receipt_at=event.at))
        case AggregateCommitted():
            state, attempt = _attempt_for(state, event.round, event.attempt, event.at)
            return replace(state, current=replace(attempt, aggregate=event, posted_sum=event))
        case OpeningPublished():
            state, attempt = _attempt_for(state, event.round, event.attempt, event.at)
            openings = MappingProxyType({**attempt.openings, event.index: event})
            return replace(state, current=replace(attempt, openings=openings))
        case ResultCommitted():
            state, attempt = _attempt_for(state, event.round, event.attempt, event.at)
            attempt = replace(attempt, result=event, stop_votes=state.stop_votes)
            return replace(
                state,
                closed=MappingProxyType({**state.closed, event.round: attempt}),
                current=Attempt(
                    round=event.round + 1,
                    attempt=state.resumes.get(event.round + 1, 0),
                    started_at=event.at,
                    standing=state.heard,
                    base_digest=event.model_digest,
                    base_cid=event.model_cid,
                ),
                stop_votes=Bitmap(0),
                standing=state.heard,
                model_digest=event.model_digest,
                model_cid=event.model_cid,
            )
        case StopVoted():
            return replace(state, stop_votes=Bitmap(state.stop_votes | 1 << event.index), last_vote_at=event.at)
        case BondWithdrawn():
            if start_of_run(state, event.at) is None:
                # Nobody takes part without a stake: who leaves before the run begins is no longer enrolled.
                members = MappingProxyType({i: m for i, m in state.members.items() if i != event.index})
                return replace(state, members=members, standing=Bitmap(state.standing & ~(1 << event.index)))
            return replace(state, withdrawn=Bitmap(state.withdrawn | 1 << event.index))
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
            if not state.heard >> event.index & 1:
                raise ValueError(f"the log slashes member {event.index}, who does not stand")
            return replace(state, slashed=Bitmap(state.slashed | 1 << event.index), last_slash_at=event.at)
        case RewardWithdrawn():
            return state
        case _:
            assert_never(event)


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
    if attempt is None or live is None or attempt.result is None or attempt.result.index != event.index:
        raise ValueError(f"the log refutes a result of round {event.round} that member {event.index} did not post")
    gone = [later for round, later in sorted(state.closed.items()) if round > event.round]
    resumes = {**state.resumes, **{later.round: later.attempt + 1 for later in gone}, live.round: live.attempt + 1}
    if state.current is not None and state.current.commits:
        gone.append(state.current)
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
        model_digest=attempt.base_digest,
        model_cid=attempt.base_cid,
    )
