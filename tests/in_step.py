"""Real peers in one process, one at a time, on a real contract: a round of five takes about a second.

Each member has its own `fedchain.peer`, reader, sender, journal and keys, in a thread that runs in its turns only. The
chain is an anvil whose time moves on when nobody has anything left to do, so no window passes because a machine is
slow. Objects lie in one dictionary, and each member's store verifies what it gives against its CID.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, current_thread
from typing import Any

import numpy as np
import structlog
import tomli_w
from audit_play import MemoryStore
from eth_account import Account
from numpy.typing import NDArray

from fedchain.audit import Report, audit
from fedchain.chain.deploy import deploy
from fedchain.chain.deployment import Deployment, terms_of, verify
from fedchain.chain.reader import Reader
from fedchain.chain.sender import Sender, VolatileJournal
from fedchain.crypto import generate_encryption_key
from fedchain.errors import FedchainError, ObjectMissing
from fedchain.lab.memory import MemoryKeys, Stopped, Turns
from fedchain.learn import Machine, first_model, load_task, local_data_of, train_locally
from fedchain.peer.journal import Journal
from fedchain.peer.start import enrol, run_peer, stand
from fedchain.ports import Logged
from fedchain.protocol.arithmetic import quantise
from fedchain.protocol.charter import Charter, read_charter
from fedchain.protocol.ids import Address, Cid, Index, members_of
from fedchain.protocol.model import assemble, flatten, layout_of
from fedchain.protocol.outer import update_size_of
from fedchain.protocol.seeds import seed_for
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.update_format import update_format

TINY = Path(__file__).parent / "tiny"
MEMBERS = 5
_MOST_STANDSTILLS = 400

Door = Callable[[type], type]
"""Makes another class of a store, a reader or a sender: the same door, but for what somebody does to it."""


@dataclass(frozen=True)
class Member:
    """One member's keys."""

    private: bytes
    address: Address
    x25519_private: bytes
    x25519_public: bytes


class Ground:
    """A contract on an anvil, founded with the charter of `tiny`, and everybody's keys.

    `enrol` and `keep` come before the first `Federation`, which begins on a copy of that state.
    """

    def __init__(
        self, anvil: Any, folder: Path, *, rounds: int = 2, members: int = MEMBERS, settings: tuple[str, ...] = ()
    ) -> None:
        self.anvil, self.folder = anvil, folder
        self.members = [_member(bytes.fromhex(key[2:])) for key in anvil.keys[:members]]
        self.charter = self._agreed([f"run.rounds={rounds}", *settings])
        self.task = load_task(folder / "task.py", self.charter.task_sha256)
        self.objects: dict[Cid, bytes] = {}
        self.deployed = self._founded()
        self._snapshot: str | None = None

    def store(self) -> Any:
        """Where the founder puts charter and first model."""
        return shelf(self.objects)

    def enrol(self, *, others_than: int | None = None) -> None:
        """Everybody pays its bond, and registers its key and weight; one member may do so elsewhere."""
        for index, member in enumerate(self.members):
            if index == others_than:
                continue
            sender = Sender(self.anvil.url, self.deployed.address, member.private, VolatileJournal())
            state = self.reader().refresh()
            enrol(state, stand(state, self.folder, member.address), sender, member.x25519_public)

    def keep(self) -> None:
        """Remember the chain as it is now."""
        self._snapshot = self.anvil.remember()

    def reset(self) -> None:
        """Put the chain back to what `keep` remembered."""
        self.anvil.take_back(self._snapshot)
        self.keep()

    def reader(self, kind: type[Reader] = Reader, **options: Any) -> Reader:
        """A reader of the contract."""
        at = {"from_block": self.deployed.block, "expected_chain_id": self.anvil.chain_id}
        return kind(self.anvil.url, self.deployed.address, **(at | options))

    def _agreed(self, settings: list[str]) -> Charter:
        shutil.copytree(TINY, self.folder, dirs_exist_ok=True)
        charter = read_charter(self.folder).with_members(tuple(m.address for m in self.members))
        (self.folder / "federation.toml").write_text(
            tomli_w.dumps(charter.with_settings(settings).to_toml()), encoding="utf-8"
        )
        return read_charter(self.folder)

    def _founded(self) -> Deployment:
        store, founders = self.store(), tuple(m.address for m in self.members)
        model = first_model(self.task, self.charter)
        terms = terms_of(self.charter, store.put(self.charter.canonical()), model, store.put(model))
        return deploy(self.anvil.url, self.members[0].private, terms, founders)


