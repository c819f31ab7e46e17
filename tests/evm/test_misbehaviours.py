"""Every misbehaviour of one member among real peers on a real contract (`tests/misbehave.py` has the catalogue).

Each time: the round closes with exactly the model of its participants' plaintext updates, computed here; who misbehaves
is named by peers, contract and audit as the catalogue says; and nobody else is blamed by anyone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_step import Ground
from misbehave import MISBEHAVIOURS
from misbehaviours.verdict import check_outcome, played


@pytest.fixture(scope="module")
def ground(anvil: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    before = anvil.rpc("evm_snapshot")
    ground = Ground(anvil, tmp_path_factory.mktemp("ground"))
    ground.enrol()
    ground.keep()
    yield ground
    anvil.rpc("evm_revert", before)


@pytest.mark.parametrize("name", [name for name, it in MISBEHAVIOURS.items() if not it.staged])
def test_a_round_closes_rightly_and_only_who_misbehaves_is_blamed(ground: Ground, tmp_path: Path, name: str) -> None:
    it = MISBEHAVIOURS[name]
    check_outcome(played(ground, tmp_path, it), it)
