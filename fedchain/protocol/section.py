"""What every section of a charter has in common."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

_LONG_KEY = re.compile(rb"(?:[^\s.,\[\]]{1,100}[ \t]*\.[ \t]*){32}")
"""A dotted key of a thousand parts makes TOML's parser remember a million."""


MOST = 1e30
"""No setting of a training is larger: float32 ends at 3.4e38, and what is multiplied by it must stay below."""


def _at_most(number: float) -> float:
    if not 0 <= number <= MOST:
        raise ValueError(f"must be a number from 0 to {MOST:g}")
    return number


def _usable(number: float) -> float:
    if not 1 / MOST <= number <= MOST:
        raise ValueError(f"must be a number from {1 / MOST:g} to {MOST:g}")
    return number


Bounded = Annotated[float, AfterValidator(_at_most)]
"""A number that what is learned is multiplied with."""

Positive = Annotated[float, AfterValidator(_usable)]
"""One that it is divided by, too."""


class Section(BaseModel):
    """Entries of a charter. Strict, and no inf or nan: `rounds = true`, `"3"` or `clip_value = inf` are slips, and none
    may become a number; nor may a misspelt entry fall back to a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def checked_toml(content: bytes, most_bytes: int) -> str:
    """The text of a TOML file that its parser may be given. Raises ValueError."""
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes} bytes")
    if _LONG_KEY.search(content):
        raise ValueError("it has a key of more than 32 parts")
    return content.decode("utf-8")


def first_slip(error: ValidationError) -> str:
    """The first thing that is wrong, as one line: the entry's name, a colon, and what is wrong with it.

    A misspelt entry goes first: it is often why another is missing.
    """
    slips = error.errors()
    first = next((slip for slip in slips if slip["type"] == "extra_forbidden"), slips[0])
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "no such entry"
    return f"{where}: {message}"
