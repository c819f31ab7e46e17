"""What a federation's noise protects: ε and δ of every release, of the run so far, and of the rounds that are left.

A release is an attempt whose participant set was locked: members open it from then on, and even of a set that was given
up, openings that the chain never saw may have been handed around. Its cost follows from the charter and from how many
updates are in the sum, so that anybody can work it out from the chain.

The accounting is by Rényi differential privacy (RDP) at whole orders: the curve of Skellam noise (Agarwal, Kairouz and
Liu 2021, arXiv:2110.04995, Corollary 4.1), amplification by Poisson sampling (Mironov, Talwar and Zhang 2019,
arXiv:1908.10530), addition over releases, and the conversion of Canonne, Kamath and Steinke 2020 (arXiv:2004.00010,
Proposition 12). `docs/privacy.md` says what is protected, and against whom.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..errors import UsageError
from .charter import Charter
from .events import least_participants
from .ids import size_of
from .state import FederationState

ORDERS = (*range(2, 65), 72, 80, 96, 112, 128, 160, 192, 256, 384, 512)
"""The orders α of RDP that are tried; the Skellam bound holds for whole ones."""

LEAST_UNITS = 64
"""The least sensitivity, in units of a value, that a federation's noise is made for. The bound falls with it: counting
with the least is right for every model, and at most 0.6 in a thousand above what a larger one gives from σ = Δ on."""

STEPS_PER_MULTIPLIER = 100
"""Noise multipliers that are worked out from ε are whole hundredths, rounded up: every machine gets the same one."""

FEWEST_CLIENTS = 50
"""With fewer members mode "clients" is of no use: at ε 8, ten reached .41 where a hundred reached .79."""

LARGEST_MULTIPLIER = 1000
MOST_ROUNDS = 10_000_000

Curve = tuple[float, ...]
"""RDP at each of `ORDERS`; curves of releases add up."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The noise of a charter: its multiplier z is σ of the noise over the sensitivity, in a sum that keeps to the plan.

    In such a sum stand `shares` honest members' parts of the noise: all founders but `dropouts`, less `colluders` who
    know their own parts and take them off. `least` updates at least are in any sum. A record is in a round's sum with
    probability `rate` (1: always).
    """

    multiplier: float
    rate: float
    epsilon: float
    delta: float
    founders: int
    shares: int
    colluders: int
    least: int

    def curve(self, participants: int) -> Curve:
        """What one release of a sum over so many updates costs."""
        honest = max(0, participants - self.colluders)
        return _curve(self.multiplier * math.sqrt(honest / self.shares), self.rate)

    @property
    def usual(self) -> Curve:
        """What a release costs where no more drop out than planned for."""
        return self.curve(self.shares + self.colluders)

    @property
    def worst(self) -> Curve:
        """The most that any release can cost: the contract locks no smaller set (P3)."""
        return self.curve(min(self.least, self.shares + self.colluders))


@dataclass(frozen=True, slots=True)
class Release:
    """One opened sum: `epsilon` alone, and `total` of all releases up to it, at the charter's δ."""

    round: int
    attempt: int
    participants: int
    epsilon: float
    total: float


@dataclass(frozen=True, slots=True)
class PrivacyAccount:
    """What was spent of a charter's budget, and how many rounds that go by the plan are left in it."""

    mode: str
    epsilon: float
    delta: float
    multiplier: float
    releases: tuple[Release, ...]
    rounds_left: int

    @property
    def spent(self) -> float:
        """ε of all releases together."""
        return self.releases[-1].total if self.releases else 0.0

    @property
    def is_overspent(self) -> bool:
        """Whether more was released than the charter allows."""
        return self.spent > self.epsilon


