"""Pages: what may be demanded of whom, what shows it, and that a path of them leads to a wrong leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedchain.protocol.pages import Kind, Page, show

KINDS = CIPHERTEXT, AGGREGATE, OPENING, KEY_SUM, RESULT = range(5)
ONE, ZERO = b"\x01" * 32, bytes(32)

DemandsOf = Callable[..., Any]
PlayOf = Callable[..., Any]
Refuses = Callable[..., Any]


def text(word: str) -> bytes:
    return word.encode().ljust(32, b"\0")


@pytest.mark.parametrize("kind", KINDS)
def test_every_page_of_every_object_is_demanded_and_shown(demands: DemandsOf, kind: int) -> None:
    asked = demands(bond=3200, challengeWindow=8000)
    federation, depth = asked.federation, asked.depth(kind)
    leaves = 32 if kind in (OPENING, KEY_SUM) else 9
    for level in range(depth + 1):
        for position in {0, (leaves - 1 >> level) // 2, leaves - 1 >> level}:
            page = asked.page(kind, level, position)
            named = {"kind": kind, "index": page[1], "round": 1, "attempt": 0, "group": 0}
            named |= {"level": level, "position": position, "word": page[-1]}
            ((name, said),) = asked.demand(page)
            demand, deadline = asked.name(page), asked.chain.now + 1000
            demanded = {"demand": demand, "demander": asked.stranger.lower(), "deadline": deadline, "page": named}
            assert (name, said) == ("PageDemanded", demanded)
            assert federation.call("deadlineOf", demand) == deadline
            earned = federation.call("rewardOf", asked.other)
            ((name, said),) = asked.show(page)
            other, words = asked.words(page)
            shown = {"demand": demand, "account": asked.other.lower(), "other": other, "words": tuple(words)}
            assert (name, said) == ("PageShown", shown)
            assert federation.call("deadlineOf", demand) == 0
            assert federation.call("rewardOf", asked.other) == earned + 100
    assert federation.call("slashed") == 0
    assert federation.call("rewardOf", asked.stranger) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_package_names_and_shows_pages_as_the_contract_does(demands: DemandsOf, kind: int) -> None:
    asked = demands()
    for level in range(asked.depth(kind) + 1):
        page, tree = asked.page(kind, level, 0), asked.tree(kind, 2)
        own = Page(Kind(kind), *page[1:])
        shown = show(own, tree.hashes(), tree.leaves[0].astype("<u8").tobytes())
        assert own.name == asked.demand(page)[0][1]["demand"]
        assert list(shown) == asked.words(page)[1]
        root = own.shown_root(asked.federation.terms["modelSize"], shown)
        assert root == tree.root()
        asked.said(asked.other, "showPage", page, asked.words(page)[0], list(shown))


@pytest.mark.parametrize("model_size", [2, 128, 130, 128 * 64, 128 * 64 + 2])
def test_trees_of_every_depth_are_shown_from_root_to_leaf(
    demands: DemandsOf, play: PlayOf, model_size: int, refuses: Refuses
) -> None:
    """One leaf, two, and one page of 64, and one more than a page."""
    played = play(modelSize=model_size, members=3, threshold=2).commit().post().lock()
    asked = demands(played)
    depth, leaves = asked.depth(AGGREGATE), -(-model_size // 128)
    assert len(asked.tree(AGGREGATE).hashes()) == leaves
    for level in sorted({0, 1, depth - 6, depth}):
        if not 0 <= level <= depth:
            continue
        last = leaves - 1 >> level
        for position in {0, last}:
            page = asked.page(AGGREGATE, level, position)
            asked.demand(page)
            asked.show(page)
        with refuses("FederationBadEvidence", text("page")):  # what only pads the tree
            asked.demand(asked.page(AGGREGATE, level, last + 1))
    with refuses("FederationBadEvidence", text("page")):
        asked.demand(asked.page(AGGREGATE, depth + 1, 0))
    with refuses("FederationBadEvidence", text("page")):
        asked.demand(asked.page(AGGREGATE, 255, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_bent_words_show_nothing(demands: DemandsOf, refuses: Refuses, kind: int) -> None:
    asked = demands()
    for level in (0, 2, asked.depth(kind)):
        page = asked.page(kind, level, 1 if level < asked.depth(kind) else 0)
        asked.demand(page)
        other, words = asked.words(page)

        def refused(other: bytes, words: list[bytes], page: tuple[Any, ...] = page) -> None:
            with refuses("FederationBadEvidence", text("words")):
                asked.said(asked.other, "showPage", page, other, words)

        for at in range(len(words)):
            bent = bytearray(words[at])
            bent[at % 32] ^= 1
            refused(other, [*words[:at], bytes(bent), *words[at + 1 :]])
        for wrong in (words[:-1], [*words, ZERO], [], [*words[1:], words[0]], words * 2):
            refused(other, wrong)
        refused(ONE, words)
        if kind == CIPHERTEXT:
            refused(ZERO, words)
        asked.show(page)


def test_what_is_demanded_must_be_on_record(demands: DemandsOf, refuses: Refuses) -> None:
    asked = demands()
    for kind in KINDS:
        kind_, index, round, attempt, group, level, position, word = asked.page(kind)
        for wrong in (
            (kind_, index, round, attempt, group, level, position, ONE),
            (kind_, index ^ 1, round, attempt, group, level, position, word),
            (kind_, 255, round, attempt, group, level, position, word),
        ):
            listed = kind in (CIPHERTEXT, OPENING)
            expected = ("FederationBadEvidence", text("statement")) if listed or wrong[-1] == ONE else None
            with refuses(*(expected or ("FederationNoStatement",))):
                asked.demand(wrong)
        for wrong in (
            (kind_, index, 0, attempt, group, level, position, word),
            (kind_, index, 2, attempt, group, level, position, word),
            (kind_, index, 3, attempt, group, level, position, word),
            (kind_, index, round, 1, group, level, position, word),
        ):
            with refuses("FederationNoStatement"):
                asked.demand(wrong)
        with refuses("FederationBadGroup", 1):
            asked.demand((kind_, index, round, attempt, 1, level, position, word))
        with pytest.raises(asked.chain.Error):  # no such kind
            asked.demand((5, index, round, attempt, group, level, position, word))
    for kind in (CIPHERTEXT, OPENING):
        lines = asked.lines(kind)
        swapped = [lines[1], lines[0], *lines[2:]]
        for wrong_list in ([], lines[:-1], lines[1:], [*lines, lines[0]], swapped, [(2, ONE), *lines[1:]]):
            with refuses("FederationBadEvidence", text("statement")):
                asked.said(asked.stranger, "demandPage", asked.page(kind), wrong_list, value=10**15 // 32)


def test_nothing_can_be_demanded_before_it_is_said(demands: DemandsOf, play: PlayOf, refuses: Refuses) -> None:
    played = play()
    played.aggregator = played.closer = 0
    asked = demands(played)

    def refused(*kinds: int) -> None:
        for kind in kinds:
            with refuses("FederationNoStatement"):
                asked.demand(asked.page(kind))

    refused(*KINDS)
    played.commit().post()
    asked.demand(asked.page(CIPHERTEXT))
    refused(AGGREGATE, OPENING, KEY_SUM, RESULT)
    played.lock()
    asked.demand(asked.page(AGGREGATE))
    refused(OPENING, KEY_SUM, RESULT)
    played.open()
    asked.demand(asked.page(OPENING))
    refused(KEY_SUM, RESULT)
    played.close()
    asked.demand(asked.page(KEY_SUM))
    asked.demand(asked.page(RESULT))


def test_a_demand_costs_a_32nd_of_a_bond(demands: DemandsOf, refuses: Refuses) -> None:
    for bond, deposit in ((10**15, 10**15 // 32), (63, 1), (32, 1)):
        asked = demands(bond=bond)
        page = asked.page(AGGREGATE)
        assert asked.federation.call("demandDeposit") == deposit
        for wrong in {deposit + 1, 2 * deposit, 0} - {deposit}:
            with refuses("FederationWrongDeposit", deposit, wrong):
                asked.demand(page, value=wrong)
        asked.demand(page)
        assert asked.balance() == 5 * bond + deposit


def test_no_page_is_demanded_twice_whatever_became_of_it(demands: DemandsOf, refuses: Refuses) -> None:
    asked = demands(challengeWindow=8000)
    shown, silent = asked.page(CIPHERTEXT, 1), asked.page(CIPHERTEXT, 2)
    for page in (shown, silent):
        asked.demand(page)
        with refuses("FederationAlreadyDemanded"):
            asked.demand(page, by=asked.other)
    asked.show(shown)
    asked.close(silent, at=asked.chain.now + 1000)
    for page in (shown, silent):
        with refuses("FederationAlreadyDemanded"):
            asked.demand(page, by=asked.other)
        with refuses("FederationNoDemand"):
            asked.show(page)
        with refuses("FederationNoDemand"):
            asked.close(page)
    never = asked.page(CIPHERTEXT, 0)
    for told in (asked.show, asked.close):
        with refuses("FederationNoDemand"):
            told(never)


def test_a_page_is_shown_before_its_deadline_and_closed_from_then_on(demands: DemandsOf, refuses: Refuses) -> None:
    asked = demands(challengeWindow=8000)
    page, second = asked.page(RESULT), asked.page(RESULT, 1)
    asked.demand(page)
    asked.demand(second)
    deadline = asked.chain.now + 1000
    with refuses("FederationDemandOpen", deadline):
        asked.close(page, at=deadline - 1)
    asked.show(second, at=deadline - 1)
    with refuses("FederationDemandOver", deadline):
        asked.show(page, at=deadline)
    asked.close(page, at=deadline)


@pytest.mark.parametrize("window", [1, 7, 8, 15, 16])
def test_an_answer_has_an_eighth_of_the_challenge_window_and_a_second_at_least(demands: DemandsOf, window: int) -> None:
    asked = demands(challengeWindow=window, rounds=9)
    ((_, said),) = asked.demand(asked.page(AGGREGATE))
    assert said["deadline"] == asked.chain.now + max(1, window // 8)


def test_anyone_shows_a_page_and_the_author_need_not(demands: DemandsOf) -> None:
    """Also who demanded it; then it has its deposit back."""
    asked = demands(bond=3200)
    for position, shower in enumerate((asked.stranger, asked.other, 3, 0)):
        page = asked.page(RESULT, 0, position)
        asked.demand(page)
        asked.show(page, by=shower)
        account = asked.federation.founders[shower] if isinstance(shower, int) else shower
        assert asked.federation.call("rewardOf", account) == 100
        asked.said(account, "withdrawReward")
    assert asked.balance() == 5 * 3200


# What a withheld object comes to.


@pytest.mark.parametrize("wrong", [0, 5, 63, 64, 69])
def test_pages_lead_to_the_wrong_leaf_of_a_tree_that_is_withheld_and_the_lie_is_refuted(
    demands: DemandsOf, play: PlayOf, wrong: int
) -> None:
    """The challenger has the right sum, and of the aggregator's tree (70 leaves, depth 7) the root alone."""
    played = play(modelSize=128 * 70, members=3, threshold=2)
    right = played.sum()
    played.aggregate.leaves[wrong, 17] ^= np.uint64(1)
    played.commit().post().lock()
    asked = demands(played)
    root, levels = played.aggregate.root(), right.levels()
    level, position, pages = 7, 0, 0
    assert root != right.root()
    while True:
        page = AGGREGATE, played.aggregator, 1, 0, 0, level, position, root
        asked.demand(page)
        ((_, said),) = asked.show(page, by=played.aggregator)  # what it shows, it shows to everyone
        words, pages = list(said["words"]), pages + 1
        if level == 0:
            break
        below = min(6, level)
        first, level = position << below, level - below
        position = next(p for p in range(first, first + (1 << below)) if words[p - first] != levels[level][p])
    assert (position, pages) == (wrong, 3)
    evidence = (1, 0, wrong, played.commits(played.participants), words + played.updates_at(wrong))
    told = asked.said(asked.stranger, "challengeAggregate", *evidence)
    assert [name for name, _ in told] == ["AggregateRefuted", "MemberSlashed"]
    assert told[1][1]["rule"] == 1
    assert asked.federation.call("rewardOf", asked.stranger) == asked.federation.terms["bond"] // 2


