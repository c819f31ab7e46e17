"""Complaints that anyone can check: a shareholder opens the one bad record that was sealed to it (P2.6).

A charge against a dealer shows, under the dealer's commitment on chain, the public part of its shares object and the
record of the complainer; and the point that the record's ephemeral key and the complainer's registered key share, with
a proof that it is that point (Chaum and Pedersen, CRYPTO 1992; a complaint of this kind: ETHDKG, ePrint 2019/985).
Whoever reads it opens the record, and finds that it holds no share that belongs with the others', or does not open.

What it discloses is this one record, and nothing about the complainer's key or any other record: the dealer has proven
that it knows the ephemeral key's private half, so that the shared point is nothing it did not know. Where it has not,
that is the charge, and no point is shown. A record that is whole is a share of the dealer's key: whoever publishes one
has given it to all. `charge` never does.

The object:

    0    4    magic "FCCO"
    4    4    version, little-endian: 1
    8    1    complainer's index
    9    7    zero
    16   8    the accused dealers, a bitmap, little-endian
    24   …    a charge against each of them, ascending:
              32          root of its ciphertext
              …           public part of its shares object (`dealing.py`)
              4256        the complainer's record
              2·32·depth  the siblings of the public part's leaf, and of the record's, in the tree of the shares object
              32          the shared point, as an Edwards encoding; zeros where the dealer proved nothing
              64          proof that it is: the exponent of the complainer's key; zeros likewise
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import Fault, MalformedObject
from ..protocol.commitment import update_commitment
from ..protocol.ids import Address, Bitmap, Digest, Index, Root, bitmap_of, members_of, size_of
from ..protocol.merkle import HASH_BYTES, depth_of, fold, hash_leaf, levels_of, path_from
from ..protocol.state import Attempt
from .curve import BASE, PROOF_BYTES, exponent_of, is_exponent_proof, multiply, point_of_key, prove_exponent
from .dealing import (
    RECORD_BYTES,
    Place,
    box_of,
    check_public_part,
    check_sealing,
    check_share,
    leaves_of_shares,
    public_bytes,
    split_shares,
)
from .sealing import KEY_BYTES, unseal_with
from .seed import RoundContext

MAGIC, VERSION = b"FCCO", 1

_HEADER_BYTES = 24
_CHARGE_DOMAIN = b"fedchain complaint v1".ljust(32, b"\0")


@dataclass(frozen=True, slots=True)
class Accused:
    """A dealer as the chain knows it: where its dealing belongs, and what it committed to."""

    place: Place
    commitment: Digest


@dataclass(frozen=True, slots=True)
class Findings:
    """What a complaint comes to: the faults of dealers that it proves, and the faults of whoever made it.

    `off_record` are dealers whom it accuses of a commitment that is not on record: nobody's fault. It may have been, on
    blocks that a fork took back.
    """

    proven: Mapping[Index, Fault]
    false: tuple[Fault, ...]
    off_record: tuple[Index, ...] = ()


def accused_in(
    attempt: Attempt, accounts: Sequence[Address], context: RoundContext, dealers: Bitmap
) -> dict[Index, Accused]:
    """Those of the dealers who committed in this attempt, as a complaint about them is judged."""
    keys, threshold = attempt.encryption_keys, attempt.threshold
    return {
        dealer: Accused(Place(context, dealer, accounts[dealer], keys, threshold), attempt.commits[dealer].commitment)
        for dealer in members_of(dealers)
        if dealer in attempt.commits
    }


def complaint_size(n: int, threshold: int, dealers: int) -> int:
    """Bytes of a complaint about so many dealers."""
    return _HEADER_BYTES + dealers * _charge_bytes(n, threshold)


def charge(blob: bytes, place: Place, me: Index, private_key: bytes, ciphertext_root: Root) -> bytes | None:
    """What shows anybody that my record in this shares object is bad. The shareholder makes it, after its own check.

    `blob` passed `check_shares_object`. None where the record is whole: then nothing may be disclosed; and where nobody
    else could be shown, because my registered key is none that X25519 makes.
    """
    n, t = len(place.encryption_keys), place.threshold
    i = place.shareholders.index(me)
    public, records = split_shares(blob, n, t)
    registered, x = point_of_key(place.encryption_keys[me]), exponent_of(private_key)
    if registered is None or multiply(x, BASE) != registered:
        return None
    try:
        ephemeral = check_sealing(records[i], place, me)
    except Fault:
        shown = bytes(KEY_BYTES + PROOF_BYTES)
    else:
        shared = multiply(x, ephemeral)
        if _fault_in(public, records[i], place, me, shared) is None:
            return None
        shown = shared + prove_exponent(x, [BASE, ephemeral], [registered, shared], _binding(place, me))
    levels = levels_of(leaves_of_shares(blob, n, t))
    paths = b"".join((*path_from(levels, 0, 0), *path_from(levels, 0, 1 + i)))
    return ciphertext_root + public + records[i] + paths + shown


def encode_complaint(me: Index, charges: Mapping[Index, bytes]) -> bytes:
    """The object that holds these charges, by dealer."""
    dealers = bitmap_of(tuple(charges)).to_bytes(8, "little")
    header = MAGIC + VERSION.to_bytes(4, "little") + bytes((me,)) + bytes(7) + dealers
    return header + b"".join(charges[dealer] for dealer in sorted(charges))


def judge_complaint(
    blob: bytes, complainer: Index, dealers: Bitmap, accused: Mapping[Index, Accused], *, name: str
) -> Findings:
    """What the evidence of a complaint about these dealers comes to. Anybody runs it.

    `accused` tells of each of the dealers, one at least; `name` is how the complainer is called in faults. A charge
    that shows nothing is its author's fault, and hurts no other charge; an object that is none proves nothing at all.
    """
    proven: dict[Index, Fault] = {}
    false: list[Fault] = []
    off_record: list[Index] = []
    try:
        charges = _decode(blob, complainer, dealers, accused, name)
    except MalformedObject as malformed:
        return Findings(proven, (malformed,))
    for dealer, content in charges.items():
        try:
            found = _judge(content, complainer, accused[dealer], name)
        except Fault as unfounded:
            false.append(unfounded)
            continue
        if found is None:
            off_record.append(dealer)
        else:
            proven[dealer] = found
    return Findings(proven, tuple(false), tuple(off_record))


def _decode(
    blob: bytes, complainer: Index, dealers: Bitmap, accused: Mapping[Index, Accused], name: str
) -> dict[Index, bytes]:
    """The charges by dealer, each of its right length. Raises MalformedObject, the complainer's fault."""
    first = next(iter(accused.values())).place
    length = _charge_bytes(len(first.encryption_keys), first.threshold)

    def malformed(field: str, expected: str, got: str) -> MalformedObject:
        round = first.context.round
        return MalformedObject(f"complaint: {field}", offender=name, round=round, expected=expected, got=got)

    size = _HEADER_BYTES + size_of(dealers) * length
    if len(blob) != size:
        raise malformed("size", f"{size} bytes", f"{len(blob)} bytes")
    due = encode_complaint(complainer, dict.fromkeys(members_of(dealers), b""))
    if blob[:_HEADER_BYTES] != due:
        raise malformed("header", due.hex(), blob[:_HEADER_BYTES].hex())
    starts = range(_HEADER_BYTES, size, length)
    return {dealer: blob[at : at + length] for dealer, at in zip(members_of(dealers), starts, strict=True)}


