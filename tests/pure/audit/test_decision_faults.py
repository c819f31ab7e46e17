"""What members decide about rounds: sets given up, models refused, strikes; recomputed, and held to the rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import audit_play
import numpy as np
import pytest

from fedchain.audit.html import render_html
from fedchain.protocol.cid import cid_of
from fedchain.protocol.events import (
    AggregateCommitted,
    DutiesMissed,
    MemberLeaving,
    MemberSlashed,
    Motion,
    MotionVoted,
    ResultCommitted,
    ResultRefuted,
    SetAbandoned,
)
from fedchain.protocol.evidence import NOBODY
from fedchain.protocol.ids import Bitmap, Index

CONTRACT = "the contract"


# Sets that were given up.


def test_a_set_that_was_given_up_is_told_and_is_no_fault(lively: Any) -> None:
    report = lively.audit()
    (account,) = report.unfinished
    assert (account.round, account.attempt, account.outcome) == (2, 0, "abandoned")
    assert account.participants == (0, 1, 2, 3, 5)
    assert "given up by vote, though its openings open it" in account.check(8).detail
    assert [(a.round, a.attempt) for a in report.rounds] == [(1, 0), (2, 1), (3, 0)]


def test_the_objects_of_a_set_that_was_given_up_are_owed_no_more(lively: Any) -> None:
    play = lively.copy()
    attempt = next(a for a in play.state.voided if a.aggregate)
    del play.store.served[attempt.commits[Index(1)].ciphertext_cid]
    report = play.audit()
    assert report.faults == () and not report.complete


@pytest.mark.parametrize(
    "forged",
    [
        lambda play: play.dropped(SetAbandoned),
        lambda play: play.dropped(MotionVoted, motion=Motion.ABANDON),
        lambda play: play.edited(SetAbandoned, {"participants": Bitmap(0b1011)}),
        lambda play: play.edited(SetAbandoned, {"attempt": 1}),
    ],
    ids=["not given up", "too few votes", "another set", "another attempt"],
)
def test_a_set_given_up_otherwise_than_by_t_votes_names_the_contract(named: Any, lively: Any, forged: Any) -> None:
    assert (6, 2, CONTRACT) in named.found(forged(lively).audit())


@pytest.mark.parametrize("changes", [{"round": 1}, {"attempt": 1}, {"subject": b"\1" * 32}], ids=str)
def test_a_vote_to_give_up_anything_but_the_locked_set_names_who_voted(
    named: Any, lively: Any, changes: dict[str, Any]
) -> None:
    report = lively.edited(MotionVoted, changes, motion=Motion.ABANDON, index=1).audit()
    assert (6, changes.get("round", 2), named.MEMBERS[1]) in named.found(report)


def test_a_vote_to_give_up_a_round_without_a_set_names_who_voted(named: Any, honest: Any) -> None:
    play = honest.copy()
    play.vote(Motion.ABANDON, round=3, attempt=0, by=(2,))
    assert named.found(play.audit()) == {(6, 3, named.MEMBERS[2])}


@pytest.fixture(scope="module")
def again(named: Any) -> type:
    """A first round whose set, all but member 4, is given up; `second` is the set that is locked then."""

    class Again(named.Play):  # type: ignore[misc,name-defined]
        second = 0b01111
        removes = False

        def participants(self, number: int) -> Bitmap:
            return Bitmap(0b01111 if self.attempt().attempt == 0 else self.second)

        def whole(self, number: int, index: Index) -> Bitmap:
            return Bitmap(0b01111 if self.attempt().attempt == 0 else 0b11111)

        def close(self, number: int) -> None:
            if self.attempt().attempt == 0:
                if self.removes:
                    self.remove(Index(3))
                self.abandon(number)
                self.round(number)
                return
            super().close(number)

    return Again


def play(kind: type, **settings: Any) -> Any:
    made = kind(rounds=1)
    for name, value in settings.items():
        setattr(made, name, value)
    return made.run()


def test_a_second_set_equal_to_the_first_is_no_fault(again: type) -> None:
    # Member 4 is whole for everybody now, and left out all the same: with it the set would be too close.
    assert play(again).audit().faults == ()


def test_a_second_set_too_close_to_the_first_names_the_aggregator(named: Any, again: type) -> None:
    report = play(again, second=0b11111).audit()
    assert named.found(report) == {(6, 1, named.MEMBERS[1])}
    assert "too close to a set that was given up" in report.faults[0].got


def test_who_was_removed_by_vote_may_be_left_out_of_the_second_set(named: Any, again: type) -> None:
    class Removing(again):  # type: ignore[misc,valid-type]
        def participants(self, number: int) -> Bitmap:
            return Bitmap(0b11111 if self.attempt().attempt == 0 else 0b10111)

        def whole(self, number: int, index: Index) -> Bitmap:
            return self.attempt().committed

    report = play(Removing, removes=True).audit()
    assert report.faults == ()
    assert [account.participants for account in report.rounds] == [(0, 1, 2, 4)]
    assert report.members[3].standing == "removed"


def test_who_has_left_with_a_set_that_was_given_up_may_still_be_removed(named: Any, again: type) -> None:
    class Resigned(again):  # type: ignore[misc,valid-type]
        def participants(self, number: int) -> Bitmap:
            return Bitmap(0b11111 if self.attempt().attempt == 0 else 0b10111)

        def whole(self, number: int, index: Index) -> Bitmap:
            return self.attempt().committed

        def abandon(self, number: int, by: Any = (0, 1, 2)) -> None:
            self.say(MemberLeaving(Index(3), False, 0))
            super().abandon(number, by)
            if self.removes:
                self.remove(Index(3))

        def close(self, number: int) -> None:
            if self.attempt().attempt == 0:
                self.abandon(number)
                self.round(number)
                return
            super().close(number)

    removed = play(Resigned, removes=True)
    assert removed.audit().faults == ()
    assert removed.audit().members[3].standing == "removed"
    assert (6, 1, named.MEMBERS[1]) in named.found(play(Resigned).audit())


def given_up(play: type) -> type:
    """The same play, in which members give the first set up by vote."""

    class GivenUp(play):  # type: ignore[misc,valid-type]
        def close(self, number: int) -> None:
            if self.attempt().attempt == 0:
                self.abandon(number)
                super().round(number)
                return
            super().close(number)

    return GivenUp


def test_a_spoiled_set_that_was_given_up_leaves_no_check_undone(named: Any) -> None:
    class Spoiled(named.Play):  # type: ignore[misc,name-defined]
        def deal(self, number: int, index: Index) -> Any:
            upload = super().deal(number, index)
            if index != 3 or self.attempt().attempt:
                return upload
            # A ciphertext under another key than the one that was dealt.
            other = super().deal(number, index)
            return replace(upload, ciphertext=other.ciphertext, ciphertext_root=other.ciphertext_root)

    report = given_up(Spoiled)(rounds=1).run().audit()
    assert report.faults == () and report.complete
    assert "its openings do not open it" in report.unfinished[0].check(8).detail
    told = report.to_json()["spoiled"]
    assert told["sets"] == [{"round": 1, "attempt": 0}] and told["in_all"] == [0, 1, 2, 3, 4]
    # In the second attempt the spoiler behaved: what closed since clears it too.
    assert told["closed_since"] == [0, 1, 2, 3, 4] and told["suspects"] == []
    assert "opened by t members, and did not close" in render_html(report)


@pytest.fixture
def out_of_range(named: Any) -> type:
    """A play in whose first attempt member 3 encrypts values of which no honest members have the sum."""

    class OutOfRange(named.Play):  # type: ignore[misc,name-defined]
        def deal(self, number: int, index: Index) -> Any:
            if index != 3 or self.attempt().attempt:
                return super().deal(number, index)
            form, honest = self.form, audit_play.join_values
            beyond = form.radix ** (form.fields - 1) * (form.radix // 2)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(audit_play, "join_values", lambda *values: honest(*values) + np.uint64(beyond))
                return super().deal(number, index)

    return OutOfRange


def test_a_set_given_up_because_no_honest_values_give_its_sum_is_spoiled(named: Any, out_of_range: type) -> None:
    report = given_up(out_of_range)(rounds=1).run().audit()
    assert report.faults == () and report.complete
    assert "given up by vote: no model follows from its sum" in report.unfinished[0].check(8).detail
    assert report.suspicion is not None and report.suspicion.always == 0b11111


def test_a_model_that_somebody_closed_such_a_sum_with_names_its_closer(named: Any, out_of_range: type) -> None:
    class Closed(out_of_range):  # type: ignore[misc,valid-type]
        def next_model(self, number: int, opened: Any) -> bytes:
            return bytes(self.store.served[self.state.base_model(number)[1]])

    play = Closed(rounds=1).run()
    closer = play.state.closed[1].result.index
    found = named.found(play.audit())
    assert found == {(10, 1, named.MEMBERS[closer]), (10, 1, "one of the participants")}


def test_a_set_that_was_given_up_though_it_opens_makes_nobody_suspected(named: Any) -> None:
    report = given_up(named.Play)(rounds=1).run().audit()
    assert report.faults == () and report.suspicion is None
    assert report.to_json()["spoiled"] is None


# Strikes.


def test_a_duty_that_was_missed_is_told_before_the_set_is_locked(named: Any, lively: Any) -> None:
    missed = lively.event(DutiesMissed)
    assert missed.members == 0b1
    assert lively.audit().faults == ()


@pytest.mark.parametrize(
    "forged",
    [
        lambda play: play.dropped(DutiesMissed),
        lambda play: play.edited(DutiesMissed, {"members": Bitmap(0b11)}),
        lambda play: play.edited(DutiesMissed, {"members": Bitmap(0)}),
        lambda play: play.edited(DutiesMissed, {"attempt": 1}),
        lambda play: play.inserted(DutiesMissed(2, 0, Bitmap(0b10), 0), AggregateCommitted, round=1),
    ],
    ids=["not told", "too many", "too few", "another attempt", "nobody"],
)
def test_strikes_that_do_not_follow_name_the_contract(named: Any, lively: Any, forged: Any) -> None:
    faults = named.found(forged(lively).audit())
    assert {(check, who) for check, _, who in faults} == {(12, CONTRACT)}


def test_who_posted_no_receipt_has_a_strike(named: Any) -> None:
    class Silent(named.Play):  # type: ignore[misc,name-defined]
        def shareholders(self, number: int) -> list[Any]:
            return [0, 1, 3]

        def aggregate(self, number: int) -> None:
            self.chain.time += self.charter.windows.receipt_s
            super().aggregate(number)

    report = Silent(rounds=1).run().audit()
    assert report.faults == ()
    assert [member.strikes for member in report.members] == [0, 0, 1, 0, 1]


# Models that members refused.


@pytest.fixture(scope="module")
def refused(named: Any) -> type:
    """A first round whose closer, member 4, posts another model beside right roots; members refuse it."""

    class Refused(named.Play):  # type: ignore[misc,name-defined]
        by: tuple[int, ...] = (0, 1, 2)

        def lie(self, honest: ResultCommitted) -> ResultCommitted:
            content = self.next_model(honest.round, self.opened(honest.round))
            wrong = named.flipped(content, len(content) - 3)
            digest = named.model_digest(wrong)
            return replace(honest, index=Index(4), model_digest=digest, model_cid=self.store.put(wrong))

        def close(self, number: int) -> None:
            honest = self.result(number)
            lie = self.lie(honest)
            self.say(lie)
            self.vote(Motion.REFUSE, lie.model_digest, number, lie.attempt, by=self.by)
            if len(self.by) < 3:
                return
            self.say_with(ResultRefuted(number, lie.attempt, 0, lie.index, 0))
            self.say_with(MemberSlashed(lie.index, NOBODY, number, 7, self.state.terms.bond_wei, 0, 0))
            self.say(honest)

    return Refused


def test_a_wrong_model_that_members_refused_is_told_and_is_no_fault(named: Any, refused: type, terminal: Any) -> None:
    report = play(refused).audit()
    assert report.faults == () and report.complete
    (fallen,) = report.refutations
    assert (fallen.what, fallen.by, fallen.offender, fallen.right) == ("result", "vote", 4, False)
    assert fallen.slash is not None and (fallen.slash.rule, fallen.slash.reward_wei) == (7, 0)
    assert report.money.burnt == 10**16
    assert report.members[4].standing == "slashed"
    assert f"the result of {named.MEMBERS[4]} was refused by vote (R7): slashed" in terminal(report)


def test_a_right_model_that_members_refused_is_told_as_right(named: Any, refused: type, terminal: Any) -> None:
    class Unjust(refused):  # type: ignore[misc,valid-type]
        def lie(self, honest: ResultCommitted) -> ResultCommitted:
            return replace(honest, index=Index(4))

    report = play(Unjust).audit()
    # t members may: no rule is broken, but the report says so.
    assert report.faults == ()
    assert report.refutations[0].right is True
    assert "it was right, as the audit computes it" in terminal(report)


def test_votes_against_a_model_that_stands_are_told_with_what_the_audit_finds(named: Any, refused: type) -> None:
    class Unjust(refused):  # type: ignore[misc,valid-type]
        def lie(self, honest: ResultCommitted) -> ResultCommitted:
            return replace(honest, index=Index(4))

    report = play(Unjust, by=(0, 2)).audit()
    assert report.faults == ()
    told = f"{named.MEMBERS[0]}, {named.MEMBERS[2]} voted to refuse this model, the right one"
    assert told in report.rounds[0].check(10).detail
    lie = play(refused, by=(0, 2)).audit()
    assert named.found(lie) == {(10, 1, named.MEMBERS[4])}


@pytest.mark.parametrize(
    "forged",
    [
        lambda play: play.dropped(MotionVoted, index=1),
        lambda play: play.dropped(ResultRefuted),
        lambda play: play.dropped(MemberSlashed),
        lambda play: play.edited(MemberSlashed, {"reward_wei": 5 * 10**15, "burnt_wei": 5 * 10**15}),
        lambda play: play.edited(MemberSlashed, {"challenger": "0x" + "99" * 20}),
        lambda play: play.edited(MemberSlashed, {"index": Index(3)}),
    ],
    ids=["too few votes", "nothing falls", "no slash", "somebody gains", "somebody is named", "another member"],
)
def test_a_refusal_that_does_not_follow_names_the_contract(named: Any, refused: type, forged: Any) -> None:
    faults = named.found(forged(play(refused)).audit())
    assert (12, CONTRACT) in {(check, who) for check, _, who in faults}


def test_a_vote_against_another_model_than_stands_names_who_voted(named: Any, refused: type) -> None:
    report = play(refused).edited(MotionVoted, {"subject": b"\7" * 32}, index=2).audit()
    assert (12, 1, named.MEMBERS[2]) in named.found(report)


def test_a_result_that_fell_leaves_its_objects_owed_to_nobody(named: Any, refused: type) -> None:
    played = play(refused)
    lie = played.event(ResultCommitted, index=4)
    assert cid_of(played.store.served[lie.model_cid]) == lie.model_cid
    del played.store.served[lie.model_cid]
    assert played.audit().faults == ()
