"""The accountant: against dp-accounting's values, against Skellam's true divergence, and over a run's releases."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from fedchain.crypto.skellam import PRECISION, table_of
from fedchain.errors import UsageError
from fedchain.protocol.charter import Charter, Federation
from fedchain.protocol.ids import Address, Bitmap, Digest
from fedchain.protocol.noising import noise_of, reach_of, variance_of
from fedchain.protocol.privacy import (
    ORDERS,
    account_of,
    epsilon_of,
    is_affordable,
    plan_of,
    released,
    remarks_on,
    rounds_left,
    sampled_rdp,
    skellam_rdp,
)
from fedchain.protocol.state import Attempt

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "privacy.json").read_text(encoding="utf-8"))
RECORDS = {"mode": "records", "epsilon": 8.0, "clip": 1.0}


def charter(members: int = 5, rounds: int = 20, outer: dict[str, Any] | None = None, **privacy: Any) -> Charter:
    named = Federation(name="trial", members=tuple(Address(f"0x{i:040x}") for i in range(1, members + 1)))
    return Charter.model_validate(
        {
            "federation": named,
            "run": {"rounds": rounds},
            "update": {"bits": "auto"},
            "outer": {"learning_rate": 0.5} if outer is None else outer,
            "privacy": {**RECORDS, **privacy},
        }
    )


def gaussian(order: int, multiplier: float) -> float:
    return order / (2 * multiplier * multiplier)


@pytest.mark.parametrize("case", VECTORS["gaussian"], ids=lambda c: f"z{c['z']}-q{c['q']}-T{c['rounds']}")
def test_the_accountant_gives_the_librarys_epsilon_for_gaussian_noise(case: dict[str, Any]) -> None:
    """Same orders, same noise: composition, sampling and conversion are the library's to the last digits."""
    rdp = [0.0, 0.0, *(gaussian(order, case["z"]) for order in range(2, ORDERS[-1] + 1))]
    curve = tuple(case["rounds"] * sampled_rdp(order, case["q"], rdp) for order in ORDERS)
    assert epsilon_of(curve, case["delta"]) == pytest.approx(case["epsilon_whole_orders"], rel=1e-6)


@pytest.mark.parametrize("case", VECTORS["gaussian"], ids=lambda c: f"z{c['z']}-q{c['q']}-T{c['rounds']}")
def test_skellam_noise_costs_hardly_more_than_gaussian_noise_and_never_less(case: dict[str, Any]) -> None:
    rdp = [0.0, 0.0, *(skellam_rdp(order, case["z"]) for order in range(2, ORDERS[-1] + 1))]
    curve = tuple(case["rounds"] * sampled_rdp(order, case["q"], rdp) for order in ORDERS)
    epsilon = epsilon_of(curve, case["delta"])
    assert case["epsilon_whole_orders"] <= epsilon * (1 + 1e-9)
    assert epsilon <= 1.005 * case["epsilon_whole_orders"]


@pytest.mark.parametrize(("multiplier", "epsilon"), [(9.61, 2), (5.18, 4), (2.85, 8)])
def test_twenty_rounds_of_the_known_multipliers_cost_the_known_epsilon(multiplier: float, epsilon: float) -> None:
    """NIID figures at δ 1e-5 that were worked out with dp-accounting by RDP."""
    curve = tuple(20 * skellam_rdp(order, multiplier) for order in ORDERS)
    assert epsilon_of(curve, 1e-5) == pytest.approx(epsilon, rel=0.003)


def test_the_vectors_are_what_the_library_says_where_it_is_installed() -> None:
    dp_accounting = pytest.importorskip("dp_accounting")
    for case in VECTORS["gaussian"]:
        event = dp_accounting.PoissonSampledDpEvent(case["q"], dp_accounting.GaussianDpEvent(case["z"]))
        if case["q"] == 1:
            event = dp_accounting.GaussianDpEvent(case["z"])
        accountant = dp_accounting.rdp.RdpAccountant(ORDERS).compose(event, case["rounds"])
        assert accountant.get_epsilon(case["delta"]) == pytest.approx(case["epsilon_whole_orders"], rel=1e-9)


