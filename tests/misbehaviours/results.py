"""Closers, voters, challengers, demanders: what is posted of an opened round, and what is said against it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fedchain.crypto import prove_aggregate
from fedchain.crypto.parameters import PLAIN_MODULUS, SHARE_PRIME
from fedchain.peer.aggregator import Aggregator
from fedchain.peer.challenger import Challenger
from fedchain.peer.decoder import Decoder, Outcome
from fedchain.peer.voter import Voter
from fedchain.protocol.actions import CommitResult, DemandPage, VoteToAbandon, VoteToRefuse
from fedchain.protocol.cid import cid_of
from fedchain.protocol.descent import aggregate_page
from fedchain.protocol.ids import Bitmap
from fedchain.protocol.model import assemble, flatten, layout_of, model_digest
from fedchain.protocol.phase import Phase, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState

from .catalogue import Expected, Liar, keeping, misbehaviour

CLOSER = {"member": 0}
"""The aggregator of round 1 closes it at once."""

ROLLED_BACK = "the result falls, the round is open again, and the next member in turn closes it"


class WrongCloser(Decoder, Liar):
    """Decodes a round rightly, and makes something else of it, in its round."""

    def outcome(self, state: FederationState, attempt: Attempt) -> Outcome | None:
        honest = super().outcome(state, attempt)
        return honest if honest is None or not self.lies_in(attempt) else self.lie(honest)

    def lie(self, honest: Outcome) -> Outcome:
        raise NotImplementedError


def posted(honest: Outcome, **lies: Any) -> Outcome:
    """What a closer posts that changes its result so: a model of its own comes with it."""
    result = replace(honest.opened.result, **lies)
    opened = replace(honest.opened, result=result, key_sum_root=result.key_sum_root(), result_root=result.root())
    return with_model(replace(honest, opened=opened), honest.model[:-4] + np.float32(0.25).tobytes())


def with_model(honest: Outcome, model: bytes) -> Outcome:
    return replace(honest, model=model, digest=model_digest(model))


@misbehaviour("wrong-result", ROLLED_BACK + " (R3)", Expected(slashed=3, logged="challenging"), **CLOSER)
class WrongResult(WrongCloser):
    """Closes with one coefficient off by one, and a model of its own."""

    def lie(self, honest: Outcome) -> Outcome:
        coefficients = honest.opened.result.coefficients.copy()
        coefficients[0, 1] = (coefficients[0, 1] + np.uint64(1)) % np.uint64(PLAIN_MODULUS)
        return posted(honest, coefficients=coefficients)


@misbehaviour("wrong-key-sum", ROLLED_BACK + " (R2)", Expected(slashed=2, logged="challenging"), **CLOSER)
class WrongKeySum(WrongCloser):
    """Closes with an S that no opening gives, and a model of its own."""

    def lie(self, honest: Outcome) -> Outcome:
        elements = honest.opened.result.elements.copy()
        elements[2047] = (int(elements[2047]) + 1) % SHARE_PRIME
        return posted(honest, elements=elements)


REFUSED = "no contract can hash a model: t members refuse it by vote, and its whole bond is burnt"


@misbehaviour("wrong-model", REFUSED, Expected(slashed=7, logged="voted to refuse"), **CLOSER)
class WrongModel(WrongCloser):
    """Closes with right roots, and a model of its own."""

    def lie(self, honest: Outcome) -> Outcome:
        return posted(honest)


@misbehaviour("nan-model", REFUSED, Expected(slashed=7, logged="voted to refuse"), **CLOSER)
class NanModel(WrongCloser):
    """Closes with right roots, and a model of which every value is NaN."""

    def lie(self, honest: Outcome) -> Outcome:
        values = np.full(layout_of(honest.model).size, np.nan, dtype="<f4").tobytes()
        return with_model(honest, honest.model[: -len(values)] + values)


@misbehaviour("wrong-weights", REFUSED, Expected(slashed=7, logged="voted to refuse"), **CLOSER)
class WrongWeights(WrongCloser):
    """Closes with right roots, and a model that moved twice as far as the members' weights say."""

    def lie(self, honest: Outcome) -> Outcome:
        return with_model(honest, assemble(layout_of(honest.model), 2 * flatten(honest.model)))


