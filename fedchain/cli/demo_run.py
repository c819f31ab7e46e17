"""The demonstration, step by step: devnet, contract, peers, rounds, audit, comparison."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..audit import Report, audit, write_html
from ..devnet.links import Links
from ..devnet.network import Devnet
from ..devnet.scenario import Scenario, find_launcher, find_scenario, read_scenario
from ..errors import ChainUnreachable, FedchainError, UsageError, WorldError
from ..learn import first_model, read_start
from ..protocol.ids import Digest
from ..protocol.phase import Phase, phase_of
from ..protocol.state import FederationState
from ..protocol.update_format import fetched_model_bound
from .demo_fairness import fairness_of, kept_of, metrics_of_round
from .demo_report import compare, print_ending, write_json
from .demo_view import DemoView
from .local import LocalFederation, PeerProcess
from .scenario_faults import Faults, check_points
from .scenario_run import answering_store

CRASH_POINTS = {"trainer": "after-training", "shareholder": "before-opening", "aggregator": "before-aggregate"}
DEMO_WINDOWS = {"enrol_s": 180, "training_s": 120, "receipt_s": 10, "aggregate_s": 5, "challenge_s": 60}
DEMO_PEERS = 5
WATCH_S = 0.2
PEER_POLL_S = 0.15
MOST_RESTARTS = 3
RESTART_S = 12.0
"""Who was killed comes back when its round has closed without it, or after so long where it cannot."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What the command line asked for."""

    federation: Path | None
    peers: int | None
    rounds: int | None
    seed: int | None
    workdir: Path
    keep: bool
    resume: bool
    settings: tuple[str, ...]
    kill: str | None
    scenario: str | None
    json_file: Path | None


