"""From the decrypted average to the next model: the outer optimisers, and their state inside the model's own object.

The literature calls them server optimisers (Reddi et al. 2021, arXiv:2003.00295). Here is no server: every peer and
every auditor takes the same step from the same sum and must get the same bits. So, as in `arithmetic`, each line is one
elementwise float64 operation that IEEE-754 rounds correctly (+, −, ×, ÷, √), in a fixed order; what is kept is rounded
once to float32.

State (momentum, second moment, SCAFFOLD's common control variate) is stored behind the model's tensors, in the same
canonical safetensors, under names that no task may use: one digest covers both, and who fetches the model has it all.
The genesis holds the state that every run begins with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ..errors import MalformedObject
from .arithmetic import average, next_model
from .charter import Charter, Outer
from .ids import Index
from .model import ModelLayout, assemble, flatten, layout_of
from .parts import parts_of
from .update_format import split_sums, update_format

STATE_PREFIX = "~fedchain."
"""What a state tensor's name begins with; "~" sorts behind all printable ASCII, so state stands behind the model."""

CONTROL = STATE_PREFIX + "control"
MOMENTUM = STATE_PREFIX + "momentum"
SECOND_MOMENT = STATE_PREFIX + "second_moment"

_TINY = float(np.finfo(np.float32).tiny)

Floats = NDArray[np.float64]


def state_names(charter: Charter) -> tuple[str, ...]:
    """Which state this charter's algorithm keeps, ascending; each is one (d,) float32 tensor."""
    match charter.outer.optimizer:
        case "none":
            moments: tuple[str, ...] = ()
        case "fedavgm":
            moments = (MOMENTUM,)
        case _:
            moments = (MOMENTUM, SECOND_MOMENT)
    return (CONTROL, *moments) if charter.algorithm.name == "scaffold" else moments


def model_layout(stored: ModelLayout) -> ModelLayout:
    """The model's own tensors of a stored object: what a task sees."""
    kept = [(n, s) for n, s in zip(stored.names, stored.shapes, strict=True) if not n.startswith(STATE_PREFIX)]
    try:
        return ModelLayout(tuple(name for name, _ in kept), tuple(shape for _, shape in kept))
    except ValueError as error:
        raise MalformedObject("model: layout", expected="a model beside the state", got=str(error)) from error


def stored_layout(model: ModelLayout, charter: Charter) -> ModelLayout:
    """The layout of the stored object: the model's tensors, then this charter's state."""
    names = state_names(charter)
    return ModelLayout(model.names + names, model.shapes + ((model.size,),) * len(names))


def model_part(stored: bytes) -> bytes:
    """The model alone, canonical safetensors, without the state: for use outside the federation."""
    layout = model_layout(layout_of(stored))
    return assemble(layout, flatten(stored)[: layout.size])


def update_size(model: ModelLayout, charter: Charter) -> int:
    """How many values one update has: the contract's modelSize. SCAFFOLD sends two vectors in one upload."""
    return model.size * (2 if charter.algorithm.name == "scaffold" else 1)


def with_first_state(model: bytes, charter: Charter) -> bytes:
    """The genesis: a model and the state that a run begins with: zeros, but for the second moment τ² (v_{-1} ≥ τ²)."""
    layout = model_layout(layout_of(model))
    begin = {SECOND_MOMENT: charter.outer.tau * charter.outer.tau}
    state = [np.full(layout.size, begin.get(name, 0.0), dtype=np.float32) for name in state_names(charter)]
    return assemble(stored_layout(layout, charter), np.concatenate([flatten(model)[: layout.size], *state]))


def update_size_of(stored: bytes, charter: Charter) -> int:
    """How many values one update to this stored model has. Raises MalformedObject unless this charter's state stands
    beside the model, no more and no less."""
    return update_size(_model_beside_state(stored, charter), charter)


