"""Complaints: what anybody can be shown of a bad record, and what nobody can make of a whole one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from nacl.bindings import crypto_core_ed25519_add

from fedchain.crypto import complaint, dealing
from fedchain.crypto.complaint import Accused, Findings, charge, complaint_size, encode_complaint, judge_complaint
from fedchain.crypto.curve import BASE, exponent_of, multiply, point_of_key, prove_exponent
from fedchain.crypto.dealing import check_shares_object, deal_shares, open_sealed_share, split_shares
from fedchain.crypto.noise import os_random, sample_binomial
from fedchain.crypto.parameters import SHARE_PRIME, N
from fedchain.crypto.sealing import seal, unseal, unseal_with
from fedchain.crypto.shamir import Field, centred, interpolate, point_of
from fedchain.errors import Fault, MalformedObject
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.ids import Bitmap, Digest, Index, Root

from .conftest import Scene, address_of

VICTIM, DEALER = Index(2), Index(0)
CIPHERTEXT = Root(b"\xc1" * 32)
RECORDS = PUBLIC = 56 + 5 * 32 + 16 * 3
RECORD = 64 + 4192
NAME = address_of(VICTIM)


def accused(scene: Scene, root: Root, dealer: Index = DEALER, **changes: object) -> Accused:
    place = scene.place(dealer, **changes)
    context = place.context
    where = context.chain_id, context.contract, context.round, context.attempt, place.dealer_address
    return Accused(place, Digest(update_commitment(*where, CIPHERTEXT, root)))


def judged(scene: Scene, charged: bytes, at: Accused, complainer: Index = VICTIM, dealer: Index = DEALER) -> Findings:
    blob = encode_complaint(complainer, {dealer: charged})
    return judge_complaint(blob, complainer, Bitmap(1 << dealer), {dealer: at}, name=address_of(complainer))


def dealt(scene: Scene, spoil: Callable[[Field], None], monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, Root]:
    """A dealing whose values (shares, or mask values) were bent for somebody before they were committed to."""
    honest = dealing.evaluate

    def crooked(polynomials: Field, points: list[int]) -> Field:
        values = honest(polynomials, points)
        spoil(values)
        return values

    with monkeypatch.context() as patch:
        patch.setattr(dealing, "evaluate", crooked)
        return deal_shares(scene.place(DEALER), sample_binomial(N, os_random), os_random)


def one_share_off(values: Field) -> None:
    if values.shape[1] == N:
        values[VICTIM, 1000] = (values[VICTIM, 1000] + 1) % SHARE_PRIME


def one_mask_off(values: Field) -> None:
    if values.shape[1] < N:
        values[VICTIM, 3] = (values[VICTIM, 3] + 1) % SHARE_PRIME


def flipped(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


def rooted(scene: Scene, blob: bytes) -> tuple[bytes, Root]:
    return blob, check_shares_object(blob, scene.place(DEALER), offender="")


def charged_by_victim(scene: Scene, blob: bytes) -> bytes | None:
    return charge(blob, scene.place(DEALER), VICTIM, scene.keys[VICTIM][0], CIPHERTEXT)


def lie_about(scene: Scene, blob: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A charge about a whole record, by a member that does not look."""
    with monkeypatch.context() as patch:
        patch.setattr(complaint, "_fault_in", lambda *_: "anything")
        made = charged_by_victim(scene, blob)
    assert made is not None
    return made


CASES = ["a share off by one", "a mask value off by one", "a box that does not open", "another commitment"]


def bad_dealing(scene: Scene, case: str, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, Root]:
    match CASES.index(case):
        case 0:
            return dealt(scene, one_share_off, monkeypatch)
        case 1:
            return dealt(scene, one_mask_off, monkeypatch)
        case 2:
            return rooted(scene, flipped(scene.uploads[DEALER].shares, RECORDS + VICTIM * RECORD + 64 + 40))
        case _:
            return rooted(scene, flipped(scene.uploads[DEALER].shares, 56 + 32 * VICTIM))


