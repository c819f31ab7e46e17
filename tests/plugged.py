"""Federations of forked peers (`plug.py`) on a devnet, played as a scene tells, and what must be true at their end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from plug import Plug, PluggedPeer, transactions_of

from fedchain.audit import audit
from fedchain.cli.local import LocalFederation
from fedchain.devnet.anvil import ChainRpc
from fedchain.devnet.network import Devnet
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.state import FederationState
from fedchain.store.ipfs import IpfsStore

TINY = Path(__file__).parent / "tiny"
PATIENCE_S = 400
SETTINGS = [
    "run.rounds=1",
    "windows.enrol_s=600",
    "windows.training_s=600",
    "windows.receipt_s=600",
    "windows.aggregate_s=600",
    "windows.challenge_s=4800",
]
"""Nothing here waits for a window to pass."""

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

    def run(
        self,
        *plugs: Plug,
        each: Callable[[State, int], None] = lambda state, now: None,
        died: Callable[[], None] = lambda: None,
    ) -> None:
        """Play it to its end; the victim's plugs are pulled one after another, and it is started again at once.

        `each` is called with what is on chain now and then, `died` when the victim has died and before it comes back.
        """
        self._died = died
        self.victim.plugs = list(plugs)
        for peer in (*self.peers, *self.beside):
            peer.start()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            state, now = self.reader.refresh(), self.reader.now()
            self._start_again(state)
            each(state, now)
            if self.scene.ends(state, now):
                break
            ended = [p for p in self.peers if not self._may_end(p, None, -9, 2 if p.room else 0)]
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

    def _may_end(self, peer: PluggedPeer, *others: int | None) -> bool:
        """Whether a peer ended as it should: well, dead where it stays so, or slashed."""
        slashed = bool(self.reader.refresh().slashed >> peer.index & 1)
        return peer.exit_code in {0, self.scene.codes.get(peer.index, 0), 1 if slashed else 0, *others}

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
                self._died()
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
            assert self._may_end(peer), peer.last_words()
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
