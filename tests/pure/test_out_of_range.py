"""What peers do about a sum that no honest values give: the openings prove it, and nobody waits (P5.14, P5.15)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from fedchain.errors import Fault
from fedchain.protocol.actions import CommitResult, PublishOpening, VoteToAbandon, VoteToRefuse
from fedchain.protocol.events import ResultCommitted, ResultRefuted
from fedchain.protocol.ids import Digest, Index, bitmap_of
from fedchain.protocol.phase import Phase, phase_of, start_of_run
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply

ABANDON = VoteToAbandon(round=1, attempt=0)
MADE_UP = Digest(b"z" * 32)


@pytest.fixture
def stage(tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A stage on which the last member encrypted more than the honest values of all members together."""
    walk = stages.walk
    honest, dealt = walk.join_values, []

    def join_values(values: Any, form: Any) -> Any:
        dealt.append(honest(values, form))
        # In the last value of a coefficient, and with no overflow of it.
        return dealt[-1] + (form.radix ** (form.fields - 1) * (form.radix // 2) if len(dealt) == walk.MEMBERS else 0)

    monkeypatch.setattr(walk, "join_values", join_values)
    monkeypatch.setattr(walk, "close", lambda world, aggregate: None)
    yield stages.Stage(tmp_path)


def half_of(stage: Any) -> int:
    began = start_of_run(stage.closing, stage.now)
    assert began is not None
    return began + stage.closing.terms.close_window_s // 2


def acts(peer: Any, state: FederationState, now: int) -> list[Any]:
    """What a peer does, but for its own opening."""
    return [action for action in peer.act(state, now) if not isinstance(action, PublishOpening)]


def closed(stage: Any, peer: Any, model: Digest = MADE_UP) -> FederationState:
    """The state in which member 4 closed with the right roots, and a model of its own."""
    opened = peer.decoder.outcome(stage.closing, stage.closing.current).opened
    state = apply(
        stage.closing,
        ResultCommitted(
            round=1,
            attempt=0,
            group=0,
            index=Index(4),
            openers=bitmap_of(opened.committee),
            key_sum_root=opened.key_sum_root,
            result_root=opened.result_root,
            result_cid=peer.store.put(opened.result.pack()),
            model_digest=model,
            model_cid=peer.store.put(b"a model that follows from nothing"),
            at=stage.now + 1,
        ),
    )
    assert 1 in state.closed
    return state


def test_t_openings_prove_it_and_the_set_is_given_up_at_once(stage: Any) -> None:
    assert len(stage.closing.current.openings) == stage.closing.current.threshold
    assert phase_of(stage.closing, 1, stage.now) is Phase.CLOSING and stage.now < half_of(stage)
    for index in (0, 4):
        assert acts(stage.peer(index), stage.closing, stage.now) == [ABANDON]


def test_a_second_such_set_on_a_model_waits_for_members_to_remove_somebody(stage: Any) -> None:
    """As any spoiled set: the next one would hold the same members."""
    current = stage.closing.current
    given_up = MappingProxyType({current.base_digest: (current.aggregate.participants,)})
    again, peer = replace(stage.closing, abandoned=given_up), stage.peer(1)
    assert acts(peer, again, stage.now) == acts(peer, again, half_of(stage) - 1) == []
    assert acts(peer, replace(again, removed=bitmap_of([Index(2)])), stage.now) == [ABANDON]
    assert acts(peer, again, half_of(stage)) == [ABANDON]


def test_an_update_out_of_range_spoils_its_round_and_stops_no_peer(stage: Any) -> None:
    peer = stage.peer(0)
    for _ in range(2):
        assert not any(isinstance(action, CommitResult) for action in peer.act(stage.closing, stage.now))


def test_nobody_closes_it_however_late(stage: Any) -> None:
    peer, late = stage.peer(0), half_of(stage) * 2
    for _ in range(2):
        assert not any(isinstance(action, CommitResult) for action in peer.act(stage.closing, late))


def test_whatever_model_is_posted_for_it_is_refused_by_vote_and_the_set_given_up(stage: Any) -> None:
    """The posted roots are right, so nothing proves it wrong: else who deals so and closes first stops the run."""
    peer = stage.peer(1)
    state = closed(stage, peer)
    assert not peer.challenger.settled(state, stage.now + 2)
    assert peer.chain.sent == [VoteToRefuse(1, MADE_UP)]
    reopened = apply(state, ResultRefuted(round=1, attempt=0, group=0, index=Index(4), at=stage.now + 3))
    assert phase_of(reopened, 1, stage.now + 3) is Phase.CLOSING
    assert acts(peer, reopened, stage.now + 3) == [ABANDON]


def test_a_model_that_stands_for_it_after_the_challenge_window_stops_the_peer_with_its_authors_name(stage: Any) -> None:
    peer = stage.peer(1)
    state = closed(stage, peer)
    with pytest.raises(Fault, match="no model follows") as stopped:
        peer.challenger.settled(state, stage.now + 1 + state.terms.challenge_window_s)
    assert stopped.value.evidence.offender == stage.members[4].address
