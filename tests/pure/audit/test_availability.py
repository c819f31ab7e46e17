"""Objects that are gone, or that a store gets wrong: a fault while they are owed, and never a check that passed."""

from __future__ import annotations

from typing import Any

import pytest

from fedchain.audit import Status
from fedchain.errors import StoreUnreachable
from fedchain.protocol.events import AggregateCommitted, OpeningPublished, ResultCommitted, UpdateCommitted
from fedchain.protocol.ids import Bitmap


def without(play: Any, cid: Any) -> Any:
    play = play.copy()
    del play.store.served[cid]
    return play


def spoilt(named: Any, play: Any, cid: Any) -> Any:
    play = play.copy()
    play.store.served[cid] = named.flipped(play.store.served[cid], -1)
    return play


@pytest.mark.parametrize("how", ["withheld", "flipped"])
@pytest.mark.parametrize(
    ("kind", "cid", "offender", "undone"),
    [
        (UpdateCommitted, "ciphertext_cid", 0, {3, 7}),
        (UpdateCommitted, "shares_cid", 0, {3}),
        (AggregateCommitted, "cid", 0, set()),
        (OpeningPublished, "cid", 0, {8}),
        (ResultCommitted, "model_cid", 0, {10}),
    ],
)
def test_a_missing_or_corrupt_object_names_who_committed_it(
    named: Any, honest: Any, how: str, kind: type, cid: str, offender: int, undone: set[int]
) -> None:
    gone = getattr(honest.event(kind, round=1), cid)
    play = without(honest, gone) if how == "withheld" else spoilt(named, honest, gone)
    report = play.audit()
    assert named.found(report) == {(4, 1, named.MEMBERS[offender])}
    assert gone in report.faults[0].expected
    assert ("unavailable" if how == "withheld" else "other bytes") in report.faults[0].got
    done = {c.number for c in report.rounds[0].checks if c.status is Status.NOT_POSSIBLE}
    assert done == undone
    assert report.complete is (not undone)


def test_a_sum_that_cannot_be_recomputed_is_still_opened_from_what_was_posted(named: Any, honest: Any) -> None:
    report = without(honest, honest.event(UpdateCommitted, round=1).ciphertext_cid).audit()
    assert report.rounds[0].check(7).status is Status.NOT_POSSIBLE
    assert [report.rounds[0].check(n).status for n in (8, 9, 10)] == [Status.PASSED] * 3


def test_one_missing_opening_does_not_keep_the_others_from_opening(named: Any, honest: Any) -> None:
    report = without(honest, honest.event(OpeningPublished, round=1, index=3).cid).audit()
    assert named.found(report) == {(4, 1, named.MEMBERS[3])}
    assert report.rounds[0].check(10).status is Status.PASSED


def test_too_many_missing_openings_leave_the_result_unjudged_and_blame_nobody_else(named: Any, honest: Any) -> None:
    play = honest
    for index in (1, 2, 3):
        play = without(play, honest.event(OpeningPublished, round=1, index=index).cid)
    report = play.audit()
    assert named.found(report) == {(4, 1, named.MEMBERS[i]) for i in (1, 2, 3)}
    assert "2 usable openings of 3" in report.rounds[0].check(8).detail
    assert all(report.rounds[0].check(n).status is Status.NOT_POSSIBLE for n in (8, 9, 10))


def test_without_updates_and_without_the_posted_sum_nothing_can_be_opened(named: Any, honest: Any) -> None:
    play = without(honest, honest.event(UpdateCommitted, round=1, index=2).ciphertext_cid)
    report = without(play, honest.event(AggregateCommitted, round=1).cid).audit()
    assert named.found(report) == {(4, 1, named.MEMBERS[2]), (4, 1, named.MEMBERS[0])}
    assert report.rounds[0].check(8).detail == "there is no sum to open"
    assert all(report.rounds[0].check(n).status is Status.NOT_POSSIBLE for n in (7, 8, 9, 10))


def test_openings_that_do_not_open_are_no_fault_while_more_may_come(named: Any) -> None:
    class Few(named.Play):  # type: ignore[misc]
        def openers(self, number: int) -> list[Any]:
            return [0, 1, 2]

        def opening(self, number: int, index: int) -> None:
            honest = self.open
            self.open = lambda number, index: honest(number, 4 if index == 2 else index)
            super().opening(number, index)
            self.open = honest

        def close(self, number: int) -> None:
            pass

    report = Few(rounds=1).run().audit()
    assert report.faults == ()
    assert report.unfinished[0].check(8).status is Status.NOT_POSSIBLE
    assert "do not open" in report.unfinished[0].check(8).detail


