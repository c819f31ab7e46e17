"""A peer's log: one JSON line an event, and no reason to stop where it cannot be written."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from fedchain.peer.log import peer_log

FULL = Path("/dev/full")
"""A device on which no byte has room (Linux)."""


def test_every_event_is_one_json_line_and_one_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = peer_log(tmp_path / "peer.log")
    log.bind(member=2).warning("trying again", reason="no answer")
    log.info("round closed", round=1)
    first, second = map(json.loads, (tmp_path / "peer.log").read_text(encoding="utf-8").splitlines())
    assert (first["level"], first["event"], first["member"], first["reason"]) == (
        "warning",
        "trying again",
        2,
        "no answer",
    )
    assert (second["event"], second["round"]) == ("round closed", 1)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "trying again" in said[0] and "no answer" in said[0]


def test_a_quiet_peer_tells_its_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer_log(tmp_path / "peer.log", quiet=True).info("round closed", round=1)
    assert json.loads((tmp_path / "peer.log").read_text(encoding="utf-8"))["round"] == 1
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_a_full_disk_costs_lines_and_does_not_stop_the_peer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer_log(FULL).warning("trying again", reason="no answer")
    assert "trying again" in capsys.readouterr().err, "people are told all the same"
    gone = io.TextIOWrapper(FULL.open("wb", buffering=0), write_through=True)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", gone)
        peer_log(FULL).warning("trying again", reason="no answer")
    gone.close()
