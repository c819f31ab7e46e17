"""What a federation learns: the one class that a user writes, in a file of their own, in plain torch.

A task says which model, which data, which loss and which metric; everything about rounds, encryption and chains is
elsewhere. `docs/tasks.md` walks through one. This module trains nothing and reads no file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset, default_collate

from ..errors import UsageError


class Examples(Protocol):
    """A data set: anything with a length and an index, so every map-style `torch.utils.data.Dataset`."""

    def __len__(self) -> int:
        """How many examples there are."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """One example, usually a pair (inputs, target)."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LocalData:
    """One member's own data, which never leaves it: what it trains on, and what it judges the global model by."""

    train: Examples
    validation: Examples

    def __post_init__(self) -> None:
        for what, examples in (("training", self.train), ("validation", self.validation)):
            if not len(examples):
                raise UsageError(f"the task's local_data() gave no {what} examples for this member")


class Task(ABC):
    """One learning task; subclass it once in a `task.py` of your own, with no argument to construct it.

    Must be written: `name`, `model`, `local_data`, `test_data`. The rest has defaults for classification: pairs
    (inputs, target), a model that puts out one column a class (cross-entropy) or a single column (binary
    cross-entropy), accuracy as the metric, Adam. Override what differs. Every method must do the same thing whenever
    it is called: a round is repeated after a crash, and all randomness is seeded from outside.
    """

    name: str
    """A short name for reports."""

    metric: str = "accuracy"
    """Which entry of `evaluate`'s result counts: the charter's `run.target` is compared with it."""

    higher_is_better: bool = True
    """Whether the target is met from below (accuracy) or from above (an error)."""

    outputs: Literal["logits", "probabilities"] = "logits"
    """What the model puts out: raw scores, or probabilities (a model that ends in a sigmoid or softmax)."""

    @abstractmethod
    def model(self) -> nn.Module:
        """A fresh model; all its floating-point tensors, buffers included, are averaged, integer buffers stay local.

        Called often; random initial values may come from torch's global generator, which is seeded before the call.
        """

    @abstractmethod
    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        """The data of member `index` of `members`.

        In a real federation every member reads its own files here and may ignore the arguments; in an experiment this
        is where one data set is split. `seed` is the charter's. The same arguments always give the same data.
        """

    @abstractmethod
    def test_data(self) -> Examples:
        """Data that no member trains on, the same for all: for comparing federated with central and local training."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The mean loss of one batch, a scalar to differentiate. `batch` is what `batch()` gave, on the model's device.

        Default: cross-entropy for several columns, binary cross-entropy for one; `outputs` says of what.
        """
        inputs, targets = batch
        outputs: Tensor = model(inputs)
        if is_single_column(outputs):
            scores = outputs.reshape(-1)
            truth = targets.reshape(-1).to(scores.dtype)
            if self.outputs == "probabilities":
                return functional.binary_cross_entropy(scores, truth)
            return functional.binary_cross_entropy_with_logits(scores, truth)
        if self.outputs == "probabilities":
            return functional.nll_loss(outputs.clamp_min(1e-12).log(), targets)
        return functional.cross_entropy(outputs, targets)

    def losses(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss of each example of a batch, (k,), for the charter's `algorithm.loss = "class-weighted"` only.

        Override it together with `loss`: its mean must be what `loss` gives.
        """
        inputs, targets = batch
        outputs: Tensor = model(inputs)
        if is_single_column(outputs):
            scores = outputs.reshape(-1)
            truth = targets.reshape(-1).to(scores.dtype)
            if self.outputs == "probabilities":
                return functional.binary_cross_entropy(scores, truth, reduction="none")
            return functional.binary_cross_entropy_with_logits(scores, truth, reduction="none")
        if self.outputs == "probabilities":
            return functional.nll_loss(outputs.clamp_min(1e-12).log(), targets, reduction="none")
        return functional.cross_entropy(outputs, targets, reduction="none")

    def labels(self, examples: Examples) -> Tensor:
        """The class of each example, (n,), for the charter's class-balanced sampling and class-weighted loss only.

        Default: the second entry of each example.
        """
        if isinstance(examples, TensorDataset):
            return examples.tensors[1]
        return torch.tensor([float(examples[row][1]) for row in range(len(examples))])

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimizer for one round of local training. Default: Adam with its usual learning rate of 0.001."""
        return torch.optim.Adam(model.parameters())

    def evaluate(self, model: nn.Module, examples: Examples) -> dict[str, float]:
        """Metrics of the model on these examples, at least `metric`. The model is in evaluation mode, no gradients.

        Default: mean loss and accuracy; with one output column the class is 1 from a probability of one half on.
        """
        device = next(model.parameters()).device
        total_loss, right = 0.0, 0
        for rows in torch.split(torch.arange(len(examples)), 1024):
            batch = to_device(self.batch(examples, rows), device)
            inputs, targets = batch
            total_loss += float(self.loss(model, batch)) * len(rows)
            outputs: Tensor = model(inputs)
            if is_single_column(outputs):
                guesses = (outputs.reshape(-1) >= (0.5 if self.outputs == "probabilities" else 0.0)).long()
            else:
                guesses = outputs.argmax(dim=1)
            right += int((guesses == targets.reshape(-1)).sum())
        return {"loss": total_loss / len(examples), "accuracy": right / len(examples)}

    def prepare(self, columns: Mapping[str, NDArray[Any]]) -> Any:
        """What the model takes, from the columns of a user's file: `fedchain model predict` calls it.

        `columns`: name to (k, …) array, in the file's order; of a CSV file float64, or text where a column is not all
        numbers. Override it to do to raw values what `local_data` does to them, or to choose columns by name.
        Default: all columns side by side as float32; an array of more than one dimension that stands alone, as it is.
        """
        parts = list(columns.values())
        for name, part in columns.items():
            if part.dtype.kind not in "biuf":
                raise UsageError(
                    f"column {name!r} is text; leave it out, or let the task's prepare() make numbers of it"
                )
        whole = parts[0] if len(parts) == 1 and parts[0].ndim > 1 else np.column_stack(parts)
        return torch.from_numpy(whole.astype(np.float32))

    def predictions(self, outputs: Tensor) -> dict[str, Tensor]:
        """The columns that `fedchain model predict` writes, each (k,), from the model's outputs, (k, …).

        Default, where the metric is accuracy: `class`, and each class's probability as `p0`, `p1`, …; with a single
        output column `class` and `p1`. Otherwise the outputs as they are.
        """
        single = is_single_column(outputs)
        if self.metric != "accuracy":
            flat = outputs.reshape(len(outputs), -1)
            return {"output" if single else f"output{i}": column for i, column in enumerate(flat.unbind(1))}
        if single:
            scores = outputs.reshape(-1)
            chance = scores if self.outputs == "probabilities" else scores.sigmoid()
            return {"class": (chance >= 0.5).long(), "p1": chance}
        chances = outputs if self.outputs == "probabilities" else outputs.softmax(dim=1)
        return {"class": outputs.argmax(dim=1), **{f"p{i}": chance for i, chance in enumerate(chances.unbind(1))}}

    def batch(self, examples: Examples, rows: Tensor) -> Any:
        """The examples at these rows, (k,) int64, as one batch. Override for ragged data that needs padding.

        Default: slices a TensorDataset; collates anything else as torch's DataLoader does.
        """
        if isinstance(examples, TensorDataset):
            return examples[rows]
        return default_collate([examples[int(row)] for row in rows])


def is_single_column(outputs: Tensor) -> bool:
    """Whether a model's outputs are one number an example: (k,) or (k, 1)."""
    return outputs.ndim == 1 or (outputs.ndim == 2 and outputs.shape[1] == 1)


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor inside its lists, tuples and dicts moved to the device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: to_device(part, device) for key, part in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(part, device) for part in batch)
    return batch