def test_a_liar_that_shows_another_tree_shows_nothing(demands: DemandsOf, play: PlayOf, refuses: Refuses) -> None:
    """It cannot answer with the right sum's pages either."""
    played = play()
    right = played.sum()
    played.aggregate.leaves[5, 17] ^= np.uint64(1)
    played.commit().post().lock()
    asked = demands(played)
    page = asked.page(AGGREGATE, 4)
    asked.demand(page)
    with refuses("FederationBadEvidence", text("words")):
        asked.said(0, "showPage", page, ZERO, right.page(4, 0))
    asked.show(page)


def test_words_of_a_node_are_no_leaf_and_a_leaf_is_no_node(demands: DemandsOf, refuses: Refuses) -> None:
    """Sixteen nodes and sixteen words of a leaf are hashed under different tags."""
    asked = demands()
    top = asked.page(AGGREGATE, 4)
    leaf = asked.page(AGGREGATE, 0)
    asked.demand(top)
    asked.demand(leaf)
    with refuses("FederationBadEvidence", text("words")):
        asked.said(0, "showPage", top, ZERO, asked.words(leaf)[1][:16])
    with refuses("FederationBadEvidence", text("words")):
        asked.said(0, "showPage", leaf, ZERO, [*asked.words(top)[1], *asked.words(leaf)[1][16:]])
