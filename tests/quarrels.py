"""Challenges about anything that was ever said in a random history (`histories.py`), and refuted sums stated anew.

Both twins must come to the same verdict, by the same reason.
"""

from __future__ import annotations

from typing import Any

from coincurve import PrivateKey

from fedchain.protocol import actions as say
from fedchain.protocol.cid import cid_of
from fedchain.protocol.disputes import Refused, commitments_digest, judge
from fedchain.protocol.evidence import (
    Challenge,
    ChallengeAggregate,
    ChallengeEquivocation,
    ChallengeKeySum,
    ChallengeResidue,
    Line,
)
from fedchain.protocol.ids import Bitmap, Digest, Root, members_of
from fedchain.protocol.merkle import hash_leaf, prove
from fedchain.protocol.phase import challenges_end_at
from fedchain.protocol.scheme import KEY_LEAVES
from fedchain.protocol.state import Attempt
from fedchain.protocol.statements import OpeningStatement, statement_digest

KINDS = ("restate", "aggregate", "aggregate", "key sum", "key sum", "residue", "conflict")


def words(content: bytes) -> tuple[bytes, ...]:
    return tuple(content[i : i + 32] for i in range(0, len(content), 32))


def residues(leaf: tuple[int, ...]) -> bytes:
    return b"".join(residue.to_bytes(8, "little") for residue in leaf)


def key_proof(first: tuple[int, ...]) -> tuple[bytes, ...]:
    """The first leaf of an opening or a key sum that is zero past it."""
    hashes = [hash_leaf(residues(first)), *[hash_leaf(bytes(512))] * (KEY_LEAVES - 1)]
    return (*words(residues(first)), *prove(hashes, 0))


class Quarrels:
    """What is held against what was said in one history."""

    def __init__(self, history: Any) -> None:
        self.history = history
        self.chosen = history.chosen

    def step(self, at: int) -> None:
        """One challenge, or a refuted sum stated anew."""
        state = self.history.state
        round = self.chosen.choice((*range(1, state.round + 2), *state.closed))
        locked = state.closed.get(round, state.current)
        if locked is None or locked.round != round or locked.aggregate is None:
            locked = None
        kind = self.chosen.choice(KINDS)
        if kind == "restate":
            self.restate(locked, at)
        elif kind == "aggregate":
            self.challenge(self.against_sum(locked) if locked else ChallengeAggregate(round, 0, 0, (), ()), at)
        elif kind == "key sum":
            closed = locked if round in state.closed else None
            self.challenge(self.against_key_sum(closed) if closed else ChallengeKeySum(round, 0, 0, (), ()), at)
        elif kind == "residue":
            attempts = (*state.voided, *state.forgotten, *state.closed.values(), state.current)
            said = [attempt for attempt in attempts if attempt is not None and attempt.commits]
            if said:
                self.challenge(self.against_residue(self.chosen.choice(said)), at)
        elif self.chosen.random() < 0.08:  # else members would be gone too soon
            self.challenge(self.against_two_openings(round), at)

    def challenge(self, challenge: Challenge, at: int) -> None:
        history = self.history
        try:
            expected = f"liar {judge(history.state, history.chain.chain_id, history.address, challenge, at)}"
        except Refused as refused:
            expected = refused.error_name
        slashed = history.state.slashed
        reason = history.act(history.state.accounts[history.anybody()], challenge, at)
        if reason:
            assert expected == reason, challenge
            return
        (liar,) = members_of(history.state.slashed & ~slashed) or (None,)
        assert expected == f"liar {liar}" or (liar is None and expected.startswith("liar")), (expected, challenge)
        history.tally["a liar without a bond"] += liar is None

    def lines(self, attempt: Attempt, rebuilt: Bitmap) -> tuple[Line, ...]:
        place = attempt.round, attempt.attempt
        return tuple(
            Line(i, self.history.uploads[(*place, i)][1] if rebuilt >> i & 1 else commit.commitment)
            for i, commit in attempt.commits.items()
        )

    def bent(self, proofs: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Seldom: evidence with something wrong in it."""
        if self.chosen.random() < 0.9:
            return proofs
        at = self.chosen.randrange(len(proofs))
        return (*proofs[:at], self.chosen.randbytes(32), *proofs[at + 1 :])

    def against_sum(self, attempt: Attempt) -> ChallengeAggregate:
        assert attempt.aggregate is not None
        claim = self.history.leaves[attempt.posted_sum.root if attempt.posted_sum else attempt.aggregate.root]
        proofs = words(residues(claim))
        for i in attempt.commits:
            if attempt.aggregate.participants >> i & 1:
                proofs += words(residues(self.history.uploads[attempt.round, attempt.attempt, i][0]))
        lines = self.lines(attempt, attempt.aggregate.participants)
        return ChallengeAggregate(attempt.round, 0, 0, lines, self.bent(proofs))

    def against_key_sum(self, attempt: Attempt) -> ChallengeKeySum:
        assert attempt.result is not None
        openers, lines = attempt.result.openers, []
        proofs = key_proof(self.history.leaves[attempt.result.key_sum_root])
        for i, opening in attempt.openings.items():
            lines.append(Line(i, bytes(32) if openers >> i & 1 else opening.root))
            if openers >> i & 1:
                proofs += key_proof(self.history.leaves[opening.root])
        return ChallengeKeySum(attempt.round, 0, 0, tuple(lines), self.bent(proofs))

    def against_residue(self, attempt: Attempt) -> ChallengeResidue:
        member = self.chosen.choice(list(attempt.commits))
        proof = words(residues(self.history.uploads[attempt.round, attempt.attempt, member][0]))
        lines = self.lines(attempt, Bitmap(1 << member))
        return ChallengeResidue(attempt.round, attempt.attempt, member, 0, lines, self.bent(proof))

    def against_two_openings(self, round: int) -> ChallengeEquivocation:
        account = self.chosen.randrange(len(self.history.state.founders) + 1)  # one may be no member
        pair: list[Any] = []
        for participants in (7, self.chosen.choice((7, 15))):
            said = OpeningStatement(round, 0, 0, Bitmap(participants), Root(b"\x01" * 32), cid_of(bytes(participants)))
            pair += [said, self.signed(said, account)]
        return ChallengeEquivocation(*pair)

    def signed(self, said: OpeningStatement, account: int) -> bytes:
        digest = statement_digest(self.history.chain.chain_id, self.history.address, said)
        key = PrivateKey(bytes.fromhex(self.history.chain.keys[account][2:]))
        signature = key.sign_recoverable(digest, hasher=None)
        return signature[:64] + bytes((27 + signature[64],))

    def restate(self, attempt: Attempt | None, at: int) -> None:
        history, state = self.history, self.history.state
        member = history.anybody()
        if attempt is None or attempt.aggregate is None:
            words_of_nothing = Digest(self.chosen.randbytes(32)), Root(self.chosen.randbytes(32)), history.cid()
            assert not history.acts(member, say.RestateAggregate(state.round + 1, 0, Bitmap(7), *words_of_nothing), at)
            return
        end = challenges_end_at(state, at)
        allowed = history.hears(member) and attempt.posted_sum is None and (end is None or at < end)
        root = history.sum_of(attempt, attempt.aggregate.participants)
        basis = history.basis(commitments_digest(attempt))
        allowed = allowed and basis == commitments_digest(attempt)
        said = (attempt.round, 0, attempt.aggregate.participants, Digest(basis), root, history.cid())
        assert history.acts(member, say.RestateAggregate(*said), at) == allowed
