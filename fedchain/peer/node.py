"""The node: reads the chain, lets each role do what is due, and waits. It holds no phase of its own.

After a crash it reads the chain and its journal and goes on where the federation stands.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..errors import Fault, TransactionFailed, UsageError, WorldError
from ..protocol.ids import Cid
from ..protocol.phase import Phase, phase_of
from ..protocol.state import FederationState
from .aggregator import Aggregator
from .challenger import Challenger
from .context import PeerContext
from .decoder import Decoder
from .holdings import Holdings
from .shareholder import Shareholder
from .trainer import Trainer

_LONGEST_WAIT_S = 10.0


class Node:
    """One peer at work. `watch`, if given, is called with (state, now) whenever either may have changed."""

    def __init__(
        self, context: PeerContext, poll_s: float = 0.25, watch: Callable[[FederationState, int], None] | None = None
    ) -> None:
        self._context = context
        self._poll_s = poll_s
        self._watch = watch
        holdings = Holdings(context)
        self._holdings = holdings
        decoder = Decoder(context, holdings)
        self._challenger = Challenger(context, holdings, decoder)
        aggregator = Aggregator(context, holdings, decoder)
        self._roles = (Trainer(context), Shareholder(context, holdings), self._challenger, aggregator)
        self._closed = -1
        self._keeper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keeper")

    def run(self) -> FederationState:
        """Work until the run is finished; gives the final state.

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
                settled = self._close_rounds(state, now)
                if settled and phase_of(state, state.round, now) is Phase.FINISHED:
                    self._keeper.shutdown()
                    return state
                pause = self._poll_s
                if settled and self.step(state, now):
                    continue
            except TransactionFailed as error:
                self._context.log.warning("transaction refused", reason=str(error))
                pause = min(pause * 2, _LONGEST_WAIT_S)
            except (WorldError, OSError) as error:
                self._context.log.warning("trying again", reason=str(error), pause_s=pause)
                pause = min(pause * 2, _LONGEST_WAIT_S)
            time.sleep(pause)

    def step(self, state: FederationState, now: int) -> bool:
        """Let each role do what is due at this state and time; whether anything was done."""
        if phase_of(state, state.round, now) is Phase.ENROLLING:
            return False
        if self._context.me not in state.members:
            raise UsageError(f"{self._context.address} did not enrol before the run began; it can only watch")
        if state.slashed >> self._context.me & 1:
            raise Fault(
                "stake: slashed, and heard no more",
                offender=self._context.address,
                expected="statements that hold",
                got="one that was proven wrong on chain",
            )
        done, failed = False, None
        for role in self._roles:
            try:
                done = role.act(state, now) or done
            except (TransactionFailed, WorldError, OSError) as error:
                # One duty that fails must not keep this peer from its others.
                failed = error
        if failed is not None:
            raise failed
        return done

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
            self._keeper.submit(self._keep, attempt.result.model_cid)
            context.meter.close(closed, attempt.attempt)
            context.log.info("round closed", round=closed)
            self._holdings.forget(state, closed - context.charter.storage.keep_rounds + 1)
            context.kept.forget(closed - context.charter.storage.keep_rounds + 1)
        return True

    def _keep(self, model: Cid) -> None:
        """Pin a model, beside the work: others have it too, and no duty waits for it."""
        try:
            self._context.store.pin(model)
        except WorldError as error:
            self._context.log.warning("model not pinned", model=model, reason=str(error))
