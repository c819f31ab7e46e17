"""A federation as its log tells it, as one immutable value.

`transition.py` folds the chain's events into it; the contract keeps the same facts in storage; `phase.py` derives the
phase from either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from .events import (
    AggregateCommitted,
    AggregateRestated,
    MemberEnrolled,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    Terms,
    UpdateCommitted,
)
from .ids import Address, Bitmap, Cid, Digest, Index, bitmap_of, members_of

NO_VOTES = Bitmap(0)

PostedSum = AggregateCommitted | AggregateRestated
"""Who answers for a sum: the aggregator that locked its set, or who posted it anew once that one was refuted."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one round: everything that was said in it so far.

    `started_at` is when its training window opened (seconds). `standing` are those who count in this round, fixed when
    it began; `base_digest` and `base_cid` name the model it starts from. `aggregate` says who is in the sum, for ever;
    `posted_sum` is the sum that stands, if any does. Statements that were refuted are kept beside those that stand.
    `stop_votes` are those that had been cast when the round closed; while it is under way the state has them.
    """

    round: int
    attempt: int
    started_at: int
    standing: Bitmap
    base_digest: Digest
    base_cid: Cid
    commits: MappingProxyType[Index, UpdateCommitted] = field(default_factory=lambda: MappingProxyType({}))
    receipts: MappingProxyType[Index, ReceiptPosted] = field(default_factory=lambda: MappingProxyType({}))
    aggregate: AggregateCommitted | None = None
    posted_sum: PostedSum | None = None
    refuted_sums: tuple[PostedSum, ...] = ()
    openings: MappingProxyType[Index, OpeningPublished] = field(default_factory=lambda: MappingProxyType({}))
    result: ResultCommitted | None = None
    sum_fell_at: int = 0
    refuted_results: tuple[ResultCommitted, ...] = ()
    reopened_at: int = 0
    stop_votes: Bitmap = NO_VOTES
    last_commit_at: int = 0
    last_receipt_at: int = 0

    @property
    def committed(self) -> Bitmap:
        """The members whose updates are committed."""
        return bitmap_of(tuple(self.commits))

    @property
    def order(self) -> tuple[Index, ...]:
        """The members who count, ascending: the order of rotation."""
        return members_of(self.standing)


@dataclass(frozen=True, slots=True)
class FederationState:
    """Everything the chain has said about one federation.

    `current` is the newest attempt that holds any statement, or the fresh first attempt of the current round; time may
    have voided it since: ask `phase.live_attempt`. `closed[r]` is the attempt that closed round r; `voided` lists the
    attempts that came to nothing but held statements, `forgotten` those that a refuted result took back, which were
    built on a model that does not stand. `resumes[r]` is the attempt at which a forgotten round r begins again.
    `model_digest` and `model_cid` name the model that stands. `standing` are the members who count in the round that
    began last, `slashed` those who lost their bonds.
    """

    terms: Terms
    founders: tuple[Address, ...]
    founded_at: int
    members: MappingProxyType[Index, MemberEnrolled]
    last_enrol_at: int
    current: Attempt | None
    closed: MappingProxyType[int, Attempt]
    voided: tuple[Attempt, ...]
    stop_votes: Bitmap
    withdrawn: Bitmap
    model_digest: Digest
    model_cid: Cid
    standing: Bitmap
    slashed: Bitmap
    last_vote_at: int = 0
    last_slash_at: int = 0
    forgotten: tuple[Attempt, ...] = ()
    resumes: MappingProxyType[int, int] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def enrolled(self) -> Bitmap:
        """The enrolled members."""
        return bitmap_of(tuple(self.members))

    @property
    def heard(self) -> Bitmap:
        """The enrolled members that were not slashed: who may speak, and who will count in the next round to begin."""
        return Bitmap(self.enrolled & ~self.slashed)

    @property
    def order(self) -> tuple[Index, ...]:
        """The enrolled members, ascending."""
        return tuple(sorted(self.members))

    @property
    def round(self) -> int:
        """The round now under way, from 1; rounds + 1 once all are closed."""
        return len(self.closed) + 1

    def index_of(self, address: str) -> Index | None:
        """The founder's index, or None for a stranger."""
        for i, founder in enumerate(self.founders):
            if founder.lower() == address.lower():
                return Index(i)
        return None

    def encryption_keys(self, attempt: Attempt) -> dict[Index, bytes]:
        """The X25519 key of everyone who counts in this attempt's round: its shareholders."""
        return {index: self.members[index].encryption_key for index in attempt.order}

    def base_model(self, round: int) -> tuple[Digest, Cid]:
        """The digest and CID of the model that members train from in `round`."""
        if round <= 1:
            return self.terms.genesis_digest, self.terms.genesis_cid
        result = self.closed[round - 1].result
        assert result is not None
        return result.model_digest, result.model_cid
