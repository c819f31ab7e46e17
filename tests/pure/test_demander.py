"""A lie that is kept back, brought down by demands: what one peer demands, what its author shows, and what follows."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from fedchain.crypto import Aggregate, Opening, make_opening
from fedchain.crypto.aggregate import leaf_hashes
from fedchain.crypto.shamir import interpolate, point_of
from fedchain.peer.demander import Pursuit
from fedchain.peer.start import DEPOSITS
from fedchain.protocol.actions import CloseDemand, DemandPage, ShowPage, VoteToRefuse
from fedchain.protocol.demands import check_closed, check_demand, check_shown
from fedchain.protocol.disputes import judge
from fedchain.protocol.events import (
    AggregateRefuted,
    DemandClosed,
    MemberSlashed,
    OpeningPublished,
    PageDemanded,
    PageShown,
    ResultRefuted,
)
from fedchain.protocol.evidence import NO_ROOT, ChallengeAggregate, ChallengeKeySum, ChallengeResult
from fedchain.protocol.ids import Digest, Index, Root, bitmap_of, members_of
from fedchain.protocol.merkle import depth_of, levels_of
from fedchain.protocol.pages import Kind, show
from fedchain.protocol.phase import finished_at
from fedchain.protocol.scheme import leaves_of
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply

WRONG = Digest(b"z" * 32)
LIAR = Index(4)
HIDING = Index(0)
"""Who locked the wrong sum."""


class Court:
    """The contract's part: takes what peers send about demands, and tells everybody what became of it."""

    def __init__(self, stage: Any, state: FederationState, now: int) -> None:
        self.stage, self.state, self.now = stage, state, now
        self.events: list[Any] = []

    def peer(self, index: int, *withheld: str) -> Any:
        peer = self.stage.peer(index)
        peer.chain.events = self.events
        for cid in withheld:
            del peer.store.objects[cid]
        return peer

    def say(self, event: Any) -> None:
        self.events.append(event)
        self.state = apply(self.state, event)

    def take(self, peer: Any) -> list[Any]:
        """Carry out what the peer sent since the last time about demands; gives the rest."""
        sent, rest = list(peer.chain.sent), []
        peer.chain.sent.clear()
        for action in sent:
            match action:
                case DemandPage():
                    check_demand(self.state, action, self.now)
                    deadline = self.now + self.state.terms.answer_window_s
                    self.say(PageDemanded(action.page.name, peer.context.address, deadline, action.page, self.now))
                case ShowPage():
                    check_shown(self.state, peer.chain.chain_id, peer.chain.contract, action, self.now)
                    said = action.other, action.words
                    self.say(PageShown(action.page.name, peer.context.address, *said, self.now))
                case CloseDemand():
                    self.close(peer, action)
                case _:
                    rest.append(action)
        return rest

    def close(self, peer: Any, action: CloseDemand) -> None:
        page = action.page
        silent = check_closed(self.state, action, self.now)
        self.say(DemandClosed(page.name, silent, self.now))
        if silent:
            place = page.round, page.attempt, page.group, page.index, self.now
            if page.kind is Kind.AGGREGATE:
                self.say(AggregateRefuted(*place))
            elif page.kind in (Kind.KEY_SUM, Kind.RESULT):
                self.say(ResultRefuted(*place))
            self.say(MemberSlashed(page.index, peer.context.address, page.round, 6, 0, 0, self.now))

    def settle(self, peer: Any, *answering: Any) -> list[Any]:
        """What the peer sends in the end about a closed round, when the others answer what is demanded."""
        for _ in range(12):
            assert not peer.challenger.settled(self.state, self.now)
            if rest := self.take(peer):
                return rest
            for other in answering:
                while other.respondent.act(self.state, self.now):
                    self.take(other)
            self.now += 1
        return []

    def upheld(self, challenge: Any) -> int:
        chain = self.stage.peer_chain
        return judge(self.state, chain.chain_id, chain.contract, challenge, self.now)


def demanded(court: Court) -> list[tuple[Kind, int, int]]:
    pages = [demand.page for demand in court.state.demands.values()]
    return [(page.kind, page.level, page.position) for page in pages]


def lying_sum(stage: Any) -> tuple[FederationState, str]:
    right = stage.world.state.closed[1].aggregate
    total = Aggregate.parse(stage.world.store[right.cid], stage.closing.terms.model_size)
    residues = total.residues.copy()
    residues[0, 130] += np.uint64(1)
    wrong = replace(total, residues=residues)
    cid = stage.world.put(wrong.pack())
    return stage.locked_by(right, root=wrong.root(), cid=cid), cid


def all_open(stage: Any) -> None:
    """The two members that let the others open do so as well."""
    participants = members_of(stage.closing.current.aggregate.participants)
    for member in stage.members:
        if member.index not in stage.closing.current.openings:
            opening = make_opening([member.shares[i] for i in participants])
            spoken = opening.root(), stage.world.put(opening.encode())
            stage.closing = apply(stage.closing, OpeningPublished(1, 0, 0, member.index, *spoken, at=stage.now))


