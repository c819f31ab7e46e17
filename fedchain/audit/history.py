"""Checks 2, 3, 5, 6 and 12 as far as the log alone can tell: the log is folded again, event by event.

Each statement is judged against the state as of the event before it, with the rules of `protocol/phase.py` and
`protocol/participants.py`: the contract's verdict is recomputed, not believed. Fetched objects are judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from ..errors import ChainMismatch, Fault
from ..ports import Logged
from ..protocol.charter import Charter
from ..protocol.events import (
    AggregateCommitted,
    AggregateRefuted,
    AggregateRestated,
    BondWithdrawn,
    DemandClosed,
    DutiesMissed,
    EncryptionKeyRotated,
    Event,
    FederationFounded,
    MemberAdmitted,
    MemberEnrolled,
    MemberLeaving,
    MemberSlashed,
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
from ..protocol.ids import MAX_MEMBERS, Index, is_subset, members_of, size_of
from ..protocol.participants import check_participants
from ..protocol.phase import (
    Phase,
    aggregator_of,
    bond_free_at,
    challenges_end_at,
    live_attempt,
    phase_of,
    start_of_run,
)
from ..protocol.privacy import is_affordable
from ..protocol.state import Attempt, FederationState
from ..protocol.transition import apply, founded
from .ledger import FEDERATION, Ledger, Scope
from .report import Refutation, Slash

CONTRACT = "the contract"
"""The offender where only the contract itself can have let something pass."""

RoundEvent = UpdateCommitted | ReceiptPosted | AggregateCommitted | OpeningPublished | ResultCommitted
Statement = FederationFounded | MemberEnrolled | RoundEvent | StopVoted | BondWithdrawn
Verdict = AggregateRefuted | AggregateRestated | ResultRefuted | MemberSlashed | RewardWithdrawn
Decision = (
    DutiesMissed
    | MotionVoted
    | MemberAdmitted
    | MemberLeaving
    | EncryptionKeyRotated
    | SetAbandoned
    | PageDemanded
    | PageShown
    | DemandClosed
)
"""What members decide, and what is demanded of them."""

_WHAT: dict[int, Literal["aggregate", "result", "update", "opening"]] = {
    1: "aggregate",
    2: "result",
    3: "result",
    4: "update",
    5: "opening",
    6: "update",
    7: "result",
}
"""What each of R1 to R5 is about; 6 is silence on a demand, where nothing else fell, 7 a vote against a result."""

_DUE: dict[type[RoundEvent], tuple[Phase, ...]] = {
    UpdateCommitted: (Phase.TRAINING,),
    ReceiptPosted: (Phase.RECEIPTS,),
    AggregateCommitted: (Phase.AGGREGATING,),
    OpeningPublished: (Phase.OPENING, Phase.CLOSING),
    ResultCommitted: (Phase.CLOSING,),
}


def name_of(state: FederationState, index: Index) -> str:
    """A member's address, or "member 9" where there is none."""
    return state.accounts[index] if 0 <= index < len(state.accounts) else f"member {index}"


def scope_of(event: Event, state: FederationState) -> Scope:
    """Which round and attempt an event belongs to; the federation as a whole where it belongs to none."""
    match event:
        case UpdateCommitted() | ReceiptPosted() | AggregateCommitted() | OpeningPublished() | ResultCommitted():
            return Scope(event.round, event.attempt)
        case AggregateRefuted() | AggregateRestated() | ResultRefuted() | DutiesMissed() | SetAbandoned():
            return Scope(event.round, event.attempt)
        case StopVoted():
            attempt = live_attempt(state, event.at)
            return Scope(event.round, attempt.attempt if attempt else 0)
        case _:
            return FEDERATION


@dataclass(frozen=True, slots=True)
class History:
    """The log, folded and judged: the state it leads to, the scope of each event, and what was refuted on chain."""

    state: FederationState
    scopes: tuple[Scope, ...]
    refutations: tuple[Refutation, ...]


