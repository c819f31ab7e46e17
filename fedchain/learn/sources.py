"""Where a task's data come from: a path of the user's, a file inside a package's archive, scikit-learn's bundled sets.

Nothing is downloaded, installed, imported from an archive or unpickled: an archive is read as the zip or tar it is.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

MAX_BYTES = 1 << 30
"""The most that is read of one member of an archive, unpacked: 1 GiB."""

BUNDLED = ("breast_cancer", "diabetes", "digits", "iris", "wine")
"""The sets that lie inside scikit-learn; all others it would download."""


def data_path(variable: str, default: str | None, how: str) -> Path:
    """The path in an environment variable, or the default. `how` ends the error where there is none: what to do."""
    named = os.environ.get(variable) or default
    if named is None:
        raise UsageError(f"{variable} is not set: {how}")
    path = Path(named).expanduser()
    if not path.exists():
        raise UsageError(f"{variable} names {path}, where nothing is: {how}" if variable in os.environ else how)
    return path


def read_member(archive: Path, member: str) -> bytes:
    """The bytes of one file inside a wheel, zip, or tar (also .tar.gz, .tgz, .tar.xz). Raises UsageError, with why."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                entry = zipped.getinfo(member)
                _check_size(archive, member, entry.file_size)
                with zipped.open(entry) as file:
                    content = file.read(MAX_BYTES + 1)
        else:
            with tarfile.open(archive) as tarred:
                found = tarred.getmember(member)
                _check_size(archive, member, found.size)
                opened = tarred.extractfile(found) if found.isfile() else None
                if opened is None:
                    raise UsageError(f"{archive}: {member} is no plain file")
                content = opened.read(MAX_BYTES + 1)
    except KeyError as error:
        raise UsageError(f"{archive} has no {member} in it; is it the right package and version?") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{archive} is no whole wheel, zip or tar: {error}; get it again") from error
    except OSError as error:
        raise UsageError(f"{archive} cannot be read: {error.strerror or error}") from error
    _check_size(archive, member, len(content))
    return content


def bundled(name: str) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """(inputs (k, features), targets (k,)) of one of scikit-learn's bundled sets: int64 classes, diabetes' float64."""
    if name not in BUNDLED:
        raise UsageError(f"scikit-learn bundles {', '.join(BUNDLED)}; {name!r} is none of them")
    try:
        from sklearn import datasets
    except ImportError as error:
        raise UsageError(f"{name} lies inside scikit-learn: pip install 'fedchain[tasks]'") from error
    # `scaled=False`: scikit-learn would scale diabetes by means over all rows, which tells about everybody's.
    options = {"scaled": False} if name == "diabetes" else {}
    inputs, targets = getattr(datasets, f"load_{name}")(return_X_y=True, **options)
    targets = np.asarray(targets)
    return np.asarray(inputs, dtype=np.float64), targets.astype(np.float64 if name == "diabetes" else np.int64)


def _check_size(archive: Path, member: str, size: int) -> None:
    if size > MAX_BYTES:
        raise UsageError(f"{archive}: {member} is larger than {MAX_BYTES >> 20} MiB")
