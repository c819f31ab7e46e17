"""The `fedchain` command as a whole: its version, a disk without room, an example for every command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from commands import fedchain

from fedchain import __version__
from fedchain.chain.artifacts import load_artifact
from fedchain.cli.main import app


def commands_of(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every command below this one: what is typed, and its help."""
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        else:
            yield " ".join((*path, name)), str(command.help)


COMMANDS = dict(commands_of(typer.main.get_command(app)))


def test_the_version_names_the_package_and_the_contract_that_it_deploys() -> None:
    done = fedchain("--version")
    assert done.returncode == 0
    assert done.stdout == f"fedchain {__version__}, contract build {load_artifact().artifact_hash[:16]}…\n"


def test_all_commands_are_found() -> None:
    assert {"deploy", "peer run", "devnet up", "vote admit", "model fetch", "audit"} <= COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_of_it(command: str) -> None:
    assert f"`fedchain {command}" in COMMANDS[command].partition("Example")[2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that has never room")
def test_output_that_finds_no_room_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fedchain.cli.main", "--version"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (2, "fedchain: the disk is full; make room, and run the command again\n")
