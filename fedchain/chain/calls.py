"""From an action to the contract's function, its arguments and the coins sent along; CIDs become digests here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from typing_extensions import assert_never

from ..protocol.actions import (
    Action,
    Batch,
    CloseDemand,
    CommitAggregate,
    CommitResult,
    CommitUpdate,
    CommitUpdates,
    Complain,
    DemandPage,
    Enrol,
    PostReceipt,
    PostReceipts,
    PublishOpening,
    PublishOpenings,
    Resign,
    RestateAggregate,
    RotateKey,
    ShowPage,
    Vote,
    VoteToAbandon,
    VoteToAdmit,
    VoteToRefuse,
    VoteToRemove,
    VoteToStop,
    WithdrawBond,
    WithdrawReward,
)
from ..protocol.cid import digest_of_cid
from ..protocol.evidence import (
    Challenge,
    ChallengeAggregate,
    ChallengeEquivocation,
    ChallengeKeySum,
    ChallengeResidue,
    ChallengeResult,
    Line,
)
from ..protocol.pages import Page
from ..protocol.signature import Signature
from ..protocol.statements import OpeningStatement

Call = tuple[str, Sequence[Any]]
"""A function's name and its arguments, as the ABI takes them."""


def call_of(action: Action) -> tuple[str, Sequence[Any], int]:
    """The contract's function, its arguments and the wei sent along, for an action."""
    match action:
        case Enrol(encryption_key=key, weight=weight, bond_wei=bond):
            return "enrol", (key, weight), bond
        case DemandPage():
            return "demandPage", (_page(action.page), _lines(action.lines)), action.deposit_wei
        case (
            ChallengeAggregate() | ChallengeKeySum() | ChallengeResult() | ChallengeResidue() | ChallengeEquivocation()
        ):
            return *_challenge(action), 0
        case CommitUpdates() | PostReceipts() | PublishOpenings():
            return *_batch(action), 0
        case VoteToAdmit() | VoteToRemove() | VoteToAbandon() | VoteToRefuse():
            return *_vote(action), 0
        case _:
            return *_statement(action), 0


def _statement(
    action: CommitUpdate
    | PostReceipt
    | Complain
    | CommitAggregate
    | PublishOpening
    | CommitResult
    | RestateAggregate
    | VoteToStop
    | WithdrawBond
    | WithdrawReward
    | Resign
    | RotateKey
    | ShowPage
    | CloseDemand,
) -> Call:
    match action:
        case CommitUpdate():
            cids = digest_of_cid(action.ciphertext_cid), digest_of_cid(action.shares_cid)
            return "commitUpdate", (action.round, action.attempt, action.commitment, *cids)
        case PostReceipt():
            return "postReceipt", (action.round, action.attempt, action.whole)
        case Complain():
            return "complain", (action.round, action.attempt, action.dealers, digest_of_cid(action.evidence_cid))
        case CommitAggregate():
            place = action.round, action.attempt, action.group
            said = action.participants, action.basis, action.root, digest_of_cid(action.cid)
            return "commitAggregate", (*place, *said)
        case PublishOpening():
            place = action.round, action.attempt, action.group
            return "publishOpening", (*place, action.root, digest_of_cid(action.cid))
        case CommitResult():
            place = action.round, action.attempt, action.group
            result = action.key_sum_root, action.result_root, digest_of_cid(action.result_cid)
            model = action.model_digest, digest_of_cid(action.model_cid)
            return "commitResult", (*place, action.openers, action.basis, *result, *model)
        case RestateAggregate():
            said = action.participants, action.basis, action.root, digest_of_cid(action.cid)
            return "restateAggregate", (action.round, action.group, *said)
        case VoteToStop():
            return "voteToStop", (action.round, action.model)
        case WithdrawBond():
            return "withdrawBond", ()
        case WithdrawReward():
            return "withdrawReward", ()
        case Resign():
            return "resign", ()
        case RotateKey():
            return "rotateKey", (action.encryption_key,)
        case ShowPage():
            return "showPage", (_page(action.page), action.other, list(action.words))
        case CloseDemand():
            return "closeDemand", (_page(action.page),)
        case _:
            assert_never(action)


def _batch(action: Batch) -> Call:
    """A signature's two words are a tuple of their own."""
    match action:
        case CommitUpdates():
            updates = [
                (u.commitment, digest_of_cid(u.ciphertext_cid), digest_of_cid(u.shares_cid), _signature(u.signature))
                for u in action.updates
            ]
            return "commitUpdates", (action.round, action.attempt, updates)
        case PostReceipts():
            receipts = [(receipt.whole, _signature(receipt.signature)) for receipt in action.receipts]
            return "postReceipts", (action.round, action.attempt, receipts)
        case PublishOpenings():
            openings = [(o.root, digest_of_cid(o.cid), _signature(o.signature)) for o in action.openings]
            return "publishOpenings", (action.round, action.attempt, action.group, openings)
        case _:
            assert_never(action)


def _vote(action: Vote) -> Call:
    match action:
        case VoteToAdmit():
            return "voteToAdmit", (action.account,)
        case VoteToRemove():
            return "voteToRemove", (action.index,)
        case VoteToAbandon():
            return "voteToAbandon", (action.round, action.attempt)
        case VoteToRefuse():
            return "voteToRefuse", (action.round, action.model_digest)
        case _:
            assert_never(action)


def _challenge(challenge: Challenge) -> Call:
    match challenge:
        case ChallengeAggregate():
            place = challenge.round, challenge.group, challenge.leaf
            return "challengeAggregate", (*place, _lines(challenge.commits), list(challenge.proofs))
        case ChallengeKeySum():
            place = challenge.round, challenge.group, challenge.leaf
            return "challengeKeySum", (*place, _lines(challenge.openings), list(challenge.proofs))
        case ChallengeResult():
            place = challenge.round, challenge.group, challenge.coefficient
            evidence = challenge.key_sum, _lines(challenge.commits), list(challenge.proofs)
            return "challengeResult", (*place, *evidence)
        case ChallengeResidue():
            where = challenge.round, challenge.attempt, challenge.index, challenge.leaf
            return "challengeResidue", (*where, _lines(challenge.commits), list(challenge.proof))
        case ChallengeEquivocation():
            first, second = _opening(challenge.first), _opening(challenge.second)
            return "challengeEquivocation", (first, challenge.first_signature, second, challenge.second_signature)
        case _:
            assert_never(challenge)


def _lines(lines: Sequence[Line]) -> list[tuple[int, bytes]]:
    return [(line.index, line.word) for line in lines]


def _page(page: Page) -> tuple[int | bytes, ...]:
    return astuple(page)


def _opening(said: OpeningStatement) -> tuple[int | bytes, ...]:
    return said.round, said.attempt, said.group, said.participants, said.root, digest_of_cid(said.cid)


def _signature(signature: Signature) -> tuple[bytes, bytes]:
    return signature.r, signature.vs
