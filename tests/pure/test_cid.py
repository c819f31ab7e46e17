"""CIDs: text and digest, and the import profile against what Kubo gave for the same bytes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.protocol.cid import CHUNK_BYTES, MAX_LINKS, CidHasher, cid_of, cid_of_digest, digest_of_cid

KNOWN = json.loads((Path(__file__).parents[1] / "vectors" / "cid.json").read_text())
EMPTY = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"


def content(size: int) -> bytes:
    return hashlib.shake_128(b"fedchain cid").digest(size)


@pytest.mark.parametrize("vector", KNOWN["vectors"], ids=lambda vector: str(vector["size"]))
def test_the_cid_is_the_one_kubo_gives(vector: dict[str, object]) -> None:
    assert cid_of(content(int(str(vector["size"])))) == vector["cid"]


@pytest.mark.slow
def test_a_file_of_three_levels_has_the_cid_kubo_gives() -> None:
    zeros, left = bytes(1 << 24), MAX_LINKS * MAX_LINKS * CHUNK_BYTES + 1
    hasher = CidHasher()
    while left:
        hasher.update(zeros[:left])
        left -= min(left, len(zeros))
    assert hasher.cid() == "QmVZLgevKqdMBkEdFhcauLccqzLNn2gmfwVaXhHEZJyqzm"


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(0, 5 * CHUNK_BYTES),
    cuts=st.lists(st.integers(1, 2 * CHUNK_BYTES), min_size=1, max_size=8),
)
def test_a_stream_has_the_same_cid_however_it_is_cut(size: int, cuts: list[int]) -> None:
    whole = content(size)
    hasher, at, turn = CidHasher(), 0, 0
    while at < size:
        hasher.update(memoryview(whole)[at : at + cuts[turn % len(cuts)]])
        at += cuts[turn % len(cuts)]
        turn += 1
    assert (hasher.cid(), hasher.size) == (cid_of(whole), size)


def test_a_stream_goes_on_after_its_cid_was_asked_for() -> None:
    whole = content(200 * CHUNK_BYTES + 7)
    hasher = CidHasher()
    for at in range(0, len(whole), 7_000_003):
        hasher.update(whole[at : at + 7_000_003])
        assert hasher.cid() == cid_of(whole[: at + 7_000_003])


def test_one_flipped_bit_gives_another_cid() -> None:
    whole = bytearray(content(3 * CHUNK_BYTES))
    whole[2 * CHUNK_BYTES + 5] ^= 1
    assert cid_of(whole) != cid_of(content(3 * CHUNK_BYTES))


@given(digest=st.binary(min_size=32, max_size=32))
def test_a_digest_survives_the_way_to_text_and_back(digest: bytes) -> None:
    cid = cid_of_digest(digest)
    assert cid.startswith("Qm") and len(cid) == 46
    assert digest_of_cid(cid) == digest


@pytest.mark.parametrize(
    "corrupted",
    [
        pytest.param("", id="empty"),
        pytest.param(EMPTY[:-1], id="too-short"),
        pytest.param(EMPTY + "1", id="too-long"),
        pytest.param(EMPTY[:-1] + " ", id="trailing-space"),
        pytest.param(EMPTY[:-1] + "0", id="not-base58"),
        pytest.param(EMPTY[:-1] + "é", id="not-ascii"),
        pytest.param("1" + EMPTY[1:], id="leading-zero"),
        pytest.param("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku", id="version-1"),
        pytest.param("8Wi6XkHdNyBwbE5BZxHyPzcVBx2kJxTfDAZ9a4bLp7sm"[:44] + "11", id="other-multihash"),
    ],
)
def test_what_is_no_cid_is_refused(corrupted: str) -> None:
    with pytest.raises(ValueError, match="not a CIDv0"):
        digest_of_cid(corrupted)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_digest_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        cid_of_digest(bytes(size))
