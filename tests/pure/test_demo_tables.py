"""What the demonstration's tables rest on."""

from __future__ import annotations

import json
from pathlib import Path

from fedchain.cli.local import LocalFederation, PeerProcess

HOSPITALS = Path(__file__).parents[2] / "peers" / "hospitals"


def test_a_member_that_never_began_does_not_lend_its_line_to_the_next(tmp_path: Path) -> None:
    local = LocalFederation.found(tmp_path / "run", HOSPITALS, 3, [])
    local.peers = [PeerProcess(i, tmp_path / str(i), [], {}) for i in range(3)]
    for i in (0, 2):
        local.peers[i].folder.mkdir()
        (local.peers[i].folder / "rounds.jsonl").write_text(json.dumps({"round": 1, "steps": 10 + i}) + "\n")
    assert [[entry["steps"] for entry in meter] for meter in local.meters()] == [[10], [], [12]]
