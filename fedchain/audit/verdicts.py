"""Check 12 on the log: what fell, who was slashed for it, and who was paid.

Whether a statement that fell was wrong is not for here: that takes its objects (checks 7, 9 and 10).
"""

from __future__ import annotations

from typing import Literal

from ..protocol.demands import LISTED
from ..protocol.events import (
    AggregateRefuted,
    AggregateRestated,
    DemandClosed,
    MemberSlashed,
    MotionVoted,
    ResultRefuted,
    RewardWithdrawn,
)
from ..protocol.pages import Kind
from ..protocol.phase import challenges_end_at
from ..protocol.state import FederationState
from .decisions import slash_due
from .docket import Docket, name_of
from .ledger import FEDERATION, Scope
from .report import Refutation, Slash

Verdict = AggregateRefuted | AggregateRestated | ResultRefuted | MemberSlashed | RewardWithdrawn

_WHAT: dict[int, Literal["aggregate", "result", "update", "opening"]] = {
    1: "aggregate",
    2: "result",
    3: "result",
    4: "update",
    5: "opening",
    6: "update",
    7: "result",
}
"""What each rule is about; after R4 and R5 nothing falls but their author."""


def judge_verdict(state: FederationState, event: Verdict, scope: Scope, docket: Docket, *, due: bool) -> bool:
    """Write down what is wrong; the event changes the state in any case. `due`: what was judged last demands it."""
    end = challenges_end_at(state, event.at)
    if not isinstance(event, RewardWithdrawn) and end is not None and event.at >= end:
        docket.fault(
            scope, 12, f"verdicts while bonds are held, until {end}", f"a {type(event).__name__} at {event.at}"
        )
    match event:
        case AggregateRefuted() | ResultRefuted():
            _judge_fall(state, event, scope, docket, due=due)
        case AggregateRestated():
            if not state.heard >> event.index & 1:
                docket.fault(scope, 12, "a sum restated by a member with a bond", f"by {name_of(state, event.index)}")
            docket.restated(event.round, event.attempt, event.index)
        case MemberSlashed():
            _judge_slash(state, event, docket, due=due)
        case RewardWithdrawn():
            owed = state.rewards.get(event.account, 0)
            if event.amount_wei != owed or not owed:
                got = f"{event.amount_wei} wei to {event.account}"
                docket.fault(scope, 12, f"what is owed, {owed} wei, taken once", got)
            docket.paid_out_wei += event.amount_wei
    return True


def _judge_fall(
    state: FederationState, event: AggregateRefuted | ResultRefuted, scope: Scope, docket: Docket, *, due: bool
) -> None:
    """A sum or a result that fell. Where neither a vote nor silence demanded it, it was challenged: R1, or R2 or R3."""
    what: Literal["aggregate", "result"] = "aggregate" if isinstance(event, AggregateRefuted) else "result"
    by: Literal["challenge", "silence", "vote"] = "challenge"
    if due:
        by = "vote" if isinstance(docket.cause, MotionVoted) else "silence"
    else:
        rules = 1 if what == "aggregate" else frozenset({2, 3})
        docket.owe(event, *slash_due(state, event.index, scope, rules))
    docket.fell(Refutation(what, event.round, event.attempt, event.index, event.at, by))


def _judge_slash(state: FederationState, event: MemberSlashed, docket: Docket, *, due: bool) -> None:
    """A slash, written down beside what it follows from."""
    slash = Slash(event.rule, event.challenger, event.burnt_wei, event.reward_wei)
    docket.burnt_wei += event.burnt_wei
    if due:
        cause = docket.cause
        page = state.demands[cause.demand].page if isinstance(cause, DemandClosed) else None
        if page is not None and page.kind in LISTED:
            kept_back: Literal["update", "opening"] = "update" if page.kind is Kind.CIPHERTEXT else "opening"
            docket.fell(Refutation(kept_back, page.round, page.attempt, event.index, event.at, "silence"))
        docket.slashed(slash)
        return
    if event.rule not in (4, 5):
        got = "none in that transaction"
        expected = f"what member {event.index} is slashed for by rule {event.rule}, right before it"
        docket.fault(FEDERATION, 12, expected, got)
    bond = state.terms.bond_wei
    if (event.burnt_wei, event.reward_wei) != (bond - bond // 2, bond // 2):
        got = f"{event.burnt_wei} burnt and {event.reward_wei} credited"
        docket.fault(FEDERATION, 12, f"{bond - bond // 2} of {bond} wei burnt and {bond // 2} credited", got)
    what = _WHAT.get(event.rule, "update")
    docket.fell(Refutation(what, event.round, None, event.index, event.at, slash=slash))
