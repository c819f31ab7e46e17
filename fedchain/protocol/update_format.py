"""How an update's integers stand in the coefficients that are encrypted: a function of charter and model size alone.

Every peer and auditor works it out, and so does whoever deploys: the contract's term `modelSize` follows from it. A
coefficient is an integer below 2^44, and a sum of coefficients must not carry from one value into the next. So values
stand in it as digits of a number: v_0 + v_1·R + v_2·R² + …, where the radix R is one more than the largest sum that
`members` values can have, and as many digits are taken as fit. Whole bits would waste most of one in each value: for
4 bits and 5 members R is 71, which is seven values a coefficient against six fields of seven bits.

The contract counts an object's leaves by its term `modelSize`, two of it a coefficient (`scheme.leaves_of`).
`model_size_of` gives that term; it is the number of parameters, made even, only where two values fit a coefficient.

Where the charter asks for noise (`noising`), the noise says how much room a value needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .charter import Charter, Update
from .ids import MAX_MEMBERS
from .masking import EVERYWHERE, Places, places_of, sent_of
from .model import model_bytes_bound
from .noising import Noise, noise_of
from .parts import parts_of
from .rotation import block_of
from .scheme import PLAIN_MODULUS, coefficients_of

AUTO_FIELDS = 6
"""How many values "auto" puts in a coefficient where it can: 6.75 bytes for six, 1.125 a parameter."""

AUTO_STEPS = 3
"""The fewest steps to either side of zero that "auto" takes: 3 bits, below which accuracy suffers first."""

MAX_FIELDS = 15
"""The most values that any charter can put in a coefficient: 2 bits (one step to either side) for three members."""


@dataclass(frozen=True, slots=True)
class UpdateFormat:
    """The format of one federation's updates.

    `size` is d, the model's parameters; `sent` of them are in an update. At most `members` updates are ever summed. A
    value is 0 to 2·`steps`, and `steps` stands for zero. `block` is how many values are rotated together, 1 for none.
    `noise` is what a private federation's values carry.
    """

    size: int
    sent: int
    members: int
    steps: int
    block: int
    settings: Update
    noise: Noise | None = None

    @property
    def step(self) -> float:
        """What one unit of a value is worth: clip_value / steps, or what the noise makes it."""
        return self.settings.clip_value / self.steps if self.noise is None else self.noise.unit

    @property
    def radix(self) -> int:
        """R: one more than the largest sum that `members` values can have."""
        return 2 * self.steps * self.members + 1

    @property
    def fields(self) -> int:
        """How many values stand in one coefficient."""
        return fields_of(self.radix)

    @property
    def values(self) -> int:
        """How many values an update has: what is sent, filled up to whole blocks where it is rotated."""
        return -(-self.sent // self.block) * self.block

    @property
    def coefficients(self) -> int:
        """How many coefficients an update takes; the last is filled up with zeros."""
        return -(-self.values // self.fields)

    @property
    def model_size(self) -> int:
        """The contract's term `modelSize`: two a coefficient, whatever a coefficient holds."""
        return 2 * self.coefficients

    def places(self, rotation: bytes) -> Places:
        """Which of the model's parameters an attempt sends, by its rotation seed; all where there is no mask."""
        return EVERYWHERE if self.sent == self.size else places_of(rotation, self.size, self.sent)