def plan_of(charter: Charter) -> Plan | None:
    """The noise that this charter asks for; None where it asks for none.

    Raises UsageError where the federation cannot have it: too few honest members, a budget that no noise up to a
    thousand times the sensitivity keeps to, or noise with which not even one round does.
    """
    privacy = charter.privacy
    if privacy.mode == "none":
        return None
    founders, threshold = len(charter.federation.members), charter.threshold
    if founders < 3:
        raise UsageError("the noise is shared out among the members: the charter must name them (federation.members)")
    colluders = threshold - 1 if privacy.colluders is None else privacy.colluders
    least = least_participants(threshold)
    if colluders > threshold - 1:
        raise UsageError(
            f"privacy.colluders is {colluders}, but {threshold} colluders read every update (committee.threshold);"
            f" at most {threshold - 1} make sense"
        )
    if founders - privacy.dropouts < least:
        raise UsageError(
            f"privacy.dropouts is {privacy.dropouts}; a sum of this federation needs {least} of its {founders} members,"
            f" so at most {founders - least} can be missing"
        )
    return _plan(
        privacy.noise_multiplier,
        privacy.sampling_rate if privacy.mode == "records" else 1.0,
        privacy.epsilon,
        privacy.delta,
        founders,
        founders - privacy.dropouts - colluders,
        colluders,
        least,
        charter.run.rounds,
    )


def account_of(charter: Charter, state: FederationState) -> PrivacyAccount | None:
    """What the run so far has spent; None where the charter has no privacy mode. Raises UsageError as `plan_of`."""
    plan = plan_of(charter)
    if plan is None:
        return None
    total, releases = _nothing(), []
    for round, attempt, participants in released(state):
        curve = plan.curve(participants)
        total = add(total, curve)
        alone, so_far = epsilon_of(curve, plan.delta), epsilon_of(total, plan.delta)
        releases.append(Release(round, attempt, participants, alone, so_far))
    return PrivacyAccount(
        charter.privacy.mode, plan.epsilon, plan.delta, plan.multiplier, tuple(releases), rounds_left(plan, total)
    )


def is_affordable(charter: Charter, state: FederationState) -> bool:
    """Whether one more release fits the budget, were its set as small as the contract allows.

    A member trains only then, and votes to stop otherwise. Always true where the charter has no privacy mode.
    """
    plan = plan_of(charter)
    if plan is None:
        return True
    total = _nothing()
    for _, _, participants in released(state):
        total = add(total, plan.curve(participants))
    return epsilon_of(add(total, plan.worst), plan.delta) <= plan.epsilon


def remarks_on(charter: Charter) -> tuple[str, ...]:
    """What members should know of a charter's privacy before they agree to it, one line each. Raises as `plan_of`."""
    plan = plan_of(charter)
    if plan is None:
        return ()
    remarks = []
    rounds = rounds_left(plan, _nothing())
    if rounds < charter.run.rounds:
        remarks.append(
            f"the budget lasts for {rounds} of {charter.run.rounds} rounds; then members train no more and vote to stop"
        )
    if charter.privacy.mode == "clients" and plan.founders < FEWEST_CLIENTS:
        remarks.append(
            f"hiding a whole member among {plan.founders} is useless: the noise moves every value of the mean by"
            f" {plan.multiplier / plan.founders:.0%} of what a member's whole update may weigh; it takes hundreds of"
            ' members. With few, large ones protect their records: privacy.mode = "records"'
        )
    return tuple(remarks)


def released(state: FederationState) -> tuple[tuple[int, int, int], ...]:
    """(round, attempt, updates in the sum) of every release, in order of rounds and attempts.

    What is opened anew after its result fell is the same sum and counts once.
    """
    attempts = [*state.closed.values(), *state.voided, *state.forgotten]
    if state.current is not None:
        attempts.append(state.current)
    found = {
        (attempt.round, attempt.attempt, size_of(attempt.aggregate.participants))
        for attempt in attempts
        if attempt.aggregate is not None
    }
    return tuple(sorted(found))


def rounds_left(plan: Plan, total: Curve) -> int:
    """How many more rounds by the plan fit the budget after `total`, each begun with room for the worst."""

    def fits(rounds: int) -> bool:
        before = tuple(t + (rounds - 1) * u for t, u in zip(total, plan.usual, strict=True))
        return epsilon_of(add(before, plan.worst), plan.delta) <= plan.epsilon

    if not fits(1):
        return 0
    least, most = 1, 2
    while fits(most):
        if most >= MOST_ROUNDS:
            return most
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return least


