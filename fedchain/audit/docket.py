"""What one replay of the log carries along beside the state: what must come next, and what the report will tell."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Literal

from eth_utils.address import to_checksum_address

from ..ports import Logged
from ..protocol.charter import Charter
from ..protocol.events import Event, Motion, MotionVoted, PageDemanded
from ..protocol.ids import Address, Digest, Index
from ..protocol.pages import Kind
from ..protocol.state import Ballot, FederationState
from .ledger import Ledger, Scope
from .report import Demanded, Refutation, Slash, Voting

CONTRACT = "the contract"
"""The offender where only the contract itself can have let something pass."""

Ending = Literal["shown", "silent", "closed"]

_MOTIONS: dict[Motion, Literal["admit", "remove", "abandon", "refuse"]] = {
    Motion.ADMIT: "admit",
    Motion.REMOVE: "remove",
    Motion.ABANDON: "abandon",
    Motion.REFUSE: "refuse",
}

_KINDS: dict[Kind, Literal["ciphertext", "aggregate", "opening", "key sum", "result"]] = {
    Kind.CIPHERTEXT: "ciphertext",
    Kind.AGGREGATE: "aggregate",
    Kind.OPENING: "opening",
    Kind.KEY_SUM: "key sum",
    Kind.RESULT: "result",
}


def name_of(state: FederationState, index: Index) -> str:
    """A member's address, or "member 9" where there is none."""
    return state.accounts[index] if 0 <= index < len(state.accounts) else f"member {index}"


@dataclass(frozen=True, slots=True)
class Due:
    """An event that must come next, in the same transaction: of this kind, saying this; `number` is whose check."""

    kind: type[Event]
    says: tuple[tuple[str, object], ...]
    number: int
    scope: Scope

    @classmethod
    def of(cls, kind: type[Event], number: int, scope: Scope, **says: object) -> Due:
        """What must come; a set stands for any of its members."""
        return cls(kind, tuple(says.items()), number, scope)

    def is_met_by(self, event: Event) -> bool:
        """Whether the event is the one."""
        if not isinstance(event, self.kind):
            return False
        said = ((getattr(event, name), value) for name, value in self.says)
        return all(got in value if isinstance(value, frozenset) else got == value for got, value in said)

    def in_words(self) -> str:
        """MemberSlashed (index 3, rule 6)."""
        return f"{self.kind.__name__} ({', '.join(f'{name} {_word(value)}' for name, value in self.says)})"


@dataclass(slots=True)
class Docket:
    """The replay's notes. `chain_id` and `contract`: whose log it is; `ledger`: where faults are written down."""

    chain_id: int
    contract: Address
    charter: Charter | None
    ledger: Ledger
    refutations: list[Refutation] = field(default_factory=list)
    votings: list[Voting] = field(default_factory=list)
    demands: dict[Digest, Demanded] = field(default_factory=dict)
    keys: dict[Index, int] = field(default_factory=dict)
    """How many X25519 keys each member has registered."""
    paid_in_wei: int = 0
    paid_out_wei: int = 0
    burnt_wei: int = 0

    _due: deque[Due] = field(default_factory=deque)
    _transaction: bytes = b""
    _cause: Event | None = None
    _open: dict[Ballot, int] = field(default_factory=dict)

    def fault(self, scope: Scope, number: int, expected: str, got: str, offender: str = CONTRACT) -> None:
        """A rule was broken: by the contract, unless somebody else could."""
        self.ledger.fault(scope, number, offender=offender, expected=expected, got=got)

    def owe(self, cause: Event, *due: Due) -> None:
        """Because of an event that was judged, these must follow it, in this order."""
        self._due.extend(due)
        self._cause = cause

    def is_due(self, entry: Logged) -> bool:
        """Whether this entry is what had to come next; if something else had to, that is written down as a fault."""
        before, self._transaction = self._transaction, entry.transaction
        if not self._due:
            return False
        if entry.transaction == before and self._due[0].is_met_by(entry.event):
            self._due.popleft()
            return True
        where = "of the same transaction" if entry.transaction == before else "of another transaction"
        self.settle(f"a {type(entry.event).__name__} {where}")
        return False

    def settle(self, instead: str) -> None:
        """Whatever was due and has not come will not come any more."""
        for due in self._due:
            cause = type(self._cause).__name__
            self.fault(due.scope, due.number, f"{due.in_words()} right after {cause}", instead)
        self._due.clear()

    @property
    def cause(self) -> Event | None:
        """What brought about the event that was due."""
        return self._cause

    def fell(self, refutation: Refutation) -> None:
        """A statement fell, or its author."""
        self.refutations.append(refutation)

    def slashed(self, slash: Slash) -> None:
        """What fell last cost its author this."""
        self.refutations[-1] = replace(self.refutations[-1], slash=slash)

    def restated(self, round: int, attempt: int, index: Index) -> None:
        """A member posted a sum anew: the one that fell last in this place."""
        for i in reversed(range(len(self.refutations))):
            fallen = self.refutations[i]
            if (fallen.what, fallen.round, fallen.attempt) == ("aggregate", round, attempt):
                self.refutations[i] = replace(fallen, restated_by=index)
                return

    def voted(self, state: FederationState, event: MotionVoted, ballot: Ballot, *, carried: bool) -> None:
        """A member voted on something; with this vote it may be carried."""
        if ballot not in self._open:
            self._open[ballot] = len(self.votings)
            subject = _subject(state, event)
            self.votings.append(Voting(_MOTIONS[event.motion], event.round, event.attempt, subject, ()))
        place = self._open[ballot]
        voters = (*self.votings[place].voters, event.index)
        self.votings[place] = replace(self.votings[place], voters=voters, carried_at=event.at if carried else None)
        if carried:
            del self._open[ballot]

    def demanded(self, event: PageDemanded) -> None:
        """Somebody demanded a page."""
        page = event.page
        place = page.round, page.attempt, page.index, page.level, page.position
        self.demands[event.demand] = Demanded(
            _KINDS[page.kind], *place, demander=event.demander, at=event.at, deadline=event.deadline
        )

    def ended(self, demand: Digest, outcome: Ending, by: Address | None = None) -> None:
        """A demand was answered, or closed."""
        self.demands[demand] = replace(self.demands[demand], outcome=outcome, by=by)


def _subject(state: FederationState, event: MotionVoted) -> str:
    match event.motion:
        case Motion.ADMIT:
            return to_checksum_address(event.subject[-20:])
        case Motion.REMOVE:
            return name_of(state, Index(int.from_bytes(event.subject, "big")))
        case Motion.ABANDON:
            return ""
        case Motion.REFUSE:
            return event.subject.hex()


def _word(value: object) -> str:
    match value:
        case bytes():
            return value.hex()
        case frozenset():
            return " or ".join(sorted(map(str, value)))
        case _:
            return str(value)
