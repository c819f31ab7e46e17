"""Local training, splits, and the two example federations played in plain numbers, without chain or encryption."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedchain.errors import UsageError
from fedchain.learn import (
    LocalData,
    Task,
    alone,
    centralised,
    evaluate,
    genesis,
    load_task,
    local_data_of,
    pooled,
    train_locally,
)
from fedchain.learn.splits import dirichlet, quantity, shards, specialists
from fedchain.protocol.arithmetic import average, clipped_fraction, next_model, quantise, weight_of
from fedchain.protocol.charter import Algorithm, Charter, read_charter, tomllib
from fedchain.protocol.model import assemble, flatten, layout_of, model_digest
from fedchain.protocol.seeds import seed_for
from fedchain.protocol.update_format import join_values, split_sums, update_format

PEERS = Path(__file__).parents[2] / "peers"
FEDERATIONS = ("digits", "hospitals")


def open_federation(name: str) -> tuple[Charter, Task]:
    charter = read_charter(PEERS / name)
    return charter, load_task(PEERS / name / charter.federation.task, charter.task_sha256)


class Blobs(Task):
    """Two clouds of points; a network with batch norm (an integer buffer) and dropout (the global generator)."""

    name = "blobs"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        return LocalData(train=self._points(33, seed + index), validation=self._points(20, seed + index + 500))

    def test_data(self) -> TensorDataset:
        return self._points(200, 999)

    def _points(self, count: int, seed: int) -> TensorDataset:
        labels = torch.arange(count) % 2
        noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
        return TensorDataset(noise + 2.0 * labels[:, None], labels)


BLOBS = Blobs()
DATA = BLOBS.local_data(0, 3, 1)
FEDAVG = Algorithm(local_epochs=3, batch_size=16)


def test_training_learns_and_says_what_it_did() -> None:
    base = genesis(BLOBS, 1)
    steps: list[tuple[int, int]] = []
    result = train_locally(BLOBS, base, FEDAVG, DATA, 1, progress=lambda done, total: steps.append((done, total)))
    assert result.update.shape == (layout_of(base).size,) and result.update.dtype == np.float32
    assert result.samples == 33 and 0 < result.loss < 2 and result.seconds > 0
    # 33 examples in batches of 16 are two steps, not three: the last single one joins, batch norm needs company.
    assert steps == [(i, 6) for i in range(1, 7)]


def test_the_same_seed_gives_the_same_update_and_another_seed_another() -> None:
    base = genesis(BLOBS, 1)
    first, again = (train_locally(BLOBS, base, FEDAVG, DATA, 5).update for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != train_locally(BLOBS, base, FEDAVG, DATA, 6).update.tobytes()
    assert genesis(BLOBS, 1) == base != genesis(BLOBS, 2)


class Watching(Blobs):
    """Notes the conditions under which its loss is worked out."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, bool]] = set()

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        self.seen.add((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        return super().loss(model, batch)


def test_neither_threads_nor_global_generators_change_the_update() -> None:
    base = genesis(BLOBS, 1)
    first = train_locally(BLOBS, base, FEDAVG, DATA, 5).update
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.manual_seed(77)
    watching = Watching()
    try:
        assert train_locally(watching, base, FEDAVG, DATA, 5).update.tobytes() == first.tobytes()
    finally:
        torch.set_num_threads(threads)
    assert watching.seen == {(1, True)}


def test_training_leaves_global_state_as_it_found_it() -> None:
    def state() -> tuple[Any, ...]:
        numpy_state: Any = np.random.get_state()
        return (
            torch.get_rng_state().numpy().tobytes(),
            numpy_state[1].tobytes(),
            numpy_state[2],
            random.getstate(),
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.is_grad_enabled(),
        )

    # States that nothing else leaves behind, or a second call could restore them by chance.
    torch.manual_seed(4711)
    np.random.seed(4711)
    random.seed(4711)
    before = state()
    base = genesis(BLOBS, 1)
    train_locally(BLOBS, base, FEDAVG, DATA, 5)
    evaluate(BLOBS, base, DATA.validation)
    with pytest.raises(UsageError):
        train_locally(Diverging(), base, FEDAVG, DATA, 5)
    assert state() == before


class Diverging(Blobs):
    """Its loss is no number."""

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return super().loss(model, batch) * float("nan")


def test_integer_buffers_stay_local_and_float_buffers_travel() -> None:
    names = layout_of(genesis(BLOBS, 1)).names
    assert "1.running_mean" in names and "1.num_batches_tracked" not in names


def test_a_data_set_without_tensors_trains_to_the_same_update() -> None:
    class Listed(list[Any]):
        """Any sequence of pairs is a data set."""

    assert isinstance(DATA.train, TensorDataset)
    listed = Listed(DATA.train[i] for i in range(len(DATA.train)))
    base = genesis(BLOBS, 1)
    one = train_locally(BLOBS, base, FEDAVG, DATA, 5).update
    other = train_locally(BLOBS, base, FEDAVG, LocalData(listed, listed), 5).update
    np.testing.assert_array_equal(one, other)
    assert len(pooled([listed, DATA.train])) == 66
    assert torch.equal(pooled([listed, DATA.train])[40][0], DATA.train[7][0])


def test_fedprox_stays_nearer_to_the_global_model_the_larger_mu() -> None:
    base = genesis(BLOBS, 1)
    lengths = []
    for mu in (0.0, 1.0, 20.0):
        algorithm = Algorithm(name="fedprox" if mu else "fedavg", mu=mu, local_epochs=30, batch_size=16)
        update = train_locally(Plain(), base, algorithm, DATA, 5).update
        layout = layout_of(base)
        trained = np.repeat([not name.startswith("1.running") for name in layout.names], layout.sizes)
        lengths.append(float(np.linalg.norm(update[trained])))
    assert lengths[0] > 1.1 * lengths[1] > 2 * lengths[2] > 0


class Plain(Blobs):
    """Gradient descent: an adaptive optimizer would scale the proximal pull away."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01)


def test_a_gpu_that_is_not_there_is_named() -> None:
    base = genesis(BLOBS, 1)
    with pytest.raises(UsageError, match="device is cpu, cuda or auto, not tpu"):
        evaluate(BLOBS, base, DATA.validation, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="torch finds none; use cpu or auto"):
            evaluate(BLOBS, base, DATA.validation, device="cuda")
    assert evaluate(BLOBS, base, DATA.validation, device="auto").keys() == {"loss", "accuracy"}


labels_of = st.lists(st.integers(0, 4), min_size=40, max_size=120)


@settings(max_examples=60, deadline=None)
@given(labels_of, st.integers(1, 20), st.integers(0, 99), st.integers(1, 2))
def test_every_split_deals_every_row_once_and_leaves_nobody_without(
    labels: list[int], members: int, seed: int, least: int
) -> None:
    def splits() -> list[tuple[np.ndarray, ...]]:
        return [
            dirichlet(labels, members, alpha=0.1, seed=seed, least=least),
            shards(labels, members, each=2, seed=seed, least=least),
            specialists(labels, members, apart=0.9, seed=seed, least=least),
            quantity(len(labels), members, alpha=0.3, seed=seed, least=least),
        ]

    for parts, again in zip(splits(), splits(), strict=True):
        assert len(parts) == members and min(len(part) for part in parts) >= least
        assert sorted(np.concatenate(parts)) == list(range(len(labels)))
        assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_the_splits_are_as_uneven_as_they_say() -> None:
    labels = np.arange(4000) % 10

    def commonest(parts: Sequence[np.ndarray]) -> float:
        """The mean part that a member's commonest label has."""
        return float(np.mean([np.bincount(labels[part]).max() / len(part) for part in parts]))

    even, uneven, extreme = (dirichlet(labels, 8, alpha=alpha, seed=1) for alpha in (100.0, 0.5, 0.05))
    assert commonest(even) < 0.15 < 0.2 < commonest(uneven) < commonest(extreme)
    assert all(len(np.unique(labels[part])) <= 4 for part in shards(labels, 8, each=2, seed=1))
    assert all(np.mean(labels[part] == i) > 0.8 for i, part in enumerate(specialists(labels, 10, apart=0.9, seed=1)))
    assert {len(np.unique(labels[part])) for part in specialists(labels, 3, apart=1, seed=1)} == {3, 4}
    sizes = [len(part) for part in quantity(4000, 8, alpha=0.3, seed=1)]
    assert max(sizes) > 4 * min(sizes)


def test_too_many_members_for_the_rows_is_explained() -> None:
    with pytest.raises(UsageError, match="10 rows cannot give 11 members at least 1 each"):
        quantity(10, 11, alpha=1, seed=1)


@pytest.mark.parametrize("name", FEDERATIONS)
def test_an_example_charter_names_and_explains_every_entry(name: str) -> None:
    text = (PEERS / name / "federation.toml").read_text(encoding="utf-8")
    entries, charter = tomllib.loads(text), read_charter(PEERS / name)
    named = {f"{section}.{key}" for section, keys in entries.items() if isinstance(keys, dict) for key in keys}
    known = {
        f"{section}.{key}" for section, keys in charter.to_toml().items() if isinstance(keys, dict) for key in keys
    }
    assert named == known
    assert charter.federation.members == (), "filled in at deployment"
    assert charter.federation.name == name == open_federation(name)[1].name
    assert text.count("#") >= len(named) - 4


TASK_PACKAGES = ("__future__", "collections", "functools", "numpy", "sklearn", "torch", "typing")
"""What an example task may import beside `fedchain.learn`: arrays, data sets, types. `sources` knows where data lie."""


@pytest.mark.parametrize("name", sorted(folder.parent.name for folder in PEERS.glob("*/task.py")))
def test_an_example_task_imports_nothing_but_learning(name: str) -> None:
    tree = ast.parse((PEERS / name / "task.py").read_text(encoding="utf-8"))
    modules = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    modules |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    others = {m for m in modules if m.split(".")[:2] != ["fedchain", "learn"]}
    assert {m.split(".")[0] for m in others} <= set(TASK_PACKAGES)


@pytest.mark.parametrize("name", FEDERATIONS)
@pytest.mark.parametrize("members", [3, 5, 20])
def test_an_example_deals_its_data_to_any_number_of_members(name: str, members: int) -> None:
    charter, task = open_federation(name)
    datas = [local_data_of(task, i, members, charter.run.seed) for i in range(members)]
    again = local_data_of(task, 1, members, charter.run.seed)
    assert isinstance(again.train, TensorDataset) and isinstance(datas[1].train, TensorDataset)
    assert torch.equal(again.train.tensors[0], datas[1].train.tensors[0])
    dealt = sum(len(d.train) + len(d.validation) for d in datas)
    assert dealt + len(task.test_data()) == {"digits": 1797, "hospitals": 569}[name]


@dataclass(frozen=True)
class Played:
    """A federation played in plain numbers: accuracy on the test data and votes to stop after each round."""

    rounds: list[float]
    votes: list[int]
    model: bytes
    most_clipped: float


def play(name: str, members: int, *, rounds: int, exact: bool = False) -> Played:
    """The federation of `peers/name` with the seeds the peers use, without encryption; `exact`: unrounded."""
    charter, task = open_federation(name)
    seed, update = charter.run.seed, charter.update
    datas = [local_data_of(task, i, members, seed) for i in range(members)]
    weights = [weight_of(len(data.train), update) for data in datas]
    heaviest, total = max(weights), sum(weights)
    base = genesis(task, seed)
    form, rotation = update_format(charter, layout_of(base).size), bytes(32)
    accuracies, votes, clipped = [], [], 0.0
    for round in range(1, rounds + 1):
        sums = np.zeros(form.coefficients, dtype=np.uint64)
        mean = np.zeros(layout_of(base).size)
        for i, (data, weight) in enumerate(zip(datas, weights, strict=True)):
            training = seed_for("training", seed, member=i, round=round)
            result = train_locally(task, base, charter.algorithm, data, training).update
            rounding = np.random.default_rng(seed_for("rounding", seed, member=i, round=round))
            share = {"weight": weight, "max_weight": heaviest, "form": form, "rotation": rotation}
            sums += join_values(quantise(result, **share, random=rounding), form)
            mean += result.astype(np.float64) * weight / total
            clipped = max(clipped, clipped_fraction(result, **share))
        if not exact:
            whole = {"participants": members, "total_weight": total, "max_weight": heaviest}
            mean = average(split_sums(sums, form), **whole, form=form, rotation=rotation)
        base = assemble(layout_of(base), next_model(flatten(base), mean))
        accuracies.append(evaluate(task, base, task.test_data())["accuracy"])
        target = charter.run.target or 2.0
        votes.append(sum(evaluate(task, base, d.validation)["accuracy"] >= target for d in datas))
    return Played(accuracies, votes, base, clipped)


def play_baselines(name: str, members: int, *, rounds: int) -> tuple[float, list[float]]:
    """The accuracy of central training and of each member alone, for as many epochs as the federation's rounds have."""
    charter, task = open_federation(name)
    seed, epochs = charter.run.seed, rounds * charter.algorithm.local_epochs
    datas = [local_data_of(task, i, members, seed) for i in range(members)]
    start = genesis(task, seed)
    each = [alone(task, start, charter.algorithm, data, epochs, seed)["accuracy"] for data in datas]
    return centralised(task, start, charter.algorithm, datas, epochs, seed)["accuracy"], each


@pytest.mark.parametrize(
    ("name", "rounds", "ahead_of_alone", "behind_central"), [("digits", 4, 0.1, 0.03), ("hospitals", 6, 0.05, 0.02)]
)
def test_five_members_together_beat_each_alone_and_come_near_central_training(
    name: str, rounds: int, ahead_of_alone: float, behind_central: float
) -> None:
    played = play(name, 5, rounds=rounds)
    central, each = play_baselines(name, 5, rounds=rounds)
    print(f"{name}: federated {played.rounds}, central {central}, alone {each}")
    assert played.rounds[-1] >= max(each) + ahead_of_alone
    assert played.rounds[-1] >= central - behind_central
    # At most 3 values in 100,000 are cut, and rounding costs nothing that can be seen.
    assert played.most_clipped < 3e-5
    assert abs(play(name, 5, rounds=2, exact=True).rounds[1] - played.rounds[1]) <= 0.012
    if name == "digits":
        assert played.votes[-1] >= 3, "a majority votes to stop after round 4"
        assert max(played.votes[:2]) < 3


def test_a_run_gives_the_same_model_in_another_process() -> None:
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('learning', {str(Path(__file__))!r})\n"
        "module = importlib.util.module_from_spec(spec); sys.modules['learning'] = module\n"
        "spec.loader.exec_module(module)\n"
        "print(module.model_digest(module.play('hospitals', 3, rounds=1).model).hex())\n"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == model_digest(play("hospitals", 3, rounds=1).model).hex()
