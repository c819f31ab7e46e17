"""Batches, votes, comings and goings, demands: as members send them, and as the reader tells of them."""

from __future__ import annotations

from typing import Any

import pytest

from fedchain.chain.signing import sign_statement
from fedchain.errors import TransactionFailed
from fedchain.protocol.actions import (
    CloseDemand,
    CommitAggregate,
    CommitResult,
    CommitUpdates,
    DemandPage,
    Enrol,
    PostReceipts,
    PublishOpenings,
    Resign,
    RotateKey,
    ShowPage,
    SignedOpening,
    SignedReceipt,
    SignedUpdate,
    VoteToAbandon,
    VoteToAdmit,
    VoteToRefuse,
    VoteToRemove,
    WithdrawReward,
)
from fedchain.protocol.cid import cid_of
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.demands import check_closed, check_demand, check_shown
from fedchain.protocol.disputes import Refused, basis_of, commitments_digest
from fedchain.protocol.events import Motion, MotionVoted
from fedchain.protocol.evidence import Line
from fedchain.protocol.ids import Address, Bitmap, Digest, Index, Root
from fedchain.protocol.merkle import hash_leaf
from fedchain.protocol.pages import Kind, Page, show
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.statements import OpeningStatement, ReceiptStatement, UpdateStatement

LEAF = bytes(range(256)) * 2
ROOT, SHARES_ROOT, CID, MODEL = Root(b"\x04" * 32), Root(b"\x06" * 32), cid_of(b"object"), Digest(b"\x05" * 32)
RELAY, NEWCOMER = 5, 3
"""Accounts of the chain that are no founders."""


class Relayed:
    """A federation of three whose statements an outsider hands in, signed by the members."""

    def __init__(self, federation: Any) -> None:
        self.federation = federation
        self.members, self.relay = federation.enrol_all(), federation.sender(RELAY)
        self.reader = federation.reader()
        self.chain_id, self.contract = self.reader.chain_id, self.reader.contract
        self.relay.submit("updates", CommitUpdates(1, 0, tuple(self.update(i) for i in range(3))))

    @property
    def state(self) -> Any:
        return self.reader.refresh()

    def sign(self, index: int, said: Any) -> Any:
        return sign_statement(self.federation.key(index), self.chain_id, self.contract, said)

    def commitment(self, index: int) -> Digest:
        """Every member commits to the same one leaf."""
        place = self.chain_id, self.contract, 1, 0, self.members[index].address
        return update_commitment(*place, Root(hash_leaf(LEAF)), SHARES_ROOT)

    def update(self, index: int) -> SignedUpdate:
        said = UpdateStatement(1, 0, self.commitment(index), cid_of(b"a"), cid_of(b"b"))
        return SignedUpdate(said.commitment, said.ciphertext_cid, said.shares_cid, self.sign(index, said))

    def lock(self) -> None:
        whole = Bitmap(0b111)
        receipts = (SignedReceipt(whole, self.sign(i, ReceiptStatement(1, 0, whole))) for i in range(3))
        self.relay.submit("receipts", PostReceipts(1, 0, tuple(receipts)))
        basis = commitments_digest(self.state.current)
        self.members[0].submit("aggregate", CommitAggregate(1, 0, 0, whole, basis, ROOT, CID))

    def close(self) -> None:
        said = OpeningStatement(1, 0, 0, Bitmap(0b111), ROOT, CID)
        lines = (SignedOpening(ROOT, CID, self.sign(i, said)) for i in range(2))
        self.relay.submit("openings", PublishOpenings(1, 0, 0, tuple(lines)))
        basis = basis_of(self.state.current)
        self.members[2].submit("result", CommitResult(1, 0, 0, Bitmap(0b11), basis, ROOT, ROOT, CID, MODEL, CID))

    def page(self, index: int) -> DemandPage:
        page = Page(Kind.CIPHERTEXT, Index(index), 1, 0, 0, 0, 0, self.commitment(index))
        lines = tuple(Line(Index(i), self.commitment(i)) for i in range(3))
        return DemandPage(page, lines, self.state.terms.deposit_wei)

    def pass_time(self, seconds: int) -> None:
        self.federation.anvil.rpc("evm_increaseTime", seconds)
        self.federation.anvil.rpc("evm_mine")


@pytest.fixture
def relayed(federation: Any) -> Relayed:
    return Relayed(federation)


