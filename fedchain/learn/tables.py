"""A user's own rows, in and out: CSV files, and numpy's npz. Reads numbers and text, never pickled objects."""

from __future__ import annotations

import csv
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .sources import MAX_BYTES, read_member

Table = dict[str, NDArray[Any]]
"""Columns by name, in the file's order; all have as many rows."""


def read_table(path: Path, member: str | None = None) -> Table:
    """The columns of a CSV or npz file, or of the CSV file `member` inside a wheel, zip or tar (`sources.read_member`).

    Raises UsageError, with the line where there is one.

    CSV: separated by comma, semicolon or tab; a first line that is not all numbers is a header, else the columns are
    named 0, 1, …; a column of numbers is (k,) float64, any other text. npz: every array, its first axis the rows.
    """
    try:
        if member is None and path.suffix == ".npz":
            table = _read_npz(path)
        elif member is None:
            table = _read_csv(path.read_bytes(), str(path))
        else:
            table = _read_csv(read_member(path, member), f"{path}: {member}")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    lengths = {name: len(column) for name, column in table.items()}
    if not lengths or not all(lengths.values()):
        raise UsageError(f"{path} has no rows")
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise UsageError(f"{path}: its arrays differ in their number of rows: {told}")
    return table


def without(table: Table, names: Sequence[str]) -> Table:
    """The table without these columns. Raises UsageError for one that is not there, or when none is left."""
    for name in names:
        if name not in table:
            raise UsageError(f"there is no column {name!r}; there are {_listed(table)}")
    left = {name: column for name, column in table.items() if name not in names}
    if not left:
        raise UsageError("no column is left for the model")
    return left


def csv_text(table: Mapping[str, NDArray[Any]]) -> str:
    """The columns as CSV with a header; integers as they are, other numbers with 7 digits, what float32 has."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table)
    columns = [_cells(column) for column in table.values()]
    writer.writerows(zip(*columns, strict=True))
    return out.getvalue()


def npz_bytes(table: Mapping[str, NDArray[Any]]) -> bytes:
    """The columns as an npz file."""
    out = io.BytesIO()
    columns: dict[str, Any] = dict(table)
    np.savez(out, **columns)
    return out.getvalue()


def _read_csv(content: bytes, path: str) -> Table:
    """`path`: what errors call it."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; give a CSV file, or arrays as .npz") from error
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        rows = [
            (number, row) for number, row in enumerate(csv.reader(io.StringIO(text), delimiter=separator), 1) if row
        ]
    except csv.Error as error:
        raise UsageError(f"{path} is not a CSV file: {error}") from error
    if not rows:
        raise UsageError(f"{path} has no rows")
    names = [str(i) for i in range(len(rows[0][1]))]
    if not all(_is_number(cell) for cell in rows[0][1]):
        names = [cell.strip() for cell in rows[0][1]]
        rows = rows[1:]
    if len(set(names)) < len(names):
        raise UsageError(f"{path}: two columns have the same name; there are {_listed(names)}")
    for number, row in rows:
        if len(row) != len(names):
            raise UsageError(f"{path}:{number}: {len(row)} cells, where the first line has {len(names)}")
        if "" in (cells := [cell.strip() for cell in row]):
            raise UsageError(f"{path}:{number}: column {names[cells.index('')]!r} is empty; fill it or drop the row")
    columns = zip(*(row for _, row in rows), strict=True) if rows else ([] for _ in names)
    return {name: _column(list(cells)) for name, cells in zip(names, columns, strict=True)}


def _column(cells: list[str]) -> NDArray[Any]:
    try:
        return np.array([float(cell) for cell in cells], dtype=np.float64)
    except ValueError:
        return np.array([cell.strip() for cell in cells], dtype=np.str_)


def _read_npz(path: Path) -> Table:
    try:
        _check_npz(path)
        with np.load(path, allow_pickle=False) as file:
            table = {str(name): np.asarray(file[name]) for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{path} is not an npz file of plain arrays: {error}") from error
    for name, column in table.items():
        if column.ndim == 0:
            raise UsageError(f"{path}: {name!r} is a single value; every array needs one row an example")
    return table


def _check_npz(path: Path) -> None:
    """Refuse arrays whose headers say more than is there, before numpy makes room for them. Raises ValueError."""
    with zipfile.ZipFile(path) as zipped:
        if sum(entry.file_size for entry in zipped.infolist()) > MAX_BYTES:
            raise ValueError(f"it unpacks to more than {MAX_BYTES >> 20} MiB")
        for entry in zipped.infolist():
            with zipped.open(entry) as file:
                version = np.lib.format.read_magic(file)
                if version not in _NPY_HEADERS:
                    raise ValueError(f"{entry.filename} is of version {version}")
                shape, _, kind = _NPY_HEADERS[version](file)
            size = math.prod(shape) * kind.itemsize
            if not kind.hasobject and size > entry.file_size:
                raise ValueError(f"{entry.filename} says {shape} of {kind}, {size} bytes, and has {entry.file_size}")


_NPY_HEADERS: dict[tuple[int, int], Callable[[Any], tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _cells(column: NDArray[Any]) -> list[str]:
    if column.dtype.kind == "f":
        return [f"{value:.7g}" for value in column]
    return [str(value) for value in column]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in islice(names, 12))
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
