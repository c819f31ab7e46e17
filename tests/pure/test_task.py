"""The user's own task file: loaded only if it is the agreed one, and every mistake in it is one line."""

from __future__ import annotations

import hashlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedchain.errors import CharterMismatch, UsageError
from fedchain.learn import LocalData, Task, evaluate, genesis, load_task, local_data_of, train_locally
from fedchain.protocol.charter import Algorithm

GOOD = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
from fedchain.learn import LocalData, Task

def rows(n):
    inputs = torch.linspace(-1, 1, n)[:, None]
    return TensorDataset(inputs, (inputs[:, 0] > 0).long())

class Signs(Task):
    name = "signs"
    def model(self):
        return nn.Linear(1, 1)
    def local_data(self, index, members, seed):
        return LocalData(train=rows(20), validation=rows(10))
    def test_data(self):
        return rows(30)
"""


def write(folder: Path, code: str) -> tuple[Path, str]:
    file = folder / "task.py"
    file.write_text(code, encoding="utf-8")
    return file, hashlib.sha256(file.read_bytes()).hexdigest()


def load(folder: Path, code: str) -> Task:
    return load_task(*write(folder, code))


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text and len(text) < 600
    return text


def test_a_task_file_gives_its_task(tmp_path: Path) -> None:
    task = load(tmp_path, GOOD)
    assert task.name == "signs" and task.metric == "accuracy" and task.higher_is_better
    assert len(local_data_of(task, 0, 3, 1).train) == 20


def test_a_task_may_be_an_instance_named_task(tmp_path: Path) -> None:
    code = GOOD + "class Other(Signs):\n    name = 'other'\ntask = Other()\n"
    assert load(tmp_path, code).name == "other"


def test_another_file_than_the_charter_binds_is_refused_and_never_run(tmp_path: Path) -> None:
    file, digest = write(tmp_path, GOOD)
    file.write_text(GOOD + f"\nopen({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(CharterMismatch, match=digest):
        load_task(file, digest)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(CharterMismatch, match="binds none"):
        load_task(file, "")


def test_dataclasses_work_in_a_task_file(tmp_path: Path) -> None:
    code = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
    load(tmp_path, code + GOOD)


TWO = GOOD + "class Again(Signs):\n    name = 'again'\n"
LACKING = "from fedchain.learn import Task\nclass Half(Task):\n    name = 'half'\n    def model(self): ...\n"

BROKEN: dict[str, tuple[str, str]] = {
    "syntax": ("x = 1\ndef (:\n", r"task\.py:2: loading it failed: SyntaxError: "),
    "missing_import": ("\nimport no_such_package_here\n", r"task\.py:2: .*ModuleNotFoundError: .*no_such_package"),
    "error_at_load": ("a = 1\n\nb = {}['key']\n", r"task\.py:3: .*KeyError: 'key'"),
    "null_byte": ("a = '\0'\n", r"task\.py.*: loading it failed: SyntaxError"),
    "no_task": ("x = 1\n", r"exactly one subclass .* found none"),
    "two_tasks": (TWO, r"found Signs, Again"),
    "abstract_task": (LACKING, r"Half lacks local_data, test_data"),
    "task_of_another_kind": ("task = 3\n", r"task must be an instance .* not int"),
    "no_name": (GOOD.replace('name = "signs"', ""), r'needs name = "…"'),
    "name_of_two_lines": (GOOD.replace('"signs"', r'"a\nb"'), r'needs name = "…"'),
    "outputs_unknown": (GOOD.replace('name = "signs"', 'name = "signs"; outputs = "scores"'), r"outputs is"),
    "constructor_with_arguments": (GOOD + "    def __init__(self, x): ...\n", r"Signs\(\) failed: TypeError"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_task_file_is_explained_in_one_line(tmp_path: Path, mistake: str) -> None:
    code, pattern = BROKEN[mistake]
    before = {name for name in sys.modules if name.startswith("fedchain_task_")}
    with pytest.raises(UsageError, match=pattern) as caught:
        load(tmp_path, code)
    one_line(caught.value)
    assert {name for name in sys.modules if name.startswith("fedchain_task_")} == before


def test_a_missing_task_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_task(tmp_path / "task.py", "00" * 32)


def method(code: str) -> str:
    """The good task with one more (overriding) method."""
    return GOOD + "".join(f"    {line}\n" for line in code.splitlines())


ALGORITHM = Algorithm(local_epochs=2, batch_size=8)


def train(task: Task) -> Any:
    return train_locally(task, genesis(task, 1), ALGORITHM, local_data_of(task, 0, 3, 1), 1)


FAILING: dict[str, tuple[str, str]] = {
    "model_raises": (
        "def model(self):\n    raise RuntimeError('no weights')",
        r"task\.py:\d+: model\(\) failed: .*no w",
    ),
    "model_of_another_kind": ("def model(self):\n    return 3", r"model\(\) must give a torch.nn.Module, not int"),
    "model_without_parameters": ("def model(self):\n    return nn.ReLU()", r"no trainable parameters"),
    "model_with_complex_tensors": (
        "def model(self):\n    m = nn.Linear(1, 1)\n    m.register_buffer('c', torch.zeros(1, dtype=torch.cfloat))\n"
        "    return m",
        r"complex tensors",
    ),
    "model_not_finite": (
        "def model(self):\n    m = nn.Linear(1, 1)\n    m.bias.data.fill_(float('nan'))\n    return m",
        r"NaN or infinite",
    ),
    "data_raises": (
        "def local_data(self, index, members, seed):\n    return open('/no/such/file')",
        r"task\.py:\d+: local_data\(\) failed: FileNotFoundError",
    ),
    "data_of_another_kind": ("def local_data(self, index, members, seed):\n    return rows(3)", r"must give LocalData"),
    "data_empty": (
        "def local_data(self, index, members, seed):\n    return LocalData(rows(0), rows(3))",
        r"no training examples",
    ),
    "loss_raises": (
        "def loss(self, model, batch):\n    return model(torch.zeros(3, 7)).mean()",
        r"task\.py:\d+: a training step failed: RuntimeError: mat1 and mat2",
    ),
    "loss_not_a_scalar": ("def loss(self, model, batch):\n    return model(batch[0])", r"a training step failed"),
    "optimizer_raises": ("def optimizer(self, model):\n    return torch.optim.SGD()", r"optimizer\(\) failed: TypeErr"),
    "training_diverges": (
        "def optimizer(self, model):\n    return torch.optim.SGD(model.parameters(), lr=1e30)\n"
        "def loss(self, model, batch):\n    return model(batch[0]).square().mean()",
        r"the training diverged in local epoch \d",
    ),
}


@pytest.mark.parametrize("mistake", FAILING)
def test_a_failing_method_is_explained_in_one_line(tmp_path: Path, mistake: str) -> None:
    code, pattern = FAILING[mistake]
    task = load(tmp_path, method(code))
    with pytest.raises(UsageError, match=pattern) as caught:
        train(task)
    one_line(caught.value)


@pytest.mark.parametrize(
    ("result", "pattern"),
    [
        ("{'f1': 0.5}", r"gave f1, but not accuracy"),
        ("{}", r"gave nothing"),
        ("{'accuracy': float('nan')}", r"accuracy = nan; metrics must be finite"),
        ("3", r"evaluate\(\) failed: AttributeError"),
        ("{'accuracy': 'high'}", r"evaluate\(\) failed: ValueError"),
    ],
)
def test_a_metric_that_is_none_is_explained(tmp_path: Path, result: str, pattern: str) -> None:
    task = load(tmp_path, method(f"def evaluate(self, model, examples):\n    return {result}"))
    with pytest.raises(UsageError, match=pattern) as caught:
        evaluate(task, genesis(task, 1), task.test_data())
    one_line(caught.value)


def test_the_global_model_of_another_task_is_refused(tmp_path: Path) -> None:
    task = load(tmp_path, GOOD)
    other = load(tmp_path, method("def model(self):\n    return nn.Linear(2, 1)"))
    with pytest.raises(CharterMismatch, match=r"2 tensors with 2 values .* has 2 tensors with 3 values") as caught:
        train_locally(task, genesis(other, 1), ALGORITHM, local_data_of(task, 0, 3, 1), 1)
    one_line(caught.value)


class Fixed(Task):
    """A model that puts out its inputs, so that losses and metrics can be worked out by hand."""

    name = "fixed"

    def __init__(self, outputs: Any = "logits") -> None:
        self.outputs = outputs

    def model(self) -> nn.Module:
        return nn.Identity()

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        raise AssertionError

    def test_data(self) -> TensorDataset:
        raise AssertionError


@pytest.mark.parametrize(
    ("outputs", "scores", "truth", "loss", "accuracy"),
    [
        ("logits", [[math.log(3), 0.0], [0.0, 0.0]], [0, 1], (math.log(4 / 3) + math.log(2)) / 2, 0.5),
        ("probabilities", [[0.75, 0.25], [0.5, 0.5]], [0, 1], (math.log(4 / 3) + math.log(2)) / 2, 0.5),
        ("logits", [[math.log(3)], [-math.log(3)]], [1, 1], (math.log(4 / 3) + math.log(4)) / 2, 0.5),
        ("probabilities", [[0.75], [0.25]], [1, 0], math.log(4 / 3), 1.0),
        ("probabilities", [0.75, 0.25], [[1.0], [0.0]], math.log(4 / 3), 1.0),
    ],
)
def test_the_defaults_for_classification_are_the_textbook_ones(
    outputs: str, scores: list[Any], truth: list[Any], loss: float, accuracy: float
) -> None:
    task = Fixed(outputs)
    model = nn.Sequential(nn.Identity())
    model.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    metrics = task.evaluate(model, TensorDataset(torch.tensor(scores), torch.tensor(truth)))
    assert metrics == {"loss": pytest.approx(loss), "accuracy": accuracy}
