"""What spoiled sets tell of who spoiled them, and why it is told to people and no peer votes by it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fedchain.audit.words import spoiled_in_words
from fedchain.protocol.ids import Index, bitmap_of
from fedchain.protocol.suspicion import suspicion


def tried(round: int, attempt: int, members: str, *, at: int, openings: int = 3) -> Any:
    """An attempt whose set, of these members, was locked at that time and opened by so many."""
    locked = SimpleNamespace(participants=bitmap_of([Index(int(i)) for i in members]), at=at)
    opened = dict.fromkeys(range(openings))
    return SimpleNamespace(round=round, attempt=attempt, aggregate=locked, openings=opened, threshold=3)


def told(voided: list[Any], closed: list[Any], **options: Any) -> Any:
    state: Any = SimpleNamespace(voided=voided, closed={a.round: a for a in closed})
    found = suspicion(state, **options)
    assert found is not None
    return [
        sorted(i for i in range(64) if members >> i & 1) for members in (found.always, found.cleared, found.suspects)
    ]


def test_where_nothing_was_spoiled_nobody_is_suspected() -> None:
    void = SimpleNamespace(aggregate=None, openings={}, threshold=3)
    silent = tried(1, 0, "01234", at=10, openings=2)
    state: Any = SimpleNamespace(voided=[void, silent], closed={1: tried(1, 1, "01234", at=20)})
    assert suspicion(state) is None
    assert spoiled_in_words(None) == []


def test_one_spoiled_set_suspects_all_who_were_in_it() -> None:
    assert told([tried(1, 0, "0134", at=10)], []) == [[0, 1, 3, 4], [], [0, 1, 3, 4]]


def test_rounds_on_other_models_narrow_it_down_to_who_was_in_every_spoiled_set_and_in_no_sum_since() -> None:
    """A new model begins anew: its sets need not be those of the last one. So absences tell more, round by round."""
    spoiled = [tried(3, 0, "01234", at=30), tried(5, 0, "0134", at=50), tried(5, 1, "0134", at=60)]
    closed = [tried(2, 0, "01234", at=20), tried(3, 1, "0123", at=40)]
    assert told(spoiled, closed) == [[0, 1, 3, 4], [0, 1, 3], [4]]


def test_a_sum_from_before_clears_nobody() -> None:
    assert told([tried(3, 0, "01234", at=30)], [tried(2, 0, "01234", at=20)])[2] == [0, 1, 2, 3, 4]


def test_a_set_under_way_counts_where_it_is_found_to_be_spoiled() -> None:
    now = tried(4, 0, "0124", at=40)
    assert told([tried(3, 0, "01234", at=30)], [tried(3, 1, "0123", at=35)], under_way=now) == [
        [0, 1, 2, 4],
        [0, 1, 2],
        [4],
    ]


def test_who_can_look_tells_spoiled_sets_from_others_that_were_given_up() -> None:
    state: Any = SimpleNamespace(voided=[tried(1, 0, "01234", at=10)], closed={})
    assert suspicion(state, is_spoiled=lambda attempt: False) is None


def test_a_spoiler_that_behaves_while_somebody_is_away_has_that_member_suspected() -> None:
    """Member 4 spoils whenever member 2 takes part, and else behaves. No vote may follow from this by itself."""
    spoiled = [tried(1, 0, "01234", at=10), tried(3, 0, "01234", at=30)]
    closed = [tried(1, 1, "0134", at=20), tried(2, 0, "0134", at=25), tried(3, 1, "0134", at=35)]
    assert told(spoiled, closed)[2] == [2]


def test_two_spoilers_in_turns_leave_nobody_suspected_and_the_sets_are_told_all_the_same() -> None:
    spoiled = [tried(1, 0, "0123", at=10), tried(2, 0, "0124", at=20)]
    closed = [tried(1, 1, "0124", at=15), tried(2, 1, "0123", at=25)]
    state: Any = SimpleNamespace(voided=spoiled, closed={a.round: a for a in closed})
    lines = spoiled_in_words(suspicion(state))
    assert "round 1 attempt 1, round 2 attempt 1" in lines[0] and "in all of them: 0, 1, 2" in lines[0]
    assert lines[1].endswith("0, 1, 2") and "among: nobody" in lines[2]
