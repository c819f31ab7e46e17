"""The charter's algorithms in local training: what is sent, what is kept, and how uneven data and machines are met."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedchain.errors import CharterMismatch, UsageError
from fedchain.learn import LocalData, Machine, Task, evaluate, fine_tune, first_model, genesis, train_locally
from fedchain.learn.sampling import classes_of, order_of, row_weights
from fedchain.protocol.charter import Algorithm, Charter, Federation
from fedchain.protocol.model import flatten, layout_of, split
from fedchain.protocol.outer import CONTROL, following_model, update_size_of

RATE = 0.05


class Lines(Task):
    """Least squares of three members that disagree, by plain gradient descent on all of their data at once."""

    name, metric = "lines", "loss"

    def __init__(self, momentum: float = 0.0) -> None:
        self._momentum = momentum

    def model(self) -> nn.Module:
        return nn.Linear(4, 1)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = batch
        return (model(inputs).reshape(-1) - targets).square().mean()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=RATE, momentum=self._momentum)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        random = torch.Generator().manual_seed(index)
        inputs = torch.randn(20, 4, generator=random)
        data = TensorDataset(inputs, inputs @ torch.arange(4.0) * (index + 1) + index)
        return LocalData(data, data)

    def test_data(self) -> TensorDataset:
        train = self.local_data(7, 1, 1).train
        assert isinstance(train, TensorDataset)
        return train

    def evaluate(self, model: nn.Module, examples: Any) -> dict[str, float]:
        return {"loss": float(self.loss(model, examples[:]))}


def charter_with(**algorithm: Any) -> Charter:
    return Charter(federation=Federation(name="lines"), algorithm=Algorithm(batch_size=64, **algorithm))


def test_scaffold_on_plain_gradient_descent_is_the_papers_algorithm() -> None:
    """Algorithm 1 of arXiv:1910.06378 with option II and every member taking part, written out in float64."""
    task, members, steps, rounds = Lines(), 3, 5, 3
    charter = charter_with(name="scaffold", effective_steps=8, local_epochs=steps)
    datas = [task.local_data(i, members, 1) for i in range(members)]
    base = first_model(task, charter)
    kept: list[bytes | None] = [None] * members
    x = flatten(base)[:5].astype(np.float64)
    c, own = np.zeros(5), [np.zeros(5) for _ in range(members)]
    for round in range(rounds):
        results = [
            train_locally(task, base, charter.algorithm, data, 10 * round + i, kept=kept[i])
            for i, data in enumerate(datas)
        ]
        kept = [result.kept for result in results]
        mean = np.mean([result.update.astype(np.float64) for result in results], axis=0)
        base = following_model(base, mean, charter=charter, weight=3, of_weight=3)
        ends, news = [], []
        for i, data in enumerate(datas):
            assert isinstance(data.train, TensorDataset)
            inputs, targets = (tensor.double().numpy() for tensor in data.train.tensors)
            y = x.copy()
            for _ in range(steps):
                residue = inputs @ y[1:] + y[0] - targets  # the vector holds the bias first, then the weights
                gradient = 2 * np.concatenate([[residue.mean()], inputs.T @ residue / len(residue)])
                y -= RATE * (gradient - own[i] + c)
            news.append(own[i] - c + (x - y) / (steps * RATE))
            ends.append(y)
        x = x + np.mean([y - x for y in ends], axis=0)
        c = c + np.mean([new - old for new, old in zip(news, own, strict=True)], axis=0)
        own = news
    np.testing.assert_allclose(flatten(base)[:5], x, rtol=2e-5, atol=1e-6)
    control = split(layout_of(base), flatten(base))[CONTROL]
    np.testing.assert_allclose(control, -RATE * 8 * c, rtol=2e-4, atol=2e-5)


def test_scaffold_reaches_a_common_optimum_that_averaging_of_many_steps_misses() -> None:
    task, members = Lines(), 3
    datas = [task.local_data(i, members, 1) for i in range(members)]
    every = [data.train.tensors for data in datas if isinstance(data.train, TensorDataset)]
    inputs = np.column_stack([np.ones(60), torch.cat([e[0] for e in every]).numpy()]).astype(np.float64)
    best = np.linalg.lstsq(inputs, torch.cat([e[1] for e in every]).double().numpy(), rcond=None)[0]
    distance = {}
    for name, effective in (("fedavg", 0), ("scaffold", 20)):
        charter = charter_with(name=name, effective_steps=effective, local_epochs=20)
        base, kept = first_model(task, charter), [None] * members
        for _ in range(60):
            results = [
                train_locally(task, base, charter.algorithm, data, 1, kept=own)
                for data, own in zip(datas, kept, strict=True)
            ]
            kept = [result.kept for result in results]  # type: ignore[misc]
            mean = np.mean([result.update.astype(np.float64) for result in results], axis=0)
            base = following_model(base, mean, charter=charter, weight=3, of_weight=3)
        distance[name] = float(np.linalg.norm(flatten(base)[:5] - best))
    assert distance["scaffold"] < 1e-2 < 0.1 < distance["fedavg"], distance


class Slope(Lines):
    """A loss with the same gradient everywhere."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return sum((p * (i + 1)).sum() for i, p in enumerate(model.parameters()))  # type: ignore[return-value]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fednova_takes_the_number_of_steps_out(momentum: float) -> None:
    task = Slope(momentum)
    data, base = task.local_data(0, 3, 1), genesis(task, 1)
    plain = train_locally(task, base, Algorithm(local_epochs=6, batch_size=64), data, 1)
    assert plain.steps == 6
    for epochs in (2, 6, 15):
        nova = Algorithm(name="fednova", effective_steps=6, local_epochs=epochs, batch_size=64)
        sent = train_locally(task, base, nova, data, 1)
        assert sent.steps == epochs
        np.testing.assert_allclose(sent.update, plain.update, rtol=1e-4)


