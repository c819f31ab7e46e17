"""Pages: what may be demanded of a committed object's Merkle tree (P5), and what shows it.

A page is a node of the tree; what shows it are the nodes min(6, level) levels below it (for a leaf its 16 words), and
then the node's siblings up to the root, lowest first. With the right tree at hand, the path to a wrong leaf is found in
one page for each six levels and one for the leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from eth_hash.auto import keccak

from .ids import Digest, Index, Root
from .merkle import NODE_TAG, Hash, depth_of, fold, hash_leaf, levels_of, node_at, path_from
from .scheme import KEY_LEAVES, LEAF_BYTES, leaves_of

PAGE_LEVELS = 6
"""A page of 64 nodes: as many words as four leaves."""

WORD_BYTES = 32
LEAF_WORDS = LEAF_BYTES // WORD_BYTES

Words = tuple[bytes, ...]
"""32 bytes each."""


class Kind(IntEnum):
    """Which committed object a page is of; the numbers are those of the contract's enum."""

    CIPHERTEXT = 0
    AGGREGATE = 1
    OPENING = 2
    KEY_SUM = 3
    RESULT = 4


@dataclass(frozen=True, slots=True)
class Page:
    """A node of a committed object's tree: `level` 0 is a leaf, the tree's depth its root; `position` counts from 0.

    `index` is who stated it. `word` (32 bytes) is what is on record: the root, and for a ciphertext the commitment.
    """

    kind: Kind
    index: Index
    round: int
    attempt: int
    group: int
    level: int
    position: int
    word: bytes

    @property
    def name(self) -> Digest:
        """keccak256(abi.encode(page)): the demand's name."""
        fields = self.kind, self.index, self.round, self.attempt, self.group, self.level, self.position
        return Digest(keccak(b"".join(field.to_bytes(32, "big") for field in fields) + self.word))

    def leaves(self, model_size: int) -> int:
        """How many leaves the object has."""
        return KEY_LEAVES if self.kind in (Kind.OPENING, Kind.KEY_SUM) else leaves_of(model_size)

    def is_in_tree(self, model_size: int) -> bool:
        """Whether the tree has this node, and it stands over at least one leaf: nobody can show the padding."""
        leaves = self.leaves(model_size)
        return 0 <= self.level <= depth_of(leaves) and 0 <= self.position << self.level < leaves

    def shown_root(self, model_size: int, words: Sequence[bytes]) -> Root | None:
        """The root of the tree that these words belong to; None if there are not as many as the page has."""
        below = min(PAGE_LEVELS, self.level)
        count, siblings = 1 << below if below else LEAF_WORDS, depth_of(self.leaves(model_size)) - self.level
        if len(words) != count + siblings or any(len(word) != WORD_BYTES for word in words):
            return None
        node = hash_leaf(b"".join(words[:count])) if not below else _folded(words[:count])
        return fold(node, self.position, words[count:])


def show(page: Page, leaf_hashes: Sequence[Hash], leaf: bytes = b"") -> Words:
    """What shows a page of the tree over these leaf hashes; for a leaf, its 512 bytes are needed too."""
    levels, below = levels_of(leaf_hashes), min(PAGE_LEVELS, page.level)
    if below:
        first = page.position << below
        words = tuple(node_at(levels, page.level - below, first + i) for i in range(1 << below))
    else:
        words = tuple(leaf[i : i + WORD_BYTES] for i in range(0, LEAF_BYTES, WORD_BYTES))
    return (*words, *path_from(levels, page.level, page.position))


def _folded(nodes: Sequence[bytes]) -> bytes:
    level = list(nodes)
    while len(level) > 1:
        level = [hashlib.sha256(NODE_TAG + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=True)]
    return level[0]
