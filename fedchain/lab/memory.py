"""A chain and a store for members that run in one process, one at a time and in a fixed order.

They implement `fedchain.ports`, so the peers on them are the real ones. The chain keeps the rules of phases and folds
events as the contract's log is folded; it checks no signature and hears no challenge, for nobody here lies. Time stands
still while anybody has something to do, so that no window passes because training takes its time.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Collection
from pathlib import Path

from ..errors import FedchainError, ObjectCorrupt, ObjectMissing, TransactionFailed
from ..ports import Logged
from ..protocol.actions import (
    Action,
    CommitAggregate,
    CommitResult,
    CommitUpdate,
    Enrol,
    PostReceipt,
    PublishOpening,
    VoteToStop,
)
from ..protocol.cid import cid_of
from ..protocol.events import (
    AggregateCommitted,
    Event,
    FederationFounded,
    MemberEnrolled,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    StopVoted,
    Terms,
    UpdateCommitted,
)
from ..protocol.ids import Address, Cid, Index
from ..protocol.phase import Phase, phase_of
from ..protocol.state import FederationState
from ..protocol.transition import apply, founded

CHAIN_ID = 31337
CONTRACT = Address("0x" + "fe" * 20)
"""Where the contract is said to be; one-time keys are bound to it, models are not."""

_MOST_STANDSTILLS = 10_000
_DUE: dict[type[Action], tuple[Phase, ...]] = {
    Enrol: (Phase.ENROLLING,),
    CommitUpdate: (Phase.TRAINING,),
    PostReceipt: (Phase.RECEIPTS,),
    CommitAggregate: (Phase.AGGREGATING,),
    PublishOpening: (Phase.OPENING, Phase.CLOSING),
    CommitResult: (Phase.CLOSING,),
    VoteToStop: (Phase.TRAINING,),
}


class Stopped(FedchainError):
    """Another member failed, or the experiment was interrupted: this one ends too."""


class Turns:
    """Lets one thread run at a time, round robin: what they do comes out in the same order every time."""

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._at_work = list(range(count))
        self._turn = 0
        self._stopped = False
        self._since = 0.0
        self.busy_s = [0.0] * count
        """Seconds that each thread ran so far."""

    def wait(self, me: int) -> None:
        """Return when it is this thread's turn. Raises Stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._at_work[self._turn] == me)
            if self._stopped:
                raise Stopped("the experiment was stopped")
            self._since = time.perf_counter()

    def pass_on(self, me: int) -> None:
        """Let the others run, and come back when it is this thread's turn again. Raises Stopped."""
        with self._changed:
            self.busy_s[me] += time.perf_counter() - self._since
            self._turn = (self._turn + 1) % len(self._at_work)
            self._changed.notify_all()
        self.wait(me)

    def leave(self, me: int) -> None:
        """This thread has done; to be called in its turn, or after a stop."""
        with self._changed:
            place = self._at_work.index(me)
            self._at_work.remove(me)
            self._turn -= place < self._turn
            self._turn %= max(1, len(self._at_work))
            self._changed.notify_all()

    def stop(self) -> None:
        """End every thread at its next turn."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def count(self) -> int:
        """How many threads are at work."""
        return len(self._at_work)


class MemoryChain:
    """One federation's log, kept here and shared by its members."""

    def __init__(self, terms: Terms, founders: tuple[Address, ...]) -> None:
        self.now = 1
        first = FederationFounded(terms, founders, at=self.now)
        self.state = founded(first)
        self.log: list[Logged] = []
        self.turns = Turns(len(founders))
        self._looks = 0
        self._standstills = 0
        self._keep(first)

    def look(self) -> None:
        """Somebody looked at the chain. When all have twice, and nobody had anything to say, time moves on."""
        self._looks += 1
        if self._looks <= 2 * self.turns.count:
            return
        self._looks = 0
        self._standstills += 1
        if self._standstills > _MOST_STANDSTILLS:
            raise FedchainError(f"the federation stands still in {phase_of(self.state, self.state.round, self.now)!r}")
        self.now += max(1, self.state.terms.aggregate_window_s // 2)

    def say(self, index: Index, address: Address, action: Action) -> bytes:
        """Put a member's action on the log; gives its transaction's hash. Raises TransactionFailed out of phase."""
        phase = phase_of(self.state, self.state.round, self.now)
        if phase not in _DUE.get(type(action), ()):
            raise TransactionFailed(f"{type(action).__name__} is not due in the phase {phase.name.lower()}")
        event = _event(action, index, address, self.now)
        self.state = apply(self.state, event)
        self._looks = self._standstills = 0
        return self._keep(event)

    def _keep(self, event: Event) -> bytes:
        number = len(self.log)
        transaction = hashlib.sha256(number.to_bytes(8, "big")).digest()
        self.log.append(Logged(event, number, hashlib.sha256(transaction).digest(), transaction, 0))
        return transaction


class Seat:
    """One member's place at the chain; implements `ports.ChainReader` and `ports.ChainWriter`.

    A member that looks at the chain lets the others have their turn first.
    """

    chain_id = CHAIN_ID
    contract = CONTRACT

    def __init__(self, chain: MemoryChain, index: Index) -> None:
        self._chain = chain
        self._index = index

    @property
    def address(self) -> Address:
        """The member's account."""
        return self._chain.state.founders[self._index]

    def refresh(self) -> FederationState:
        """The state, after every other member had its turn. Raises Stopped."""
        self._chain.turns.pass_on(self._index)
        self._chain.look()
        return self._chain.state

    def now(self) -> int:
        """The chain's time."""
        return self._chain.now

    def log(self) -> tuple[Logged, ...]:
        """Every event so far."""
        return tuple(self._chain.log)

    def gas_used(self, transaction: bytes) -> int:
        """None: nothing is executed here."""
        return 0

    def submit(self, key: str, action: Action) -> bytes:
        """Say it; it is mined at once."""
        return self._chain.say(self._index, self.address, action)


class MemoryKeys:
    """One member's X25519 keys by their public ones; implements `ports.EncryptionKeys`."""

    def __init__(self, keys: dict[bytes, bytes]) -> None:
        self._keys = keys

    @property
    def publics(self) -> tuple[bytes, ...]:
        """Every public key, oldest first."""
        return tuple(self._keys)

    def private_of(self, public: bytes) -> bytes | None:
        """The private key to a public one."""
        return self._keys.get(public)

    def erase_except(self, needed: Collection[bytes]) -> tuple[bytes, ...]:
        """Forget every key but these and the newest."""
        erased = tuple(public for public in self.publics[:-1] if public not in needed)
        for public in erased:
            del self._keys[public]
        return erased


class MemoryStore:
    """One member's view of objects that lie in one folder; implements `ports.Store`. Files are linked, not copied.

    An object goes when the last member that pinned it lets it go, as in a real store.
    """

    def __init__(self, folder: Path, pins: dict[Cid, set[int]], index: int) -> None:
        self._folder = folder
        self._pins = pins
        self._index = index
        self.bytes_up = 0
        """Bytes put since this object was made."""
        self.bytes_down = 0
        """Bytes got since this object was made."""

    def put(self, content: bytes) -> Cid:
        """Keep and pin an object."""
        cid = cid_of(content)
        path = self._folder / cid
        if not path.exists():
            part = path.with_suffix(f".{self._index}")
            part.write_bytes(content)
            part.replace(path)
        self.pin(cid)
        self.bytes_up += len(content)
        return cid

    def get(self, cid: Cid, max_bytes: int) -> bytes:
        """An object's bytes. Raises ObjectMissing, ObjectCorrupt where it is larger than allowed."""
        content = self._found(cid, max_bytes).read_bytes()
        self.bytes_down += len(content)
        return content

    def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
        """An object as a file, to be read only."""
        found = self._found(cid, max_bytes)
        path.unlink(missing_ok=True)
        os.link(found, path)
        self.bytes_down += path.stat().st_size

    def pin(self, cid: Cid) -> None:
        """Keep the object."""
        self._pins.setdefault(cid, set()).add(self._index)

    def unpin(self, cid: Cid) -> None:
        """Let the object go, as far as this member is concerned."""
        holders = self._pins.get(cid, set())
        holders.discard(self._index)
        if not holders:
            (self._folder / cid).unlink(missing_ok=True)

    def _found(self, cid: Cid, max_bytes: int) -> Path:
        path = self._folder / cid
        if not path.exists():
            raise ObjectMissing(f"no member has {cid}")
        if path.stat().st_size > max_bytes:
            raise ObjectCorrupt(f"{cid} has more than {max_bytes:,} bytes")
        return path


def _event(action: Action, index: Index, address: Address, at: int) -> Event:
    """What the contract would log of an action."""
    match action:
        case Enrol():
            return MemberEnrolled(index, address, action.encryption_key, action.weight, at)
        case CommitUpdate():
            cids = action.ciphertext_cid, action.shares_cid
            return UpdateCommitted(action.round, action.attempt, index, action.commitment, *cids, at)
        case PostReceipt():
            return ReceiptPosted(action.round, action.attempt, index, action.whole, at)
        case CommitAggregate():
            said = action.participants, action.root, action.cid
            return AggregateCommitted(action.round, action.attempt, action.group, index, *said, at)
        case PublishOpening():
            return OpeningPublished(action.round, action.attempt, action.group, index, action.root, action.cid, at)
        case CommitResult():
            return ResultCommitted(
                round=action.round,
                attempt=action.attempt,
                group=action.group,
                index=index,
                openers=action.openers,
                key_sum_root=action.key_sum_root,
                result_root=action.result_root,
                result_cid=action.result_cid,
                model_digest=action.model_digest,
                model_cid=action.model_cid,
                at=at,
            )
        case VoteToStop():
            return StopVoted(action.round, index, at)
        case _:
            raise TransactionFailed(f"{type(action).__name__} is not heard in memory: nobody here lies")