class Heads(Task):
    """Two layers and batch norm; labels are turned around for odd members, so that each needs a head of its own."""

    name = "heads"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        labels = torch.arange(60) % 2
        noise = torch.randn(60, 2, generator=torch.Generator().manual_seed(index))
        turned = labels if index % 2 == 0 else 1 - labels
        data = TensorDataset(noise + 3.0 * labels[:, None], turned)
        return LocalData(data, data)

    def test_data(self) -> TensorDataset:
        train = self.local_data(0, 1, 1).train
        assert isinstance(train, TensorDataset)
        return train


def federate(task: Task, charter: Charter, rounds: int, members: int = 4) -> tuple[bytes, list[bytes | None]]:
    """The last model and what each member kept, in plain numbers."""
    datas = [task.local_data(i, members, 1) for i in range(members)]
    base, kept = first_model(task, charter), [None] * members
    for round in range(rounds):
        results = [
            train_locally(task, base, charter.algorithm, data, 100 * round + i, kept=own)
            for i, (data, own) in enumerate(zip(datas, kept, strict=True))
        ]
        kept = [result.kept for result in results]  # type: ignore[misc]
        mean = np.mean([result.update.astype(np.float64) for result in results], axis=0)
        base = following_model(base, mean, charter=charter, weight=1, of_weight=1)
    return base, kept  # type: ignore[return-value]


def own_accuracies(task: Task, base: bytes, kept: list[bytes | None], patterns: tuple[str, ...] = ()) -> list[float]:
    return [
        evaluate(task, base, task.local_data(i, len(kept), 1).train, local_tensors=patterns, kept=own)["accuracy"]
        for i, own in enumerate(kept)
    ]