@dataclass(slots=True)
class _Docket:
    """The refutations so far, and the transaction of each."""

    refutations: list[Refutation] = field(default_factory=list)
    transactions: list[bytes] = field(default_factory=list)

    def add(self, refutation: Refutation, transaction: bytes) -> None:
        self.refutations.append(refutation)
        self.transactions.append(transaction)


def replay(log: Iterable[Logged], charter: Charter | None, ledger: Ledger) -> History:
    """Fold the log, judging every statement against the state before it.

    A statement that could not have been made (another attempt was under way, or it was made before) is written down as
    a fault and left out of the state; any other is judged and then taken as it stands on chain. Raises ChainMismatch
    when the log does not begin with the founding: then it is no federation's.
    """
    state: FederationState | None = None
    scopes: list[Scope] = []
    docket = _Docket()
    latest = 0
    for entry in log:
        event = entry.event
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
        if isinstance(event, Verdict):
            state = _after_verdict(state, event, scope, entry.transaction, docket, ledger)
        elif isinstance(event, Decision):
            state = _after_decision(state, event, scope, ledger)
        elif _judge(state, event, scope, charter, ledger):
            state = apply(state, event)
    if charter is None:
        ledger.block(FEDERATION, 2, "the weight cap stands in the charter, which was not to be had")
    if state is None:
        raise ChainMismatch("the log is empty: there is no FederationFounded event")
    return History(state, tuple(scopes), tuple(docket.refutations))


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
        case BondWithdrawn():
            return _judge_withdrawal(state, event, ledger)
        case UpdateCommitted() | ReceiptPosted() | AggregateCommitted() | OpeningPublished() | ResultCommitted():
            if isinstance(event, UpdateCommitted) and charter is not None and not is_affordable(charter, state):
                expected = f"no update that could take the run beyond ε = {charter.privacy.epsilon:g}"
                ledger.fault(scope, 6, offender=name_of(state, event.index), expected=expected, got="one")
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

    if not 0 <= event.index < len(state.accounts) or event.member.lower() != state.accounts[event.index].lower():
        fault(f"{name_of(state, event.index)} at place {event.index}", f"{event.member}, no member of that place")
        return False
    if state.bonded >> event.index & 1:
        fault("one enrolment a member", "a second one")
        return False
    if start_of_run(state, event.at) is not None and not state.admitted >> event.index & 1:
        fault("enrolment before the run began, or by vote", f"one at {event.at}")
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
        for other, commit in attempt.commits.items():
            if commit.commitment == event.commitment:
                fault(3, "a commitment of one's own", f"that of {name_of(state, other)}, copied")
    if isinstance(event, ReceiptPosted) and not is_subset(event.whole, attempt.committed):
        unknown = ", ".join(name_of(state, i) for i in members_of(event.whole & ~attempt.committed))
        fault(5, "only committed updates in a receipt", f"{unknown} too")
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
    if not state.heard >> event.index & 1:
        got = "a vote by no enrolled member, or a slashed one"
    elif state.stop_votes >> event.index & 1:
        got = "a second vote"
    elif event.round == state.round and event.round > 1 and phase is not Phase.FINISHED:
        return True
    expected = "one vote a member to stop, while a round after the first goes on"
    ledger.fault(scope, 6, offender=name_of(state, event.index), expected=expected, got=got)
    return False


def _judge_withdrawal(state: FederationState, event: BondWithdrawn, ledger: Ledger) -> bool:
    def fault(expected: str, got: str) -> None:
        ledger.fault(FEDERATION, 12, offender=name_of(state, event.index), expected=expected, got=got)

    if event.index not in state.members:
        fault("a bond taken back by an enrolled member", "one by nobody who had paid it")
        return False
    if state.slashed >> event.index & 1:
        fault("no bond for a slashed member", "one taken back")
        return False
    if not state.bonded >> event.index & 1:
        fault("each bond taken back once", "a second time")
        return False
    if event.amount_wei != state.bond_of(event.index):
        fault(f"a bond of {state.bond_of(event.index)} wei, less its strikes", f"{event.amount_wei} wei")
    free = bond_free_at(state, event.index, event.at)
    if free is None or event.at < free:
        fault(f"a bond held until {free if free is not None else 'the run is over'}", f"taken back at {event.at}")
    return True


