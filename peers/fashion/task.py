"""Ten kinds of clothing in pictures of 28 × 28 pixels, or any set of MNIST's family, with a convolutional network.

The pictures are four IDX files in the folder that FASHION_DATA names; by default that of Debian's package (README.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedchain.learn import LocalData, Task
from fedchain.learn.idx import Images, read_images
from fedchain.learn.sources import data_path
from fedchain.learn.splits import dirichlet

DEFAULT = "/usr/share/datasets/fashion-mnist"
HOW = "run `apt-get install dataset-fashion-mnist`, or set FASHION_DATA to a folder of IDX files (README.md)"

ALPHA = 0.5
"""How uneven the members' kinds of clothing are: Dirichlet's parameter, smaller is more uneven."""


class Fashion(Task):
    """Ten classes; cross-entropy, accuracy and evaluation are the defaults of Task."""

    name = "fashion"

    def model(self) -> nn.Module:
        """The simple CNN of NIID-Bench (arXiv:2102.02079): 44,426 parameters, raw scores, no norm layer."""
        return nn.Sequential(
            nn.Conv2d(1, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(256, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, 10),
        )

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """SGD with momentum, as in the benchmark, at five times its learning rate: here a round is one epoch."""
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        """Member `index`'s part of the training pictures: uneven in kinds, at least half an even part in size."""
        images, labels = pictures().train
        least = len(labels) // (2 * members)
        rows = dirichlet(labels, members, alpha=ALPHA, seed=seed, least=least)[index]
        judged, trained = rows[: len(rows) // 10], rows[len(rows) // 10 :]
        return LocalData(
            train=TensorDataset(scaled(images[trained]), torch.from_numpy(labels[trained])),
            validation=TensorDataset(scaled(images[judged]), torch.from_numpy(labels[judged])),
        )

    def test_data(self) -> TensorDataset:
        """The set's own 10,000 test pictures; no member trains on them."""
        images, labels = pictures().test
        return TensorDataset(scaled(images), torch.from_numpy(labels))

    def prepare(self, columns: Mapping[str, NDArray[Any]]) -> Tensor:
        """Raw pixels, 0 to 255: 784 columns row by row of the picture, or one array (k, 28, 28)."""
        parts = list(columns.values())
        pixels = parts[0] if len(parts) == 1 and parts[0].ndim == 3 else np.column_stack(parts)
        return scaled(pixels.reshape(-1, 28, 28))


@cache
def pictures() -> Images:
    """All pictures and labels. Read once: a file does not change while a peer runs."""
    return read_images(data_path("FASHION_DATA", DEFAULT, HOW))


def scaled(pixels: NDArray[Any]) -> Tensor:
    """Pixels, (k, 28, 28), as one channel of 0 to 1; float32. They are 0 to 255 by definition: nothing is computed."""
    return torch.from_numpy(np.ascontiguousarray(pixels))[:, None].float() / 255
