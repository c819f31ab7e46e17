"""Members come and go while a federation runs: one is admitted, one resigns, one rotates its key; bonds come back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedchain.audit import audit
from fedchain.chain.keys import encryption_files, new_identity
from fedchain.cli.local import FUNDS_WEI, LocalFederation
from fedchain.devnet.network import Devnet
from fedchain.protocol.events import BondWithdrawn
from fedchain.protocol.ids import Index
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.state import FederationState
from fedchain.store.ipfs import IpfsStore

ROOT = Path(__file__).parents[2]
FOUNDERS, ROUNDS, JOINER, LEAVER, ROTATES = 4, 2, 4, 3, 0
SETTINGS = [
    "windows.enrol_s=240",
    "windows.training_s=240",
    "windows.receipt_s=30",
    "windows.aggregate_s=8",
    "windows.challenge_s=1",
    f"run.rounds={ROUNDS}",
    "algorithm.local_epochs=1",
]
PATIENCE_S = 240


class Members:
    """A federation of four, and what they type."""

    def __init__(self, local: LocalFederation, devnet: Devnet) -> None:
        self.local, self.devnet = local, devnet

    def run(self, index: int, *arguments: str, folder: bool = False) -> str:
        """What `fedchain …` of one member says; it must succeed."""
        ran = self.typed(index, *arguments, folder=folder)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def typed(self, index: int, *arguments: str, folder: bool = False) -> subprocess.CompletedProcess[str]:
        local = self.local
        command = [sys.executable, "-m", "fedchain.cli.main", *arguments, *([str(local.folder)] if folder else [])]
        command += ["--key", str(local.key_of(index)), "--password-file", str(local.workdir / "password")]
        command += ["--rpc", self.devnet.rpc, "--deployment", str(local.workdir / "deployment.json")]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def wait(self, done: Callable[[FederationState, int], bool]) -> FederationState:
        reader, deadline = self.local.reader(self.devnet), time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            state, now = reader.refresh(), reader.now()
            if done(state, now):
                return state
            time.sleep(0.2)
        words = "\n".join(f"peer {peer.index}: {peer.last_words()}" for peer in self.local.peers if peer.process)
        raise AssertionError(f"not done after {PATIENCE_S} s; last words:\n{words}")


@pytest.fixture
def members(devnet: Devnet, tmp_path: Path) -> Iterator[Members]:
    local = LocalFederation.found(tmp_path / "run", ROOT / "peers" / "hospitals", FOUNDERS, SETTINGS)
    local.deploy(devnet)
    local.prepare_peers(devnet, poll_s=0.2)
    password = (local.workdir / "password").read_text(encoding="utf-8")
    devnet.fund(new_identity(local.key_of(JOINER), password, fast=True).address, FUNDS_WEI)
    local.peers.append(local.peer_of(devnet, JOINER, poll_s=0.2))
    for peer in local.peers:
        peer.environment["PYTHONPATH"] = str(ROOT)
    yield Members(local, devnet)
    local.stop_peers()


@pytest.mark.timeout(500)
def test_one_is_admitted_one_resigns_one_rotates_its_key_and_all_bonds_come_back(members: Members) -> None:
    local = members.local
    joiner = local.identity(JOINER).address
    for index in range(LEAVER):
        local.peers[index].start()
    # The leaver enrols, but its peer waits: the first round stands still until all is decided.
    members.run(LEAVER, "enrol", folder=True)
    members.wait(lambda state, now: phase_of(state, 1, now) is Phase.TRAINING)
    refused = members.typed(JOINER, "enrol", folder=True)
    assert refused.returncode == 2 and f"fedchain vote admit {joiner}" in refused.stderr

    for voter in range(3):
        said = members.run(voter, "vote", "admit", joiner, "--yes")
        assert f"voted to admit {joiner}" in said
    old_key = local.identity(ROTATES).encryption_public
    members.run(ROTATES, "rotate-key")
    members.run(LEAVER, "resign", "--yes")
    local.peers[JOINER].start()
    state = members.wait(lambda state, now: bool(state.joining >> JOINER & 1))
    assert state.leaving == 1 << LEAVER and len(encryption_files(local.key_of(ROTATES))) == 2
    new_key = state.members[Index(ROTATES)].encryption_key
    assert new_key != old_key

    local.peers[LEAVER].start()
    state = members.wait(lambda state, now: phase_of(state, state.round, now) is Phase.FINISHED)
    local.wait_for_peers(30)
    assert [peer.exit_code for peer in local.peers] == [0] * 5, [peer.last_words() for peer in local.peers]
    first, second = state.closed[1], state.closed[2]
    assert (first.standing, second.standing) == (0b01111, 0b10111)
    assert first.aggregate is not None and first.aggregate.participants == 0b01111
    assert second.aggregate is not None and second.aggregate.participants == 0b10111
    assert first.members[Index(ROTATES)].encryption_key == old_key
    assert second.members[Index(ROTATES)].encryption_key == new_key
    assert Index(ROTATES) in first.openings and Index(ROTATES) in second.openings
    assert [file.name for file in encryption_files(local.key_of(ROTATES)).values()] == ["key.x25519.2.json"]

    for index in range(5):
        members.run(index, "withdraw")
    reader = local.reader(members.devnet)
    assert reader.refresh().bonded == 0
    returned = [e.event.amount_wei for e in reader.log() if isinstance(e.event, BondWithdrawn)]
    assert returned == [state.terms.bond_wei] * 5
    assert audit(reader, IpfsStore(members.devnet.ipfs_apis[2])).faults == ()
