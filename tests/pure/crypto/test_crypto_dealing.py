"""Verifiable dealing: a share that fits nothing else is refused, wherever it was bent, and the dealer is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from nacl.public import PrivateKey, SealedBox

from fedchain.crypto import check_shares, dealing, open_share, shares_size
from fedchain.crypto.dealing import check_shares_object, deal_shares, open_sealed_share
from fedchain.crypto.noise import os_random, sample_binomial
from fedchain.crypto.parameters import MASKS, SHARE_PRIME, N
from fedchain.crypto.sealing import seal, unseal
from fedchain.crypto.shamir import Field, centred, interpolate, point_of
from fedchain.errors import Fault, MalformedObject
from fedchain.protocol.ids import Address, Digest, Index

from .conftest import Scene, address_of

COMMITMENTS, PROOF = 56, 56 + 5 * 32
RECORDS = PROOF + 2 * MASKS * 3
RECORD = 64 + 4192


def flipped(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


def test_shares_interpolate_to_the_key_that_was_dealt(scene: Scene) -> None:
    s = sample_binomial(N, os_random)
    blob, root = deal_shares(scene.place(1), s, os_random)
    assert len(blob) == shares_size(5, 3)
    assert check_shares_object(blob, scene.place(1), offender="") == root
    for committee in ([0, 1, 2], [4, 1, 3]):
        shares = np.stack([scene.share(1, j, blob).astype(np.int64) for j in committee])
        assert np.array_equal(centred(interpolate([point_of(j) for j in committee], shares)), s)


def test_a_share_opens_for_its_holder_only(scene: Scene) -> None:
    with pytest.raises(Fault) as fault:
        open_sealed_share(scene.uploads[0].shares, scene.place(0), Index(2), scene.keys[3][0])
    assert fault.value.evidence.check == "share: seal"


def test_the_public_part_takes_432_bytes_for_ten_members_and_a_threshold_of_seven() -> None:
    assert shares_size(10, 7) - 56 - 10 * RECORD == 432


@pytest.mark.parametrize(
    ("field", "at"),
    [
        ("magic", 0),
        ("version", 4),
        ("dealer", 8),
        ("threshold", 9),
        ("padding", 12),
        ("shareholders", 16),
        ("place", 24),
    ],
)
def test_a_malformed_shares_object_names_its_field(scene: Scene, field: str, at: int) -> None:
    with pytest.raises(MalformedObject) as fault:
        check_shares_object(flipped(scene.uploads[0].shares, at), scene.place(0), offender="member 0")
    assert fault.value.evidence.check == f"shares: {field}"
    assert fault.value.evidence.offender == "member 0"


def test_a_truncated_or_longer_shares_object_is_refused(scene: Scene) -> None:
    for blob in (scene.uploads[0].shares[:-1], scene.uploads[0].shares + b"\0", b""):
        with pytest.raises(MalformedObject, match="shares: size"):
            check_shares_object(blob, scene.place(0), offender="")


def test_a_proof_element_outside_the_field_is_refused(scene: Scene) -> None:
    blob = scene.uploads[0].shares
    with pytest.raises(MalformedObject, match="shares: proof"):
        check_shares_object(blob[:PROOF] + b"\xf1\xff" + blob[PROOF + 2 :], scene.place(0), offender="")


@pytest.mark.parametrize(
    ("check", "at"),
    [
        ("share: sealing proof", RECORDS + 2 * RECORD),
        ("share: sealing proof", RECORDS + 2 * RECORD + 63),
        ("share: seal", RECORDS + 2 * RECORD + 64 + 40),
        ("share: seal", RECORDS + 3 * RECORD - 1),
        ("share: commitment", COMMITMENTS + 2 * 32),
        ("share: low-degree proof", COMMITMENTS + 4 * 32),
        ("share: low-degree proof", PROOF),
        ("share: low-degree proof", PROOF + 2 * MASKS * 3 - 2),
    ],
    ids=["sealing-proof", "its-end", "mac", "last-byte", "own-commitment", "other-commitment", "first-z", "last-z"],
)
def test_a_tampered_dealing_is_refused_by_the_shareholder_it_touches(scene: Scene, check: str, at: int) -> None:
    with pytest.raises(Fault) as fault:
        scene.share(0, 2, flipped(scene.uploads[0].shares, at))
    assert fault.value.evidence.check == check
    assert fault.value.evidence.offender == address_of(0)
    assert fault.value.evidence.round == scene.context.round


def test_a_record_spoiled_for_one_shareholder_does_not_touch_the_others(scene: Scene) -> None:
    blob = flipped(scene.uploads[0].shares, RECORDS + 2 * RECORD + 100)
    assert np.array_equal(scene.share(0, 1, blob), scene.share(0, 1))


def test_every_record_and_the_proof_are_under_the_root(scene: Scene) -> None:
    blob, place = scene.uploads[0].shares, scene.place(0)
    roots = {check_shares_object(flipped(blob, at), place, offender="") for at in (COMMITMENTS, RECORDS, len(blob) - 1)}
    assert len(roots | {scene.uploads[0].shares_root}) == 4


CONTEXT_CHANGES: dict[str, Callable[[Scene], dict[str, object]]] = {
    "chain": lambda scene: {"context": replace(scene.context, chain_id=1)},
    "contract": lambda scene: {"context": replace(scene.context, contract=Address("0x" + "aa" * 20))},
    "round": lambda scene: {"context": replace(scene.context, round=4)},
    "attempt": lambda scene: {"context": replace(scene.context, attempt=2)},
    "model": lambda scene: {"context": replace(scene.context, model_digest=Digest(bytes(32)))},
    "address": lambda scene: {"dealer_address": address_of(9)},
    "keys": lambda scene: {"encryption_keys": scene.encryption_keys | {Index(4): bytes(31) + b"\x09"}},
}


@pytest.mark.parametrize("change", CONTEXT_CHANGES)
def test_a_dealing_belongs_to_one_place(scene: Scene, change: str) -> None:
    place = scene.place(0, **CONTEXT_CHANGES[change](scene))
    with pytest.raises(MalformedObject, match="shares: place"):
        check_shares_object(scene.uploads[0].shares, place, offender="")
    with pytest.raises(Fault):
        open_sealed_share(scene.uploads[0].shares, place, Index(1), scene.keys[1][0])


@pytest.mark.parametrize("change", ["attempt", "address", "round"])
def test_a_relabelled_dealing_still_fails_because_its_proofs_and_commitments_hash_the_place(
    scene: Scene, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copier rewrites the header, the one part it can make; proof, commitments and challenges it cannot."""
    place = scene.place(0, **CONTEXT_CHANGES[change](scene))
    relabelled = place.header() + scene.uploads[0].shares[56:]
    check_shares_object(relabelled, place, offender="")
    with pytest.raises(Fault, match="share: sealing proof"):
        open_sealed_share(relabelled, place, Index(1), scene.keys[1][0])
    monkeypatch.setattr(dealing, "is_exponent_proof", lambda *_: True)
    with pytest.raises(Fault, match="share: commitment"):
        open_sealed_share(relabelled, place, Index(1), scene.keys[1][0])