def test_a_wrong_sum_that_is_kept_back_is_shown_page_by_page_and_refuted(stage: Any) -> None:
    state, cid = lying_sum(stage)
    court = Court(stage, state, stage.now)
    peer, author = court.peer(1, cid), court.peer(HIDING)
    challenges: list[Any] = []
    for _ in range(6):
        peer.challenger.act(court.state, court.now)
        challenges += court.take(peer)
        if challenges:
            break
        while author.respondent.act(court.state, court.now):
            court.take(author)
        court.now += 1
    (challenge,) = challenges
    depth = depth_of(leaves_of(state.terms.model_size))
    assert demanded(court) == [(Kind.AGGREGATE, depth, 0), (Kind.AGGREGATE, 0, 2)]
    assert isinstance(challenge, ChallengeAggregate) and challenge.leaf == 2
    assert court.upheld(challenge) == HIDING


def test_silence_on_a_demand_is_closed_and_the_sum_falls(stage: Any) -> None:
    state, cid = lying_sum(stage)
    court = Court(stage, state, stage.now)
    peer = court.peer(1, cid)
    for _ in range(3):
        peer.challenger.act(court.state, court.now)
        assert court.take(peer) == []
    (demand,) = court.state.demands.values()
    court.now = demand.deadline - 1
    peer.challenger.act(court.state, court.now)
    assert court.take(peer) == [] and court.state.demands[demand.page.name].open
    court.now += 1
    peer.challenger.act(court.state, court.now)
    assert court.take(peer) == []
    assert court.state.slashed == 1 << HIDING
    assert court.state.current.posted_sum is None
    peer.challenger.act(court.state, court.now)
    assert court.take(peer) == [], "it is over"


def test_others_let_the_one_who_demanded_close_first(stage: Any) -> None:
    state, cid = lying_sum(stage)
    court = Court(stage, state, stage.now)
    first, second = court.peer(1, cid), court.peer(2, cid)
    for peer in (first, second, first, second):
        peer.challenger.act(court.state, court.now)
        court.take(peer)
    (demand,) = court.state.demands.values()
    assert demand.demander == first.context.address, "the second waits for its turn, and demands no page twice"
    patience = court.state.terms.answer_window_s // 2
    second.challenger.act(court.state, demand.deadline + patience - 1)
    assert second.chain.sent == []
    second.challenger.act(court.state, demand.deadline + patience)
    assert [type(action) for action in second.chain.sent] == [CloseDemand]


def test_a_wrong_coefficient_that_is_kept_back_is_shown_and_refuted(stage: Any) -> None:
    right = stage.result()
    coefficients = right.coefficients.copy()
    coefficients[7, 3] += np.uint64(1)
    lies = stage.put(replace(right, coefficients=coefficients))
    court = Court(stage, stage.closed_with(**lies, model_digest=WRONG), stage.now + 2)
    (challenge,) = court.settle(court.peer(0, lies["result_cid"]), court.peer(LIAR))
    depth = depth_of(leaves_of(stage.closing.terms.model_size))
    assert demanded(court) == [(Kind.RESULT, depth, 0), (Kind.RESULT, 0, 7)]
    assert isinstance(challenge, ChallengeResult) and challenge.coefficient == 7 * 64 + 3
    assert court.upheld(challenge) == LIAR


def test_a_wrong_key_sum_that_is_kept_back_is_shown_and_refuted_by_the_openings(stage: Any) -> None:
    right = stage.result()
    elements = right.elements.copy()
    elements[70] ^= 1
    lies = stage.put(replace(right, elements=elements))
    court = Court(stage, stage.closed_with(**lies, model_digest=WRONG), stage.now + 2)
    (challenge,) = court.settle(court.peer(0, lies["result_cid"]), court.peer(LIAR))
    assert demanded(court) == [(Kind.KEY_SUM, 5, 0), (Kind.KEY_SUM, 0, 1)]
    assert isinstance(challenge, ChallengeKeySum) and challenge.leaf == 1
    assert court.upheld(challenge) == LIAR


def test_an_openers_leaf_that_nobody_has_is_demanded_from_its_author(stage: Any) -> None:
    all_open(stage)
    right = stage.result()
    elements = right.elements.copy()
    elements[70] ^= 1
    lies = stage.put(replace(right, elements=elements))
    state = stage.closed_with(**lies, model_digest=WRONG)
    # One of the openers keeps its opening to itself; five openings were published, so everybody decodes all the same.
    assert state.closed[1].result.openers >> 2 & 1
    hidden = state.closed[1].openings[Index(2)].cid
    court = Court(stage, state, stage.now + 2)
    (challenge,) = court.settle(court.peer(0, lies["result_cid"], hidden), court.peer(LIAR), court.peer(2))
    assert demanded(court) == [(Kind.KEY_SUM, 5, 0), (Kind.KEY_SUM, 0, 1), (Kind.OPENING, 0, 1)]
    assert isinstance(challenge, ChallengeKeySum)
    assert court.upheld(challenge) == LIAR


