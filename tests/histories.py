"""Random histories on a chain, folded in Python: `History` speaks for the members, the twins (`twins.py`) are compared.

Python says beforehand whether the contract must let a statement in. The numbers are made up, but what follows from what
is real: models have one leaf, so that a sum, and a key sum, can be right or wrong, and there is evidence against each.
"""

from __future__ import annotations

import random
from typing import Any

from twins import NEVER, Twins

from fedchain.chain.signing import sign_statement
from fedchain.errors import Fault
from fedchain.protocol import actions as say
from fedchain.protocol.cid import cid_of_digest
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.disputes import commitments_digest
from fedchain.protocol.events import DutiesMissed
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest, Index, Root, bitmap_of, members_of
from fedchain.protocol.merkle import hash_leaf, root_of
from fedchain.protocol.participants import check_participants, choose_participants
from fedchain.protocol.phase import (
    Phase,
    aggregator_of,
    bond_free_at,
    duties_missed,
    live_attempt,
    phase_of,
)
from fedchain.protocol.scheme import KEY_LEAVES, SHARE_PRIME, Q, lagrange_at_zero
from fedchain.protocol.state import Attempt
from fedchain.protocol.statements import OpeningStatement, ReceiptStatement, Statement, UpdateStatement

Leaf = tuple[int, ...]
ZERO_LEAF = (0,) * 64


def content(leaf: Leaf) -> bytes:
    return b"".join(residue.to_bytes(8, "little") for residue in leaf)


def key_hashes(first: Leaf) -> list[bytes]:
    """The leaf hashes of an opening or a key sum that is zero past its first leaf."""
    return [hash_leaf(content(first)), *[hash_leaf(content(ZERO_LEAF))] * (KEY_LEAVES - 1)]


def key_root(first: Leaf) -> Root:
    return root_of(key_hashes(first))


