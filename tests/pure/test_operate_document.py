"""What `docs/operate.md` tells operators: commands that the tried walk uses, error lines that the package can print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
SCRIPT = (ROOT / "devnet" / "scenarios" / "two-hosts.sh").read_text(encoding="utf-8")
SAID = [
    line
    for row in re.findall(r"^\| (`.+?) \| ", DOCUMENT.partition("## What it says")[2], re.MULTILINE)
    for line in re.findall(r"`([^`]+)`", row)
]
JOINTS = re.compile(
    r"connection refused|(?<=is empty)|(?<=was sent and)|(?<=is not mined)|(?<=refuses:)|(?<=due now:)|(?<=is locked)"
)
"""Where the package puts a line together from parts."""
JOINED = re.compile(r'"\s*\n\s*f?"')


@pytest.fixture(scope="module")
def words() -> str:
    """Every text of the package, literals that continue on the next line joined."""
    return "\n".join(JOINED.sub("", path.read_text(encoding="utf-8")) for path in (ROOT / "fedchain").rglob("*.py"))


def test_the_table_has_the_errors() -> None:
    assert len(SAID) > 30


@pytest.mark.parametrize("said", SAID)
def test_an_error_line_in_the_table_is_one_that_the_package_prints(said: str, words: str) -> None:
    pieces = [piece.strip() for part in said.split("…") for piece in JOINTS.split(part)]
    for piece in pieces:
        if len(piece.strip(" ;,.()")) > 2:
            assert piece in words, piece


def test_every_command_of_the_walk_is_in_the_document() -> None:
    tried = set(
        re.findall(r"(?:^|; do )\s*(?:shown|refused \"[^\"]*\") \S+ ((?:key |peer )?[a-z]+)", SCRIPT, re.MULTILINE)
    )
    assert {"key new", "charter", "deploy", "verify", "enrol", "peer run", "status", "audit"} <= tried
    for command in tried | {"withdraw"}:
        assert f"fedchain {command} " in DOCUMENT, command


def test_the_windows_of_the_walk_are_those_in_the_table() -> None:
    windows = [
        re.search(rf"^{name} = (\d+)$", SCRIPT, re.MULTILINE) for name in ("training_s", "receipt_s", "aggregate_s")
    ]
    row = " | ".join(found[1] for found in windows if found)
    assert f"| the walk, 2 s blocks | 2 | {row} |" in DOCUMENT and "CONFIRMATIONS=2" in SCRIPT
