"""A federation on a chain, and its log folded in Python: the twins, sent the same statements, asked the same questions.

`histories.py` speaks for the members.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from eth_hash.auto import keccak

from fedchain.chain.artifacts import load_artifact
from fedchain.chain.calls import call_of
from fedchain.chain.logs import LogDecoder
from fedchain.protocol import actions as say
from fedchain.protocol.disputes import commitments_digest, openings_digest
from fedchain.protocol.events import BondWithdrawn, Event, FederationFounded, MemberSlashed
from fedchain.protocol.ids import Address, Index, bitmap_of, members_of
from fedchain.protocol.phase import (
    aggregator_of,
    bond_free_at,
    challenges_end_at,
    finished_at,
    is_finished,
    live_attempt,
    phase_of,
    receipts_end,
    start_of_run,
    training_end,
)
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.transition import apply, check_possible, founded

NEVER = 2**256 - 1


class Twins:
    """One federation, its log folded so far, and a tally: a history in which little happened is no test."""

    def __init__(self, federation: Any, seed: int) -> None:
        self.federation, self.chain = federation, federation.chain
        self.address = Address(federation.address)
        # What is asked changes nothing of what happens.
        self.asked = random.Random(seed)
        self.tally: Counter[str] = Counter()
        self.burnt = 0
        self.told: list[Event] = []
        self._decoder = LogDecoder(load_artifact().abi)
        (event,) = self._events(federation.deployment, federation.founded_at)
        assert isinstance(event, FederationFounded)
        self.state: FederationState = founded(event)

    def act(self, sender: Address, action: say.Action, at: int) -> str:
        """Send one action; the error's name, or "" if it was let in. What was let in is folded."""
        name, arguments, value = call_of(action)
        try:
            receipt = self.federation.send(sender, name, *arguments, at=at, value=value)
        except self.federation.Refused as refused:
            self.tally[refused.name] += 1
            return str(refused.name)
        self.told = self._events(receipt, at)
        for event in self.told:
            check_possible(self.state, event)
            if isinstance(event, MemberSlashed):
                self.burnt += event.burnt_wei
                self.tally[f"rule {event.rule}"] += 1
            if isinstance(event, BondWithdrawn):
                assert event.amount_wei == self.state.bond_of(event.index)
                self.burnt += self.state.terms.bond_wei - event.amount_wei
                self.tally["paid for strikes"] += event.amount_wei < self.state.terms.bond_wei
            self.state = apply(self.state, event)
            self.tally[type(event).__name__] += 1
        return ""

    def acts(self, member: int, action: say.Action, at: int) -> bool:
        """Send one member's action; whether it was let in."""
        return not self.act(self.state.accounts[member], action, at)

    def is_over(self) -> bool:
        """Nothing can change any more: the run is finished, and all coins are back."""
        still_open = any(demand.open for demand in self.state.demands.values())
        finished = is_finished(self.state, self.chain.now)
        return finished and not self.state.bonded and not self.state.rewards and not still_open

    def deadlines(self, now: int) -> list[int]:
        """The moments ahead at which something changes by itself."""
        terms = self.state.terms
        start = start_of_run(self.state, now)
        ends = [demand.deadline for demand in self.state.demands.values() if demand.open]
        if start is None:
            deadline = self.state.founded_at + terms.enrol_window_s
            ends += [deadline, deadline + terms.challenge_window_s]
        else:
            attempt = live_attempt(self.state, now)
            assert attempt is not None
            free = challenges_end_at(self.state, now)
            if free is not None:
                return [end for end in (*ends, free) if end > now]
            training = training_end(self.state, attempt, now)
            receipts = receipts_end(self.state, attempt, now)
            ends.append(attempt.started_at + terms.training_window_s)
            if training is not None:
                ends.append(training + terms.receipt_window_s)
            if receipts is not None:
                turns = range(1, len(attempt.order) + 1)
                ends += [receipts + turn * terms.aggregate_window_s for turn in turns]
            left = members_of(self.state.bonded & ~self.state.standing)
            ends += [at for i in left if (at := bond_free_at(self.state, i, now)) is not None]
        return [end for end in ends if end > now]

    def basis_of(self, attempt: Attempt) -> bytes:
        """All that a result rests on. Twin: basisOf()."""
        assert attempt.aggregate is not None
        words = (attempt.base_digest, commitments_digest(attempt))
        return keccak(b"".join(words) + attempt.aggregate.participants.to_bytes(32, "big") + openings_digest(attempt))

    def compare(self) -> None:
        """Both twins, asked about the present, the deadlines ahead, and some other time to come."""
        now = self.chain.now
        ahead = self.deadlines(now)
        moments = {now, now + self.asked.randrange(3000)}
        moments |= {end + self.asked.choice((-1, 0, 1)) for end in self.asked.sample(ahead, min(2, len(ahead)))}
        for at in sorted(moment for moment in moments if moment >= now):
            self.compare_at(at)
        self.check_money()

    def check_money(self) -> None:
        """All that the contract holds is bonds, deposits, rewards and what was burnt."""
        state = self.state
        bonds = state.terms.bond_wei * state.bonded.bit_count()
        deposits = state.terms.deposit_wei * sum(demand.open for demand in state.demands.values())
        held = int(self.chain.rpc("eth_getBalance", self.address, "latest"), 16)
        assert held == bonds + deposits + sum(state.rewards.values()) + self.burnt
        account = self.state.accounts[self.asked.randrange(len(self.state.accounts))]
        answers = self.federation.call_all([("burnt",), ("rewardOf", account)])
        assert answers == [self.burnt, state.rewards.get(account, 0)]

    def compare_at(self, at: int) -> None:
        live = live_attempt(self.state, at)
        expected = self.members_at(at) | self.decisions() | self.rounds_at(live, at)
        answers = self.federation.call_all(list(expected), at)
        told = dict(zip(expected, map(_lowered, answers), strict=True))
        wrong = {
            question: (told[question], expected[question]) for question in told if told[question] != expected[question]
        }
        assert not wrong, (at, wrong)

    def members_at(self, at: int) -> dict[Any, Any]:
        """Who takes part, and what is at stake until when: the questions, and Python's answers."""
        state, member = self.state, Index(self.asked.randrange(len(self.state.accounts)))
        sets = {"standing": state.standing, "slashed": state.slashed, "bonded": state.bonded, "leaving": state.leaving}
        numbers = {"threshold": state.threshold, "minParticipants": state.min_participants}
        times = {"finishedAt": finished_at(state, at) or 0, "challengesEndAt": _never(challenges_end_at(state, at))}
        told = {"memberCount": len(state.accounts), "currentRound": state.round, "model": state.model_digest}
        expected: dict[Any, Any] = {(name,): value for name, value in (sets | numbers | times | told).items()}
        expected["bondFreeAt", member] = _never(bond_free_at(state, member, at))
        registered = state.members.get(member)
        expected["memberAt", member] = {
            "account": state.accounts[member].lower(),
            "encryptionKey": registered.encryption_key if registered else bytes(32),
            "weight": registered.weight if registered else 0,
            "standing": bool(state.standing >> member & 1),
            "bonded": bool(state.bonded >> member & 1),
            "slashed": bool(state.slashed >> member & 1),
            "strikes": state.strikes.get(member, 0),
            "leftAt": 0 if state.standing >> member & 1 else state.left_at.get(member, 0),
        }
        return expected

    def decisions(self) -> dict[Any, Any]:
        """What was voted and demanded last."""
        expected: dict[Any, Any] = {}
        for name, demand in list(self.state.demands.items())[-1:]:
            expected["deadlineOf", name] = demand.deadline if demand.open else 0
        for ballot, votes in list(self.state.ballots.items())[-1:]:
            what = ballot.motion, ballot.round, ballot.attempt, ballot.subject
            lapsed = ballot != self.state.ballot(*what)  # since then somebody came, or went
            self.tally["lapsed ballot"] += lapsed
            if not lapsed:
                expected[("votesOf", *what)] = votes & self.state.heard
        return expected

    def rounds_at(self, live: Attempt | None, at: int) -> dict[Any, Any]:
        """The phases, the round under way, and what is on record of it and of another."""
        state = self.state
        rounds = [state.round - 1, state.round, state.round + 1]
        expected: dict[Any, Any] = {("phaseOf", round): phase_of(state, round, at) for round in rounds}
        if live is None:
            return expected
        expected["roundAt", state.round] = {
            "round": live.round,
            "attempt": live.attempt,
            "startedAt": live.started_at,
            "lastCommitAt": live.last_commit_at,
            "lastReceiptAt": live.last_receipt_at,
            "committed": live.committed,
            "received": bitmap_of(tuple(live.receipts)),
            "participants": live.aggregate.participants if live.aggregate else 0,
            "opened": live.opened,
            "stopVotes": state.stop_votes,
        }
        if state.standing:
            expected[("aggregatorNow",)] = aggregator_of(state, live, at)
        for attempt in (state.closed.get(self.asked.randrange(1, state.round + 1)), live):
            if attempt is None:
                continue
            locked = attempt.aggregate
            expected["basisOf", attempt.round, 0] = self.basis_of(attempt) if locked else bytes(32)
            expected["aggregateOf", attempt.round, 0] = {
                "aggregator": aggregator_of(state, attempt, at) if locked else 0,
                "participants": locked.participants if locked else 0,
                "root": attempt.posted_sum.root if attempt.posted_sum else bytes(32),
            }
            result = attempt.result
            expected["resultOf", attempt.round, 0] = {
                "member": result.index if result else 0,
                "openers": result.openers if result else 0,
                "keySumRoot": result.key_sum_root if result else bytes(32),
                "resultRoot": result.result_root if result else bytes(32),
                "modelDigest": result.model_digest if result else bytes(32),
            }
        return expected

    def _events(self, receipt: dict[str, Any], at: int) -> list[Event]:
        logs = ((log["topics"], log["data"]) for log in receipt["logs"])
        return [self._decoder.decode([_octets(t) for t in topics], _octets(data), at) for topics, data in logs]


def _lowered(answer: Any) -> Any:
    """An answer with its account as both sides write it."""
    return (
        answer | {"account": answer["account"].lower()} if isinstance(answer, dict) and "account" in answer else answer
    )


def _octets(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _never(at: int | None) -> int:
    return NEVER if at is None else at
