"""The doors to the world: what the peer, the audit and the command line ask of chain, store and crypto.

`fedchain.chain`, `fedchain.store` and `fedchain.crypto` implement these; tests may implement them in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .protocol.actions import Action
from .protocol.events import Event
from .protocol.ids import Address, Cid
from .protocol.state import FederationState


@dataclass(frozen=True, slots=True)
class Logged:
    """An event with its place in the chain."""

    event: Event
    block_number: int
    block_hash: bytes
    transaction: bytes
    log_index: int


class ChainReader(Protocol):
    """Reads one federation from an EVM chain; needs no key."""

    @property
    def chain_id(self) -> int:
        """The chain's id (EIP-155)."""
        ...

    @property
    def contract(self) -> Address:
        """The federation's contract."""
        ...

    def refresh(self) -> FederationState:
        """The state as of the newest block that has the configured number of confirmations.

        Reads only what is new; a reorganisation (a block hash that changed) is noticed and read again from before it.
        Raises ChainUnreachable, ChainMismatch.
        """
        ...

    def now(self) -> int:
        """The time (seconds) to judge the state by, as the chain tells it; never the local clock.

        With no confirmations to wait for, the timestamp that the next block would have; else the timestamp of the block
        that `refresh` read up to, so that state and time always belong together.
        """
        ...

    def log(self) -> tuple[Logged, ...]:
        """Every event read so far, in chain order."""
        ...

    def gas_used(self, transaction: bytes) -> int:
        """The gas one mined transaction took."""
        ...


class ChainWriter(Protocol):
    """Signs and sends one account's transactions; the only sender of that account."""

    @property
    def address(self) -> Address:
        """The account."""
        ...

    def submit(self, key: str, action: Action) -> bytes:
        """Send one action and wait until it is mined; gives the transaction's hash.

        `key` names the duty (for example "commit/3/0"), and a duty has one statement: recipient, value and calldata.
        The raw signed transaction is journalled before it is sent, and after a crash the same bytes are sent again.
        Only the very same statement is signed anew: at a new nonce once the old transaction was reverted or lost its
        nonce, or at the same nonce for a higher fee. Raises TransactionFailed with the contract's reason in words (the
        duty may be tried again), ChainUnreachable.
        """
        ...


class TransactionJournal(Protocol):
    """Where a writer keeps raw transactions before it sends them."""

    def transaction(self, key: str) -> bytes | None:
        """The newest raw transaction promised under `key`, if any."""
        ...

    def transactions(self, key: str) -> tuple[bytes, ...]:
        """Every raw transaction promised under `key`, oldest first: any of them that succeeds fulfils the duty."""
        ...

    def promise_transaction(self, key: str, nonce: int, raw: bytes) -> None:
        """Record durably (fsync) that these bytes are about to be sent. A key's later ones make the same statement."""
        ...

    def next_nonce(self) -> int:
        """One more than the largest nonce promised; 0 when none is."""
        ...

    def promised_from(self, nonce: int) -> tuple[tuple[str, bytes], ...]:
        """For this nonce and each later one, ascending: the newest raw transaction, with its key; to be sent again.

        A promised transaction that never reached the chain leaves a gap that holds back every later one.
        """
        ...


class EncryptionKeys(Protocol):
    """A member's X25519 keys: what was sealed to one of them can be opened until it is erased."""

    @property
    def publics(self) -> tuple[bytes, ...]:
        """Every public key (32 bytes) whose private key is here, oldest first."""
        ...

    def private_of(self, public: bytes) -> bytes | None:
        """The private key (32 bytes) to a public one; None where it is not here, or not any more."""
        ...

    def erase_except(self, needed: Collection[bytes]) -> tuple[bytes, ...]:
        """Erase every key but these and the newest, for ever; gives the public keys of those erased."""
        ...


Progress = Callable[[int, int], None]
"""Called with (done, total) while long work runs."""


class Store(Protocol):
    """Immutable objects, named by CID; whatever it gives has been verified against the CID."""

    def put(self, content: bytes) -> Cid:
        """Add and pin; the CID is computed here and compared. Raises StoreUnreachable, ObjectCorrupt."""
        ...

    def get(self, cid: Cid, max_bytes: int) -> bytes:
        """The object's bytes; bounded in time and size. Raises ObjectMissing, ObjectCorrupt, StoreUnreachable."""
        ...

    def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
        """Like `get`, streamed into a file that appears only when it is whole and verified."""
        ...

    def pin(self, cid: Cid) -> None:
        """Keep the object here."""
        ...

    def unpin(self, cid: Cid) -> None:
        """Let the object go when space is needed; no error when it was not pinned."""
        ...

    @property
    def bytes_up(self) -> int:
        """Bytes put since this object was made."""
        ...

    @property
    def bytes_down(self) -> int:
        """Bytes got since this object was made."""
        ...
