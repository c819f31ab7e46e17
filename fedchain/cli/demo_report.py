"""How the demonstration ends: the table of rounds, federated beside centralised and alone, the verdict, the files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..audit import Account, Report
from ..audit.words import privacy_in_words
from ..chain.deployment import Deployment
from ..learn import Task, alone, centralised, local_data_of, passes_of
from ..peer.meter import STEPS
from ..protocol.charter import Charter
from ..protocol.state import FederationState
from .demo_fairness import Fairness, fairness_table

Meters = Sequence[Sequence[Mapping[str, Any]]]
"""For each peer, what it metered: one entry a round (`fedchain.peer.meter`)."""

JSON_STEPS = ("train", "encrypt", "commit", "aggregate", "open", "close")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same model, data and seed, three ways; each metric on the same test data."""

    metric: str
    federated: float
    centralised: float
    alone: tuple[float, ...]
    samples: tuple[int, ...]


def compare(charter: Charter, task: Task, rounds: int, base: bytes, federated: Mapping[str, float]) -> Comparison:
    """Train centrally and each alone, for as many epochs as the federation did, and judge all on the test data.

    `federated` are the last model's metrics there, as the demonstration followed them; none if no round closed.
    """
    members, seed = len(charter.federation.members), charter.run.seed
    datas = [local_data_of(task, i, members, seed) for i in range(members)]
    epochs = passes_of(charter, rounds)
    return Comparison(
        metric=task.metric,
        federated=federated.get(task.metric, float("nan")),
        centralised=centralised(task, base, charter.algorithm, datas, epochs, seed)[task.metric],
        alone=tuple(alone(task, base, charter.algorithm, data, epochs, seed)[task.metric] for data in datas),
        samples=tuple(len(data.train) for data in datas),
    )


def seconds_of(meters: Meters, round: int) -> dict[str, float]:
    """The slowest peer's seconds for each step of a round."""
    lines = [line for peer in meters for line in peer if line["round"] == round]
    return {step: max((line["seconds"][step] for line in lines), default=0.0) for step in STEPS}


def bytes_of(meters: Meters, round: int, direction: str) -> int:
    """All peers' bytes `direction` ("upload_bytes" or "download_bytes") in a round."""
    return sum(line[direction] for peer in meters for line in peer if line["round"] == round)


def print_ending(
    console: Console,
    workdir: Path,
    charter: Charter,
    report: Report,
    comparison: Comparison,
    fairness: Fairness,
    metrics: Mapping[int, Mapping[str, float]],
    meters: Meters,
) -> None:
    """Everything a person wants to see at the end."""
    console.print()
    console.print(_rounds_table(charter, report, comparison.metric, metrics, meters))
    console.print("[dim]bytes and gas of all peers together[/dim]\n")
    console.print(_seconds_table(report, meters))
    console.print()
    judged = Table(title=f"{comparison.metric} on the same test data", title_justify="left", header_style="bold")
    judged.add_column("trained")
    judged.add_column("samples", justify="right")
    judged.add_column(comparison.metric, justify="right")
    judged.add_row(
        "[bold]federated, encrypted[/bold]", f"{sum(comparison.samples)}", f"[bold]{comparison.federated:.4f}[/bold]"
    )
    judged.add_row("centralised (all data in one place)", f"{sum(comparison.samples)}", f"{comparison.centralised:.4f}")
    for i, (value, samples) in enumerate(zip(comparison.alone, comparison.samples, strict=True)):
        judged.add_row(f"peer {i} alone", f"{samples}", f"{value:.4f}")
    console.print(judged)
    console.print()
    console.print(fairness_table(fairness))
    console.print()
    passed = report.verdict == "ok"
    verdict = "[bold green]ok[/bold green]" if passed else "[bold red]fault[/bold red]"
    console.print(
        f"audit: {verdict}, {report.totals.checks_passed} checks passed over {len(report.rounds)} rounds, no key needed"
    )
    if report.privacy is not None:
        console.print(f"privacy: {privacy_in_words(report.privacy)}", highlight=False, soft_wrap=True)
    for fault in report.faults:
        console.print(
            f"  [red]{fault.check}[/red] round {fault.round}: {fault.offender}:"
            f" expected {fault.expected}, got {fault.got}"
        )
    here = Path.cwd()
    kept = workdir.relative_to(here) if workdir.is_relative_to(here) else workdir
    console.print(f"report: {kept / 'audit.html'}", soft_wrap=True)
    console.print(f"model:  {kept / 'model.safetensors'}", soft_wrap=True)


