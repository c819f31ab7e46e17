"""Shamir's sharing and the naming of wrong symbols."""

from __future__ import annotations

import os
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.crypto.parameters import SHARE_PRIME
from fedchain.crypto.reed_solomon import misfits, trusted_symbols
from fedchain.crypto.shamir import (
    centred,
    evaluate,
    interpolate,
    lagrange,
    point_of,
    random_polynomials,
    sample_field,
)

POINTS = [point_of(j) for j in range(7)]


def test_any_t_of_n_give_the_secret_back_and_its_sign() -> None:
    secret = np.arange(-42, 43)
    shares = evaluate(random_polynomials(secret, 4, os.urandom), POINTS)
    for committee in combinations(range(7), 4):
        found = interpolate([POINTS[i] for i in committee], shares[list(committee)])
        assert np.array_equal(centred(found), secret)


@given(st.integers(2, 8), st.data())
@settings(max_examples=30, deadline=None)
def test_t_minus_one_shares_fit_every_secret(t: int, data: st.DataObject) -> None:
    """For any other secret there is one polynomial through the same t-1 shares: they rule nothing out."""
    points = data.draw(st.lists(st.integers(1, 64), min_size=t - 1, max_size=t - 1, unique=True))
    shares = evaluate(random_polynomials(np.array([17]), t, os.urandom), points)
    other = data.draw(st.integers(0, SHARE_PRIME - 1))
    through = np.vstack((np.array([[other]]), shares))
    missing = interpolate([0, *points], through, x=65)
    again = interpolate([*points, 65], np.vstack((shares, missing[None, :])))
    assert again[0] == other


def test_shares_of_one_member_are_uniform_whatever_the_secret() -> None:
    secret = np.zeros(200_000, dtype=np.int64)
    share = evaluate(random_polynomials(secret, 2, os.urandom), [1])[0]
    assert abs(share.mean() - SHARE_PRIME / 2) < 300
    assert share.min() < 10 and share.max() > SHARE_PRIME - 10


def test_field_elements_are_redrawn_and_not_reduced() -> None:
    """All-ones words are 65535: reduction would give 14, redrawing waits for the stream to change."""
    stream = iter([b"\xff" * 64] * 3)

    def random(count: int) -> bytes:
        return next(stream, b"\x01\x00" * count)[:count]

    assert sample_field(5, random).tolist() == [1, 1, 1, 1, 1]


def test_lagrange_weights_reproduce_a_known_polynomial() -> None:
    f = {x: (3 + 5 * x + 7 * x * x) % SHARE_PRIME for x in (1, 4, 9, 20)}
    weights = lagrange([1, 4, 9], 20)
    assert sum(int(w) * f[x] for w, x in zip(weights, (1, 4, 9), strict=True)) % SHARE_PRIME == f[20]


@given(st.integers(2, 9), st.integers(0, 6), st.data())
@settings(max_examples=60, deadline=None)
def test_errors_up_to_half_the_redundancy_are_never_trusted(t: int, spare: int, data: st.DataObject) -> None:
    m = t + spare
    points = data.draw(st.lists(st.integers(1, 64), min_size=m, max_size=m, unique=True))
    y = evaluate(random_polynomials(np.array([5]), t, os.urandom), points)[:, 0]
    wrong = data.draw(st.lists(st.integers(0, m - 1), max_size=spare // 2, unique=True))
    for i in wrong:
        y[i] = (y[i] + data.draw(st.integers(1, SHARE_PRIME - 1))) % SHARE_PRIME
    trusted = trusted_symbols(points, y, t)
    assert trusted is not None and len(trusted) >= t
    assert not set(trusted) & set(wrong)
    assert misfits(points, y[:, None], trusted[:t]) == tuple(sorted(wrong))


def test_more_errors_than_can_be_corrected_are_not_trusted_blindly() -> None:
    y = evaluate(random_polynomials(np.array([5]), 3, os.urandom), POINTS[:5])[:, 0]
    y[[0, 1]] = (y[[0, 1]] + 1000) % SHARE_PRIME
    trusted = trusted_symbols(POINTS[:5], y, 3)
    assert trusted is None or misfits(POINTS[:5], y[:, None], trusted[:3])
