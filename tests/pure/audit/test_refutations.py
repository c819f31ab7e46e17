"""What fell by a challenge: no fault of what stands, but told, with its author and the slash; and held to the rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedchain.audit import print_report
from fedchain.audit.html import render_html
from fedchain.audit.watchtower import Watchtower
from fedchain.crypto.parameters import PLAIN_MODULUS
from fedchain.protocol.disputes import judge
from fedchain.protocol.events import (
    AggregateCommitted,
    AggregateRefuted,
    AggregateRestated,
    BondWithdrawn,
    MemberSlashed,
    ResultCommitted,
    ResultRefuted,
    RewardWithdrawn,
    StopVoted,
)
from fedchain.protocol.evidence import ChallengeAggregate, ChallengeKeySum, ChallengeResidue, ChallengeResult
from fedchain.protocol.ids import Address, Index

SOMEBODY = Address("0x" + "99" * 20)
CONTRACT = "the contract"


@pytest.fixture(scope="module")
def quarrels(named: Any) -> type:
    """A federation in which somebody lies, somebody shows it, and somebody sets it right."""

    class Quarrels(named.Play):  # type: ignore[misc,name-defined]
        lying_sums: tuple[int, ...] = ()
        lying_results: tuple[int, ...] = ()
        restates = True

        def slash(self, index: Index, number: int, rule: int) -> None:
            bond = self.state.terms.bond_wei
            self.say_with(MemberSlashed(index, SOMEBODY, number, rule, bond - bond // 2, bond // 2, 0))

        def shifted_sum(self, number: int) -> Any:
            total = self.sum(number, self.participants(number))
            residues = total.residues.copy()
            residues[0, 70] = (residues[0, 70] + np.uint64(5)) % np.uint64(17627370416504833)
            return replace(total, residues=residues)

        def aggregate(self, number: int) -> None:
            if number not in self.lying_sums:
                super().aggregate(number)
                return
            total, liar, attempt = self.shifted_sum(number), self.aggregator(number), self.attempt().attempt
            place, participants = (number, attempt, 0), self.participants(number)
            cid = self.store.put(total.pack())
            self.lock(AggregateCommitted(*place, liar, participants, total.root(), cid, 0))
            self.before_challenge(number)
            self.say(AggregateRefuted(*place, liar, 0))
            self.slash(liar, number, 1)
            if self.restates:
                right = self.sum(number, participants)
                author = self.state.heard.bit_length() - 1
                self.say(AggregateRestated(*place, Index(author), right.root(), self.store.put(right.pack()), 0))

        def before_challenge(self, number: int) -> None:
            pass

        def lie(self, honest: Any) -> Any:
            """A wrong coefficient, and the model that follows from it."""
            opened = self.opened(honest.round)
            coefficients = opened.result.coefficients.copy()
            coefficients[0, 9] = (coefficients[0, 9] + 1) % PLAIN_MODULUS
            wrong = replace(opened.result, coefficients=coefficients)
            fields = {"result_root": wrong.root(), "result_cid": self.store.put(wrong.pack())}
            return replace(honest, index=self.liar(honest.round), **fields)

        def liar(self, number: int) -> Index:
            return Index(4)

        def closer(self, number: int) -> Index:
            first = self.locked(number).index
            return first if self.state.heard >> first & 1 else Index(self.state.heard.bit_length() - 1)

        def close(self, number: int) -> None:
            honest = self.result(number)
            if number in self.lying_results:
                lie = self.lie(honest)
                self.say(lie)
                self.before_challenge(number)
                self.say(ResultRefuted(number, lie.attempt, 0, lie.index, 0))
                self.slash(lie.index, number, 3)
            self.say(honest)

    return Quarrels


def play(quarrels: type, rounds: int = 2, **settings: Any) -> Any:
    made = quarrels(rounds=rounds)
    for name, value in settings.items():
        setattr(made, name, value)
    return made.run()


def test_a_refuted_and_restated_sum_is_told_and_is_no_fault(named: Any, quarrels: type) -> None:
    report = play(quarrels, lying_sums=(1,)).audit()
    assert report.faults == () and report.complete
    (fallen,) = report.refutations
    assert (fallen.what, fallen.round, fallen.attempt, fallen.offender) == ("aggregate", 1, 0, 0)
    bond = 10_000_000 * 10**9
    assert fallen.slash is not None
    assert (fallen.slash.rule, fallen.slash.challenger) == (1, SOMEBODY)
    assert fallen.slash.burnt_wei == fallen.slash.reward_wei == bond // 2
    assert fallen.restated_by == 4
    assert "1 slashed" in next(check.detail for check in report.checks if check.number == 12)
    # Who was slashed takes part no more once its round is over.
    assert report.rounds[0].participants == (0, 1, 2, 3, 4)
    assert report.rounds[1].participants == (1, 2, 3, 4)


def test_every_form_of_the_report_tells_what_was_refuted(named: Any, quarrels: type) -> None:
    report = play(quarrels, rounds=1, lying_sums=(1,)).audit()
    console = Console(record=True, width=300, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    print_report(console, report)
    words = f"round 1: the aggregate of {named.MEMBERS[0]} was refuted (R1): slashed"
    for text in (console.export_text(), render_html(report)):
        assert words in text
        assert f"posted anew by {named.MEMBERS[4]}" in text
        assert "1 statement fell on chain" in text
    (entry,) = report.to_json()["refutations"]
    assert (entry["what"], entry["offender"], entry["slash"]["rule"]) == ("aggregate", 0, 1)


def test_a_sum_that_fell_and_was_not_restated_is_told(quarrels: type) -> None:
    report = play(quarrels, rounds=1, lying_sums=(1,), restates=False).audit()
    assert report.faults == ()
    assert report.refutations[0].restated_by is None
    assert "none stands" in report.rounds[0].check(7).detail


def test_a_refuted_result_is_told_and_the_round_that_was_closed_again_is_right(quarrels: type) -> None:
    report = play(quarrels, lying_results=(1,)).audit()
    assert report.faults == () and report.complete
    (fallen,) = report.refutations
    assert (fallen.what, fallen.offender, fallen.slash and fallen.slash.rule) == ("result", 4, 3)
    assert report.rounds[1].committed == (0, 1, 2, 3)


def test_a_round_that_was_built_on_a_refuted_model_is_told_as_forgotten(named: Any, quarrels: type) -> None:
    class Late(quarrels):  # type: ignore[misc,valid-type]
        def before_challenge(self, number: int) -> None:
            for index in (0, 1):
                self.commit(number + 1, Index(index))

    report = play(Late, lying_results=(1,)).audit()
    assert report.faults == ()
    forgotten = [a for a in report.unfinished if a.outcome == "forgotten"]
    assert [(a.round, a.attempt, a.committed) for a in forgotten] == [(2, 0, (0, 1))]
    assert [(a.round, a.attempt) for a in report.rounds] == [(1, 0), (2, 1)]


def changed(played: Any, kind: type, **lies: Any) -> Any:
    """The audit of the same history with one event bent."""
    return played.edited(kind, lies).audit()


def faults_of(named: Any, report: Any) -> set[tuple[int, str]]:
    return {(check, who) for check, _, who in named.found(report)}


def test_an_honest_sum_that_was_refuted_names_the_contract(named: Any, quarrels: type) -> None:
    class Unjust(quarrels):  # type: ignore[misc,valid-type]
        def shifted_sum(self, number: int) -> Any:
            return self.sum(number, self.participants(number))

    report = play(Unjust, rounds=1, lying_sums=(1,)).audit()
    assert faults_of(named, report) == {(12, CONTRACT)}
    assert "the right sum of round 1" in report.faults[0].got


def test_an_honest_result_that_was_refuted_names_the_contract(named: Any, quarrels: type) -> None:
    class Unjust(quarrels):  # type: ignore[misc,valid-type]
        def lie(self, honest: Any) -> Any:
            return replace(honest, index=Index(4))

    report = play(Unjust, rounds=1, lying_results=(1,)).audit()
    assert faults_of(named, report) == {(12, CONTRACT)}


@pytest.mark.parametrize(
    ("field", "value"), [("burnt_wei", 1), ("reward_wei", 1), ("rule", 2), ("round", 2), ("index", Index(1))]
)
def test_a_slash_that_does_not_follow_names_the_contract(named: Any, quarrels: type, field: str, value: Any) -> None:
    played = play(quarrels, rounds=1, lying_sums=(1,))
    assert (12, CONTRACT) in faults_of(named, changed(played, MemberSlashed, **{field: value}))


@pytest.mark.parametrize(
    ("kind", "lies"),
    [
        (AggregateRefuted, {"index": Index(2)}),
        (AggregateRefuted, {"attempt": 7}),
        (AggregateRestated, {"round": 2}),
    ],
)
def test_a_verdict_on_nothing_names_the_contract(named: Any, quarrels: type, kind: type, lies: dict[str, Any]) -> None:
    played = play(quarrels, rounds=1, lying_sums=(1,))
    assert (12, CONTRACT) in faults_of(named, changed(played, kind, **lies))


def test_a_slashed_member_that_speaks_is_named(named: Any, quarrels: type) -> None:
    class Loud(quarrels):  # type: ignore[misc,valid-type]
        def openers(self, number: int) -> list[Any]:
            return list(self.attempt().order)

    report = play(Loud, rounds=1, lying_sums=(1,)).audit()
    assert faults_of(named, report) == {(12, named.MEMBERS[0])}


def test_a_slashed_member_gets_no_bond_back(named: Any, quarrels: type) -> None:
    played = play(quarrels, rounds=3, lying_sums=(1,))
    played.say(BondWithdrawn(Index(0), played.state.terms.bond_wei, 0), after_s=5000)
    assert faults_of(named, played.audit()) == {(12, named.MEMBERS[0])}


def test_a_slashed_members_vote_is_named(named: Any, quarrels: type) -> None:
    played = play(quarrels, rounds=1, lying_sums=(1,))
    played.say(StopVoted(2, Index(0), 0))
    assert (6, named.MEMBERS[0]) in faults_of(named, played.audit())


def test_a_reward_is_taken_whole_and_once(named: Any, quarrels: type) -> None:
    played = play(quarrels, rounds=1, lying_sums=(1,))
    reward = played.state.terms.bond_wei // 2
    played.say(RewardWithdrawn(SOMEBODY, reward, 0))
    assert played.audit().faults == ()
    played.say(RewardWithdrawn(SOMEBODY, reward, 0))
    assert faults_of(named, played.audit()) == {(12, CONTRACT)}


def test_a_challenge_after_bonds_are_free_names_the_contract(named: Any, quarrels: type) -> None:
    played = play(quarrels, rounds=3)
    last = played.event(ResultCommitted, round=3)
    played.say(ResultRefuted(3, 0, 0, last.index, 0), after_s=1000)
    assert (12, CONTRACT) in faults_of(named, played.audit())


@pytest.mark.parametrize("openers", [0b00011, 0b01111, 0b100011])
def test_openers_that_are_not_t_members_with_openings_name_the_closer(named: Any, honest: Any, openers: int) -> None:
    report = honest.edited(ResultCommitted, {"openers": openers}, round=1).audit()
    assert (6, named.MEMBERS[0]) in faults_of(named, report)


def test_a_result_whose_object_is_another_or_missing_names_the_closer(named: Any, honest: Any) -> None:
    other = honest.event(ResultCommitted, round=2).result_cid
    assert faults_of(named, honest.edited(ResultCommitted, {"result_cid": other}, round=1).audit()) == {
        (9, named.MEMBERS[0])
    }
    bare = honest.copy()
    del bare.store.served[bare.event(ResultCommitted, round=1).result_cid]
    assert faults_of(named, bare.audit()) == {(4, named.MEMBERS[0])}


# The watchtower: what it finds in the same histories, before anybody has challenged.


def seen(played: Any, tmp_path: Any) -> list[Any]:
    """Every challenge that one look finds, with the member that the contract would slash for it."""
    tower = Watchtower(played.chain, played.store, tmp_path)
    found = [challenge for sighting in tower.look() for challenge in sighting.challenges]
    state, now = played.state, played.chain.now()
    return [(c, judge(state, played.chain.chain_id, played.chain.contract, c, now)) for c in found]


def unchallenged(played: Any) -> Any:
    """The history up to the first refutation."""
    copy = played.copy()
    end = next(i for i, e in enumerate(copy.chain.events) if isinstance(e, AggregateRefuted | ResultRefuted))
    copy.chain.events = copy.chain.events[:end]
    copy.chain.time = copy.chain.events[-1].at
    return copy


def test_the_watchtower_proves_a_wrong_sum(quarrels: type, tmp_path: Any) -> None:
    ((challenge, liar),) = seen(unchallenged(play(quarrels, rounds=1, lying_sums=(1,))), tmp_path)
    assert isinstance(challenge, ChallengeAggregate)
    assert (challenge.leaf, liar) == (1, 0)


def test_the_watchtower_proves_a_wrong_result(quarrels: type, tmp_path: Any) -> None:
    ((challenge, liar),) = seen(unchallenged(play(quarrels, rounds=1, lying_results=(1,))), tmp_path)
    assert isinstance(challenge, ChallengeResult)
    assert (challenge.coefficient, liar) == (9, 4)


def test_the_watchtower_proves_a_wrong_key_sum(quarrels: type, tmp_path: Any) -> None:
    class WrongKey(quarrels):  # type: ignore[misc,valid-type]
        def lie(self, honest: Any) -> Any:
            result = self.opened(honest.round).result
            elements = result.elements.copy()
            elements[2000] = (int(elements[2000]) + 1) % 65521
            wrong = replace(result, elements=elements)
            fields = {"key_sum_root": wrong.key_sum_root(), "result_cid": self.store.put(wrong.pack())}
            return replace(honest, index=Index(3), **fields)

    ((challenge, liar),) = seen(unchallenged(play(WrongKey, rounds=1, lying_results=(1,))), tmp_path)
    assert isinstance(challenge, ChallengeKeySum)
    assert (challenge.leaf, liar) == (31, 3)


def test_the_watchtower_proves_a_malformed_residue(named: Any, tmp_path: Any) -> None:
    from fedchain.crypto.aggregate import leaf_hashes
    from fedchain.crypto.packing import unpack_residues
    from fedchain.protocol.merkle import root_of

    class Malformed(named.Play):  # type: ignore[misc,name-defined]
        def deal(self, number: int, index: Index) -> Any:
            upload = super().deal(number, index)
            if index != 2:
                return upload
            content = bytearray(upload.ciphertext)
            content[16:23] = b"\xff" * 7
            root = root_of(leaf_hashes(unpack_residues(bytes(content[16:])).reshape(-1, 64)))
            return replace(upload, ciphertext=bytes(content), ciphertext_root=root)

        def whole(self, number: int, index: Index) -> Any:
            return super().whole(number, index) & ~0b00100

    played = Malformed(rounds=1).run()
    ((challenge, liar),) = seen(played, tmp_path)
    assert isinstance(challenge, ChallengeResidue)
    assert (challenge.index, challenge.leaf, liar) == (2, 0, 2)


def test_the_watchtower_finds_nothing_in_an_honest_history(honest: Any, tmp_path: Any) -> None:
    tower = Watchtower(honest.chain, honest.store, tmp_path)
    assert tower.look() == ()
    assert tower.look() == ()


def test_what_is_withheld_cannot_be_proven_and_is_named_all_the_same(quarrels: type, tmp_path: Any) -> None:
    played = unchallenged(play(quarrels, rounds=1, lying_sums=(1,)))
    del played.store.served[played.event(AggregateCommitted, round=1).cid]
    tower = Watchtower(played.chain, played.store, tmp_path)
    (sighting,) = tower.look()
    assert sighting.challenges == ()
    assert {fault.check for fault in sighting.faults} == {"4 objects", "7 aggregate"}


def test_an_object_that_comes_later_is_asked_for_again(quarrels: type, tmp_path: Any) -> None:
    played = unchallenged(play(quarrels, rounds=1, lying_sums=(1,)))
    cid = played.event(AggregateCommitted, round=1).cid
    content = played.store.served.pop(cid)
    tower = Watchtower(played.chain, played.store, tmp_path)
    tower.look()
    played.store.served[cid] = content
    ((sighting),) = tower.look()
    assert len(sighting.challenges) == 1
