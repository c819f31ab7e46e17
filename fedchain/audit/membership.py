"""Check 2 on the log: who may enrol, leave and register a key, whom members voted in and out; and check 12 on bonds
that are taken back (P0)."""

from __future__ import annotations

from ..protocol.disputes import Refused
from ..protocol.events import (
    BondWithdrawn,
    EncryptionKeyRotated,
    FederationFounded,
    MemberAdmitted,
    MemberEnrolled,
    MemberLeaving,
)
from ..protocol.ids import MAX_MEMBERS
from ..protocol.phase import Phase, bond_free_at, is_finished, phase_of, start_of_run
from ..protocol.state import FederationState
from .docket import Docket, name_of
from .ledger import FEDERATION

Coming = MemberEnrolled | MemberAdmitted | MemberLeaving | EncryptionKeyRotated | BondWithdrawn
"""What changes who takes part."""


def check_founding(event: FederationFounded, docket: Docket) -> None:
    """Checks 1 and 2, the beginning: as many founders as there may be, all different, and a threshold they allow."""
    n, t = len(event.founders), event.terms.threshold
    if not 3 <= n <= MAX_MEMBERS:
        docket.fault(FEDERATION, 2, f"3 to {MAX_MEMBERS} founders", str(n))
    if len({f.lower() for f in event.founders}) != n:
        docket.fault(FEDERATION, 2, "founders that differ", "an address that stands twice")
    if not n // 2 + 1 <= t <= n - 1:
        docket.fault(FEDERATION, 1, f"a threshold of {n // 2 + 1} to {n - 1}", str(t))


def judge_membership(state: FederationState, event: Coming, docket: Docket, *, due: bool) -> bool:
    """Write down what is wrong; whether the event changes the state. `due`: votes demanded it."""
    match event:
        case MemberEnrolled():
            return _judge_enrolment(state, event, docket)
        case MemberAdmitted():
            if not due:
                docket.fault(FEDERATION, 2, "who is admitted by t votes", f"{event.member}, without them")
            return True
        case MemberLeaving():
            return _judge_leaving(state, event, docket, due=due)
        case EncryptionKeyRotated():
            return _judge_rotation(state, event, docket)
        case BondWithdrawn():
            return _judge_withdrawal(state, event, docket)


def _judge_enrolment(state: FederationState, event: MemberEnrolled, docket: Docket) -> bool:
    def fault(expected: str, got: str) -> None:
        docket.fault(FEDERATION, 2, expected, got, event.member)

    if not 0 <= event.index < len(state.accounts) or event.member.lower() != state.accounts[event.index].lower():
        fault(f"{name_of(state, event.index)} at place {event.index}", f"{event.member}, no member of that place")
        return False
    if state.bonded >> event.index & 1:
        fault("one enrolment a member", "a second one")
        return False
    if state.slashed >> event.index & 1:
        fault("no enrolment of a slashed member", f"one at {event.at}")
        return False
    if start_of_run(state, event.at) is not None and not state.admitted >> event.index & 1:
        fault("enrolment before the run began, or by vote", f"one at {event.at}")
        return False
    if is_finished(state, event.at):
        fault("enrolment while the run goes on", f"one at {event.at}")
    if not _is_key(event.encryption_key):
        fault("an X25519 key of 32 bytes", event.encryption_key.hex() or "none")
    cap = docket.charter.update.weight_cap if docket.charter else 0
    if not 1 <= event.weight < 2**32 or (cap and event.weight > cap):
        fault(f"a weight of 1 to {cap or 2**32 - 1} (update.weight_cap)", str(event.weight))
    if len(event.encryption_key) != 32 or event.weight < 1:
        # Without a key nobody can deal to it, without a weight there is no average: no such enrolment can stand.
        return False
    docket.paid_in_wei += state.terms.bond_wei
    docket.keys[event.index] = docket.keys.get(event.index, 0) + 1
    return True


def _judge_leaving(state: FederationState, event: MemberLeaving, docket: Docket, *, due: bool) -> bool:
    if event.removed:
        if not due:
            docket.fault(FEDERATION, 2, "who is removed by t votes", f"{name_of(state, event.index)}, without them")
        return True
    try:
        _check_speaks(state, event.index, event.at)
        if state.leaving >> event.index & 1:
            raise Refused("FederationAlreadyLeaving")
    except Refused as refused:
        expected = "a member that counts, and resigns once, while the run goes on"
        docket.fault(FEDERATION, 2, expected, f"a resignation ({refused.error_name})", name_of(state, event.index))
        return False
    return True


def _judge_rotation(state: FederationState, event: EncryptionKeyRotated, docket: Docket) -> bool:
    try:
        _check_speaks(state, event.index, event.at)
        if not _is_key(event.encryption_key):
            raise Refused("FederationBadEncryptionKey")
    except Refused as refused:
        expected = "another X25519 key of a member that counts, while the run goes on"
        docket.fault(FEDERATION, 2, expected, f"one at {event.at} ({refused.error_name})", name_of(state, event.index))
        return False
    docket.keys[event.index] = docket.keys.get(event.index, 0) + 1
    return True


def _judge_withdrawal(state: FederationState, event: BondWithdrawn, docket: Docket) -> bool:
    def fault(expected: str, got: str) -> None:
        docket.fault(FEDERATION, 12, expected, got, name_of(state, event.index))

    if event.index not in state.members:
        fault("a bond taken back by an enrolled member", "one by nobody who had paid it")
        return False
    if state.slashed >> event.index & 1:
        fault("no bond for a slashed member", "one taken back")
        return False
    if not state.bonded >> event.index & 1:
        fault("each bond taken back once", "a second time")
        return False
    bond = state.bond_of(event.index)
    if event.amount_wei != bond:
        strikes = state.strikes.get(event.index, 0)
        fault(f"a bond of {bond} wei, {strikes} strikes taken off", f"{event.amount_wei} wei")
    free = bond_free_at(state, event.index, event.at)
    if free is None or event.at < free:
        fault(f"a bond held until {free if free is not None else 'the run is over'}", f"taken back at {event.at}")
    docket.paid_out_wei += event.amount_wei
    docket.burnt_wei += state.terms.bond_wei - event.amount_wei
    return True


def _check_speaks(state: FederationState, index: int, at: int) -> None:
    """Raise Refused unless the member is heard in a run that goes on. Twin: _memberOfARunThatGoesOn()."""
    if not state.heard >> index & 1:
        raise Refused("FederationSlashed" if state.slashed >> index & 1 else "FederationNotMember")
    phase = phase_of(state, state.round, at)
    if phase in (Phase.ENROLLING, Phase.FINISHED):
        raise Refused("FederationWrongPhase", phase.name.lower())


def _is_key(key: bytes) -> bool:
    return len(key) == 32 and any(key)
