"""What a trained model says of new examples, and the same model in the forms that other programs run.

Knows nothing of chains: whoever calls has verified the model's bytes.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ..errors import UsageError
from ..protocol.model import assemble, layout_from
from .loading import task_code
from .tables import Table
from .task import Examples, Task
from .training import loaded, metrics_of, reproducible

_AT_ONCE = 1024
"""Examples that the model sees at a time."""

_TOLERANCE = 1e-4
"""How far an exported model's outputs may be from the model's own, relative to 1 and to their size."""

ONNX_OPSET = 18


def whole_model(task: Task, model: bytes, local_tensors: Sequence[str], kept: bytes | None) -> bytes:
    """A stored model with all of the task's float tensors: the shared ones, and those that a member kept to itself.

    Without local tensors, the model as it is. Raises UsageError where they are needed and not given.
    """
    if not local_tensors:
        return model
    if kept is None:
        raise UsageError(
            f"members keep {', '.join(local_tensors)} to themselves in this federation, so its model is not whole: give"
            " --kept-file FILE, the newest in the folder `kept` of your peer's work folder"
        )
    module, _ = loaded(task, model, local_tensors=local_tensors, kept=kept)
    floats = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    layout = layout_from({name: tuple(tensor.shape) for name, tensor in floats.items()})
    return assemble(layout, np.concatenate([floats[name].float().numpy().reshape(-1) for name in layout.names]))


def inputs_of(task: Task, table: Table) -> Any:
    """What the model takes, made from a file's columns by the task's `prepare`."""
    try:
        with task_code(task, "prepare()"):
            inputs = task.prepare(table)
    except UsageError as error:
        given = f"{len(table)} column{'s' if len(table) != 1 else ''}"
        raise UsageError(f"{error}; it was given {given} (--ignore COLUMN leaves one out)") from error
    rows = len(next(iter(table.values())))
    for tensor in _tensors(inputs):
        if len(tensor) != rows:
            raise UsageError(f"task {task.name}: prepare() made {len(tensor)} inputs of {rows} rows")
    return inputs


def sample_inputs(task: Task) -> Any:
    """A few of the task's own test inputs: what a model is exported with where the user gives none."""
    with task_code(task, "test_data()"):
        examples: Examples = task.test_data()
        return task.batch(examples, torch.arange(min(4, len(examples))))[0]


def predict(task: Task, model: bytes, inputs: Any) -> dict[str, NDArray[Any]]:
    """The task's `predictions` for k inputs (a tensor, or tensors in tuples or dicts): columns of k values each.

    Raises CharterMismatch when `model` is not a model of this task, UsageError when the task's code fails.
    """
    with reproducible(0):
        standing, _ = loaded(task, model)
        outputs = _outputs(task, standing.eval(), inputs)
        with task_code(task, "predictions()"):
            columns = task.predictions(outputs)
        return {name: np.asarray(column.detach()) for name, column in columns.items()}


def judge(task: Task, model: bytes, inputs: Any, truth: NDArray[Any]) -> dict[str, float]:
    """The task's metrics on these inputs and what is true of them, (k,) numbers."""
    if not isinstance(inputs, Tensor):
        raise UsageError(f"task {task.name}: metrics need inputs that are one tensor; prepare() gave {_kind(inputs)}")
    if truth.dtype.kind not in "biuf":
        raise UsageError("the column with the truth is text; write classes as 0, 1, …")
    whole = task.metric == "accuracy" and bool(np.all(truth == np.floor(truth)))
    targets = torch.from_numpy(truth.astype(np.int64 if whole else np.float32))
    with reproducible(0):
        standing, _ = loaded(task, model)
        return metrics_of(task, standing, TensorDataset(inputs, targets))


