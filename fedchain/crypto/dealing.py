"""Verifiable dealing: shares of a one-time key, each sealed to one shareholder, with a proof that they belong together.

The proof is SCRAPE's low-degree test (Cascudo and David, ACNS 2017) in its prover-aided form, as hash-based verifiable
secret sharing uses it: beside the 2048 polynomials f_i that share s, the dealer shares 8 random masks r_k, commits to
each shareholder's values by a hash, draws challenges c_k from all commitments (Fiat and Shamir), and publishes

    z_k(X) = r_k(X) + Σ_i c_ki·f_i(X),        8 polynomials of degree < t.

Shareholder j checks z_k(x_j) = r_k(x_j) + Σ_i c_ki·f_i(x_j). If the shares of those who accept lie on no polynomials of
degree < t, one of the eight equations fails but with probability 65521**-8 < 2**-127 a try. The masks are uniform and
of the same degree, so z says nothing about s beyond what t - 1 shares say: nothing.

Commitments and challenges hash the whole place of the dealing: chain, contract, round, attempt, base model, the
dealer's index and address, the threshold, and the shareholders' keys. A copy under another member's name fails.

Every record has an ephemeral key of its own, and the dealer proves beside it that it knows the private half, for this
place and shareholder. Otherwise it could take over the key of another dealer's record, have its own complained about
(`complaint.py`), and so have the other's opened.

The object: public part (a Merkle leaf), then one sealed record a shareholder, ascending (a leaf each).

    0    4   magic "FCSH"
    4    4   version, little-endian: 2
    8    1   dealer's index
    9    1   threshold t
    10   6   zero
    16   8   shareholders, a bitmap, little-endian
    24   32  digest of the place of the dealing
    56   32n commitments
    …    16t z: 8 rows of t elements, two bytes each, little-endian
    …    n records of 4,256 bytes: proof of knowing the ephemeral key's private half (64, `curve.py`)
         ‖ sealed(blind 32 ‖ share 4096 ‖ mask values 16), which begins with the ephemeral key
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import Fault, MalformedObject
from ..protocol.ids import MAX_MEMBERS, Address, Index, Root, bitmap_of
from ..protocol.merkle import Hash, hash_leaf, root_of
from .curve import (
    BASE,
    PROOF_BYTES,
    Point,
    exponent_of,
    is_exponent_proof,
    multiply,
    point_of_key,
    prove_exponent,
)
from .noise import Random
from .parameters import MASKS, SHARE_PRIME, N
from .sealing import KEY_BYTES, SEAL_BYTES, seal, unseal
from .seed import RoundContext
from .shamir import Field, evaluate, point_of, powers, random_polynomials, sample_field

MAGIC, VERSION = b"FCSH", 2

_PLACE_DOMAIN = b"fedchain dealing v1".ljust(32, b"\0")
_SHARE_DOMAIN = b"fedchain share v1".ljust(32, b"\0")
_CHALLENGE_DOMAIN = b"fedchain challenge v1".ljust(32, b"\0")
_SEALING_DOMAIN = b"fedchain sealing v1".ljust(32, b"\0")

_HEADER_BYTES = 56
_BLIND_BYTES = 32
_SHARE_BYTES = 2 * N
RECORD_BYTES = PROOF_BYTES + SEAL_BYTES + _BLIND_BYTES + _SHARE_BYTES + 2 * MASKS


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dealing belongs: whatever is hashed into its commitments and challenges."""

    context: RoundContext
    dealer: Index
    dealer_address: Address
    encryption_keys: Mapping[Index, bytes]
    threshold: int

    def __post_init__(self) -> None:
        if not self.encryption_keys or not all(0 <= j < MAX_MEMBERS for j in self.encryption_keys):
            raise ValueError(f"shareholders have indices from 0 to {MAX_MEMBERS - 1}")
        if not all(len(key) == KEY_BYTES for key in self.encryption_keys.values()):
            raise ValueError("an X25519 key has 32 bytes")
        if not 1 <= self.threshold <= len(self.encryption_keys) or not 0 <= self.dealer < MAX_MEMBERS:
            raise ValueError("the threshold is from 1 to the number of shareholders")

    @property
    def shareholders(self) -> tuple[Index, ...]:
        """The shareholders, ascending: the order of commitments and records."""
        return tuple(sorted(self.encryption_keys))

    def digest(self) -> bytes:
        """SHA-256 of 32-byte words: domain, the context's five, dealer, address, t, n, then index and key of each."""
        words = [
            _PLACE_DOMAIN,
            self.context.words(),
            self.dealer.to_bytes(32, "big"),
            bytes.fromhex(self.dealer_address[2:]).rjust(32, b"\0"),
            self.threshold.to_bytes(32, "big"),
            len(self.encryption_keys).to_bytes(32, "big"),
        ]
        for j in self.shareholders:
            words += [j.to_bytes(32, "big"), self.encryption_keys[j]]
        return hashlib.sha256(b"".join(words)).digest()

    def header(self) -> bytes:
        """The 56 bytes that open the object."""
        return b"".join(
            (
                MAGIC,
                VERSION.to_bytes(4, "little"),
                bytes((self.dealer, self.threshold)) + bytes(6),
                bitmap_of(self.shareholders).to_bytes(8, "little"),
                self.digest(),
            )
        )


