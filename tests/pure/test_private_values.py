"""From vectors to bounded integers, and from integers to noisy values that sum to a mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.crypto import sample_skellam
from fedchain.errors import UsageError
from fedchain.protocol.arithmetic import average, quantise
from fedchain.protocol.charter import Charter, Federation
from fedchain.protocol.ids import Address
from fedchain.protocol.noising import reach_of
from fedchain.protocol.private_values import bounded_units, cut_fraction, noise_in, noisy_values
from fedchain.protocol.update_format import UpdateFormat, join_values, model_size_of, split_sums, update_format

SEED = b"r" * 32


def charter(mode: str = "records", *, rotate: bool = True, members: int = 5, **privacy: Any) -> Charter:
    return Charter.model_validate(
        {
            "federation": Federation(
                name="trial", members=tuple(Address(f"0x{i:040x}") for i in range(1, members + 1))
            ),
            "update": {"bits": "auto", "rotate": rotate},
            "outer": {"learning_rate": 0.5},
            "privacy": {"mode": mode, "epsilon": 4.0, "clip": 2.0, **privacy},
        }
    )


def form_of(size: int = 3000, **changes: Any) -> UpdateFormat:
    return update_format(charter(**changes), size)


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 5000),
    length=st.floats(0, 1e6),
    spike=st.booleans(),
    rotate=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_no_vector_is_longer_in_units_than_the_noise_was_made_for(
    size: int, length: float, spike: bool, rotate: bool, seed: int
) -> None:
    form, random = form_of(size, rotate=rotate), np.random.default_rng(seed)
    vector = np.eye(1, size, seed % size)[0] if spike else random.normal(size=size)
    vector *= length / np.linalg.norm(vector)
    units = bounded_units(vector, form=form, rotation=SEED, random=random)
    assert units.dtype == np.int64 and units.shape == (form.values,)
    assert int(np.dot(units, units)) <= noise_in(form).units ** 2


def test_rounding_is_right_on_average_and_a_short_vector_is_not_stretched() -> None:
    form = form_of(50, rotate=False)
    noise, vector = noise_in(form), np.linspace(-0.1, 0.1, 50)
    total = np.zeros(50)
    for seed in range(3000):
        total += bounded_units(vector, form=form, rotation=SEED, random=np.random.default_rng(seed))
    assert total / 3000 * noise.clip_unit == pytest.approx(vector, abs=5 * noise.clip_unit * 0.5 / np.sqrt(3000))


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    vector = np.zeros(3000)
    vector[7] = np.inf
    with pytest.raises(UsageError, match="NaN or infinite"):
        bounded_units(vector, form=form_of(), rotation=SEED, random=np.random.default_rng(1))


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("mode", ["records", "clients"])
def test_the_mean_of_noisy_values_is_the_mean_of_the_vectors_and_noise_of_the_planned_size(
    mode: str, rotate: bool
) -> None:
    """Encoding, coefficients, sums and the decoder's average, with every member's part of the noise."""
    rate = 0.25 if mode == "records" else 1.0
    form = form_of(mode=mode, rotate=rotate, sampling_rate=rate, colluders=0)
    noise, random = noise_in(form), np.random.default_rng(3)
    vectors = random.normal(size=(5, form.size)) * 0.01
    weights, sums = [30, 10, 20, 20, 20], np.zeros(form.coefficients, dtype=np.uint64)
    for vector, weight in zip(vectors, weights, strict=True):
        factor = 1.0 if mode == "records" else weight / max(weights)
        units = bounded_units(vector, form=form, rotation=SEED, random=random, factor=factor)
        own = sample_skellam(form.values, noise.variance, noise.reach)
        sums += join_values(noisy_values(units, own, form), form)
    mean = average(split_sums(sums, form), participants=5, total_weight=100, max_weight=30, form=form, rotation=SEED)
    if mode == "records":
        expected, size = vectors.sum(axis=0) / (rate * 100), 1 / (rate * 100)
    else:
        expected, size = (vectors * np.array(weights)[:, None]).sum(axis=0) / 100, 30 / 100
    left = mean - expected
    deviation = np.sqrt(5 * noise.variance + 5 / 4) * noise.clip_unit * size
    assert np.std(left) == pytest.approx(deviation, rel=0.07)
    # z times the sensitivity, as the plan says, in what everybody sees.
    assert np.sqrt(5 * noise.variance) >= noise.units
    assert abs(left.mean()) < 5 * deviation / np.sqrt(form.size)


def test_values_are_cut_before_the_noise_and_never_after() -> None:
    form = form_of()
    noise = noise_in(form)
    far = np.full(form.values, 10**9)
    at_reach = np.full(form.values, noise.reach)
    assert noisy_values(far, at_reach, form).max() == 2 * form.steps
    assert noisy_values(-far, -at_reach, form).min() == 0
    assert noisy_values(far, -at_reach, form).max() == 2 * form.steps - 2 * noise.reach
    assert cut_fraction(far, form) == 1 and cut_fraction(far * 0, form) == 0
    with pytest.raises(ValueError, match="beyond its reach"):
        noisy_values(far, at_reach + 1, form)


def test_cutting_never_moves_two_sums_apart() -> None:
    form, random = form_of(), np.random.default_rng(5)
    silent = np.zeros(form.values, dtype=np.int64)
    one = random.integers(-(10**6), 10**6, form.values)
    other = one + random.integers(-3, 4, form.values)
    apart = noisy_values(one, silent, form) - noisy_values(other, silent, form)
    assert (np.abs(apart) <= np.abs(one - other)).all()


@pytest.mark.parametrize("size", [1, 100, 12_289, 1_000_000])
@pytest.mark.parametrize("mode", ["records", "clients"])
def test_there_is_room_for_a_whole_clip_and_the_noises_whole_reach(mode: str, size: int) -> None:
    form = form_of(size, mode=mode)
    noise = noise_in(form)
    assert form.steps >= noise.reach + noise.units * (16 if mode == "records" else 1)
    assert form.fields >= 1 and form.radix**form.fields <= 2**44
    assert noise.units**2 >= 4 * form.values
    assert 0.9 * noise.units < noise.clip_units < noise.units
    assert model_size_of(charter(mode), size) == 2 * form.coefficients


def test_the_reach_is_that_of_bernsteins_bound() -> None:
    for variance in (1, 17, 10**4, 10**9):
        reach = reach_of(variance)
        assert 2 * np.exp(-(reach**2) / (2 * (variance + reach / 3))) <= 2.0**-100
        assert reach < 12.2 * np.sqrt(variance) + 60


def test_noise_that_fits_no_coefficient_is_refused() -> None:
    with pytest.raises(UsageError, match="too large for a model"):
        form_of(3_000_000, epsilon=0.02)


def test_a_private_federation_has_no_values_without_noise() -> None:
    form = form_of()
    with pytest.raises(ValueError, match="asks for noise"):
        quantise(np.zeros(form.size), weight=1, max_weight=1, form=form, rotation=SEED, random=np.random.default_rng(1))
    plain = update_format(Charter(federation=Federation(name="trial")), 100)
    with pytest.raises(ValueError, match="no noise"):
        noise_in(plain)