def test_local_tensors_stay_at_home_and_serve_members_that_contradict_each_other() -> None:
    task = Heads()
    alike, _ = federate(task, charter_with(local_epochs=4), 6)
    personal, kept = federate(task, charter_with(local_epochs=4, local_tensors=["3.*", "1.running_*"]), 6)
    names = layout_of(personal).names
    assert names == ("0.bias", "0.weight", "1.bias", "1.weight")
    assert kept[0] is not None
    assert layout_of(kept[0]).names == ("1.running_mean", "1.running_var", "3.bias", "3.weight")
    assert min(own_accuracies(task, personal, kept, ("3.*", "1.running_*"))) > 0.9
    assert min(own_accuracies(task, alike, [None] * 4)) < 0.75


def test_scaffold_and_local_tensors_keep_both_at_home() -> None:
    task = Heads()
    charter = charter_with(name="scaffold", effective_steps=2, local_epochs=2, local_tensors=["3.*"])
    base, kept = federate(task, charter, 2)
    assert kept[0] is not None and layout_of(kept[0]).names == ("3.bias", "3.weight", CONTROL)
    assert update_size_of(base, charter) == 2 * layout_of(genesis(task, 1, ["3.*"])).size
    controls = split(layout_of(kept[0]), flatten(kept[0]))[CONTROL]
    layout = layout_of(genesis(task, 1, ["3.*"]))
    by_name = split(layout, controls)
    assert by_name["0.weight"].any() and not by_name["1.running_mean"].any(), "no optimizer moves a buffer"


def test_patterns_that_name_nothing_or_everything_and_what_was_kept_of_another_model_are_refused() -> None:
    task = Heads()
    with pytest.raises(UsageError, match=r"names 'head\.\*'; model\(\) has no such tensor"):
        genesis(task, 1, ["head.*"])
    with pytest.raises(UsageError, match="nothing is left to federate"):
        genesis(task, 1, ["*"])
    algorithm = Algorithm(local_tensors=("3.*",))
    base = genesis(task, 1, ["3.*"])
    kept = train_locally(task, base, algorithm, task.local_data(0, 2, 1), 1).kept
    with pytest.raises(CharterMismatch, match="kept from earlier rounds is of another model"):
        evaluate(task, genesis(task, 1, ["1.*"]), task.test_data(), local_tensors=["1.*"], kept=kept)


def ticking() -> Iterator[float]:
    return (float(second) for second in count())


def test_a_budget_ends_the_training_when_it_is_over_and_allows_a_step_at_least() -> None:
    task = Lines()
    data, base = task.local_data(0, 3, 1), genesis(task, 1)
    algorithm = Algorithm(local_epochs=50, batch_size=5, local_steps="adaptive")
    steps = []
    for budget in (0.0, 10.0, 30.0, float("inf")):
        ticks = ticking()
        result = train_locally(task, base, algorithm, data, 1, budget_s=budget, clock=lambda ticks=ticks: next(ticks))
        steps.append(result.steps)
        assert np.isfinite(result.loss) and result.update.any()
    assert steps[0] == 1 and 5 <= steps[1] <= 10 and 20 <= steps[2] <= 30 and steps[3] == 200
    again = train_locally(task, base, algorithm, data, 1).update
    assert (
        again.tobytes() == train_locally(task, base, Algorithm(local_epochs=50, batch_size=5), data, 1).update.tobytes()
    )


def rare(count: int = 90) -> TensorDataset:
    """Nine of ten examples are of class 0; classes 3 and 7 share the rest."""
    labels = torch.zeros(count, dtype=torch.long)
    labels[::20], labels[10::20] = 3, 7
    inputs = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    inputs[:, 0] += 1.2 * (labels == 3)
    inputs[:, 1] += 1.2 * (labels == 7)
    return TensorDataset(inputs, labels)


class Rare(Heads):
    """Few examples of two of its classes."""

    def model(self) -> nn.Module:
        return nn.Linear(2, 8)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        return LocalData(rare(), rare())


