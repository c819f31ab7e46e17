"""The aggregator (P3, P5): sums the ciphertexts when its turn comes, and closes the round once the sum is open.

Duties: in its turn, choose the largest participant set the receipts allow, post the homomorphic sum and so lock
the set; post a refuted sum anew; once t openings are published, decode the sum, make the new global model and, in its
turn to close, post it, also in a round that is open again because its result fell.
Deadlines: the aggregate window, after which the next member in the rotation takes over; the rest takes turns likewise.
Refusals: it posts no set that the rules forbid, none with a dealer in it that evidence names, and nothing that it has
not computed itself.
"""

from __future__ import annotations

from ..protocol.actions import CommitAggregate, CommitResult, RestateAggregate
from ..protocol.disputes import basis_of, commitments_digest
from ..protocol.ids import bitmap_of, members_of
from ..protocol.participants import check_participants, choose_participants
from ..protocol.phase import Phase, aggregator_of, live_attempt, phase_of, receipts_end, turn_of
from ..protocol.state import Attempt, FederationState
from .context import GROUP, PeerContext
from .crash import crash_point
from .decoder import Decoder
from .holdings import Holdings
from .turns import turn_at


class Aggregator:
    """One peer's duties to the sum and the model."""

    def __init__(self, context: PeerContext, holdings: Holdings, decoder: Decoder) -> None:
        self._context = context
        self._holdings = holdings
        self._decoder = decoder

    def act(self, state: FederationState, now: int) -> bool:
        """Do what is due now; whether anything was done."""
        attempt = live_attempt(state, now)
        if attempt is None:
            return False
        match phase_of(state, state.round, now):
            case Phase.AGGREGATING if aggregator_of(state, attempt, now) == self._context.me:
                return self._aggregate(state, attempt, now)
            case Phase.OPENING:
                return self._restate(state, attempt, now)
            case Phase.CLOSING:
                return self._restate(state, attempt, now) or self._close(state, attempt, now)
            case _:
                return False

    def _aggregate(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        context, round, complaints = self._context, attempt.round, self._holdings.complaints
        received = receipts_end(state, attempt, now)
        assert received is not None
        turn_began = received + turn_of(state, attempt, now) * state.terms.aggregate_window_s
        if complaints.wait(state, attempt, now, since=turn_began):
            return False
        participants = choose_participants(state, attempt, without=complaints.proven(attempt))
        if participants is None:
            return False
        self._holdings.examine(state, attempt, only=participants)
        check_participants(state, attempt, participants, offender=context.address)
        aggregate = self._decoder.sum(attempt, participants)
        if aggregate is None:
            return False
        crash_point("before-aggregate", round)
        with context.meter.step("aggregate"):
            cid = context.store.put(aggregate.pack())
            basis = commitments_digest(attempt)
            action = CommitAggregate(round, attempt.attempt, GROUP, participants, basis, aggregate.root(), cid)
            context.sender.submit(context.duty("aggregate", attempt, basis=basis), action)
        context.log.info("aggregate committed", round=round, participants=members_of(participants))
        crash_point("after-aggregate", round)
        return True

    def _restate(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        """Post the sum anew after the posted one was refuted, in turns that begin with the member after its author."""
        context, locked = self._context, attempt.aggregate
        if locked is None or attempt.posted_sum is not None:
            return False
        author = attempt.refuted_sums[-1].index
        if now < turn_at(state, attempt, context.me, since=attempt.sum_fell_at, first=author):
            return False
        self._holdings.examine(state, attempt, only=locked.participants)
        aggregate = self._decoder.sum(attempt, locked.participants)
        if aggregate is None:
            return False
        with context.meter.step("aggregate"):
            cid = context.store.put(aggregate.pack())
            basis = commitments_digest(attempt)
            key = context.duty("restate", attempt, len(attempt.refuted_sums), basis)
            action = RestateAggregate(attempt.round, GROUP, locked.participants, basis, aggregate.root(), cid)
            context.sender.submit(key, action)
        context.log.info("aggregate restated", round=attempt.round)
        return True

    def _close(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        context, round, locked = self._context, attempt.round, attempt.aggregate
        assert locked is not None
        outcome = self._decoder.outcome(state, attempt)
        if outcome is None or outcome.model is None or outcome.digest is None:
            return False
        enough = sorted(opening.at for opening in attempt.openings.values())[attempt.threshold - 1]
        since = max(enough, attempt.reopened_at)
        if now < turn_at(state, attempt, context.me, since=since, first=locked.index):
            return False
        crash_point("before-result", round)
        basis = basis_of(attempt)
        with context.meter.step("close"):
            context.sender.submit(
                context.duty("result", attempt, len(attempt.refuted_results), basis),
                CommitResult(
                    round=round,
                    attempt=attempt.attempt,
                    group=GROUP,
                    openers=bitmap_of(outcome.opened.committee),
                    basis=basis,
                    key_sum_root=outcome.opened.key_sum_root,
                    result_root=outcome.opened.result_root,
                    result_cid=context.store.put(outcome.opened.result.pack()),
                    model_digest=outcome.digest,
                    model_cid=context.store.put(outcome.model),
                ),
            )
        context.log.info("result committed", round=round, model=outcome.digest.hex())
        crash_point("after-result", round)
        return True
