"""Whose turn it is where the contract takes a statement from anybody: turns only save everyone gas.

One member may speak at once, the next a while later, and so on round the members who count, so that nobody's silence
stops anything. Members that were slashed are passed over.
"""

from __future__ import annotations

from ..protocol.ids import Index
from ..protocol.state import Attempt, FederationState


def turn_at(state: FederationState, attempt: Attempt, me: Index, *, since: int, first: Index) -> int:
    """From when member `me` may speak of something that stands `since` then; `first` has the first turn."""
    return since + _place(state, attempt, me, first) * state.terms.aggregate_window_s


def challenge_at(state: FederationState, attempt: Attempt, me: Index, *, since: int, liar: Index) -> int:
    """From when member `me` may challenge what `liar` said at `since`; within the challenge window everybody may."""
    step = min(state.terms.aggregate_window_s, state.terms.challenge_window_s // len(state.accounts))
    return since + _place(state, attempt, me, Index(liar + 1)) * step


def _place(state: FederationState, attempt: Attempt, me: Index, first: Index) -> int:
    order = [index for index in attempt.order if state.heard >> index & 1]
    order.sort(key=lambda index: (index - first) % len(state.accounts))
    # Who has joined since comes after all who were there.
    return order.index(me) if me in order else len(order)
