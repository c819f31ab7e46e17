"""What a peer keeps of its own training, and how long it may train: both read from the chain."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from fedchain.cli.charter import summary_of
from fedchain.cli.main import app
from fedchain.errors import UsageError
from fedchain.learn import first_model, load_task
from fedchain.peer.kept import KeptState
from fedchain.peer.pace import Pace, missed
from fedchain.protocol.charter import Algorithm, Outer, read_charter
from fedchain.protocol.ids import Bitmap, Index
from fedchain.protocol.model import assemble, layout_from, layout_of
from fedchain.protocol.state import FederationState

ME = Index(2)
ADAPTIVE = Algorithm(local_steps="adaptive")
HOSPITALS = Path(__file__).parents[2] / "peers" / "hospitals"


def content(number: float) -> bytes:
    return assemble(layout_from({"own": (1,)}), np.array([number], np.float32))


def closed(stage: Any, *rounds: tuple[int, bool]) -> FederationState:
    """The state after these rounds: by which attempt each closed, and whether this peer was in its sum."""
    attempts = {}
    for round, (attempt, taken) in enumerate(rounds, start=1):
        one = stage.world.state.closed[1]
        participants = Bitmap(0b11111 if taken else 0b11011)
        attempts[round] = replace(
            one, round=round, attempt=attempt, aggregate=replace(one.aggregate, participants=participants)
        )
    return replace(stage.world.state, closed=MappingProxyType(attempts))


def test_the_state_of_the_newest_sum_that_a_peer_was_in_counts(stage: Any, tmp_path: Path) -> None:
    kept = KeptState(tmp_path / "kept", ME)
    assert kept.latest(closed(stage, (0, True)), 2) is None and kept.newest() is None
    for round, attempt in ((1, 0), (1, 1), (2, 0), (3, 0)):
        kept.write(round, attempt, content(10 * round + attempt))
    state = closed(stage, (0, True), (0, False), (0, True))
    assert [kept.latest(state, round) for round in (1, 2, 3, 4)] == [None, content(10), content(10), content(30)]
    assert kept.latest(closed(stage, (1, True), (0, False)), 3) == content(11), "attempt 0 of round 1 was void"
    again = KeptState(tmp_path / "kept", ME)
    assert again.latest(closed(stage, (0, True)), 3) == content(10), "rounds 2 and 3 fell"
    assert again.newest() == content(30)


def test_old_state_is_let_go_but_for_the_newest_of_it(stage: Any, tmp_path: Path) -> None:
    kept = KeptState(tmp_path, ME)
    for round in (1, 2, 5):
        kept.write(round, 0, content(round))
    kept.forget(5)
    assert kept.latest(closed(stage, (0, True), (0, True), (0, False)), 4) == content(2)
    assert kept.latest(closed(stage, (0, True), (0, False)), 3) is None
    assert not list(tmp_path.glob("*.part"))


def test_damaged_state_is_said_and_never_used(stage: Any, tmp_path: Path) -> None:
    kept = KeptState(tmp_path, ME)
    kept.write(1, 0, content(1)[:-1])
    with pytest.raises(UsageError, match="is damaged"):
        kept.latest(closed(stage, (0, True)), 2)


def test_fixed_local_steps_have_no_budget(stage: Any) -> None:
    attempt = stage.receipts.current
    assert Pace().budget_s(Algorithm(), stage.receipts, attempt, attempt.started_at, ME) == math.inf


def test_a_budget_is_what_the_window_leaves_after_what_follows_the_training(stage: Any) -> None:
    state, attempt = closed(stage), stage.receipts.current
    assert state.terms.training_window_s == 60
    pace, begun = Pace(), attempt.started_at

    def budget(now: int, algorithm: Algorithm = ADAPTIVE) -> float:
        return pace.budget_s(algorithm, state, attempt, now, ME)

    assert budget(begun) == 45, "a quarter is left for what it has not measured yet"
    assert budget(begun + 20) == 25
    assert budget(begun + 59) == 0, "too late for more than a step"
    assert budget(begun, Algorithm(local_steps="adaptive", budget_s=7.5)) == 7.5
    pace.note(10.0)
    pace.note(2.0)
    assert budget(begun) == 45, "10 s and half as much again"
    pace.note(20.0)
    assert budget(begun) == 30


def test_who_missed_rounds_trains_half_as_long_the_next_time(stage: Any) -> None:
    attempt = stage.receipts.current
    budgets = [
        Pace().budget_s(ADAPTIVE, closed(stage, *((0, taken) for taken in taking)), attempt, attempt.started_at, ME)
        for taking in ([], [True], [False], [False, False], [False, True], [True, False])
    ]
    assert budgets == [45, 45, 22.5, 11.25, 45, 22.5]
    newcomer = closed(stage, (0, False))
    stood = replace(newcomer.closed[1], standing=Bitmap(0b11011))
    assert missed(replace(newcomer, closed=MappingProxyType({1: stood})), ME) == 0, "it did not count in that round"


def test_tuning_says_what_it_gains_and_writes_a_whole_model(tmp_path: Path) -> None:
    charter = read_charter(HOSPITALS)
    task = load_task(HOSPITALS / "task.py", charter.task_sha256)
    model = tmp_path / "model.safetensors"
    model.write_bytes(first_model(task, charter.with_settings(["outer.optimizer=fedavgm"])))
    out = tmp_path / "own.safetensors"
    command = ["peer", "tune", str(HOSPITALS), "--model", str(model), "--member", "1", "--members", "3"]
    done = CliRunner().invoke(app, [*command, "--out", str(out), "--epochs", "2"], catch_exceptions=False)
    assert done.exit_code == 0
    before, after = (line.split() for line in done.stdout.splitlines()[1:3])
    assert before[0] == "before" and after[0] == "after" and float(after[1]) > float(before[1])
    assert layout_of(out.read_bytes()) == layout_of(first_model(task, charter)), "no state beside it"
    with pytest.raises(UsageError, match=r"own\.safetensors/below cannot be written"):
        CliRunner().invoke(app, [*command, "--out", str(out / "below")], catch_exceptions=False)
    model.write_text("rows, and no model", encoding="utf-8")
    with pytest.raises(UsageError, match=r"model\.safetensors is no model of this task: "):
        CliRunner().invoke(app, [*command, "--out", str(out)], catch_exceptions=False)
    with pytest.raises(UsageError, match="the charter names 0 members; give --members"):
        CliRunner().invoke(app, [*command[:-2], "--out", str(out)], catch_exceptions=False)


def test_a_charter_in_short_says_how_its_members_learn() -> None:
    charter = read_charter(HOSPITALS).with_settings(
        ["outer.optimizer=fedadam", "algorithm.local_steps=adaptive", 'algorithm.local_tensors=["4.*"]']
    )
    assert summary_of(charter.algorithm, charter.outer) == (
        "at most 10 local epochs, batches of 16; fedadam with beta1 0.9 and learning rate 0.01;"
        " 4.* stay with each member"
    )
    assert summary_of(Algorithm(), Outer()) == "1 local epoch, batches of 32"
