"""The plug, pulled at every line of every role's journal: the same bytes on chain, nothing twice, nothing lost.

Real peers, forked (`plug.py`), on a real chain and real IPFS nodes. A scene is a round in which some member has the
duties of a role; the matrix pulls that member's plug at each line of its journal, at each moment, and starts it again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from plug import MOMENTS, Plug, PluggedPeer, transactions_of

from fedchain.audit import audit
from fedchain.chain.keys import new_identity
from fedchain.cli.local import LocalFederation
from fedchain.devnet.anvil import ChainRpc
from fedchain.devnet.network import Devnet
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.state import FederationState
from fedchain.store.ipfs import IpfsStore

TINY = Path(__file__).parents[1] / "tiny"
PATIENCE_S = 180
SETTINGS = [
    "run.rounds=1",
    "windows.enrol_s=600",
    "windows.training_s=600",
    "windows.receipt_s=600",
    "windows.aggregate_s=600",
    "windows.challenge_s=4800",
]
"""Nothing here waits for a window to pass."""

HONEST = ("enrol", "commit", "receipt", "aggregate", "opening", "result")
"""The duties of the member whose turn it is to aggregate."""

State = FederationState


def finished(state: State, now: int) -> bool:
    return phase_of(state, state.round, now) is Phase.FINISHED


@dataclass(frozen=True)
class Scene:
    """A round, and what its `victim` says in it, every duty's transaction in order.

    `own`: the duties for which this scene is there; lines of others are tried elsewhere. `liar`: who misbehaves, and
    how (`misbehave.py`). `frozen`: whose plug is pulled at which line, until `thawed`: so that the victim's vote is
    needed. `attempt`: the one that closes.
    """

    name: str
    duties: tuple[str, ...]
    own: tuple[str, ...]
    victim: int = 0
    members: int = 3
    settings: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    liar: tuple[int, str] | None = None
    frozen: tuple[int, int] | None = None
    thawed: Callable[[State], bool] = lambda state: False
    ends: Callable[[State, int], bool] = finished
    codes: dict[int, int] = field(default_factory=dict)
    attempt: int = 0


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


class Federation:
    """One scene, played by forked peers."""

    def __init__(self, devnet: Devnet, folder: Path, scene: Scene) -> None:
        self.devnet, self.scene = devnet, scene
        self.local = LocalFederation.found(folder, TINY, scene.members, [*SETTINGS, *scene.settings])
        self.local.deploy(devnet)
        self.local.prepare_peers(devnet, poll_s=0.05)
        self.peers = [PluggedPeer.of(peer, *scene.options) for peer in self.local.peers]
        self.local.peers = list(self.peers)
        self.victim = self.peers[scene.victim]
        self.reader = self.local.reader(devnet)
        self.beside: list[PluggedPeer] = []
        """Processes of no member's."""
        self.torn_off: list[bytes] = []
        """The victim's journal as each of its deaths left it."""
        if scene.liar is not None:
            self.peers[scene.liar[0]].liar = (scene.liar[1], 1)
        if scene.frozen is not None:
            self.peers[scene.frozen[0]].plugs = [Plug(scene.frozen[1], "before")]

    def run(self, *plugs: Plug) -> None:
        """Play it to its end; the victim's plugs are pulled one after another, and it is started again at once."""
        self.victim.plugs = list(plugs)
        for peer in (*self.peers, *self.beside):
            peer.start()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            state, now = self.reader.refresh(), self.reader.now()
            self._start_again(state)
            if self.scene.ends(state, now):
                break
            ended = [p for p in self.peers if p.exit_code not in (None, -9, self._code_of(p.index), 0)]
            assert not ended, [peer.last_words() for peer in ended]
            assert time.monotonic() < deadline, [peer.last_words() for peer in self.peers]
            time.sleep(0.05)
        # Who answers for what it said stays until its bond is free.
        self._pass(self.local.charter.windows.challenge_s + 1)
        while self.victim.exit_code is None or self.victim.died:
            self._start_again(state)
            assert time.monotonic() < deadline, self.victim.last_words()
            time.sleep(0.05)
        self.local.wait_for_peers(30)

    def _code_of(self, index: int) -> int:
        """How a peer ends: slashed, dead, or well."""
        state = self.reader.refresh()
        return self.scene.codes.get(index, 1 if state.slashed >> index & 1 else 0)

    def _pass(self, seconds: int) -> None:
        rpc = ChainRpc(self.devnet.rpc)
        rpc.call("evm_increaseTime", seconds)
        rpc.call("evm_mine")

    def _start_again(self, state: State) -> None:
        for peer in (*self.peers, *self.beside):
            if not peer.died:
                continue
            if peer is self.victim:
                self.torn_off.append(peer.journal.read_bytes())
                peer.start_again()
            elif self.scene.thawed(state):
                peer.start_again()

    def said(self, address: str) -> list[tuple[bytes, bytes, bool]]:
        """An account's transactions since the founding, in order: hash, calldata, whether it succeeded."""
        rpc = ChainRpc(self.devnet.rpc)
        head = int(rpc.call("eth_blockNumber"), 16)
        found = []
        for number in range(self.local.deployment.block + 1, head + 1):
            for sent in rpc.call("eth_getBlockByNumber", hex(number), True)["transactions"]:
                if sent["from"].lower() == address.lower():
                    succeeded = rpc.call("eth_getTransactionReceipt", sent["hash"])["status"] == "0x1"
                    found.append((bytes.fromhex(sent["hash"][2:]), bytes.fromhex(sent["input"][2:]), succeeded))
        return found

    def check(self) -> None:
        """What must be true, wherever the plug was pulled."""
        scene, victim, state = self.scene, self.victim, self.reader.refresh()
        for peer in self.peers:
            assert peer.exit_code in {self._code_of(peer.index), scene.codes.get(peer.index, 0)}, peer.last_words()
        records = victim.records()
        self.check_promises(victim, self.local.members[victim.index], scene.duties)
        closed = state.closed[1]
        assert closed.attempt == scene.attempt and closed.committed == (1 << scene.members) - 1
        (dealt,) = [r for r in records if r["kind"] == "dealt" and (r["round"], r["attempt"]) == (1, closed.attempt)]
        assert closed.commits[scene.victim].commitment.hex() == dealt["commitment"]  # type: ignore[index]
        (receipt,) = [r for r in records if r["kind"] == "receipt" and r["attempt"] == closed.attempt]
        assert closed.receipts[scene.victim].whole == receipt["whole"]  # type: ignore[index]
        report = audit(self.local.reader(self.devnet), IpfsStore(self.devnet.ipfs_apis[1]))
        liars = {self.local.members[scene.liar[0]]} if scene.liar is not None else set()
        assert {fault.offender for fault in report.faults} <= liars, "nobody is blamed for having died"

    def check_promises(self, victim: PluggedPeer, address: str, duties: tuple[str, ...]) -> None:
        """What was journalled is on chain, byte for byte and once, and nothing else; no promise was forgotten."""
        promised, said = transactions_of(victim.records()), self.said(address)
        assert [duty.partition("/")[0] for duty, _ in promised] == list(duties), "each duty was signed for once"
        assert [sent for sent, _, _ in said] == [sent for _, sent in promised], "the very bytes that were promised"
        assert all(succeeded for _, _, succeeded in said), "nothing was sent in vain"
        assert set(Counter(calldata for _, calldata, _ in said).values()) == {1}, "nothing was said twice"
        whole = victim.journal.read_bytes()
        for left in self.torn_off:
            assert whole.startswith(left[: left.rfind(b"\n") + 1]), "no promise was forgotten, or changed"


@pytest.fixture
def play(devnet: Devnet, tmp_path: Path) -> Iterator[Callable[[Scene], Federation]]:
    """Founds a scene; its peers end with the test."""
    played: list[Federation] = []

    def found(scene: Scene) -> Federation:
        played.append(Federation(devnet, tmp_path / f"run-{len(played)}", scene))
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
