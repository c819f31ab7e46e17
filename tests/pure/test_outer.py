"""The step from the average to the next model: against the papers' formulas in exact numbers, and its state."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedchain.errors import MalformedObject, UsageError
from fedchain.protocol.arithmetic import next_model
from fedchain.protocol.charter import Algorithm, Charter, Federation, Outer, Update, parse_charter
from fedchain.protocol.model import assemble, flatten, layout_from, layout_of, model_bytes_bound, split
from fedchain.protocol.outer import (
    CONTROL,
    MOMENTUM,
    SECOND_MOMENT,
    following_model,
    model_part,
    update_size_of,
    with_first_state,
)

LAYOUT = layout_from({"weight": (4, 3), "bias": (3,)})
D = LAYOUT.size
HALF_PLACE = 2.0**-24
"""The most that rounding to float32 takes, relative to the value."""
OPTIMIZERS = ("none", "fedavgm", "fedadagrad", "fedadam", "fedyogi")


def charter_with(algorithm: dict[str, Any] | None = None, **outer: Any) -> Charter:
    return Charter(federation=Federation(name="outer"), algorithm=Algorithm(**algorithm or {}), outer=Outer(**outer))


def model_of(seed: int = 0) -> bytes:
    return assemble(LAYOUT, np.random.default_rng(seed).normal(0, 0.1, D).astype(np.float32))


def parts_of(stored: bytes) -> dict[str, np.ndarray]:
    return split(layout_of(stored), flatten(stored))


def play(charter: Charter, rounds: int, seed: int = 1) -> bytes:
    """Some rounds with averages drawn at random."""
    stored, random = with_first_state(model_of(), charter), np.random.default_rng(seed)
    for _ in range(rounds):
        mean = random.normal(0, 0.01, update_size_of(stored, charter))
        stored = following_model(stored, mean, charter=charter, weight=1, of_weight=1)
    return stored


def test_without_an_optimizer_the_average_is_added_and_nothing_is_kept() -> None:
    charter, base = charter_with(), model_of()
    mean = np.random.default_rng(1).normal(0, 0.01, D)
    assert with_first_state(base, charter) == base
    following = following_model(base, mean, charter=charter, weight=3, of_weight=5)
    assert following == assemble(LAYOUT, next_model(flatten(base), mean))


def reference(outer: Outer, x: Fraction, m: Fraction, v: Fraction, delta: Fraction) -> tuple[float, float, float]:
    """One coordinate's step as the papers write it, in exact numbers up to the root."""
    beta1, beta2, tau, rate = (Fraction(b) for b in (outer.momentum, outer.beta2, outer.tau, outer.rate))
    if outer.optimizer == "fedavgm":
        m = beta1 * m + delta
        return float(x + rate * m), float(m), float(v)
    m = beta1 * m + (1 - beta1) * delta
    sign = (v > delta**2) - (v < delta**2)
    v = {
        "fedadagrad": v + delta**2,
        "fedadam": beta2 * v + (1 - beta2) * delta**2,
        "fedyogi": v - (1 - beta2) * delta**2 * sign,
    }[outer.optimizer]
    return float(x + rate * m / (Fraction(float(v) ** 0.5) + tau)), float(m), float(v)


@pytest.mark.parametrize("optimizer", OPTIMIZERS[1:])
@settings(max_examples=25, deadline=None)
@example(means=[0.0, 0.024219585582613945, -0.0390625], beta1=0.125, beta2=0.5)  # x takes 98% of the step back
@given(
    st.lists(st.floats(-0.0625, 0.0625, width=32), min_size=3, max_size=3), st.floats(0, 0.95), st.floats(0.5, 0.999)
)
def test_a_step_is_the_papers_formula(optimizer: Any, means: list[float], beta1: float, beta2: float) -> None:
    charter = charter_with(optimizer=optimizer, beta1=beta1, beta2=beta2)
    stored = with_first_state(model_of(), charter)
    for mean in means:
        before = parts_of(stored)
        stored = following_model(stored, np.full(D, mean), charter=charter, weight=1, of_weight=1)
        after = parts_of(stored)
        x, m = before["bias"][0], before[MOMENTUM][0]
        v = before[SECOND_MOMENT][0] if SECOND_MOMENT in before else np.float32(0)
        expected = reference(charter.outer, *(Fraction(float(number)) for number in (x, m, v)), Fraction(mean))
        got = [after["bias"][0], after[MOMENTUM][0], after.get(SECOND_MOMENT, [0.0])[0]]
        # x + s is rounded to float32 once, and s has what m and v lost when they were: two halves of a last place at
        # most, of s's own size, however much of it x takes back. Where sums themselves cancel, float64's last place.
        bounds = [HALF_PLACE * abs(e) + 1e-15 for e in expected]
        bounds[0] += 2 * HALF_PLACE * abs(expected[0] - float(x))
        errors = [abs(float(g) - e) for g, e in zip(got, expected, strict=True)]
        assert all(error <= bound for error, bound in zip(errors, bounds, strict=True)), (got, expected, bounds)


