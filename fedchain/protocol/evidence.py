"""Evidence against a wrong statement, and the verdict on it (R1–R5): the twin of `contracts/Judge.sol`.

The same names, the same order, the same branches, on Python's integers: what the contract would find, a challenger
finds here first, and sends nothing that would be refused. A challenge is what the contract's function of that name
takes. Each `judge_*` rebuilds from the evidence the digests that it is about, and says whether the statement is faulty
if those are the digests on record; `disputes.py` compares them with the record.

A proof is a Merkle leaf and its path as 32-byte words: 16 with the leaf's 64 residues (uint64, little-endian), then the
siblings, lowest first. Proofs of several objects stand one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eth_hash.auto import keccak

from ..errors import FedchainError
from .commitment import update_commitment
from .ids import Address, Bitmap, Digest, Index, Root, members_of, size_of
from .merkle import depth_of, fold, hash_leaf, hash_leaves, root_of
from .pages import LEAF_WORDS, Words
from .scheme import (
    DELTA,
    ETA,
    KEY_LEAVES,
    LEAF_BYTES,
    LEAF_RESIDUES,
    PLAIN_MODULUS,
    SHARE_PRIME,
    N,
    Q,
    lagrange_at_zero,
    leaves_of,
    noise_bound,
    place_words,
    polynomial_seed,
    product_coefficient,
    public_polynomial,
)
from .signature import recover
from .statements import OpeningStatement, statement_digest

NOBODY = Address("0x" + "00" * 20)
NO_ROOT = Root(bytes(32))


class BadEvidence(FedchainError):
    """The evidence is not about anything that could be on record; `what` is the contract's word for it."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"the evidence does not hold together: {what}")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an attempt's list of commitments, or of a group's list of openings, in the order in which they came.

    `word` is what each challenge says: for a member whose proof is there what cannot be had from it, else the digest on
    record.
    """

    index: Index
    word: bytes


@dataclass(frozen=True, slots=True)
class ChallengeAggregate:
    """R1. A residue of the sum on record is not the sum mod q of the participants' residues there.

    `commits`: a participant's word is the root of its shares object. `proofs`: the sum's leaf, then each participant's.
    """

    round: int
    group: int
    leaf: int
    commits: tuple[Line, ...]
    proofs: Words


@dataclass(frozen=True, slots=True)
class ChallengeKeySum:
    """R2. An element of the key sum on record is not the Lagrange combination of the openers' openings there.

    `openings`: an opener's word is zero. `proofs`: the key sum's leaf, then each opener's.
    """

    round: int
    group: int
    leaf: int
    openings: tuple[Line, ...]
    proofs: Words


@dataclass(frozen=True, slots=True)
class ChallengeResult:
    """R3. A coefficient of the result on record is not the decoding of C + a·S there, or S or the noise is too large.

    `key_sum` is S as an opening is stored. `proofs`: the leaf of the result that holds the coefficient, then each
    participant's: C is what was committed to, whatever the aggregator said of it.
    """

    round: int
    group: int
    coefficient: int
    key_sum: bytes
    commits: tuple[Line, ...]
    proofs: Words


@dataclass(frozen=True, slots=True)
class ChallengeResidue:
    """R4. A committed ciphertext of member `index` holds a residue that is not below q."""

    round: int
    attempt: int
    index: Index
    leaf: int
    commits: tuple[Line, ...]
    proof: Words


@dataclass(frozen=True, slots=True)
class ChallengeEquivocation:
    """R5. One member signed two openings of one (round, attempt, group) that differ in set or root.

    Another CID alone is no conflict: it says where, not what. A signature is r ‖ s ‖ v, 65 bytes.
    """

    first: OpeningStatement
    first_signature: bytes
    second: OpeningStatement
    second_signature: bytes


Challenge = ChallengeAggregate | ChallengeKeySum | ChallengeResult | ChallengeResidue | ChallengeEquivocation


@dataclass(frozen=True, slots=True)
class Place:
    """Where the commitments of one attempt were made, and over whom; `accounts` by member index."""

    chain_id: int
    federation: Address
    round: int
    attempt: int
    participants: Bitmap
    model_size: int
    base_model: Digest
    accounts: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """The digests that belong to the evidence, and the verdict if they are those on record.

    `claim` is the root of the object that is judged, `list` the running digest of the list, `key_sum` the root of S.
    """

    faulty: bool
    list: Digest
    claim: Root = NO_ROOT
    key_sum: Root = NO_ROOT


def judge_aggregate(place: Place, leaf: int, commits: Sequence[Line], proofs: Sequence[bytes]) -> Finding:
    """R1. Whether a leaf of the aggregate is the sum mod q of the participants' leaves."""
    walk = _Walk(leaf, leaves_of(place.model_size), proofs, 1 + size_of(place.participants))
    claim = walk.next()
    listed = _sum(walk, place, commits)
    # A residue of q or more is never what a sum mod q is.
    return Finding(claim=claim, list=listed, faulty=not walk.is_reduced(Q))


