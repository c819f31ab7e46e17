"""Aggregators: the participant set, and the sum over it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fedchain.crypto import Aggregate
from fedchain.crypto.parameters import Q
from fedchain.peer.aggregator import Aggregator
from fedchain.peer.decoder import Decoder
from fedchain.peer.respondent import Respondent
from fedchain.protocol.actions import CommitAggregate
from fedchain.protocol.cid import cid_of
from fedchain.protocol.disputes import commitments_digest
from fedchain.protocol.ids import Bitmap, Digest, members_of
from fedchain.protocol.phase import Phase, aggregator_of, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState

from .catalogue import Expected, Liar, keeping, misbehaviour

AGGREGATOR = {"member": 0}
"""Whose turn it is in round 1."""

REPLACED = "a leaf of its tree proves it on chain (R1); the sum is posted anew, and all went on with their own"


class WrongNumbers(Decoder, Liar):
    """Adds up wrongly, in its round."""

    def sum(self, attempt: Attempt, participants: Bitmap) -> Aggregate | None:
        total = super().sum(attempt, participants)
        return total if total is None or not self.lies_in(attempt) else self.wrong(attempt, participants, total)

    def wrong(self, attempt: Attempt, participants: Bitmap, total: Aggregate) -> Aggregate:
        raise NotImplementedError


@misbehaviour("wrong-sum", REPLACED, Expected(slashed=1, logged="challenging"), **AGGREGATOR)
class WrongSum(WrongNumbers):
    """Posts a sum in which one residue is off by one."""

    def wrong(self, attempt: Attempt, participants: Bitmap, total: Aggregate) -> Aggregate:
        residues = total.residues.copy()
        residues[0, 1] = (residues[0, 1] + np.uint64(1)) % np.uint64(Q)
        return replace(total, residues=residues)


@misbehaviour("sum-without-one", REPLACED, Expected(slashed=1, logged="challenging"), **AGGREGATOR)
class SumWithoutOne(WrongNumbers):
    """Locks a set, and posts a sum that leaves one participant's ciphertext out."""

    def wrong(self, attempt: Attempt, participants: Bitmap, total: Aggregate) -> Aggregate:
        return Decoder.sum(self, attempt, Bitmap(participants & (participants - 1))) or total


@misbehaviour("sum-with-one-twice", REPLACED, Expected(slashed=1, logged="challenging"), **AGGREGATOR)
class SumWithOneTwice(WrongNumbers):
    """Locks a set, and posts a sum that counts one participant's ciphertext twice."""

    def wrong(self, attempt: Attempt, participants: Bitmap, total: Aggregate) -> Aggregate:
        one = Decoder.sum(self, attempt, Bitmap(participants & -participants))
        assert one is not None
        return replace(total, residues=(total.residues + one.residues) % np.uint64(Q))


@misbehaviour(
    "hidden-sum",
    "demanded page by page: it must show the wrong leaf, which proves it (R1)",
    Expected(slashed=1, logged="challenging"),
    store=keeping,
    **AGGREGATOR,
)
class HiddenSum(WrongSum):
    """Posts a wrong sum and lets nobody fetch it, but shows its pages when they are demanded."""

    def wrong(self, attempt: Attempt, participants: Bitmap, total: Aggregate) -> Aggregate:
        wrong = super().wrong(attempt, participants, total)
        self.hidden.add(cid_of(wrong.pack()))
        return wrong


class Mute(Respondent):
    """Answers no demand."""

    def act(self, state: FederationState, now: int) -> bool:
        return False


@misbehaviour(
    "silent-sum",
    "a page that nobody shows in time proves its silence: its bond goes, and the sum falls",
    Expected(slashed=6, logged="silence proven"),
    store=keeping,
    roles=(Mute,),
    **AGGREGATOR,
)
class SilentSum(HiddenSum):
    """Posts a wrong sum, lets nobody fetch it, and answers no demand."""


