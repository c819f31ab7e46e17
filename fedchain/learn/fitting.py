"""The loop of local training: steps of the task's optimizer on the member's own examples, as the charter says.

FedAvg (McMahan et al. 2017, arXiv:1602.05629); FedProx's proximal term (Li et al. 2020, arXiv:1812.06127); SCAFFOLD's
correction of every step (Karimireddy et al. 2020, arXiv:1910.06378). With a budget the loop ends when the time is up:
what a machine gets done in it is measured by doing it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..ports import Progress
from ..protocol.charter import Algorithm
from ..protocol.seeds import seed_for
from .loading import task_code
from .sampling import classes_of, order_of, row_weights
from .task import Examples, Task, to_device


@dataclass(frozen=True, slots=True)
class Machine:
    """How one member computes; its neighbours may do otherwise, and their updates still sum.

    `device`: "cpu", "cuda" or "auto". `threads`: of a CPU; more than one may change the last bits. `mixed_precision`:
    forward and backward passes in bfloat16 where torch's autocast allows it; parameters and the update stay float32.
    """

    device: str = "cpu"
    threads: int = 1
    mixed_precision: bool = False


@dataclass(frozen=True, slots=True)
class Fitted:
    """What the loop did: the mean loss of the last epoch (or of its part that there was time for), the steps it made,
    and by how much one such step moves the model in the long run, for FedNova: 1, or 1/(1−ρ) with momentum ρ."""

    loss: float
    steps: int
    momentum: float


Drift = Sequence[tuple[nn.Parameter, Tensor]]
"""SCAFFOLD: what each parameter is moved by after every step, in its shape."""

Trained = Sequence[tuple[nn.Parameter, Tensor]]
"""A mask: where each parameter may move, bool in its shape; elsewhere it is put back after every step."""


def fit(
    task: Task,
    model: nn.Module,
    examples: Examples,
    algorithm: Algorithm,
    *,
    epochs: int,
    seed: int,
    progress: Progress | None = None,
    budget_s: float = math.inf,
    drift: Drift = (),
    trained: Trained = (),
    mixed_precision: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Fitted:
    """Train `model` in place on its own device: `epochs` times through, or until `budget_s` is over, and a step at
    least. FedProx adds mu/2 · ‖w − w_base‖² over the trainable parameters, w_base being the model as it came in.
    """
    deadline = clock() + budget_s
    device = next(model.parameters()).device
    shuffle = torch.Generator().manual_seed(seed_for("shuffle", seed))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    anchors = [parameter.detach().clone() for parameter in trainable] if algorithm.mu else []
    held = [(parameter, moves, parameter.detach().clone()) for parameter, moves in trained]
    uneven = algorithm.sampling == "class-balanced" or algorithm.loss == "class-weighted"
    classes = classes_of(task, examples) if uneven else None
    weights = row_weights(classes) if classes is not None and algorithm.loss == "class-weighted" else None
    with task_code(task, "optimizer()"):
        optimizer = task.optimizer(model)
    model.train()
    in_epoch = len(batches(torch.arange(len(examples)), algorithm.batch_size))
    done, mean = 0, math.nan
    for epoch in range(epochs):
        total, seen = 0.0, 0
        for rows in batches(order_of(algorithm, classes, len(examples), shuffle), algorithm.batch_size):
            if done and clock() >= deadline:
                break
            with task_code(task, "a training step"):
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed_precision):
                    loss = _loss(task, model, examples, rows, weights, device)
                total += float(loss.detach()) * len(rows)
                if algorithm.mu:
                    loss = loss + algorithm.mu / 2 * _squared_distance(trainable, anchors)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                with torch.no_grad():
                    for parameter, shift in drift:
                        parameter.add_(shift)
                    for parameter, moves, before in held:
                        parameter.copy_(torch.where(moves, parameter, before))
            seen += len(rows)
            done += 1
            if progress is not None:
                progress(done, epochs * in_epoch)
        mean = total / seen if seen else mean
        if not math.isfinite(mean):
            raise UsageError(
                f"task {task.name}: the training diverged in local epoch {epoch + 1} (loss {mean}); "
                "a smaller learning rate in optimizer() helps"
            )
        if clock() >= deadline:
            break
    optimizer.zero_grad()  # gradients of a large model take as much room as itself
    return Fitted(loss=mean, steps=done, momentum=float(optimizer.param_groups[0].get("momentum", 0.0)))


def batches(order: Tensor, size: int) -> list[Tensor]:
    """The order cut into batches. A last batch of one joins the one before: batch norm cannot train on one example."""
    parts = list(torch.split(order, size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _loss(
    task: Task, model: nn.Module, examples: Examples, rows: Tensor, weights: Tensor | None, device: torch.device
) -> Tensor:
    batch = to_device(task.batch(examples, rows), device)
    if weights is None:
        return task.loss(model, batch)
    if type(task).loss is not Task.loss and type(task).losses is Task.losses:
        raise UsageError(
            f"task {task.name} has a loss() of its own; class-weighted loss needs losses() beside it, one an example"
        )
    return (task.losses(model, batch).reshape(-1) * weights[rows].to(device)).mean()


def _squared_distance(parameters: list[nn.Parameter], anchors: list[Tensor]) -> Tensor:
    return torch.stack([(p - a).square().sum() for p, a in zip(parameters, anchors, strict=True)]).sum()
