"""One member's part of a private gradient step: records drawn in secret, each one's gradient cut and made integers.

DP-SGD (Abadi et al. 2016, arXiv:1607.00133) where the sum runs over all members: no noise is added here, it is added to
the integers (`crypto.skellam`) so that only the sum of all members has enough of it. Which records are drawn comes from
the operating system's randomness, because hiding that is part of the protection; nothing here can be repeated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from ..errors import UsageError
from ..protocol.model import ModelLayout
from ..protocol.private_values import bounded_units
from ..protocol.update_format import UpdateFormat
from .fitting import Machine
from .loading import task_code
from .task import LocalData, Task, to_device
from .training import device_named, loaded, reproducible

_AT_ONCE = 64
_VALUES_AT_ONCE = 1 << 22
"""So many records' gradients, and values of them, are held at a time; at least one record's."""


@dataclass(frozen=True, slots=True, eq=False)
class PrivateGradient:
    """What one member adds to a private step: `units`, (form.values,) int64, the sum over the records drawn, without
    noise: it must never leave the member like this. `drawn` and `loss` (their mean loss, None for no record) neither.
    """

    units: NDArray[np.int64]
    drawn: int
    loss: float | None
    seconds: float


def private_gradient(
    task: Task,
    base: bytes,
    data: LocalData,
    *,
    rate: float,
    form: UpdateFormat,
    rotation: bytes,
    machine: Machine = Machine(),
) -> PrivateGradient:
    """The negative gradients of records drawn with probability `rate` each, cut to the charter's clip, and summed.

    Raises CharterMismatch when `base` is not a model of this task, UsageError when the task's code fails, a gradient is
    not finite, or the model mixes records (batch norm, an embedding with max_norm).
    """
    started = time.perf_counter()
    place = device_named(machine.device)
    random = np.random.default_rng()
    total = np.zeros(form.values, dtype=np.int64)
    losses = 0.0
    rows = drawn_rows(len(data.train), rate)
    with reproducible(int.from_bytes(os.urandom(7), "big"), threads=machine.threads, device=place):
        model, layout = loaded(task, base)
        _check_separable(task, model)
        for gradient, loss in _gradients(task, model.to(place).train(), layout, data, rows):
            total += bounded_units(-gradient, form=form, rotation=rotation, random=random)
            losses += loss
    return PrivateGradient(
        units=total,
        drawn=len(rows),
        loss=losses / len(rows) if len(rows) else None,
        seconds=time.perf_counter() - started,
    )


def drawn_rows(count: int, rate: float) -> Tensor:
    """Poisson sampling: each of `count` rows with probability `rate`, to 2^-64, by the system's own randomness."""
    if rate >= 1:
        return torch.arange(count)
    words = np.frombuffer(os.urandom(8 * count), dtype="<u8")
    return torch.from_numpy(np.flatnonzero(words < np.uint64(int(rate * 2**64))))