@pytest.mark.parametrize("units", [3, 8])
@pytest.mark.parametrize("multiplier", [0.7, 1.5, 4.0])
def test_the_bound_holds_for_the_true_divergence_of_shifted_skellam_noise(units: int, multiplier: float) -> None:
    """One coordinate, shifted by the whole sensitivity, and by 1 in units² coordinates; many orders."""
    variance = variance_of(multiplier, units, 1)
    true_multiplier = math.sqrt(variance) / units
    reach = reach_of(variance)
    table = table_of(variance, reach)
    limits = [0, *table.limits, 1 << PRECISION]
    masses = [(b - a) / 2**PRECISION for a, b in pairwise(limits)]

    def divergence(order: int, shift: int) -> float:
        """D_α(Z + shift ‖ Z), over where doubles can tell both; what is left out is positive."""
        inner = [
            order * math.log(p) + (1 - order) * math.log(q)
            for p, q in zip(masses[:-shift], masses[shift:], strict=True)
            if p > 1e-250 and q > 1e-250
        ]
        top = max(inner)
        return (top + math.log(math.fsum(math.exp(x - top) for x in inner))) / (order - 1)

    for order in (2, 3, 5, 9):
        bound = skellam_rdp(order, true_multiplier, units)
        assert divergence(order, units) <= bound * (1 + 1e-9)
        assert units * units * divergence(order, 1) <= bound * (1 + 1e-9)
    # The bound is no idle one: it is within a seventh of the truth where noise is not tiny.
    if multiplier >= 1.5:
        assert divergence(2, units) >= 6 / 7 * skellam_rdp(2, true_multiplier, units)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_sampling_is_bounded_in_both_directions(rate: float) -> None:
    """A record added and a record removed, one coordinate: the formula is the first and bounds the second."""
    units, variance = 4, 30
    reach = reach_of(variance)
    limits = [0, *table_of(variance, reach).limits, 1 << PRECISION]
    without = [(b - a) / 2**PRECISION for a, b in pairwise(limits)]
    shifted = [0.0] * units + without[:-units]
    mixed = [(1 - rate) * q + rate * p for q, p in zip(without, shifted, strict=True)]

    def divergence(first: list[float], second: list[float], order: int) -> float:
        inside = [p**order * q ** (1 - order) for p, q in zip(first, second, strict=True) if p > 1e-30 and q > 1e-30]
        return math.log(math.fsum(inside)) / (order - 1)

    exact = [0.0, 0.0, *(divergence(shifted, without, order) for order in range(2, 9))]
    for order in (2, 3, 5, 8):
        formula = sampled_rdp(order, rate, exact)
        assert formula == pytest.approx(divergence(mixed, without, order), rel=1e-9)
        assert divergence(without, mixed, order) <= formula * (1 + 1e-12)


def test_every_members_part_adds_up_to_the_plan_without_those_who_drop_out_or_collude() -> None:
    agreed = charter(members=10, dropouts=2, colluders=3, noise_multiplier=1.3)
    plan = plan_of(agreed)
    assert plan is not None
    assert (plan.shares, plan.colluders, plan.least) == (5, 3, 7)
    noise = noise_of(agreed, 5000)
    assert noise is not None
    assert 5 * noise.variance >= (1.3 * noise.units) ** 2 > 5 * (noise.variance - 1)
    # In numbers: ten members, two of them missing; three who know their own noise take it off.
    assert (8 - 3) * noise.variance == 5 * noise.variance
    assert plan.curve(8) == plan.usual
    assert plan.curve(10) < plan.usual < plan.curve(7)


def test_by_default_one_fewer_than_the_threshold_may_collude() -> None:
    plan = plan_of(charter(members=5))
    assert plan is not None
    assert (plan.shares, plan.colluders) == (3, 2)


