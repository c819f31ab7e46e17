"""Checks 2, 6 and 12 on the log: what members decided by vote, which duties they missed, and what was demanded of them.

A vote is its member's, who is named where it may not be cast. Whether a motion was carried, a page belongs to its root
or an author was silent is recomputed here; where the log says something else, only the contract can have let it pass.
"""

from __future__ import annotations

from eth_utils.address import to_checksum_address

from ..protocol.actions import (
    CloseDemand,
    DemandPage,
    ShowPage,
    Vote,
    VoteToAbandon,
    VoteToAdmit,
    VoteToRefuse,
    VoteToRemove,
)
from ..protocol.demands import LISTED, check_closed, check_demand, check_shown
from ..protocol.disputes import Refused, attempt_of
from ..protocol.events import (
    AggregateCommitted,
    AggregateRefuted,
    DemandClosed,
    DutiesMissed,
    MemberAdmitted,
    MemberLeaving,
    MemberSlashed,
    Motion,
    MotionVoted,
    PageDemanded,
    PageShown,
    ResultRefuted,
    SetAbandoned,
)
from ..protocol.evidence import NOBODY, Line
from ..protocol.ids import Address, Digest, Index, members_of
from ..protocol.pages import Kind, Page
from ..protocol.phase import duties_missed, live_attempt
from ..protocol.state import EMPTY, Ballot, Demand, FederationState
from ..protocol.votes import ballot_of, check_vote, is_carried
from .docket import Docket, Due, name_of
from .ledger import FEDERATION, Scope

Decision = DutiesMissed | MotionVoted | SetAbandoned | PageDemanded | PageShown | DemandClosed

_CHECKS: dict[Motion, int] = {Motion.ADMIT: 2, Motion.REMOVE: 2, Motion.ABANDON: 6, Motion.REFUSE: 12}


def judge_decision(state: FederationState, event: Decision, scope: Scope, docket: Docket, *, due: bool) -> bool:
    """Write down what is wrong; whether the event changes the state. `due`: votes demanded it."""
    match event:
        case DutiesMissed():
            return _judge_duties(state, event, scope, docket)
        case MotionVoted():
            return _judge_vote(state, event, scope, docket)
        case SetAbandoned():
            if not due:
                docket.fault(scope, 6, "a set given up by t votes", f"{event.participants:#b}, without them")
            return True
        case PageDemanded():
            return _judge_demand(state, event, scope, docket)
        case PageShown():
            return _judge_answer(state, event, scope, docket)
        case DemandClosed():
            return _judge_closing(state, event, scope, docket)


def check_strikes(state: FederationState, event: AggregateCommitted, scope: Scope, docket: Docket) -> None:
    """Check 12. Before a set was locked nobody was said to have missed a duty: nobody may have."""
    attempt = live_attempt(state, event.at)
    missed = duties_missed(state, attempt, event.at) if attempt is not None else EMPTY
    if missed:
        docket.fault(scope, 12, f"a strike for {_names(state, missed)}, who missed their duties", "none")


def slash_due(
    state: FederationState, index: Index, scope: Scope, rule: int | frozenset[int], **says: object
) -> list[Due]:
    """That the author of what fell is slashed, if it has a bond left."""
    if not state.bonded >> index & 1:
        return []
    bond = state.terms.bond_wei
    # Nobody gains by a vote.
    reward = 0 if rule == 7 else bond // 2
    money = {"burnt_wei": bond - reward, "reward_wei": reward}
    return [Due.of(MemberSlashed, 12, scope, index=index, round=scope.round, rule=rule, **says, **money)]


def lines_of(state: FederationState, page: Page) -> tuple[Line, ...]:
    """The list on record that a page's statement stands in: whoever demanded it must have shown it."""
    attempt = attempt_of(state, page.round, page.attempt)
    if attempt is None or page.kind not in LISTED:
        return ()
    if page.kind is Kind.CIPHERTEXT:
        return tuple(Line(index, commit.commitment) for index, commit in attempt.commits.items())
    return tuple(Line(index, opening.root) for index, opening in attempt.openings.items())


def _judge_duties(state: FederationState, event: DutiesMissed, scope: Scope, docket: Docket) -> bool:
    attempt = live_attempt(state, event.at)
    if attempt is None or (attempt.round, attempt.attempt) != scope:
        docket.fault(scope, 12, "strikes in the attempt under way", f"some in round {scope.round}")
        return False
    missed = duties_missed(state, attempt, event.at)
    if event.members != missed:
        got = _names(state, event.members)
        docket.fault(scope, 12, f"strikes for {_names(state, missed)}, who missed their duties", got)
    docket.owe(event, Due.of(AggregateCommitted, 12, scope, round=event.round, attempt=event.attempt))
    return True


def _judge_vote(state: FederationState, event: MotionVoted, scope: Scope, docket: Docket) -> bool:
    number = _CHECKS[event.motion]
    try:
        ballot = _check_cast(state, event)
    except Refused as refused:
        expected = "a vote on what may be decided, once, by a member that is heard"
        got = f"one to {event.motion.name.lower()} at {event.at} ({refused})"
        docket.fault(scope, number, expected, got, name_of(state, event.index))
        return False
    votes = state.ballots.get(ballot, EMPTY) | 1 << event.index
    carried = is_carried(state, votes)
    docket.voted(state, event, ballot, carried=carried)
    if carried:
        docket.owe(event, *_carried(state, event, scope))
    return True


