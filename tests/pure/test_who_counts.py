"""Who counts from when on: joining, leaving, keys, thresholds, strikes, bonds; and rounds that begin again (P0, P3)."""

from __future__ import annotations

import pytest

from fedchain.protocol.actions import VoteToAbandon, VoteToAdmit, VoteToRefuse, VoteToRemove
from fedchain.protocol.disputes import Refused, attempt_of
from fedchain.protocol.events import (
    AggregateCommitted,
    BondWithdrawn,
    Complained,
    DutiesMissed,
    EncryptionKeyRotated,
    Event,
    FederationFounded,
    MemberAdmitted,
    MemberEnrolled,
    MemberLeaving,
    MemberSlashed,
    Motion,
    MotionVoted,
    OpeningPublished,
    PageDemanded,
    ReceiptPosted,
    ResultCommitted,
    ResultRefuted,
    SetAbandoned,
    StopVoted,
    Terms,
    UpdateCommitted,
)
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest, Index, Root, bitmap_of, members_of
from fedchain.protocol.pages import Kind, Page
from fedchain.protocol.phase import (
    Phase,
    bond_free_at,
    challenges_end_at,
    duties_missed,
    finished_at,
    live_attempt,
    phase_of,
)
from fedchain.protocol.state import Attempt, Ballot, FederationState
from fedchain.protocol.transition import apply, check_possible, fold
from fedchain.protocol.votes import ballot_of, check_vote, votes_for

N, T = 5, 3
TRAINING, RECEIPT, AGGREGATE, CHALLENGE, CLOSE = 100, 50, 20, 1000, 100_000
ZERO, CID = Digest(bytes(32)), Cid("Qm")
NEWCOMER, OTHER = Address("0x" + "aa" * 20), Address("0x" + "bb" * 20)
SUBJECT = bytes.fromhex(NEWCOMER[2:]).rjust(32, b"\0")


def federation() -> FederationState:
    terms = Terms(ZERO, CID, ZERO, CID, 10, 9, T, 1000, TRAINING, RECEIPT, AGGREGATE, CHALLENGE, CLOSE, 640)
    founders = tuple(Address(f"0x{i:040x}") for i in range(N))
    enrolled = [MemberEnrolled(Index(i), founders[i], bytes([i]) * 32, i + 1, 10) for i in range(N)]
    return fold([FederationFounded(terms, founders, at=0), *enrolled])


def play(state: FederationState, *events: Event) -> FederationState:
    for event in events:
        check_possible(state, event)
        state = apply(state, event)
    return state


def live(state: FederationState, at: int) -> Attempt:
    attempt = live_attempt(state, at)
    assert attempt is not None
    return attempt


def lock(state: FederationState, at: int, members: list[int] | None = None) -> FederationState:
    """The current round to its locked set, of everybody who is heard or of some."""
    attempt = live(state, at)
    where, everybody = (attempt.round, attempt.attempt), members_of(state.heard)
    chosen = everybody if members is None else tuple(Index(i) for i in members)
    whole = bitmap_of(chosen)
    state = play(state, *(UpdateCommitted(*where, i, Digest(bytes([i]) * 32), CID, CID, at) for i in chosen))
    later = at if len(chosen) == len(attempt.order) else attempt.started_at + TRAINING
    state = play(state, *(ReceiptPosted(*where, i, whole, later) for i in everybody))
    return play(state, AggregateCommitted(*where, 0, Index(0), whole, Root(ZERO), CID, later))


def close(state: FederationState, at: int, model: bytes = b"m") -> FederationState:
    attempt = live(state, at)
    where, members = (attempt.round, attempt.attempt, 0), members_of(state.heard)
    opening = members[: attempt.threshold]
    state = play(
        state, *(OpeningPublished(*where, i, Root(ZERO), CID, at) for i in opening if i not in attempt.openings)
    )
    said = (bitmap_of(opening), Root(ZERO), Root(ZERO), CID, Digest(model * 32), CID)
    return play(state, ResultCommitted(*where, members[0], *said, at))


