"""What the contract's log says, as values. Past tense, one class an event, the same names as in `IFederation.sol`.

`at` is the timestamp (seconds) of the block that holds the event. `CIDs` travel on chain as the 32-byte SHA-256
digest inside a CIDv0 and are turned back into text by the chain adapter.
"""

from __future__ import annotations

from dataclasses import dataclass

from .ids import Address, Bitmap, Cid, Digest, Index, Root


@dataclass(frozen=True, slots=True)
class Terms:
    """What the contract was deployed with, and nobody can change.

    Windows are seconds. `model_size` is the number of float parameters (d). `threshold` is t, at least floor(n/2)+1.
    """

    charter_digest: Digest
    charter_cid: Cid
    genesis_digest: Digest
    genesis_cid: Cid
    model_size: int
    rounds: int
    threshold: int
    enrol_window_s: int
    training_window_s: int
    receipt_window_s: int
    aggregate_window_s: int
    challenge_window_s: int
    bond_wei: int

    @property
    def min_participants(self) -> int:
        """The least |U| that may ever be opened: max(3, t+1) (P3)."""
        return max(3, self.threshold + 1)


@dataclass(frozen=True, slots=True)
class FederationFounded:
    """The contract came into being: its terms and the founders, in index order."""

    terms: Terms
    founders: tuple[Address, ...]
    at: int


@dataclass(frozen=True, slots=True)
class MemberEnrolled:
    """A founder paid its bond and registered its X25519 key (32 bytes) and weight (its samples, capped)."""

    index: Index
    member: Address
    encryption_key: bytes
    weight: int
    at: int


@dataclass(frozen=True, slots=True)
class UpdateCommitted:
    """A trainer bound itself to one upload (P1)."""

    round: int
    attempt: int
    index: Index
    commitment: Digest
    ciphertext_cid: Cid
    shares_cid: Cid
    at: int


@dataclass(frozen=True, slots=True)
class ReceiptPosted:
    """A shareholder said which updates are whole for it, and promised to keep them (P2)."""

    round: int
    attempt: int
    index: Index
    whole: Bitmap
    at: int


@dataclass(frozen=True, slots=True)
class AggregateCommitted:
    """The aggregator posted the sum over `participants`, which is now locked for ever (P3)."""

    round: int
    attempt: int
    group: int
    index: Index
    participants: Bitmap
    root: Root
    cid: Cid
    at: int


@dataclass(frozen=True, slots=True)
class OpeningPublished:
    """A shareholder published the sum of its shares over the locked participant set (P4)."""

    round: int
    attempt: int
    group: int
    index: Index
    root: Root
    cid: Cid
    at: int


@dataclass(frozen=True, slots=True)
class ResultCommitted:
    """A member posted the opened result and the new global model; the round is closed (P5).

    `openers` are the t members whose openings it interpolated; `result_cid` names S and the decoded sum.
    """

    round: int
    attempt: int
    group: int
    index: Index
    openers: Bitmap
    key_sum_root: Root
    result_root: Root
    result_cid: Cid
    model_digest: Digest
    model_cid: Cid
    at: int


@dataclass(frozen=True, slots=True)
class StopVoted:
    """A member holds that the model standing before `round` meets the charter's target."""

    round: int
    index: Index
    at: int


@dataclass(frozen=True, slots=True)
class BondWithdrawn:
    """A member took its bond back after the run and the challenge window."""

    index: Index
    amount_wei: int
    at: int


@dataclass(frozen=True, slots=True)
class AggregateRefuted:
    """The sum that member `index` posted was proven wrong: its set stays locked, and no sum stands (R1)."""

    round: int
    attempt: int
    group: int
    index: Index
    at: int


@dataclass(frozen=True, slots=True)
class AggregateRestated:
    """A member posted the sum over a locked set anew, after one was refuted, and answers for it (P3)."""

    round: int
    attempt: int
    group: int
    index: Index
    root: Root
    cid: Cid
    at: int


@dataclass(frozen=True, slots=True)
class ResultRefuted:
    """The result that member `index` posted was proven wrong (R2, R3): the round is open again, later ones are gone."""

    round: int
    attempt: int
    group: int
    index: Index
    at: int


@dataclass(frozen=True, slots=True)
class MemberSlashed:
    """A member lost its bond: half burnt, half to whoever showed what it did in `round`. It may not speak again.

    `rule` is 1 to 5: which of R1 to R5 it broke.
    """

    index: Index
    challenger: Address
    round: int
    rule: int
    burnt_wei: int
    reward_wei: int
    at: int


@dataclass(frozen=True, slots=True)
class RewardWithdrawn:
    """A challenger took what it had earned."""

    account: Address
    amount_wei: int
    at: int


Event = (
    FederationFounded
    | MemberEnrolled
    | UpdateCommitted
    | ReceiptPosted
    | AggregateCommitted
    | OpeningPublished
    | ResultCommitted
    | StopVoted
    | BondWithdrawn
    | AggregateRefuted
    | AggregateRestated
    | ResultRefuted
    | MemberSlashed
    | RewardWithdrawn
)
