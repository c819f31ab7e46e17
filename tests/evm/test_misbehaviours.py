"""Every misbehaviour of one member among real peers on a real contract (`tests/misbehave.py` has the catalogue).

Each time: the round closes with exactly the model of its participants' plaintext updates, computed here; who misbehaves
is named by peers, contract and audit as the catalogue says; and nobody else is blamed by anyone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_step import Ground
from misbehave import MISBEHAVIOURS
from misbehaviours.verdict import check_outcome, played

from fedchain.protocol.cid import cid_of

ALIKE = {
    "commitment-for-another-round",
    "copied-upload",
    "demand-of-the-honest",
    "early-opening",
    "empty-store",
    "garbage-opening",
    "hidden-sum",
    "late-commitment",
    "model-stored-otherwise",
    "nan-model",
    "opening-stored-otherwise",
    "other-basis",
    "other-seed",
    "receipt-for-nobody",
    "replayed-commitment",
    "set-of-two",
    "silent-closer",
    "silent-opener",
    "silent-sum",
    "stale-place",
    "sum-out-of-range",
    "sum-stored-nowhere",
    "sum-with-one-twice",
    "two-commitments",
    "unopened-openers",
    "vote-against-a-set",
    "withheld-opening",
    "withheld-result",
    "wrong-key-sum",
    "wrong-weights",
}
"""Those whose like is tried anyhow: for the long suite."""

assert MISBEHAVIOURS.keys() >= ALIKE


def cases() -> list[Any]:
    """Every misbehaviour that one bent peer can do."""
    marks = {name: [pytest.mark.slow] for name in ALIKE}
    return [pytest.param(name, marks=marks.get(name, [])) for name, it in MISBEHAVIOURS.items() if not it.staged]


@pytest.fixture(scope="module")
def ground(anvil: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    before = anvil.remember()
    ground = Ground(anvil, tmp_path_factory.mktemp("ground"), settings=("windows.close_s=28800",))
    ground.enrol()
    ground.keep()
    yield ground
    anvil.take_back(before)


@pytest.mark.parametrize("name", cases())
def test_a_round_closes_rightly_and_only_who_misbehaves_is_blamed(ground: Ground, tmp_path: Path, name: str) -> None:
    it = MISBEHAVIOURS[name]
    check_outcome(played(ground, tmp_path, it), it)


def test_every_peer_keeps_the_model_and_pins_nothing_else_that_its_closer_names(ground: Ground, tmp_path: Path) -> None:
    """What a closer names beside the right digest may be of any size."""
    federation = played(ground, tmp_path, MISBEHAVIOURS["model-stored-otherwise"])
    result = federation.state.closed[1].result
    assert result is not None
    right, deadline = cid_of(federation.expected_model(1)), time.monotonic() + 20
    while right not in federation.objects and time.monotonic() < deadline:
        time.sleep(0.01)
    assert right in federation.objects and right != result.model_cid
    assert federation.pinned and result.model_cid not in federation.pinned