def whole_round(state: FederationState, at: int, model: bytes = b"m") -> FederationState:
    return close(lock(state, at), at, model)


def joined(state: FederationState, at: int, account: Address = NEWCOMER, key: bytes = b"n" * 32) -> FederationState:
    index = Index(len(state.accounts))
    return play(state, MemberAdmitted(index, account, at), MemberEnrolled(index, account, key, 50, at))


class TestAJoiningMember:
    def test_it_counts_from_the_next_round_on(self) -> None:
        state = joined(federation(), 15)
        assert (state.joining, state.standing, state.bonded, state.admitted) == (0b100000, 0b11111, 0b111111, 0)
        assert live(state, 15).order == (0, 1, 2, 3, 4)
        state = whole_round(state, 20)
        assert (state.joining, state.standing) == (0, 0b111111)
        attempt = live(state, 20)
        assert attempt.encryption_keys[Index(5)] == b"n" * 32 and attempt.members[Index(5)].weight == 50

    def test_a_void_attempt_lets_nobody_in(self) -> None:
        state = joined(federation(), 15)
        assert live(state, 10 + 3 * TRAINING).order == (0, 1, 2, 3, 4)

    def test_it_does_not_end_the_enrolment_of_founders_again(self) -> None:
        state = joined(federation(), 15)
        assert live(state, 15).started_at == 10

    def test_it_may_take_its_bond_back_before_it_counts_and_not_after(self) -> None:
        state = joined(federation(), 15)
        assert bond_free_at(state, Index(5), 16) == 0
        left = play(state, BondWithdrawn(Index(5), 640, 16))
        assert (left.joining, left.bonded) == (0, 0b11111)
        assert whole_round(left, 20).standing == 0b11111
        assert bond_free_at(whole_round(state, 20), Index(5), 20) is None

    def test_nobody_joins_who_was_not_admitted(self) -> None:
        with pytest.raises(ValueError, match="would have refused"):
            play(federation(), MemberEnrolled(Index(5), NEWCOMER, bytes(32), 1, 15))
        with pytest.raises(ValueError, match="somebody else"):
            play(federation(), MemberAdmitted(Index(2), NEWCOMER, 15))


class TestALeavingMember:
    def test_it_is_heard_until_the_next_round_begins(self) -> None:
        state = play(federation(), MemberLeaving(Index(4), False, 15))
        assert state.heard == 0b11111
        state = whole_round(state, 20)
        assert (state.heard, state.leaving, dict(state.left_at)) == (0b01111, 0, {4: 20})
        assert live(state, 20).order == (0, 1, 2, 3)

    def test_its_bond_is_free_a_challenge_window_after_it_ceased_to_count(self) -> None:
        state = whole_round(play(federation(), MemberLeaving(Index(4), False, 15)), 20)
        assert bond_free_at(state, Index(4), 25) == 20 + CHALLENGE
        assert bond_free_at(state, Index(3), 25) is None

    def test_it_may_come_again_and_leaves_its_removal_behind(self) -> None:
        state = whole_round(play(federation(), MemberLeaving(Index(4), True, 15)), 20)
        assert state.removed == 0b10000
        state = play(state, BondWithdrawn(Index(4), 640, 20 + CHALLENGE))
        account = state.accounts[4]
        again = MemberEnrolled(Index(4), account, b"k" * 32, 7, 21 + CHALLENGE)
        state = play(state, MemberAdmitted(Index(4), account, 21 + CHALLENGE), again)
        assert (state.joining, state.removed, len(state.accounts)) == (0b10000, 0, N)

    def test_a_round_that_is_rolled_back_takes_nobody_back(self) -> None:
        state = whole_round(play(federation(), MemberLeaving(Index(4), False, 15)), 20)
        state = play(state, ResultRefuted(1, 0, 0, Index(0), 30))
        assert (state.standing, state.current and state.current.standing) == (0b01111, 0b11111)
        assert phase_of(state, 1, 30) is Phase.CLOSING


