"""Plays a misbehaviour among real peers (`in_step.py`), and holds what came of it to the catalogue."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from in_step import Federation, Ground, Peer

from fedchain.protocol.events import MemberSlashed, Motion, MotionVoted, SetAbandoned
from fedchain.protocol.ids import Index, members_of
from fedchain.protocol.state import Attempt

from .catalogue import MISBEHAVIOURS, Liar, Misbehaviour, replaced
from .doors import Slowness

SLOW_S = 240
"""How long a slow store takes for an object, in the chain's time."""


def played(ground: Ground, folder: Path, it: Misbehaviour) -> Federation:
    """A federation in which one member misbehaves like that, up to where all has come of it."""
    federation = Federation(ground, folder, absent=it.absent)
    for member, one in accomplices(it).items():
        peer = federation.peers[member]
        peer.bend = one.bend
        for door in ("store", "reader", "sender"):
            if getattr(one, door) is not None:
                setattr(peer, f"{door}_kind", getattr(one, door))
    return play(federation, it)


def play(federation: Federation, it: Misbehaviour) -> Federation:
    """Let it run until every honest peer has closed the round, and who must be slashed is."""
    Liar.begin(it.round)
    watcher, honest = federation.ground.reader(), honest_peers(federation, it)

    def all_came_of_it() -> bool:
        closed = all(closed_rounds(peer) >= it.round + it.settles for peer in honest)
        return closed and bool(watcher.refresh().slashed) == bool(it.expected.slashed)

    with replaced(Slowness, "wait", lambda: federation.pass_time(SLOW_S)), replaced(time, "time", time.time):
        if it.process is not None:
            it.process()
        federation.run(all_came_of_it)
    federation.contributed.update(Liar.contributed)
    return federation


def check_outcome(federation: Federation, it: Misbehaviour) -> None:
    """The round closed rightly; contract, audit and peers blame who misbehaves, as foretold, and nobody else."""
    check_models(federation)
    check_trace(federation, it)
    check_round(federation, it)
    check_chain(federation, it)
    check_audit(federation, it)
    check_peers(federation, it)


def check_models(federation: Federation) -> None:
    """Every closed round has the model that its participants' plaintext updates give."""
    assert federation.state.closed
    for round, closed in federation.state.closed.items():
        assert closed.result is not None
        assert hashlib.sha256(federation.expected_model(round)).digest() == closed.result.model_digest


Trace = Callable[[Federation, Attempt, Index], bool]

TRACES: dict[str, Trace] = {
    "clock-skew": lambda federation, closed, me: "skewed" in Liar.memory,
    "demand-of-the-honest": lambda federation, closed, me: any(not d.open for d in federation.state.demands.values()),
    "empty-store": lambda federation, closed, me: not closed.receipts[me].whole and me not in closed.openings,
    "false-complaint": lambda federation, closed, me: not closed.receipts[me].whole & 1,
    "lying-store": lambda federation, closed, me: not closed.receipts[me].whole and me not in closed.openings,
    "poison": lambda federation, closed, me: (me, closed.round, 0) in federation.contributed,
    "reused-key": lambda federation, closed, me: Liar.memory["uses"] == closed.round,
    "silent-closer": lambda federation, closed, me: closed.result is not None and closed.result.index != me,
    "silent-opener": lambda federation, closed, me: me not in closed.openings,
    "slow-store": lambda federation, closed, me: closed.last_commit_at - closed.started_at >= SLOW_S,
    "stale-model": lambda federation, closed, me: (me, closed.round, 0) in federation.contributed,
    "value-out-of-range": lambda federation, closed, me: (me, closed.round, 0) in federation.contributed,
    "vote-against-a-model": lambda federation, closed, me: has_voted(federation, Motion.REFUSE, me),
    "vote-against-a-set": lambda federation, closed, me: has_voted(federation, Motion.ABANDON, me),
    "withheld-model": lambda federation, closed, me: bool(Liar.hidden),
}
"""What shows that it happened, where nothing comes of it."""


def check_trace(federation: Federation, it: Misbehaviour) -> None:
    """It was done at all: where the catalogue foretells nothing that would show it, something else does."""
    quiet = it.expected.named_by == "nobody" and not it.expected.out and it.expected.attempts == 1
    if quiet and not it.staged:
        assert TRACES[it.name](federation, federation.state.closed[it.round], Index(it.member))


