"""What a peer may ask of the contract. Imperative, one class a function of `IFederation.sol` and `ICouncil.sol`."""

from __future__ import annotations

from dataclasses import dataclass

from .evidence import Challenge, Line
from .ids import Address, Bitmap, Cid, Digest, Index, Root
from .pages import Page, Words
from .signature import Signature


@dataclass(frozen=True, slots=True)
class Enrol:
    """Pay the bond and register an X25519 key (32 bytes) and a weight."""

    encryption_key: bytes
    weight: int
    bond_wei: int


@dataclass(frozen=True, slots=True)
class CommitUpdate:
    """Bind this member to one upload (P1)."""

    round: int
    attempt: int
    commitment: Digest
    ciphertext_cid: Cid
    shares_cid: Cid


@dataclass(frozen=True, slots=True)
class PostReceipt:
    """Say which updates are whole (P2)."""

    round: int
    attempt: int
    whole: Bitmap


@dataclass(frozen=True, slots=True)
class Complain:
    """Say that the updates of `dealers` are not whole, and where the evidence is (P2)."""

    round: int
    attempt: int
    dealers: Bitmap
    evidence_cid: Cid


@dataclass(frozen=True, slots=True)
class CommitAggregate:
    """Post the sum over a participant set, and lock the set (P3).

    `basis` is the running digest of the commitments it rests on: on a fork with others the contract refuses it.
    """

    round: int
    attempt: int
    group: int
    participants: Bitmap
    basis: Digest
    root: Root
    cid: Cid


@dataclass(frozen=True, slots=True)
class PublishOpening:
    """Publish the sum of this member's shares over the locked set (P4)."""

    round: int
    attempt: int
    group: int
    root: Root
    cid: Cid


@dataclass(frozen=True, slots=True)
class CommitResult:
    """Post the opened result and the new global model, and whose openings gave S (P5).

    `result_cid` names S and the decoded sum, without which nobody could prove them wrong. `basis` is the digest of all
    that the result rests on (`disputes.basis_of`): where something else is on record the contract refuses it.
    """

    round: int
    attempt: int
    group: int
    openers: Bitmap
    basis: Digest
    key_sum_root: Root
    result_root: Root
    result_cid: Cid
    model_digest: Digest
    model_cid: Cid


@dataclass(frozen=True, slots=True)
class VoteToStop:
    """Hold that `model`, which stands before `round`, meets the charter's target."""

    round: int
    model: Digest


@dataclass(frozen=True, slots=True)
class WithdrawBond:
    """Take the bond back, once it is free."""


@dataclass(frozen=True, slots=True)
class RestateAggregate:
    """Post the sum over a locked set anew, after one was refuted (P3); `basis` as for the one that locked it."""

    round: int
    group: int
    participants: Bitmap
    basis: Digest
    root: Root
    cid: Cid


@dataclass(frozen=True, slots=True)
class WithdrawReward:
    """Take what one's challenges, or answers to demands, have earned."""


@dataclass(frozen=True, slots=True)
class Resign:
    """Count no more when the next round begins."""


@dataclass(frozen=True, slots=True)
class RotateKey:
    """Register another X25519 key (32 bytes), from the next round to begin."""

    encryption_key: bytes


@dataclass(frozen=True, slots=True)
class SignedUpdate:
    """One line of a batch: a member's commitment, and its signature over it (`statements.UpdateStatement`)."""

    commitment: Digest
    ciphertext_cid: Cid
    shares_cid: Cid
    signature: Signature


@dataclass(frozen=True, slots=True)
class CommitUpdates:
    """Hand in several members' commitments in one transaction (P1)."""

    round: int
    attempt: int
    updates: tuple[SignedUpdate, ...]


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """One line of a batch: a member's receipt, and its signature over it (`statements.ReceiptStatement`)."""

    whole: Bitmap
    signature: Signature


@dataclass(frozen=True, slots=True)
class PostReceipts:
    """Hand in several members' receipts in one transaction (P2)."""

    round: int
    attempt: int
    receipts: tuple[SignedReceipt, ...]


@dataclass(frozen=True, slots=True)
class SignedOpening:
    """One line of a batch: a member's opening, and its signature over it (`statements.OpeningStatement`)."""

    root: Root
    cid: Cid
    signature: Signature


@dataclass(frozen=True, slots=True)
class PublishOpenings:
    """Hand in several members' openings of the locked set in one transaction (P4)."""

    round: int
    attempt: int
    group: int
    openings: tuple[SignedOpening, ...]


@dataclass(frozen=True, slots=True)
class VoteToAdmit:
    """Hold that this account may enrol."""

    account: Address


@dataclass(frozen=True, slots=True)
class VoteToRemove:
    """Hold that a member must go when the next round begins."""

    index: Index


@dataclass(frozen=True, slots=True)
class VoteToAbandon:
    """Hold that the locked set of the round under way must be given up, and the round begun again."""

    round: int
    attempt: int


@dataclass(frozen=True, slots=True)
class VoteToRefuse:
    """Hold that the model on record for `round` is not what follows from its result."""

    round: int
    model_digest: Digest


@dataclass(frozen=True, slots=True)
class DemandPage:
    """Demand to see a page of what a member has stated, for a deposit.

    `lines` is what it stands in: all commitments of its attempt for a ciphertext, all openings for an opening.
    """

    page: Page
    lines: tuple[Line, ...]
    deposit_wei: int


@dataclass(frozen=True, slots=True)
class ShowPage:
    """Show a demanded page; `other` is the shares root beside a ciphertext's, else zero."""

    page: Page
    other: Root
    words: Words


@dataclass(frozen=True, slots=True)
class CloseDemand:
    """Close a demand whose deadline passed."""

    page: Page


Batch = CommitUpdates | PostReceipts | PublishOpenings
"""Any account may send one; each line is signed by its member."""

Vote = VoteToAdmit | VoteToRemove | VoteToAbandon | VoteToRefuse


Action = (
    Enrol
    | CommitUpdate
    | PostReceipt
    | Complain
    | CommitAggregate
    | PublishOpening
    | CommitResult
    | VoteToStop
    | WithdrawBond
    | RestateAggregate
    | WithdrawReward
    | Resign
    | RotateKey
    | Batch
    | Vote
    | DemandPage
    | ShowPage
    | CloseDemand
    | Challenge
)
"""Challenges are evidence (`evidence.py`): what they hand to the contract is what a judge reads."""
