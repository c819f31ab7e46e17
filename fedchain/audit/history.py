"""Checks 2, 3, 5, 6 and 12 as far as the log alone can tell: the log is folded again, event by event.

Each event is judged against the state as of the event before it, with the rules of `fedchain/protocol/`: the contract's
verdict is recomputed, not believed. What an event must bring with it (a slash, an admission, a set given up) is due
right after it, in the same transaction. Fetched objects are judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ChainMismatch
from ..ports import Logged
from ..protocol.charter import Charter
from ..protocol.events import (
    AggregateCommitted,
    AggregateRefuted,
    AggregateRestated,
    BondWithdrawn,
    Complained,
    DemandClosed,
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
    PageShown,
    ReceiptPosted,
    ResultCommitted,
    ResultRefuted,
    RewardWithdrawn,
    SetAbandoned,
    StopVoted,
    UpdateCommitted,
)
from ..protocol.ids import Address
from ..protocol.phase import live_attempt
from ..protocol.state import FederationState
from ..protocol.transition import apply, founded
from .decisions import judge_decision
from .docket import Docket
from .ledger import FEDERATION, Ledger, Scope
from .membership import check_founding, judge_membership
from .statements import judge_statement, judge_stop
from .verdicts import judge_verdict


@dataclass(frozen=True, slots=True)
class History:
    """The log, folded and judged: the state it leads to, the scope of each event, and what the report tells of it."""

    state: FederationState
    scopes: tuple[Scope, ...]
    docket: Docket


def replay(
    log: Iterable[Logged], charter: Charter | None, ledger: Ledger, *, chain_id: int, contract: Address
) -> History:
    """Fold the log, judging every event against the state before it.

    A statement that could not have been made (another attempt was under way, or it was made before) is written down as
    a fault and left out of the state; any other is judged and then taken as it stands on chain. Raises ChainMismatch
    when the log does not begin with the founding: then it is no federation's.
    """
    docket = Docket(chain_id, contract, charter, ledger)
    state: FederationState | None = None
    scopes: list[Scope] = []
    latest = 0
    for entry in log:
        event = entry.event
        if state is None:
            if not isinstance(event, FederationFounded):
                raise ChainMismatch(
                    "the log does not begin with FederationFounded; read it from the deployment's block"
                )
            check_founding(event, docket)
            state, latest = founded(event), event.at
            scopes.append(FEDERATION)
            continue
        scope = scope_of(event, state)
        scopes.append(scope)
        if event.at < latest:
            docket.fault(scope, 6, f"a time not before {latest}", str(event.at))
        latest = max(latest, event.at)
        state = _after(state, entry, scope, docket)
    docket.settle("the end of the log")
    if charter is None:
        ledger.block(FEDERATION, 2, "the weight cap stands in the charter, which was not to be had")
    if state is None:
        raise ChainMismatch("the log is empty: there is no FederationFounded event")
    return History(state, tuple(scopes), docket)


def scope_of(event: Event, state: FederationState) -> Scope:
    """Which round and attempt an event belongs to; the federation as a whole where it belongs to none."""
    match event:
        case UpdateCommitted() | ReceiptPosted() | Complained() | AggregateCommitted() | OpeningPublished():
            return Scope(event.round, event.attempt)
        case ResultCommitted():
            return Scope(event.round, event.attempt)
        case AggregateRefuted() | AggregateRestated() | ResultRefuted() | DutiesMissed() | SetAbandoned():
            return Scope(event.round, event.attempt)
        case MotionVoted() if event.motion in (Motion.ABANDON, Motion.REFUSE):
            return Scope(event.round, event.attempt)
        case PageDemanded():
            return Scope(event.page.round, event.page.attempt)
        case PageShown() | DemandClosed():
            demand = state.demands.get(event.demand)
            return Scope(demand.page.round, demand.page.attempt) if demand else FEDERATION
        case StopVoted():
            attempt = live_attempt(state, event.at)
            return Scope(event.round, attempt.attempt if attempt else 0)
        case _:
            return FEDERATION


def _after(state: FederationState, entry: Logged, scope: Scope, docket: Docket) -> FederationState:
    """The state after one more event, whatever is wrong with it."""
    event = entry.event
    if not _judge(state, entry, scope, docket):
        return state
    try:
        return apply(state, event)
    except (ValueError, KeyError) as error:
        docket.fault(scope, _check_of(event), f"a {type(event).__name__} about what stands", str(error))
        return state


def _judge(state: FederationState, entry: Logged, scope: Scope, docket: Docket) -> bool:
    """Write down what is wrong with one event; whether it changes the state."""
    event, due = entry.event, docket.is_due(entry)
    match event:
        case FederationFounded():
            docket.fault(scope, 2, "one founding", "a second FederationFounded")
            return False
        case MemberEnrolled() | MemberAdmitted() | MemberLeaving() | EncryptionKeyRotated() | BondWithdrawn():
            return judge_membership(state, event, docket, due=due)
        case UpdateCommitted() | ReceiptPosted() | AggregateCommitted() | OpeningPublished() | ResultCommitted():
            return judge_statement(state, event, scope, docket, told=due)
        case Complained():
            return judge_statement(state, event, scope, docket, told=due)
        case StopVoted():
            return judge_stop(state, event, scope, docket)
        case DutiesMissed() | MotionVoted() | SetAbandoned() | PageDemanded() | PageShown() | DemandClosed():
            return judge_decision(state, event, scope, docket, due=due)
        case AggregateRefuted() | AggregateRestated() | ResultRefuted() | MemberSlashed() | RewardWithdrawn():
            return judge_verdict(state, event, scope, docket, due=due)


def _check_of(event: Event) -> int:
    """The check that an event which the state cannot take is a fault of."""
    match event:
        case MemberEnrolled() | MemberAdmitted() | MemberLeaving() | EncryptionKeyRotated():
            return 2
        case SetAbandoned() | MotionVoted():
            return 6
        case _:
            return 12
