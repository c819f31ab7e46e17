"""Local training: from the global model's bytes to one update, and what a model is worth on given data.

FedAvg (McMahan et al. 2017, arXiv:1602.05629) and FedProx (Li et al. 2020, arXiv:1812.06127). On a CPU the same task,
model, data and seed give the same update, bit for bit on the same machine and torch: one thread, seeded generators,
deterministic kernels. A GPU is used only when asked for, and promises less. Global state (generators, threads,
deterministic mode) is put back as it was found.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CharterMismatch, UsageError
from ..ports import Progress
from ..protocol.charter import Algorithm, Charter
from ..protocol.model import ModelLayout, Vector, assemble, flatten, layout_from, layout_of, split
from ..protocol.outer import STATE_PREFIX, model_layout, with_first_state
from ..protocol.seeds import seed_for
from .loading import task_code
from .task import Examples, LocalData, Task, to_device


@dataclass(frozen=True, slots=True, eq=False)
class TrainResult:
    """One round of local training: `update` is trained minus base, (d,) float32, neither clipped nor weighted.

    `samples` is how many examples it saw in one epoch, `loss` the mean of the last epoch, `seconds` wall time.
    """

    update: Vector
    samples: int
    loss: float
    seconds: float


def genesis(task: Task, seed: int) -> bytes:
    """The task's own initial values under this seed, canonical safetensors, with no state beside them."""
    with reproducible(seed_for("genesis", seed)):
        model = _built(task)
        layout = _layout(task, model)
        return assemble(layout, _vector(task, model, layout))


def first_model(task: Task, charter: Charter) -> bytes:
    """The stored model that round 1 starts from: the genesis, with the state that the charter's algorithm keeps."""
    return with_first_state(genesis(task, charter.run.seed), charter)


def train_locally(
    task: Task,
    base: bytes,
    algorithm: Algorithm,
    data: LocalData,
    seed: int,
    progress: Progress | None = None,
    *,
    device: str = "cpu",
    threads: int = 1,
) -> TrainResult:
    """One member's training in one round (P1), from the global model `base` on its own training data.

    `seed` must differ by member, round and attempt (`protocol.seeds.seed_for`). `progress` gets (steps done, steps in
    all). `device` is "cpu", "cuda" or "auto". Raises CharterMismatch when `base` is not a model of this task,
    UsageError when the task's code fails or the training diverges, MalformedObject for a malformed `base`.
    """
    started = time.perf_counter()
    place = _device(device)
    with reproducible(seed, threads=threads, device=place):
        model, layout = loaded(task, base)
        loss = fit(
            task, model.to(place), data.train, algorithm, epochs=algorithm.local_epochs, seed=seed, progress=progress
        )
        trained = _vector(task, model, layout)
    return TrainResult(
        update=trained - flatten(base)[: layout.size],
        samples=len(data.train),
        loss=loss,
        seconds=time.perf_counter() - started,
    )


def evaluate(task: Task, model: bytes, examples: Examples, *, device: str = "cpu") -> dict[str, float]:
    """The task's metrics of a stored model on these examples; `task.metric` is among them, all are finite."""
    place = _device(device)
    with reproducible(0, device=place):
        standing, _ = loaded(task, model)
        return metrics_of(task, standing.to(place), examples)


def fit(
    task: Task,
    model: nn.Module,
    examples: Examples,
    algorithm: Algorithm,
    *,
    epochs: int,
    seed: int,
    progress: Progress | None = None,
) -> float:
    """Train `model` in place for so many epochs, on its own device; the mean loss of the last epoch.

    FedProx adds mu/2 · ‖w − w_base‖² over the trainable parameters, w_base being the model as it came in.
    """
    device = next(model.parameters()).device
    shuffle = torch.Generator().manual_seed(seed_for("shuffle", seed))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    anchors = [parameter.detach().clone() for parameter in trainable]
    with task_code(task, "optimizer()"):
        optimizer = task.optimizer(model)
    model.train()
    steps = len(_batches(torch.arange(len(examples)), algorithm.batch_size))
    mean = math.nan
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(examples), generator=shuffle)
        for step, rows in enumerate(_batches(order, algorithm.batch_size)):
            with task_code(task, "a training step"):
                loss = task.loss(model, to_device(task.batch(examples, rows), device))
                total += float(loss.detach()) * len(rows)
                if algorithm.mu:
                    loss = loss + algorithm.mu / 2 * _squared_distance(trainable, anchors)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if progress is not None:
                progress(epoch * steps + step + 1, epochs * steps)
        mean = total / len(examples)
        if not math.isfinite(mean):
            raise UsageError(
                f"task {task.name}: the training diverged in local epoch {epoch + 1} (loss {mean}); "
                "a smaller learning rate in optimizer() helps"
            )
    return mean


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


def _built(task: Task) -> nn.Module:
    with task_code(task, "model()"):
        model = task.model()
    if not isinstance(model, nn.Module):
        raise UsageError(f"task {task.name}: model() must give a torch.nn.Module, not {type(model).__name__}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(f"task {task.name}: model() has no trainable parameters")
    return model


def loaded(task: Task, blob: bytes) -> tuple[nn.Module, ModelLayout]:
    """A fresh model with the stored values; integer buffers keep the task's own initial values."""
    model = _built(task)
    layout = _layout(task, model)
    stored = model_layout(layout_of(blob))
    if stored != layout:
        raise CharterMismatch(
            f"task {task.name}: model() has {_summary(layout)}, the federation's model has {_summary(stored)}"
        )
    values = {name: torch.from_numpy(part.copy()) for name, part in split(layout, flatten(blob)[: layout.size]).items()}
    model.load_state_dict({**model.state_dict(), **values})
    return model, layout


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


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """The order cut into batches. A last batch of one joins the one before: batch norm cannot train on one example."""
    parts = list(torch.split(order, size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _squared_distance(parameters: list[nn.Parameter], anchors: list[Tensor]) -> Tensor:
    return torch.stack([(p - a).square().sum() for p, a in zip(parameters, anchors, strict=True)]).sum()


def _device(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if asked == "cuda" and not torch.cuda.is_available():
        raise UsageError("a GPU was asked for (device cuda), but torch finds none; use cpu or auto")
    if asked not in ("cpu", "cuda"):
        raise UsageError(f"device is cpu, cuda or auto, not {asked}")
    return torch.device(asked)


def _summary(layout: ModelLayout) -> str:
    return f"{len(layout.names)} tensors with {layout.size} values ({layout.names[0]} {list(layout.shapes[0])}, …)"
