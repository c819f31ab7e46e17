"""The fault scenarios of `devnet/scenarios/`, played by the command that people use: real peers, real faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fedchain.devnet.scenario import read_scenario, shipped

ROOT = Path(__file__).parents[2]
QUICK = "partition"
"""One that `make test` plays; `make test-slow` plays the others."""


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fedchain.cli.main", "devnet", "run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        start_new_session=True,
    )


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every live process that names this folder, whoever its parent is."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(folder) in " ".join(process.info["cmdline"] or ())
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a scenario is kept; whatever a failed test leaves running in it ends here."""
    yield tmp_path / "kept"
    for process in processes_of(tmp_path / "kept"):
        process.kill()


def played(name: str, folder: Path) -> list[str]:
    """Play it to its end: everything as expected, and nothing left running. Gives what happened, in order."""
    with start(name, "--keep", str(folder), "--json") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err[-6000:]
    outcome = json.loads(out)
    assert outcome["ok"] and all(finding["ok"] for finding in outcome["findings"])
    asked = {finding["what"] for finding in outcome["findings"]}
    assert {"it ends", "faults", "rounds closed", "the model follows", "the honest"} <= asked
    assert processes_of(folder) == []
    return [moment["what"] for moment in outcome["story"]]


@pytest.mark.timeout(400)
def test_two_peers_that_were_cut_off_catch_up(folder: Path) -> None:
    assert played(QUICK, folder) == [
        "peers 3, 4 cut off from chain and store for 8 s",
        "peers 3, 4 connected again",
        "round 1 closed",
    ], "the others waited"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [path.stem for path in shipped() if path.stem != QUICK])
def test_this_scenario_ends_as_it_says(name: str, folder: Path) -> None:
    played(name, folder)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_an_expectation_that_is_not_met_is_told_and_is_exit_code_1(tmp_path: Path, folder: Path) -> None:
    """The dead aggregator's round, by who expects that nobody is struck and one more round closes."""
    text = (ROOT / "devnet" / "scenarios" / "silent-aggregator.toml").read_text()
    file = tmp_path / "wrong.toml"
    text = text.replace("../../peers", str(ROOT / "peers")).replace("rounds = 2", "rounds = 1")
    file.write_text(text.replace("struck = [0]", "struck = []"))
    with start(str(file), "--keep", str(folder), "--json") as process:
        out, err = process.communicate()
    assert process.returncode == 1, err[-3000:]
    wrong = {finding["what"]: finding for finding in json.loads(out)["findings"] if not finding["ok"]}
    assert wrong.keys() == {"rounds closed", "have strikes"}
    assert wrong["have strikes"]["got"] == "0"


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_every_process(folder: Path, number: int) -> None:
    """With peers started, and one of them standing still."""
    text = (ROOT / "devnet" / "scenarios" / "honest.toml").read_text()
    pause = '[[faults]]\nkind = "pause"\npeers = [1]\nafter_s = 1\nfor_s = 60\n\n[expect]'
    file = folder.with_suffix(".toml")
    file.write_text(text.replace("../../peers", str(ROOT / "peers")).replace("[expect]", pause))
    with start(str(file), "--keep", str(folder)) as process:
        assert process.stdout is not None
        while "stands still" not in process.stdout.readline():
            assert process.poll() is None
        assert len(processes_of(folder)) > 10
        process.send_signal(number)
        assert process.wait(30) == 130
    end = time.monotonic() + 5
    while processes_of(folder):
        assert time.monotonic() < end, processes_of(folder)
        time.sleep(0.1)


def test_the_quick_one_is_a_shipped_one() -> None:
    assert QUICK in {read_scenario(path).name for path in shipped()}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demonstration_plays_the_same_files_and_goes_on_to_compare(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fedchain.cli.main",
        "demo",
        "--scenario",
        "lying-closer",
        "--workdir",
        str(folder),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=380, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "will misbehave" in done.stdout and "centralised (all data in one place)" in done.stdout
    assert "audit: ok" in done.stdout
    assert processes_of(folder) == []