def test_a_copied_upload_under_another_members_name_fails(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    original = scene.uploads[0].shares
    thief = {"dealer": Index(3), "dealer_address": address_of(3)}
    terms = {"encryption_keys": scene.encryption_keys, "threshold": scene.threshold}
    with pytest.raises(MalformedObject, match="shares: dealer"):
        check_shares(original, scene.context, **thief, **terms, offender=address_of(3))  # type: ignore[arg-type]
    copied = scene.place(3).header() + original[56:]
    check_shares(copied, scene.context, **thief, **terms, offender=address_of(3))  # type: ignore[arg-type]
    monkeypatch.setattr(dealing, "is_exponent_proof", lambda *_: True)
    with pytest.raises(Fault, match="share: commitment") as fault:
        open_share(
            copied,
            scene.context,
            **thief,  # type: ignore[arg-type]
            **terms,  # type: ignore[arg-type]
            me=Index(1),
            private_key=scene.keys[1][0],
        )
    assert fault.value.evidence.offender == address_of(3)


def test_recommitting_to_copied_shares_fails_at_the_proof(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colluding shareholder hands its own share to the copier, who commits to it afresh: the challenges change."""
    original, mine = scene.uploads[0].shares, scene.place(3)
    secret = unseal(original[RECORDS + RECORD + 64 : RECORDS + 2 * RECORD], scene.keys[1][0])
    assert secret is not None
    forged = mine.header() + original[56:]
    commitment = dealing._commit(mine.digest(), Index(1), secret)
    forged = forged[: COMMITMENTS + 32] + commitment + forged[COMMITMENTS + 64 :]
    monkeypatch.setattr(dealing, "is_exponent_proof", lambda *_: True)
    with pytest.raises(Fault, match="low-degree proof"):
        open_sealed_share(forged, mine, Index(1), scene.keys[1][0])


def test_a_dealer_whose_shares_fit_no_polynomial_is_caught_by_the_shareholder(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = dealing.evaluate

    def crooked(polynomials: Field, points: list[int]) -> Field:
        values = honest(polynomials, points)
        if values.shape[1] == N:
            values[2, 1000] = (values[2, 1000] + 1) % SHARE_PRIME
        return values

    monkeypatch.setattr(dealing, "evaluate", crooked)
    blob, _ = deal_shares(scene.place(0), sample_binomial(N, os_random), os_random)
    for holder in (0, 1, 3, 4):
        scene.share(0, holder, blob)
    with pytest.raises(Fault, match="low-degree proof"):
        scene.share(0, 2, blob)


def test_a_dealer_of_too_high_a_degree_is_caught(scene: Scene) -> None:
    """Shares on a polynomial of degree t, with the leading row of z left out, satisfy nobody."""
    deeper, place = scene.place(0, threshold=4), scene.place(0)
    blob, _ = deal_shares(deeper, sample_binomial(N, os_random), os_random)
    z = np.frombuffer(blob, dtype="<u2", count=MASKS * 4, offset=PROOF).reshape(MASKS, 4)
    records = blob[PROOF + 2 * MASKS * 4 :]
    cut = place.header() + blob[COMMITMENTS:PROOF] + z[:, :3].tobytes() + records
    check_shares_object(cut, place, offender="")
    for holder in range(5):
        with pytest.raises(Fault):
            scene.share(0, holder, cut)


def test_an_element_outside_the_field_is_refused_even_when_committed_to(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dealing, "_elements", lambda elements: np.full(elements.shape, 65530, "<u2").tobytes())
    blob, _ = deal_shares(scene.place(0), sample_binomial(N, os_random), os_random)
    blob = blob[:PROOF] + bytes(2 * MASKS * 3) + blob[RECORDS:]
    with pytest.raises(Fault, match="share: range"):
        scene.share(0, 2, blob)


def test_the_proof_says_nothing_about_the_key(scene: Scene) -> None:
    """z of the same key is fresh every time: the masks hide it."""
    s = sample_binomial(N, os_random)
    proofs = [deal_shares(scene.place(0), s, os_random)[0][PROOF:RECORDS] for _ in range(2)]
    overlap = np.frombuffer(proofs[0], "<u2") == np.frombuffer(proofs[1], "<u2")
    assert overlap.sum() <= 2


def test_a_members_bad_key_keeps_nobody_from_dealing(scene: Scene) -> None:
    """Keys of low order agree on no secret: their record holds zeros, and the others' shares are whole."""
    for low in (bytes(31) + b"\0", b"\1" + bytes(31)):
        place = scene.place(0, encryption_keys=scene.encryption_keys | {Index(4): low})
        blob, _ = deal_shares(place, sample_binomial(N, os_random), os_random)
        assert blob[-RECORD:] == bytes(RECORD)
        open_sealed_share(blob, place, Index(1), scene.keys[1][0])


def test_two_members_with_one_key_have_two_key_streams(scene: Scene) -> None:
    """Nobody proves to know the key it registers: who copies an honest member's must not learn how their shares differ.

    Under one key stream the two records would differ as their contents do, for everybody to see.
    """
    place = scene.place(0, encryption_keys=scene.encryption_keys | {Index(4): scene.encryption_keys[Index(2)]})
    blob, _ = deal_shares(place, sample_binomial(N, os_random), os_random)
    records = [blob[RECORDS + j * RECORD : RECORDS + (j + 1) * RECORD] for j in (2, 4)]
    secrets = [unseal(record[64:], scene.keys[2][0]) for record in records]
    assert secrets[0] is not None and secrets[1] is not None
    bodies = [np.frombuffer(record[64 + 48 :], dtype=np.uint8) for record in records]
    contents = [np.frombuffer(secret, dtype=np.uint8) for secret in secrets if secret is not None]
    alike = (bodies[0] ^ bodies[1]) == (contents[0] ^ contents[1])
    assert alike.sum() < 100  # of 4,144, and 16 by chance
    assert records[0][64:96] != records[1][64:96]


def test_sealed_boxes_are_libsodiums_own() -> None:
    key = PrivateKey.generate()
    sealed = seal(b"a share", key.public_key.encode(), os_random(32))
    assert SealedBox(key).decrypt(sealed) == b"a share"
    assert unseal(SealedBox(key.public_key).encrypt(b"back"), key.encode()) == b"back"
    assert unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), key.encode()) is None
    assert unseal(b"short", key.encode()) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"threshold": 6}, "threshold"),
        ({"threshold": 0}, "threshold"),
        ({"encryption_keys": {}}, "shareholders"),
        ({"encryption_keys": {Index(64): bytes(32)}}, "shareholders"),
        ({"encryption_keys": {Index(0): bytes(31)}, "threshold": 1}, "32 bytes"),
    ],
)
def test_a_place_that_cannot_be_is_refused(scene: Scene, changes: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        scene.place(0, **changes)
