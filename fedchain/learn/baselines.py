"""What the federation is compared with: one model on everybody's data, and each member on its own.

Only where all the data is in one place, as in the demo: a real member cannot and must not compute `centralised`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil

import torch
from torch import nn
from torch.utils.data import ConcatDataset, TensorDataset

from ..protocol.charter import Algorithm, Charter
from ..protocol.seeds import seed_for
from .fitting import fit
from .loading import task_code
from .task import Examples, LocalData, Task
from .training import loaded, metrics_of, reproducible


def passes_of(charter: Charter, rounds: int) -> int:
    """How often a federation goes through its members' rows in so many rounds, on average and rounded up.

    In a round of mode "records" each row is drawn with probability `sampling_rate`, whatever `local_epochs` is.
    """
    if charter.privacy.mode == "records":
        return ceil(rounds * Fraction(str(charter.privacy.sampling_rate)))
    return rounds * charter.algorithm.local_epochs


def centralised(
    task: Task, base: bytes, algorithm: Algorithm, datas: Sequence[LocalData], epochs: int, seed: int
) -> dict[str, float]:
    """Metrics on the test data of one model trained from `base` on all members' training data, `epochs` times through.

    `epochs` is the federation's total (`passes_of`). Plain training: no proximal term, no clipping.
    """
    return _trained_and_judged(task, base, algorithm, pooled([d.train for d in datas]), epochs, seed)


def alone(task: Task, base: bytes, algorithm: Algorithm, data: LocalData, epochs: int, seed: int) -> dict[str, float]:
    """Metrics on the same test data of a model that one member trains from `base` on its own data only."""
    return _trained_and_judged(task, base, algorithm, data.train, epochs, seed)


def plainly_trained(
    task: Task,
    base: bytes,
    algorithm: Algorithm,
    examples: Examples,
    epochs: int,
    seed: int,
    *,
    look: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """The model that plain training from `base` ends with; `look`, if given, is shown it after every epoch."""
    plain = algorithm.model_copy(update={"name": "fedavg", "mu": 0.0})

    def watch(done: int, total: int) -> None:
        steps = total // epochs
        if look is not None and done % steps == 0:
            look(done // steps, model)
            model.train()

    with reproducible(seed_for("baseline", seed)):
        model, _ = loaded(task, base, local_tensors=algorithm.local_tensors)
        fit(task, model, examples, plain, epochs=epochs, seed=seed, progress=watch)
    return model


def pooled(parts: Sequence[Examples]) -> Examples:
    """All examples as one data set, in the order given."""
    if all(isinstance(part, TensorDataset) for part in parts):
        columns = zip(*(part.tensors for part in parts if isinstance(part, TensorDataset)), strict=True)
        return TensorDataset(*(torch.cat(column) for column in columns))
    return ConcatDataset(list(parts))  # type: ignore[arg-type]  # anything with a length and an index will do


def _trained_and_judged(
    task: Task, base: bytes, algorithm: Algorithm, examples: Examples, epochs: int, seed: int
) -> dict[str, float]:
    with task_code(task, "test_data()"):
        test = task.test_data()
    model = plainly_trained(task, base, algorithm, examples, epochs, seed)
    with reproducible(0):
        return metrics_of(task, model, test)
