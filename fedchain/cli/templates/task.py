"""What this federation learns: a model, its data, a metric, in plain torch. Change it to yours.

As it stands it learns to tell three wines apart, from a data set that comes inside scikit-learn, split unevenly among
the members. With EXAMPLE_DATA set to a folder, a member reads its own rows from `train.csv` and `test.csv` there: the
thirteen measurements, and the class (0, 1 or 2) as the last column.

Every member runs this very file: its SHA-256 is part of the charter. It stands alone (it may import packages, not files
beside it), and it gives the same data whenever it is asked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedchain.learn import LocalData, Task
from fedchain.learn.splits import dirichlet
from fedchain.learn.tables import read_table

FOLDER = os.environ.get("EXAMPLE_DATA")
"""Where a member's own rows are; paths differ between members, so they come from the environment."""

ALPHA = 0.5
"""How uneven the members' classes are in the experiment: Dirichlet's parameter, smaller is more uneven."""

# Each measurement's range as the data set's description states it. Public constants, agreed on with this file: a range
# computed over everybody's rows would tell each member about the others.
LOWS = (11.0, 0.74, 1.36, 10.6, 70.0, 0.98, 0.34, 0.13, 0.41, 1.3, 0.48, 1.27, 278.0)
HIGHS = (14.8, 5.8, 3.23, 30.0, 162.0, 3.88, 5.08, 0.66, 3.58, 13.0, 1.71, 4.0, 1680.0)
CLASSES = 3


class Example(Task):
    """Thirteen measurements, three classes: cross-entropy and accuracy are the defaults of Task."""

    name = "example"

    def model(self) -> nn.Module:
        """13-32-3, raw scores. Initial values are seeded for you."""
        return nn.Sequential(nn.Linear(len(LOWS), 32), nn.ReLU(), nn.Linear(32, CLASSES))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimizer for each round. SGD averages better than Adam where members' classes differ."""
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        """This member's own rows: a fifth is held out to judge by, the rest is trained on."""
        if FOLDER is not None:
            inputs, labels = rows_of(Path(FOLDER) / "train.csv")
        else:
            (inputs, labels), _ = wines()
            own = dirichlet(labels, members, alpha=ALPHA, seed=seed, least=len(labels) // (2 * members))[index]
            inputs, labels = inputs[own], labels[own]
        judged = len(labels) // 5
        return LocalData(
            train=TensorDataset(inputs[judged:], labels[judged:]),
            validation=TensorDataset(inputs[:judged], labels[:judged]),
        )

    def test_data(self) -> TensorDataset:
        """Rows that no member trains on, the same for all."""
        if FOLDER is not None:
            return TensorDataset(*rows_of(Path(FOLDER) / "test.csv"))
        return TensorDataset(*wines()[1])

    def prepare(self, columns: Mapping[str, NDArray[Any]]) -> Tensor:
        """Raw measurements from a user's file, for `fedchain model predict`."""
        return scaled(np.column_stack(list(columns.values())))


def wines() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(inputs, labels) for training and for testing, from scikit-learn's bundled data."""
    from sklearn.datasets import load_wine

    measured, classes = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(classes))
    test, train = order[: len(order) // 4], order[len(order) // 4 :]
    inputs, labels = scaled(measured), torch.tensor(classes)
    return (inputs[train], labels[train]), (inputs[test], labels[test])


def rows_of(path: Path) -> tuple[Tensor, Tensor]:
    """(inputs, labels) of a CSV file whose last column is the class."""
    *measured, classes = read_table(path).values()
    return scaled(np.column_stack(measured)), torch.tensor(classes, dtype=torch.int64)


def scaled(measured: NDArray[Any]) -> Tensor:
    """Measurements, (k, 13), with each one's range put to [-1, 1]; float32."""
    low, high = np.array(LOWS), np.array(HIGHS)
    return torch.tensor(2 * (measured - low) / (high - low) - 1, dtype=torch.float32)
