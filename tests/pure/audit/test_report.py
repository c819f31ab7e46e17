"""The report for machines, for the terminal and as a page: complete, readable, and safe to show."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from rich.console import Console

from fedchain.audit import CHECKS, print_report, write_html
from fedchain.audit.html import render_html
from fedchain.audit.ledger import FEDERATION, Ledger
from fedchain.errors import Evidence
from fedchain.protocol.events import AggregateCommitted, ResultCommitted, UpdateCommitted
from fedchain.protocol.ids import Root

SECONDS = {"train", "encrypt", "commit", "aggregate", "open", "close"}
VOID_TAGS = {"meta", "br", "link", "img", "input", "hr"}


def shown(report: Any) -> str:
    console = Console(file=io.StringIO(), width=200, record=True)
    print_report(console, report)
    return console.export_text()


def test_an_honest_run_passes_every_check(honest: Any) -> None:
    report = honest.audit()
    assert report.faults == () and report.verdict == "ok" and report.complete
    checks = [*report.checks, *(c for account in report.rounds for c in account.checks)]
    assert {c.number for c in checks} == set(CHECKS) == set(range(1, 13))
    assert {c.status.value for c in checks} == {"passed"}
    assert report.totals.checks_passed == len(checks)
    details = {c.number: c.detail for c in report.checks}
    assert honest.charter.digest().hex()[:16] in details[1] and "ab" * 8 in details[1]
    assert details[11].startswith("2 models from ") and details[12].startswith("5 bonds of 10,000,000 gwei")


def test_the_json_has_every_entry_that_others_rely_on(named: Any, honest: Any) -> None:
    report = json.loads(json.dumps(honest.audit().to_json()))
    assert (report["verdict"], report["faults"], len(report["rounds"])) == ("ok", [], 2)
    assert report["model_digest"] == honest.state.model_digest.hex()
    assert report["model_cid"] == honest.state.model_cid
    for number, entry in enumerate(report["rounds"], 1):
        assert (entry["round"], entry["attempt"], entry["outcome"]) == (number, 0, "closed")
        assert entry["participants"] == [0, 1, 2, 3, 4]
        assert entry["aggregator"] == number - 1
        assert set(entry["seconds"]) == SECONDS
        assert entry["metrics"] == {}
        assert entry["gas"] == 50_000 * (5 + 5 + 1 + 5 + 1)
    first = report["rounds"][0]["seconds"]
    assert first == {"train": 5, "encrypt": None, "commit": 20, "aggregate": 30, "open": 15, "close": 15}
    assert report["totals"]["gas"] == 50_000 * len(honest.chain.events)
    assert report["totals"]["seconds"] == 2 * sum(s for s in first.values() if s)


def test_the_bytes_are_those_of_the_objects(honest: Any) -> None:
    report = honest.audit()
    objects = sum(len(content) for content in honest.store.served.values())
    assert report.totals.download_bytes == objects
    founding = len(honest.charter.canonical()) + len(honest.store.served[honest.state.terms.genesis_cid])
    assert report.totals.upload_bytes == objects - founding


def test_the_json_of_a_fault_names_check_round_offender_and_both_values(named: Any, honest: Any) -> None:
    play = honest.edited(ResultCommitted, {"result_root": Root(b"\x11" * 32)}, round=2)
    report = play.audit().to_json()
    assert report["verdict"] == "fault"
    # Both lies stand there: the stored result is not the root's, and the root is not the decoded sum's.
    _, fault = report["faults"]
    assert set(fault) == {"check", "round", "offender", "expected", "got"}
    assert (fault["check"], fault["round"], fault["offender"]) == ("9 result", 2, named.MEMBERS[1])
    assert fault["got"] == "11" * 32


def test_the_terminal_shows_the_verdict_and_every_offender(named: Any, honest: Any) -> None:
    assert "verdict: ok, 20 checks passed over 2 rounds" in shown(honest.audit())
    play = honest.edited(AggregateCommitted, {"root": Root(b"\x11" * 32)}, round=2)
    text = shown(play.audit())
    assert f"verdict: 2 faults, by {named.MEMBERS[1]}" in text
    assert "✗ 7 aggregate: round 2" in text
    assert "11" * 32 in text


def test_the_terminal_says_what_could_not_be_checked(named: Any, honest: Any) -> None:
    play = honest.copy()
    del play.store.served[play.event(UpdateCommitted, round=1, index=2).ciphertext_cid]
    text = shown(play.audit())
    assert f"? round 1, 7 aggregate: no ciphertext to sum from {named.MEMBERS[2]}" in text


def test_markup_in_evidence_reaches_the_terminal_as_text(honest: Any) -> None:
    hostile = Evidence("7 aggregate", 1, "[bold red]x[/]", "[link=http://evil]a[/link]", "gone")
    text = shown(replace(honest.audit(), faults=(hostile,)))
    assert "[bold red]x[/]" in text and "[link=http://evil]" in text


def test_control_characters_and_endless_text_do_not_reach_the_evidence() -> None:
    ledger = Ledger()
    ledger.fault(FEDERATION, 1, offender="a\nb", expected="\x1b[2J\u202ex", got="y" * 10_000)
    (fault,) = ledger.faults()
    assert (fault.offender, fault.expected) == ("a\\nb", "\\x1b[2J\\u202ex")
    assert len(fault.got) < 700


class Page(HTMLParser):
    """Checks that tags are balanced, and collects whatever would load something."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID_TAGS:
            self.stack.append(tag)
        if tag in ("script", "link", "img", "iframe", "object", "embed"):
            self.loads.append(tag)
        self.loads += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "onclick", "onload")]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.stack == []
    return page


def test_the_page_stands_alone_and_says_everything(named: Any, honest: Any, tmp_path: Path) -> None:
    report = honest.audit()
    write_html(report, tmp_path / "audit.html")
    html = (tmp_path / "audit.html").read_text(encoding="utf-8")
    page = parsed(html)
    assert page.loads == []
    assert not re.search(r"url\(|@import|https?://", html)
    assert "ok, 20 checks passed over 2 rounds" in page.text
    for name, _ in CHECKS.values():
        assert name in page.text
    for member in named.MEMBERS:
        assert member in page.text
    assert report.model_digest.hex() in page.text
    assert list(tmp_path.iterdir()) == [tmp_path / "audit.html"]


def test_the_page_of_a_fault_names_the_offender_and_what_was_not_checked(named: Any, honest: Any) -> None:
    play = honest.edited(ResultCommitted, {"result_root": Root(b"\x11" * 32)}, round=2)
    del play.store.served[play.event(UpdateCommitted, round=1, index=2).ciphertext_cid]
    page = parsed(render_html(play.audit()))
    assert "3 faults" in page.text
    assert "11" * 32 in page.text
    assert "What could not be checked" in page.text


def test_hostile_text_is_escaped_in_the_page(honest: Any) -> None:
    hostile = Evidence("7 aggregate", 1, "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&")
    page = parsed(render_html(replace(honest.audit(), faults=(hostile,))))
    assert page.loads == []
    assert "<script>alert(1)</script>" in page.text


def test_a_federation_that_is_still_enrolling_has_a_page(honest: Any) -> None:
    play = honest.copy()
    play.chain.events = play.chain.events[:3]
    report = play.audit()
    assert report.faults == () and report.rounds == ()
    parsed(render_html(report))
    assert "verdict: ok" in shown(report)
