"""Residues to bytes and back at 54 bits each, and update values to coefficients and back, two fields each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .parameters import FIELD_BITS, PACKED_LEAF_BYTES, RESIDUE_BITS
from .seed import Residues

_GROUP = 4
"""Four residues are 216 bits: 27 bytes."""

_GROUP_BYTES = _GROUP * RESIDUE_BITS // 8

_U = np.uint64
_FIELD = _U(2**FIELD_BITS - 1)


def pack_residues(residues: Residues) -> bytes:
    """A little-endian bit string, 54 bits a residue, the first residue lowest; any shape, a multiple of 4 residues."""
    c = residues.reshape(-1, _GROUP)
    words = np.empty((len(c), _GROUP), dtype="<u8")
    words[:, 0] = c[:, 0] | c[:, 1] << _U(54)
    words[:, 1] = c[:, 1] >> _U(10) | c[:, 2] << _U(44)
    words[:, 2] = c[:, 2] >> _U(20) | c[:, 3] << _U(34)
    words[:, 3] = c[:, 3] >> _U(30)
    return words.view(np.uint8)[:, :_GROUP_BYTES].tobytes()


def unpack_residues(packed: bytes | bytearray | memoryview) -> Residues:
    """The residues of whole packed leaves, flat; nothing promises that they are below q."""
    if len(packed) % PACKED_LEAF_BYTES:
        raise ValueError("packed residues come in whole leaves")
    groups = np.frombuffer(packed, dtype=np.uint8).reshape(-1, _GROUP_BYTES)
    padded = np.zeros((len(groups), 8 * _GROUP), dtype=np.uint8)
    padded[:, :_GROUP_BYTES] = groups
    words = padded.view("<u8")
    c = np.empty((len(groups), _GROUP), dtype=np.uint64)
    c[:, 0] = words[:, 0] & _U(2**54 - 1)
    c[:, 1] = words[:, 0] >> _U(54) | (words[:, 1] & _U(2**44 - 1)) << _U(10)
    c[:, 2] = words[:, 1] >> _U(44) | (words[:, 2] & _U(2**34 - 1)) << _U(20)
    c[:, 3] = words[:, 2] >> _U(34) | words[:, 3] << _U(30)
    return c.reshape(-1)


def join_fields(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """v_0 + v_1·2**22, v_2 + v_3·2**22, …: an even number of values, half as many coefficients."""
    return values[0::2] | values[1::2] << _U(FIELD_BITS)


def split_fields(coefficients: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The inverse of `join_fields`, for values and for sums of up to 64 of them."""
    values = np.empty(2 * coefficients.size, dtype=np.int64)
    values[0::2] = coefficients & _FIELD
    values[1::2] = coefficients >> _U(FIELD_BITS)
    return values
