"""Whether a peer is well: its chain and store answer, and it looks at the chain as often as it should.

A thread of its own asks the doors, over connections of its own, so that neither a slow endpoint nor whoever reads the
answer ever holds a duty up. Nothing here says anything that is secret, not even where the doors are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client import Counter, Gauge

from ..chain.reader import Reader
from ..chain.rpc import Rpc, quantity
from ..errors import FedchainError
from ..protocol.ids import Address, Index
from ..protocol.phase import phase_of
from ..protocol.state import FederationState
from ..store.ipfs import IpfsStore
from .meter import Meter, duties_of

ASK_S = 5.0
"""How long a door may take to answer."""

PAUSE_S = 5.0
"""Between two rounds of questions."""

STALE_S = 60.0
"""A door that has not answered for so long is shut."""

PATIENCE_S = 120.0
"""A peer looks at least this often, or once in its longest window where that is longer: it may be training."""

_MOST_TRANSACTIONS = 256


Place = tuple[int, int]
"""A block's number and its timestamp (seconds)."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What is asked, each in bounded time; whatever fails raises FedchainError.

    `head` gives the newest block's number and timestamp; `read` those of the block that the peer read up to, without
    asking anybody; `balance` the account's coins in wei; `gas` what a transaction took; `store` answers or does not.
    """

    head: Callable[[], Place]
    read: Callable[[], Place | None]
    balance: Callable[[], int]
    gas: Callable[[bytes], int]
    store: Callable[[], object]


def doors_of(rpc_url: str, address: Address, reader: Reader, ipfs: str) -> Doors:
    """The doors of a peer, over connections of their own; `reader` is the peer's, and is asked nothing."""
    rpc, store = Rpc(rpc_url, timeout_s=ASK_S, attempts=1), IpfsStore(ipfs, timeout_s=ASK_S, attempts=1)

    def head() -> Place:
        block = rpc.call("eth_getBlockByNumber", "latest", False)
        if not isinstance(block, dict):
            raise rpc.nonsense("there is no newest block")
        return quantity(rpc, block.get("number"), "a number"), quantity(rpc, block.get("timestamp"), "a timestamp")

    def gas(transaction: bytes) -> int:
        receipt = rpc.call("eth_getTransactionReceipt", "0x" + transaction.hex())
        return quantity(rpc, receipt.get("gasUsed"), "gasUsed") if isinstance(receipt, dict) else 0

    return Doors(
        head=head,
        read=lambda: None if (block := reader.block_read) is None else (block.number, block.timestamp),
        balance=lambda: quantity(rpc, rpc.call("eth_getBalance", address, "latest"), "a balance"),
        gas=gas,
        store=store.identity,
    )


class Health:
    """What is known of one peer's health; `verdict` may be asked from any thread."""

    def __init__(self, meter: Meter, me: Index, doors: Doors, *, clock: Callable[[], float] = time.time) -> None:
        self._meter, self._me, self._doors, self._clock = meter, me, doors, clock
        to = meter.registry
        self._head = Gauge("fedchain_block_head", "The newest block of the chain.", registry=to)
        self._read = Gauge("fedchain_block_read", "The block that this peer has read up to.", registry=to)
        self._lag = Gauge("fedchain_block_lag", "Blocks between the two.", registry=to)
        self._head_at = Gauge("fedchain_block_head_timestamp_seconds", "The newest block's own time.", registry=to)
        self._looked = Gauge("fedchain_last_look_timestamp_seconds", "When the peer last read the chain.", registry=to)
        self._balance = Gauge("fedchain_balance_ether", "Coins of the member's account.", registry=to)
        self._reachable = Gauge("fedchain_reachable", "1 where chain, store answered last time.", ["door"], registry=to)
        self._gas = Counter("fedchain_gas", "Gas of this process's mined statements.", registry=to)
        self._head.set_function(lambda: self._newest()[0])
        self._head_at.set_function(lambda: self._newest()[1])
        self._read.set_function(lambda: (doors.read() or (0, 0))[0])
        self._lag.set_function(lambda: self._newest()[0] - (doors.read() or (0, 0))[0])
        self._healthy = Gauge("fedchain_healthy", "1 where /healthz says so.", registry=to)
        self._healthy.set_function(lambda: float(self.verdict()[0]))
        self._started = clock()
        self._answered: dict[str, float] = {}
        self._state: tuple[FederationState, int] | None = None
        self._last_look = self._started
        self._seen: Place = (0, 0)
        self._mined: deque[bytes] = deque(maxlen=_MOST_TRANSACTIONS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, name="health", daemon=True)

    def __enter__(self) -> Health:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def look(self, state: FederationState, now: int) -> None:
        """The peer read the chain."""
        self._state, self._last_look = (state, now), self._clock()
        self._looked.set(self._last_look)
        self._meter.look(state, now, self._me)

    def mined(self, transaction: bytes) -> None:
        """A statement was made; what it cost is asked later."""
        self._mined.append(transaction)

    def ask(self) -> None:
        """Ask every door once."""
        self._try("chain", self._ask_chain)
        self._try("store", self._doors.store)

    def verdict(self) -> tuple[bool, dict[str, Any]]:
        """Whether the peer is well, and what is known, for JSON."""
        now = self._clock()
        patience = PATIENCE_S
        known: dict[str, Any] = {"last_look_age_s": round(now - self._last_look, 1)}
        if self._state is not None:
            state, at = self._state
            patience = max(patience, state.terms.training_window_s, state.terms.receipt_window_s)
            known |= {
                "round": min(state.round, state.terms.rounds),
                "rounds_closed": len(state.closed),
                "phase": phase_of(state, state.round, at).name.lower(),
                "duties": duties_of(state, at, self._me),
            }
        reasons = [
            f"the {door} does not answer"
            for door in ("chain", "store")
            if now - self._answered.get(door, self._started) > STALE_S
        ]
        if now - self._last_look > patience:
            reasons.append(f"the peer has not read the chain for {now - self._last_look:.0f} s")
        if self._state is not None and self._state[0].slashed >> self._me & 1:
            reasons.append("this member was slashed")
        number, at = self._newest()
        if number:
            read = self._doors.read()
            known["head"] = {"block": number, "age_s": round(now - at, 1), "read": None if read is None else read[0]}
        if self._meter.last_act is not None:
            act, when = self._meter.last_act
            known["last_act"] = {"what": act, "age_s": round(now - when, 1)}
        known["reachable"] = {door: now - self._answered.get(door, 0.0) <= STALE_S for door in ("chain", "store")}
        return not reasons, {"healthy": not reasons, "reasons": reasons, **known}

    def _newest(self) -> Place:
        """The newest block that anybody here has seen: between two questions the peer may have read on."""
        return max(self._seen, self._doors.read() or (0, 0))

    def _ask_on(self) -> None:
        while not self._stop.is_set():
            self.ask()
            self._stop.wait(PAUSE_S)

    def _try(self, door: str, ask: Callable[[], object]) -> None:
        try:
            ask()
        except (FedchainError, OSError):
            self._reachable.labels(door).set(0)
            return
        self._answered[door] = self._clock()
        self._reachable.labels(door).set(1)

    def _ask_chain(self) -> None:
        self._seen = self._doors.head()
        self._balance.set(self._doors.balance() / 10**18)
        while self._mined:
            self._gas.inc(self._doors.gas(self._mined[0]))
            self._mined.popleft()
