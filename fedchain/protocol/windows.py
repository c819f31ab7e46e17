"""The deadlines that a charter sets."""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from .section import Section


class Windows(Section):
    """Deadlines, in seconds of chain time. They are limits, not waits: a phase ends when all have spoken.

    A round that is not closed within `close_s` ends the run, so that no bond waits for ever.
    """

    enrol_s: int = Field(default=86_400, ge=1, lt=2**32)
    training_s: int = Field(default=3_600, ge=1, lt=2**32)
    receipt_s: int = Field(default=900, ge=1, lt=2**32)
    aggregate_s: int = Field(default=600, ge=1, lt=2**32)
    challenge_s: int = Field(default=86_400, ge=1, lt=2**32)
    close_s: int = Field(default=2_592_000, ge=1, lt=2**32)

    @model_validator(mode="after")
    def _time_to_close(self) -> Self:
        # Half of it must outlast a round in which somebody is late: peers then give up what is not closed (P5.14).
        least = 3 * (self.training_s + self.receipt_s + self.aggregate_s)
        if self.close_s < least:
            raise ValueError(
                f"close_s is {self.close_s}, but a round may take training, receipts and a turn: give it at least"
                f" three times as long, {least}"
            )
        return self