def test_an_outsider_hands_in_a_whole_round_that_members_signed(relayed: Relayed) -> None:
    state = relayed.state
    assert {i: c.commitment for i, c in state.current.commits.items()} == {i: relayed.commitment(i) for i in range(3)}
    relayed.lock()
    assert set(relayed.state.current.receipts) == {0, 1, 2}
    relayed.close()
    assert set(relayed.state.closed[1].openings) == {0, 1}
    assert relayed.state.model_digest == MODEL


def test_a_line_that_its_member_did_not_sign_spoils_the_batch(relayed: Relayed) -> None:
    whole = Bitmap(0b111)
    forged = SignedReceipt(whole, relayed.sign(RELAY, ReceiptStatement(1, 0, whole)))
    with pytest.raises(TransactionFailed) as refused:
        relayed.relay.submit("receipts", PostReceipts(1, 0, (forged,)))
    assert refused.value.error_name == "FederationNotMember"


def test_who_is_admitted_and_who_resigns_count_from_the_next_round_on(relayed: Relayed) -> None:
    account = Address(relayed.federation.anvil.accounts[NEWCOMER])
    newcomer = relayed.federation.sender(NEWCOMER)
    bond, key = relayed.state.terms.bond_wei, b"\x0b" * 32
    with pytest.raises(TransactionFailed) as refused:
        newcomer.submit("enrol", Enrol(key, 7, bond))
    assert refused.value.error_name == "FederationNotMember"
    for i in range(2):
        relayed.members[i].submit("admit", VoteToAdmit(account))
    assert relayed.state.accounts[3] == account and relayed.state.admitted == 0b1000
    newcomer.submit("enrol", Enrol(key, 7, bond))
    relayed.members[2].submit("resign", Resign())
    relayed.members[1].submit("rotate", RotateKey(b"\x0c" * 32))
    assert (relayed.state.joining, relayed.state.leaving, relayed.state.standing) == (0b1000, 0b100, 0b111)
    relayed.lock()
    relayed.close()
    state = relayed.state
    assert (state.standing, state.threshold) == (0b1011, 2)
    assert state.current.encryption_keys == {0: b"\x01" * 32, 1: b"\x0c" * 32, 3: key}
    assert phase_of(state, 2, relayed.reader.now()) is Phase.TRAINING


def test_every_motion_is_understood(relayed: Relayed) -> None:
    voter = relayed.members[0]
    relayed.lock()
    voter.submit("abandon", VoteToAbandon(1, 0))
    relayed.close()
    voter.submit("remove", VoteToRemove(Index(2)))
    voter.submit("refuse", VoteToRefuse(1, MODEL))
    relayed.reader.refresh()
    said = [entry.event for entry in relayed.reader.log() if isinstance(entry.event, MotionVoted)]
    assert [(event.motion, event.round, event.attempt, event.subject) for event in said] == [
        (Motion.ABANDON, 1, 0, bytes(32)),
        (Motion.REMOVE, 0, 0, (2).to_bytes(32, "big")),
        (Motion.REFUSE, 1, 0, MODEL),
    ]


def test_a_page_is_demanded_shown_and_paid_for(relayed: Relayed) -> None:
    demand = relayed.page(1)
    check_demand(relayed.state, demand, relayed.reader.now())
    relayed.relay.submit("demand", demand)
    shown = ShowPage(demand.page, SHARES_ROOT, show(demand.page, [hash_leaf(LEAF)], LEAF))
    check_shown(relayed.state, relayed.chain_id, relayed.contract, shown, relayed.reader.now())
    relayed.members[2].submit("show", shown)
    assert relayed.state.rewards == {relayed.members[2].address: demand.deposit_wei}
    relayed.members[2].submit("reward", WithdrawReward())
    assert not relayed.state.rewards
    with pytest.raises(TransactionFailed) as there:
        relayed.relay.submit("demand again", demand)
    with pytest.raises(Refused) as here:
        check_demand(relayed.state, demand, relayed.reader.now())
    assert here.value.error_name == there.value.error_name == "FederationAlreadyDemanded"


def test_who_keeps_silent_loses_its_bond(relayed: Relayed) -> None:
    demand = relayed.page(1)
    relayed.relay.submit("demand", demand)
    with pytest.raises(TransactionFailed) as refused:
        relayed.relay.submit("close", CloseDemand(demand.page))
    assert refused.value.error_name == "FederationDemandOpen"
    relayed.pass_time(relayed.state.terms.answer_window_s)
    assert check_closed(relayed.state, CloseDemand(demand.page), relayed.reader.now())
    relayed.relay.submit("close later", CloseDemand(demand.page))
    state = relayed.state
    assert state.slashed == 0b010
    assert state.rewards == {relayed.relay.address: demand.deposit_wei + state.terms.bond_wei // 2}
