"""The report on a terminal: what was checked, what each round was, who broke which rule."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .report import CHECKS, ROUND_CHECKS, Account, Check, Report, Status
from .words import (
    bytes_in_words,
    complaint_in_words,
    demands_in_words,
    members_in_words,
    members_told,
    privacy_in_words,
    refutation_in_words,
    seconds_in_words,
    spoiled_in_words,
    verdict_in_words,
    voting_in_words,
)

MARKS: dict[Status, tuple[str, str]] = {
    Status.PASSED: ("✓", "green"),
    Status.FAULT: ("✗", "bold red"),
    Status.NOT_POSSIBLE: ("?", "yellow"),
    Status.PENDING: ("·", "dim"),
}


def print_report(console: Console, report: Report) -> None:
    """Everything a person wants to know, the verdict last, where the eye is."""
    name = report.charter.federation.name if report.charter else "a federation"
    console.print(f"[bold]audit of {escape(name)}[/bold]  {report.contract} on chain {report.chain_id}", soft_wrap=True)
    console.print(
        f"[dim]as of block {report.block_number} ({report.block_hash.hex()[:16]}…), its newest statement[/dim]"
    )
    console.print()
    _print_federation(console, report)
    for title, accounts in (("rounds", report.rounds), ("unfinished attempts", report.unfinished)):
        if accounts:
            _print_rounds(console, title, accounts)
    _print_remarks(console, report)
    if report.privacy is not None:
        style = "bold red" if report.privacy.is_overspent else ""
        console.print(Text(f"privacy: {privacy_in_words(report.privacy)}", style), soft_wrap=True)
        console.print()
    _print_lines(console, "·", "dim", _decisions(report))
    _print_lines(console, "!", "yellow", spoiled_in_words(report.suspicion))
    fallen = [refutation_in_words(report, refutation) for refutation in report.refutations]
    _print_lines(console, "!", "yellow", fallen)
    for fault in report.faults:
        where = f"round {fault.round}: " if fault.round else ""
        console.print(Text(f"✗ {fault.check}: {where}{fault.offender}", style="bold red"), soft_wrap=True)
        console.print(Text(f"    expected {fault.expected}"), soft_wrap=True)
        console.print(Text(f"    got      {fault.got}"), soft_wrap=True)
    if report.faults:
        console.print()
    colour = "red" if report.faults else "green" if report.complete else "yellow"
    verdict = Text.assemble(("verdict: ", "bold"), (verdict_in_words(report), f"bold {colour}"))
    console.print(verdict, soft_wrap=True)
    console.print(f"model:   {report.model_digest.hex()}  {report.model_cid}", soft_wrap=True, highlight=False)


def _print_federation(console: Console, report: Report) -> None:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for column in ("mark", "number", "name", "what", "detail"):
        table.add_column(column, justify="right" if column == "number" else "left", overflow="fold")
    for check in report.checks:
        table.add_row(_mark(check), str(check.number), check.name, Text(CHECKS[check.number][1]), _detail(check))
    console.print(table)
    console.print()


def _print_rounds(console: Console, title: str, accounts: tuple[Account, ...]) -> None:
    table = Table(title=title, title_justify="left", header_style="bold", padding=(0, 1, 0, 0), box=SIMPLE_HEAD)
    for column in ("round", "in the sum", "by"):
        table.add_column(column, no_wrap=True)
    for number in ROUND_CHECKS:
        table.add_column(f"{number}", justify="center", no_wrap=True)
    for column in ("stored", "gas", "time"):
        table.add_column(column, justify="right", no_wrap=True)
    for account in accounts:
        attempt = f" ({account.attempt + 1}.)" if account.attempt else ""
        outcome = "" if account.outcome == "closed" else f" {account.outcome}"
        table.add_row(
            f"{account.round}{attempt}{outcome}",
            members_in_words(account.participants),
            "" if account.aggregator is None else str(account.aggregator),
            *(_mark(account.check(number)) for number in ROUND_CHECKS),
            bytes_in_words(account.upload_bytes),
            f"{account.gas:,}",
            seconds_in_words(account.seconds.total),
        )
    console.print(table)
    legend = ", ".join(f"{number} {CHECKS[number][0]}" for number in ROUND_CHECKS)
    console.print(f"[dim]checks: {legend}[/dim]\n")


def _print_remarks(console: Console, report: Report) -> None:
    """Why a check could not be made: without that, "?" says nothing."""
    told = False
    for account in (*report.rounds, *report.unfinished):
        for check in account.checks:
            if check.status is Status.NOT_POSSIBLE:
                console.print(Text(f"? round {account.round}, {check.number} {check.name}: {check.detail}", "yellow"))
                told = True
    if told:
        console.print()


def _decisions(report: Report) -> list[str]:
    """Who came and went, who complained, what was voted on, what was demanded."""
    complaints = [complaint_in_words(report, complaint) for complaint in report.complaints]
    votings = [voting_in_words(voting) for voting in report.votings]
    return [*members_told(report), *complaints, *votings, *demands_in_words(report)]


def _print_lines(console: Console, mark: str, style: str, lines: list[str]) -> None:
    for line in lines:
        console.print(Text(f"{mark} {line}", style), soft_wrap=True)
    if lines:
        console.print()


def _mark(check: Check) -> Text:
    return Text(*MARKS[check.status])


def _detail(check: Check) -> Text:
    return Text(check.detail, style="dim" if check.status is Status.PASSED else MARKS[check.status][1])
