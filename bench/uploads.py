"""What an upload costs and what rounding costs, by bits and members: `python bench/uploads.py`.

    bytes      what a member stores a round, for a parameter of a model of 1,000,000: the ciphertext, and with the
               sealed shares of its key (which take so many bytes whatever the model's size)
    accuracy   of peers/digits on test images, the mean of the last rounds and of several seeds, against the same
               federation whose updates are summed as floats. The updates go through the protocol's own functions:
               weighted, rotated, clipped, rounded, joined into coefficients, summed, split and averaged. Only the
               encryption is left out, which changes no bit of the sum

Of digits' 1,797 images half are trained on and half are tested on here, so that a tenth of a point is one image. The
same members train from the same seeds in every row; what differs is how their updates are written.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import TensorDataset

from fedchain.crypto import ciphertext_size, shares_size
from fedchain.learn import LocalData, Task, evaluate, genesis, load_task, train_locally
from fedchain.learn.splits import dirichlet
from fedchain.protocol.arithmetic import average, clipped_fraction, next_model, quantise
from fedchain.protocol.charter import Charter, Federation, Update, read_charter
from fedchain.protocol.model import assemble, flatten, layout_of, model_digest
from fedchain.protocol.rotation import rotation_seed
from fedchain.protocol.seeds import seed_for
from fedchain.protocol.update_format import join_values, split_sums, update_format

Bits = int | Literal["auto"]

DIGITS = Path(__file__).parents[1] / "peers" / "digits"
MILLION = 1_000_000
ALL_BITS: tuple[Bits, ...] = (2, 3, 4, 5, 6, 8, 10, 12, 16, "auto")
ALL_MEMBERS = (3, 5, 8, 16, 32, 64)
CLIP_PLAIN, CLIP_ROTATED = 0.5, 0.12
"""Five standard deviations of the heaviest member's first update, rotated; not rotated, what hardly a value exceeds."""

GOAL_BYTES, GOAL_POINTS, GOAL_MEMBERS = 1.3, 0.3, 16


@dataclass(frozen=True, slots=True)
class Row:
    """One way of writing updates; `bits` None: as floats."""

    bits: Bits | None
    rotate: bool = False

    @property
    def label(self) -> str:
        if self.bits is None:
            return "float64 sums"
        return f"{self.bits}{' bits' if self.bits != 'auto' else ''}{', rotated' if self.rotate else ''}"

    def charter(self, members_max: int) -> Charter:
        """A charter that writes updates so, with room for so many members."""
        written = Update(
            bits=self.bits or 16,
            rotate=self.rotate,
            clip_value=CLIP_ROTATED if self.rotate else CLIP_PLAIN,
            members_max=members_max,
        )
        return Charter(federation=Federation(name="uploads"), update=written)


