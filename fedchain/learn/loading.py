"""Loading the operator's own task file, and turning what goes wrong inside it into one line.

The file is executed, so it is only ever a local file of the operator's, and only when it is byte for byte the one whose
digest the charter binds. Nothing that was fetched from the chain or the store is executed.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ..errors import CharterMismatch, UsageError
from .task import LocalData, Task

# Whatever a user's code raises is the operator's to mend, and is shown with file, line and reason; interrupts and
# SystemExit pass through. Named one by one, so that nothing of ours is swallowed by a bare `except Exception`.
_CODE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def load_task(path: Path, sha256: str) -> Task:
    """The task in the operator's own file, whose SHA-256 (hex) must be the charter's.

    The file defines exactly one subclass of Task (constructed without arguments), or `task = …`. The bytes that were
    hashed are the bytes that run. Raises CharterMismatch for another digest, UsageError for everything else.
    """
    try:
        code = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the task file {path} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(code).hexdigest()
    if digest != sha256:
        raise CharterMismatch(
            f"the task file {path} has the digest {digest}, the charter binds {sha256 or 'none'}: "
            "get the file that the members agreed on"
        )
    module = ModuleType(f"fedchain_task_{digest[:16]}")
    module.__file__ = str(path)
    # Registered while and after it runs: dataclasses and torch look a class's module up by name.
    sys.modules[module.__name__] = module
    try:
        with _explained(str(path), "loading it"):
            exec(compile(code, str(path), "exec"), module.__dict__)
        return _task_in(module, path)
    except UsageError:
        del sys.modules[module.__name__]
        raise


def local_data_of(task: Task, index: int, members: int, seed: int) -> LocalData:
    """Member `index`'s data, checked; raises UsageError with file, line and reason when the task's code fails."""
    with task_code(task, "local_data()"):
        data = task.local_data(index, members, seed)
    if not isinstance(data, LocalData):
        raise UsageError(f"task {task.name}: local_data() must give LocalData(train, validation), not {_kind(data)}")
    return data


@contextmanager
def task_code(task: Task, what: str) -> Iterator[None]:
    """Run a piece of the task's own code; what it raises becomes a UsageError of one line, with the cause kept."""
    with _explained(_file_of(task), what):
        yield


def _task_in(module: ModuleType, path: Path) -> Task:
    task = getattr(module, "task", None)
    if task is None:
        own = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
        ]
        concrete = [value for value in dict.fromkeys(own) if not inspect.isabstract(value)]
        if len(concrete) != 1:
            missing = "; ".join(f"{c.__name__} lacks {', '.join(sorted(c.__abstractmethods__))}" for c in own)
            found = ", ".join(c.__name__ for c in concrete) or missing or "none"
            raise UsageError(
                f"{path} must define exactly one subclass of fedchain.learn.Task, or task = …; found {found}"
            )
        with _explained(str(path), f"{concrete[0].__name__}()"):
            task = concrete[0]()
    if not isinstance(task, Task):
        raise UsageError(f"{path}: task must be an instance of a fedchain.learn.Task subclass, not {_kind(task)}")
    for entry in ("name", "metric"):
        value = getattr(task, entry, None)
        if not (isinstance(value, str) and value and value.isprintable()):
            raise UsageError(f'{path}: the task needs {entry} = "…", a line of text')
    if task.outputs not in ("logits", "probabilities"):
        raise UsageError(f'{path}: outputs is "logits" or "probabilities", not {task.outputs!r}')
    return task


@contextmanager
def _explained(file: str, what: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except _CODE_ERRORS as error:
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == file else None
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.filename == file:
                line = frame.lineno
        place = f"{file}:{line}" if line else file
        reason = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())[:300]
        raise UsageError(f"{place}: {what} failed: {type(error).__name__}: {reason}") from error


def _file_of(task: Task) -> str:
    module = sys.modules.get(type(task).__module__)
    return str(getattr(module, "__file__", None) or f"task {task.name}")


def _kind(value: object) -> str:
    return type(value).__name__
