"""The plug, pulled at every line of every role's journal: the same bytes on chain, nothing twice, nothing lost.

Real peers, forked (`plug.py`), on a real chain and real IPFS nodes. A scene is a round in which some member has the
duties of a role; the matrix pulls that member's plug at each line of its journal, at each moment, and starts it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from plug import MOMENTS, Plug, PluggedPeer
from plugged import Federation, Scene, State, finished

from fedchain.chain.keys import new_identity
from fedchain.devnet.network import Devnet

HONEST = ("enrol", "commit", "receipt", "aggregate", "opening", "result")
"""The duties of the member whose turn it is to aggregate."""


def fallen(state: State, now: int) -> bool:
    """Whether somebody was slashed, and the round was closed rightly."""
    return bool(state.slashed) and finished(state, now)


SCENES = {
    scene.name: scene
    for scene in (
        Scene("every line", HONEST, ("federation", "dealt", "opened", *HONEST)),
        Scene(
            "a vote to stop",
            (*HONEST, "stop"),
            ("stop",),
            settings=("run.rounds=3", "run.target=0.01"),
            frozen=(2, 9),
            codes={2: -9},
        ),
        Scene(
            "a challenged sum",
            ("enrol", "commit", "receipt", "opening", "ChallengeAggregate", "restate", "result"),
            ("ChallengeAggregate", "restate"),
            victim=1,
            members=4,
            liar=(0, "wrong-sum"),
            frozen=(0, 10),  # It would close the round, and there were nothing to post anew.
            ends=fallen,
            codes={0: -9},
        ),
        Scene(
            "a challenged result",
            ("enrol", "commit", "receipt", "opening", "ChallengeResult", "result"),
            ("ChallengeResult", "result"),
            victim=1,
            members=4,
            liar=(0, "wrong-result"),
            ends=fallen,
        ),
        Scene(
            "a vote to refuse",
            ("enrol", "commit", "receipt", "opening", "refuse", "result"),
            ("refuse",),
            victim=1,
            members=4,
            liar=(0, "wrong-model"),
            ends=fallen,
        ),
        Scene(
            "a vote to abandon",
            ("enrol", "commit", "receipt", "aggregate", "opening", "abandon", "commit", "receipt", "opening"),
            ("abandon",),
            liar=(2, "spoiler"),
            frozen=(2, 9),
            thawed=lambda state: bool(state.abandoned),
            attempt=1,
        ),
        Scene(
            "a challenged residue",
            ("enrol", "commit", "receipt", "ChallengeResidue", "opening"),
            ("ChallengeResidue",),
            victim=2,
            members=5,
            liar=(1, "residue-beyond-q"),
            frozen=(3, 5),  # Nobody goes on before its receipt, so that the victim is back in time.
            thawed=lambda state: bool(state.slashed),
        ),
        Scene(
            "a complaint",
            ("enrol", "commit", "complaint", "receipt", "aggregate", "opening", "result"),
            ("complaint",),
            members=5,
            liar=(1, "garbage-share-to-one"),
        ),
        Scene(
            "demands",
            ("enrol", "commit", "receipt", "opening", "demand", "ChallengeAggregate"),
            ("demand", "ChallengeAggregate"),
            victim=1,
            members=4,
            settings=("windows.receipt_s=40",),  # A quarter of it is waited for what nobody has.
            options=("--stay",),
            liar=(0, "hidden-sum"),
            ends=fallen,
        ),
        Scene(
            "an answer",
            (*HONEST, "show"),
            ("show",),
            members=4,
            options=("--stay",),
            liar=(1, "demand-of-the-honest"),
            ends=lambda state, now: any(not demand.open for demand in state.demands.values()),
        ),
    )
}


@pytest.fixture(scope="module")
def own_devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """A devnet whose time a test may wind forward."""
    with Devnet(tmp_path_factory.mktemp("devnet"), peers=5) as net:
        yield net


@pytest.fixture
def play(own_devnet: Devnet, tmp_path: Path) -> Iterator[Callable[[Scene], Federation]]:
    """Founds a scene; its peers end with the test."""
    played: list[Federation] = []

    def found(scene: Scene) -> Federation:
        played.append(Federation(own_devnet, tmp_path / f"run-{len(played)}", scene))
        return played[-1]

    yield found
    for federation in played:
        federation.local.stop_peers()
        for process in federation.beside:
            process.stop()


def plugs_of(records: list[dict[str, Any]], duties: tuple[str, ...]) -> list[Plug]:
    """The lines of these duties, at every moment; only what is a transaction can be sent."""
    plugs = []
    for line, record in enumerate(records, start=1):
        duty = record.get("key", record["kind"]).partition("/")[0]
        moments = MOMENTS if record["kind"] == "transaction" else MOMENTS[:3]
        plugs += [Plug(line, moment) for moment in moments if duty in duties]
    return plugs


def test_a_member_that_dies_at_every_line_of_its_journal_says_everything_once(
    play: Callable[[Scene], Federation],
) -> None:
    """One round in which the aggregator dies at each of its journal's ten lines: before, halfway, after, and sent."""
    undisturbed = play(SCENES["every line"])
    undisturbed.run()
    undisturbed.check()
    plugs = plugs_of(undisturbed.victim.records(), undisturbed.scene.own)
    assert len(plugs) >= 36
    federation = play(SCENES["every line"])
    federation.run(*plugs)
    federation.check()
    assert federation.victim.deaths == len(plugs) == len(federation.torn_off)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", SCENES)