class Closing(Aggregator, Liar):
    """Says something else on chain than it decoded, in its round."""

    def said(self, action: CommitResult) -> CommitResult:
        raise NotImplementedError

    def _close(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        sender = self._context.sender
        if not self.lies_in(attempt):
            return super()._close(state, attempt, now)

        def otherwise(key: str, action: CommitResult) -> bytes:
            return type(sender).submit(sender, key + "/otherwise", self.said(action))

        sender.submit = otherwise  # type: ignore[method-assign]
        try:
            return super()._close(state, attempt, now)
        finally:
            del sender.submit


@misbehaviour(
    "model-stored-otherwise",
    "the digest counts, and every member has the model; who joins cannot fetch it, and takes part a round later",
    Expected(faults=(10,), logged="the right model, posted with the CID"),
    **CLOSER,
)
class ModelStoredOtherwise(Closing):
    """Closes with the right model's digest, and the CID of other bytes."""

    def said(self, action: CommitResult) -> CommitResult:
        return replace(action, model_cid=self._context.store.put(b"no model"))


@misbehaviour(
    "unopened-openers",
    "the contract hears of members that have opened only; another member closes",
    Expected(refused="openers are"),
    absent=(4,),
    **CLOSER,
)
class UnopenedOpeners(Closing):
    """Names openers that have not opened."""

    def said(self, action: CommitResult) -> CommitResult:
        return replace(action, openers=Bitmap(0b10011))


@misbehaviour(
    "withheld-model",
    "every peer has decoded it, and stores its own where nobody else has it",
    Expected(),
    settles=1,
    store=keeping,
    **CLOSER,
)
class WithheldModel(WrongCloser):
    """Closes rightly, and keeps the model from everyone."""

    def lie(self, honest: Outcome) -> Outcome:
        self.hidden.add(cid_of(honest.model))
        return honest


@misbehaviour(
    "withheld-result",
    "a right result needs no proof: every peer decoded it; it is owed as long as the charter keeps it",
    Expected(faults=(4,)),
    store=keeping,
    **CLOSER,
)
class WithheldResult(WrongCloser):
    """Closes rightly, and keeps from everyone what would prove it wrong if it were."""

    def lie(self, honest: Outcome) -> Outcome:
        self.hidden.add(cid_of(honest.opened.result.pack()))
        return honest


@misbehaviour("silent-closer", "after an aggregate window the next member closes", Expected(), **CLOSER)
class SilentCloser(Aggregator, Liar):
    """Closes no round."""

    def _close(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        return not self.lies_in(attempt) and super()._close(state, attempt, now)


@misbehaviour("vote-against-a-set", "t votes give a set up, and one does not", Expected())
class VoteAgainstASet(Voter, Liar):
    """Votes to give up a set that opens."""

    tried = False

    def act(self, state: FederationState, now: int) -> bool:
        attempt = live_attempt(state, now)
        locked = phase_of(state, state.round, now) in (Phase.OPENING, Phase.CLOSING)
        if attempt is not None and locked and self.lies_in(attempt) and not self.tried:
            self.tried = True
            self._context.sender.submit("against/set", VoteToAbandon(attempt.round, attempt.attempt))
        return super().act(state, now)


class Accusing(Challenger, Liar):
    """Turns against honest statements of its round, once."""

    tried = False

    def accuse(self, state: FederationState, attempt: Attempt) -> None:
        raise NotImplementedError

    def settled(self, state: FederationState, now: int) -> bool:
        settled = super().settled(state, now)
        closed = state.closed.get(max(1, Liar.round))
        if closed is not None and not self.tried:
            self.tried = True
            self.accuse(state, closed)
        return settled


@misbehaviour("vote-against-a-model", "t votes refuse a model, and one does not; the audit tells who voted", Expected())
class VoteAgainstAModel(Accusing):
    """Votes to refuse a model that is right."""

    def accuse(self, state: FederationState, attempt: Attempt) -> None:
        assert attempt.result is not None
        self._context.sender.submit("against/model", VoteToRefuse(attempt.round, attempt.result.model_digest))


@misbehaviour(
    "false-challenge",
    "the contract rebuilds from the evidence what is on record, and refuses",
    Expected(refused="not about what is on record"),
)
class FalseChallenge(Accusing):
    """Challenges a sum that is right, with evidence against another one."""

    def accuse(self, state: FederationState, attempt: Attempt) -> None:
        uploads, total = self._holdings.uploads(attempt), self._sum_of(attempt)
        assert uploads is not None and total is not None
        residues = total.residues.copy()
        residues[0, 1] += np.uint64(1)
        evidence = prove_aggregate(
            attempt, uploads, replace(total, residues=residues).pack(), self._context.terms.model_size
        )
        assert evidence is not None
        self._context.sender.submit("against/sum", evidence)


@misbehaviour(
    "demand-of-the-honest",
    "its author shows the page, and has the deposit for it",
    Expected(),
    settles=1,
)
class DemandOfTheHonest(Accusing):
    """Demands to see a page of an honest sum."""

    def accuse(self, state: FederationState, attempt: Attempt) -> None:
        assert attempt.posted_sum is not None
        page = aggregate_page(attempt.posted_sum, self._context.terms.model_size)
        self._context.sender.submit("demand", DemandPage(page, (), state.terms.deposit_wei))
