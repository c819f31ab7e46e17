"""SHA-256 Merkle trees: what a proof shows, and everything it must not be bent to show."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.protocol.ids import Root
from fedchain.protocol.merkle import depth_of, fold, hash_leaf, hash_leaves, is_proof, prove, root_of


def leaves_for(count: int) -> list[bytes]:
    return [b"leaf %d" % i for i in range(count)]


def padded_root(contents: list[bytes]) -> bytes:
    """The definition, read out: hash the leaves, pad with zero hashes to a power of two, hash pairs."""
    level = [hashlib.sha256(b"\0" + content).digest() for content in contents]
    while len(level) & (len(level) - 1):
        level.append(bytes(32))
    while len(level) > 1:
        level = [hashlib.sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
    return level[0]


@given(st.integers(1, 40), st.data())
@settings(max_examples=40, deadline=None)
def test_every_leaf_of_every_tree_is_proven_in_its_own_place_only(count: int, data: st.DataObject) -> None:
    contents = leaves_for(count)
    hashes = [hash_leaf(content) for content in contents]
    root = root_of(hashes)
    assert root == padded_root(contents)
    index = data.draw(st.integers(0, count - 1))
    path = prove(hashes, index)
    assert is_proof(root, contents[index], index, path, count)
    for other in range(count):
        assert is_proof(root, contents[index], other, path, count) == (other == index)


def test_a_changed_leaf_sibling_or_length_is_refused() -> None:
    contents = leaves_for(11)
    hashes = [hash_leaf(content) for content in contents]
    root, path = root_of(hashes), prove(hashes, 6)
    assert is_proof(root, contents[6], 6, path, 11)
    assert not is_proof(root, contents[6] + b"!", 6, path, 11)
    assert not is_proof(root, contents[6], 6, (bytes(32), *path[1:]), 11)
    assert not is_proof(root, contents[6], 6, path[:-1], 11)
    assert not is_proof(root, contents[6], 6, (*path, bytes(32)), 11)
    assert not is_proof(root, contents[6], 6, (path[0][:-1], *path[1:]), 11)
    assert not is_proof(root, contents[6], -10, path, 11)


def test_a_padding_leaf_cannot_be_proven() -> None:
    hashes = [hash_leaf(content) for content in leaves_for(5)]
    longer = [*hashes, bytes(32)]
    assert root_of(longer) == root_of(hashes)
    path = prove(longer, 5)
    assert fold(bytes(32), 5, path) == root_of(hashes)
    assert not is_proof(root_of(hashes), b"", 5, path, 5)


def test_an_inner_node_never_passes_for_a_leaf() -> None:
    hashes = [hash_leaf(content) for content in leaves_for(4)]
    root = root_of(hashes)
    upper = root_of([hashlib.sha256(b"\1" + hashes[i] + hashes[i + 1]).digest() for i in (0, 2)])
    assert upper == root, "the same hashes, read as a smaller tree"
    forged = hashes[0] + hashes[1]
    assert not is_proof(root, forged, 0, (hashlib.sha256(b"\1" + hashes[2] + hashes[3]).digest(),), 2)


def test_swapping_two_leaves_changes_the_root() -> None:
    a, b, c = (hash_leaf(content) for content in leaves_for(3))
    assert root_of([a, b, c]) != root_of([b, a, c])


def test_a_tree_has_at_least_one_leaf() -> None:
    with pytest.raises(ValueError, match="at least one leaf"):
        root_of([])
    with pytest.raises(ValueError, match="no leaf 2"):
        prove([hash_leaf(b"a"), hash_leaf(b"b")], 2)


def test_one_leaf_is_its_own_root() -> None:
    assert root_of([hash_leaf(b"a")]) == hash_leaf(b"a")
    assert depth_of(1) == 0 and depth_of(2) == 1 and depth_of(3) == 2 and depth_of(4) == 2 and depth_of(5) == 3
    assert is_proof(Root(hash_leaf(b"a")), b"a", 0, (), 1)


def test_equal_leaves_in_a_row_are_hashed_one_by_one() -> None:
    assert hash_leaves(b"aabbcc", 2) == [hash_leaf(b"aa"), hash_leaf(b"bb"), hash_leaf(b"cc")]
