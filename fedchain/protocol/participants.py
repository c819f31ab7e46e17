"""Which updates may be summed: the rules for a participant set U, and the set an honest aggregator chooses (P3)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
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
    nothing that must be in it. 5. No set that was given up on the same model is too close.
    """
    threshold, least = attempt.threshold, attempt.min_participants

    def refuse(check: str, expected: str, got: str) -> Fault:
        return Fault(check, offender=offender, round=attempt.round, expected=expected, got=got)

    if size_of(participants) < least:
        raise refuse("participants: too few", f"at least {least}", str(size_of(participants)))
    if not is_subset(participants, attempt.committed):
        raise refuse("participants: not committed", f"{attempt.committed:#b}", f"{participants:#b}")
    covered = len(covering(attempt, participants))
    if covered < threshold:
        raise refuse("participants: not covered by receipts", f"{threshold} receipts", str(covered))
    agreed = owed_a_place(state, attempt)
    if not is_subset(agreed, participants):
        raise refuse("participants: censored", f"at least {agreed:#b}", f"{participants:#b}")
    close = too_close(state, attempt, participants)
    if close is not None:
        expected = f"{close:#b}, or more than {threshold} members apart from it, and no third set"
        raise refuse("participants: too close to a set that was given up", expected, f"{participants:#b}")


def too_close(state: FederationState, attempt: Attempt, participants: int) -> Bitmap | None:
    """A set that was given up on the same model, and that keeps U from being locked (P3.8); None if none does.

    One from which U differs in some members, but no more than t: a difference of two sums is a sum, and t colluding
    members could read it. Or one more that is neither U nor the other: three sums may combine to a sum of few, however
    far apart they are. Who was removed by vote does not count; who was slashed does: it may have been honest and away.
    """
    other = 0
    for given_up in state.abandoned.get(attempt.base_digest, ()):
        apart = (given_up ^ participants) & ~state.removed
        if not apart:
            continue
        if size_of(apart) <= attempt.threshold or other not in (0, apart):
            return given_up
        other = apart
    return None


def liars_in_the_way(state: FederationState, attempt: Attempt) -> Bitmap:
    """Who was proven to have lied, and keeps a set from being locked here: in one that was given up, and not removed.

    A set without it would be too close to that one; once it is removed by vote, its update is what the lie cost it.
    """
    hidden = reduce(int.__or__, state.abandoned.get(attempt.base_digest, ()), 0)
    return Bitmap(hidden & state.lied & ~state.removed & ~attempt.committed)


def owed_a_place(state: FederationState, attempt: Attempt) -> Bitmap:
    """The updates that nobody may leave out: whole by every posted receipt, and nobody complained of them.

    One receipt is enough to leave an update out, and so is one complaint: it may show what no receipt says. Once a set
    was given up on this model, only those within the newest one: a set just beside it is too close to it.
    """
    agreed = Bitmap(agreed_whole(attempt) & ~attempt.complained)
    for given_up in state.abandoned.get(attempt.base_digest, ())[-1:]:
        agreed = Bitmap(agreed & given_up)
    return agreed


def agreed_whole(attempt: Attempt) -> Bitmap:
    """The updates that every posted receipt holds to be whole."""
    agreed = int(attempt.committed)
    for receipt in attempt.receipts.values():
        agreed &= receipt.whole
    return Bitmap(agreed)


def choose_participants(state: FederationState, attempt: Attempt, *, without: Bitmap = Bitmap(0)) -> Bitmap | None:
    """The largest set that t receipts cover (ties: the smallest bitmap), or None if no set may be locked.

    Nobody of `without` is in it: the dealers whom evidence names (P2.6).

    Exhaustive over sets of t receipts while those are few; beyond that, by the receipts that hold the most. After a set
    was given up on this model, the part of each that lies within it is a candidate too: nobody outside has to be in U.
    """
    t = attempt.threshold
    receipts = [int(r.whole & attempt.committed) for _, r in sorted(attempt.receipts.items())]
    if len(receipts) < t:
        return None
    if comb(len(receipts), t) <= _EXHAUSTIVE:
        groups: Iterator[tuple[int, ...]] = combinations(receipts, t)
    else:
        widest = sorted(receipts, key=lambda r: -r.bit_count())
        groups = iter([tuple(widest[i : i + t]) for i in range(len(widest) - t + 1)])
    covered = {reduce(int.__and__, group) & ~without for group in groups}
    for given_up in state.abandoned.get(attempt.base_digest, ())[-1:]:
        covered |= {shared & given_up for shared in covered}
    allowed = (shared for shared in covered if _may_be_locked(state, attempt, shared))
    best = min(allowed, key=lambda participants: (-participants.bit_count(), participants), default=None)
    return None if best is None else Bitmap(best)


def _may_be_locked(state: FederationState, attempt: Attempt, covered: int) -> bool:
    """Whether a set of committed updates that t receipts cover meets the other rules."""
    large, whole = size_of(covered) >= attempt.min_participants, is_subset(owed_a_place(state, attempt), covered)
    return large and whole and too_close(state, attempt, covered) is None