def update_format(charter: Charter, size: int) -> UpdateFormat:
    """The format of updates of a model of `size` parameters under this charter."""
    members, bits = charter.members_max, charter.update.bits
    sent = sent_of(size, charter.update.mask)
    block = block_of(sent) if charter.update.rotate else 1
    noise = noise_of(charter, -(-sent // block) * block)
    if noise is not None:
        return UpdateFormat(size, sent, members, _roomy_steps(noise, members), block, charter.update, noise)
    steps = auto_steps(members) if bits == "auto" else (1 << (bits - 1)) - 1
    return UpdateFormat(size, sent, members, steps, block, charter.update)


def model_size_of(charter: Charter, size: int) -> int:
    """What the contract's term `modelSize` must be for a model of `size` parameters under this charter."""
    return update_format(charter, size).model_size


def fetched_model_bound(model_size: int, charter: Charter | None) -> int:
    """The most bytes that a model can have under a contract with this `modelSize`: what to allow when fetching one.

    Where no charter is to be had, it is taken to mask nothing: nobody needs such a model to compute with.
    """
    values = MAX_FIELDS * coefficients_of(model_size)
    return model_bytes_bound(values if charter is None else ceil(values / charter.update.mask))


def fields_of(radix: int) -> int:
    """The most digits that every number of so many digits stays below 2^44 with."""
    fields = 0
    while radix ** (fields + 1) <= PLAIN_MODULUS:
        fields += 1
    return fields


def auto_steps(members: int) -> int:
    """What `bits = "auto"` stands for: the finest steps with which six values fit a coefficient, or fewer values where
    that would leave less than three steps to either side."""
    fields = AUTO_FIELDS
    while (steps := _most_steps(members, fields)) < AUTO_STEPS:
        fields -= 1
    return steps


def join_values(values: NDArray[np.int64], form: UpdateFormat) -> NDArray[np.uint64]:
    """The coefficients of one update, (form.coefficients,) uint64, from its values, (form.values,) in [0, 2·steps].

    Anything else is our bug: a value that overflows would run into its neighbour without a trace.
    """
    if values.shape != (form.values,):
        raise ValueError(f"an update of this federation has {form.values} values, not {values.shape}")
    if values.min() < 0 or values.max() > 2 * form.steps:
        raise ValueError(f"update values are integers from 0 to {2 * form.steps}; quantise with clipping first")
    # One row a digit: value i is digit ⌊i / coefficients⌋ of coefficient i mod coefficients, so that rows are slices.
    coefficients = np.zeros(form.coefficients, dtype=np.uint64)
    for digit in range(form.fields - 1, -1, -1):
        row = values[digit * form.coefficients : (digit + 1) * form.coefficients]
        coefficients *= np.uint64(form.radix)
        coefficients[: row.size] += row.view(np.uint64)
    return coefficients


def split_sums(coefficients: NDArray[np.uint64], form: UpdateFormat) -> NDArray[np.int64]:
    """The values' sums, (form.values,) int64, from the sums of at most `form.members` updates' coefficients.

    The last digit takes what is left, so that a sum which no honest members can give is out of range there.
    """
    if coefficients.shape != (form.coefficients,):
        raise ValueError(f"an update of this federation has {form.coefficients} coefficients, not {coefficients.shape}")
    sums = np.empty((form.fields, form.coefficients), dtype=np.int64)
    radix = np.uint64(form.radix)
    for some in parts_of(form.coefficients):
        rest = coefficients[some].astype(np.uint64)
        for row in sums[:-1, some]:
            quotient = rest // radix
            row[:] = rest - quotient * radix
            rest = quotient
        sums[-1, some] = rest
    return sums.reshape(-1)[: form.values]


def check_members(charter: Charter, members: int) -> None:
    """Raise UsageError if so many members are more than the sums of this charter's updates have room for."""
    if members > charter.members_max:
        raise UsageError(
            f"the charter's sums have room for {charter.members_max} members (update.members_max), not for {members};"
            f" found the federation with a larger one, at most {MAX_MEMBERS}"
        )


def _roomy_steps(noise: Noise, members: int) -> int:
    """The steps to either side for noisy values: as many values in a coefficient as the noise allows, and what is then
    left over as room for what it hides."""
    fields = fields_of(2 * noise.least_room * members + 1)
    if not fields:
        raise UsageError(
            f"the noise of {members} members needs more than a coefficient's 44 bits; a larger privacy.epsilon, fewer"
            " rounds, or a smaller update.members_max, need less"
        )
    return _most_steps(members, fields)


def _most_steps(members: int, fields: int) -> int:
    """The most steps to either side with which so many values of so many members fit a coefficient."""
    radix, beyond = 1, PLAIN_MODULUS + 1
    while beyond - radix > 1:
        middle = (radix + beyond) // 2
        radix, beyond = (middle, beyond) if middle**fields <= PLAIN_MODULUS else (radix, middle)
    return (radix - 1) // (2 * members)
