"""Liars among real peers: slashed, replaced or rolled back; the run ends with exactly the model of the honest one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedchain.audit import Report, audit
from fedchain.chain.keys import new_identity
from fedchain.cli.local import LocalFederation
from fedchain.devnet.network import Devnet
from fedchain.devnet.processes import die_with_parent
from fedchain.ports import Logged
from fedchain.protocol.events import MemberSlashed, MotionVoted, PageShown
from fedchain.protocol.ids import Digest, members_of
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.state import FederationState
from fedchain.store.ipfs import IpfsStore

ROOT = Path(__file__).parents[2]
MISBEHAVE = ROOT / "tests" / "misbehave.py"
MEMBERS, ROUNDS = 5, 2
LIAR = 1
"""The aggregator of round 2, the last one: what everybody trained before it speaks is what it would have been."""

SETTINGS = [
    "windows.enrol_s=120",
    "windows.training_s=120",
    "windows.receipt_s=30",
    "windows.aggregate_s=4",
    "windows.challenge_s=100",
    f"run.rounds={ROUNDS}",
    "run.seed=11",
    "algorithm.local_epochs=1",
]
PATIENCE_S = 300


@pytest.fixture(scope="module")
def found(devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., LocalFederation]]:
    """Founds a federation whose members lie as told, `{1: "wrong-sum"}`, and starts it; it ends with the module."""
    made: list[LocalFederation] = []

    def start(name: str, liars: dict[int, str], *options: str) -> LocalFederation:
        folder = tmp_path_factory.mktemp(name)
        local = LocalFederation.found(folder, ROOT / "peers" / "hospitals", MEMBERS, SETTINGS)
        local.deploy(devnet)
        local.prepare_peers(devnet, poll_s=0.1)
        made.append(local)
        for peer in local.peers:
            peer.environment["PYTHONPATH"] = str(ROOT)
            peer.command += options
            if peer.index in liars:
                peer.command[1:3] = [str(MISBEHAVE), liars[peer.index], str(ROUNDS)]
            peer.start()
        return local

    yield start
    for local in made:
        local.stop_peers()


def ended(local: LocalFederation, devnet: Devnet, slashed: int) -> FederationState:
    """The state in which the run is finished and so many were slashed for it."""
    reader, deadline = local.reader(devnet), time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        state, now = reader.refresh(), reader.now()
        if phase_of(state, state.round, now) is Phase.FINISHED and len(members_of(state.slashed)) == slashed:
            return state
        time.sleep(0.1)
    words = "\n".join(f"peer {peer.index}: {peer.last_words()}" for peer in local.peers)
    raise AssertionError(f"not done after {PATIENCE_S} s; last words:\n{words}")


def audited(local: LocalFederation, devnet: Devnet) -> Report:
    return audit(local.reader(devnet), IpfsStore(devnet.ipfs_apis[2]))


@pytest.fixture(scope="module")
def honest_model(devnet: Devnet, found: Callable[..., LocalFederation]) -> Digest:
    """What the same members come to when nobody lies."""
    local = found("honest", {})
    state = ended(local, devnet, slashed=0)
    local.wait_for_peers(10)
    assert [peer.exit_code for peer in local.peers] == [0] * MEMBERS, [p.last_words() for p in local.peers]
    return state.model_digest


def test_a_lying_aggregator_is_slashed_and_replaced_within_the_round(
    devnet: Devnet, found: Callable[..., LocalFederation], honest_model: Digest
) -> None:
    local = found("wrong-sum", {LIAR: "wrong-sum"})
    state = ended(local, devnet, slashed=1)
    assert members_of(state.slashed) == (LIAR,)
    closed = state.closed[ROUNDS]
    assert closed.attempt == 0, "the round did not begin again"
    assert closed.aggregate is not None and closed.aggregate.index == LIAR
    assert closed.aggregate.participants == 0b11111, "its update is in the sum all the same"
    assert [refuted.index for refuted in closed.refuted_sums] == [LIAR]
    assert closed.posted_sum is not None and closed.posted_sum.index != LIAR
    assert state.model_digest == honest_model
    local.wait_for_peers(20)
    codes = [peer.exit_code for peer in local.peers]
    assert [code for index, code in enumerate(codes) if index != LIAR] == [0] * 4, [p.last_words() for p in local.peers]
    report = audited(local, devnet)
    assert report.faults == ()
    (fallen,) = report.refutations
    assert (fallen.what, fallen.round, fallen.offender) == ("aggregate", ROUNDS, LIAR)
    assert fallen.slash is not None and fallen.slash.challenger in local.members
    assert fallen.restated_by == closed.posted_sum.index


def test_a_lying_closer_is_slashed_by_a_peer_and_the_model_rolled_back(
    devnet: Devnet, found: Callable[..., LocalFederation], honest_model: Digest
) -> None:
    local = found("wrong-result", {LIAR: "wrong-result"})
    state = ended(local, devnet, slashed=1)
    closed = state.closed[ROUNDS]
    assert [refuted.index for refuted in closed.refuted_results] == [LIAR]
    assert closed.refuted_results[0].model_digest != honest_model
    assert closed.result is not None and closed.result.index != LIAR
    assert state.model_digest == honest_model
    report = audited(local, devnet)
    assert report.faults == ()
    assert [(r.what, r.offender, r.slash and r.slash.rule) for r in report.refutations] == [("result", LIAR, 3)]


def test_a_wrong_model_beside_a_right_result_is_refused_by_vote_and_its_whole_bond_burnt(
    devnet: Devnet, found: Callable[..., LocalFederation], honest_model: Digest
) -> None:
    local = found("wrong-model", {LIAR: "wrong-model"})
    state = ended(local, devnet, slashed=1)
    closed = state.closed[ROUNDS]
    assert [refuted.index for refuted in closed.refuted_results] == [LIAR]
    assert closed.result is not None and closed.result.index != LIAR
    assert state.model_digest == honest_model
    (slash,) = [e.event for e in refreshed(local, devnet) if isinstance(e.event, MemberSlashed)]
    assert (slash.index, slash.rule, slash.burnt_wei, slash.reward_wei) == (LIAR, 7, state.terms.bond_wei, 0)
    report = audited(local, devnet)
    assert report.faults == ()
    assert [(fallen.by, fallen.right) for fallen in report.refutations] == [("vote", False)]


@pytest.mark.parametrize(("liar", "rule"), [("hidden-sum", 1), pytest.param("silent-sum", 6, marks=pytest.mark.slow)])
def test_a_wrong_sum_that_is_kept_back_is_brought_down_by_demands(
    devnet: Devnet, found: Callable[..., LocalFederation], honest_model: Digest, liar: str, rule: int
) -> None:
    """Either its author shows the pages that lead to the wrong leaf (R1), or it falls for its silence."""
    local = found(liar, {LIAR: liar}, "--stay")
    state = ended(local, devnet, slashed=1)
    closed = state.closed[ROUNDS]
    assert [refuted.index for refuted in closed.refuted_sums] == [LIAR]
    assert closed.result is not None and closed.result.at < closed.sum_fell_at, "nothing waited for the demands"
    assert state.model_digest == honest_model
    events = [entry.event for entry in refreshed(local, devnet)]
    (slash,) = [event for event in events if isinstance(event, MemberSlashed)]
    assert (slash.index, slash.rule) == (LIAR, rule)
    assert slash.challenger in local.members
    shown = [event for event in events if isinstance(event, PageShown)]
    assert len(shown) == (len(state.demands) if rule == 1 else 0)
    assert all(event.account == local.members[LIAR] for event in shown), "only its author has it"
    assert audited(local, devnet).faults == ()


def test_a_spoiled_round_is_given_up_by_vote_and_closes_at_the_next_attempt(
    devnet: Devnet, found: Callable[..., LocalFederation]
) -> None:
    local = found("spoiler", {LIAR: "spoiler"})
    state = ended(local, devnet, slashed=0)
    closed = state.closed[ROUNDS]
    assert closed.attempt == 1
    (given_up,) = state.abandoned[closed.base_digest]
    assert closed.aggregate is not None and closed.aggregate.participants == given_up == 0b11111
    events = [entry.event for entry in refreshed(local, devnet)]
    voters = [event.index for event in events if isinstance(event, MotionVoted)]
    assert len(voters) == len(set(voters)) >= closed.threshold, "nobody votes twice"
    (spoiled,) = state.voided
    assert spoiled.opened & closed.opened, "who opened the one set opened the other, dealt anew"
    report = audited(local, devnet)
    assert report.faults == ()
    (given_up_attempt,) = report.unfinished
    assert given_up_attempt.outcome == "abandoned"
    assert "its openings do not open it" in given_up_attempt.check(8).detail
    local.wait_for_peers(30)
    assert [peer.exit_code for peer in local.peers] == [0] * MEMBERS, [p.last_words() for p in local.peers]


def refreshed(local: LocalFederation, devnet: Devnet) -> tuple[Logged, ...]:
    reader = local.reader(devnet)
    reader.refresh()
    return reader.log()


class Watchtower:
    """`fedchain audit --watch --challenge` by somebody who is no member, as a process."""

    def __init__(self, devnet: Devnet, local: LocalFederation, folder: Path) -> None:
        key, self.output = folder / "tower.json", folder / "tower.log"
        self.address = new_identity(key, "watch", fast=True).address
        devnet.fund(self.address, 10**19)
        command = [sys.executable, "-m", "fedchain.cli.main", "audit", "--watch", "--challenge", "--key", str(key)]
        command += ["--rpc", devnet.rpc, "--deployment", str(local.workdir / "deployment.json")]
        command += ["--ipfs", devnet.ipfs_apis[3], "--poll", "0.2"]
        environment = {"FEDCHAIN_PASSWORD": "watch", "PYTHONPATH": str(ROOT), "COLUMNS": "300", "NO_COLOR": "1"}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


def test_a_watchtower_of_no_member_challenges_one_closer_after_another(
    devnet: Devnet, found: Callable[..., LocalFederation], honest_model: Digest, tmp_path: Path
) -> None:
    """First the aggregator closes with a wrong S (R2), then the next in turn with a wrong sum (R3); peers only wait."""
    local = found("tower", {LIAR: "wrong-key-sum", LIAR + 1: "wrong-result"}, "--no-challenge")
    tower: Any = Watchtower(devnet, local, tmp_path)
    try:
        state = ended(local, devnet, slashed=2)
    finally:
        tower.stop()
    said = tower.said()
    closed = state.closed[ROUNDS]
    assert [refuted.index for refuted in closed.refuted_results] == [LIAR, LIAR + 1], said
    assert state.model_digest == honest_model
    report = audited(local, devnet)
    assert report.faults == ()
    assert [(r.offender, r.slash and (r.slash.rule, r.slash.challenger)) for r in report.refutations] == [
        (LIAR, (2, tower.address)),
        (LIAR + 1, (3, tower.address)),
    ]
    for rule, liar in (("R2", LIAR), ("R3", LIAR + 1)):
        assert f"✓ {rule} against {local.members[liar]} in round {ROUNDS}: upheld" in said
    bond = state.terms.bond_wei
    assert "earned" in said and bond > 0
