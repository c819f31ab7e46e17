"""Down to the wrong leaf of an object that its author keeps back, by the pages it is made to show (P5)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.protocol.descent import WrongLeaf, aggregate_page, deposits_of, descend, leaf_page, shown_pages
from fedchain.protocol.events import AggregateCommitted, DemandClosed, PageDemanded, PageShown
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest, Index, Root
from fedchain.protocol.merkle import Hash, depth_of, hash_leaf, is_proof, levels_of
from fedchain.protocol.pages import LEAF_WORDS, PAGE_LEVELS, Page, Words, show
from fedchain.protocol.scheme import LEAF_BYTES, leaves_of

ME, OTHER = Address("0x" + "11" * 20), Address("0x" + "22" * 20)


def content_of(leaf: int, version: int) -> bytes:
    return hashlib.shake_256(bytes((version,)) + leaf.to_bytes(4, "big")).digest(LEAF_BYTES)


class Lie:
    """An object whose author committed to other leaves in some places, and to other hashes past the last leaf."""

    def __init__(self, leaves: int, wrong: set[int], padded: set[int]) -> None:
        self.leaves = leaves
        self.versions = [int(leaf in wrong) for leaf in range(leaves)]
        self.right = levels_of(hash_leaf(content_of(leaf, 0)) for leaf in range(leaves))
        self.hashes: list[Hash] = [hash_leaf(content_of(leaf, v)) for leaf, v in enumerate(self.versions)]
        for place in range(leaves, 1 << depth_of(leaves)):
            self.hashes.append(b"\x77" * 32 if place in padded else bytes(32))
        self.root = Root(levels_of(self.hashes)[-1][0])
        event = AggregateCommitted(1, 0, 0, Index(3), Bitmap(7), self.root, Cid("Qm"), at=0)
        self.model_size = leaves * 128
        self.page = aggregate_page(event, self.model_size)

    def show(self, page: Page) -> Words:
        leaf = content_of(page.position, self.versions[page.position]) if page.level == 0 else b""
        words = show(page, self.hashes, leaf)
        assert page.shown_root(self.model_size, words) == self.root, "what the contract checks"
        return words


@st.composite
def lies(draw: st.DrawFn) -> Lie:
    leaves = draw(st.integers(1, 300) | st.sampled_from([64, 65, 128, 4096, 4097]))
    wrong = draw(st.sets(st.integers(0, leaves - 1), max_size=5))
    room = range(leaves, 1 << depth_of(leaves))
    padded = draw(st.sets(st.sampled_from(room), max_size=3)) if room else set()
    return Lie(leaves, wrong, padded)


@settings(max_examples=150, deadline=None)
@given(lies())
def test_the_pages_lead_to_the_first_wrong_leaf_or_to_none(lie: Lie) -> None:
    shown: dict[Digest, Words] = {}
    while isinstance(found := descend(lie.page, shown, lie.right), Page):
        assert found.name not in shown
        assert found.is_in_tree(lie.model_size), "nobody can be made to show the padding"
        if lie.root == lie.right[-1][0]:
            break
        shown[found.name] = lie.show(found)
        assert len(shown) <= -(-depth_of(lie.leaves) // PAGE_LEVELS) + 1
    if lie.root == lie.right[-1][0]:
        return
    if 1 not in lie.versions:
        assert found is None, "only the padding is wrong"
        return
    first = lie.versions.index(1)
    assert isinstance(found, WrongLeaf)
    assert found.leaf == first
    content = b"".join(found.proof[:LEAF_WORDS])
    assert content == content_of(first, 1)
    assert is_proof(lie.root, content, first, found.proof[LEAF_WORDS:], lie.leaves)


def test_the_first_page_is_the_roots() -> None:
    lie = Lie(leaves_of(300_000), {5}, set())
    page = descend(lie.page, {}, lie.right)
    assert isinstance(page, Page)
    assert (page.level, page.position, page.index, page.word) == (depth_of(lie.leaves), 0, 3, lie.root)


def test_a_single_leaf_can_be_demanded_at_once() -> None:
    lie = Lie(40, {39}, set())
    assert descend(leaf_page(lie.page, 39), {}, lie.right) == replace(lie.page, level=0, position=39)


def test_a_deposit_is_gone_when_another_answers_and_back_when_nobody_does() -> None:
    pages = [replace(Lie(9, {1}, set()).page, position=place, level=0) for place in range(4)]
    demanded = [PageDemanded(page.name, ME, 10, page, at=1) for page in pages]
    theirs = PageDemanded(Digest(b"d" * 32), OTHER, 10, pages[0], at=1)
    answered = PageShown(pages[0].name, OTHER, Root(bytes(32)), (b"w" * 32,), at=2)
    by_myself = PageShown(pages[1].name, ME, Root(bytes(32)), (b"v" * 32,), at=2)
    silent = DemandClosed(pages[2].name, silent=True, at=11)
    log = [*demanded, theirs, answered, by_myself, silent]
    assert deposits_of(log, ME) == 2
    assert deposits_of(log, OTHER) == 1
    assert shown_pages(log) == {pages[0].name: (b"w" * 32,), pages[1].name: (b"v" * 32,)}
