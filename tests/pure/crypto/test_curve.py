"""Keys as points, and proofs about discrete logarithms: held to vectors of RFC 7748 and RFC 8032, and to libsodium."""

from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_core_ed25519_add, crypto_scalarmult, crypto_scalarmult_base

from fedchain.crypto.curve import (
    BASE,
    ORDER,
    PRIME,
    exponent_of,
    is_exponent_proof,
    is_point,
    key_of_point,
    multiply,
    point_of_key,
    prove_exponent,
)

BINDING = hashlib.sha256(b"a place").digest()
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")

TORSION = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]
"""Edwards encodings of points of low order."""

LOW_KEYS = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (PRIME - 1).to_bytes(32, "little"),
    PRIME.to_bytes(32, "little"),
    (PRIME + 1).to_bytes(32, "little"),
]
"""X25519 keys of low order, as libsodium lists them."""


def proof_of(x: int, other: bytes) -> tuple[bytes, list[bytes], list[bytes]]:
    bases = [BASE, other]
    images = [multiply(x, base) for base in bases]
    return prove_exponent(x, bases, images, BINDING), bases, images


def test_the_shared_point_of_rfc_7748() -> None:
    bob = point_of_key(BOB_PUBLIC)
    assert bob is not None
    assert key_of_point(multiply(exponent_of(ALICE), bob)) == SHARED


def test_the_public_key_of_rfc_8032() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    scalar = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little") & (1 << 254) - 8 | 1 << 254
    assert multiply(scalar % ORDER, BASE).hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def test_the_base_point_is_that_of_key_nine() -> None:
    assert point_of_key((9).to_bytes(32, "little")) == BASE


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
@settings(max_examples=50, deadline=None)
def test_points_agree_with_x25519_whatever_the_private_keys(mine: bytes, other: bytes) -> None:
    public, ephemeral = crypto_scalarmult_base(mine), crypto_scalarmult_base(other)
    registered, point = point_of_key(public), point_of_key(ephemeral)
    assert registered is not None and point is not None
    assert multiply(exponent_of(mine), BASE) == registered
    assert key_of_point(registered) == public
    assert key_of_point(multiply(exponent_of(mine), point)) == crypto_scalarmult(mine, ephemeral)


@pytest.mark.parametrize("key", LOW_KEYS, ids=bytes.hex)
def test_keys_of_low_order_stand_for_no_point(key: bytes) -> None:
    assert point_of_key(key) is None


def test_keys_with_a_second_encoding_a_part_of_the_cofactors_or_on_the_twist_stand_for_no_point() -> None:
    public = crypto_scalarmult_base(ALICE)
    point = point_of_key(public)
    assert point is not None
    twin = bytes([*public[:31], public[31] | 0x80])
    assert point_of_key(twin) is None
    beside = key_of_point(crypto_core_ed25519_add(point, bytes.fromhex(TORSION[3])))
    assert point_of_key(beside) is None
    twist = (2).to_bytes(32, "little")  # u = 2 lies on the twist
    assert point_of_key(twist) is None
    assert point_of_key(public + b"\0") is None and point_of_key(b"") is None


def test_a_proof_holds_for_its_bases_images_and_binding_only() -> None:
    x = exponent_of(os.urandom(32))
    other = multiply(exponent_of(ALICE), BASE)
    proof, bases, images = proof_of(x, other)
    assert is_exponent_proof(proof, bases, images, BINDING)
    assert not is_exponent_proof(proof, bases, images, hashlib.sha256(b"another place").digest())
    assert not is_exponent_proof(proof, bases, images[::-1], BINDING)
    assert not is_exponent_proof(proof, bases, [images[0], multiply(x + 1, other)], BINDING)
    assert not is_exponent_proof(proof, bases[:1], images[:1], BINDING)


@given(st.integers(0, 511))
@settings(max_examples=60, deadline=None)
def test_a_proof_with_any_bit_turned_is_none(bit: int) -> None:
    proof, bases, images = proof_of(exponent_of(ALICE), multiply(7, BASE))
    bent = bytearray(proof)
    bent[bit // 8] ^= 1 << bit % 8
    assert not is_exponent_proof(bytes(bent), bases, images, BINDING)


def test_a_proof_of_unequal_exponents_fails_though_each_half_is_honest() -> None:
    """Who knows x for the first base and y for the second proves neither pair equal."""
    x, y, other = 1234567, 7654321, multiply(99, BASE)
    images = [multiply(x, BASE), multiply(y, other)]
    for exponent in (x, y):
        assert not is_exponent_proof(
            prove_exponent(exponent, [BASE, other], images, BINDING), [BASE, other], images, BINDING
        )


def test_scalars_out_of_range_zero_and_lengths_are_refused() -> None:
    proof, bases, images = proof_of(exponent_of(ALICE), multiply(7, BASE))
    s = int.from_bytes(proof[32:], "little")
    malleable = proof[:32] + (s + ORDER).to_bytes(32, "little")
    for bad in (malleable, bytes(64), proof[:32] + bytes(32), bytes(32) + proof[32:], proof[:-1], proof + b"\0", b""):
        assert not is_exponent_proof(bad, bases, images, BINDING)


@pytest.mark.parametrize("low", TORSION)
def test_points_of_low_order_or_beside_the_group_prove_nothing(low: str) -> None:
    torsion = bytes.fromhex(low)
    assert not is_point(torsion)
    x = exponent_of(ALICE)
    proof, bases, images = proof_of(x, multiply(7, BASE))
    assert not is_exponent_proof(proof, bases, [images[0], torsion], BINDING)
    assert not is_exponent_proof(proof, [BASE, torsion], images, BINDING)
    beside = crypto_core_ed25519_add(images[1], torsion)
    if beside != images[1]:
        assert not is_exponent_proof(proof, bases, [images[0], beside], BINDING)


def test_nonces_differ_wherever_anything_proven_differs() -> None:
    """Two challenges to one nonce would give the key away: x = (s - s')/(c - c')."""
    x, bases = exponent_of(ALICE), [BASE, multiply(7, BASE)]
    images = [multiply(x, base) for base in bases]
    nonces = set()
    for place in (b"one", b"two", b"three"):
        proof = prove_exponent(x, bases, images, hashlib.sha256(place).digest())
        c, s = int.from_bytes(proof[:32], "little"), int.from_bytes(proof[32:], "little")
        nonces.add((s - c * x) % ORDER)
    assert len(nonces) == 3
    with pytest.raises(ValueError, match="32 bytes"):
        prove_exponent(x, bases, images, b"short")