def test_balanced_sampling_takes_every_class_as_often_and_weights_make_up_for_rarity() -> None:
    task, examples = Rare(), rare()
    classes = classes_of(task, examples)
    assert torch.bincount(classes).tolist() == [81, 5, 4]
    shuffle = torch.Generator().manual_seed(1)
    order = order_of(Algorithm(sampling="class-balanced"), classes, 90, shuffle)
    assert len(order) == 90 and torch.bincount(classes[order]).tolist() == [30, 30, 30]
    taken = torch.bincount(order[classes[order] == 2], minlength=90)[classes == 2]
    assert set(taken.tolist()) <= {7, 8}
    weights = row_weights(classes)
    assert abs(float(weights.mean()) - 1) < 1e-6
    for kind in range(3):
        assert abs(float(weights[classes == kind].sum()) - 30) < 1e-4


@pytest.mark.parametrize("entry", [{"sampling": "class-balanced"}, {"loss": "class-weighted"}])
def test_balancing_finds_the_rare_classes(entry: dict[str, Any]) -> None:
    task = Rare()
    data, base = task.local_data(0, 3, 1), genesis(task, 1)

    def recall(algorithm: Algorithm) -> float:
        update = train_locally(task, base, algorithm, data, 1).update
        weights = flatten(base) + update
        outputs = rare().tensors[0].numpy() @ weights[8:].reshape(8, 2).T + weights[:8]
        labels = rare().tensors[1].numpy()
        return float(np.mean([np.mean(outputs.argmax(1)[labels == kind] == kind) for kind in (0, 3, 7)]))

    assert recall(Algorithm(local_epochs=40, **entry)) > recall(Algorithm(local_epochs=40)) + 0.2


def test_class_weights_follow_the_tasks_own_loss_or_are_refused() -> None:
    task, balanced = Heads(), Algorithm(loss="class-weighted", local_epochs=2)
    data, base = task.local_data(0, 2, 1), genesis(task, 1)
    plain = train_locally(task, base, Algorithm(local_epochs=2), data, 1).update
    np.testing.assert_allclose(train_locally(task, base, balanced, data, 1).update, plain, atol=1e-5)

    class Smooth(Heads):
        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            return super().loss(model, batch) * 2

    with pytest.raises(UsageError, match=r"needs losses\(\) beside it"):
        train_locally(Smooth(), base, balanced, data, 1)
    lines = Lines()
    with pytest.raises(UsageError, match="its targets are no classes"):
        train_locally(lines, genesis(lines, 1), Algorithm(sampling="class-balanced"), lines.local_data(1, 2, 1), 1)


def test_fine_tuning_fits_the_member_and_gives_a_whole_model() -> None:
    task = Heads()
    base, _ = federate(task, charter_with(local_epochs=2), 3)
    odd = task.local_data(1, 4, 1)
    own = fine_tune(task, base, Algorithm(), odd, 1, epochs=20)
    assert layout_of(own) == layout_of(genesis(task, 1))
    assert evaluate(task, own, odd.validation)["accuracy"] > 0.9 > evaluate(task, base, odd.validation)["accuracy"]
    assert evaluate(task, own, task.test_data())["accuracy"] < 0.2, "its own labels are turned around"
    assert own == fine_tune(task, base, Algorithm(), odd, 1, epochs=20)


def test_members_with_and_without_mixed_precision_send_much_the_same() -> None:
    task = Heads()
    data, base = task.local_data(0, 2, 1), genesis(task, 1)
    algorithm = Algorithm(local_epochs=3)
    one = train_locally(task, base, algorithm, data, 1)
    other = train_locally(task, base, algorithm, data, 1, machine=Machine(mixed_precision=True))
    assert other.update.dtype == np.float32 and not np.array_equal(one.update, other.update)
    likeness = one.update @ other.update / np.linalg.norm(one.update) / np.linalg.norm(other.update)
    assert likeness > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_sends_much_the_same_as_a_cpu() -> None:
    task = Heads()
    data, base = task.local_data(0, 2, 1), genesis(task, 1)
    one = train_locally(task, base, Algorithm(local_epochs=3), data, 1).update
    other = train_locally(task, base, Algorithm(local_epochs=3), data, 1, machine=Machine(device="cuda")).update
    np.testing.assert_allclose(one, other, atol=1e-3)
