"""What the outer optimisers and adaptive local steps are worth on skewed data: `python bench/skew.py`.

The digits of peers/digits (1,797 real images), ten members, in memory through the very functions of the protocol
(`fedchain.peer.simulation`): real training, 16-bit integers, exact sums. Two questions. How well does each algorithm do
where members' labels differ? And, where machines differ in speed, what does it cost to wait for the slowest, to leave
it out, or to let each do what it can? Writes bench/out/skew.json and prints the tables of docs/learning.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from fedchain.learn import LocalData, Task, evaluate, load_task, local_data_of
from fedchain.learn.splits import dirichlet, shards
from fedchain.peer.simulation import simulate
from fedchain.protocol.charter import Charter, read_charter

ROOT = Path(__file__).parents[1]
MEMBERS = 10
SEEDS = (1, 2, 3)
ALGORITHMS: dict[str, list[str]] = {
    "FedAvg": [],
    "FedProx, mu 0.1": ["algorithm.name=fedprox", "algorithm.mu=0.1"],
    "FedNova": ["algorithm.name=fednova", "algorithm.effective_steps=20"],
    "SCAFFOLD": ["algorithm.name=scaffold", "algorithm.effective_steps=20"],
    "FedAvgM, beta 0.5": ["outer.optimizer=fedavgm"],
    "FedAdagrad, lr 0.03": ["outer.optimizer=fedadagrad", "outer.learning_rate=0.03"],
    "FedAdam, lr 0.01": ["outer.optimizer=fedadam"],
    "FedYogi, lr 0.01": ["outer.optimizer=fedyogi"],
    "SCAFFOLD and FedAvgM": [
        "algorithm.name=scaffold",
        "algorithm.effective_steps=20",
        "outer.optimizer=fedavgm",
    ],
    "FedAvgM, class-balanced sampling": ["outer.optimizer=fedavgm", "algorithm.sampling=class-balanced"],
    "FedAvgM, class-weighted loss": ["outer.optimizer=fedavgm", "algorithm.loss=class-weighted"],
}


class Skewed(Task):
    """The task of peers/digits with another split, and plain gradient descent as its optimizer."""

    name = "digits"

    def __init__(self, inner: Task, split: str) -> None:
        self._inner, self._split = inner, split
        self._module: Any = type(inner).__module__

    def model(self) -> torch.nn.Module:
        return self._inner.model()

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        import sys

        (inputs, labels), _ = sys.modules[self._module].images()
        if self._split == "two labels":
            rows = shards(labels, members, each=2, seed=seed)[index]
        else:
            rows = dirichlet(labels, members, alpha=0.1, seed=seed, least=20)[index]
        chosen = torch.from_numpy(rows)
        judged, trained = chosen[: len(rows) // 5], chosen[len(rows) // 5 :]
        return LocalData(
            train=torch.utils.data.TensorDataset(inputs[trained], labels[trained]),
            validation=torch.utils.data.TensorDataset(inputs[judged], labels[judged]),
        )

    def test_data(self) -> Any:
        return self._inner.test_data()


def played(charter: Charter, task: Task, **options: Any) -> dict[str, Any]:
    """The mean accuracy of the last three rounds, and what each member has of the last model on its own data."""
    accuracies, last = [], None
    for done in simulate(charter, task, members=MEMBERS, **options):
        accuracies.append(evaluate(task, done.model, task.test_data())["accuracy"])
        last = done
    assert last is not None
    own = [
        evaluate(task, last.model, local_data_of(task, i, MEMBERS, charter.run.seed).validation)["accuracy"]
        for i in range(MEMBERS)
    ]
    return {"accuracy": statistics.fmean(accuracies[-3:]), "worst": min(own), "steps": last.steps}


def over_seeds(charter: Charter, task: Task, settings: list[str], options: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds; `options` by seed."""
    runs = [played(charter.with_settings([*settings, f"run.seed={s}"]), task, **options[s]) for s in SEEDS]
    entry = {
        "accuracy": round(statistics.fmean(run["accuracy"] for run in runs), 3),
        "by_seed": [round(run["accuracy"], 3) for run in runs],
        "worst_member": round(statistics.fmean(run["worst"] for run in runs), 3),
        "steps": runs[0]["steps"],
    }
    print("  ", entry, flush=True)
    return entry


