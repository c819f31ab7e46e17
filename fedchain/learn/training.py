"""Local training: from the global model's bytes to one update, and what a model is worth on given data.

What is sent is the trained model less the base; FedNova (Wang et al. 2020, arXiv:2007.07481) scales it by the steps
that were made, SCAFFOLD (Karimireddy et al. 2020, arXiv:1910.06378) sends the change of its control variate behind it.
On a CPU the same task, model, data and seed give the same update, bit for bit on the same machine and torch: one
thread, seeded generators, deterministic kernels. A GPU, mixed precision or a budget of time is used only when asked
for, and promises less. Global state (generators, threads, deterministic mode) is put back as it was found.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CharterMismatch, UsageError
from ..ports import Progress
from ..protocol.charter import Algorithm, Charter
from ..protocol.masking import EVERYWHERE, Places
from ..protocol.model import ModelLayout, Vector, assemble, flatten, layout_from, layout_of, split
from ..protocol.outer import CONTROL, STATE_PREFIX, model_layout, with_first_state
from ..protocol.seeds import seed_for
from .fitting import Drift, Fitted, Machine, Trained, fit
from .loading import task_code
from .pretrained import start_from
from .task import Examples, LocalData, Task


@dataclass(frozen=True, slots=True, eq=False)
class TrainResult:
    """One round of local training: `update` is what is sent, (update_size,) float32, neither clipped nor weighted.

    `samples` is how many examples the member has, `loss` the mean of the last epoch, `steps` how many it made,
    `seconds` wall time. `kept` is what stays with the member for its next round (local tensors, its control variate),
    canonical safetensors; None where the algorithm keeps nothing.
    """

    update: Vector
    samples: int
    loss: float
    steps: int
    seconds: float
    kept: bytes | None


def genesis(task: Task, seed: int, local_tensors: Sequence[str] = (), start: Path | None = None) -> bytes:
    """The task's own initial values under this seed, canonical safetensors: no state, and no local tensors.

    `start` is a file of weights to begin with instead, safetensors of all or some of the tensors.
    """
    with reproducible(seed_for("genesis", seed)):
        model = _built(task)
        if start is not None:
            start_from(model, start, task.name)
        layout = _shared(task, _layout(task, model), local_tensors)
        return assemble(layout, _vector(task, model, layout))


def first_model(task: Task, charter: Charter, start: Path | None = None) -> bytes:
    """The stored model that round 1 starts from: the genesis, with the state that the charter's algorithm keeps.

    `start`: what `read_start` gave. Raises UsageError where the charter names weights and none are given, or has a mask
    that the model does not bear.
    """
    if charter.run.start and start is None:
        raise UsageError(f"the charter begins with {charter.run.start}; the first model cannot be made without it")
    if charter.update.mask < 1:
        _check_untied(task)
    return with_first_state(genesis(task, charter.run.seed, charter.algorithm.local_tensors, start), charter)


def train_locally(
    task: Task,
    base: bytes,
    algorithm: Algorithm,
    data: LocalData,
    seed: int,
    progress: Progress | None = None,
    *,
    machine: Machine = Machine(),
    budget_s: float = math.inf,
    kept: bytes | None = None,
    sent: Places = EVERYWHERE,
    clock: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """One member's training in one round (P1), from the global model `base` on its own training data.

    `seed` must differ by member, round and attempt (`protocol.seeds.seed_for`). `progress` gets (steps done, steps in
    all). With `budget_s` seconds it stops when they are over. `kept` is what this member kept from the last round that
    it took part in. Of what is federated only the `sent` coordinates are trained (`UpdateFormat.places`). Raises
    CharterMismatch when `base` or `kept` is not of this task, UsageError when the task's code fails or the training
    diverges, MalformedObject for a malformed `base`.
    """
    started = time.perf_counter()
    place = device_named(machine.device)
    with reproducible(seed, threads=machine.threads, device=place):
        model, layout = loaded(task, base, local_tensors=algorithm.local_tensors, kept=kept)
        model = model.to(place)
        controls = _controls(base, kept, layout) if algorithm.name == "scaffold" else None
        fitted = fit(
            task,
            model,
            data.train,
            algorithm,
            epochs=algorithm.local_epochs,
            seed=seed,
            progress=progress,
            budget_s=budget_s,
            drift=_drift(model, layout, controls, algorithm) if controls is not None else (),
            trained=_trained(model, layout, sent) if sent is not EVERYWHERE else (),
            mixed_precision=machine.mixed_precision,
            clock=clock,
        )
        update = _vector(task, model, layout)
        update -= flatten(base)[: layout.size]
        own = None
        if controls is not None:
            own = _next_control(update, controls, model, layout, algorithm.effective_steps / fitted.steps)
            update = np.concatenate([update, own - controls[1]])
        if algorithm.name == "fednova":
            update = update * np.float32(_effect(algorithm.effective_steps, fitted) / _effect(fitted.steps, fitted))
        kept = _kept(task, model, layout, own)
    return TrainResult(
        update=update,
        samples=len(data.train),
        loss=fitted.loss,
        steps=fitted.steps,
        seconds=time.perf_counter() - started,
        kept=kept,
    )


def fine_tune(
    task: Task,
    model: bytes,
    algorithm: Algorithm,
    data: LocalData,
    seed: int,
    *,
    epochs: int,
    machine: Machine = Machine(),
    kept: bytes | None = None,
) -> bytes:
    """The global model trained on by one member for itself, after the run: all its float tensors, canonical
    safetensors, with no state. It fits that member's data better, and usually everybody else's worse."""
    place = device_named(machine.device)
    plain = algorithm.model_copy(update={"name": "fedavg", "mu": 0.0})
    with reproducible(seed, threads=machine.threads, device=place):
        own, _ = loaded(task, model, local_tensors=algorithm.local_tensors, kept=kept)
        own = own.to(place)
        fit(task, own, data.train, plain, epochs=epochs, seed=seed, mixed_precision=machine.mixed_precision)
        layout = _layout(task, own)
        return assemble(layout, _vector(task, own, layout))


def evaluate(
    task: Task,
    model: bytes,
    examples: Examples,
    *,
    device: str = "cpu",
    local_tensors: Sequence[str] = (),
    kept: bytes | None = None,
) -> dict[str, float]:
    """The task's metrics of a stored model on these examples; `task.metric` is among them, all are finite.

    Where the charter has local tensors, they are taken from what a member `kept`; without it they are as they begin.
    """
    place = device_named(device)
    with reproducible(0, device=place):
        standing, _ = loaded(task, model, local_tensors=local_tensors, kept=kept)
        return metrics_of(task, standing.to(place), examples)


def metrics_of(task: Task, model: nn.Module, examples: Examples) -> dict[str, float]:
    """What `task.evaluate` says of this model, checked: finite numbers, and `task.metric` among them."""
    model.eval()
    with torch.no_grad(), task_code(task, "evaluate()"):
        metrics = {str(name): float(value) for name, value in task.evaluate(model, examples).items()}
    if task.metric not in metrics:
        raise UsageError(f"task {task.name}: evaluate() gave {', '.join(metrics) or 'nothing'}, but not {task.metric}")
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise UsageError(f"task {task.name}: evaluate() gave {name} = {value}; metrics must be finite")
    return metrics


@contextmanager
def reproducible(seed: int, *, threads: int = 1, device: torch.device | None = None) -> Iterator[None]:
    """Run the body with torch's, numpy's and Python's generators seeded and deterministic kernels; restore all after.

    One thread by default: a sum's order, and so its last bit, depends on how many share it.
    """
    cuda = [torch.cuda.current_device()] if device is not None and device.type == "cuda" else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    threads_before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=only_warn)
            torch.set_num_threads(threads_before)
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _check_untied(task: Task) -> None:
    """A tensor that stands under two names would be sent under one and not under the other."""
    with reproducible(0):
        names = dict(_built(task).named_parameters(remove_duplicate=False))
    if len(names) > len(set(names.values())):
        raise UsageError(f"task {task.name}: model() ties tensors, which update.mask would untie; set it to 1")


def _built(task: Task) -> nn.Module:
    with task_code(task, "model()"):
        model = task.model()
    if not isinstance(model, nn.Module):
        raise UsageError(f"task {task.name}: model() must give a torch.nn.Module, not {type(model).__name__}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(f"task {task.name}: model() has no trainable parameters")
    return model


def loaded(
    task: Task, blob: bytes, *, local_tensors: Sequence[str] = (), kept: bytes | None = None
) -> tuple[nn.Module, ModelLayout]:
    """A fresh model with the stored values, and the layout of what members share.

    Local tensors come from what the member kept; integer buffers, and local tensors at first, keep the task's own
    initial values.
    """
    model = _built(task)
    every = _layout(task, model)
    layout = _shared(task, every, local_tensors)
    stored = model_layout(layout_of(blob))
    if stored != layout:
        raise CharterMismatch(
            f"task {task.name}: model() has {_summary(layout)}, the federation's model has {_summary(stored)}"
        )
    values = split(layout, flatten(blob)[: layout.size])
    if kept is not None:
        own = {name: part for name, part in split(layout_of(kept), flatten(kept)).items() if name != CONTROL}
        shapes = dict(zip(every.names, every.shapes, strict=True))
        if {name: part.shape for name, part in own.items()} != {n: shapes[n] for n in every.names if n not in values}:
            raise CharterMismatch(f"task {task.name}: what this member kept from earlier rounds is of another model")
        values = {**values, **own}
    tensors = {name: torch.from_numpy(part.copy()) for name, part in values.items()}
    model.load_state_dict({**model.state_dict(), **tensors})
    return model, layout


def _shared(task: Task, every: ModelLayout, local_tensors: Sequence[str]) -> ModelLayout:
    """The tensors that are sent and averaged: those that no pattern names. Each pattern must name one."""
    for pattern in local_tensors:
        if not any(fnmatchcase(name, pattern) for name in every.names):
            raise UsageError(f"task {task.name}: algorithm.local_tensors names {pattern!r}; model() has no such tensor")
    shapes = {
        name: shape
        for name, shape in zip(every.names, every.shapes, strict=True)
        if not any(fnmatchcase(name, pattern) for pattern in local_tensors)
    }
    if not shapes:
        raise UsageError(f"task {task.name}: algorithm.local_tensors names every tensor; nothing is left to federate")
    return layout_from(shapes)


def _kept(task: Task, model: nn.Module, shared: ModelLayout, control: Vector | None) -> bytes | None:
    every = _layout(task, model)
    shapes = {n: s for n, s in zip(every.names, every.shapes, strict=True) if n not in shared.names}
    if not shapes and control is None:
        return None
    layout = layout_from(shapes | ({CONTROL: (shared.size,)} if control is not None else {}))
    local = [_vector(task, model, layout_from(shapes))] if shapes else []
    # The control variate's name sorts behind every tensor's.
    return assemble(layout, np.concatenate([*local, *([control] if control is not None else [])]))


def _controls(base: bytes, kept: bytes | None, layout: ModelLayout) -> tuple[Vector, Vector]:
    """SCAFFOLD's control variates, the common one and the member's own, (d,) float32 each.

    In place of gradients c they hold what a step of the task's own optimizer moves the model by, times
    `effective_steps`: −η·c·effective_steps for plain SGD, where this is the paper's option II. So no learning rate need
    be known, and both halves of an upload are of one magnitude.
    """
    common = split(layout_of(base), flatten(base))[CONTROL]
    own = split(layout_of(kept), flatten(kept)).get(CONTROL) if kept is not None else None
    if own is not None and own.shape != (layout.size,):
        raise CharterMismatch("the control variate that this member kept is of another model")
    return common, own if own is not None else np.zeros(layout.size, np.float32)


def _drift(model: nn.Module, layout: ModelLayout, controls: tuple[Vector, Vector], algorithm: Algorithm) -> Drift:
    """What corrects each step: common less own, in one step's measure (the paper's −η(c − c_i))."""
    common, own = controls
    shift = common - own
    shift /= np.float32(algorithm.effective_steps)
    shifts = split(layout, shift)
    parameters = dict(model.named_parameters())
    return [
        (parameters[name], torch.from_numpy(shift).to(parameters[name].device))
        for name, shift in shifts.items()
        if name in parameters and parameters[name].requires_grad
    ]


def _trained(model: nn.Module, layout: ModelLayout, sent: Places) -> Trained:
    """Where each federated parameter may move; local tensors have no entry and move as ever."""
    parameters = dict(model.named_parameters())
    moves = np.zeros(layout.size, dtype=np.float32)
    moves[sent] = 1
    return [
        (parameters[name], torch.from_numpy(part > 0).to(parameters[name].device))
        for name, part in split(layout, moves).items()
        if name in parameters
    ]


def _next_control(
    change: Vector, controls: tuple[Vector, Vector], model: nn.Module, layout: ModelLayout, scale: float
) -> Vector:
    """c_i⁺ = c_i − c + (x − y_i)/(K·η), in the measure of `_controls`; 0 for what no optimizer moves."""
    common, own = controls
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    moved = np.repeat([name in trainable for name in layout.names], layout.sizes)
    following: Vector = own - common
    following += change * np.float32(scale)
    following[~moved] = 0
    return following


def _effect(steps: int, fitted: Fitted) -> float:
    """‖a‖₁ of FedNova: how much so many steps add up to, with momentum ρ (section 4.1 of the paper)."""
    rho = fitted.momentum
    return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)


def _layout(task: Task, model: nn.Module) -> ModelLayout:
    floats = _floats(model.state_dict())
    if any(tensor.is_complex() for tensor in model.state_dict().values()):
        raise UsageError(f"task {task.name}: model() has complex tensors; split them into real and imaginary parts")
    if any(name.startswith(STATE_PREFIX) for name in floats):
        raise UsageError(f"task {task.name}: model() has a tensor named {STATE_PREFIX}…; that prefix is reserved")
    try:
        return layout_from({name: tuple(tensor.shape) for name, tensor in floats.items()})
    except ValueError as error:
        raise UsageError(f"task {task.name}: model() cannot be stored: {error}") from error


def _vector(task: Task, model: nn.Module, layout: ModelLayout) -> Vector:
    floats = _floats(model.state_dict())
    parts = [floats[name].detach().to("cpu", torch.float32).numpy().reshape(-1) for name in layout.names]
    vector: Vector = np.concatenate(parts)
    if not np.isfinite(vector).all():
        raise UsageError(f"task {task.name}: the model has values that are NaN or infinite")
    return vector


def _floats(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}


def device_named(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise UsageError("a GPU was asked for (device cuda), but torch finds none; use cpu or auto")
    if asked not in ("cpu", "cuda"):
        raise UsageError(f"device is cpu, cuda or auto, not {asked}")
    return torch.device(asked)


def _summary(layout: ModelLayout) -> str:
    return f"{len(layout.names)} tensors with {layout.size} values ({layout.names[0]} {list(layout.shapes[0])}, …)"
