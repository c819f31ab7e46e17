"""Checks 2, 3, 5, 6 and 12 as far as the log alone can tell: the log is folded again, event by event.

Each statement is judged against the state as of the event before it, with the rules of `protocol/phase.py` and
`protocol/participants.py`: the contract's verdict is recomputed, not believed. Fetched objects are judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ChainMismatch, Fault
from ..ports import Logged
from ..protocol.charter import Charter
from ..protocol.events import (
    AggregateCommitted,
    BondWithdrawn,
    Event,
    FederationFounded,
    MemberEnrolled,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    StopVoted,
    UpdateCommitted,
)
from ..protocol.ids import MAX_MEMBERS, Index, is_subset, members_of
from ..protocol.participants import check_participants
from ..protocol.phase import Phase, aggregator_of, is_finished, live_attempt, phase_of, start_of_run
from ..protocol.state import Attempt, FederationState
from ..protocol.transition import apply, founded
from .ledger import FEDERATION, Ledger, Scope

CONTRACT = "the contract"
"""The offender where only the contract itself can have let something pass."""

RoundEvent = UpdateCommitted | ReceiptPosted | AggregateCommitted | OpeningPublished | ResultCommitted

Statement = FederationFounded | MemberEnrolled | RoundEvent | StopVoted

_DUE: dict[type[RoundEvent], tuple[Phase, ...]] = {
    UpdateCommitted: (Phase.TRAINING,),
    ReceiptPosted: (Phase.RECEIPTS,),
    AggregateCommitted: (Phase.AGGREGATING,),
    OpeningPublished: (Phase.OPENING, Phase.CLOSING),
    ResultCommitted: (Phase.CLOSING,),
}


def name_of(state: FederationState, index: Index) -> str:
    """A member's address, or "member 9" where the founders' list has no such place."""
    return state.founders[index] if 0 <= index < len(state.founders) else f"member {index}"


def scope_of(event: Event, state: FederationState) -> Scope:
    """Which round and attempt an event belongs to; the federation as a whole where it belongs to none."""
    match event:
        case UpdateCommitted() | ReceiptPosted() | AggregateCommitted() | OpeningPublished() | ResultCommitted():
            return Scope(event.round, event.attempt)
        case StopVoted():
            attempt = live_attempt(state, event.at)
            return Scope(event.round, attempt.attempt if attempt else 0)
        case FederationFounded() | MemberEnrolled() | BondWithdrawn():
            return FEDERATION


@dataclass(frozen=True, slots=True)
class History:
    """The log, folded and judged: the state it leads to, the scope of each event, and when the run was finished."""

    state: FederationState
    scopes: tuple[Scope, ...]
    finished_at: int | None


def replay(log: Iterable[Logged], charter: Charter | None, ledger: Ledger) -> History:
    """Fold the log, judging every statement against the state before it.

    A statement that could not have been made (another attempt was under way, or it was made before) is written down as
    a fault and left out of the state; any other is judged and then taken as it stands on chain. Raises ChainMismatch
    when the log does not begin with the founding: then it is no federation's.
    """
    state: FederationState | None = None
    scopes: list[Scope] = []
    finished_at: int | None = None
    latest = 0
    for event in (entry.event for entry in log):
        if state is None:
            state = _founding(event, ledger)
            scopes.append(FEDERATION)
            latest = event.at
            continue
        scope = scope_of(event, state)
        scopes.append(scope)
        if event.at < latest:
            ledger.fault(scope, 6, offender=CONTRACT, expected=f"a time not before {latest}", got=str(event.at))
        latest = max(latest, event.at)
        if isinstance(event, BondWithdrawn):
            stands = _judge_withdrawal(state, event, finished_at, ledger)
        else:
            stands = _judge(state, event, scope, charter, ledger)
        if stands:
            state = apply(state, event)
        if finished_at is None and is_finished(state):
            finished_at = event.at
    if charter is None:
        ledger.block(FEDERATION, 2, "the weight cap stands in the charter, which was not to be had")
    if state is None:
        raise ChainMismatch("the log is empty: there is no FederationFounded event")
    return History(state, tuple(scopes), finished_at)


def _founding(event: Event, ledger: Ledger) -> FederationState:
    if not isinstance(event, FederationFounded):
        raise ChainMismatch("the log does not begin with FederationFounded; read it from the deployment's block")
    _check_founding(event, ledger)
    return founded(event)


def _judge(state: FederationState, event: Statement, scope: Scope, charter: Charter | None, ledger: Ledger) -> bool:
    """Write down what is wrong with one statement; whether it changes the state."""
    match event:
        case FederationFounded():
            ledger.fault(scope, 2, offender=CONTRACT, expected="one founding", got="a second FederationFounded")
            return False
        case MemberEnrolled():
            return _judge_enrolment(state, event, charter, ledger)
        case StopVoted():
            return _judge_stop(state, event, scope, ledger)
        case UpdateCommitted() | ReceiptPosted() | AggregateCommitted() | OpeningPublished() | ResultCommitted():
            return _judge_statement(state, event, scope, ledger)


def _check_founding(event: FederationFounded, ledger: Ledger) -> None:
    n, t = len(event.founders), event.terms.threshold
    if not 3 <= n <= MAX_MEMBERS:
        ledger.fault(FEDERATION, 2, offender=CONTRACT, expected=f"3 to {MAX_MEMBERS} founders", got=str(n))
    if len({f.lower() for f in event.founders}) != n:
        ledger.fault(
            FEDERATION, 2, offender=CONTRACT, expected="founders that differ", got="an address that stands twice"
        )
    if not n // 2 + 1 <= t <= n - 1:
        ledger.fault(FEDERATION, 1, offender=CONTRACT, expected=f"a threshold of {n // 2 + 1} to {n - 1}", got=str(t))


def _judge_enrolment(state: FederationState, event: MemberEnrolled, charter: Charter | None, ledger: Ledger) -> bool:
    def fault(expected: str, got: str) -> None:
        ledger.fault(FEDERATION, 2, offender=event.member, expected=expected, got=got)

    if not 0 <= event.index < len(state.founders) or event.member.lower() != state.founders[event.index].lower():
        fault(f"{name_of(state, event.index)} at place {event.index}", f"{event.member}, no founder of that place")
        return False
    if event.index in state.members:
        fault("one enrolment a founder", "a second one")
        return False
    if start_of_run(state, event.at) is not None:
        fault("enrolment before the run began", f"one at {event.at}")
        return False
    if len(event.encryption_key) != 32 or not any(event.encryption_key):
        fault("an X25519 key of 32 bytes", event.encryption_key.hex() or "none")
    cap = charter.update.weight_cap if charter else 0
    if not 1 <= event.weight < 2**32 or (cap and event.weight > cap):
        fault(f"a weight of 1 to {cap or 2**32 - 1} (update.weight_cap)", str(event.weight))
    # Without a key nobody can deal to it, without a weight there is no average: no such enrolment can stand.
    return len(event.encryption_key) == 32 and event.weight >= 1


def _judge_statement(state: FederationState, event: RoundEvent, scope: Scope, ledger: Ledger) -> bool:
    offender = name_of(state, event.index)

    def fault(number: int, expected: str, got: str) -> None:
        ledger.fault(scope, number, offender=offender, expected=expected, got=got)

    kind = type(event).__name__
    attempt = live_attempt(state, event.at)
    if attempt is None or (attempt.round, attempt.attempt) != (event.round, event.attempt):
        under_way = f"round {attempt.round} attempt {attempt.attempt}" if attempt else "enrolment"
        fault(6, f"{kind} for {under_way}, under way at {event.at}", f"round {event.round} attempt {event.attempt}")
        return False
    if event.index not in state.members:
        fault(3, f"{kind} by an enrolled member", f"one by {offender}, not enrolled")
        return False
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
        for other, commit in attempt.commits.items():
            if commit.commitment == event.commitment:
                fault(3, "a commitment of one's own", f"that of {name_of(state, other)}, copied")
    if isinstance(event, ReceiptPosted) and not is_subset(event.whole, attempt.committed):
        unknown = ", ".join(name_of(state, i) for i in members_of(event.whole & ~attempt.committed))
        fault(5, "only committed updates in a receipt", f"{unknown} too")
    if isinstance(event, AggregateCommitted):
        turn = aggregator_of(state, attempt, event.at)
        if phase is Phase.AGGREGATING and event.index != turn:
            fault(6, f"the aggregator whose turn it was: {name_of(state, turn)}", offender)
        try:
            check_participants(state, attempt, event.participants, offender)
        except Fault as broken:
            ledger.raised(scope, 6, broken, offender)
    return True


def _said_before(attempt: Attempt, event: RoundEvent) -> bool:
    match event:
        case UpdateCommitted():
            return event.index in attempt.commits
        case ReceiptPosted():
            return event.index in attempt.receipts
        case AggregateCommitted():
            return attempt.aggregate is not None
        case OpeningPublished():
            return event.index in attempt.openings
        case ResultCommitted():
            return attempt.result is not None


def _judge_stop(state: FederationState, event: StopVoted, scope: Scope, ledger: Ledger) -> bool:
    phase = phase_of(state, event.round, event.at)
    got = f"a vote in round {event.round}, {phase.name.lower()}"
    if event.index not in state.members:
        got = "a vote by no enrolled member"
    elif state.stop_votes >> event.index & 1:
        got = "a second vote"
    elif event.round == state.round and event.round > 1 and phase is Phase.TRAINING:
        return True
    expected = "one vote a member to stop, while a round after the first is in training"
    ledger.fault(scope, 6, offender=name_of(state, event.index), expected=expected, got=got)
    return False


def _judge_withdrawal(state: FederationState, event: BondWithdrawn, finished_at: int | None, ledger: Ledger) -> bool:
    def fault(expected: str, got: str) -> None:
        ledger.fault(FEDERATION, 12, offender=name_of(state, event.index), expected=expected, got=got)

    if event.index not in state.members:
        fault("a bond taken back by an enrolled member", "one by nobody who had paid it")
        return False
    if state.withdrawn >> event.index & 1:
        fault("each bond taken back once", "a second time")
        return False
    if event.amount_wei != state.terms.bond_wei:
        fault(f"the bond of {state.terms.bond_wei} wei", f"{event.amount_wei} wei")
    free = bond_free_at(state, finished_at, event.at)
    if free is None or event.at < free:
        fault(f"a bond held until {free if free is not None else 'the run is over'}", f"taken back at {event.at}")
    return True


def bond_free_at(state: FederationState, finished_at: int | None, now: int) -> int | None:
    """From when bonds may be taken back; None while the run goes on.

    A challenge window after the run's end (the last result, or the vote to stop that made t), or after the enrolment
    deadline of a run that never began.
    """
    if start_of_run(state, now) is None:
        return state.founded_at + state.terms.enrol_window_s + state.terms.challenge_window_s
    return None if finished_at is None else finished_at + state.terms.challenge_window_s
