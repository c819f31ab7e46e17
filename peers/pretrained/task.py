"""Handwritten digits, of which every member has only a few with a label; the model begins with what MNIST taught it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedchain.learn import LocalData, Task
from fedchain.learn.sources import bundled

LABELLED = 20
"""How many images with a label each member trains on."""

HELD_OUT = 10
"""How many more it judges by."""


class Pretrained(Task):
    """Ten classes; cross-entropy, accuracy, Adam and evaluation are the defaults of Task."""

    name = "pretrained"

    def model(self) -> nn.Module:
        """Conv 16, conv 32, 64, 10: 38,282 parameters, of which run.start has all but the last layer's 650."""
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam, at twice its usual learning rate: a member makes two steps an epoch."""
        return torch.optim.Adam(model.parameters(), lr=0.002)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        """Thirty images of member `index`'s own, drawn at random; no image is given out twice."""
        (inputs, labels), _ = images()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        own = order[index * (LABELLED + HELD_OUT) :][: LABELLED + HELD_OUT]
        trained, judged = own[:LABELLED], own[LABELLED:]
        return LocalData(
            train=TensorDataset(inputs[trained], labels[trained]),
            validation=TensorDataset(inputs[judged], labels[judged]),
        )

    def test_data(self) -> TensorDataset:
        """A fifth of all images, every digit in its proportion; no member trains on them."""
        return TensorDataset(*images()[1])

    def prepare(self, columns: Mapping[str, NDArray[Any]]) -> Tensor:
        """Raw pixels, 64 columns of 0 to 16, row by row of the image."""
        return scaled(np.column_stack(list(columns.values())))


def images() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(inputs, labels) for training and for testing."""
    pixels, digits = bundled("digits")
    inputs, labels = scaled(pixels), torch.from_numpy(digits)
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=digits)
    return (inputs[train], labels[train]), (inputs[test], labels[test])


def scaled(pixels: NDArray[Any]) -> Tensor:
    """Pixels, (k, 64), as one channel of 8 × 8, 0 to 1; float32. They are 0 to 16 by definition."""
    return torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
