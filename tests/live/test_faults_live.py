"""What the world does to whole peers: their chain goes back, their IPFS node dies, their disk is full.

Each time the round closes; what had been promised is on chain to the byte and once, and nobody is blamed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from plug import Plug
from plugged import Federation, Scene, State

from fedchain.devnet.network import Devnet
from fedchain.protocol.phase import Phase, phase_of

DUTIES = ("enrol", "commit", "receipt", "aggregate", "opening", "result")


@pytest.fixture
def own_devnet(tmp_path: Path) -> Iterator[Devnet]:
    """A devnet that a test may break; its chain is saved when the test says so."""
    with Devnet(tmp_path / "devnet", peers=3, save_every_s=3600) as net:
        yield net


@pytest.mark.slow
def test_a_chain_that_dies_in_every_phase_and_comes_back_without_it_is_told_everything_again(
    own_devnet: Devnet, tmp_path: Path
) -> None:
    """It is restored as it was when the phase before began: enrolments, updates, the set and the openings are lost."""
    federation = Federation(own_devnet, tmp_path / "run", Scene("restored", DUTIES, ()))
    own_devnet._chain.save()
    lost: list[Phase] = []
    reached = Phase.ENROLLING

    def lose(state: State, now: int) -> None:
        nonlocal reached
        phase = phase_of(state, state.round, now)
        if phase in (reached, Phase.FINISHED):
            return
        if phase in lost:
            reached = phase
            own_devnet._chain.save()
            return
        lost.append(phase)
        own_devnet.kill_chain()
        time.sleep(1)  # Long enough for peers to notice.
        own_devnet.restart_chain()

    federation.run(each=lose)
    federation.check()
    assert {Phase.TRAINING, Phase.RECEIPTS, Phase.OPENING} <= set(lost), "a short phase may pass unseen"
    assert "trying again" in (federation.victim.folder / "peer.log").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "words"),
    [(3, "trying again"), (5, "update not yet available"), (10, "update not yet available")],
    ids=["upload", "receipt", "result"],
)
def test_an_ipfs_node_that_dies_is_waited_for(own_devnet: Devnet, tmp_path: Path, line: int, words: str) -> None:
    """The peer finds its node dead right before it would store its upload, fetch the others', or store the result."""
    federation = Federation(own_devnet, tmp_path / "run", Scene("no node", DUTIES, ()))
    back: list[bool] = []

    def bring_back(state: State, now: int) -> None:
        log = federation.victim.folder / "peer.log"
        if federation.victim.deaths and not back and words in log.read_text(encoding="utf-8"):
            own_devnet.restart_ipfs(0)
            back.append(True)

    federation.run(Plug(line, "before"), each=bring_back, died=lambda: own_devnet.kill_ipfs(0))
    federation.check()
    assert back


@pytest.mark.slow
def test_a_disk_that_is_full_stops_a_peer_before_it_acts_and_room_lets_it_go_on(devnet: Devnet, tmp_path: Path) -> None:
    """No file of this peer's may grow beyond a bound, as on a full disk; when it stops, there is a little more room.

    What is not journalled fails and is tried again. A promise without room ends the process in one line.
    """
    federation = Federation(devnet, tmp_path / "run", Scene("full disk", DUTIES, ()))
    victim, stopped = federation.victim, []
    victim.room = 300

    def make_room(state: State, now: int) -> None:
        if victim.exit_code == 2:
            assert "cannot be written" in victim.last_words() and "make room, and start again" in victim.last_words()
            federation.torn_off.append(victim.journal.read_bytes())
            stopped.append(victim.room)
            # In the end what it decoded needs more room than its journal: for that it would wait, and not stop.
            victim.room = victim.room + 500 if victim.room < 3000 else 1 << 20
            victim.start()

    federation.run(each=make_room)
    federation.check()
    assert len(stopped) >= 5, "the journal was without room again and again"
