"""Breast tumours, benign or malignant, from measured cell nuclei: screening centres and clinics learn together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedchain.learn import LocalData, Task
from fedchain.learn.splits import specialists

APART = 0.95
"""How much of each diagnosis lies with the hospitals that specialise in it."""

# Each feature's least and greatest value as the data set's published description states them (30 rows: ten
# measurements as mean, standard error and worst). The members agree on these constants by agreeing on this file;
# nobody's rows are counted to scale anybody's.
RANGES = (
    (6.981, 28.11),
    (9.71, 39.28),
    (43.79, 188.5),
    (143.5, 2501.0),
    (0.053, 0.163),
    (0.019, 0.345),
    (0.0, 0.427),
    (0.0, 0.201),
    (0.106, 0.304),
    (0.05, 0.097),
    (0.112, 2.873),
    (0.36, 4.885),
    (0.757, 21.98),
    (6.802, 542.2),
    (0.002, 0.031),
    (0.002, 0.135),
    (0.0, 0.396),
    (0.0, 0.053),
    (0.008, 0.079),
    (0.001, 0.03),
    (7.93, 36.04),
    (12.02, 49.54),
    (50.41, 251.2),
    (185.2, 4254.0),
    (0.071, 0.223),
    (0.027, 1.058),
    (0.0, 1.252),
    (0.0, 0.291),
    (0.156, 0.664),
    (0.055, 0.208),
)


class Hospitals(Task):
    """One probability, that the tumour is malignant; binary cross-entropy and accuracy are the defaults of Task."""

    name = "hospitals"
    outputs = "probabilities"

    def model(self) -> nn.Module:
        """128-64-1 with a sigmoid at the end: 12,289 parameters."""
        return nn.Sequential(
            nn.Linear(30, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1), nn.Sigmoid()
        )

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam, at three times its usual learning rate: a member has few rows, and so few steps a round."""
        return torch.optim.Adam(model.parameters(), lr=0.003)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        """Member `index`'s patients: even members are screening centres (mostly benign), odd ones clinics."""
        (inputs, labels), _ = records()
        rows = torch.from_numpy(specialists(labels, members, apart=APART, seed=seed)[index])
        judged, trained = rows[: len(rows) // 5], rows[len(rows) // 5 :]
        return LocalData(
            train=TensorDataset(inputs[trained], labels[trained]),
            validation=TensorDataset(inputs[judged], labels[judged]),
        )

    def prepare(self, columns: Mapping[str, NDArray[Any]]) -> Tensor:
        """Raw measurements, thirty columns in the data set's order, scaled as those that were trained on."""
        return scaled(torch.tensor(np.column_stack(list(columns.values())), dtype=torch.float32))

    def test_data(self) -> TensorDataset:
        """Three tenths of all patients, both diagnoses in their proportion; no member trains on them."""
        return TensorDataset(*records()[1])


def records() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(inputs, labels) for training and for testing; label 1 is malignant, inputs lie in [-1, 3], most below 1."""
    measured, benign = load_breast_cancer(return_X_y=True)
    inputs, labels = scaled(torch.tensor(measured, dtype=torch.float32)), 1 - torch.tensor(benign)
    train, test = train_test_split(range(len(labels)), test_size=0.3, random_state=0, stratify=benign)
    return (inputs[train], labels[train]), (inputs[test], labels[test])


def scaled(measured: Tensor) -> Tensor:
    """Measurements, (k, 30) float32, with each feature's published range put to [-1, 3]."""
    low, high = torch.tensor(RANGES).unbind(dim=1)
    return 4 * (measured - low) / (high - low) - 1
