"""How long this peer may train in a round, so that its update is there in time (adaptive local steps).

A slow machine makes fewer steps instead of missing the deadline; one that missed it all the same takes half as long
the next time. So nobody is left out for being slow, and nobody waits for the slowest machine's full epochs.
"""

from __future__ import annotations

import math

from ..protocol.charter import Algorithm
from ..protocol.ids import Index
from ..protocol.state import Attempt, FederationState

_FIRST_RESERVE = 0.25
"""Part of the training window left for encrypting and committing, before it is known how long that takes here."""

_LEAST_RESERVE = 0.1
_SAFETY = 1.5


class Pace:
    """One peer's measure of itself, in this process."""

    def __init__(self) -> None:
        self._overhead_s: float | None = None

    def note(self, overhead_s: float) -> None:
        """Remember what came after the training, until the commitment was made (seconds)."""
        self._overhead_s = max(overhead_s, self._overhead_s or 0.0)

    def budget_s(self, algorithm: Algorithm, state: FederationState, attempt: Attempt, now: int, me: Index) -> float:
        """Seconds to train in this attempt from now on; no bound where the charter fixes the local steps."""
        if algorithm.local_steps == "fixed":
            return math.inf
        window = state.terms.training_window_s
        reserve = _FIRST_RESERVE * window
        if self._overhead_s is not None:
            reserve = max(_LEAST_RESERVE * window, _SAFETY * self._overhead_s)
        left = max(0.0, attempt.started_at + window - now - reserve)
        return min(algorithm.budget_s or math.inf, left) * 0.5 ** missed(state, me)


def missed(state: FederationState, me: Index) -> int:
    """How many of the newest closed rounds on end went by without this member's update, though it stood in them."""
    count = 0
    for round in range(len(state.closed), 0, -1):
        attempt = state.closed[round]
        counted = attempt.aggregate is not None and attempt.aggregate.participants >> me & 1
        if counted or not attempt.standing >> me & 1:
            break
        count += 1
    return count
