"""Images and labels in IDX files, plain or gzip: the format of MNIST and its family (Y. LeCun, C. Cortes, C. Burges).

Nothing is downloaded, and nothing of a file is believed before it is checked: a header that promises more than the file
holds costs no memory.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

MAX_BYTES = 1 << 32
"""The most that one file may hold, unpacked: 4 GiB. MNIST's training images are 47 MB."""

_PIECE = 1 << 20

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""IDX type codes and numpy's; numbers of several bytes have the greatest first."""

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """One data set of the family: images (k, rows, columns) uint8, 0 to 255, and labels (k,) int64, for either part."""

    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_images(folder: Path) -> Images:
    """The four files of a set of MNIST's family in a folder: train- and t10k-, images-idx3-ubyte and labels-idx1-ubyte.

    Each may end in .gz, or have a full stop before idx. Raises UsageError, with the file.
    """
    return Images(train=_part(folder, "train"), test=_part(folder, "t10k"))


def read_idx(path: Path) -> NDArray[Any]:
    """The array of an IDX file, plain or gzip, in the machine's own byte order. Raises UsageError, with the reason."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
        with cast(BinaryIO, gzip.open(path)) if packed else path.open("rb") as file:
            return _array(file, path)
    except EOFError as error:
        raise UsageError(f"{path} is cut off: the gzip stream ends too soon; get it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{path} is no whole gzip file: {error}; get it again") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error


def _array(file: BinaryIO, path: Path) -> NDArray[Any]:
    magic = _read(file, 4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= 8:
        raise UsageError(f"{path} is no IDX file: it begins with {magic.hex() or 'nothing'}, not 0000, type, axes")
    kind, axes = np.dtype(_TYPES[magic[2]]), magic[3]
    header = _read(file, 4 * axes)
    if len(header) < 4 * axes:
        raise UsageError(f"{path} is cut off within its header; get it again")
    shape = tuple(int.from_bytes(header[4 * i : 4 * i + 4], "big") for i in range(axes))
    size = math.prod(shape) * kind.itemsize
    told = " × ".join(map(str, shape))
    if size > MAX_BYTES:
        raise UsageError(f"{path} says that it holds {told} numbers, more than {MAX_BYTES >> 30} GiB: it is damaged")
    if size == 0:
        raise UsageError(f"{path} holds no numbers: {told}")
    content = _read(file, size + 1)
    if len(content) != size:
        found = f"only {len(content)}" if len(content) < size else "more"
        raise UsageError(f"{path} should hold {told} numbers in {size} bytes, and has {found}; get it again")
    return np.frombuffer(content, dtype=kind).reshape(shape).astype(kind.newbyteorder("="))


def _read(file: BinaryIO, size: int) -> bytes:
    """So many bytes, or what there is. Piece by piece: memory goes to what is there, not to what a header promises."""
    content = bytearray()
    while len(content) < size and (piece := file.read(min(_PIECE, size - len(content)))):
        content += piece
    return bytes(content)


def _part(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images_path, labels_path = (_found(folder, part, kind) for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.dtype != np.uint8:
        raise UsageError(f"{images_path} holds {images.ndim} axes of {images.dtype}, not images of 3 axes of uint8")
    if labels.ndim != 1 or labels.dtype != np.uint8:
        raise UsageError(f"{labels_path} holds {labels.ndim} axes of {labels.dtype}, not labels of 1 axis of uint8")
    if len(images) != len(labels):
        raise UsageError(f"{images_path} has {len(images)} images, and {labels_path.name} {len(labels)} labels")
    return images, labels.astype(np.int64)


def _found(folder: Path, part: str, kind: str) -> Path:
    names = [f"{part}-{kind}", f"{part}-{kind.replace('-idx', '.idx')}"]
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise UsageError(f"{folder} has no {names[0]} or {names[0]}.gz; name the folder with the set's four IDX files")
