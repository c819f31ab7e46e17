"""The contract on paper: it lets in what the protocol's rules let in, in blocks that a reorganisation takes back.

For `network.py`. Sums, results and models are names of what they follow from, so that anybody can tell right from
wrong, and a challenge needs no evidence. The evm tests hold these rules to the contract's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from fedchain.errors import Fault, TransactionFailed
from fedchain.protocol import actions as say
from fedchain.protocol import events as told
from fedchain.protocol.cid import cid_of
from fedchain.protocol.disputes import Refused, basis_of, commitments_digest
from fedchain.protocol.ids import Address, Digest, Index, Root, is_subset, members_of, size_of
from fedchain.protocol.participants import check_participants
from fedchain.protocol.phase import Phase, aggregator_of, duties_missed, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.transition import apply, founded
from fedchain.protocol.votes import ballot_of, check_vote, is_carried

CID = cid_of(b"an object")
TERMS = told.Terms(
    charter_digest=Digest(bytes(32)),
    charter_cid=CID,
    genesis_digest=Digest(sha256(b"genesis").digest()),
    genesis_cid=CID,
    model_size=128,
    rounds=1_000_000,
    threshold=0,
    enrol_window_s=60,
    training_window_s=60,
    receipt_window_s=40,
    aggregate_window_s=20,
    challenge_window_s=400,
    close_window_s=40_000,
    bond_wei=6400,
)


@dataclass(frozen=True, slots=True)
class Refute:
    """A challenge with good evidence: of the sum that stands in a round, or of its result. The truth is checked."""

    round: int
    result: bool


@dataclass(frozen=True, slots=True)
class Block:
    at: int
    state: FederationState
    said: tuple[Address, Any] | None = None
    events: tuple[told.Event, ...] = ()


def digest_of(*words: Any) -> Digest:
    return Digest(sha256(repr(words).encode()).digest())


def names_of(attempt: Attempt, participants: int) -> tuple[bytes, ...]:
    return tuple(attempt.commits[i].commitment for i in members_of(participants))


def right_sum(attempt: Attempt, participants: int) -> Root:
    return Root(digest_of("sum", names_of(attempt, participants)))


def right_model(attempt: Attempt) -> Digest:
    """The model that follows; the moments at which statements came make no difference."""
    assert attempt.aggregate is not None
    return digest_of("model", attempt.base_digest, names_of(attempt, attempt.aggregate.participants))


def right_roots(attempt: Attempt) -> tuple[Root, Root]:
    model = right_model(attempt)
    return Root(digest_of("key sum", model)), Root(digest_of("result", model))


class Chain:
    """The contract, played by the pure rules, and blocks that a reorganisation takes back."""

    chain_id, contract = 31337, Address("0x" + "fe" * 20)

    def __init__(self, founders: tuple[Address, ...], terms: told.Terms = TERMS, at: int = 1) -> None:
        terms = replace(terms, threshold=terms.threshold or len(founders) // 2 + 1)
        first = told.FederationFounded(terms, founders, at)
        self.blocks = [Block(at, founded(first), events=(first,))]
        self.dropped: list[tuple[Address, Any]] = []

    @property
    def state(self) -> FederationState:
        return self.blocks[-1].state

    @property
    def now(self) -> int:
        return self.blocks[-1].at

    def mine(self, after_s: int = 0) -> None:
        """A block with nothing in it for us."""
        self.blocks.append(Block(self.now + after_s, self.state))

    def rewind(self, depth: int) -> None:
        """Take blocks back; what they held may be mined again. Time does not go back."""
        depth = min(depth, len(self.blocks) - 1)
        now, gone = self.now, self.blocks[len(self.blocks) - depth :]
        del self.blocks[len(self.blocks) - depth :]
        self.dropped += [block.said for block in gone if block.said is not None]
        self.blocks.append(Block(now, self.state))

    def say(self, sender: Address, action: Any) -> None:
        """Mine one action. Raises TransactionFailed where the contract would revert."""
        state = self.state
        events = self._events(state, sender, action, self.now)
        for event in events:
            state = apply(state, event)
        self.blocks.append(Block(self.now, state, (sender, action), tuple(events)))

    def _events(self, state: FederationState, sender: Address, action: Any, at: int) -> list[told.Event]:
        index = state.index_of(sender)
        if isinstance(action, say.Enrol):
            phase = phase_of(state, state.round, at)
            welcome = index is not None and (phase is Phase.ENROLLING or state.admitted >> index & 1)
            if index is None or not welcome or state.bonded >> index & 1 or state.slashed >> index & 1:
                raise TransactionFailed("enrol: refused")
            return [told.MemberEnrolled(index, sender, action.encryption_key, action.weight, at)]
        if isinstance(action, Refute):
            return self._refuted(state, sender, action, at)
        if index is None or not state.heard >> index & 1:
            raise TransactionFailed("not a member that is heard")
        if isinstance(action, (say.VoteToAdmit, say.VoteToRemove, say.VoteToAbandon, say.VoteToRefuse)):
            return self._voted(state, index, action, at)
        phase, live = phase_of(state, state.round, at), live_attempt(state, at)
        if live is None or phase is Phase.FINISHED:
            raise TransactionFailed("wrong phase")
        if isinstance(action, say.Resign):
            if state.leaving >> index & 1:
                raise TransactionFailed("already leaving")
            return [told.MemberLeaving(index, False, at)]
        if isinstance(action, say.RotateKey):
            return [told.EncryptionKeyRotated(index, action.encryption_key, at)]
        # Demands, and challenges with real evidence, are not heard on paper.
        if getattr(action, "round", 0) != live.round or getattr(action, "attempt", live.attempt) != live.attempt:
            raise TransactionFailed("wrong round or attempt")
        return self._spoken(state, live, phase, index, action, at)

    def _spoken(
        self, state: FederationState, live: Attempt, phase: Phase, index: Index, action: Any, at: int
    ) -> list[told.Event]:
        place = live.round, live.attempt
        match action, phase:
            case say.CommitUpdate(), Phase.TRAINING if index not in live.commits:
                cids = action.ciphertext_cid, action.shares_cid
                return [told.UpdateCommitted(*place, index, action.commitment, *cids, at)]
            case say.PostReceipt(), Phase.RECEIPTS if index not in live.receipts:
                if is_subset(action.whole, live.committed):
                    return [told.ReceiptPosted(*place, index, action.whole, at)]
            case say.Complain(), Phase.TRAINING | Phase.RECEIPTS if index not in live.complaints:
                if action.dealers and is_subset(action.dealers, live.committed):
                    return [told.Complained(*place, index, action.dealers, action.evidence_cid, at)]
            case say.CommitAggregate(), Phase.AGGREGATING if aggregator_of(state, live, at) == index:
                if action.basis == commitments_digest(live):
                    try:
                        check_participants(state, live, action.participants)
                    except Fault as fault:
                        raise TransactionFailed(str(fault)) from fault
                    missed = duties_missed(state, live, at)
                    posted = told.AggregateCommitted(*place, 0, index, action.participants, action.root, action.cid, at)
                    return [*([told.DutiesMissed(*place, missed, at)] if missed else []), posted]
            case say.RestateAggregate(), Phase.OPENING | Phase.CLOSING if live.posted_sum is None:
                if action.basis == commitments_digest(live):
                    return [told.AggregateRestated(*place, 0, index, action.root, action.cid, at)]
            case say.PublishOpening(), Phase.OPENING | Phase.CLOSING if index not in live.openings:
                return [told.OpeningPublished(*place, 0, index, action.root, action.cid, at)]
            case say.CommitResult(), Phase.CLOSING if action.basis == basis_of(live):
                if size_of(action.openers) == live.threshold and is_subset(action.openers, live.opened):
                    roots = action.key_sum_root, action.result_root, action.result_cid
                    model = action.model_digest, action.model_cid
                    return [told.ResultCommitted(*place, 0, index, action.openers, *roots, *model, at)]
        raise TransactionFailed(f"{type(action).__name__} is refused in {phase.name}")

    def _voted(self, state: FederationState, index: Index, vote: Any, at: int) -> list[told.Event]:
        try:
            check_vote(state, index, vote, at)
        except Refused as refused:
            raise TransactionFailed(str(refused)) from refused
        ballot = ballot_of(state, vote)
        cast = told.MotionVoted(ballot.motion, index, ballot.round, ballot.attempt, ballot.subject, at)
        if not is_carried(state, state.ballots.get(ballot, 0) | 1 << index):
            return [cast]
        match vote:
            case say.VoteToAdmit():
                place = state.index_of(vote.account)
                place = Index(len(state.accounts)) if place is None else place
                return [cast, told.MemberAdmitted(place, vote.account, at)]
            case say.VoteToRemove():
                return [cast, told.MemberLeaving(vote.index, True, at)]
            case say.VoteToAbandon():
                assert state.current is not None and state.current.aggregate is not None
                locked = state.current.aggregate
                return [cast, told.SetAbandoned(vote.round, vote.attempt, 0, locked.participants, at)]
            case _:
                return [cast, *self._fallen(state, vote.round, Address("0x" + "00" * 20), 7, at)]

    def _refuted(self, state: FederationState, sender: Address, action: Refute, at: int) -> list[told.Event]:
        """A challenge succeeds against what is wrong, and against nothing else."""
        attempt = state.closed.get(action.round, state.current)
        if attempt is None or attempt.round != action.round or attempt.aggregate is None:
            raise TransactionFailed("no statement")
        if not action.result:
            posted = attempt.posted_sum
            if posted is None or posted.root == right_sum(attempt, attempt.aggregate.participants):
                raise TransactionFailed("no wrong sum stands")
            fell: told.Event = told.AggregateRefuted(attempt.round, attempt.attempt, 0, posted.index, at)
            return [fell, *self._slashed(state, posted.index, sender, action.round, 1, at)]
        result = attempt.result
        if result is None or (result.key_sum_root, result.result_root) == right_roots(attempt):
            raise TransactionFailed("no wrong result stands")
        return self._fallen(state, action.round, sender, 2, at)

    def _fallen(self, state: FederationState, round: int, to: Address, rule: int, at: int) -> list[told.Event]:
        attempt = state.closed[round]
        assert attempt.result is not None
        liar = attempt.result.index
        fell = told.ResultRefuted(round, attempt.attempt, 0, liar, at)
        return [fell, *self._slashed(state, liar, to, round, rule, at)]

    def _slashed(
        self, state: FederationState, index: Index, to: Address, round: int, rule: int, at: int
    ) -> list[told.Event]:
        bond = state.terms.bond_wei
        due = told.MemberSlashed(index, to, round, rule, bond // 2, bond // 2 if rule != 7 else 0, at)
        return [due] if state.bonded >> index & 1 else []
