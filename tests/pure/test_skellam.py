"""Skellam noise: its distribution against the exact one, its sums, its ends, and where its randomness comes from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from fedchain.crypto.skellam import PRECISION, sample_skellam, table_of
from fedchain.protocol.noising import TAIL_BITS, reach_of


def seeded(seed: int) -> Callable[[int], bytes]:
    """A stream that is the same on every machine: SHAKE-256, one message a call."""
    calls = iter(range(10**9))
    return lambda count: hashlib.shake_256(f"{seed} {next(calls)}".encode()).digest(count)


def exact_masses(variance: int, reach: int) -> list[float]:
    """P(Z = k) for k = 0 … reach: the sum over j of two Poisson masses, in logarithms, smallest first."""
    mean = variance / 2
    terms = reach + int(mean + 40 * math.sqrt(mean) + 40)

    def log_mass(k: int, j: int) -> float:
        return (2 * j + k) * math.log(mean) - variance - math.lgamma(j + 1) - math.lgamma(j + k + 1)

    return [math.fsum(sorted(math.exp(log_mass(k, j)) for j in range(terms))) for k in range(reach + 1)]


@pytest.mark.parametrize("variance", [1, 2, 9, 60])
def test_the_table_is_the_distribution_of_the_difference_of_two_poisson_variables(variance: int) -> None:
    table = table_of(variance, reach_of(variance))
    limits = [0, *table.limits, 1 << PRECISION]
    for k, mass in enumerate(exact_masses(variance, 25)):
        place = table.reach + k
        assert (limits[place + 1] - limits[place]) / 2**PRECISION == pytest.approx(mass, rel=1e-11)


@pytest.mark.parametrize("variance", [1, 5, 1000, 48_499, 10_000_000])
def test_the_table_is_symmetric_has_the_variance_and_nothing_to_speak_of_beyond_its_reach(variance: int) -> None:
    table = table_of(variance, reach_of(variance))
    limits = [0, *table.limits, 1 << PRECISION]
    masses = [b - a for a, b in pairwise(limits)]
    assert min(masses) >= 0
    assert all(abs(a - b) <= 1 for a, b in zip(masses, reversed(masses), strict=True))
    second = sum(m * (i - table.reach) ** 2 for i, m in enumerate(masses))
    assert abs(second - (variance << PRECISION)) < variance << (PRECISION - 60)
    wider = table_of(variance, table.reach + table.reach // 3)
    lost = wider.limits[wider.reach - table.reach - 1] + (1 << PRECISION) - wider.limits[wider.reach + table.reach]
    assert lost <= 1 << (PRECISION - TAIL_BITS)


@pytest.mark.parametrize("variance", [3, 2500])
def test_draws_have_the_distribution_of_the_table_by_chi_square(variance: int) -> None:
    count, reach = 200_000, reach_of(variance)
    draws = sample_skellam(count, variance, reach, seeded(variance))
    table = table_of(variance, reach)
    # Cells of about one part in forty each, cut where the distribution function passes j/40.
    cuts = sorted(
        {next(i for i, limit in enumerate(table.limits) if limit * 40 >= j << PRECISION) for j in range(1, 40)}
    )
    edges = [0, *(table.limits[cut] for cut in cuts), 1 << PRECISION]
    expected = np.array([(b - a) / 2**PRECISION * count for a, b in pairwise(edges)])
    cells = np.searchsorted(np.array(cuts) - reach, draws, side="left")
    seen = np.bincount(cells, minlength=len(expected))
    statistic = float(((seen - expected) ** 2 / expected).sum())
    # The statistic has mean k − 1 and standard deviation √(2(k − 1)); five of them are passed once in a million.
    freedom = len(expected) - 1
    assert statistic < freedom + 5 * math.sqrt(2 * freedom), statistic


@pytest.mark.parametrize("variance", [1, 40, 100_000])
def test_draws_have_the_moments_of_skellam_noise(variance: int) -> None:
    count = 200_000
    draws = sample_skellam(count, variance, reach_of(variance), seeded(7)).astype(np.float64)
    fourth = 3 * variance**2 + variance  # of a Skellam variable: κ₄ = μ
    assert abs(draws.mean()) < 5 * math.sqrt(variance / count)
    assert abs((draws**2).mean() - variance) < 5 * math.sqrt((fourth - variance**2) / count)
    assert (draws**4).mean() == pytest.approx(fourth, rel=0.1)


@pytest.mark.parametrize("present", [5, 4, 3])
def test_the_sum_over_members_has_the_variance_of_those_who_are_there(present: int) -> None:
    variance, count = 700, 100_000
    members = [sample_skellam(count, variance, reach_of(variance), seeded(i)) for i in range(5)]
    total = np.sum(members[:present], axis=0).astype(np.float64)
    expected = present * variance
    assert abs((total**2).mean() - expected) < 5 * math.sqrt(2.01 * expected**2 / count)


def test_a_draw_that_falls_on_a_limit_is_settled_by_64_bits_more() -> None:
    reach = reach_of(9)
    table = table_of(9, reach)
    limit = table.limits[reach]
    upper, lower = limit >> 64, limit & (2**64 - 1)
    assert lower

    def given(rest: int) -> int:
        words = iter([upper.to_bytes(8, "little"), rest.to_bytes(8, "little")])
        return int(sample_skellam(1, 9, reach, lambda count: next(words))[0])

    assert given(lower - 1) == 0
    assert given(lower) == 1


def test_the_extreme_draws_stay_within_the_reach() -> None:
    for variance in (1, 50, 12345):
        reach = reach_of(variance)
        assert -reach <= sample_skellam(1, variance, reach, lambda count: bytes(count))[0] < -reach // 2
        assert reach // 2 < sample_skellam(1, variance, reach, lambda count: b"\xff" * count)[0] <= reach


def test_by_default_no_two_draws_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    np.random.seed(1)
    first = sample_skellam(1000, 10**6, reach_of(10**6))
    np.random.seed(1)
    second = sample_skellam(1000, 10**6, reach_of(10**6))
    assert (first != second).sum() > 990


def test_noise_without_a_variance_is_refused() -> None:
    with pytest.raises(ValueError, match="variance 0"):
        sample_skellam(1, 0, 5)
