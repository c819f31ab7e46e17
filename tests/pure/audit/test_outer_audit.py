"""The state of an outer optimiser is part of the model: the auditor recomputes it too (checks 10 and 11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedchain.protocol.events import FederationFounded, ResultCommitted
from fedchain.protocol.ids import Index
from fedchain.protocol.model import assemble, flatten, layout_of, model_digest


@pytest.fixture(scope="module")
def adam(named: Any) -> Any:
    """Two honest rounds under FedAdam."""
    return named.Play(rounds=2, charter=named.charter_of(outer={"optimizer": "fedadam"})).run()


def changed(stored: bytes, at: int) -> bytes:
    """The same stored object with one value changed a little."""
    values = flatten(stored).copy()
    values[at] += 1e-3
    return assemble(layout_of(stored), values)


def test_an_honest_run_with_state_passes(adam: Any) -> None:
    report = adam.audit()
    assert report.verdict == "ok", report.faults
    assert len(report.rounds) == 2


def test_a_closer_that_changes_only_the_state_is_named(named: Any, adam: Any) -> None:
    play = adam.copy()
    result = play.event(ResultCommitted, round=2)
    wrong = changed(play.store.served[result.model_cid], -1)
    lying = {"model_digest": model_digest(wrong), "model_cid": play.store.put(wrong)}
    assert named.found(play.edited(ResultCommitted, lying, round=2).audit()) == {(10, 2, named.MEMBERS[result.index])}


def test_a_deployer_that_begins_with_momentum_is_named(named: Any, adam: Any) -> None:
    play = adam.copy()
    terms = play.event(FederationFounded).terms
    wrong = changed(play.store.served[terms.genesis_cid], named.LAYOUT.size)
    other = replace(terms, genesis_digest=model_digest(wrong), genesis_cid=play.store.put(wrong))
    report = play.edited(FederationFounded, {"terms": other}).audit()
    assert (11, 0, "the deployer") in named.found(report)
    assert any("the state that every run begins with" in fault.expected for fault in report.faults)


def test_a_first_model_without_the_charters_state_is_named(named: Any, honest: Any) -> None:
    charter = named.charter_of(outer={"optimizer": "fedavgm"})
    play = honest.copy()
    terms = play.event(FederationFounded).terms
    other = replace(terms, charter_digest=charter.digest(), charter_cid=play.store.put(charter.canonical()))
    report = play.edited(FederationFounded, {"terms": other}).audit()
    assert (11, 0, "the deployer") in named.found(report)
    assert Index(0) in play.state.members
