"""The twin: random histories on the chain, folded in Python, and both asked the same questions at random times.

`fedchain/protocol/phase.py` and `contracts/Rounds.sol` must give the same phase, the same live attempt and the same
aggregator at every moment; and what the one lets in, the other must let in too.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from web3 import Web3

from fedchain.chain.artifacts import load_artifact
from fedchain.errors import Fault
from fedchain.protocol import events as told
from fedchain.protocol.ids import Bitmap, Cid, Digest, Index, bitmap_of
from fedchain.protocol.participants import check_participants, choose_participants
from fedchain.protocol.phase import (
    Phase,
    aggregator_of,
    is_finished,
    live_attempt,
    phase_of,
    receipts_end,
    start_of_run,
    training_end,
)
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
    "modelCid": "model_cid",
    "amount": "amount_wei",
}


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

    def __init__(self, federation: Any, seed: int, hesitant: float) -> None:
        self.federation = federation
        self.hesitant = hesitant
        self.chain = federation.chain
        self.chosen = random.Random(seed)
        self.tally: Counter[str] = Counter()
        self.finished_at = 0  # the newest result or vote: the last one, once the run is finished
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
            if event_name in ("ResultCommitted", "StopVoted"):
                self.finished_at = at
        return True

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
        if die < 0.82 or not ahead:
            return int(now + self.chosen.choice((0, 0, 0, 1)))
        if die < 0.96:
            return int(max(now, min(ahead) + self.chosen.choice((-1, 0, 0, 1))))
        if die < 0.99:
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
        if phase is Phase.ENROLLING or attempt is None:
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
        member = self.speaker(attempt.commits)
        enrolled, number = member in self.state.members, attempt.attempt
        if attempt.round > 1 and self.chosen.random() < 0.15:
            voted = bool(self.state.stop_votes >> member & 1)
            assert self.say(member, "voteToStop", attempt.round, at=at) == (enrolled and not voted)
            return
        if self.chosen.random() < 0.1:
            number += self.chosen.choice((-1, 1)) if number else 1
        words = [self.chosen.randbytes(32) for _ in range(3)]
        allowed = enrolled and number == attempt.attempt and member not in attempt.commits
        assert self.say(member, "commitUpdate", attempt.round, number, *words, at=at) == allowed

    def post(self, attempt: Attempt, at: int) -> None:
        member, whole = self.speaker(attempt.receipts), attempt.committed
        if self.chosen.random() < 0.15:
            whole = Bitmap(self.chosen.getrandbits(len(self.state.founders)))
        allowed = member in self.state.members and member not in attempt.receipts
        allowed = allowed and whole & ~attempt.committed == 0
        assert self.say(member, "postReceipt", attempt.round, attempt.attempt, whole, at=at) == allowed

    def open_or_close(self, attempt: Attempt, at: int, may_close: bool) -> None:
        member = self.speaker(attempt.openings)
        enrolled, words = member in self.state.members, [self.chosen.randbytes(32) for _ in range(4)]
        place = (attempt.round, attempt.attempt, 0)
        if self.chosen.random() < 0.4:
            assert self.say(member, "commitResult", *place, *words, at=at) == (enrolled and may_close)
            return
        allowed = enrolled and member not in attempt.openings
        assert self.say(member, "publishOpening", *place, *words[:2], at=at) == allowed

    def leave_or_speak(self, at: int) -> None:
        """After the end: bonds go back once the challenge window has passed; nothing else is heard."""
        member = self.chosen.randrange(len(self.state.founders))
        if self.chosen.random() < 0.5:
            words = [self.chosen.randbytes(32) for _ in range(3)]
            assert not self.say(member, "commitUpdate", self.state.round, 0, *words, at=at)
            return
        staked = member in self.state.members and not self.state.withdrawn >> member & 1
        allowed = staked and at >= self.finished_at + self.state.terms.challenge_window_s
        assert self.say(member, "withdrawBond", at=at) == allowed

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
            allowed = member == turn
        except Fault:
            allowed = False
        words = [self.chosen.randbytes(32) for _ in range(2)]
        said = (attempt.round, attempt.attempt, 0, participants, *words)
        assert self.say(member, "commitAggregate", *said, at=at) == allowed

    def compare(self) -> None:
        """Both twins, asked about the present, the deadlines ahead, and some other time to come."""
        now = self.chain.now
        ahead = self.deadlines(now)
        moments = {now, now + self.chosen.randrange(3000)}
        moments |= {end + self.chosen.choice((-1, 0, 1)) for end in self.chosen.sample(ahead, min(2, len(ahead)))}
        for at in sorted(moment for moment in moments if moment >= now):
            self.compare_at(at)

    def compare_at(self, at: int) -> None:
        state = self.state
        rounds = [state.round - 1, state.round, state.round + 1]
        questions: list[tuple[Any, ...]] = [("phaseOf", round) for round in rounds]
        live = live_attempt(state, at)
        if live is not None:
            questions += [("roundAt", state.round), ("aggregatorNow",)]
        member = self.chosen.randrange(len(state.founders))
        standing = [("currentRound",), ("enrolled",), ("model",), ("memberAt", member)]
        current, enrolled, model_digest, seen, *answers = self.federation.call_all([*standing, *questions], at)
        assert (current, enrolled, model_digest) == (state.round, state.enrolled, state.model_digest)
        assert (seen["enrolled"], seen["withdrawn"]) == (member in state.members, bool(state.withdrawn >> member & 1))
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


HISTORIES = (
    {"seed": 1, "members": 3, "threshold": 2, "rounds": 1, "hesitant": 0.0},
    {"seed": 2, "members": 4, "threshold": 3, "rounds": 2, "hesitant": 0.9},
    {"seed": 3, "members": 5, "threshold": 3, "rounds": 9, "hesitant": 0.5},
    {"seed": 4, "members": 6, "threshold": 4, "rounds": 9, "hesitant": 0.9},
    {"seed": 5, "members": 5, "threshold": 4, "rounds": 9, "hesitant": 0.0},
)


def test_the_contract_and_python_tell_the_same_story(found: Callable[..., Any]) -> None:
    windows = {"enrolWindow": 40, "trainingWindow": 60, "receiptWindow": 30, "aggregateWindow": 20}
    tally: Counter[str] = Counter()
    for chosen in HISTORIES:
        terms = {"threshold": chosen["threshold"], "rounds": chosen["rounds"], "bond": 7, "challengeWindow": 50}
        history = History(found(chosen["members"], **windows, **terms), chosen["seed"], chosen["hesitant"])
        for _ in range(STEPS):
            history.step()
            history.compare()
        ended = is_finished(history.state)
        tally.update(history.tally)
        tally["void attempt"] += len(history.state.voided)
        tally["finished by rounds"] += history.state.round > history.state.terms.rounds
        tally["finished by votes"] += ended and history.state.round <= history.state.terms.rounds
    # A history in which little happens proves little: all of this must have come about.
    phases = {phase.name for phase in Phase} - {"CLOSED", "PENDING"}
    events = {e["name"] for e in load_artifact().abi if e["type"] == "event"} - {"FederationFounded"}
    moments = {"first turn", "failover", "void attempt", "left before the run"}
    endings = {"finished by rounds", "finished by votes"}
    refusals = {"FederationWrongAttempt", "FederationNotAggregator", "FederationTooFewParticipants"}
    assert not {what for what in phases | events | moments | endings | refusals if not tally[what]}, tally
