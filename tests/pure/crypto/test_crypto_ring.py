"""Exact products by floating point: against the schoolbook, at the worst inputs, and refusing to guess."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedchain.crypto.parameters import N, Q, key_bound
from fedchain.crypto.ring import SmallFactor, _nearest, reduce_signed


def schoolbook(a: NDArray[np.uint64], s: NDArray[np.int64]) -> list[int]:
    """a·s mod (X^N + 1, q) in Python integers."""
    wide = np.zeros(2 * N, dtype=object)
    exact = np.array([int(x) for x in a], dtype=object)
    for place, factor in enumerate(s.tolist()):
        if factor:
            wide[place : place + N] += exact * factor
    return [int(low - high) % Q for low, high in zip(wide[:N], wide[N:], strict=True)]


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 42, 210, key_bound(64), 4096]))
@settings(max_examples=6, deadline=None)
def test_a_product_equals_the_schoolbook(seed: int, bound: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, Q, (2, N), dtype=np.uint64)
    s = rng.integers(-bound, bound + 1, N)
    product = SmallFactor(s).times(a)
    assert product[1].tolist() == schoolbook(a[1], s)


@pytest.mark.parametrize("s_j", [42, -42, key_bound(64), -key_bound(64), 4096])
def test_the_largest_products_are_exact(s_j: int) -> None:
    a = np.full((1, N), Q - 1, dtype=np.uint64)
    s = np.full(N, s_j)
    assert SmallFactor(s).times(a)[0].tolist() == schoolbook(a[0], s)


def test_x_to_the_n_is_minus_one() -> None:
    a = np.zeros((1, N), dtype=np.uint64)
    a[0, N - 1] = 5
    x = np.zeros(N, dtype=np.int64)
    x[1] = 1
    assert SmallFactor(x).times(a)[0, 0] == Q - 5


def test_a_product_too_far_from_an_integer_is_an_error_and_not_a_guess() -> None:
    assert _nearest(np.array([3.2, -1.9])).tolist() == [3, -2]
    with pytest.raises(ArithmeticError):
        _nearest(np.array([3.0, 4.3]))
    with pytest.raises(ArithmeticError):
        _nearest(np.array([np.nan]))


def test_a_factor_that_is_not_small_is_refused() -> None:
    with pytest.raises(ValueError, match="4096"):
        SmallFactor(np.full(N, 4097))
    with pytest.raises(ValueError):
        SmallFactor(np.zeros(N - 1, dtype=np.int64))


def test_an_erased_factor_multiplies_to_zero() -> None:
    factor = SmallFactor(np.arange(N) % 40)
    factor.erase()
    assert not factor.times(np.ones((1, N), dtype=np.uint64)).any()


def test_signed_numbers_are_reduced_into_the_ring() -> None:
    assert reduce_signed(np.array([-1, 0, Q, Q + 3, -Q, 5 * Q - 2])).tolist() == [Q - 1, 0, 0, 3, 0, Q - 2]
