"""The council's code at its own address, where nobody's storage is: it decides nothing there, and takes no money."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Found = Callable[..., Any]
Refuses = Callable[..., Any]
KINDS = range(5)
WORD, ZERO = b"\x01" * 32, bytes(32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_council_by_itself_hears_no_demand(found: Found, refuses: Refuses, kind: int) -> None:
    """Its deposit is 0 there, so that a demand could be paid; there is nothing on record that could be demanded."""
    federation = found(5).all_enrol().finish_round()
    council = federation.call("council")
    for word in (WORD, ZERO):
        data = federation.encode("demandPage", (kind, 0, 1, 0, 0, 0, 0, word), [])
        with refuses("FederationNoStatement"):
            federation.transact(federation.founders[0], data, to=council)
        with refuses("FederationWrongDeposit", 0, 1):
            federation.transact(federation.founders[0], data, to=council, value=1)


def test_the_council_by_itself_takes_no_money(found: Found) -> None:
    federation = found(5).all_enrol()
    council = federation.call("council")
    with pytest.raises(federation.chain.Error):
        federation.transact(federation.founders[0], "0x", to=council, value=1)
    assert int(federation.chain.rpc("eth_getBalance", council, "latest"), 16) == 0