def compare_algorithms(charter: Charter, inner: Task, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for split in ("two labels", "dirichlet 0.1"):
        for name, settings in ALGORITHMS.items():
            print(split, name, flush=True)
            found.setdefault(split, {})[name] = over_seeds(
                charter, Skewed(inner, split), settings, {seed: {"rounds": rounds} for seed in SEEDS}
            )
    return found


def compare_steps(charter: Charter, inner: Task) -> dict[str, Any]:
    """The same pretended time for everybody: 30 units; the quickest member makes ten times the slowest's steps.

    "wait": five epochs for all, so that a round takes what the slowest needs. "drop": five epochs, and a deadline of
    one unit a round, which the slower ones never meet. "adaptive": one unit a round, and each does what it can.
    "normalised": the same, and FedNova takes the number of steps out (16 is about their mean).
    """
    task, epochs, units = Skewed(inner, "dirichlet 0.1"), 5, 30
    speeds = [4 * 10 ** (i / (MEMBERS - 1)) for i in range(MEMBERS)]  # steps in a unit of time: 4 to 40

    def needed(seed: int) -> list[float]:
        sizes = [len(local_data_of(task, i, MEMBERS, seed).train) for i in range(MEMBERS)]
        return [epochs * -(-size // 32) / speed for size, speed in zip(sizes, speeds, strict=True)]

    found: dict[str, Any] = {}
    fixed = [f"algorithm.local_epochs={epochs}"]
    adaptive = ["algorithm.local_steps=adaptive", "algorithm.budget_s=1.0", "algorithm.local_epochs=20"]
    normalised = [*adaptive, "algorithm.name=fednova", "algorithm.effective_steps=16"]
    for name, settings in (("FedAvg", []), ("FedAvgM", ["outer.optimizer=fedavgm"])):
        print("uneven machines:", name, flush=True)
        waits = {seed: {"rounds": max(1, int(units / max(needed(seed))))} for seed in SEEDS}
        late = {
            seed: {"rounds": units, "absent": [i for i, time_ in enumerate(needed(seed)) if time_ > 1]}
            for seed in SEEDS
        }
        does = {seed: {"rounds": units, "speeds": speeds} for seed in SEEDS}
        ways = (("wait", waits, fixed), ("drop", late, fixed), ("adaptive", does, adaptive))
        for way, options, how in (*ways, ("normalised", does, normalised)):
            found[f"{name}, {way}"] = over_seeds(charter, task, [*settings, *how], options)
            found[f"{name}, {way}"]["rounds"] = [options[seed]["rounds"] for seed in SEEDS]
            found[f"{name}, {way}"]["absent"] = [options[seed].get("absent", []) for seed in SEEDS]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--machines", action="store_true", help="only the comparison of uneven machines")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out" / "skew.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    charter = read_charter(ROOT / "peers" / "digits").with_settings(
        ["algorithm.local_epochs=5", "update.bits=16", "update.rotate=false", "update.clip_value=0.5"]
    )
    inner = load_task(ROOT / "peers" / "digits" / charter.federation.task, charter.task_sha256)
    began = time.monotonic()
    found: dict[str, Any] = {"algorithms": {}, "machines": compare_steps(charter, inner)}
    if not options.machines:
        found["algorithms"] = compare_algorithms(charter, inner, options.rounds)
    found["seconds"] = round(time.monotonic() - began)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for split, rows in [*found["algorithms"].items(), ("uneven machines", found["machines"])]:
        print(f"\n| {split} | accuracy | by seed | worst member |\n|---|---|---|---|")
        for name, row in rows.items():
            print(f"| {name} | {row['accuracy']:.3f} | {row['by_seed']} | {row['worst_member']:.3f} |")


if __name__ == "__main__":
    main()
