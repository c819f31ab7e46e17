"""What a hostile reading found: sequences of calls by fewer than t members that once broke a promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

KEY_SUM, RESULT = 3, 4
TRAINING, CLOSING, CLOSED = 1, 5, 6
STRANGER = 9

Found = Callable[..., Any]
Refuses = Callable[..., Any]


def demand(federation: Any, kind: int, round: int) -> tuple[Any, ...]:
    """The root's own page of a closed round's key sum or result is demanded; that page."""
    told = federation.call("resultOf", round, 0)
    root = told["keySumRoot" if kind == KEY_SUM else "resultRoot"]
    page = (kind, told["member"], round, federation.call("roundAt", round)["attempt"], 0, 0, 0, root)
    account = federation.chain.accounts[STRANGER]
    federation.send(account, "demandPage", page, [], value=federation.call("demandDeposit"))
    return page


@pytest.mark.parametrize("kind", [KEY_SUM, RESULT])
def test_nobody_takes_back_with_silence_what_was_built_on_a_result_long_ago(
    found: Found, refuses: Refuses, kind: int
) -> None:
    federation = found(5, threshold=3, rounds=9, challengeWindow=800).all_enrol().finish_round()
    closed = federation.chain.now
    page = demand(federation, kind, 1)  # while it is new, it is answered for
    federation.finish_round(2, attempt=federation.call("roundAt", 2)["attempt"])
    federation.chain.mine_at(closed + 800)
    with refuses("FederationChallengeOver", closed + 800):
        demand(federation, RESULT + KEY_SUM - kind, 1)
    assert [federation.call("phaseOf", round) for round in (1, 2)] == [CLOSED, CLOSED]
    told = federation.events(federation.send(federation.chain.accounts[STRANGER], "closeDemand", page))
    assert [name for name, _ in told] == ["DemandClosed", "ResultRefuted", "MemberSlashed"]
    assert federation.call("phaseOf", 1) == CLOSING


def test_the_time_that_counts_is_that_of_the_result_on_record(found: Found) -> None:
    """A round that closes anew is looked at anew."""
    federation = found(5, threshold=3, rounds=9, challengeWindow=800).all_enrol().finish_round()
    for voter in (1, 2, 3):
        federation.send(voter, "voteToRefuse", 1, federation.call("model"))
    federation.chain.mine_at(federation.chain.now + 900)
    federation.close(1)
    demand(federation, RESULT, 1)


def test_who_resigns_keeps_nobody_from_locking_a_set_after_the_one_it_was_in_is_given_up(
    found: Found, refuses: Refuses
) -> None:
    """The members that stay may remove it though it is gone: one apart counts no more (P3.8)."""
    federation = found(7, threshold=4, rounds=9, challengeWindow=500).all_enrol()
    federation.send(6, "resign")
    federation.lock_round()
    for voter in range(4):
        federation.send(voter, "voteToAbandon", 1, 0)
    left_at = federation.chain.now
    assert federation.call("standing") == 0b0111111
    for member in range(6):
        federation.commit(member, 1, 1)
    for member in range(6):
        federation.receipt(member, 0b0111111, 1, 1)
    with refuses("FederationTooClose", 0b1111111):
        federation.aggregate(federation.call("aggregatorNow"), 0b0111111, 1, 1)
    for voter in range(4):
        told = federation.events(federation.send(voter, "voteToRemove", 6))
    assert told[1] == ("MemberLeaving", {"index": 6, "removed": True})
    with refuses("FederationAlreadyLeaving"):
        federation.send(4, "voteToRemove", 6)
    federation.aggregate(federation.call("aggregatorNow"), 0b0111111, 1, 1)
    for member in range(4):
        federation.open(member, 1, 1)
    federation.close(0, 1, 1)
    # It left when it left: its bond waits no longer for that.
    assert (federation.call("leaving"), federation.call("memberAt", 6)["leftAt"]) == (0, left_at)
    assert federation.call("bondFreeAt", 6) == left_at + 500


def test_only_who_has_been_a_member_is_removed_though_it_is_gone(found: Found, refuses: Refuses) -> None:
    federation = found(7, threshold=4, rounds=9, enrolWindow=50)
    for member in range(6):
        federation.enrol(member)
    federation.chain.mine_at(federation.chain.now + 50)
    for nobody in (6, 7, 63, 64, 255):
        with refuses("FederationBadSubject"):
            federation.send(0, "voteToRemove", nobody)
