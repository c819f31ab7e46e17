"""The audit of a run whose updates are masked: it draws the mask itself, and believes nobody's."""

from __future__ import annotations

import numpy as np
import pytest
from audit_play import LAYOUT, Play, charter_of
from numpy.typing import NDArray

from fedchain.audit.models import fetch_model, model_on_chain
from fedchain.crypto import Opened
from fedchain.protocol.ids import Digest
from fedchain.protocol.masking import places_of
from fedchain.protocol.model import assemble, flatten, layout_of
from fedchain.protocol.rotation import rotation_seed

MASKED = charter_of(update={"mask": 0.1}, outer={"learning_rate": 0.5})
SENT = LAYOUT.size // 10


def sent_in(play: Play, number: int) -> list[int]:
    return places_of(play.context(number).rotation_seed, LAYOUT.size, SENT).tolist()


def model_of(play: Play, number: int) -> NDArray[np.float32]:
    """The model that a round starts from."""
    return flatten(play.store.served[play.state.base_model(number)[1]])


@pytest.fixture(scope="module")
def masked() -> Play:
    return Play(rounds=2, charter=MASKED).run()


def test_an_honest_masked_run_passes_and_moves_what_was_sent(masked: Play) -> None:
    report = masked.audit()
    assert report.verdict == "ok", report.faults
    for number in (1, 2):
        base, model = (model_of(masked, n) for n in (number, number + 1))
        assert set(np.flatnonzero(base != model)) <= set(sent_in(masked, number))
        assert np.count_nonzero(base != model) > SENT / 2, "a mean may be 0"


def test_a_stranger_fetches_a_model_larger_than_what_is_sent_of_it(masked: Play) -> None:
    newest = model_on_chain(masked.state, masked.chain.now())
    assert fetch_model(masked.state, masked.store, newest) == masked.store.served[newest.cid]


@pytest.mark.parametrize("lie", ["a coordinate that nobody sent", "another attempt's mask"])
def test_a_closer_that_moves_what_was_not_sent_is_named(lie: str) -> None:
    class Meddler(Play):
        def next_model(self, number: int, opened: Opened) -> bytes:
            model = super().next_model(number, opened)
            if number != 2:
                return model
            base, values = model_of(self, 2), flatten(model)
            mine = sent_in(self, 2)
            if lie == "a coordinate that nobody sent":
                changed = values.copy()
                changed[min(set(range(LAYOUT.size)) - set(mine))] += np.float32(1e-4)
            else:
                changed = base.copy()
                seed = rotation_seed(2, 1, Digest(self.state.base_model(2)[0]))
                changed[places_of(seed, LAYOUT.size, SENT)] += (values - base)[mine]
            return assemble(layout_of(model), changed)

    play = Meddler(rounds=2, charter=MASKED).run()
    closed = play.state.closed[2].result
    assert closed is not None
    faults = {(fault.check, fault.round, fault.offender) for fault in play.audit().faults}
    assert faults == {("10 model", 2, play.members[closed.index])}
