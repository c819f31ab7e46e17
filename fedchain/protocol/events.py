"""What the contract's log says, as values. Past tense, one class an event, the same names as in `IFederation.sol`.

`at` is the timestamp (seconds) of the block that holds the event. `CIDs` travel on chain as the 32-byte SHA-256
digest inside a CIDv0 and are turned back into text by the chain adapter.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from .ids import Address, Bitmap, Cid, Digest, Index, Root
from .pages import Page, Words


class Motion(IntEnum):
    """What members vote on; the numbers are those of the contract's enum."""

    ADMIT = 0
    REMOVE = 1
    ABANDON = 2
    REFUSE = 3


def least_participants(threshold: int) -> int:
    """The least |U| that may be locked with this t: max(3, t+1) (P3). Twin: _minimum()."""
    return max(3, threshold + 1)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the contract was deployed with, and nobody can change.

    Windows are seconds. `model_size` is twice the coefficients of an update (`update_format.model_size_of`).
    `threshold` is the least t, at least floor(n/2)+1 of the n founders; how many it takes in a round depends on how
    many stand (`threshold_of`).
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
    close_window_s: int
    bond_wei: int

    @property
    def windows_s(self) -> tuple[int, ...]:
        """Every window, in the order of the contract's terms."""
        return (
            self.enrol_window_s,
            self.training_window_s,
            self.receipt_window_s,
            self.aggregate_window_s,
            self.challenge_window_s,
            self.close_window_s,
        )

    @property
    def min_participants(self) -> int:
        """How many founders must enrol for a run to begin, by the least t."""
        return least_participants(self.threshold)

    @property
    def answer_window_s(self) -> int:
        """How long a demanded page may take: an eighth of the challenge window, a second at least."""
        return max(1, self.challenge_window_s // 8)

    @property
    def deposit_wei(self) -> int:
        """What it costs to demand a page: a 32nd of the bond."""
        return self.bond_wei // 32


@dataclass(frozen=True, slots=True)
class FederationFounded:
    """The contract came into being: its terms and the founders, in index order."""

    terms: Terms
    founders: tuple[Address, ...]
    at: int


@dataclass(frozen=True, slots=True)
class MemberEnrolled:
    """A member paid its bond and registered its X25519 key (32 bytes) and weight (its samples, capped)."""

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
class Complained:
    """A member says that the updates of `dealers` are not whole, and that the object `evidence_cid` shows it (P2).

    Nobody's set must hold these updates; whoever fetches the evidence judges it.
    """

    round: int
    attempt: int
    index: Index
    dealers: Bitmap
    evidence_cid: Cid
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
    """A member took its bond back, less what its strikes cost."""

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

    `rule` is 1 to 5: which of R1 to R5 it broke; 6: nobody showed a page of what it had stated; 7: its result was
    refused by vote, and all of the bond is burnt.
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
    """An account took what its challenges, or its answers to demands, had earned."""

    account: Address
    amount_wei: int
    at: int


@dataclass(frozen=True, slots=True)
class DutiesMissed:
    """When a set was locked: who had posted no receipt, or let its turn to aggregate pass. One strike more for each."""

    round: int
    attempt: int
    members: Bitmap
    at: int


@dataclass(frozen=True, slots=True)
class MotionVoted:
    """A member voted. `subject` (32 bytes) is an account, a member's index or a model's digest; zero for a set."""

    motion: Motion
    index: Index
    round: int
    attempt: int
    subject: bytes
    at: int


@dataclass(frozen=True, slots=True)
class MemberAdmitted:
    """By vote: this account may enrol now, at this index; the next free one if it never had any."""

    index: Index
    member: Address
    at: int


@dataclass(frozen=True, slots=True)
class MemberLeaving:
    """A member will not count any more when the next round begins: it left, or was removed by vote."""

    index: Index
    removed: bool
    at: int


@dataclass(frozen=True, slots=True)
class EncryptionKeyRotated:
    """A member registered another X25519 key (32 bytes), which counts from the next round to begin."""

    index: Index
    encryption_key: bytes
    at: int


@dataclass(frozen=True, slots=True)
class SetAbandoned:
    """By vote: a locked set was given up, and its round began again with the next attempt."""

    round: int
    attempt: int
    group: int
    participants: Bitmap
    at: int


@dataclass(frozen=True, slots=True)
class PageDemanded:
    """Somebody demanded to see a page of what a member had stated, before `deadline` (seconds)."""

    demand: Digest
    demander: Address
    deadline: int
    page: Page
    at: int


@dataclass(frozen=True, slots=True)
class PageShown:
    """Somebody showed a demanded page in time; the deposit is its."""

    demand: Digest
    account: Address
    other: Root
    words: Words
    at: int


@dataclass(frozen=True, slots=True)
class DemandClosed:
    """A deadline passed. `silent`: the author answers for it, and what it stated falls."""

    demand: Digest
    silent: bool
    at: int


Event = (
    FederationFounded
    | MemberEnrolled
    | UpdateCommitted
    | ReceiptPosted
    | Complained
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
    | DutiesMissed
    | MotionVoted
    | MemberAdmitted
    | MemberLeaving
    | EncryptionKeyRotated
    | SetAbandoned
    | PageDemanded
    | PageShown
    | DemandClosed
)
