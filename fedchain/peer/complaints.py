"""Complaints with evidence (P2.6): what others' come to, judged by this peer itself, and how it makes its own.

A dealer of whose dealing this peer has checked evidence is left out of the sets that it chooses (P3.3), and no set with
it in is opened (P4.5). An unproven complaint moves nobody. A false one is named, and not kept: it gives away a share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..crypto import Findings, accused_in, complaint_size, encode_complaint, judge_complaint
from ..errors import ObjectCorrupt, ObjectMissing, TransactionFailed
from ..protocol.actions import Complain
from ..protocol.events import Complained
from ..protocol.ids import Bitmap, Index, bitmap_of, size_of
from ..protocol.state import Attempt, FederationState
from .context import PeerContext

_TRIES_A_WINDOW, _MOST_TRIES = 8, 16
"""How often evidence that nobody has is asked for: it must not cost a time-out at every look, nor for ever."""


class Complaints:
    """The complaints of the attempts under way, each judged once."""

    def __init__(self, context: PeerContext) -> None:
        self._context = context
        self._judged: dict[Complained, Findings] = {}
        self._tries: Counter[Complained] = Counter()
        self._next_try_at: dict[Complained, int] = {}
        self._unsaid: set[tuple[int, int]] = set()

    def proven(self, state: FederationState, attempt: Attempt, now: int) -> Bitmap:
        """The dealers of whose dealing this peer has checked evidence; what it has not seen yet is fetched.

        Raises StoreUnreachable: that its own store is away says nothing about anybody's evidence.
        """
        for complaint in attempt.complaints.values():
            due = now >= self._next_try_at.get(complaint, 0) and self._tries[complaint] < _MOST_TRIES
            if complaint not in self._judged and due:
                self._judge(state, attempt, complaint, now)
        judged = [self._judged[c] for c in attempt.complaints.values() if c in self._judged]
        return bitmap_of([dealer for findings in judged for dealer in findings.proven])

    def must_wait(self, state: FederationState, attempt: Attempt, now: int, *, since: int) -> bool:
        """Whether evidence may still come: some is missing, and half of an aggregate window has not passed `since`."""
        unseen = any(complaint not in self._judged for complaint in attempt.complaints.values())
        return unseen and now < since + state.terms.aggregate_window_s // 2

    def make(self, attempt: Attempt, charges: Mapping[Index, bytes]) -> None:
        """Promise to complain with these charges, if there are any: store the evidence, then write down its name."""
        context, place = self._context, (attempt.round, attempt.attempt)
        if not charges or context.journal.complaint(*place) is not None:
            return
        evidence = context.store.put(encode_complaint(context.me, charges))
        context.journal.promise_complaint(*place, bitmap_of(tuple(charges)), evidence)

    def state_own(self, attempt: Attempt) -> None:
        """Say on chain what was promised. One that is refused is left: the receipt's missing bit says as much."""
        context, place = self._context, (attempt.round, attempt.attempt)
        promised = context.journal.complaint(*place)
        if promised is None or context.me in attempt.complaints or place in self._unsaid:
            return
        dealers, evidence = promised
        try:
            context.sender.submit(f"complaint/{place[0]}/{place[1]}", Complain(*place, dealers, evidence))
        except TransactionFailed as error:
            self._unsaid.add(place)
            context.log.warning("complaint refused", round=attempt.round, reason=str(error))
            return
        context.log.warning("complained", round=attempt.round, dealers=f"{dealers:b}", evidence=evidence)

    def forget(self, before_round: int) -> None:
        """Let what was found in rounds before `before_round` go."""
        for seen in (self._tries, self._next_try_at, self._judged):
            for complaint in [c for c in seen if c.round < before_round]:
                del seen[complaint]

    def _judge(self, state: FederationState, attempt: Attempt, complaint: Complained, now: int) -> None:
        context, author = self._context, state.accounts[complaint.index]
        accused = accused_in(attempt, state.accounts, context.round_context(attempt), complaint.dealers)
        if not accused or len(accused) != size_of(complaint.dealers):
            # The contract lets no such complaint in: the endpoint has made it up.
            self._judged[complaint] = Findings({}, ())
            return
        size = complaint_size(size_of(attempt.standing), attempt.threshold, len(accused))
        self._next_try_at[complaint] = now + max(1, state.terms.aggregate_window_s // _TRIES_A_WINDOW)
        try:
            evidence = context.store.get(complaint.evidence_cid, size)
        except (ObjectMissing, ObjectCorrupt) as error:
            self._tries[complaint] += 1
            context.log.warning(
                "a complaint cannot be checked", member=int(complaint.index), round=attempt.round, reason=str(error)
            )
            return
        found = judge_complaint(evidence, complaint.index, complaint.dealers, accused, name=author)
        self._judged[complaint] = found
        for dealer in found.off_record:
            context.log.warning(
                "a complaint about what is not on record", member=int(complaint.index), dealer=int(dealer)
            )
        for fault in found.false:
            context.log.error("false complaint", offender=author, round=attempt.round, reason=str(fault))
        for dealer, fault in found.proven.items():
            context.log.error(
                "bad dealing, by evidence", offender=state.accounts[dealer], round=attempt.round, reason=str(fault)
            )
        if found.proven:
            context.store.pin(complaint.evidence_cid)
