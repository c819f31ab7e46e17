"""The judge in Python: no wrong verdict either way, on random cases whose truth is known (R1–R5)."""

from __future__ import annotations

import hashlib
from collections import Counter
from types import ModuleType

import pytest

from fedchain.crypto import parameters
from fedchain.crypto.seed import RoundContext, public_polynomials
from fedchain.crypto.shamir import lagrange
from fedchain.protocol import scheme
from fedchain.protocol.ids import Address, Digest

KINDS = {
    "R1": {"honest", "wrong sum"},
    "R2": {"honest", "wrong key sum"},
    "R3": {"honest", "wrong plaintext", "noise", "key too large", "no element"},
    "R4": {"honest", "residue"},
    "R5": {"same", "root", "participants", "attempt", "round", "another signer", "another contract", "garbage"},
}


def judge_many(evidence_cases: ModuleType, rule: str, seed: int, count: int) -> Counter[str]:
    cases = evidence_cases.Cases(seed)
    tally: Counter[str] = Counter()
    for _ in range(count):
        case = cases.draw(rule)
        evidence_cases.check(case)
        tally[case.kind] += 1
    return tally


@pytest.mark.parametrize("rule", KINDS)
def test_no_honest_statement_is_condemned_and_no_wrong_one_acquitted(evidence_cases: ModuleType, rule: str) -> None:
    tally = judge_many(evidence_cases, rule, seed=3, count=120)
    assert set(tally) >= KINDS[rule], tally


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rule", KINDS)
def test_twenty_thousand_cases_of_each_rule_are_judged_by_their_truth(evidence_cases: ModuleType, rule: str) -> None:
    tally = judge_many(evidence_cases, rule, seed=4, count=20_000)
    assert min(tally[kind] for kind in KINDS[rule]) > 500, tally


def test_the_judges_polynomials_are_those_that_members_encrypt_under() -> None:
    context = RoundContext(7, Address("0x" + "ab" * 20), 3, 1, Digest(b"\x05" * 32))
    for k in (0, 1, 977):
        assert list(scheme.public_polynomial(context.seed, k)) == public_polynomials(context.seed, k, 1)[0].tolist()


def test_a_redrawn_word_is_the_same_in_both() -> None:
    """Five words in ten thousand are redrawn: some polynomial among these has one."""
    context = RoundContext(7, Address("0x" + "ab" * 20), 3, 1, Digest(b"\x06" * 32))

    def word(k: int, group: int) -> int:
        place = k.to_bytes(4, "big") + group.to_bytes(4, "big") + bytes(4)
        return int.from_bytes(hashlib.sha256(context.seed + place).digest()[:8], "big")

    redrawn = [(k, group) for k in range(2) for group in range(512) if word(k, group) >= scheme.ACCEPTED]
    assert redrawn
    for k, group in redrawn:
        drawn = int(public_polynomials(context.seed, k, 1)[0][4 * group])
        assert scheme.public_coefficient(context.seed, k, 4 * group) == drawn


def test_the_weights_at_zero_are_lagranges() -> None:
    points = [2, 3, 5, 64]
    assert list(scheme.lagrange_at_zero(points)) == lagrange(points, 0).tolist()


def test_one_product_coefficient_is_the_rings() -> None:
    a, s = [0] * scheme.N, [0] * scheme.N
    a[2047], s[1], a[0], s[5] = 3, 7, 11, -13
    assert scheme.product_coefficient(a, s, 0) == -21
    assert scheme.product_coefficient(a, s, 5) == 11 * -13
    assert scheme.product_coefficient(a, s, 4) == -3 * -13


def test_there_is_one_set_of_numbers() -> None:
    assert parameters.Q is scheme.Q and parameters.noise_bound is scheme.noise_bound
