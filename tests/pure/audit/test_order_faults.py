"""Statements out of order: wrong phase, turn or set, said twice (check 6), and bonds taken too early (check 12).

The contract refuses all of these; the auditor does not take its word for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedchain.audit import Status
from fedchain.protocol.events import (
    AggregateCommitted,
    BondWithdrawn,
    FederationFounded,
    OpeningPublished,
    ReceiptPosted,
    ResultCommitted,
    StopVoted,
    UpdateCommitted,
)
from fedchain.protocol.ids import Bitmap, Index, bitmap_of

EVERYBODY = 0b11111


def with_set(named: Any, participants: int, whole: dict[int, int] | None = None) -> Any:
    """One round in which the aggregator locks this set, whatever the receipts say."""

    class Chosen(named.Play):  # type: ignore[misc]
        def whole(self, number: int, index: int) -> Bitmap:
            return Bitmap((whole or {}).get(index, EVERYBODY))

        def participants(self, number: int) -> Bitmap:
            return Bitmap(participants)

    return Chosen(rounds=1).run()


def test_a_censored_member_names_the_aggregator(named: Any) -> None:
    report = with_set(named, 0b11011).audit()
    assert named.found(report) == {(6, 1, named.MEMBERS[0])}
    assert "censored" in report.faults[0].got


def test_too_few_participants_name_the_aggregator(named: Any) -> None:
    report = with_set(named, 0b00111, whole=dict.fromkeys(range(5), 0b00111)).audit()
    assert named.found(report) == {(6, 1, named.MEMBERS[0])}
    assert "too few" in report.faults[0].got


def test_a_set_that_too_few_receipts_cover_names_the_aggregator(named: Any) -> None:
    report = with_set(named, EVERYBODY, whole=dict.fromkeys((0, 1, 2), 0b01111)).audit()
    assert named.found(report) == {(6, 1, named.MEMBERS[0])}
    assert "not covered" in report.faults[0].got


def test_a_participant_that_never_committed_names_the_aggregator(named: Any, honest: Any) -> None:
    play = honest.edited(AggregateCommitted, {"participants": Bitmap(0b111111)}, round=2)
    report = play.audit()
    assert named.found(report) == {(6, 2, named.MEMBERS[1])}
    assert all(report.rounds[1].check(number).status is Status.NOT_POSSIBLE for number in (7, 8, 9, 10))


def test_an_aggregator_out_of_turn_is_named(named: Any, honest: Any) -> None:
    play = honest.edited(AggregateCommitted, {"index": Index(3)}, round=2)
    report = play.audit()
    assert named.found(report) == {(6, 2, named.MEMBERS[3])}
    assert named.MEMBERS[1] in report.faults[0].expected


def test_a_dead_aggregator_is_passed_over_without_a_fault(named: Any) -> None:
    class Slow(named.Play):  # type: ignore[misc]
        def aggregate(self, number: int) -> None:
            self.chain.time += self.charter.windows.aggregate_s if number == 1 else 0
            super().aggregate(number)

    report = Slow(rounds=1).run().audit()
    assert report.faults == ()
    assert report.rounds[0].aggregator == 1


def test_who_aggregates_before_its_turn_has_come_is_named(named: Any) -> None:
    class Hasty(named.Play):  # type: ignore[misc]
        def aggregator(self, number: int) -> Index:
            return Index(1)

    assert named.found(Hasty(rounds=1).run().audit()) == {(6, 1, named.MEMBERS[1])}


def test_a_commitment_after_the_deadline_is_named(named: Any) -> None:
    class Late(named.Play):  # type: ignore[misc]
        def trainers(self, number: int) -> list[Any]:
            return [0, 1, 2, 3]

        def shareholders(self, number: int) -> list[Any]:
            self.chain.time += self.charter.windows.training_s
            self.commit(number, Index(4))
            return super().shareholders(number)

        def whole(self, number: int, index: int) -> Bitmap:
            return Bitmap(0b01111)

    report = Late(rounds=1).run().audit()
    assert (6, 1, named.MEMBERS[4]) in named.found(report)


def test_a_receipt_after_the_deadline_is_named(named: Any) -> None:
    class Late(named.Play):  # type: ignore[misc]
        def shareholders(self, number: int) -> list[Any]:
            return [0, 1, 2]

        def aggregate(self, number: int) -> None:
            self.chain.time += self.charter.windows.receipt_s
            self.receipt(number, Index(4))
            super().aggregate(number)

    assert named.found(Late(rounds=1).run().audit()) == {(6, 1, named.MEMBERS[4])}


def test_an_opening_before_any_set_is_locked_is_named(named: Any, honest: Any) -> None:
    play = honest.copy()
    events = play.chain.events
    aggregate = next(i for i, e in enumerate(events) if isinstance(e, AggregateCommitted))
    opening = next(i for i, e in enumerate(events) if isinstance(e, OpeningPublished))
    assert opening == aggregate + 1
    early = replace(events[opening], at=events[aggregate].at)
    late = replace(events[aggregate], at=events[opening].at)
    events[aggregate], events[opening] = early, late
    assert (6, 1, named.MEMBERS[0]) in named.found(play.audit())


def test_a_result_before_enough_openings_is_named(named: Any) -> None:
    class Hasty(named.Play):  # type: ignore[misc]
        def openers(self, number: int) -> list[Any]:
            return [3, 4]

    assert (6, 1, named.MEMBERS[0]) in named.found(Hasty(rounds=1).run().audit())


@pytest.mark.parametrize("kind", [UpdateCommitted, ReceiptPosted, AggregateCommitted, OpeningPublished])
def test_a_statement_by_a_stranger_is_named(named: Any, honest: Any, kind: type) -> None:
    class Absent(named.Play):  # type: ignore[misc]
        def enrol(self, index: int) -> None:
            if index == 4:
                self.chain.time += self.charter.windows.enrol_s
            else:
                super().enrol(index)

    play = Absent(rounds=1).run()
    assert play.audit().faults == ()
    strange = play.edited(kind, {"index": Index(4)}, round=1)
    number = 3
    assert (number, 1, named.MEMBERS[4]) in named.found(strange.audit())


@pytest.mark.parametrize("kind", [UpdateCommitted, ReceiptPosted, AggregateCommitted, OpeningPublished])
def test_a_statement_for_another_attempt_is_named(named: Any, honest: Any, kind: type) -> None:
    author = honest.event(kind, round=2).index
    play = honest.edited(kind, {"attempt": 4}, round=2)
    faults = play.audit().faults
    assert any(f.check == "6 order" and f.offender == named.MEMBERS[author] for f in faults)


@pytest.mark.parametrize("kind", [ReceiptPosted, AggregateCommitted, OpeningPublished])
def test_a_statement_made_twice_is_named(named: Any, honest: Any, kind: type) -> None:
    play = honest.copy()
    at = next(i for i, e in enumerate(play.chain.events) if isinstance(e, kind))
    play.chain.events.insert(at + 1, play.chain.events[at])
    author = play.chain.events[at].index
    assert named.found(play.audit()) == {(6, 1, named.MEMBERS[author])}


@pytest.mark.parametrize("kind", [AggregateCommitted, OpeningPublished, ResultCommitted])
def test_a_statement_for_a_group_that_is_not_there_is_named(named: Any, honest: Any, kind: type) -> None:
    play = honest.edited(kind, {"group": 1}, round=2)
    author = play.event(kind, round=2).index
    assert (6, 2, named.MEMBERS[author]) in named.found(play.audit())


def test_a_result_out_of_nowhere_is_named_and_the_audit_goes_on(named: Any, honest: Any) -> None:
    play = honest.edited(ResultCommitted, {"round": 7}, round=2)
    report = play.audit()
    assert (6, 7, named.MEMBERS[1]) in named.found(report)
    assert len(report.rounds) == 1


def test_a_result_with_nothing_under_it_is_named_and_none_of_its_checks_pass(named: Any, honest: Any) -> None:
    play = honest.copy()
    play.say(replace(honest.event(ResultCommitted, round=2), round=3))
    report = play.audit()
    assert named.found(report) == {(6, 3, named.MEMBERS[1])}
    assert all(report.rounds[2].check(number).status is Status.NOT_POSSIBLE for number in (7, 8, 9, 10))
    assert report.rounds[2].seconds.total == 0


def test_time_that_runs_backwards_names_the_contract(named: Any, honest: Any) -> None:
    founded = honest.event(FederationFounded)
    play = honest.edited(FederationFounded, {"at": founded.at + 7})
    assert (6, 0, "the contract") in named.found(play.audit())


def test_votes_to_stop_end_the_run_without_a_fault(named: Any, honest: Any) -> None:
    play = honest.copy()
    for index in (0, 1, 4):
        play.say(StopVoted(3, Index(index), 0))
    assert play.audit().faults == ()


def test_a_vote_to_stop_in_the_first_round_is_named(named: Any, honest: Any) -> None:
    play = honest.copy()
    at = next(i for i, e in enumerate(play.chain.events) if isinstance(e, UpdateCommitted))
    play.chain.events.insert(at, StopVoted(1, Index(2), play.chain.events[at].at))
    assert named.found(play.audit()) == {(6, 1, named.MEMBERS[2])}


def test_a_second_vote_to_stop_is_named(named: Any, honest: Any) -> None:
    play = honest.copy()
    for _ in range(2):
        play.say(StopVoted(3, Index(2), 0))
    assert named.found(play.audit()) == {(6, 3, named.MEMBERS[2])}


def finished(honest: Any) -> Any:
    play = honest.copy()
    for index in (0, 1, 4):
        play.say(StopVoted(3, Index(index), 0))
    return play


@pytest.mark.parametrize(
    ("event", "check", "round"), [(StopVoted(2, Index(4), 0), 6, 2), (BondWithdrawn(Index(4), 10**16, 0), 12, 0)]
)
def test_a_vote_or_a_withdrawal_by_who_never_enrolled_is_named(named: Any, event: Any, check: int, round: int) -> None:
    class Absent(named.Play):  # type: ignore[misc]
        def enrol(self, index: int) -> None:
            if index == 4:
                self.chain.time += self.charter.windows.enrol_s
            else:
                super().enrol(index)

    play = Absent(rounds=1).run()
    play.say(event)
    report = play.audit()
    assert named.found(report) == {(check, round, named.MEMBERS[4])}
    assert "nobody" in report.faults[0].got or "no enrolled" in report.faults[0].got


def test_bonds_taken_back_after_the_challenge_window_are_no_fault(named: Any, honest: Any) -> None:
    play = finished(honest)
    play.say(BondWithdrawn(Index(0), play.charter.stake.bond_gwei * 10**9, 0), after_s=1000)
    report = play.audit()
    assert report.faults == ()
    stakes = next(c for c in report.checks if c.number == 12)
    assert stakes.detail.startswith("4 bonds")


@pytest.mark.parametrize(
    ("late", "amount", "twice"), [(999, 10**16, False), (1000, 10**16 + 1, False), (1000, 10**16, True)]
)
def test_a_bond_taken_too_early_too_large_or_twice_is_named(
    named: Any, honest: Any, late: int, amount: int, twice: bool
) -> None:
    play = finished(honest)
    for _ in range(2 if twice else 1):
        play.say(BondWithdrawn(Index(0), amount, 0), after_s=late)
    assert named.found(play.audit()) == {(12, 0, named.MEMBERS[0])}


def test_a_bond_taken_back_while_the_run_goes_on_is_named(named: Any, honest: Any) -> None:
    play = honest.copy()
    play.say(BondWithdrawn(Index(3), 10**16, 0), after_s=100_000)
    assert named.found(play.audit()) == {(12, 0, named.MEMBERS[3])}


def test_who_leaves_before_the_run_began_may_enrol_again_without_a_fault(named: Any) -> None:
    class Patient(named.Play):  # type: ignore[misc]
        def enrol(self, index: int) -> None:
            # The fourth begins the run: the window has passed. A fifth would come too late.
            if index == 4:
                return
            super().enrol(index)
            if index == 2:
                windows = self.charter.windows
                bond = self.charter.stake.bond_gwei * 10**9
                self.say(BondWithdrawn(Index(2), bond, 0), after_s=windows.enrol_s + windows.challenge_s)
                assert 2 not in self.state.members
                super().enrol(index)

    play = Patient(rounds=1)
    play.run()
    report = play.audit()
    assert report.faults == ()
    assert [m.enrolled for m in report.members] == [True, True, True, True, False]


def test_a_voided_attempt_is_told_and_is_no_fault(named: Any) -> None:
    class Voided(named.Play):  # type: ignore[misc]
        def round(self, number: int) -> None:
            if number == 1:
                for index in (0, 1):
                    self.commit(number, Index(index))
                self.chain.time += self.charter.windows.training_s
            super().round(number)

    report = Voided(rounds=1).run().audit()
    assert report.faults == () and report.complete
    assert [(a.round, a.attempt, a.outcome) for a in report.unfinished] == [(1, 0, "void")]
    assert report.unfinished[0].check(3).status is Status.PASSED
    assert report.rounds[0].attempt == 1
    assert bitmap_of(report.rounds[0].participants) == EVERYBODY