def judge_key_sum(openers: Bitmap, leaf: int, openings: Sequence[Line], proofs: Sequence[bytes]) -> Finding:
    """R2. Whether a leaf of S is the Lagrange combination at 0 of the openers' leaves."""
    walk = _Walk(leaf, KEY_LEAVES, proofs, 1 + size_of(openers))
    claim = walk.next()
    listed = _combination(walk, openers, openings)
    return Finding(claim=claim, list=listed, faulty=not walk.is_reduced(SHARE_PRIME))


def judge_result(
    place: Place, coefficient: int, elements: bytes, commits: Sequence[Line], proofs: Sequence[bytes]
) -> Finding:
    """R3. Whether a coefficient of the result is the decoding of C + a·S there, S small and the noise honest."""
    leaf, lane = divmod(coefficient, LEAF_RESIDUES)
    walk = _Walk(leaf, leaves_of(place.model_size), proofs, 1 + size_of(place.participants))
    claim = walk.next()
    listed = _sum(walk, place, commits)
    key_sum = _key_sum_root(elements)
    decoded = _is_decoded(place, elements, coefficient, walk.sums[lane], walk.claimed[lane])
    return Finding(claim=claim, key_sum=key_sum, list=listed, faulty=not decoded)


def judge_residue(place: Place, leaf: int, commits: Sequence[Line], proof: Sequence[bytes]) -> Finding:
    """R4. Whether a leaf of the one participant's ciphertext holds a residue of q or more."""
    walk = _Walk(leaf, leaves_of(place.model_size), proof, 1)
    listed = _sum(walk, place, commits)
    # One residue alone, added up, is the residue mod q.
    return Finding(list=listed, faulty=not walk.is_reduced(Q))


def judge_equivocation(chain_id: int, federation: Address, challenge: ChallengeEquivocation) -> tuple[Address, bool]:
    """R5. Who signed both statements, and whether they contradict each other; nobody if it was not one account."""
    first, second = challenge.first, challenge.second
    signer = _signer_of(statement_digest(chain_id, federation, first), challenge.first_signature)
    if signer != _signer_of(statement_digest(chain_id, federation, second), challenge.second_signature):
        return NOBODY, False
    same_place = (first.round, first.attempt, first.group) == (second.round, second.attempt, second.group)
    return signer, same_place and (first.participants, first.root) != (second.participants, second.root)


def running_digest(before: Digest, index: int, word: bytes) -> Digest:
    """A list's digest after one more line: what the contract keeps instead of the list."""
    return Digest(keccak(before + index.to_bytes(32, "big") + word))