@pytest.mark.parametrize(
    ("optimizer", "digest"),
    [
        ("fedavgm", "33b0922270915198"),
        ("fedadagrad", "367859bd9c3afaf1"),
        ("fedadam", "74545ef6e5b76572"),
        ("fedyogi", "5fa2029343a5b801"),
    ],
)
def test_ten_rounds_have_these_very_bits(optimizer: Any, digest: str) -> None:
    """Pinned: a machine where this fails would not agree with the others on any model."""
    charter = charter_with(optimizer=optimizer)
    stored = with_first_state(assemble(LAYOUT, (np.arange(D) / 64).astype(np.float32)), charter)
    for round in range(10):
        mean = ((np.arange(D) * 7919 + round * 104729) % 1000 - 500) / 65536.0
        stored = following_model(stored, mean, charter=charter, weight=1, of_weight=1)
    assert hashlib.sha256(stored).hexdigest()[:16] == digest


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
def test_who_has_only_the_stored_model_goes_on_like_everybody(optimizer: Any, name: str) -> None:
    charter = charter_with({"name": name, "effective_steps": 5 if name == "scaffold" else 0}, optimizer=optimizer)
    stored = play(charter, 3)
    fetched = bytes(bytearray(stored))
    mean = np.linspace(-0.02, 0.02, update_size_of(stored, charter))
    one, other = (following_model(s, mean, charter=charter, weight=2, of_weight=7) for s in (stored, fetched))
    assert one == other
    assert len(one) == len(with_first_state(model_of(), charter)) <= model_bytes_bound(update_size_of(one, charter))
    assert layout_of(model_part(one)) == LAYOUT
    np.testing.assert_array_equal(flatten(model_part(one)), flatten(one)[:D])


def test_momentum_carries_on_where_the_average_stands_still() -> None:
    charter = charter_with(optimizer="fedavgm")
    moved = following_model(
        with_first_state(model_of(), charter), np.full(D, 0.01), charter=charter, weight=1, of_weight=1
    )
    still = following_model(moved, np.zeros(D), charter=charter, weight=1, of_weight=1)
    np.testing.assert_allclose(flatten(still)[:D] - flatten(moved)[:D], 0.005, rtol=1e-4)


def test_a_moment_that_fades_away_becomes_zero_and_never_subnormal() -> None:
    charter = charter_with(optimizer="fedavgm")
    stored = following_model(
        with_first_state(model_of(), charter), np.full(D, 1e-3), charter=charter, weight=1, of_weight=1
    )
    for _ in range(130):
        stored = following_model(stored, np.zeros(D), charter=charter, weight=1, of_weight=1)
        kept = np.abs(parts_of(stored)[MOMENTUM])
        assert ((kept == 0) | (kept >= np.finfo(np.float32).tiny)).all()
    assert not kept.any()


def test_scaffold_sends_two_vectors_and_moves_the_control_variate_by_the_part_that_took_part() -> None:
    charter = charter_with({"name": "scaffold", "effective_steps": 10})
    stored = with_first_state(model_of(), charter)
    assert update_size_of(stored, charter) == 2 * D
    mean = np.concatenate([np.full(D, 0.01), np.full(D, 0.004)])
    stored = following_model(stored, mean, charter=charter, weight=3, of_weight=4)
    np.testing.assert_allclose(parts_of(stored)[CONTROL], 0.003, rtol=1e-6)
    np.testing.assert_allclose(flatten(stored)[:D] - flatten(model_of()), 0.01, rtol=1e-4)


def test_state_that_is_missing_superfluous_or_of_another_size_is_refused() -> None:
    plain, momentum = charter_with(), charter_with(optimizer="fedavgm")
    mean = np.zeros(D)
    with pytest.raises(MalformedObject, match=r"expected ~fedchain\.momentum, got none"):
        following_model(model_of(), mean, charter=momentum, weight=1, of_weight=1)
    with pytest.raises(MalformedObject, match=r"expected none, got ~fedchain\.momentum"):
        following_model(with_first_state(model_of(), momentum), mean, charter=plain, weight=1, of_weight=1)
    odd = layout_from({"bias": (3,), "weight": (4, 3), MOMENTUM: (D - 1,)})
    with pytest.raises(MalformedObject, match="state"):
        update_size_of(assemble(odd, np.zeros(odd.size, np.float32)), momentum)
    only_state = layout_from({MOMENTUM: (3,)})
    with pytest.raises(MalformedObject, match="a model beside the state"):
        update_size_of(assemble(only_state, np.zeros(3, np.float32)), momentum)


def test_a_state_beyond_float32_is_refused() -> None:
    charter = charter_with(optimizer="fedadagrad")
    with pytest.raises(MalformedObject, match="numbers within float32"):
        following_model(with_first_state(model_of(), charter), np.full(D, 1e20), charter=charter, weight=1, of_weight=1)


def test_the_charter_fills_in_what_is_usual_and_refuses_what_does_not_belong() -> None:
    assert (Outer().rate, Outer(optimizer="fedavgm").momentum, Outer(optimizer="fedavgm").rate) == (1.0, 0.5, 1.0)
    assert [(Outer(optimizer=o).momentum, Outer(optimizer=o).rate) for o in OPTIMIZERS[2:]] == [
        (0.0, 0.01),
        (0.9, 0.01),
        (0.9, 0.01),
    ]
    charter = charter_with(optimizer="fedyogi", learning_rate=0.1)
    assert parse_charter(charter.canonical()) == charter
    for settings_, reason in [
        (["algorithm.name=fedadam"], r'outer\.optimizer = "fedadam"'),
        (["outer.beta1=0.5"], "belongs to an optimizer"),
        (["outer.optimizer=fedavgm", "outer.beta1=1.0"], "less than 1"),
        (["algorithm.name=scaffold"], "effective_steps"),
        (["algorithm.effective_steps=5"], "belongs to fednova and scaffold"),
        (["algorithm.budget_s=5.0"], "adaptive"),
        (["algorithm.name=fedavg++", "algorithm.local_steps=adaptive"], "set all three"),
    ]:
        with pytest.raises(UsageError, match=reason):
            charter_with().with_settings(settings_)
    whole = Charter(
        federation=Federation(name="outer"),
        algorithm=Algorithm(name="fedavg++", local_steps="adaptive"),
        outer=Outer(optimizer="fedavgm"),
        update=Update(weight_cap=100),
    )
    assert parse_charter(whole.canonical()).algorithm.name == "fedavg++"
