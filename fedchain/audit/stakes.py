"""Check 12, the whole of it: what the contract must hold, and where each member stands in the end."""

from __future__ import annotations

from ..protocol.ids import Index, size_of
from ..protocol.state import FederationState
from .docket import Docket
from .ledger import FEDERATION, Ledger
from .report import Membership, Money, Standing


def check_money(state: FederationState, docket: Docket, balance: int | None, ledger: Ledger) -> Money:
    """Check 12: every coin that came in is a bond, a deposit, a reward, or burnt; and it is there.

    `balance` is what the contract holds, in wei; None where nobody can tell. Anybody can force coins on a contract:
    that it holds more is no fault.
    """
    money = Money(
        bonds=size_of(state.bonded) * state.terms.bond_wei,
        deposits=sum(demand.open for demand in state.demands.values()) * state.terms.deposit_wei,
        rewards=sum(state.rewards.values()),
        burnt=docket.burnt_wei,
        balance=balance,
    )
    left = docket.paid_in_wei - docket.paid_out_wei
    if left != money.held:
        expected = f"{left} wei, what was paid in less what was paid out"
        docket.fault(FEDERATION, 12, expected, f"{money.held} wei of bonds, deposits, rewards and what was burnt")
    if balance is not None and balance < money.held:
        docket.fault(FEDERATION, 12, f"{money.held} wei in the contract", f"{balance} wei")
    if balance is not None and balance > money.held:
        ledger.note(FEDERATION, 12, f"{balance - money.held} wei more in the contract than were paid in")
    return money


def membership_of(state: FederationState, index: Index, docket: Docket) -> Membership:
    """One account as the report tells it."""
    member = state.members.get(index)
    return Membership(
        index=index,
        address=state.accounts[index],
        enrolled=member is not None,
        weight=member.weight if member else 0,
        founder=index < len(state.founders),
        standing=_standing(state, index),
        strikes=state.strikes.get(index, 0),
        keys=docket.keys.get(index, 0),
    )


def _standing(state: FederationState, index: Index) -> Standing:
    places: tuple[tuple[int, Standing], ...] = (
        (state.slashed, "slashed"),
        (state.leaving, "leaving"),
        (state.standing, "counts"),
        (state.joining, "joining"),
        (state.admitted, "admitted"),
        (state.removed, "removed"),
    )
    for members, standing in places:
        if members >> index & 1:
            return standing
    return "left" if index in state.left_at else "not enrolled"
