"""What a member owes a round: strikes for who misses it, and the window in which a round must close (P0)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

ENROLLING, TRAINING, RECEIPTS, AGGREGATING, OPENING, CLOSING, CLOSED, PENDING, FINISHED = range(9)
NEVER = 2**256 - 1

Found = Callable[..., Any]
Refuses = Callable[..., Any]


def strikes(federation: Any) -> list[int]:
    return [federation.call("memberAt", member)["strikes"] for member in range(len(federation.founders))]


def round_without(federation: Any, silent: int, round: int) -> list[Any]:
    """Everyone commits, one posts no receipt; what is said when the set is locked, and the round is closed."""
    whole = federation.everyone()
    for member in range(len(federation.founders)):
        federation.commit(member, round)
    for member in range(len(federation.founders)):
        if member != silent:
            federation.receipt(member, whole, round)
    federation.chain.mine_at(federation.chain.now + federation.terms["receiptWindow"])
    told = federation.events(federation.aggregate(federation.call("aggregatorNow"), whole, round))
    for member in range(federation.call("threshold")):
        federation.open(member, round)
    federation.close(0, round)
    return list(told)


# Strikes.


def test_who_posts_no_receipt_and_who_lets_its_turn_pass_have_a_strike_each(found: Found, sign: Any) -> None:
    federation = found(6, threshold=4, receiptWindow=300, aggregateWindow=100).all_enrol().all_commit()
    start = federation.chain.now
    for member in (0, 1, 2, 3):
        federation.receipt(member, 63)
    federation.send(1, "challengeEquivocation", *sign(federation, 5), *sign(federation, 5, participants=15))
    told = federation.events(federation.aggregate(2, 63, at=start + 300 + 200))
    assert [name for name, _ in told] == ["DutiesMissed", "AggregateCommitted"]
    # 0 and 1 let their turns pass, 4 posted nothing; 5 neither, but it has no bond left to lose.
    assert told[0][1] == {"round": 1, "attempt": 0, "members": 0b010011}
    assert strikes(federation) == [1, 1, 0, 0, 1, 0]
    assert federation.call("burnt") == federation.terms["bond"] // 2  # nothing is burnt before the bond is taken back


def test_where_somebody_complained_a_turn_that_passed_is_no_strike_and_a_missing_receipt_is(found: Found) -> None:
    """Whoever has seen two dealings of five proven bad has no set to post, and a bad dealer would lock all five."""
    federation = found(6, threshold=4, receiptWindow=300, aggregateWindow=100).all_enrol().all_commit()
    start = federation.chain.now
    federation.send(1, "complain", 1, 0, 0b110000, b"\x07" * 32)
    for member in (0, 1, 2, 3, 4):
        federation.receipt(member, 63)
    told = federation.events(federation.aggregate(4, 63, at=start + 300 + 400))
    assert told[0] == ("DutiesMissed", {"round": 1, "attempt": 0, "members": 0b100000})
    assert strikes(federation) == [0, 0, 0, 0, 0, 1]


def test_a_round_in_which_everyone_does_its_duty_tells_of_no_strikes(found: Found) -> None:
    federation = found(5).all_enrol().all_commit().all_post()
    assert [name for name, _ in federation.events(federation.aggregate(0, 31))] == ["AggregateCommitted"]
    assert strikes(federation) == [0] * 5


def test_one_duty_missed_twice_is_one_strike(found: Found) -> None:
    """No receipt, and a turn that passed."""
    federation = found(5, threshold=3, receiptWindow=300, aggregateWindow=100).all_enrol().all_commit()
    start = federation.chain.now
    for member in range(1, 5):
        federation.receipt(member, 31)
    ((_, said), _) = federation.events(federation.aggregate(1, 31, at=start + 400))
    assert (said["members"], strikes(federation)) == (0b00001, [1, 0, 0, 0, 0])


def test_a_bond_comes_back_less_a_64th_for_each_strike_and_never_less_than_15_allow(found: Found) -> None:
    federation = found(4, threshold=3, rounds=17, receiptWindow=10, challengeWindow=5, bond=6401).all_enrol()
    for round in range(1, 18):
        ((_, said), _) = round_without(federation, 3, round)
        assert said["members"] == 0b1000
        assert strikes(federation) == [0, 0, 0, min(round, 15)]
    chain = federation.chain
    chain.mine_at(chain.now + 5)
    lost = 6401 * 15 // 64
    assert federation.events(federation.send(3, "withdrawBond")) == [
        ("BondWithdrawn", {"index": 3, "amount": 6401 - lost})
    ]
    assert federation.call("burnt") == lost == 1500
    for member in range(3):
        told = federation.events(federation.send(member, "withdrawBond"))
        assert told == [("BondWithdrawn", {"index": member, "amount": 6401})]
    assert int(chain.rpc("eth_getBalance", federation.address, "latest"), 16) == lost


def test_strikes_of_neighbours_do_not_touch_and_each_is_paid_for_once(found: Found) -> None:
    federation = found(5, threshold=3, rounds=9, receiptWindow=10, challengeWindow=5, bond=6400).all_enrol()
    for round in (1, 2):
        round_without(federation, 1, round)
    round_without(federation, 2, 3)
    assert strikes(federation) == [0, 2, 1, 0, 0]
    federation.send(1, "resign")
    federation.finish_round(4)
    told = federation.events(federation.send(1, "withdrawBond", at=federation.chain.now + 5))
    assert told == [("BondWithdrawn", {"index": 1, "amount": 6200})]
    for member in (0, 2, 3):
        federation.send(member, "voteToAdmit", federation.founders[1])
    federation.enrol(1)
    federation.finish_round(5, members=(0, 2, 3, 4))
    assert strikes(federation) == [0, 0, 1, 0, 0]
    federation.send(1, "resign")
    federation.finish_round(6)
    told = federation.events(federation.send(1, "withdrawBond", at=federation.chain.now + 5))
    assert told == [("BondWithdrawn", {"index": 1, "amount": 6400})]
    assert federation.call("burnt") == 200


# The close window.


@pytest.mark.parametrize("phase", range(TRAINING, CLOSED))
def test_a_round_that_does_not_close_in_its_window_ends_the_run_in_any_phase(
    found: Found, refuses: Refuses, phase: int
) -> None:
    """Nobody's silence, and no void attempts without end, lock a bond for ever."""
    windows = {"trainingWindow": 10**5, "receiptWindow": 10**5, "aggregateWindow": 10**5}
    federation = found(5, threshold=3, closeWindow=9000, challengeWindow=500, **windows).all_enrol()
    began = federation.chain.now
    if phase >= RECEIPTS:
        federation.all_commit()
    if phase >= AGGREGATING:
        federation.all_post()
    if phase >= OPENING:
        federation.lock()
    if phase >= CLOSING:
        for member in range(3):
            federation.open(member)
    end = began + 9000
    assert federation.call("phaseOf", 1, at=end - 1) == phase
    assert (federation.call("finishedAt", at=end - 1), federation.call("challengesEndAt", at=end - 1)) == (0, NEVER)
    assert federation.call("phaseOf", 1, at=end) == FINISHED
    assert federation.call("finishedAt", at=end + 77) == end
    with refuses("FederationWrongPhase", FINISHED):
        federation.open(4, at=end)
    with refuses("FederationBondLocked", end + 500):
        federation.send(0, "withdrawBond", at=end + 499)
    for member in range(5):
        federation.send(member, "withdrawBond", at=end + 500)


