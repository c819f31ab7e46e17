"""What the watchtower does where the object behind a wrong root is kept back: page by page to the evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedchain.audit.accuser import Accuser
from fedchain.audit.watchtower import Watchtower
from fedchain.crypto import Aggregate, Opening, Result, show_aggregate, show_key_sum, show_opening, show_result
from fedchain.crypto.parameters import PLAIN_MODULUS
from fedchain.protocol.actions import CloseDemand, DemandPage, ShowPage
from fedchain.protocol.demands import check_closed, check_demand, check_shown
from fedchain.protocol.disputes import judge
from fedchain.protocol.events import (
    AggregateCommitted,
    AggregateRefuted,
    DemandClosed,
    MemberSlashed,
    OpeningPublished,
    PageDemanded,
    PageShown,
    ResultCommitted,
    ResultRefuted,
    StopVoted,
)
from fedchain.protocol.evidence import (
    NO_ROOT,
    Challenge,
    ChallengeAggregate,
    ChallengeKeySum,
    ChallengeResult,
)
from fedchain.protocol.ids import Address, Cid, Index
from fedchain.protocol.pages import Kind, Page

ME = Address("0x" + "77" * 20)
D = 1_024
"""The term modelSize of a play: eight leaves."""


class Court:
    """The contract's part, for one account: takes what it sends, and says on chain what becomes of it."""

    address = ME

    def __init__(self, play: Any) -> None:
        self.play = play
        self.sent: list[Any] = []

    def submit(self, key: str, action: Any) -> bytes:
        play, state = self.play, self.play.state
        now = play.chain.time + 5
        self.sent.append(action)
        match action:
            case DemandPage():
                check_demand(state, action, now)
                play.demand(action.page, by=ME)
            case CloseDemand():
                page = action.page
                play.say(DemandClosed(page.name, check_closed(state, action, now), 0))
                if play.chain.events[-1].silent:
                    self.falls(page.kind in (Kind.KEY_SUM, Kind.RESULT), page.kind, page.round, page.index, 6)
            case _:
                liar = judge(state, play.chain.chain_id, play.chain.contract, action, now)
                rule = {ChallengeAggregate: 1, ChallengeKeySum: 2, ChallengeResult: 3}[type(action)]
                kind = Kind.AGGREGATE if rule == 1 else Kind.RESULT
                play.chain.time += 5
                self.falls(rule != 1, kind, action.round, liar, rule, first=True)
        return bytes(32)

    def falls(self, result: bool, kind: Kind, number: int, liar: Index, rule: int, *, first: bool = False) -> None:
        play, half = self.play, 10**16 // 2
        attempt = play.state.closed.get(number, play.state.current).attempt
        say = play.say if first else play.say_with
        if result:
            say(ResultRefuted(number, attempt, 0, liar, 0))
        elif kind is Kind.AGGREGATE:
            say(AggregateRefuted(number, attempt, 0, liar, 0))
        if play.state.bonded >> liar & 1:
            play.say_with(MemberSlashed(liar, ME, number, rule, half, half, 0))


class Scene:
    """A play, a watchtower with an account, and authors that show what they keep back, or do not."""

    def __init__(self, play: Any, folder: Any, deposits: int = 40) -> None:
        self.play = play
        self.court = Court(play)
        self.tower = Watchtower(play.chain, play.store, folder)
        self.told: list[str] = []
        self.accuser = Accuser(play.chain, self.court, self.told.append, deposits)

    def watch(self, answers: Any = None, looks: int = 30) -> list[Any]:
        """What the watchtower sends; `answers(page)` are the words that somebody shows, or None."""
        for _ in range(looks):
            self.accuser.act(self.tower.look())
            for demand in list(self.play.state.demands.values()):
                words = answers(demand.page) if demand.open and answers else None
                if words is not None:
                    shown = ShowPage(demand.page, NO_ROOT, words)
                    check_shown(self.play.state, self.play.chain.chain_id, self.play.chain.contract, shown, 0)
                    self.play.show(demand.page, words, by=self.play.members[demand.page.index])
            self.play.chain.time += 30
        return self.court.sent

    @property
    def demanded(self) -> list[tuple[Kind, int, int]]:
        return [(a.page.kind, a.page.level, a.page.position) for a in self.court.sent if isinstance(a, DemandPage)]

    @property
    def challenges(self) -> list[Challenge]:
        return [a for a in self.court.sent if not isinstance(a, DemandPage | CloseDemand)]


def lying_sum(play: Any, number: int) -> Aggregate:
    """The sum of a round is another, at leaf 1, and its object is nowhere."""
    posted = play.event(AggregateCommitted, round=number)
    total = Aggregate.parse(play.store.served[posted.cid], D)
    residues = total.residues.copy()
    residues[0, 70] += np.uint64(5)
    wrong = replace(total, residues=residues)
    bend(play, AggregateCommitted, number, root=wrong.root(), cid=nowhere(play, wrong.pack()))
    return wrong