def model_of_sum(
    base: bytes,
    coefficients: NDArray[np.uint64],
    *,
    charter: Charter,
    weights: Mapping[Index, int],
    participants: Collection[Index],
    rotation: bytes,
) -> bytes:
    """The next stored model from the one before and the exact sums of the participants' coefficients (P5.2).

    `weights` are what every member counts, `rotation` is the attempt's seed. Raises SumOutOfRange for a sum that no
    honest values give, and MalformedObject as `following_model` does.
    """
    weight = sum(weights[index] for index in participants)
    form = update_format(charter, update_size_of(base, charter))
    mean = average(
        split_sums(coefficients, form),
        participants=len(participants),
        total_weight=weight,
        max_weight=max(weights.values()),
        form=form,
        rotation=rotation,
    )
    return following_model(base, mean, charter=charter, weight=weight, of_weight=sum(weights.values()))


def following_model(base: bytes, mean: NDArray[np.float64], *, charter: Charter, weight: int, of_weight: int) -> bytes:
    """The next stored model, canonical safetensors, from the one before and the average of the updates (P5.2, M2).

    `mean` is (update_size,) float64. `weight` is the participants' weight together, `of_weight` all members': SCAFFOLD
    moves the common control variate by the part that took part. Bit-identical everywhere: see the module's head.
    Raises MalformedObject for a base without this charter's state, and for values beyond float32.
    """
    model = _model_beside_state(base, charter)
    if mean.shape != (update_size(model, charter),):
        raise ValueError(f"an average of {mean.shape} values is none of updates of {update_size(model, charter)}")
    d, names = model.size, state_names(charter)
    size = flatten(base).size
    # The base's copy, whose values move where they stand: of a large model and its state no third is held.
    following = BytesIO(base)
    rows = np.frombuffer(following.getbuffer(), dtype="<f4", offset=len(base) - 4 * size).reshape(1 + len(names), d)
    for some in parts_of(d):
        state = {name: rows[1 + i, some].astype(np.float64) for i, name in enumerate(names)}
        if CONTROL in state:
            state[CONTROL] = _kept(state[CONTROL] + mean[d:][some] * (weight / of_weight))
        change = _step(mean[:d][some], state, charter.outer)
        rows[0, some] = next_model(rows[0, some].astype(np.float32), change)
        for i, name in enumerate(names):
            rows[1 + i, some] = state[name]
    del rows
    return following.getvalue()


def _model_beside_state(stored: bytes, charter: Charter) -> ModelLayout:
    layout = layout_of(stored)
    model = model_layout(layout)
    if layout != stored_layout(model, charter):
        expected, got = (
            ", ".join(names)[:200] or "none" for names in (state_names(charter), layout.names[len(model.names) :])
        )
        raise MalformedObject("model: state", expected=expected, got=got)
    return model


def _step(mean: Floats, state: dict[str, Floats], outer: Outer) -> Floats:
    """What the model changes by, (d,) float64; the moments in `state` move on.

    FedAvgM: Hsu et al. 2019 (arXiv:1909.06335), m ← β₁m + Δ. The rest: Reddi et al. 2021, Algorithm 2,
    m ← β₁m + (1−β₁)Δ, and x ← x + η·m/(√v + τ). What is stored is what is used: both moments are float32 numbers.
    """
    if outer.optimizer == "none":
        return mean * outer.rate
    beta1, beta2 = outer.momentum, outer.beta2
    if outer.optimizer == "fedavgm":
        state[MOMENTUM] = _kept(state[MOMENTUM] * beta1 + mean)
        return state[MOMENTUM] * outer.rate
    state[MOMENTUM] = _kept(state[MOMENTUM] * beta1 + mean * (1 - beta1))
    second, square = state[SECOND_MOMENT], mean * mean
    match outer.optimizer:
        case "fedadagrad":
            second = second + square
        case "fedadam":
            second = second * beta2 + square * (1 - beta2)
        case "fedyogi":
            second = second - np.sign(second - square) * square * (1 - beta2)
    state[SECOND_MOMENT] = _kept(second)
    return state[MOMENTUM] * outer.rate / (np.sqrt(state[SECOND_MOMENT]) + outer.tau)


def _kept(values: Floats) -> Floats:
    """What float32 can keep of these values, as float64. What would be subnormal there is 0: machines that flush such
    numbers, and those that do not, agree. Raises MalformedObject for a value beyond float32."""
    if not (np.abs(values) <= np.finfo(np.float32).max).all():
        raise MalformedObject("model: state", expected="numbers within float32", got="a value beyond its range")
    return np.where(np.abs(values) < _TINY, 0.0, values).astype(np.float32).astype(np.float64)
