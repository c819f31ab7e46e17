"""The challenger (R1–R4, P5.10, P5.15): holds others to what this peer computed itself, before the contract.

Duties: compare every posted sum, every closed round's result and model, every committed residue; build the evidence and
send it, in turns that begin with the member after the liar; demand the pages that show it where the object behind a
wrong root is kept back; vote to refuse a wrong model that no evidence can reach. Deadline: the challenge window.
Refusals: it builds nothing on a result that it knows to be wrong. It waits until the result falls; if it does not fall
in time, it stops with the author's name. A wrong sum stops nothing: everybody goes on with the right one.
"""

from __future__ import annotations

from ..crypto import (
    Aggregate,
    Result,
    aggregate_size,
    prove_aggregate,
    prove_key_sum,
    prove_residue,
    prove_result,
    result_size,
)
from ..errors import Fault, MalformedObject, ObjectCorrupt, ObjectMissing
from ..protocol.actions import VoteToRefuse
from ..protocol.cid import cid_of
from ..protocol.disputes import Refused, attempt_of, judge
from ..protocol.events import ResultCommitted, UpdateCommitted
from ..protocol.evidence import Challenge
from ..protocol.ids import Index, members_of
from ..protocol.phase import Phase, phase_of
from ..protocol.state import Attempt, FederationState, PostedSum
from ..protocol.votes import check_vote
from .context import PeerContext
from .crash import crash_point
from .decoder import Decoder, Outcome
from .demander import Demander, Pursuit
from .holdings import Holdings
from .turns import challenge_at


