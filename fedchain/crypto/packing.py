"""Residues to bytes and back, at 54 bits each."""

from __future__ import annotations

import numpy as np

from .parameters import PACKED_LEAF_BYTES, RESIDUE_BITS
from .seed import Residues

_GROUP = 4
"""Four residues are 216 bits: 27 bytes."""

_GROUP_BYTES = _GROUP * RESIDUE_BITS // 8

_U = np.uint64


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