def conspired(stage: Any, places: list[int]) -> tuple[FederationState, str]:
    """The closer took an opening that its accomplice had made wrong in these places; nobody can fetch the result."""
    all_open(stage)
    closing, right = stage.closing, stage.result()
    attempt = closing.current
    opened = {i: Opening.parse(stage.world.store[p.cid]) for i, p in attempt.openings.items()}
    elements = opened[Index(2)].elements.copy()
    elements[places] = (elements[places].astype(np.int64) + 1) % 65521
    forged = Opening(elements)
    accomplice = replace(attempt.openings[Index(2)], root=forged.root(), cid=stage.world.put(forged.encode()))
    openings = MappingProxyType({**attempt.openings, Index(2): accomplice})
    stage.closing = replace(closing, current=replace(attempt, openings=openings))
    committee = [Index(0), Index(1), Index(2)]
    values = np.stack([(forged if i == 2 else opened[i]).elements for i in committee]).astype(np.int64)
    key_sum = interpolate([point_of(i) for i in committee], values)
    lies = stage.put(replace(right, elements=key_sum.astype(np.uint16)))
    state = stage.closed_with(**lies, model_digest=WRONG, openers=bitmap_of(committee))
    return state, lies["result_cid"]


@pytest.mark.parametrize("leaves", [[1], list(range(32))])
def test_a_key_sum_that_follows_from_a_wrong_opening_falls_by_its_noise(stage: Any, leaves: list[int]) -> None:
    """R2 holds nothing against it; R3 needs all of its S, and so every leaf of it that is not the right one."""
    state, cid = conspired(stage, [64 * leaf + 6 for leaf in leaves])
    court = Court(stage, state, stage.now + 2)
    (challenge,) = court.settle(court.peer(0, cid), court.peer(LIAR))
    assert isinstance(challenge, ChallengeResult)
    first, *others = demanded(court)
    assert first == (Kind.KEY_SUM, 5, 0)
    assert [kind for kind, _, _ in others] == [Kind.KEY_SUM] * len(leaves) + [Kind.RESULT]
    assert {position for kind, _, position in others if kind is Kind.KEY_SUM} == set(leaves)
    assert len(others) < DEPOSITS, "the costliest lie is within what a peer risks unless it is told otherwise"
    assert court.upheld(challenge) == LIAR


def test_what_is_demanded_at_once_is_within_the_deposits_too(stage: Any) -> None:
    state, cid = conspired(stage, [64 * leaf + 6 for leaf in range(32)])
    court = Court(stage, state, stage.now + 2)
    peer = court.peer(0, cid)
    peer.context.deposits = 7
    assert court.settle(peer, court.peer(LIAR)) == []
    assert len(court.state.demands) == 7


def test_a_root_that_is_wrong_in_its_padding_alone_is_refused_by_vote(stage: Any) -> None:
    """Every leaf is right, so nothing can be proven; but who can show the padding could bring it down later."""
    right = stage.result()
    hashes = [*leaf_hashes(right.coefficients), b"\x55" * 32]
    root = Root(levels_of(hashes)[-1][0])
    court = Court(stage, stage.closed_with(result_root=root), stage.now + 2)
    peer = court.peer(0)
    assert not peer.challenger.settled(court.state, court.now)
    assert court.take(peer) == []
    (demand,) = court.state.demands.values()
    words = show(demand.page, hashes)
    court.say(PageShown(demand.page.name, stage.members[LIAR].address, NO_ROOT, words, court.now))
    assert not peer.challenger.settled(court.state, court.now)
    assert court.take(peer) == [VoteToRefuse(1, stage.model_digest)]


def test_no_more_than_its_deposits_are_risked(stage: Any) -> None:
    state, cid = lying_sum(stage)
    court = Court(stage, state, stage.now)
    peer, author = court.peer(1, cid), court.peer(HIDING)
    peer.context.deposits = 1
    for _ in range(6):
        peer.challenger.act(court.state, court.now)
        assert court.take(peer) == []
        while author.respondent.act(court.state, court.now):
            court.take(author)
    assert len(court.state.demands) == 1, "the first deposit is the author's now; no second one follows"


def test_a_peer_told_not_to_challenge_demands_nothing(stage: Any) -> None:
    state, cid = lying_sum(stage)
    court = Court(stage, state, stage.now)
    peer = court.peer(1, cid)
    peer.context.challenge = False
    for _ in range(3):
        peer.challenger.act(court.state, court.now)
    assert peer.chain.sent == []


@pytest.mark.parametrize("held", [True, False])
def test_what_the_contract_would_refuse_is_not_demanded(stage: Any, held: bool) -> None:
    """Once a run is over for a challenge window nobody answers for anything."""
    state, cid = lying_sum(stage)
    finished = finished_at(state, stage.now + 2 * state.terms.close_window_s)
    assert finished is not None
    court = Court(stage, state, finished + state.terms.challenge_window_s - held)
    peer = court.peer(1, cid)
    attempt = court.state.current
    peer.holdings.examine(court.state, attempt)
    found = peer.challenger._demander.pursue_sum(court.state, attempt, attempt.posted_sum, court.now)
    assert found is (Pursuit.SENT if held else Pursuit.STUCK)
