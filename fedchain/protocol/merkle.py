"""SHA-256 Merkle trees: one root commits to a long object, one short proof shows a part of it to a contract.

Leaves and nodes are hashed under different tags, so that a node can never pass for a leaf; a proof is positional (the
index decides left or right at every level), so that it proves where the leaf stands and not only that it exists; the
tree is padded to 2**depth leaves with zero hashes, and the depth follows from the number of leaves, which the protocol
knows: a proof of another length is refused. (OpenZeppelin's MerkleProof sorts pairs and proves no place.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from .ids import Root

LEAF_TAG = b"\x00"
NODE_TAG = b"\x01"
HASH_BYTES = 32

Hash = bytes
"""32 bytes: the hash of a leaf or of a node."""


def hash_leaf(content: bytes) -> Hash:
    """SHA-256(0x00 ‖ content)."""
    return hashlib.sha256(LEAF_TAG + content).digest()


def hash_leaves(contents: bytes, leaf_bytes: int) -> list[Hash]:
    """The hashes of equal leaves that lie one after another; the last must be whole."""
    sha256 = hashlib.sha256
    starts = range(0, len(contents), leaf_bytes)
    return [sha256(LEAF_TAG + contents[start : start + leaf_bytes]).digest() for start in starts]


def depth_of(leaves: int) -> int:
    """The depth of the tree over this many leaves: the least d with 2**d >= leaves."""
    if leaves < 1:
        raise ValueError("a Merkle tree has at least one leaf")
    return (leaves - 1).bit_length()


def root_of(leaf_hashes: Iterable[Hash]) -> Root:
    """The root of the tree over these leaf hashes."""
    return Root(levels_of(leaf_hashes)[-1][0])


def prove(leaf_hashes: Iterable[Hash], index: int) -> tuple[Hash, ...]:
    """The siblings on the way from leaf `index` to the root, lowest first."""
    levels = levels_of(leaf_hashes)
    if not 0 <= index < len(levels[0]):
        raise ValueError(f"the tree has no leaf {index}")
    return path_from(levels, 0, index)


def fold(leaf_hash: Hash, index: int, path: Sequence[Hash]) -> Root:
    """The root that this leaf, at this place, with these siblings belongs to."""
    node = leaf_hash
    for height, sibling in enumerate(path):
        pair = sibling + node if index >> height & 1 else node + sibling
        node = hashlib.sha256(NODE_TAG + pair).digest()
    return Root(node)


def node_at(levels: Sequence[Sequence[Hash]], height: int, position: int) -> Hash:
    """A node of a tree (`levels_of`); past a level's end, of the padding."""
    level = levels[height]
    return level[position] if position < len(level) else _zero(height)


def path_from(levels: Sequence[Sequence[Hash]], height: int, position: int) -> tuple[Hash, ...]:
    """The siblings on the way from a node of a tree (`levels_of`) to the root, lowest first."""
    ups = range(len(levels) - 1 - height)
    return tuple(node_at(levels, height + up, (position >> up) ^ 1) for up in ups)


def is_proof(root: Root, content: bytes, index: int, path: Sequence[Hash], leaves: int) -> bool:
    """Whether `content` is leaf `index` of the tree of `leaves` leaves with this root."""
    return (
        0 <= index < leaves
        and len(path) == depth_of(leaves)
        and all(len(sibling) == HASH_BYTES for sibling in path)
        and fold(hash_leaf(content), index, path) == root
    )


def levels_of(leaf_hashes: Iterable[Hash]) -> list[list[Hash]]:
    """All levels of a tree, leaves first, without the padding: beyond a level's end stands the zero subtree."""
    sha256 = hashlib.sha256
    level = list(leaf_hashes)
    depth = depth_of(len(level))
    levels = [level]
    for height in range(depth):
        if len(level) % 2:
            level = [*level, _zero(height)]
        level = [sha256(NODE_TAG + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=True)]
        levels.append(level)
    return levels


def _zero(height: int) -> Hash:
    """The root of 2**height padding leaves; the padding leaf's hash is 32 zero bytes."""
    node = bytes(HASH_BYTES)
    for _ in range(height):
        node = hashlib.sha256(NODE_TAG + node + node).digest()
    return node
