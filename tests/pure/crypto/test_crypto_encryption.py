"""A trainer's ciphertext: fresh noise and a fresh key every time, nothing out of range, every malformed field named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedchain.crypto import check_ciphertext, ciphertext_size, upload
from fedchain.crypto.encryption import encrypt
from fedchain.crypto.noise import sample_binomial
from fedchain.crypto.packing import pack_residues, unpack_residues
from fedchain.crypto.parameters import DELTA, ETA, HEADER_BYTES, N, Q
from fedchain.crypto.ring import SmallFactor
from fedchain.crypto.seed import public_polynomials
from fedchain.errors import MalformedObject

from .conftest import CONTEXT, Scene


def residues_of(ciphertext: bytes) -> NDArray[np.int64]:
    return unpack_residues(ciphertext[HEADER_BYTES:]).view(np.int64)


def difference(one: bytes, other: bytes) -> NDArray[np.int64]:
    """c - c' mod q, nearest to zero."""
    apart = np.mod(residues_of(one) - residues_of(other), Q)
    return np.where(apart > Q // 2, apart - Q, apart)


def test_a_ciphertext_is_what_the_equation_says() -> None:
    plain = np.random.default_rng(2).integers(0, 2**44, 2250).astype(np.uint64)
    s = sample_binomial(N, os.urandom)
    ciphertext, _ = encrypt(CONTEXT.seed, s, plain, os.urandom)
    c = np.zeros(2 * N, dtype=np.int64)
    c[: residues_of(ciphertext).size] = residues_of(ciphertext)
    a_s = SmallFactor(s).times(public_polynomials(CONTEXT.seed, 0, 2)).view(np.int64).reshape(-1)
    m = plain.astype(np.int64)
    e = np.mod(c[:2250] + a_s[:2250] - DELTA * m, Q)
    e = np.where(e > Q // 2, e - Q, e)
    assert np.abs(e).max() <= ETA
    assert 3 < e.std() < 6


def test_noise_is_centred_binomial() -> None:
    draws = sample_binomial(400_000, os.urandom)
    assert abs(draws.mean()) < 0.04
    assert abs(draws.var() - ETA / 2) < 0.4
    assert sample_binomial(4, lambda count: b"\xff" * count).tolist() == [ETA] * 4
    assert sample_binomial(4, bytes).tolist() == [-ETA] * 4


def test_one_key_for_two_messages_would_show_their_difference_and_dealing_never_does_it(scene: Scene) -> None:
    """The attack first, so that it is known to work; then the same attack on what `deal` makes."""
    values = scene.values[0].astype(np.uint64)
    other = values.copy()
    other[10] += 1
    s = sample_binomial(N, os.urandom)
    reused = difference(encrypt(CONTEXT.seed, s, other, os.urandom)[0], encrypt(CONTEXT.seed, s, values, os.urandom)[0])
    assert np.flatnonzero(np.abs(reused) > 2 * ETA).tolist() == [10]
    one, two = scene.deal(0, scene.values[0]), scene.deal(0, scene.values[0])
    assert (np.abs(difference(one.ciphertext, two.ciphertext)) > 2 * ETA).all()
    assert one.shares != two.shares
    assert not np.array_equal(scene.share(0, 1, one.shares), scene.share(0, 1, two.shares))


def test_all_randomness_comes_from_the_operating_system(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    np.random.seed(0)
    one = scene.deal(0)
    np.random.seed(0)
    assert scene.deal(0) != one
    assert upload.os_random is os.urandom
    monkeypatch.setattr(upload, "os_random", lambda count: b"\x07" * count)
    assert scene.deal(0) == scene.deal(0), "with that source fixed nothing random is left"


def test_a_ciphertext_looks_uniform(make_scene: type[Scene]) -> None:
    scene = make_scene(n=3, threshold=2, d=40_000)
    zeros = residues_of(scene.deal(0, np.zeros(scene.d // 2, dtype=np.int64)).ciphertext)
    assert abs(zeros.mean() / Q - 0.5) < 0.02
    assert np.abs(np.corrcoef(zeros[:-1], zeros[1:])[0, 1]) < 0.04


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.array([0, 2**44]), "integers from 0 to 17592186044415"),
        (np.array([-1, 5]), "integers from 0 to 17592186044415"),
        (np.array([0.5, 1.0]), "vector of integers"),
        (np.array([], dtype=np.int64), "non-empty"),
        (np.zeros((2, 2), dtype=np.int64), "one non-empty vector"),
    ],
    ids=["too-large", "negative", "floats", "empty", "matrix"],
)
def test_coefficients_that_would_wrap_silently_are_refused(scene: Scene, values: NDArray[np.int64], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        scene.deal(0, values)


@pytest.mark.parametrize("d", [2, 126, 128, 130, 4096, 4098, 70_000])
def test_sizes_are_exact_for_every_length(make_scene: type[Scene], d: int, tmp_path: Path) -> None:
    scene = make_scene(n=3, threshold=2, d=d)
    dealt = scene.deal(0)
    assert len(dealt.ciphertext) == ciphertext_size(d)
    assert check_ciphertext(dealt.ciphertext, d, offender="", round=1) == dealt.ciphertext_root
    stored = tmp_path / "ciphertext"
    stored.write_bytes(dealt.ciphertext)
    assert check_ciphertext(stored, d, offender="", round=1) == dealt.ciphertext_root


def test_an_upload_takes_at_most_6_8_bytes_a_coefficient() -> None:
    from fedchain.crypto import shares_size

    for n in range(3, 6):
        assert (ciphertext_size(1_000_000) + shares_size(n, n // 2 + 1)) / 500_000 <= 6.8


def with_residue(ciphertext: bytes, place: int, value: int) -> bytes:
    residues = unpack_residues(ciphertext[HEADER_BYTES:])
    residues[place] = value
    return ciphertext[:HEADER_BYTES] + pack_residues(residues)


@pytest.mark.parametrize(
    ("field", "corrupt"),
    [
        ("size", lambda c: c[:-1]),
        ("size", lambda c: c + b"\0"),
        ("size", lambda c: b""),
        ("magic", lambda c: b"FCAG" + c[4:]),
        ("version", lambda c: c[:4] + b"\2" + c[5:]),
        ("length", lambda c: c[:8] + b"\0" + c[9:]),
        ("residue 130", lambda c: with_residue(c, 130, Q)),
        ("residue 0", lambda c: with_residue(c, 0, 2**54 - 1)),
        ("residue 191", lambda c: with_residue(c, 191, Q + 1)),
    ],
    ids=["truncated", "longer", "empty", "magic", "version", "length", "residue-q", "first-residue", "last-residue"],
)
def test_a_malformed_ciphertext_names_its_field(scene: Scene, field: str, corrupt: object, tmp_path: Path) -> None:
    broken = corrupt(scene.uploads[0].ciphertext)  # type: ignore[operator]
    stored = tmp_path / "broken"
    stored.write_bytes(broken)
    for blob in (broken, stored):
        with pytest.raises(MalformedObject) as fault:
            check_ciphertext(blob, scene.d, offender="member 4", round=9)
        assert fault.value.evidence.check == f"ciphertext: {field}"
        assert (fault.value.evidence.offender, fault.value.evidence.round) == ("member 4", 9)


def test_the_largest_residue_is_still_whole_and_changes_the_root(scene: Scene) -> None:
    changed = with_residue(scene.uploads[0].ciphertext, 3, Q - 1)
    assert check_ciphertext(changed, scene.d, offender="", round=1) != scene.uploads[0].ciphertext_root
