"""Which updates may be summed: the rules for a participant set U, and the set an honest aggregator chooses (P3)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb

from ..errors import Fault
from .ids import Bitmap, is_subset, size_of
from .phase import covering
from .state import Attempt, FederationState

_EXHAUSTIVE = 20_000


def check_participants(state: FederationState, attempt: Attempt, participants: Bitmap, offender: str = "") -> None:
    """Raise a Fault unless U may be locked: the twin of `commitAggregate`'s requirements.

    1. |U| is at least max(3, t+1). 2. Every participant committed. 3. At least t receipts cover U. 4. U leaves out
    nothing that every posted receipt holds to be whole.
    """
    terms = state.terms

    def refuse(check: str, expected: str, got: str) -> Fault:
        return Fault(check, offender=offender, round=attempt.round, expected=expected, got=got)

    if size_of(participants) < terms.min_participants:
        raise refuse("participants: too few", f"at least {terms.min_participants}", str(size_of(participants)))
    if not is_subset(participants, attempt.committed):
        raise refuse("participants: not committed", f"{attempt.committed:#b}", f"{participants:#b}")
    if len(covering(attempt, participants)) < terms.threshold:
        raise refuse(
            "participants: not covered by receipts",
            f"{terms.threshold} receipts",
            str(len(covering(attempt, participants))),
        )
    agreed = agreed_whole(attempt)
    if not is_subset(agreed, participants):
        raise refuse("participants: censored", f"at least {agreed:#b}", f"{participants:#b}")


def agreed_whole(attempt: Attempt) -> Bitmap:
    """The updates that every posted receipt holds to be whole: nobody may leave these out."""
    agreed = int(attempt.committed)
    for receipt in attempt.receipts.values():
        agreed &= receipt.whole
    return Bitmap(agreed)


def choose_participants(state: FederationState, attempt: Attempt) -> Bitmap | None:
    """The largest set that t receipts cover (ties: the smallest bitmap), or None if no set may be locked.

    Exhaustive over sets of t receipts while those are few; beyond that, by the receipts that hold the most.
    """
    t = state.terms.threshold
    receipts = [int(r.whole & attempt.committed) for _, r in sorted(attempt.receipts.items())]
    if len(receipts) < t:
        return None
    if comb(len(receipts), t) <= _EXHAUSTIVE:
        groups: Iterator[tuple[int, ...]] = combinations(receipts, t)
    else:
        widest = sorted(receipts, key=lambda r: -r.bit_count())
        groups = iter([tuple(widest[i : i + t]) for i in range(len(widest) - t + 1)])
    best: int | None = None
    for group in groups:
        shared = group[0]
        for receipt in group[1:]:
            shared &= receipt
        if best is None or (-shared.bit_count(), shared) < (-best.bit_count(), best):
            best = shared
    if best is None or size_of(best) < state.terms.min_participants:
        return None
    return Bitmap(best)
