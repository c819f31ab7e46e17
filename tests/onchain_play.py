"""`audit_play.Play` on a real contract: what its members say is sent as transactions, and read back from the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from audit_play import Play, charter_of
from eth_account import Account

from fedchain.chain.deploy import deploy
from fedchain.chain.reader import Reader
from fedchain.chain.sender import Sender, VolatileJournal
from fedchain.protocol.actions import (
    CommitAggregate,
    CommitResult,
    CommitUpdate,
    Enrol,
    PostReceipt,
    PublishOpening,
)
from fedchain.protocol.disputes import basis_of, commitments_digest
from fedchain.protocol.events import (
    AggregateCommitted,
    Event,
    FederationFounded,
    MemberEnrolled,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    UpdateCommitted,
)
from fedchain.protocol.ids import Address, Index
from fedchain.protocol.phase import aggregator_of

ACTIONS: dict[type, type] = {
    UpdateCommitted: CommitUpdate,
    ReceiptPosted: PostReceipt,
    AggregateCommitted: CommitAggregate,
    OpeningPublished: PublishOpening,
    ResultCommitted: CommitResult,
}


class OnChain:
    """The play's chain, read from a node."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.chain_id, self.contract = reader.chain_id, reader.contract

    @property
    def time(self) -> int:
        return self.reader.now()

    @property
    def events(self) -> list[Event]:
        return [entry.event for entry in self.reader.log()]

    def refresh(self) -> Any:
        return self.reader.refresh()


class OnChainPlay(Play):
    """Members with an account each, on the chain behind an RPC URL. The first of them deploys."""

    chain: Any

    def __init__(self, rpc: str, keys: Sequence[bytes], rounds: int, windows: dict[str, int]) -> None:
        self.rpc, self.keys = rpc, tuple(keys)
        members = tuple(Address(Account.from_key(key).address) for key in self.keys)
        federation = {"name": "liars", "members": list(members)}
        super().__init__(rounds=rounds, charter=charter_of(federation=federation, windows=windows))
        self.members = members
        self.senders: list[Sender] = []
        self.said = 0

    def sender(self, key: bytes) -> Sender:
        """What signs and sends for one account."""
        return Sender(self.rpc, self.deployed.address, key, VolatileJournal())

    def reader(self) -> Reader:
        """A stranger's own reader. It is told the block of the deployment: a shared anvil forgets its oldest states."""
        return Reader(self.rpc, self.deployed.address, from_block=self.deployed.block)

    def say(self, event: Event, after_s: int = 0) -> None:
        match event:
            case FederationFounded():
                self.deployed = deploy(self.rpc, self.keys[0], event.terms, event.founders)
                self.chain = OnChain(self.reader())
                self.senders = [self.sender(key) for key in self.keys]
            case MemberEnrolled():
                self.send(event.index, Enrol(event.encryption_key, event.weight, self.state.terms.bond_wei))
            case _:
                kind = ACTIONS[type(event)]
                said = {f.name: getattr(event, f.name) for f in fields(kind) if hasattr(event, f.name)}
                if isinstance(event, AggregateCommitted):
                    said["basis"] = commitments_digest(self.attempt())
                if isinstance(event, ResultCommitted):
                    said["basis"] = basis_of(self.attempt())
                self.send(Index(event.index), kind(**said))  # type: ignore[attr-defined]

    def send(self, index: int, action: Any) -> None:
        """One statement of a member's, mined."""
        self.said += 1
        self.senders[index].submit(f"statement/{self.said}", action)

    def lock(self, event: AggregateCommitted) -> None:
        self.say(event)

    def aggregator(self, number: int) -> Index:
        return aggregator_of(self.state, self.attempt(), self.chain.time)
