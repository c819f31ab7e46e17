"""What each statement costs in gas, and that contracts/README.md says so: `pytest -s` prints its table anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Found = Callable[..., Any]
Tells = Callable[[dict[str, int]], None]


def gas(receipt: dict[str, Any]) -> int:
    return int(receipt["gasUsed"], 16)


def test_a_round_costs_what_the_readme_says(found: Found, readme_tells: Tells) -> None:
    """Ten members, the second round: the first of an attempt to speak pays for the word that the others rewrite."""
    federation = found(10, threshold=6)
    enrolments = [gas(federation.enrol(member)) for member in range(10)]
    federation.finish_round()
    whole = federation.everyone()
    commits = [gas(federation.commit(member, 2)) for member in range(10)]
    receipts = [gas(federation.receipt(member, whole if member else whole ^ 1, 2)) for member in range(10)]
    aggregate = gas(federation.aggregate(1, whole, 2))
    openings = [gas(federation.open(member, 2)) for member in range(10)]
    result = gas(federation.close(0, 2))
    federation.commit(0, 3)
    readme_tells(
        {
            "deploy (10 founders)": gas(federation.deployment),
            "enrol": max(enrolments),
            "commitUpdate, first of an attempt": commits[0],
            "commitUpdate": max(commits[1:]),
            "postReceipt, first of an attempt, one update left out": receipts[0],
            "postReceipt": max(receipts[1:]),
            "complain, first of an attempt": gas(federation.send(0, "complain", 3, 0, 1, b"\x01" * 32)),
            "commitAggregate": aggregate,
            "publishOpening, first": openings[0],
            "publishOpening": max(openings[1:]),
            "commitResult": result,
            "voteToStop": gas(federation.stop(0, 3)),
            "a round of 10, everyone speaks": sum(commits + receipts + openings) + aggregate + result,
        }
    )
    assert max(commits[1:] + receipts[1:]) < 50_000


def test_a_round_in_batches_costs_what_the_readme_says(found: Found, readme_tells: Tells) -> None:
    """The same ten members and round: what all of them say, in one transaction of anyone's."""
    federation = found(10, threshold=6).all_enrol().finish_round()
    whole, said = federation.everyone(), [bytes([member + 1]) * 32 for member in range(10)]
    lines = [(word, word, word, federation.line(i, "Update", 2, 0, word, word, word)) for i, word in enumerate(said)]
    updates = gas(federation.send(0, "commitUpdates", 2, 0, lines))
    lines = [(whole, federation.line(i, "Receipt", 2, 0, whole)) for i in range(10)]
    receipts = gas(federation.send(0, "postReceipts", 2, 0, lines))
    aggregate = gas(federation.aggregate(1, whole, 2))
    lines = [(word, word, federation.line(i, "Opening", 2, 0, 0, whole, word, word)) for i, word in enumerate(said)]
    openings = gas(federation.send(0, "publishOpenings", 2, 0, 0, lines))
    result = gas(federation.close(0, 2))
    readme_tells(
        {
            "commitUpdates, 10 lines": updates,
            "postReceipts, 10 lines": receipts,
            "publishOpenings, 10 lines": openings,
            "a round of 10 in batches": updates + receipts + aggregate + openings + result,
        }
    )


def test_votes_cost_what_the_readme_says(found: Found, readme_tells: Tells) -> None:
    """The first vote of a ballot, the next ones, and the one that carries it."""
    federation = found(10, threshold=6).all_enrol().finish_round()
    newcomer = "0x" + "77" * 20
    votes = [gas(federation.send(member, "voteToAdmit", newcomer)) for member in range(6)]
    federation.lock_round(2)
    abandoned = [gas(federation.send(member, "voteToAbandon", 2, 0)) for member in range(6)]
    refused = [gas(federation.send(member, "voteToRefuse", 1, federation.call("model"))) for member in range(6)]
    readme_tells(
        {
            "a vote, first of its ballot": max(votes[0], abandoned[0], refused[0]),
            "a vote": max(votes[1:5] + abandoned[1:5] + refused[1:5]),
            "voteToAdmit, the last": votes[5],
            "voteToAbandon, the last": abandoned[5],
            "voteToRefuse, the last": refused[5],
        }
    )


def test_a_federation_of_64_fits_into_a_block(
    start_anvil: Callable[..., Any], found: Found, readme_tells: Tells
) -> None:
    """The worst case of the one loop over members: 64 receipts, half of them without an update."""
    federation = found(64, on=start_anvil(accounts=64), threshold=33)
    federation.all_enrol().all_commit()
    for member in range(64):
        federation.receipt(member, federation.everyone() ^ (1 << 63 if member % 2 else 0))
    aggregate = gas(federation.aggregate(0, federation.everyone() ^ 1 << 63))
    readme_tells({"commitAggregate with 64 members": aggregate, "deploy with 64 founders": gas(federation.deployment)})
