"""Which examples a member takes in which order, and what each counts: its own data may be uneven in classes.

Class-balanced sampling and class-weighted loss look at the member's own labels only. Nothing about them leaves it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UsageError
from ..protocol.charter import Algorithm
from .loading import task_code
from .task import Examples, Task


def classes_of(task: Task, examples: Examples) -> Tensor:
    """The class of each example as 0, 1, …: (n,) int64, those that occur, numbered upwards."""
    with task_code(task, "labels()"):
        labels = task.labels(examples).reshape(-1)
    if len(labels) != len(examples):
        raise UsageError(f"task {task.name}: labels() gave {len(labels)} labels of {len(examples)} examples")
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise UsageError(
            f"task {task.name}: its targets are no classes, so the charter's algorithm.sampling and algorithm.loss must"
            ' be "shuffled" and "plain"; or let the task\'s labels() say what to balance'
        )
    classes: Tensor = torch.unique(labels, return_inverse=True)[1]
    return classes


def order_of(algorithm: Algorithm, classes: Tensor | None, count: int, shuffle: torch.Generator) -> Tensor:
    """One epoch: (count,) int64 row numbers, at random. `classes` are needed for "class-balanced" only.

    Balanced, every class is taken equally often, up to one: a rare class's examples come several times, each as often
    as any other of its class (up to one), a frequent class's not all.
    """
    if algorithm.sampling == "shuffled" or classes is None:
        return torch.randperm(count, generator=shuffle)
    kinds = int(classes.max()) + 1
    each = -(-count // kinds)
    drawn = []
    for kind in range(kinds):
        rows = torch.nonzero(classes == kind).reshape(-1)
        rounds = -(-each // len(rows))
        turns = torch.cat([rows[torch.randperm(len(rows), generator=shuffle)] for _ in range(rounds)])
        drawn.append(turns[:each])
    every = torch.cat(drawn)
    return every[torch.randperm(len(every), generator=shuffle)][:count]


def row_weights(classes: Tensor) -> Tensor:
    """What each example's loss counts, (n,) float32, mean 1: n / (kinds · how often its class occurs)."""
    frequency = torch.bincount(classes)
    return (len(classes) / (len(frequency) * frequency.float()))[classes]
