"""The trainer (P1): trains from the model that stands, and uploads one update that nobody can read.

Duties: vote to stop when the model that stands meets the target on this member's own held-out data, or the charter's
privacy is spent; then, once an attempt, train, make integers of it (`contribution`), encrypt them under a fresh
one-time key, deal its shares, store, commit.
Deadline: the training window. Refusals: it never commits two uploads in one attempt, and never encrypts twice under one
key: an upload that was dealt but not journalled is forgotten, and dealt anew with a fresh key. It does not train for a
sum that could exceed the charter's privacy budget.
"""

from __future__ import annotations

import time

from ..crypto import deal
from ..learn import evaluate
from ..protocol.actions import CommitUpdate, VoteToStop
from ..protocol.commitment import update_commitment
from ..protocol.ids import Digest
from ..protocol.phase import Phase, live_attempt, phase_of
from ..protocol.privacy import is_affordable
from ..protocol.state import Attempt, FederationState
from ..protocol.statements import UpdateStatement
from ..protocol.update_format import join_values
from .context import PeerContext
from .contribution import contribution_to, rounded
from .crash import crash_point
from .journal import Dealt
from .pace import Pace


class Trainer:
    """One peer's training duties."""

    def __init__(self, context: PeerContext) -> None:
        self._context = context
        self._meets: dict[Digest, bool] = {}
        """Whether a model meets the target."""
        self._pace = Pace()

    def act(self, state: FederationState, now: int) -> bool:
        """Do what is due now; whether anything was done."""
        if phase_of(state, state.round, now) is not Phase.TRAINING:
            return False
        attempt = live_attempt(state, now)
        assert attempt is not None
        if not is_affordable(self._context.charter, state):
            return self._end(state, attempt)
        if self._vote(state, attempt):
            return True
        if self._context.me in attempt.commits:
            return False
        place = attempt.round, attempt.attempt
        dealt = self._context.journal.dealt(*place)
        if dealt is None:
            dealt = self._deal(state, attempt, now)
        said = UpdateStatement(*place, dealt.commitment, dealt.ciphertext_cid, dealt.shares_cid)
        window_s = state.terms.training_window_s
        if self._context.is_relayed(said, now, since=attempt.started_at, window_s=window_s):
            return False
        self._commit(attempt, dealt)
        return True

    def _vote(self, state: FederationState, attempt: Attempt) -> bool:
        """Judge the model that stands, once a round; vote to stop if it meets the charter's target."""
        context, round = self._context, attempt.round
        if round == 1:
            return False
        if attempt.base_digest not in self._meets:
            self._meets[attempt.base_digest] = self._is_good_enough(state, attempt)
        # Asked of the chain each time: a vote that it took back is cast again.
        if not self._meets[attempt.base_digest] or state.stop_votes >> context.me & 1:
            return False
        self._vote_to_stop(attempt)
        context.log.info("voted to stop", round=round, target=context.charter.run.target)
        return True

    def _is_good_enough(self, state: FederationState, attempt: Attempt) -> bool:
        """Whether the model that stands meets the charter's target, if it has one, on this member's held-out data."""
        context, target = self._context, self._context.charter.run.target
        metrics = evaluate(
            context.task,
            context.base_model(attempt),
            context.data.validation,
            local_tensors=context.charter.algorithm.local_tensors,
            kept=context.kept.latest(state, attempt.round),
        )
        value = metrics[context.task.metric]
        context.log.info("model judged", round=attempt.round - 1, metric=context.task.metric, value=rounded(value))
        return target is not None and (value >= target if context.task.higher_is_better else value <= target)

    def _end(self, state: FederationState, attempt: Attempt) -> bool:
        """Train no more: one more sum could exceed the privacy budget. Vote to stop, which round 1 has no votes for."""
        context = self._context
        if attempt.round == 1 or state.stop_votes >> context.me & 1:
            return False
        self._vote_to_stop(attempt)
        context.log.info("voted to stop", round=attempt.round, privacy="spent")
        return True

    def _vote_to_stop(self, attempt: Attempt) -> None:
        round = attempt.round
        crash_point("before-vote", round)
        vote = VoteToStop(round=round, model=attempt.base_digest)
        self._context.sender.submit(f"stop/{round}/{attempt.base_digest.hex()}", vote)
        crash_point("after-vote", round)

    def _deal(self, state: FederationState, attempt: Attempt, now: int) -> Dealt:
        context, round = self._context, attempt.round
        crash_point("before-training", round)
        budget_s = self._pace.budget_s(context.charter.algorithm, state, attempt, now, context.me)
        given = contribution_to(context, state, attempt, budget_s)
        with context.meter.step("encrypt"):
            upload = deal(
                context.round_context(attempt),
                dealer=context.me,
                dealer_address=context.address,
                encryption_keys=attempt.encryption_keys,
                threshold=attempt.threshold,
                coefficients=join_values(given.values, given.form),
            )
        with context.meter.step("commit"):
            dealt = Dealt(
                commitment=update_commitment(
                    context.reader.chain_id,
                    context.reader.contract,
                    round,
                    attempt.attempt,
                    context.address,
                    upload.ciphertext_root,
                    upload.shares_root,
                ),
                ciphertext_cid=context.store.put(upload.ciphertext),
                shares_cid=context.store.put(upload.shares),
            )
        crash_point("after-dealing", round)
        context.journal.promise_upload(round, attempt.attempt, dealt)
        self._pace.note(time.monotonic() - given.trained_at)
        return dealt

    def _commit(self, attempt: Attempt, dealt: Dealt) -> None:
        context = self._context
        crash_point("before-commit", attempt.round)
        action = CommitUpdate(
            round=attempt.round,
            attempt=attempt.attempt,
            commitment=dealt.commitment,
            ciphertext_cid=dealt.ciphertext_cid,
            shares_cid=dealt.shares_cid,
        )
        with context.meter.step("commit"):
            context.sender.submit(f"commit/{attempt.round}/{attempt.attempt}", action)
        context.log.info("update committed", round=attempt.round, attempt=attempt.attempt)
        crash_point("after-commit", attempt.round)
