"""The watchtower on a real contract: a wrong result whose object its author keeps back falls, shown or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onchain_play import OnChainPlay

from fedchain.audit import audit
from fedchain.audit.accuser import Accuser
from fedchain.audit.watchtower import Watchtower
from fedchain.crypto import Result, show_result
from fedchain.crypto.parameters import PLAIN_MODULUS
from fedchain.protocol.actions import ShowPage
from fedchain.protocol.cid import cid_of
from fedchain.protocol.evidence import NO_ROOT
from fedchain.protocol.ids import Index
from fedchain.protocol.pages import Kind

LIAR = Index(3)
ANSWER_S = 125
WINDOWS = {"training_s": 3600, "receipt_s": 3600, "aggregate_s": 3600}


class Lying(OnChainPlay):
    """Five members on a real contract. One of them closes the round with a wrong result, and stores no object."""

    lie: Result | None = None

    def close(self, number: int) -> None:
        self.honest = self.result(number)
        right = self.opened(number).result
        coefficients = right.coefficients.copy()
        coefficients[5, 9] = (coefficients[5, 9] + 1) % PLAIN_MODULUS
        self.lie = replace(right, coefficients=coefficients)
        cid = cid_of(self.lie.pack())
        self.say(replace(self.honest, index=LIAR, result_root=self.lie.root(), result_cid=cid))

    def shows(self) -> None:
        """The liar shows what is demanded of it."""
        assert self.lie is not None
        for demand in self.state.demands.values():
            if demand.open:
                self.send(LIAR, ShowPage(demand.page, NO_ROOT, show_result(demand.page, self.lie)))


@pytest.fixture
def lying(chain: Any) -> Lying:
    played = Lying(chain.url, [bytes.fromhex(key[2:]) for key in chain.keys[:5]], rounds=1, windows=WINDOWS)
    played.run()
    return played


@pytest.mark.parametrize(("pages", "rule"), [(2, 3), (1, 6)], ids=["shown", "kept back"])
def test_a_wrong_result_that_is_kept_back_is_brought_down_by_a_stranger(
    lying: Lying, chain: Any, tmp_path: Path, pages: int, rule: int
) -> None:
    told: list[str] = []
    stranger = lying.sender(bytes.fromhex(chain.keys[9][2:]))
    reader = lying.reader()
    tower, accuser = Watchtower(reader, lying.store, tmp_path), Accuser(reader, stranger, told.append)
    for step in range(pages):
        accuser.act(tower.look())
        if step < pages - 1 or rule == 3:
            lying.shows()
    if rule == 6:
        accuser.act(tower.look())
        assert lying.state.closed, "it waits for the deadline"
        chain.mine_at(chain.now + ANSWER_S)
    accuser.act(tower.look())

    state = lying.state
    assert not state.closed and state.slashed == 1 << LIAR
    levels = [demand.page.level for demand in state.demands.values()]
    assert levels == [3, 0][:pages]
    assert all(demand.page.kind is Kind.RESULT for demand in state.demands.values())
    lying.say(lying.honest)
    report = audit(lying.reader(), lying.store)
    assert report.faults == () and report.complete
    (fallen,) = report.refutations
    assert fallen.slash is not None and (fallen.slash.rule, fallen.slash.challenger) == (rule, stranger.address)
    assert (fallen.by, fallen.right) == ("challenge" if rule == 3 else "silence", False)
    # Every coin that the contract holds is accounted for.
    assert report.money.balance == report.money.held
    deposit = state.terms.deposit_wei
    assert state.rewards[stranger.address] == state.terms.bond_wei // 2 + (deposit if rule == 6 else 0)
    assert state.rewards.get(lying.members[LIAR], 0) == (2 * deposit if rule == 3 else 0)
