"""Trainers: the values that they encrypt, and what they commit to."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from fedchain.crypto import check_ciphertext, check_shares, ciphertext_size, shares_size
from fedchain.learn import LocalData
from fedchain.peer import trainer
from fedchain.peer.contribution import Contribution
from fedchain.peer.journal import Dealt
from fedchain.peer.trainer import Trainer
from fedchain.protocol.actions import CommitUpdate
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.phase import Phase, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.update_format import UpdateFormat

from .catalogue import Expected, Liar, misbehaviour, replaced
from .uploads import LEFT_OUT, VICTIM


class Contributor(Trainer, Liar):
    """Encrypts other values than it trained."""

    def values(self, honest: Any, form: UpdateFormat) -> Any:
        raise NotImplementedError

    def _deal(self, state: FederationState, attempt: Attempt, now: int) -> Dealt:
        if not self.lies_in(attempt):
            return super()._deal(state, attempt, now)
        honest = trainer.contribution_to

        def wrong(*arguments: Any) -> Contribution:
            given = honest(*arguments)
            values = self.values(given.values.copy(), given.form)
            self.contributed[self._context.me, attempt.round, attempt.attempt] = values
            return replace(given, values=values)

        with replaced(trainer, "contribution_to", wrong), replaced(trainer, "join_values", joined):
            return super()._deal(state, attempt, now)


def joined(values: Any, form: UpdateFormat) -> Any:
    """Coefficients of values of any size, as `join_values` makes them of values in range."""
    coefficients = np.zeros(form.coefficients, dtype=np.uint64)
    for digit in range(form.fields):
        row = values[digit * form.coefficients : (digit + 1) * form.coefficients].astype(np.uint64)
        coefficients[: row.size] += row * np.uint64(form.radix**digit)
    return coefficients


@misbehaviour(
    "poison",
    "nobody can tell what is encrypted; values stay within clip_value, and the update counts by its member's weight",
    Expected(),
)
class Poison(Contributor):
    """Sends the largest values that an update can have."""

    def values(self, honest: Any, form: UpdateFormat) -> Any:
        return np.full_like(honest, 2 * form.steps)


@misbehaviour(
    "value-out-of-range",
    "nobody can tell while the sum stays in range; no more is gained than by as many honest values as are missing",
    Expected(),
)
class ValueOutOfRange(Contributor):
    """Sends one value that is larger than any update may hold, but not larger than a sum."""

    def values(self, honest: Any, form: UpdateFormat) -> Any:
        honest[0] = 2 * form.steps + 1
        return honest


@misbehaviour(
    "sum-out-of-range",
    "t openings prove that no honest values give the sum: t members give the set up at once, and the round begins"
    " again; nobody can tell whose values they were",
    Expected(attempts=2),
)
class SumOutOfRange(Contributor):
    """Sends values so large that the sum is none of honest values, in the first attempt."""

    def _deal(self, state: FederationState, attempt: Attempt, now: int) -> Dealt:
        with ExitStack() as stack:
            if attempt.attempt:
                stack.enter_context(replaced(Liar, "round", -1))
            return super()._deal(state, attempt, now)

    def values(self, honest: Any, form: UpdateFormat) -> Any:
        return np.full_like(honest, form.radix - 1)


@misbehaviour(
    "stale-model",
    "nobody can tell what it trained from; its update counts like any other",
    Expected(),
    round=2,
)
class StaleModel(Contributor):
    """Sends again the values that it trained from an older model."""

    def values(self, honest: Any, form: UpdateFormat) -> Any:
        return self.memory.get("values", honest)

    def _deal(self, state: FederationState, attempt: Attempt, now: int) -> Dealt:
        honest = trainer.contribution_to

        def noted(*arguments: Any) -> Contribution:
            given = honest(*arguments)
            self.memory.setdefault("values", given.values)
            return given

        with replaced(trainer, "contribution_to", noted):
            return super()._deal(state, attempt, now)


@misbehaviour(
    "nan-update",
    "integers have no NaN: its own peer stops before anything is committed, and the sum goes without",
    Expected(out=True, stops="diverged", strikes=1),
)
class NanUpdate(Trainer, Liar):
    """Trains on data with a NaN in it."""

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        inputs, labels = (part[:] for part in context.data.train.tensors)
        poisoned = TensorDataset(torch.full_like(inputs, float("nan")), labels)
        context.data = LocalData(train=poisoned, validation=context.data.validation)


class Committer(Trainer, Liar):
    """Says something else on chain than what it dealt."""

    def said(self, attempt: Attempt, dealt: Dealt) -> CommitUpdate:
        raise NotImplementedError

    def _commit(self, attempt: Attempt, dealt: Dealt) -> None:
        if not self.lies_in(attempt):
            return super()._commit(attempt, dealt)
        said = self.said(attempt, dealt)
        return self._context.sender.submit(f"commit/{attempt.round}/{attempt.attempt}", said) and None

    def waits_for_others(self, state: FederationState, now: int) -> bool:
        attempt = live_attempt(state, now)
        return self.lies_in(attempt) and attempt is not None and VICTIM not in attempt.commits


@misbehaviour(
    "replayed-commitment",
    LEFT_OUT + "; a commitment binds its round",
    Expected(out=True, faults=(4,), logged="update refused"),
    round=2,
)
class ReplayedCommitment(Committer):
    """Commits again as it did in the round before."""

    def said(self, attempt: Attempt, dealt: Dealt) -> CommitUpdate:
        before = self._context.journal.dealt(attempt.round - 1, 0) or dealt
        return CommitUpdate(attempt.round, attempt.attempt, before.commitment, before.ciphertext_cid, before.shares_cid)


@misbehaviour(
    "copied-commitment",
    LEFT_OUT + "; a commitment binds its sender",
    Expected(out=True, faults=(4,), logged="update refused"),
)
class CopiedCommitment(Committer):
    """Commits to what another member committed to."""

    def act(self, state: FederationState, now: int) -> bool:
        return not self.waits_for_others(state, now) and super().act(state, now)

    def said(self, attempt: Attempt, dealt: Dealt) -> CommitUpdate:
        other = attempt.commits[VICTIM]
        return CommitUpdate(attempt.round, attempt.attempt, other.commitment, other.ciphertext_cid, other.shares_cid)


@misbehaviour(
    "copied-upload",
    LEFT_OUT + "; a dealing names its dealer",
    Expected(out=True, faults=(4,), logged="update refused"),
)
class CopiedUpload(CopiedCommitment):
    """Commits under its own name to another member's objects, so that the sum holds them twice."""

    def said(self, attempt: Attempt, dealt: Dealt) -> CommitUpdate:
        context, other = self._context, attempt.commits[VICTIM]
        d, keys = context.terms.model_size, attempt.encryption_keys
        dealer = attempt.members[VICTIM].member
        place = {"dealer": VICTIM, "dealer_address": dealer, "encryption_keys": keys}
        shares = context.store.get(other.shares_cid, shares_size(len(keys), attempt.threshold))
        roots = (
            check_ciphertext(
                context.store.get(other.ciphertext_cid, ciphertext_size(d)), d, offender="", round=attempt.round
            ),
            check_shares(shares, context.round_context(attempt), **place, threshold=attempt.threshold, offender=""),
        )
        where = context.reader.chain_id, context.reader.contract, attempt.round, attempt.attempt, context.address
        return CommitUpdate(
            attempt.round,
            attempt.attempt,
            update_commitment(*where, *roots),
            other.ciphertext_cid,
            other.shares_cid,
        )


