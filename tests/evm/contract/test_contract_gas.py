"""What each statement costs in gas, and that it stays so: `pytest -s` prints the table of contracts/README.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Found = Callable[..., Any]


def gas(receipt: dict[str, Any]) -> int:
    return int(receipt["gasUsed"], 16)


def test_a_round_costs_what_the_readme_says(found: Found) -> None:
    """Ten members, the second round: the first of an attempt to speak pays for the word that the others rewrite."""
    federation = found(10, threshold=6)
    deploy = gas(federation.deployment)
    enrol = max(gas(federation.enrol(member)) for member in range(10))
    federation.finish_round()
    commits = [gas(federation.commit(member, 2)) for member in range(10)]
    whole = federation.everyone()
    receipts = [gas(federation.receipt(member, whole if member else whole ^ 1, 2)) for member in range(10)]
    aggregate = gas(federation.aggregate(1, whole, 2))
    openings = [gas(federation.open(member, 2)) for member in range(10)]
    result = gas(federation.close(0, 2))
    vote = gas(federation.send(0, "voteToStop", 3))
    table = {
        "deploy (10 founders)": (deploy, 3_600_000),
        "enrol": (enrol, 70_000),
        "commitUpdate, first": (commits[0], 70_000),
        "commitUpdate": (max(commits[1:]), 50_000),
        "postReceipt, first, with a complaint": (receipts[0], 90_000),
        "postReceipt": (max(receipts[1:]), 50_000),
        "commitAggregate": (aggregate, 140_000),
        "publishOpening, first": (openings[0], 80_000),
        "publishOpening": (max(openings[1:]), 60_000),
        "commitResult": (result, 175_000),
        "voteToStop": (vote, 75_000),
        "a round of 10, all of it": (sum(commits + receipts + openings) + aggregate + result, 2_000_000),
    }
    print()
    for what, (used, bound) in table.items():
        print(f"| {what} | {used:,} |")
        assert used < bound, what


def test_a_federation_of_64_fits_into_a_block(start_anvil: Callable[..., Any], found: Found) -> None:
    """The worst case of the one loop over members: 64 receipts, half of them with a complaint."""
    federation = found(64, on=start_anvil(accounts=64), threshold=33)
    federation.all_enrol().all_commit()
    for member in range(64):
        federation.receipt(member, federation.everyone() ^ (1 << 63 if member % 2 else 0))
    aggregate = gas(federation.aggregate(0, federation.everyone() ^ 1 << 63))
    deploy = gas(federation.deployment)
    print(f"\n| commitAggregate with 64 members | {aggregate:,} |\n| deploy with 64 founders | {deploy:,} |")
    assert aggregate < 250_000
    assert deploy < 7_000_000
