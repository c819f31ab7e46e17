"""One model, the same data and seeds, three ways: federated through the protocol, centralised, and each alone.

The federated side is `lab.run`: real training, encryption, sums and decoding. Every way goes through the data as often
and starts from the same values. Needs everybody's data in one place, so it is for experiments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from ..learn import Examples, Task, fine_tune, first_model
from ..learn.baselines import passes_of, plainly_trained, pooled
from ..learn.training import loaded, metrics_of, reproducible
from ..protocol.charter import Charter
from ..protocol.model import layout_of
from ..protocol.outer import model_layout
from ..protocol.seeds import seed_for
from .leakage import membership_auc
from .run import Run, federate, with_invented_members

Watch = Callable[[str], None]
"""Called with what comes next, while a comparison is made."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way of training came to, on one seed.

    `test`: the task's metrics on the test data. `curve`: its main metric there before training, then after each round,
    or as many epochs. `own`: that metric on each judged member's own held-out data. `auc`: membership inference
    (`lab.leakage`). `seconds`: of training, of all members together.
    """

    test: Mapping[str, float]
    curve: tuple[float, ...]
    own: tuple[float, ...]
    auc: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What the whole run cost one member: seconds of training and of everything else, bytes to and from the store."""

    training_s: float
    protocol_s: float
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, slots=True)
class Trial:
    """The comparison on one seed. `tuned_own` and `tuned_test`: the federated model after each member trained it on
    for one more round's epochs on its own data, by member. `raw_bytes`: of everybody's training rows."""

    seed: int
    rounds: int
    samples: tuple[int, ...]
    federated: Outcome
    centralised: Outcome
    alone: tuple[Outcome, ...]
    tuned_own: tuple[float, ...]
    tuned_test: tuple[float, ...]
    costs: tuple[Cost, ...]
    raw_bytes: int
    model_digest: str


