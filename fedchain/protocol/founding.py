"""Whether a contract was founded as its charter says: the founders, the windows, the threshold, the stakes.

The digest alone does not say so: whoever deploys writes both the digest and the terms, and could name founders of its
own under a charter that names others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .charter import Charter
from .events import Terms

GWEI = 10**9


def disagreements(charter: Charter, terms: Terms, founders: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Every entry in which contract and charter differ: (entry, what the charter says, what the contract says).

    The charter's digest and the first model are compared by whoever has their bytes.
    """
    named, founded = [m.lower() for m in charter.federation.members], [f.lower() for f in founders]
    if named != founded:
        yield "federation.members", ", ".join(named), ", ".join(founded)
    for entry, agreed, deployed in (
        ("run.rounds", charter.run.rounds, terms.rounds),
        ("committee.threshold", charter.threshold, terms.threshold),
        ("windows.enrol_s", charter.windows.enrol_s, terms.enrol_window_s),
        ("windows.training_s", charter.windows.training_s, terms.training_window_s),
        ("windows.receipt_s", charter.windows.receipt_s, terms.receipt_window_s),
        ("windows.aggregate_s", charter.windows.aggregate_s, terms.aggregate_window_s),
        ("windows.challenge_s", charter.windows.challenge_s, terms.challenge_window_s),
        ("windows.close_s", charter.windows.close_s, terms.close_window_s),
        ("stake.bond_gwei × 10^9", charter.stake.bond_gwei * GWEI, terms.bond_wei),
    ):
        if agreed != deployed:
            yield entry, str(agreed), str(deployed)
