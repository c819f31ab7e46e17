"""What a trainer gives to one attempt's sum: trained by the charter's way, made integers, with its part of the noise.

Without noise every step is seeded, and the same member gives the same values again. With noise nothing is: what is
drawn comes from the operating system, and a contribution that is not committed is forgotten and never made again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..crypto import sample_skellam
from ..learn import Machine, private_gradient, train_locally
from ..protocol.arithmetic import clipped_fraction, counted_weights, quantise
from ..protocol.model import Vector
from ..protocol.outer import update_size_of
from ..protocol.private_values import bounded_units, cut_fraction, noise_in, noisy_values
from ..protocol.seeds import seed_for
from ..protocol.state import Attempt, FederationState
from ..protocol.update_format import UpdateFormat, update_format
from .context import PeerContext
from .crash import crash_point

HARMLESS_CUT = 0.005
"""Which part of an update's values may lie beyond ±clip_value before the trainer says so."""


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """The values to encrypt, (form.values,) int64, and when the training behind them ended (local clock)."""

    values: NDArray[np.int64]
    form: UpdateFormat
    trained_at: float


def contribution_to(context: PeerContext, state: FederationState, attempt: Attempt, budget_s: float) -> Contribution:
    """Train from the attempt's base and make the values of it; the adaptive ones train for at most `budget_s`."""
    base = context.base_model(attempt)
    form = update_format(context.charter, update_size_of(base, context.charter))
    if context.charter.privacy.mode == "records":
        return _private_step(context, attempt, base, form)
    return _trained(context, state, attempt, base, form, budget_s)


def _private_step(context: PeerContext, attempt: Attempt, base: bytes, form: UpdateFormat) -> Contribution:
    with context.meter.step("train"):
        step = private_gradient(
            context.task,
            base,
            context.data,
            rate=context.charter.privacy.sampling_rate,
            form=form,
            rotation=context.round_context(attempt).rotation_seed,
            machine=context.machine or Machine(),
        )
    trained_at = time.monotonic()
    loss = None if step.loss is None else rounded(step.loss)
    context.log.info("trained", round=attempt.round, attempt=attempt.attempt, loss=loss, steps=1)
    context.meter.note(loss=loss, steps=1, steps_per_s=rounded(1 / max(step.seconds, 1e-9)))
    crash_point("after-training", attempt.round)
    cut = cut_fraction(step.units, form)
    if cut > 0:
        context.log.warning("gradient cut to its room", fraction=rounded(cut))
    with context.meter.step("encrypt"):
        return Contribution(with_own_noise(step.units, form), form, trained_at)


def _trained(
    context: PeerContext, state: FederationState, attempt: Attempt, base: bytes, form: UpdateFormat, budget_s: float
) -> Contribution:
    place = {"member": context.me, "round": attempt.round, "attempt": attempt.attempt}
    with context.meter.step("train"):
        result = train_locally(
            context.task,
            base,
            context.charter.algorithm,
            context.data,
            seed_for("training", context.seed, **place),
            machine=context.machine or Machine(),
            budget_s=budget_s,
            kept=context.kept.latest(state, attempt.round),
            sent=form.places(context.round_context(attempt).rotation_seed),
        )
    trained_at = time.monotonic()
    did = {"loss": rounded(result.loss), "steps": result.steps}
    context.log.info("trained", round=attempt.round, attempt=attempt.attempt, **did)
    context.meter.note(**did, steps_per_s=rounded(result.steps / max(result.seconds, 1e-9)))
    if result.kept is not None:
        context.kept.write(attempt.round, attempt.attempt, result.kept)
    crash_point("after-training", attempt.round)
    weights, rotation = counted_weights(attempt, context.charter.update), context.round_context(attempt).rotation_seed
    weight, largest = weights[context.me], max(weights.values())
    with context.meter.step("encrypt"):
        if form.noise is None:
            cut = clipped_fraction(result.update, weight=weight, max_weight=largest, form=form, rotation=rotation)
            if cut > HARMLESS_CUT:
                # The charter is fixed for this run; the next one may have a better.
                context.log.warning(
                    "update cut: update.clip_value is too small", round=attempt.round, part=rounded(cut)
                )
        values = values_of(result.update, weight, largest, form, rotation, seed_for("rounding", context.seed, **place))
    return Contribution(values, form, trained_at)


def values_of(
    update: Vector, weight: int, max_weight: int, form: UpdateFormat, rotation: bytes, rounding_seed: int
) -> NDArray[np.int64]:
    """The values of a trained update: rounded by the seed, or, in a private federation, by nobody's, and with noise."""
    if form.noise is None:
        random = np.random.default_rng(rounding_seed)
        return quantise(update, weight=weight, max_weight=max_weight, form=form, rotation=rotation, random=random)
    random = np.random.default_rng()
    units = bounded_units(update, form=form, rotation=rotation, random=random, factor=weight / max_weight)
    return with_own_noise(units, form)


def with_own_noise(units: NDArray[np.int64], form: UpdateFormat) -> NDArray[np.int64]:
    """The values of these units with one member's part of the noise, drawn now and known to nobody afterwards."""
    noise = noise_in(form)
    return noisy_values(units, sample_skellam(form.values, noise.variance, noise.reach), form)


def rounded(value: float) -> float:
    """Four decimals, for logs."""
    return round(float(value), 4)
