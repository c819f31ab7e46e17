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
    BondWithdrawn,
    Event,
    FederationFounded,
    MemberEnrolled,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
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
    )


def apply(state: FederationState, event: Event) -> FederationState:
    """The state after one more event of the log."""
    match event:
        case FederationFounded():
            raise ValueError("a federation is founded once; fold from `founded(event)`")
        case MemberEnrolled():
            members = MappingProxyType({**state.members, event.index: event})
            return replace(state, members=members, last_enrol_at=event.at)
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
            return replace(state, current=replace(attempt, aggregate=event))
        case OpeningPublished():
            state, attempt = _attempt_for(state, event.round, event.attempt, event.at)
            openings = MappingProxyType({**attempt.openings, event.index: event})
            return replace(state, current=replace(attempt, openings=openings))
        case ResultCommitted():
            state, attempt = _attempt_for(state, event.round, event.attempt, event.at)
            closed = MappingProxyType({**state.closed, event.round: replace(attempt, result=event)})
            return replace(
                state,
                closed=closed,
                current=Attempt(round=event.round + 1, attempt=0, started_at=event.at),
                stop_votes=Bitmap(0),
                model_digest=event.model_digest,
                model_cid=event.model_cid,
            )
        case StopVoted():
            return replace(state, stop_votes=Bitmap(state.stop_votes | 1 << event.index))
        case BondWithdrawn():
            if start_of_run(state, event.at) is None:
                # Nobody takes part without a stake: who leaves before the run begins is no longer enrolled.
                members = MappingProxyType({i: m for i, m in state.members.items() if i != event.index})
                return replace(state, members=members)
            return replace(state, withdrawn=Bitmap(state.withdrawn | 1 << event.index))
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
