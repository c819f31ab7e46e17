"""What privacy costs in accuracy, by mode and ε: `python bench/privacy.py` (about ten minutes of one core).

Real data that scikit-learn brings along (breast cancer: the `hospitals` federation; digits: an MLP 64-32-10), divided
among members. Everything goes through the federation's own functions: gradients cut and rounded, Skellam noise, integer
sums, the decoder's average, the outer step. Encryption adds and takes away nothing, so it is left out.

    no noise   records drawn and cut as below, and no noise: what clipping and sampling alone cost
    in the sum mode "records" as by default: the noise of t−1 members may be taken off, and ε still holds
    colluders 0   the same, where no member tells another its noise
    local      local DP-SGD: every member adds all of the noise to its own sum, as it must where sums are not encrypted
    clients    mode "clients": whole members are hidden, a few rounds of FedAvg

ε counts the whole run, δ = 1e-5. Accuracies are on the test data after the last round, the mean over seeds. Noise comes
from the operating system, so no two runs are alike.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import TensorDataset

from fedchain.learn import LocalData, Task, evaluate, first_model, load_task, local_data_of, private_gradient
from fedchain.peer.contribution import with_own_noise
from fedchain.peer.simulation import simulate
from fedchain.protocol.arithmetic import average
from fedchain.protocol.charter import Charter, Federation, read_charter
from fedchain.protocol.ids import Address
from fedchain.protocol.noising import noise_of, reach_of, variance_of
from fedchain.protocol.outer import following_model, update_size_of
from fedchain.protocol.privacy import plan_of
from fedchain.protocol.update_format import update_format

ROOT = Path(__file__).parents[1]
DELTA = 1e-5


class Digits(Task):
    """8 × 8 digits, dealt out at random: 2,410 parameters."""

    name = "digits"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        (inputs, labels), _ = _images()
        order = np.random.default_rng(seed).permutation(len(labels))
        rows = torch.from_numpy(order[index::members].copy())
        part = TensorDataset(inputs[rows], labels[rows])
        return LocalData(train=part, validation=part)

    def test_data(self) -> TensorDataset:
        return TensorDataset(*_images()[1])


def _images() -> Any:
    pixels, digits = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(digits)
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=digits)
    return (inputs[train], labels[train]), (inputs[test], labels[test])


def hospitals() -> Task:
    charter = read_charter(ROOT / "peers" / "hospitals")
    return load_task(ROOT / "peers" / "hospitals" / charter.federation.task, charter.task_sha256)


TASKS: dict[str, tuple[Callable[[], Task], int, float]] = {
    "breast cancer": (hospitals, 50, 0.15),
    "digits": (Digits, 60, 0.5),
}
"""By name: the task; the rounds and the outer learning rate of mode "records", the same for every ε and arm."""


def charter_of(members: int, seed: int, outer: dict[str, Any], rounds: int, **sections: dict[str, Any]) -> Charter:
    """A charter with invented members."""
    named = Federation(name="bench", members=tuple(Address(f"0x{i + 1:040x}") for i in range(members)))
    entries = {"federation": named, "run": {"rounds": rounds, "seed": seed}, "outer": outer}
    return Charter.model_validate({**entries, "update": {"bits": "auto", "rotate": True}, **sections})


def records(task: Task, charter: Charter, *, shared_out: bool = True, noisy: bool = True) -> float:
    """Accuracy after all rounds; where the noise is not `shared_out` it is local DP-SGD."""
    plan, seed, members = plan_of(charter), charter.run.seed, len(charter.federation.members)
    assert plan is not None
    base = first_model(task, charter)
    form = update_format(charter, update_size_of(base, charter))
    if not shared_out or not noisy:
        noise = noise_of(charter, form.values)
        assert noise is not None
        variance = variance_of(plan.multiplier, noise.units, 1)
        # Nothing is encrypted here, so that values may be as large as they are.
        form = replace(form, steps=2**40, noise=replace(noise, variance=variance, reach=reach_of(variance)))
    datas = [local_data_of(task, i, members, seed) for i in range(members)]
    weights = [len(data.train) for data in datas]
    for round in range(charter.run.rounds):
        rotation = hashlib.sha256(f"{seed} {round}".encode()).digest()
        sums = np.zeros(form.values, dtype=np.int64)
        for data in datas:
            step = private_gradient(task, base, data, rate=charter.privacy.sampling_rate, form=form, rotation=rotation)
            sums += with_own_noise(step.units, form) if noisy else step.units + form.steps
        weight = {"participants": members, "total_weight": sum(weights), "max_weight": max(weights)}
        change = average(sums, form=form, rotation=rotation, **weight)
        base = following_model(base, change, charter=charter, weight=1, of_weight=1)
    return float(evaluate(task, base, task.test_data())["accuracy"])


def clients(task: Task, members: int, epsilon: float, seed: int) -> float:
    """Accuracy of mode "clients" after twenty rounds of FedAvg."""
    privacy = {"mode": "clients", "epsilon": epsilon, "delta": DELTA, "clip": 1.0}
    algorithm = {"local_epochs": 3, "batch_size": 32}
    charter = charter_of(members, seed, {"optimizer": "none"}, 20, privacy=privacy, algorithm=algorithm)
    *_, last = simulate(charter, task, members=members)
    return float(evaluate(task, last.model, task.test_data())["accuracy"])


def run(epsilons: list[float], seeds: int, rate: float) -> dict[str, Any]:
    """Every figure of the table, by task, arm and ε."""
    return {name: _figures(name, epsilons, seeds, rate) for name in TASKS}


def _figures(name: str, epsilons: list[float], seeds: int, rate: float) -> dict[str, Any]:
    make, rounds, learning_rate = TASKS[name]
    task, rows, console = make(), {}, Console(stderr=True)

    def arm(label: str, value: Callable[[int], float]) -> None:
        each = [value(seed) for seed in range(1, seeds + 1)]
        rows[label] = {"mean": mean(each), "spread": pstdev(each), "each": each}
        console.print(f"{name}: {label}: {mean(each):.3f} ± {pstdev(each):.3f}")

    def private(seed: int, epsilon: float, colluders: int | None) -> Charter:
        privacy = {"mode": "records", "epsilon": epsilon, "delta": DELTA, "clip": 1.0, "sampling_rate": rate}
        outer = {"optimizer": "fedavgm", "learning_rate": learning_rate}
        return charter_of(5, seed, outer, rounds, privacy={**privacy, "colluders": colluders})

    arm("no noise", lambda s: records(task, private(s, 8.0, None), noisy=False))
    for members in (5, 64) if name == "digits" else (5,):
        arm(f"clients of {members}, ε 8", lambda s, m=members: clients(task, m, 8.0, s))
    for epsilon in epsilons:
        arm(f"in the sum, ε {epsilon:g}", lambda s, e=epsilon: records(task, private(s, e, None)))
        arm(f"colluders 0, ε {epsilon:g}", lambda s, e=epsilon: records(task, private(s, e, 0)))
        arm(f"local, ε {epsilon:g}", lambda s, e=epsilon: records(task, private(s, e, None), shared_out=False))
    return rows


def show(found: dict[str, Any], epsilons: list[float]) -> None:
    table = Table("data", "mode", *(f"ε {e:g}" for e in epsilons), title="accuracy at δ 1e-5", title_justify="left")
    for name, rows in found.items():
        table.add_row(name, "no noise", *[f"{rows['no noise']['mean']:.3f}"] * len(epsilons))
        for mode in ("in the sum", "colluders 0", "local", "clients of 5", "clients of 64"):
            figures = [rows.get(f"{mode}, ε {e:g}") for e in epsilons]
            if any(figures):
                table.add_row("", mode, *(f"{f['mean']:.3f} ± {f['spread']:.3f}" if f else "" for f in figures))
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="ε against accuracy, by mode.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0.2, help="with which probability a record is in a round's sum")
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.5, 1.0, 2.0, 8.0])
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out" / "privacy.json")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = run(asked.epsilons, asked.seeds, asked.rate)
    settings = {"delta": DELTA, "sampling_rate": asked.rate, "members": 5, "seeds": asked.seeds}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({"settings": settings, "accuracy": found}, indent=1, ensure_ascii=False) + "\n")
    show(found, asked.epsilons)


if __name__ == "__main__":
    main()
