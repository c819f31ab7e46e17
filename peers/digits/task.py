"""Handwritten digits, 8 × 8 pixels: members that each see mostly a few of the ten digits learn all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from fedchain.learn import LocalData, Task
from fedchain.learn.splits import dirichlet

ALPHA = 0.3
"""How uneven the members' labels are: Dirichlet's parameter, smaller is more uneven."""


class Digits(Task):
    """Ten classes and an MLP of 100,058 parameters; metric and evaluation are the defaults of Task."""

    name = "digits"

    def model(self) -> nn.Module:
        """64-288-272-10, raw scores."""
        return nn.Sequential(nn.Linear(64, 288), nn.ReLU(), nn.Linear(288, 272), nn.ReLU(), nn.Linear(272, 10))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """SGD with momentum: between members this different its average depends less on the draw than Adam's."""
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy, labels smoothed: members that lack a digit push its score down less, and the mean gains."""
        inputs, labels = batch
        return functional.cross_entropy(model(inputs), labels, label_smoothing=0.1)

    def losses(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The same, one number an image: for charters that weight classes."""
        inputs, labels = batch
        return functional.cross_entropy(model(inputs), labels, label_smoothing=0.1, reduction="none")

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        """Member `index`'s part of the training images: uneven in labels, at least half an even part in size."""
        (inputs, labels), _ = images()
        least = len(labels) // (2 * members)
        rows = torch.from_numpy(dirichlet(labels, members, alpha=ALPHA, seed=seed, least=least)[index])
        judged, trained = rows[: len(rows) // 5], rows[len(rows) // 5 :]
        return LocalData(
            train=TensorDataset(inputs[trained], labels[trained]),
            validation=TensorDataset(inputs[judged], labels[judged]),
        )

    def prepare(self, columns: Mapping[str, NDArray[Any]]) -> Tensor:
        """Raw pixels, 64 columns of 0 to 16, row by row of the image."""
        return torch.tensor(np.column_stack(list(columns.values())) / 16, dtype=torch.float32)

    def test_data(self) -> TensorDataset:
        """A fifth of all images, every digit in its proportion; no member trains on them."""
        return TensorDataset(*images()[1])


def images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(inputs, labels) for training and for testing. Pixels are 0 to 16 by definition: no statistic is computed."""
    pixels, digits = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=digits)
    return (inputs[train], labels[train]), (inputs[test], labels[test])