class Demo:
    """One run of the demonstration."""

    def __init__(self, settings: DemoSettings, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._workdir = settings.workdir.absolute()
        self._crash = crash_environment(settings.kill, self._workdir)
        self._scenario, self._beside = scenario_of(settings)
        self._metrics: dict[int, dict[str, float]] = {}
        self._measured: dict[int, Digest] = {}
        self._died: dict[int, tuple[int, float]] = {}
        self._restarts: dict[int, int] = {}

    def run(self) -> None:
        """Everything, from nothing to the table at the end. Raises SystemExit(1) when the audit finds a fault."""
        began = time.monotonic()
        local = self._federation()
        charter = local.charter
        self._console.print(
            f"[bold]fedchain demo[/bold]  {charter.federation.name}: {len(local.members)} peers, at most"
            f" {charter.run.rounds} rounds, {charter.algorithm.name}, seed {charter.run.seed}"
        )
        devnet = Devnet(
            self._workdir / "devnet",
            peers=len(local.members),
            fresh=not self._settings.resume,
            keep=self._settings.keep,
        )
        try:
            with self._timed("devnet: an EVM chain, and one IPFS node a peer"):
                devnet.__enter__()
            try:
                self._run_on(devnet, local, began)
            finally:
                local.stop_peers()
                devnet.__exit__(None, None, None)
        except KeyboardInterrupt:
            self._console.print(
                "\nstopped; nothing is lost. To go on:"
                f" [bold]fedchain demo --resume --workdir {self._settings.workdir}[/bold]",
                soft_wrap=True,
            )
            raise

    def _federation(self) -> LocalFederation:
        asked = self._settings
        if asked.resume:
            if asked.federation or asked.rounds or asked.settings or asked.seed is not None:
                raise UsageError("--resume goes on with the charter as it was agreed; drop the other options")
            return LocalFederation.resume(self._workdir)
        settings = [f"windows.{name}={value}" for name, value in DEMO_WINDOWS.items()]
        settings += [f"run.seed={asked.seed}"] if asked.seed is not None else []
        settings += [f"run.rounds={asked.rounds}"] if asked.rounds is not None else []
        Devnet.stop_leftover(self._workdir / "devnet")
        if self._scenario is not None:
            source, peers = self._beside / self._scenario.federation, self._scenario.members
            settings += self._scenario.settings()
        else:
            source, peers = asked.federation or default_federation(), asked.peers or DEMO_PEERS
        return LocalFederation.found(self._workdir, source, peers, [*settings, *asked.settings])

    def _run_on(self, devnet: Devnet, local: LocalFederation, began: float) -> None:
        if not local.deployed:
            with self._timed("contract: deployed and verified, charter and first model stored"):
                local.deploy(devnet)
        state = self._play(devnet, local)
        local.wait_for_peers(10)
        store = answering_store(devnet)
        model = store.get(state.model_cid, fetched_model_bound(state.terms.model_size, local.charter))
        (self._workdir / "model.safetensors").write_bytes(model)
        report = self._audit(devnet, local)
        with self._timed("comparison: the same model trained centrally, and by each peer alone"):
            start = read_start(local.folder, local.charter, local.task, store.get_file)
            first = first_model(local.task, local.charter, start)
            last = len(state.closed)
            comparison = compare(local.charter, local.task, last, first, self._metrics[last] if last else {})
        meters = local.meters()
        kept = kept_of([peer.folder for peer in local.peers], state, last)
        fairness = fairness_of(local.charter, local.task, state, model, kept, meters)
        print_ending(self._console, self._workdir, local.charter, report, comparison, fairness, self._metrics, meters)
        seconds = time.monotonic() - began
        self._console.print(f"done in {seconds:.0f} s")
        if self._settings.keep:
            self._console.print(
                f"the devnet still runs: fedchain status --rpc {devnet.rpc} --contract {local.deployment.address};"
                f" stop it with fedchain devnet down --workdir {self._workdir / 'devnet'}",
                soft_wrap=True,
            )
        if self._settings.json_file is not None:
            write_json(
                self._settings.json_file,
                local.charter,
                state,
                local.deployment,
                report,
                comparison,
                fairness,
                self._metrics,
                meters,
                self._workdir,
                seconds,
            )
        if report.verdict != "ok":
            raise SystemExit(1)

    def _play(self, devnet: Devnet, local: LocalFederation) -> FederationState:
        """Start the peers, and follow the run to its end; a scenario's faults happen meanwhile."""
        with DemoView(self._console, local.charter, local.task.metric) as view, ExitStack() as ground:
            if self._scenario is None:
                local.prepare_peers(devnet, PEER_POLL_S)
                for peer in local.peers:
                    peer.start(self._crash)
                return self._watch(devnet, local, view, None)
            launcher = find_launcher(None) if self._scenario.lies else None
            faults = Faults(self._scenario, devnet, local, ground.enter_context(Links()), launcher, view.say)
            # A peer that stands still could not end.
            ground.callback(faults.end)
            faults.start()
            return self._watch(devnet, local, view, faults)

    def _watch(self, devnet: Devnet, local: LocalFederation, view: DemoView, faults: Faults | None) -> FederationState:
        """Follow the chain until the run is finished; whoever was killed is started again once its round has closed."""
        reader = local.reader(devnet)
        test_data = local.task.test_data()
        while True:
            try:
                state, now = reader.refresh(), reader.now()
            except ChainUnreachable as error:
                if faults is None:
                    devnet.check_alive()
                    view.say(str(error))
                    time.sleep(1)
                else:
                    faults.step(None, 0)
                    time.sleep(WATCH_S)
                continue
            finished = phase_of(state, state.round, now) is Phase.FINISHED
            try:
                self._measure(devnet, local, state, test_data)
            except WorldError:
                # A store that is down by a scenario comes back.
                if finished or faults is None:
                    raise
            view.show(state, now, self._metrics, [peer.alive for peer in local.peers])
            if finished:
                return state
            if faults is None:
                self._look_after(local.peers, state, view)
            else:
                faults.step(state, now)
            self._check_enough(local.peers, state)
            time.sleep(WATCH_S)

    def _measure(self, devnet: Devnet, local: LocalFederation, state: FederationState, test_data: Any) -> None:
        """The metrics of every closed round's model; anew where a wrong one fell."""
        for round, closed in state.closed.items():
            assert closed.result is not None
            if self._measured.get(round) == closed.result.model_digest:
                continue
            bound = fetched_model_bound(state.terms.model_size, local.charter)
            model = answering_store(devnet).get(closed.result.model_cid, bound)
            kept = kept_of([peer.folder for peer in local.peers], state, round)
            self._metrics[round] = metrics_of_round(local.charter, local.task, model, kept, test_data)
            self._measured[round] = closed.result.model_digest

    def _look_after(self, peers: list[PeerProcess], state: FederationState, view: DemoView) -> None:
        for peer in peers:
            code = peer.exit_code
            if code is None or code == 0:
                continue
            if peer.index not in self._died:
                self._died[peer.index] = state.round, time.monotonic()
                how = "was killed" if code < 0 else f"failed: {peer.last_words()}"
                view.say(f"peer {peer.index} {how} (round {state.round})")
            round, when = self._died[peer.index]
            seen = state.round > round or time.monotonic() > when + RESTART_S
            if code < 0 and seen and self._restarts.get(peer.index, 0) < MOST_RESTARTS:
                del self._died[peer.index]
                self._restarts[peer.index] = self._restarts.get(peer.index, 0) + 1
                view.say(f"peer {peer.index} is started again: it reads the chain and its journal, and goes on")
                peer.start()

    def _check_enough(self, peers: list[PeerProcess], state: FederationState) -> None:
        """Raise FedchainError where so many peers failed that no round can close."""
        failed = sorted((peer for peer in peers if peer.exit_code), key=lambda peer: -(peer.exit_code or 0))
        enough = len(peers) - len(failed) >= state.min_participants
        if not enough and (failed[0].exit_code or 0) > 0:
            raise FedchainError(
                f"{len(failed)} of {len(peers)} peers failed, too many to go on; peer {failed[0].index} said:"
                f" {failed[0].last_words()} (see {failed[0].folder / 'output.log'})"
            )

    def _audit(self, devnet: Devnet, local: LocalFederation) -> Report:
        """Audit as a stranger would: a fresh reader, another peer's store, no key."""
        with self._timed("audit: every round recomputed from chain and store, with no key"):
            report = audit(local.reader(devnet), answering_store(devnet))
            write_html(report, self._workdir / "audit.html")
        return report

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        """A step of the demonstration: a spinner while it runs, its seconds when it is done."""
        began = time.monotonic()
        with self._console.status(name):
            yield
        self._console.print(f"  [green]✓[/green] {name} [dim]{time.monotonic() - began:.1f} s[/dim]")


def scenario_of(settings: DemoSettings) -> tuple[Scenario | None, Path]:
    """The scenario whose faults are played, and the folder from which it sees its federation."""
    if settings.scenario is None:
        return None, Path()
    if settings.federation or settings.peers or settings.kill or settings.resume:
        raise UsageError("--scenario says which federation, how many peers and which faults; drop the other options")
    path = find_scenario(settings.scenario)
    scenario = read_scenario(path)
    check_points(scenario)
    return scenario, path.parent


def crash_environment(kill: str | None, workdir: Path) -> dict[str, str]:
    """The crash point that `--kill ROLE@ROUND` asks for; only the first process to get there dies."""
    if kill is None:
        return {}
    role, _, round = kill.partition("@")
    if role not in CRASH_POINTS or not round.isdigit() or int(round) < 1:
        raise UsageError(f"--kill {kill!r}: write ROLE@ROUND with a role of {', '.join(CRASH_POINTS)} (aggregator@2)")
    return {
        "FEDCHAIN_CRASH_AT": f"{CRASH_POINTS[role]}@{int(round)}",
        "FEDCHAIN_CRASH_ONCE": str(workdir / "killed"),
    }


def default_federation() -> Path:
    """peers/digits, from the current folder or the source tree this package was installed from."""
    for root in (Path.cwd(), Path(__file__).parents[2]):
        if (root / "peers" / "digits" / "federation.toml").exists():
            return root / "peers" / "digits"
    raise UsageError("peers/digits is not here; name a federation's folder with --federation DIR")
