"""What members take back by vote: a locked set that cannot be closed, a model that does not follow from its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

ENROLLING, TRAINING, RECEIPTS, AGGREGATING, OPENING, CLOSING, CLOSED, PENDING, FINISHED = range(9)
ADMIT, REMOVE, ABANDON, REFUSE = range(4)
NEVER = 2**256 - 1
ONE, ZERO = b"\x01" * 32, bytes(32)
NOBODY = "0x" + 40 * "0"

Found = Callable[..., Any]
Refuses = Callable[..., Any]


def balance(federation: Any) -> int:
    return int(federation.chain.rpc("eth_getBalance", federation.address, "latest"), 16)


def abandon(federation: Any, round: int = 1, attempt: int = 0, voters: tuple[int, ...] = (0, 1, 2)) -> list[Any]:
    for voter in voters:
        told = federation.events(federation.send(voter, "voteToAbandon", round, attempt))
    return list(told)


def refuse(federation: Any, round: int = 1, voters: tuple[int, ...] = (0, 1, 2)) -> list[Any]:
    model = federation.call("resultOf", round, 0)["modelDigest"]
    for voter in voters:
        told = federation.events(federation.send(voter, "voteToRefuse", round, model))
    return list(told)


def lock_some(federation: Any, members: tuple[int, ...], attempt: int, round: int = 1) -> None:
    """Only these commit; everyone posts a receipt, so that no deadline passes but that of training."""
    for member in members:
        federation.commit(member, round, attempt)
    started = federation.call("roundAt", round)["startedAt"]
    federation.chain.mine_at(started + federation.terms["trainingWindow"])
    whole = sum(1 << member for member in members)
    for member in range(len(federation.founders)):
        federation.receipt(member, whole, round, attempt)
    federation.aggregate(federation.call("aggregatorNow"), whole, round, attempt)


# A set is given up.


@pytest.mark.parametrize("phase", [OPENING, CLOSING])
def test_t_votes_give_a_locked_set_up_and_the_round_begins_again(found: Found, refuses: Refuses, phase: int) -> None:
    federation = found(5, threshold=3).all_enrol().all_commit().all_post().lock()
    for member in range(3 if phase == CLOSING else 1):
        federation.open(member)
    old = federation.call("commitmentsOf", 1, 0)
    assert federation.call("phaseOf", 1) == phase
    for voter in (0, 4):
        told = federation.events(federation.send(voter, "voteToAbandon", 1, 0))
        said = {"motion": ABANDON, "index": voter, "round": 1, "attempt": 0, "subject": ZERO}
        assert told == [("MotionVoted", said)]
    with refuses("FederationAlreadyVoted"):
        federation.send(4, "voteToAbandon", 1, 0)
    assert (federation.call("phaseOf", 1), federation.call("votesOf", ABANDON, 1, 0, ZERO)) == (phase, 0b10001)
    told = federation.events(federation.send(2, "voteToAbandon", 1, 0))
    assert [name for name, _ in told] == ["MotionVoted", "SetAbandoned"]
    assert told[1][1] == {"round": 1, "attempt": 0, "group": 0, "participants": 31}
    live = federation.call("roundAt", 1)
    assert (live["attempt"], live["startedAt"], live["committed"]) == (1, federation.chain.now, 0)
    assert (live["participants"], live["opened"], federation.call("phaseOf", 1)) == (0, 0, TRAINING)
    assert federation.call("openingsOf", 1, 0) == federation.call("basisOf", 1, 0) == ZERO
    assert federation.call("aggregateOf", 1, 0)["root"] == ZERO
    assert federation.call("commitmentsOf", 1, 0) == old  # who committed to what is still known, and can be challenged
    assert federation.call("votesOf", ABANDON, 1, 0, ZERO) == 0
    for late in (federation.open, federation.commit):
        with refuses("FederationWrongPhase" if late == federation.open else "FederationWrongAttempt", 1):
            late(3)
    federation.finish_round(1, attempt=1)
    assert federation.call("phaseOf", 2) == TRAINING


def test_only_the_locked_set_of_this_attempt_is_given_up(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3).all_enrol()

    def refused(phase: int) -> None:
        with refuses("FederationWrongPhase", phase):
            federation.send(0, "voteToAbandon", 1, 0)

    refused(TRAINING)
    federation.all_commit()
    refused(RECEIPTS)
    federation.all_post()
    refused(AGGREGATING)
    federation.lock()
    for attempt in (1, 2**32 - 1):
        with refuses("FederationWrongAttempt", 0):
            federation.send(0, "voteToAbandon", 1, attempt)
    for round in (0, 2):
        with refuses("FederationWrongRound", 1):
            federation.send(0, "voteToAbandon", round, 0)
    for member in range(3):
        federation.open(member)
    federation.close(0)
    with refuses("FederationWrongRound", 2):
        federation.send(0, "voteToAbandon", 1, 0)


def test_a_round_begins_with_who_has_joined_and_without_who_has_gone_also_when_it_begins_again(
    found: Found, sign: Any
) -> None:
    federation = found(5, threshold=3, challengeWindow=500).all_enrol().finish_round()
    federation.stop(3, 2)
    federation.lock_round(2)
    federation.send(4, "resign")
    federation.send(0, "challengeEquivocation", *sign(federation, 3), *sign(federation, 3, participants=15))
    newcomer = federation.chain.accounts[7]
    for member in range(3):
        federation.send(member, "voteToAdmit", newcomer)
    federation.founders.append(newcomer)
    federation.enrol(5)
    abandon(federation, 2)
    assert federation.call("standing") == 0b100111
    assert federation.call("memberAt", 4)["leftAt"] == federation.chain.now
    assert federation.call("roundAt", 2)["stopVotes"] == 0
    for member in (0, 1, 2, 5):
        federation.commit(member, 2, 1)
    assert federation.call("phaseOf", 2) == RECEIPTS  # nobody waits for who has gone


def test_sets_may_be_given_up_8_times_on_one_model(found: Found, refuses: Refuses) -> None:
    federation = found(3, threshold=2).all_enrol()
    for attempt in range(8):
        federation.lock_round(1, attempt)
        abandon(federation, 1, attempt, (0, 1))
    federation.lock_round(1, 8)
    with refuses("FederationBadSubject"):
        federation.send(0, "voteToAbandon", 1, 8)
    for member in (0, 1):
        federation.open(member, attempt=8)
    federation.close(0, attempt=8)
    federation.lock_round(2)
    abandon(federation, 2, 0, (0, 1))  # another model
    assert federation.call("roundAt", 2)["attempt"] == 1


def test_a_set_close_to_one_that_was_given_up_is_refused_for_the_difference_of_two_sums_is_a_sum(
    found: Found, refuses: Refuses, sign: Any
) -> None:
    """t = 5 of 9. Up to five members apart the difference would tell on fewer than a sum may hold."""
    federation = found(9, threshold=5, trainingWindow=600).all_enrol()
    first = (3, 4, 5, 6, 7, 8)
    lock_some(federation, first, 0)
    abandon(federation, 1, 0, (0, 1, 2, 3, 4))
    given_up = sum(1 << member for member in first)
    attempt = 1
    for near in ((2, 4, 5, 6, 7, 8), (2, 3, 4, 5, 6, 7, 8), (0, 1, 2, 5, 6, 7, 8)):
        with refuses("FederationTooClose", given_up):
            lock_some(federation, near, attempt)
        attempt += 1
        exhausted = federation.chain.now + 9 * federation.terms["aggregateWindow"]
        federation.chain.mine_at(exhausted)  # nobody can lock it: the attempt is void
        assert federation.call("roundAt", 1)["attempt"] == attempt
    far = (0, 1, 2, 3, 4, 5)
    lock_some(federation, far, attempt)  # six apart
    abandon(federation, 1, attempt, (0, 1, 2, 3, 4))
    attempt += 1
    with refuses("FederationTooClose", 0b000111111):
        lock_some(federation, (0, 1, 2, 6, 7, 8), attempt)  # six apart from both, and a third
    federation.chain.mine_at(federation.chain.now + 9 * federation.terms["aggregateWindow"])
    lock_some(federation, first, attempt + 1)  # the first again, and six apart from the second
    assert federation.call("phaseOf", 1) == OPENING


@pytest.mark.parametrize("how", ["removed", "slashed"])
def test_who_is_out_for_good_may_be_the_difference(found: Found, refuses: Refuses, sign: Any, how: str) -> None:
    """A set that one member spoiled is given up, and the same set without it is not too close."""
    federation = found(5, threshold=3, receiptWindow=10**6).all_enrol().lock_round()
    if how == "slashed":
        federation.send(0, "challengeEquivocation", *sign(federation, 4), *sign(federation, 4, participants=15))
    abandon(federation)
    assert federation.call("standing") == (0b11111 if how == "removed" else 0b01111)
    if how == "removed":
        for member in range(4):
            federation.commit(member, attempt=1)
        federation.chain.mine_at(federation.call("roundAt", 1)["startedAt"] + 600)
        for member in range(5):
            federation.receipt(member, 0b01111, attempt=1)
        with refuses("FederationTooClose", 0b11111):
            federation.aggregate(1, 0b01111, attempt=1)
        for voter in range(3):
            federation.send(voter, "voteToRemove", 4)
        federation.aggregate(1, 0b01111, attempt=1)
    else:
        # It may have been slashed for silence, honest and away: its update stays hidden until t members say otherwise.
        with refuses("FederationTooClose", 0b11111):
            federation.lock_round(1, 1, members=range(4))
        for voter in range(3):
            federation.send(voter, "voteToRemove", 4)
        with refuses("FederationAlreadyLeaving"):
            federation.send(3, "voteToRemove", 4)
        federation.aggregate(federation.call("aggregatorNow"), 0b01111, attempt=1)
    assert federation.call("phaseOf", 1) == OPENING


def test_who_only_resigned_is_still_a_difference(found: Found, refuses: Refuses) -> None:
    """Nobody outs itself, or another, by leaving: what it has said is still in the first sum."""
    federation = found(5, threshold=3).all_enrol().lock_round()
    federation.send(4, "resign")
    abandon(federation)
    assert federation.call("standing") == 0b01111
    with refuses("FederationTooClose", 0b11111):
        federation.lock_round(1, 1, members=range(4))


def test_who_was_not_in_the_set_that_was_given_up_may_be_left_out_and_everyone_else_may_not(
    found: Found, refuses: Refuses
) -> None:
    """With it the new set would be too close; without it it must not count as censored. Then nobody could lock any."""
    federation = found(6, threshold=4, trainingWindow=600).all_enrol()
    lock_some(federation, (0, 1, 2, 3, 4), 0)  # 5 came too late
    abandon(federation, 1, 0, (0, 1, 2, 3))
    federation.all_commit(attempt=1)
    for member in range(6):
        federation.receipt(member, 0b111111, attempt=1)
    with refuses("FederationTooClose", 0b011111):
        federation.aggregate(1, 0b111111, attempt=1)
    with refuses("FederationCensored", 0b000001):
        federation.aggregate(1, 0b111110, attempt=1)
    federation.aggregate(1, 0b011111, attempt=1)


def test_on_another_model_sets_are_free(found: Found) -> None:
    """Other keys, other polynomials: nothing adds up across models."""
    federation = found(5, threshold=3, rounds=9).all_enrol().finish_round()
    lock_some(federation, (0, 1, 2, 3), 0, round=2)
    abandon(federation, 2)
    refuse(federation, 1)
    basis = federation.call("basisOf", 1, 0)
    said = (1, 0, 0, federation.openers(), basis, ONE, ONE, ONE, b"\x77" * 32, ONE)
    federation.send(1, "commitResult", *said)
    federation.lock_round(2, attempt=2, members=range(1, 5))  # three apart from the set on the other model
    assert federation.call("phaseOf", 2) == OPENING


# A model is refused.


def test_t_votes_refuse_a_model_and_its_closer_loses_all_to_nobody(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, rounds=2, bond=1001).all_enrol().finish_round()
    model = federation.call("model")
    for voter in (1, 2):
        told = federation.events(federation.send(voter, "voteToRefuse", 1, model))
        said = {"motion": REFUSE, "index": voter, "round": 1, "attempt": 0, "subject": model}
        assert told == [("MotionVoted", said)]
    with refuses("FederationAlreadyVoted"):
        federation.send(2, "voteToRefuse", 1, model)
    assert federation.call("votesOf", REFUSE, 1, 0, model) == 0b00110
    told = federation.events(federation.send(4, "voteToRefuse", 1, model))
    assert [name for name, _ in told] == ["MotionVoted", "ResultRefuted", "MemberSlashed"]
    assert told[1][1] == {"round": 1, "attempt": 0, "group": 0, "index": 0}
    slashed = {"index": 0, "challenger": NOBODY, "round": 1, "rule": 7, "burnt": 1001, "reward": 0}
    assert told[2][1] == slashed
    assert (federation.call("burnt"), balance(federation)) == (1001, 5 * 1001)
    assert federation.call("rewardOf", NOBODY) == 0
    assert federation.call("model") == federation.terms["genesisDigest"]
    assert (federation.call("currentRound"), federation.call("phaseOf", 1)) == (1, CLOSING)
    assert federation.call("votesOf", REFUSE, 1, 0, model) == 0
    with refuses("FederationNoStatement"):
        federation.send(3, "voteToRefuse", 1, model)
    federation.close(1)  # another states the same
    assert federation.call("votesOf", REFUSE, 1, 0, model) == 0
    federation.send(3, "voteToRefuse", 1, model)


def test_only_the_model_on_record_is_refused(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3).all_enrol().finish_round()
    model = federation.call("model")
    for other in (ONE, ZERO, federation.terms["genesisDigest"]):
        with refuses("FederationOtherBasis", model):
            federation.send(0, "voteToRefuse", 1, other)
    for round in (0, 2, 3, 2**32 - 1):
        with refuses("FederationNoStatement"):
            federation.send(0, "voteToRefuse", round, model)


def test_votes_on_a_model_that_fell_do_not_count_against_the_next(found: Found) -> None:
    federation = found(5, threshold=3).all_enrol().finish_round()
    first = federation.call("model")
    refuse(federation, voters=(0, 1, 2))
    basis = federation.call("basisOf", 1, 0)
    federation.send(1, "commitResult", 1, 0, 0, federation.openers(), basis, ONE, ONE, ONE, b"\x77" * 32, ONE)
    told = refuse(federation, voters=(3, 4))
    assert [name for name, _ in told] == ["MotionVoted"]
    assert federation.call("votesOf", REFUSE, 1, 0, b"\x77" * 32) == 0b11000
    assert federation.call("votesOf", REFUSE, 1, 0, first) == 0


def test_a_model_falls_even_when_its_closer_has_no_bond_left(found: Found, sign: Any) -> None:
    federation = found(5, threshold=3).all_enrol().finish_round()
    federation.send(1, "challengeEquivocation", *sign(federation, 0), *sign(federation, 0, participants=15))
    burnt = federation.call("burnt")
    told = refuse(federation, voters=(1, 2, 3))
    assert [name for name, _ in told] == ["MotionVoted", "ResultRefuted"]
    assert federation.call("burnt") == burnt


def test_an_early_model_is_refused_and_the_later_rounds_are_forgotten(found: Found) -> None:
    federation = found(5, threshold=3, rounds=9).all_enrol()
    for round in (1, 2, 3):
        federation.finish_round(round)
    refuse(federation, 2)
    assert (federation.call("currentRound"), federation.call("phaseOf", 2)) == (2, CLOSING)
    assert federation.call("model") == federation.call("resultOf", 1, 0)["modelDigest"]
    federation.close(1, 2)
    assert federation.call("roundAt", 3)["attempt"] == 1


def test_a_model_is_refused_as_long_as_bonds_are_held(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, rounds=1, challengeWindow=500).all_enrol().finish_round()
    over = federation.chain.now + 500
    model = federation.call("model")
    federation.send(1, "voteToRefuse", 1, model)
    with refuses("FederationChallengeOver", over):
        federation.send(2, "voteToRefuse", 1, model, at=over)
    again = found(5, threshold=3, rounds=1, challengeWindow=500).all_enrol().finish_round()
    over = again.chain.now + 500
    for member in (1, 2):
        again.send(member, "voteToRefuse", 1, again.call("model"))
    again.send(3, "voteToRefuse", 1, again.call("model"), at=over - 1)
    assert again.call("phaseOf", 1) == CLOSING
    assert again.call("bondFreeAt", 3) == NEVER
    again.close(2)
    again.chain.mine_at(again.chain.now + 500)
    for member in range(1, 5):
        again.send(member, "withdrawBond")
    assert balance(again) == again.call("burnt") == again.terms["bond"]


def test_a_reopened_round_may_be_given_up_and_begins_again_with_another_attempt(found: Found) -> None:
    federation = found(5, threshold=3, rounds=9).all_enrol().finish_round().finish_round(2)
    refuse(federation, 1)
    abandon(federation, 1, 0, (1, 2, 3))
    live = federation.call("roundAt", 1)
    assert (live["attempt"], live["participants"], federation.call("phaseOf", 1)) == (1, 0, TRAINING)
    assert federation.call("standing") == 0b11110
    for voter in (1, 2, 3):
        federation.send(voter, "voteToRemove", 0)  # its update is in the set that was given up
    federation.finish_round(1, attempt=1, members=range(1, 5))
    assert federation.call("roundAt", 2)["attempt"] == 1


def fallen_and_posted_again(found: Found, closer: int) -> Any:
    """Of seven, six are in the locked set of round 2 when the right model of round 1 falls; it is posted again."""
    federation = found(7, threshold=4, rounds=9, receiptWindow=10**6).all_enrol().lock_round()
    for member in range(4):
        federation.open(member)
    federation.close(closer)
    model = federation.call("model")
    lock_some(federation, (0, 1, 2, 3, 4, 5), 0, 2)
    refuse(federation, 1, tuple(i for i in range(7) if i != closer)[:4])
    federation.close((closer + 1) % 7)
    live = federation.call("roundAt", 2)
    assert (federation.call("model"), live["attempt"], live["participants"]) == (model, 1, 0)
    return federation


def test_a_right_model_that_fell_and_stands_again_lets_the_same_set_be_opened_and_none_beside_it(
    found: Found, refuses: Refuses
) -> None:
    """The forgotten round may have been opened: with one member less the difference of the sums would be its update."""
    federation = fallen_and_posted_again(found, closer=6)
    for member in range(5):
        federation.commit(member, 2, 1)
    federation.chain.mine_at(federation.call("roundAt", 2)["startedAt"] + federation.terms["trainingWindow"])
    for member in range(6):
        federation.receipt(member, 0b0011111, 2, 1)
    with refuses("FederationTooClose", 0b0111111):
        federation.aggregate(federation.call("aggregatorNow"), 0b0011111, 2, 1)
    federation = fallen_and_posted_again(found, closer=6)
    federation.finish_round(2, 1, members=range(6))
    assert federation.call("currentRound") == 3


def test_a_closer_that_fell_keeps_a_set_without_it_from_being_locked_until_members_remove_it(
    found: Found, refuses: Refuses
) -> None:
    """It was in the forgotten set, and may have been honest: what its update was is for t members to give away."""
    federation = fallen_and_posted_again(found, closer=0)
    with refuses("FederationTooClose", 0b0111111):
        federation.lock_round(2, 1, members=range(1, 7))
    with refuses("FederationTooClose", 0b0111111):
        federation.aggregate(federation.call("aggregatorNow"), 0b0111110, 2, 1)
    for voter in range(1, 5):
        federation.send(voter, "voteToRemove", 0)
    federation.aggregate(federation.call("aggregatorNow"), 0b0111110, 2, 1)
    assert federation.call("phaseOf", 2) == OPENING


def test_a_run_that_ends_by_older_votes_when_a_round_begins_again_ends_at_that_moment(found: Found) -> None:
    """Else its bonds were free at once: three votes were too few while six stood, and are enough of five."""
    federation = found(5, threshold=3, rounds=9, challengeWindow=5000).all_enrol()
    sixth = federation.chain.accounts[5]
    for voter in range(3):
        federation.send(voter, "voteToAdmit", sixth)
    federation.founders.append(sixth)
    federation.enrol(5)
    federation.finish_round(1, members=range(5))
    for voter in range(3):
        federation.stop(voter, 2)
    assert federation.call("phaseOf", 2) == TRAINING
    federation.send(5, "resign")
    federation.finish_round(2)
    assert federation.call("standing") == 0b011111
    federation.chain.mine_at(federation.chain.now + 6000)
    refuse(federation, 2, (1, 2, 3))
    fell = federation.chain.now
    assert (federation.call("phaseOf", 2), federation.call("finishedAt")) == (FINISHED, fell)
    assert federation.call("challengesEndAt") == federation.call("bondFreeAt", 1) == fell + 5000
