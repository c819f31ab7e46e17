"""One round of the walkthrough, kept at every phase, and peers that act on it: for tests of the roles.

The cryptography is real, a dictionary is the store, a list the chain.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import structlog
from scripts import load_script

from fedchain.crypto import Result, check_shares
from fedchain.crypto.aggregate import leaf_hashes
from fedchain.crypto.packing import unpack_residues
from fedchain.errors import ObjectMissing
from fedchain.lab.memory import MemoryKeys
from fedchain.peer.aggregator import Aggregator
from fedchain.peer.challenger import Challenger
from fedchain.peer.context import PeerContext
from fedchain.peer.decoder import Decoder
from fedchain.peer.holdings import Holdings
from fedchain.peer.journal import Journal
from fedchain.peer.meter import Meter
from fedchain.peer.respondent import Respondent
from fedchain.peer.shareholder import Shareholder
from fedchain.peer.start import DEPOSITS
from fedchain.peer.voter import Voter
from fedchain.ports import Logged
from fedchain.protocol.actions import Action
from fedchain.protocol.charter import Charter, Federation
from fedchain.protocol.cid import cid_of
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.events import AggregateCommitted, Event, ResultCommitted
from fedchain.protocol.ids import Bitmap, Cid, Index, Root
from fedchain.protocol.merkle import root_of
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply

SCRIPT = Path(__file__).parents[1] / "docs" / "walkthrough.py"


def load_walkthrough() -> Any:
    return load_script(SCRIPT, "walkthrough")


walk = load_walkthrough()


class MemoryStore:
    """Implements the store's port on a dictionary."""

    bytes_up = bytes_down = 0

    def __init__(self, objects: dict[Cid, bytes]) -> None:
        self.objects = objects

    def put(self, content: bytes) -> Cid:
        self.objects[cid_of(content)] = content
        return cid_of(content)

    def get(self, cid: Cid, max_bytes: int) -> bytes:
        if cid not in self.objects:
            raise ObjectMissing(f"nobody has {cid}")
        assert len(self.objects[cid]) <= max_bytes
        return self.objects[cid]

    def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
        path.write_bytes(self.get(cid, max_bytes))

    def pin(self, cid: Cid) -> None:
        assert cid in self.objects

    def unpin(self, cid: Cid) -> None:
        pass


class MemoryChain:
    """Implements the reader's names and the writer's `submit`: what was sent is kept and changes nothing."""

    chain_id, contract = walk.CHAIN_ID, walk.CONTRACT

    def __init__(self) -> None:
        self.sent: list[Action] = []
        self.events: list[Event] = []

    def submit(self, key: str, action: Action) -> bytes:
        self.sent.append(action)
        return bytes(32)

    def log(self) -> tuple[Logged, ...]:
        return tuple(Logged(event, 0, b"", b"", 0) for event in self.events)


class Peer:
    """One member's shareholder and aggregator; `restarted` is the same peer in a new process."""

    def __init__(self, world: Any, member: Any, folder: Path) -> None:
        self._world, self._member, self._folder = world, member, folder
        self.chain = MemoryChain()
        self.store = MemoryStore(dict(world.store))
        self.journal = Journal(folder / "journal.jsonl")
        self.context = PeerContext(
            me=member.index,
            address=member.address,
            keys=MemoryKeys({member.public_key: member.private_key}),
            charter=Charter(federation=Federation(name="roles"), update=walk.SETTINGS),
            terms=world.state.terms,
            task=None,  # type: ignore[arg-type]  # nobody trains here
            data=None,  # type: ignore[arg-type]
            reader=self.chain,  # type: ignore[arg-type]
            sender=self.chain,  # type: ignore[arg-type]
            store=self.store,
            journal=self.journal,
            meter=Meter(folder / "rounds.jsonl", self.store),
            folder=folder,
            seed=1,
            engine="numpy",
            challenge=True,
            deposits=DEPOSITS,
            outbox=None,
            log=structlog.wrap_logger(structlog.ReturnLogger()),
        )
        self.holdings = Holdings(self.context)
        self.decoder = Decoder(self.context, self.holdings)
        self.shareholder = Shareholder(self.context, self.holdings)
        self.challenger = Challenger(self.context, self.holdings, self.decoder)
        self.aggregator = Aggregator(self.context, self.holdings, self.decoder)
        self.voter = Voter(self.context, self.holdings, self.decoder)
        self.respondent = Respondent(self.context, self.holdings, self.decoder)

    def act(self, state: FederationState, now: int) -> list[Action]:
        """What it sends when both roles are asked once."""
        before = len(self.chain.sent)
        for role in (self.shareholder, self.challenger, self.aggregator, self.voter):
            role.act(state, now)
        return self.chain.sent[before:]

    def restarted(self) -> Peer:
        self.journal.close()
        return Peer(self._world, self._member, self._folder)


