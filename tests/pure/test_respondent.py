"""What a peer shows when a page is demanded: its own at once, others' when they have not, and never anything else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest

from fedchain.peer.node import Node
from fedchain.protocol.actions import ShowPage
from fedchain.protocol.demands import check_shown
from fedchain.protocol.descent import aggregate_page, leaf_page, opening_page, result_pages
from fedchain.protocol.events import PageDemanded, PageShown
from fedchain.protocol.ids import Address, Index
from fedchain.protocol.merkle import depth_of
from fedchain.protocol.pages import Kind, Page
from fedchain.protocol.retention import unowed_results
from fedchain.protocol.scheme import leaves_of
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply

SOMEBODY = Address("0x" + "99" * 20)


def page_of(stage: Any, kind: Kind) -> Page:
    """The root's page of an object of the closed round."""
    attempt = stage.world.state.closed[1]
    if kind is Kind.CIPHERTEXT:
        level = depth_of(leaves_of(stage.closing.terms.model_size))
        return Page(kind, Index(3), 1, 0, 0, level, 0, attempt.commits[Index(3)].commitment)
    if kind is Kind.AGGREGATE:
        return aggregate_page(attempt.posted_sum, stage.closing.terms.model_size)
    if kind is Kind.OPENING:
        return opening_page(attempt.openings[Index(3)])
    return result_pages(attempt, stage.closing.terms.model_size)[kind is Kind.RESULT]


def demanded(stage: Any, *pages: Page, challenge_window_s: int = 60) -> tuple[FederationState, int]:
    """The state in which these pages are demanded, and the deadline."""
    state, at = stage.world.state, stage.now + 5
    state = replace(state, terms=replace(state.terms, challenge_window_s=challenge_window_s))
    deadline = at + state.terms.answer_window_s
    for page in pages:
        state = apply(state, PageDemanded(page.name, SOMEBODY, deadline, page, at))
    return state, deadline


def shown(peer: Any, state: FederationState, now: int) -> list[ShowPage]:
    """What it shows, each held to what the contract checks."""
    peer.chain.sent.clear()
    while peer.respondent.act(state, now):
        action = peer.chain.sent[-1]
        check_shown(state, peer.chain.chain_id, peer.chain.contract, action, now)
        said = action.other, action.words
        state = apply(state, PageShown(action.page.name, peer.context.address, *said, now))
    return list(peer.chain.sent)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("whole", [True, False])
def test_any_page_of_anything_is_shown_by_who_stated_it_and_by_others(stage: Any, kind: Kind, whole: bool) -> None:
    page = page_of(stage, kind)
    if not whole:
        page = leaf_page(page, 11)
    state, deadline = demanded(stage, page)
    author, other = stage.peer(page.index), stage.peer((page.index + 1) % 5)
    assert [action.page for action in shown(author, state, stage.now + 5)] == [page], "at once"
    half = deadline - state.terms.answer_window_s // 2
    assert shown(other, state, half - 1) == []
    assert [action.page for action in shown(other, state, half)] == [page]


def test_members_answer_for_another_one_after_another(stage: Any) -> None:
    page = page_of(stage, Kind.AGGREGATE)
    state, deadline = demanded(stage, page, challenge_window_s=800)
    half = deadline - 50
    times = [half + place * 10 for place in range(4)]
    for place, due in enumerate(times, start=1):
        peer = stage.peer((page.index + place) % 5)
        assert shown(peer, state, due - 1) == []
        assert len(shown(peer, state, due)) == 1


def test_nothing_is_shown_after_the_deadline(stage: Any) -> None:
    page = page_of(stage, Kind.OPENING)
    state, deadline = demanded(stage, page)
    assert shown(stage.peer(page.index), state, deadline) == []


def test_several_demands_are_all_answered(stage: Any) -> None:
    attempt = stage.world.state.closed[1]
    page = opening_page(attempt.openings[Index(3)])
    pages = [leaf_page(page, leaf) for leaf in range(4)]
    state, _ = demanded(stage, *pages)
    assert [action.page for action in shown(stage.peer(3), state, stage.now + 5)] == pages


def test_an_object_that_is_gone_is_looked_for_a_few_times_and_not_all_the_time(stage: Any) -> None:
    page = page_of(stage, Kind.OPENING)
    state, _ = demanded(stage, page, challenge_window_s=800)
    peer = stage.peer(3)
    asked: list[str] = []
    kept = peer.store.get

    def get(cid: Any, max_bytes: int) -> bytes:
        asked.append(cid)
        return kept(cid, max_bytes)

    peer.store.get = get
    del peer.store.objects[stage.world.state.closed[1].openings[Index(3)].cid]
    for _ in range(5):
        assert shown(peer, state, stage.now + 5) == []
    assert len(asked) == 1
    assert shown(peer, state, stage.now + 5 + 13) == [] and len(asked) == 2


def test_another_object_under_the_same_cid_is_not_shown(stage: Any) -> None:
    """A page that does not belong to the root on record would be refused: it costs gas, and helps nobody."""
    page = replace(page_of(stage, Kind.AGGREGATE), word=b"\x33" * 32)
    state, _ = demanded(stage, page)
    assert shown(stage.peer(page.index), state, stage.now + 5) == []


@pytest.mark.parametrize("kind", [Kind.KEY_SUM, Kind.RESULT])
def test_a_result_is_shown_by_others_when_uploads_and_posted_object_are_long_gone(stage: Any, kind: Kind) -> None:
    """All that was built on it would fall with its closer's silence."""
    page = page_of(stage, kind)
    state, deadline = demanded(stage, page)
    other = stage.peer((page.index + 1) % 5)
    attempt = state.closed[1]
    assert other.decoder.outcome(state, attempt) is not None
    again = other.restarted()
    shutil.rmtree(again.context.objects)
    again.store.objects.clear()
    assert [action.page for action in shown(again, state, deadline - 1)] == [page]


def test_a_result_is_let_go_when_nobody_may_demand_it_any_more(stage: Any) -> None:
    page = page_of(stage, Kind.RESULT)
    state, _ = demanded(stage, page)
    peer, attempt = stage.peer(1), state.closed[1]
    assert peer.decoder.outcome(state, attempt) is not None
    (kept,) = (peer.context.folder / "results").iterdir()
    (decoded_elsewhere := kept.with_name("of another round")).write_bytes(b"")
    owed_until = attempt.result.at + state.terms.challenge_window_s + state.terms.answer_window_s
    peer.context.forget_results(unowed_results(state, owed_until - 1))
    assert kept.exists()
    peer.context.forget_results(unowed_results(state, owed_until))
    assert not kept.exists() and decoded_elsewhere.exists()
    peer.context.forget_results(unowed_results(state, owed_until))  # and again, with nothing there


def test_a_node_lets_old_results_go_when_a_round_closes(stage: Any) -> None:
    state, _ = demanded(stage, page_of(stage, Kind.RESULT))
    peer = stage.peer(1)
    node, closed = Node(peer.context), state.closed[1].result.at
    assert node._close_rounds(stage.closing, stage.now)
    assert node._close_rounds(state, closed)
    results = peer.context.folder / "results"
    assert len(list(results.iterdir())) == 1, "it may be demanded still"
    node._closed = 0
    assert node._close_rounds(state, closed + 2 * state.terms.challenge_window_s)
    assert list(results.iterdir()) == []
    node._keeper.shutdown()
