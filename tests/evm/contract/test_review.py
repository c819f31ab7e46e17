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
