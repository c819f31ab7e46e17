"""Who sees what, in each of the three ways: what follows from the charter, not from a measurement."""

from __future__ import annotations

from ..protocol.charter import Charter
from ..protocol.events import least_participants


def exposures(charter: Charter) -> tuple[tuple[str, str, str, str], ...]:
    """Rows of (question, centralised, federated, each alone), for a charter that names its members."""
    members, threshold = len(charter.federation.members), charter.threshold
    least = least_participants(threshold)
    privacy = charter.privacy
    noise = "none: the average may tell something about the rows behind it"
    if privacy.mode != "none":
        protected = "single rows" if privacy.mode == "records" else "whole members"
        noise = f"of {protected}: ε at most {privacy.epsilon:g} at δ {privacy.delta:g} for the whole run"
    return (
        (
            "whose rows leave their owner",
            "everybody's, to whoever trains",
            "nobody's",
            "nobody's",
        ),
        (
            "who can read one member's update",
            "there are none",
            f"any {threshold} of the {members} members together; fewer learn nothing but the sum",
            "there are none",
        ),
        (
            "the smallest sum that is ever opened",
            "–",
            f"of {least} members' updates",
            "–",
        ),
        (
            "who gets the model",
            "whoever trains it",
            "every member, and whoever reaches the store",
            "its owner",
        ),
        (
            "who can check how it came about",
            "whoever trains it",
            "anybody, with no key",
            "its owner",
        ),
        ("differential privacy of the model", "none", noise, "none"),
        (
            "what stays public for good",
            "nothing",
            "who took part when, weights, digests; no rows, no updates",
            "nothing",
        ),
    )
