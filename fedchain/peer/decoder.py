"""What this peer computes of a round by itself: the sum, its opening, the model that follows. It believes no other's.

The aggregator posts it when its turn comes; the challenger holds others to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..crypto import (
    OPENING_BYTES,
    Aggregate,
    NotEnoughOpenings,
    Opened,
    Opening,
    SpoiledRound,
    agree_on_key,
    open_aggregate,
    sum_ciphertexts,
)
from ..errors import Fault, MalformedObject, ObjectCorrupt, ObjectMissing, StoreUnreachable
from ..protocol.arithmetic import SumOutOfRange, counted_weights
from ..protocol.events import AggregateCommitted, OpeningPublished, UpdateCommitted
from ..protocol.ids import Bitmap, Digest, Index, members_of, size_of
from ..protocol.model import model_digest
from ..protocol.outer import model_of_sum
from ..protocol.state import Attempt, FederationState
from .context import PeerContext
from .holdings import Holdings


@dataclass(frozen=True, slots=True)
class Outcome:
    """What this peer decoded from a round: the opened sum and the model that follows from it.

    `commits` and `locked` are what it was decoded from: after a reorganisation the chain may hold others. `model` and
    `digest` are None where no model follows: the sum is exact, and no honest values give it (or float32 cannot hold
    what they give). Then nobody can close the round rightly.
    """

    commits: Mapping[Index, UpdateCommitted]
    locked: AggregateCommitted
    opened: Opened
    model: bytes | None
    digest: Digest | None


class Decoder:
    """Sums, openings and outcomes of the rounds under way, each computed once."""

    def __init__(self, context: PeerContext, holdings: Holdings) -> None:
        self._context = context
        self._holdings = holdings
        self._sums: dict[tuple[UpdateCommitted, ...], Aggregate] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._openings: dict[OpeningPublished, Opening] = {}
        self._insufficient: tuple[int, int, tuple[OpeningPublished, ...]] | None = None
        self._spoiled: set[tuple[int, int]] = set()

    def sum(self, attempt: Attempt, participants: Bitmap) -> Aggregate | None:
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

    def outcome(self, state: FederationState, attempt: Attempt) -> Outcome | None:
        """The sum opened with the openings on chain, and the new model if there is one; None until they suffice."""
        known = self._outcomes.get(attempt.round)
        if known is None or (known.commits, known.locked) != (attempt.commits, attempt.aggregate):
            known = self._decode(state, attempt)
            if known is not None:
                self._outcomes = {attempt.round: known}
        return known

    def openings(self, state: FederationState, attempt: Attempt) -> dict[Index, Opening]:
        """The published openings that can be had and are what their authors committed to."""
        found = {index: self.opening(state, attempt, index) for index in sorted(attempt.openings)}
        return {index: opening for index, opening in found.items() if opening is not None}

    def opening(self, state: FederationState, attempt: Attempt, index: Index) -> Opening | None:
        """One member's opening, if it can be had and is what its author committed to."""
        context, published, author = self._context, attempt.openings[index], state.accounts[index]
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
                return None
            self._openings[published] = opening
        return self._openings[published]

    def is_spoiled(self, attempt: Attempt) -> bool:
        """Whether some participant is proven to have spoiled the set: S is right, and the sum does not open, because a
        key is not the one that was dealt; or it opens, and no honest values give it."""
        return (attempt.round, attempt.attempt) in self._spoiled

    def is_undecodable(self, attempt: Attempt) -> bool:
        """Whether the openings published so far were found not to open the sum."""
        return self._insufficient is not None and self._insufficient[:2] == (attempt.round, attempt.attempt)

    def forget(self, before_round: int) -> None:
        """Let go of openings of rounds before `before_round`, and of what that round and earlier ones were decoded to:
        the next one is trained beside it, and the model and the result are on disk."""
        self._outcomes = {round: outcome for round, outcome in self._outcomes.items() if round > before_round}
        self._spoiled = {place for place in self._spoiled if place[0] > before_round}
        for published in [p for p in self._openings if p.round < before_round]:
            del self._openings[published]

    def _decode(self, state: FederationState, attempt: Attempt) -> Outcome | None:
        context, locked = self._context, attempt.aggregate
        assert locked is not None
        self._holdings.examine(state, attempt, only=locked.participants)
        aggregate = self.sum(attempt, locked.participants)
        if aggregate is None:
            return None
        with context.meter.step("close"):
            openings = self.openings(state, attempt)
            had = attempt.round, attempt.attempt, tuple(attempt.openings[index] for index in openings)
            if had == self._insufficient:
                return None
            # What was found of a set that a reorganisation took back says nothing about this one.
            self._spoiled.discard(had[:2])
            try:
                opened = self._open(attempt, aggregate, openings)
            except (NotEnoughOpenings, Fault) as error:
                # Spoiled, or not yet: more openings may settle it, and nothing else that a peer could do would.
                self._insufficient = had
                if isinstance(error, SpoiledRound) and agree_on_key(
                    openings, threshold=attempt.threshold, participants=size_of(locked.participants)
                ):
                    self._spoiled.add(had[:2])
                context.log.warning("the openings so far do not open the sum", round=attempt.round, reason=str(error))
                return None
            model = self._model(attempt, opened)
        for index in opened.wrong:
            context.log.error("wrong opening", offender=state.accounts[index], round=attempt.round)
        context.keep_result(opened.key_sum_root, opened.result_root, opened.result.pack())
        if model is None:
            return Outcome(attempt.commits, locked, opened, None, None)
        context.keep_model(model)
        return Outcome(attempt.commits, locked, opened, model, model_digest(model))

    def _open(self, attempt: Attempt, aggregate: Aggregate, openings: dict[Index, Opening]) -> Opened:
        """The exact sum. Raises NotEnoughOpenings, SpoiledRound."""
        context, locked = self._context, attempt.aggregate
        assert locked is not None
        return open_aggregate(
            aggregate,
            openings,
            threshold=attempt.threshold,
            participants=size_of(locked.participants),
            context=context.round_context(attempt),
            d=context.terms.model_size,
            engine=context.engine,
        )

    def _model(self, attempt: Attempt, opened: Opened) -> bytes | None:
        """The model that follows from an exact sum; None where none does, which is said, and kept in mind."""
        context, locked = self._context, attempt.aggregate
        assert locked is not None
        try:
            return model_of_sum(
                context.base_model(attempt),
                opened.sums,
                charter=context.charter,
                weights=counted_weights(attempt, context.charter.update),
                participants=members_of(locked.participants),
                rotation=context.round_context(attempt).rotation_seed,
            )
        except MalformedObject as error:
            if isinstance(error, SumOutOfRange):
                self._spoiled.add((attempt.round, attempt.attempt))
            context.log.warning("no model follows from the sum", round=attempt.round, reason=str(error))
            return None