class TestTheThreshold:
    def test_it_follows_who_stands_and_a_locked_set_keeps_its_own(self) -> None:
        state = lock(federation(), 20)
        for i in range(3):
            state = joined(state, 21, Address(f"0x{0xA0 + i:040x}"))
        assert (state.threshold, live(state, 25).threshold) == (3, 3)
        state = close(state, 30)
        assert (state.threshold, state.min_participants, live(state, 30).threshold) == (5, 6, 5)
        state = play(state, ResultRefuted(1, 0, 0, Index(0), 40))
        assert (state.threshold, live(state, 40).threshold) == (5, 3)
        assert phase_of(state, 1, 40) is Phase.CLOSING

    def test_it_is_never_below_the_terms(self) -> None:
        state = play(federation(), MemberLeaving(Index(4), False, 15))
        assert whole_round(state, 20).threshold == T


class TestARotatedKey:
    def test_it_counts_from_the_next_round_on_also_before_anybody_spoke(self) -> None:
        state = play(federation(), EncryptionKeyRotated(Index(2), b"r" * 32, 15))
        assert live(state, 15).encryption_keys[Index(2)] == bytes([2]) * 32
        assert live(state, 10 + 2 * TRAINING).encryption_keys[Index(2)] == bytes([2]) * 32, (
            "void attempts change nothing"
        )
        state = whole_round(state, 20)
        assert live(state, 20).encryption_keys[Index(2)] == b"r" * 32
        assert state.closed[1].encryption_keys[Index(2)] == bytes([2]) * 32


class TestStrikes:
    def test_who_posts_no_receipt_or_lets_its_turn_pass_is_struck(self) -> None:
        state = federation()
        state = play(state, *(UpdateCommitted(1, 0, Index(i), ZERO, CID, CID, 20) for i in range(N)))
        state = play(state, *(ReceiptPosted(1, 0, Index(i), Bitmap(31), 20) for i in range(4)))
        end = 20 + RECEIPT
        assert duties_missed(state, live(state, end), end) == 0b10000
        assert duties_missed(state, live(state, end), end + 2 * AGGREGATE) == 0b10011
        complained = play(state, Complained(1, 0, Index(4), Bitmap(1), CID, end - 1))
        assert duties_missed(complained, live(complained, end), end + 2 * AGGREGATE) == 0b10000
        slashed = play(state, MemberSlashed(Index(4), OTHER, 1, 4, 320, 320, end))
        assert duties_missed(slashed, live(slashed, end), end) == 0

    def test_each_costs_a_64th_of_the_bond_and_there_are_15_at_most(self) -> None:
        state = play(federation(), *(DutiesMissed(1, 0, Bitmap(0b00101), 15) for _ in range(20)))
        assert dict(state.strikes) == {0: 15, 2: 15}
        assert (state.bond_of(Index(0)), state.bond_of(Index(1))) == (640 - 150, 640)

    def test_they_go_with_the_bond(self) -> None:
        state = play(federation(), DutiesMissed(1, 0, Bitmap(1), 15), BondWithdrawn(Index(0), 630, 20))
        assert not state.strikes


class TestASetThatWasGivenUp:
    def test_its_round_begins_again_with_who_is_joining(self) -> None:
        state = lock(joined(federation(), 15), 20)
        state = play(state, SetAbandoned(1, 0, 0, Bitmap(31), 30))
        attempt = live(state, 30)
        assert (attempt.round, attempt.attempt, attempt.started_at, attempt.standing) == (1, 1, 30, 0b111111)
        assert phase_of(state, 1, 30) is Phase.TRAINING
        assert (dict(state.abandoned), attempt.base_digest) == ({ZERO: (31,)}, ZERO)
        given_up = attempt_of(state, 1, 0)
        assert given_up is not None and given_up.aggregate is not None

    def test_a_closed_rounds_set_cannot_be_given_up(self) -> None:
        with pytest.raises(ValueError, match="which is closed"):
            play(whole_round(federation(), 20), SetAbandoned(1, 0, 0, Bitmap(31), 30))