def test_void_attempts_do_not_prolong_the_close_window_and_every_round_has_its_own(found: Found) -> None:
    federation = found(5, threshold=3, trainingWindow=600, closeWindow=2000, rounds=9).all_enrol()
    began = federation.chain.now
    assert federation.call("roundAt", 1, at=began + 1900)["attempt"] == 3
    assert federation.call("phaseOf", 1, at=began + 2000) == FINISHED
    federation.chain.mine_at(began + 1200)
    federation.finish_round(1, attempt=2)
    closed = federation.chain.now
    assert federation.call("phaseOf", 2, at=closed + 1999) == TRAINING
    assert federation.call("phaseOf", 2, at=closed + 2000) == FINISHED


def test_a_round_that_was_reopened_or_given_up_has_its_whole_window_again(found: Found) -> None:
    federation = found(5, threshold=3, closeWindow=9000, rounds=2).all_enrol().finish_round()
    federation.chain.mine_at(federation.chain.now + 5000)
    for member in (1, 2, 3):
        federation.send(member, "voteToRefuse", 1, federation.call("resultOf", 1, 0)["modelDigest"])
    reopened = federation.chain.now
    assert federation.call("phaseOf", 1, at=reopened + 8999) == CLOSING
    assert federation.call("phaseOf", 1, at=reopened + 9000) == FINISHED
    federation.chain.mine_at(reopened + 5000)
    for member in (1, 2, 3):
        federation.send(member, "voteToAbandon", 1, 0)
    again = federation.chain.now
    assert federation.call("phaseOf", 1, at=again + 8999) == TRAINING
    assert federation.call("phaseOf", 1, at=again + 9000) == FINISHED


# How many it takes.


def test_the_majority_follows_who_stands_and_a_locked_set_keeps_its_own(found: Found, refuses: Refuses) -> None:
    """Seven with t = 5; then six: t stays what was agreed. Nine need five too, ten six."""
    federation = found(7, threshold=5, rounds=9).all_enrol()
    assert (federation.call("threshold"), federation.call("minParticipants")) == (5, 6)
    federation.send(6, "resign")
    federation.finish_round()
    assert (federation.call("standing").bit_count(), federation.call("threshold")) == (6, 5)
    newcomers = federation.chain.accounts[7:11]
    for newcomer in newcomers:
        for member in range(5):
            federation.send(member, "voteToAdmit", newcomer)
        federation.founders.append(newcomer)
        federation.enrol(len(federation.founders) - 1)
    federation.lock_round(2, members=range(6))
    for member in range(5):
        assert federation.call("phaseOf", 2) == OPENING
        federation.open(member, 2)
    assert federation.call("phaseOf", 2) == CLOSING
    federation.close(0, 2)
    assert (federation.call("standing").bit_count(), federation.call("threshold")) == (10, 6)
    for member in range(5):
        federation.stop(member, 3)
    assert federation.call("phaseOf", 3) == TRAINING  # five of ten are no majority
    federation.stop(7, 3)
    assert federation.call("phaseOf", 3) == FINISHED
    # The result of round 2 falls: its set was locked with t = 5, and is closed with five.
    for member in range(6):
        federation.send(member, "voteToRefuse", 2, federation.call("model"))
    with refuses("FederationBadOpeners", 0b111111):
        federation.send(1, "commitResult", 2, 0, 0, 0b111111, federation.call("basisOf", 2, 0), *[b"\x01" * 32] * 5)
    federation.send(1, "commitResult", 2, 0, 0, 0b011111, federation.call("basisOf", 2, 0), *[b"\x01" * 32] * 5)
    assert federation.call("resultOf", 2, 0)["openers"] == 0b011111
