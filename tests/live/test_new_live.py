"""The template's folder in a real demonstration, which ends with the very model that the run in memory gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fedchain.cli.new import make_folder
from fedchain.lab.run import federate, with_invented_members
from fedchain.learn import load_task
from fedchain.protocol.charter import read_charter

MASK = "update.mask=0.4"
"""Each round sends another part: real peers and the run in memory must draw the same one."""


def test_a_new_folder_runs_in_a_demonstration_and_in_memory_with_one_model(tmp_path: Path) -> None:
    folder, figures = tmp_path / "wines", tmp_path / "figures.json"
    make_folder(folder, "wines")
    command = [sys.executable, "-m", "fedchain.cli.main", "demo", "--federation", str(folder), "--peers", "3"]
    command += ["--rounds", "2", "--seed", "5", "--set", MASK]
    command += ["--workdir", str(tmp_path / "demo"), "--json", str(figures)]
    environment = os.environ | {"COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    real = json.loads(figures.read_text(encoding="utf-8"))
    assert real["verdict"] == "ok" and real["totals"]["rounds"] == 2
    charter = with_invented_members(read_charter(folder).with_settings(["run.rounds=2", "run.seed=5", MASK]), 3)
    run = federate(charter, load_task(folder / "task.py", charter.task_sha256))
    assert run.state.model_digest.hex() == real["model_digest"]
    up = sum(entry["upload_bytes"] for meter in run.meters for entry in meter)
    # Real peers act at once: one more may open or close a round before it sees that nobody needs it any more.
    assert 0.75 < up / real["totals"]["upload_bytes"] < 1.1, "the bytes are those of a real store"
