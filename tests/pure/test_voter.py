"""When one peer votes to give up a locked set, and when it does not (P5.14)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedchain.crypto import Opening, make_opening
from fedchain.protocol.actions import VoteToAbandon, VoteToRemove
from fedchain.protocol.events import (
    MemberLeaving,
    MemberSlashed,
    Motion,
    MotionVoted,
    OpeningPublished,
    SetAbandoned,
)
from fedchain.protocol.ids import Address, Index, bitmap_of, members_of
from fedchain.protocol.participants import too_close
from fedchain.protocol.phase import Phase, live_attempt, phase_of, start_of_run
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply

ABANDON = VoteToAbandon(round=1, attempt=0)


def votes(peer: Any, state: FederationState, now: int) -> list[Any]:
    peer.chain.sent.clear()
    peer.voter.act(state, now)
    return list(peer.chain.sent)


def half_of(state: FederationState, now: int) -> int:
    began = start_of_run(state, now)
    assert began is not None
    return began + state.terms.close_window_s // 2


def with_openings(stage: Any, state: FederationState, wrong: tuple[int, ...] = (), everybody: bool = True) -> Any:
    """The state with the openings of all members, some of them off by one everywhere."""
    locked = state.current.aggregate.participants
    for member in stage.members:
        if everybody or member.index >= 2:
            opening = make_opening([member.shares[i] for i in members_of(locked)])
            if member.index in wrong:
                opening = Opening(
                    ((opening.elements.astype(np.int64) + 7 ** (member.index + 1)) % 65521).astype(np.uint16)
                )
            spoken = opening.root(), stage.world.put(opening.encode())
            state = apply(state, OpeningPublished(1, 0, 0, member.index, *spoken, at=stage.now))
    return state


@pytest.fixture
def spoiled(stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stage on which member 4 dealt the shares of another key than the one it encrypted under."""
    walk, real = stages.walk, stages.walk.deal

    def deal(context: Any, *, dealer: Index, coefficients: Any, **place: Any) -> Any:
        honest = real(context, dealer=dealer, coefficients=coefficients, **place)
        if dealer != 4:
            return honest
        other = real(context, dealer=dealer, coefficients=coefficients, **place)
        return replace(honest, ciphertext=other.ciphertext, ciphertext_root=other.ciphertext_root)

    monkeypatch.setattr(walk, "deal", deal)
    folder = tmp_path / "spoiled"
    folder.mkdir()
    stage = object.__new__(stages.Stage)
    with redirect_stdout(StringIO()):
        stage._folder = folder
        stage.members = [walk.make_member(i) for i in range(walk.MEMBERS)]
        stage.world = walk.found(stage.members)
        walk.enrol(stage.world, stage.members)
        walk.train(stage.world, stage.members)
        walk.encrypt_and_commit(stage.world, stage.members)
        walk.examine_and_post_receipts(stage.world, stage.members)
        walk.lock_and_aggregate(stage.world)
    stage.now = stage.world.now
    yield stage


def test_a_spoiled_set_is_given_up_at_once_by_who_can_show_it(spoiled: Any) -> None:
    state = with_openings(spoiled, spoiled.world.state)
    assert phase_of(state, 1, spoiled.now) is Phase.CLOSING
    assert votes(spoiled.peer(1), state, spoiled.now) == [ABANDON]


def test_a_second_spoiled_set_on_a_model_waits_for_members_to_remove_somebody(spoiled: Any) -> None:
    """The next set would hold the same members again, and only eight may be given up on a model."""
    state = with_openings(spoiled, spoiled.world.state)
    participants = state.current.aggregate.participants
    again = replace(state, abandoned=MappingProxyType({state.current.base_digest: (participants,)}))
    peer = spoiled.peer(1)
    assert votes(peer, again, spoiled.now) == []
    half = half_of(again, spoiled.now)
    assert votes(peer, again, half - 1) == []
    assert votes(peer, replace(again, removed=bitmap_of([Index(2)])), spoiled.now) == [ABANDON]
    assert votes(spoiled.peer(2), again, half) == [ABANDON]


def test_who_finds_a_set_spoiled_says_once_who_was_in_it(spoiled: Any) -> None:
    state, said = with_openings(spoiled, spoiled.world.state), []
    peer = spoiled.peer(1)
    peer.context.log = SimpleNamespace(
        error=lambda event, **entries: said.append((event, entries)), warning=lambda *_, **__: None
    )
    for _ in range(3):
        votes(peer, state, spoiled.now)
    told = [entries for event, entries in said if event == "spoiled"]
    assert told == [{"round": 1, "sets": 1, "in_all": (0, 1, 2, 3, 4), "suspects": (0, 1, 2, 3, 4)}]


