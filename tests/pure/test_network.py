"""The protocol under random schedules and faults: nothing small can be read, and rounds close (`network.py`).

Safety holds whatever t-1 rogues do, with blocks taken back as deep as members allow for. A round closes within a
bounded number of deadlines where enough honest members are awake to lock a set, unless a rogue spoils keys or objects:
then members have to vote.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from paper_peers import PaperJournal

from fedchain.protocol import participants as rules
from fedchain.protocol.actions import VoteToRemove
from fedchain.protocol.ids import Bitmap, Digest, Index
from fedchain.protocol.participants import too_close
from fedchain.protocol.phase import live_attempt, round_began_at

members = st.integers(0, 8)
SIZES = (5, 7, 9)


def deadlines(network: Any, rounds: int) -> int:
    """The windows of so many rounds in which every member of a rotation lets its turn pass, in seconds."""
    terms, n = network.chain.state.terms, len(network.chain.state.accounts)
    return rounds * (terms.training_window_s + terms.receipt_window_s + 2 * n * terms.aggregate_window_s + 60)


class Machine(RuleBasedStateMachine):
    """Anything that may happen, in any order. `networks` is the module, set by the test that runs it."""

    networks: ModuleType
    wild = False

    @initialize(seed=st.integers(0, 2**32), size=st.sampled_from(SIZES), final=st.sampled_from((0, 2)), data=st.data())
    def begin(self, seed: int, size: int, final: int, data: Any) -> None:
        threshold = size // 2 + 1
        # So many may be rogues: of whom nothing is protected; or with whom a round must close.
        most = threshold - 1 if self.wild else size - (threshold + 1)
        rogues = data.draw(st.integers(0, most))
        self.network = self.networks.Network(seed, size, rogues, wild=self.wild, final=final)
        self.seen: dict[tuple[int, int], tuple[bytes, int]] = {}
        self.known = 0

    @rule(after_s=st.integers(0, 70))
    def everybody_acts(self, after_s: int) -> None:
        self.network.turn(after_s)

    @rule(turns=st.integers(5, 30))
    def some_time_goes_by(self, turns: int) -> None:
        for _ in range(turns):
            self.network.turn(9)

    @rule(index=members)
    def one_acts(self, index: int) -> None:
        self.network.act(index)

    @rule(after_s=st.integers(1, 150))
    def time_passes(self, after_s: int) -> None:
        self.network.chain.mine(after_s)

    @rule(index=members)
    def one_falls_silent(self, index: int) -> None:
        self.network.awake.discard(index)

    @rule(index=members)
    def one_wakes(self, index: int) -> None:
        self.network.awake.add(index)

    @rule(index=members, when=st.sampled_from(("before", "after")))
    def one_crashes_with_its_next_statement(self, index: int, when: str) -> None:
        if index in self.network.peers:
            self.network.peers[index].crash = when

    @rule(dealer=members, victim=members)
    def an_object_does_not_arrive(self, dealer: int, victim: int) -> None:
        attempt = self.network.chain.state.current
        if attempt is not None and dealer in attempt.commits and victim != dealer:
            self.network.withheld.add((attempt.commits[dealer].commitment, victim))

    @rule(depth=st.integers(1, 2))
    def blocks_are_taken_back(self, depth: int) -> None:
        self.network.fork(depth)

    @rule()
    def one_joins(self) -> None:
        if len(self.network.chain.state.accounts) < 10:
            self.network.join()

    @rule(index=members)
    def one_leaves(self, index: int) -> None:
        state = self.network.chain.state
        staying = [i for i in self.network.peers if (state.heard & ~state.leaving) >> i & 1]
        if index in staying and len(staying) > state.min_participants:
            self.network.resign(index)

    @rule(index=members)
    def one_rogue_is_removed(self, index: int) -> None:
        if index in self.network.rogues:
            self.network.votes(VoteToRemove(Index(index)))

    @invariant()
    def nothing_small_can_be_read(self) -> None:
        given = sum(len(honest) for honest in self.network.opened.values())
        if given != self.known:
            self.known = given
            assert self.networks.leaks(self.network.readable()) == []

    @invariant()
    def an_attempt_has_one_set_and_one_model(self) -> None:
        state, _ = self.network.seen()
        attempts = (state.current, *state.closed.values(), *state.voided, *state.forgotten)
        for attempt in attempts:
            if attempt is not None and attempt.aggregate is not None:
                said = attempt.base_digest, attempt.aggregate.participants
                assert self.seen.setdefault((attempt.round, attempt.attempt), said) == said


class Tame(Machine):
    """Rogues lie and are silent, but their objects are what they committed to: every round can be closed."""

    @precondition(lambda self: not self.network.is_over())
    @rule()
    def with_all_honest_members_awake_a_round_closes(self) -> None:
        network, round = self.network, self.network.chain.state.round
        # Each rogue may have one result fall before it is heard no more.
        network.calm(deadlines(network, 2 + 2 * len(network.rogues)))
        assert network.is_built_on(round)


class Wild(Machine):
    """Rogues spoil keys, and keep objects from some; members give sets up."""

    wild = True

    @precondition(lambda self: self.network.is_locked())
    @rule()
    def half_of_the_close_window_passes(self) -> None:
        chain = self.network.chain
        late = round_began_at(chain.state, chain.now) + chain.state.terms.close_window_s // 2
        chain.mine(max(0, late - chain.now))


EXAMPLES = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def run(machine: type[Machine], networks: ModuleType, **changed: Any) -> None:
    machine.networks = networks
    run_state_machine_as_test(machine, settings=settings(EXAMPLES, **changed))


def test_rounds_close_and_nothing_small_is_read_whatever_schedule_and_faults(networks: ModuleType) -> None:
    run(Tame, networks)


def test_nothing_small_is_read_whatever_rogues_spoil_and_members_give_up(networks: ModuleType) -> None:
    run(Wild, networks)


@pytest.mark.slow
@pytest.mark.parametrize("machine", [Tame, Wild])
def test_rounds_close_and_nothing_small_is_read_in_a_thousand_rounds_more(
    networks: ModuleType, machine: type[Machine]
) -> None:
    run(machine, networks, max_examples=120)


@pytest.mark.parametrize(("size", "rogues"), [(5, 1), (7, 2), (9, 3)])
def test_hundreds_of_rounds_close_in_a_row_with_lying_and_silent_members(
    networks: ModuleType, size: int, rogues: int
) -> None:
    """Every rogue is slashed sooner or later; then others sleep, one at a time, and no round takes longer for it."""
    network = networks.Network(1, size, rogues)
    for round in range(1, 101):
        asleep = network.dice.choice(list(network.peers))
        spare = len(network.peers) > network.chain.state.min_participants
        until = network.chain.now + deadlines(network, 2 + 2 * rogues)
        while not network.is_built_on(round):
            network.awake = set(range(size)) - ({asleep} if spare else set())
            network.turn(9)
            assert network.chain.now < until, f"round {round} does not close"
    assert networks.leaks(network.readable()) == []
    assert network.chain.state.slashed, "nobody lied"


def given_up_and_locked_again(networks: ModuleType, seed: int) -> list[str]:
    """What leaks among nine, of whom four spoil rounds, complain, and choose the sets in their turns to aggregate."""
    network = networks.Network(seed, 9, 4, wild=True, final=2)
    for _ in range(250):
        network.turn(20)
        if network.is_locked() and network.dice.random() < 0.02:
            network.chain.mine(network.chain.state.terms.close_window_s // 4)
    leaks: list[str] = networks.leaks(network.readable())
    return leaks


@pytest.mark.parametrize("seed", range(6))
def test_sets_given_up_and_locked_again_never_let_a_small_sum_be_read(networks: ModuleType, seed: int) -> None:
    assert given_up_and_locked_again(networks, seed) == []


def test_without_the_rule_on_sets_too_close_the_same_rounds_leak(
    networks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "too_close", lambda *_: None)
    monkeypatch.setattr(PaperJournal, "promise_opening", lambda *_, **__: None)
    assert any(given_up_and_locked_again(networks, seed) for seed in range(6))


def test_three_sets_that_are_pairwise_far_apart_give_no_small_sum(networks: ModuleType) -> None:
    """(A + C - B)/2 is the sum over members 0, 1 and 2: with two rogues among them, one member's update."""
    sets = [Bitmap(0b000111111), Bitmap(0b111111000), Bitmap(0b111000111)]
    opened = [networks.Opened((1, k, Digest(bytes(32))), participants, 5, 0) for k, participants in enumerate(sets)]
    assert any("a sum over" in leak for leak in networks.leaks(opened))
    assert networks.leaks(opened[:2]) == []
    assert may_be_locked_after(networks, sets[:1], sets[1])
    assert may_be_locked_after(networks, sets[:2], sets[0]), "one of the two again"
    assert not may_be_locked_after(networks, sets[:2], sets[2])


