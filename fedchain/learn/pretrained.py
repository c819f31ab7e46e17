"""Weights to begin with: a safetensors file that the charter binds by digest, or by the CID it has on IPFS.

Any safetensors file will do: whole or half precision, whole model or parts of it. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from ..errors import CharterMismatch, UsageError
from ..protocol.charter import Charter
from ..protocol.cid import cid_of
from ..protocol.ids import Cid
from ..protocol.outer import STATE_PREFIX

MAX_BYTES = 1 << 34
"""The most that is fetched: 16 GiB."""

Fetch = Callable[[Cid, int], bytes]
"""What a store does: (CID, bytes at most) to the object."""


def read_start(folder: Path, charter: Charter, fetch: Fetch | None = None) -> bytes | None:
    """The weights that `run.start` names, checked; None where a run begins with the task's own initial values.

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
        content = fetch(Cid(start), MAX_BYTES)
        part = path.with_suffix(".part")
        part.write_bytes(content)
        part.replace(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"run.start names {path}, which cannot be read: {error.strerror}") from error
    if is_cid and cid_of(content) != start:
        raise CharterMismatch(f"{path} is not the object {start}; remove it, and it is fetched")
    digest = hashlib.sha256(content).hexdigest()
    if not is_cid and digest != charter.start_sha256:
        raise CharterMismatch(f"{path} has the digest {digest}, the charter binds {charter.start_sha256 or 'none'}")
    return content


def start_from(model: nn.Module, content: bytes, name: str) -> None:
    """Give a model these weights, by name; tensors that the file lacks keep their values (a new head).

    Raises UsageError for a file that is none, tensors that the model has not or in another shape, numbers that are not
    finite, and a file that has none of the model's tensors.
    """
    try:
        found = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UsageError(f"run.start is no safetensors file: {error}") from error
    state = model.state_dict()
    values: dict[str, Tensor] = {}
    for key, tensor in found.items():
        if key.startswith(STATE_PREFIX):
            continue
        if key not in state:
            raise UsageError(f"run.start has a tensor {key!r}, which model() of task {name} has not; leave it out")
        if state[key].shape != tensor.shape:
            shapes = f"{list(tensor.shape)}, model() of task {name} has {list(state[key].shape)}"
            raise UsageError(f"run.start has {key!r} in the shape {shapes}; leave it out to begin that one anew")
        if not state[key].is_floating_point():
            continue
        if not torch.isfinite(tensor).all():
            raise UsageError(f"run.start has values in {key!r} that are NaN or infinite")
        values[key] = tensor.to(torch.float32)
    if not values:
        raise UsageError(f"run.start has none of the tensors of model() of task {name}")
    model.load_state_dict({**state, **values})
