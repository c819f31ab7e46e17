"""`fedchain new`: a federation's folder from the template inside this package, ready to run."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError

FILES = ("federation.toml", "task.py", "README.md")
_NAME = "example"


def new(
    folder: Annotated[Path, typer.Argument(help="The folder to make; it must not exist, or be empty.")],
    name: Annotated[
        str | None,
        typer.Option(help="The federation's name: small letters, digits, hyphens [default: the folder's name]."),
    ] = None,
) -> None:
    """Make a federation's folder that works as it is: a charter with every choice explained, a task, a README.

    Change the task to your model and data, go through the charter, and try it on this machine before you agree on it.

    Example: `fedchain new hospitals-of-ulm && fedchain demo --federation hospitals-of-ulm`
    """
    chosen = name if name is not None else name_from(folder)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", chosen):
        raise UsageError(f"{chosen!r} is no name: small letters, digits and hyphens, at most 64; give --name")
    make_folder(folder, chosen)
    typer.echo(f"made    {folder}: {', '.join(FILES)}")
    typer.echo(f"next    fedchain demo --federation {shlex.quote(str(folder))}")


def name_from(folder: Path) -> str:
    """A federation's name from the name of its folder: what is not allowed becomes a hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", folder.absolute().name.lower()).strip("-")


def make_folder(folder: Path, name: str) -> None:
    """Write the template under this name. Raises UsageError rather than touch a folder that holds anything."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not empty; choose another folder")
    template = files("fedchain.cli").joinpath("templates")
    variable = name.upper().replace("-", "_")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in FILES:
            text = template.joinpath(file).read_text(encoding="utf-8")
            text = text.replace(f'name = "{_NAME}"', f'name = "{name}"').replace(f"# {_NAME}\n", f"# {name}\n", 1)
            (folder / file).write_text(text.replace("EXAMPLE_DATA", f"{variable}_DATA"), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
