"""The node: reads the chain, lets each role do what is due, and waits. It holds no phase of its own.

After a crash it reads the chain and its journal and goes on where the federation stands. It answers demands from its
first look to its last: whoever has a bond here answers for its silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..errors import Fault, TransactionFailed, UsageError, WorldError
from ..protocol.cid import cid_of
from ..protocol.ids import Cid, Digest, Index
from ..protocol.phase import Phase, bond_free_at, live_attempt, phase_of, start_of_run
from ..protocol.retention import needed_keys, unowed_results
from ..protocol.state import FederationState
from .aggregator import Aggregator
from .challenger import Challenger
from .context import PeerContext
from .decoder import Decoder
from .holdings import Holdings
from .respondent import Respondent
from .shareholder import Shareholder
from .trainer import Trainer
from .voter import Voter

_LONGEST_WAIT_S = 10.0


class Node:
    """One peer at work. `watch`, if given, is called with (state, now) whenever either may have changed.

    `stay`: whether, once its part is over, it goes on answering demands and checking the last rounds until its bond is
    free. `join`, if given, enrols the member where the state lacks it, because the chain went back behind its
    enrolment; whether it did.
    """

    def __init__(
        self,
        context: PeerContext,
        poll_s: float = 0.25,
        watch: Callable[[FederationState, int], None] | None = None,
        *,
        stay: bool = True,
        join: Callable[[FederationState, int], bool] | None = None,
    ) -> None:
        self._context = context
        self._poll_s = poll_s
        self._join = join
        self._stay = stay
        self._over = False
        self._watch = watch
        holdings = Holdings(context)
        self._holdings = holdings
        decoder = Decoder(context, holdings)
        self._challenger = Challenger(context, holdings, decoder)
        aggregator = Aggregator(context, holdings, decoder)
        voter = Voter(context, holdings, decoder)
        self._roles = (Trainer(context), Shareholder(context, holdings), self._challenger, aggregator, voter)
        self._respondent = Respondent(context, holdings, decoder)
        self._closed = -1
        self._keeper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keeper")

    def run(self) -> FederationState:
        """Work until the run is finished, or this member counts no more; gives the final state.

        The world's failures (chain or store unreachable, a transaction overtaken by events) are logged and tried again
        with growing pauses; a fault of a member that this peer cannot work around is raised.
        """
        pause = self._poll_s
        while True:
            try:
                state = self._context.reader.refresh()
                now = self._context.reader.now()
                if self._watch is not None:
                    self._watch(state, now)
                if self._join is not None and self._join(state, now):
                    continue
                answered = self._respondent.act(state, now)
                # Who has left answers for what it said; what comes later is for others to check.
                settled = has_left(state, self._context.me, now) or self._close_rounds(state, now)
                if settled and self._is_over(state, now) and not answered:
                    self._erase_keys(state, now)
                    self._keeper.shutdown()
                    return state
                pause = self._poll_s
                if (settled and self.step(state, now)) or answered:
                    continue
            except TransactionFailed as error:
                self._context.meter.failed(error)
                self._context.log.warning("transaction refused", reason=str(error))
                pause = min(pause * 2, _LONGEST_WAIT_S)
            except (WorldError, OSError) as error:
                self._context.meter.failed(error)
                self._context.log.warning("trying again", reason=str(error), pause_s=pause)
                pause = min(pause * 2, _LONGEST_WAIT_S)
            time.sleep(pause)

    def step(self, state: FederationState, now: int) -> bool:
        """Let each role do what is due at this state and time; whether anything was done."""
        attempt = live_attempt(state, now)
        if attempt is None:
            return False
        if self._context.me not in state.members:
            raise UsageError(
                f"{self._context.address} did not enrol before the run began; once the members have voted to admit it,"
                " start again"
            )
        if state.slashed >> self._context.me & 1:
            raise Fault(
                "stake: slashed, and heard no more",
                offender=self._context.address,
                expected="statements that hold",
                got="one that was proven wrong on chain",
            )
        if not state.heard & attempt.standing & 1 << self._context.me:
            # It counts from the next round on, or has left: others do what is due in this one.
            return False
        done, failed = False, None
        for role in (self._challenger,) if phase_of(state, state.round, now) is Phase.FINISHED else self._roles:
            try:
                done = role.act(state, now) or done
            except (TransactionFailed, WorldError, OSError) as error:
                # One duty that fails must not keep this peer from its others.
                failed = error
        if failed is not None:
            raise failed
        return done

    def _is_over(self, state: FederationState, now: int) -> bool:
        """Whether nothing is left to do: the run is finished or this member has left, and its bond is free."""
        context, me = self._context, self._context.me
        finished = phase_of(state, state.round, now) is Phase.FINISHED
        if not finished and not has_left(state, me, now):
            self._over = False
            return False
        free = bond_free_at(state, me, now)
        if not self._over:
            self._over = True
            context.log.info(
                "the run is finished" if finished else "this member counts no more",
                bond="fedchain withdraw takes it back when it is free",
                stays_s=max(free - now, 0) if self._stay and free is not None else None,
            )
        held = state.bonded >> me & 1 and free is not None and now < free
        return not (self._stay and held)

    def _close_rounds(self, state: FederationState, now: int) -> bool:
        """Check the rounds that closed, before anything is built on their models; whether that is settled.

        Once it is: keep the model, write the meter, let old objects go.
        """
        if not self._challenger.settled(state, now):
            return False
        closed, before = len(state.closed), self._closed
        self._closed = closed
        if 0 <= before < closed:
            context, attempt = self._context, state.closed[closed]
            assert attempt.result is not None
            self._keeper.submit(self._keep, attempt.result.model_digest, attempt.result.model_cid)
            context.meter.close(closed, attempt.attempt)
            context.log.info("round closed", round=closed)
            self._erase_keys(state, now)
            self._holdings.forget(state, closed - context.charter.storage.keep_rounds + 1)
            context.kept.forget(closed - context.charter.storage.keep_rounds + 1)
            context.forget_results(unowed_results(state, now))
        return True

    def _erase_keys(self, state: FederationState, now: int) -> None:
        """Erase what opens shares that nobody will have to open again (P0.8)."""
        context = self._context
        try:
            erased = context.keys.erase_except(needed_keys(state, context.me, now))
        except UsageError as error:
            context.log.error("an old key is still there", reason=str(error))
            return
        if erased:
            context.log.info("old keys erased", keys=[public.hex() for public in erased])

    def _keep(self, digest: Digest, cid: Cid) -> None:
        """Have a model in this peer's store, beside the work: who joins later needs it, and its author may hide it.

        A CID is its author's word, and may name anything of any size: only one that is the model's is pinned.
        """
        context = self._context
        try:
            model = context.model(digest, cid)
            if cid_of(model) != cid or not self._pinned(cid):
                context.store.put(model)
        except WorldError as error:
            context.log.warning("model not kept", model=cid, reason=str(error))

    def _pinned(self, cid: Cid) -> bool:
        try:
            self._context.store.pin(cid)
        except WorldError as error:
            self._context.log.warning("model not pinned", model=cid, reason=str(error))
            return False
        return True


def has_left(state: FederationState, me: Index, now: int) -> bool:
    """Whether a member that enrolled counts no more, and will not again: it resigned, was removed, or took its bond."""
    counts = (state.standing | state.joining) >> me & 1
    return start_of_run(state, now) is not None and me in state.members and not counts and not state.slashed >> me & 1