def skellam_rdp(order: int, multiplier: float, units: int = LEAST_UNITS) -> float:
    """RDP of whole order α of a sum of integers with Skellam noise, whose variance μ is (multiplier · units)².

    αΔ₂²/2μ + min(((2α−1)Δ₂² + 6Δ₁)/4μ², 3Δ₁/2μ), with Δ₂ = `units` and Δ₁ ≤ Δ₂²: integers are never longer in the
    first norm than their length squared.
    """
    square = multiplier * multiplier
    return order / (2 * square) + min((2 * order + 5) / (4 * square * square * units * units), 3 / (2 * square))


def sampled_rdp(order: int, rate: float, rdp: Sequence[float]) -> float:
    """RDP of whole order α where each record takes part with probability `rate`; rdp[l] is that without sampling.

    The bound is exact for one direction, a record added. The other is never larger wherever the noise is symmetric
    about 0 (Theorem 5 of arXiv:1908.10530, with the reflection that swaps the two distributions), as Skellam noise is.
    """
    if rate >= 1:
        return rdp[order]
    log_in, log_out = math.log(rate), math.log1p(-rate)
    logs = [(order - 1) * log_out + math.log1p((order - 1) * rate)]
    for taken in range(2, order + 1):
        ways = math.lgamma(order + 1) - math.lgamma(taken + 1) - math.lgamma(order - taken + 1)
        logs.append(ways + taken * log_in + (order - taken) * log_out + (taken - 1) * rdp[taken])
    largest = max(logs)
    return max(0.0, (largest + math.log(math.fsum(math.exp(log - largest) for log in logs))) / (order - 1))


def epsilon_of(curve: Curve, delta: float) -> float:
    """The ε of (ε, δ)-differential privacy that a curve gives: the least over the orders."""
    least = math.inf
    for order, rdp in zip(ORDERS, curve, strict=True):
        least = min(least, rdp + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))
    return max(0.0, least) if any(curve) else 0.0


def add(first: Curve, second: Curve) -> Curve:
    """The curve of two releases together."""
    return tuple(a + b for a, b in zip(first, second, strict=True))


def _nothing() -> Curve:
    return (0.0,) * len(ORDERS)


@lru_cache(maxsize=512)
def _curve(multiplier: float, rate: float) -> Curve:
    if multiplier <= 0:
        return (math.inf,) * len(ORDERS)
    most = ORDERS[-1] if rate < 1 else 0
    plain = [0.0, 0.0] + [skellam_rdp(order, multiplier) for order in range(2, most + 1)]
    if rate >= 1:
        return tuple(skellam_rdp(order, multiplier) for order in ORDERS)
    return tuple(sampled_rdp(order, rate, plain) for order in ORDERS)


@lru_cache(maxsize=64)
def _plan(
    multiplier: float,
    rate: float,
    epsilon: float,
    delta: float,
    founders: int,
    shares: int,
    colluders: int,
    least: int,
    rounds: int,
) -> Plan:
    def planned(hundredths: int) -> Plan:
        given = multiplier or hundredths / STEPS_PER_MULTIPLIER
        return Plan(given, rate, epsilon, delta, founders, shares, colluders, least)

    if multiplier:
        if not rounds_left(planned(0), _nothing()):
            raise UsageError(
                f"with privacy.noise_multiplier = {multiplier:g} one round may cost more than epsilon = {epsilon:g};"
                " take more noise, or 0 to have it worked out"
            )
        return planned(0)
    low, high = 0, LARGEST_MULTIPLIER * STEPS_PER_MULTIPLIER
    if rounds_left(planned(high), _nothing()) < rounds:
        raise UsageError(
            f"no noise up to {LARGEST_MULTIPLIER} times the sensitivity gives {rounds} rounds within"
            f" epsilon = {epsilon:g}; allow a larger privacy.epsilon, or fewer rounds"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rounds_left(planned(middle), _nothing()) >= rounds else (middle, high)
    return planned(high)
