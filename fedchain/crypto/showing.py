"""The Merkle trees of stored objects, and the pages of them that a demand asks for (P5.10).

What is given must be what was committed to: a page of anything else is refused.
"""

from __future__ import annotations

from ..protocol.merkle import Hash, hash_leaves, levels_of
from ..protocol.pages import Page, Words, show
from . import parameters as p
from .aggregate import Aggregate, leaf_hashes
from .encoding import UPDATE, Blob, opened
from .opening import Opening
from .result import Result
from .seed import Residues

Tree = list[list[Hash]]
"""All levels, leaves first."""


def aggregate_tree(total: Aggregate) -> Tree:
    """The tree of a sum."""
    return levels_of(leaf_hashes(_leaves(total)))


def key_sum_tree(result: Result) -> Tree:
    """The tree of S."""
    return levels_of(leaf_hashes(result.key_sum_leaves()))


def result_tree(result: Result) -> Tree:
    """The tree of the decoded coefficients."""
    return levels_of(leaf_hashes(result.coefficients))


def show_ciphertext(page: Page, ciphertext: Blob, d: int) -> Words:
    """A page of an update's ciphertext, a block at a time. Raises MalformedObject."""
    hashes: list[Hash] = []
    content = b""
    with opened(ciphertext, UPDATE, d) as stored:
        for block in stored.raw_blocks():
            leaves = block.astype("<u8", copy=False).tobytes()
            if page.level == 0 and len(hashes) <= page.position < len(hashes) + len(leaves) // p.LEAF_BYTES:
                start = (page.position - len(hashes)) * p.LEAF_BYTES
                content = leaves[start : start + p.LEAF_BYTES]
            hashes += hash_leaves(leaves, p.LEAF_BYTES)
    return show(page, hashes, content)


def show_aggregate(page: Page, total: Aggregate) -> Words:
    """A page of a sum."""
    return _shown(page, _leaves(total))


def show_opening(page: Page, opening: Opening) -> Words:
    """A page of an opening."""
    return _shown(page, opening.leaves())


def show_key_sum(page: Page, result: Result) -> Words:
    """A page of S."""
    return _shown(page, result.key_sum_leaves())


def show_result(page: Page, result: Result) -> Words:
    """A page of the decoded coefficients."""
    return _shown(page, result.coefficients)


def _leaves(total: Aggregate) -> Residues:
    return total.residues.reshape(-1, p.LEAF_RESIDUES)[: p.leaves_of(total.d)]


def _shown(page: Page, leaves: Residues) -> Words:
    content = leaves[page.position].astype("<u8", copy=False).tobytes() if page.level == 0 else b""
    return show(page, leaf_hashes(leaves), content)
