"""Who joins, leaves, rotates its key and takes its bond back (checks 2 and 12), held to the rules and told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedchain.audit.html import render_html
from fedchain.protocol.events import (
    BondWithdrawn,
    EncryptionKeyRotated,
    MemberAdmitted,
    MemberEnrolled,
    MemberLeaving,
    MemberSlashed,
    Motion,
    MotionVoted,
    ReceiptPosted,
)
from fedchain.protocol.ids import Address, Index

CONTRACT = "the contract"


def test_members_who_come_and_go_are_told_and_are_no_fault(named: Any, lively: Any) -> None:
    report = lively.audit()
    assert report.faults == () and report.complete
    standings = [member.standing for member in report.members]
    assert standings == ["counts", "counts", "counts", "left", "removed", "counts"]
    assert [member.founder for member in report.members] == [True] * 5 + [False]
    assert [member.keys for member in report.members] == [1, 1, 2, 1, 1, 1]
    assert [member.strikes for member in report.members] == [1, 0, 0, 0, 0, 0]
    assert report.members[5].address == named.JOINER
    assert [account.participants for account in report.rounds] == [(0, 1, 2, 3, 4), (0, 1, 2, 3, 5), (0, 1, 2, 3, 5)]


def test_every_form_of_the_report_tells_who_came_and_went(named: Any, lively: Any, terminal: Any) -> None:
    report = lively.audit()
    text, page, entries = terminal(report), render_html(report), report.to_json()
    assert f"member 4 ({named.MEMBERS[4]}): removed" in text
    assert "member 0 (" in text and "1 strike" in text
    for form in (text, page):
        assert f"to admit {named.JOINER}" in form and "to give up the set of attempt 1" in form
        assert "no founder" in form or "not a founder" in form
    assert [v["motion"] for v in entries["votings"]] == ["admit", "remove", "abandon"]
    assert all(v["voters"] == (0, 1, 2) and v["carried_at"] for v in entries["votings"])
    assert (entries["demands"][0]["outcome"], entries["demands"][0]["by"]) == ("shown", named.MEMBERS[1])
    assert entries["members"][3]["standing"] == "left"


def test_an_account_that_is_voted_on_is_written_with_its_checksum(honest: Any) -> None:
    play, account = honest.copy(), "0x4B326E17FD3b93244BDCbFa4F4Ce890D9A846E56"
    play.say(MotionVoted(Motion.ADMIT, Index(1), 0, 0, bytes.fromhex(account[2:]).rjust(32, b"\0"), play.chain.time))
    assert [voting.subject for voting in play.audit().votings] == [account]


def test_an_enrolment_after_the_beginning_that_nobody_voted_for_is_named(named: Any, honest: Any, lively: Any) -> None:
    play = honest.copy()
    play.say(MemberEnrolled(Index(5), named.JOINER, b"\7" * 32, 20, 0))
    assert named.found(play.audit()) == {(2, 0, named.JOINER)}
    unvoted = lively.dropped(MemberAdmitted)
    assert (2, 0, named.JOINER) in named.found(unvoted.audit())


@pytest.mark.parametrize(("kind", "where"), [(MemberAdmitted, {}), (MemberLeaving, {"removed": True})])
def test_an_admission_or_a_removal_without_t_votes_names_the_contract(
    named: Any, lively: Any, kind: type, where: dict[str, Any]
) -> None:
    motion = Motion.ADMIT if kind is MemberAdmitted else Motion.REMOVE
    play = lively.dropped(MotionVoted, motion=motion, index=1)
    assert (2, 0, CONTRACT) in named.found(play.audit())
    assert "without them" in "".join(fault.got for fault in play.audit().faults)


def test_a_carried_motion_with_nothing_after_it_names_the_contract(named: Any, lively: Any) -> None:
    report = lively.dropped(MemberLeaving, removed=True).audit()
    faults = [fault for fault in report.faults if fault.offender == CONTRACT]
    assert any("MemberLeaving (index 4, removed True) right after MotionVoted" in fault.expected for fault in faults)


@pytest.mark.parametrize(
    "changes", [{"member": Address("0x" + "77" * 20)}, {"index": Index(3)}, {"index": Index(9)}], ids=str
)
def test_an_admission_of_somebody_else_names_the_contract(named: Any, lively: Any, changes: dict[str, Any]) -> None:
    assert (2, 0, CONTRACT) in named.found(lively.edited(MemberAdmitted, changes).audit())


@pytest.mark.parametrize("voter", [7, 4])
def test_a_vote_by_a_stranger_or_twice_names_who_voted(named: Any, honest: Any, voter: int) -> None:
    play = honest.copy()
    play.vote(Motion.REMOVE, b"\3", by=(voter,) if voter == 7 else (voter, voter))
    who = "member 7" if voter == 7 else named.MEMBERS[4]
    assert named.found(play.audit()) == {(2, 0, who)}


@pytest.mark.parametrize(
    ("motion", "subject", "check"),
    [
        (Motion.REMOVE, b"\x09", 2),
        (Motion.ADMIT, b"\2" * 20, 2),
        (Motion.ADMIT, b"", 2),
        (Motion.REMOVE, b"\1" * 32, 2),
    ],
    ids=["nobody", "who counts", "no account", "no index"],
)
def test_a_vote_on_what_cannot_be_decided_is_named(
    named: Any, honest: Any, motion: Motion, subject: bytes, check: int
) -> None:
    play = honest.copy()
    play.vote(motion, subject, by=(1,))
    assert named.found(play.audit()) == {(check, 0, named.MEMBERS[1])}


def test_a_vote_after_the_end_of_the_run_is_named(named: Any, lively: Any) -> None:
    play = lively.copy()
    play.vote(Motion.REMOVE, b"\1", by=(0,))
    assert named.found(play.audit()) == {(2, 0, named.MEMBERS[0])}


def test_a_resignation_is_heard_once_and_of_who_counts(named: Any, honest: Any) -> None:
    play = honest.copy()
    play.say(MemberLeaving(Index(2), False, 0))
    assert play.audit().faults == ()
    assert play.audit().members[2].standing == "leaving"
    play.say(MemberLeaving(Index(2), False, 0))
    assert named.found(play.audit()) == {(2, 0, named.MEMBERS[2])}


@pytest.mark.parametrize("key", [bytes(32), b"\7" * 31])
def test_a_key_that_is_none_is_named_and_not_taken(named: Any, honest: Any, key: bytes) -> None:
    play = honest.copy()
    play.say(EncryptionKeyRotated(Index(2), key, 0))
    report = play.audit()
    assert named.found(report) == {(2, 0, named.MEMBERS[2])}
    assert report.members[2].keys == 1


def test_shares_sealed_to_another_key_than_counts_are_named(named: Any, lively: Any) -> None:
    # Round 2 was dealt to the new key: with the old one as the member's own, every dealing is another.
    report = lively.dropped(EncryptionKeyRotated).audit()
    assert {(4, 2, member) for member in (named.MEMBERS[0], named.MEMBERS[1])} <= named.found(report)
    assert not {(4, 1, member) for member in named.MEMBERS} & named.found(report)


def test_who_has_left_says_nothing_more(named: Any, lively: Any) -> None:
    play = lively.inserted(ReceiptPosted(2, 0, Index(4), 0b1, 0), ReceiptPosted, round=2, attempt=0)
    assert (3, 2, named.MEMBERS[4]) in named.found(play.audit())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"amount_wei": 10**16 - 1}, "strikes taken off"), ({"index": Index(1)}, "the run is over")],
    ids=["amount", "member"],
)
def test_a_leavers_bond_of_another_amount_or_owner_is_named(
    named: Any, lively: Any, changes: dict[str, Any], expected: str
) -> None:
    report = lively.edited(BondWithdrawn, changes, index=4).audit()
    assert {check for check, _, _ in named.found(report)} == {12}
    assert expected in report.faults[0].expected


def test_a_strike_is_taken_off_the_bond_and_told_as_burnt(named: Any, lively: Any) -> None:
    play = lively.copy()
    bond = play.state.terms.bond_wei
    play.say(BondWithdrawn(Index(0), bond - bond // 64, 0), after_s=3000)
    report = play.audit()
    assert report.faults == ()
    assert (report.money.burnt, report.members[0].strikes) == (bond // 64, 0)
    assert named.found(play.edited(BondWithdrawn, {"amount_wei": bond}, index=0).audit()) == {(12, 0, named.MEMBERS[0])}


def test_a_bond_whose_member_was_just_removed_is_not_free_yet(named: Any, lively: Any) -> None:
    left = lively.state.left_at[4]
    play = lively.edited(BondWithdrawn, {"at": left + lively.state.terms.challenge_window_s - 1}, index=4)
    assert (12, 0, named.MEMBERS[4]) in named.found(play.audit())


def test_a_slashed_member_is_never_admitted_or_enrolled_again(named: Any, honest: Any) -> None:
    play = honest.copy()
    bond = play.state.terms.bond_wei
    play.say(MemberSlashed(Index(3), named.STRANGER, 2, 5, bond - bond // 2, bond // 2, 0))
    assert play.audit().faults == ()
    play.vote(Motion.ADMIT, bytes.fromhex(named.MEMBERS[3][2:]), by=(0,))
    assert named.found(play.audit()) == {(2, 0, named.MEMBERS[0])}
    play.say(replace(play.event(MemberEnrolled, index=3)))
    assert (2, 0, named.MEMBERS[3]) in named.found(play.audit())
