"""The demonstration's table of fairness: each member's own data, who is served worst, who took part in what."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from types import MappingProxyType

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedchain.cli.demo_fairness import Fairness, fairness_of, fairness_table
from fedchain.lab.run import federate, with_invented_members
from fedchain.learn import LocalData, Task, evaluate
from fedchain.protocol.charter import Charter
from fedchain.protocol.ids import Bitmap


class Own(Task):
    """Two clouds of points. What member 2 holds out has its labels the wrong way round."""

    name = "own"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.5)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        inputs, labels = points(40 if index == 1 else 30, seed + index)
        held_out = 1 - labels[:10] if index == 2 else labels[:10]
        return LocalData(TensorDataset(inputs[10:], labels[10:]), TensorDataset(inputs[:10], held_out))

    def test_data(self) -> TensorDataset:
        return TensorDataset(*points(50, 99))


def points(count: int, seed: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 2
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)) + 4.0 * labels[:, None] - 2, labels


def charter_of(*settings: str) -> Charter:
    named = Charter.model_validate({"federation": {"name": "own"}, "task_sha256": "ab" * 32})
    epochs = ["run.rounds=2", "algorithm.local_epochs=5", "algorithm.batch_size=10", "update.clip_value=1.0"]
    return with_invented_members(named.with_settings([*epochs, *settings]), 3)


def test_the_final_model_is_judged_by_every_members_own_data() -> None:
    charter = charter_of()
    run = federate(charter, Own(), engine="numpy")
    # As a chain would tell it, had member 0 been away in round 2.
    second = run.state.closed[2]
    assert second.aggregate is not None
    away = replace(second, aggregate=replace(second.aggregate, participants=Bitmap(0b110)))
    state = replace(run.state, closed=MappingProxyType({1: run.state.closed[1], 2: away}))
    model, kept = run.models[-1], [None] * 3
    fairness = fairness_of(charter, Own(), state, model, kept, run.meters)
    assert fairness.own == tuple(evaluate(Own(), model, data.validation)["accuracy"] for data in run.datas)
    assert fairness.rounds == (1, 2, 2)
    assert fairness.steps == (20, 30, 20), "two rounds of five epochs of two batches, and of three"
    assert fairness.worst == fairness.own[2] < 0.5 < min(fairness.own[:2])
    assert fairness.spread == max(fairness.own) - fairness.own[2]
    out = io.StringIO()
    Console(file=out, width=80).print(fairness_table(fairness))
    assert f"worst │   {fairness.worst:.4f}" in out.getvalue() and f"{fairness.spread:.4f}" in out.getvalue()
    assert json.loads(json.dumps(fairness.entries()))["worst"] == fairness.worst


def test_where_tensors_stay_local_each_member_is_judged_with_its_own() -> None:
    charter = charter_of('algorithm.local_tensors=["2.*"]')
    run = federate(charter, Own(), engine="numpy")
    model, kept = run.models[-1], [own[-1] for own in run.kept]
    fairness = fairness_of(charter, Own(), run.state, model, kept, run.meters)
    assert min(fairness.own[:2]) > 0.8 and fairness.own[2] < 0.2
    begun = fairness_of(charter, Own(), run.state, model, [kept[2], None, kept[0]], run.meters)
    assert begun.own != fairness.own, "with another's last layer, or the first one, it is another model"


@pytest.mark.parametrize(("higher", "worst"), [(True, 0.2), (False, 0.9)])
def test_the_worst_is_the_least_accuracy_and_the_greatest_error(higher: bool, worst: float) -> None:
    fairness = Fairness("metric", higher, own=(0.5, 0.2, 0.9), rounds=(1, 1, 1), steps=(1, 1, 1))
    assert (fairness.worst, fairness.spread) == (worst, pytest.approx(0.7))
