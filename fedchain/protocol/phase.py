"""Which phase a round is in: derived from counts, deadlines and the time, and stored nowhere (P1–P5).

The twin of `phaseOf()` and its helpers in `contracts/Rounds.sol`: the same names, the same order, the same branches;
a differential test holds the two together.
"""

from __future__ import annotations

from enum import IntEnum

from .ids import Bitmap, Index, bitmap_of, size_of
from .state import Attempt, FederationState


class Phase(IntEnum):
    """A stage of a round; the numbers are those of the contract's enum."""

    ENROLLING = 0
    TRAINING = 1
    RECEIPTS = 2
    AGGREGATING = 3
    OPENING = 4
    CLOSING = 5
    CLOSED = 6
    PENDING = 7
    FINISHED = 8


def phase_of(state: FederationState, round: int, now: int) -> Phase:
    """The phase of `round` at time `now` (seconds, the newest block's timestamp)."""
    if start_of_run(state, now) is None:
        return Phase.ENROLLING
    if round < state.round:
        return Phase.CLOSED
    if is_finished(state):
        return Phase.FINISHED
    if round > state.round:
        return Phase.PENDING
    attempt = live_attempt(state, now)
    assert attempt is not None
    if attempt.aggregate is not None:
        # Once a set is locked, nobody counts who is there: slashing must not move a phase back.
        if len(attempt.openings) < state.terms.threshold:
            return Phase.OPENING
        return Phase.CLOSING
    if training_end(state, attempt, now) is None:
        return Phase.TRAINING
    if receipts_end(state, attempt, now) is None:
        return Phase.RECEIPTS
    return Phase.AGGREGATING


def is_finished(state: FederationState) -> bool:
    """All rounds are closed, at least t members voted that the target is met, or too few are left to go on."""
    all_closed, stopped = state.round > state.terms.rounds, size_of(state.stop_votes) >= state.terms.threshold
    return all_closed or stopped or are_too_few(state)


def are_too_few(state: FederationState) -> bool:
    """Too few members are heard to lock a set, or, if one is locked, to open it or to close the round."""
    if size_of(state.heard) >= state.terms.min_participants:
        return False
    current = state.current
    if current is None or current.aggregate is None:
        return True
    return not state.heard or size_of(state.heard | bitmap_of(tuple(current.openings))) < state.terms.threshold


def bond_free_at(state: FederationState, now: int) -> int | None:
    """From when bonds may be taken back, and nothing can be challenged any more (P0.5); None while the run goes on.

    A challenge window after the run's end, or after the enrolment deadline of a run that never began.
    """
    if start_of_run(state, now) is None:
        return state.founded_at + state.terms.enrol_window_s + state.terms.challenge_window_s
    return finished_at(state) + state.terms.challenge_window_s if is_finished(state) else None


def finished_at(state: FederationState) -> int:
    """When the run ended, if it has: with the last result, the vote that made t, or when too few were left."""
    begun = state.current.started_at if state.current is not None else 0
    if state.round > state.terms.rounds:
        return begun
    if size_of(state.stop_votes) >= state.terms.threshold:
        return state.last_vote_at
    return max(begun, state.last_slash_at)


def start_of_run(state: FederationState, now: int) -> int | None:
    """When enrolment ended: all founders enrolled, or the window passed with enough of them; None before."""
    deadline = state.founded_at + state.terms.enrol_window_s
    return _end(
        len(state.members), len(state.founders), state.terms.min_participants, state.last_enrol_at, deadline, now
    )


def training_end(state: FederationState, attempt: Attempt, now: int) -> int | None:
    """When training ended (P1): all members committed, or the deadline passed with at least max(3, t+1)."""
    deadline = attempt.started_at + state.terms.training_window_s
    minimum = state.terms.min_participants
    return _end(len(attempt.commits), size_of(attempt.standing), minimum, attempt.last_commit_at, deadline, now)


def receipts_end(state: FederationState, attempt: Attempt, now: int) -> int | None:
    """When the receipts were in (P2): all members posted, or the deadline passed with at least t."""
    training = training_end(state, attempt, now)
    if training is None:
        return None
    deadline = training + state.terms.receipt_window_s
    everyone = size_of(attempt.standing)
    return _end(len(attempt.receipts), everyone, state.terms.threshold, attempt.last_receipt_at, deadline, now)


def live_attempt(state: FederationState, now: int) -> Attempt | None:
    """The attempt under way at `now`: time voids an attempt without anyone's transaction; None while enrolling.

    An attempt is void when its training window passes with too few updates (P1), or when every member in the rotation
    let its turn to aggregate pass (P3). The next attempt begins at that very moment, with nothing in it.
    """
    start = start_of_run(state, now)
    if start is None:
        return None
    attempt = state.current or first_attempt(state, start)
    if attempt.aggregate is not None:
        return attempt
    window = state.terms.training_window_s
    receipts = receipts_end(state, attempt, now)
    if receipts is not None:
        exhausted = receipts + size_of(attempt.standing) * state.terms.aggregate_window_s
        if now >= exhausted:
            attempt = _renew(attempt, 1, exhausted)
    if training_end(state, attempt, now) is None and now >= attempt.started_at + window:
        missed = (now - attempt.started_at) // window
        attempt = _renew(attempt, missed, attempt.started_at + missed * window)
    return attempt


def first_attempt(state: FederationState, start: int) -> Attempt:
    """The attempt that the run begins with, at `start`."""
    return Attempt(
        round=1,
        attempt=0,
        started_at=start,
        standing=state.enrolled,
        base_digest=state.terms.genesis_digest,
        base_cid=state.terms.genesis_cid,
    )


def turn_of(state: FederationState, attempt: Attempt, now: int) -> int:
    """How many aggregators have let their window pass (P3), from 0; meaningful once the receipts are in."""
    receipts = receipts_end(state, attempt, now)
    if receipts is None:
        return 0
    return (now - receipts) // state.terms.aggregate_window_s


def aggregator_of(state: FederationState, attempt: Attempt, now: int) -> Index:
    """Whose turn it is to aggregate (P3): round-robin over the members who count, moving on as windows pass.

    A member that was slashed in this round keeps its place, and lets its turn pass. Once a set is locked: who answers
    for its sum, or did so last.
    """
    if attempt.aggregate is not None:
        return (attempt.posted_sum or attempt.refuted_sums[-1]).index
    order = attempt.order
    return order[(attempt.round - 1 + attempt.attempt + turn_of(state, attempt, now)) % len(order)]


def _end(count: int, everyone: int, enough: int, last_at: int, deadline: int, now: int) -> int | None:
    """When a window ended: at the last statement if everyone spoke; else at the deadline, or at the statement after it
    that made the number sufficient; None while it runs."""
    if count == everyone:
        return last_at
    if count < enough or now < deadline:
        return None
    return max(deadline, last_at)


def covering(attempt: Attempt, participants: Bitmap) -> tuple[Index, ...]:
    """The members whose receipts hold every update of `participants` to be whole."""
    return tuple(i for i, r in sorted(attempt.receipts.items()) if participants & ~r.whole == 0)


def _renew(attempt: Attempt, later: int, started_at: int) -> Attempt:
    """A fresh attempt, `later` numbers on: the same round, members and model, and nothing said."""
    return Attempt(
        round=attempt.round,
        attempt=attempt.attempt + later,
        started_at=started_at,
        standing=attempt.standing,
        base_digest=attempt.base_digest,
        base_cid=attempt.base_cid,
    )
