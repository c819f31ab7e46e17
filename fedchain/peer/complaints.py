"""Complaints with evidence (P2.6): what others' come to, judged by this peer itself, and how it makes its own.

A dealer of whose dealing this peer has checked evidence is left out of the sets that it chooses (P3.3), and no set with
it in is opened (P4.5). An unproven complaint moves nobody. A false one is named, and not kept: it gives away a share.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from ..crypto import Findings, accused_in, complaint_size, encode_complaint, judge_complaint
from ..errors import NO_FUNDS, TransactionFailed, WorldError
from ..protocol.actions import Complain
from ..protocol.events import Complained
from ..protocol.ids import Bitmap, Index, bitmap_of, members_of, size_of
from ..protocol.state import Attempt, FederationState
from .context import PeerContext

_TRIES_A_WINDOW = 8
"""How often evidence that nobody has is asked for: it must not cost a time-out at every look."""


class Complaints:
    """The complaints of the attempts under way, each judged once."""

    def __init__(self, context: PeerContext) -> None:
        self._context = context
        self._judged: dict[Complained, Findings] = {}
        self._next_try_at: dict[Complained, int] = {}
        self._unsaid: set[tuple[int, int]] = set()
        self._told: set[tuple[int, int]] = set()

    def proven(self, attempt: Attempt) -> Bitmap:
        """The dealers of whose dealing this peer has checked evidence."""
        judged = [self._judged[c] for c in attempt.complaints.values() if c in self._judged]
        return bitmap_of([dealer for findings in judged for dealer in findings.proven])

    def wait(self, state: FederationState, attempt: Attempt, now: int, *, since: int, late_too: bool = False) -> bool:
        """Whether to wait for evidence: some is missing, and half of an aggregate window has not passed `since`.

        Until then what is missing is asked for now and then, and judged; afterwards only what never was, for nobody's
        silence may cost a turn; with `late_too` ever more rarely.
        """
        window = state.terms.aggregate_window_s
        early = now < since + window // 2
        unseen = [complaint for complaint in attempt.complaints.values() if complaint not in self._judged]
        asks = early or late_too
        due = [c for c in unseen if c not in self._next_try_at or (asks and now >= self._next_try_at[c])]
        if due:
            pause = window // _TRIES_A_WINDOW
            self._next_try_at |= dict.fromkeys(due, now + max(1, pause, 0 if early else now - since))
            with ThreadPoolExecutor(max_workers=len(due)) as pool:
                found = pool.map(lambda complaint: self._fetch(state, attempt, complaint), due)
                for complaint, evidence in zip(due, found, strict=True):
                    if evidence is not None:
                        self._judge(state, attempt, complaint, evidence)
        return early and any(complaint not in self._judged for complaint in unseen)

    def make(self, attempt: Attempt, charges: Mapping[Index, bytes]) -> None:
        """Promise to complain with these charges, if there are any: store the evidence, then write down its name."""
        context, place = self._context, (attempt.round, attempt.attempt)
        if not charges or context.journal.complaint(*place) is not None:
            return
        evidence = context.store.put(encode_complaint(context.me, charges))
        context.journal.promise_complaint(*place, bitmap_of(tuple(charges)), evidence)

    def state_own(self, attempt: Attempt) -> None:
        """Say on chain what was promised. It holds up no receipt; what the contract refuses is said no more."""
        context, place = self._context, (attempt.round, attempt.attempt)
        promised = context.journal.complaint(*place)
        if promised is None or context.me in attempt.complaints or place in self._unsaid:
            return
        dealers, evidence = promised
        try:
            context.sender.submit(f"complaint/{place[0]}/{place[1]}", Complain(*place, dealers, evidence))
        except TransactionFailed as error:
            if error.error_name.startswith("Federation"):
                self._unsaid.add(place)
            if place not in self._told:
                self._told.add(place)
                self._tell_unsaid(attempt, dealers, error)
            return
        context.log.warning("complained", round=attempt.round, dealers=members_of(dealers), evidence=evidence)

    def forget(self, before_round: int) -> None:
        """Let what was found in rounds before `before_round` go."""
        for complaint in [c for c in self._next_try_at if c.round < before_round]:
            del self._next_try_at[complaint]
            self._judged.pop(complaint, None)

    def _tell_unsaid(self, attempt: Attempt, dealers: Bitmap, error: TransactionFailed) -> None:
        said = {"round": attempt.round, "dealers": members_of(dealers), "reason": str(error)}
        if error.error_name != NO_FUNDS:
            self._context.log.warning("complaint refused", **said)
            return
        # Who has all else sent by a relayer learns of it here: the contract hears a complaint from its author only.
        self._context.log.error(
            "complaint not sent: no relayer carries it, and the account has no coins",
            **said,
            until_then="the dealing is named by nobody, may stay in the sum, and this member opens no set with it",
            to_do="send the account coins before the receipt window ends; the complaint is tried until then",
        )

    def _fetch(self, state: FederationState, attempt: Attempt, complaint: Complained) -> bytes | None:
        """The evidence, if it is to be had."""
        context, n = self._context, size_of(attempt.standing)
        try:
            size = complaint_size(n, attempt.threshold, size_of(complaint.dealers))
            return context.store.get(complaint.evidence_cid, size)
        except WorldError as error:
            author = state.accounts[complaint.index]
            context.log.warning("a complaint cannot be checked", author=author, round=attempt.round, reason=str(error))
            return None

    def _judge(self, state: FederationState, attempt: Attempt, complaint: Complained, evidence: bytes) -> None:
        context, author = self._context, state.accounts[complaint.index]
        accused = accused_in(attempt, state.accounts, context.round_context(attempt), complaint.dealers)
        if not accused or len(accused) != size_of(complaint.dealers):
            # The contract lets no such complaint in: the endpoint has made it up.
            self._judged[complaint] = Findings({}, ())
            return
        found = judge_complaint(evidence, complaint.index, complaint.dealers, accused, name=author)
        self._judged[complaint] = found
        for dealer in found.off_record:
            context.log.warning(
                "a complaint about what is not on record",
                author=author,
                round=attempt.round,
                dealer=state.accounts[dealer],
            )
        for fault in found.false:
            context.log.error("false complaint", offender=author, round=attempt.round, reason=str(fault))
        for dealer, fault in found.proven.items():
            context.log.error(
                "bad dealing, by evidence", offender=state.accounts[dealer], round=attempt.round, reason=str(fault)
            )
        if found.proven:
            context.store.pin(complaint.evidence_cid)
