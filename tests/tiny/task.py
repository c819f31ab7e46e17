"""Two clusters of points in the plane, told apart by one linear layer: as small as a task can be."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedchain.learn import LocalData, Task


class Tiny(Task):
    """2-2, six parameters; members have points of both clusters, each a little elsewhere, and not equally many."""

    name = "tiny"

    def model(self) -> nn.Module:
        return nn.Linear(2, 2)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        return LocalData(train=points(16 + 8 * index, index), validation=points(8, 100 + index))

    def test_data(self) -> TensorDataset:
        return points(40, 1000)


def points(count: int, seed: int) -> TensorDataset:
    """(inputs, labels) of so many points."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    inputs = random.normal(0, 0.5, (count, 2)) + (2 * labels - 1)[:, None] + 0.1 * (seed % 7)
    return TensorDataset(torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels))