class TestTheEndOfTheRun:
    def test_a_round_that_is_not_closed_in_time_ends_it(self) -> None:
        state = lock(federation(), 20)
        assert phase_of(state, 1, 10 + CLOSE - 1) is Phase.OPENING
        assert phase_of(state, 1, 10 + CLOSE) is Phase.FINISHED
        assert finished_at(state, 10 + CLOSE + 5) == 10 + CLOSE
        assert challenges_end_at(state, 10 + CLOSE) == 10 + CLOSE + CHALLENGE

    def test_the_clock_begins_with_each_round_and_when_one_is_opened_again(self) -> None:
        state = whole_round(federation(), 500)
        assert finished_at(state, 500 + CLOSE - 1) is None and finished_at(state, 500 + CLOSE) == 500 + CLOSE
        reopened = play(state, ResultRefuted(1, state.closed[1].attempt, 0, Index(0), 700))
        assert finished_at(reopened, 700 + CLOSE - 1) is None
        given_up = play(lock(state, 550), SetAbandoned(2, 0, 0, Bitmap(31), 900))
        assert finished_at(given_up, 900 + CLOSE - 1) is None

    def test_everybody_who_counts_may_leave(self) -> None:
        state = whole_round(play(federation(), *(MemberLeaving(Index(i), False, 15) for i in range(N))), 20)
        assert state.standing == 0
        assert phase_of(state, 2, 30) is Phase.FINISHED
        assert live(state, 20 + 2 * TRAINING).attempt == 2


@pytest.mark.parametrize(
    "event",
    [
        MotionVoted(Motion.ADMIT, Index(5), 0, 0, SUBJECT, 15),
        MemberLeaving(Index(5), False, 15),
        EncryptionKeyRotated(Index(5), bytes(32), 15),
        DutiesMissed(1, 0, Bitmap(0b100000), 15),
        PageDemanded(ZERO, OTHER, 50, Page(Kind.OPENING, Index(5), 1, 0, 0, 0, 0, ZERO), 15),
        MemberEnrolled(Index(2), Address(f"0x{2:040x}"), bytes(32), 1, 15),
        StopVoted(7, Index(1), 15),
    ],
    ids=lambda event: type(event).__name__,
)
def test_the_contract_says_nothing_of_who_is_no_member(event: Event) -> None:
    with pytest.raises(ValueError, match="would have refused"):
        check_possible(federation(), event)


