"""What a peer may ask of the contract. Imperative, one class a function of `IFederation.sol`, same names."""

from __future__ import annotations

from dataclasses import dataclass

from .evidence import Challenge
from .ids import Bitmap, Cid, Digest, Root


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
    """Hold that the model standing before `round` meets the charter's target."""

    round: int


@dataclass(frozen=True, slots=True)
class WithdrawBond:
    """Take the bond back after the run and the challenge window."""


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
    """Take what one's challenges have earned."""


Action = (
    Enrol
    | CommitUpdate
    | PostReceipt
    | CommitAggregate
    | PublishOpening
    | CommitResult
    | VoteToStop
    | WithdrawBond
    | RestateAggregate
    | WithdrawReward
    | Challenge
)
"""Challenges are evidence (`evidence.py`): what they hand to the contract is what a judge reads."""
