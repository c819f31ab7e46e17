"""Evidence from fetched objects: which leaf is wrong, and the Merkle proofs that show it to the contract (R1–R4).

Each `prove_*` gives None where nothing is wrong. What it is given must be what was committed to: a proof from other
bytes is refused (`protocol/disputes.py` tells beforehand). Objects are read a block at a time; of each, only its hashes
stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocol.descent import WrongLeaf
from ..protocol.evidence import (
    ChallengeAggregate,
    ChallengeKeySum,
    ChallengeResidue,
    ChallengeResult,
    Line,
)
from ..protocol.ids import Index, Root, members_of
from ..protocol.merkle import prove
from ..protocol.pages import WORD_BYTES, Words
from ..protocol.state import Attempt
from . import numpy_engine
from . import parameters as p
from .aggregate import Aggregate, leaf_hashes
from .encoding import AGGREGATE, UPDATE, Blob, opened
from .opening import Opening, phase_of_sum
from .result import Result
from .ring import SmallFactor
from .seed import Residues, RoundContext, public_polynomials
from .shamir import centred, interpolate, point_of


@dataclass(frozen=True, slots=True)
class CommittedUpload:
    """One member's upload as a challenger holds it: the ciphertext object, and the root of the shares object."""

    ciphertext: Blob
    shares_root: Root


def prove_aggregate(
    attempt: Attempt, uploads: Mapping[Index, CommittedUpload], posted: Blob, d: int
) -> ChallengeAggregate | None:
    """R1. That the posted sum is not the sum of the participants' ciphertexts; `uploads` holds all of them."""
    with ExitStack() as files:
        claimed = files.enter_context(opened(posted, AGGREGATE, d)).raw_blocks()
        updates = [
            files.enter_context(opened(uploads[i].ciphertext, UPDATE, d)).raw_blocks()
            for i in sorted(_participants(attempt))
        ]
        leaf = _first_leaf(block != numpy_engine.add(next(update) for update in updates) for block in claimed)
    if leaf is None:
        return None
    return refute_aggregate(attempt, uploads, WrongLeaf(leaf, _proof(posted, AGGREGATE, d, leaf)), d)


def refute_aggregate(
    attempt: Attempt, uploads: Mapping[Index, CommittedUpload], found: WrongLeaf, d: int
) -> ChallengeAggregate:
    """R1, about a leaf of the posted sum; `uploads` holds the participants'."""
    proofs = found.proof + _upload_proofs(attempt, uploads, d, found.leaf)
    return ChallengeAggregate(attempt.round, 0, found.leaf, _commits(attempt, _participants(attempt), uploads), proofs)


def prove_key_sum(attempt: Attempt, openings: Mapping[Index, Opening], posted: Result) -> ChallengeKeySum | None:
    """R2. That the posted S is not what the openings of the closer's committee give; `openings` holds all of these."""
    assert attempt.result is not None
    committee = members_of(attempt.result.openers)
    values = np.stack([openings[i].elements for i in committee]).astype(np.int64)
    expected = interpolate([point_of(i) for i in committee], values)
    wrong = np.flatnonzero(expected != posted.elements.astype(np.int64))
    if not wrong.size:
        return None
    leaf = int(wrong[0]) // p.LEAF_RESIDUES
    said = {index: opening_proof(openings[index], leaf) for index in committee}
    return refute_key_sum(attempt, said, WrongLeaf(leaf, _array_proof(posted.key_sum_leaves(), leaf)))


def refute_key_sum(attempt: Attempt, openings: Mapping[Index, Words], found: WrongLeaf) -> ChallengeKeySum:
    """R2, about a leaf of the posted S; `openings` holds the proof of that leaf of each opener's."""
    assert attempt.result is not None
    committee = members_of(attempt.result.openers)
    lines, proofs = [], found.proof
    for index, published in attempt.openings.items():
        chosen = index in committee
        lines.append(Line(index, bytes(WORD_BYTES) if chosen else published.root))
        if chosen:
            proofs += openings[index]
    return ChallengeKeySum(attempt.round, 0, found.leaf, tuple(lines), proofs)


def opening_proof(opening: Opening, leaf: int) -> Words:
    """The proof of one leaf of an opening."""
    return _array_proof(opening.leaves(), leaf)


def prove_result(
    attempt: Attempt,
    uploads: Mapping[Index, CommittedUpload],
    posted: Result,
    total: Aggregate,
    context: RoundContext,
) -> ChallengeResult | None:
    """R3. That a posted coefficient is not the decoding of C + a·S under the posted S; `total` is the true C."""
    coefficient = wrong_coefficient(posted, total, len(_participants(attempt)), context)
    if coefficient is None:
        return None
    leaf = coefficient // p.LEAF_RESIDUES
    found = WrongLeaf(leaf, _array_proof(posted.coefficients, leaf))
    return refute_result(attempt, uploads, posted.key_sum, coefficient, found, total.d)