@dataclass(frozen=True, slots=True)
class Scale:
    """How it goes with so many members: the metric, the mean of each alone, and one member's mean cost of a round."""

    members: int
    rounds: int
    federated: float
    alone: float
    training_s: float
    protocol_s: float
    bytes_up: float
    bytes_down: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it. `charter` is the first trial's, with invented members; `parameters` the model's own size."""

    charter: Charter
    metric: str
    higher_is_better: bool
    parameters: int
    trials: tuple[Trial, ...]
    scales: tuple[Scale, ...]


def compare(
    charter: Charter,
    task: Task,
    *,
    members: int,
    seeds: Sequence[int],
    scale: Sequence[int] = (),
    start: Path | None = None,
    watch: Watch = lambda what: None,
) -> Comparison:
    """Compare the three ways on each seed with so many members, and the federation on the first seed with others.

    `start`: the weights that the charter begins with, where it names any (`learn.read_start`). Raises UsageError for a
    charter or task that does not work with that many members.
    """
    trials = [trial(_charter_for(charter, members, seed), task, start, watch) for seed in seeds]
    scales = [_scale(_charter_for(charter, count, seeds[0]), task, start, watch) for count in scale]
    first = _charter_for(charter, members, seeds[0])
    return Comparison(
        charter=first,
        metric=task.metric,
        higher_is_better=task.higher_is_better,
        parameters=model_layout(layout_of(first_model(task, first, start))).size,
        trials=tuple(trials),
        scales=tuple(scales),
    )


def trial(charter: Charter, task: Task, start: Path | None = None, watch: Watch = lambda what: None) -> Trial:
    """The three ways on one seed, for the members that the charter names."""
    members, algorithm, seed = len(charter.federation.members), charter.algorithm, charter.run.seed
    watch(f"seed {seed}: {members} members, federated")
    run = federate(charter, task, start=start)
    rounds, test = len(run.models) - 1, task.test_data()
    epochs = passes_of(charter, rounds)
    trained, held_out = [d.train for d in run.datas], [d.validation for d in run.datas]
    federated = _federated(task, run, trained, held_out)
    watch(f"seed {seed}: {members} members, federated, then fine-tuned by each")
    tuned = [
        fine_tune(
            task,
            run.models[-1],
            algorithm,
            data,
            seed_for("tuning", seed, member=i),
            epochs=algorithm.local_epochs,
            kept=run.kept[i][-1],
        )
        for i, data in enumerate(run.datas)
    ]
    own_models = [loaded(task, model)[0] for model in tuned]
    watch(f"seed {seed}: centralised")
    central = _baseline(task, run, pooled(trained), trained, held_out, epochs)
    alone = []
    for i, data in enumerate(run.datas):
        watch(f"seed {seed}: member {i} alone")
        alone.append(_baseline(task, run, data.train, [data.train], [data.validation], epochs))
    return Trial(
        seed=seed,
        rounds=rounds,
        samples=tuple(len(part) for part in trained),
        federated=federated,
        centralised=central,
        alone=tuple(alone),
        tuned_own=tuple(_value(task, m, part) for m, part in zip(own_models, held_out, strict=True)),
        tuned_test=tuple(_value(task, model, test) for model in own_models),
        costs=costs_of(run),
        raw_bytes=sum(_bytes_of(part) for part in trained),
        model_digest=run.state.model_digest.hex(),
    )


def costs_of(run: Run) -> tuple[Cost, ...]:
    """What a run cost each member, by its own meter and the time it held the turn."""
    costs = []
    for meter, busy in zip(run.meters, run.busy_s, strict=True):
        training = sum(entry["seconds"]["train"] for entry in meter)
        up, down = (sum(entry[name] for entry in meter) for name in ("upload_bytes", "download_bytes"))
        costs.append(Cost(training, max(0.0, busy - training), up, down))
    return tuple(costs)


def _modules(task: Task, run: Run, round: int) -> list[nn.Module]:
    """The model after a round: one for all; or one a member, where the charter keeps tensors local."""
    patterns, stored = run.charter.algorithm.local_tensors, run.models[round]
    if not patterns:
        return [loaded(task, stored)[0]]
    return [loaded(task, stored, local_tensors=patterns, kept=kept[round])[0] for kept in run.kept]


def _federated(task: Task, run: Run, trained: Sequence[Examples], held_out: Sequence[Examples]) -> Outcome:
    """What the federation came to; figures on the test data are means where every member has a model of its own."""
    test = task.test_data()
    curve = [fmean(_value(task, m, test) for m in _modules(task, run, r)) for r in range(len(run.models))]
    final = _modules(task, run, -1)
    metrics = [_metrics(task, model, test) for model in final]
    if len(final) == 1:
        auc = membership_auc(task, final[0], trained, held_out)
    else:
        pairs = zip(final, trained, held_out, strict=True)
        auc = fmean(membership_auc(task, model, [seen], [unseen]) for model, seen, unseen in pairs)
    return Outcome(
        test={name: fmean(m[name] for m in metrics) for name in metrics[0]},
        curve=tuple(curve),
        own=tuple(_value(task, final[i % len(final)], part) for i, part in enumerate(held_out)),
        auc=auc,
        seconds=sum(cost.training_s for cost in costs_of(run)),
    )


def _baseline(
    task: Task, run: Run, examples: Examples, trained: Sequence[Examples], held_out: Sequence[Examples], epochs: int
) -> Outcome:
    """One model trained plainly from the run's first one. Looking at it on the way is not counted as training."""
    algorithm, base, test = run.charter.algorithm, run.models[0], task.test_data()
    curve = [_value(task, loaded(task, base, local_tensors=algorithm.local_tensors)[0], test)]
    looked, every = 0.0, max(1, epochs // (len(run.models) - 1))

    def look(epoch: int, model: nn.Module) -> None:
        nonlocal looked
        began = time.perf_counter()
        if epoch % every == 0:
            curve.append(metrics_of(task, model, test)[task.metric])
        looked += time.perf_counter() - began

    began = time.perf_counter()
    model = plainly_trained(task, base, algorithm, examples, epochs, run.charter.run.seed, look=look)
    seconds = time.perf_counter() - began - looked
    return Outcome(
        test=_metrics(task, model, test),
        curve=tuple(curve),
        own=tuple(_value(task, model, part) for part in held_out),
        auc=membership_auc(task, model, trained, held_out),
        seconds=seconds,
    )


def _scale(charter: Charter, task: Task, start: Path | None, watch: Watch) -> Scale:
    members = len(charter.federation.members)
    watch(f"scaling: {members} members")
    run = federate(charter, task, start=start)
    rounds, test = len(run.models) - 1, task.test_data()
    algorithm, epochs = charter.algorithm, passes_of(charter, rounds)
    alone = [
        _value(task, plainly_trained(task, run.models[0], algorithm, d.train, epochs, charter.run.seed), test)
        for d in run.datas
    ]
    costs = costs_of(run)
    each = members * rounds
    return Scale(
        members=members,
        rounds=rounds,
        federated=fmean(_value(task, model, test) for model in _modules(task, run, -1)),
        alone=fmean(alone),
        training_s=sum(cost.training_s for cost in costs) / each,
        protocol_s=sum(cost.protocol_s for cost in costs) / each,
        bytes_up=sum(cost.bytes_up for cost in costs) / each,
        bytes_down=sum(cost.bytes_down for cost in costs) / each,
    )


def _charter_for(charter: Charter, members: int, seed: int) -> Charter:
    settings = [f"run.seed={seed}"]
    if members != len(charter.federation.members):
        # A threshold that was chosen for another number of members may be outside the rules for this one.
        settings.append("committee.threshold=0")
    return with_invented_members(charter.with_settings(settings), members)


def _metrics(task: Task, model: nn.Module, examples: Examples) -> dict[str, float]:
    with reproducible(0):
        return metrics_of(task, model, examples)


def _value(task: Task, model: nn.Module, examples: Examples) -> float:
    return _metrics(task, model, examples)[task.metric]


def _bytes_of(examples: Examples) -> int:
    """What a member's rows weigh: the bytes of their tensors; of the first row, times their number, of other sets."""
    if isinstance(examples, TensorDataset):
        return sum(tensor.nbytes for tensor in examples.tensors)
    return _weight(examples[0]) * len(examples)


def _weight(row: Any) -> int:
    if isinstance(row, torch.Tensor):
        return row.nbytes
    if isinstance(row, dict):
        return sum(_weight(part) for part in row.values())
    return sum(_weight(part) for part in row) if isinstance(row, list | tuple) else 8
