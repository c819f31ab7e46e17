"""What refutations and slashes change, and what they leave alone (P3, P5): the fold, and the phases that follow."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from fedchain.protocol.disputes import attempt_of, commitments_digest, openings_digest
from fedchain.protocol.events import (
    AggregateCommitted,
    AggregateRefuted,
    AggregateRestated,
    Event,
    FederationFounded,
    MemberEnrolled,
    MemberLeaving,
    MemberSlashed,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    ResultRefuted,
    RewardWithdrawn,
    StopVoted,
    Terms,
    UpdateCommitted,
)
from fedchain.protocol.evidence import running_digest
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest, Index, Root, members_of
from fedchain.protocol.participants import too_close
from fedchain.protocol.phase import Phase, aggregator_of, challenges_end_at, is_finished, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.transition import apply, fold

N, T = 6, 4
TRAINING, RECEIPT, AGGREGATE, CHALLENGE = 100, 50, 20, 1000
ZERO, CID = Digest(bytes(32)), Cid("Qm")
SOMEBODY = Address("0x" + "99" * 20)


def federation(rounds: int = 5) -> FederationState:
    terms = Terms(ZERO, CID, ZERO, CID, 10, rounds, T, 1000, TRAINING, RECEIPT, AGGREGATE, CHALLENGE, 10**10, 10)
    founders = tuple(Address(f"0x{i:040x}") for i in range(N))
    return fold(
        [
            FederationFounded(terms, founders, at=0),
            *(MemberEnrolled(Index(i), founders[i], bytes(32), 1, 10) for i in range(N)),
        ]
    )


def play(state: FederationState, *events: Event) -> FederationState:
    for event in events:
        state = apply(state, event)
    return state


def speakers(state: FederationState) -> list[Index]:
    return list(members_of(state.heard))


def lock(state: FederationState, at: int) -> FederationState:
    """The current round from its commitments to its locked set; everybody who is heard takes part."""
    attempt = live(state, at)
    where, members = (attempt.round, attempt.attempt), speakers(state)
    whole = Bitmap(sum(1 << i for i in members))
    state = play(state, *(UpdateCommitted(*where, i, Digest(bytes([i]) * 32), CID, CID, at) for i in members))
    state = play(state, *(ReceiptPosted(*where, i, whole, at) for i in members))
    turn = aggregator_of(state, live(state, at), at)
    return play(state, AggregateCommitted(*where, 0, turn, whole, Root(ZERO), CID, at))


def open_set(state: FederationState, at: int) -> FederationState:
    attempt = live(state, at)
    where = (attempt.round, attempt.attempt, 0)
    return play(state, *(OpeningPublished(*where, i, Root(ZERO), CID, at) for i in speakers(state)[:T]))


def close(state: FederationState, at: int, model: bytes = b"m", by: int | None = None) -> FederationState:
    attempt = live(state, at)
    index = Index(speakers(state)[0] if by is None else by)
    roots = (Bitmap(0b1111), Root(ZERO), Root(ZERO), CID)
    return play(state, ResultCommitted(attempt.round, attempt.attempt, 0, index, *roots, Digest(model * 32), CID, at))


def whole_round(state: FederationState, at: int, model: bytes = b"m", by: int | None = None) -> FederationState:
    return close(open_set(lock(state, at), at), at, model, by)


def live(state: FederationState, at: int) -> Attempt:
    attempt = live_attempt(state, at)
    assert attempt is not None
    return attempt


def slash(i: int, round: int, rule: int, at: int) -> MemberSlashed:
    return MemberSlashed(Index(i), SOMEBODY, round, rule, 5, 5, at)


class TestARefutedSum:
    def test_its_set_stays_locked_and_the_phase_stays(self) -> None:
        state = lock(federation(), 20)
        state = play(state, AggregateRefuted(1, 0, 0, Index(0), 25), slash(0, 1, 1, 25))
        attempt = live(state, 10**6)
        assert phase_of(state, 1, 10**6) is Phase.OPENING
        assert attempt.aggregate is not None and attempt.aggregate.participants == 0b111111
        assert attempt.posted_sum is None
        assert [refuted.index for refuted in attempt.refuted_sums] == [0]
        assert aggregator_of(state, attempt, 25) == 0, "who answered for it last"

    def test_another_may_answer_for_it_and_be_refuted_too(self) -> None:
        state = play(lock(federation(), 20), AggregateRefuted(1, 0, 0, Index(0), 25), slash(0, 1, 1, 25))
        state = play(state, AggregateRestated(1, 0, 0, Index(3), Root(b"r" * 32), CID, 30))
        assert aggregator_of(state, live(state, 30), 30) == 3
        state = play(state, AggregateRefuted(1, 0, 0, Index(3), 35))
        assert [refuted.index for refuted in live(state, 35).refuted_sums] == [0, 3]

    def test_a_closed_rounds_sum_may_fall_and_its_result_stands(self) -> None:
        state = play(whole_round(federation(), 20), AggregateRefuted(1, 0, 0, Index(0), 500))
        assert state.closed[1].posted_sum is None and state.closed[1].result is not None
        assert state.round == 2

    @pytest.mark.parametrize(
        "event",
        [
            AggregateRefuted(1, 0, 0, Index(1), 25),
            AggregateRefuted(1, 1, 0, Index(0), 25),
            AggregateRefuted(2, 0, 0, Index(0), 25),
            AggregateRestated(1, 0, 0, Index(1), Root(ZERO), CID, 25),
            ResultRefuted(1, 0, 0, Index(0), 25),
        ],
    )
    def test_a_verdict_on_what_nobody_said_is_impossible(self, event: Event) -> None:
        with pytest.raises(ValueError, match="the log"):
            play(lock(federation(), 20), event)


class TestASlashedMember:
    def test_it_counts_until_its_round_is_over_and_not_in_the_next(self) -> None:
        state = play(lock(federation(), 20), slash(0, 1, 4, 25))
        assert state.heard == 0b111110 and state.standing == 0b111111
        assert live(state, 25).order == tuple(range(6))
        state = close(open_set(state, 30), 30)
        assert state.standing == live(state, 30).standing == 0b111110
        assert set(live(state, 30).encryption_keys) == {1, 2, 3, 4, 5}
        assert aggregator_of(state, live(state, 30), 30) == 2, "round 2 begins with the second of those who count"

    def test_windows_wait_for_it_within_its_round_and_not_after(self) -> None:
        state = play(federation(), slash(5, 1, 4, 15))
        state = play(state, *(UpdateCommitted(1, 0, Index(i), ZERO, CID, CID, 20) for i in range(5)))
        assert phase_of(state, 1, 20) is Phase.TRAINING
        assert phase_of(state, 1, 10 + TRAINING) is Phase.RECEIPTS

    def test_it_is_slashed_once(self) -> None:
        with pytest.raises(ValueError, match="no bond"):
            play(federation(), slash(0, 1, 4, 15), slash(0, 1, 4, 16))

    def test_a_reward_changes_nothing_about_the_federation(self) -> None:
        state = play(federation(), slash(0, 1, 4, 15))
        assert state.rewards == {SOMEBODY: 5}
        assert apply(state, RewardWithdrawn(SOMEBODY, 5, 20)) == replace(state, rewards=MappingProxyType({}))


class TestARefutedResult:
    def test_its_round_is_in_closing_again_with_its_set_and_openings(self) -> None:
        before = open_set(lock(federation(), 20), 20)
        state = play(close(before, 30, b"w"), ResultRefuted(1, 0, 0, Index(0), 40), slash(0, 1, 3, 40))
        assert state.round == 1
        assert phase_of(state, 1, 10**6) is Phase.CLOSING
        attempt, was = live(state, 10**6), live(before, 30)
        assert (attempt.aggregate, attempt.openings, attempt.commits) == (was.aggregate, was.openings, was.commits)
        assert attempt.result is None and attempt.reopened_at == 40
        assert [result.model_digest for result in attempt.refuted_results] == [b"w" * 32]
        assert state.model_digest == state.terms.genesis_digest

    def test_what_was_built_on_it_is_forgotten_and_begins_again_on_the_right_model(self) -> None:
        state = whole_round(whole_round(federation(), 20), 30, b"w", by=1)
        state = whole_round(state, 40, b"x")
        state = play(state, UpdateCommitted(4, 0, Index(0), ZERO, CID, CID, 45))
        state = play(state, ResultRefuted(2, 0, 0, Index(1), 50), slash(1, 2, 3, 50))
        assert (state.round, sorted(state.closed)) == (2, [1])
        assert [(a.round, a.attempt, a.base_digest[:1]) for a in state.forgotten] == [(3, 0, b"w"), (4, 0, b"x")]
        assert phase_of(state, 3, 50) is Phase.PENDING
        again = close(state, 60, b"r")
        begun = live(again, 60)
        assert (begun.round, begun.attempt, begun.base_digest, begun.standing) == (3, 1, b"r" * 32, 0b111101)
        assert live(whole_round(again, 70), 70).attempt == 1, "round 4 too"
        forgotten = attempt_of(again, 3, 0)
        assert forgotten is not None and forgotten.base_digest == b"w" * 32

    def test_the_set_of_the_next_round_may_have_been_opened_and_no_set_beside_it_is_locked_on_its_model(self) -> None:
        state = lock(whole_round(federation(), 20, b"m", by=1), 30)
        state = play(state, ResultRefuted(1, 0, 0, Index(1), 40), slash(1, 1, 6, 40))
        assert state.abandoned == {b"m" * 32: (0b111111,)}
        again = close(state, 50, b"m", by=2)
        attempt = live(again, 50)
        assert (attempt.round, attempt.base_digest) == (2, b"m" * 32)
        assert too_close(again, attempt, 0b111101) == 0b111111
        assert too_close(again, attempt, 0b111111) is None
        removed = play(again, MemberLeaving(Index(1), True, 55))
        assert too_close(removed, attempt, 0b111101) is None, "members gave its update away"

    def test_a_next_round_that_was_never_locked_hides_nothing(self) -> None:
        state = whole_round(federation(), 20, b"m", by=1)
        state = play(state, UpdateCommitted(2, 0, Index(0), ZERO, CID, CID, 30))
        assert play(state, ResultRefuted(1, 0, 0, Index(1), 40)).abandoned == {}

    def test_an_attempt_that_only_time_began_is_not_begun_again(self) -> None:
        state = whole_round(federation(), 20, b"w", by=1)
        late = 20 + 3 * TRAINING + 5
        assert live(state, late).attempt == 3
        state = play(state, ResultRefuted(1, 0, 0, Index(1), late), slash(1, 1, 3, late))
        assert live(close(state, late + 1), late + 1).attempt == 4

    def test_a_round_forgotten_twice_goes_on_from_its_last_number(self) -> None:
        state = whole_round(federation(), 20, b"w", by=1)
        state = play(state, ResultRefuted(1, 0, 0, Index(1), 30), slash(1, 1, 3, 30))
        state = play(close(state, 40, b"v", by=2), ResultRefuted(1, 0, 0, Index(2), 50), slash(2, 1, 3, 50))
        assert [result.index for result in live(state, 50).refuted_results] == [1, 2]
        begun = live(close(state, 60), 60)
        assert (begun.round, begun.attempt) == (2, 2)

    def test_a_finished_run_goes_on(self) -> None:
        state = whole_round(federation(rounds=1), 20, b"w", by=1)
        assert phase_of(state, 2, 20) is Phase.FINISHED
        assert challenges_end_at(state, 30) == 20 + CHALLENGE
        state = play(state, ResultRefuted(1, 0, 0, Index(1), 30), slash(1, 1, 2, 30))
        assert phase_of(state, 1, 30) is Phase.CLOSING
        assert challenges_end_at(state, 30) is None
        assert challenges_end_at(close(state, 40), 40) == 40 + CHALLENGE

    def test_votes_on_its_model_are_gone_and_votes_on_the_one_before_are_back(self) -> None:
        state = play(whole_round(federation(), 20), StopVoted(2, Index(5), 21))
        state = whole_round(state, 30, b"w", by=1)
        state = play(state, StopVoted(3, Index(0), 31), StopVoted(3, Index(2), 31))
        state = play(state, ResultRefuted(2, 0, 0, Index(1), 40))
        assert state.stop_votes == 0b100000


class TestTooFewLeft:
    """Slashing must not leave a run that never ends, and bonds that are never free."""

    def test_the_run_is_over_when_no_set_can_be_locked_any_more(self) -> None:
        state = play(federation(), slash(0, 1, 4, 15))
        assert not is_finished(state, 15)
        state = play(state, slash(1, 1, 4, 17))
        assert phase_of(state, 1, 17) is Phase.FINISHED
        assert challenges_end_at(state, 17) == 17 + CHALLENGE

    def test_a_locked_set_is_opened_and_closed_by_those_who_are_left(self) -> None:
        state = play(lock(federation(), 20), slash(0, 1, 4, 25), slash(1, 1, 4, 25))
        assert phase_of(state, 1, 25) is Phase.OPENING
        assert phase_of(close(open_set(state, 30), 30), 2, 30) is Phase.FINISHED

    def test_the_run_is_over_when_a_locked_set_can_be_opened_by_nobody(self) -> None:
        state = play(lock(federation(), 20), *(slash(i, 1, 4, 25) for i in range(3)))
        assert phase_of(state, 1, 25) is Phase.FINISHED

    def test_openings_of_the_slashed_count(self) -> None:
        state = open_set(lock(federation(), 20), 20)
        state = play(state, *(slash(i, 1, 4, 25) for i in range(5)))
        assert phase_of(state, 1, 25) is Phase.CLOSING
        assert phase_of(play(state, slash(5, 1, 4, 26)), 1, 26) is Phase.FINISHED


def test_lists_are_digested_in_the_order_in_which_they_came() -> None:
    state = play(
        federation(), *(UpdateCommitted(1, 0, Index(i), Digest(bytes([i]) * 32), CID, CID, 20) for i in (3, 0, 5))
    )
    assert state.current is not None
    digest = Digest(bytes(32))
    for i in (3, 0, 5):
        digest = running_digest(digest, i, bytes([i]) * 32)
    assert commitments_digest(state.current) == digest
    assert openings_digest(state.current) == bytes(32)
