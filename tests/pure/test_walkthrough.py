"""The walkthrough in the documentation runs as a newcomer runs it, and its last steps can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from stage import SCRIPT, load_walkthrough

from fedchain.protocol.ids import Index


@pytest.fixture
def walkthrough() -> Any:
    return load_walkthrough()


def test_the_walkthrough_runs_from_any_folder_and_loads_neither_torch_nor_tenseal(tmp_path: Path) -> None:
    code = (
        f"import runpy, sys; runpy.run_path({str(SCRIPT)!r}, run_name='__main__');"
        "print('loaded:', sorted({'torch', 'tenseal', 'web3'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    headings = [line.split("  ")[0] for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert headings == [
        "founding",
        "enrolling",
        "training",
        "receipts",
        "aggregating",
        "opening",
        "closing",
        "compared with no encryption",
        "who can read one update",
        "loaded: []",
    ]
    assert "all 5,120 equal" in done.stdout
    assert "65,521 values of 65,521 fit" in done.stdout


def test_the_phase_of_each_step_is_the_one_its_heading_names(
    walkthrough: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    walkthrough.main()
    for line in capsys.readouterr().out.splitlines():
        title, _, phase = line.partition("  [phase of round 1: ")
        assert not phase or phase == title + "]"


def test_a_sum_that_is_off_by_one_ends_the_walkthrough(walkthrough: ModuleType) -> None:
    members = [walkthrough.make_member(i) for i in range(walkthrough.MEMBERS)]
    for member in members:
        member.values = np.full(walkthrough.PARAMETERS, 2**15)
    sums = np.full(walkthrough.PARAMETERS, walkthrough.MEMBERS * 2**15)
    sums[17] += 1
    world = walkthrough.found(members)
    with pytest.raises(SystemExit, match="not the sums of what was encrypted"):
        walkthrough.compare(world, members, sums)


def test_fewer_shares_than_the_threshold_fit_every_key(walkthrough: ModuleType) -> None:
    assert walkthrough.keys_that_fit({Index(1): 5, Index(2): 7}, Index(3)) == walkthrough.SHARE_PRIME
