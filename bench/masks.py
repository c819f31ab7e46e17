"""What a mask saves and what it costs: `python bench/masks.py`.

The federations of peers/digits and peers/hospitals, five members and the rounds of their charters, in memory through
the functions that peers call (`fedchain.peer.simulation`), with `update.mask` 1, 0.5, 0.25 and 0.1: the bytes of one
member's upload in a round, ciphertext and shares, and the metric on the test data, the mean of the last rounds. All
train from the same seeds; what differs is which part of each update is sent.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from fedchain.crypto import ciphertext_size, shares_size
from fedchain.learn import evaluate, first_model, load_task
from fedchain.peer.simulation import simulate
from fedchain.protocol.charter import read_charter
from fedchain.protocol.model import layout_of
from fedchain.protocol.outer import model_layout
from fedchain.protocol.update_format import model_size_of

ROOT = Path(__file__).parents[1]
FEDERATIONS: tuple[tuple[str, list[str]], ...] = (
    ("digits", []),
    ("digits", ["outer.optimizer=fedavgm"]),
    ("hospitals", []),
)
MEMBERS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=float, nargs="+", default=[1.0, 0.5, 0.25, 0.1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--last", type=int, default=3, help="the metric is the mean of so many last rounds")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out" / "masks.json")
    options = parser.parse_args()
    rows = []
    for folder, settings in FEDERATIONS:
        for mask in options.masks:
            rows.append(measure(folder, settings, mask, options.seeds, options.last))
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps({"rows": rows, "last": options.last}, indent=2) + "\n", encoding="utf-8")
    Console().print(table_of(rows))


def measure(folder: str, settings: list[str], mask: float, seeds: list[int], last: int) -> dict[str, Any]:
    """One federation with one mask: bytes, and each seed's metric after every round."""
    began, played = perf_counter(), []
    for seed in seeds:
        charter = read_charter(ROOT / "peers" / folder)
        charter = charter.with_settings([*settings, f"update.mask={mask}", f"run.seed={seed}"])
        task = load_task(ROOT / "peers" / folder / charter.federation.task, charter.task_sha256)
        base, test = first_model(task, charter), task.test_data()
        rounds = simulate(charter, task, members=MEMBERS, base=base)
        played.append([evaluate(task, done.model, test)[task.metric] for done in rounds])
    size = model_layout(layout_of(base)).size
    ciphertext = ciphertext_size(model_size_of(charter, size))
    return {
        "federation": " ".join([folder, *settings]),
        "mask": mask,
        "parameters": size,
        "upload_bytes": ciphertext + shares_size(MEMBERS, MEMBERS // 2 + 1),
        "bytes_per_parameter": ciphertext / size,
        "metric": task.metric,
        "reached": [statistics.fmean(one[-last:]) for one in played],
        "rounds": played,
        "seeds": seeds,
        "seconds": round(perf_counter() - began),
    }


def table_of(rows: list[dict[str, Any]]) -> Table:
    """The table that docs/learning.md shows."""
    table = Table(title=f"updates masked, {MEMBERS} members")
    for heading in ("federation", "mask", "upload", "bytes a parameter", "reached", "by seed"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["federation"],
            f"{row['mask']:g}",
            f"{row['upload_bytes']:,}",
            f"{row['bytes_per_parameter']:.2f}",
            f"{statistics.fmean(row['reached']):.4f}",
            " ".join(f"{value:.4f}" for value in row["reached"]),
        )
    return table


if __name__ == "__main__":
    main()
