"""Which sets may be locked, and which one an honest aggregator chooses (P3)."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.errors import Fault
from fedchain.protocol.events import (
    Complained,
    FederationFounded,
    MemberEnrolled,
    ReceiptPosted,
    Terms,
    UpdateCommitted,
)
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest, Index
from fedchain.protocol.participants import agreed_whole, check_participants, choose_participants, too_close
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.transition import fold

ZERO, CID = Digest(bytes(32)), Cid("Qm")


def setting(n: int, t: int, receipts: dict[int, int], committed: int | None = None) -> tuple[FederationState, Attempt]:
    terms = Terms(ZERO, CID, ZERO, CID, 10, 3, t, 10, 10, 10, 10, 1, 10**10, 0)
    state = fold([FederationFounded(terms, tuple(Address(f"0x{i:040x}") for i in range(n)), at=0)])
    committed = (1 << n) - 1 if committed is None else committed
    commits = {Index(i): UpdateCommitted(1, 0, Index(i), ZERO, CID, CID, 1) for i in range(n) if committed >> i & 1}
    posted = {Index(i): ReceiptPosted(1, 0, Index(i), Bitmap(w), 2) for i, w in receipts.items()}
    everyone, members = Bitmap((1 << n) - 1), MappingProxyType[Index, MemberEnrolled]({})
    attempt = Attempt(
        1, 0, 0, everyone, t, members, ZERO, CID, commits=MappingProxyType(commits), receipts=MappingProxyType(posted)
    )
    return replace(state, current=attempt), attempt


def test_all_whole_means_all_take_part() -> None:
    state, attempt = setting(5, 3, dict.fromkeys(range(5), 0b11111))
    assert choose_participants(state, attempt) == 0b11111
    check_participants(state, attempt, Bitmap(0b11111))


def test_a_bad_update_is_left_out_when_enough_complain() -> None:
    state, attempt = setting(5, 3, dict.fromkeys(range(5), 0b01111))
    assert choose_participants(state, attempt) == 0b01111


def test_a_complaint_lets_an_update_be_left_out_and_no_other() -> None:
    state, attempt = setting(6, 4, dict.fromkeys(range(6), 0b111111))
    with pytest.raises(Fault, match="censored"):
        check_participants(state, attempt, Bitmap(0b111011))
    complaint = Complained(1, 0, Index(5), Bitmap(0b000100), CID, 2)
    complained = replace(attempt, complaints=MappingProxyType({Index(5): complaint}))
    assert complained.complained == 0b000100
    check_participants(state, complained, Bitmap(0b111011))
    check_participants(state, complained, Bitmap(0b111111))
    with pytest.raises(Fault, match="censored"):
        check_participants(state, complained, Bitmap(0b110111))


def test_one_liar_cannot_shrink_the_set() -> None:
    """A member that denies every update costs nothing: t others cover the whole set."""
    state, attempt = setting(5, 3, {0: 0b11111, 1: 0b11111, 2: 0b11111, 3: 0b11111, 4: 0})
    assert choose_participants(state, attempt) == 0b11111
    assert agreed_whole(attempt) == 0


@pytest.mark.parametrize(
    ("participants", "receipts", "check"),
    [
        (0b00111, dict.fromkeys(range(5), 0b11111), "too few"),
        (0b11111, dict.fromkeys(range(5), 0b01111), "not covered"),
        (0b01111, dict.fromkeys(range(5), 0b11111), "censored"),
    ],
)
def test_a_set_that_breaks_a_rule_is_refused(participants: int, receipts: dict[int, int], check: str) -> None:
    state, attempt = setting(5, 3, receipts)
    with pytest.raises(Fault, match=check):
        check_participants(state, attempt, Bitmap(participants), offender="0xabc")


def test_a_set_with_a_member_that_did_not_commit_is_refused() -> None:
    state, attempt = setting(5, 3, dict.fromkeys(range(5), 0b11111), committed=0b01111)
    with pytest.raises(Fault, match="not committed"):
        check_participants(state, attempt, Bitmap(0b11111))
    assert choose_participants(state, attempt) == 0b01111


def test_nothing_may_be_locked_with_fewer_than_t_receipts_or_too_small_a_set() -> None:
    assert choose_participants(*setting(5, 3, {0: 0b11111, 1: 0b11111})) is None
    assert choose_participants(*setting(5, 3, dict.fromkeys(range(5), 0b00111))) is None


@settings(max_examples=200, deadline=None)
@given(
    n=st.integers(3, 9),
    extra=st.integers(0, 8),
    wholes=st.lists(st.integers(0, 511), min_size=9, max_size=9),
    committed=st.integers(0, 511),
)
def test_what_an_honest_aggregator_chooses_is_always_allowed_and_found_when_there_is_one(
    n: int, extra: int, wholes: list[int], committed: int
) -> None:
    t = min(n // 2 + 1 + extra, n - 1)
    mask = (1 << n) - 1
    committed &= mask
    state, attempt = setting(n, t, {i: wholes[i] & committed for i in range(n)}, committed)
    chosen = choose_participants(state, attempt)
    allowed = [u for u in range(1 << n) if _allowed(state, attempt, u)]
    if chosen is None:
        assert not allowed
    else:
        assert chosen in allowed
        assert chosen.bit_count() == max(u.bit_count() for u in allowed)


def _allowed(state: FederationState, attempt: Attempt, participants: int) -> bool:
    try:
        check_participants(state, attempt, Bitmap(participants))
    except Fault:
        return False
    return True


def test_many_receipts_are_searched_in_bounded_time() -> None:
    n, t = 40, 21
    everyone = (1 << n) - 1
    state, attempt = setting(n, t, {i: everyone if i % 8 else everyone & ~1 for i in range(n)})
    chosen = choose_participants(state, attempt)
    assert chosen == everyone


def given_up(n: int, t: int, given: int, receipts: dict[int, int], **facts: Bitmap) -> tuple[FederationState, Attempt]:
    """A second attempt, after this set was given up on the same model."""
    state, attempt = setting(n, t, receipts)
    return replace(state, abandoned=MappingProxyType({ZERO: (Bitmap(given),)}), **facts), attempt


class TestAfterASetWasGivenUp:
    """A difference of two sums is a sum: t members could read it."""

    def test_one_that_differs_in_a_few_is_refused(self) -> None:
        state, attempt = given_up(6, 4, 0b011111, dict.fromkeys(range(6), 0b111111))
        with pytest.raises(Fault, match="too close to a set that was given up"):
            check_participants(state, attempt, Bitmap(0b111111))

    def test_the_same_one_may_be_locked_again_and_nobody_beside_it_must_be_in(self) -> None:
        state, attempt = given_up(6, 4, 0b011111, dict.fromkeys(range(6), 0b111111))
        check_participants(state, attempt, Bitmap(0b011111))
        assert choose_participants(state, attempt) == 0b011111
        with pytest.raises(Fault, match="censored"):
            check_participants(state, attempt, Bitmap(0b111110))

    def test_one_that_differs_in_more_than_t_may_be_locked(self) -> None:
        state, attempt = given_up(12, 7, 0b000000001111, dict.fromkeys(range(12), 0xFFF))
        check_participants(state, attempt, Bitmap(0xFFF))
        assert choose_participants(state, attempt) == 0xFFF

    def test_who_was_removed_makes_no_difference_and_who_was_slashed_does(self) -> None:
        """Whoever was slashed may have been honest and away: only members' votes give its secret away."""
        receipts = dict.fromkeys(range(6), 0b011111)
        for fact, chosen in ((None, None), ("slashed", None), ("removed", 0b011111)):
            facts = {} if fact is None else {fact: Bitmap(0b100000)}
            state, attempt = given_up(6, 4, 0b111111, receipts, **facts)
            assert choose_participants(state, attempt) == chosen

    def test_a_third_set_is_refused_however_far_apart(self) -> None:
        """Three sums may combine to a sum of few; of who was removed nothing is counted."""
        first, second, third = Bitmap(0b000111111), Bitmap(0b111111000), Bitmap(0b111000111)
        state, attempt = setting(9, 5, dict.fromkeys(range(9), 0x1FF))
        for known, refused in (((first, second), second), ((second, first), first), ((first, first, second), second)):
            before = replace(state, abandoned=MappingProxyType({ZERO: known}))
            assert too_close(before, attempt, third) == refused
            assert too_close(before, attempt, first) is None and too_close(before, attempt, second) is None
        spoiled = replace(state, abandoned=MappingProxyType({ZERO: (Bitmap(0b001111111),)}))
        assert too_close(spoiled, attempt, first) is not None
        assert too_close(replace(spoiled, removed=Bitmap(0b001000000)), attempt, first) is None

    def test_on_another_model_it_does_not_matter(self) -> None:
        state, attempt = given_up(6, 4, 0b011111, dict.fromkeys(range(6), 0b111111))
        elsewhere = replace(attempt, base_digest=Digest(b"m" * 32))
        check_participants(state, elsewhere, Bitmap(0b111111))
        assert choose_participants(state, elsewhere) == 0b111111