def _after_verdict(
    state: FederationState, event: Verdict, scope: Scope, transaction: bytes, docket: _Docket, ledger: Ledger
) -> FederationState:
    """The state after what a challenge brought about, judged by what the log tells of it.

    Whether the statement that fell was wrong is not for here: that takes its objects (checks 7 and 9).
    """

    def fault(expected: str, got: str) -> None:
        ledger.fault(scope, 12, offender=CONTRACT, expected=expected, got=got)

    end = challenges_end_at(state, event.at)
    if not isinstance(event, RewardWithdrawn) and end is not None and event.at >= end:
        fault(f"challenges while bonds are held, until {end}", f"a {type(event).__name__} at {event.at}")
    match event:
        case AggregateRefuted() | ResultRefuted():
            what = _WHAT[1 if isinstance(event, AggregateRefuted) else 2]
            docket.add(Refutation(what, event.round, event.attempt, event.index, event.at), transaction)
        case AggregateRestated():
            if not state.heard >> event.index & 1:
                fault("a sum restated by a member with a bond", f"one by {name_of(state, event.index)}")
            for i, fallen in enumerate(docket.refutations):
                if (fallen.what, fallen.round, fallen.attempt) == ("aggregate", event.round, event.attempt):
                    restated = fallen.restated_by if fallen.restated_by is not None else event.index
                    docket.refutations[i] = replace(fallen, restated_by=restated)
        case MemberSlashed():
            _judge_slash(state, event, transaction, docket, ledger)
        case RewardWithdrawn():
            if event.amount_wei != state.rewards.get(event.account, 0):
                fault("a challenger's whole reward, once", f"{event.amount_wei} wei to {event.account}")
    try:
        return apply(state, event)
    except ValueError as error:
        fault("a verdict on what stands", str(error))
        return state


def _after_decision(state: FederationState, event: Decision, scope: Scope, ledger: Ledger) -> FederationState:
    """The state after what members decided or demanded; where that cannot be, the contract is at fault."""
    try:
        return apply(state, event)
    except (ValueError, KeyError) as error:
        ledger.fault(scope, 6, offender=CONTRACT, expected="a decision on what stands", got=str(error))
        return state


def _judge_slash(
    state: FederationState, event: MemberSlashed, transaction: bytes, docket: _Docket, ledger: Ledger
) -> None:
    """Write down a slash beside what it follows from: half the bond is burnt, half is the challenger's."""

    def fault(expected: str, got: str) -> None:
        ledger.fault(FEDERATION, 12, offender=CONTRACT, expected=expected, got=got)

    bond = state.terms.bond_wei
    # Nobody gains by a vote.
    reward = 0 if event.rule == 7 else bond // 2
    if (event.burnt_wei, event.reward_wei) != (bond - reward, reward):
        got = f"{event.burnt_wei} burnt and {event.reward_wei} credited"
        fault(f"{bond - reward} of {bond} wei burnt and {reward} credited", got)
    slash = Slash(event.rule, event.challenger, event.burnt_wei, event.reward_wei)
    rules = {"aggregate": (1, 6), "result": (2, 3, 6, 7)}
    for i in reversed(range(len(docket.refutations))):
        fallen = docket.refutations[i]
        said = (fallen.offender, fallen.round, docket.transactions[i]) == (event.index, event.round, transaction)
        if said and fallen.slash is None and event.rule in rules.get(fallen.what, ()):
            docket.refutations[i] = replace(fallen, slash=slash)
            return
    if event.rule < 4:
        fault(f"a statement that fell with member {event.index}, by R{event.rule}", "none in that transaction")
    docket.add(Refutation(_WHAT[event.rule], event.round, None, event.index, event.at, slash), transaction)
