"""`fedchain relay`: sends the signed statements of several members in one transaction a phase."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .operate import (
    ConfirmationsOption,
    ContractOption,
    DeploymentOption,
    KeyOption,
    PasswordOption,
    RpcOption,
)
from .options import open_reader, read_password


def relay(
    folder: Annotated[Path, typer.Argument(metavar="DIR", file_okay=False, help="The folder that the peers share.")],
    key: KeyOption,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    confirmations: ConfirmationsOption = 0,
    password_file: PasswordOption = None,
    poll_s: Annotated[float, typer.Option("--poll", min=0.05, help="Seconds between looks.")] = 0.5,
) -> None:
    """Gather what peers signed (`fedchain peer run --relay DIR`), and send one transaction a phase for all.

    Needs an account with coins for gas, and no bond. It has no power: what it does not send in time peers send
    themselves.

    Example: `fedchain relay /srv/shared --key relay.json --deployment deployment.json`
    """
    from ..chain.deployment import verify
    from ..chain.keys import load_identity
    from ..chain.sender import Sender
    from ..peer.journal import Journal
    from ..peer.log import peer_log
    from ..peer.relayer import Relayer

    reader = open_reader(rpc, contract, deployment, confirmations)
    verify(reader)
    identity = load_identity(key, read_password(password_file))
    folder.mkdir(parents=True, exist_ok=True)
    log = peer_log(folder / "relay.log", quiet=False)
    log.info("relaying", folder=str(folder), address=identity.address)
    # Beside the key, and not in the folder that others write to. Started again, it sends the very same transactions:
    # a batch that still waits for its block would otherwise be paid for twice.
    with Journal(key.parent / f"{key.stem}-relay-{reader.contract[2:10].lower()}" / "journal.jsonl") as journal:
        journal.bind(reader.chain_id, reader.contract, reader.log()[0].transaction)
        sender = Sender(
            reader.rpc_url,
            reader.contract,
            identity.account_private,
            journal,
            chain_id=reader.chain_id,
            confirmations=confirmations,
        )
        Relayer(reader, sender, folder, log).run(poll_s)
    log.info("the run is finished")
