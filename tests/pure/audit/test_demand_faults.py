"""Pages that were demanded, shown or kept back, and what followed: recomputed from the words and the record."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedchain.audit import audit
from fedchain.audit.bundle import BundleWriter, open_bundle
from fedchain.crypto import Aggregate, show_aggregate, show_ciphertext
from fedchain.protocol.cid import cid_of
from fedchain.protocol.descent import aggregate_page, opening_page, result_pages
from fedchain.protocol.events import (
    AggregateCommitted,
    AggregateRefuted,
    DemandClosed,
    MemberSlashed,
    PageDemanded,
    PageShown,
    ResultCommitted,
    ResultRefuted,
    RewardWithdrawn,
)
from fedchain.protocol.ids import Index, Root
from fedchain.protocol.pages import Kind, Page

CONTRACT = "the contract"
BOND = 10**16
D = 1_024
"""The term modelSize of a play: eight leaves."""
DEPOSIT = BOND // 32


def contract_faults(named: Any, report: Any) -> set[tuple[int, str]]:
    return {(check, who) for check, _, who in named.found(report)}


@pytest.mark.parametrize(
    "forged",
    [
        lambda play: play.edited(PageDemanded, {"deadline": play.event(PageDemanded).at + 500}),
        lambda play: play.edited(PageDemanded, {"demand": b"\1" * 32}),
        lambda play: play.edited(PageDemanded, lambda e: {"page": replace(e.page, level=4)}),
        lambda play: play.edited(PageDemanded, lambda e: {"page": replace(e.page, index=Index(3))}),
        lambda play: play.edited(PageDemanded, lambda e: {"page": replace(e.page, word=b"\1" * 32)}),
        lambda play: play.inserted(play.event(PageDemanded), PageDemanded),
        lambda play: play.edited(PageShown, lambda e: {"words": (e.words[1], e.words[0], *e.words[2:])}),
        lambda play: play.edited(PageShown, lambda e: {"words": e.words[:-1]}),
        lambda play: play.edited(PageShown, {"other": Root(b"\1" * 32)}),
        lambda play: play.edited(PageShown, lambda e: {"at": e.at + 125}),
        lambda play: play.edited(PageShown, {"demand": b"\1" * 32}),
        lambda play: play.inserted(play.event(PageShown), PageShown),
        lambda play: play.edited(RewardWithdrawn, {"amount_wei": 2 * DEPOSIT}),
        lambda play: play.edited(RewardWithdrawn, {"account": "0x" + "99" * 20}),
    ],
    ids=[
        "deadline",
        "name",
        "node",
        "author",
        "root",
        "twice",
        "words swapped",
        "a word less",
        "other",
        "too late",
        "of nothing",
        "shown twice",
        "reward",
        "whose reward",
    ],
)
def test_a_demand_or_an_answer_that_cannot_be_names_the_contract(named: Any, lively: Any, forged: Any) -> None:
    assert (12, CONTRACT) in contract_faults(named, forged(lively).audit())


def test_a_page_of_a_ciphertext_is_held_to_its_commitment(named: Any, honest: Any) -> None:
    play = honest.copy()
    attempt = play.state.closed[1]
    commit, upload = attempt.commits[Index(2)], play.uploads[1, Index(2)]
    page = Page(Kind.CIPHERTEXT, Index(2), 1, 0, 0, 0, 3, commit.commitment)
    play.demand(page, by=named.STRANGER)
    play.show(page, show_ciphertext(page, upload.ciphertext, D), named.STRANGER, upload.shares_root)
    report = play.audit()
    assert report.faults == ()
    assert (report.demands[0].kind, report.demands[0].position, report.demands[0].outcome) == ("ciphertext", 3, "shown")
    assert report.money.rewards == DEPOSIT
    bent = play.edited(PageShown, {"other": Root(b"\1" * 32)})
    assert contract_faults(named, bent.audit()) == {(12, CONTRACT)}


class Kept:
    """A first round that is closed, with a page of it demanded, and nobody shows it."""

    def __init__(self, honest: Any, stranger: Any, page_of: Any, *, falls: bool = True) -> None:
        self.play = play = honest.copy()
        end = play.place(ResultCommitted, round=1) + 1
        play.chain.events = play.chain.events[:end]
        play.chain.time = play.chain.events[-1].at
        self.attempt = attempt = play.state.closed[1]
        self.page = page = page_of(attempt)
        play.demand(page, by=stranger)
        play.say(DemandClosed(page.name, True, 0), after_s=125)
        if not falls:
            return
        place = (1, 0, 0, page.index)
        if page.kind is Kind.AGGREGATE:
            play.say_with(AggregateRefuted(*place, 0))
        elif page.kind in (Kind.KEY_SUM, Kind.RESULT):
            play.say_with(ResultRefuted(*place, 0))
        play.say_with(MemberSlashed(page.index, stranger, 1, 6, BOND // 2, BOND // 2, 0))


def sum_page(attempt: Any) -> Page:
    return aggregate_page(attempt.posted_sum, D)


def result_page(attempt: Any) -> Page:
    return result_pages(attempt, D)[1]


def key_sum_page(attempt: Any) -> Page:
    return result_pages(attempt, D)[0]


def upload_page(attempt: Any) -> Page:
    return Page(Kind.CIPHERTEXT, Index(1), 1, 0, 0, 3, 0, attempt.commits[Index(1)].commitment)


def one_opening(attempt: Any) -> Page:
    return opening_page(attempt.openings[Index(3)])


@pytest.mark.parametrize(
    ("page_of", "what", "author"),
    [
        (sum_page, "aggregate", 0),
        (result_page, "result", 0),
        (key_sum_page, "result", 0),
        (upload_page, "update", 1),
        (one_opening, "opening", 3),
    ],
)
def test_what_was_kept_back_and_fell_is_told_and_is_no_fault(
    named: Any, honest: Any, terminal: Any, page_of: Any, what: str, author: int
) -> None:
    report = Kept(honest, named.STRANGER, page_of).play.audit()
    assert report.faults == ()
    (fallen,) = report.refutations
    assert (fallen.what, fallen.by, fallen.offender, fallen.attempt) == (what, "silence", author, 0)
    assert fallen.slash is not None and (fallen.slash.rule, fallen.slash.reward_wei) == (6, BOND // 2)
    # Half a bond, and the deposit.
    assert (report.money.rewards, report.money.burnt, report.money.deposits) == (BOND // 2 + DEPOSIT, BOND // 2, 0)
    assert report.demands[0].outcome == "silent"
    text = terminal(report)
    assert f"the {what} of {named.MEMBERS[author]} was kept back (R6): slashed" in text
    assert "kept back, and its author fell" in text
    # A right sum that is kept back falls as well: it was right all the same.
    assert fallen.right is (True if what in ("aggregate", "result") else None)


@pytest.mark.parametrize("page_of", [sum_page, result_page, upload_page, one_opening])
def test_silence_with_nothing_after_it_names_the_contract(named: Any, honest: Any, page_of: Any) -> None:
    report = Kept(honest, named.STRANGER, page_of, falls=False).play.audit()
    assert contract_faults(named, report) == {(12, CONTRACT)}
    assert any("right after DemandClosed" in fault.expected for fault in report.faults)


@pytest.mark.parametrize(
    "forged",
    [
        lambda play: play.edited(DemandClosed, {"silent": False}),
        lambda play: play.edited(DemandClosed, lambda e: {"at": e.at - 1}),
        lambda play: play.edited(AggregateRefuted, {"index": Index(2)}),
        lambda play: play.edited(MemberSlashed, {"challenger": "0x" + "77" * 20}),
        lambda play: play.edited(MemberSlashed, {"rule": 1}),
        lambda play: play.edited(MemberSlashed, {"burnt_wei": 1}),
        lambda play: play.dropped(AggregateRefuted),
        lambda play: play.dropped(MemberSlashed),
        lambda play: play.dropped(PageDemanded),
        lambda play: play.dropped(DemandClosed),
    ],
    ids=[
        "silent",
        "too early",
        "whose sum",
        "who is paid",
        "rule",
        "burnt",
        "no fall",
        "no slash",
        "no demand",
        "no end",
    ],
)
def test_an_end_of_a_demand_that_does_not_follow_names_the_contract(named: Any, honest: Any, forged: Any) -> None:
    play = forged(Kept(honest, named.STRANGER, sum_page).play)
    assert (12, CONTRACT) in contract_faults(named, play.audit())


def test_the_fall_of_another_transaction_does_not_follow(named: Any, honest: Any) -> None:
    kept = Kept(honest, named.STRANGER, sum_page)
    kept.play.chain.together.clear()
    assert (12, CONTRACT) in contract_faults(named, kept.play.audit())


def test_a_demand_whose_statement_fell_meanwhile_costs_nobody_anything(named: Any, honest: Any) -> None:
    kept = Kept(honest, named.STRANGER, result_page, falls=False)
    closed = kept.play.chain.events.pop()
    kept.play.chain.time -= 125
    bond = (BOND // 2, BOND // 2)
    kept.play.say(ResultRefuted(1, 0, 0, Index(0), 0))
    kept.play.say_with(MemberSlashed(Index(0), named.STRANGER, 1, 3, *bond, 0))
    kept.play.say(replace(closed, silent=False), after_s=125)
    report = kept.play.audit()
    # (That a right result was challenged is the contract's fault; the demand is nobody's.)
    assert {fault.expected for fault in report.faults} == {"only wrong statements refuted"}
    assert report.demands[0].outcome == "closed"


def test_a_demand_of_what_nobody_answers_for_any_more_names_the_contract(named: Any, lively: Any) -> None:
    play = lively.copy()
    play.chain.time += play.state.terms.challenge_window_s
    play.demand(sum_page(play.state.closed[2]), by=named.STRANGER)
    assert contract_faults(named, play.audit()) == {(12, CONTRACT)}


def test_an_open_demand_holds_its_deposit(named: Any, honest: Any, terminal: Any) -> None:
    play = honest.copy()
    play.demand(sum_page(play.state.closed[2]), by=named.STRANGER)
    report = play.audit()
    assert report.faults == ()
    assert (report.money.deposits, report.demands[0].outcome) == (DEPOSIT, "open")
    assert "1 page of the aggregate of" in terminal(report) and "1 open" in terminal(report)


@pytest.mark.parametrize(("wei", "faulty"), [(-1, True), (0, False), (1, False)])
def test_a_contract_that_holds_less_than_was_paid_in_is_named(
    named: Any, lively: Any, tmp_path: Any, wei: int, faulty: bool
) -> None:
    held = lively.audit().money.held
    file = tmp_path / "audit.zip"
    writer = BundleWriter(lively.store, file)
    audit(lively.chain, writer)
    writer.finish(lively.chain, b"", b"", held + wei)
    with open_bundle(file) as bundle:
        report = audit(bundle, bundle, code_check=lambda: None)
    assert contract_faults(named, report) == ({(12, CONTRACT)} if faulty else set())
    assert report.money.balance == held + wei
    detail = next(check.detail for check in report.checks if check.number == 12)
    assert ("1 wei more" in detail) is (wei == 1)


def test_a_shown_page_of_a_wrong_sum_is_no_fault_of_the_contract(named: Any, honest: Any) -> None:
    """What was shown belongs to the root on record; that the root is wrong is its author's fault, and check 7's."""
    total = Aggregate.parse(honest.store.served[honest.event(AggregateCommitted, round=2).cid], D)
    residues = total.residues.copy()
    residues[0, 70] += named.numpy.uint64(5)
    wrong = replace(total, residues=residues)
    cid = cid_of(wrong.pack())
    play = honest.edited(AggregateCommitted, {"root": wrong.root(), "cid": cid}, round=2)
    play.store.put(wrong.pack())
    page = sum_page(play.state.closed[2])
    play.demand(page, by=named.STRANGER)
    play.show(page, show_aggregate(page, wrong), by=named.MEMBERS[1])
    assert named.found(play.audit()) == {(7, 2, named.MEMBERS[1])}
