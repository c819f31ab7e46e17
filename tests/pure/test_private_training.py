"""One member's private gradient: each record's own, cut, whole; and whole runs that end when their privacy is spent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedchain.errors import UsageError
from fedchain.lab.run import federate, with_invented_members
from fedchain.learn import LocalData, Task, evaluate, first_model, private, private_gradient
from fedchain.learn.private import drawn_rows
from fedchain.peer.simulation import simulate
from fedchain.protocol.charter import Charter, Federation
from fedchain.protocol.ids import size_of
from fedchain.protocol.model import flatten, layout_of, split
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.privacy import account_of, plan_of
from fedchain.protocol.private_values import noise_in
from fedchain.protocol.update_format import UpdateFormat, update_format

ROTATION = b"r" * 32


class Points(Task):
    """Two clouds of points and a small network, without anything random in it."""

    name = "points"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        return LocalData(train=points(40, seed + index), validation=points(10, seed + index + 500))

    def test_data(self) -> TensorDataset:
        return points(200, 999)


class Branching(Points):
    """A loss that looks at values, which no vectorised gradient can follow."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        inputs, labels = batch
        loss = nn.functional.cross_entropy(model(inputs), labels)
        return loss if float(loss.detach()) > 0 else 0 * loss


class Mixing(Points):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))


class Tied(Points):
    """One matrix under two names."""

    def model(self) -> nn.Module:
        model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 2, bias=False))
        model[2].weight = model[0].weight
        return model


class Memory(nn.Module):
    """Adds what it has seen so far to its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen = self.seen + inputs.detach().mean(dim=0)
        return inputs + self.seen


class MemoryInPlace(Memory):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.seen.add_(inputs.detach().mean(dim=0))


class Remembering(Points):
    """A layer that remembers: no batch norm, and mixes records all the same."""

    memory: type[nn.Module] = Memory

    def model(self) -> nn.Module:
        return nn.Sequential(self.memory(), nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))


class RememberingInPlace(Remembering):
    """The same in place, which no vectorised gradient can follow."""

    memory = MemoryInPlace


class Centring(Points):
    """A batch that is centred: what a record's input is follows from the records beside it."""

    def batch(self, examples: Any, rows: Tensor) -> Any:
        inputs, labels = super().batch(examples, rows)
        return inputs - inputs.mean(dim=0), labels


