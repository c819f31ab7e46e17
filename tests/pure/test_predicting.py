"""A model at work: rows in, predictions out, and the same model as TorchScript and ONNX."""

from __future__ import annotations

import builtins
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedchain.errors import CharterMismatch, UsageError
from fedchain.learn import LocalData, Task, evaluate, genesis, train_locally
from fedchain.learn.predicting import (
    inputs_of,
    judge,
    predict,
    sample_inputs,
    to_onnx,
    to_torchscript,
    whole_model,
)
from fedchain.learn.tables import csv_text, npz_bytes, read_table, without
from fedchain.protocol.charter import Algorithm
from fedchain.protocol.model import layout_of

ORIGIN = {"round": 3, "model_digest": "ab" * 32}


class Irises(Task):
    """Three classes of three measurements, with a layer that behaves otherwise while training."""

    name = "irises"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        return LocalData(self.test_data(), self.test_data())

    def test_data(self) -> TensorDataset:
        inputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
        return TensorDataset(inputs, inputs.argmax(dim=1))


class Chance(Irises):
    """One probability."""

    outputs = "probabilities"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())


class Prices(Irises):
    """Two plain numbers, judged by an error; raw columns are chosen by name and scaled."""

    name = "prices"
    metric = "mae"

    def model(self) -> nn.Module:
        return nn.Linear(2, 2)

    def prepare(self, columns: Any) -> Tensor:
        return torch.tensor(np.stack([columns["rooms"] / 10, columns["town"] == "Ulm"], axis=1), dtype=torch.float32)

    def evaluate(self, model: nn.Module, examples: Any) -> dict[str, float]:
        inputs, targets = examples[torch.arange(len(examples))]
        return {"mae": float((model(inputs)[:, 0] - targets).abs().mean())}


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b\n1,2\n3,4\n", ["a", "b"]),
        ("1;2\n3;4\n", ["0", "1"]),
        ("\ufeffa\tb\r\n1\t2\r\n\r\n3\t4\r\n", ["a", "b"]),
    ],
)
def test_csv_is_read_in_its_common_spellings(tmp_path: Path, text: str, names: list[str]) -> None:
    table = read_table(written(tmp_path / "rows.csv", text))
    assert list(table) == names
    np.testing.assert_array_equal(np.column_stack(list(table.values())), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no rows"),
        ("a,b\n", "has no rows"),
        ("a,b\n1,2\n3\n", r"rows.csv:3: 1 cells, where the first line has 2"),
        ("a,b\n1,2\n3, \n", r"rows.csv:3: column 'b' is empty"),
        ("a,a\n1,2\n", "two columns have the same name"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_said_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_table(written(tmp_path / "rows.csv", text))


def test_npz_is_read_and_pickled_objects_are_not(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", inputs=np.ones((4, 3)))
    assert read_table(tmp_path / "good.npz")["inputs"].shape == (4, 3)
    np.savez(tmp_path / "ragged.npz", a=np.ones(4), b=np.ones(5))
    with pytest.raises(UsageError, match="differ in their number of rows: a 4, b 5"):
        read_table(tmp_path / "ragged.npz")
    np.savez(tmp_path / "pickled.npz", inputs=np.array([{}, []], dtype=object))
    with pytest.raises(UsageError, match="not an npz file of plain arrays"):
        read_table(tmp_path / "pickled.npz")
    with pytest.raises(UsageError, match="not an npz file"):
        read_table(written(tmp_path / "text.npz", "a,b"))
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_table(tmp_path / "none.csv")


def test_columns_are_left_out_by_name_and_a_wrong_name_lists_the_right_ones() -> None:
    table = {"id": np.arange(2.0), "x": np.arange(2.0)}
    assert list(without(table, ["id"])) == ["x"]
    with pytest.raises(UsageError, match="no column 'y'; there are 'id', 'x'"):
        without(table, ["y"])
    with pytest.raises(UsageError, match="no column is left"):
        without(table, ["id", "x"])


def test_predictions_are_the_models_own_in_evaluation_mode(tmp_path: Path) -> None:
    task = Irises()
    model = genesis(task, 1)
    text = "x,y,z\n" + "".join(f"{a:.6f},{b:.6f},{c:.6f}\n" for a, b, c in task.test_data().tensors[0].tolist())
    inputs = inputs_of(task, read_table(written(tmp_path / "rows.csv", text)))
    columns = predict(task, model, inputs)
    assert list(columns) == ["class", "p0", "p1", "p2"]
    chances = np.column_stack([columns[f"p{i}"] for i in range(3)])
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(columns["class"], chances.argmax(axis=1))
    truth = task.test_data().tensors[1].numpy().astype(float)
    metrics = judge(task, model, inputs, truth)
    assert metrics["accuracy"] == evaluate(task, model, task.test_data())["accuracy"]
    assert metrics["accuracy"] == pytest.approx(np.mean(columns["class"] == truth))


def test_a_single_column_is_a_chance_and_a_class() -> None:
    inputs = torch.linspace(-9, 9, 30).reshape(10, 3)
    columns = predict(Chance(), genesis(Chance(), 1), inputs)
    assert list(columns) == ["class", "p1"]
    assert ((columns["p1"] > 0) & (columns["p1"] < 1)).all()
    np.testing.assert_array_equal(columns["class"], columns["p1"] >= 0.5)
    assert set(columns["class"]) == {0, 1}


def test_a_task_prepares_raw_columns_and_other_metrics_give_plain_numbers() -> None:
    task, table = Prices(), {"rooms": np.array([2.0, 30.0]), "town": np.array(["Ulm", "Bonn"])}
    inputs = inputs_of(task, table)
    assert inputs.tolist() == [[pytest.approx(0.2), 1.0], [3.0, 0.0]]
    columns = predict(task, genesis(task, 1), inputs)
    assert list(columns) == ["output0", "output1"]
    assert judge(task, genesis(task, 1), inputs, columns["output0"])["mae"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(UsageError, match="column 'town' is text"):
        inputs_of(Irises(), table)


def test_more_rows_than_fit_at_once_come_out_in_order() -> None:
    task = Irises()
    inputs = torch.randn(2500, 3)
    model = genesis(task, 1)
    whole = predict(task, model, inputs)
    np.testing.assert_allclose(whole["p1"][2000:], predict(task, model, inputs[2000:])["p1"], rtol=1e-4, atol=1e-6)


def test_rows_that_the_model_cannot_take_are_refused_in_one_line() -> None:
    task = Irises()
    with pytest.raises(UsageError, match=r"forward\(\) failed: RuntimeError: mat1 and mat2") as caught:
        predict(task, genesis(task, 1), torch.ones(2, 5))
    assert "\n" not in str(caught.value)
    with pytest.raises(CharterMismatch, match="the federation's model has"):
        predict(task, genesis(Chance(), 1), torch.ones(2, 3))


def test_tables_come_back_as_they_were_written(tmp_path: Path) -> None:
    table = {"class": np.array([1, 0]), "p1": np.array([0.12345678, 1e-9], dtype=np.float32)}
    written(tmp_path / "said.csv", csv_text(table))
    again = read_table(tmp_path / "said.csv")
    np.testing.assert_array_equal(again["class"], [1, 0])
    np.testing.assert_allclose(again["p1"], table["p1"], rtol=1e-6)
    (tmp_path / "said.npz").write_bytes(npz_bytes(table))
    np.testing.assert_array_equal(read_table(tmp_path / "said.npz")["p1"], table["p1"])


def test_torchscript_runs_without_the_task_for_any_number_of_rows() -> None:
    task = Irises()
    model = genesis(task, 1)
    exported = to_torchscript(task, model, sample_inputs(task), ORIGIN)
    extra = {"fedchain.json": ""}
    again = torch.jit.load(io.BytesIO(exported), _extra_files=extra)  # type: ignore[no-untyped-call]
    assert json.loads(extra["fedchain.json"]) == ORIGIN
    inputs = torch.randn(7, 3)
    np.testing.assert_allclose(again(inputs).softmax(1)[:, 1].detach(), predict(task, model, inputs)["p1"], rtol=1e-5)


def test_onnx_runs_without_torch_for_any_number_of_rows() -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from onnx.reference import ReferenceEvaluator

    task = Irises()
    model = genesis(task, 1)
    proto = onnx.load_model_from_string(to_onnx(task, model, sample_inputs(task)[:1], ORIGIN))
    assert {prop.key: prop.value for prop in proto.metadata_props}["fedchain.round"] == "3"
    inputs = torch.randn(7, 3)
    (outputs,) = ReferenceEvaluator(proto).run(None, {"inputs": inputs.numpy()})
    chances = torch.from_numpy(outputs).softmax(1)[:, 1]
    np.testing.assert_allclose(chances, predict(task, model, inputs)["p1"], rtol=1e-4)


def test_onnx_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def without_onnx(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return there(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    with pytest.raises(UsageError, match=r"onnx is missing.*pip install 'fedchain\[onnx\]'"):
        to_onnx(Irises(), genesis(Irises(), 1), torch.ones(2, 3), ORIGIN)


class Counting(nn.Module):
    """Its outputs depend on how many rows it sees, which a trace writes down as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) * (2.0 if inputs.shape[0] > 1 else 1.0)  # type: ignore[no-any-return]


def test_a_model_that_a_trace_cannot_hold_is_not_exported() -> None:
    class Odd(Irises):
        def model(self) -> nn.Module:
            return Counting()

    task = Odd()
    with pytest.raises(UsageError, match="computes something else than the model, for 1 rows"):
        to_torchscript(task, genesis(task, 1), torch.randn(4, 3), ORIGIN)


def test_a_model_that_lacks_what_members_keep_is_made_whole_or_refused() -> None:
    task, patterns = Irises(), ("3.*",)
    shared, whole = genesis(task, 1, patterns), genesis(task, 2)
    algorithm = Algorithm(local_tensors=patterns, local_epochs=1)
    result = train_locally(task, shared, algorithm, task.local_data(0, 3, 1), 5)
    assert result.kept is not None
    made = whole_model(task, shared, patterns, result.kept)
    assert layout_of(made) == layout_of(whole)
    expected = evaluate(task, shared, task.test_data(), local_tensors=patterns, kept=result.kept)
    assert judge(task, made, *(t if i == 0 else t.numpy() for i, t in enumerate(task.test_data().tensors))) == expected
    assert whole_model(task, whole, (), None) == whole
    with pytest.raises(UsageError, match=r"members keep 3\.\* to themselves .* give --kept-file FILE"):
        whole_model(task, shared, patterns, None)
