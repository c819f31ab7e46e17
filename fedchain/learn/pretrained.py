"""Weights to begin with: a safetensors file that the charter binds by digest, or by the CID it has on IPFS.

Any safetensors file will do: whole or half precision, whole model or parts of it. Nothing is unpickled. The file goes
through memory in pieces, and is mapped where its tensors are taken from it: it may be as large as its model, and what
is fetched no larger than the model's tensors can be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import CharterMismatch, UsageError
from ..protocol.charter import Charter, sha256_of
from ..protocol.cid import cid_of_stream
from ..protocol.ids import Cid
from ..protocol.model import MAX_HEADER_BYTES
from ..protocol.outer import STATE_PREFIX
from .loading import task_code
from .task import Task

Fetch = Callable[[Cid, int, Path], None]
"""What a store does (`get_file`): (CID, bytes at most, file), and the file is there whole or not at all."""


def read_start(folder: Path, charter: Charter, task: Task, fetch: Fetch | None = None) -> Path | None:
    """The file of weights that `run.start` names, checked; None where a run begins with the task's own initial values.

    A file lies beside the charter. What is named by its CID is looked for there too (as `<CID>.safetensors`), else
    fetched, and kept there. Raises CharterMismatch for other bytes than agreed, UsageError where there are none.
    """
    start = charter.run.start
    if not start:
        return None
    is_cid = not start.endswith(".safetensors")
    path = folder / (f"{start}.safetensors" if is_cid else start)
    if is_cid and not path.exists():
        if fetch is None:
            raise UsageError(
                f"run.start names {start}; fetch it (ipfs get) and put it beside the charter as {path.name}"
            )
        fetch(Cid(start), _most_bytes(task), path)
    try:
        with path.open("rb") as file:
            found = cid_of_stream(file) if is_cid else sha256_of(file)
    except OSError as error:
        raise UsageError(f"run.start names {path}, which cannot be read: {error.strerror}") from error
    if is_cid and found != start:
        raise CharterMismatch(f"{path} is not the object {start}; remove it, and it is fetched")
    if not is_cid and found != charter.start_sha256:
        raise CharterMismatch(f"{path} has the digest {found}, the charter binds {charter.start_sha256 or 'none'}")
    return path


def start_from(model: nn.Module, path: Path, name: str) -> None:
    """Give a model these weights, by name; tensors that the file lacks keep their values (a new head).

    Raises UsageError for a file that is none, tensors that the model has not or in another shape, numbers that are not
    finite, and a file that has none of the model's tensors.
    """
    state = model.state_dict()
    values: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (it is no dictionary)
                if not key.startswith(STATE_PREFIX):
                    _check_fits(state, key, file.get_slice(key).get_shape(), name)
                    if state[key].is_floating_point():
                        values[key] = _finite(file.get_tensor(key), key).to(torch.float32)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"run.start is no safetensors file: {error}") from error
    if not values:
        raise UsageError(f"run.start has none of the tensors of model() of task {name}")
    model.load_state_dict({**state, **values})


def _check_fits(state: Mapping[str, Tensor], key: str, shape: Sequence[int], name: str) -> None:
    if key not in state:
        raise UsageError(f"run.start has a tensor {key!r}, which model() of task {name} has not; leave it out")
    if list(state[key].shape) != list(shape):
        shapes = f"{list(shape)}, model() of task {name} has {list(state[key].shape)}"
        raise UsageError(f"run.start has {key!r} in the shape {shapes}; leave it out to begin that one anew")


def _finite(tensor: Tensor, key: str) -> Tensor:
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        raise UsageError(f"run.start has values in {key!r} that are NaN or infinite")
    return tensor


def _most_bytes(task: Task) -> int:
    """The most that a file of first weights can have: the model's tensors in double precision, three states of a run
    behind them, and the header."""
    with torch.random.fork_rng(devices=[]), task_code(task, "model()"):
        values: int = sum(tensor.numel() for tensor in task.model().state_dict().values())
    return MAX_HEADER_BYTES + (8 + 3 * 4) * values
