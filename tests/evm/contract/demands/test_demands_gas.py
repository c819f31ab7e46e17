"""What demands cost for a model of a million parameters, and that contracts/README.md says so; `pytest -s` prints it.

Trees of that size are not built here: what a page shows and any siblings make a root, and the contract cannot tell.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.merkle import fold, hash_leaf

MODEL_SIZE, DEPTH = 1_000_000, 13
CIPHERTEXT = 0

Found = Callable[..., Any]
Tells = Callable[[dict[str, int]], None]


def shown(level: int, position: int, chosen: random.Random) -> tuple[bytes, list[bytes]]:
    """The root of a tree in which this page is, and the page's words."""
    below = [chosen.randbytes(32) for _ in range(1 << min(6, level) if level else 16)]
    path = [chosen.randbytes(32) for _ in range(DEPTH - level)]
    node, nodes = hash_leaf(b"".join(below)), below
    while level and len(nodes) > 1:
        nodes = [sha256(b"\x01" + a + b).digest() for a, b in zip(nodes[::2], nodes[1::2], strict=True)]
        node = nodes[0]
    return fold(node, position, path), below + path


def costs(federation: Any) -> dict[str, int]:
    """The gas of a demand for a page of a ciphertext, of what shows it, and of closing it in silence."""
    chain, chosen, members = federation.chain, random.Random(1), len(federation.founders)
    stranger, deposit = chain.accounts[-1], federation.call("demandDeposit")
    pages = {0: shown(0, 7000, chosen), 6: shown(6, 7000 >> 6, chosen), 13: shown(13, 0, chosen)}
    roots = [root for root, _ in pages.values()]
    place, other, lines = (chain.chain_id, federation.address, 1, 0), b"\x0a" * 32, []
    for member, founder in enumerate(federation.founders):
        lines.append((member, update_commitment(*place, founder, roots[min(member, 2)], other)))
        federation.send(member, "commitUpdate", 1, 0, lines[-1][1], b"\x01" * 32, b"\x02" * 32)
    figures: dict[str, int] = {}
    demanded = []
    for member, (level, (_, words)) in enumerate(pages.items()):
        page = (CIPHERTEXT, member, 1, 0, 0, level, 7000 >> level, lines[member][1])
        told = federation.send(stranger, "demandPage", page, lines, value=deposit)
        figures.setdefault(f"demandPage, {members} members", int(told["gasUsed"], 16))
        snapshot = chain.remember()
        told = federation.send(0, "showPage", page, other, words)
        figures[f"showPage, {('a leaf', '64 nodes', '64 nodes at the root')[member]}"] = int(told["gasUsed"], 16)
        chain.take_back(snapshot)
        demanded.append(page)
    chain.mine_at(chain.now + 1000)
    figures["closeDemand, silent"] = int(federation.send(0, "closeDemand", demanded[0])["gasUsed"], 16)
    return figures


def test_demands_with_10_members_cost_what_the_readme_says(found: Found, readme_tells: Tells) -> None:
    readme_tells(costs(found(10, threshold=6, modelSize=MODEL_SIZE, challengeWindow=8000).all_enrol()))


def test_a_demand_with_64_members_costs_what_the_readme_says(
    found: Found, start_anvil: Callable[..., Any], readme_tells: Tells
) -> None:
    """Its list is longer; showing and closing do not depend on how many there are."""
    federation = found(64, on=start_anvil(accounts=66), threshold=33, modelSize=MODEL_SIZE, challengeWindow=8000)
    figures = costs(federation.all_enrol())
    readme_tells({what: figure for what, figure in figures.items() if "members" in what})
