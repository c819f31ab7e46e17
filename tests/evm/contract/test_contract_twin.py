"""The twin: random histories on the chain, folded in Python, and both asked the same questions at random times.

`fedchain/protocol/phase.py` and `contracts/Rounds.sol` must give the same phase, the same live attempt and the same
aggregator at every moment; and what the one lets in, the other must let in too. Challenges as well:
`protocol/disputes.py` says beforehand what `contracts/Disputes.sol` will do. The numbers are made up, but what follows
from what is real: models have one leaf, so that a sum, and a key sum, can be right or wrong, and evidence against each
can be had.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_hash.auto import keccak
from web3 import Web3

from fedchain.chain.artifacts import load_artifact
from fedchain.errors import Fault
from fedchain.protocol import events as told
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.disputes import Refused, commitments_digest, judge, openings_digest
from fedchain.protocol.evidence import (
    Challenge,
    ChallengeAggregate,
    ChallengeEquivocation,
    ChallengeKeySum,
    ChallengeResidue,
    Line,
    OpeningStatement,
)
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest, Index, Root, bitmap_of, members_of
from fedchain.protocol.merkle import hash_leaf, prove, root_of
from fedchain.protocol.participants import check_participants, choose_participants
from fedchain.protocol.phase import (
    Phase,
    aggregator_of,
    are_too_few,
    bond_free_at,
    is_finished,
    live_attempt,
    phase_of,
    receipts_end,
    start_of_run,
    training_end,
)
from fedchain.protocol.scheme import KEY_LEAVES, SHARE_PRIME, Q, lagrange_at_zero
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.transition import apply, founded

STEPS = 120
NAMES = {
    "encryptionKey": "encryption_key",
    "ciphertextCid": "ciphertext_cid",
    "sharesCid": "shares_cid",
    "keySumRoot": "key_sum_root",
    "resultRoot": "result_root",
    "modelDigest": "model_digest",
    "resultCid": "result_cid",
    "modelCid": "model_cid",
    "amount": "amount_wei",
    "burnt": "burnt_wei",
    "reward": "reward_wei",
}
Leaf = tuple[int, ...]
ZERO_LEAF = (0,) * 64


def content(leaf: Leaf) -> bytes:
    return b"".join(residue.to_bytes(8, "little") for residue in leaf)


def words(content: bytes) -> tuple[bytes, ...]:
    return tuple(content[i : i + 32] for i in range(0, len(content), 32))


def key_root(first: Leaf) -> Root:
    """The root of an opening or a key sum that is zero past its first leaf."""
    return root_of([hash_leaf(content(first)), *[hash_leaf(content(ZERO_LEAF))] * (KEY_LEAVES - 1)])


def key_proof(first: Leaf) -> tuple[bytes, ...]:
    hashes = [hash_leaf(content(first)), *[hash_leaf(content(ZERO_LEAF))] * (KEY_LEAVES - 1)]
    return (*words(content(first)), *prove(hashes, 0))


def event_of(name: str, said: dict[str, Any], at: int) -> told.Event:
    """The Python event of a decoded log; a CID is left as hex, which is all the same to the fold."""
    if name == "FederationFounded":
        t = said["terms"]
        terms = told.Terms(
            charter_digest=Digest(t["charterDigest"]),
            charter_cid=Cid(t["charterCid"].hex()),
            genesis_digest=Digest(t["genesisDigest"]),
            genesis_cid=Cid(t["genesisCid"].hex()),
            model_size=t["modelSize"],
            rounds=t["rounds"],
            threshold=t["threshold"],
            enrol_window_s=t["enrolWindow"],
            training_window_s=t["trainingWindow"],
            receipt_window_s=t["receiptWindow"],
            aggregate_window_s=t["aggregateWindow"],
            challenge_window_s=t["challengeWindow"],
            bond_wei=t["bond"],
        )
        founders = tuple(Web3.to_checksum_address(founder) for founder in said["founders"])
        return told.FederationFounded(terms=terms, founders=founders, at=at)
    fields = {NAMES.get(key, key): value.hex() if key.lower().endswith("cid") else value for key, value in said.items()}
    event: told.Event = getattr(told, name)(**fields, at=at)
    return event


class History:
    """One federation, its log folded so far, and a tally: a history in which little happened is no test."""

    def __init__(self, federation: Any, chosen: dict[str, Any]) -> None:
        self.federation = federation
        self.hesitant, self.quarrelsome = chosen.get("hesitant", 0.0), chosen.get("quarrelsome", 0.0)
        self.hasty = chosen.get("hasty", 0.18)
        self.chain = federation.chain
        self.chosen = random.Random(chosen["seed"])
        self.tally: Counter[str] = Counter()
        # What stands behind the roots that were said: by (round, attempt, member), and by root.
        self.uploads: dict[tuple[int, int, int], tuple[Leaf, Root]] = {}
        self.leaves: dict[bytes, Leaf] = {}
        self.rewards: Counter[str] = Counter()
        self.burnt = 0
        ((name, said),) = federation.events(federation.deployment)
        event = event_of(name, said, federation.founded_at)
        assert isinstance(event, told.FederationFounded)
        self.state: FederationState = founded(event)

    def say(self, member: int, name: str, *arguments: Any, at: int, value: int = 0) -> bool:
        """Send one statement; whether it was let in. What was let in is folded."""
        try:
            receipt = self.federation.send(member, name, *arguments, at=at, value=value)
        except self.federation.Refused as refused:
            self.tally[refused.name] += 1
            return False
        for event_name, said in self.federation.events(receipt):
            self.state = apply(self.state, event_of(event_name, said, at))
            self.tally[event_name] += 1
            if event_name == "MemberSlashed":
                self.rewards[Web3.to_checksum_address(said["challenger"])] += said["reward"]
                self.burnt += said["burnt"]
            elif event_name == "RewardWithdrawn":
                assert said["amount"] == self.rewards.pop(Web3.to_checksum_address(said["account"]))
        return True

    def is_over(self) -> bool:
        """Nothing can change any more: the run is finished, and every bond is back."""
        begun = start_of_run(self.state, self.chain.now) is not None
        staked = self.state.heard & ~self.state.withdrawn
        return begun and is_finished(self.state) and not staked and not self.rewards

    def hears(self, member: int) -> bool:
        return bool(self.state.heard >> member & 1)

    def deadlines(self, now: int) -> list[int]:
        """The moments ahead at which something changes by itself."""
        terms = self.state.terms
        start = start_of_run(self.state, now)
        if start is None:
            deadline = self.state.founded_at + terms.enrol_window_s
            ends = [deadline, deadline + terms.challenge_window_s]
        else:
            attempt = live_attempt(self.state, now)
            assert attempt is not None
            free = bond_free_at(self.state, now)
            if free is not None:
                return [end for end in (free,) if end > now]
            training = training_end(self.state, attempt, now)
            receipts = receipts_end(self.state, attempt, now)
            ends = [attempt.started_at + terms.training_window_s]
            if training is not None:
                ends.append(training + terms.receipt_window_s)
            if receipts is not None:
                turns = range(1, len(self.state.members) + 1)
                ends += [receipts + turn * terms.aggregate_window_s for turn in turns]
        return [end for end in ends if end > now]

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

    def speaker(self, spoken: Any) -> int:
        """Mostly somebody who has not spoken yet."""
        silent = [i for i in range(len(self.state.founders)) if i not in spoken]
        return self.chosen.choice(silent if silent and self.chosen.random() < 0.8 else range(len(self.state.founders)))

    def step(self) -> None:
        """One statement that mostly fits the phase; Python says beforehand whether the contract must let it in."""
        at = self.next_time()
        phase = phase_of(self.state, self.state.round, at)
        attempt = live_attempt(self.state, at)
        self.tally[phase.name] += 1
        if self.chosen.random() < self.quarrelsome:
            self.quarrel(at)
        elif phase is Phase.ENROLLING or attempt is None:
            self.enrol_or_leave(at)
        elif phase is Phase.TRAINING:
            self.commit_or_vote(attempt, at)
        elif phase is Phase.RECEIPTS:
            self.post(attempt, at)
        elif phase is Phase.AGGREGATING:
            if self.chosen.random() < 0.5:
                self.aggregate(attempt, at)  # else silence: let the turn pass
        elif phase is Phase.OPENING or phase is Phase.CLOSING:
            self.open_or_close(attempt, at, phase is Phase.CLOSING)
        else:
            assert phase is Phase.FINISHED
            self.leave_or_speak(at)

    def enrol_or_leave(self, at: int) -> None:
        if self.chosen.random() < self.hesitant:
            return  # silence: let the deadlines come
        terms, member = self.state.terms, self.chosen.randrange(len(self.state.founders))
        enrolled = member in self.state.members
        if enrolled and self.chosen.random() < 0.7:
            free = self.state.founded_at + terms.enrol_window_s + terms.challenge_window_s
            assert self.say(member, "withdrawBond", at=at) == (at >= free)
            self.tally["left before the run"] += at >= free
            return
        words = (self.chosen.randbytes(32), 1 + member)
        assert self.say(member, "enrol", *words, at=at, value=terms.bond_wei) != enrolled

    def commit_or_vote(self, attempt: Attempt, at: int) -> None:
        member, number = self.speaker(attempt.commits), attempt.attempt
        if attempt.round > 1 and self.chosen.random() < 0.15:
            voted = bool(self.state.stop_votes >> member & 1)
            assert self.say(member, "voteToStop", attempt.round, at=at) == (self.hears(member) and not voted)
            return
        if self.chosen.random() < 0.1:
            number += self.chosen.choice((-1, 1)) if number else 1
        leaf = tuple(self.chosen.randrange(Q) for _ in range(64))
        if self.chosen.random() < 0.1:
            leaf = (self.chosen.randrange(Q, 2**64), *leaf[1:])
        shares_root = Root(self.chosen.randbytes(32))
        founder, place = self.state.founders[member], (attempt.round, number)
        address, root = Address(self.federation.address), Root(hash_leaf(content(leaf)))
        commitment = update_commitment(self.chain.chain_id, address, *place, founder, root, shares_root)
        allowed = self.hears(member) and number == attempt.attempt and member not in attempt.commits
        said = (*place, commitment, self.chosen.randbytes(32), self.chosen.randbytes(32))
        assert self.say(member, "commitUpdate", *said, at=at) == allowed
        if allowed:
            self.uploads[(*place, member)] = leaf, shares_root

    def post(self, attempt: Attempt, at: int) -> None:
        member, whole = self.speaker(attempt.receipts), attempt.committed
        if self.chosen.random() < 0.15:
            whole = Bitmap(self.chosen.getrandbits(len(self.state.founders)))
        allowed = self.hears(member) and member not in attempt.receipts
        allowed = allowed and whole & ~attempt.committed == 0
        assert self.say(member, "postReceipt", attempt.round, attempt.attempt, whole, at=at) == allowed

    def aggregate(self, attempt: Attempt, at: int) -> None:
        """The aggregator, or now and then another member, posts the best set or now and then some other."""
        turn = aggregator_of(self.state, attempt, at)
        self.tally["failover" if turn != aggregator_of(self.state, attempt, 0) else "first turn"] += 1
        member = turn if self.chosen.random() < 0.8 else Index(self.chosen.randrange(len(self.state.founders)))
        participants = choose_participants(self.state, attempt)
        if participants is None or self.chosen.random() < 0.4:
            participants = Bitmap(self.chosen.getrandbits(len(self.state.founders)))
        try:
            check_participants(self.state, attempt, participants)
            allowed = member == turn and self.hears(member)
        except Fault:
            allowed = False
        root = self.sum_of(attempt, participants) if allowed else self.chosen.randbytes(32)
        basis = self.basis(commitments_digest(attempt))
        allowed = allowed and basis == commitments_digest(attempt)
        said = (attempt.round, attempt.attempt, 0, participants, basis, root, self.chosen.randbytes(32))
        assert self.say(member, "commitAggregate", *said, at=at) == allowed

    def basis(self, right: bytes) -> bytes:
        """What a statement rests on; seldom, as after a fork, something else."""
        return right if self.chosen.random() < 0.97 else self.chosen.randbytes(32)

    def basis_of(self, attempt: Attempt) -> bytes:
        """All that a result rests on. Twin: basisOf()."""
        assert attempt.aggregate is not None
        words = (attempt.base_digest, commitments_digest(attempt))
        return keccak(b"".join(words) + attempt.aggregate.participants.to_bytes(32, "big") + openings_digest(attempt))

    def sum_of(self, attempt: Attempt, participants: Bitmap) -> bytes:
        """The root of the sum over these participants; now and then of another."""
        updates = [self.uploads[attempt.round, attempt.attempt, i][0] for i in members_of(participants)]
        total = [sum(column) % Q for column in zip(*updates, strict=True)]
        total[self.chosen.randrange(64)] += self.chosen.random() < 0.4
        root = hash_leaf(content(tuple(total)))
        self.leaves[root] = tuple(total)
        return root

    def open_or_close(self, attempt: Attempt, at: int, may_close: bool) -> None:
        member, place = self.speaker(attempt.openings), (attempt.round, attempt.attempt, 0)
        if self.chosen.random() < 0.4:
            openers = bitmap_of(self.chosen.sample(sorted(attempt.openings), min(3, len(attempt.openings))))
            openers = bitmap_of(sorted(attempt.openings)[: self.state.terms.threshold]) if may_close else openers
            if self.chosen.random() < 0.1:
                openers = Bitmap(self.chosen.getrandbits(len(self.state.founders)))
            opened = bitmap_of(tuple(attempt.openings))
            right = openers.bit_count() == self.state.terms.threshold and not openers & ~opened
            root = self.key_sum_of(attempt, openers) if right else self.chosen.randbytes(32)
            basis = self.basis(self.basis_of(attempt))
            said = (*place, openers, basis, root, *[self.chosen.randbytes(32) for _ in range(4)])
            allowed = self.hears(member) and may_close and right and basis == self.basis_of(attempt)
            assert self.say(member, "commitResult", *said, at=at) == allowed
            return
        leaf = tuple(self.chosen.randrange(SHARE_PRIME) for _ in range(64))
        self.leaves[key_root(leaf)] = leaf
        allowed = self.hears(member) and member not in attempt.openings
        assert self.say(member, "publishOpening", *place, key_root(leaf), self.chosen.randbytes(32), at=at) == allowed

    def key_sum_of(self, attempt: Attempt, openers: Bitmap) -> bytes:
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
        member = self.chosen.randrange(len(self.state.founders))
        if self.chosen.random() < 0.2:
            due = self.rewards[self.state.founders[member]] > 0
            assert self.say(member, "withdrawReward", at=at) == due
            return
        if self.chosen.random() < 0.5:
            words = [self.chosen.randbytes(32) for _ in range(3)]
            assert not self.say(member, "commitUpdate", self.state.round, 0, *words, at=at)
            return
        staked = self.hears(member) and not self.state.withdrawn >> member & 1
        free = bond_free_at(self.state, at)
        assert self.say(member, "withdrawBond", at=at) == (staked and free is not None and at >= free)

    # Quarrels: a challenge that may succeed or not, or a sum stated anew.

    def quarrel(self, at: int) -> None:
        """One challenge about anything that was ever said, or a refuted sum stated anew."""
        state, round = self.state, self.chosen.choice((*range(1, self.state.round + 2), *self.state.closed))
        locked = state.closed.get(round, state.current)
        if locked is None or locked.round != round or locked.aggregate is None:
            locked = None
        kind = self.chosen.choice(("restate", "aggregate", "aggregate", "key sum", "key sum", "residue", "conflict"))
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
        """Both twins must come to the same verdict, by the same reason."""
        address = Address(self.federation.address)
        try:
            expected = f"liar {judge(self.state, self.chain.chain_id, address, challenge, at)}"
        except Refused as refused:
            expected = refused.error_name
        name = type(challenge).__name__.replace("Challenge", "challenge", 1)
        slashed, before = self.state.slashed, Counter(self.tally)
        if self.say(self.chosen.randrange(len(self.state.founders)), name, *arguments_of(challenge), at=at):
            (liar,) = members_of(self.state.slashed & ~slashed) or (None,)
            assert expected == f"liar {liar}" or (liar is None and expected.startswith("liar")), (expected, challenge)
            self.tally["a liar without a bond"] += liar is None
        else:
            (reason,) = self.tally - before
            assert expected == reason, challenge

    def lines(self, attempt: Attempt, rebuilt: Bitmap) -> tuple[Line, ...]:
        place = attempt.round, attempt.attempt
        return tuple(
            Line(i, self.uploads[(*place, i)][1] if rebuilt >> i & 1 else commit.commitment)
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
        claim = self.leaves[attempt.posted_sum.root if attempt.posted_sum else attempt.aggregate.root]
        proofs = words(content(claim))
        for i in attempt.commits:
            if attempt.aggregate.participants >> i & 1:
                proofs += words(content(self.uploads[attempt.round, attempt.attempt, i][0]))
        lines = self.lines(attempt, attempt.aggregate.participants)
        return ChallengeAggregate(attempt.round, 0, 0, lines, self.bent(proofs))

    def against_key_sum(self, attempt: Attempt) -> ChallengeKeySum:
        assert attempt.result is not None
        openers, proofs, lines = attempt.result.openers, key_proof(self.leaves[attempt.result.key_sum_root]), []
        for i, opening in attempt.openings.items():
            lines.append(Line(i, bytes(32) if openers >> i & 1 else opening.root))
            if openers >> i & 1:
                proofs += key_proof(self.leaves[opening.root])
        return ChallengeKeySum(attempt.round, 0, 0, tuple(lines), self.bent(proofs))

    def against_residue(self, attempt: Attempt) -> ChallengeResidue:
        member = self.chosen.choice(list(attempt.commits))
        proof = words(content(self.uploads[attempt.round, attempt.attempt, member][0]))
        lines = self.lines(attempt, Bitmap(1 << member))
        return ChallengeResidue(attempt.round, attempt.attempt, member, 0, lines, self.bent(proof))

    def against_two_openings(self, round: int) -> ChallengeEquivocation:
        account = self.chosen.randrange(len(self.state.founders) + 1)  # one is no founder
        pair: list[Any] = []
        for participants in (7, self.chosen.choice((7, 15))):
            said = OpeningStatement(round, 0, 0, Bitmap(participants), Root(b"\x01" * 32))
            pair += [said, self.signed(said, account)]
        return ChallengeEquivocation(*pair)

    def signed(self, said: OpeningStatement, account: int) -> bytes:
        names = {"round": 32, "attempt": 32, "group": 16, "participants": 128}
        kinds = [{"name": name, "type": f"uint{bits}"} for name, bits in names.items()]
        domain = {"name": "fedchain", "version": "1", "chainId": self.chain.chain_id}
        message = encode_typed_data(
            domain | {"verifyingContract": self.federation.address},
            {"Opening": [*kinds, {"name": "root", "type": "bytes32"}]},
            {name: getattr(said, name) for name in [*names, "root"]},
        )
        signature: bytes = Account.sign_message(message, self.chain.keys[account]).signature
        return signature

    def restate(self, attempt: Attempt | None, at: int) -> None:
        member = self.chosen.randrange(len(self.state.founders))
        if attempt is None or attempt.aggregate is None:
            said = (self.state.round + 1, 0, 7, *[self.chosen.randbytes(32) for _ in range(3)])
            assert not self.say(member, "restateAggregate", *said, at=at)
            return
        free = bond_free_at(self.state, at)
        allowed = self.hears(member) and attempt.posted_sum is None and (free is None or at < free)
        root = self.sum_of(attempt, attempt.aggregate.participants)
        basis = self.basis(commitments_digest(attempt))
        allowed = allowed and basis == commitments_digest(attempt)
        said = (attempt.round, 0, attempt.aggregate.participants, basis, root, self.chosen.randbytes(32))
        assert self.say(member, "restateAggregate", *said, at=at) == allowed

    def compare(self) -> None:
        """Both twins, asked about the present, the deadlines ahead, and some other time to come."""
        now = self.chain.now
        ahead = self.deadlines(now)
        moments = {now, now + self.chosen.randrange(3000)}
        moments |= {end + self.chosen.choice((-1, 0, 1)) for end in self.chosen.sample(ahead, min(2, len(ahead)))}
        for at in sorted(moment for moment in moments if moment >= now):
            self.compare_at(at)
        self.check_money()

    def check_money(self) -> None:
        """All that the contract holds is bonds, rewards and what was burnt."""
        state = self.state
        bonds = state.terms.bond_wei * (state.heard & ~state.withdrawn).bit_count()
        held = int(self.chain.rpc("eth_getBalance", self.federation.address, "latest"), 16)
        assert held == bonds + sum(self.rewards.values()) + self.burnt
        assert self.burnt == self.federation.call("burnt")

    def compare_basis(self, live: Attempt | None, at: int) -> None:
        rounds = [self.state.closed.get(self.chosen.randrange(1, self.state.round + 1)), live]
        for attempt in rounds:
            if attempt is not None:
                basis = self.federation.call("basisOf", attempt.round, 0, at=at)
                assert basis == (self.basis_of(attempt) if attempt.aggregate else bytes(32))

    def compare_at(self, at: int) -> None:
        state = self.state
        rounds = [state.round - 1, state.round, state.round + 1]
        questions: list[tuple[Any, ...]] = [("phaseOf", round) for round in rounds]
        live = live_attempt(state, at)
        if live is not None:
            questions += [("roundAt", state.round), ("aggregatorNow",), ("aggregateOf", state.round, 0)]
            questions += [("resultOf", max(state.closed), 0)] if state.closed else []
        member = self.chosen.randrange(len(state.founders))
        standing = [("currentRound",), ("enrolled",), ("standing",), ("slashed",), ("model",), ("memberAt", member)]
        current, *counted, model_digest, seen = self.federation.call_all(standing, at)
        answers = self.federation.call_all(questions, at)
        self.compare_basis(live, at)
        assert (current, model_digest) == (state.round, state.model_digest)
        assert counted == [state.enrolled, state.standing, state.slashed]
        flags = member in state.members, bool(state.withdrawn >> member & 1), bool(state.slashed >> member & 1)
        assert (seen["enrolled"], seen["withdrawn"], seen["slashed"]) == flags
        assert [Phase(phase) for phase in answers[:3]] == [phase_of(state, round, at) for round in rounds], at
        if live is None:
            return
        assert answers[3] == {
            "round": live.round,
            "attempt": live.attempt,
            "startedAt": live.started_at,
            "lastCommitAt": live.last_commit_at,
            "lastReceiptAt": live.last_receipt_at,
            "committed": live.committed,
            "received": bitmap_of(tuple(live.receipts)),
            "participants": live.aggregate.participants if live.aggregate else 0,
            "opened": bitmap_of(tuple(live.openings)),
            "stopVotes": state.stop_votes,
        }, at
        assert answers[4] == aggregator_of(state, live, at), at
        assert answers[5]["root"] == (live.posted_sum.root if live.posted_sum else bytes(32))
        if state.closed:
            result = state.closed[max(state.closed)].result
            assert result is not None
            assert (answers[6]["openers"], answers[6]["keySumRoot"]) == (result.openers, result.key_sum_root)


def arguments_of(challenge: Challenge) -> tuple[Any, ...]:
    """A challenge as the ABI takes it."""

    def plain(value: Any) -> Any:
        if isinstance(value, Line):
            return value.index, value.word
        if isinstance(value, OpeningStatement):
            return value.round, value.attempt, value.group, value.participants, value.root
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return tuple(plain(getattr(challenge, name)) for name in challenge.__dataclass_fields__)


WINDOWS = {"enrolWindow": 40, "trainingWindow": 60, "receiptWindow": 30, "aggregateWindow": 20, "challengeWindow": 50}
HISTORIES: tuple[dict[str, Any], ...] = (
    {"seed": 1, "members": 3, "threshold": 2, "rounds": 1},
    {"seed": 2, "members": 4, "threshold": 3, "rounds": 2, "hesitant": 0.9},
    {"seed": 3, "members": 5, "threshold": 3, "rounds": 9, "hesitant": 0.5},
    {"seed": 4, "members": 6, "threshold": 4, "rounds": 9, "hesitant": 0.9},
    {"seed": 8, "members": 5, "threshold": 4, "rounds": 9},
    {"seed": 43, "members": 7, "threshold": 4, "rounds": 3, "quarrelsome": 0.3, "hasty": 0.03, "steps": 300},
    {"seed": 33, "members": 9, "threshold": 5, "rounds": 3, "quarrelsome": 0.3, "hasty": 0.03, "steps": 300},
)


def played(found: Callable[..., Any], chosen: dict[str, Any]) -> History:
    """A history to its end, both twins compared after every step."""
    terms = {"threshold": chosen["threshold"], "rounds": chosen["rounds"], "bond": 7, "modelSize": 100}
    history = History(found(chosen["members"], **WINDOWS, **terms), chosen)
    for _ in range(chosen.get("steps", STEPS)):
        history.step()
        history.compare()
        if history.is_over():
            break
    return history


def test_the_contract_and_python_tell_the_same_story(found: Callable[..., Any]) -> None:
    tally: Counter[str] = Counter()
    for chosen in HISTORIES:
        history = played(found, chosen)
        state = history.state
        tally.update(history.tally)
        tally["void attempt"] += len(state.voided)
        tally["forgotten attempt"] += len(state.forgotten)
        tally["finished by rounds"] += state.round > state.terms.rounds
        tally["finished by votes"] += state.stop_votes.bit_count() >= state.terms.threshold
        tally["finished by slashing"] += are_too_few(state) and state.slashed != 0
    # A history in which little happens proves little: all of this must have come about.
    phases = {phase.name for phase in Phase} - {"CLOSED", "PENDING"}
    events = {e["name"] for e in load_artifact().abi if e["type"] == "event"} - {"FederationFounded"}
    moments = {"first turn", "failover", "void attempt", "forgotten attempt", "left before the run"}
    endings = {"finished by rounds", "finished by votes", "finished by slashing"}
    refusals = {
        "FederationWrongAttempt",
        "FederationNotAggregator",
        "FederationTooFewParticipants",
        "FederationSlashed",
    }
    verdicts = {"FederationHonest", "FederationBadEvidence", "FederationNoStatement", "FederationAlreadySlashed"}
    verdicts |= {"FederationChallengeOver", "FederationNotMember", "FederationOtherBasis"}
    assert not {w for w in phases | events | moments | endings | refusals | verdicts if not tally[w]}, tally


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 160))
def test_many_more_histories(found: Callable[..., Any], seed: int) -> None:
    members, threshold = ((9, 5), (7, 4), (11, 6), (3, 2))[seed % 4]
    quarrels = {"quarrelsome": 0.3, "hasty": 0.03, "steps": 300}
    played(found, {"seed": seed, "members": members, "threshold": threshold, "rounds": 2 + seed % 2, **quarrels})
