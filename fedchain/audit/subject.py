"""One attempt at one round under audit: what the checks of that round share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..crypto import RoundContext
from ..errors import ObjectCorrupt, ObjectMissing
from ..protocol.charter import Charter
from ..protocol.ids import Address, Cid, Index, is_subset
from ..protocol.state import Attempt, FederationState
from .docket import name_of
from .ledger import Ledger, Scope
from .report import Complaint, Outcome, Refutation
from .shelf import Shelf


@dataclass(slots=True)
class Subject:
    """The attempt, the state that judges it, and the places to read from and write to.

    `fallen`: what of it fell on chain, in that order.
    """

    chain_id: int
    contract: Address
    state: FederationState
    attempt: Attempt
    outcome: Outcome
    charter: Charter | None
    shelf: Shelf
    ledger: Ledger
    fallen: tuple[Refutation, ...] = ()
    seen_bytes: int = 0
    """Bytes of this attempt's objects that the auditor saw."""

    right: dict[Refutation, bool] = field(default_factory=dict)
    """Of what fell, whether it was what the auditor computed itself."""

    complaints: list[Complaint] = field(default_factory=list)
    """What became of the complaints of this attempt."""

    _seen: set[Cid] = field(default_factory=set)

    @property
    def scope(self) -> Scope:
        return Scope(self.attempt.round, self.attempt.attempt)

    @property
    def context(self) -> RoundContext:
        """What keys and public polynomials of this attempt are bound to: the model on chain, whatever made it."""
        return RoundContext(
            chain_id=self.chain_id,
            contract=self.contract,
            round=self.attempt.round,
            attempt=self.attempt.attempt,
            model_digest=self.attempt.base_digest,
        )

    @property
    def kept(self) -> bool:
        """Whether the members still owe its objects to the world (the charter's storage.keep_rounds)."""
        rounds = self.charter.storage.keep_rounds if self.charter else 0
        recent = self.attempt.round > len(self.state.closed) - rounds
        return recent and self.outcome not in ("abandoned", "forgotten")

    def name(self, index: Index) -> str:
        return name_of(self.state, index)

    def fault(self, number: int, index: Index, expected: str, got: str) -> None:
        """A member broke a rule in this attempt."""
        self.ledger.fault(self.scope, number, offender=self.name(index), expected=expected, got=got)

    def block(self, number: int, reason: str) -> None:
        self.ledger.block(self.scope, number, reason)

    def owed(self, index: Index) -> bool:
        """Whether a member's upload must still be there: it counts in a locked sum that is not long past (P2)."""
        locked = self.attempt.aggregate
        return self.kept and locked is not None and is_subset(1 << index, locked.participants)

    def fetch(self, cid: Cid, max_bytes: int, what: str, author: Index, *, owed: bool) -> Path | None:
        """One object as a file, or None, written down under check 4.

        A missing object that is owed is a fault of availability, by the member that committed to it: nobody else named
        the object. One that is not owed any more, or not yet, only leaves the check undone.
        """
        try:
            path = self.shelf.file(cid, max_bytes)
        except (ObjectMissing, ObjectCorrupt) as error:
            corrupt = isinstance(error, ObjectCorrupt)
            if owed:
                got = f"other bytes, or more: {error}" if corrupt else f"unavailable: {error}"
                self.fault(4, author, f"{what} {cid}, at most {max_bytes} bytes", got)
            self.block(4, f"{what} of {self.name(author)} is {'corrupt in the store' if corrupt else 'unavailable'}")
            return None
        if cid not in self._seen:
            self._seen.add(cid)
            self.seen_bytes += path.stat().st_size
        return path
