"""A federation in memory: the same training, integers, sums and steps as the real one, with no chain, store or key.

For long experiments. The encryption adds and takes away nothing: sums are exact. So with the same charter, data and
seed a real run ends with the very same model (tests/pure/test_determinism.py), unless the charter lets the clock decide
on the number of steps, or asks for noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..learn import Machine, Task, TrainResult, first_model, local_data_of, private_gradient, train_locally
from ..protocol.arithmetic import weight_of
from ..protocol.charter import Charter
from ..protocol.ids import Index
from ..protocol.model import model_digest
from ..protocol.outer import model_of_sum, update_size_of
from ..protocol.rotation import rotation_seed
from ..protocol.seeds import seed_for
from ..protocol.update_format import check_members, join_values, update_format
from .contribution import values_of, with_own_noise


@dataclass(frozen=True, slots=True)
class SimulatedRound:
    """One round: the stored model that came of it, what every member kept, the local steps of each that was there."""

    round: int
    model: bytes
    kept: tuple[bytes | None, ...]
    steps: tuple[int, ...]


def simulate(
    charter: Charter,
    task: Task,
    *,
    members: int,
    rounds: int | None = None,
    speeds: Sequence[float] | None = None,
    absent: Sequence[int] = (),
    base: bytes | None = None,
    kept: Sequence[bytes | None] | None = None,
    first: int = 1,
    machine: Machine = Machine(),
) -> Iterator[SimulatedRound]:
    """Play the charter's rounds with so many members, all but the `absent` in every sum.

    `speeds` are each member's steps in a second of pretended time, for charters with adaptive local steps and a
    `budget_s`; without it nobody's budget ends. `base` is the first model, the charter's own by default. A run that was
    broken off goes on, as if it had not been, with the last round's `base` and `kept` and the `first` round to play.
    Raises UsageError for more members than the charter's sums have room for.
    """
    check_members(charter, members)
    seed = charter.run.seed
    present = [i for i in range(members) if i not in absent]
    datas = [local_data_of(task, i, members, seed) for i in range(members)]
    weights = [weight_of(len(data.train), charter.update) for data in datas]
    base = first_model(task, charter) if base is None else base
    form = update_format(charter, update_size_of(base, charter))
    own: list[bytes | None] = list(kept) if kept is not None else [None] * members
    rate = charter.privacy.sampling_rate
    for round in range(first, (rounds or charter.run.rounds) + 1):
        coefficients = np.zeros(form.coefficients, dtype=np.uint64)
        rotation = rotation_seed(round, 0, model_digest(base))
        steps = []
        for i in present:
            if charter.privacy.mode == "records":
                step = private_gradient(task, base, datas[i], rate=rate, form=form, rotation=rotation, machine=machine)
                coefficients += join_values(with_own_noise(step.units, form), form)
                steps.append(1)
                continue
            place = {"member": i, "round": round, "attempt": 0}
            clock = _Pretended(speeds[i] if speeds is not None else math.inf)
            result: TrainResult = train_locally(
                task,
                base,
                charter.algorithm,
                datas[i],
                seed_for("training", seed, **place),
                progress=clock.step,
                machine=machine,
                budget_s=(charter.algorithm.budget_s or math.inf) if speeds is not None else math.inf,
                kept=own[i],
                sent=form.places(rotation),
                clock=clock,
            )
            own[i] = result.kept
            steps.append(result.steps)
            values = values_of(
                result.update, weights[i], max(weights), form, rotation, seed_for("rounding", seed, **place)
            )
            coefficients += join_values(values, form)
        base = model_of_sum(
            base,
            coefficients,
            charter=charter,
            weights={Index(i): weight for i, weight in enumerate(weights)},
            participants=[Index(i) for i in present],
            rotation=rotation,
        )
        yield SimulatedRound(round, base, tuple(own), tuple(steps))


class _Pretended:
    """A clock that only a member's steps move on: `speed` of them make a second."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._steps = 0

    def step(self, done: int, total: int) -> None:
        self._steps = done

    def __call__(self) -> float:
        return self._steps / self._speed
