"""Quantise, sum, average: unbiased, within a step, in range, and the same bits everywhere."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.errors import MalformedObject, UsageError
from fedchain.protocol.arithmetic import (
    average,
    clipped_fraction,
    counted_weights,
    next_model,
    quantise,
    weight_of,
)
from fedchain.protocol.charter import Charter, Federation, Update
from fedchain.protocol.events import FederationFounded, MemberEnrolled, Terms
from fedchain.protocol.ids import Address, Cid, Digest, Index
from fedchain.protocol.phase import live_attempt
from fedchain.protocol.seeds import seed_for
from fedchain.protocol.transition import apply, founded
from fedchain.protocol.update_format import UpdateFormat, update_format

PLAIN = Update(clip_value=0.25, bits=16, rotate=False, members_max=64)
SEED = bytes(range(32))


def form_of(settings: Update, size: int) -> UpdateFormat:
    return update_format(Charter(federation=Federation(name="arithmetic"), update=settings), size)


def changed(**changes: object) -> Update:
    return Update.model_validate(PLAIN.model_dump() | changes)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def integers(
    update: np.ndarray,
    settings: Update = PLAIN,
    *,
    weight: int = 1,
    of: int = 1,
    random: np.random.Generator | None = None,
) -> np.ndarray:
    form = form_of(settings, update.size)
    return quantise(update, weight=weight, max_weight=of, form=form, rotation=SEED, random=random or rng())


def mean_of(
    sums: np.ndarray,
    settings: Update = PLAIN,
    *,
    size: int = 0,
    participants: int = 1,
    total: int = 1,
    heaviest: int = 1,
) -> np.ndarray:
    form, weights = form_of(settings, size or sums.size), {"total_weight": total, "max_weight": heaviest}
    return average(sums, participants=participants, **weights, form=form, rotation=SEED)


def sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(finite, min_size=1, max_size=20),
    st.floats(1e-6, 1e6),
    st.floats(0, 1e3),
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(2, 16),
    st.booleans(),
    st.integers(0, 99),
)
def test_every_value_stays_in_its_field(
    update: list[float], clip_value: float, clip_norm: float, weight: int, more: int, bits: int, rotate: bool, seed: int
) -> None:
    settings = changed(clip_value=clip_value, clip_norm=clip_norm, bits=bits, rotate=rotate)
    values = integers(np.array(update, dtype=np.float32), settings, weight=weight, of=weight + more, random=rng(seed))
    assert values.dtype == np.int64
    assert values.min() >= 0 and values.max() <= 2**bits - 2


@pytest.mark.parametrize("clip_value", [0.1, 0.25, 0.3, 1 / 3, 0.7, 1.1, 3.3, 1e-3])
def test_the_ends_of_the_range_are_exact(clip_value: float) -> None:
    """Division may land an ulp past the last unit; rounding up there would leave the field."""
    update = np.array([clip_value, -clip_value, 9 * clip_value, -9 * clip_value, 0.0] * 200)
    values = integers(update, changed(clip_value=clip_value)).reshape(-1, 5)
    assert (values == [65534, 0, 65534, 0, 32767]).all()


class AlwaysUp(np.random.Generator):
    """Every draw is 0, so that any fraction above a whole unit, however small, rounds up."""

    def random(self, *args: object, **kwargs: object) -> np.ndarray:  # type: ignore[override]
        return np.zeros(args[0])  # type: ignore[call-overload]


@pytest.mark.parametrize("clip_value", [0.05, 0.1, 0.2, 1.1, 2.7])
def test_no_draw_leaves_the_field_where_the_division_lands_past_the_last_unit(clip_value: float) -> None:
    settings = changed(clip_value=clip_value)
    form = form_of(settings, 2)
    assert clip_value / form.step > form.steps, "the case this test is about"
    ends = np.array([clip_value, -clip_value])
    assert list(integers(ends, settings, random=AlwaysUp(np.random.PCG64(0)))) == [65534, 0]


def test_rounding_is_unbiased() -> None:
    step = form_of(PLAIN, 1).step
    for part in (0.0, 0.1, 0.5, 0.9, -0.3):
        update = np.full(200_000, (7 + part) * step)
        units = integers(update) - form_of(PLAIN, 1).steps
        assert set(np.unique(units)) <= {int(np.floor(7 + part)), int(np.floor(7 + part)) + 1}
        # Five standard errors of a coin's mean over 200,000 throws.
        assert abs(units.mean() - (7 + part)) < 5 * 0.5 / np.sqrt(200_000) + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-0.25, 0.25), min_size=1, max_size=50), st.integers(0, 99))
def test_one_update_comes_back_within_one_step(update: list[float], seed: int) -> None:
    exact = np.array(update)
    back = mean_of(integers(exact, random=rng(seed)))
    assert np.abs(back - exact).max() <= form_of(PLAIN, 1).step * (1 + 1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=3, max_size=64), st.integers(0, 99))
def test_the_weighted_mean_comes_back_within_its_bound(weights: list[int], seed: int) -> None:
    """The error of the average is below step · |U| · w_max / Σw: one step a member."""
    random = rng(seed)
    updates = random.uniform(-0.2, 0.2, (len(weights), 40))
    heaviest, total = max(weights), sum(weights)
    sums = sum(integers(u, weight=w, of=heaviest, random=random) for u, w in zip(updates, weights, strict=True))
    back = mean_of(np.asarray(sums), participants=len(weights), total=total, heaviest=heaviest)
    exact = np.average(updates, axis=0, weights=weights)
    assert np.abs(back - exact).max() <= form_of(PLAIN, 40).step * len(weights) * heaviest / total * (1 + 1e-9)


def test_the_order_of_members_does_not_matter() -> None:
    random = rng(3)
    parts = [integers(random.uniform(-0.3, 0.3, 100), random=rng(i)) for i in range(7)]
    one = mean_of(np.sum(parts, axis=0), participants=7, total=7)
    other = mean_of(np.sum(parts[::-1], axis=0), participants=7, total=7)
    assert one.tobytes() == other.tobytes()


def test_the_average_and_the_next_model_have_these_very_bits() -> None:
    """Pinned: a machine where this fails would not agree with the others on any model."""
    sums = (np.arange(5, 5 + 50_000, dtype=np.int64) * 7919) % (5 * 65535 - 5)
    mean = mean_of(sums, changed(clip_value=0.3), participants=5, total=1062, heaviest=511)
    base = (np.arange(50_000, dtype=np.float32) - 25_000) / np.float32(1234.5)
    assert sha256(mean.astype("<f8")) == "44da295a7dac61d0ca8ec057b44656b165a1cfecccd2ce733de9204e30c2d3e8"
    model = next_model(base, mean)
    assert sha256(model.astype("<f4")) == "1ebe25356cc7068320c2b53426f40cd0bbf7f629cf4a54a9552f8617d12341d1"


def test_the_average_is_the_formula_in_exact_arithmetic() -> None:
    sums = np.array([0, 98301, 100_000, 3 * 65534])
    mean = mean_of(sums, participants=3, total=17, heaviest=9)
    for got, total in zip(mean, sums, strict=True):
        exact = Fraction(1, 4) / 32767 * (int(total) - 3 * 32767) * Fraction(9, 17)
        assert abs(Fraction(float(got)) - exact) <= abs(exact) * Fraction(1, 2**50)


def test_the_next_model_is_rounded_once() -> None:
    base = np.array([1.0], dtype=np.float32)
    tiny = np.array([2.0**-24 * 1.5])
    assert next_model(base, tiny)[0] == np.float32(1 + 2.0**-24 * 1.5)
    assert next_model(base, tiny).dtype == np.float32


def test_the_norm_is_clipped_before_weighting() -> None:
    update = np.array([0.3, 0.4])
    settings = changed(clip_value=1.0, clip_norm=0.05)
    back = mean_of(integers(update, settings, weight=1, of=2), settings, total=2, heaviest=2)
    np.testing.assert_allclose(back, [0.015, 0.02], atol=2 * form_of(settings, 2).step)
    untouched = integers(np.array([0.03, 0.04]), changed(clip_value=1.0, clip_norm=0.06))
    np.testing.assert_array_equal(untouched, integers(np.array([0.03, 0.04]), changed(clip_value=1.0)))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_diverged_update_is_refused_with_a_reason(poison: float) -> None:
    with pytest.raises(UsageError, match="1 values that are NaN or infinite: the training diverged"):
        integers(np.array([0.1, poison]))


@pytest.mark.parametrize("sums", [[10, 3 * 65534 + 1], [-1, 10]])
def test_a_sum_that_honest_members_cannot_give_is_refused(sums: list[int]) -> None:
    with pytest.raises(MalformedObject, match="sum: range"):
        mean_of(np.array(sums), participants=3, total=3)


def test_a_model_beyond_float32_is_refused() -> None:
    with pytest.raises(MalformedObject, match="model: values"):
        next_model(np.array([3.4e38], dtype=np.float32), np.array([1e38]))
    with pytest.raises(MalformedObject, match="model: values"):
        next_model(np.array([1.0], dtype=np.float32), np.array([np.nan]))


@pytest.mark.parametrize(("weight", "most"), [(0, 5), (6, 5), (-1, 5)])
def test_a_weight_outside_its_bounds_is_our_bug(weight: int, most: int) -> None:
    with pytest.raises(ValueError, match="weight"):
        integers(np.array([0.1]), weight=weight, of=most)


def test_the_clipped_fraction_counts_what_is_cut() -> None:
    update = np.array([0.1, -0.3, 0.6, 0.2])
    form = form_of(PLAIN, 4)
    assert clipped_fraction(update, weight=1, max_weight=1, form=form, rotation=SEED) == 0.5
    assert clipped_fraction(update, weight=1, max_weight=2, form=form, rotation=SEED) == 0.25


def test_a_weight_is_the_samples_up_to_the_cap() -> None:
    assert weight_of(300, PLAIN) == 300
    assert weight_of(300, Update(weight_cap=200)) == 200
    assert weight_of(2**40, PLAIN) == 2**32 - 1
    with pytest.raises(UsageError, match="nothing to train on"):
        weight_of(0, PLAIN)


def test_seeds_differ_in_every_part_and_repeat_with_the_same() -> None:
    base = seed_for("train", 7, member=1, round=2, attempt=0)
    assert base == seed_for("train", 7, member=1, round=2, attempt=0) and 0 <= base < 2**63
    others = {
        seed_for("round", 7, member=1, round=2),
        seed_for("train", 8, member=1, round=2),
        seed_for("train", 7, member=2, round=1),
        seed_for("train", 7, member=1, round=3),
        seed_for("train", 7, member=1, round=2, attempt=1),
        seed_for("train", 71, member=0, round=2),
    }
    assert len(others | {base}) == 7


def test_a_weight_above_the_cap_counts_as_the_cap_and_shrinks_nobody() -> None:
    """Nobody can see a sample count, so a member that registers 2^32 - 1 must gain nothing and cost nothing."""
    members = {
        Index(i): MemberEnrolled(Index(i), Address(f"0x{i:040x}"), bytes(32), weight, 1)
        for i, weight in enumerate((100, 300, 2**32 - 1))
    }
    zero = Digest(bytes(32))
    terms = Terms(zero, Cid("Qm"), zero, Cid("Qm"), 10, 3, 2, 10, 10, 10, 10, 1, 10, 0)
    state = founded(FederationFounded(terms, tuple(m.member for m in members.values()), 0))
    for member in members.values():
        state = apply(state, member)
    attempt = live_attempt(state, 1)
    assert attempt is not None
    assert counted_weights(attempt, Update(weight_cap=400)) == {0: 100, 1: 300, 2: 400}
    assert counted_weights(attempt, Update())[Index(2)] == 2**32 - 1
