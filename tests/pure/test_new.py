"""`fedchain new`: the folder that comes out is complete, explained, and learns."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_wine

from fedchain.cli.new import FILES, make_folder, name_from, new
from fedchain.errors import UsageError
from fedchain.learn import alone, evaluate, genesis, load_task, local_data_of, train_locally
from fedchain.learn.predicting import inputs_of, predict
from fedchain.learn.tables import read_table, without
from fedchain.protocol.charter import Charter, Federation, read_charter, tomllib


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder(tmp_path / "wines-of-ulm", "wines-of-ulm")
    return tmp_path / "wines-of-ulm"


def opened(folder: Path) -> tuple[Charter, Any]:
    charter = read_charter(folder)
    return charter, load_task(folder / charter.federation.task, charter.task_sha256)


def test_the_charter_names_and_explains_every_entry(folder: Path) -> None:
    text = (folder / "federation.toml").read_text(encoding="utf-8")
    entries, charter = tomllib.loads(text), read_charter(folder)
    named = {f"{section}.{key}" for section, keys in entries.items() if isinstance(keys, dict) for key in keys}
    known = {
        f"{section}.{key}" for section, keys in charter.to_toml().items() if isinstance(keys, dict) for key in keys
    }
    assert named == known, "an entry of the charter is missing from fedchain/cli/templates/federation.toml, or gone"
    assert text.count("#") >= len(named) - 4


def test_every_entry_has_its_default_unless_its_comment_says_so(folder: Path) -> None:
    usual = Charter(federation=Federation(name="usual")).to_toml()
    own = {"federation.name", "federation.description", "run.rounds", "run.target", "algorithm.local_epochs"}
    for section, entries in read_charter(folder).to_toml().items():
        for key, value in entries.items() if isinstance(entries, dict) else ():
            assert f"{section}.{key}" in own or usual[section][key] == value, f"{section}.{key}"


def test_the_name_is_put_everywhere_it_belongs(folder: Path) -> None:
    charter, task = opened(folder)
    assert charter.federation.name == task.name == "wines-of-ulm"
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("# wines-of-ulm\n")
    for file in FILES:
        assert "EXAMPLE_DATA" not in (folder / file).read_text(encoding="utf-8")
    assert "WINES_OF_ULM_DATA" in (folder / "task.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("folder", "name"), [("Wines of Ulm", "wines-of-ulm"), ("a", "a"), ("__x.y__", "x-y"), ("2026", "2026")]
)
def test_a_folders_name_becomes_a_federations_name(tmp_path: Path, folder: str, name: str) -> None:
    assert name_from(tmp_path / folder) == name


def test_the_command_that_comes_next_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new(tmp_path / "Wines of Ulm")
    following = capsys.readouterr().out.splitlines()[1].partition("next")[2]
    assert shlex.split(following) == ["fedchain", "demo", "--federation", str(tmp_path / "Wines of Ulm")]


def test_nothing_that_is_there_is_overwritten(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match="not empty; choose another folder"):
        make_folder(folder, "other")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="not empty; choose another folder"):
        make_folder(tmp_path / "file", "other")
    with pytest.raises(UsageError, match="is no name"):
        new(tmp_path / "fresh", name="Not A Name")
    assert not (tmp_path / "fresh").exists()


def test_a_members_own_training_learns_and_the_clip_value_fits(folder: Path) -> None:
    charter, task = opened(folder)
    base = genesis(task, 1)
    datas = [local_data_of(task, i, 4, 1) for i in range(4)]
    before = evaluate(task, base, task.test_data())["accuracy"]
    assert alone(task, base, charter.algorithm, datas[0], 20, 1)["accuracy"] > before
    result = train_locally(task, base, charter.algorithm, datas[0], 1)
    assert np.mean(np.abs(result.update) > charter.update.clip_value) < 0.01
    assert sum(len(d.train) + len(d.validation) for d in datas) + len(task.test_data()) == 178


def test_rows_of_ones_own_are_read_and_give_the_same_predictions(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, classes = load_wine(return_X_y=True)
    lines = [",".join([*map(repr, row.tolist()), str(kind)]) for row, kind in zip(measured, classes, strict=True)]
    own = tmp_path / "own"
    own.mkdir()
    (own / "train.csv").write_text("\n".join(lines[:100]), encoding="utf-8")
    (own / "test.csv").write_text("\n".join(lines[100:]), encoding="utf-8")
    monkeypatch.setitem(os.environ, "WINES_OF_ULM_DATA", str(own))
    _, task = opened(folder)
    data = local_data_of(task, 2, 4, 1)
    assert len(data.train) + len(data.validation) == 100 and len(task.test_data()) == 78
    model = genesis(task, 1)
    table = read_table(own / "test.csv")
    with pytest.raises(UsageError, match=r"prepare\(\) failed.*given 14 columns \(--ignore COLUMN leaves one out\)"):
        inputs_of(task, table)
    said = predict(task, model, inputs_of(task, without(table, ["13"])))
    right = float(np.mean(said["class"] == table["13"]))
    assert right == pytest.approx(evaluate(task, model, task.test_data())["accuracy"])
    assert task.test_data().tensors[0].abs().max() < 1.1 and task.test_data().tensors[0].dtype == torch.float32
