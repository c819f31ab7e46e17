"""Plays a fault scenario: a fresh devnet, every peer a process of its own, faults at their moments; then judges."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..audit import Check, Report, Status, audit, write_html
from ..devnet.links import Links
from ..devnet.network import Devnet
from ..devnet.scenario import Scenario
from ..errors import ChainUnreachable, FedchainError
from ..protocol.ids import members_of
from ..protocol.phase import Phase, phase_of
from ..protocol.state import FederationState
from ..store.ipfs import IpfsStore
from .demo_view import DemoView
from .local import LocalFederation, PeerProcess
from .scenario_faults import Faults, check_points

WATCH_S = 0.2
LEAVE_S = 40.0
"""So long peers have, once the run is finished, to check the last round and to end by themselves."""

EachLook = Callable[[FederationState, LocalFederation, Devnet], None]
"""Called whenever the chain was looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One expectation, and what came of it."""

    what: str
    expected: str
    got: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scenario: `story` is what happened when (seconds from the start of the peers)."""

    scenario: str
    seconds: float
    story: tuple[tuple[float, str], ...]
    findings: tuple[Finding, ...]
    report: Report | None

    @property
    def ok(self) -> bool:
        """Whether everything came as expected."""
        return all(finding.ok for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "scenario": self.scenario,
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "story": [{"s": round(at, 1), "what": what} for at, what in self.story],
            "findings": [asdict(finding) for finding in self.findings],
            "model_digest": self.report.model_digest.hex() if self.report is not None else None,
        }


class ScenarioRun:
    """One run of a scenario in a folder of its own."""

    def __init__(
        self,
        scenario: Scenario,
        beside: Path,
        workdir: Path,
        console: Console,
        *,
        launcher: Path | None = None,
        each_look: EachLook = lambda state, local, devnet: None,
    ) -> None:
        """`beside`: the folder from which the scenario sees its federation. Raises UsageError on what cannot be."""
        check_points(scenario)
        self._scenario = scenario
        self._beside = beside
        self._workdir = workdir.absolute()
        self._console = console
        self._launcher = launcher
        self._each_look = each_look
        self._story: list[tuple[float, str]] = []
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """From nothing to the judgement; every process ends with it. Raises UsageError, ProcessFailed."""
        scenario = self._scenario
        self._console.print(f"[bold]{scenario.name}[/bold]  {scenario.shows}", soft_wrap=True)
        federation = self._beside / scenario.federation
        local = LocalFederation.found(self._workdir, federation, scenario.members, scenario.settings())
        devnet = Devnet(self._workdir / "devnet", peers=scenario.members, fresh=True)
        with ExitStack() as ground:
            ground.enter_context(devnet)
            links = ground.enter_context(Links())
            local.deploy(devnet)
            view = DemoView(self._console, local.charter, local.task.metric)
            faults = Faults(scenario, devnet, local, links, self._launcher, self._tell)
            ground.callback(local.stop_peers)
            ground.callback(faults.end)
            with view:
                self._began = time.monotonic()
                faults.start()
                state, reason = self._watch(devnet, local, faults, view)
                seconds = time.monotonic() - self._began
                if not reason:
                    stays_s = local.charter.windows.challenge_s * 1.25 if scenario.stay else 0
                    local.wait_for_peers(LEAVE_S + stays_s)
            with self._console.status("audit: every round recomputed from chain and store, with no key"):
                report = audit(local.reader(devnet), answering_store(devnet)) if state is not None else None
            if report is not None:
                write_html(report, self._workdir / "audit.html")
            findings = self._judge(local, faults, state, report, seconds, reason)
        return Outcome(scenario.name, seconds, tuple(self._story), findings, report)

    def _watch(
        self, devnet: Devnet, local: LocalFederation, faults: Faults, view: DemoView
    ) -> tuple[FederationState | None, str]:
        """Until the run is finished and all faults are over: the last state, and why it was given up, if it was."""
        reader, state, closed = local.reader(devnet), None, 0
        deadline = self._began + self._scenario.expect.ends_within_s
        to_fall = set(self._scenario.expect.slashed)
        while True:
            now, fresh = 0, None
            try:
                fresh = state = reader.refresh()
                now = reader.now()
            except ChainUnreachable:
                fresh = None  # one of the faults, or the devnet's own end, which the deadline finds
            faults.step(fresh, now)
            if fresh is not None:
                self._each_look(fresh, local, devnet)
                view.show(fresh, now, {}, [peer.alive for peer in local.peers])
                for round in range(closed + 1, len(fresh.closed) + 1):
                    self._tell(f"round {round} closed", good=True)
                closed = max(closed, len(fresh.closed))
                finished = phase_of(fresh, fresh.round, now) is Phase.FINISHED
                if finished and faults.is_over and to_fall <= set(members_of(fresh.slashed)):
                    return fresh, ""
                if finished and not any(peer.alive for peer in local.peers):
                    return fresh, ""
            failed = self._failed(local)
            if failed:
                return state, failed
            if time.monotonic() > deadline:
                return state, f"not over after {self._scenario.expect.ends_within_s:g} s"
            time.sleep(WATCH_S)

    def _excused(self) -> set[int]:
        """The members that need not end well."""
        expect = self._scenario.expect
        return {*self._scenario.liars, *expect.slashed, *expect.named}

    def _failed(self, local: LocalFederation) -> str:
        """Why a peer that should run has ended, if one has; who was killed has not.

        A liar may be refused or stop at its own lie, and says so in our one line; anything else is a crash.
        """
        for peer in local.peers:
            words = peer.last_words() if (peer.exit_code or 0) > 0 else ""
            if words and not (peer.index in self._excused() and words.startswith("fedchain: ")):
                return f"peer {peer.index} ended with code {peer.exit_code}: {words}"
        return ""

    def _tell(self, what: str, *, good: bool = False) -> None:
        """Note it, and show it."""
        at = time.monotonic() - self._began
        self._story.append((at, what))
        mark = "[green]✓[/green]" if good else "[yellow]![/yellow]"
        self._console.print(f"  {mark} {what} [dim]{at:.1f} s[/dim]", soft_wrap=True, highlight=False)

    def _judge(
        self,
        local: LocalFederation,
        faults: Faults,
        state: FederationState | None,
        report: Report | None,
        seconds: float,
        reason: str,
    ) -> tuple[Finding, ...]:
        """Each expectation beside what came."""
        expect = self._scenario.expect
        limit = f"{expect.ends_within_s:g} s"
        findings = [Finding("it ends", f"within {limit}", reason or f"after {seconds:.1f} s", not reason)]
        late = ", ".join(fault.kind for fault in faults.never_happened)
        findings.append(Finding("faults", "all happen", f"never: {late}" if late else "all happened", not late))
        if state is None or report is None:
            return (*findings, Finding("the chain", "answers", "has never answered", False))
        findings.append(_equal("rounds closed", expect.rounds_closed, len(state.closed)))
        findings.append(_same("lose their bonds", expect.slashed, set(map(int, members_of(state.slashed)))))
        offenders = {_index_of(report, fault.offender) for fault in report.faults}
        findings.append(_same("named by the audit", expect.named, offenders))
        if expect.struck is not None:
            findings.append(_same("have strikes", expect.struck, {int(m.index) for m in report.members if m.strikes}))
        if expect.given_up is not None:
            given_up = sum(account.outcome == "abandoned" for account in report.unfinished)
            findings.append(_equal("sets given up", expect.given_up, given_up))
        if expect.model_follows:
            wrong = [
                f"{c.number} {c.name} of round {a.round}" for a in report.rounds for c in a.checks if _is_missing(c)
            ]
            wrong += [f"{c.number} {c.name}" for c in report.checks if _is_missing(c)]
            right = not wrong and report.model_digest == state.model_digest
            got = f"{report.model_digest.hex()[:16]}…, recomputed" if right else f"does not: {', '.join(wrong[:5])}"
            findings.append(Finding("the model follows", "recomputed by the audit", got, right))
        findings.append(self._honest_end(local, faults, report))
        return tuple(findings)

    def _honest_end(self, local: LocalFederation, faults: Faults, report: Report) -> Finding:
        """Who tells no lie, and was not left dead, ends by itself and with the model of all."""
        bad = []
        for peer in local.peers:
            if peer.index in self._excused() | faults.dead:
                continue
            model = _last_model(peer)
            if peer.exit_code != 0:
                bad.append(f"peer {peer.index}: code {peer.exit_code}, {peer.last_words()}")
            elif model != report.model_digest.hex():
                bad.append(f"peer {peer.index}: another model")
        return Finding("the honest", "end by themselves, with one model", "; ".join(bad) or "did so", not bad)


