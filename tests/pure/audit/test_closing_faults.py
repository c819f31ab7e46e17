"""Aggregators, openers and closers that break a rule: each is named, and later rounds are judged by what stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedchain.audit import Status
from fedchain.crypto import Opening
from fedchain.protocol.events import AggregateCommitted, OpeningPublished, ResultCommitted
from fedchain.protocol.ids import Bitmap, Root

AGGREGATOR = 0
"""The first in the rotation, for round 1."""

OPENER = 2
WRONG = Root(b"\x11" * 32)


def test_a_sum_that_leaves_out_a_ciphertext_is_named_and_the_right_sum_goes_on(named: Any) -> None:
    class Sloppy(named.Play):  # type: ignore[misc]
        def sum(self, number: int, participants: Bitmap) -> Any:
            return super().sum(number, Bitmap(participants & ~1) if number == 1 else participants)

    report = Sloppy().run().audit()
    assert named.found(report) == {(7, 1, named.MEMBERS[AGGREGATOR])}
    assert all(report.rounds[0].check(number).status is Status.PASSED for number in (8, 9, 10))


def test_a_sum_with_one_coefficient_changed_is_named(named: Any) -> None:
    class Shifted(named.Play):  # type: ignore[misc]
        def sum(self, number: int, participants: Bitmap) -> Any:
            total = super().sum(number, participants)
            residues = total.residues.copy()
            residues[0, 5] = (residues[0, 5] + np.uint64(1002)) % np.uint64(17627370416504833)
            return replace(total, residues=residues)

    assert named.found(Shifted(rounds=1).run().audit()) == {(7, 1, named.MEMBERS[AGGREGATOR])}


def test_a_posted_root_that_is_not_the_sums_is_named(named: Any, honest: Any) -> None:
    play = honest.edited(AggregateCommitted, {"root": WRONG}, round=2)
    faults = play.audit().faults
    # Both lies stand there: the root is not the sum's, and the object is not the root's.
    assert {f.offender for f in faults} == {named.MEMBERS[1]}
    assert [f.check for f in faults] == ["7 aggregate"] * 2


def test_an_aggregate_object_with_a_flipped_byte_is_named(named: Any, honest: Any) -> None:
    good = honest.event(AggregateCommitted, round=1).cid
    play = honest.copy()
    cid = play.store.put(named.flipped(play.store.served[good], 99))
    play = play.edited(AggregateCommitted, {"cid": cid}, round=1)
    assert named.found(play.audit()) == {(7, 1, named.MEMBERS[AGGREGATOR])}


def test_a_truncated_aggregate_object_is_named(named: Any, honest: Any) -> None:
    good = honest.event(AggregateCommitted, round=1).cid
    play = honest.copy()
    cid = play.store.put(play.store.served[good][:-7])
    assert named.found(play.edited(AggregateCommitted, {"cid": cid}, round=1).audit()) == {
        (4, 1, named.MEMBERS[AGGREGATOR])
    }


def publishing(named: Any, change: Any) -> Any:
    """Two rounds in which one member opens with something else than its opening in the first."""

    class Liar(named.Play):  # type: ignore[misc]
        def open(self, number: int, index: int) -> Any:
            opening = super().open(number, index)
            return change(self, opening) if (number, index) == (1, OPENER) and self.publishing else opening

        publishing = False

        def opening(self, number: int, index: int) -> None:
            self.publishing = True
            super().opening(number, index)
            self.publishing = False

    return Liar().run()


def test_an_opening_swapped_for_anothers_is_named(named: Any) -> None:
    play = publishing(named, lambda play, opening: named.Play.open(play, 1, 4))
    assert named.found(play.audit()) == {(8, 1, named.MEMBERS[OPENER])}


def test_an_opening_off_by_one_in_one_coefficient_is_named(named: Any) -> None:
    def off_by_one(play: Any, opening: Opening) -> Opening:
        elements = opening.elements.copy()
        elements[700] = (int(elements[700]) + 1) % 65521
        return Opening(elements)

    report = publishing(named, off_by_one).audit()
    assert named.found(report) == {(8, 1, named.MEMBERS[OPENER])}
    assert report.rounds[0].check(9).status is Status.PASSED
    assert report.rounds[0].check(10).status is Status.PASSED


def test_an_opening_whose_bytes_are_not_the_roots_is_named(named: Any, honest: Any) -> None:
    other = honest.event(OpeningPublished, round=1, index=4)
    play = honest.edited(OpeningPublished, {"cid": other.cid}, round=1, index=OPENER)
    assert named.found(play.audit()) == {(8, 1, named.MEMBERS[OPENER])}


def test_an_opening_under_a_root_that_is_not_its_own_is_named_though_it_fits(named: Any, honest: Any) -> None:
    play = honest.edited(OpeningPublished, {"root": WRONG}, round=1, index=OPENER)
    assert named.found(play.audit()) == {(8, 1, named.MEMBERS[OPENER])}


@pytest.mark.parametrize(
    ("field", "change"), [("size", lambda o: o[:-2]), ("element 0", lambda o: b"\xff\xff" + o[2:])]
)
def test_a_malformed_opening_is_named_by_its_field(named: Any, honest: Any, field: str, change: Any) -> None:
    good = honest.event(OpeningPublished, round=1, index=OPENER).cid
    play = honest.copy()
    cid = play.store.put(change(play.store.served[good]))
    report = play.edited(OpeningPublished, {"cid": cid}, round=1, index=OPENER).audit()
    assert named.found(report) == {(4, 1, named.MEMBERS[OPENER])}
    assert f"opening: {field}" in report.faults[0].got


def test_a_wrong_opening_among_just_enough_leaves_the_closers_invention_named(named: Any) -> None:
    """With exactly t openings nobody can be told apart; an honest closer waits, this one posts what it cannot know."""

    class Few(named.Play):  # type: ignore[misc]
        publishing = False

        def openers(self, number: int) -> list[Any]:
            return [0, 1, OPENER]

        def open(self, number: int, index: int) -> Any:
            return super().open(number, 4 if index == OPENER and self.publishing else index)

        def opening(self, number: int, index: int) -> None:
            self.publishing = True
            super().opening(number, index)
            self.publishing = False

    offenders = named.found(Few(rounds=1).run().audit())
    assert (9, 1, named.MEMBERS[AGGREGATOR]) in offenders
    assert any(check == 8 and who.startswith("unknown") for check, _, who in offenders)


@pytest.mark.parametrize("field", ["key_sum_root", "result_root"])
def test_a_wrong_root_in_the_result_names_the_closer(named: Any, honest: Any, field: str) -> None:
    play = honest.edited(ResultCommitted, {field: WRONG}, round=1)
    assert named.found(play.audit()) == {(9, 1, named.MEMBERS[AGGREGATOR])}


def test_a_replaced_model_names_the_closer_and_the_next_round_is_judged_by_what_stands(named: Any) -> None:
    class Replacer(named.Play):  # type: ignore[misc]
        def next_model(self, number: int, opened: Any) -> bytes:
            model: bytes = super().next_model(number, opened)
            return named.flipped(model, len(model) - 4) if number == 1 else model

    report = Replacer().run().audit()
    assert named.found(report) == {(10, 1, named.MEMBERS[AGGREGATOR])}
    assert all(check.status is Status.PASSED for check in report.rounds[1].checks)
    chain = next(check for check in report.checks if check.number == 11)
    assert chain.status is Status.NOT_POSSIBLE and "round 1" in chain.detail


def test_a_model_object_that_is_not_the_digests_names_the_closer(named: Any, honest: Any) -> None:
    play = honest.copy()
    cid = play.store.put(b"no model at all")
    report = play.edited(ResultCommitted, {"model_cid": cid}, round=1).audit()
    assert named.found(report) == {(10, 1, named.MEMBERS[AGGREGATOR])}
    # Round 2 cannot be recomputed from it, which is not the same as passing.
    assert report.rounds[1].check(10).status is Status.NOT_POSSIBLE
    assert report.rounds[1].check(9).status is Status.PASSED


def test_wrong_weights_in_the_average_name_the_closer(named: Any) -> None:
    class Unweighted(named.Play):  # type: ignore[misc]
        def total_weight(self, participants: Bitmap) -> int:
            return int(super().total_weight(participants)) + 1

    assert named.found(Unweighted(rounds=1).run().audit()) == {(10, 1, named.MEMBERS[AGGREGATOR])}


def test_a_result_decoded_from_a_wrong_sum_names_both(named: Any) -> None:
    class Shifted(named.Play):  # type: ignore[misc]
        """The aggregator adds Δ to one coefficient, and closes on its own sum."""

        def sum(self, number: int, participants: Bitmap) -> Any:
            total = super().sum(number, participants)
            residues = total.residues.copy()
            residues[0, 5] = (residues[0, 5] + np.uint64(1002)) % np.uint64(17627370416504833)
            return replace(total, residues=residues)

        def opened(self, number: int) -> Any:
            return self.open_total(number, self.sum(number, self.locked(number).participants))

    assert named.found(Shifted(rounds=1).run().audit()) == {
        (7, 1, named.MEMBERS[AGGREGATOR]),
        (9, 1, named.MEMBERS[AGGREGATOR]),
        (10, 1, named.MEMBERS[AGGREGATOR]),
    }