def _judge(content: bytes, complainer: Index, accused: Accused, name: str) -> Fault | None:
    """The dealer's fault that a charge proves; None where it is about another commitment than the one on record.

    Raises Fault, the complainer's, where it proves none.

    1. The complainer is a shareholder, with a key that proofs can be about. 2. Public part and record are what the
    dealer committed to. 3. The record's ephemeral key is proven: else nothing more has to be shown. 4. The shared point
    is proven. 5. With it the record turns out to be bad.
    """
    place = accused.place
    n, t, context = len(place.encryption_keys), place.threshold, place.context

    def refuse(check: str, expected: str, got: str) -> Fault:
        return Fault(f"complaint: {check}", offender=name, round=context.round, expected=expected, got=got)

    if complainer not in place.encryption_keys:
        raise refuse("shareholder", "a complaint by who was dealt a share", f"one by member {complainer}")
    i = place.shareholders.index(complainer)
    depth = depth_of(n + 1) * HASH_BYTES
    parts = []
    for length in (HASH_BYTES, public_bytes(n, t), RECORD_BYTES, depth, depth, KEY_BYTES, PROOF_BYTES):
        parts.append(content[:length])
        content = content[length:]
    ciphertext_root, public, record, public_path, record_path, shared, proof = parts
    root = fold(hash_leaf(public), 0, _hashes(public_path))
    if fold(hash_leaf(record), 1 + i, _hashes(record_path)) != root:
        raise refuse("record", "the complainer's leaf of the tree of the public part", "a leaf of another")
    place_of = context.chain_id, context.contract, context.round, context.attempt, place.dealer_address
    commitment = update_commitment(*place_of, Root(ciphertext_root), root)
    if commitment != accused.commitment:
        return None
    registered = point_of_key(place.encryption_keys[complainer])
    if registered is None:
        raise refuse("key", "the key of a point of prime order", place.encryption_keys[complainer].hex())
    try:
        check_public_part(public, place, offender=str(place.dealer_address))
        ephemeral = check_sealing(record, place, complainer)
    except Fault as plain:
        return plain
    if not is_exponent_proof(proof, (BASE, ephemeral), (registered, shared), _binding(place, complainer)):
        raise refuse("shared point", "a point that is proven", f"{shared.hex()}, which is not")
    fault = _fault_in(public, record, place, complainer, shared)
    if fault is None:
        raise refuse("false", f"a record of member {place.dealer}'s dealing that is bad", "one that is whole")
    return fault


def _fault_in(public: bytes, record: bytes, place: Place, j: Index, shared: bytes) -> Fault | None:
    """What is wrong with member j's record, opened by the shared point; None if it is whole."""
    try:
        check_share(public, place, j, unseal_with(box_of(record), place.encryption_keys[j], shared))
    except Fault as found:
        return found
    return None


def _charge_bytes(n: int, threshold: int) -> int:
    paths = 2 * HASH_BYTES * depth_of(n + 1)
    return HASH_BYTES + public_bytes(n, threshold) + RECORD_BYTES + paths + KEY_BYTES + PROOF_BYTES


def _hashes(joined: bytes) -> list[bytes]:
    return [joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES)]


def _binding(place: Place, complainer: Index) -> bytes:
    return hashlib.sha256(_CHARGE_DOMAIN + place.digest() + complainer.to_bytes(32, "big")).digest()