def has_voted(federation: Federation, motion: Motion, member: Index) -> bool:
    """Whether a member voted so."""
    events = [entry.event for entry in federation.log()]
    return any(isinstance(e, MotionVoted) and (e.motion, e.index) == (motion, member) for e in events)


def check_round(federation: Federation, it: Misbehaviour) -> None:
    """All took part but who is expected not to."""
    closed = federation.state.closed[it.round]
    assert closed.aggregate is not None
    out = {member for member, one in accomplices(it).items() if one.expected.out} | set(it.absent)
    assert set(members_of(closed.aggregate.participants)) == set(range(len(federation.peers))) - out
    assert closed.attempt + 1 == it.expected.attempts
    check_given_up_at_once(federation, it.round)


def check_given_up_at_once(federation: Federation, round: int) -> None:
    """What a set was given up for was proven when it was opened: nobody waited out half of the close window."""
    given_up = [e.event for e in federation.log() if isinstance(e.event, SetAbandoned) and e.event.round == round]
    sets = [attempt for attempt in federation.state.voided if attempt.round == round and attempt.aggregate is not None]
    for attempt, event in zip(sets, given_up, strict=True):
        opened = sorted(opening.at for opening in attempt.openings.values())[attempt.threshold - 1]
        assert event.at - opened <= federation.ground.charter.windows.aggregate_s


def check_chain(federation: Federation, it: Misbehaviour) -> None:
    """Bonds: who is slashed, by which rule, and who has strikes."""
    slashes = [e.event for e in federation.log() if isinstance(e.event, MemberSlashed)]
    assert [(s.index, s.rule) for s in slashes] == [(it.member, it.expected.slashed)] * bool(it.expected.slashed)
    strikes = {i: count for i, count in federation.state.strikes.items() if count and i not in it.absent}
    due = {member: one.expected.strikes for member, one in accomplices(it).items() if one.expected.strikes}
    assert strikes == due


def check_audit(federation: Federation, it: Misbehaviour) -> None:
    """The faults that a stranger finds."""
    found = {(int(fault.check.split()[0]), fault.offender) for fault in federation.audit().faults}
    assert found == {
        (check, federation.peers[member].member.address)
        for member, one in accomplices(it).items()
        for check in one.expected.faults
    }


def check_peers(federation: Federation, it: Misbehaviour) -> None:
    """Whom honest peers' logs name, and how they end."""
    who, expected = accomplices(it), it.expected
    honest = honest_peers(federation, it)
    warned = [(entry["event"], blamed(federation, entry)) for peer in honest for entry in peer.said]
    assert {member for _, names in warned for member in names} <= who.keys()
    if expected.logged:
        assert any(event.startswith(expected.logged) and it.member in names for event, names in warned)
    assert [peer.ended for peer in honest] == [None] * len(honest)
    offender = federation.peers[it.member]
    if expected.refused:
        reasons = " ".join(e.get("reason", "") for e in offender.said if e["event"] == "transaction refused")
        assert re.search(expected.refused, reasons)
    if expected.stops:
        assert expected.stops in str(offender.ended)


def accomplices(it: Misbehaviour) -> Mapping[int, Misbehaviour]:
    """Who misbehaves, and how."""
    return {it.member: it} | ({it.beside[1]: MISBEHAVIOURS[it.beside[0]]} if it.beside else {})


def honest_peers(federation: Federation, it: Misbehaviour) -> list[Peer]:
    """Whoever takes part and does nothing wrong."""
    return [peer for peer in federation.peers if peer.index not in (*accomplices(it), *it.absent)]


def closed_rounds(peer: Peer) -> int:
    """The newest round that a peer has closed."""
    return max((entry["round"] for entry in peer.said if entry["event"] == "round closed"), default=0)


def blamed(federation: Federation, entry: dict[str, Any]) -> set[int]:
    """Whom a peer's warning names, by address, anywhere in it."""
    if entry["level"] == "info":
        return set()
    text = " ".join(str(value) for value in entry.values()).lower()
    return {peer.index for peer in federation.peers if peer.member.address.lower() in text}
