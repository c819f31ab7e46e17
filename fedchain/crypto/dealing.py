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

The object: public part (a Merkle leaf), then one sealed record a shareholder, ascending (a leaf each).

    0    4   magic "FCSH"
    4    4   version, little-endian: 1
    8    1   dealer's index
    9    1   threshold t
    10   6   zero
    16   8   shareholders, a bitmap, little-endian
    24   32  digest of the place of the dealing
    56   32n commitments
    …    16t z: 8 rows of t elements, two bytes each, little-endian
    …    n records of 4,192 bytes: sealed(blind 32 ‖ share 4096 ‖ mask values 16)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import Fault, MalformedObject
from ..protocol.ids import MAX_MEMBERS, Address, Index, Root, bitmap_of
from ..protocol.merkle import hash_leaf, root_of
from .noise import Random
from .parameters import MASKS, SHARE_PRIME, N
from .sealing import KEY_BYTES, SEAL_BYTES, seal, unseal
from .seed import RoundContext
from .shamir import Field, evaluate, point_of, powers, random_polynomials, sample_field

MAGIC, VERSION = b"FCSH", 1

_PLACE_DOMAIN = b"fedchain dealing v1".ljust(32, b"\0")
_SHARE_DOMAIN = b"fedchain share v1".ljust(32, b"\0")
_CHALLENGE_DOMAIN = b"fedchain challenge v1".ljust(32, b"\0")

_HEADER_BYTES = 56
_BLIND_BYTES = 32
_SHARE_BYTES = 2 * N
_RECORD_BYTES = SEAL_BYTES + _BLIND_BYTES + _SHARE_BYTES + 2 * MASKS


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
    return _public_bytes(n, threshold) + n * _RECORD_BYTES


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
        records = [
            seal(secret, place.encryption_keys[j], random) for j, secret in zip(shareholders, secrets, strict=True)
        ]
    finally:
        f.fill(0)
        r.fill(0)
    public = place.header() + b"".join(commitments) + _elements(z)
    return public + b"".join(records), _root(public, records)


def check_shares_object(blob: bytes, place: Place, *, offender: str) -> Root:
    """The Merkle root of a shares object whose public structure is right: size, header, place, and elements in range.

    Says nothing about a share: only its shareholder can (`open_sealed_share`). Raises MalformedObject naming the field.
    """
    n, t = len(place.encryption_keys), place.threshold

    def malformed(field: str, expected: str, got: str) -> MalformedObject:
        return MalformedObject(
            f"shares: {field}", offender=offender, round=place.context.round, expected=expected, got=got
        )

    if len(blob) != shares_size(n, t):
        raise malformed("size", f"{shares_size(n, t)} bytes", f"{len(blob)} bytes")
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
        if blob[part] != due[part]:
            raise malformed(field, due[part].hex(), blob[part].hex())
    z = _proof(blob, n, t)
    if z.max() >= SHARE_PRIME:
        raise malformed("proof", f"elements below {SHARE_PRIME}", str(int(z.max())))
    public = blob[: _public_bytes(n, t)]
    return _root(public, [_record(blob, n, t, i) for i in range(n)])


def open_sealed_share(blob: bytes, place: Place, me: Index, private_key: bytes) -> NDArray[np.uint16]:
    """My share of the dealer's key: (N,) uint16 below 65521, verified. The shareholder runs it (P2).

    1. The public structure is right. 2. My record opens with my key. 3. It is what the dealer committed to, here.
    4. Its elements are in the field. 5. It lies on the polynomials of degree < t. Raises a Fault that names the dealer.
    """
    offender, n, t = str(place.dealer_address), len(place.encryption_keys), place.threshold

    def refuse(check: str, expected: str, got: str) -> Fault:
        return Fault(f"share: {check}", offender=offender, round=place.context.round, expected=expected, got=got)

    check_shares_object(blob, place, offender=offender)
    i = place.shareholders.index(me)
    secret = unseal(_record(blob, n, t, i), private_key)
    if secret is None:
        raise refuse("seal", f"a record sealed to member {me}", "one that does not open")
    place_digest = place.digest()
    commitments = [blob[_HEADER_BYTES + 32 * k : _HEADER_BYTES + 32 * (k + 1)] for k in range(n)]
    if _commit(place_digest, me, secret) != commitments[i]:
        raise refuse("commitment", commitments[i].hex(), _commit(place_digest, me, secret).hex())
    elements = np.frombuffer(secret, dtype="<u2", offset=_BLIND_BYTES).astype(np.int64)
    if elements.max() >= SHARE_PRIME:
        raise refuse("range", f"elements below {SHARE_PRIME}", str(int(elements.max())))
    share, masks = elements[:N], elements[N:]
    z = _proof(blob, n, t)
    promised = z @ powers([point_of(me)], t)[0] % SHARE_PRIME
    found = (masks + _challenges(place_digest, commitments) @ share) % SHARE_PRIME
    if not np.array_equal(promised, found):
        raise refuse("low-degree proof", str(promised.tolist()), str(found.tolist()))
    return share.astype(np.uint16)


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


def _proof(blob: bytes, n: int, t: int) -> Field:
    start = _HEADER_BYTES + 32 * n
    return np.frombuffer(blob, dtype="<u2", count=MASKS * t, offset=start).astype(np.int64).reshape(MASKS, t)


def _record(blob: bytes, n: int, t: int, i: int) -> bytes:
    start = _public_bytes(n, t) + i * _RECORD_BYTES
    return blob[start : start + _RECORD_BYTES]


def _public_bytes(n: int, t: int) -> int:
    return _HEADER_BYTES + 32 * n + 2 * MASKS * t


def _root(public: bytes, records: list[bytes]) -> Root:
    return root_of([hash_leaf(public), *(hash_leaf(record) for record in records)])