class Challenger:
    """One peer's watch over what others post."""

    def __init__(self, context: PeerContext, holdings: Holdings, decoder: Decoder) -> None:
        self._context = context
        self._holdings = holdings
        self._decoder = decoder
        self._done: set[PostedSum | UpdateCommitted | ResultCommitted] = set()
        self._evidence: dict[PostedSum | ResultCommitted, Challenge] = {}
        self._demander = Demander(context, holdings, decoder)
        self._withheld: set[PostedSum | ResultCommitted] = set()
        self._judged: Attempt | None = None

    def act(self, state: FederationState, now: int) -> bool:
        """Do what is due now about sums and residues; whether anything was done."""
        # A sum that is kept back may be pursued for longer than its round takes.
        rounds = {said.round for said in self._withheld if not isinstance(said, ResultCommitted)}
        pursued = (state.closed[round] for round in sorted(rounds) if round in state.closed)
        watched = (state.current, state.closed.get(len(state.closed)), *pursued)
        if any(self._check_sum(state, attempt, now) for attempt in watched if attempt is not None):
            return True
        # Only where nothing else is due: what is kept back on purpose must cost no time.
        idle = {Phase.RECEIPTS: state.current, Phase.FINISHED: state.closed.get(len(state.closed))}
        attempt = idle.get(phase_of(state, state.round, now))
        if attempt is not None and self._context.me in attempt.receipts:
            self._holdings.examine_again(state, attempt)
        malformed = [commit for commit in self._holdings.malformed if commit not in self._done]
        return any(self._check_residues(state, commit, now) for commit in malformed)

    def settled(self, state: FederationState, now: int) -> bool:
        """Whether every closed round is what this peer decodes (P5), so that the newest model may be built on.

        A peer that starts begins with the newest closed round, and after a reorganisation or a refutation with the
        newest again. On a round that it cannot decode it builds nothing: whoever closed it may have withheld the
        openings on purpose. Only when a later round closed on top is it let go, for the audit to judge. Raises Fault
        with the author's name.
        """
        newest = len(state.closed)
        if self._judged is None or state.closed.get(self._judged.round) != self._judged:
            self._judged = state.closed.get(newest - 1)
        while (self._judged.round if self._judged is not None else 0) < newest:
            attempt = state.closed[self._judged.round + 1 if self._judged is not None else 1]
            if not self._may_build_on(state, attempt, now):
                return False
            self._judged = attempt
            self._decoder.forget(attempt.round)
        return True

    def _may_build_on(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        context, result = self._context, attempt.result
        assert result is not None
        if self._check_sum(state, attempt, now):
            return False
        outcome = self._decoder.outcome(state, attempt)
        if outcome is None:
            self._say_once(state, result, "a closed round cannot be checked")
            return attempt.round < len(state.closed)
        opened = outcome.opened
        right_roots = (result.key_sum_root, result.result_root) == (opened.key_sum_root, opened.result_root)
        right_model = result.model_digest == outcome.digest
        if right_roots and right_model:
            assert outcome.model is not None
            if cid_of(outcome.model) != result.model_cid:
                # What stands is the digest. Nobody is refused for a CID: late votes would hit who posts it rightly.
                self._say_once(state, result, "the right model, posted with the CID of other bytes")
            return True
        if right_roots:
            # A contract cannot hash a model: there is no evidence of this, and only a vote.
            if now >= result.at + context.terms.challenge_window_s:
                raise _wrong_model(state, result, outcome)
            self._refuse(state, attempt, result, now)
            return False
        found = self._evidence_against(state, attempt, result, outcome, now)
        if found is Pursuit.UNPROVABLE:
            self._refuse(state, attempt, result, now)
        if found in (Pursuit.UNPROVABLE, Pursuit.SENT, Pursuit.WAITING):
            self._say_once(state, result, "wrong result on chain, and kept back; waiting until it falls")
            return False
        challenge = None if isinstance(found, Pursuit) else found
        if challenge is not None and context.challenge:
            self._send(state, attempt, challenge, now, since=result.at, liar=result.index)
            return False
        if right_model and challenge is None:
            # To build on it would open a round that whoever holds the evidence can have rolled back, at a time of its
            # choice: it would begin again on the same base model, where no second set may be opened.
            self._say_once(state, result, "wrong roots beside the right model; waiting until they are refuted")
            return False
        if now >= result.at + context.terms.challenge_window_s:
            raise _wrong_model(state, result, outcome)
        self._say_once(state, result, "wrong result on chain; waiting until it is refuted")
        return False

    def _refuse(self, state: FederationState, attempt: Attempt, result: ResultCommitted, now: int) -> None:
        """Vote that a result does not stand, once."""
        context, vote = self._context, VoteToRefuse(attempt.round, result.model_digest)
        if not state.heard >> context.me & 1:
            return
        try:
            check_vote(state, context.me, vote, now)
        except Refused as refused:
            if refused.error_name != "FederationAlreadyVoted":
                self._say_once(state, result, f"a wrong result cannot be refused: {refused}")
            return
        key = f"{context.duty('refuse', attempt, len(attempt.refuted_results))}/{result.model_digest.hex()}"
        crash_point("before-vote", attempt.round)
        context.sender.submit(key, vote)
        crash_point("after-vote", attempt.round)
        author = state.accounts[result.index]
        context.log.error("voted to refuse", round=attempt.round, author=author, model=result.model_digest.hex())

    def _evidence_against(
        self, state: FederationState, attempt: Attempt, result: ResultCommitted, outcome: Outcome, now: int
    ) -> Challenge | Pursuit | None:
        """What proves a result wrong (R2, R3), or how far its pursuit is where its author keeps back what it claims."""
        if result in self._evidence:
            return self._evidence[result]
        if result not in self._withheld:
            challenge = self._evidence_from_object(state, attempt, result, now)
            if challenge is not None:
                return challenge
            self._withheld.add(result)
        if not self._context.challenge:
            return None
        found = self._demander.pursue_result(state, attempt, outcome, now)
        return found if isinstance(found, Pursuit) else self._judged_first(state, found, now, result)

    def _evidence_from_object(
        self, state: FederationState, attempt: Attempt, result: ResultCommitted, now: int
    ) -> Challenge | None:
        """What proves a result wrong (R2, R3) by the object that it names; None where that cannot be had, or used."""
        context, d = self._context, self._context.terms.model_size
        author = state.accounts[result.index]
        try:
            content = context.store.get(result.result_cid, result_size(d))
            posted = Result.parse(content, d, offender=author, round=attempt.round)
        except (ObjectMissing, ObjectCorrupt, MalformedObject) as error:
            context.log.error("a wrong result cannot be proven wrong", round=attempt.round, reason=str(error))
            return None
        challenge: Challenge | None = None
        openings = self._decoder.openings(state, attempt)
        if all(index in openings for index in members_of(result.openers)):
            challenge = prove_key_sum(attempt, openings, posted)
        if challenge is None:
            uploads, total = self._holdings.uploads(attempt), self._sum_of(attempt)
            if uploads is not None and total is not None:
                challenge = prove_result(attempt, uploads, posted, total, context.round_context(attempt))
        return self._judged_first(state, challenge, now, result)

    def _check_sum(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        """Compare a posted sum with this peer's own; whether a challenge was sent."""
        context, posted = self._context, attempt.posted_sum
        if posted is None or posted in self._done:
            return False
        assert attempt.aggregate is not None
        if posted in self._withheld:
            return self._pursue_sum(state, attempt, posted, now)
        self._holdings.examine(state, attempt, only=attempt.aggregate.participants)
        uploads, total = self._holdings.uploads(attempt), self._sum_of(attempt)
        if uploads is None or total is None:
            return False
        if total.root() == posted.root:
            self._done.add(posted)
            return False
        author, d = state.accounts[posted.index], context.terms.model_size
        challenge = self._evidence.get(posted)
        if challenge is None:
            try:
                claimed = context.store.get(posted.cid, aggregate_size(d))
                proven = prove_aggregate(attempt, uploads, claimed, d)
                challenge = self._judged_first(state, proven, now, posted)
            except (ObjectMissing, ObjectCorrupt, MalformedObject) as error:
                context.log.error("a wrong sum cannot be proven wrong", round=attempt.round, reason=str(error))
        if challenge is not None and context.challenge:
            return self._send(state, attempt, challenge, now, since=posted.at, liar=posted.index)
        context.log.error("wrong sum on chain; going on with the right one", round=attempt.round, author=author)
        (self._withheld if context.challenge else self._done).add(posted)
        return False

    def _pursue_sum(self, state: FederationState, attempt: Attempt, posted: PostedSum, now: int) -> bool:
        """Go after a wrong sum that is kept back; whether something was sent."""
        challenge = self._evidence.get(posted)
        if challenge is None:
            found = self._demander.pursue_sum(state, attempt, posted, now)
            if isinstance(found, Pursuit):
                if found in (Pursuit.STUCK, Pursuit.UNPROVABLE):
                    # Nobody builds on a posted sum: what cannot be proven is let go, for the audit to tell.
                    self._done.add(posted)
                    self._withheld.discard(posted)
                return found is Pursuit.SENT
            challenge = self._judged_first(state, found, now, posted)
        if challenge is None:
            self._done.add(posted)
            self._withheld.discard(posted)
            return False
        return self._send(state, attempt, challenge, now, since=posted.at, liar=posted.index)

    def _check_residues(self, state: FederationState, commit: UpdateCommitted, now: int) -> bool:
        """Show a residue that no member may commit to; whether a challenge was sent."""
        attempt = attempt_of(state, commit.round, commit.attempt)
        if attempt is None or not self._context.challenge or state.slashed >> commit.index & 1:
            self._done.add(commit)
            return False
        upload = self._holdings.malformed[commit]
        try:
            evidence = prove_residue(attempt, commit.index, upload, self._context.terms.model_size)
        except MalformedObject:
            evidence = None
        challenge = self._judged_first(state, evidence, now)
        if challenge is None:
            self._done.add(commit)
            return False
        return self._send(state, attempt, challenge, now, since=commit.at, liar=commit.index)

    def _send(
        self, state: FederationState, attempt: Attempt, challenge: Challenge, now: int, *, since: int, liar: Index
    ) -> bool:
        """Hand the evidence to the contract, in this member's turn; whether it was sent."""
        context = self._context
        if now < challenge_at(state, attempt, context.me, since=since, liar=liar):
            return False
        what = type(challenge).__name__
        fallen = len(attempt.refuted_sums) + len(attempt.refuted_results)
        offender = state.accounts[liar]
        context.log.error("challenging", what=what, round=attempt.round, offender=offender)
        context.sender.submit(f"{context.duty(what, attempt, fallen)}/{liar}", challenge)
        context.log.info("challenge upheld", what=what, round=attempt.round, offender=offender)
        return True

    def _judged_first(
        self,
        state: FederationState,
        challenge: Challenge | None,
        now: int,
        statement: PostedSum | ResultCommitted | None = None,
    ) -> Challenge | None:
        """The challenge, if the contract will uphold it; kept until it is this member's turn to send it."""
        if challenge is None:
            return None
        try:
            judge(state, self._context.reader.chain_id, self._context.reader.contract, challenge, now)
        except Refused as refused:
            self._context.log.error("evidence that the contract would refuse", reason=str(refused))
            return None
        if statement is not None:
            self._evidence[statement] = challenge
        return challenge

    def _sum_of(self, attempt: Attempt) -> Aggregate | None:
        assert attempt.aggregate is not None
        return self._decoder.sum(attempt, attempt.aggregate.participants)

    def _say_once(self, state: FederationState, result: ResultCommitted, what: str) -> None:
        if result not in self._done:
            self._done.add(result)
            author = state.accounts[result.index]
            self._context.log.error(what, round=result.round, author=author)


def _wrong_model(state: FederationState, result: ResultCommitted, outcome: Outcome) -> Fault:
    return Fault(
        "result: the model on chain is not the one the openings give",
        offender=state.accounts[result.index],
        round=result.round,
        expected=outcome.digest.hex() if outcome.digest is not None else "none: no model follows from the sum",
        got=result.model_digest.hex(),
    )
