"""Real peers that hand their statements to a relayer: one transaction a phase for all of them, and the same round."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedchain.audit import audit
from fedchain.chain.keys import new_identity
from fedchain.chain.reader import Reader
from fedchain.cli.local import LocalFederation
from fedchain.devnet.network import Devnet
from fedchain.devnet.processes import die_with_parent
from fedchain.protocol.events import OpeningPublished, ReceiptPosted, UpdateCommitted
from fedchain.protocol.phase import Phase, phase_of
from fedchain.store.ipfs import IpfsStore

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "windows.enrol_s=120",
    "windows.training_s=120",
    "windows.receipt_s=60",
    "windows.aggregate_s=60",
    "windows.challenge_s=1",
    "run.rounds=1",
    "algorithm.local_epochs=1",
]
PATIENCE_S = 200


def current_phase(reader: Reader) -> Phase:
    state = reader.refresh()
    return phase_of(state, state.round, reader.now())


@pytest.mark.timeout(400)
def test_a_relayer_sends_one_transaction_a_phase_for_all(devnet: Devnet, tmp_path: Path) -> None:
    local = LocalFederation.found(tmp_path / "run", ROOT / "peers" / "hospitals", 3, SETTINGS)
    local.deploy(devnet)
    local.prepare_peers(devnet, poll_s=0.2)
    key, shared = tmp_path / "relay.json", tmp_path / "shared"
    address = new_identity(key, "relay", fast=True).address
    devnet.fund(address, 10**19)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FEDCHAIN_PASSWORD": "relay", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "fedchain.cli.main", "relay", str(shared), "--key", str(key), "--rpc", devnet.rpc]
    command += ["--deployment", str(local.workdir / "deployment.json"), "--poll", "0.2"]
    with (tmp_path / "relay.log").open("wb") as output:
        relayer = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, preexec_fn=die_with_parent
        )
    try:
        for peer in local.peers:
            peer.environment["PYTHONPATH"] = str(ROOT)
            peer.command += ["--relay", str(shared)]
            peer.start()
        reader, deadline = local.reader(devnet), time.monotonic() + PATIENCE_S
        while current_phase(reader) is not Phase.FINISHED:
            said = (tmp_path / "relay.log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, [said, *(peer.last_words() for peer in local.peers)]
            time.sleep(0.2)
        assert relayer.wait(20) == 0
    finally:
        relayer.kill()
        local.stop_peers()
    for kind in (UpdateCommitted, ReceiptPosted, OpeningPublished):
        logged = [(entry.event.index, entry.transaction) for entry in reader.log() if isinstance(entry.event, kind)]
        assert {index for index, _ in logged} == {0, 1, 2}
        assert len({transaction for _, transaction in logged}) == 1, kind.__name__
    assert audit(reader, IpfsStore(devnet.ipfs_apis[1])).faults == ()