def to_torchscript(task: Task, model: bytes, inputs: Any, origin: Mapping[str, Any]) -> bytes:
    """The model as a TorchScript file, traced on `inputs`: `torch.jit.load` runs it without this package or the task.

    `origin` goes along as `fedchain.json`. Raises UsageError where the traced model computes something else.
    """
    with reproducible(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        standing, _ = loaded(task, model)
        with task_code(task, "tracing the model"):
            traced = torch.jit.trace(standing.eval(), (_at_least_two(inputs),))  # type: ignore[no-untyped-call]
        out = io.BytesIO()
        torch.jit.save(traced, out, _extra_files={"fedchain.json": json.dumps(dict(origin)).encode()})
        again = torch.jit.load(io.BytesIO(out.getvalue()))  # type: ignore[no-untyped-call]
        _check_same(task, standing, inputs, lambda some: again(some))
    return out.getvalue()


def to_onnx(task: Task, model: bytes, inputs: Any, origin: Mapping[str, Any]) -> bytes:
    """The model as an ONNX file with one input, `inputs`, of any number of rows, and one output, `outputs`.

    `origin` goes along as metadata. Raises UsageError where the onnx extra is not installed, torch cannot translate the
    model, or the translation computes something else (by ONNX's reference evaluator).
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter is written in it
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        raise UsageError(
            f"ONNX needs the onnx extra ({error.name} is missing): pip install 'fedchain[onnx]'"
        ) from error
    if not isinstance(inputs, Tensor):
        raise UsageError(f"ONNX export takes models with one input tensor, not {_kind(inputs)}; try TorchScript (.pt)")
    torch_log = logging.getLogger("torch.onnx")
    level = torch_log.level
    with reproducible(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch_log.setLevel(logging.ERROR)
        try:
            standing, _ = loaded(task, model)
            with task_code(task, "translating the model to ONNX"):
                program = torch.onnx.export(
                    standing.eval(),
                    (_at_least_two(inputs),),
                    dynamo=True,
                    verbose=False,
                    opset_version=ONNX_OPSET,
                    input_names=["inputs"],
                    output_names=["outputs"],
                    dynamic_shapes=({0: torch.export.Dim("rows")},),
                )
        finally:
            torch_log.setLevel(level)
        assert program is not None
        proto = program.model_proto
        onnx.helper.set_model_props(proto, {f"fedchain.{name}": str(value) for name, value in origin.items()})
        onnx.checker.check_model(proto)
        evaluator = ReferenceEvaluator(proto)

        def run(some: Tensor) -> Tensor:
            outputs: Any = evaluator.run(None, {"inputs": some.numpy()})
            return torch.from_numpy(outputs[0])

        _check_same(task, standing, inputs, run)
    return bytes(proto.SerializeToString())


def _outputs(task: Task, model: nn.Module, inputs: Any) -> Tensor:
    count = len(_tensors(inputs)[0])
    with torch.no_grad(), task_code(task, "the model's forward()"):
        return torch.cat([model(_rows(inputs, start, start + _AT_ONCE)) for start in range(0, count, _AT_ONCE)])


def _check_same(task: Task, model: nn.Module, inputs: Any, exported: Callable[[Any], Tensor]) -> None:
    """Compare outputs for all rows and for the first row alone: a batch size must not be baked in."""
    for some in (inputs, _rows(inputs, 0, 1)):
        with task_code(task, "running the exported model"):
            expected, got = _outputs(task, model, some), exported(some).detach()
        if expected.shape != got.shape or not torch.allclose(expected, got, rtol=_TOLERANCE, atol=_TOLERANCE):
            raise UsageError(
                f"task {task.name}: the exported model computes something else than the model, for"
                f" {len(_tensors(some)[0])} rows: its forward() depends on values or on the number of rows"
            )


def _at_least_two(inputs: Any) -> Any:
    """The inputs, a single one twice: tracing takes a size of one for a constant."""
    return _mapped(inputs, lambda tensor: tensor if len(tensor) > 1 else torch.cat([tensor, tensor]))


def _rows(inputs: Any, start: int, stop: int) -> Any:
    return _mapped(inputs, lambda tensor: tensor[start:stop])


def _mapped(inputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, dict):
        return {name: _mapped(part, change) for name, part in inputs.items()}
    return type(inputs)(_mapped(part, change) for part in inputs)


def _tensors(inputs: Any) -> list[Tensor]:
    if isinstance(inputs, Tensor) and inputs.ndim:
        return [inputs]
    parts = inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, list | tuple) else []
    found = [tensor for part in parts for tensor in _tensors(part)]
    if not found:
        raise UsageError(f"a model's inputs are tensors with one row an example, not {_kind(inputs)}")
    return found


def _kind(value: object) -> str:
    return type(value).__name__