def _gradients(
    task: Task, model: nn.Module, layout: ModelLayout, data: LocalData, rows: Tensor
) -> Iterator[tuple[NDArray[np.float32], float]]:
    """Each record's gradient, (d,) float32 in the layout's order (0 for what is not trained), and its loss."""
    device = next(model.parameters()).device
    named = {name: p for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    places = {id(parameter): place for place, parameter in enumerate(dict.fromkeys(named.values()))}
    trained = list(dict.fromkeys(named.values()))
    # A batch() of the task's own may make of one record what depends on the others: then each is a batch of its own.
    together = type(task).batch is Task.batch
    at_once = max(1, min(_AT_ONCE, _VALUES_AT_ONCE // layout.size))
    for some in torch.split(rows, at_once) if len(rows) else ():
        found = _together(task, model, trained, data, some, device) if together else None
        if found is None:
            # A model or loss that torch cannot vectorise (an LSTM, a branch on values): one record after the other. If
            # the task's own code is at fault, it fails here too, and is told.
            together = False
            found = _one_by_one(task, model, trained, data, some, device)
        parts, losses = found
        columns = [
            parts[places[id(named[name])]].reshape(len(some), -1)
            if name in named
            else torch.zeros(len(some), size, device=device)
            for name, size in zip(layout.names, layout.sizes, strict=True)
        ]
        vectors = torch.cat(columns, dim=1).to("cpu", torch.float32).numpy()
        yield from zip(vectors, losses.tolist(), strict=True)


def _together(
    task: Task, model: nn.Module, trained: list[nn.Parameter], data: LocalData, rows: Tensor, device: torch.device
) -> tuple[list[Tensor], Tensor] | None:
    """Gradients of all rows at once, each (k, …), and their losses; None where torch cannot vectorise the task."""
    whole = _Loss(task, model)
    names = {id(parameter): name for name, parameter in reversed(list(whole.named_parameters()))}
    values = {names[id(parameter)]: parameter.detach() for parameter in trained}

    def loss_of(parameters: dict[str, Tensor], record: Any) -> Tensor:
        loss: Tensor = functional_call(whole, parameters, (_batch_of_one(record),))
        return loss

    try:
        batch = to_device(task.batch(data.train, rows), device)
        each = vmap(grad_and_value(loss_of), in_dims=(None, 0), randomness="different")
        with _as_it_was(task, model):
            gradients, losses = each(values, batch)
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return None
    return [gradients[name] for name in values], losses.detach().cpu()


def _one_by_one(
    task: Task, model: nn.Module, trained: list[nn.Parameter], data: LocalData, rows: Tensor, device: torch.device
) -> tuple[list[Tensor], Tensor]:
    """The same, one row at a time."""
    gradients: list[list[Tensor]] = []
    losses = []
    for row in rows:
        with _as_it_was(task, model), task_code(task, "the gradient of one record"):
            loss = task.loss(model, to_device(task.batch(data.train, row.reshape(1)), device))
            gradients.append(list(torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True)))
        losses.append(float(loss.detach()))
    return [torch.stack(parts) for parts in zip(*gradients, strict=True)], torch.tensor(losses)


@contextmanager
def _as_it_was(task: Task, model: nn.Module) -> Iterator[None]:
    """Undo what a record leaves in the model's buffers: the next one's gradient must not depend on it.

    Raises UsageError where it changed a parameter (an embedding with max_norm): of those there is no room for a copy.
    """
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    versions = {name: parameter._version for name, parameter in model.named_parameters()}
    try:
        yield
    finally:
        for module, name, buffer, before in buffers:
            setattr(module, name, buffer.copy_(before))
    for name, parameter in model.named_parameters():
        if parameter._version != versions[name]:
            raise UsageError(
                f"task {task.name}: to see a record changes {name}, and so the gradients of the records after it;"
                ' privacy.mode = "records" needs a model that changes in training steps only'
            )


def _batch_of_one(record: Any) -> Any:
    """One record of a batch as a batch: every tensor inside its lists, tuples and dicts gets a first dimension."""
    if isinstance(record, Tensor):
        return record.unsqueeze(0)
    if isinstance(record, dict):
        return {key: _batch_of_one(part) for key, part in record.items()}
    return type(record)(_batch_of_one(part) for part in record)


class _Loss(nn.Module):
    """The task's loss as a module, so that torch can swap the parameters of the model inside it."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._task = task

    def forward(self, batch: Any) -> Tensor:
        """The mean loss of a batch."""
        return self._task.loss(self.model, batch)


def _check_separable(task: Task, model: nn.Module) -> None:
    """Refuse layers through which one record changes what is computed of another: there is no gradient of one alone."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise UsageError(
                f'task {task.name}: layer {name} is a batch norm, which mixes records; privacy.mode = "records" needs'
                " nn.GroupNorm or nn.LayerNorm in its place"
            )
