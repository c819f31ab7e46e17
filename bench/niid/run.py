"""NIID-Bench (arXiv:2102.02079) through this protocol's arithmetic: `python bench/niid/run.py --set breast-cancer`.

Ten silos, ten local epochs of batch 64, fifty rounds, in memory through `fedchain.peer.simulation`: real training, the
integers that would be encrypted, exact sums, the step that every peer takes. Every finished setting is one JSON line in
bench/out/niid.jsonl; one that was broken off, also by kill -9, goes on after its last whole round. The table that it
ends with shows ours beside what was published.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from partitions import PARTITIONS
from silos import ROOT, SETS, Rows, Silos, read_set

from fedchain.errors import FedchainError
from fedchain.learn import evaluate
from fedchain.peer.simulation import simulate
from fedchain.protocol.charter import Charter, Federation

OUT = ROOT / "bench" / "out"
ALGORITHMS: dict[str, list[str]] = {
    "fedavg": [],
    "fedprox": ["algorithm.name=fedprox", "algorithm.mu=0.01"],
    "scaffold": ["algorithm.name=scaffold"],
    "fednova": ["algorithm.name=fednova"],
    "fedavgm": ["outer.optimizer=fedavgm"],
}
STEPPED = ("scaffold", "fednova")
"""Those that the charter tells about how many local steps there are."""

PUBLISHED: dict[tuple[str, str, str], float] = {
    ("fmnist", partition, algorithm): percent
    for partition, row in {
        "iid": (89.0, 89.5, 89.5, 89.3),
        "dirichlet": (88.4, 88.6, 88.4, 88.1),
        "labels1": (10.0, 38.0, 10.0, 11.1),
        "labels2": (81.0, 78.8, 10.0, 70.5),
        "labels3": (83.2, 82.5, 84.2, 83.2),
    }.items()
    for algorithm, percent in zip(("fedavg", "fedprox", "scaffold", "fednova"), row, strict=True)
} | {
    ("mnist", partition, algorithm): percent
    for partition, row in {
        "iid": (99.1, 99.2, 99.2, 99.0),
        "dirichlet": (98.9, 99.0, 99.0, 98.8),
        "labels1": (10.0, 81.3, 10.0, 55.1),
        "labels2": (96.6, 96.7, 96.6, 96.5),
        "labels3": (98.2, 97.8, 97.8, 97.7),
    }.items()
    for algorithm, percent in zip(("fedavg", "fedprox", "scaffold", "fednova"), row, strict=True)
}
"""Best round of 50, in percent: Flower's independent reproduction (github.com/adap/flower, baselines/niid_bench)."""