class Stage:
    """The world of the walkthrough, with the state as it was when each phase began."""

    peer_chain = MemoryChain

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with redirect_stdout(StringIO()):
            self.members = [walk.make_member(i) for i in range(walk.MEMBERS)]
            self.world = walk.found(self.members)
            walk.enrol(self.world, self.members)
            walk.train(self.world, self.members)
            walk.encrypt_and_commit(self.world, self.members)
            self.receipts = self.world.state
            walk.examine_and_post_receipts(self.world, self.members)
            self.aggregating = self.world.state
            aggregate = walk.lock_and_aggregate(self.world)
            self.opening = self.world.state
            walk.publish_openings(self.world, self.members)
            self.closing = self.world.state
            self.now = self.world.now
            walk.close(self.world, aggregate)
        self.model_digest = self.world.state.model_digest

    def peer(self, index: int) -> Peer:
        folder = self._folder / f"peer-{index}"
        folder.mkdir()
        return Peer(self.world, self.members[index], folder)

    def locked(self, participants: int, root: bytes = b"r" * 32) -> FederationState:
        """The state in which another set, or another sum, was locked."""
        event = AggregateCommitted(1, 0, 0, Index(0), Bitmap(participants), Root(root), cid_of(b""), at=self.now)
        return apply(self.aggregating, event)

    def locked_by(self, right: AggregateCommitted, **lies: Any) -> FederationState:
        """The state in which the aggregator posted these fields instead of the right ones."""
        return apply(self.aggregating, replace(right, **lies))

    def spoiled_update(self, index: Index) -> tuple[FederationState, Index]:
        """The state in which one member's ciphertext holds a residue of q, and its commitment is to that."""
        attempt = self.receipts.current
        assert attempt is not None
        commit = attempt.commits[index]
        content = bytearray(self.world.store[commit.ciphertext_cid])
        content[16 + 432 : 16 + 439] = (1002 * 2**44 + 1).to_bytes(
            7, "little"
        )  # the first residue of leaf 1, and a bit
        root = root_of(leaf_hashes(unpack_residues(bytes(content[16:])).reshape(-1, 64)))
        context = walk.RoundContext(walk.CHAIN_ID, walk.CONTRACT, 1, 0, attempt.base_digest)
        dealing = {**self.world.dealing_of(index), "context": context}
        shares_root = check_shares(self.world.store[commit.shares_cid], **dealing, offender="")
        author = self.members[index].address
        commitment = update_commitment(walk.CHAIN_ID, walk.CONTRACT, 1, 0, author, root, shares_root)
        spoiled = replace(commit, commitment=commitment, ciphertext_cid=self.world.put(bytes(content)))
        commits = MappingProxyType({**attempt.commits, index: spoiled})
        return replace(self.receipts, current=replace(attempt, commits=commits)), index

    @property
    def honest(self) -> ResultCommitted:
        """The result that was posted."""
        result = self.world.state.closed[1].result
        assert result is not None
        return result

    def closed_with(self, **lies: Any) -> FederationState:
        """The state in which member 4 closed the round with these fields instead of the honest ones."""
        event = replace(self.honest, index=Index(4), at=self.now + 1, **lies)
        return apply(self.closing, event)

    def result(self) -> Result:
        """The stored result."""
        return Result.parse(self.world.store[self.honest.result_cid], walk.FORM.model_size)

    def put(self, result: Result) -> dict[str, Any]:
        """Store what a lying closer claims; the fields of its statement."""
        cid = self.world.put(result.pack())
        return {"key_sum_root": result.key_sum_root(), "result_root": result.root(), "result_cid": cid}
