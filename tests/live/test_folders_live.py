"""peers/parking and peers/fashion on a real chain, as a user runs them, end with the model of the run in memory.

On made-up files of the same formats, or on the real ones where PARKING_DATA and FASHION_DATA name them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import write_parking, write_pictures

from fedchain.lab.run import federate, with_invented_members
from fedchain.learn import load_task
from fedchain.protocol.charter import read_charter

PEERS = Path(__file__).parents[2] / "peers"
SETTINGS = ["run.rounds=2", *(f"windows.{name}_s=600" for name in ("enrol", "training", "receipt", "aggregate"))]
"""Nobody may be late, on however slow a machine: who is in a sum decides on the model."""

MEMBERS = 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["parking", "fashion"])
def test_a_federation_on_data_of_the_users_runs_on_a_chain_to_the_model_of_the_run_in_memory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, write = {"parking": ("PARKING_DATA", write_parking), "fashion": ("FASHION_DATA", write_pictures)}[name]
    if variable not in os.environ:
        monkeypatch.setenv(variable, str(write(tmp_path)))
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "fedchain.cli.main", "demo", "--federation", str(PEERS / name)]
    command += ["--peers", str(MEMBERS), "--workdir", str(tmp_path / "demo"), "--json", str(figures)]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    environment = os.environ | {"COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    real = json.loads(figures.read_text(encoding="utf-8"))
    assert real["verdict"] == "ok" and real["totals"]["rounds"] == 2
    charter = with_invented_members(read_charter(PEERS / name).with_settings(SETTINGS), MEMBERS)
    run = federate(charter, load_task(PEERS / name / "task.py", charter.task_sha256))
    assert run.state.model_digest.hex() == real["model_digest"]
