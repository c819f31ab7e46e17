"""A federation as its log tells it, as one immutable value.

`transition.py` folds the chain's events into it; the contract keeps the same facts in storage; `phase.py` derives the
phase from either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType
from typing import TypeVar

from .events import (
    AggregateCommitted,
    AggregateRestated,
    Complained,
    MemberEnrolled,
    Motion,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    Terms,
    UpdateCommitted,
    least_participants,
)
from .ids import Address, Bitmap, Cid, Digest, Index, bitmap_of, members_of, size_of
from .pages import Page

EMPTY = Bitmap(0)

_Key = TypeVar("_Key", Address, Index)

PostedSum = AggregateCommitted | AggregateRestated
"""Who answers for a sum: the aggregator that locked its set, or who posted it anew once that one was refuted."""


def threshold_of(terms: Terms, standing: int) -> int:
    """t: how many members open a set, or carry a motion, where these stand. Twin: threshold()."""
    return max(terms.threshold, size_of(standing) // 2 + 1)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one round: everything that was said in it so far.

    `started_at` is when its training window opened (seconds). `standing` are those who count in this round, fixed when
    it began; `members` is what each of them had registered by then: the keys and weights that count in it. `threshold`
    is t for them, and for a set that is locked here for ever. `base_digest` and `base_cid` name the model it starts
    from. `aggregate` says who is in the sum, for ever; `posted_sum` is the sum that stands, if any does. Statements
    that were refuted are kept beside those that stand. `stop_votes` are those that had been cast when the round closed;
    while it is under way the state has them.
    """

    round: int
    attempt: int
    started_at: int
    standing: Bitmap
    threshold: int
    members: MappingProxyType[Index, MemberEnrolled]
    base_digest: Digest
    base_cid: Cid
    commits: MappingProxyType[Index, UpdateCommitted] = field(default_factory=lambda: MappingProxyType({}))
    receipts: MappingProxyType[Index, ReceiptPosted] = field(default_factory=lambda: MappingProxyType({}))
    complaints: MappingProxyType[Index, Complained] = field(default_factory=lambda: MappingProxyType({}))
    aggregate: AggregateCommitted | None = None
    posted_sum: PostedSum | None = None
    refuted_sums: tuple[PostedSum, ...] = ()
    openings: MappingProxyType[Index, OpeningPublished] = field(default_factory=lambda: MappingProxyType({}))
    result: ResultCommitted | None = None
    sum_fell_at: int = 0
    refuted_results: tuple[ResultCommitted, ...] = ()
    reopened_at: int = 0
    stop_votes: Bitmap = EMPTY
    last_commit_at: int = 0
    last_receipt_at: int = 0

    @property
    def min_participants(self) -> int:
        """The least |U| that may be locked here: max(3, t+1) (P3)."""
        return least_participants(self.threshold)

    @property
    def committed(self) -> Bitmap:
        """The members whose updates are committed."""
        return bitmap_of(tuple(self.commits))

    @property
    def complained(self) -> Bitmap:
        """The members whose updates somebody complained of, rightly or not."""
        return Bitmap(reduce(int.__or__, (complaint.dealers for complaint in self.complaints.values()), 0))

    @property
    def opened(self) -> Bitmap:
        """The members whose openings are published."""
        return bitmap_of(tuple(self.openings))

    @property
    def order(self) -> tuple[Index, ...]:
        """The members who count, ascending: the order of rotation."""
        return members_of(self.standing)

    @property
    def encryption_keys(self) -> dict[Index, bytes]:
        """The X25519 key of everyone who counts: the attempt's shareholders."""
        return {index: self.members[index].encryption_key for index in self.order}


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one vote is about; `subject` (32 bytes) as in the event. `standing` decide who joins and who must go."""

    motion: Motion
    round: int
    attempt: int
    subject: bytes
    standing: Bitmap = EMPTY


@dataclass(frozen=True, slots=True)
class Demand:
    """A page that somebody demanded to see until `deadline`; `open` until it was shown, or the demand closed."""

    page: Page
    demander: Address
    deadline: int
    open: bool = True


@dataclass(frozen=True, slots=True)
class FederationState:
    """Everything the chain has said about one federation.

    `accounts` are the members' by index: the founders in their order, then others as they were admitted; `members` is
    what each that ever enrolled has registered last. `current` is the newest attempt that holds any statement, or the
    fresh first attempt of the current round; time may have voided it since: ask `phase.live_attempt`. `closed[r]` is
    the attempt that closed round r; `voided` lists the attempts that came to nothing but held statements, by time or by
    vote, `forgotten` those that a refuted result took back, which were built on a model that does not stand.
    `resumes[r]` is the attempt at which a forgotten round r begins again. `model_digest` and `model_cid` name the model
    that stands.

    `standing` are the members who count in the round that began last, `slashed` those who lost their bonds (`lied`:
    for a statement that was proven wrong, R1–R5), `bonded` those whose bonds are here. `joining` and `leaving` change
    who stands when the next round begins; `admitted` may enrol, `removed` left by vote. `left_at[i]` is when member i
    ceased to count, by its own wish or by vote. `ran_at` is when the run began, `began_at` when the
    current round did; both 0 while that follows from the enrolments (`phase.start_of_run`, `phase.round_began_at`).
    `abandoned[m]` are the sets that were given up on the model m, or forgotten when it fell (P3.8).
    `demands_until`: challenges and bonds wait for demands until then, within bounds. `rewards`: what is owed to whom.
    """

    terms: Terms
    founders: tuple[Address, ...]
    founded_at: int
    accounts: tuple[Address, ...]
    members: MappingProxyType[Index, MemberEnrolled]
    model_digest: Digest
    model_cid: Cid
    standing: Bitmap = EMPTY
    slashed: Bitmap = EMPTY
    lied: Bitmap = EMPTY
    bonded: Bitmap = EMPTY
    joining: Bitmap = EMPTY
    leaving: Bitmap = EMPTY
    admitted: Bitmap = EMPTY
    removed: Bitmap = EMPTY
    strikes: MappingProxyType[Index, int] = field(default_factory=lambda: MappingProxyType({}))
    left_at: MappingProxyType[Index, int] = field(default_factory=lambda: MappingProxyType({}))
    ran_at: int = 0
    began_at: int = 0
    current: Attempt | None = None
    closed: MappingProxyType[int, Attempt] = field(default_factory=lambda: MappingProxyType({}))
    voided: tuple[Attempt, ...] = ()
    forgotten: tuple[Attempt, ...] = ()
    resumes: MappingProxyType[int, int] = field(default_factory=lambda: MappingProxyType({}))
    abandoned: MappingProxyType[Digest, tuple[Bitmap, ...]] = field(default_factory=lambda: MappingProxyType({}))
    stop_votes: Bitmap = EMPTY
    ballots: MappingProxyType[Ballot, Bitmap] = field(default_factory=lambda: MappingProxyType({}))
    demands: MappingProxyType[Digest, Demand] = field(default_factory=lambda: MappingProxyType({}))
    demands_until: int = 0
    rewards: MappingProxyType[Address, int] = field(default_factory=lambda: MappingProxyType({}))
    last_enrol_at: int = 0
    last_vote_at: int = 0
    last_slash_at: int = 0

    @property
    def heard(self) -> Bitmap:
        """The members who count and were not slashed: who may speak."""
        return Bitmap(self.standing & ~self.slashed)

    @property
    def threshold(self) -> int:
        """t of those who count now; a locked set keeps its attempt's."""
        return threshold_of(self.terms, self.standing)

    @property
    def min_participants(self) -> int:
        """The least size of a participant set of those who count now: max(3, t+1)."""
        return least_participants(self.threshold)

    @property
    def round(self) -> int:
        """The round now under way, from 1; rounds + 1 once all are closed."""
        return len(self.closed) + 1

    def ballot(self, motion: Motion, round: int, attempt: int, subject: bytes) -> Ballot:
        """The ballot that a vote counts in now. Twin: _ballot().

        Who joins and who must go is for those to decide who stand together: with other members it is another ballot.
        """
        return Ballot(motion, round, attempt, subject, self.standing if motion < Motion.ABANDON else EMPTY)

    def index_of(self, address: str) -> Index | None:
        """The account's index, or None for a stranger."""
        for i, account in enumerate(self.accounts):
            if account.lower() == address.lower():
                return Index(i)
        return None

    def base_model(self, round: int) -> tuple[Digest, Cid]:
        """The digest and CID of the model that members train from in `round`."""
        if round <= 1:
            return self.terms.genesis_digest, self.terms.genesis_cid
        result = self.closed[round - 1].result
        assert result is not None
        return result.model_digest, result.model_cid

    def bond_of(self, index: Index) -> int:
        """What the member would get back of its bond, in wei: a 64th less for each strike."""
        bond = self.terms.bond_wei
        return bond - self.strikes.get(index, 0) * bond // 64

    def fresh_attempt(self, round: int, number: int, started_at: int, base: tuple[Digest, Cid]) -> Attempt:
        """An attempt of those who stand now, with the keys and weights that they have registered by now."""
        return Attempt(
            round=round,
            attempt=number,
            started_at=started_at,
            standing=self.standing,
            threshold=self.threshold,
            members=MappingProxyType({index: self.members[index] for index in members_of(self.standing)}),
            base_digest=base[0],
            base_cid=base[1],
        )


def with_entry(mapping: Mapping[_Key, int], key: _Key, value: int) -> MappingProxyType[_Key, int]:
    """The mapping with one entry set; without it where the value is 0."""
    return MappingProxyType({k: v for k, v in {**mapping, key: value}.items() if v})