class _Walk:
    """One way through the proofs, first to last: which leaf of which tree, the word at which the next proof begins, and
    the sum so far of the leaves that were counted, not reduced."""

    def __init__(self, leaf: int, leaves: int, proofs: Sequence[bytes], count: int) -> None:
        if leaf >= leaves:
            raise BadEvidence("leaf")
        self._leaf, self._depth = leaf, depth_of(leaves)
        if len(proofs) != count * (LEAF_WORDS + self._depth):
            raise BadEvidence("proofs")
        self._proofs = proofs
        self._position = 0
        self.sums = [0] * LEAF_RESIDUES

    @property
    def claimed(self) -> list[int]:
        """The 64 residues of the leaf that stands first."""
        return self._residues(0)

    def next(self) -> Root:
        """The root that the next proof belongs to (positional, tagged hashes); goes on to the one after."""
        self._check_left()
        path = self._position + LEAF_WORDS
        content = b"".join(self._proofs[self._position : path])
        self._position = path + self._depth
        return fold(hash_leaf(content), self._leaf, self._proofs[path : self._position])

    def count(self, weight: int) -> None:
        """Adds `weight` times the next proof's leaf to the sums."""
        self._check_left()
        counted = self._residues(self._position)
        self.sums = [total + weight * residue for total, residue in zip(self.sums, counted, strict=True)]

    def end(self) -> None:
        """Every proof was called for."""
        if self._position != len(self._proofs):
            raise BadEvidence("proofs")

    def is_reduced(self, modulus: int) -> bool:
        """Whether the leaf that stands first is the sums mod `modulus`."""
        return self.claimed == [total % modulus for total in self.sums]

    def _check_left(self) -> None:
        if self._position == len(self._proofs):
            raise BadEvidence("proofs")

    def _residues(self, position: int) -> list[int]:
        content = b"".join(self._proofs[position : position + LEAF_WORDS])
        return [int.from_bytes(content[i : i + 8], "little") for i in range(0, LEAF_BYTES, 8)]


def _sum(walk: _Walk, place: Place, commits: Sequence[Line]) -> Digest:
    """Goes through an attempt's commitments: rebuilds the participants' from their leaves and shares roots, counts
    their leaves, and gives the list's running digest."""
    listed = Digest(bytes(32))
    for line in commits:
        commitment = line.word
        if place.participants >> line.index & 1:
            walk.count(1)
            commitment = update_commitment(
                place.chain_id,
                place.federation,
                place.round,
                place.attempt,
                place.accounts[line.index],
                walk.next(),
                Root(line.word),
            )
        listed = running_digest(listed, line.index, commitment)
    walk.end()
    return listed


def _combination(walk: _Walk, openers: Bitmap, openings: Sequence[Line]) -> Digest:
    """Goes through a group's openings: rebuilds the roots of the openers' from their leaves, counts these with their
    weights, and gives the list's running digest."""
    members = members_of(openers)
    weights = dict(zip(members, lagrange_at_zero([i + 1 for i in members]), strict=True))
    listed = Digest(bytes(32))
    for line in openings:
        root = line.word
        if line.index in weights:
            walk.count(weights[line.index])
            root = walk.next()
        listed = running_digest(listed, line.index, root)
    walk.end()
    return listed


def _is_decoded(place: Place, elements: bytes, coefficient: int, c: int, claimed: int) -> bool:
    """Whether the claim is the decoding of C + a·S there, S small and the noise honest."""
    members, s = size_of(place.participants), _centred(elements)
    if max(map(abs, s)) > ETA * members:
        return False
    words = place_words(place.chain_id, place.federation, place.round, place.attempt, place.base_model)
    a = public_polynomial(polynomial_seed(words), coefficient // N)
    v = (c + product_coefficient(a, s, coefficient % N)) % Q
    plain = (v + DELTA // 2) // DELTA % PLAIN_MODULUS
    noise = abs(v - DELTA * plain)
    # Only a plaintext of 0 under negative noise wraps around q.
    noise = min(noise, Q - noise)
    return claimed == plain and noise <= noise_bound(members)


def _key_sum_root(elements: bytes) -> Root:
    """The root of S from its stored form: two bytes an element there, eight in a leaf."""
    if len(elements) != 2 * N:
        raise BadEvidence("key sum")
    return root_of(hash_leaves(b"".join(elements[i : i + 2] + bytes(6) for i in range(0, 2 * N, 2)), LEAF_BYTES))


def _centred(elements: bytes) -> list[int]:
    """S by its representatives nearest to zero; what is no element of the field is out of every bound."""
    found = [int.from_bytes(elements[i : i + 2], "little") for i in range(0, 2 * N, 2)]
    return [x if x <= SHARE_PRIME // 2 or x >= SHARE_PRIME else x - SHARE_PRIME for x in found]


def _signer_of(digest: Digest, signature: bytes) -> Address:
    if len(signature) != 65:
        raise BadEvidence("signature")
    return recover(digest, signature) or NOBODY
