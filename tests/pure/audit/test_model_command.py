"""`fedchain model` on a bundle: fetch, predict and export, and every way in which it refuses."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Done, fedchain

from fedchain.audit import audit
from fedchain.audit.bundle import BundleWriter
from fedchain.chain.artifacts import load_artifact
from fedchain.chain.deployment import creation_code
from fedchain.protocol.events import FederationFounded, ResultCommitted
from fedchain.protocol.model import assemble, flatten, layout_of, model_digest

TASK = '''"""A task whose model is the one that the fake federation agreed on."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedchain.learn import LocalData, Task


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(40, 50)
        self.out = nn.Linear(50, 19, bias=False)

    def forward(self, inputs):
        return self.out(torch.relu(self.hidden(inputs)))


class Nineteen(Task):
    name = "nineteen"

    def model(self):
        return Model()

    def local_data(self, index, members, seed):
        return LocalData(self.test_data(), self.test_data())

    def test_data(self):
        return TensorDataset(torch.ones(5, 40), torch.zeros(5, dtype=torch.int64))
'''


def command(*arguments: object) -> Done:
    """Run `fedchain model`: what it printed, and its exit code."""
    return fedchain("model", *arguments)


@pytest.fixture(scope="module")
def folder(named: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task, and bundles of a federation that agreed on it: `honest`, and `lying`, whose last model is made up."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "task.py").write_text(TASK, encoding="utf-8")
    (folder / "other.py").write_text(TASK + "\n# another\n", encoding="utf-8")
    sha256 = hashlib.sha256(TASK.encode()).hexdigest()
    charter = named.charter_of(run={"rounds": 2}).model_copy(update={"task_sha256": sha256})
    play = named.Play(rounds=2, charter=charter).run()
    lying = play.copy()
    content = lying.store.served[lying.state.model_cid]
    other = assemble(layout_of(content), flatten(content) + np.float32(1))
    lie = {"model_digest": model_digest(other), "model_cid": lying.store.put(other)}
    lying = lying.edited(ResultCommitted, lie, round=2)
    for name, played in (("honest", play), ("lying", lying)):
        founded = played.event(FederationFounded)
        writer = BundleWriter(played.store, folder / f"{name}.zip")
        audit(played.chain, writer)
        code = load_artifact().deployed_bytecode
        writer.finish(played.chain, code, creation_code(founded.terms, founded.founders), None)
    lines = [",".join(f"x{i}" for i in range(40)) + ",truth"]
    random = np.random.default_rng(3)
    lines += [",".join(f"{value:.4f}" for value in random.normal(size=40)) + f",{row % 19}" for row in range(6)]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "digest").write_text(play.state.model_digest.hex(), encoding="utf-8")
    return folder


def test_the_file_that_is_fetched_has_the_digest_on_chain(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model.safetensors"
    done = command("fetch", "--from", folder / "honest.zip", "--out", out, "--recompute", "all")
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(out.read_bytes()).hexdigest() == (folder / "digest").read_text()
    assert "after round 2, the last of the run" in done.stderr
    assert "computed again from the encrypted updates of 2 rounds: the same" in done.stderr
    assert "can be challenged for another" in done.stderr
    assert done.stdout == ""


def test_a_model_that_was_made_up_is_refused_and_nothing_is_written(named: Any, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    done = command("fetch", "--from", folder / "lying.zip", "--out", out)
    assert done.returncode == 1
    assert "10 model" in done.stderr and any(member in done.stderr for member in named.MEMBERS)
    assert not out.exists()
    assert command("fetch", "--from", folder / "lying.zip", "--out", out, "--round", "1").returncode == 0


def test_predictions_are_all_that_stands_on_standard_output(folder: Path) -> None:
    done = command(
        "predict", folder / "task.py", folder / "rows.csv", "--from", folder / "honest.zip", "--target", "truth"
    )
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split(",")[:3] == ["class", "p0", "p1"] and len(rows) == 6
    assert "metrics     loss" in done.stderr


def test_a_model_file_of_ones_own_is_found_on_chain_or_refused(folder: Path, tmp_path: Path) -> None:
    mine, said = tmp_path / "mine.safetensors", tmp_path / "said.npz"
    command("fetch", "--from", folder / "honest.zip", "--round", "1", "--out", mine)
    rows = (folder / "task.py", folder / "rows.csv", "--ignore", "truth", "--from", folder / "honest.zip")
    done = command("predict", *rows, "--model", mine, "--out", said)
    assert done.returncode == 0, done.stderr
    assert "after round 1 of at most 2" in done.stderr and "nothing was computed again" in done.stderr
    assert np.load(said)["class"].shape == (6,)
    changed = bytearray(mine.read_bytes())
    changed[-1] ^= 1
    mine.write_bytes(bytes(changed))
    refused = command("predict", *rows, "--model", mine)
    assert refused.returncode == 2 and "on this chain for no round" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("fetch", "--from", "{}/honest.zip", "--round", "3"), "round 3 has no model yet"),
        (("fetch", "--from", "{}/honest.zip", "--recompute", "most"), "choose none, round or all"),
        (("fetch", "--from", "{}/nothing.zip"), "there is no bundle"),
        (("fetch",), "no chain: give --rpc"),
        (("predict", "{}/other.py", "{}/rows.csv", "--from", "{}/honest.zip"), "the charter binds"),
        (("predict", "{}/task.py", "{}/none.csv", "--from", "{}/honest.zip"), "cannot be read: No such file"),
        (("predict", "{}/task.py", "{}/rows.csv", "--from", "{}/honest.zip"), "mat1 and mat2"),
        (("predict", "{}/task.py", "{}/rows.csv", "--from", "{}/honest.zip", "--target", "t"), "no column 't'"),
        (("export", "{}/task.py", "--out", "model.h5", "--from", "{}/honest.zip"), "end the name in .safetensors"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_2(
    folder: Path, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = command(*(argument.format(folder) for argument in arguments))
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("fedchain: ") and says in last
    assert "Traceback" not in done.stderr


def test_a_folder_whose_charter_is_not_the_contracts_is_refused(folder: Path) -> None:
    done = command("export", Path("peers/digits").absolute(), "--out", "model.pt", "--from", folder / "honest.zip")
    assert done.returncode == 2 and "the contract holds" in done.stderr


def test_the_model_is_exported_to_torchscript_with_its_origin(folder: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    out = tmp_path / "model.pt"
    done = command("export", folder / "task.py", "--out", out, "--from", folder / "honest.zip")
    assert done.returncode == 0, done.stderr
    extra = {"fedchain.json": ""}
    model = torch.jit.load(out, _extra_files=extra)
    assert model(torch.ones(3, 40)).shape == (3, 19)
    assert (folder / "digest").read_text() in str(extra["fedchain.json"])