class Picker(Aggregator, Liar):
    """Locks another participant set than the rules say, in its round."""

    tried = False

    def pick(self, attempt: Attempt) -> int:
        """The set to lock; the sum is over what of it there is."""
        raise NotImplementedError

    def _aggregate(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        if not self.lies_in(attempt):
            return super()._aggregate(state, attempt, now)
        if not self.tried:
            self.tried = True
            self.post(state, attempt, Bitmap(self.pick(attempt)))
        return False

    def post(self, state: FederationState, attempt: Attempt, participants: Bitmap, basis: Digest | None = None) -> None:
        context = self._context
        self._holdings.examine(state, attempt, only=attempt.committed)
        total = self._decoder.sum(attempt, Bitmap(participants & attempt.committed))
        assert total is not None
        said = participants, basis or commitments_digest(attempt), total.root(), context.store.put(total.pack())
        action = CommitAggregate(attempt.round, attempt.attempt, 0, *said)
        context.sender.submit(f"picked/{attempt.round}/{attempt.attempt}/{participants}", action)


PASSED_OVER = "the contract refuses the set; its turn passes, and the next member aggregates"


@misbehaviour("dropped-participant", PASSED_OVER, Expected(refused="leaves out updates", strikes=1), **AGGREGATOR)
class DroppedParticipant(Picker):
    """Leaves out of the set a member whose update everybody holds to be whole."""

    def pick(self, attempt: Attempt) -> int:
        return attempt.committed & ~(1 << members_of(attempt.committed)[-1])


@misbehaviour(
    "extra-participant",
    PASSED_OVER,
    Expected(refused="never committed|receipts cover", strikes=1),
    absent=(4,),
    **AGGREGATOR,
)
class ExtraParticipant(Picker):
    """Takes a member into the set that has committed to nothing."""

    def pick(self, attempt: Attempt) -> int:
        return attempt.committed | 1 << 4


@misbehaviour("set-of-one", PASSED_OVER, Expected(refused="has 1 participants", strikes=1), **AGGREGATOR)
class SetOfOne(Picker):
    """Locks a set of one member alone, to have its update opened."""

    def pick(self, attempt: Attempt) -> int:
        return 1 << 3


@misbehaviour("set-of-two", PASSED_OVER, Expected(refused="has 2 participants", strikes=1), **AGGREGATOR)
class SetOfTwo(Picker):
    """Locks a set of itself and one victim, to subtract its own update."""

    def pick(self, attempt: Attempt) -> int:
        return 1 << 3 | 1


@misbehaviour(
    "two-sets",
    "the contract locks one set an attempt; a second is not due",
    Expected(refused="not due now"),
    **AGGREGATOR,
)
class TwoSets(Picker):
    """Locks a set, and right after it another, to subtract the sums."""

    def _aggregate(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        done = Aggregator._aggregate(self, state, attempt, now)
        if done and self.lies_in(attempt) and not self.tried:
            self.tried = True
            self.post(state, attempt, Bitmap(attempt.committed & (attempt.committed - 1)))
        return done


@misbehaviour("other-basis", PASSED_OVER, Expected(refused="something else", strikes=1), **AGGREGATOR)
class OtherBasis(Picker):
    """Posts a sum over the set of a fork on which other updates were committed."""

    def _aggregate(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        if self.lies_in(attempt) and not self.tried:
            self.tried = True
            self.post(state, attempt, attempt.committed, basis=attempt.base_digest)
        return not self.lies_in(attempt) and super()._aggregate(state, attempt, now)


@misbehaviour(
    "out-of-turn",
    "the contract hears whose turn it is, and no other before it is over",
    Expected(refused="turn of member"),
    member=3,
    beside=("silent-aggregator", 0),
)
class OutOfTurn(Picker):
    """Aggregates when it is another member's turn."""

    def act(self, state: FederationState, now: int) -> bool:
        attempt = live_attempt(state, now)
        if attempt is not None and phase_of(state, state.round, now) is Phase.AGGREGATING:
            early = aggregator_of(state, attempt, now) != self._context.me
            if early and self.lies_in(attempt) and not self.tried:
                self.tried = True
                self.post(state, attempt, attempt.committed)
        return super().act(state, now)

    def _aggregate(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        return Aggregator._aggregate(self, state, attempt, now)


@misbehaviour("silent-aggregator", "passed over when its turn ends", Expected(strikes=1), **AGGREGATOR)
class SilentAggregator(Aggregator, Liar):
    """Lets its turn to aggregate pass."""

    def _aggregate(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        return not self.lies_in(attempt) and super()._aggregate(state, attempt, now)


def stored_otherwise(kind: type) -> type:
    """Posts the right root of a sum, and the CID of other bytes."""

    class Elsewhere(kind):  # type: ignore[misc, valid-type]
        def submit(self, key: str, action: Any) -> bytes:
            if isinstance(action, CommitAggregate) and Liar.round in (0, action.round):
                action = replace(action, cid=cid_of(b"no sum"))
            return super().submit(key, action)  # type: ignore[no-any-return]

    return Elsewhere


misbehaviour(
    "sum-stored-nowhere",
    "nobody needs the object of a right root: every peer computes the sum itself",
    Expected(faults=(4,)),
    door="sender",
    **AGGREGATOR,
)(stored_otherwise)