def _member(private: bytes) -> Member:
    x25519_private, x25519_public = generate_encryption_key()
    return Member(private, Address(Account.from_key(private).address), x25519_private, x25519_public)


class Shelf(MemoryStore):
    """A store that pins only what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned: set[Cid] = set()

    def pin(self, cid: Cid) -> None:
        if cid not in self.served:
            raise ObjectMissing(f"no peer has {cid}")
        self.pinned.add(cid)


def shelf(objects: dict[Cid, bytes], kind: type[Shelf] = Shelf) -> Shelf:
    """A store of these objects."""
    store = kind()
    store.served = objects
    return store


@dataclass
class Peer:
    """One member at work. `bend` changes the classes that it is made of, while it is made."""

    member: Member
    index: int
    store_kind: Door = lambda kind: kind
    reader_kind: Door = lambda kind: kind
    sender_kind: Door = lambda kind: kind
    bend: Callable[[ExitStack], None] = lambda stack: None
    folder: Path | None = None
    seed: int | None = None
    said: list[dict[str, Any]] = field(default_factory=list)
    ended: FedchainError | None = None
    """The error that this peer stopped with."""

    def log(self) -> Any:
        """A structured log that is kept in `said`."""

        def keep(logger: Any, method: str, entry: Any) -> Any:
            self.said.append(dict(entry))
            raise structlog.DropEvent

        processors = [structlog.processors.add_log_level, keep]
        return structlog.wrap_logger(
            structlog.ReturnLogger(), processors=processors, wrapper_class=structlog.BoundLogger
        )


class Federation:
    """One run, from the first round on. `absent` are members whose peers are never started."""

    def __init__(self, ground: Ground, folder: Path, *, absent: tuple[int, ...] = ()) -> None:
        ground.reset()
        self.ground, self.folder, self.anvil = ground, folder, ground.anvil
        self.objects = dict(ground.objects)
        self.peers = [Peer(member, i) for i, member in enumerate(ground.members)]
        self.absent = absent
        self.pinned: set[Cid] = set()
        """What any of them pinned."""
        self.contributed: dict[tuple[int, int, int], NDArray[np.int64]] = {}
        """What a member really encrypted, by (member, round, attempt), where it is not what it should have."""
        self._turns = Turns(len(self.peers) - len(absent))
        self._head = self._looks = self._standstills = 0
        self._clock = Lock()

    def run(self, until: Callable[[], bool] = lambda: False) -> FederationState:
        """Let every peer work until it ends by itself, or all are stopped; the state then. Raises what no peer should.

        `until` is asked whenever somebody looks at the chain.
        """
        self._until = until
        present = [peer for peer in self.peers if peer.index not in self.absent]
        with ThreadPoolExecutor(max_workers=len(present)) as pool:
            for future in [pool.submit(self._live, peer) for peer in present]:
                future.result()
        self.state = self.ground.reader().refresh()
        return self.state

    def audit(self) -> Report:
        """What a stranger finds, with a reader and a store of its own."""
        return audit(self.ground.reader(), shelf(self.objects))

    def log(self) -> tuple[Logged, ...]:
        """Every event of the run."""
        reader = self.ground.reader()
        reader.refresh()
        return reader.log()

    def pass_time(self, seconds: int) -> None:
        """Let so much of the chain's time go by."""
        with self._clock:
            self.anvil.rpc("evm_increaseTime", seconds)
            self.anvil.rpc("evm_mine")

    def expected_model(self, round: int) -> bytes:
        """The model that the participants' plaintext updates give, trained here again and summed by numpy (M1, M2)."""
        attempt, charter = self.state.closed[round], self.ground.charter
        assert attempt.aggregate is not None
        base = self.objects[attempt.base_cid]
        form = update_format(charter, update_size_of(base, charter))
        participants = members_of(attempt.aggregate.participants)
        total = sum(self._values(attempt, base, index) for index in participants)
        weights = self._weights(attempt)
        weight = sum(weights[index] for index in participants)
        mean = (total - len(participants) * form.steps).astype(np.float64) * (
            form.step * max(weights.values()) / weight
        )
        return assemble(layout_of(base), (flatten(base) + mean[: form.size]).astype(np.float32))

    def _weights(self, attempt: Attempt) -> dict[Index, int]:
        """What each member's update counts, up to the charter's cap."""
        cap = self.ground.charter.update.weight_cap or 2**32
        return {index: min(member.weight, cap) for index, member in attempt.members.items()}

    def _values(self, attempt: Attempt, base: bytes, index: Index) -> NDArray[np.int64]:
        """One member's update as integers."""
        place = {"member": index, "round": attempt.round, "attempt": attempt.attempt}
        if tuple(place.values()) in self.contributed:
            return self.contributed[tuple(place.values())]
        charter, task = self.ground.charter, self.ground.task
        data = local_data_of(task, index, len(self.peers), charter.run.seed)
        seed = self.peers[index].seed or charter.run.seed
        trained = train_locally(
            task, base, charter.algorithm, data, seed_for("training", seed, **place), machine=Machine()
        )
        return quantise(
            trained.update,
            weight=self._weights(attempt)[index],
            max_weight=max(self._weights(attempt).values()),
            form=update_format(charter, update_size_of(base, charter)),
            rotation=b"",
            random=np.random.default_rng(seed_for("rounding", seed, **place)),
        )

    def _live(self, peer: Peer) -> None:
        """One peer's life, in a thread of its own that runs only in its turns."""
        seat, expected = peer.index - sum(index < peer.index for index in self.absent), False
        current_thread().name = f"member-{peer.index}"
        try:
            self._turns.wait(seat)
            self._work(peer, seat)
            expected = True
        except Stopped:
            expected = True
        except FedchainError as error:
            peer.ended, expected = error, True
        finally:
            if not expected:
                self._turns.stop()
            self._turns.leave(seat)

    def _work(self, peer: Peer, seat: int) -> None:
        ground, made = self.ground, ExitStack()
        federation = self

        class Seated(peer.reader_kind(Reader)):  # type: ignore[misc]
            """Lets the others have their turn before it looks at the chain."""

            def refresh(self) -> FederationState:
                made.close()
                federation._turns.pass_on(seat)
                federation._look()
                state: FederationState = super().refresh()
                return state

        folder, log = self.folder / f"peer-{peer.index}", peer.log().bind(member=peer.index)
        with Journal(folder / "journal.jsonl") as journal, made:
            reader = ground.reader(Seated)
            verify(reader)
            state = reader.refresh()
            journal.bind(reader.chain_id, reader.contract, reader.log()[0].transaction)
            sender = peer.sender_kind(Sender)(
                self.anvil.url, reader.contract, peer.member.private, journal, chain_id=reader.chain_id
            )
            store = shelf(self.objects, peer.store_kind(Shelf))
            store.pinned = self.pinned
            peer.bend(made)
            run_peer(
                standing=stand(state, peer.folder or ground.folder, peer.member.address, store.get_file),
                state=state,
                address=peer.member.address,
                keys=MemoryKeys({peer.member.x25519_public: peer.member.x25519_private}),
                reader=reader,
                sender=sender,
                store=store,
                journal=journal,
                folder=folder,
                seed=peer.seed or ground.charter.run.seed,
                engine="numpy",
                log=log,
                stay=True,
                poll_s=0.001,
            )

    def _look(self) -> None:
        """Somebody looks at the chain. When all have twice, and nobody has said anything, time moves on."""
        if self._until():
            self._turns.stop()
            raise Stopped("enough was seen")
        head = int(self.anvil.rpc("eth_blockNumber"), 16)
        if head != self._head:
            self._head, self._looks = head, 0
            return
        self._looks += 1
        if self._looks <= 2 * self._turns.count:
            return
        self._standstills += 1
        if self._standstills > _MOST_STANDSTILLS:
            raise AssertionError("the federation stands still")
        self.pass_time(self.ground.charter.windows.aggregate_s // 2)
