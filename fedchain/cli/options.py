"""What several commands ask for in the same words: the password, the contract, the reader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError

if TYPE_CHECKING:
    from ..chain.reader import Reader

FolderOption = Annotated[
    Path | None,
    typer.Option("--federation", help="The federation's folder: shows its privacy too.", file_okay=False),
]

PASSWORD_VARIABLE = "FEDCHAIN_PASSWORD"


def read_password(file: Path | None, *, confirm: bool = False) -> str:
    """The key's password: from the file, else the environment, else a prompt (twice where `confirm`)."""
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the password file {file} cannot be read: {error}") from error
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is not None:
        return password
    try:
        return str(typer.prompt("password", hide_input=True, confirmation_prompt=confirm))
    except typer.Abort as error:
        raise UsageError(f"no password: give --password-file, or set {PASSWORD_VARIABLE}") from error


def open_reader(rpc: str | None, contract: str | None, deployment: Path | None, confirmations: int = 0) -> Reader:
    """A reader of the contract that the options name, by address or by deployment file."""
    from ..chain.deployment import read_deployment
    from ..chain.reader import Reader

    if rpc is None:
        raise UsageError("no chain: give --rpc URL, or set FEDCHAIN_RPC")
    if deployment is not None:
        if contract is not None:
            raise UsageError("--contract and --deployment say the same thing; give one of them")
        found = read_deployment(deployment)
        return Reader(
            rpc, found.address, confirmations=confirmations, expected_chain_id=found.chain_id, from_block=found.block
        )
    if contract is None:
        raise UsageError("no federation: give --contract ADDRESS, or --deployment FILE")
    return Reader(rpc, contract, confirmations=confirmations)
