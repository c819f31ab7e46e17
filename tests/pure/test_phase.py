"""The phase of a round, derived from counts, deadlines and time (P1–P5); the contract's twin is tested in tests/evm."""

from __future__ import annotations

import pytest

from fedchain.protocol.events import (
    AggregateCommitted,
    Event,
    FederationFounded,
    MemberEnrolled,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    StopVoted,
    Terms,
    UpdateCommitted,
)
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest, Index, Root
from fedchain.protocol.phase import Phase, aggregator_of, live_attempt, phase_of, training_end, turn_of
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply, fold

N, T = 5, 3
ENROL, TRAINING, RECEIPT, AGGREGATE = 1000, 100, 50, 20
ZERO = Digest(bytes(32))
CID = Cid("Qm")


def federation(n: int = N, rounds: int = 3) -> FederationState:
    terms = Terms(ZERO, CID, ZERO, CID, 10, rounds, T, ENROL, TRAINING, RECEIPT, AGGREGATE, 1, 10**10, 0)
    return fold([FederationFounded(terms, tuple(Address(f"0x{i:040x}") for i in range(n)), at=0)])


def enrolled(state: FederationState, members: int = N, at: int = 10) -> FederationState:
    return play(state, *(enrolment(i, at) for i in range(members)))


def play(state: FederationState, *events: Event) -> FederationState:
    for event in events:
        state = apply(state, event)
    return state


def enrolment(i: int, at: int) -> MemberEnrolled:
    return MemberEnrolled(Index(i), Address(f"0x{i:040x}"), bytes(32), 1, at)


def commit(i: int, at: int, round: int = 1, attempt: int = 0) -> UpdateCommitted:
    return UpdateCommitted(round, attempt, Index(i), ZERO, CID, CID, at)


def receipt(i: int, at: int, whole: int = 0b11111, round: int = 1, attempt: int = 0) -> ReceiptPosted:
    return ReceiptPosted(round, attempt, Index(i), Bitmap(whole), at)


def aggregate(i: int, at: int, round: int = 1, attempt: int = 0) -> AggregateCommitted:
    return AggregateCommitted(round, attempt, 0, Index(i), Bitmap(0b11111), Root(ZERO), CID, at)


def opening(i: int, at: int, round: int = 1, attempt: int = 0) -> OpeningPublished:
    return OpeningPublished(round, attempt, 0, Index(i), Root(ZERO), CID, at)


def result(i: int, at: int, round: int = 1, attempt: int = 0) -> ResultCommitted:
    roots = Root(ZERO), Root(ZERO)
    return ResultCommitted(round, attempt, 0, Index(i), Bitmap(0b111), *roots, CID, Digest(b"m" * 32), CID, at)


def test_the_run_begins_when_all_have_enrolled() -> None:
    state = federation()
    assert phase_of(state, 1, 10) is Phase.ENROLLING
    assert phase_of(enrolled(state, 4), 1, 999) is Phase.ENROLLING
    assert phase_of(enrolled(state, 5), 1, 10) is Phase.TRAINING


def test_the_run_begins_at_the_deadline_with_enough_members_and_not_with_fewer() -> None:
    assert phase_of(enrolled(federation(), 4), 1, ENROL) is Phase.TRAINING
    three = enrolled(federation(), 3)
    assert phase_of(three, 1, ENROL + 500) is Phase.ENROLLING
    late = play(three, enrolment(3, ENROL + 600))
    attempt = live_attempt(late, ENROL + 600)
    assert attempt is not None
    assert attempt.started_at == ENROL + 600


def test_training_ends_with_the_last_commitment() -> None:
    state = enrolled(federation())
    four = play(state, *(commit(i, 20 + i) for i in range(4)))
    assert phase_of(four, 1, 30) is Phase.TRAINING
    five = play(four, commit(4, 30))
    assert phase_of(five, 1, 30) is Phase.RECEIPTS


def test_training_ends_at_the_deadline_with_t_plus_1() -> None:
    state = play(enrolled(federation()), *(commit(i, 20) for i in range(4)))
    assert phase_of(state, 1, 10 + TRAINING - 1) is Phase.TRAINING
    assert phase_of(state, 1, 10 + TRAINING) is Phase.RECEIPTS


def test_too_few_updates_void_the_attempt_at_the_deadline() -> None:
    state = play(enrolled(federation()), *(commit(i, 20) for i in range(3)))
    attempt = live_attempt(state, 10 + TRAINING)
    assert attempt is not None
    assert (attempt.attempt, attempt.started_at, dict(attempt.commits)) == (1, 10 + TRAINING, {})
    later = live_attempt(state, 10 + 3 * TRAINING + 5)
    assert later is not None
    assert (later.attempt, later.started_at) == (3, 10 + 3 * TRAINING)
    retried = play(state, commit(0, 10 + TRAINING, attempt=1))
    assert retried.current is not None
    assert retried.current.attempt == 1
    assert [a.attempt for a in retried.voided] == [0]