MODEL_CHECKS = (1, 9, 10, 11)
"""The audit's checks that a model rests on: the charter, every round's result and model, and the chain of models."""


def print_outcome(outcome: Outcome, console: Console) -> None:
    """The table at the end."""
    table = Table(title=f"{outcome.scenario} in {outcome.seconds:.0f} s", title_justify="left", header_style="bold")
    for column in ("", "what", "expected", "got"):
        table.add_column(column, overflow="fold")
    for finding in outcome.findings:
        mark = "[green]✓[/green]" if finding.ok else "[red]✗[/red]"
        table.add_row(mark, finding.what, finding.expected, finding.got)
    console.print(table)


def _equal(what: str, expected: int, got: int) -> Finding:
    return Finding(what, f"{expected}", f"{got}", expected == got)


def _same(what: str, expected: tuple[int, ...], got: set[Any]) -> Finding:
    def names(members: set[Any]) -> str:
        return ", ".join(sorted(map(str, members))) or "nobody"

    return Finding(what, names(set(expected)), names(got), set(expected) == got)


def _index_of(report: Report, offender: str) -> int | str:
    """A member's index by its address; anybody else (the contract) by name."""
    return next((int(m.index) for m in report.members if m.address == offender), offender)


def _is_missing(check: Check) -> bool:
    """Whether something that the model rests on was not recomputed."""
    return check.number in MODEL_CHECKS and check.status is not Status.PASSED


def _last_model(peer: PeerProcess) -> str:
    """The model's digest with which a peer ended, by its log."""
    for line in reversed((peer.folder / "peer.log").read_text(encoding="utf-8").splitlines()):
        entry = json.loads(line)
        if entry.get("event") == "run finished":
            return str(entry["model"])
    return ""


def answering_store(devnet: Devnet) -> IpfsStore:
    """The last node that answers, as a stranger would use one."""
    for api in reversed(devnet.ipfs_apis):
        store = IpfsStore(api)
        try:
            store.identity()
        except FedchainError:
            continue
        return store
    return IpfsStore(devnet.ipfs_apis[0])