def test_an_update_left_out_of_the_sum_is_owed_by_nobody(named: Any) -> None:
    class Lost(named.Play):  # type: ignore[misc]
        def whole(self, number: int, index: int) -> Bitmap:
            return Bitmap(0b01111)

    play = Lost(rounds=1).run()
    report = without(play, play.event(UpdateCommitted, index=4).ciphertext_cid).audit()
    assert report.faults == ()
    assert report.rounds[0].check(4).status is Status.NOT_POSSIBLE
    assert report.rounds[0].check(7).status is Status.PASSED


def test_objects_that_the_charter_lets_go_are_no_fault_but_models_are_owed_for_ever(named: Any) -> None:
    play = named.Play(rounds=2, charter=named.charter_of(storage={"keep_rounds": 1})).run()
    old = [play.event(UpdateCommitted, round=1, index=i).ciphertext_cid for i in range(5)]
    old += [play.event(OpeningPublished, round=1, index=i).cid for i in range(5)]
    old += [play.event(AggregateCommitted, round=1).cid]
    for cid in old:
        del play.store.served[cid]
    report = play.audit()
    assert report.faults == () and not report.complete
    assert all(check.status is Status.PASSED for check in report.rounds[1].checks)
    assert report.rounds[0].check(6).status is Status.PASSED
    del play.store.served[play.event(ResultCommitted, round=1).model_cid]
    assert named.found(play.audit()) == {(4, 1, named.MEMBERS[0])}


def test_a_store_that_does_not_answer_blames_nobody(named: Any, honest: Any) -> None:
    class Dead(named.MemoryStore):  # type: ignore[misc]
        def get(self, cid: Any, max_bytes: int) -> bytes:
            raise StoreUnreachable("no answer")

    play = honest.copy()
    play.store = Dead()
    with pytest.raises(StoreUnreachable):
        play.audit()


def test_a_round_under_way_is_audited_as_far_as_it_got(named: Any, honest: Any) -> None:
    """Cut the log after every event of the second round: an honest federation has no fault at any moment."""
    closed = next(i for i, e in enumerate(honest.chain.events) if isinstance(e, ResultCommitted))
    for end in range(closed + 1, len(honest.chain.events)):
        play = honest.copy()
        play.chain.events = honest.chain.events[: end + 1]
        play.chain.time = play.chain.events[-1].at
        report = play.audit()
        assert report.faults == (), end
        assert len(report.rounds) == 1 + (end == len(honest.chain.events) - 1)
        assert report.complete
        if report.unfinished:
            event = honest.chain.events[end]
            locked, opened = play.state.current.aggregate is not None, len(play.state.current.openings)
            pending = {c.number for c in report.unfinished[0].checks if c.status is Status.PENDING}
            assert pending >= {9, 10}
            assert (pending >= {3, 4, 5}) is (len(play.state.current.commits) < 5), event
            assert (7 in pending) is not locked, event
            assert (8 in pending) is (opened < 3), event


def test_a_missing_object_of_the_round_under_way_is_not_yet_a_fault(named: Any, honest: Any) -> None:
    play = honest.copy()
    locked = play.event(AggregateCommitted, round=2)
    play.chain.events = play.chain.events[: play.chain.events.index(locked)]
    play.chain.time = play.chain.events[-1].at
    report = without(play, play.event(UpdateCommitted, round=2, index=2).ciphertext_cid).audit()
    assert report.faults == ()
    assert report.unfinished[0].outcome == "open"
    assert report.unfinished[0].check(4).status is Status.NOT_POSSIBLE


def test_one_round_alone_can_be_audited(named: Any, honest: Any) -> None:
    play = without(honest, honest.event(UpdateCommitted, round=1).ciphertext_cid)
    report = play.audit(only_round=2)
    assert report.faults == () and report.complete
    assert report.rounds[0].check(7).status is Status.PENDING
    assert report.rounds[0].check(6).status is Status.PASSED
    assert report.rounds[1].check(10).status is Status.PASSED
    assert report.rounds[0].download_bytes == 0
    chain = next(check for check in report.checks if check.number == 11)
    assert chain.status is Status.PENDING and "round 1 was left out" in chain.detail