ROWS = (
    Row(None),
    *(Row(bits) for bits in (16, 8, 4, 2)),
    *(Row(bits, rotate=True) for bits in (8, 4, 3, 2, "auto")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="bytes and accuracy of uploads, by bits and members")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--last", type=int, default=3, help="accuracy is the mean of so many last rounds")
    parser.add_argument("--members", type=int, nargs="+", default=[5, GOAL_MEMBERS])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "uploads.json")
    options = parser.parse_args()
    started = perf_counter()
    digits = read_charter(DIGITS)
    task = load_task(DIGITS / digits.federation.task, digits.task_sha256)
    sizes = [size_of(bits, members) for members in ALL_MEMBERS for bits in ALL_BITS]
    accuracies = []
    for members in options.members:
        reached: list[list[float]] = []
        for row in ROWS:
            played = [play(row, task, digits, members, seed, options.rounds) for seed in range(1, options.seeds + 1)]
            reached.append([float(np.mean(rounds[-options.last :])) for rounds, _ in played])
            apart = 100 * (np.array(reached[-1]) - np.array(reached[0]))
            accuracies.append(
                {
                    "members": members,
                    "written": row.label,
                    "bits": row.bits,
                    "rotate": row.rotate,
                    "accuracy": float(np.mean(reached[-1])),
                    "points_apart": float(apart.mean()),
                    "standard_error": float(apart.std(ddof=1) / np.sqrt(len(apart))) if len(apart) > 1 else None,
                    "most_clipped": max(clipped for _, clipped in played),
                    "bytes_per_parameter": size_of(row.bits, members)["bytes_per_parameter"] if row.bits else None,
                }
            )
    result = {
        "sizes": sizes,
        "accuracies": accuracies,
        "goal": f"auto: at most {GOAL_BYTES} bytes a parameter, {GOAL_POINTS} points, up to {GOAL_MEMBERS} members",
        "met": goal_met(sizes, accuracies),
        "seeds": options.seeds,
        "rounds": options.rounds,
        "last": options.last,
        "clip_value": {"plain": CLIP_PLAIN, "rotated": CLIP_ROTATED},
        "seconds": perf_counter() - started,
        "numpy": np.__version__,
        "torch": torch.__version__,
    }
    report(sizes, accuracies)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def size_of(bits: Bits | None, members: int) -> dict[str, float | int | str | None]:
    """What uploads take with room for so many members, and as many shareholders."""
    form = update_format(Row(bits).charter(members), MILLION)
    ciphertext, shares = ciphertext_size(form.model_size), shares_size(members, members // 2 + 1)
    return {
        "bits": bits,
        "members": members,
        "values_a_coefficient": form.fields,
        "steps_to_either_side": form.steps,
        "bytes_per_parameter": ciphertext / MILLION,
        "shares_bytes": shares,
        "upload_bytes_per_parameter": (ciphertext + shares) / MILLION,
    }


def goal_met(sizes: list[dict[str, float | int | str | None]], accuracies: list[dict[str, object]]) -> bool:
    """Whether "auto" is as small, and "auto, rotated" as near to floats, as is claimed."""
    small = [
        float(str(size["upload_bytes_per_parameter"])) <= GOAL_BYTES
        for size in sizes
        if size["bits"] == "auto" and int(str(size["members"])) <= GOAL_MEMBERS
    ]
    near = [float(str(row["points_apart"])) >= -GOAL_POINTS for row in accuracies if row["bits"] == "auto"]
    return all(small) and all(near)


def play(row: Row, task: Task, digits: Charter, members: int, seed: int, rounds: int) -> tuple[list[float], float]:
    """Accuracy after each round of one federation, and the largest part of an update that was clipped."""
    datas, test = split(members, seed)
    weights = [len(data.train) for data in datas]
    heaviest, total = max(weights), sum(weights)
    base = genesis(task, seed)
    layout = layout_of(base)
    form = update_format(row.charter(members), layout.size)
    accuracies, clipped = [], 0.0
    for round in range(1, rounds + 1):
        rotation = rotation_seed(round, 0, model_digest(base))
        written = {"max_weight": heaviest, "form": form, "rotation": rotation}
        sums, mean = np.zeros(form.coefficients, dtype=np.uint64), np.zeros(layout.size)
        for i, update in enumerate(updates(task, digits, base, datas, seed, round)):
            if row.bits is None:
                mean += update.astype(np.float64) * (weights[i] / total)
                continue
            rounding = np.random.default_rng(seed_for("rounding", seed, member=i, round=round))
            values = quantise(update, weight=weights[i], random=rounding, **written)  # type: ignore[arg-type]
            clipped = max(clipped, clipped_fraction(update, weight=weights[i], **written))  # type: ignore[arg-type]
            sums += join_values(values, form)
        if row.bits is not None:
            values = split_sums(sums, form)
            mean = average(values, participants=members, total_weight=total, **written)  # type: ignore[arg-type]
        base = assemble(layout, next_model(flatten(base), mean))
        accuracies.append(evaluate(task, base, test)["accuracy"])
    return accuracies, clipped


def updates(
    task: Task, digits: Charter, base: bytes, datas: list[LocalData], seed: int, round: int
) -> list[NDArray[np.float32]]:
    """Every member's update, (d,) float32."""
    return [
        train_locally(task, base, digits.algorithm, data, seed_for("training", seed, member=i, round=round)).update
        for i, data in enumerate(datas)
    ]


def split(members: int, seed: int) -> tuple[list[LocalData], TensorDataset]:
    """Half of the images, dealt out as in peers/digits (Dirichlet 0.3 over labels); the other half is for testing."""
    pixels, labels = load_digits(return_X_y=True)
    inputs, truth = torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.5, random_state=0, stratify=labels)
    parts = dirichlet(labels[train], members, alpha=0.3, seed=seed, least=len(train) // (2 * members))
    own = [TensorDataset(inputs[train[rows]], truth[train[rows]]) for rows in parts]
    return [LocalData(train=data, validation=data) for data in own], TensorDataset(inputs[test], truth[test])


def report(sizes: list[dict[str, float | int | str | None]], accuracies: list[dict[str, object]]) -> None:
    """Both tables, on the terminal."""
    console = Console()
    table = Table(
        title="bytes a parameter, by the members that a sum has room for (ciphertext of 1,000,000 parameters)"
    )
    table.add_column("bits")
    for members in ALL_MEMBERS:
        table.add_column(str(members), justify="right")
    for bits in ALL_BITS:
        cells = [
            f"{s['bytes_per_parameter']:.2f}"
            for m in ALL_MEMBERS
            for s in sizes
            if (s["bits"], s["members"]) == (bits, m)
        ]
        table.add_row(str(bits), *cells)
    console.print(table)
    table = Table(title="accuracy on test images")
    for heading in ("members", "updates written in", "bytes a parameter", "accuracy", "points apart", "clipped"):
        table.add_column(heading, justify="right")
    for row in accuracies:
        size, error = row["bytes_per_parameter"], row["standard_error"]
        table.add_row(
            str(row["members"]),
            str(row["written"]),
            f"{size:.2f}" if size is not None else "",
            f"{row['accuracy']:.4f}",
            f"{row['points_apart']:+.2f}" + (f" ± {error:.2f}" if error is not None else ""),
            f"{row['most_clipped']:.5f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
