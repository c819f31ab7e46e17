"""What each challenge costs for a model of a million parameters, and that contracts/README.md says so.

`pytest -s` prints the table anew. Trees of that size are not built here: a leaf and any siblings make a root, and the
contract cannot tell.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from fedchain.crypto.parameters import SHARE_PRIME, Q
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.merkle import fold, hash_leaf, hash_leaves, prove, root_of

MODEL_SIZE, LEAF, DEPTH, KEY_DEPTH = 1_000_000, 7_000, 13, 5
LARGEST_TRANSACTION = 128 * 1024  # what geth's pool takes
MOST_GAS = 2**24  # of a transaction (EIP-7825)

Found = Callable[..., Any]
Tells = Callable[[dict[str, int]], None]


class Claim:
    """A leaf, and its place in a tree of which nothing else is known."""

    def __init__(self, numbers: Any, leaf: int, depth: int, chosen: random.Random) -> None:
        content = np.array(numbers, dtype="<u8").tobytes()
        path = [chosen.randbytes(32) for _ in range(depth)]
        self.root = fold(hash_leaf(content), leaf, path)
        self.proof = [content[i : i + 32] for i in range(0, 512, 32)] + path


def costs(federation: Any) -> dict[str, int]:
    """The gas of R1 to R4 against a round in which every number is wrong; R2 and R3 are tried, and not carried out."""
    chosen = random.Random(1)
    members, t = range(len(federation.founders)), federation.terms["threshold"]
    place = federation.chain.chain_id, federation.address, 1, 0
    residues = {i: [chosen.randrange(Q) for _ in range(64)] for i in members}
    residues[0][63] = Q
    updates = {i: Claim(residues[i], LEAF, DEPTH, chosen) for i in members}
    shares = {i: chosen.randbytes(32) for i in members}
    commits = {i: update_commitment(*place, federation.founders[i], updates[i].root, shares[i]) for i in members}
    for i in members:
        federation.send(i, "commitUpdate", 1, 0, commits[i], b"\x01" * 32, b"\x02" * 32)
    federation.all_post()
    aggregate, result = (Claim([chosen.randrange(Q) for _ in range(64)], LEAF, DEPTH, chosen) for _ in range(2))
    basis = federation.call("commitmentsOf", 1, 0)
    federation.send(0, "commitAggregate", 1, 0, 0, federation.everyone(), basis, aggregate.root, b"\x03" * 32)
    openings = {i: Claim([chosen.randrange(SHARE_PRIME) for _ in range(64)], 31, KEY_DEPTH, chosen) for i in members}
    for i in members:
        federation.send(i, "publishOpening", 1, 0, 0, openings[i].root, b"\x04" * 32)

    bound = 42 * len(federation.founders)
    s = np.array([chosen.randrange(-bound, bound) % SHARE_PRIME for _ in range(2048)])
    hashes = hash_leaves(s.astype("<u8").tobytes(), 512)
    key_sum = Claim(s[-64:], 31, 0, chosen)
    key_sum.root, key_sum.proof = root_of(hashes), [*key_sum.proof, *prove(hashes, 31)]
    words = (key_sum.root, result.root, b"\x05" * 32, b"\x06" * 32, b"\x07" * 32)
    federation.send(1, "commitResult", 1, 0, 0, federation.openers(), federation.call("basisOf", 1, 0), *words)

    listed = [(i, shares[i]) for i in members]
    sums = [word for i in members for word in updates[i].proof]
    opened = [(i, bytes(32) if i < t else openings[i].root) for i in members]
    combined = [word for i in members if i < t for word in openings[i].proof]
    challenges = {
        "challengeKeySum": (1, 0, 31, opened, key_sum.proof + combined),
        "challengeResult": (1, 0, 64 * LEAF + 5, s.astype("<u2").tobytes(), listed, result.proof + sums),
        "challengeResidue": (
            1,
            0,
            0,
            LEAF,
            [(0, shares[0]), *((i, commits[i]) for i in members if i)],
            updates[0].proof,
        ),
        "challengeAggregate": (1, 0, LEAF, listed, aggregate.proof + sums),
    }
    figures = {}
    for name, arguments in challenges.items():
        data = federation.encode(name, *arguments)
        assert len(data) // 2 < LARGEST_TRANSACTION
        snapshot = federation.chain.remember()
        figures[name] = int(federation.transact(federation.founders[2], data, federation.address)["gasUsed"], 16)
        federation.chain.take_back(snapshot)
    return figures


def test_challenges_with_10_members_cost_what_the_readme_says(found: Found, readme_tells: Tells) -> None:
    figures = costs(found(10, threshold=6, modelSize=MODEL_SIZE).all_enrol())
    readme_tells({f"{name}, 10 members": figure for name, figure in figures.items()})
    assert figures["challengeAggregate"] <= 450_000
    assert figures["challengeResult"] <= 1_500_000


def test_challenges_with_64_members_fit_into_a_transaction(
    found: Found, start_anvil: Callable[..., Any], readme_tells: Tells
) -> None:
    federation = found(64, on=start_anvil(accounts=64), threshold=33, modelSize=MODEL_SIZE).all_enrol()
    figures = costs(federation)
    readme_tells({f"{name}, 64 members": figure for name, figure in figures.items()})
    assert max(figures.values()) < MOST_GAS


def test_two_openings_cost_what_the_readme_says(found: Found, sign: Any, readme_tells: Tells) -> None:
    federation = found(10, threshold=6).all_enrol()
    pair = (*sign(federation, 3), *sign(federation, 3, participants=15))
    receipt = federation.send(2, "challengeEquivocation", *pair)
    readme_tells({"challengeEquivocation": int(receipt["gasUsed"], 16)})