def shares_size(n: int, threshold: int) -> int:
    """Bytes of the shares object for n shareholders."""
    return public_bytes(n, threshold) + n * RECORD_BYTES


def deal_shares(place: Place, s: NDArray[np.int64], random: Random) -> tuple[bytes, Root]:
    """The shares object of a key s ((N,) int64, |s_j| <= 42), and its Merkle root. The dealer runs it."""
    t, shareholders = place.threshold, place.shareholders
    points = [point_of(j) for j in shareholders]
    f = random_polynomials(s, t, random)
    r = sample_field(t * MASKS, random).reshape(t, MASKS)
    try:
        shares, masks = evaluate(f, points), evaluate(r, points)
        place_digest = place.digest()
        secrets = [
            random(_BLIND_BYTES) + _elements(share) + _elements(mask) for share, mask in zip(shares, masks, strict=True)
        ]
        commitments = [_commit(place_digest, j, secret) for j, secret in zip(shareholders, secrets, strict=True)]
        c = _challenges(place_digest, commitments)
        z = (r.T + c @ f.T) % SHARE_PRIME
        records = [make_record(place, j, secret, random) for j, secret in zip(shareholders, secrets, strict=True)]
    finally:
        f.fill(0)
        r.fill(0)
    blob = b"".join((place.header(), *commitments, _elements(z), *records))
    return blob, root_of(leaves_of_shares(blob, len(shareholders), t))


def make_record(place: Place, j: Index, secret: bytes, random: Random) -> bytes:
    """Member j's record: its values sealed to its key, behind the proof that the dealer knows the ephemeral key.

    Zeros for a recipient whose key is of low order.
    """
    ephemeral = random(KEY_BYTES)
    box = seal(secret, place.encryption_keys[j], ephemeral)
    if not any(box):
        return bytes(RECORD_BYTES)
    x = exponent_of(ephemeral)
    return prove_exponent(x, [BASE], [multiply(x, BASE)], _sealing_binding(place, j)) + box


def box_of(record: bytes) -> bytes:
    """The sealed box of a record."""
    return record[PROOF_BYTES:]


def check_shares_object(blob: bytes, place: Place, *, offender: str) -> Root:
    """The Merkle root of a shares object whose public part is right: size, header, place, and elements in range.

    Says nothing about a record: its shareholder can (`open_sealed_share`). Raises MalformedObject naming the field.
    """
    n, t = len(place.encryption_keys), place.threshold
    if len(blob) != shares_size(n, t):
        raise _malformed(place, offender, "size", f"{shares_size(n, t)} bytes", f"{len(blob)} bytes")
    check_public_part(split_shares(blob, n, t)[0], place, offender=offender)
    return root_of(leaves_of_shares(blob, n, t))


def check_public_part(public: bytes, place: Place, *, offender: str) -> None:
    """Check the first leaf of a shares object, of its right size: header, place, ranges.

    Raises MalformedObject naming the field.
    """
    due = place.header()
    fields = {
        "magic": slice(0, 4),
        "version": slice(4, 8),
        "dealer": slice(8, 9),
        "threshold": slice(9, 10),
        "padding": slice(10, 16),
        "shareholders": slice(16, 24),
        "place": slice(24, _HEADER_BYTES),
    }
    for field, part in fields.items():
        if public[part] != due[part]:
            raise _malformed(place, offender, field, due[part].hex(), public[part].hex())
    z = _proof(public, len(place.encryption_keys), place.threshold)
    if z.max() >= SHARE_PRIME:
        raise _malformed(place, offender, "proof", f"elements below {SHARE_PRIME}", str(int(z.max())))


def check_sealing(record: bytes, place: Place, j: Index) -> Point:
    """The point of a record's ephemeral key, of which the dealer has shown that it knows the private half, here.

    Raises a Fault that names the dealer: until this holds nobody may disclose what opens the record.
    """
    key = box_of(record)[:KEY_BYTES]
    point = point_of_key(key)
    if point is None:
        raise _refuse(place, "sealing key", "the key of a point of prime order", key.hex())
    proof = record[:PROOF_BYTES]
    if not is_exponent_proof(proof, [BASE], [point], _sealing_binding(place, j)):
        raise _refuse(place, "sealing proof", "one that the dealer knows the sealing key", proof.hex())
    return point


