"""The charter's section on privacy: what is refused, in words, and what its members are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner

from fedchain.cli.main import app
from fedchain.errors import UsageError
from fedchain.protocol.charter import Charter, Federation, parse_charter, read_charter

MEMBERS = tuple("0x" + f"{i:040x}" for i in range(1, 6))


def entries(**sections: dict[str, Any]) -> dict[str, Any]:
    """A charter in mode "records", with sections changed."""
    begin: dict[str, dict[str, Any]] = {
        "federation": {"name": "trial", "members": list(MEMBERS)},
        "outer": {"learning_rate": 0.5},
        "privacy": {"mode": "records", "epsilon": 4.0, "clip": 1.0, "sampling_rate": 0.1},
    }
    return {name: begin.get(name, {}) | sections.get(name, {}) for name in begin | sections}


def read(folder: Path, **sections: dict[str, Any]) -> Charter:
    (folder / "task.py").write_text("x = 1\n", encoding="utf-8")
    (folder / "federation.toml").write_bytes(tomli_w.dumps(entries(**sections)).encode())
    return read_charter(folder)


@pytest.mark.parametrize(
    ("section", "changes", "reason"),
    [
        ("privacy", {"epsilon": 0.0}, "set privacy.epsilon, the budget of the whole run"),
        ("privacy", {"clip": 0.0}, "set privacy.clip"),
        ("privacy", {"delta": 0.5}, "privacy.delta"),
        ("privacy", {"delta": 0.0}, "privacy.delta"),
        ("privacy", {"noise_multiplier": 0.05}, "protects nothing"),
        ("privacy", {"sampling_rate": 1.5}, "privacy.sampling_rate"),
        ("privacy", {"mode": "rows"}, "privacy.mode"),
        ("privacy", {"mode": "none"}, "nothing is private"),
        ("privacy", {"mode": "clients"}, "drop sampling_rate"),
        ("run", {"target": 0.9}, "drop run.target"),
        ("update", {"bits": 8}, 'set update.bits = "auto"'),
        ("update", {"clip_norm": 1.0}, "drop update.clip_norm"),
        ("algorithm", {"name": "scaffold", "effective_steps": 5}, "no noise for"),
        ("algorithm", {"name": "fedprox", "mu": 0.1}, r"leave the entries of \[algorithm\]"),
        ("algorithm", {"local_tensors": ["head.*"]}, r"leave the entries of \[algorithm\]"),
        ("algorithm", {"sampling": "class-balanced"}, r"leave the entries of \[algorithm\]"),
    ],
)
def test_a_charter_whose_entries_undo_its_privacy_is_refused(
    section: str, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=reason) as refusal:
        read(tmp_path, **{section: changes})
    assert "\n" not in str(refusal.value)


def test_a_private_step_has_a_length_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("x = 1\n", encoding="utf-8")
    without = entries() | {"outer": {}}
    (tmp_path / "federation.toml").write_bytes(tomli_w.dumps(without).encode())
    with pytest.raises(UsageError, match=r"set outer\.learning_rate"):
        read_charter(tmp_path)


def test_a_private_charter_survives_both_of_its_forms(tmp_path: Path) -> None:
    charter = read(tmp_path, privacy={"colluders": 1, "dropouts": 1, "noise_multiplier": 1.25})
    assert parse_charter(charter.canonical()) == charter
    (tmp_path / "federation.toml").write_bytes(tomli_w.dumps(charter.to_toml()).encode())
    assert read_charter(tmp_path).digest() == charter.digest()
    other = charter.with_settings(["privacy.epsilon=4.5"])
    assert other.digest() != charter.digest()
    assert Charter(federation=Federation(name="trial")).privacy.mode == "none"


def test_members_are_shown_budget_noise_and_whom_it_holds_against(tmp_path: Path) -> None:
    read(tmp_path)
    shown = CliRunner().invoke(app, ["charter", str(tmp_path)]).output
    assert "of records: ε at most 4 at δ 1e-05 for the whole run; noise " in shown
    assert "of 5 members, 0 may be missing and 2 may tell their noise" in shown
    assert "note" not in shown


def test_a_useless_mode_is_called_so(tmp_path: Path) -> None:
    read(tmp_path, privacy={"mode": "clients", "sampling_rate": 1.0})
    shown = CliRunner().invoke(app, ["charter", str(tmp_path)]).output
    assert "hiding a whole member among 5 is useless" in shown


def test_an_impossible_plan_is_refused_before_anybody_deploys(tmp_path: Path) -> None:
    read(tmp_path, privacy={"dropouts": 3})
    result = CliRunner().invoke(app, ["charter", str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert "at most 1 can be missing" in str(result.exception)


def test_before_members_are_named_a_charter_is_shown_as_for_so_many_and_without_a_digest(tmp_path: Path) -> None:
    read(tmp_path, federation={"members": []}, privacy={"mode": "clients", "sampling_rate": 1.0})
    shown = CliRunner().invoke(app, ["charter", str(tmp_path), "--members", "7"]).output
    assert "hiding a whole member among 7 is useless" in shown and "any 4 of 7 members can open" in shown
    assert "no digest" in shown and "0x" not in shown
    refused = CliRunner().invoke(app, ["charter", str(tmp_path)]).exception
    assert isinstance(refused, UsageError) and "--members N shows it as for so many" in str(refused)
