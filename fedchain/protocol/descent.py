"""The way down to a wrong leaf of an object that its author keeps back: which page to demand next, and what they prove.

Whoever has the right tree, and a root that is not the right one, demands the root's page; a node in it differs, and
that node's page is demanded next, until a leaf is shown: its page is its Merkle proof. Where a page stays out, its
author is silent, and falls for that. Pure: who demands, pays and waits is for others (`peer/demander.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .events import DemandClosed, Event, OpeningPublished, PageDemanded, PageShown
from .ids import Address, Digest
from .merkle import Hash, depth_of, node_at
from .pages import PAGE_LEVELS, Kind, Page, Words
from .state import Attempt, PostedSum


@dataclass(frozen=True, slots=True)
class WrongLeaf:
    """The first leaf that is not the right one; `proof` as evidence takes it: its 16 words, then its path."""

    leaf: int
    proof: Words


def descend(root: Page, shown: Mapping[Digest, Words], right: Sequence[Sequence[Hash]]) -> Page | WrongLeaf | None:
    """The next page to demand of a tree whose root is not the right one, or the leaf that those shown lead to.

    `shown`: the words of each page that was shown, by its name; the contract has checked that they belong to the root.
    `right`: the right tree (`levels_of`). None where every leaf is right, and only what pads the tree is not: nobody is
    wronged by that, and nobody can prove it.
    """
    page = root
    while page.name in shown:
        words = shown[page.name]
        if page.level == 0:
            return WrongLeaf(page.position, words)
        below = min(PAGE_LEVELS, page.level)
        height, first = page.level - below, page.position << below
        wrong = next(
            (
                first + i
                for i, node in enumerate(words[: 1 << below])
                if first + i << height < len(right[0]) and node != node_at(right, height, first + i)
            ),
            None,
        )
        if wrong is None:
            return None
        page = replace(page, level=height, position=wrong)
    return page


def leaf_page(root: Page, leaf: int) -> Page:
    """The page that shows one leaf of a tree."""
    return replace(root, level=0, position=leaf)


def aggregate_page(posted: PostedSum, model_size: int) -> Page:
    """The root's page of a sum on record."""
    page = Page(Kind.AGGREGATE, posted.index, posted.round, posted.attempt, posted.group, 0, 0, posted.root)
    return _at_root(page, model_size)


def result_pages(attempt: Attempt, model_size: int) -> tuple[Page, Page]:
    """The root's pages of the key sum and of the result that closed an attempt."""
    result = attempt.result
    assert result is not None
    place = result.index, result.round, result.attempt, result.group, 0, 0
    key_sum = Page(Kind.KEY_SUM, *place, result.key_sum_root)
    return _at_root(key_sum, model_size), _at_root(Page(Kind.RESULT, *place, result.result_root), model_size)


def opening_page(published: OpeningPublished) -> Page:
    """The root's page of an opening."""
    place = published.index, published.round, published.attempt, published.group, 0, 0
    return _at_root(Page(Kind.OPENING, *place, published.root), model_size=1)


def shown_pages(events: Iterable[Event]) -> dict[Digest, Words]:
    """The words of every page that was ever shown, by its demand's name."""
    return {event.demand: event.words for event in events if isinstance(event, PageShown)}


def deposits_of(events: Iterable[Event], account: Address) -> int:
    """How many of an account's deposits are out or gone: of demands that are open, or that somebody else answered."""
    out: set[Digest] = set()
    for event in events:
        if isinstance(event, PageDemanded) and event.demander == account:
            out.add(event.demand)
        elif isinstance(event, DemandClosed) or (isinstance(event, PageShown) and event.account == account):
            out.discard(event.demand)
    return len(out)


def _at_root(page: Page, model_size: int) -> Page:
    return replace(page, level=depth_of(page.leaves(model_size)))
