"""The contract's windows, at the exact second: a statement one second early and one at the deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ENROLLING, TRAINING, RECEIPTS, AGGREGATING, OPENING, CLOSING, CLOSED, PENDING, FINISHED = range(9)

Found = Callable[..., Any]
Refuses = Callable[..., Any]


def test_enrolment_ends_at_its_deadline(found: Found, refuses: Refuses) -> None:
    federation = found(5, enrolWindow=1000)
    deadline = federation.founded_at + 1000
    for member in range(4):
        federation.enrol(member)
    assert federation.call("phaseOf", 1, at=deadline - 1) == ENROLLING
    assert federation.call("phaseOf", 1, at=deadline) == TRAINING
    assert federation.call("roundAt", 1, at=deadline + 9)["startedAt"] == deadline
    with refuses("FederationNotAdmitted"):
        federation.enrol(4, at=deadline)


def test_the_last_second_of_enrolment_counts(found: Found) -> None:
    federation = found(5, enrolWindow=1000)
    for member in range(4):
        federation.enrol(member)
    federation.enrol(4, at=federation.founded_at + 999)
    assert federation.call("roundAt", 1)["startedAt"] == federation.founded_at + 999


def test_training_ends_at_its_deadline_with_enough_updates(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, trainingWindow=600, receiptWindow=300).all_enrol()
    deadline = federation.chain.now + 600
    for member in range(4):
        federation.commit(member)
    assert federation.call("phaseOf", 1, at=deadline - 1) == TRAINING
    assert federation.call("phaseOf", 1, at=deadline) == RECEIPTS
    with refuses("FederationWrongPhase", TRAINING):
        federation.receipt(0, 0b01111, at=deadline - 1)
    with refuses("FederationWrongPhase", RECEIPTS):
        federation.commit(4, at=deadline)
    for member in range(3):
        federation.receipt(member, 0b01111)
    # The receipts' window counts from the deadline of training, not from the last update.
    assert federation.call("phaseOf", 1, at=deadline + 299) == RECEIPTS
    assert federation.call("phaseOf", 1, at=deadline + 300) == AGGREGATING


def test_the_last_second_of_training_counts(found: Found) -> None:
    federation = found(5, threshold=3, trainingWindow=600).all_enrol()
    deadline = federation.chain.now + 600
    for member in range(3):
        federation.commit(member)
    federation.commit(3, at=deadline - 1)
    assert federation.call("phaseOf", 1, at=deadline) == RECEIPTS


def test_training_is_void_at_its_deadline_with_too_few_updates(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, trainingWindow=600).all_enrol()
    deadline = federation.chain.now + 600
    for member in range(3):
        federation.commit(member)
    assert federation.call("roundAt", 1, at=deadline - 1)["attempt"] == 0
    assert federation.call("roundAt", 1, at=deadline)["attempt"] == 1
    assert federation.call("roundAt", 1, at=deadline + 599)["attempt"] == 1
    assert federation.call("roundAt", 1, at=deadline + 600)["attempt"] == 2
    with refuses("FederationWrongAttempt", 1):
        federation.commit(3, at=deadline)
    federation.commit(3, attempt=1)
    assert federation.call("roundAt", 1)["startedAt"] == deadline


def test_everyones_word_ends_a_window_early(found: Found) -> None:
    federation = found(5, trainingWindow=600, receiptWindow=300, aggregateWindow=100).all_enrol()
    start = federation.chain.now
    for member in range(5):
        federation.commit(member, at=start + 10 * member)
    assert federation.call("phaseOf", 1) == RECEIPTS
    for member in range(5):
        federation.receipt(member, 31, at=start + 40 + member)
    assert federation.call("phaseOf", 1) == AGGREGATING
    assert federation.call("aggregatorNow", at=start + 44 + 99) == 0
    assert federation.call("aggregatorNow", at=start + 44 + 100) == 1


def test_the_receipts_end_at_their_deadline_with_t_of_them(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, receiptWindow=300, aggregateWindow=100).all_enrol().all_commit()
    deadline = federation.chain.now + 300
    for member in range(3):
        federation.receipt(member, 31)
    with refuses("FederationWrongPhase", RECEIPTS):
        federation.aggregate(0, 31, at=deadline - 1)
    federation.receipt(3, 31, at=deadline - 1)
    assert federation.call("aggregatorNow", at=deadline + 99) == 0
    assert federation.call("aggregatorNow", at=deadline + 100) == 1
    federation.aggregate(0, 31, at=deadline)


def test_a_turn_to_aggregate_ends_at_its_second(found: Found, refuses: Refuses) -> None:
    federation = found(3, threshold=2, aggregateWindow=100).all_enrol().all_commit().all_post()
    start = federation.chain.now
    with refuses("FederationNotAggregator", 0):
        federation.aggregate(1, 7, at=start + 99)
    with refuses("FederationNotAggregator", 1):
        federation.aggregate(0, 7, at=start + 100)
    with refuses("FederationNotAggregator", 1):
        federation.aggregate(2, 7, at=start + 199)
    federation.aggregate(2, 7, at=start + 299)


def test_the_rotation_is_exhausted_at_its_second(found: Found, refuses: Refuses) -> None:
    federation = found(3, threshold=2, aggregateWindow=100).all_enrol().all_commit().all_post()
    with refuses("FederationWrongPhase", TRAINING):
        federation.aggregate(2, 7, at=federation.chain.now + 300)
    assert federation.call("roundAt", 1)["attempt"] == 1


def test_an_exhausted_rotation_and_missed_training_windows_add_up(found: Found) -> None:
    federation = found(3, threshold=2, trainingWindow=600, aggregateWindow=100).all_enrol().all_commit().all_post()
    exhausted = federation.chain.now + 300
    for missed, second in ((0, 0), (0, 599), (1, 600), (1, 1199), (2, 1200)):
        live = federation.call("roundAt", 1, at=exhausted + second)
        assert (live["attempt"], live["startedAt"]) == (1 + missed, exhausted + 600 * missed)


def test_a_bond_is_free_at_its_second(found: Found, refuses: Refuses) -> None:
    federation = found(3, threshold=2, rounds=1, challengeWindow=5000).all_enrol().finish_round()
    free = federation.chain.now + 5000
    with refuses("FederationBondLocked", free):
        federation.send(0, "withdrawBond", at=free - 1)
    federation.send(0, "withdrawBond", at=free)


def test_after_votes_to_stop_a_bond_is_free_at_its_second(found: Found, refuses: Refuses) -> None:
    federation = found(3, threshold=2, rounds=9, challengeWindow=5000, trainingWindow=600).all_enrol().finish_round()
    started = federation.chain.now
    federation.stop(0, 2)
    federation.stop(1, 2, at=started + 70)
    with refuses("FederationBondLocked", started + 5070):
        federation.send(2, "withdrawBond", at=started + 5069)
    federation.send(2, "withdrawBond", at=started + 5070)
