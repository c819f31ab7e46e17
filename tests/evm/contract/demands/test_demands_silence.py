"""Silence on a demand: what falls, who pays, and that nobody can stall a run, or shield a lie, with demands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

KINDS = CIPHERTEXT, AGGREGATE, OPENING, KEY_SUM, RESULT = range(5)
ENROLLING, TRAINING, RECEIPTS, AGGREGATING, OPENING_PHASE, CLOSING, CLOSED, PENDING, FINISHED = range(9)
NEVER = 2**256 - 1
ZERO = bytes(32)

DemandsOf = Callable[..., Any]
PlayOf = Callable[..., Any]
Refuses = Callable[..., Any]


def names(told: list[Any]) -> list[str]:
    return [name for name, _ in told]


# What follows from silence.


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_keeps_an_object_back_loses_its_bond_and_what_it_stated_falls(
    demands: DemandsOf, refuses: Refuses, kind: int
) -> None:
    asked = demands(bond=3201, rounds=9)
    federation, page = asked.federation, asked.page(kind, 1, 1)
    author, falls = page[1], {AGGREGATE: "AggregateRefuted", KEY_SUM: "ResultRefuted", RESULT: "ResultRefuted"}
    model = federation.call("model")
    demanded = asked.demand(page)
    assert asked.balance() == 5 * 3201 + 100
    told = asked.close(page, at=demanded[0][1]["deadline"])
    assert names(told) == ["DemandClosed", *([falls[kind]] if kind in falls else []), "MemberSlashed"]
    assert told[0][1] == {"demand": asked.name(page), "silent": True}
    if kind in falls:
        assert told[1][1] == {"round": 1, "attempt": 0, "group": 0, "index": author}
    demander = asked.stranger.lower()
    slashed = {"index": author, "challenger": demander, "round": 1, "rule": 6, "burnt": 1601, "reward": 1600}
    assert told[-1][1] == slashed
    # Half is the demander's, with its deposit; who closed it has nothing.
    assert federation.call("rewardOf", asked.stranger) == 1600 + 100
    assert federation.call("rewardOf", asked.other) == 0
    assert (federation.call("burnt"), asked.balance()) == (1601, 5 * 3201 + 100)
    asked.said(asked.stranger, "withdrawReward")
    assert asked.balance() == 4 * 3201 + 1601
    assert federation.call("deadlineOf", asked.name(page)) == 0
    assert (federation.call("slashed"), federation.call("bonded")) == (1 << author, 31 ^ 1 << author)
    rolled_back = kind in (KEY_SUM, RESULT)
    assert federation.call("currentRound") == (1 if rolled_back else 2)
    assert (federation.call("model") == model) is not rolled_back
    assert (federation.call("aggregateOf", 1, 0)["root"] == ZERO) is (kind == AGGREGATE)
    if kind == AGGREGATE:
        asked.played.restate(1)
    if rolled_back:
        assert federation.call("phaseOf", 1) == CLOSING
        asked.played.close(2)
        asked.demand(asked.page(kind, 1, 1))  # another's statement is another object


def test_a_statement_falls_even_when_its_author_has_no_bond_left(demands: DemandsOf, sign: Any) -> None:
    asked = demands()
    federation = asked.federation
    federation.send(1, "challengeEquivocation", *sign(federation, 0), *sign(federation, 0, participants=15))
    assert asked.played.aggregator == 0
    assert names(asked.closed_late(asked.page(AGGREGATE))) == ["DemandClosed", "AggregateRefuted"]
    assert federation.call("rewardOf", asked.stranger) == federation.call("demandDeposit")


@pytest.mark.parametrize("kind", [CIPHERTEXT, OPENING])
def test_where_nothing_would_follow_nothing_is_demanded(
    demands: DemandsOf, refuses: Refuses, sign: Any, kind: int
) -> None:
    asked = demands()
    federation = asked.federation
    before = asked.page(kind, 0, 0)
    asked.demand(before)
    federation.send(1, "challengeEquivocation", *sign(federation, 2), *sign(federation, 2, participants=15))
    with refuses("FederationAlreadySlashed", 2):
        asked.demand(asked.page(kind, 0, 1))
    # What was demanded before is closed, and the deposit comes back.
    told = asked.close(before, at=federation.call("deadlineOf", asked.name(before)))
    assert told == [("DemandClosed", {"demand": asked.name(before), "silent": True})]
    assert federation.call("rewardOf", asked.stranger) == federation.call("demandDeposit")


def test_nobody_answers_for_what_is_no_longer_on_record(demands: DemandsOf, play: PlayOf) -> None:
    played = play(rounds=9)
    played.aggregate.leaves[0, 0] ^= np.uint64(1)
    played.result.leaves[0, 0] += np.uint64(1)
    asked = demands(played.all(closer=3))
    federation = asked.federation
    pages = [asked.page(kind, 2) for kind in (AGGREGATE, KEY_SUM, RESULT)]
    for page in pages:
        asked.demand(page)
    asked.said(asked.other, "challengeAggregate", *played.against_aggregate(0))
    asked.said(asked.other, "challengeResult", *played.against_result(0))
    slashed = federation.call("slashed")
    asked.chain.mine_at(asked.chain.now + asked.window)
    for page in pages:
        assert asked.close(page) == [("DemandClosed", {"demand": asked.name(page), "silent": False})]
    assert federation.call("rewardOf", asked.stranger) == 3 * federation.call("demandDeposit")
    assert federation.call("slashed") == slashed == 0b01001


def test_the_same_object_stated_by_another_is_not_the_one_that_was_demanded(demands: DemandsOf) -> None:
    asked = demands(rounds=9)
    first = asked.page(RESULT, 1)
    asked.demand(first)
    assert names(asked.closed_late(asked.page(KEY_SUM, 1)))[1] == "ResultRefuted"
    asked.played.close(2)
    assert asked.page(RESULT, 1)[-1] == first[-1]
    told = asked.close(first)
    assert told == [("DemandClosed", {"demand": asked.name(first), "silent": False})]
    assert asked.federation.call("slashed") == 0b01000


def test_an_opening_of_a_set_that_was_given_up_is_not_on_record_and_its_ciphertexts_still_are(
    demands: DemandsOf, play: PlayOf, refuses: Refuses
) -> None:
    asked = demands(play().commit().post().lock().open(2))
    opening, ciphertext = asked.page(OPENING), asked.page(CIPHERTEXT, 0, 0, index=1)
    asked.demand(opening)
    for member in range(3):
        asked.federation.send(member, "voteToAbandon", 1, 0)
    asked.demand(ciphertext)
    with refuses("FederationNoStatement"):
        asked.demand(asked.page(OPENING, 1))
    with refuses("FederationNoStatement"):
        asked.demand(asked.page(AGGREGATE))
    asked.chain.mine_at(asked.chain.now + asked.window)
    assert asked.close(opening)[0][1]["silent"] is False
    assert names(asked.close(ciphertext)) == ["DemandClosed", "MemberSlashed"]
    assert asked.federation.call("slashed") == 0b00010


def test_who_left_answers_for_its_objects_a_challenge_window_long(demands: DemandsOf, refuses: Refuses) -> None:
    asked = demands(challengeWindow=8000, rounds=9, members=7, threshold=4)
    federation = asked.federation
    for member in (3, 4):
        federation.send(member, "resign")
    federation.finish_round(2)
    plain = asked.chain.now + 8000
    assert federation.call("bondFreeAt", 3) == federation.call("bondFreeAt", 4) == plain
    asked.demand(asked.page(CIPHERTEXT, 0, 0, index=4), at=plain - 1)
    deadline = plain - 1 + 1000
    with refuses("FederationBondLocked", deadline + 1000):
        federation.send(4, "withdrawBond", at=plain)
    for page in (asked.page(CIPHERTEXT, 0, 1, index=4), asked.page(RESULT)):  # of whose author nobody asks any more
        with refuses("FederationChallengeOver", plain):
            asked.demand(page, at=plain)
    asked.demand(asked.page(CIPHERTEXT, 0, 1, index=2))  # who stands answers
    told = asked.close(asked.page(CIPHERTEXT, 0, 0, index=4), at=deadline)
    assert told[-1][1]["index"] == 4
    with refuses("FederationNothingToWithdraw"):
        federation.send(4, "withdrawBond", at=deadline + 1000)
    federation.send(3, "withdrawBond", at=plain + 2000)


def test_who_comes_back_answers_again_for_all_that_it_ever_stated(demands: DemandsOf, refuses: Refuses) -> None:
    asked = demands(challengeWindow=80, rounds=9)
    federation, page = asked.federation, asked.page(CIPHERTEXT, 0, 0, index=4)
    federation.send(4, "resign")
    federation.finish_round(2)
    federation.send(4, "withdrawBond", at=asked.chain.now + 80)
    for member in range(3):
        federation.send(member, "voteToAdmit", federation.founders[4])
    federation.enrol(4)
    with refuses("FederationChallengeOver", federation.call("memberAt", 4)["leftAt"] + 80):  # it does not count yet
        asked.demand(page)
    federation.finish_round(3, members=range(4))
    assert names(asked.closed_late(page)) == ["DemandClosed", "MemberSlashed"]


# The clock.


def test_a_demand_of_the_last_second_holds_the_bonds_a_quarter_of_the_window_longer_and_no_demand_holds_them_more(
    demands: DemandsOf, refuses: Refuses
) -> None:
    asked = demands(challengeWindow=8000, rounds=1)
    federation, plain = asked.federation, asked.chain.now + 8000
    assert federation.call("challengesEndAt") == federation.call("bondFreeAt", 0) == plain
    asked.demand(asked.page(RESULT), at=plain - 5000)
    assert federation.call("challengesEndAt") == plain  # answered, or closed, in good time
    last = plain - 1
    for position in range(1, 9):
        asked.demand(asked.page(RESULT, 0, position), at=last)
    for level in range(1, 5):
        asked.demand(asked.page(AGGREGATE, level), at=last)
    end = last + 2000
    assert end < plain + 2000
    assert federation.call("challengesEndAt") == end
    assert {federation.call("bondFreeAt", member) for member in range(5)} == {end}
    with refuses("FederationChallengeOver", plain):
        asked.demand(asked.page(KEY_SUM), at=plain)
    # Until then what was shown can be used, and silence has its price.
    asked.show(asked.page(RESULT, 0, 1), at=last + 999)
    with refuses("FederationBondLocked", end):
        federation.send(0, "withdrawBond", at=end - 1)
    with refuses("FederationHonest"):
        asked.said(asked.other, "challengeResult", *asked.played.against_result(0), at=end - 1)
    told = asked.close(asked.page(RESULT, 0, 2), at=end - 1)
    assert names(told) == ["DemandClosed", "ResultRefuted", "MemberSlashed"]


@pytest.mark.parametrize("window", [1, 7, 8, 100, 8001])
def test_however_many_demands_come_bonds_are_free_after_a_quarter_more(demands: DemandsOf, window: int) -> None:
    asked = demands(challengeWindow=window, rounds=1)
    federation, plain = asked.federation, asked.chain.now + window
    pages = [asked.page(kind, level) for kind in (AGGREGATE, RESULT) for level in range(4)]
    for count, page in enumerate(pages):
        asked.demand(page, at=max(asked.chain.now, plain - 1 - (len(pages) - count) // 3))
    most = plain + 2 * max(1, window // 8)
    assert plain < federation.call("challengesEndAt") <= most
    federation.send(4, "withdrawBond", at=most)


def test_nothing_falls_once_bonds_are_free_and_the_deposit_still_comes_back(demands: DemandsOf) -> None:
    asked = demands(challengeWindow=8000, rounds=1)
    federation, plain, model = asked.federation, asked.chain.now + 8000, asked.federation.call("model")
    early, late = asked.page(AGGREGATE, 1), asked.page(RESULT, 1)
    asked.demand(early)
    asked.demand(late, at=plain - 1)
    free = federation.call("challengesEndAt")
    for page in (early, late):
        told = asked.close(page, at=max(free, asked.chain.now))
        assert told == [("DemandClosed", {"demand": asked.name(page), "silent": False})]
    assert (federation.call("model"), federation.call("slashed")) == (model, 0)
    for member in range(5):
        federation.send(member, "withdrawBond")
    asked.said(asked.stranger, "withdrawReward")
    assert asked.balance() == 0


def test_silence_after_the_end_takes_the_round_back_and_the_run_goes_on(demands: DemandsOf, refuses: Refuses) -> None:
    asked = demands(challengeWindow=8000, rounds=1)
    federation, plain = asked.federation, asked.chain.now + 8000
    asked.demand(asked.page(RESULT), at=plain - 1)
    asked.close(asked.page(RESULT), at=plain + 999)
    assert (federation.call("phaseOf", 1), federation.call("bondFreeAt", 0)) == (CLOSING, NEVER)
    asked.played.close(1)
    assert federation.call("phaseOf", 2) == FINISHED
    again = asked.chain.now + 8000
    assert federation.call("challengesEndAt") == again  # a window of its own, which the old demand does not stretch
    asked.demand(asked.page(RESULT))
    asked.show(asked.page(RESULT))


# Griefing.


def test_no_phase_waits_for_a_demand(demands: DemandsOf, play: PlayOf) -> None:
    """Every object of a round is demanded as soon as it is on record, nobody answers, and the run ends on time."""
    played = play(challengeWindow=8 * 10**6, rounds=2)
    asked = demands(played)
    federation = asked.federation
    assert federation.call("phaseOf", 1) == TRAINING
    played.commit()
    for member in range(5):
        for level in range(5):
            asked.demand(asked.page(CIPHERTEXT, level, 0, index=member))
    played.post().lock()
    for level in range(5):
        asked.demand(asked.page(AGGREGATE, level))
    played.open()
    for member in range(5):
        asked.demand(asked.page(OPENING, 5, 0, index=member))
    started = asked.chain.now
    played.close()
    asked.demand(asked.page(KEY_SUM, 5))
    asked.demand(asked.page(RESULT, 4))
    federation.finish_round(2)
    assert [federation.call("phaseOf", round) for round in (1, 2, 3)] == [CLOSED, CLOSED, FINISHED]
    finished = asked.chain.now
    assert finished == started  # no second was waited for any of them
    assert federation.call("challengesEndAt") == finished + 8 * 10**6


def test_a_liar_that_demands_its_own_pages_keeps_nobody_from_the_lie(
    demands: DemandsOf, play: PlayOf, refuses: Refuses
) -> None:
    """Each page is known once it is shown, or the sum falls when it is not; whoever demanded it."""
    played = play(bond=3200, challengeWindow=8000)
    played.aggregate.leaves[5, 17] ^= np.uint64(1)
    asked = demands(played.commit().post().lock())
    federation, accomplice = asked.federation, asked.other
    pages = [asked.page(AGGREGATE, level, p) for level in range(5) for p in range((8 >> level) + 1)]
    for page in pages[:-1]:
        asked.demand(page, by=accomplice)
    with refuses("FederationAlreadyDemanded"):
        asked.demand(pages[0])
    asked.demand(pages[-1])  # one page is enough, and there is always one: all of them would be as good as shown
    asked.show(pages[-1], by=0)
    deadline = federation.call("deadlineOf", asked.name(pages[0]))
    told = asked.said(asked.stranger, "closeDemand", pages[0], at=deadline)
    assert names(told) == ["DemandClosed", "AggregateRefuted", "MemberSlashed"]
    assert federation.call("memberAt", 0)["slashed"]
    # What the accomplice gains is less than what the liar loses.
    assert federation.call("rewardOf", accomplice) == 1600 + 100
    for page in pages[1:-1]:
        assert asked.close(page) == [("DemandClosed", {"demand": asked.name(page), "silent": False})]


def test_to_demand_all_of_an_honest_members_pages_costs_more_than_it_can_bring(demands: DemandsOf) -> None:
    """It answers with what it holds, and has the deposits."""
    asked = demands(bond=3200, challengeWindow=8000)
    pages = [asked.page(CIPHERTEXT, level, p) for level in range(5) for p in range((8 >> level) + 1)]
    for page in pages:
        asked.demand(page)
    for page in pages:
        asked.show(page, by=2)
    assert asked.federation.call("rewardOf", asked.federation.founders[2]) == len(pages) * 100
    assert asked.federation.call("slashed") == 0
    assert asked.balance() == 5 * 3200 + len(pages) * 100


def test_every_coin_is_a_bond_a_deposit_a_reward_or_burnt(demands: DemandsOf) -> None:
    """At every step of a run with demands that are shown, missed and outlived."""
    asked = demands(bond=1001, challengeWindow=800, rounds=1)
    federation = asked.federation
    held = {asked.stranger, asked.other, *federation.founders}

    def conserved(open_demands: int) -> None:
        bonds = federation.call("bonded").bit_count() * 1001
        owed = sum(federation.call_all([("rewardOf", account) for account in held]))
        assert asked.balance() == bonds + owed + federation.call("burnt") + open_demands * 31

    pages = [asked.page(CIPHERTEXT, 0, p) for p in range(3)] + [asked.page(AGGREGATE), asked.page(RESULT)]
    for count, page in enumerate(pages, start=1):
        asked.demand(page, by=asked.other if count % 2 else None)
        conserved(count)
    asked.show(pages[0], by=2)
    conserved(4)
    asked.chain.mine_at(asked.chain.now + 100)
    for left, page in zip((3, 2, 1), pages[1:4], strict=True):
        asked.close(page)
        conserved(left)
    asked.chain.mine_at(federation.call("challengesEndAt"))
    for member in (1, 3, 4):
        federation.send(member, "withdrawBond")
        conserved(1)
    assert asked.close(pages[4])[0][1]["silent"] is False
    conserved(0)
    for account in held:
        if federation.call("rewardOf", account):
            asked.said(account, "withdrawReward")
            conserved(0)
    assert asked.balance() == federation.call("burnt") == 2 * 501
