"""Whether a challenge would succeed: the evidence, compared with the record. The twin of `contracts/Disputes.sol`.

What the record holds is told here for demands (`demands.py`) and votes (`votes.py`) as well.

A challenger asks here first. The record is the folded log; `now` is the time of the block that would hold the
challenge.
"""

from __future__ import annotations

from collections.abc import Iterable

from eth_hash.auto import keccak
from typing_extensions import assert_never

from ..errors import FedchainError
from .evidence import (
    NOBODY,
    BadEvidence,
    Challenge,
    ChallengeAggregate,
    ChallengeEquivocation,
    ChallengeKeySum,
    ChallengeResidue,
    ChallengeResult,
    Place,
    judge_aggregate,
    judge_equivocation,
    judge_key_sum,
    judge_residue,
    judge_result,
    running_digest,
)
from .ids import Address, Bitmap, Digest, Index
from .phase import challenges_end_at, start_of_run
from .state import Attempt, FederationState


class Refused(FedchainError):
    """The contract would revert this; `error_name` is its error, `what` its word where it has one."""

    def __init__(self, error_name: str, what: str = "") -> None:
        self.error_name = error_name
        self.what = what
        super().__init__(f"the contract would refuse this: {error_name}{f' ({what})' if what else ''}")


def judge(state: FederationState, chain_id: int, contract: Address, challenge: Challenge, now: int) -> Index:
    """The member whose statement this challenge proves wrong. Raises Refused, as the contract reverts.

    1. Bonds are held. 2. There is a statement. 3. The evidence is about it. 4. It is faulty.
    """
    try:
        return _judge(state, chain_id, contract, challenge, now)
    except BadEvidence as error:
        raise Refused("FederationBadEvidence", error.what) from error


def commitments_digest(attempt: Attempt) -> Digest:
    """The running digest of an attempt's commitments, as the contract keeps it (`commitmentsOf`)."""
    return _digest_of((commit.index, commit.commitment) for commit in attempt.commits.values())


def openings_digest(attempt: Attempt) -> Digest:
    """The running digest of the openings of an attempt's one group, as the contract keeps it (`openingsOf`)."""
    return _digest_of((opening.index, opening.root) for opening in attempt.openings.values())


def basis_of(attempt: Attempt) -> Digest:
    """All that a result of this attempt rests on (`basisOf`): the model, the commitments, the set, the openings."""
    assert attempt.aggregate is not None
    words = commitments_digest(attempt), attempt.aggregate.participants.to_bytes(32, "big"), openings_digest(attempt)
    return Digest(keccak(b"".join((attempt.base_digest, *words))))


def attempt_of(state: FederationState, round: int, number: int) -> Attempt | None:
    """The attempt that holds the commitments of (round, attempt): closed, under way, void or forgotten."""
    for attempt in (state.current, *state.closed.values(), *state.voided, *state.forgotten):
        if attempt is not None and (attempt.round, attempt.attempt) == (round, number):
            return attempt
    return None


def place_of(state: FederationState, chain_id: int, contract: Address, attempt: Attempt, participants: Bitmap) -> Place:
    """Where these members' commitments were made."""
    return Place(
        chain_id=chain_id,
        federation=contract,
        round=attempt.round,
        attempt=attempt.attempt,
        participants=participants,
        model_size=state.terms.model_size,
        base_model=attempt.base_digest,
        accounts=state.accounts,
    )


def _judge(state: FederationState, chain_id: int, contract: Address, challenge: Challenge, now: int) -> Index:
    check_bonds_held(state, now)
    match challenge:
        case ChallengeAggregate():
            attempt = locked_attempt(state, challenge.round, challenge.group)
            assert attempt.aggregate is not None
            if attempt.posted_sum is None:
                raise Refused("FederationNoStatement")
            place = place_of(state, chain_id, contract, attempt, attempt.aggregate.participants)
            found = judge_aggregate(place, challenge.leaf, challenge.commits, challenge.proofs)
            _check(found.claim == attempt.posted_sum.root, "aggregate")
            _check(found.list == commitments_digest(attempt), "commitments")
            liar = attempt.posted_sum.index
        case ChallengeKeySum():
            attempt = closed_attempt(state, challenge.round, challenge.group)
            assert attempt.result is not None
            found = judge_key_sum(attempt.result.openers, challenge.leaf, challenge.openings, challenge.proofs)
            _check(found.claim == attempt.result.key_sum_root, "key sum")
            _check(found.list == openings_digest(attempt), "openings")
            liar = attempt.result.index
        case ChallengeResult():
            attempt = closed_attempt(state, challenge.round, challenge.group)
            assert attempt.result is not None and attempt.aggregate is not None
            place = place_of(state, chain_id, contract, attempt, attempt.aggregate.participants)
            elements, proofs = challenge.key_sum, challenge.proofs
            found = judge_result(place, challenge.coefficient, elements, challenge.commits, proofs)
            _check(found.key_sum == attempt.result.key_sum_root, "key sum")
            _check(found.claim == attempt.result.result_root, "result")
            _check(found.list == commitments_digest(attempt), "commitments")
            liar = attempt.result.index
        case ChallengeResidue():
            said = attempt_of(state, challenge.round, challenge.attempt)
            if said is None or not said.commits or challenge.index >= len(state.accounts):
                raise Refused("FederationNoStatement")
            _check_has_bond(state, challenge.index)
            place = place_of(state, chain_id, contract, said, Bitmap(1 << challenge.index))
            found = judge_residue(place, challenge.leaf, challenge.commits, challenge.proof)
            _check(found.list == commitments_digest(said), "commitments")
            liar = challenge.index
        case ChallengeEquivocation():
            return _judge_equivocation(state, chain_id, contract, challenge)
        case _:
            assert_never(challenge)
    if not found.faulty:
        raise Refused("FederationHonest")
    return liar


def _judge_equivocation(
    state: FederationState, chain_id: int, contract: Address, challenge: ChallengeEquivocation
) -> Index:
    signer, faulty = judge_equivocation(chain_id, contract, challenge)
    _check(signer != NOBODY, "signature")
    index = state.index_of(signer)
    if index is None:
        raise Refused("FederationNotMember", signer)
    _check_has_bond(state, index)
    if not faulty:
        raise Refused("FederationHonest")
    return index


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise BadEvidence(what)


def _check_has_bond(state: FederationState, index: Index) -> None:
    if not state.bonded >> index & 1:
        raise Refused("FederationAlreadySlashed", str(index))


def check_bonds_held(state: FederationState, now: int) -> None:
    """Whoever makes a statement, or judges one, does so while there is something at stake."""
    if start_of_run(state, now) is None:
        raise Refused("FederationNoStatement")
    until = challenges_end_at(state, now)
    if until is not None and now >= until:
        raise Refused("FederationChallengeOver", str(until))


def locked_attempt(state: FederationState, round: int, group: int) -> Attempt:
    """The attempt of a round that is not forgotten whose set is locked."""
    if group != 0:
        raise Refused("FederationBadGroup", str(group))
    attempt = state.closed.get(round, state.current)
    if attempt is None or attempt.round != round or attempt.aggregate is None:
        raise Refused("FederationNoStatement")
    return attempt


def closed_attempt(state: FederationState, round: int, group: int) -> Attempt:
    """The attempt of a round that is closed, and so holds a result."""
    attempt = locked_attempt(state, round, group)
    if round not in state.closed:
        raise Refused("FederationNoStatement")
    return attempt


def _digest_of(lines: Iterable[tuple[Index, bytes]]) -> Digest:
    digest = Digest(bytes(32))
    for index, word in lines:
        digest = running_digest(digest, index, word)
    return digest
