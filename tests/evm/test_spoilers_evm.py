"""A member that spoils every set it is in, among real peers on a real contract: what they do by themselves, and what is
left for people."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_step import Federation, Ground

from fedchain.audit.words import spoiled_in_words
from fedchain.crypto import RoundContext, Upload, deal
from fedchain.peer import node, trainer
from fedchain.peer.trainer import Trainer
from fedchain.peer.voter import Voter
from fedchain.protocol.actions import VoteToRemove
from fedchain.protocol.disputes import Refused
from fedchain.protocol.ids import Index, members_of
from fedchain.protocol.phase import live_attempt
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.suspicion import suspicion, was_opened
from fedchain.protocol.votes import check_vote

SPOILER = Index(3)


@pytest.fixture(scope="module")
def ground(anvil: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    before = anvil.remember()
    ground = Ground(anvil, tmp_path_factory.mktemp("spoilers"))
    ground.enrol()
    ground.keep()
    yield ground
    anvil.take_back(before)


class Spoiler(Trainer):
    """Deals another key than it encrypts under, always."""

    def _deal(self, state: FederationState, attempt: Attempt, now: int) -> Any:
        def spoilt(context: RoundContext, **place: Any) -> Upload:
            upload, other = deal(context, **place), deal(context, **place)
            return replace(upload, ciphertext=other.ciphertext, ciphertext_root=other.ciphertext_root)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, "deal", spoilt)
            return super()._deal(state, attempt, now)


class Persuaded(Voter):
    """Its owner votes to remove the spoiler, once two sets were found to be spoiled."""

    def act(self, state: FederationState, now: int) -> bool:
        attempt, vote = live_attempt(state, now), VoteToRemove(SPOILER)
        if attempt is not None and attempt.attempt == 1 and was_opened(attempt):
            try:
                check_vote(state, self._context.me, vote, now)
            except Refused:
                return super().act(state, now)
            self._context.sender.submit("remove", vote)
            return True
        return super().act(state, now)


def bending(name: str, kind: type) -> Callable[[ExitStack], None]:
    def bend(stack: ExitStack) -> None:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(node, name, kind)

    return bend


def test_a_persistent_spoiler_goes_by_vote_and_the_round_closes_without_it_in_the_next_attempt(
    ground: Ground, tmp_path: Path
) -> None:
    federation = Federation(ground, tmp_path)
    federation.peers[SPOILER].bend = bending("Trainer", Spoiler)
    for index in (0, 1, 2):
        federation.peers[index].bend = bending("Voter", Persuaded)
    honest = [peer for peer in federation.peers if peer.index != SPOILER]

    def closed() -> bool:
        return all(any(e["event"] == "round closed" for e in peer.said) for peer in honest)

    state = federation.run(closed)
    # The first set is given up at once, the second when the spoiler was removed: no third try in vain.
    first, second = (attempt for attempt in state.voided if attempt.aggregate is not None)
    assert first.aggregate is not None and second.aggregate is not None
    assert first.aggregate.participants == second.aggregate.participants == 0b11111
    result, locked = state.closed[1].result, state.closed[1].aggregate
    assert result is not None and locked is not None
    assert state.closed[1].attempt == 2 and set(members_of(locked.participants)) == {0, 1, 2, 4}
    assert hashlib.sha256(federation.expected_model(1)).digest() == result.model_digest
    for peer in honest:
        told = [e["suspects"] for e in peer.said if e["event"] == "spoiled"]
        assert told and all(suspects == (0, 1, 2, 3, 4) for suspects in told)

    report = federation.audit()
    assert report.faults == ()
    found = suspicion(state)
    assert found is not None and members_of(found.suspects) == (SPOILER,)
    assert report.to_json()["spoiled"]["suspects"] == [SPOILER]
    assert "among: 3;" in spoiled_in_words(report.suspicion)[-1]


@pytest.mark.slow
def test_where_nobody_removes_it_a_second_spoiled_set_is_kept_until_half_of_the_close_window(
    ground: Ground, tmp_path: Path
) -> None:
    federation = Federation(ground, tmp_path)
    federation.peers[SPOILER].bend = bending("Trainer", Spoiler)
    watcher = ground.reader()
    kept: list[int] = []

    def seen() -> bool:
        state = watcher.refresh()
        attempt = live_attempt(state, watcher.now())
        if attempt is not None and attempt.attempt == 1 and was_opened(attempt):
            kept.append(watcher.now() - state.began_at)
        return len([a for a in state.voided if a.aggregate is not None]) == 2

    federation.run(seen)
    half = ground.charter.windows.close_s // 2
    assert max(kept) >= half - ground.charter.windows.aggregate_s
    first, second = (e.event for e in log_of(ground) if type(e.event).__name__ == "SetAbandoned")
    locked = [e.event for e in log_of(ground) if type(e.event).__name__ == "AggregateCommitted"]
    assert first.at - locked[0].at < half <= second.at - first.at


def log_of(ground: Ground) -> Any:
    reader = ground.reader()
    reader.refresh()
    return reader.log()