def _rounds_table(
    charter: Charter, report: Report, metric: str, metrics: Mapping[int, Mapping[str, float]], meters: Meters
) -> Table:
    table = Table(title=f"rounds of {charter.federation.name}", title_justify="left", header_style="bold")
    for column in ("round", "participants", "aggregator", metric, "up", "down", "gas"):
        table.add_column(column, justify="left" if column == "participants" else "right", no_wrap=True)
    for account in report.rounds:
        attempt = f" (attempt {account.attempt + 1})" if account.attempt else ""
        table.add_row(
            f"{account.round}{attempt}",
            _ranges(account.participants),
            "" if account.aggregator is None else str(account.aggregator),
            f"{metrics.get(account.round, {}).get(metric, float('nan')):.4f}",
            _size(bytes_of(meters, account.round, "upload_bytes")),
            _size(bytes_of(meters, account.round, "download_bytes")),
            f"{account.gas:,}",
        )
    return table


def _seconds_table(report: Report, meters: Meters) -> Table:
    table = Table(title="seconds by step, of the slowest peer", title_justify="left", header_style="bold")
    for column in ("round", *STEPS):
        table.add_column(column, justify="right", no_wrap=True)
    for account in report.rounds:
        seconds = seconds_of(meters, account.round)
        table.add_row(str(account.round), *(f"{seconds[step]:.2f}" for step in STEPS))
    return table


def write_json(
    path: Path,
    charter: Charter,
    state: FederationState,
    deployment: Deployment,
    report: Report,
    comparison: Comparison,
    fairness: Fairness,
    metrics: Mapping[int, Mapping[str, float]],
    meters: Meters,
    workdir: Path,
    seconds: float,
) -> None:
    """The same for machines; the file appears whole."""
    entries = {
        "federation": charter.federation.name,
        "seed": charter.run.seed,
        "peers": len(charter.federation.members),
        "chain_id": deployment.chain_id,
        "contract": deployment.address,
        "rounds": [_round_entry(account, metrics, meters) for account in report.rounds],
        "totals": {
            "rounds": len(report.rounds),
            "upload_bytes": sum(bytes_of(meters, a.round, "upload_bytes") for a in report.rounds),
            "download_bytes": sum(bytes_of(meters, a.round, "download_bytes") for a in report.rounds),
            "gas": report.totals.gas,
            "seconds": round(seconds, 1),
        },
        "comparison": {
            "metric": comparison.metric,
            "federated": comparison.federated,
            "centralised": comparison.centralised,
            "alone": list(comparison.alone),
        },
        "fairness": fairness.entries(),
        "model_digest": state.model_digest.hex(),
        "model_cid": state.model_cid,
        "model_file": str(workdir / "model.safetensors"),
        "report_file": str(workdir / "audit.html"),
        "privacy": report.to_json()["privacy"],
        "verdict": report.verdict,
        "faults": [
            {"check": f.check, "round": f.round, "offender": f.offender, "expected": f.expected, "got": f.got}
            for f in report.faults
        ],
    }
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def _round_entry(account: Account, metrics: Mapping[int, Mapping[str, float]], meters: Meters) -> dict[str, Any]:
    seconds = seconds_of(meters, account.round)
    return {
        "round": account.round,
        "attempt": account.attempt,
        "participants": list(account.participants),
        "aggregator": account.aggregator,
        "upload_bytes": bytes_of(meters, account.round, "upload_bytes"),
        "download_bytes": bytes_of(meters, account.round, "download_bytes"),
        "gas": account.gas,
        "seconds": {step: seconds[step] for step in JSON_STEPS},
        "metrics": dict(metrics.get(account.round, {})),
    }


def _ranges(members: Sequence[int]) -> str:
    """Ascending numbers in short: 0-2 4."""
    runs: list[list[int]] = []
    for member in members:
        if runs and member == runs[-1][-1] + 1:
            runs[-1].append(member)
        else:
            runs.append([member])
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"
