"""Opening a sum: openings give the sum of the one-time keys, and that gives the exact sum of the updates (P4, P5).

Nothing is believed. An opening may be wrong, so S must be small *and* leave only honest noise in every coefficient of
C + a·S; smallness alone lets an opening that is off by one through. More than t openings name the wrong ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from ..errors import Fault, MalformedObject, WorldError
from ..protocol.ids import Index, Root
from ..protocol.merkle import root_of
from . import numpy_engine
from . import parameters as p
from .aggregate import Aggregate, EngineName, leaf_hashes, tenseal
from .reed_solomon import misfits, trusted_symbols
from .result import Result
from .ring import SmallFactor
from .seed import Residues, RoundContext, public_polynomials
from .shamir import Field, centred, interpolate, point_of

MAX_COMMITTEES = 25_000
"""Committees of t tried at most where unique decoding does not settle who is wrong: all of them up to 17 openings."""


class NotEnoughOpenings(WorldError):
    """Fewer openings than the threshold: nobody can open the sum yet."""


class SpoiledRound(Fault):
    """No committee leaves honest noise: a dealt key is not its ciphertext's, or too many openings are wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """One shareholder's opening: the sum of its shares over the locked participant set, (2048,) uint16 below 65521."""

    elements: NDArray[np.uint16]

    def encode(self) -> bytes:
        """4,096 bytes: two a coefficient, little-endian."""
        return self.elements.astype("<u2", copy=False).tobytes()

    def root(self) -> Root:
        """The Merkle root over the elements as uint64 leaves."""
        return root_of(leaf_hashes(self.leaves()))

    def leaves(self) -> Residues:
        """The elements as the tree has them: (32, 64) uint64."""
        return self.elements.astype(np.uint64).reshape(-1, p.LEAF_RESIDUES)

    @classmethod
    def parse(cls, content: bytes, offender: str = "", round: int = 0) -> Opening:
        """A fetched opening. Raises MalformedObject for its size or an element of 65521 or more."""
        if len(content) != p.OPENING_BYTES:
            raise MalformedObject(
                "opening: size",
                offender=offender,
                round=round,
                expected=f"{p.OPENING_BYTES} bytes",
                got=f"{len(content)} bytes",
            )
        elements = np.frombuffer(content, dtype="<u2").astype(np.uint16)
        if elements.max() >= p.SHARE_PRIME:
            worst = int(np.argmax(elements >= p.SHARE_PRIME))
            raise MalformedObject(
                f"opening: element {worst}",
                offender=offender,
                round=round,
                expected=f"below {p.SHARE_PRIME}",
                got=str(int(elements[worst])),
            )
        return cls(elements)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """What an aggregate holds, the same whichever committee opened it.

    `key_sum` is S, (2048,) int64, |S_j| <= 42·|U|; `sums` are the coefficients' exact sums, (d/2,) uint64 below 2**44;
    `result` is what its closer stores: S and the same sums in whole leaves; `committee` are the t members, ascending,
    whose openings S was interpolated from.
    `wrong` are the members whose openings fit no accepted polynomial. They lied for certain while there are at most
    openings - 2·threshold + 2 of them; with fewer openings to spare, t - 1 liars in concert could shift the blame.
    """

    key_sum: NDArray[np.int64]
    sums: NDArray[np.uint64]
    result: Result
    key_sum_root: Root
    result_root: Root
    committee: tuple[Index, ...]
    wrong: tuple[Index, ...]


def make_opening(shares: Sequence[NDArray[np.uint16]]) -> Opening:
    """The sum mod 65521 of the shares that one shareholder holds of the participants' keys. The shareholder runs it.

    Once for one locked participant set a round, and never for another: the difference of two sets' openings opens the
    difference of the sums, which may be one member's update.
    """
    if not shares:
        raise ValueError("an opening sums at least one share")
    total = np.zeros(p.N, dtype=np.int64)
    for share in shares:
        total += share
    return Opening((total % p.SHARE_PRIME).astype(np.uint16))


def open_aggregate(
    aggregate: Aggregate,
    openings: Mapping[Index, Opening],
    *,
    threshold: int,
    participants: int,
    context: RoundContext,
    d: int,
    engine: EngineName = "numpy",
) -> Opened:
    """The exact sums under an aggregate of `participants` updates. Anybody runs it.

    1. At least t openings. 2. A committee of t gives S with |S| <= 42·|U|. 3. Every stored coefficient of C + a·S is
    within the noise bound of a multiple of Δ. Raises NotEnoughOpenings (1) and SpoiledRound (2, 3).
    """
    if aggregate.d != d:
        raise ValueError(f"the aggregate is of the size {aggregate.d}, not {d}")
    if len(openings) < threshold:
        raise NotEnoughOpenings(f"{len(openings)} openings of {threshold} needed; wait for more shareholders")
    found = _find_key_sum(_Probe(aggregate, participants, context), openings, threshold)
    if found is None:
        raise SpoiledRound(
            "openings: no committee fits",
            round=context.round,
            expected=f"|S| <= {p.key_bound(participants)} and noise <= {p.noise_bound(participants)}",
            got=f"{len(openings)} openings, threshold {threshold}",
        )
    key_sum, committee, wrong = found
    plain = _decode(aggregate, key_sum, participants, context, engine)
    elements = np.mod(key_sum, p.SHARE_PRIME).astype(np.uint16)
    result = Result(elements, plain.reshape(-1, p.LEAF_RESIDUES)[: p.leaves_of(d)], d)
    return Opened(
        key_sum=key_sum,
        sums=plain.reshape(-1)[: p.coefficients_of(d)],
        result=result,
        key_sum_root=result.key_sum_root(),
        result_root=result.root(),
        committee=committee,
        wrong=wrong,
    )


def agree_on_key(openings: Mapping[Index, Opening], *, threshold: int, participants: int) -> bool:
    """Whether more than t openings lie on one polynomial whose S is as small as a sum of keys is.

    Where such a sum does not open (SpoiledRound), S is right, and the fault is a participant's: its key is not the one
    that it dealt.
    """
    members = sorted(openings)
    points = [point_of(j) for j in members]
    values = np.stack([openings[j].elements for j in members]).astype(np.int64)
    for committee in _committees(points, values, threshold):
        if len(members) - len(misfits(points, values, committee)) > threshold:
            key_sum = centred(interpolate([points[i] for i in committee], values[list(committee)]))
            if np.abs(key_sum).max() <= p.key_bound(participants):
                return True
    return False


def _decode(
    aggregate: Aggregate, key_sum: NDArray[np.int64], participants: int, context: RoundContext, engine: EngineName
) -> NDArray[np.uint64]:
    """The plaintext coefficients, (polynomials, N) uint64 below t, noise checked everywhere."""
    seed, bound = context.seed, p.noise_bound(participants)
    factor = SmallFactor(key_sum)
    decrypt = None if engine == "numpy" else tenseal().Decryption(key_sum)
    plain = np.empty_like(aggregate.residues)
    stored = p.leaves_of(aggregate.d) * p.LEAF_RESIDUES
    for first in range(0, len(plain), p.BLOCK):
        c = aggregate.residues[first : first + p.BLOCK]
        a = public_polynomials(seed, first, len(c))
        phase = phase_of_sum(c, a, factor)
        block = plain[first : first + len(c)]
        block[:] = numpy_engine.decode(phase) if decrypt is None else decrypt.plaintexts(c, a)
        e = np.abs(numpy_engine.noise(phase, block).reshape(-1)[: stored - first * p.N])
        if e.max() > bound:
            worst = int(np.argmax(e > bound))
            raise SpoiledRound(
                f"noise of coefficient {first * p.N + worst}",
                round=context.round,
                expected=f"at most {bound}",
                got=str(int(e[worst])),
            )
    return plain


class _Probe:
    """A quick look at a candidate for S: the first polynomial alone exposes a wrong one."""

    def __init__(self, aggregate: Aggregate, participants: int, context: RoundContext) -> None:
        self._c = aggregate.residues[:1]
        self._a = public_polynomials(context.seed, 0, 1)
        self._stored = min(p.leaves_of(aggregate.d) * p.LEAF_RESIDUES, p.N)
        self._key_bound, self._noise_bound = p.key_bound(participants), p.noise_bound(participants)

    def passes(self, key_sum: NDArray[np.int64]) -> bool:
        """Whether S is small enough and the noise under it honest."""
        if np.abs(key_sum).max() > self._key_bound:
            return False
        phase = phase_of_sum(self._c, self._a, SmallFactor(key_sum))
        e = numpy_engine.noise(phase, numpy_engine.decode(phase))[0, : self._stored]
        return bool(np.abs(e).max() <= self._noise_bound)


def _find_key_sum(
    probe: _Probe, openings: Mapping[Index, Opening], t: int
) -> tuple[NDArray[np.int64], tuple[Index, ...], tuple[Index, ...]] | None:
    """S, the committee that gave it, and who is wrong; None if no committee passes the probe.

    It is the polynomial that passes and fits the most openings. Several that fit equally many share S (the probe sees
    to it) but not the blame: named are those who fit none.
    """
    members = sorted(openings)
    points = [point_of(j) for j in members]
    values = np.stack([openings[j].elements for j in members]).astype(np.int64)
    best: list[tuple[int, ...]] = []
    found: tuple[NDArray[np.int64], tuple[int, ...]] | None = None
    for committee in _committees(points, values, t):
        if any(set(committee).isdisjoint(wrong) for wrong in best):
            continue
        candidate = centred(interpolate([points[i] for i in committee], values[list(committee)]))
        if not probe.passes(candidate):
            continue
        found = candidate, committee
        wrong = misfits(points, values, committee)
        if not best or len(wrong) < len(best[0]):
            best = [wrong]
        elif len(wrong) == len(best[0]):
            best.append(wrong)
        if len(wrong) <= (len(members) - t) // 2:
            break
    if found is None:
        return None
    key_sum, committee = found
    blamed = set(best[0]).intersection(*best[1:])
    return key_sum, tuple(members[i] for i in sorted(committee)), tuple(members[i] for i in sorted(blamed))


def _committees(points: Sequence[int], values: Field, t: int) -> Iterator[tuple[int, ...]]:
    """Committees of t to try, the likeliest first: unique decoding twice, then all of them while those are few."""
    yield tuple(range(t))
    if len(points) == t:
        return
    digest = hashlib.sha256(b"".join(row.astype("<u2").tobytes() for row in values)).digest()
    stream = np.frombuffer(hashlib.shake_256(digest).digest(2 * 4 * p.N), dtype="<u4").astype(np.int64)
    for weights in (stream % p.SHARE_PRIME).reshape(2, p.N):
        trusted = trusted_symbols(points, values @ weights % p.SHARE_PRIME, t)
        if trusted is not None and len(trusted) >= t:
            yield tuple(trusted[:t])
    if comb(len(points), t) <= MAX_COMMITTEES:
        yield from combinations(range(len(points)), t)


def phase_of_sum(c: Residues, a: Residues, key_sum: SmallFactor) -> Residues:
    """C + a·S mod q."""
    phase = key_sum.times(a)
    phase += c
    return np.where(phase >= p.Q, phase - np.uint64(p.Q), phase)