def test_an_event_of_a_void_attempt_is_not_believed() -> None:
    state = enrolled(federation())
    with pytest.raises(ValueError, match="not under way"):
        play(state, commit(0, 10 + TRAINING))


def committed(at: int = 20) -> FederationState:
    return play(enrolled(federation()), *(commit(i, at) for i in range(N)))


def test_receipts_end_with_the_last_or_at_the_deadline_with_t() -> None:
    assert phase_of(play(committed(), *(receipt(i, 25) for i in range(N))), 1, 25) is Phase.AGGREGATING
    three = play(committed(), *(receipt(i, 25) for i in range(T)))
    assert phase_of(three, 1, 20 + RECEIPT - 1) is Phase.RECEIPTS
    assert phase_of(three, 1, 20 + RECEIPT) is Phase.AGGREGATING


def test_too_few_receipts_extend_the_window_until_the_t_th() -> None:
    two = play(committed(), *(receipt(i, 25) for i in range(T - 1)))
    assert phase_of(two, 1, 20 + 10 * RECEIPT) is Phase.RECEIPTS
    late = 20 + 10 * RECEIPT
    three = play(two, receipt(4, late))
    assert phase_of(three, 1, late) is Phase.AGGREGATING
    attempt = live_attempt(three, late)
    assert attempt is not None
    assert turn_of(three, attempt, late) == 0


def received() -> FederationState:
    return play(committed(), *(receipt(i, 30) for i in range(N)))


def test_a_silent_aggregator_is_passed_over_window_by_window() -> None:
    state = received()
    attempt = live_attempt(state, 30)
    assert attempt is not None
    turns = [aggregator_of(state, attempt, 30 + k * AGGREGATE) for k in range(N)]
    assert sorted(turns) == list(range(N))
    assert aggregator_of(state, attempt, 30 + AGGREGATE - 1) == turns[0]
    assert aggregator_of(state, attempt, 30 + AGGREGATE) == turns[1]


def test_the_rotation_starts_with_another_member_each_round_and_attempt() -> None:
    state = received()
    attempt = live_attempt(state, 30)
    assert attempt is not None
    assert aggregator_of(state, attempt, 30) == 0
    void = live_attempt(state, 30 + N * AGGREGATE)
    assert void is not None
    assert void.attempt == 1
    assert aggregator_of(state, void, void.started_at) == 1


def test_an_exhausted_rotation_voids_the_attempt() -> None:
    state = received()
    assert phase_of(state, 1, 30 + N * AGGREGATE - 1) is Phase.AGGREGATING
    end = 30 + N * AGGREGATE
    assert phase_of(state, 1, end) is Phase.TRAINING
    attempt = live_attempt(state, end + TRAINING)
    assert attempt is not None
    assert (attempt.attempt, attempt.started_at) == (2, end + TRAINING)


def test_a_locked_set_is_never_voided_by_time() -> None:
    state = play(received(), aggregate(0, 35))
    assert phase_of(state, 1, 10**9) is Phase.OPENING
    attempt = live_attempt(state, 10**9)
    assert attempt is not None
    assert attempt.attempt == 0


def test_t_openings_lead_to_closing_and_a_result_to_the_next_round() -> None:
    state = play(received(), aggregate(0, 35), opening(0, 36), opening(1, 36))
    assert phase_of(state, 1, 36) is Phase.OPENING
    state = play(state, opening(2, 37))
    assert phase_of(state, 1, 37) is Phase.CLOSING
    state = play(state, result(0, 40))
    assert phase_of(state, 1, 40) is Phase.CLOSED
    assert phase_of(state, 2, 40) is Phase.TRAINING
    assert phase_of(state, 3, 40) is Phase.PENDING
    assert state.model_digest == b"m" * 32
    attempt = live_attempt(state, 40)
    assert attempt is not None
    assert training_end(state, attempt, 40) is None


def test_the_run_is_finished_after_the_last_round_or_by_t_votes() -> None:
    closed = play(received(), aggregate(0, 35), *(opening(i, 36) for i in range(T)), result(0, 40))
    voted = play(closed, StopVoted(2, Index(0), 41), StopVoted(2, Index(1), 41))
    assert phase_of(voted, 2, 41) is Phase.TRAINING
    assert phase_of(play(voted, StopVoted(2, Index(4), 41)), 2, 41) is Phase.FINISHED
    single = enrolled(federation(rounds=1))
    single = play(single, *(commit(i, 20) for i in range(N)), *(receipt(i, 30) for i in range(N)), aggregate(0, 35))
    single = play(single, *(opening(i, 36) for i in range(T)), result(0, 40))
    assert phase_of(single, 2, 40) is Phase.FINISHED
