"""The charter's section on differential privacy, and what it demands of the others. What it costs: `privacy.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from .ids import MAX_MEMBERS
from .section import Bounded, Section

if TYPE_CHECKING:
    from .charter import Charter


class Privacy(Section):
    """Differential privacy of what the run makes known (docs/privacy.md): noise in every sum, and a budget for the run.

    "records" protects single examples, "clients" whole members. A record's gradient, or a member's update, is cut to
    the L2 norm `clip`; every member adds its part of the noise, so that the sum has `noise_multiplier` times that
    sensitivity, even with `dropouts` members missing and `colluders` who take their own parts off (left out: one fewer
    than the threshold). 0 as the multiplier: the least with which `run.rounds` rounds keep to (`epsilon`, `delta`).
    """

    mode: Literal["none", "records", "clients"] = "none"
    epsilon: float = Field(default=0.0, ge=0, le=1000)
    delta: float = Field(default=1e-5, gt=0, lt=0.1)
    clip: Bounded = 0.0
    noise_multiplier: float = Field(default=0.0, ge=0, le=1000)
    sampling_rate: float = Field(default=1.0, gt=0, le=1)
    dropouts: int = Field(default=0, ge=0, le=MAX_MEMBERS)
    colluders: int | None = Field(default=None, ge=0, le=MAX_MEMBERS)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mode == "none":
            if self.model_fields_set and self != Privacy():
                raise ValueError('without privacy.mode nothing is private; set mode = "records", or drop the rest')
            return self
        if not self.epsilon:
            raise ValueError("set privacy.epsilon, the budget of the whole run")
        if not self.clip:
            raise ValueError("set privacy.clip, the L2 norm that one record's gradient, or one update, is cut to")
        if 0 < self.noise_multiplier < 0.1:
            raise ValueError("a noise_multiplier below 0.1 protects nothing; 0 chooses one by epsilon and run.rounds")
        if self.mode == "clients" and self.sampling_rate != 1:
            raise ValueError(
                "who takes part is public on the chain: sampling members hides nothing; drop sampling_rate"
            )
        return self


def check_private(charter: Charter) -> None:
    """Raise ValueError where another section of the charter would undo, or has no meaning under, its privacy mode."""
    mode, algorithm = charter.privacy.mode, charter.algorithm
    if mode == "none":
        return
    if charter.run.target is not None:
        raise ValueError("with privacy.mode no votes may tell of members' own held-out data; drop run.target")
    if charter.update.bits != "auto":
        raise ValueError('with privacy.mode the noise decides how long a value is; set update.bits = "auto"')
    if charter.update.clip_norm:
        raise ValueError("with privacy.mode updates are cut to privacy.clip; drop update.clip_norm")
    if algorithm.name == "scaffold":
        raise ValueError(f"scaffold sends a second vector, which privacy.mode = {mode!r} has no noise for")
    if mode == "clients":
        return
    entries = algorithm.name, algorithm.local_steps, algorithm.sampling, algorithm.loss, algorithm.local_tensors
    if entries != ("fedavg", "fixed", "shuffled", "plain", ()):
        raise ValueError(
            'privacy.mode = "records" makes one gradient step a round, of all parameters, on records drawn alike:'
            " leave the entries of [algorithm] as they are by default"
        )
    if charter.outer.learning_rate is None:
        raise ValueError('privacy.mode = "records" makes one gradient step a round; set outer.learning_rate, its size')
