"""What a federation's folder reaches: `python bench/tasks.py peers/parking --members 30 --tune 20`.

The charter's run in memory (`fedchain.peer.simulation`: the training, integers, sums and steps of a real one), beside
the same model trained on all data in one place and by each member alone, all as often through their data, and beside
each member's own fine-tuning of the final model. These are the figures in the README of each folder in peers/.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

from fedchain.errors import FedchainError
from fedchain.learn import (
    Examples,
    Task,
    evaluate,
    fine_tune,
    first_model,
    load_task,
    local_data_of,
    pooled,
    read_start,
)
from fedchain.learn.baselines import plainly_trained
from fedchain.learn.training import metrics_of, reproducible
from fedchain.peer.simulation import simulate
from fedchain.protocol.charter import read_charter
from fedchain.protocol.model import flatten, layout_of
from fedchain.protocol.outer import model_layout


def measure(folder: Path, options: argparse.Namespace, seed: int) -> None:
    charter = read_charter(folder).with_settings([f"run.seed={seed}", *options.set])
    task = load_task(folder / charter.federation.task, charter.task_sha256)
    algorithm, members, metric = charter.algorithm, options.members, task.metric
    datas = [local_data_of(task, i, members, seed) for i in range(members)]
    test, own = task.test_data(), [data.validation for data in datas]
    base = first_model(task, charter, read_start(folder, charter, task))
    print(f"{task.name}, seed {seed}, {members} members, training examples {[len(data.train) for data in datas]}")
    print(f"  before the first round: {metric} {evaluate(task, base, test)[metric]:.4f} on the test data")

    def by_member(models: list[bytes] | None, model: bytes = b"") -> str:
        each = [evaluate(task, models[i] if models else model, part)[metric] for i, part in enumerate(own)]
        return f"{statistics.fmean(each):.4f} on each one's own held-out data (worst {_worst(each, task):.4f})"

    model, rounds = base, 0
    for done in simulate(charter, task, members=members, base=base):
        if done.round == 1:
            _say_change(base, done.model)
        model, rounds = done.model, done.round
        print(f"  round {rounds}: {evaluate(task, model, test)[metric]:.4f}", flush=True)
    print(f"  federated: {evaluate(task, model, test)[metric]:.4f} on the test data, {by_member(None, model)}")
    epochs = rounds * algorithm.local_epochs

    def plain(examples: Examples, times: int) -> tuple[torch.nn.Module, float]:
        trained = plainly_trained(task, base, algorithm, examples, times, seed)
        with reproducible(0):
            return trained, metrics_of(task, trained, test)[metric]

    if options.tune:
        tuned = [
            fine_tune(task, model, algorithm, data, seed, epochs=options.tune, kept=done.kept[i])
            for i, data in enumerate(datas)
        ]
        print(f"  tuned by each for {options.tune} epochs: {by_member(tuned)}")
    together, central = plain(pooled([data.train for data in datas]), epochs)
    each, alone = [], []
    for data in datas:
        trained, on_test = plain(data.train, epochs + options.tune)
        alone.append(on_test)
        with reproducible(0):
            each.append(metrics_of(task, trained, data.validation)[metric])
    with reproducible(0):
        theirs = [metrics_of(task, together, part)[metric] for part in own]
    print(f"  centralised, {epochs} epochs: {central:.4f}, {statistics.fmean(theirs):.4f} on own held-out data")
    print(
        f"  each alone, {epochs + options.tune} epochs: {statistics.fmean(alone):.4f} (best {_best(alone, task):.4f})"
    )
    print(f"    {statistics.fmean(each):.4f} on each one's own held-out data (worst {_worst(each, task):.4f})")
    if options.tune:
        after = [evaluate(task, own_model, part)[metric] for own_model, part in zip(tuned, own, strict=True)]
        better = sum(a > b if task.higher_is_better else a < b for a, b in zip(after, each, strict=True))
        print(f"  tuning beats being alone for {better} of {members} members")


def _say_change(base: bytes, after: bytes) -> None:
    size = model_layout(layout_of(base)).size
    change = flatten(after)[:size] - flatten(base)[:size]
    print(f"  a weight's usual change in round 1: {float(np.sqrt(np.mean(change**2))):.4f}")


def _worst(values: list[float], task: Task) -> float:
    return min(values) if task.higher_is_better else max(values)


def _best(values: list[float], task: Task) -> float:
    return max(values) if task.higher_is_better else min(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--tune", type=int, default=0, metavar="EPOCHS", help="fine-tune for each member afterwards")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="entries of the charter to override")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        for seed in options.seeds:
            measure(options.folder, options, seed)
    except FedchainError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
