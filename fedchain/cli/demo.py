"""`fedchain demo`: a whole federation on this machine, from nothing to an audited model, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    federation: Annotated[
        Path | None,
        typer.Option(help="The federation's folder: charter and task [default: peers/digits].", file_okay=False),
    ] = None,
    peers: Annotated[
        int | None, typer.Option(min=3, max=64, help="How many members, each a process of its own [default: 5].")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds at most [default: the charter's].")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same model [default: the charter's].")
    ] = None,
    workdir: Annotated[Path, typer.Option(help="Where everything is kept; wiped at the start.")] = Path(
        ".fedchain/demo"
    ),
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave chain and IPFS running afterwards, to look around.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped in --workdir.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override an entry of the charter; repeatable."),
    ] = None,
    kill: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE@ROUND",
            help="A fault on purpose: kill -9 the trainer, shareholder or aggregator of a round.",
        ),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            metavar="SCENARIO",
            help="Play the faults of a scenario meanwhile: a name of `fedchain devnet scenarios`, or a file.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures, for machines.", dir_okay=False)
    ] = None,
) -> None:
    """Five peers train one model; nobody sees another's update; then everything is audited.

    Starts an EVM devnet and one IPFS node a peer, deploys the contract, enrols the members, runs each peer as a process
    of its own until the charter's stopping rule, audits every round with no key, and compares the model with
    centralised training and with each peer alone, on the same test data.

    Examples:

    - `fedchain demo`
    - `fedchain demo --federation peers/hospitals --rounds 3`
    - `fedchain demo --kill aggregator@2`
    - `fedchain demo --scenario partition`
    - `fedchain demo --set algorithm.name=fedprox --set algorithm.mu=0.01`
    """
    from rich.console import Console

    from .demo_run import Demo, DemoSettings

    Demo(
        DemoSettings(
            federation=federation,
            peers=peers,
            rounds=rounds,
            seed=seed,
            workdir=workdir,
            keep=keep,
            resume=resume,
            settings=tuple(settings or ()),
            kill=kill,
            scenario=scenario,
            json_file=json_file,
        ),
        Console(),
    ).run()
