"""`fedchain model` against a real chain and a real store, after a short run: fetched, held to the chain, used."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import Done, fedchain
from sklearn.datasets import load_breast_cancer

from fedchain.cli.local import LocalFederation
from fedchain.devnet.network import Devnet
from fedchain.protocol.phase import Phase, phase_of

PEERS = Path(__file__).parents[2] / "peers"
WINDOWS = ["enrol_s=60", "training_s=60", "receipt_s=20", "aggregate_s=4", "challenge_s=1"]


def command(*arguments: object) -> Done:
    """Run `fedchain model`: what it printed, and its exit code."""
    return fedchain("model", *arguments)


@pytest.fixture(scope="module")
def ran(devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalFederation, Any]]:
    """Three hospitals after two rounds, and the state that their chain then holds."""
    settings = [f"windows.{window}" for window in WINDOWS] + ["run.rounds=2", "algorithm.local_epochs=4"]
    local = LocalFederation.found(tmp_path_factory.mktemp("model") / "run", PEERS / "hospitals", 3, settings)
    try:
        local.deploy(devnet)
        local.prepare_peers(devnet, poll_s=0.1)
        for peer in local.peers:
            peer.start()
        reader, deadline = local.reader(devnet), time.monotonic() + 200
        while phase_of(state := reader.refresh(), state.round, reader.now()) is not Phase.FINISHED:
            assert time.monotonic() < deadline, [peer.last_words() for peer in local.peers]
            time.sleep(0.1)
        local.wait_for_peers(10)
        yield local, state
    finally:
        local.stop_peers()


def test_the_final_model_is_fetched_and_predicts_from_raw_rows(
    devnet: Devnet, ran: tuple[LocalFederation, Any], tmp_path: Path
) -> None:
    local, state = ran
    where = ("--rpc", devnet.rpc, "--contract", local.deployment.address, "--ipfs", devnet.ipfs_apis[1])
    model = tmp_path / "model.safetensors"
    fetched = command("fetch", *where, "--out", model, "--recompute", "all")
    assert fetched.returncode == 0, fetched.stderr
    assert hashlib.sha256(model.read_bytes()).digest() == state.model_digest
    assert "after round 2, the last of the run" in fetched.stderr
    assert "computed again from the encrypted updates of 2 rounds: the same" in fetched.stderr
    measured, benign = load_breast_cancer(return_X_y=True)
    rows = [[*map(repr, patient.tolist()), str(1 - truth)] for patient, truth in zip(measured, benign, strict=True)]
    head = [f"m{i}" for i in range(30)] + ["malignant"]
    table = tmp_path / "patients.csv"
    table.write_text("\n".join(",".join(row) for row in [head, *rows]) + "\n", encoding="utf-8")
    by_folder = command("predict", local.folder, table, *where, "--target", "malignant")
    assert by_folder.returncode == 0, by_folder.stderr
    said = [line.split(",") for line in by_folder.stdout.splitlines()]
    assert said[0] == ["class", "p1"] and len(said) == 570
    right = sum(int(row[0]) == 1 - truth for row, truth in zip(said[1:], benign, strict=True)) / 569
    assert right > 0.8, "raw rows are scaled as the task says"
    assert f"accuracy {right:.4f}" in by_folder.stderr
    by_file = command("predict", local.folder / "task.py", table, "--model", model, "--ignore", "malignant", *where)
    assert by_file.returncode == 0, by_file.stderr
    assert by_file.stdout == by_folder.stdout


def test_a_federation_with_another_charter_than_the_folders_predicts_nothing(
    devnet: Devnet, ran: tuple[LocalFederation, Any], tmp_path: Path
) -> None:
    local, _ = ran
    rows = tmp_path / "rows.csv"
    rows.write_text("1,2\n", encoding="utf-8")
    where = ("--rpc", devnet.rpc, "--contract", local.deployment.address, "--ipfs", devnet.ipfs_apis[1])
    refused = command("predict", PEERS / "digits", rows, *where)
    assert refused.returncode == 2 and "the contract holds" in refused.stderr and refused.stdout == ""
