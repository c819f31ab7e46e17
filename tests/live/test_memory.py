"""A peer's memory is bounded whatever the members and the model: real nodes in processes of their own, measured.

10,000,000 parameters and 20 members keep to 1 GiB, and the peak does not grow with the members, of each of whom a sum,
or the receipts, could hold an update.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

BENCH = Path(__file__).parents[2] / "bench" / "memory.py"
MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture(scope="module")
def bench() -> Any:
    return load_script(BENCH, "bench_memory")


@pytest.mark.slow
def test_a_peers_peak_does_not_grow_with_the_members(bench: Any) -> None:
    """Twelve members' ciphertexts are nine times three quarters of a model more than three members'."""
    parameters = 2_000_000
    sixteen_bits = ["update.bits=16", "update.rotate=false"]
    few, many = (bench.measure(parameters, members, sixteen_bits, ("peer",))["peer"] for members in (3, 12))
    one_ciphertext = parameters // 2 * 54 // 8
    for step in ("in receipts", "in aggregating", "in closing", "receipt", "aggregate", "close"):
        assert many[step] < few[step] + 4 * one_ciphertext, (step, few[step] // MIB, many[step] // MIB)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("charter", ["as it is by default", "SCAFFOLD, FedAdam", "private records"])
def test_no_role_of_a_peer_takes_more_than_a_gibibyte(bench: Any, charter: str) -> None:
    peaks = bench.measure(10_000_000, 20, bench.CHARTERS[charter], bench.ROLES)
    over = {
        (role, step): size // MIB
        for role, steps in peaks.items()
        if role in bench.ROLES
        for step, size in steps.items()
        if size > GIB
    }
    assert over == {}
    assert peaks["peer"]["train"] > 300 * MIB, "a peer with torch and a model takes more than nothing"
