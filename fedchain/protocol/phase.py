"""Which phase a round is in: derived from counts, deadlines and the time, and stored nowhere (P1–P5).

The twin of `phaseOf()` and its helpers in `contracts/Phases.sol`: the same names, the same order, the same branches;
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
    if is_finished(state, now):
        return Phase.FINISHED
    if round > state.round:
        return Phase.PENDING
    attempt = live_attempt(state, now)
    assert attempt is not None
    if attempt.aggregate is not None:
        # Once a set is locked, nobody counts who is there: slashing must not move a phase back.
        if len(attempt.openings) < attempt.threshold:
            return Phase.OPENING
        return Phase.CLOSING
    if training_end(state, attempt, now) is None:
        return Phase.TRAINING
    if receipts_end(state, attempt, now) is None:
        return Phase.RECEIPTS
    return Phase.AGGREGATING


def is_finished(state: FederationState, now: int) -> bool:
    """Whether the run has ended: see `finished_at`; False before it begins."""
    return finished_at(state, now) is not None


def finished_at(state: FederationState, now: int) -> int | None:
    """When the run ended; None while it goes on, or has not begun.

    With the last result; with the vote that made t; when too few were left; or when the current round had not closed
    within the close window.
    """
    began = round_began_at(state, now)
    if began is None:
        return None
    if state.round > state.terms.rounds:
        return began
    if size_of(state.stop_votes) >= state.threshold:
        return max(began, state.last_vote_at)  # after a rollback the round has begun later
    if are_too_few(state):
        return max(began, state.last_slash_at)
    overdue = began + state.terms.close_window_s
    return overdue if now >= overdue else None


def are_too_few(state: FederationState) -> bool:
    """Too few members are heard to lock a set, or, if one is locked, to open it or to close the round."""
    current = state.current
    if current is None or current.aggregate is None:
        return size_of(state.heard) < state.min_participants
    return not state.heard or size_of(state.heard | current.opened) < current.threshold


def challenges_end_at(state: FederationState, now: int) -> int | None:
    """Until when statements may be challenged, and refuted sums restated (R1–R5); None while nobody can know."""
    finished = finished_at(state, now)
    return None if finished is None else extended(state, finished + state.terms.challenge_window_s)


def bond_free_at(state: FederationState, index: Index, now: int) -> int | None:
    """From when on a member may take its bond back (P0.5); None while nobody can know.

    A challenge window after the run's end, or after the member ceased to count; at once while it has not begun to
    count. In a run that never began, a challenge window after the enrolment deadline.
    """
    window = state.terms.challenge_window_s
    if start_of_run(state, now) is None:
        return state.founded_at + state.terms.enrol_window_s + window
    end = challenges_end_at(state, now)
    if state.standing >> index & 1:
        return end
    if state.joining >> index & 1:
        return 0  # it has stated nothing yet
    gone = extended(state, state.left_at.get(index, 0) + window)
    return gone if end is None else min(gone, end)


def extended(state: FederationState, plain: int) -> int:
    """A deadline of the challenge window, moved for demands that came late: by a quarter of the window at most."""
    return max(plain, min(state.demands_until, plain + 2 * state.terms.answer_window_s))


def start_of_run(state: FederationState, now: int) -> int | None:
    """When enrolment ended: all founders enrolled, or the window passed with enough of them; None before."""
    if state.ran_at:
        return state.ran_at
    deadline = state.founded_at + state.terms.enrol_window_s
    # Until the first round is over those who stand are the founders that have enrolled.
    return _end(
        size_of(state.standing), len(state.founders), state.terms.min_participants, state.last_enrol_at, deadline, now
    )


def round_began_at(state: FederationState, now: int) -> int | None:
    """When the current round began, or was opened again; None before the run."""
    return state.began_at or start_of_run(state, now)


def training_end(state: FederationState, attempt: Attempt, now: int) -> int | None:
    """When training ended (P1): all members committed, or the deadline passed with at least max(3, t+1)."""
    deadline = attempt.started_at + state.terms.training_window_s
    minimum = attempt.min_participants
    return _end(len(attempt.commits), size_of(attempt.standing), minimum, attempt.last_commit_at, deadline, now)


def receipts_end(state: FederationState, attempt: Attempt, now: int) -> int | None:
    """When the receipts were in (P2): all members posted, or the deadline passed with at least t."""
    training = training_end(state, attempt, now)
    if training is None:
        return None
    deadline = training + state.terms.receipt_window_s
    everyone = size_of(attempt.standing)
    return _end(len(attempt.receipts), everyone, attempt.threshold, attempt.last_receipt_at, deadline, now)


def live_attempt(state: FederationState, now: int) -> Attempt | None:
    """The attempt under way at `now`: time voids an attempt without anyone's transaction; None while enrolling.

    An attempt is void when its training window passes with too few updates (P1), or when every member in the rotation
    let its turn to aggregate pass (P3). The next attempt begins at that very moment, with nothing in it.
    """
    start = start_of_run(state, now)
    if start is None:
        return None
    genesis = state.terms.genesis_digest, state.terms.genesis_cid
    attempt = state.current or state.fresh_attempt(1, 0, start, genesis)
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


def duties_missed(state: FederationState, attempt: Attempt, now: int) -> Bitmap:
    """Who gets a strike when a set is locked at `now`: those who posted no receipt, and those who let their turn pass.

    Not those who were slashed; and no turn counts where somebody complained: whoever has seen bad dealings proven may
    have had no set to post. Twin: _countMissed().
    """
    first, order = attempt.round - 1 + attempt.attempt, attempt.order
    turns = 0 if attempt.complaints else turn_of(state, attempt, now)
    passed = bitmap_of([order[(first + turn) % len(order)] for turn in range(turns)])
    silent = attempt.standing & ~bitmap_of(tuple(attempt.receipts))
    return Bitmap((silent | passed) & ~state.slashed)


def _end(count: int, everyone: int, enough: int, last_at: int, deadline: int, now: int) -> int | None:
    """When a window ended: at the last statement if everyone spoke; else at the deadline, or at the statement after it
    that made the number sufficient; None while it runs."""
    if count == everyone:
        return last_at or None  # None where nobody counts, and so nobody spoke
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
        threshold=attempt.threshold,
        members=attempt.members,
        base_digest=attempt.base_digest,
        base_cid=attempt.base_cid,
    )