class History(Twins):
    """What the members of one federation say, at random."""

    def __init__(self, federation: Any, chosen: dict[str, Any]) -> None:
        super().__init__(federation, chosen["seed"])
        self.hesitant, self.hasty = chosen.get("hesitant", 0.0), chosen.get("hasty", 0.18)
        self.stopping = chosen.get("stopping", 0.04)
        self.chosen = random.Random(chosen["seed"])
        # What stands behind the roots that were said: by (round, attempt, member), and by root.
        self.uploads: dict[tuple[int, int, int], tuple[Leaf, Root]] = {}
        self.leaves: dict[bytes, Leaf] = {}

    def hears(self, member: int) -> bool:
        return bool(self.state.heard >> member & 1)

    def cid(self) -> Cid:
        return cid_of_digest(self.chosen.randbytes(32))

    def anybody(self) -> int:
        """Any member there ever was."""
        return self.chosen.randrange(len(self.state.accounts))

    def some(self) -> Bitmap:
        """Any set."""
        return Bitmap(self.chosen.getrandbits(len(self.state.accounts)))

    def next_time(self) -> int:
        """Mostly soon; now and then at the next deadline, or a second beside it; seldom at any later one."""
        now, die = self.chain.now, self.chosen.random()
        ahead = self.deadlines(now)
        if die > self.hasty or not ahead:
            return int(now + self.chosen.choice((0, 0, 0, 1)))
        if die > 0.22 * self.hasty:
            return int(max(now, min(ahead) + self.chosen.choice((-1, 0, 0, 1))))
        if die > 0.05 * self.hasty:
            return int(max(now, self.chosen.choice(ahead) + self.chosen.choice((-1, 0, 0, 1))))
        return int(now + self.chosen.randrange(1, 2000))

    def speaker(self, spoken: Any) -> Index:
        """Mostly somebody who is heard, and has not spoken yet."""
        silent = [i for i in members_of(self.state.heard) if i not in spoken]
        return self.chosen.choice(silent) if silent and self.chosen.random() < 0.8 else Index(self.anybody())

    def step(self, at: int) -> None:
        """One statement that mostly fits the phase; Python says beforehand whether the contract must let it in."""
        phase = phase_of(self.state, self.state.round, at)
        attempt = live_attempt(self.state, at)
        self.tally[phase.name] += 1
        if attempt is not None and self.asked.random() < 0.05:
            self.complain(attempt, at, phase)
        if phase is Phase.ENROLLING or attempt is None:
            self.enrol_or_leave(at)
        elif phase is Phase.FINISHED:
            self.leave_or_speak(at)
        elif attempt.round > 1 and self.chosen.random() < self.stopping:
            self.vote_to_stop(attempt, at)
        elif phase is Phase.TRAINING:
            self.commit(attempt, at)
        elif phase is Phase.RECEIPTS:
            self.post(attempt, at)
        elif phase is Phase.AGGREGATING:
            if self.chosen.random() < 0.5:
                self.aggregate(attempt, at)  # else silence: let the turn pass
        else:
            self.open_or_close(attempt, at, phase is Phase.CLOSING)

    def enrol_or_leave(self, at: int) -> None:
        if self.chosen.random() < self.hesitant:
            return  # silence: let the deadlines come
        terms, member = self.state.terms, self.anybody()
        enrolled = bool(self.state.bonded >> member & 1)
        if enrolled and self.chosen.random() < 0.7:
            free = self.state.founded_at + terms.enrol_window_s + terms.challenge_window_s
            assert self.acts(member, say.WithdrawBond(), at) == (at >= free)
            self.tally["left before the run"] += at >= free
            return
        assert self.acts(member, say.Enrol(self.chosen.randbytes(32), 1 + member, terms.bond_wei), at) != enrolled

    def vote_to_stop(self, attempt: Attempt, at: int) -> None:
        member = self.speaker(members_of(self.state.stop_votes))
        model = self.basis(attempt.base_digest)
        allowed = self.hears(member) and not self.state.stop_votes >> member & 1 and model == attempt.base_digest
        assert self.acts(member, say.VoteToStop(attempt.round, Digest(model)), at) == allowed

    def commit(self, attempt: Attempt, at: int) -> None:
        member, number = self.speaker(attempt.commits), attempt.attempt
        if self.chosen.random() < 0.1:
            number += self.chosen.choice((-1, 1)) if number else 1
        fits = number == attempt.attempt
        if self.chosen.random() < 0.3:
            signers = self.signers(attempt.commits)
            said = [self.update(attempt.round, number, i) for i in signers]
            lines = (
                say.SignedUpdate(s.commitment, s.ciphertext_cid, s.shares_cid, self.sign(i, s))
                for i, s in zip(signers, said, strict=True)
            )
            self.hand_in(say.CommitUpdates(attempt.round, number, tuple(lines)), signers, fits, at)
            return
        update = self.update(attempt.round, number, member)
        allowed = self.hears(member) and fits and member not in attempt.commits
        said_so = (update.commitment, update.ciphertext_cid, update.shares_cid)
        if not self.acts(member, say.CommitUpdate(attempt.round, number, *said_so), at):
            assert not allowed
            return
        assert allowed

    def update(self, round: int, number: int, member: Index) -> UpdateStatement:
        """A commitment of this member to a leaf of its own; now and then with a residue beyond q.

        What is behind it is remembered if nothing is yet: only the first one can have been let in.
        """
        leaf = tuple(self.chosen.randrange(Q) for _ in range(64))
        if self.chosen.random() < 0.1:
            leaf = (self.chosen.randrange(Q, 2**64), *leaf[1:])
        shares_root, account = Root(self.chosen.randbytes(32)), self.state.accounts[member]
        attempt = live_attempt(self.state, self.chain.now)
        if attempt is None or (attempt.round, attempt.attempt) != (round, number) or member not in attempt.commits:
            self.uploads[round, number, member] = leaf, shares_root
        place = (self.chain.chain_id, self.address, round, number, account)
        commitment = update_commitment(*place, Root(hash_leaf(content(leaf))), shares_root)
        return UpdateStatement(round, number, commitment, self.cid(), self.cid())

    def complain(self, attempt: Attempt, at: int, phase: Phase) -> None:
        """About committed updates, which is heard until the receipts are in; seldom about others."""
        asked, count = self.asked, len(self.state.accounts)
        dealers = Bitmap(asked.getrandbits(count) & (attempt.committed if asked.random() < 0.8 else NEVER))
        member, cid = Index(asked.randrange(count)), cid_of_digest(asked.randbytes(32))
        due = phase in (Phase.TRAINING, Phase.RECEIPTS) and bool(dealers) and not dealers & ~attempt.committed
        allowed = due and self.hears(member) and member not in attempt.complaints
        assert self.acts(member, say.Complain(attempt.round, attempt.attempt, dealers, cid), at) == allowed

    def post(self, attempt: Attempt, at: int) -> None:
        member, place = self.speaker(attempt.receipts), (attempt.round, attempt.attempt)
        if self.chosen.random() < 0.3:
            signers = self.signers(attempt.receipts)
            said = [ReceiptStatement(*place, self.whole(attempt)) for _ in signers]
            fits = all(
                i in attempt.receipts or i in signers[:k] or not s.whole & ~attempt.committed
                for k, (i, s) in enumerate(zip(signers, said, strict=True))
            )
            receipts = (say.SignedReceipt(s.whole, self.sign(i, s)) for i, s in zip(signers, said, strict=True))
            self.hand_in(say.PostReceipts(*place, tuple(receipts)), signers, fits, at)
            return
        whole = self.whole(attempt)
        allowed = self.hears(member) and member not in attempt.receipts and whole & ~attempt.committed == 0
        assert self.acts(member, say.PostReceipt(*place, whole), at) == allowed

    def whole(self, attempt: Attempt) -> Bitmap:
        if self.chosen.random() < 0.1:
            return self.some()
        return Bitmap(attempt.committed & (self.some() if self.chosen.random() < 0.1 else NEVER))

    def signers(self, spoken: Any) -> list[Index]:
        """Some who have not spoken; seldom somebody who has, or is not heard."""
        silent = [i for i in members_of(self.state.heard) if i not in spoken]
        signers = self.chosen.sample(silent, self.chosen.randint(0, len(silent)))
        if self.chosen.random() < 0.3:
            signers.append(Index(self.anybody()))
        return signers

    def sign(self, member: Index, said: Statement) -> Any:
        """A member's signature; the accounts are the chain's."""
        account = self.state.accounts[member]
        key = bytes.fromhex(self.chain.keys[[a.lower() for a in self.chain.accounts].index(account.lower())][2:])
        return sign_statement(key, self.chain.chain_id, self.address, said)

    def hand_in(self, batch: say.Batch, signers: list[Index], fits: bool, at: int) -> None:
        """Any account hands a batch in; one line that is nobody's who is heard spoils it."""
        allowed = fits and all(self.hears(i) for i in signers)
        assert (not self.act(Address(self.chain.accounts[-1]), batch, at)) == allowed
        self.tally["batch"] += allowed and len(signers) > 1

    def aggregate(self, attempt: Attempt, at: int) -> None:
        """The aggregator, or now and then another member, posts the best set or now and then some other."""
        turn = aggregator_of(self.state, attempt, at)
        self.tally["failover" if turn != aggregator_of(self.state, attempt, 0) else "first turn"] += 1
        member = turn if self.chosen.random() < 0.8 else Index(self.anybody())
        participants = choose_participants(self.state, attempt)
        if participants is not None:
            check_participants(self.state, attempt, participants)
        given_up = self.state.abandoned.get(attempt.base_digest, ())
        if given_up and self.chosen.random() < 0.3:
            participants = Bitmap((given_up[-1] ^ 1 << self.anybody()) & attempt.committed)
        elif participants is None or self.chosen.random() < 0.4:
            participants = Bitmap(self.some() & (attempt.committed if self.chosen.random() < 0.7 else NEVER))
        try:
            check_participants(self.state, attempt, participants)
            allowed = member == turn and self.hears(member)
        except Fault:
            allowed = False
        root = self.sum_of(attempt, participants) if allowed else Root(self.chosen.randbytes(32))
        basis = self.basis(commitments_digest(attempt))
        allowed = allowed and basis == commitments_digest(attempt)
        missed = duties_missed(self.state, attempt, at)
        said = (attempt.round, attempt.attempt, 0, participants, Digest(basis), root, self.cid())
        assert self.acts(member, say.CommitAggregate(*said), at) == allowed
        if allowed:
            told = [event.members for event in self.told if isinstance(event, DutiesMissed)]
            assert told == ([missed] if missed else [])

    def basis(self, right: bytes) -> bytes:
        """What a statement rests on; seldom, as after a fork, something else."""
        return right if self.chosen.random() < 0.97 else self.chosen.randbytes(32)

    def sum_of(self, attempt: Attempt, participants: Bitmap) -> Root:
        """The root of the sum over these participants; now and then of another."""
        updates = [self.uploads[attempt.round, attempt.attempt, i][0] for i in members_of(participants)]
        total = [sum(column) % Q for column in zip(*updates, strict=True)]
        total[self.chosen.randrange(64)] += self.chosen.random() < 0.4
        root = Root(hash_leaf(content(tuple(total))))
        self.leaves[root] = tuple(total)
        return root

    def open_or_close(self, attempt: Attempt, at: int, may_close: bool) -> None:
        member, place = self.speaker(attempt.openings), (attempt.round, attempt.attempt, 0)
        if self.chosen.random() < 0.4:
            self.close(attempt, member, at, may_close)
            return
        assert attempt.aggregate is not None
        if self.chosen.random() < 0.3:
            signers = self.signers(attempt.openings)
            roots = [self.opening_root() for _ in signers]
            said = [OpeningStatement(*place, attempt.aggregate.participants, root, self.cid()) for root in roots]
            lines = (say.SignedOpening(s.root, s.cid, self.sign(i, s)) for i, s in zip(signers, said, strict=True))
            self.hand_in(say.PublishOpenings(*place, tuple(lines)), signers, True, at)
            return
        allowed = self.hears(member) and member not in attempt.openings
        assert self.acts(member, say.PublishOpening(*place, self.opening_root(), self.cid()), at) == allowed

    def opening_root(self) -> Root:
        leaf = tuple(self.chosen.randrange(SHARE_PRIME) for _ in range(64))
        self.leaves[key_root(leaf)] = leaf
        return key_root(leaf)

    def close(self, attempt: Attempt, member: Index, at: int, may_close: bool) -> None:
        openers = bitmap_of(tuple(sorted(attempt.openings)[: attempt.threshold]))
        if self.chosen.random() < 0.1:
            openers = self.some()
        right = openers.bit_count() == attempt.threshold and not openers & ~attempt.opened
        root = self.key_sum_of(attempt, openers) if right else Root(self.chosen.randbytes(32))
        basis = self.basis(self.basis_of(attempt))
        result = Root(self.chosen.randbytes(32)), self.cid(), Digest(self.chosen.randbytes(32)), self.cid()
        said = (attempt.round, attempt.attempt, 0, openers, Digest(basis), root, *result)
        allowed = self.hears(member) and may_close and right and basis == self.basis_of(attempt)
        assert self.acts(member, say.CommitResult(*said), at) == allowed

    def key_sum_of(self, attempt: Attempt, openers: Bitmap) -> Root:
        """The root of what these openings give; now and then of something else."""
        members = members_of(openers)
        weights = lagrange_at_zero([i + 1 for i in members])
        columns = zip(*(self.leaves[attempt.openings[i].root] for i in members), strict=True)
        leaf = [sum(w * x for w, x in zip(weights, column, strict=True)) % SHARE_PRIME for column in columns]
        leaf[self.chosen.randrange(64)] += self.chosen.random() < 0.5
        self.leaves[key_root(tuple(leaf))] = tuple(leaf)
        return key_root(tuple(leaf))

    def leave_or_speak(self, at: int) -> None:
        """After the end: bonds go back once the challenge window has passed; nothing else is heard but for rewards."""
        member = self.anybody()
        if self.chosen.random() < 0.3:
            words = self.chosen.randbytes(32), self.cid(), self.cid()
            assert not self.acts(member, say.CommitUpdate(self.state.round, 0, Digest(words[0]), *words[1:]), at)
        else:
            self.take_back(member, at)

    def take_back(self, member: int, at: int) -> None:
        """A member asks for its bond, or for what it is owed."""
        if self.chosen.random() < 0.4:
            owed = list(self.state.rewards)
            account = self.chosen.choice(owed if owed and self.chosen.random() < 0.8 else self.state.accounts)
            assert (not self.act(account, say.WithdrawReward(), at)) == (account in owed)
            return
        free = bond_free_at(self.state, Index(member), at)
        has_bond = bool(self.state.bonded >> member & 1)
        assert self.acts(member, say.WithdrawBond(), at) == (has_bond and free is not None and at >= free)