def lying_result(play: Any, number: int, *, key_sum: bool = False) -> Result:
    """The result of a round is another, at leaf 2 (of S: at leaf 31), and its object is nowhere."""
    posted = play.event(ResultCommitted, round=number)
    right = Result.parse(play.store.served[posted.result_cid], D)
    if key_sum:
        elements = right.elements.copy()
        elements[2000] = (int(elements[2000]) + 1) % 65521
        wrong = replace(right, elements=elements)
    else:
        coefficients = right.coefficients.copy()
        coefficients[2, 9] = (coefficients[2, 9] + 1) % PLAIN_MODULUS
        wrong = replace(right, coefficients=coefficients)
    roots = {"key_sum_root": wrong.key_sum_root(), "result_root": wrong.root()}
    bend(play, ResultCommitted, number, **roots, result_cid=nowhere(play, wrong.pack()))
    return wrong


def nowhere(play: Any, content: bytes) -> Cid:
    cid: Cid = play.store.put(content)
    del play.store.served[cid]
    return cid


def bend(play: Any, kind: type, number: int, **changes: Any) -> None:
    at = play.place(kind, round=number)
    play.chain.events[at] = replace(play.chain.events[at], **changes)


def test_a_wrong_sum_that_is_kept_back_is_shown_page_by_page_and_challenged(honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    wrong = lying_sum(play, 2)
    scene = Scene(play, tmp_path)
    scene.watch(lambda page: show_aggregate(page, wrong))
    assert scene.demanded == [(Kind.AGGREGATE, 3, 0), (Kind.AGGREGATE, 0, 1)]
    (challenge,) = scene.challenges
    assert isinstance(challenge, ChallengeAggregate) and challenge.leaf == 1
    report = play.audit()
    assert [(f.what, f.by, f.offender) for f in report.refutations] == [("aggregate", "challenge", 1)]
    assert [d.outcome for d in report.demands] == ["shown", "shown"]
    assert any("R1 against" in line and "upheld" in line for line in scene.told)


def test_a_wrong_result_that_is_kept_back_is_shown_page_by_page_and_challenged(honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    wrong = lying_result(play, 2)
    scene = Scene(play, tmp_path)
    scene.watch(lambda page: show_result(page, wrong))
    assert scene.demanded == [(Kind.RESULT, 3, 0), (Kind.RESULT, 0, 2)]
    (challenge,) = scene.challenges
    assert isinstance(challenge, ChallengeResult) and challenge.coefficient == 2 * 64 + 9
    assert [(f.what, f.by, f.right) for f in play.audit().refutations] == [("result", "challenge", False)]


def test_a_wrong_key_sum_that_is_kept_back_is_refuted_by_its_openings(honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    wrong = lying_result(play, 2, key_sum=True)
    scene = Scene(play, tmp_path)
    scene.watch(lambda page: show_key_sum(page, wrong))
    assert scene.demanded == [(Kind.KEY_SUM, 5, 0), (Kind.KEY_SUM, 0, 31)]
    (challenge,) = scene.challenges
    assert isinstance(challenge, ChallengeKeySum) and challenge.leaf == 31


@pytest.fixture
def hidden_opener(honest: Any) -> tuple[Any, Result, Opening]:
    """A wrong S that is kept back beside one of the openings that it is said to follow from."""
    play = honest.copy()
    wrong = lying_result(play, 2, key_sum=True)
    opener = play.event(ResultCommitted, round=2).openers.bit_length() - 1
    published = play.event(OpeningPublished, round=2, index=opener)
    opening = Opening.parse(play.store.served.pop(published.cid))
    return play, wrong, opening


def test_an_openers_leaf_that_is_kept_back_is_demanded_too(hidden_opener: Any, tmp_path: Any) -> None:
    play, wrong, opening = hidden_opener
    scene = Scene(play, tmp_path)
    scene.watch(lambda page: show_opening(page, opening) if page.kind is Kind.OPENING else show_key_sum(page, wrong))
    assert [(kind, level) for kind, level, _ in scene.demanded] == [
        (Kind.KEY_SUM, 5),
        (Kind.KEY_SUM, 0),
        (Kind.OPENING, 0),
    ]
    assert [type(challenge) for challenge in scene.challenges] == [ChallengeKeySum]


def test_an_opener_that_stays_silent_falls_and_all_of_s_is_the_evidence(hidden_opener: Any, tmp_path: Any) -> None:
    play, wrong, _ = hidden_opener

    def answers(page: Page) -> Any:
        if page.kind is Kind.KEY_SUM:
            return show_key_sum(page, wrong)
        return show_result(page, wrong) if page.kind is Kind.RESULT else None

    scene = Scene(play, tmp_path)
    scene.watch(answers)
    assert [type(challenge) for challenge in scene.challenges] == [ChallengeResult]
    fallen = [(f.what, f.by) for f in play.audit().refutations]
    assert fallen == [("opening", "silence"), ("result", "challenge")]


@pytest.mark.parametrize("lies", [lying_sum, lying_result])
def test_an_author_that_shows_nothing_falls_for_its_silence(honest: Any, tmp_path: Any, lies: Any) -> None:
    play = honest.copy()
    lies(play, 2)
    scene = Scene(play, tmp_path)
    scene.watch()
    assert [type(action) for action in scene.court.sent] == [DemandPage, CloseDemand]
    (fallen,) = play.audit().refutations
    assert (fallen.by, fallen.offender, fallen.right) == ("silence", 1, False)
    # The deposit, and half of the bond.
    assert play.state.rewards[ME] == 10**16 // 32 + 10**16 // 2


def test_an_author_that_stops_halfway_falls_for_its_silence(honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    wrong = lying_result(play, 2)
    scene = Scene(play, tmp_path)
    scene.watch(lambda page: show_result(page, wrong) if page.level else None)
    assert [type(action) for action in scene.court.sent] == [DemandPage, DemandPage, CloseDemand]
    assert play.audit().refutations[0].by == "silence"


def test_a_right_sum_that_is_kept_back_is_demanded_by_nobody(honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    del play.store.served[play.event(AggregateCommitted, round=2).cid]
    scene = Scene(play, tmp_path)
    assert scene.watch(looks=3) == []


def test_deposits_end_where_the_budget_does(honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    wrong = lying_result(play, 2)
    scene = Scene(play, tmp_path, deposits=1)
    scene.watch(lambda page: show_result(page, wrong))
    # The author shows the first page, and has the deposit.
    assert len(scene.demanded) == 1 and scene.challenges == []
    assert any("--demand-budget" in line for line in scene.told)


def test_pages_that_another_demanded_are_built_upon(named: Any, honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    wrong = lying_result(play, 2)
    scene = Scene(play, tmp_path, deposits=1)
    page = next(iter(scene.tower.look()[0].wanted))
    play.demand(page, by=named.STRANGER)
    scene.watch(lambda page: show_result(page, wrong))
    assert [level for _, level, _ in scene.demanded] == [0]
    assert len(scene.challenges) == 1


def test_the_demand_of_somebody_who_does_not_close_it_is_closed(named: Any, honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    lying_result(play, 2)
    scene = Scene(play, tmp_path)
    play.demand(next(iter(scene.tower.look()[0].wanted)), by=named.STRANGER)
    scene.watch()
    assert [type(action) for action in scene.court.sent] == [CloseDemand]


def test_who_only_watches_is_told_what_would_have_to_be_demanded(honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    lying_result(play, 2)
    told: list[str] = []
    Accuser(play.chain, None, told.append).act(Watchtower(play.chain, play.store, tmp_path).look())
    assert any("is kept back; give --challenge and a --key" in line for line in told)


def test_the_younger_of_two_wrong_results_falls_first(honest: Any, tmp_path: Any) -> None:
    """The older one's object is there: it could be challenged at once, and the younger round would be forgotten."""
    play = honest.copy()
    older, younger = lying_result(play, 1), lying_result(play, 2)
    bend(play, ResultCommitted, 1, result_cid=play.store.put(older.pack()))
    scene, asked = Scene(play, tmp_path), set[bytes]()

    def slowly(page: Page) -> Any:
        if page.name in asked:
            return show_result(page, younger)
        asked.add(page.name)
        return None

    scene.watch(slowly)
    assert [(type(c), c.round) for c in scene.challenges] == [(ChallengeResult, 2), (ChallengeResult, 1)]  # type: ignore[union-attr]
    assert [(f.round, f.offender) for f in play.audit().refutations] == [(2, 1), (1, 0)]


def test_no_author_waits_for_another_when_time_runs_out(honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    older = lying_result(play, 1)
    lying_result(play, 2)
    bend(play, ResultCommitted, 1, result_cid=play.store.put(older.pack()))
    for index in (0, 1, 2):
        play.say(StopVoted(3, Index(index), 0))
    play.chain.time += play.state.terms.challenge_window_s - 200
    scene = Scene(play, tmp_path)
    scene.watch(looks=3)
    assert [getattr(c, "round", 0) for c in scene.challenges] == [1]


def test_a_demand_about_an_older_result_waits_no_longer_than_it_may(honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    lying_result(play, 1)
    lying_result(play, 2)
    # Of the older result pages may be demanded for a hundred seconds more.
    play.chain.time = play.event(ResultCommitted, round=1).at + play.state.terms.challenge_window_s - 100
    scene = Scene(play, tmp_path)
    scene.watch(looks=2)
    assert [action.page.round for action in scene.court.sent] == [2, 1]


def test_every_demand_that_the_audit_reads_afterwards_is_in_order(honest: Any, tmp_path: Any) -> None:
    play = honest.copy()
    wrong = lying_result(play, 2)
    scene = Scene(play, tmp_path)
    scene.watch(lambda page: show_result(page, wrong))
    kinds = [type(event) for event in play.chain.events[-6:]]
    assert kinds == [PageDemanded, PageShown, PageDemanded, PageShown, ResultRefuted, MemberSlashed]
    # All that is left is what a closed round owes: nobody was wronged.
    assert {fault.check for fault in play.audit().faults} == set()