def open_sealed_share(blob: bytes, place: Place, me: Index, private_key: bytes) -> NDArray[np.uint16]:
    """My share of the dealer's key: (N,) uint16 below 65521, verified. The shareholder runs it (P2).

    Raises a Fault that names the dealer: MalformedObject where anybody sees it, another where others need a complaint.
    """
    check_shares_object(blob, place, offender=str(place.dealer_address))
    public, records = split_shares(blob, len(place.encryption_keys), place.threshold)
    record = records[place.shareholders.index(me)]
    check_sealing(record, place, me)
    return check_share(public, place, me, unseal(box_of(record), private_key))


def check_share(public: bytes, place: Place, j: Index, secret: bytes | None) -> NDArray[np.uint16]:
    """Member j's share, from the content of its record, beside a public part that is right.

    1. The record opened: `secret` is not None. 2. It is what the dealer committed to, here. 3. Its elements are in the
    field. 4. It lies on the polynomials of degree < t. Raises a Fault that names the dealer.
    """
    n, t = len(place.encryption_keys), place.threshold
    if secret is None:
        raise _refuse(place, "seal", f"a record sealed to member {j}", "one that does not open")
    place_digest = place.digest()
    commitments = [public[_HEADER_BYTES + 32 * k : _HEADER_BYTES + 32 * (k + 1)] for k in range(n)]
    due, found = commitments[place.shareholders.index(j)], _commit(place_digest, j, secret)
    if found != due:
        raise _refuse(place, "commitment", due.hex(), found.hex())
    elements = np.frombuffer(secret, dtype="<u2", offset=_BLIND_BYTES).astype(np.int64)
    if elements.max() >= SHARE_PRIME:
        raise _refuse(place, "range", f"elements below {SHARE_PRIME}", str(int(elements.max())))
    share, masks = elements[:N], elements[N:]
    promised = _proof(public, n, t) @ powers([point_of(j)], t)[0] % SHARE_PRIME
    combined = (masks + _challenges(place_digest, commitments) @ share) % SHARE_PRIME
    if not np.array_equal(promised, combined):
        raise _refuse(place, "low-degree proof", str(promised.tolist()), str(combined.tolist()))
    return share.astype(np.uint16)


def split_shares(blob: bytes, n: int, threshold: int) -> tuple[bytes, list[bytes]]:
    """The leaves of a shares object of the right size: its public part, and its records."""
    start = public_bytes(n, threshold)
    return blob[:start], [blob[start + i * RECORD_BYTES : start + (i + 1) * RECORD_BYTES] for i in range(n)]


def leaves_of_shares(blob: bytes, n: int, threshold: int) -> list[Hash]:
    """The hashes of the leaves of a shares object of the right size."""
    public, records = split_shares(blob, n, threshold)
    return [hash_leaf(public), *(hash_leaf(record) for record in records)]


def public_bytes(n: int, threshold: int) -> int:
    """Bytes of the public part, the first leaf."""
    return _HEADER_BYTES + 32 * n + 2 * MASKS * threshold


def _commit(place_digest: bytes, j: Index, secret: bytes) -> bytes:
    """SHA-256(domain ‖ place ‖ j ‖ blind ‖ share ‖ mask values)."""
    return hashlib.sha256(_SHARE_DOMAIN + place_digest + j.to_bytes(32, "big") + secret).digest()


def _challenges(place_digest: bytes, commitments: list[bytes]) -> Field:
    """c: (8, N) from SHAKE-256(domain ‖ place ‖ commitments), 32-bit little-endian words mod 65521.

    The reduction's bias raises the chance of a false proof by a factor of (1 + 2**-16)**8.
    """
    stream = hashlib.shake_256(_CHALLENGE_DOMAIN + place_digest + b"".join(commitments)).digest(4 * MASKS * N)
    return (np.frombuffer(stream, dtype="<u4").astype(np.int64) % SHARE_PRIME).reshape(MASKS, N)


def _elements(elements: Field) -> bytes:
    return elements.astype("<u2").tobytes()


def _proof(public: bytes, n: int, t: int) -> Field:
    start = _HEADER_BYTES + 32 * n
    return np.frombuffer(public, dtype="<u2", count=MASKS * t, offset=start).astype(np.int64).reshape(MASKS, t)


def _sealing_binding(place: Place, j: Index) -> bytes:
    return hashlib.sha256(_SEALING_DOMAIN + place.digest() + j.to_bytes(32, "big")).digest()


def _refuse(place: Place, check: str, expected: str, got: str) -> Fault:
    offender = str(place.dealer_address)
    return Fault(f"share: {check}", offender=offender, round=place.context.round, expected=expected, got=got)


def _malformed(place: Place, offender: str, field: str, expected: str, got: str) -> MalformedObject:
    return MalformedObject(f"shares: {field}", offender=offender, round=place.context.round, expected=expected, got=got)