def test_a_member_killed_at_any_line_of_any_role_goes_on(play: Callable[[Scene], Federation], name: str) -> None:
    undisturbed = play(SCENES[name])
    undisturbed.run()
    undisturbed.check()
    plugs = plugs_of(undisturbed.victim.records(), SCENES[name].own)
    assert plugs
    for plug in plugs:
        federation = play(SCENES[name])
        federation.run(plug)
        federation.check()
        assert federation.victim.deaths == 1, plug


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_relayer_killed_at_any_line_sends_each_batch_once(play: Callable[[Scene], Federation]) -> None:
    """It has a journal of its own: what it handed to the chain before it died is not paid for again."""

    def relayed(*plugs: Plug) -> PluggedPeer:
        federation = play(Scene("relayed", (), ()))
        relayer, address = relayer_of(federation)
        federation.run(*plugs)
        federation.check_promises(relayer, address, ("relay",) * 3)
        assert relayer.exit_code == 0 and relayer.deaths == len(plugs)
        return relayer

    plugs = plugs_of(relayed().records(), ("federation", "relay"))
    assert len(plugs) == 15
    for plug in plugs:
        relayed(plug)
    relayed(*plugs)


def relayer_of(federation: Federation) -> tuple[PluggedPeer, str]:
    """A relayer beside the members, who is the victim; and its address."""
    folder, shared = federation.local.workdir / "relayer", federation.local.workdir / "shared"
    folder.mkdir()
    key = folder / "relay.json"
    address = new_identity(key, "relay", fast=True).address
    federation.devnet.fund(address, 10**19)
    deployment = str(federation.local.workdir / "deployment.json")
    command = ["-m", "fedchain.cli.main", "relay", str(shared), "--key", str(key), "--deployment", deployment]
    command += ["--rpc", federation.devnet.rpc, "--poll", "0.05"]
    work = folder / f"relay-relay-{federation.local.deployment.address[2:10].lower()}"
    relayer = PluggedPeer(-1, work, command, {"FEDCHAIN_PASSWORD": "relay", "NO_COLOR": "1"})
    for peer in federation.peers:
        peer.command += ["--relay", str(shared)]
    federation.beside.append(relayer)
    federation.victim = relayer
    return relayer, address
