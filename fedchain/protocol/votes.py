"""What members decide by vote, and whether a vote would be let in. The twin of `contracts/Votes.sol`.

Of those who voted only who is heard by then counts, against the t of that time. With the t-th vote a motion is carried
at once; its ballot is used up.
"""

from __future__ import annotations

from typing_extensions import assert_never

from .actions import Vote, VoteToAbandon, VoteToAdmit, VoteToRefuse, VoteToRemove
from .disputes import Refused, check_bonds_held, closed_attempt
from .events import Motion
from .ids import MAX_MEMBERS, Bitmap, Index, size_of
from .phase import Phase, phase_of
from .state import EMPTY, Ballot, FederationState

MAX_ABANDONED = 8
"""Sets that may be given up by vote on one model: each that is locked later is compared with them all."""

NO_ACCOUNT = "0x" + "00" * 20


def ballot_of(state: FederationState, vote: Vote) -> Ballot:
    """What a vote is about, as its event names it."""
    match vote:
        case VoteToAdmit():
            return state.ballot(Motion.ADMIT, 0, 0, bytes.fromhex(vote.account[2:]).rjust(32, b"\0"))
        case VoteToRemove():
            return state.ballot(Motion.REMOVE, 0, 0, vote.index.to_bytes(32, "big"))
        case VoteToAbandon():
            return state.ballot(Motion.ABANDON, vote.round, vote.attempt, bytes(32))
        case VoteToRefuse():
            closed = state.closed.get(vote.round)
            return state.ballot(Motion.REFUSE, vote.round, closed.attempt if closed else 0, vote.model_digest)
        case _:
            assert_never(vote)


def votes_for(state: FederationState, ballot: Ballot) -> Bitmap:
    """Who has voted for a motion, of those who are heard. Twin: votesOf()."""
    return Bitmap(state.ballots.get(ballot, EMPTY) & state.heard)


def is_carried(state: FederationState, votes: int) -> bool:
    """Whether these votes carry a motion."""
    return size_of(votes & state.heard) >= state.threshold


def check_vote(state: FederationState, voter: Index, vote: Vote, now: int) -> None:
    """Raise Refused where the contract would revert this vote of a member that is heard."""
    match vote:
        case VoteToAdmit():
            _check_goes_on(state, now)
            _check_may_be_admitted(state, vote)
        case VoteToRemove():
            _check_goes_on(state, now)
            _check_may_be_removed(state, vote)
        case VoteToAbandon():
            _check_may_be_abandoned(state, vote, now)
        case VoteToRefuse():
            check_bonds_held(state, now)
            closed = closed_attempt(state, vote.round, 0)
            assert closed.result is not None
            if vote.model_digest != closed.result.model_digest:
                raise Refused("FederationOtherBasis", closed.result.model_digest.hex())
        case _:
            assert_never(vote)
    if state.ballots.get(ballot_of(state, vote), EMPTY) >> voter & 1:
        raise Refused("FederationAlreadyVoted")


def _check_may_be_admitted(state: FederationState, vote: VoteToAdmit) -> None:
    index = state.index_of(vote.account)
    if vote.account == NO_ACCOUNT:
        raise Refused("FederationBadSubject")
    if index is None:
        if len(state.accounts) == MAX_MEMBERS:
            raise Refused("FederationBadMemberCount", str(MAX_MEMBERS + 1))
    elif (state.standing | state.joining | state.slashed | state.admitted) >> index & 1:
        raise Refused("FederationBadSubject")


def _check_may_be_removed(state: FederationState, vote: VoteToRemove) -> None:
    if vote.index >= MAX_MEMBERS:
        raise Refused("FederationBadSubject")
    bit = 1 << vote.index
    # Who is heard no more may be in a set that was given up. No set just beside that one is locked unless it is removed
    # (P3.8).
    left = not (state.standing | state.joining) & bit and vote.index in state.left_at
    gone = bool(state.slashed & bit) or left
    if not state.heard & bit and not gone:
        raise Refused("FederationBadSubject")
    if state.removed & bit and (gone or state.leaving & bit):
        raise Refused("FederationAlreadyLeaving")


def _check_may_be_abandoned(state: FederationState, vote: VoteToAbandon, now: int) -> None:
    if vote.round != state.round:
        raise Refused("FederationWrongRound", str(state.round))
    phase = _check_goes_on(state, now)
    if phase not in (Phase.OPENING, Phase.CLOSING):
        raise Refused("FederationWrongPhase", phase.name.lower())
    assert state.current is not None
    if vote.attempt != state.current.attempt:
        raise Refused("FederationWrongAttempt", str(state.current.attempt))
    if len(state.abandoned.get(state.current.base_digest, ())) >= MAX_ABANDONED:
        raise Refused("FederationBadSubject")


def _check_goes_on(state: FederationState, now: int) -> Phase:
    phase = phase_of(state, state.round, now)
    if phase in (Phase.ENROLLING, Phase.FINISHED):
        raise Refused("FederationWrongPhase", phase.name.lower())
    return phase
