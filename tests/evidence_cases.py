"""Random challenges whose truth is known, for R1 to R5: honest statements, wrong ones, and evidence about neither.

A case is made from its truth forwards (leaves, then roots by random siblings, then commitments), so that what must come
out is known before anything judges it. Numbers are drawn near the edges: q, the noise bound, ±42·|U|, 65521, 2^54 and
2^64.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

from coincurve import PrivateKey
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from fedchain.protocol import evidence as ev
from fedchain.protocol.cid import cid_of_digest
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.ids import Address, Bitmap, Digest, Index, Root, bitmap_of
from fedchain.protocol.merkle import fold, hash_leaf
from fedchain.protocol.scheme import place_words, polynomial_seed, public_polynomial
from fedchain.protocol.statements import OpeningStatement, statement_digest

Q, N, DELTA, PRIME = 1002 * 2**44 + 1, 2048, 1002, 65521
RULES = ("R1", "R2", "R3", "R4", "R5")


@dataclass(frozen=True)
class Case:
    """One call of the judge: `arguments` as Python's `judge_*` takes them, and what is on record.

    Evidence that was `bent` must be refused, or belong to other digests than those on record.
    """

    rule: str
    kind: str
    arguments: tuple[Any, ...]
    record: ev.Finding
    bent: bool = False

    @property
    def faulty(self) -> bool:
        return self.record.faulty


def judged(case: Case) -> Any:
    """What Python finds: a Finding (for R5 a pair), or the word of the refusal."""
    judge = {
        "R1": ev.judge_aggregate,
        "R2": ev.judge_key_sum,
        "R3": ev.judge_result,
        "R4": ev.judge_residue,
        "R5": ev.judge_equivocation,
    }[case.rule]
    try:
        return judge(*case.arguments)  # type: ignore[operator]
    except ev.BadEvidence as error:
        return error.what


def check(case: Case) -> None:
    """Python's finding is the truth: no wrong verdict either way, and bent evidence never fits the record."""
    found = judged(case)
    if case.rule == "R5":
        assert found == case.record, case
    elif case.bent:
        assert isinstance(found, str) or replace(found, faulty=False) != replace(case.record, faulty=False), case
    else:
        assert found == case.record, case


