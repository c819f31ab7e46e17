"""An honest federation has no faults, and the report says what was done."""

from __future__ import annotations

from typing import Any


def test_an_honest_run_has_no_faults(honest: Any) -> None:
    report = honest.audit()
    assert report.faults == ()
    assert report.verdict == "ok" and report.complete
