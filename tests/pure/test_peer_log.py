"""A peer's log: one JSON line an event, and no reason to stop where it cannot be written."""

from __future__ import annotations

import ast
import io
import json
import re
import sys
from pathlib import Path

import pytest

import fedchain.peer
from fedchain.peer.log import LEVELS, peer_log

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


def logged() -> list[tuple[str, dict[str, str]]]:
    """Every line that a peer can log: where, and its fields as they stand in the source."""
    found = []
    for path in sorted(Path(fedchain.peer.__file__).parent.glob("*.py")):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and re.search(rf"(\b|_)log\.({'|'.join(LEVELS)})$", ast.unparse(call.func)):
                fields = {word.arg or "**": ast.unparse(word.value) for word in call.keywords}
                found.append((f"{path.name}:{call.lineno}", fields))
    assert len(found) > 40
    return found


def test_every_line_tells_who_is_meant_in_the_same_fields_and_the_same_form() -> None:
    """`member` is whose log it is: a line that used it for somebody else would hide that. Accounts stand alone, sets of
    members as indices; nowhere is anybody a bit in a number."""
    for where, fields in logged():
        assert "member" not in fields, where
        assert not {"offender", "author", "dealer"} & {name for name, value in fields.items() if "int(" in value}, where
        assert not [name for name, value in fields.items() if ":b}" in value or value.startswith("bin(")], where
