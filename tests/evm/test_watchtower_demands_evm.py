"""The watchtower on a real contract: a wrong result whose object its author keeps back falls, shown or not."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from eth_account import Account

from fedchain.audit import audit
from fedchain.audit.accuser import Accuser
from fedchain.audit.watchtower import Watchtower
from fedchain.chain.deploy import deploy
from fedchain.chain.reader import Reader
from fedchain.chain.sender import Sender, VolatileJournal
from fedchain.crypto import Result, show_result
from fedchain.crypto.parameters import PLAIN_MODULUS
from fedchain.protocol.actions import (
    CommitAggregate,
    CommitResult,
    CommitUpdate,
    Enrol,
    PostReceipt,
    PublishOpening,
    ShowPage,
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
from fedchain.protocol.evidence import NO_ROOT
from fedchain.protocol.ids import Address, Index
from fedchain.protocol.pages import Kind

LIAR = Index(3)
ANSWER_S = 125

ACTIONS: dict[type, type] = {
    UpdateCommitted: CommitUpdate,
    ReceiptPosted: PostReceipt,
    AggregateCommitted: CommitAggregate,
    OpeningPublished: PublishOpening,
    ResultCommitted: CommitResult,
}


def builder() -> ModuleType:
    """tests/pure/audit/conftest.py, which plays a federation step by step."""
    path = Path(__file__).parents[1] / "pure" / "audit" / "conftest.py"
    spec = importlib.util.spec_from_file_location("federation_builder", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BUILD = builder()


class OnChain:
    """The builder's chain, on an anvil."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.chain_id, self.contract = reader.chain_id, reader.contract

    @property
    def time(self) -> int:
        return self.reader.now()

    def refresh(self) -> Any:
        return self.reader.refresh()


class Lying(BUILD.Play):  # type: ignore[misc, name-defined]
    """Five members on a real contract. One of them closes the round with a wrong result, and stores no object."""

    def __init__(self, anvil: Any) -> None:
        self.anvil, self.accounts = anvil, anvil.keys[:5]
        members = tuple(Address(Account.from_key(key).address) for key in self.accounts)
        federation = {"name": "liars", "members": list(members)}
        windows = {"training_s": 3600, "receipt_s": 3600, "aggregate_s": 3600}
        super().__init__(rounds=1, charter=BUILD.charter_of(federation=federation, windows=windows))
        self.members = members
        self.senders: list[Sender] = []
        self.said = 0
        self.lie: Result | None = None

    def sender(self, key: str) -> Sender:
        contract = self.chain.contract
        return Sender(self.anvil.url, contract, bytes.fromhex(key[2:]), VolatileJournal(), chain_id=self.anvil.chain_id)

    def reader(self) -> Reader:
        """A stranger's own reader. It is told the block of the deployment: a shared anvil forgets its oldest states."""
        return Reader(self.anvil.url, self.deployed.address, from_block=self.deployed.block)

    def say(self, event: Event, after_s: int = 0) -> None:
        match event:
            case FederationFounded():
                deployed = deploy(self.anvil.url, bytes.fromhex(self.accounts[0][2:]), event.terms, event.founders)
                self.deployed = deployed
                self.chain = OnChain(self.reader())
                self.senders = [self.sender(key) for key in self.accounts]
            case MemberEnrolled():
                self.send(event.index, Enrol(event.encryption_key, event.weight, self.state.terms.bond_wei))
            case _:
                kind = ACTIONS[type(event)]
                said = {f.name: getattr(event, f.name) for f in fields(kind) if hasattr(event, f.name)}
                if isinstance(event, AggregateCommitted):
                    said["basis"] = commitments_digest(self.attempt())
                if isinstance(event, ResultCommitted):
                    said["basis"] = basis_of(self.attempt())
                self.send(event.index, kind(**said))

    def send(self, index: int, action: Any) -> None:
        self.said += 1
        self.senders[index].submit(f"statement/{self.said}", action)

    def lock(self, event: Any) -> None:
        self.say(event)

    def aggregator(self, number: int) -> Any:
        return BUILD.aggregator_of(self.state, self.attempt(), self.chain.time)

    def close(self, number: int) -> None:
        self.honest = self.result(number)
        right = self.opened(number).result
        coefficients = right.coefficients.copy()
        coefficients[5, 9] = (coefficients[5, 9] + 1) % PLAIN_MODULUS
        self.lie = replace(right, coefficients=coefficients)
        cid = BUILD.cid_of(self.lie.pack())
        self.say(replace(self.honest, index=LIAR, result_root=self.lie.root(), result_cid=cid))

    def shows(self) -> None:
        """The liar shows what is demanded of it."""
        assert self.lie is not None
        for demand in self.state.demands.values():
            if demand.open:
                self.send(LIAR, ShowPage(demand.page, NO_ROOT, show_result(demand.page, self.lie)))


@pytest.fixture
def lying(chain: Any) -> Lying:
    played = Lying(chain)
    played.run()
    return played


@pytest.mark.parametrize(("pages", "rule"), [(2, 3), (1, 6)], ids=["shown", "kept back"])
def test_a_wrong_result_that_is_kept_back_is_brought_down_by_a_stranger(
    lying: Lying, chain: Any, tmp_path: Path, pages: int, rule: int
) -> None:
    told: list[str] = []
    stranger = lying.sender(chain.keys[9])
    reader = lying.reader()
    tower, accuser = Watchtower(reader, lying.store, tmp_path), Accuser(reader, stranger, told.append)
    for step in range(pages):
        accuser.act(tower.look())
        if step < pages - 1 or rule == 3:
            lying.shows()
    if rule == 6:
        accuser.act(tower.look())
        assert lying.state.closed, "it waits for the deadline"
        chain.mine_at(chain.now + ANSWER_S)
    accuser.act(tower.look())

    state = lying.state
    assert not state.closed and state.slashed == 1 << LIAR
    levels = [demand.page.level for demand in state.demands.values()]
    assert levels == [3, 0][:pages]
    assert all(demand.page.kind is Kind.RESULT for demand in state.demands.values())
    lying.say(lying.honest)
    report = audit(lying.reader(), lying.store)
    assert report.faults == () and report.complete
    (fallen,) = report.refutations
    assert fallen.slash is not None and (fallen.slash.rule, fallen.slash.challenger) == (rule, stranger.address)
    assert (fallen.by, fallen.right) == ("challenge" if rule == 3 else "silence", False)
    # Every coin that the contract holds is accounted for.
    assert report.money.balance == report.money.held
    deposit = state.terms.deposit_wei
    assert state.rewards[stranger.address] == state.terms.bond_wei // 2 + (deposit if rule == 6 else 0)
    assert state.rewards.get(lying.members[LIAR], 0) == (2 * deposit if rule == 3 else 0)