def may_be_locked_after(networks: ModuleType, given_up: list[Bitmap], participants: Bitmap) -> bool:
    """Whether the rules let nine members lock this set once others were given up on the same model."""
    network = networks.Network(1, 9)
    attempt = live_attempt(network.chain.state, network.chain.now)
    assert attempt is not None
    state = replace(network.chain.state, abandoned={attempt.base_digest: tuple(given_up)})
    return too_close(state, attempt, participants) is None


def test_what_can_be_read_is_found(networks: ModuleType) -> None:
    """The measure itself: it names each kind of leak, and nothing where there is none."""

    def opened(attempt: int, participants: int, gone: int = 0) -> Any:
        return networks.Opened((1, attempt, Digest(bytes(32))), Bitmap(participants), 5, gone)

    assert networks.leaks([opened(0, 0b111111), opened(1, 0b111111)]) == []
    assert networks.leaks([opened(0, 0b111111), opened(1, 0b111111000)]) == []
    assert networks.leaks([opened(0, 0b11111)]) == ["a set of 5"]
    assert any("two sets" in leak for leak in networks.leaks([opened(0, 0b111111), opened(0, 0b111111000)]))
    assert any("a sum over" in leak for leak in networks.leaks([opened(0, 0b1111111), opened(1, 0b111111)]))
    assert networks.leaks([opened(0, 0b1111111), opened(1, 0b111111, gone=0b1000000)]) == []
