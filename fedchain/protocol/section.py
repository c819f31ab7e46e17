"""What every section of a charter has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Entries of a charter. Strict, and no inf or nan: `rounds = true`, `"3"` or `clip_value = inf` are slips, and none
    may become a number; nor may a misspelt entry fall back to a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
