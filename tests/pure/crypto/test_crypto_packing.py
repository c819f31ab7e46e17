"""54-bit packing, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.crypto.packing import pack_residues, unpack_residues
from fedchain.crypto.parameters import LEAF_RESIDUES, PACKED_LEAF_BYTES

residue_leaves = st.lists(st.integers(0, 2**54 - 1), min_size=LEAF_RESIDUES, max_size=LEAF_RESIDUES)


@given(residue_leaves)
@settings(max_examples=25, deadline=None)
def test_a_packed_leaf_is_one_little_endian_bit_string(leaf: list[int]) -> None:
    packed = pack_residues(np.array(leaf, dtype=np.uint64))
    assert int.from_bytes(packed, "little") == sum(residue << 54 * i for i, residue in enumerate(leaf))
    assert len(packed) == PACKED_LEAF_BYTES == 432
    assert unpack_residues(packed).tolist() == leaf


def test_many_leaves_go_there_and_back() -> None:
    residues = np.random.default_rng(3).integers(0, 2**54, 50 * LEAF_RESIDUES, dtype=np.uint64)
    assert np.array_equal(unpack_residues(pack_residues(residues.reshape(-1, LEAF_RESIDUES))), residues)


def test_half_a_leaf_is_refused() -> None:
    with pytest.raises(ValueError, match="whole leaves"):
        unpack_residues(bytes(PACKED_LEAF_BYTES - 27))
