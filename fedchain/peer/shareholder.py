"""The shareholder (P2, P4): vouches for what it holds, and opens one locked set a round, ever.

Duties: examine every committed update; complain, with evidence, about who dealt it a bad record; post one receipt an
attempt; publish one opening once a participant set is locked and final. Deadlines: the receipt window; an opening has
none, it is owed until the round closes. Refusals: it vouches for nothing it has not fetched and checked; it discloses
no record that is whole; it opens nothing whose share it lacks, and no set with a dealer in it that evidence names; it
journals the set before it publishes, and opens no other set in that round whatever the chain says later, unless members
gave the first one up and the new one is far enough from it.
"""

from __future__ import annotations

from ..crypto import make_opening
from ..errors import ChainMismatch, Fault
from ..protocol.actions import PostReceipt, PublishOpening
from ..protocol.cid import cid_of
from ..protocol.ids import members_of
from ..protocol.participants import check_participants
from ..protocol.phase import Phase, live_attempt, phase_of, training_end
from ..protocol.state import Attempt, FederationState
from ..protocol.statements import OpeningStatement, ReceiptStatement
from .context import GROUP, PeerContext
from .crash import crash_point
from .holdings import Holdings
from .journal import PromiseRefused


class Shareholder:
    """One peer's duties to the others' updates."""

    def __init__(self, context: PeerContext, holdings: Holdings) -> None:
        self._context = context
        self._holdings = holdings
        self._refused: set[tuple[int, int]] = set()
        self._stored: set[OpeningStatement] = set()

    def act(self, state: FederationState, now: int) -> bool:
        """Do what is due now; whether anything was done."""
        attempt = live_attempt(state, now)
        if attempt is None:
            return False
        match phase_of(state, state.round, now):
            case Phase.TRAINING:
                self._holdings.examine(state, attempt)
                return False
            case Phase.RECEIPTS if self._context.me not in attempt.receipts:
                return self._receipt(state, attempt, now)
            case Phase.RECEIPTS:
                ended = training_end(state, attempt, now)
                assert ended is not None
                self._holdings.complaints.state_own(attempt)
                self._holdings.complaints.wait(state, attempt, now, since=ended)
                return False
            case Phase.OPENING | Phase.CLOSING if self._context.me not in attempt.openings:
                return self._open(state, attempt, now)
            case _:
                return False

    def _receipt(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        """Post which updates are whole; wait up to half the window for objects that have not arrived."""
        context, round = self._context, attempt.round
        whole = context.journal.receipt(round, attempt.attempt)
        ended = training_end(state, attempt, now)
        assert ended is not None
        if whole is None:
            with context.meter.step("receipt"):
                self._holdings.examine(state, attempt)
            if not self._holdings.complete(attempt) and now < ended + context.terms.receipt_window_s // 2:
                return False
            whole = self._holdings.whole(attempt)
            self._holdings.complaints.make(attempt, self._holdings.charges(attempt))
            crash_point("before-receipt", round)
            context.journal.promise_receipt(round, attempt.attempt, whole)
        self._holdings.complaints.state_own(attempt)
        said = ReceiptStatement(round, attempt.attempt, whole)
        if context.is_relayed(said, now, since=ended, window_s=state.terms.receipt_window_s):
            return False
        with context.meter.step("receipt"):
            context.sender.submit(
                f"receipt/{round}/{attempt.attempt}", PostReceipt(round=round, attempt=attempt.attempt, whole=whole)
            )
        context.log.info("receipt posted", round=round, attempt=attempt.attempt, whole=members_of(whole))
        crash_point("after-receipt", round)
        return True

    def _open(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        """Publish the sum of this member's shares over the locked set: no aggregate is looked at, or needed.

        The set is held to the contract's own rules first: an endpoint that shows a set which the contract would have
        refused is lying, and must not get a smaller sum opened. Raises ChainMismatch.
        """
        context, locked = self._context, attempt.aggregate
        assert locked is not None
        try:
            check_participants(state, attempt, locked.participants)
        except Fault as impossible:
            # Not the aggregator's fault: the contract locks no such set, whoever asks it to.
            raise ChainMismatch(
                f"the RPC endpoint shows a locked set that the contract would have refused ({impossible}); nothing is"
                " opened for it: use another endpoint"
            ) from impossible
        waits = self._holdings.complaints.wait(state, attempt, now, since=locked.at)
        if locked.participants & self._holdings.complaints.proven(attempt):
            return self._refuse(attempt, "a dealer in the set is proven to have dealt a bad record")
        if waits:
            return False
        self._holdings.examine(state, attempt, only=locked.participants)
        holdings = [self._holdings.of(attempt, index) for index in members_of(locked.participants)]
        shares = [holding.share for holding in holdings if holding is not None and holding.share is not None]
        if len(shares) < len(holdings):
            return False
        with context.meter.step("open"):
            crash_point("before-opening", attempt.round)
            where = (attempt.round, attempt.attempt, GROUP)
            try:
                context.journal.promise_opening(
                    *where,
                    attempt.base_digest,
                    locked.participants,
                    threshold=attempt.threshold,
                    given_up=state.abandoned.get(attempt.base_digest, ()),
                    uncounted=state.removed,
                )
            except PromiseRefused as refusal:
                # The chain forgot a lock that this peer had acted on. Its other duties go on.
                return self._refuse(attempt, str(refusal))
            opening = make_opening(shares)
            cid = cid_of(opening.encode())
            said = OpeningStatement(*where, locked.participants, opening.root(), cid)
            if said not in self._stored:
                context.store.put(opening.encode())
                self._stored.add(said)
            if context.is_relayed(said, now, since=locked.at, window_s=state.terms.aggregate_window_s):
                return False
            context.sender.submit(
                context.duty("opening", attempt, len(attempt.refuted_results)),
                PublishOpening(round=attempt.round, attempt=attempt.attempt, group=GROUP, root=opening.root(), cid=cid),
            )
        context.log.info("opening published", round=attempt.round, participants=members_of(locked.participants))
        crash_point("after-opening", attempt.round)
        return True

    def _refuse(self, attempt: Attempt, reason: str) -> bool:
        """Say once that a set is not opened, and that nothing was done."""
        if (attempt.round, attempt.attempt) not in self._refused:
            self._refused.add((attempt.round, attempt.attempt))
            self._context.log.error("opening refused", round=attempt.round, reason=reason)
        return False
