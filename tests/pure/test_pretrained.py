"""Starting from weights: bound by digest or CID, checked against the task's model, never half-used."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from fedchain.chain.deployment import terms_of
from fedchain.errors import CharterMismatch, ObjectMissing, UsageError
from fedchain.learn import Task, first_model, genesis, load_task, read_start
from fedchain.peer.start import stand
from fedchain.protocol.charter import Charter, read_charter
from fedchain.protocol.cid import cid_of
from fedchain.protocol.events import FederationFounded
from fedchain.protocol.ids import Address, Cid
from fedchain.protocol.model import flatten, layout_of, split
from fedchain.protocol.outer import MOMENTUM
from fedchain.protocol.transition import founded

HOSPITALS = Path(__file__).parents[2] / "peers" / "hospitals"
FOUNDERS = tuple(Address(f"0x{i:040x}") for i in range(1, 4))


def tensors() -> dict[str, Tensor]:
    """Weights of the hospitals' model, by a seed that no charter has."""
    charter = read_charter(HOSPITALS)
    blob = genesis(load_task(HOSPITALS / "task.py", charter.task_sha256), 4711)
    return {name: torch.from_numpy(part.copy()) for name, part in split(layout_of(blob), flatten(blob)).items()}


def folder_with(path: Path, start: str, weights: bytes | None, *, outer: str = "none") -> Path:
    """The hospitals' federation with three founders, beginning with these weights."""
    text = (HOSPITALS / "federation.toml").read_text(encoding="utf-8")
    named = ", ".join(f'"{founder}"' for founder in FOUNDERS)
    for old, new in (
        ('start = ""', f'start = "{start}"'),
        ("members = []", f"members = [{named}]"),
        ('optimizer = "none"', f'optimizer = "{outer}"'),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (path / "federation.toml").write_text(text, encoding="utf-8")
    (path / "task.py").write_bytes((HOSPITALS / "task.py").read_bytes())
    if weights is not None:
        (path / (start if start.endswith(".safetensors") else f"{start}.safetensors")).write_bytes(weights)
    return path


def opened(folder: Path) -> tuple[Charter, Task]:
    charter = read_charter(folder)
    return charter, load_task(folder / "task.py", charter.task_sha256)


def begun(folder: Path) -> tuple[Charter, bytes]:
    charter, task = opened(folder)
    return charter, first_model(task, charter, read_start(folder, charter, task))


def test_a_run_begins_with_the_weights_that_the_charter_binds(tmp_path: Path) -> None:
    weights = save(tensors())
    folder = folder_with(tmp_path, "weights.safetensors", weights, outer="fedavgm")
    charter, model = begun(folder)
    assert charter.start_sha256 == hashlib.sha256(weights).hexdigest()
    parts = split(layout_of(model), flatten(model))
    assert not parts.pop(MOMENTUM).any()
    for name, tensor in tensors().items():
        assert torch.equal(torch.from_numpy(parts[name].copy()), tensor)
    state = founded(FederationFounded(terms_of(charter, Cid("Qm"), model, Cid("Qm")), FOUNDERS, 0))
    assert stand(state, folder, FOUNDERS[1]).me == 1
    (folder / "weights.safetensors").write_bytes(save({n: t + 1e-3 for n, t in tensors().items()}))
    with pytest.raises(CharterMismatch):
        stand(state, folder, FOUNDERS[1])


def test_half_precision_and_parts_of_a_model_will_do(tmp_path: Path) -> None:
    some = dict(list(tensors().items())[:2])
    _, model = begun(folder_with(tmp_path, "half.safetensors", save({n: t.half() for n, t in some.items()})))
    charter = read_charter(HOSPITALS)
    own = genesis(load_task(HOSPITALS / "task.py", charter.task_sha256), charter.run.seed)
    fresh = split(layout_of(own), flatten(own))
    for name, part in split(layout_of(model), flatten(model)).items():
        expected = some[name].half().float() if name in some else torch.from_numpy(fresh[name].copy())
        assert torch.equal(torch.from_numpy(part.copy()), expected), name


def test_weights_named_by_cid_are_fetched_once_and_compared(tmp_path: Path) -> None:
    weights = save(tensors())
    cid = cid_of(weights)
    folder = folder_with(tmp_path, cid, None)
    charter, task = opened(folder)
    assert charter.start_sha256 == "", "the CID binds them"
    with pytest.raises(UsageError, match=f"put it beside the charter as {cid}"):
        read_start(folder, charter, task)
    asked = []

    def fetch(wanted: Cid, most: int, path: Path) -> None:
        asked.append((wanted, most))
        path.write_bytes(weights)

    path = folder / f"{cid}.safetensors"
    assert read_start(folder, charter, task, fetch) == read_start(folder, charter, task) == path
    ((wanted, most),) = asked
    assert wanted == cid and len(weights) <= most < 6 * len(weights) + (1 << 20)
    path.write_bytes(weights[:-1])
    with pytest.raises(CharterMismatch, match="is not the object"):
        read_start(folder, charter, task)


def test_a_store_that_has_nothing_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, cid_of(b"weights"), None)

    def fetch(wanted: Cid, most: int, path: Path) -> None:
        raise ObjectMissing(f"nobody has {wanted}")

    with pytest.raises(ObjectMissing):
        read_start(folder, *opened(folder), fetch)
    assert not list(folder.glob("Qm*"))


@pytest.mark.parametrize("by", ["file", "CID"])
def test_a_file_of_any_size_is_compared_in_little_memory(tmp_path: Path, by: str) -> None:
    content = bytes(24 << 20)
    folder = folder_with(tmp_path, "weights.safetensors" if by == "file" else cid_of(content), content)
    charter, task = opened(folder)
    tracemalloc.start()
    try:
        assert read_start(folder, charter, task) is not None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(content) // 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t | {"extra": torch.zeros(1)}, "'extra', which model\\(\\) of task hospitals has not"),
        (lambda t: {n: x.reshape(1, *x.shape) for n, x in t.items()}, "in the shape"),
        (lambda t: {n: x * float("nan") for n, x in t.items()}, "NaN or infinite"),
        (lambda t: {"~fedchain.momentum": torch.zeros(3)}, "none of the tensors"),
    ],
)
def test_weights_that_do_not_fit_the_task_are_refused(tmp_path: Path, change: object, reason: str) -> None:
    assert callable(change)
    folder = folder_with(tmp_path, "odd.safetensors", save(change(tensors())))
    with pytest.raises(UsageError, match=reason):
        begun(folder)


def test_what_is_no_safetensors_file_or_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "junk.safetensors", b"\x80\x04pickled")
    with pytest.raises(UsageError, match=r"run\.start is no safetensors file"):
        begun(folder)
    (folder / "junk.safetensors").unlink()
    with pytest.raises(UsageError, match=r"run\.start names junk\.safetensors, which cannot be read"):
        read_charter(folder)
    charter = read_charter(HOSPITALS).with_settings(["run.start=junk.safetensors"])
    with pytest.raises(UsageError, match="cannot be made without it"):
        first_model(load_task(HOSPITALS / "task.py", charter.task_sha256), charter)
    with pytest.raises(UsageError, match=r"start"):
        read_charter(HOSPITALS).with_settings(["run.start=../secret.safetensors"])
