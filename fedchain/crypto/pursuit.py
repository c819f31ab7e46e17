"""How a wrong sum or result is proven wrong whose author keeps back the object: what to see next, and the evidence.

Whoever pursues it has computed the right one itself, and knows the pages that were shown on chain so far. Each call
says which pages are wanted next, or gives the evidence (R1, R2, R3), or that there is none. Pure: who demands, pays and
waits is for others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeVar

from ..protocol.descent import WrongLeaf, aggregate_page, descend, leaf_page, opening_page, result_pages
from ..protocol.evidence import ChallengeAggregate, ChallengeKeySum, ChallengeResult, judge_key_sum
from ..protocol.ids import Digest, Index, members_of, size_of
from ..protocol.merkle import node_at
from ..protocol.pages import Page, Words
from ..protocol.scheme import KEY_LEAVES
from ..protocol.state import Attempt
from .aggregate import Aggregate
from .opening import Opening
from .proofs import (
    CommittedUpload,
    opening_proof,
    refute_aggregate,
    refute_key_sum,
    refute_result,
    with_leaves,
    wrong_coefficient,
)
from .result import Result
from .seed import RoundContext
from .showing import Tree, aggregate_tree, key_sum_tree, result_tree


class DeadEnd(Enum):
    """Why there is nothing to pursue."""

    UNPROVABLE = auto()
    """Every leaf is right, and only what pads the tree is not."""
    STUCK = auto()
    """A page that is needed was demanded, and will not be shown any more."""


Wanted = tuple[Page, ...]
"""Pages to be shown next, all at once."""


@dataclass(frozen=True, slots=True)
class Pages:
    """What became of demanded pages, by their demands' names: the words of those shown, and those that stay out."""

    shown: Mapping[Digest, Words]
    lost: Collection[Digest]

    def of(self, page: Page) -> Words | Page | DeadEnd:
        """A page's words; the page itself where it is yet to be shown."""
        if page.name in self.shown:
            return self.shown[page.name]
        return DeadEnd.STUCK if page.name in self.lost else page


def pursue_sum(
    attempt: Attempt, total: Aggregate, uploads: Mapping[Index, CommittedUpload], pages: Pages
) -> ChallengeAggregate | Wanted | DeadEnd:
    """R1, against the sum on record; `total` is the right one, `uploads` holds the participants'."""
    assert attempt.posted_sum is not None
    found = _descend(aggregate_page(attempt.posted_sum, total.d), aggregate_tree(total), pages)
    return refute_aggregate(attempt, uploads, found, total.d) if isinstance(found, WrongLeaf) else found


@dataclass(frozen=True, slots=True)
class ResultPursuit:
    """R2 and R3, against the result on record.

    `right` is the result as its pursuer decoded it from `total`, the right sum; `openings` are those that could be
    fetched, `uploads` holds the participants'.
    """

    attempt: Attempt
    right: Result
    total: Aggregate
    context: RoundContext
    uploads: Mapping[Index, CommittedUpload]
    openings: Mapping[Index, Opening]
    pages: Pages

    def step(self) -> ChallengeKeySum | ChallengeResult | Wanted | DeadEnd:
        """The next pages to be shown, or the evidence."""
        posted = self.attempt.result
        assert posted is not None
        key_sum, result = result_pages(self.attempt, self.right.d)
        if posted.key_sum_root != self.right.key_sum_root():
            return self._about_key_sum(key_sum, result)
        found = _descend(result, result_tree(self.right), self.pages)
        if not isinstance(found, WrongLeaf):
            return found
        claimed = with_leaves(self.right.coefficients, {found.leaf: found.proof})
        return self._refuted(Result(self.right.elements, claimed, self.right.d), found)

    def _about_key_sum(self, key_sum: Page, result: Page) -> ChallengeKeySum | ChallengeResult | Wanted | DeadEnd:
        """R2, if the openers' openings give another S; else one is wrong or gone, and R3 shows that S does not fit."""
        tree = key_sum_tree(self.right)
        found = _descend(key_sum, tree, self.pages)
        if not isinstance(found, WrongLeaf):
            return found
        openers = members_of(self.attempt.result.openers) if self.attempt.result else ()
        said = _all({index: self._opening_leaf(index, found.leaf) for index in openers})
        if isinstance(said, tuple):
            return said
        if isinstance(said, dict):
            challenge = refute_key_sum(self.attempt, said, found)
            assert self.attempt.result is not None
            lines, proofs = challenge.openings, challenge.proofs
            if judge_key_sum(self.attempt.result.openers, found.leaf, lines, proofs).faulty:
                return challenge
        return self._whole_key_sum(key_sum, tree, result)

    def _whole_key_sum(self, key_sum: Page, tree: Tree, result: Page) -> ChallengeResult | Wanted | DeadEnd:
        """R3 from all of the posted S, each leaf that differs shown, and one leaf of the result."""
        nodes = self.pages.shown[key_sum.name]
        differ = [leaf for leaf in range(KEY_LEAVES) if nodes[leaf] != node_at(tree, 0, leaf)]
        shown = _all({leaf: self.pages.of(leaf_page(key_sum, leaf)) for leaf in differ})
        if not isinstance(shown, dict):
            return shown
        elements = with_leaves(self.right.key_sum_leaves(), shown).reshape(-1).astype(self.right.elements.dtype)
        wrong = Result(elements, self.right.coefficients, self.right.d)
        coefficient = self._wrong_coefficient(wrong)
        if coefficient is None:
            return DeadEnd.STUCK
        leaf = coefficient // self.right.coefficients.shape[1]
        page = self.pages.of(leaf_page(result, leaf))
        if isinstance(page, Page):
            return (page,)
        return page if isinstance(page, DeadEnd) else self._refuted(wrong, WrongLeaf(leaf, page), coefficient)

    def _refuted(self, claimed: Result, found: WrongLeaf, coefficient: int | None = None) -> ChallengeResult | DeadEnd:
        if coefficient is None:
            coefficient = self._wrong_coefficient(claimed)
        if coefficient is None:
            return DeadEnd.STUCK
        return refute_result(self.attempt, self.uploads, claimed.key_sum, coefficient, found, self.right.d)

    def _wrong_coefficient(self, claimed: Result) -> int | None:
        assert self.attempt.aggregate is not None
        return wrong_coefficient(claimed, self.total, size_of(self.attempt.aggregate.participants), self.context)

    def _opening_leaf(self, index: Index, leaf: int) -> Words | Page | DeadEnd:
        """The proof of a leaf of one opener's opening: from the opening, or a page to demand from its author."""
        if index in self.openings:
            return opening_proof(self.openings[index], leaf)
        return self.pages.of(leaf_page(opening_page(self.attempt.openings[index]), leaf))


def _descend(root: Page, tree: Tree, pages: Pages) -> WrongLeaf | Wanted | DeadEnd:
    found = descend(root, pages.shown, tree)
    if isinstance(found, Page):
        return DeadEnd.STUCK if found.name in pages.lost else (found,)
    return DeadEnd.UNPROVABLE if found is None else found


_Place = TypeVar("_Place", bound=int)


def _all(found: dict[_Place, Words | Page | DeadEnd]) -> dict[_Place, Words] | Wanted | DeadEnd:
    """Every page's words; or all that are yet to be shown; or a dead end, as soon as there is one."""
    if DeadEnd.STUCK in found.values():
        return DeadEnd.STUCK
    wanted = tuple(words for words in found.values() if isinstance(words, Page))
    return wanted or {place: words for place, words in found.items() if isinstance(words, tuple)}
