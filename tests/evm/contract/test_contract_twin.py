"""The twin: random histories on the chain, folded in Python, and both asked the same questions at random times.

`fedchain/protocol/phase.py` and `contracts/Phases.sol` must give the same phase, the same live attempt and the same
aggregator at every moment; and what the one lets in, the other must let in too. Challenges, votes and demands as well:
`protocol/disputes.py`, `votes.py` and `demands.py` say beforehand what the contract will do, and by which reason.
`tests/histories.py` speaks for the members of `twins.py`, `quarrels.py` challenges, `assemblies.py` votes and demands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from fedchain.chain.artifacts import load_artifact
from fedchain.protocol.phase import Phase, are_too_few

STEPS = 120
WINDOWS = {"enrolWindow": 40, "trainingWindow": 60, "receiptWindow": 30, "aggregateWindow": 20, "challengeWindow": 50}
LONG = 10**9
QUARRELS = {"members": 7, "threshold": 4, "rounds": 3, "quarrelsome": 0.3, "hasty": 0.03, "steps": 250}
POLITICS = {"members": 5, "threshold": 3, "rounds": 9, "political": 0.5, "hasty": 0.05, "steps": 250}
GIVING_UP = POLITICS | {"assembly": {"demanding": 0.1, "motions": "abandon admit remove"}}
REFUSING = POLITICS | {"rounds": 4, "hasty": 0.03, "assembly": {"motions": "admit refuse remove refuse"}}
HISTORIES: tuple[dict[str, Any], ...] = (
    {"seed": 1, "members": 3, "threshold": 2, "rounds": 1},
    {"seed": 2, "members": 4, "threshold": 3, "rounds": 2, "hesitant": 0.9},
    {"seed": 3, "members": 5, "threshold": 3, "rounds": 9, "stopping": 0.3},
    {"seed": 4, "members": 6, "threshold": 4, "rounds": 9, "hesitant": 0.9},
    {"seed": 8, "members": 5, "threshold": 4, "rounds": 9, "closeWindow": 300},
    {"seed": 12, **QUARRELS},
    {"seed": 13, **QUARRELS},
    {"seed": 15, **GIVING_UP},
    {"seed": 16, **GIVING_UP},
    {"seed": 22, **REFUSING},
    {"seed": 25, **REFUSING},
    {"seed": 35, **REFUSING},
)


@pytest.fixture
def play_history(
    found: Callable[..., Any], histories: ModuleType, quarrels: ModuleType, assemblies: ModuleType
) -> Callable[[dict[str, Any]], Any]:
    """A history to its end, both twins compared after every step."""

    def played(chosen: dict[str, Any]) -> Any:
        terms = {"threshold": chosen["threshold"], "rounds": chosen["rounds"], "bond": 6401, "modelSize": 100}
        terms["closeWindow"] = chosen.get("closeWindow", LONG)
        history = histories.History(found(chosen["members"], **WINDOWS, **terms), chosen)
        quarrel, assembly = quarrels.Quarrels(history), assemblies.Assembly(history, **chosen.get("assembly", {}))
        for _ in range(chosen.get("steps", STEPS)):
            die = history.chosen.random()
            at = history.next_time()
            if die < chosen.get("quarrelsome", 0.0):
                quarrel.step(at)
            elif die > 1 - chosen.get("political", 0.0):
                assembly.step(at)
            else:
                history.step(at)
            history.compare()
            if history.is_over():
                break
        return history

    return played


def test_the_contract_and_python_tell_the_same_story(play_history: Callable[..., Any]) -> None:
    tally: Counter[str] = Counter()
    for chosen in HISTORIES:
        history = play_history(chosen)
        state = history.state
        tally.update(history.tally)
        tally["void attempt"] += sum(attempt.aggregate is None for attempt in state.voided)
        tally["forgotten attempt"] += len(state.forgotten)
        tally["finished by rounds"] += state.round > state.terms.rounds
        tally["finished by votes"] += state.stop_votes.bit_count() >= state.threshold
        tally["finished by slashing"] += are_too_few(state) and state.slashed != 0
        tally["finished by time"] += state.terms.close_window_s < LONG and state.round <= state.terms.rounds
    # A history in which little happens proves little: all of this must have come about.
    phases = {phase.name for phase in Phase} - {"CLOSED", "PENDING"}
    events = {e["name"] for e in load_artifact().abi if e["type"] == "event"} - {"FederationFounded"}
    moments = {"first turn", "failover", "void attempt", "forgotten attempt", "left before the run", "batch"}
    moments |= {
        "lapsed ballot",
        "paid for strikes",
        "a bond back while the run goes on",
        "silent",
        "closed without blame",
    }
    moments |= {f"VoteTo{motion} carried" for motion in ("Admit", "Remove", "Abandon", "Refuse")}
    endings = {"finished by rounds", "finished by votes", "finished by slashing", "finished by time"}
    refusals = {
        "FederationWrongAttempt",
        "FederationNotAggregator",
        "FederationTooFewParticipants",
        "FederationTooClose",
        "FederationSlashed",
        "FederationNotAdmitted",
        "FederationAlreadyVoted",
        "FederationBadSubject",
        "FederationWrongDeposit",
        "FederationDemandOpen",
        "FederationDemandOver",
        "FederationNoDemand",
    }
    verdicts = {"FederationHonest", "FederationBadEvidence", "FederationNoStatement", "FederationAlreadySlashed"}
    verdicts |= {"FederationChallengeOver", "FederationNotMember", "FederationOtherBasis"}
    assert not {w for w in phases | events | moments | endings | refusals | verdicts if not tally[w]}, tally


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_more_histories(play_history: Callable[..., Any], seed: int) -> None:
    members, threshold = ((9, 5), (7, 4), (8, 6), (3, 2))[seed % 4]
    quarrels = {"quarrelsome": 0.2, "political": 0.3, "hasty": 0.03, "steps": 300}
    play_history({"seed": seed, "members": members, "threshold": threshold, "rounds": 2 + seed % 2, **quarrels})
