"""The judge's verdicts on real numbers (R1–R5): an honest statement cannot be refuted anywhere, a wrong one can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fedchain.crypto.parameters import SHARE_PRIME, N, Q, noise_bound
from fedchain.crypto.ring import SmallFactor
from fedchain.crypto.seed import public_polynomials

PlayOf = Callable[..., Any]
Refuses = Callable[..., Any]
STRANGER = 9


def challenge(played: Any, name: str, *evidence: Any) -> list[tuple[str, dict[str, Any]]]:
    """Sent by an account that is no member; what the contract then says."""
    federation = played.federation
    told = federation.events(federation.send(federation.chain.accounts[STRANGER], f"challenge{name}", *evidence))
    assert isinstance(told, list)
    return told


def slashed(index: int, rule: int, played: Any) -> tuple[str, dict[str, Any]]:
    federation = played.federation
    challenger = federation.chain.accounts[STRANGER].lower()
    half = federation.terms["bond"] // 2
    said = {
        "index": index,
        "challenger": challenger,
        "round": played.round,
        "rule": rule,
        "burnt": half,
        "reward": half,
    }
    return "MemberSlashed", said


@pytest.mark.parametrize("out", [(), (1,)])
def test_no_part_of_an_honest_round_can_be_refuted(play: PlayOf, refuses: Refuses, out: tuple[int, ...]) -> None:
    played = play(out=out).all(closer=3)
    for leaf in range(9):
        with refuses("FederationHonest"):
            challenge(played, "Aggregate", *played.against_aggregate(leaf))
        with refuses("FederationHonest"):
            challenge(played, "Residue", *played.against_residue(leaf % 5, leaf))
    for leaf in range(0, 32, 3):
        with refuses("FederationHonest"):
            challenge(played, "KeySum", *played.against_key_sum(leaf))
    for coefficient in (0, 1, 2, 3, 63, 64, 255, 301, 549, 575):  # 550 hold values, and the leaf's rest counts as well
        with refuses("FederationHonest"):
            challenge(played, "Result", *played.against_result(coefficient))


@pytest.mark.parametrize("residue", [0, 3, 4, 63])
@pytest.mark.parametrize("change", [1, -1, Q // 2])
def test_a_wrong_sum_is_refuted(play: PlayOf, refuses: Refuses, residue: int, change: int) -> None:
    played = play()
    honest = int(played.aggregate.leaves[2, residue])
    played.aggregate.leaves[2, residue] = (honest + change) % Q
    played.commit().post().lock()
    with refuses("FederationHonest"):
        challenge(played, "Aggregate", *played.against_aggregate(3))
    told = challenge(played, "Aggregate", *played.against_aggregate(2))
    refuted = {"round": 1, "attempt": 0, "group": 0, "index": played.aggregator}
    assert told == [("AggregateRefuted", refuted), slashed(played.aggregator, 1, played)]


def test_a_sum_that_is_right_but_not_reduced_is_refuted(play: PlayOf) -> None:
    played = play(out=(0,))
    played.aggregate.leaves[8, 63] += np.uint64(Q)
    played.commit().post().lock()
    assert challenge(played, "Aggregate", *played.against_aggregate(8))[1] == slashed(0, 1, played)


@pytest.mark.parametrize("residue", [Q, Q + 1, 2**54, 2**58 + 3, 2**64 - 1])
def test_a_residue_out_of_range_is_refuted_and_its_sum_is_still_a_fact(
    play: PlayOf, refuses: Refuses, residue: int
) -> None:
    played = play()
    played.updates[2].leaves[1, 5] = residue
    played.updates[3].leaves[1, 5] = residue
    played.updates[3].leaves[1, 4] = 2**64 - 1  # nothing carries over between neighbours
    played.aggregate = played.sum()
    played.commit().post().lock()
    with refuses("FederationHonest"):
        challenge(played, "Aggregate", *played.against_aggregate(1))
    with refuses("FederationHonest"):
        challenge(played, "Residue", *played.against_residue(2, 0))
    with refuses("FederationHonest"):
        challenge(played, "Residue", *played.against_residue(1, 1))
    assert challenge(played, "Residue", *played.against_residue(2, 1)) == [slashed(2, 4, played)]
    played.aggregate.leaves[1, 5] += np.uint64(1)
    assert played.federation.call("aggregateOf", 1, 0)["root"] != bytes(32)


def test_a_residue_just_in_range_stands(play: PlayOf, refuses: Refuses) -> None:
    played = play()
    played.updates[2].leaves[0] = Q - 1
    played.aggregate = played.sum()
    played.commit().post().lock()
    with refuses("FederationHonest"):
        challenge(played, "Residue", *played.against_residue(2, 0))
    with refuses("FederationHonest"):
        challenge(played, "Aggregate", *played.against_aggregate(0))


@pytest.mark.parametrize("element", [0, 2, 63])
@pytest.mark.parametrize("change", [1, SHARE_PRIME - 1, 30000])
def test_a_wrong_key_sum_is_refuted(play: PlayOf, refuses: Refuses, element: int, change: int) -> None:
    played = play()
    honest = int(played.key_sum.leaves[31, element])
    played.key_sum.leaves[31, element] = (honest + change) % SHARE_PRIME
    played.all(closer=4)
    with refuses("FederationHonest"):
        challenge(played, "KeySum", *played.against_key_sum(30))
    told = challenge(played, "KeySum", *played.against_key_sum(31))
    assert told == [("ResultRefuted", {"round": 1, "attempt": 0, "group": 0, "index": 4}), slashed(4, 2, played)]


def test_a_key_sum_that_is_right_but_not_reduced_is_refuted(play: PlayOf) -> None:
    played = play()
    played.key_sum.leaves[0, 0] += np.uint64(SHARE_PRIME)
    played.all()
    assert challenge(played, "KeySum", *played.against_key_sum(0))[1] == slashed(0, 2, played)


def test_a_closer_answers_for_the_openers_it_names(play: PlayOf, refuses: Refuses) -> None:
    """A wrong opening among the openers makes another S; one that is not among them changes nothing."""
    honest = play()
    honest.openings[0].leaves[4, 4] += np.uint64(7)  # member 0 opens last, and is not among the openers
    honest.all(closer=1)
    with refuses("FederationHonest"):
        challenge(honest, "KeySum", *honest.against_key_sum(4))
    liar = play()
    liar.openings[3].leaves[4, 4] += np.uint64(7)
    liar.all(closer=1)
    assert challenge(liar, "KeySum", *liar.against_key_sum(4))[1] == slashed(1, 2, liar)


@pytest.mark.parametrize("element", [SHARE_PRIME, 2**16, 2**64 - 1])
def test_an_opening_with_elements_out_of_the_field_still_has_one_combination(
    play: PlayOf, refuses: Refuses, element: int
) -> None:
    played = play()
    played.openings[4].leaves[0, 0] = element
    played.openings[4].leaves[0, 1] = element
    weights = lagrange([i + 1 for i in played.openers])
    for j in (0, 1):
        total = sum(w * int(played.openings[i].leaves[0, j]) for w, i in zip(weights, played.openers, strict=True))
        played.key_sum.leaves[0, j] = total % SHARE_PRIME
    played.all()
    with refuses("FederationHonest"):
        challenge(played, "KeySum", *played.against_key_sum(0))


def lagrange(points: list[int]) -> list[int]:
    weights = []
    for x in points:
        weight = 1
        for other in points:
            if other != x:
                weight = weight * other * pow(other - x, -1, SHARE_PRIME) % SHARE_PRIME
        weights.append(weight)
    return weights


@pytest.mark.parametrize("coefficient", [0, 549, 575])
@pytest.mark.parametrize("change", [1, -1, 2**22, 2**44])
def test_a_wrong_result_is_refuted(play: PlayOf, refuses: Refuses, coefficient: int, change: int) -> None:
    played = play()
    leaf, place = divmod(coefficient, 64)
    played.result.leaves[leaf, place] = (int(played.result.leaves[leaf, place]) + change) % 2**64
    played.all(closer=2)
    with refuses("FederationHonest"):
        challenge(played, "Result", *played.against_result(coefficient - 1 if coefficient else 1))
    told = challenge(played, "Result", *played.against_result(coefficient))
    assert told == [("ResultRefuted", {"round": 1, "attempt": 0, "group": 0, "index": 2}), slashed(2, 3, played)]


def test_a_key_sum_too_large_to_be_one_is_refuted(play: PlayOf, refuses: Refuses) -> None:
    """Openers that conspire could make any S their combination (R2 stands); that it is small, R3 judges."""
    for change, too_large in ((210, False), (211, True), (SHARE_PRIME - 210, False), (SHARE_PRIME - 211, True)):
        played = play()
        played.key_sum.leaves[3, 3] = change
        played.result = played.decoded()
        played.all()
        evidence = played.against_result(7)
        if too_large:
            assert challenge(played, "Result", *evidence)[1] == slashed(0, 3, played)
        else:
            # Small, but wrong: the noise gives it away, though not in every coefficient.
            verdicts = {refuted(played, k, refuses) for k in range(7, 12)}
            assert True in verdicts


@pytest.mark.parametrize("beyond", [0, 1, -1])
def test_a_key_sum_at_its_bound_stands_and_one_past_it_does_not(play: PlayOf, refuses: Refuses, beyond: int) -> None:
    """Five keys of the largest coefficients there are, one encryption of something without any noise."""
    played = play()
    s = np.full(N, 210)
    s[::3] = -210
    s[1000 if beyond > 0 else 999] += beyond
    played.key_sum.leaves = np.mod(s, SHARE_PRIME).astype(np.uint64).reshape(-1, 64)
    m = np.arange(N, dtype=np.uint64)
    product = SmallFactor(s).times(public_polynomials(played.context.seed, 0, 1))[0]
    for i in played.members:
        played.updates[i].leaves[:] = 0
    c = (m * np.uint64(1002) + np.uint64(Q) - product) % np.uint64(Q)
    played.updates[0].leaves = c[: played.result.leaves.size].reshape(-1, 64)
    played.aggregate, played.result = played.sum(), played.decoded()
    assert list(played.result.leaves.reshape(-1)) == list(m[: played.result.leaves.size])
    played.all()
    assert s.min() == -210 + min(beyond, 0) and s.max() == 210 + max(beyond, 0)
    assert {refuted(played, k, refuses) for k in (0, 1, 77, 575)} == {beyond != 0}


@pytest.mark.parametrize("element", [SHARE_PRIME, SHARE_PRIME + 9, 2**16 - 1])
def test_what_is_no_element_is_not_small_whatever_it_is_congruent_to(play: PlayOf, element: int) -> None:
    played = play()
    played.key_sum.leaves[3, 3] = element
    played.all()
    assert challenge(played, "Result", *played.against_result(7))[1] == slashed(0, 3, played)


def refuted(played: Any, coefficient: int, refuses: Refuses) -> bool:
    federation = played.federation
    data = federation.encode("challengeResult", *played.against_result(coefficient))
    try:
        federation.eth_call({"from": federation.chain.accounts[STRANGER], "to": federation.address, "data": data})
    except federation.Refused as refusal:
        assert refusal.name == "FederationHonest"
        return False
    return True


def test_noise_past_its_bound_is_refuted_and_noise_at_it_stands(play: PlayOf, refuses: Refuses) -> None:
    """A participant shifts one residue by some noise; the round is closed as if nothing were wrong."""
    bound = noise_bound(5)
    assert bound == 102
    for target, stands in ((bound, True), (bound + 1, False), (-bound, True), (-bound - 1, False), (500, False)):
        shifted = play()
        residue = int(shifted.updates[0].leaves[0, 10]) + target - noise_of(shifted, 10)
        shifted.updates[0].leaves[0, 10] = residue % Q
        shifted.aggregate, shifted.result = shifted.sum(), shifted.decoded()
        assert noise_of(shifted, 10) == target
        shifted.all()
        assert refuted(shifted, 10, refuses) is not stands
        assert not refuted(shifted, 11, refuses)


def noise_of(played: Any, coefficient: int) -> int:
    """C + a·S less Δ·m at one coefficient, by Python's integers."""
    s = [int(x) for x in played.key_sum.leaves.reshape(-1)]
    s = [x - SHARE_PRIME if x > SHARE_PRIME // 2 else x for x in s]
    a = [int(x) for x in public_polynomials(played.context.seed, 0, 1)[0]]
    product = sum(a[i] * s[coefficient - i] for i in range(coefficient + 1))
    product -= sum(a[i] * s[N + coefficient - i] for i in range(coefficient + 1, N))
    leaf, place = divmod(coefficient, 64)
    v = (int(played.sum().leaves[leaf, place]) + product) % Q
    e = (v - 1002 * int(played.decoded().leaves[leaf, place])) % Q
    return e - Q if e > Q // 2 else e


@pytest.mark.parametrize("noise", [-5, 5])
def test_a_coefficient_of_zero_wraps_around_q_and_stands(play: PlayOf, refuses: Refuses, noise: int) -> None:
    """Sums of updates are above zero; the rest of the last leaf holds encryptions of zero, with noise of any sign."""
    played = play()
    played.updates[0].leaves[8, 63] = (int(played.updates[0].leaves[8, 63]) + noise - noise_of(played, 575)) % Q
    played.aggregate, played.result = played.sum(), played.decoded()
    assert int(played.result.leaves[8, 63]) == 0
    assert noise_of(played, 575) == noise
    played.all()
    assert not refuted(played, 575, refuses)


def test_a_closer_is_not_judged_by_what_the_aggregator_said(play: PlayOf, refuses: Refuses) -> None:
    """A wrong sum on record, and a closer that summed for itself: its result stands, before R1 and after."""
    played = play()
    honest = played.aggregate
    played.aggregate = played.sum()
    played.aggregate.leaves[0, 0] = (int(honest.leaves[0, 0]) + 1) % Q
    played.all(closer=3)
    with refuses("FederationHonest"):
        challenge(played, "Result", *played.against_result(0))
    assert challenge(played, "Aggregate", *played.against_aggregate(0))[1] == slashed(played.aggregator, 1, played)
    with refuses("FederationHonest"):
        challenge(played, "Result", *played.against_result(0))


def test_a_closer_that_took_the_wrong_sum_over_is_refuted(play: PlayOf) -> None:
    played = play()
    wrong = played.aggregate.leaves.copy()
    wrong[0, 0] = (int(wrong[0, 0]) + 1002) % Q
    played.aggregate.leaves = wrong
    played.result.leaves[0, 0] += np.uint64(1)
    played.all(closer=3)
    assert challenge(played, "Result", *played.against_result(0))[1] == slashed(3, 3, played)


def test_two_openings_of_one_place_are_refuted_and_others_are_not(play: PlayOf, refuses: Refuses, sign: Any) -> None:
    federation = play().federation
    first = sign(federation, 2)
    stranger = federation.chain.accounts[STRANGER]
    for same in (
        {},
        {"round": 2, "root": b"\x08" * 32},
        {"attempt": 1, "participants": 15},
        {"group": 1, "participants": 15},
        {"cid": b"\x09" * 32},  # where it lies is no part of what it says
    ):
        with refuses("FederationHonest"):
            federation.send(stranger, "challengeEquivocation", *first, *sign(federation, 2, **same))
    for different in ({"participants": 15}, {"root": b"\x08" * 32}):
        data = federation.encode("challengeEquivocation", *first, *sign(federation, 2, **different))
        federation.eth_call({"from": stranger, "to": federation.address, "data": data})
    told = federation.events(
        federation.send(stranger, "challengeEquivocation", *first, *sign(federation, 2, participants=15))
    )
    assert [(name, said["index"], said["rule"]) for name, said in told] == [("MemberSlashed", 2, 5)]


def test_a_signature_for_another_federation_is_none_here(play: PlayOf, found: Any, refuses: Refuses, sign: Any) -> None:
    federation, other = play().federation, found(5)
    with refuses("FederationBadEvidence", b"signature".ljust(32, b"\0")):
        here, there = sign(federation, 2), sign(other, 2, participants=15)
        federation.send(federation.chain.accounts[STRANGER], "challengeEquivocation", *here, *there)
