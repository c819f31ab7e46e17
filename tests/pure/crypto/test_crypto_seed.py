"""The round's seed and public polynomials, against a plain reading of their definition."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import eth_abi
import numpy as np
import pytest

from fedchain.crypto import RoundContext
from fedchain.crypto.parameters import DELTA, PLAIN_MODULUS, N, Q
from fedchain.crypto.seed import public_polynomials
from fedchain.protocol.ids import Address, Digest
from fedchain.protocol.scheme import ACCEPTED

CONTEXT = RoundContext(1, Address("0x" + "0a" * 20), 7, 2, Digest(bytes([9]) * 32))


def coefficient(seed: bytes, k: int, j: int) -> tuple[int, int]:
    """Coefficient j of a_k and how often it was redrawn, as a contract would compute it: one at a time."""
    retry = 0
    while True:
        packed = seed + k.to_bytes(4, "big") + (j // 4).to_bytes(4, "big") + retry.to_bytes(4, "big")
        digest = int.from_bytes(hashlib.sha256(packed).digest(), "big")
        word = digest >> (192 - 64 * (j % 4)) & (2**64 - 1)
        if word < 1046 * Q:
            return word % Q, retry
        retry += 1


def test_the_modulus_is_the_one_the_scheme_needs() -> None:
    assert Q == 17627370416504833 == DELTA * PLAIN_MODULUS + 1
    assert Q.bit_length() == 54 and Q % (2 * N) == 1
    assert all(pow(base, Q - 1, Q) == 1 for base in (2, 3, 5, 7, 11))
    assert ACCEPTED == 1046 * Q


def test_the_seed_is_what_a_contract_computes_from_the_same_words() -> None:
    encoded = eth_abi.encode(
        ["bytes32", "uint256", "address", "uint256", "uint256", "bytes32"],
        [b"fedchain polynomials v1", 1, CONTEXT.contract, 7, 2, CONTEXT.model_digest],
    )
    assert CONTEXT.seed == hashlib.sha256(encoded).digest()


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": 2},
        {"contract": Address("0x" + "0b" * 20)},
        {"round": 8},
        {"attempt": 3},
        {"model_digest": Digest(bytes([8]) * 32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_place_has_another_seed(change: dict[str, object]) -> None:
    other = replace(CONTEXT, **change)  # type: ignore[arg-type]
    assert other.seed != CONTEXT.seed
    assert not np.array_equal(public_polynomials(other.seed, 0, 1), public_polynomials(CONTEXT.seed, 0, 1))


def test_a_context_of_the_wrong_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="32-byte"):
        replace(CONTEXT, model_digest=Digest(bytes(31)))
    with pytest.raises(ValueError, match="20-byte"):
        replace(CONTEXT, contract=Address("0x" + "0a" * 19))


def test_any_coefficient_can_be_rebuilt_alone_redrawn_ones_too() -> None:
    a = public_polynomials(CONTEXT.seed, 0, 4)
    redrawn = 0
    for k in range(4):
        for j in range(N):
            value, retries = coefficient(CONTEXT.seed, k, j)
            assert int(a[k, j]) == value
            redrawn += retries
    assert redrawn, "no word of this seed was redrawn: the rejection went untested"


def test_polynomials_do_not_depend_on_where_a_block_starts() -> None:
    whole = public_polynomials(CONTEXT.seed, 0, 20)
    assert np.array_equal(whole[13:20], public_polynomials(CONTEXT.seed, 13, 7))
    assert whole.max() < Q
