"""Members of a network in memory (`network.py`) that say whatever the contract lets in."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paper import CID, names_of, right_model, right_roots, right_sum
from paper_peers import opening_root

from fedchain.errors import TransactionFailed
from fedchain.protocol import actions as say
from fedchain.protocol.disputes import basis_of, commitments_digest
from fedchain.protocol.ids import Bitmap, Digest, Index, Root, bitmap_of
from fedchain.protocol.participants import choose_participants
from fedchain.protocol.phase import Phase, aggregator_of, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState

if TYPE_CHECKING:
    from network import Network


class Rogue:
    """A member that says what the contract lets in, and what it likes; its objects may be missing or spoiled.

    `wild` rogues also spoil rounds, deal wrong shares and withhold objects from some: nothing but votes ends that.
    """

    def __init__(self, network: Network, index: int, wild: bool) -> None:
        self.network, self.me, self.wild = network, Index(index), wild
        self.dice = network.dice

    def act(self) -> None:
        state, now = self.network.chain.state, self.network.chain.now
        attempt = live_attempt(state, now)
        if attempt is None or self.dice.random() < 0.4:
            return
        try:
            address, phase = state.accounts[self.me], phase_of(state, state.round, now)
            for action in self.actions(state, attempt, phase, now):
                self.network.chain.say(address, action)
        except TransactionFailed:
            return

    def actions(self, state: FederationState, attempt: Attempt, phase: Phase, now: int) -> list[Any]:
        place, dice = (attempt.round, attempt.attempt), self.dice
        match phase:
            case Phase.TRAINING if dice.random() < 0.7:
                return [say.CommitUpdate(*place, self.upload(attempt), CID, CID)]
            case Phase.RECEIPTS if dice.random() < 0.8:
                missing = dice.choice((0, 1 << dice.choice(attempt.order), dice.getrandbits(64)))
                receipt = say.PostReceipt(*place, Bitmap(attempt.committed & ~missing))
                # With evidence or without: a rogue that was dealt a wrong share, perhaps by a friend, can show it.
                accused = Bitmap(attempt.committed & (missing or 1 << dice.choice(attempt.order)))
                complains = self.wild and accused and dice.random() < 0.5
                return [say.Complain(*place, accused, CID), receipt] if complains else [receipt]
            case Phase.AGGREGATING if aggregator_of(state, attempt, now) == self.me:
                return self.aggregates(state, attempt)
            case Phase.OPENING | Phase.CLOSING:
                return self.closes(attempt, phase)
            case _:
                return []

    def upload(self, attempt: Attempt) -> Digest:
        """An upload, now and then a spoiled one, or one that not everybody gets."""
        if not self.wild:
            return self.network.upload(self.me, attempt)
        others = frozenset(i for i in attempt.order if self.dice.random() < 0.3)
        kind = self.dice.choice(("right", "spoiled", "wrong shares", "withheld", "other place"))
        lie: dict[str, Any] = {"spoiled": {"spoiled": True}, "wrong shares": {"victims": others}}.get(kind, {})
        name = self.network.upload(self.me, attempt, number=self.dice.getrandbits(32), **lie)
        if kind == "withheld":
            self.network.withheld |= {(name, i) for i in others}
        if kind == "other place":
            upload = self.network.uploads[name]
            self.network.uploads[name] = replace(upload, place=(attempt.round, attempt.attempt + 1, upload.place[2]))
        return name

    def aggregates(self, state: FederationState, attempt: Attempt) -> list[Any]:
        """Some set that the rules allow, with a right or a wrong sum; the contract refuses the others."""
        best, dice = choose_participants(state, attempt), self.dice
        sets = [Bitmap(attempt.committed & dice.getrandbits(64)) for _ in range(30 if self.wild else 0)]
        chosen = [s for s in (*sets, best) if s is not None]
        root = Root(dice.randbytes(32)) if dice.random() < 0.5 else None
        basis = commitments_digest(attempt)
        for participants in chosen:
            posted = root or right_sum(attempt, participants)
            action = say.CommitAggregate(attempt.round, attempt.attempt, 0, participants, basis, posted, CID)
            try:
                self.network.chain.say(state.accounts[self.me], action)
                break
            except TransactionFailed:
                continue
        return []

    def closes(self, attempt: Attempt, phase: Phase) -> list[Any]:
        place, dice = (attempt.round, attempt.attempt), self.dice
        assert attempt.aggregate is not None
        if self.wild and dice.random() < 0.3:
            return [say.VoteToAbandon(*place)]
        if self.me not in attempt.openings:
            names = names_of(attempt, attempt.aggregate.participants)
            root = opening_root(names, self.me) if dice.random() < 0.5 else Root(dice.randbytes(32))
            return [say.PublishOpening(*place, 0, root, CID)]
        if phase is Phase.CLOSING and dice.random() < 0.3:
            openers = bitmap_of(sorted(attempt.openings)[: attempt.threshold])
            roots = right_roots(attempt) if dice.random() < 0.5 else (Root(dice.randbytes(32)), Root(bytes(32)))
            model = right_model(attempt) if dice.random() < 0.3 else Digest(dice.randbytes(32))
            return [say.CommitResult(*place, 0, openers, basis_of(attempt), *roots, CID, model, CID)]
        return []