class Cases:
    """Draws cases; the same seed gives the same ones."""

    def __init__(self, seed: int, chain_id: int = 31337) -> None:
        self._random = random.Random(seed)
        self._chain_id = chain_id
        self._key = PrivateKey(b"\x07" * 32)

    def draw(self, rule: str | None = None) -> Case:
        """A case of one rule, or of any."""
        rule = rule or self._random.choice(RULES)
        case: Case = getattr(self, rule.lower())()
        if rule != "R5" and self._random.random() < 0.2:
            return self._bent(case)
        return case

    # numbers

    def word(self) -> bytes:
        return self._random.randbytes(32)

    def address(self) -> Address:
        return Address(to_checksum_address(self._random.randbytes(20)))

    def residue(self) -> int:
        return self._random.choice((self._random.randrange(Q), self._random.randrange(Q), 0, Q - 1))

    def place(self, members: int) -> tuple[ev.Place, list[int], list[Index], int, int]:
        """A place, the order of its commitments, its participants, and a leaf with its depth."""
        n = self._random.randint(members, 64 if self._random.random() < 0.1 else max(members, 10))
        order = list(range(n))
        self._random.shuffle(order)
        order = order[: self._random.randint(members, n)]
        participants = [Index(i) for i in order if i in order[:members]]
        leaves = self._random.choice((1, 2, 3, 64, 65, self._random.randint(1, 2**20)))
        leaf = self._random.choice((0, leaves - 1, self._random.randrange(leaves)))
        place = ev.Place(
            chain_id=self._chain_id,
            federation=self.address(),
            round=self._random.randint(1, 2**32 - 1),
            attempt=self._random.choice((0, 1, 2**32 - 1)),
            participants=bitmap_of(participants),
            model_size=128 * leaves - self._random.choice((0, 1, 127)),
            base_model=Digest(self.word()),
            accounts=tuple(self.address() for _ in range(n)),
        )
        return place, order, participants, leaf, (leaves - 1).bit_length()

    def size(self) -> int:
        """How many participants."""
        if self._random.random() < 0.03:
            return 64
        return self._random.choice((1, 3, 4, 5, self._random.randint(1, 10)))

    # what a proof is made of

    def proof(self, residues: list[int], leaf: int, depth: int) -> tuple[tuple[bytes, ...], Root]:
        content = b"".join(r.to_bytes(8, "little") for r in residues)
        path = tuple(self.word() for _ in range(depth))
        words = (*(content[i : i + 32] for i in range(0, 512, 32)), *path)
        return words, fold(hash_leaf(content), leaf, path)

    def commits(
        self, place: ev.Place, order: list[int], leaves: dict[int, list[int]], leaf: int, depth: int
    ) -> tuple[tuple[ev.Line, ...], tuple[bytes, ...], Digest]:
        """The list of commitments as a challenger hands it back, the participants' proofs, and the running digest."""
        lines, proofs, digest = [], (), bytes(32)
        for i in order:
            commitment = self.word()
            line = ev.Line(Index(i), commitment)
            if i in leaves:
                words, root = self.proof(leaves[i], leaf, depth)
                shares_root = Root(self.word())
                where = (place.chain_id, place.federation, place.round, place.attempt, place.accounts[i])
                commitment = update_commitment(*where, root, shares_root)
                line, proofs = ev.Line(Index(i), shares_root), (*proofs, *words)
            digest = keccak(digest + i.to_bytes(32, "big") + commitment)
            lines.append(line)
        return tuple(lines), proofs, Digest(digest)

    def ciphertexts(self, participants: list[Index]) -> dict[int, list[int]]:
        """A leaf of each; now and then one that nobody honest commits to."""
        leaves = {int(i): [self.residue() for _ in range(64)] for i in participants}
        if self._random.random() < 0.2:
            edge = (Q, Q + 1, 2**54 - 1, 2**54, 2**63, 2**64 - 1)
            leaves[self._random.choice(participants)][self._random.randrange(64)] = self._random.choice(edge)
        return leaves

    def off(self, value: int, modulus: int) -> int:
        """Another value of 64 bits: a neighbour, one that is the same mod the modulus, or anything."""
        other = self._random.choice(
            ((value + 1) % modulus, (value - 1) % modulus, value + modulus, self._random.getrandbits(64))
        )
        return other if other != value else value ^ 1

    # the rules

    def r1(self) -> Case:
        place, order, participants, leaf, depth = self.place(self.size())
        leaves = self.ciphertexts(participants)
        sums = [sum(column) % Q for column in zip(*leaves.values(), strict=True)]
        faulty = self._random.random() < 0.5
        if faulty:
            where = self._random.randrange(64)
            sums[where] = self.off(sums[where], Q)
        commits, proofs, digest = self.commits(place, order, leaves, leaf, depth)
        words, root = self.proof(sums, leaf, depth)
        record = ev.Finding(claim=root, list=digest, faulty=faulty)
        return Case("R1", "wrong sum" if faulty else "honest", (place, leaf, commits, (*words, *proofs)), record)

    def r2(self) -> Case:
        t = self._random.choice((2, 3, 4, self._random.randint(2, 33)))
        order = self._random.sample(range(64), self._random.randint(t, min(64, t + 5)))
        openers = set(self._random.sample(order, t))
        leaf = self._random.randrange(32)
        leaves = {i: [self._random.randrange(PRIME) for _ in range(64)] for i in openers}
        if self._random.random() < 0.2:
            edge = (PRIME, 65535, 65536, 2**40, 2**64 - 1)
            leaves[min(openers)][self._random.randrange(64)] = self._random.choice(edge)
        weights = {}
        for i in openers:
            above = below = 1
            for j in openers - {i}:
                above, below = above * (j + 1) % PRIME, below * (j - i) % PRIME
            weights[i] = above * pow(below, PRIME - 2, PRIME) % PRIME
        sums = [sum(weights[i] * leaves[i][k] for i in openers) % PRIME for k in range(64)]
        faulty = self._random.random() < 0.5
        if faulty:
            where = self._random.randrange(64)
            sums[where] = self.off(sums[where], PRIME)
        words, claim = self.proof(sums, leaf, 5)
        proofs, lines, digest = words, [], bytes(32)
        for i in order:
            root: bytes = self.word()
            line = ev.Line(Index(i), root)
            if i in openers:
                of_opener, root = self.proof(leaves[i], leaf, 5)
                proofs, line = (*proofs, *of_opener), ev.Line(Index(i), bytes(32))
            digest = keccak(digest + i.to_bytes(32, "big") + root)
            lines.append(line)
        record = ev.Finding(claim=claim, list=Digest(digest), faulty=faulty)
        arguments = (bitmap_of(tuple(openers)), leaf, tuple(lines), proofs)
        return Case("R2", "wrong key sum" if faulty else "honest", arguments, record)

    def r3(self) -> Case:
        place, order, participants, leaf, depth = self.place(self.size())
        members = len(participants)
        key_bound, noise_bound = 42 * members, isqrt(2100 * members)
        kinds = ("honest", "honest", "wrong plaintext", "noise", "key too large", "no element", "element written twice")
        kind = self._random.choice(kinds)
        s = [self._random.choice((0, self._random.randint(-key_bound, key_bound))) for _ in range(N)]
        s[self._random.randrange(N)] = self._random.choice((key_bound, -key_bound))
        elements = [x % PRIME for x in s]
        if kind == "key too large":
            elements[self._random.randrange(N)] = self._random.choice(
                (key_bound + 1, PRIME - key_bound - 1, PRIME // 2, PRIME // 2 + 1)
            )
        if kind == "element written twice":
            # 0 to 14 has a second spelling in 16 bits: congruent, decoded alike, and still no element.
            place_of_it = self._random.randrange(N)
            s[place_of_it] = self._random.randrange(15)
            elements[place_of_it] = s[place_of_it] + PRIME
        if kind == "no element":
            elements[self._random.randrange(N)] = self._random.randint(PRIME, 65535)
        lane = self._random.randrange(64)
        coefficient = 64 * leaf + lane
        words = place_words(place.chain_id, place.federation, place.round, place.attempt, place.base_model)
        a = public_polynomial(polynomial_seed(words), coefficient // N)
        k = coefficient % N
        product = sum(a[(k - j) % N] * x * (1 if j <= k else -1) for j, x in enumerate(s))
        plain = self._random.choice((0, 2**44 - 1, self._random.randrange(2**44)))
        noise = self._random.choice((0, noise_bound, -noise_bound, self._random.randint(-noise_bound, noise_bound)))
        claimed = plain
        if kind == "noise":
            size = self._random.choice((noise_bound + 1, self._random.randint(noise_bound + 1, 501)))
            noise = size * self._random.choice((1, -1))
            # At 501 the decoding is a matter of rounding; the noise is out of bounds whatever it gives.
        if kind == "wrong plaintext":
            claimed = self.off(plain, 2**44)
        leaves = self.ciphertexts(participants)
        wanted = (DELTA * plain + noise - product) % Q
        first = int(participants[0])
        others = sum(leaf_of[lane] for i, leaf_of in leaves.items() if i != first)
        leaves[first][lane] = (wanted - others) % Q
        commits, proofs, digest = self.commits(place, order, leaves, leaf, depth)
        stored = [self._random.getrandbits(44) for _ in range(64)]
        stored[lane] = claimed
        proof, claim = self.proof(stored, leaf, depth)
        key_sum = b"".join(x.to_bytes(2, "little") for x in elements)
        record = ev.Finding(claim=claim, key_sum=_key_root(elements), list=digest, faulty=kind != "honest")
        return Case("R3", kind, (place, coefficient, key_sum, commits, (*proof, *proofs)), record)

    def r4(self) -> Case:
        place, order, _, leaf, depth = self.place(1)
        index = self._random.choice(order)
        place = replace(place, participants=Bitmap(1 << index))
        residues = [self.residue() for _ in range(64)]
        faulty = self._random.random() < 0.5
        if faulty:
            edge = (Q, Q + 1, 2**54 - 1, 2**54, 2 * Q, 2**64 - 1, self._random.randint(Q, 2**64 - 1))
            residues[self._random.randrange(64)] = self._random.choice(edge)
        commits, proofs, digest = self.commits(place, order, {index: residues}, leaf, depth)
        record = ev.Finding(list=digest, faulty=faulty)
        return Case("R4", "residue" if faulty else "honest", (place, leaf, commits, proofs), record)

    def r5(self) -> Case:
        federation = self.address()
        place = self._random.getrandbits(32), self._random.getrandbits(32), 0
        first = OpeningStatement(*place, Bitmap(0b10111), Root(self.word()), cid_of_digest(self.word()))
        kind = self._random.choice(
            ("same", "root", "cid", "participants", "attempt", "round", "another signer", "another contract", "garbage")
        )
        second = first
        if kind == "participants":
            second = replace(first, participants=Bitmap(0b01111))
        if kind in ("root", "attempt", "round", "another signer"):
            second = replace(first, root=Root(self.word()))
        if kind == "cid":
            second = replace(first, cid=cid_of_digest(self.word()))
        if kind == "attempt":
            second = replace(second, attempt=first.attempt ^ 1)
        if kind == "round":
            second = replace(second, round=first.round ^ 1)
        key = PrivateKey(b"\x08" * 32) if kind == "another signer" else self._key
        signatures = [
            self._signed(self._key, federation, first),
            self._signed(key, self.address() if kind == "another contract" else federation, second),
        ]
        signer = Address(to_checksum_address(keccak(self._key.public_key.format(compressed=False)[1:])[-20:]))
        expected: Any = (signer, kind in ("root", "participants"))
        if kind in ("another signer", "another contract"):
            expected = (ev.NOBODY, False)
        if kind == "garbage":
            signatures = [b"\0" * 64 + bytes((self._random.choice((0, 1, 26, 29)),))] * 2
            expected = (ev.NOBODY, False)
        challenge = ev.ChallengeEquivocation(first, signatures[0], second, signatures[1])
        return Case("R5", kind, (self._chain_id, federation, challenge), expected)

    def _signed(self, key: PrivateKey, federation: Address, said: OpeningStatement) -> bytes:
        signature = key.sign_recoverable(statement_digest(self._chain_id, federation, said), hasher=None)
        return signature[:64] + bytes((27 + signature[64],))

    def _bent(self, case: Case) -> Case:
        """The same case with one thing changed in its evidence."""
        *before, lines, proofs = case.arguments
        what = self._random.choice(("word", "proof", "cut", "longer", "dropped", "doubled", "swapped", "index", "leaf"))
        spot = self._random.randrange(len(lines))
        match what:
            case "word":
                if case.rule == "R2" and before[0] >> lines[spot].index & 1:
                    return case  # an opener's word is not read
                changed = replace(lines[spot], word=self.word())
                lines = (*lines[:spot], changed, *lines[spot + 1 :])
            case "proof":
                at = self._random.randrange(len(proofs))
                proofs = (*proofs[:at], self.word(), *proofs[at + 1 :])
            case "cut":
                proofs = proofs[:-1]
            case "longer":
                proofs = (*proofs, self.word())
            case "dropped":
                lines = lines[:spot] + lines[spot + 1 :]
            case "doubled":
                lines = (*lines, lines[spot])
            case "swapped":
                if len(lines) < 2:
                    return case
                lines = (*lines[1:], lines[0])
            case "index":
                changed = replace(lines[spot], index=Index((lines[spot].index + 1) % 64))
                lines = (*lines[:spot], changed, *lines[spot + 1 :])
            case "leaf":
                place = before[0]
                leaves = 32 if case.rule == "R2" else -(-place.model_size // 128)
                before[1] = leaves * (64 if case.rule == "R3" else 1) + self._random.choice((0, 1))
        return Case(case.rule, f"bent: {what}", (*before, lines, proofs), case.record, bent=True)


def _key_root(elements: list[int]) -> Root:
    level = [
        hash_leaf(b"".join(x.to_bytes(8, "little") for x in elements[i : i + 64])) for i in range(0, len(elements), 64)
    ]
    while len(level) > 1:
        level = [fold(left, 0, (right,)) for left, right in zip(level[::2], level[1::2], strict=True)]
    return Root(level[0])
