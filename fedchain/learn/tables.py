"""A user's own rows, in and out: CSV files, and numpy's npz. Reads numbers and text, never pickled objects."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

Table = dict[str, NDArray[Any]]
"""Columns by name, in the file's order; all have as many rows."""


def read_table(path: Path) -> Table:
    """The columns of a CSV or npz file. Raises UsageError, with the line where there is one.

    CSV: separated by comma, semicolon or tab; a first line that is not all numbers is a header, else the columns are
    named 0, 1, …; a column of numbers is (k,) float64, any other text. npz: every array, its first axis the rows.
    """
    try:
        table = _read_npz(path) if path.suffix == ".npz" else _read_csv(path)
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


def _read_csv(path: Path) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")
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
        with np.load(path, allow_pickle=False) as file:
            table = {str(name): np.asarray(file[name]) for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not an npz file of plain arrays: {error}") from error
    for name, column in table.items():
        if column.ndim == 0:
            raise UsageError(f"{path}: {name!r} is a single value; every array needs one row an example")
    return table


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
