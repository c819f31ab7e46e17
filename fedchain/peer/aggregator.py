"""The aggregator (P3, P5): sums the ciphertexts when its turn comes, and closes the round once the sum is open.

Duties: in its turn, choose the largest participant set the receipts allow, post the homomorphic sum and so lock
the set; once t openings are published, decode the sum, make the new global model and, in its turn to close, post it.
Deadlines: the aggregate window, after which the next member in the rotation takes over; closing takes turns likewise.
Refusals: it posts no set that the rules forbid, and trusts no posted result: every peer decodes every round itself, and
stops with the offender's name when the chain holds another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..crypto import OPENING_BYTES, Aggregate, NotEnoughOpenings, Opened, Opening, open_aggregate, sum_ciphertexts
from ..errors import Fault, ObjectCorrupt, ObjectMissing, StoreUnreachable
from ..protocol.actions import CommitAggregate, CommitResult
from ..protocol.arithmetic import average, counted_weights, next_model
from ..protocol.events import AggregateCommitted, OpeningPublished, UpdateCommitted
from ..protocol.ids import Bitmap, Digest, Index, members_of, size_of
from ..protocol.model import assemble, flatten, model_digest
from ..protocol.participants import check_participants, choose_participants
from ..protocol.phase import Phase, aggregator_of, live_attempt, phase_of
from ..protocol.state import Attempt, FederationState
from .context import GROUP, PeerContext
from .crash import crash_point
from .holdings import Holdings


@dataclass(frozen=True, slots=True)
class Outcome:
    """What this peer decoded from a round: the opened sum and the model that follows from it.

    `commits` and `locked` are what it was decoded from: after a reorganisation the chain may hold others.
    """

    commits: Mapping[Index, UpdateCommitted]
    locked: AggregateCommitted
    opened: Opened
    model: bytes
    digest: Digest


class Aggregator:
    """One peer's duties to the sum and the model."""

    def __init__(self, context: PeerContext, holdings: Holdings) -> None:
        self._context = context
        self._holdings = holdings
        self._sums: dict[tuple[UpdateCommitted, ...], Aggregate] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._openings: dict[OpeningPublished, Opening] = {}
        self._insufficient: tuple[OpeningPublished, ...] | None = None
        self._judged: Attempt | None = None
        self._complained = False

    def act(self, state: FederationState, now: int) -> bool:
        """Do what is due now; whether anything was done."""
        attempt = live_attempt(state, now)
        if attempt is None:
            return False
        match phase_of(state, state.round, now):
            case Phase.AGGREGATING if aggregator_of(state, attempt, now) == self._context.me:
                return self._aggregate(state, attempt)
            case Phase.CLOSING:
                return self._close(state, attempt, now)
            case _:
                return False

    def _aggregate(self, state: FederationState, attempt: Attempt) -> bool:
        context, round = self._context, attempt.round
        participants = choose_participants(state, attempt)
        if participants is None:
            return False
        self._holdings.examine(state, attempt, only=participants)
        check_participants(state, attempt, participants, offender=context.address)
        aggregate = self._sum(attempt, participants)
        if aggregate is None:
            return False
        crash_point("before-aggregate", round)
        with context.meter.step("aggregate"):
            cid = context.store.put(aggregate.pack())
            context.sender.submit(
                f"aggregate/{round}/{attempt.attempt}/{GROUP}",
                CommitAggregate(
                    round=round,
                    attempt=attempt.attempt,
                    group=GROUP,
                    participants=participants,
                    root=aggregate.root(),
                    cid=cid,
                ),
            )
        context.log.info("aggregate committed", round=round, participants=f"{participants:b}")
        crash_point("after-aggregate", round)
        return True

    def _close(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        context, round = self._context, attempt.round
        outcome = self._decoded(attempt) or self._decode(state, attempt)
        if outcome is None or now < self._my_turn_to_close(state, attempt):
            return False
        crash_point("before-result", round)
        with context.meter.step("close"):
            context.sender.submit(
                f"result/{round}/{attempt.attempt}/{GROUP}",
                CommitResult(
                    round=round,
                    attempt=attempt.attempt,
                    group=GROUP,
                    key_sum_root=outcome.opened.key_sum_root,
                    result_root=outcome.opened.result_root,
                    model_digest=outcome.digest,
                    model_cid=context.store.put(outcome.model),
                ),
            )
        context.log.info("result committed", round=round, model=outcome.digest.hex())
        crash_point("after-result", round)
        return True

    def _decoded(self, attempt: Attempt) -> Outcome | None:
        """What was decoded before, if from these very statements."""
        outcome = self._outcomes.get(attempt.round)
        if outcome is None or (outcome.commits, outcome.locked) != (attempt.commits, attempt.aggregate):
            return None
        return outcome

    def _decode(self, state: FederationState, attempt: Attempt) -> Outcome | None:
        """Open the sum with the openings on chain and make the new model; None until they suffice.

        The sum is this peer's own: a wrong aggregate on chain is logged, and changes nothing (P3).
        """
        context, locked = self._context, attempt.aggregate
        assert locked is not None
        self._holdings.examine(state, attempt, only=locked.participants)
        aggregate = self._sum(attempt, locked.participants)
        if aggregate is None:
            return None
        with context.meter.step("close"):
            openings = self._fetch_openings(state, attempt)
            had = tuple(attempt.openings[index] for index in openings)
            if had == self._insufficient:
                return None
            try:
                outcome = self._open(state, attempt, aggregate, openings)
            except (NotEnoughOpenings, Fault) as error:
                # Spoiled, or not yet: more openings may settle it, and nothing else that a peer could do would.
                self._insufficient = had
                context.log.warning("the openings so far do not open the sum", round=attempt.round, reason=str(error))
                return None
        if aggregate.root() != locked.root:
            offender = state.members[locked.index].member
            context.log.error("wrong aggregate on chain; going on with the right sum", offender=offender)
        for index in outcome.opened.wrong:
            context.log.error("wrong opening", offender=state.members[index].member, round=attempt.round)
        context.keep_model(outcome.model)
        self._outcomes = {attempt.round: outcome}
        return outcome

    def _open(
        self, state: FederationState, attempt: Attempt, aggregate: Aggregate, openings: dict[Index, Opening]
    ) -> Outcome:
        """The exact sum and the model that follows from it. Raises NotEnoughOpenings, SpoiledRound, MalformedObject."""
        context, locked = self._context, attempt.aggregate
        assert locked is not None
        opened = open_aggregate(
            aggregate,
            openings,
            threshold=context.terms.threshold,
            participants=size_of(locked.participants),
            context=context.round_context(state, attempt),
            d=context.terms.model_size,
            engine=context.engine,
        )
        weights = counted_weights(state, context.charter.update)
        mean = average(
            opened.sums,
            participants=size_of(locked.participants),
            total_weight=sum(weights[index] for index in members_of(locked.participants)),
            max_weight=max(weights.values()),
            settings=context.charter.update,
        )
        base = context.model(*state.base_model(attempt.round))
        model = assemble(context.layout(), next_model(flatten(base), mean))
        return Outcome(attempt.commits, locked, opened, model, model_digest(model))

    def _fetch_openings(self, state: FederationState, attempt: Attempt) -> dict[Index, Opening]:
        """The published openings that can be had and are what their authors committed to."""
        context, openings = self._context, {}
        for index, published in sorted(attempt.openings.items()):
            author = state.members[index].member
            if published not in self._openings:
                try:
                    content = context.store.get(published.cid, OPENING_BYTES)
                    opening = Opening.parse(content, offender=author, round=attempt.round)
                    if opening.root() != published.root:
                        raise Fault(
                            "opening root",
                            offender=author,
                            round=attempt.round,
                            expected=published.root.hex(),
                            got=opening.root().hex(),
                        )
                except (ObjectMissing, ObjectCorrupt, StoreUnreachable, Fault) as error:
                    context.log.warning("opening left out", author=author, round=attempt.round, reason=str(error))
                    continue
                self._openings[published] = opening
            openings[index] = self._openings[published]
        return openings

    def _sum(self, attempt: Attempt, participants: Bitmap) -> Aggregate | None:
        """The homomorphic sum over a set; None while this peer does not hold every update of it."""
        key = tuple(attempt.commits[index] for index in members_of(participants))
        if key not in self._sums:
            holdings = [self._holdings.of(attempt, index) for index in members_of(participants)]
            paths = [holding.ciphertext for holding in holdings if holding is not None]
            if len(paths) < len(holdings):
                return None
            with self._context.meter.step("aggregate"):
                aggregate = sum_ciphertexts(paths, self._context.terms.model_size, engine=self._context.engine)
            self._sums = {key: aggregate}
        return self._sums[key]

    def _my_turn_to_close(self, state: FederationState, attempt: Attempt) -> int:
        """When this member may post the result: at once for the aggregator, a window later for the next, and so on.

        The contract takes a result from any member; taking turns only saves everyone gas.
        """
        order, locked = state.order, attempt.aggregate
        assert locked is not None
        steps = (order.index(self._context.me) - order.index(locked.index)) % len(order)
        enough = sorted(opening.at for opening in attempt.openings.values())[state.terms.threshold - 1]
        return enough + steps * state.terms.aggregate_window_s

    def check_closed(self, state: FederationState) -> bool:
        """Compare the rounds that closed with what this peer decodes (P5); whether the newest is settled.

        A peer that starts begins with the newest closed round, and after a reorganisation with the newest again. On a
        round that it cannot decode it builds nothing: whoever closed it may have withheld the openings on purpose. Only
        when a later round closed on top is it let go, for the audit to judge. Raises Fault with the author's name.
        """
        newest = len(state.closed)
        if self._judged is None or state.closed.get(self._judged.round) != self._judged:
            self._judged = state.closed.get(newest - 1)
        while (self._judged.round if self._judged is not None else 0) < newest:
            round = self._judged.round + 1 if self._judged is not None else 1
            attempt = state.closed[round]
            result = attempt.result
            assert result is not None
            outcome = self._decoded(attempt) or self._decode(state, attempt)
            if outcome is None:
                if not self._complained:
                    self._complained = True
                    author = state.members[result.index].member
                    self._context.log.error("a closed round cannot be checked", round=round, closed_by=author)
                if round == newest:
                    return False
            elif result.model_digest != outcome.digest:
                raise Fault(
                    "result: the model on chain is not the one the openings give",
                    offender=state.members[result.index].member,
                    round=round,
                    expected=outcome.digest.hex(),
                    got=result.model_digest.hex(),
                )
            self._judged, self._complained = attempt, False
            self._openings.clear()
        return True