def refute_result(
    attempt: Attempt,
    uploads: Mapping[Index, CommittedUpload],
    key_sum: bytes,
    coefficient: int,
    found: WrongLeaf,
    d: int,
) -> ChallengeResult:
    """R3, about a coefficient in a leaf of the posted result, under the posted S; `uploads` holds the participants'."""
    proofs = found.proof + _upload_proofs(attempt, uploads, d, found.leaf)
    commits = _commits(attempt, _participants(attempt), uploads)
    return ChallengeResult(attempt.round, 0, coefficient, key_sum, commits, proofs)


def prove_residue(attempt: Attempt, index: Index, upload: CommittedUpload, d: int) -> ChallengeResidue | None:
    """R4. That a member committed to a residue that is not below q."""
    with opened(upload.ciphertext, UPDATE, d) as stored:
        leaf = _first_leaf(block >= p.Q for block in stored.raw_blocks())
    if leaf is None:
        return None
    commits = _commits(attempt, {index}, {index: upload})
    proof = _proof(upload.ciphertext, UPDATE, d, leaf)
    return ChallengeResidue(attempt.round, attempt.attempt, index, leaf, commits, proof)


def wrong_coefficient(posted: Result, total: Aggregate, participants: int, context: RoundContext) -> int | None:
    """The first coefficient that does not follow from C and the posted S; 0 when S itself is out of bounds."""
    if posted.elements.max() >= p.SHARE_PRIME:
        return 0
    key_sum = centred(posted.elements.astype(np.int64))
    if np.abs(key_sum).max() > p.key_bound(participants):
        return 0
    factor, bound = SmallFactor(key_sum), p.noise_bound(participants)
    stored = posted.coefficients.reshape(-1)
    for first in range(0, len(total.residues), p.BLOCK):
        c = total.residues[first : first + p.BLOCK]
        phase = phase_of_sum(c, public_polynomials(context.seed, first, len(c)), factor)
        plain = numpy_engine.decode(phase)
        noisy = np.abs(numpy_engine.noise(phase, plain)) > bound
        claimed = stored[first * p.N : (first + len(c)) * p.N]
        wrong = np.flatnonzero((plain.reshape(-1)[: claimed.size] != claimed) | noisy.reshape(-1)[: claimed.size])
        if wrong.size:
            return first * p.N + int(wrong[0])
    return None


def with_leaves(leaves: Residues, shown: Mapping[int, Words]) -> Residues:
    """(count, 64) residues in which some leaves are what was shown of them: words of 32 bytes, paths after them."""
    claimed = leaves.copy()
    for leaf, words in shown.items():
        claimed[leaf] = np.frombuffer(b"".join(words)[: p.LEAF_BYTES], dtype="<u8")
    return claimed


def _first_leaf(wrong: Iterable[NDArray[np.bool_]]) -> int | None:
    """The first leaf with a wrong residue, of objects read block by block; None where all are right."""
    leaf = 0
    for block in wrong:
        if block.any():
            return leaf + int(block.argmax()) // p.LEAF_RESIDUES
        leaf += block.size // p.LEAF_RESIDUES
    return None


def _participants(attempt: Attempt) -> set[Index]:
    if attempt.aggregate is None:
        raise ValueError("no participant set is locked")
    return set(members_of(attempt.aggregate.participants))


def _commits(attempt: Attempt, shown: set[Index], uploads: Mapping[Index, CommittedUpload]) -> tuple[Line, ...]:
    """The attempt's commitments as a challenge lists them: of whom a proof is shown, the shares root."""
    return tuple(
        Line(index, uploads[index].shares_root if index in shown else commit.commitment)
        for index, commit in attempt.commits.items()
    )


def _upload_proofs(attempt: Attempt, uploads: Mapping[Index, CommittedUpload], d: int, leaf: int) -> Words:
    """The participants' proofs of one leaf, in the order of their commitments."""
    shown = [index for index in attempt.commits if index in _participants(attempt)]
    return tuple(word for index in shown for word in _proof(uploads[index].ciphertext, UPDATE, d, leaf))


def _proof(blob: Blob, magic: bytes, d: int, leaf: int) -> Words:
    """The proof of one leaf of a stored object."""
    hashes: list[bytes] = []
    content = b""
    with opened(blob, magic, d) as stored:
        for block in _leaves(stored.raw_blocks()):
            if len(hashes) <= leaf < len(hashes) + len(block):
                content = _content(block[leaf - len(hashes)])
            hashes += leaf_hashes(block)
    return _words(content, prove(hashes, leaf))


def _array_proof(leaves: Residues, leaf: int) -> Words:
    """The proof of one leaf of an object in memory: (count, 64) residues."""
    return _words(_content(leaves[leaf]), prove(leaf_hashes(leaves), leaf))


def _leaves(blocks: Iterator[Residues]) -> Iterator[Residues]:
    return (block.reshape(-1, p.LEAF_RESIDUES) for block in blocks)


def _content(residues: Residues) -> bytes:
    return residues.astype("<u8", copy=False).tobytes()


def _words(content: bytes, path: tuple[bytes, ...]) -> Words:
    return (*(content[i : i + WORD_BYTES] for i in range(0, p.LEAF_BYTES, WORD_BYTES)), *path)