def play(name: str, options: argparse.Namespace, rows: Rows, partition: str, algorithm: str, seed: int) -> None:
    """One setting, from where it stopped; every round is kept before the next begins."""
    task = Silos(rows, partition, options.silos, seed)
    settings = list(ALGORITHMS[algorithm])
    if algorithm in STEPPED:
        even = len(rows.train[1]) // options.silos
        settings.append(f"algorithm.effective_steps={options.epochs * -(-even // 64)}")
    charter = Charter(federation=Federation(name="niid")).with_settings(
        [
            *(f"run.rounds={options.rounds}", f"run.seed={seed}"),
            *(f"algorithm.local_epochs={options.epochs}", "algorithm.batch_size=64"),
            *("update.bits=16", "update.rotate=false", "update.clip_value=1.0", *settings, *options.charter),
        ]
    )
    state = OUT / "niid" / f"{name}.npz"
    state.parent.mkdir(parents=True, exist_ok=True)
    accuracies, seconds, rest = _resumed(state, options.silos)
    began = time.monotonic() - seconds
    for done in simulate(charter, task, members=options.silos, rounds=options.rounds, **rest):
        accuracies.append(round(evaluate(task, done.model, task.test_data())["accuracy"], 4))
        blobs = {"model": done.model, **{f"kept{i}": own for i, own in enumerate(done.kept) if own is not None}}
        part = state.with_suffix(".part.npz")
        np.savez(
            part,
            accuracies=np.array(accuracies),
            seconds=np.array(time.monotonic() - began),
            **{key: np.frombuffer(blob, np.uint8) for key, blob in blobs.items()},
        )
        part.replace(state)
        print(
            f"{name}: round {done.round}, accuracy {accuracies[-1]:.4f}, {time.monotonic() - began:.0f} s", flush=True
        )
    entry = {
        "set": options.set,
        "partition": partition,
        "algorithm": algorithm,
        "seed": seed,
        "silos": options.silos,
        "epochs": options.epochs,
        "rounds": options.rounds,
        "charter": options.charter,
        "sizes": [len(part) for part in task.parts],
        "accuracies": accuracies,
        "best": max(accuracies),
        "last": accuracies[-1],
        "seconds": round(time.monotonic() - began),
    }
    with (OUT / "niid.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    state.unlink(missing_ok=True)


def _resumed(state: Path, silos: int) -> tuple[list[float], float, dict[str, Any]]:
    """Accuracies and seconds so far, and what `simulate` needs to go on."""
    if not state.exists():
        return [], 0.0, {}
    with np.load(state, allow_pickle=False) as file:
        found = {key: file[key] for key in file.files}
    accuracies = [float(a) for a in found["accuracies"]]
    kept = [found[f"kept{i}"].tobytes() if f"kept{i}" in found else None for i in range(silos)]
    return (
        accuracies,
        float(found["seconds"]),
        {"base": found["model"].tobytes(), "kept": kept, "first": len(accuracies) + 1},
    )


def finished() -> list[dict[str, Any]]:
    """The settings that are done; a line that was cut short is left out."""
    entries = []
    if (OUT / "niid.jsonl").exists():
        for line in (OUT / "niid.jsonl").read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                print(f"passed over a broken line: {line[:60]}", file=sys.stderr)
    return entries


def table(entries: list[dict[str, Any]]) -> str:
    """Ours beside the published: mean over seeds of the best round and of the last."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for entry in entries:
        key = tuple(entry[k] for k in ("set", "partition", "algorithm", "rounds", "epochs"))
        groups.setdefault((*key, *entry["charter"]), []).append(entry)
    lines = ["| set | partition | algorithm | rounds | best | last | seeds | published |", "|" + "---|" * 8]
    for (set_, partition, algorithm, rounds, _, *more), runs in sorted(groups.items(), key=str):
        best, last = (100 * sum(run[k] for run in runs) / len(runs) for k in ("best", "last"))
        published = PUBLISHED.get((set_, partition, algorithm))
        lines.append(
            f"| {set_} | {partition} | {' '.join((algorithm, *more))} | {rounds} | {best:.1f} | {last:.1f} "
            f"| {len(runs)} | {published if published is not None else '–'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, required=True)
    parser.add_argument("--data", type=Path, help="the folder with the set's files, where it is not bundled")
    parser.add_argument("--partitions", nargs="+", choices=list(PARTITIONS), default=list(PARTITIONS))
    parser.add_argument("--algorithms", nargs="+", choices=list(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--silos", type=int, default=10)
    parser.add_argument("--charter", nargs="+", default=[], metavar="KEY=VALUE", help="entries to override")
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        rows = read_set(options.set, options.data)
        for seed in options.seeds:
            for partition in options.partitions:
                for algorithm in options.algorithms:
                    wanted = {"set": options.set, "partition": partition, "algorithm": algorithm, "seed": seed}
                    wanted |= {key: getattr(options, key) for key in ("silos", "epochs", "rounds", "charter")}
                    if any(all(entry[key] == value for key, value in wanted.items()) for entry in finished()):
                        continue
                    parts = [str(part) for part in wanted.values() if part != []]
                    name = "".join(c if c.isalnum() or c in "-._=" else "+" for c in "-".join(parts))
                    play(name, options, rows, partition, algorithm, seed)
    except FedchainError as error:
        sys.exit(f"error: {error}")
    print(table(finished()))


if __name__ == "__main__":
    main()
