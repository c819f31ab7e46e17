"""The voter (P5.14): gives up a set that cannot be opened, so that its round may begin again, and go on.

Duty: vote to abandon the locked set of the round under way if this peer can show that it is spoiled, or that a dealer
in it dealt a bad record: the first on a model at once, a later one once members have removed somebody in it by vote, as
only then the next set need not hold the same members; and after half of the close window, whatever keeps it from being
closed. Vote to remove whoever was proven to have lied and keeps the next set from being locked (P3.8). Refusals:
nothing is given up that this peer could close itself, and no set twice. (All other votes on members are for people:
`fedchain vote`; the trainer votes to stop, the challenger refuses a model.)
"""

from __future__ import annotations

from ..protocol.actions import VoteToAbandon, VoteToRemove
from ..protocol.disputes import Refused
from ..protocol.ids import Index, members_of
from ..protocol.participants import liars_in_the_way
from ..protocol.phase import Phase, live_attempt, phase_of, round_began_at
from ..protocol.state import Attempt, FederationState
from ..protocol.suspicion import suspicion
from ..protocol.votes import check_vote
from .context import PeerContext
from .crash import crash_point
from .decoder import Decoder
from .holdings import Holdings


class Voter:
    """One peer's votes about the round under way."""

    def __init__(self, context: PeerContext, holdings: Holdings, decoder: Decoder) -> None:
        self._context = context
        self._holdings = holdings
        self._decoder = decoder
        self._refused: set[tuple[int, int]] = set()
        self._told: set[tuple[int, int]] = set()

    def act(self, state: FederationState, now: int) -> bool:
        """Do what is due now; whether anything was done."""
        phase, attempt = phase_of(state, state.round, now), live_attempt(state, now)
        if attempt is not None and phase in (Phase.TRAINING, Phase.RECEIPTS, Phase.AGGREGATING):
            return any(self._remove(state, attempt, i, now) for i in members_of(liars_in_the_way(state, attempt)))
        if attempt is None or phase not in (Phase.OPENING, Phase.CLOSING):
            return False
        reason = self._reason_against(state, attempt, phase, now)
        return reason is not None and self._abandon(state, attempt, reason, now)

    def _reason_against(self, state: FederationState, attempt: Attempt, phase: Phase, now: int) -> str | None:
        """Why the locked set must be given up; None as long as it may yet be closed."""
        began = round_began_at(state, now)
        assert began is not None
        late = now >= began + state.terms.close_window_s // 2
        locked = attempt.aggregate
        assert locked is not None
        # A further try with the same members is worth one of a few (MAX_ABANDONED), and most likely in vain.
        again = bool(state.abandoned.get(attempt.base_digest)) and not locked.participants & state.removed
        if phase is Phase.OPENING:
            # Who has opened must learn of it too: without its vote the set stays.
            complaints = self._holdings.complaints
            complaints.wait(state, attempt, now, since=locked.at, late_too=True)
            if locked.participants & complaints.proven(attempt) and (late or not again):
                return "a dealer in it is proven to have dealt a bad record: nobody honest opens it"
            came = f"{len(attempt.openings)} openings of {attempt.threshold}"
            return f"{came} came in half of the close window" if late else None
        outcome = self._decoder.outcome(state, attempt)
        if outcome is not None and outcome.model is not None:
            return None
        if self._decoder.is_spoiled(attempt):
            self._tell(state, attempt)
            proof = "a key is not the one that was dealt" if outcome is None else "no honest values give its sum"
            return None if again and not late else f"spoiled by a participant: {proof}"
        if late and outcome is not None:
            return "no model follows from the sum"
        if late and self._decoder.is_undecodable(attempt):
            return "the openings of half of the close window do not open the sum"
        return None

    def _tell(self, state: FederationState, attempt: Attempt) -> None:
        """Say once who may have spoiled the set: whom to remove is for people to decide."""
        place = attempt.round, attempt.attempt
        found = suspicion(state, under_way=attempt)
        if place not in self._told and found is not None:
            self._told.add(place)
            in_all, suspects = (members_of(members) for members in (found.always, found.suspects))
            sets = len(found.spoiled)
            self._context.log.error("spoiled", round=attempt.round, sets=sets, in_all=in_all, suspects=suspects)

    def _remove(self, state: FederationState, attempt: Attempt, liar: Index, now: int) -> bool:
        context, vote = self._context, VoteToRemove(liar)
        try:
            check_vote(state, context.me, vote, now)
        except Refused:
            return False  # cast before, by those who stand now
        crash_point("before-vote", attempt.round)
        context.sender.submit(context.duty(f"remove/{liar}", attempt), vote)
        crash_point("after-vote", attempt.round)
        offender, why = state.accounts[liar], "a lie, proven on chain"
        context.log.error("voted to remove", round=attempt.round, offender=offender, reason=why)
        return True

    def _abandon(self, state: FederationState, attempt: Attempt, reason: str, now: int) -> bool:
        context, place = self._context, (attempt.round, attempt.attempt)
        vote = VoteToAbandon(*place)
        if place in self._refused:
            return False
        try:
            check_vote(state, context.me, vote, now)
        except Refused as refused:
            # Cast before, or given up too often: nothing changes about that in this attempt.
            self._refused.add(place)
            if refused.error_name != "FederationAlreadyVoted":
                context.log.error("a set cannot be given up", round=attempt.round, reason=str(refused))
            return False
        crash_point("before-vote", attempt.round)
        context.sender.submit(context.duty("abandon", attempt), vote)
        crash_point("after-vote", attempt.round)
        context.log.error("voted to abandon", round=attempt.round, attempt=attempt.attempt, reason=reason)
        return True
