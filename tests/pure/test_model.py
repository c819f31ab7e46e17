"""The canonical model: one layout and one vector have one encoding, and everything else is refused by name."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.errors import MalformedObject
from fedchain.protocol.model import (
    MAX_HEADER_BYTES,
    ModelLayout,
    assemble,
    flatten,
    layout_from,
    layout_of,
    model_bytes_bound,
    model_digest,
    split,
)

LAYOUT = layout_from({"b.weight": (2, 3), "b.bias": (2,), "a": ()})
VECTOR = np.arange(LAYOUT.size, dtype=np.float32) / 8 - 0.5
BLOB = assemble(LAYOUT, VECTOR)

names = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12)
shapes = st.dictionaries(names, st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=6)


def with_header(header: bytes, data: bytes = VECTOR.tobytes()) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def with_entries(change: dict[str, Any], data: bytes = VECTOR.tobytes()) -> bytes:
    """The good model with entries of its header replaced, spelt as canonically as it can be."""
    entries = json.loads(LAYOUT.header()[8:])
    for name, fields in change.items():
        entries[name] = fields if name not in entries else entries[name] | fields
    text = json.dumps(entries, separators=(",", ":")).encode()
    return with_header(text + b" " * (-len(text) % 8), data)


def test_a_model_comes_back_as_it_went_in() -> None:
    assert layout_of(BLOB) == LAYOUT
    assert LAYOUT.names == ("a", "b.bias", "b.weight")
    assert LAYOUT.size == 9
    np.testing.assert_array_equal(flatten(BLOB), VECTOR)
    assert assemble(layout_of(BLOB), flatten(BLOB)) == BLOB


def test_the_safetensors_library_reads_what_is_written_here_and_writes_the_same() -> None:
    tensors = safetensors.numpy.load(BLOB)
    parts = split(LAYOUT, VECTOR)
    assert set(tensors) == set(parts)
    for name, part in parts.items():
        np.testing.assert_array_equal(tensors[name], part)
    assert safetensors.numpy.save(parts) == BLOB


def test_the_encoding_is_pinned_by_its_digest() -> None:
    assert model_digest(BLOB) == hashlib.sha256(BLOB).digest()
    assert model_digest(BLOB).hex() == "068c65670f7cc079b17b39581d51bed68880ff616de0c764f8069a01875bad4c"


def test_the_order_in_which_tensors_are_named_does_not_matter() -> None:
    assert layout_from({"a": (), "b.weight": (2, 3), "b.bias": (2,)}) == LAYOUT


def test_the_bound_for_fetching_holds_every_model_of_that_size() -> None:
    assert len(BLOB) <= model_bytes_bound(LAYOUT.size) == 8 + MAX_HEADER_BYTES + 3 * 36


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(0, 2**32 - 1))
def test_every_layout_has_one_encoding_that_the_library_reads(entries: dict[str, list[int]], seed: int) -> None:
    size = sum(int(np.prod(shape)) for shape in entries.values())
    if size == 0 or "__metadata__" in entries:
        return
    layout = layout_from(entries)
    vector = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    blob = assemble(layout, vector)
    assert layout_of(blob) == layout
    np.testing.assert_array_equal(flatten(blob), vector)
    read = safetensors.numpy.load(blob)
    assert {name: list(tensor.shape) for name, tensor in read.items()} == entries


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_flipped_header_byte_passes_as_the_same_layout(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(BLOB) - 4 * LAYOUT.size - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != BLOB[place]))
    changed = BLOB[:place] + bytes([byte]) + BLOB[place + 1 :]
    try:
        layout = layout_of(changed)
    except MalformedObject:
        return
    # Whatever passes is canonical itself: another layout, never another spelling of this one.
    assert layout != LAYOUT
    assert layout.header() == changed[: len(layout.header())]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_as_malformed_and_as_nothing_else(content: bytes) -> None:
    with pytest.raises(MalformedObject):
        flatten(content)
    with pytest.raises(MalformedObject):
        flatten(len(content).to_bytes(8, "little") + content)


A = {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}

HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "header length"),
    "header_length_cut_short": (BLOB[:7], "header length"),
    "header_length_beyond_the_bytes": ((10**6).to_bytes(8, "little") + BLOB[8:], "header length"),
    "header_length_beyond_the_bound": ((2**63).to_bytes(8, "little") + BLOB[8:], "header length"),
    "header_not_json": (with_header(b"{" * 64), "header"),
    "header_too_deep": (with_header(b"[" * 100_000), "header"),
    "header_not_an_object": (with_header(b"[1,2]   "), "header"),
    "header_not_text": (with_header(b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"), "header"),
    "header_with_no_tensor": (with_header(b"{}      ", b""), "layout"),
    "header_with_other_whitespace": (with_header(LAYOUT.header()[8:] + b" " * 8), "header form"),
    "header_unpadded": (with_header(layout_from({"aa": ()}).header()[8:].rstrip(), b"\0" * 4), "header form"),
    "header_in_another_order": (
        with_header(b'{"a":{"shape":[],"dtype":"F32","data_offsets":[0,4]}}   ', b"\0" * 4),
        "header form",
    ),
    "header_with_a_duplicate": (
        with_header(b'{"a":%s,"a":%s}' % ((json.dumps(A, separators=(",", ":")).encode(),) * 2), b"\0" * 4),
        "header form",
    ),
    "metadata_present": (with_entries({"__metadata__": {"format": "pt"}}), "metadata"),
    "tensor_not_an_object": (with_header(b'{"a":3} '), "tensor 'a'"),
    "tensor_with_another_entry": (with_entries({"a": {"stride": [1]}}), "tensor 'a'"),
    "tensor_without_dtype": (with_entries({"c": {"shape": [], "data_offsets": [36, 40]}}), "tensor 'c'"),
    "dtype_f64": (with_entries({"a": {"dtype": "F64"}}), "dtype of 'a'"),
    "dtype_not_text": (with_entries({"a": {"dtype": ["F32"]}}), "dtype of 'a'"),
    "shape_negative": (with_entries({"b.bias": {"shape": [-2]}}), "shape of 'b.bias'"),
    "shape_twice_negative": (with_entries({"b.weight": {"shape": [-2, -3]}}), "shape of 'b.weight'"),
    "shape_fractional": (with_entries({"b.bias": {"shape": [2.0]}}), "shape of 'b.bias'"),
    "shape_true": (with_entries({"a": {"shape": [True]}}), "shape of 'a'"),
    "shape_huge": (with_entries({"b.bias": {"shape": [2**60]}}), "shape of 'b.bias'"),
    "shape_of_many_sides": (with_entries({"a": {"shape": [1] * 33}}), "shape of 'a'"),
    "shape_with_another_product": (with_entries({"b.bias": {"shape": [3]}}), "data_offsets of 'b.bias'"),
    "offsets_overlapping": (with_entries({"b.bias": {"data_offsets": [0, 8]}}), "data_offsets of 'b.bias'"),
    "offsets_with_a_gap": (with_entries({"b.bias": {"data_offsets": [8, 16]}}), "data_offsets of 'b.bias'"),
    "offsets_backwards": (with_entries({"a": {"data_offsets": [4, 0]}}), "data_offsets of 'a'"),
    "offsets_past_the_end": (with_entries({"b.weight": {"data_offsets": [12, 4000]}}), "data_offsets of 'b.weight'"),
    "offsets_as_floats": (with_entries({"a": {"data_offsets": [0.0, 4.0]}}), "header form"),
    "names_out_of_order": (
        with_entries({"A": {"dtype": "F32", "shape": [1], "data_offsets": [36, 40]}}, VECTOR.tobytes() + b"\0" * 4),
        "layout",
    ),
    "name_empty": (with_header(b'{"":' + json.dumps(A).encode() + b"}", b"\0" * 4), "layout"),
    "name_not_ascii": (with_header('{"ä":'.encode() + json.dumps(A).encode() + b"}", b"\0" * 4), "layout"),
    "data_cut_short": (BLOB[:-1], "data length"),
    "data_with_a_tail": (BLOB + b"\0", "data length"),
    "value_nan": (BLOB[:-4] + np.float32(np.nan).tobytes(), "values"),
    "value_infinite": (BLOB[:-4] + np.float32(-np.inf).tobytes(), "values"),
}


@pytest.mark.parametrize("vector", HOSTILE)
def test_a_hostile_model_is_refused_and_its_field_named(vector: str) -> None:
    blob, field = HOSTILE[vector]
    with pytest.raises(MalformedObject) as caught:
        flatten(blob)
    assert caught.value.evidence.check == f"model: {field}"
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_model_that_is_not_finite_or_not_float32_is_never_written() -> None:
    for vector in (VECTOR * np.float32(np.nan), VECTOR.astype(np.float64), VECTOR[:-1]):
        with pytest.raises(ValueError):
            assemble(LAYOUT, vector)


@pytest.mark.parametrize(
    ("tensors", "shapes"),
    [
        (("b", "a"), ((1,), (1,))),
        (("a", "a"), ((1,), (1,))),
        (("a",), ((1,), (1,))),
        (("a\n",), ((1,),)),
        (("__metadata__",), ((1,),)),
        (("a",), ((-1,),)),
        (("a",), ((0,),)),
    ],
)
def test_a_layout_that_has_no_one_encoding_cannot_be_made(
    tensors: tuple[str, ...], shapes: tuple[tuple[int, ...], ...]
) -> None:
    with pytest.raises(ValueError):
        ModelLayout(tensors, shapes)
