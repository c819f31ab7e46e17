"""The template's folder in a real demonstration, which ends with the very model that the run in memory gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from itertools import product
from operator import mul
from pathlib import Path

from fedchain.cli.new import make_folder
from fedchain.crypto import OPENING_BYTES, aggregate_size, ciphertext_size, result_size, shares_size
from fedchain.lab.run import federate, with_invented_members
from fedchain.learn import first_model, load_task
from fedchain.protocol.charter import read_charter
from fedchain.protocol.outer import update_size_of
from fedchain.protocol.update_format import model_size_of

MEMBERS, ROUNDS = 3, 2
MASK = "update.mask=0.4"
"""Each round sends another part: real peers and the run in memory must draw the same one."""


def test_a_new_folder_runs_in_a_demonstration_and_in_memory_with_one_model(tmp_path: Path) -> None:
    folder, figures = tmp_path / "wines", tmp_path / "figures.json"
    make_folder(folder, "wines")
    command = [sys.executable, "-m", "fedchain.cli.main", "demo", "--federation", str(folder), "--peers", str(MEMBERS)]
    command += ["--rounds", str(ROUNDS), "--seed", "5", "--set", MASK]
    command += ["--workdir", str(tmp_path / "demo"), "--json", str(figures)]
    environment = os.environ | {"COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    real = json.loads(figures.read_text(encoding="utf-8"))
    assert real["verdict"] == "ok" and real["totals"]["rounds"] == ROUNDS
    settings = [f"run.rounds={ROUNDS}", "run.seed=5", MASK]
    charter = with_invented_members(read_charter(folder).with_settings(settings), MEMBERS)
    task = load_task(folder / "task.py", charter.task_sha256)
    run = federate(charter, task)
    assert run.state.model_digest.hex() == real["model_digest"]
    model = first_model(task, charter)
    sizes = Sizes(model_size_of(charter, update_size_of(model, charter)), len(model), charter.threshold)
    in_memory = sum(entry["upload_bytes"] for meter in run.meters for entry in meter)
    assert in_memory == sizes.of_a_run(openings=MEMBERS * ROUNDS), "in memory, one at a time, everybody opens"
    extra = real["totals"]["upload_bytes"] - sizes.of_a_run(openings=sizes.threshold * ROUNDS)
    assert extra in sizes.of_haste(), "what is stored beyond what the rounds need is whole objects of those in a hurry"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What members store, in bytes, by the charter alone: its modelSize, the length of its model, its threshold."""

    d: int
    model: int
    threshold: int

    def of_a_run(self, *, openings: int) -> int:
        """Every round: each member's upload, a sum, a result and its model; and so many openings in all."""
        uploads = MEMBERS * (ciphertext_size(self.d) + shares_size(MEMBERS, self.threshold))
        return ROUNDS * (uploads + aggregate_size(self.d) + result_size(self.d) + self.model) + openings * OPENING_BYTES

    def of_haste(self) -> set[int]:
        """What peers may store in vain, who act at once: one more opening a round, a sum or a result with its model by
        each that did not see another's yet, and a model by each that could not pin it yet."""
        others = ROUNDS * (MEMBERS - 1) + 1
        times = product(
            range(ROUNDS * (MEMBERS - self.threshold) + 1), range(others), range(others), range(others + ROUNDS)
        )
        whole = (OPENING_BYTES, aggregate_size(self.d), result_size(self.d) + self.model, self.model)
        return {sum(map(mul, counts, whole)) for counts in times}
