"""Where the checks write down what they find: every fault, and every reason why a check could not be made."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import Evidence, Fault
from .report import FEDERATION_CHECKS, Check, Status, check_name


class Scope(NamedTuple):
    """What a finding is about: one attempt at one round, or (0, 0): the federation as a whole."""

    round: int
    attempt: int


FEDERATION = Scope(0, 0)

_MOST_CHARACTERS = 600


def printable(text: str) -> str:
    """Text that a terminal can be shown: some of it was written by whoever is audited."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: _MOST_CHARACTERS + 1])
    return shown if len(shown) <= _MOST_CHARACTERS else shown[:_MOST_CHARACTERS] + "…"


@dataclass(slots=True)
class _Findings:
    faults: list[Evidence] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    pending: str = ""
    notes: list[str] = field(default_factory=list)


class Ledger:
    """Collects findings by scope and check; nothing that is written here stops the audit."""

    def __init__(self) -> None:
        self._findings: defaultdict[tuple[Scope, int], _Findings] = defaultdict(_Findings)

    def fault(self, scope: Scope, number: int, *, offender: str, expected: str, got: str) -> None:
        """A rule was broken. A check of the whole federation is told there, whatever round it speaks of."""
        evidence = Evidence(check_name(number), scope.round, printable(offender), printable(expected), printable(got))
        faults = self._findings[FEDERATION if number in FEDERATION_CHECKS else scope, number].faults
        if evidence not in faults:
            faults.append(evidence)

    def raised(self, scope: Scope, number: int, fault: Fault, offender: str = "") -> None:
        """A check of another layer raised this fault: its own rule's name becomes part of what was found."""
        e = fault.evidence
        got = f"{e.got} ({e.check})" if e.got else e.check
        self.fault(scope, number, offender=offender or e.offender, expected=e.expected or "the rule", got=got)

    def block(self, scope: Scope, number: int, reason: str) -> None:
        """The check could not be made, wholly or in part."""
        reasons, reason = self._findings[scope, number].blocked, printable(reason)
        if reason not in reasons:
            reasons.append(reason)

    def defer(self, scope: Scope, number: int, reason: str) -> None:
        """The check is not due yet."""
        self._findings[scope, number].pending = reason

    def note(self, scope: Scope, number: int, text: str) -> None:
        """Something a reader wants to know beside a check that passed."""
        self._findings[scope, number].notes.append(text)

    def is_blocked(self, scope: Scope, number: int) -> bool:
        """Whether a check could not be made, wholly or in part, whatever else it found."""
        return bool(self._findings[scope, number].blocked)

    def check(self, scope: Scope, number: int) -> Check:
        """How a check ended: a fault outweighs what could not be looked at, that outweighs what is not due."""
        found = self._findings[scope, number]
        if found.faults:
            count = len(found.faults)
            return Check(number, Status.FAULT, "; ".join([f"{count} fault{'s' * (count > 1)}", *found.blocked]))
        if found.blocked:
            return Check(number, Status.NOT_POSSIBLE, "; ".join(found.blocked))
        if found.pending:
            return Check(number, Status.PENDING, found.pending)
        return Check(number, Status.PASSED, "; ".join(found.notes))

    def faults(self) -> tuple[Evidence, ...]:
        """Every fault, by round and check; those of the whole federation first."""
        ordered = sorted(self._findings.items(), key=lambda entry: entry[0])
        return tuple(evidence for _, found in ordered for evidence in found.faults)
