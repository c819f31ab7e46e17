"""What one peer does about another's lie: proves it where it can, in its turn, and builds nothing on it (R1–R4, P5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedchain.crypto import Aggregate
from fedchain.crypto.parameters import PLAIN_MODULUS, Q
from fedchain.errors import Fault
from fedchain.protocol.actions import CommitResult, DemandPage, PublishOpening, RestateAggregate, VoteToRefuse
from fedchain.protocol.cid import cid_of
from fedchain.protocol.disputes import judge
from fedchain.protocol.events import (
    AggregateRefuted,
    AggregateRestated,
    MemberSlashed,
    Motion,
    MotionVoted,
    ReceiptPosted,
    ResultRefuted,
)
from fedchain.protocol.evidence import ChallengeAggregate, ChallengeKeySum, ChallengeResidue, ChallengeResult
from fedchain.protocol.ids import Address, Digest, Index, Root
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply

WRONG = Digest(b"z" * 32)
SOMEBODY = Address("0x" + "99" * 20)
LIAR = Index(4)
"""Who closes with a lie (`Stage.closed_with`)."""


def shifted(result: Any) -> Any:
    """A result with one coefficient off by one."""
    coefficients = result.coefficients.copy()
    coefficients[7, 3] = (coefficients[7, 3] + 1) % PLAIN_MODULUS
    return replace(result, coefficients=coefficients)


def with_key(result: Any, place: int, change: int) -> Any:
    """A result whose S is off in one coefficient."""
    elements = result.elements.copy()
    elements[place] = (int(elements[place]) + change) % 65521
    return replace(result, elements=elements)


def upheld(stage: Any, state: FederationState, challenge: Any) -> int:
    """The member that the contract would slash for it."""
    return judge(state, stage.peer_chain.chain_id, stage.peer_chain.contract, challenge, stage.now + 2)


def lying_sum(stage: Any) -> FederationState:
    """The state in which member 0 locked the right set over a sum with one residue off by one, and stored it."""
    right = stage.world.state.closed[1].aggregate
    total = Aggregate.parse(stage.world.store[right.cid], stage.world.state.terms.model_size)
    residues = total.residues.copy()
    residues[0, 130] = (residues[0, 130] + np.uint64(1)) % np.uint64(Q)
    wrong = replace(total, residues=residues)
    cid = stage.world.put(wrong.pack())
    return stage.locked_by(right, root=wrong.root(), cid=cid)


def slashed(state: FederationState, index: Index, rule: int, at: int) -> FederationState:
    return apply(state, MemberSlashed(index, SOMEBODY, 1, rule, 0, 0, at))


def test_a_wrong_sum_is_proven_by_the_member_after_its_author(stage: Any) -> None:
    state = lying_sum(stage)
    peer = stage.peer(1)
    opened, challenge = peer.act(state, stage.now)
    assert isinstance(opened, PublishOpening), "an opening does not wait for the sum"
    assert isinstance(challenge, ChallengeAggregate)
    assert challenge.leaf == 2
    assert upheld(stage, state, challenge) == 0


def test_the_next_member_waits_a_while_before_it_challenges(stage: Any) -> None:
    state = lying_sum(stage)
    step, at = state.terms.challenge_window_s // 5, state.current.posted_sum.at
    peer = stage.peer(2)
    assert not any(isinstance(sent, ChallengeAggregate) for sent in peer.act(state, at + step - 1))
    assert any(isinstance(sent, ChallengeAggregate) for sent in peer.act(state, at + step))


def test_a_right_sum_is_not_challenged(stage: Any) -> None:
    (opened,) = stage.peer(1).act(stage.opening, stage.now)
    assert isinstance(opened, PublishOpening)


def test_a_wrong_sum_that_is_kept_back_holds_nothing_up(stage: Any) -> None:
    state = stage.locked(0b11111, b"w" * 32)
    peer = stage.peer(1)
    (opened,) = peer.act(state, stage.now)
    assert isinstance(opened, PublishOpening)
    again, demand = peer.act(stage.locked(0b11111, b"w" * 32), stage.now)
    assert again == opened and isinstance(demand, DemandPage)


def test_a_peer_told_not_to_challenge_goes_on_with_the_right_sum(stage: Any) -> None:
    peer = stage.peer(1)
    peer.context.challenge = False
    (opened,) = peer.act(lying_sum(stage), stage.now)
    assert isinstance(opened, PublishOpening)


def test_a_refuted_sum_is_posted_anew_by_the_next_in_turn(stage: Any) -> None:
    lie = lying_sum(stage)
    state = slashed(apply(lie, AggregateRefuted(1, 0, 0, Index(0), stage.now)), Index(0), 1, stage.now)
    assert phase_of(state, 1, stage.now) is Phase.OPENING
    restated = [sent for sent in stage.peer(1).act(state, stage.now) if isinstance(sent, RestateAggregate)]
    right = stage.world.state.closed[1].aggregate
    assert [(sent.root, sent.cid) for sent in restated] == [(right.root, right.cid)]
    later = stage.peer(2)
    assert not any(isinstance(sent, RestateAggregate) for sent in later.act(state, stage.now))
    whole = apply(state, AggregateRestated(1, 0, 0, Index(1), right.root, right.cid, stage.now))
    assert not any(isinstance(s, RestateAggregate | ChallengeAggregate) for s in later.act(whole, stage.now + 10**6))


def test_a_wrong_coefficient_is_proven(stage: Any) -> None:
    lies = stage.put(shifted(stage.result()))
    state = stage.closed_with(**lies, model_digest=WRONG)
    peer = stage.peer(0)
    assert not peer.challenger.settled(state, stage.now + 2)
    (challenge,) = peer.chain.sent
    assert isinstance(challenge, ChallengeResult)
    assert challenge.coefficient == 7 * 64 + 3
    assert upheld(stage, state, challenge) == LIAR


def test_a_wrong_key_sum_is_proven_by_the_openings(stage: Any) -> None:
    lies = stage.put(with_key(stage.result(), 70, 1))
    state = stage.closed_with(**lies, model_digest=WRONG)
    peer = stage.peer(0)
    assert not peer.challenger.settled(state, stage.now + 2)
    (challenge,) = peer.chain.sent
    assert isinstance(challenge, ChallengeKeySum)
    assert challenge.leaf == 1
    assert upheld(stage, state, challenge) == LIAR


@pytest.mark.parametrize("place", [0, 2047])
def test_a_key_sum_out_of_bounds_or_off_by_one_fails_the_noise_check_on_chain(stage: Any, place: int) -> None:
    """R3 alone holds against a wrong S as well: what R2 would show, the noise shows."""
    from fedchain.crypto import prove_result

    posted = with_key(stage.result(), place, 1)
    state = stage.closed_with(**stage.put(posted), model_digest=WRONG)
    peer = stage.peer(0)
    attempt = state.closed[1]
    peer.holdings.examine(state, attempt)
    total = peer.decoder.sum(attempt, attempt.aggregate.participants)
    evidence = prove_result(attempt, peer.holdings.uploads(attempt), posted, total, peer.context.round_context(attempt))
    assert isinstance(evidence, ChallengeResult)
    assert upheld(stage, state, evidence) == LIAR


def test_an_honest_result_yields_no_evidence_and_is_built_on(stage: Any) -> None:
    peer = stage.peer(0)
    assert peer.challenger.settled(stage.world.state, stage.now + 2)
    assert peer.chain.sent == []


def test_members_challenge_a_result_in_turns(stage: Any) -> None:
    state = stage.closed_with(**stage.put(shifted(stage.result())), model_digest=WRONG)
    at, step = state.closed[1].result.at, state.terms.challenge_window_s // 5
    peer = stage.peer(2)
    assert not peer.challenger.settled(state, at + 2 * step - 1)
    assert peer.chain.sent == []
    assert not peer.challenger.settled(state, at + 2 * step)
    assert len(peer.chain.sent) == 1


def test_a_wrong_model_beside_right_roots_is_refused_by_vote_once(stage: Any) -> None:
    """The contract cannot hash a model, so nobody can prove it there."""
    state = stage.closed_with(model_digest=WRONG)
    peer = stage.peer(2)
    assert not peer.challenger.settled(state, stage.now + 2)
    assert peer.chain.sent == [VoteToRefuse(1, WRONG)]
    attempt = state.closed[1]
    voted = apply(state, MotionVoted(Motion.REFUSE, Index(2), 1, attempt.attempt, WRONG, stage.now + 2))
    assert not peer.challenger.settled(voted, stage.now + 3)
    assert len(peer.chain.sent) == 1, "a vote is cast once"


def test_a_wrong_model_that_still_stands_after_the_challenge_window_stops_the_peer_with_its_authors_name(
    stage: Any,
) -> None:
    state = stage.closed_with(model_digest=WRONG)
    peer = stage.peer(2)
    with pytest.raises(Fault, match="the model on chain is not the one the openings give") as caught:
        peer.challenger.settled(state, state.closed[1].result.at + state.terms.challenge_window_s)
    assert caught.value.evidence.offender == stage.members[LIAR].address


def test_a_peer_that_was_slashed_does_not_vote(stage: Any) -> None:
    state = slashed(stage.closed_with(model_digest=WRONG), Index(2), 4, stage.now)
    peer = stage.peer(2)
    assert not peer.challenger.settled(state, stage.now + 2)
    assert peer.chain.sent == []


def test_a_withheld_lie_that_nobody_may_pursue_is_waited_out_and_then_stops_the_peer(stage: Any) -> None:
    lies = {"result_root": Root(b"\x11" * 32), "result_cid": cid_of(b"withheld"), "model_digest": WRONG}
    state = stage.closed_with(**lies)
    peer, over = stage.peer(2), stage.now + 1 + state.terms.challenge_window_s
    peer.context.challenge = False
    assert not peer.challenger.settled(state, over - 1)
    with pytest.raises(Fault, match="the model on chain"):
        peer.challenger.settled(state, over)
    assert peer.chain.sent == []


def test_a_peer_told_not_to_challenge_waits_for_the_window(stage: Any) -> None:
    state = stage.closed_with(**stage.put(shifted(stage.result())), model_digest=WRONG)
    peer = stage.peer(0)
    peer.context.challenge = False
    assert not peer.challenger.settled(state, stage.now + 2)
    assert peer.chain.sent == []


def test_nothing_is_built_on_wrong_roots_that_only_their_author_could_prove(stage: Any) -> None:
    state = stage.closed_with(result_root=Root(b"\x11" * 32), result_cid=cid_of(b"withheld"))
    peer = stage.peer(0)
    peer.context.challenge = False
    assert [peer.challenger.settled(state, stage.now + 2) for _ in range(9)] == [False] * 9


def test_a_round_that_is_open_again_is_closed_again_in_turns(stage: Any) -> None:
    at = stage.now + 50
    lie = stage.closed_with(**stage.put(shifted(stage.result())), model_digest=WRONG)
    state = slashed(apply(lie, ResultRefuted(1, 0, 0, LIAR, at)), LIAR, 3, at)
    assert phase_of(state, 1, at) is Phase.CLOSING
    (result,) = [sent for sent in stage.peer(0).act(state, at) if isinstance(sent, CommitResult)]
    assert (result.model_digest, result.result_root) == (stage.model_digest, stage.honest.result_root)
    window, later = state.terms.aggregate_window_s, stage.peer(1)
    assert not any(isinstance(sent, CommitResult) for sent in later.act(state, at + window - 1))
    assert any(isinstance(sent, CommitResult) for sent in later.act(state, at + window))


def test_an_update_with_a_residue_of_q_or_more_is_proven(stage: Any) -> None:
    state, index = stage.spoiled_update(Index(3))
    peer = stage.peer(4)
    peer.holdings.examine(state, state.current)
    peer.challenger.act(state, stage.now)
    (challenge,) = peer.chain.sent
    assert isinstance(challenge, ChallengeResidue)
    assert upheld(stage, state, challenge) == index == 3
    assert not peer.holdings.whole(state.current) >> 3 & 1


def test_a_bad_residue_is_still_proven_by_who_dies_after_its_receipt(stage: Any) -> None:
    """Nothing is written down of what it had found: it looks again."""
    state, index = stage.spoiled_update(Index(3))
    peer = stage.peer(4)
    (receipt,) = peer.act(state, stage.now)[:1]
    assert not receipt.whole >> index & 1
    attempt = state.current
    posted = ReceiptPosted(attempt.round, attempt.attempt, Index(4), receipt.whole, stage.now)
    peer = peer.restarted()
    (challenge,) = peer.act(apply(state, posted), stage.now)
    assert isinstance(challenge, ChallengeResidue)
    assert upheld(stage, state, challenge) == index
