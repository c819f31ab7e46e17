"""`fedchain charter`: what the members must agree on before one of them deploys, and the digest to compare it by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..protocol.charter import Algorithm, Outer, read_charter
from ..protocol.ids import MAX_MEMBERS, Address
from ..protocol.privacy import plan_of, remarks_on


def charter(
    federation: Annotated[
        Path, typer.Argument(help="The federation's folder: federation.toml and its task.", file_okay=False)
    ],
    members: Annotated[
        int | None,
        typer.Option(
            min=3, max=MAX_MEMBERS, help="Show it as for so many members, while their addresses are not in it yet."
        ),
    ] = None,
) -> None:
    """Show a folder's charter in short, with its digest: members with one digest agree on every entry and on the task.

    Compare it over a way that the folder did not come by. The contract will hold this digest; `fedchain verify` shows
    its beginning, and `fedchain enrol` compares all of it.

    Examples:

    - `fedchain charter federation`
    - `fedchain charter peers/digits --members 5`
    """
    agreed = read_charter(federation)
    if members is not None:
        agreed = agreed.with_members(tuple(Address(f"0x{i + 1:040x}") for i in range(members)))
    elif not agreed.federation.members:
        raise UsageError(
            "the charter names no members yet (federation.members); --members N shows it as for so many, with no digest"
        )
    agreed.check_complete()
    windows = agreed.windows
    typer.echo(f"federation  {agreed.federation.name}: at most {agreed.run.rounds} rounds, {agreed.algorithm.name}")
    typer.echo(f"learning    {summary_of(agreed.algorithm, agreed.outer)}")
    if agreed.update.mask < 1:
        typer.echo(f"mask        each round trains and sends {agreed.update.mask:g} of the parameters, drawn anew")
    typer.echo(f"threshold   any {agreed.threshold} of {len(agreed.federation.members)} members can open, or read")
    for index, member in enumerate(agreed.federation.members if members is None else ()):
        typer.echo(f"member {index:<4} {member}")
    typer.echo(
        f"windows     enrolment {windows.enrol_s} s, training {windows.training_s} s, receipts {windows.receipt_s} s,"
        f" aggregate {windows.aggregate_s} s, challenge {windows.challenge_s} s"
    )
    plan = plan_of(agreed)
    if plan is not None:
        protects = "records" if agreed.privacy.mode == "records" else "whole members"
        typer.echo(
            f"privacy     of {protects}: ε at most {plan.epsilon:g} at δ {plan.delta:g} for the whole run;"
            f" noise {plan.multiplier:g} times the sensitivity"
        )
        typer.echo(
            f"            of {plan.founders} members, {plan.founders - plan.shares - plan.colluders} may be missing and"
            f" {plan.colluders} may tell their noise"
        )
    for remark in remarks_on(agreed):
        typer.echo(f"note        {remark}")
    typer.echo(f"bond        {agreed.stake.bond_gwei:,} gwei")
    typer.echo(f"task        {agreed.federation.task}, SHA-256 {agreed.task_sha256}")
    digest = agreed.digest().hex() if members is None else "no digest: federation.members is part of it"
    typer.echo(f"charter     {digest}")


def summary_of(algorithm: Algorithm, outer: Outer) -> str:
    """How members train and what is done with the average, in one line."""
    most = "at most " if algorithm.local_steps == "adaptive" else ""
    epochs = "1 local epoch" if algorithm.local_epochs == 1 else f"{algorithm.local_epochs} local epochs"
    parts = [f"{most}{epochs}, batches of {algorithm.batch_size}"]
    if outer.optimizer != "none":
        parts.append(f"{outer.optimizer} with beta1 {outer.momentum:g} and learning rate {outer.rate:g}")
    if algorithm.sampling != "shuffled" or algorithm.loss != "plain":
        parts.append(f"{algorithm.sampling} sampling, {algorithm.loss} loss")
    if algorithm.local_tensors:
        parts.append(f"{', '.join(algorithm.local_tensors)} stay with each member")
    return "; ".join(parts)
