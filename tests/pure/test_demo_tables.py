"""What the demonstration takes, and what its tables rest on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import fedchain

from fedchain.cli.local import LocalFederation, PeerProcess

HOSPITALS = Path(__file__).parents[2] / "peers" / "hospitals"


def test_a_member_that_never_began_does_not_lend_its_line_to_the_next(tmp_path: Path) -> None:
    local = LocalFederation.found(tmp_path / "run", HOSPITALS, 3, [])
    local.peers = [PeerProcess(i, tmp_path / str(i), [], {}) for i in range(3)]
    for i in (0, 2):
        local.peers[i].folder.mkdir()
        (local.peers[i].folder / "rounds.jsonl").write_text(json.dumps({"round": 1, "steps": 10 + i}) + "\n")
    assert [[entry["steps"] for entry in meter] for meter in local.meters()] == [[10], [], [12]]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--scenario", "honest", "--peers", "4"], "--scenario says which federation, how many peers and which faults"),
        (["--scenario", "honest", "--kill", "trainer@1"], "drop the other options"),
        (["--scenario", "nothing"], "no scenario 'nothing'; there are "),
        (["--scenario", "nowhere.toml"], "the scenario nowhere.toml cannot be read"),
    ],
)
def test_a_scenario_that_cannot_be_played_is_one_line(arguments: list[str], reason: str, tmp_path: Path) -> None:
    done = fedchain("demo", *arguments, "--workdir", tmp_path / "demo")
    assert done.returncode == 2 and reason in done.stderr, done.stderr
    assert not (tmp_path / "demo").exists()
