"""Demands for availability (P5): which pages may be demanded, what shows them, what follows for clocks and coins."""

from __future__ import annotations

import random
from dataclasses import replace
from types import MappingProxyType

import pytest

from fedchain.protocol.actions import CloseDemand, DemandPage, ShowPage
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.demands import check_closed, check_demand, check_shown
from fedchain.protocol.disputes import Refused
from fedchain.protocol.events import (
    DemandClosed,
    FederationFounded,
    MemberEnrolled,
    MemberSlashed,
    PageDemanded,
    PageShown,
    Terms,
    UpdateCommitted,
)
from fedchain.protocol.evidence import NO_ROOT, Line
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest, Index, Root
from fedchain.protocol.merkle import hash_leaf, root_of
from fedchain.protocol.pages import Kind, Page, show
from fedchain.protocol.phase import bond_free_at, challenges_end_at
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply, fold

ZERO, CID = Digest(bytes(32)), Cid("Qm")
CHAIN, CONTRACT = 31337, Address("0x" + "cc" * 20)
SOMEBODY, OTHER = Address("0x" + "99" * 20), Address("0x" + "88" * 20)
CHALLENGE, CLOSE = 80, 10_000
LEAVES = 300
MODEL_SIZE = 128 * LEAVES
CONTENTS = [random.Random(i).randbytes(512) for i in range(LEAVES)]
HASHES = [hash_leaf(content) for content in CONTENTS]
SHARES_ROOT = Root(b"s" * 32)
FOUNDERS = tuple(Address(f"0x{i:040x}") for i in range(1, 4))
COMMITMENT = update_commitment(CHAIN, CONTRACT, 1, 0, FOUNDERS[1], root_of(HASHES), SHARES_ROOT)
LINES = (Line(Index(0), b"x" * 32), Line(Index(1), COMMITMENT))


def committed() -> FederationState:
    """Two of three founders have committed; what member 1 committed to is known."""
    terms = Terms(ZERO, CID, ZERO, CID, MODEL_SIZE, 3, 2, 100, 50, 50, 50, CHALLENGE, CLOSE, 3200)
    enrolled = [MemberEnrolled(Index(i), FOUNDERS[i], bytes(32), 1, 10) for i in range(3)]
    said = [UpdateCommitted(1, 0, line.index, Digest(line.word), CID, CID, 20) for line in LINES]
    return fold([FederationFounded(terms, FOUNDERS, at=0), *enrolled, *said])


def page(level: int = 0, position: int = 7, **changes: object) -> Page:
    return replace(Page(Kind.CIPHERTEXT, Index(1), 1, 0, 0, level, position, COMMITMENT), **changes)  # type: ignore[arg-type]


def demanded(state: FederationState, of: Page, at: int = 30) -> FederationState:
    return apply(state, PageDemanded(of.name, SOMEBODY, at + state.terms.answer_window_s, of, at))


@pytest.mark.parametrize(("level", "position"), [(0, 0), (0, 299), (1, 149), (5, 9), (6, 4), (8, 1), (9, 0)])
def test_a_page_shows_its_node_of_the_tree_and_nothing_else_does(level: int, position: int) -> None:
    asked = page(level, position)
    words = show(asked, HASHES, CONTENTS[position] if level == 0 else b"")
    assert asked.shown_root(MODEL_SIZE, words) == root_of(HASHES)
    for at in range(len(words)):
        bent = (*words[:at], bytes(32), *words[at + 1 :])
        assert bent == words or asked.shown_root(MODEL_SIZE, bent) != root_of(HASHES)
    assert asked.shown_root(MODEL_SIZE, words[1:]) is None
    assert asked.shown_root(MODEL_SIZE, (*words, bytes(32))) is None
    elsewhere = replace(asked, position=position ^ 1)
    assert level == 9 or elsewhere.shown_root(MODEL_SIZE, words) != root_of(HASHES)


