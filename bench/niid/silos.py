"""The data sets and models of the reproduction, as one task: NIID-Bench's simple CNN for images, its MLP for tables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from partitions import PARTITIONS
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedchain.errors import UsageError
from fedchain.learn import LocalData, Task, load_task
from fedchain.learn.idx import read_images
from fedchain.protocol.charter import read_charter

ROOT = Path(__file__).parents[2]
SETS = ("fmnist", "mnist", "adult", "breast-cancer")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """One data set: inputs float32, labels int64, for training and for testing."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: int
    rate: float = 0.01
    """SGD's learning rate: the paper chooses among 0.1, 0.01 and 0.001 for each set."""


class Silos(Task):
    """One data set divided by one of NIID-Bench's partitions; SGD with momentum 0.9 and weight decay 1e-5."""

    name = "niid"

    def __init__(self, rows: Rows, partition: str, silos: int, seed: int) -> None:
        self._rows = rows
        random = np.random.default_rng([2102, 2079, seed])
        self.parts = PARTITIONS[partition](rows.train[1].numpy(), silos, random)

    def model(self) -> nn.Module:
        """Images: conv 6, conv 16, 120, 84 (44,426 parameters for one channel). Tables: 32-16-8."""
        inputs, classes = self._rows.train[0], self._rows.classes
        if inputs.ndim == 4:
            return nn.Sequential(
                *(nn.Conv2d(inputs.shape[1], 6, 5), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
                *(nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes)),
            )
        sizes = [inputs.shape[1], 32, 16, 8]
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(8, classes))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=self._rows.rate, momentum=0.9, weight_decay=1e-5)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        """NIID-Bench trains on all of a silo's rows; nothing is held out, and nobody votes to stop."""
        rows = torch.from_numpy(self.parts[index])
        train = TensorDataset(self._rows.train[0][rows], self._rows.train[1][rows])
        return LocalData(train=train, validation=train)

    def test_data(self) -> TensorDataset:
        return TensorDataset(*self._rows.test)


def read_set(name: str, path: Path | None) -> Rows:
    """One data set, from the user's path where it is not bundled. Raises UsageError, with what to do."""
    if name == "breast-cancer":
        return _breast_cancer()
    if path is None:
        raise UsageError(f"--set {name} needs --data: see bench/niid/README.md for where it is to be had")
    if name == "adult":
        return _adult(path)
    images = read_images(path)
    both = [
        (torch.from_numpy(pixels)[:, None].float() / 255, torch.from_numpy(labels))
        for pixels, labels in (images.train, images.test)
    ]
    return Rows(train=both[0], test=both[1], classes=10)


def _adult(folder: Path) -> Rows:
    """LIBSVM's a9a and a9a.t, as NIID-Bench reads them: 123 binary columns, 32,561 and 16,281 rows."""
    from sklearn.datasets import load_svmlight_file

    read: Any = partial(load_svmlight_file, n_features=123)
    both = []
    for file in ("a9a", "a9a.t"):
        try:
            inputs, labels = read(os.fspath(folder / file))
        except (OSError, ValueError) as error:
            raise UsageError(f"{folder / file} is not LIBSVM's {file}: {error}") from error
        both.append((torch.tensor(inputs.toarray(), dtype=torch.float32), torch.tensor(labels > 0).long()))
    return Rows(train=both[0], test=both[1], classes=2)


def _breast_cancer() -> Rows:
    """The rows, the scale and the division into training and testing of peers/hospitals."""
    import sys

    charter = read_charter(ROOT / "peers" / "hospitals")
    task = load_task(ROOT / "peers" / "hospitals" / charter.federation.task, charter.task_sha256)
    records: Any = sys.modules[type(task).__module__]
    train, test = records.records()
    return Rows(train=train, test=test, classes=2, rate=0.1)