class Renorming(Points):
    """An embedding that shortens the rows that it looks up, in place."""

    def model(self) -> nn.Module:
        class Words(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.words = nn.Embedding(2, 2, max_norm=0.1)

            def forward(self, inputs: Tensor) -> Tensor:
                return self.words((inputs[:, 0] > 0).long())

        return nn.Sequential(Words(), nn.Linear(2, 2))


class Broken(Points):
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        raise RuntimeError("no such luck")


def points(count: int, seed: int) -> TensorDataset:
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    return TensorDataset(torch.randn(count, 2, generator=random) + 3.0 * labels[:, None] - 1.5, labels)


def charter(rounds: int = 3, members: int = 4, **privacy: Any) -> Charter:
    records = {"mode": "records", "epsilon": 8.0, "clip": 0.5, **privacy}
    agreed = Charter.model_validate(
        {
            "federation": Federation(name="trial"),
            "run": {"rounds": rounds},
            "outer": {"learning_rate": 0.3} if records["mode"] == "records" else {},
            "update": {"bits": "auto", "rotate": False},
            "privacy": records,
            "task_sha256": "ab" * 32,
        }
    )
    return with_invented_members(agreed, members)


def taken(task: Task, rate: float = 1.0, clip: float = 1.0) -> tuple[Any, UpdateFormat, bytes, LocalData]:
    agreed = charter(clip=clip)
    base, data = first_model(task, agreed), task.local_data(0, 4, 1)
    form = update_format(agreed, layout_of(base).size)
    return private_gradient(task, base, data, rate=rate, form=form, rotation=ROTATION), form, base, data


def plain_gradients(task: Task, base: bytes, data: LocalData) -> list[np.ndarray[Any, Any]]:
    """Each record's gradient by plain autograd, in the layout's order."""
    layout = layout_of(base)
    found = []
    for row in range(len(data.train)):
        model = task.model()
        values = {name: torch.from_numpy(v.copy()) for name, v in split(layout, flatten(base)).items()}
        model.load_state_dict(values)
        task.loss(model, data.train[row : row + 1]).backward()
        grads = {name: p.grad for name, p in model.named_parameters(remove_duplicate=False)}
        found.append(np.concatenate([grads[name].numpy().reshape(-1) for name in layout.names]))
    return found


@pytest.mark.parametrize("kind", [Points, Branching, Tied])
def test_the_sum_is_of_every_records_own_gradient_cut_to_the_clip(kind: type[Task]) -> None:
    task = kind()
    step, form, base, data = taken(task)
    gradients = plain_gradients(task, base, data)
    lengths = [float(np.linalg.norm(g)) for g in gradients]
    assert min(lengths) < 1 < max(lengths), "some are cut, some are not"
    expected = -sum(g * min(1, 1 / n) for g, n in zip(gradients, lengths, strict=True))
    unit = noise_in(form).clip_unit
    # Rounding moves each of 40 records' values by a unit at most, at random.
    assert step.units * unit == pytest.approx(expected, abs=6 * unit * np.sqrt(40) / 2)
    assert step.drawn == 40 and step.loss is not None


def test_one_record_more_moves_the_sum_by_the_sensitivity_at_most() -> None:
    """Whatever the record: here one far away whose gradient is a thousand times the clip."""
    task = Points()
    agreed = charter()
    base, data = first_model(task, agreed), task.local_data(0, 4, 1)
    form = update_format(agreed, layout_of(base).size)
    far = TensorDataset(torch.tensor([[1e4, -1e4]]), torch.tensor([1]))
    own = private_gradient(task, base, LocalData(far, far), rate=1.0, form=form, rotation=ROTATION)
    assert 0 < int(np.dot(own.units, own.units)) <= noise_in(form).units ** 2
    silent = private_gradient(task, base, data, rate=1e-19, form=form, rotation=ROTATION)
    assert silent.drawn == 0 and not silent.units.any() and silent.loss is None


def test_records_are_drawn_one_by_one_anew_and_by_nobodys_seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    first = drawn_rows(20_000, 0.2)
    torch.manual_seed(0)
    np.random.seed(0)
    second = drawn_rows(20_000, 0.2)
    assert first.tolist() != second.tolist()
    assert abs(len(first) - 4000) < 6 * np.sqrt(20_000 * 0.2 * 0.8)
    assert abs(len(set(first.tolist()) & set(second.tolist())) - 800) < 6 * np.sqrt(20_000 * 0.04)
    assert drawn_rows(5, 1.0).tolist() == [0, 1, 2, 3, 4]


def test_a_model_that_mixes_records_is_refused() -> None:
    with pytest.raises(UsageError, match="batch norm, which mixes records"):
        taken(Mixing())


@pytest.mark.parametrize("kind", [Remembering, RememberingInPlace, Centring])
def test_a_records_gradient_does_not_depend_on_the_records_beside_it(
    kind: type[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One record less takes one gradient of bounded length out of the sum; it must not change another's."""
    monkeypatch.setattr(private, "_AT_ONCE", 2)
    task, agreed = kind(), charter(clip=1.0)
    base, data = first_model(task, agreed), task.local_data(0, 4, 1)
    form = update_format(agreed, layout_of(base).size)
    unit = noise_in(form).clip_unit

    def total(rows: list[int]) -> np.ndarray[Any, Any]:
        some = TensorDataset(*data.train[rows])
        step = private_gradient(task, base, LocalData(some, some), rate=1.0, form=form, rotation=ROTATION)
        return step.units * unit

    apart = total([0, 1, 2, 3]) - sum(total([row]) for row in range(4))
    # Each of eight roundings moves a value by a unit at most.
    assert np.abs(apart).max() < 8 * unit


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_model_that_changes_by_looking_at_records_is_refused() -> None:
    with pytest.raises(UsageError, match=r"changes 0\.words\.weight, and so the gradients of the records after it"):
        taken(Renorming())


def test_what_fails_in_the_tasks_code_is_told() -> None:
    with pytest.raises(UsageError, match="no such luck"):
        taken(Broken())


@pytest.mark.parametrize("mode", ["records", "clients"])
def test_members_whose_privacy_is_spent_train_no_more_and_end_the_run(mode: str) -> None:
    """Real peers, all of the encryption; the charter has more rounds than its budget."""
    privacy = {"mode": mode, "noise_multiplier": 2.0, "epsilon": 6.0}
    agreed = charter(rounds=50, **privacy)
    plan = plan_of(agreed)
    assert plan is not None
    run = federate(agreed, Points(), engine="numpy")
    account = account_of(agreed, run.state)
    assert account is not None
    assert phase_of(run.state, run.state.round, 10**9) is Phase.FINISHED
    assert 1 < len(run.state.closed) < 50
    assert len(account.releases) == len(run.state.closed)
    assert account.rounds_left == 0 and 0.5 * 6.0 < account.spent <= 6.0
    assert size_of(run.state.stop_votes) >= agreed.threshold
    assert run.state.current is not None and not run.state.current.commits


def test_a_private_simulation_learns_through_the_noise_and_is_never_the_same_twice() -> None:
    agreed = charter(rounds=30, epsilon=8.0)
    task = Points()
    (*_, first), (*_, second) = simulate(agreed, task, members=4), simulate(agreed, task, members=4)
    assert first.model != second.model
    accuracy = task_accuracy(task, first.model)
    assert accuracy > 0.85 > 0.75 > task_accuracy(task, first_model(task, agreed)), accuracy


def task_accuracy(task: Task, model: bytes) -> float:
    return evaluate(task, model, task.test_data())["accuracy"]