def _check_cast(state: FederationState, event: MotionVoted) -> Ballot:
    """The ballot that a vote is for. Raises Refused where the contract would not have let it in."""
    if not state.heard >> event.index & 1:
        raise Refused("FederationSlashed" if state.slashed >> event.index & 1 else "FederationNotMember")
    vote = _vote_of(event)
    check_vote(state, event.index, vote, event.at)
    ballot = state.ballot(event.motion, event.round, event.attempt, event.subject)
    if ballot != ballot_of(state, vote):
        raise Refused("FederationBadSubject")
    return ballot


def _vote_of(event: MotionVoted) -> Vote:
    match event.motion:
        case Motion.ADMIT:
            return VoteToAdmit(_account(event))
        case Motion.REMOVE:
            return VoteToRemove(Index(int.from_bytes(event.subject, "big")))
        case Motion.ABANDON:
            return VoteToAbandon(event.round, event.attempt)
        case Motion.REFUSE:
            return VoteToRefuse(event.round, Digest(event.subject))


def _account(event: MotionVoted) -> Address:
    return Address(to_checksum_address(event.subject[-20:]))


def _carried(state: FederationState, event: MotionVoted, scope: Scope) -> list[Due]:
    """What a carried motion brings about."""
    match event.motion:
        case Motion.ADMIT:
            account = _account(event)
            index = state.index_of(account)
            seat = len(state.accounts) if index is None else index
            return [Due.of(MemberAdmitted, 2, FEDERATION, index=seat, member=account)]
        case Motion.REMOVE:
            index = Index(int.from_bytes(event.subject, "big"))
            return [Due.of(MemberLeaving, 2, FEDERATION, index=index, removed=True)]
        case Motion.ABANDON:
            assert state.current is not None and state.current.aggregate is not None
            participants = state.current.aggregate.participants
            place = {"round": event.round, "attempt": event.attempt, "group": 0}
            return [Due.of(SetAbandoned, 6, scope, **place, participants=participants)]
        case Motion.REFUSE:
            result = state.closed[event.round].result
            assert result is not None
            slash = slash_due(state, result.index, scope, 7, challenger=NOBODY)
            return [_falls(ResultRefuted, scope, result.index), *slash]


def _judge_demand(state: FederationState, event: PageDemanded, scope: Scope, docket: Docket) -> bool:
    page, deadline = event.page, event.at + state.terms.answer_window_s
    expected = (
        "a demand of a page of what is on record, once, by its name, with an eighth of the challenge window to go"
    )
    try:
        check_demand(state, DemandPage(page, lines_of(state, page), state.terms.deposit_wei), event.at)
    except Refused as refused:
        docket.fault(scope, 12, expected, f"one at {event.at} ({refused})")
        return False
    if event.demand != page.name:
        docket.fault(scope, 12, f"the name {page.name.hex()}", event.demand.hex())
        return False
    if event.deadline != deadline:
        docket.fault(scope, 12, f"a deadline at {deadline}", str(event.deadline))
    docket.paid_in_wei += state.terms.deposit_wei
    docket.demanded(event)
    return True


def _judge_answer(state: FederationState, event: PageShown, scope: Scope, docket: Docket) -> bool:
    demand = _open_demand(state, event, scope, docket)
    if demand is None:
        return False
    try:
        shown = ShowPage(demand.page, event.other, event.words)
        check_shown(state, docket.chain_id, docket.contract, shown, event.at)
    except Refused as refused:
        docket.fault(scope, 12, f"words of the tree of {demand.page.word.hex()}, in time", str(refused))
    docket.ended(event.demand, "shown", event.account)
    return True


def _judge_closing(state: FederationState, event: DemandClosed, scope: Scope, docket: Docket) -> bool:
    demand = _open_demand(state, event, scope, docket)
    if demand is None:
        return False
    page = demand.page
    try:
        silent = check_closed(state, CloseDemand(page), event.at)
        if event.silent != silent:
            docket.fault(scope, 12, f"a demand closed with silent = {silent}", str(event.silent))
    except Refused as refused:
        docket.fault(scope, 12, f"a demand closed after {demand.deadline}", f"at {event.at} ({refused})")
    docket.ended(event.demand, "silent" if event.silent else "closed")
    if event.silent:
        falls = []
        if page.kind not in LISTED:
            kind = AggregateRefuted if page.kind is Kind.AGGREGATE else ResultRefuted
            falls = [_falls(kind, scope, page.index)]
        slash = slash_due(state, page.index, scope, 6, challenger=demand.demander)
        docket.owe(event, *falls, *slash)
    return True


def _open_demand(
    state: FederationState, event: PageShown | DemandClosed, scope: Scope, docket: Docket
) -> Demand | None:
    demand = state.demands.get(event.demand)
    if demand is None or not demand.open:
        docket.fault(scope, 12, "an answer to a demand that is open, or its end", f"a {type(event).__name__} of none")
        return None
    return demand


def _falls(kind: type[AggregateRefuted] | type[ResultRefuted], scope: Scope, index: Index) -> Due:
    return Due.of(kind, 12, scope, round=scope.round, attempt=scope.attempt, group=0, index=index)


def _names(state: FederationState, members: int) -> str:
    return ", ".join(name_of(state, index) for index in members_of(members)) or "nobody"
