"""Exact products a·s in Z_q[X]/(X^N + 1) for a small s, by complex FFT: no C to compile, no error to bear.

a is cut into limbs, two limbs ride in one complex number, and the product of a limb with s is an integer that float64
carries exactly once rounded. The distance to the nearest integer is checked on every product: beyond a quarter the
result would be a guess, and an ArithmeticError says so instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .parameters import RESIDUE_BITS, N, Q
from .seed import Residues

_TWIST = np.exp(1j * np.pi * np.arange(N) / N)
"""ψ^j with ψ^N = -1: turns the cyclic convolution of an FFT into the negacyclic one."""

_UNTWIST = np.conj(_TWIST)

_WIDE_LIMBS, _NARROW_LIMBS = 27, 14
_WIDE_NORM = 2.0**14
"""Below this ‖s‖₂ wide limbs leave errors under 0.1 even by the worst-case bound; sums of 64 honest keys have 1,700."""

_MARGIN = 0.25


class SmallFactor:
    """One small polynomial s, transformed once, to be multiplied with many: (N,) integers, |s_j| <= 2**12."""

    __slots__ = ("_limb_bits", "_transform")

    def __init__(self, s: NDArray[np.int64]) -> None:
        if s.shape != (N,) or np.abs(s).max() > 2**12:
            raise ValueError("a small factor has N coefficients within ±4096")
        self._limb_bits = _WIDE_LIMBS if float(np.linalg.norm(s)) <= _WIDE_NORM else _NARROW_LIMBS
        self._transform = np.fft.fft(s * _TWIST)

    def times(self, a: Residues) -> Residues:
        """a·s mod q: (k, N) uint64, each below q."""
        w = self._limb_bits
        total = np.zeros(a.shape, dtype=np.int64)
        limbs = np.empty(a.shape, dtype=np.complex128)
        for shift in range(0, RESIDUE_BITS, 2 * w):
            limbs.real = (a >> np.uint64(shift)) & np.uint64(2**w - 1)
            limbs.imag = (a >> np.uint64(shift + w)) & np.uint64(2**w - 1)
            limbs *= _TWIST
            np.fft.fft(limbs, out=limbs)
            limbs *= self._transform
            np.fft.ifft(limbs, out=limbs)
            limbs *= _UNTWIST
            low, high = _nearest(limbs.real), _nearest(limbs.imag)
            total += _scaled(low, shift) + _scaled(high, shift + w)
        return reduce_signed(total)

    def erase(self) -> None:
        """Overwrite the transform, as far as Python allows."""
        self._transform.fill(0)


def reduce_signed(x: NDArray[np.int64]) -> Residues:
    """x mod q in [0, q) for |x| < 2**63."""
    return np.mod(x, np.int64(Q)).view(np.uint64)


def _nearest(x: NDArray[np.float64]) -> NDArray[np.int64]:
    nearest = np.rint(x)
    if not np.abs(x - nearest).max() < _MARGIN:
        raise ArithmeticError("a polynomial product came out too far from an integer to be rounded")
    return nearest.astype(np.int64)


def _scaled(x: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """x·2**bits mod q, within ±q, for |x| < 2**50: the quotient is estimated in floats, the rest is exact mod 2**64."""
    if bits == 0:
        return x
    quotient = np.rint(x * (2.0**bits / Q)).astype(np.int64)
    rest: NDArray[np.int64] = (x << np.int64(bits)) - quotient * np.int64(Q)
    return rest