def test_with_t_openings_alone_a_wrong_one_could_be_the_reason(spoiled: Any) -> None:
    """No opening beside the t confirms that S is right: half of the close window is left for more."""
    state = with_openings(spoiled, spoiled.world.state, everybody=False)
    peer = spoiled.peer(1)
    assert votes(peer, state, spoiled.now) == []
    half = half_of(state, spoiled.now)
    assert votes(peer, state, half - 1) == []
    assert votes(peer, state, half) == [ABANDON]


def test_openings_that_are_wrong_do_not_make_a_good_set_spoiled(stage: Any) -> None:
    state = with_openings(stage, stage.opening, wrong=(2, 3, 4))
    assert phase_of(state, 1, stage.now) is Phase.CLOSING
    peer = stage.peer(1)
    assert votes(peer, state, stage.now) == []
    assert votes(peer, state, half_of(state, stage.now)) == [ABANDON]


def test_a_set_that_can_be_closed_is_never_given_up(stage: Any) -> None:
    peer = stage.peer(1)
    for now in (stage.now, half_of(stage.closing, stage.now), half_of(stage.closing, stage.now) * 2 - 20):
        assert votes(peer, stage.closing, now) == []


def test_too_few_openings_are_waited_for_half_of_the_close_window(stage: Any) -> None:
    peer, half = stage.peer(1), half_of(stage.opening, stage.now)
    assert votes(peer, stage.opening, half - 1) == []
    assert votes(peer, stage.opening, half) == [ABANDON]


def test_a_vote_is_cast_once(stage: Any) -> None:
    half = half_of(stage.opening, stage.now)
    state = apply(stage.opening, MotionVoted(Motion.ABANDON, Index(1), 1, 0, bytes(32), half))
    assert votes(stage.peer(1), state, half) == []
    assert votes(stage.peer(2), state, half) == [ABANDON]


def test_a_set_that_was_given_up_eight_times_is_left(stage: Any) -> None:
    base = stage.opening.current.base_digest
    sets = MappingProxyType({base: (bitmap_of([Index(i) for i in range(5)]),) * 8})
    state = replace(stage.opening, abandoned=sets)
    assert votes(stage.peer(1), state, half_of(state, stage.now)) == []


def test_nothing_is_given_up_before_a_set_is_locked(stage: Any) -> None:
    late = half_of(stage.receipts, stage.now)
    assert votes(stage.peer(1), stage.receipts, late) == []


def begun_again_without(stage: Any, slashed: MemberSlashed) -> FederationState:
    """A member is slashed while its set is locked; the set is given up, and the round begins again."""
    state = apply(stage.opening, replace(slashed, at=stage.now))
    locked = state.current.aggregate
    state = apply(state, SetAbandoned(1, 0, 0, locked.participants, stage.now))
    assert phase_of(state, 1, stage.now) is Phase.TRAINING and not state.standing >> slashed.index & 1
    return state


def proven(index: int, rule: int) -> MemberSlashed:
    return MemberSlashed(Index(index), Address("0x" + "77" * 20), 1, rule, 1, 1, 0)


@pytest.mark.parametrize("rule", [1, 2, 3, 4, 5])
def test_a_proven_liar_that_keeps_the_next_set_from_being_locked_is_removed_by_peers(stage: Any, rule: int) -> None:
    """A set without it would be too close to the one that was given up (P3.8)."""
    state = begun_again_without(stage, proven(4, rule))
    attempt = live_attempt(state, stage.now)
    assert attempt is not None and too_close(state, attempt, 0b01111) == 0b11111
    peer = stage.peer(1)
    assert votes(peer, state, stage.now) == [VoteToRemove(Index(4))]
    state = apply(state, MotionVoted(Motion.REMOVE, Index(1), 0, 0, (4).to_bytes(32, "big"), stage.now))
    assert votes(peer, state, stage.now) == [], "cast before"
    state = apply(state, MemberLeaving(Index(4), True, stage.now))
    assert too_close(state, attempt, 0b01111) is None
    assert votes(stage.peer(2), state, stage.now) == []


@pytest.mark.parametrize("rule", [6, 7])
def test_whom_peers_remove_for_silence_or_by_votes_is_for_people(stage: Any, rule: int) -> None:
    """It may have been honest and away: to remove it gives its update away."""
    assert votes(stage.peer(1), begun_again_without(stage, proven(4, rule)), stage.now) == []


def test_a_liar_that_is_in_nobodys_way_is_left(stage: Any) -> None:
    state = apply(stage.receipts, replace(proven(4, 4), at=stage.now))
    assert votes(stage.peer(1), state, stage.now) == []