def test_the_multiplier_is_the_least_hundredth_with_which_the_rounds_fit() -> None:
    agreed = charter(rounds=50, epsilon=4.0, sampling_rate=0.1)
    plan = plan_of(agreed)
    assert plan is not None
    nothing = (0.0,) * len(ORDERS)
    assert rounds_left(plan, nothing) >= 50
    assert rounds_left(replace(plan, multiplier=round(plan.multiplier - 0.01, 2)), nothing) < 50
    assert plan.multiplier == round(plan.multiplier, 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"colluders": 3}, "3 colluders read every update"),
        ({"dropouts": 2}, "at most 1 can be missing"),
        ({"epsilon": 1e-6}, "allow a larger privacy.epsilon"),
        ({"noise_multiplier": 0.5, "epsilon": 2.0}, "one round may cost more than epsilon = 2"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_words(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        plan_of(charter(**changes))


def test_noise_is_shared_out_among_members_who_are_named() -> None:
    with pytest.raises(UsageError, match="must name them"):
        plan_of(charter(members=0))


def test_members_are_told_before_they_agree() -> None:
    """A mode of no use, and a budget that does not last; nothing where there is nothing to say."""
    assert remarks_on(charter(members=5)) == ()
    (useless,) = remarks_on(charter(mode="clients", members=10))
    assert "useless" in useless and 'privacy.mode = "records"' in useless
    assert remarks_on(charter(mode="clients", members=60)) == ()
    (short,) = remarks_on(charter(rounds=500, noise_multiplier=1.0, sampling_rate=0.1))
    assert re.match(r"the budget lasts for \d+ of 500 rounds", short)


def test_without_a_mode_there_is_no_plan_and_no_account(stage: Any) -> None:
    plain = Charter(federation=Federation(name="trial"))
    assert plan_of(plain) is None
    assert account_of(plain, stage.closing) is None
    assert is_affordable(plain, stage.closing)


def opened(fresh: Attempt, stage: Any, **changes: Any) -> Attempt:
    """An attempt with the stage's locked set and openings, elsewhere."""
    like = stage.closing.current
    return replace(fresh, aggregate=like.aggregate, openings=like.openings, **changes)


def test_an_attempt_counts_from_the_lock_of_its_set_on_and_once(stage: Any) -> None:
    """Openings may be handed around beside the chain: in a store, to a relayer, in a transaction that came too late."""
    assert released(stage.receipts) == ()
    assert not stage.opening.current.openings
    assert released(stage.opening) == released(stage.closing) == ((1, 0, 5),)


def test_attempts_that_came_to_nothing_count_if_their_set_was_locked(stage: Any) -> None:
    fresh, unopened = fresh_attempt(stage, 2), MappingProxyType({})
    state = replace(
        stage.closing,
        voided=(opened(fresh, stage, attempt=1), replace(fresh, attempt=2)),
        forgotten=(replace(opened(fresh, stage, round=3), openings=unopened),),
    )
    assert released(state) == ((1, 0, 5), (2, 1, 5), (3, 0, 5))


def fresh_attempt(stage: Any, round: int) -> Attempt:
    state = stage.closing
    return state.fresh_attempt(round, 0, 0, (Digest(bytes(32)), state.current.base_cid))


def test_the_account_grows_with_every_release_and_a_small_set_costs_more(stage: Any) -> None:
    agreed = charter(rounds=3, epsilon=8.0, dropouts=1)
    fresh = fresh_attempt(stage, 2)
    small = opened(fresh, stage)
    assert small.aggregate is not None
    small = replace(small, aggregate=replace(small.aggregate, participants=Bitmap(0b01111)))
    state = replace(stage.closing, voided=(small,))
    account = account_of(agreed, state)
    assert account is not None
    assert [release.participants for release in account.releases] == [5, 4]
    one, two = account.releases
    assert one.epsilon == one.total < two.epsilon < two.total
    assert account.spent == two.total <= account.epsilon
    assert not account.is_overspent


def test_a_member_trains_only_while_the_worst_that_can_come_still_fits(stage: Any) -> None:
    agreed = charter(rounds=2, epsilon=4.0)
    plan = plan_of(agreed)
    assert plan is not None
    state, rounds = stage.receipts, 0
    fresh = fresh_attempt(stage, 1)
    while is_affordable(agreed, state):
        rounds += 1
        state = replace(state, voided=(*state.voided, opened(fresh, stage, attempt=rounds)))
        account = account_of(agreed, state)
        assert account is not None and account.spent <= 4.0
    assert rounds >= 2
    assert account is not None and account.rounds_left == 0