@misbehaviour(
    "commitment-for-another-round",
    "the contract hears no other round than the one under way, and the attempt ends without it",
    Expected(out=True, refused="round"),
)
class CommitmentForAnotherRound(Committer):
    """Commits to its update in the next round already."""

    def said(self, attempt: Attempt, dealt: Dealt) -> CommitUpdate:
        return CommitUpdate(
            attempt.round + 1, attempt.attempt, dealt.commitment, dealt.ciphertext_cid, dealt.shares_cid
        )


@misbehaviour("two-commitments", "the contract takes one an attempt", Expected(refused="already"))
class TwoCommitments(Trainer, Liar):
    """Commits twice in one attempt."""

    tried = False

    def _commit(self, attempt: Attempt, dealt: Dealt) -> None:
        super()._commit(attempt, dealt)
        if self.lies_in(attempt) and not self.tried:
            self.tried = True
            second = self._deal_again(attempt)
            self._context.sender.submit(f"again/{attempt.round}", second)

    def _deal_again(self, attempt: Attempt) -> CommitUpdate:
        cid = self._context.store.put(b"another upload")
        return CommitUpdate(attempt.round, attempt.attempt, attempt.base_digest, cid, cid)


@misbehaviour(
    "late-commitment",
    "the contract hears no commitment after the training window",
    Expected(out=True, refused="phase"),
)
class LateCommitment(Trainer, Liar):
    """Commits when the others post their receipts."""

    tried = False

    def act(self, state: FederationState, now: int) -> bool:
        attempt, phase = live_attempt(state, now), phase_of(state, state.round, now)
        if not self.lies_in(attempt):
            return super().act(state, now)
        if phase is Phase.RECEIPTS and attempt is not None and not self.tried:
            self.tried = True
            self._commit(attempt, self._deal(state, attempt, now))
        return False


@misbehaviour(
    "silent-trainer",
    "the window ends without it; with fewer than t+1 updates the attempt would be void",
    Expected(out=True),
)
class SilentTrainer(Trainer, Liar):
    """Trains nothing and commits to nothing."""

    def act(self, state: FederationState, now: int) -> bool:
        return not self.lies_in(live_attempt(state, now)) and super().act(state, now)
