"""A model as every member stores and hashes it: canonical safetensors, all float tensors as one flat vector.

Canonical means that one layout and one vector have exactly one encoding: names ascending, float32 only, tensors packed
without gaps in that order, no metadata, the header in one spelling. Its data section therefore *is* the flat vector.
The encoding is written and read here, in a page of code, so that a model's digest never depends on a library's version;
the `safetensors` library reads it like any other file. Nothing that is fetched is unpickled.

Does not know torch, and does not know what a tensor is for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MalformedObject
from .ids import Digest

Vector = NDArray[np.float32]
"""A whole model, flat: (d,) float32, tensors in name order, each in row-major order."""

MAX_HEADER_BYTES = 1 << 20
"""Bound of the header: room for some ten thousand tensors."""

MAX_DIMENSIONS = 32
MAX_SIZE = 1 << 40
"""Bound of d, so that sizes stay far inside 64-bit arithmetic."""

_LENGTH_BYTES = 8
_NAME = re.compile(r"[ -~]{1,512}")


@dataclass(frozen=True, slots=True)
class ModelLayout:
    """Which tensors a model has: names (printable ASCII, strictly ascending) and the shape of each."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.shapes):
            raise ValueError(f"{len(self.names)} names but {len(self.shapes)} shapes")
        for before, name in zip(self.names, self.names[1:], strict=False):
            if before >= name:
                raise ValueError(f"tensor names must ascend: {name!r} stands after {before!r}")
        for name, shape in zip(self.names, self.shapes, strict=True):
            if not _NAME.fullmatch(name):
                raise ValueError(f"a tensor's name is 1 to 512 printable ASCII characters, not {name[:80]!r}")
            if name == "__metadata__":
                raise ValueError("a tensor cannot be named __metadata__: safetensors keeps that name")
            if len(shape) > MAX_DIMENSIONS or min(shape, default=0) < 0:
                raise ValueError(f"tensor {name!r} cannot have the shape {shape}")
        if not 0 < self.size <= MAX_SIZE:
            raise ValueError(f"a model has 1 to 2^40 float values, not {self.size}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each tensor holds."""
        return tuple(prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """d: how many values the whole model holds."""
        return sum(self.sizes)

    def header(self) -> bytes:
        """The one header of this layout: 8 bytes of length, then JSON padded with spaces to a multiple of 8."""
        entries: dict[str, Any] = {}
        begin = 0
        for name, shape, size in zip(self.names, self.shapes, self.sizes, strict=True):
            end = begin + 4 * size
            entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
            begin = end
        text = json.dumps(entries, separators=(",", ":")).encode("ascii")
        text += b" " * (-len(text) % 8)
        if len(text) > MAX_HEADER_BYTES:
            raise ValueError(f"the model's header has {len(text)} bytes; at most {MAX_HEADER_BYTES} are allowed")
        return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def layout_from(shapes: Mapping[str, Sequence[int]]) -> ModelLayout:
    """The layout of tensors with these names and shapes, in any order."""
    names = tuple(sorted(shapes))
    return ModelLayout(names, tuple(tuple(int(side) for side in shapes[name]) for name in names))


def layout_of(blob: bytes) -> ModelLayout:
    """The layout of a stored model; hostile-safe: bounded work, and every deviation from the canonical form refused.

    Checks, each a MalformedObject named for the field: 1. header length; 2. header JSON; 3. each tensor's entry: its
    keys, dtype, shape, offsets (contiguous, so neither gaps nor overlaps); 4. names ascending, size bounded; 5. data
    length; 6. the header's one spelling (no metadata, no duplicate, no other whitespace). It does not look at the
    values: `flatten` does.
    """
    header = _header_of(blob)
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise _malformed("header", "ASCII JSON", "something else") from error
    if not isinstance(entries, dict):
        raise _malformed("header", "an object", type(entries).__name__)
    names: list[str] = []
    shapes: list[tuple[int, ...]] = []
    begin = 0
    for name, entry in entries.items():
        if name == "__metadata__":
            raise _malformed("metadata", "none", "an entry")
        shape = _shape_of(name, entry, begin)
        begin += 4 * prod(shape)
        names.append(name)
        shapes.append(shape)
    try:
        layout = ModelLayout(tuple(names), tuple(shapes))
        canonical = layout.header()
    except ValueError as error:
        raise _malformed("layout", "ascending names, at least one value", str(error)) from error
    data_bytes = len(blob) - _LENGTH_BYTES - len(header)
    if data_bytes != 4 * layout.size:
        raise _malformed("data length", f"{4 * layout.size} bytes", f"{data_bytes} bytes")
    if blob[: len(canonical)] != canonical:
        raise _malformed("header form", "the canonical spelling", "another spelling of the same tensors")
    return layout


def flatten(blob: bytes) -> Vector:
    """All values of a stored model as one vector, (d,) float32; read-only, without a copy.

    Raises MalformedObject as `layout_of` does, and for a value that is NaN or infinite.
    """
    layout = layout_of(blob)
    vector = np.frombuffer(blob, dtype="<f4", count=layout.size, offset=len(blob) - 4 * layout.size)
    if not np.isfinite(vector).all():
        where = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise _malformed("values", "finite numbers", f"{vector[where]} at coordinate {where}")
    return vector.astype(np.float32, copy=False)


def assemble(layout: ModelLayout, vector: Vector) -> bytes:
    """The canonical safetensors of a layout and a (d,) float32 vector: the same bytes always, on every machine.

    Raises ValueError for a wrong shape or dtype and for a value that is not finite: such a model is never stored.
    """
    if vector.shape != (layout.size,) or vector.dtype != np.float32:
        raise ValueError(f"a model of {layout.size} float32 values cannot hold {vector.shape} {vector.dtype}")
    if not np.isfinite(vector).all():
        raise ValueError("a model holds finite numbers only")
    # Joined, and not added, so that a large model is copied once.
    return b"".join([layout.header(), np.ascontiguousarray(vector, dtype="<f4").data])


def split(layout: ModelLayout, vector: Vector) -> dict[str, Vector]:
    """The vector's tensors by name, each in its shape; views, not copies."""
    ends = np.cumsum(layout.sizes)[:-1]
    parts = np.split(vector, ends)
    return {name: part.reshape(shape) for name, shape, part in zip(layout.names, layout.shapes, parts, strict=True)}


def model_digest(blob: bytes) -> Digest:
    """SHA-256 of a stored model: what the contract holds."""
    return Digest(hashlib.sha256(blob).digest())


def model_bytes_bound(size: int) -> int:
    """The most bytes that a stored model can have whose updates have `size` values: what to allow when fetching one.

    Beside its values it may hold twice as many of state (`protocol.outer`).
    """
    return _LENGTH_BYTES + MAX_HEADER_BYTES + 3 * 4 * size


def _header_of(blob: bytes) -> bytes:
    if len(blob) < _LENGTH_BYTES:
        raise _malformed("header length", f"{_LENGTH_BYTES} bytes of length", f"{len(blob)} bytes in all")
    length = int.from_bytes(blob[:_LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise _malformed("header length", f"at most {MAX_HEADER_BYTES}", str(length))
    if length > len(blob) - _LENGTH_BYTES:
        raise _malformed("header length", f"at most {len(blob) - _LENGTH_BYTES}, what is there", str(length))
    return blob[_LENGTH_BYTES : _LENGTH_BYTES + length]


def _shape_of(name: str, entry: object, begin: int) -> tuple[int, ...]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _malformed(f"tensor {name[:80]!r}", "dtype, shape and data_offsets", "other entries")
    if entry["dtype"] != "F32":
        raise _malformed(f"dtype of {name[:80]!r}", "F32", repr(entry["dtype"])[:80])
    shape = entry["shape"]
    # `type(x) is int` and not isinstance: JSON's true is a bool, which Python counts as an int.
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_is_side(side) for side in shape):
        raise _malformed(f"shape of {name[:80]!r}", f"at most {MAX_DIMENSIONS} sides of 0 to 2^40", repr(shape)[:80])
    end = begin + 4 * prod(shape)
    if entry["data_offsets"] != [begin, end]:
        raise _malformed(f"data_offsets of {name[:80]!r}", f"[{begin}, {end}]", repr(entry["data_offsets"])[:80])
    return tuple(shape)


def _is_side(side: object) -> bool:
    return type(side) is int and 0 <= side <= MAX_SIZE


def _malformed(field: str, expected: str, got: str) -> MalformedObject:
    return MalformedObject(f"model: {field}", expected=expected, got=got)