def test_the_way_to_any_leaf_of_the_largest_model_takes_eight_pages_at_most() -> None:
    depth = (2**40 // 128 - 1).bit_length()
    assert 1 + -(-depth // 6) <= 8


def test_only_what_stands_over_a_leaf_is_a_page() -> None:
    assert page(0, 299).is_in_tree(MODEL_SIZE) and not page(0, 300).is_in_tree(MODEL_SIZE)
    assert page(2, 74).is_in_tree(MODEL_SIZE) and not page(2, 75).is_in_tree(MODEL_SIZE)
    assert page(9, 0).is_in_tree(MODEL_SIZE) and not page(10, 0).is_in_tree(MODEL_SIZE)
    opening = page(5, 0, kind=Kind.OPENING)
    assert opening.is_in_tree(MODEL_SIZE) and not replace(opening, level=6).is_in_tree(MODEL_SIZE)


def test_a_page_of_the_record_may_be_demanded_once() -> None:
    state = committed()
    check_demand(state, DemandPage(page(), LINES, 100), 30)
    with pytest.raises(Refused, match="AlreadyDemanded"):
        check_demand(demanded(state, page()), DemandPage(page(), LINES, 100), 31)


@pytest.mark.parametrize(
    ("demand", "reason"),
    [
        (DemandPage(page(), LINES, 99), "FederationWrongDeposit"),
        (DemandPage(page(group=1), LINES, 100), "FederationBadGroup"),
        (DemandPage(page(attempt=1), LINES, 100), "FederationNoStatement"),
        (DemandPage(page(kind=Kind.AGGREGATE), (), 100), "FederationNoStatement"),
        (DemandPage(page(kind=Kind.RESULT), (), 100), "FederationNoStatement"),
        (DemandPage(page(), LINES[1:], 100), "FederationBadEvidence"),
        (DemandPage(page(index=Index(0)), LINES, 100), "FederationBadEvidence"),
        (DemandPage(page(0, 300), LINES, 100), "FederationBadEvidence"),
        (DemandPage(page(10, 0), LINES, 100), "FederationBadEvidence"),
    ],
)
def test_a_demand_of_something_else_is_refused(demand: DemandPage, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        check_demand(committed(), demand, 30)
    assert refused.value.error_name == reason


def test_nothing_is_demanded_of_who_has_no_bond_or_answers_no_more() -> None:
    slashed = apply(committed(), MemberSlashed(Index(1), OTHER, 1, 4, 1600, 1600, 25))
    with pytest.raises(Refused, match="AlreadySlashed"):
        check_demand(slashed, DemandPage(page(), LINES, 100), 30)
    over = 10 + CLOSE + CHALLENGE
    check_demand(committed(), DemandPage(page(), LINES, 100), over - 1)
    with pytest.raises(Refused, match="ChallengeOver"):
        check_demand(committed(), DemandPage(page(), LINES, 100), over)
    left = replace(committed(), standing=Bitmap(0b101), left_at=MappingProxyType({Index(1): 500}))
    check_demand(left, DemandPage(page(), LINES, 100), 500 + CHALLENGE - 1)
    with pytest.raises(Refused, match="ChallengeOver"):
        check_demand(left, DemandPage(page(), LINES, 100), 500 + CHALLENGE)


def test_whoever_shows_the_page_in_time_has_the_deposit() -> None:
    state, words = demanded(committed(), page()), show(page(), HASHES, CONTENTS[7])
    check_shown(state, CHAIN, CONTRACT, ShowPage(page(), SHARES_ROOT, words), 39)
    for shown, at, reason in (
        (ShowPage(page(), SHARES_ROOT, words), 40, "FederationDemandOver"),
        (ShowPage(page(), NO_ROOT, words), 39, "FederationBadEvidence"),
        (ShowPage(page(), SHARES_ROOT, words[:-1]), 39, "FederationBadEvidence"),
        (ShowPage(page(), SHARES_ROOT, show(page(0, 8), HASHES, CONTENTS[8])), 39, "FederationBadEvidence"),
        (ShowPage(page(0, 8), SHARES_ROOT, words), 39, "FederationNoDemand"),
    ):
        with pytest.raises(Refused) as refused:
            check_shown(state, CHAIN, CONTRACT, shown, at)
        assert refused.value.error_name == reason
    state = apply(state, PageShown(page().name, OTHER, SHARES_ROOT, words, 39))
    assert state.rewards == {OTHER: 100}
    with pytest.raises(Refused, match="NoDemand"):
        check_closed(state, CloseDemand(page()), 50)


def test_silence_is_noticed_after_the_deadline_while_bonds_are_here() -> None:
    state = demanded(committed(), page())
    with pytest.raises(Refused, match="DemandOpen"):
        check_closed(state, CloseDemand(page()), 39)
    assert check_closed(state, CloseDemand(page()), 40)
    end = challenges_end_at(state, CLOSE + 10)
    assert end is not None and not check_closed(state, CloseDemand(page()), end)
    state = apply(state, DemandClosed(page().name, True, 40))
    assert state.rewards == {SOMEBODY: 100} and not state.demands[page().name].open
    with pytest.raises(ValueError, match="not open"):
        apply(state, DemandClosed(page().name, True, 41))


def test_late_demands_move_the_clock_by_a_quarter_of_the_window_at_most() -> None:
    state, plain = committed(), 10 + CLOSE + CHALLENGE
    assert challenges_end_at(state, plain) == plain
    late = demanded(state, page(), at=plain - 1)
    assert challenges_end_at(late, plain) == bond_free_at(late, Index(0), plain) == plain - 1 + 20
    for position in range(20):
        late = demanded(late, page(0, position + 20), at=plain + position)
    assert challenges_end_at(late, plain) == plain + CHALLENGE // 4
