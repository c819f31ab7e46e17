"""Who may have spoiled the sets that opened and did not close: what the log alone tells (P5.14).

A spoiler deals another key than it encrypted under, or values out of range, and nothing shows whose it was. If it is
one member and spoils every set that it is in, then it was in all of them, and in no sum that closed since. Neither is
certain: a spoiler can behave while a certain other member is away, to have that one suspected. So this is told to
people, who may vote to remove a member, and no peer votes by it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from .ids import Bitmap
from .state import Attempt, FederationState


@dataclass(frozen=True, slots=True)
class Suspicion:
    """The spoiled sets, oldest first; who was in all of them; and who of those was in a sum that closed afterwards."""

    spoiled: tuple[Attempt, ...]
    always: Bitmap
    cleared: Bitmap

    @property
    def suspects(self) -> Bitmap:
        """Who of those that were in every spoiled set was in no sum that closed since."""
        return Bitmap(self.always & ~self.cleared)


def was_opened(attempt: Attempt) -> bool:
    """Whether t members opened the attempt's set."""
    return attempt.aggregate is not None and len(attempt.openings) >= attempt.threshold


def suspicion(
    state: FederationState,
    *,
    under_way: Attempt | None = None,
    is_spoiled: Callable[[Attempt], bool] = was_opened,
) -> Suspicion | None:
    """What the spoiled sets tell; None where there are none.

    A set that t members opened and t gave up counts as spoiled, where nobody can tell better. `under_way`: an attempt
    that is found to be spoiled and not given up yet.
    """
    given_up = [attempt for attempt in state.voided if attempt.aggregate is not None and is_spoiled(attempt)]
    spoiled = tuple(given_up if under_way is None else [*given_up, under_way])
    if not spoiled:
        return None
    sets = [_set_of(attempt) for attempt in spoiled]
    always = reduce(int.__and__, sets)
    first = min(attempt.aggregate.at for attempt in spoiled if attempt.aggregate is not None)
    closed = [a for a in state.closed.values() if a.aggregate is not None and a.aggregate.at > first]
    cleared = reduce(int.__or__, (_set_of(attempt) for attempt in closed), 0)
    return Suspicion(spoiled, Bitmap(always), Bitmap(always & cleared))


def _set_of(attempt: Attempt) -> int:
    assert attempt.aggregate is not None
    return attempt.aggregate.participants