@pytest.mark.parametrize(
    ("case", "check"),
    list(zip(CASES, ["low-degree proof", "low-degree proof", "seal", "commitment"], strict=True)),
    ids=CASES,
)
def test_anybody_can_check_a_complaint_about(
    scene: Scene, case: str, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob, root = bad_dealing(scene, case, monkeypatch)
    with pytest.raises(Fault) as own:
        open_sealed_share(blob, scene.place(DEALER), VICTIM, scene.keys[VICTIM][0])
    made = charged_by_victim(scene, blob)
    assert made is not None
    assert len(encode_complaint(VICTIM, {DEALER: made})) == complaint_size(5, 3, 1) < 5_500
    found = judged(scene, made, accused(scene, root))
    assert not found.false
    assert found.proven[DEALER].evidence == own.value.evidence
    assert found.proven[DEALER].evidence.check == f"share: {check}"
    assert found.proven[DEALER].evidence.offender == address_of(DEALER)


def test_who_was_dealt_a_whole_record_has_nothing_to_show(scene: Scene) -> None:
    for holder in range(5):
        private = scene.keys[holder][0]
        assert charge(scene.uploads[DEALER].shares, scene.place(DEALER), Index(holder), private, CIPHERTEXT) is None


def test_a_false_complaint_names_its_author_and_proves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    blob, root = rooted(scene, scene.uploads[DEALER].shares)
    found = judged(scene, lie_about(scene, blob, monkeypatch), accused(scene, root))
    assert not found.proven
    assert [(f.evidence.check, f.evidence.offender) for f in found.false] == [("complaint: false", NAME)]


def test_a_wrong_shared_point_which_opens_nothing_proves_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lie that matters: with any other point a whole record looks like one that does not open."""
    blob, root = rooted(scene, scene.uploads[DEALER].shares)
    honest, private = lie_about(scene, blob, monkeypatch), scene.keys[VICTIM][0]
    record = dealing.box_of(split_shares(blob, 5, 3)[1][VICTIM])
    ephemeral, registered = point_of_key(record[:32]), point_of_key(scene.encryption_keys[VICTIM])
    assert ephemeral is not None and registered is not None
    x, shared = exponent_of(private), honest[-96:-64]
    assert unseal_with(record, scene.encryption_keys[VICTIM], shared) == unseal(record, private) is not None
    binding = complaint._binding(scene.place(DEALER), VICTIM)
    others = [
        multiply(x + 1, ephemeral),
        registered,
        BASE,
        crypto_core_ed25519_add(shared, bytes.fromhex("ec" + "ff" * 30 + "7f")),
    ]
    for other in others:
        assert other != shared
        proofs = [honest[-64:]]
        if other != others[-1]:
            proofs.append(prove_exponent(x, [BASE, ephemeral], [registered, other], binding))
        for proof in proofs:
            found = judged(scene, honest[:-96] + other + proof, accused(scene, root))
            assert not found.proven
            assert found.false[0].evidence.check == "complaint: shared point"


@pytest.mark.parametrize(
    ("part", "at", "check"),
    [
        ("public part", 32 + 60, "record"),
        ("record", 32 + PUBLIC + 100, "record"),
        ("first path", 32 + PUBLIC + RECORD + 5, "record"),
        ("second path", 32 + PUBLIC + RECORD + 96 + 5, "record"),
        ("shared point", -90, "shared point"),
        ("proof", -1, "shared point"),
        ("proof's challenge", -60, "shared point"),
    ],
)
def test_bent_evidence_proves_nothing_and_says_where(
    scene: Scene, part: str, at: int, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob, root = dealt(scene, one_share_off, monkeypatch)
    made = charged_by_victim(scene, blob)
    assert made is not None
    assert len(made) == 32 + PUBLIC + RECORD + 192 + 96
    found = judged(scene, flipped(made, at % len(made)), accused(scene, root))
    assert not found.proven, part
    assert found.false[0].evidence.check == f"complaint: {check}"
    assert found.false[0].evidence.offender == NAME


@pytest.mark.parametrize(
    "blob", [b"", b"FCCO", bytes(24), bytes(complaint_size(5, 3, 1)), b"\xff" * complaint_size(5, 3, 1)]
)
def test_what_is_no_complaint_names_its_author(scene: Scene, blob: bytes) -> None:
    at = accused(scene, scene.uploads[DEALER].shares_root)
    found = judge_complaint(blob, VICTIM, Bitmap(1), {DEALER: at}, name=NAME)
    assert not found.proven
    assert isinstance(found.false[0], MalformedObject) and found.false[0].evidence.offender == NAME


def test_a_complaint_belongs_to_one_place_and_one_complainer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    blob, root = dealt(scene, one_share_off, monkeypatch)
    made = charged_by_victim(scene, blob)
    assert made is not None
    for changes in (
        {"context": replace(scene.context, round=4)},
        {"context": replace(scene.context, attempt=2)},
        {"context": replace(scene.context, chain_id=1)},
        {"context": replace(scene.context, model_digest=Digest(bytes(32)))},
    ):
        again = judged(scene, made, accused(scene, scene.uploads[DEALER].shares_root, **changes))
        assert not again.proven and not again.false and again.off_record == (DEALER,)
        # Who commits to the very object of another place has stored a malformed one: that anybody sees.
        same = judged(scene, made, accused(scene, root, **changes))
        assert same.proven[DEALER].evidence.check == "shares: place"
    other = judged(scene, made, accused(scene, root), complainer=Index(3))
    assert not other.proven and other.false[0].evidence.offender == address_of(3)
    stranger = scene.place(DEALER, encryption_keys={j: k for j, k in scene.encryption_keys.items() if j != VICTIM})
    found = judge_complaint(
        encode_complaint(VICTIM, {DEALER: made[: complaint_size(4, 3, 1) - 24]}),
        VICTIM,
        Bitmap(1),
        {DEALER: Accused(stranger, accused(scene, root).commitment)},
        name=NAME,
    )
    assert found.false[0].evidence.check == "complaint: shareholder"


def test_a_charge_about_another_commitment_than_the_one_on_record_is_nobodys_fault(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dealer that deals badly on one fork and well on the other must not have who complained blamed."""
    blob, _ = dealt(scene, one_share_off, monkeypatch)
    made = charged_by_victim(scene, blob)
    assert made is not None
    well = accused(scene, scene.uploads[DEALER].shares_root)
    assert judged(scene, made, well) == Findings({}, (), (DEALER,))
    assert judged(scene, flipped(made, 0), well) == Findings({}, (), (DEALER,))


def test_one_complaint_about_two_dealers_is_judged_charge_by_charge(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, root = dealt(scene, one_share_off, monkeypatch)
    true = charged_by_victim(scene, bad)
    whole = scene.uploads[1]
    with monkeypatch.context() as patch:
        patch.setattr(complaint, "_fault_in", lambda *_: "anything")
        false = charge(whole.shares, scene.place(1), VICTIM, scene.keys[VICTIM][0], CIPHERTEXT)
    assert true is not None and false is not None
    places = {DEALER: accused(scene, root), Index(1): accused(scene, whole.shares_root, Index(1))}
    blob = encode_complaint(VICTIM, {Index(1): false, DEALER: true})
    found = judge_complaint(blob, VICTIM, Bitmap(0b11), places, name=NAME)
    assert list(found.proven) == [DEALER] and len(found.false) == 1
    swapped = judge_complaint(
        encode_complaint(VICTIM, {Index(1): true, DEALER: false}), VICTIM, Bitmap(3), places, name=NAME
    )
    assert not swapped.proven and set(swapped.off_record) == {0, 1}


def test_a_member_may_complain_about_its_own_dealing_and_is_told_from_a_liar(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob, root = dealt(scene, lambda values: values[0].__setitem__(0, (values[0][0] + 1) % SHARE_PRIME), monkeypatch)
    made = charge(blob, scene.place(DEALER), DEALER, scene.keys[DEALER][0], CIPHERTEXT)
    assert made is not None
    assert list(judged(scene, made, accused(scene, root), complainer=DEALER).proven) == [DEALER]


def test_a_member_whose_key_is_no_point_shows_nothing_and_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    low = bytes(32)
    place = scene.place(DEALER, encryption_keys=scene.encryption_keys | {VICTIM: low})
    blob, root = deal_shares(place, sample_binomial(N, os_random), os_random)
    assert charge(blob, place, VICTIM, scene.keys[VICTIM][0], CIPHERTEXT) is None
    public, records = split_shares(blob, 5, 3)
    paths = dealing.leaves_of_shares(blob, 5, 3)
    levels = complaint.levels_of(paths)
    siblings = b"".join((*complaint.path_from(levels, 0, 0), *complaint.path_from(levels, 0, 1 + VICTIM)))
    made = CIPHERTEXT + public + records[VICTIM] + siblings + BASE + bytes(64)
    at = accused(scene, root, encryption_keys=place.encryption_keys)
    found = judged(scene, made, at)
    assert not found.proven and found.false[0].evidence.check == "complaint: key"


# What a complaint gives away.


@pytest.mark.parametrize("proven_by", ["itself", "the other"])
def test_nobody_has_anothers_records_opened_by_sealing_its_own_with_their_key(
    scene: Scene, proven_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the proof that a dealer knows its ephemeral keys, complaints about a copy of them would open the
    original's records, one victim after another: every share of an honest member's key."""
    thief, private = Index(3), scene.keys[VICTIM][0]
    honest = split_shares(scene.uploads[DEALER].shares, 5, 3)[1]
    place = scene.place(thief)
    blob, _ = deal_shares(place, sample_binomial(N, os_random), os_random)
    public, records = split_shares(blob, 5, 3)
    proofs = records if proven_by == "itself" else honest
    taken = [proof[:64] + other[64:96] + own[96:] for proof, other, own in zip(proofs, honest, records, strict=True)]
    blob = public + b"".join(taken)
    with pytest.raises(Fault, match="share: sealing proof"):
        open_sealed_share(blob, place, VICTIM, private)
    made = charge(blob, place, VICTIM, private, CIPHERTEXT)
    assert made is not None and made[-96:] == bytes(96)  # the victim shows the record, and no point
    at = accused(scene, check_shares_object(blob, place, offender=""), thief)
    assert judged(scene, made, at, dealer=thief).proven[thief].evidence.check == "share: sealing proof"

    monkeypatch.setattr(dealing, "is_exponent_proof", lambda *_: True)
    made = charge(blob, place, VICTIM, private, CIPHERTEXT)
    assert made is not None
    opened = unseal_with(honest[VICTIM][64:], scene.encryption_keys[VICTIM], made[-96:-64])
    assert opened is not None
    stolen = np.frombuffer(opened, dtype="<u2", offset=32)[:N]
    assert np.array_equal(stolen, scene.share(DEALER, VICTIM))


def test_a_charge_opens_no_record_of_another_member_with_a_copied_key(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.keys[4] = scene.keys[VICTIM]
    blob, root = dealt(scene, one_share_off, monkeypatch)
    made = charged_by_victim(scene, blob)
    assert made is not None and list(judged(scene, made, accused(scene, root)).proven) == [DEALER]
    copied = dealing.box_of(split_shares(blob, 5, 3)[1][4])
    assert unseal(copied, scene.keys[VICTIM][0]) is not None
    assert unseal_with(copied, scene.encryption_keys[Index(4)], made[-96:-64]) is None


def test_a_charge_opens_the_one_record_and_no_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    blob, _ = dealt(scene, one_share_off, monkeypatch)
    made = charged_by_victim(scene, blob)
    assert made is not None
    shared, opened = made[-96:-64], []
    for text in (blob, scene.uploads[DEALER].shares, scene.uploads[1].shares):
        for record in split_shares(text, 5, 3)[1]:
            opened += [unseal_with(dealing.box_of(record), key, shared) for key in scene.encryption_keys.values()]
    assert sum(secret is not None for secret in opened) == 1


def collusion(scene: Scene, blob: bytes, members: list[int], published: bytes) -> Field:
    """The key that t - 1 members make of their own shares and one published record's."""
    elements = np.frombuffer(published, dtype="<u2", offset=32)[:N].astype(np.int64)
    shares = [open_sealed_share(blob, scene.place(DEALER), Index(j), scene.keys[j][0]) for j in members]
    points = [point_of(j) for j in (*members, VICTIM)]
    return centred(interpolate(points, np.stack([*(share.astype(np.int64) for share in shares), elements])))


def test_a_published_wrong_share_and_t_minus_1_others_give_no_key_and_a_published_right_one_does(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that fails the test lies on no right polynomial: where it is wrong, so is the key it leads to. A right
    one leaves t - 1 others: nobody whose check passes makes a charge, and who does has joined the colluders."""
    s, honest = sample_binomial(N, os_random), dealing.evaluate

    def crooked(polynomials: Field, points: list[int]) -> Field:
        values = honest(polynomials, points)
        if values.shape[1] == N:
            values[VICTIM] = (values[VICTIM] + 1 + np.arange(N) % 1000) % SHARE_PRIME
        return values

    whole, _ = deal_shares(scene.place(DEALER), s, os_random)
    with monkeypatch.context() as patch:
        patch.setattr(dealing, "evaluate", crooked)
        bad, _ = deal_shares(scene.place(DEALER), s, os_random)
    made = charged_by_victim(scene, bad)
    assert made is not None
    assert charged_by_victim(scene, whole) is None
    published = unseal_with(
        dealing.box_of(split_shares(bad, 5, 3)[1][VICTIM]), scene.encryption_keys[VICTIM], made[-96:-64]
    )
    assert published is not None
    for pair in ([0, 1], [3, 4], [1, 4]):
        guess = collusion(scene, bad, pair, published)
        assert (guess == s).sum() == 0
        assert np.abs(guess).max() > 42  # no key that anybody draws
    right = unseal(dealing.box_of(split_shares(whole, 5, 3)[1][VICTIM]), scene.keys[VICTIM][0])
    assert right is not None
    assert np.array_equal(collusion(scene, whole, [3, 4], right), s)


def test_the_same_charge_is_the_same_bytes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that crashed before it stated a complaint makes it again, under the same CID."""
    blob, _ = dealt(scene, one_share_off, monkeypatch)
    assert charged_by_victim(scene, blob) == charged_by_victim(scene, blob)


def test_a_box_opened_by_its_shared_point_is_what_its_holder_opens(scene: Scene) -> None:
    for text in (b"", b"a share", bytes(5000)):
        private, public = scene.keys[1]
        ephemeral = os_random(32)
        box = seal(text, public, ephemeral)
        point = point_of_key(box[:32])
        assert point is not None
        shared = multiply(exponent_of(private), point)
        assert unseal_with(box, public, shared) == text == unseal(box, private)
        assert unseal_with(box, scene.keys[2][1], shared) is None
        assert unseal_with(box[:-1], public, shared) is None
