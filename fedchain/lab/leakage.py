"""What a model gives away about the rows it was trained on: membership inference by the loss.

Yeom et al. 2018 (arXiv:1709.01604): a row on which the model's loss is small was probably trained on. The figure is the
area under the ROC curve of that guess: 0.5 is no better than a coin, 1 names every row. It is a lower bound on what a
cleverer attack finds, and says nothing about what the protocol hides or shows on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..learn import Examples, Task, pooled
from ..learn.loading import task_code
from ..learn.training import reproducible

MOST_ROWS = 500
"""Rows of each kind that are tried: what a model says of one row at a time is slow to ask."""


def membership_auc(task: Task, model: nn.Module, trained: Sequence[Examples], held_out: Sequence[Examples]) -> float:
    """The attack's AUC on rows that were trained on, and rows of the same members that were not; in [0, 1]."""
    with reproducible(0):
        model.eval()
        seen, unseen = (losses(task, model, pooled(parts)) for parts in (trained, held_out))
    smaller = (seen[:, None] < unseen[None, :]).mean()
    equal = (seen[:, None] == unseen[None, :]).mean()
    return float(smaller + equal / 2)


def losses(task: Task, model: nn.Module, examples: Examples) -> NDArray[np.float64]:
    """The loss of single rows, evenly taken from the examples, (k,) with k ≤ 500."""
    chosen = np.linspace(0, len(examples) - 1, min(len(examples), MOST_ROWS)).astype(np.int64)
    with torch.no_grad(), task_code(task, "loss() of a single row"):
        return np.array([float(task.loss(model, task.batch(examples, torch.tensor([row])))) for row in chosen])
