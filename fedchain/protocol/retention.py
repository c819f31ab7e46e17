"""What a member must still keep: its X25519 keys (P0.8), and the results that it may have to answer for (P5.12)."""

from __future__ import annotations

from collections.abc import Collection

from ..errors import UsageError
from .ids import Index, Root
from .phase import live_attempt
from .state import FederationState


def needed_keys(state: FederationState, index: Index, now: int) -> frozenset[bytes]:
    """The public keys of a member that shares may have to be opened with, now or later.

    1. The one that it registered last. 2. That of the attempt under way. 3. Those of rounds that were closed less than
    a challenge window ago: if their result falls, they may want another opening. (What falls later has its t openings
    on chain.)
    """
    attempts = [state.current, live_attempt(state, now)]
    for closed in state.closed.values():
        assert closed.result is not None
        if now < closed.result.at + state.terms.challenge_window_s:
            attempts.append(closed)
    needed = {attempt.members[index].encryption_key for attempt in attempts if attempt and index in attempt.members}
    if index in state.members:
        needed.add(state.members[index].encryption_key)
    return frozenset(needed)


def unowed_results(state: FederationState, now: int) -> frozenset[tuple[Root, Root]]:
    """The roots (S, decoded sum) of the closed rounds of which nobody may have to show a page any more (P5.12).

    A result is demanded within a challenge window of its post, and shown within an answer window of that.
    """
    owed_s = state.terms.challenge_window_s + state.terms.answer_window_s
    results = (attempt.result for attempt in state.closed.values())
    return frozenset((r.key_sum_root, r.result_root) for r in results if r is not None and now >= r.at + owed_s)


def check_registered(state: FederationState, index: Index, publics: Collection[bytes]) -> None:
    """Raise UsageError if a member registered another encryption key than these: it could open nothing dealt to it."""
    if index in state.members and state.members[index].encryption_key not in publics:
        raise UsageError("this member is enrolled with another encryption key; use the key file it enrolled with")
