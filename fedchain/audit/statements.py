"""Checks 3, 5, 6 and 12 on the log: what members said in a round, each in its phase, attempt and turn, and once."""

from __future__ import annotations

from ..errors import Fault
from ..protocol.events import (
    AggregateCommitted,
    Complained,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    StopVoted,
    UpdateCommitted,
)
from ..protocol.ids import is_subset, members_of, size_of
from ..protocol.participants import check_participants
from ..protocol.phase import Phase, aggregator_of, live_attempt, phase_of
from ..protocol.privacy import is_affordable
from ..protocol.state import Attempt, FederationState
from .decisions import check_strikes
from .docket import Docket, name_of
from .ledger import Scope

RoundEvent = UpdateCommitted | ReceiptPosted | Complained | AggregateCommitted | OpeningPublished | ResultCommitted

_DUE: dict[type[RoundEvent], tuple[Phase, ...]] = {
    UpdateCommitted: (Phase.TRAINING,),
    ReceiptPosted: (Phase.RECEIPTS,),
    Complained: (Phase.TRAINING, Phase.RECEIPTS),
    AggregateCommitted: (Phase.AGGREGATING,),
    OpeningPublished: (Phase.OPENING, Phase.CLOSING),
    ResultCommitted: (Phase.CLOSING,),
}


def judge_statement(state: FederationState, event: RoundEvent, scope: Scope, docket: Docket, *, told: bool) -> bool:
    """Write down what is wrong with one statement; whether it changes the state. `told`: strikes were, before it."""
    offender = name_of(state, event.index)

    def fault(number: int, expected: str, got: str) -> None:
        docket.fault(scope, number, expected, got, offender)

    kind = type(event).__name__
    attempt = live_attempt(state, event.at)
    if attempt is None or (attempt.round, attempt.attempt) != (event.round, event.attempt):
        under_way = f"round {attempt.round} attempt {attempt.attempt}" if attempt else "enrolment"
        fault(6, f"{kind} for {under_way}, under way at {event.at}", f"round {event.round} attempt {event.attempt}")
        return False
    if not attempt.standing >> event.index & 1:
        fault(3, f"{kind} by a member that counts in this round", f"one by {offender}, who does not")
        return False
    if state.slashed >> event.index & 1:
        fault(12, f"{kind} by a member with a bond", f"one by {offender}, slashed before")
    if isinstance(event, AggregateCommitted | OpeningPublished | ResultCommitted) and event.group != 0:
        fault(6, "group 0, the only one", f"group {event.group}")
        return False
    if _said_before(attempt, event):
        fault(3 if isinstance(event, UpdateCommitted) else 6, f"one {kind} an attempt", "a second one")
        return False
    phase, due = phase_of(state, event.round, event.at), _DUE[type(event)]
    if phase not in due:
        expected = " or ".join(p.name.lower() for p in due)
        fault(6, f"{kind} in the phase {expected}", f"{phase.name.lower()} at {event.at}")
    if isinstance(event, UpdateCommitted):
        charter = docket.charter
        if charter is not None and not is_affordable(charter, state):
            fault(6, f"no update that could take the run beyond ε = {charter.privacy.epsilon:g}", "one")
    if isinstance(event, ReceiptPosted) and not is_subset(event.whole, attempt.committed):
        unknown = ", ".join(name_of(state, i) for i in members_of(event.whole & ~attempt.committed))
        fault(5, "only committed updates in a receipt", f"{unknown} too")
    if isinstance(event, Complained) and not (event.dealers and is_subset(event.dealers, attempt.committed)):
        fault(5, "a complaint about committed updates", f"one about {event.dealers:#b} of {attempt.committed:#b}")
    if isinstance(event, ResultCommitted):
        opened, threshold = attempt.opened, attempt.threshold
        if not is_subset(event.openers, opened) or size_of(event.openers) != threshold:
            fault(6, f"{threshold} openers, each with a published opening", f"{event.openers:#b} of {opened:#b}")
    if isinstance(event, AggregateCommitted):
        turn = aggregator_of(state, attempt, event.at)
        if phase is Phase.AGGREGATING and event.index != turn:
            fault(6, f"the aggregator whose turn it was: {name_of(state, turn)}", offender)
        try:
            check_participants(state, attempt, event.participants, offender)
        except Fault as broken:
            docket.ledger.raised(scope, 6, broken, offender)
        if not told:
            check_strikes(state, event, scope, docket)
    return True


def _said_before(attempt: Attempt, event: RoundEvent) -> bool:
    match event:
        case UpdateCommitted():
            return event.index in attempt.commits
        case ReceiptPosted():
            return event.index in attempt.receipts
        case Complained():
            return event.index in attempt.complaints
        case AggregateCommitted():
            return attempt.aggregate is not None
        case OpeningPublished():
            return event.index in attempt.openings
        case ResultCommitted():
            return attempt.result is not None


def judge_stop(state: FederationState, event: StopVoted, scope: Scope, docket: Docket) -> bool:
    """Check 6: a vote to stop."""
    phase = phase_of(state, event.round, event.at)
    got = f"a vote in round {event.round}, {phase.name.lower()}"
    if not state.heard >> event.index & 1:
        got = "a vote by no enrolled member, or a slashed one"
    elif state.stop_votes >> event.index & 1:
        got = "a second vote"
    elif event.round == state.round and event.round > 1 and phase is not Phase.FINISHED:
        return True
    expected = "one vote a member to stop, while a round after the first goes on"
    docket.fault(scope, 6, expected, got, name_of(state, event.index))
    return False