class TestVotes:
    def test_older_votes_to_stop_end_the_run_when_its_round_begins_again_and_not_before(self) -> None:
        """Three of six were too few; after a rollback five stand, and they are enough."""
        state = whole_round(joined(federation(), 15), 20)
        state = play(state, *(StopVoted(2, Index(i), 25) for i in range(3)), MemberLeaving(Index(5), False, 26))
        assert finished_at(state, 26) is None
        state = play(whole_round(state, 30, b"n"), ResultRefuted(2, 0, 0, Index(0), 500))
        assert finished_at(state, 500) == 500
        assert challenges_end_at(state, 500) == 500 + CHALLENGE

    def test_a_ballot_on_members_is_that_of_who_stand_and_another_when_somebody_comes(self) -> None:
        voted = [MotionVoted(Motion.ADMIT, Index(i), 0, 0, SUBJECT, 16) for i in range(3)]
        state = play(joined(federation(), 15, OTHER), *voted[:2])
        asked = state.ballot(Motion.ADMIT, 0, 0, SUBJECT)
        assert votes_for(state, asked) == 0b11
        state = play(whole_round(state, 20), voted[2])
        assert state.ballot(Motion.ADMIT, 0, 0, SUBJECT) != asked
        assert votes_for(state, state.ballot(Motion.ADMIT, 0, 0, SUBJECT)) == 0b100
        check_vote(state, Index(0), VoteToAdmit(NEWCOMER), 20)

    def test_the_t_th_carries_a_motion_and_uses_its_ballot_up(self) -> None:
        ballot = Ballot(Motion.ADMIT, 0, 0, SUBJECT, Bitmap(0b11111))
        state = play(federation(), *(MotionVoted(Motion.ADMIT, Index(i), 0, 0, SUBJECT, 15) for i in (0, 3)))
        assert votes_for(state, ballot) == 0b01001
        state = play(
            state, MotionVoted(Motion.ADMIT, Index(1), 0, 0, SUBJECT, 16), MemberAdmitted(Index(5), NEWCOMER, 16)
        )
        assert (votes_for(state, ballot), state.admitted, state.accounts[5]) == (0, 0b100000, NEWCOMER)

    def test_who_is_not_heard_any_more_does_not_count(self) -> None:
        state = play(federation(), *(MotionVoted(Motion.ADMIT, Index(i), 0, 0, SUBJECT, 15) for i in (0, 3)))
        state = play(state, MemberSlashed(Index(0), OTHER, 1, 4, 320, 320, 16))
        state = play(state, MotionVoted(Motion.ADMIT, Index(1), 0, 0, SUBJECT, 17))
        assert votes_for(state, Ballot(Motion.ADMIT, 0, 0, SUBJECT, Bitmap(0b11111))) == 0b01010

    @pytest.mark.parametrize(
        ("vote", "reason"),
        [
            (VoteToAdmit(Address("0x" + "00" * 20)), "FederationBadSubject"),
            (VoteToAdmit(Address(f"0x{2:040x}")), "FederationBadSubject"),
            (VoteToRemove(Index(5)), "FederationBadSubject"),
            (VoteToRemove(Index(4)), "FederationAlreadyLeaving"),
            (VoteToAbandon(1, 0), "FederationWrongRound"),
            (VoteToAbandon(2, 1), "FederationWrongAttempt"),
            (VoteToRefuse(2, ZERO), "FederationNoStatement"),
            (VoteToRefuse(1, ZERO), "FederationOtherBasis"),
        ],
    )
    def test_what_there_is_nothing_to_vote_on_is_refused(self, vote: object, reason: str) -> None:
        state = lock(play(whole_round(federation(), 20), MemberLeaving(Index(4), True, 21)), 30)
        with pytest.raises(Refused) as refused:
            check_vote(state, Index(0), vote, 40)  # type: ignore[arg-type]
        assert refused.value.error_name == reason

    def test_what_there_is_to_vote_on_is_voted_on_once(self) -> None:
        state = lock(whole_round(federation(), 20), 30)
        for vote in (
            VoteToAdmit(NEWCOMER),
            VoteToRemove(Index(3)),
            VoteToAbandon(2, 0),
            VoteToRefuse(1, Digest(b"m" * 32)),
        ):
            check_vote(state, Index(0), vote, 40)
            ballot = ballot_of(state, vote)
            said = MotionVoted(ballot.motion, Index(0), ballot.round, ballot.attempt, ballot.subject, 40)
            with pytest.raises(Refused, match="AlreadyVoted"):
                check_vote(play(state, said), Index(0), vote, 41)

    def test_nobody_votes_before_the_run_or_after_it(self) -> None:
        before = fold([FederationFounded(federation().terms, federation().founders, at=0)])
        for state, at in ((before, 5), (federation(), 10 + CLOSE)):
            with pytest.raises(Refused, match="WrongPhase"):
                check_vote(state, Index(0), VoteToAdmit(NEWCOMER), at)

    def test_no_set_is_given_up_a_ninth_time_on_one_model(self) -> None:
        state, at = federation(), 20
        for number in range(8):
            state = play(lock(state, at), SetAbandoned(1, number, 0, Bitmap(31), at + 5))
            at += 10
        with pytest.raises(Refused, match="BadSubject"):
            check_vote(lock(state, at), Index(0), VoteToAbandon(1, 8), at)
