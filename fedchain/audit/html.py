"""The report as one HTML page that stands alone: no script, no font, no picture from anywhere else."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from .report import CHECKS, FEDERATION_CHECKS, ROUND_CHECKS, Report, Seconds, Standing, Status
from .words import (
    OUTCOMES,
    bytes_in_words,
    complaint_in_words,
    gwei_in_words,
    members_in_words,
    motion_in_words,
    privacy_in_words,
    refutation_in_words,
    seconds_in_words,
    spoiled_in_words,
    time_in_words,
    verdict_in_words,
)

MARKS = {Status.PASSED: "✓", Status.FAULT: "✗", Status.NOT_POSSIBLE: "?", Status.PENDING: "·"}
CLASSES = {
    Status.PASSED: "passed",
    Status.FAULT: "fault",
    Status.NOT_POSSIBLE: "undone",
    Status.PENDING: "pending",
}

TONES: dict[Standing, str] = {
    "counts": "passed",
    "joining": "passed",
    "admitted": "pending",
    "not enrolled": "pending",
    "left": "pending",
    "leaving": "undone",
    "removed": "undone",
    "slashed": "fault",
}


def page_environment(package: str) -> Environment:
    """Templates of a package, for pages of what chain, store and charter say: all of it is escaped."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_html(report: Report) -> str:
    """The page. Everything that came from chain or store is escaped."""
    environment = page_environment("fedchain.audit")
    environment.filters |= {
        "bytes": bytes_in_words,
        "seconds": seconds_in_words,
        "members": members_in_words,
        "time": time_in_words,
        "gwei": gwei_in_words,
    }
    return environment.get_template("report.html").render(
        report=report,
        verdict=verdict_in_words(report),
        spoiled=spoiled_in_words(report.suspicion),
        complained=[complaint_in_words(report, complaint) for complaint in report.complaints],
        refuted=[refutation_in_words(report, refutation) for refutation in report.refutations],
        privacy=privacy_in_words(report.privacy) if report.privacy else "",
        votings=[(motion_in_words(voting), voting) for voting in report.votings],
        outcomes=OUTCOMES,
        tones=TONES,
        tone="bad" if report.faults else "good" if report.complete else "unsure",
        explained=CHECKS,
        federation_checks=FEDERATION_CHECKS,
        round_checks=ROUND_CHECKS,
        marks=MARKS,
        classes=CLASSES,
        steps=[field.name for field in fields(Seconds)],
        longest=max((a.seconds.total for a in (*report.rounds, *report.unfinished)), default=0) or 1,
    )


def write_html(report: Report, path: Path) -> None:
    """Write the page; the file appears whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(render_html(report), encoding="utf-8")
    part.replace(path)
