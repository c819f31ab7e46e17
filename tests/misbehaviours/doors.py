"""Stores, endpoints, clocks, strangers: what fails or lies around members that are honest, and blamed for nothing."""

from __future__ import annotations

import threading
import time
from collections import UserDict
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, ClassVar

from eth_hash.auto import keccak

from fedchain.chain.artifacts import load_artifact
from fedchain.chain.logs import signature
from fedchain.chain.rpc import Rpc
from fedchain.errors import ObjectMissing
from fedchain.protocol.ids import Cid
from fedchain.store.ipfs import IpfsStore

from .catalogue import Expected, Liar, misbehaviour

DAY_S = 86_400

NOT_ITS_OWN = "waits for half of the receipt window, vouches for nothing, and opens nothing; t others do"


_ASKED_FOR_A_FILE: ContextVar[bool] = ContextVar("asked_for_a_file", default=False)
"""Whether this thread's store is just asked for an upload's object: those are what it lies about."""


def flipped(content: bytes) -> bytes:
    """The same bytes, but for one bit of the last."""
    return content[:-1] + bytes([content[-1] ^ 1])


class Flipped(UserDict[Cid, bytes]):
    """The same objects with a bit changed in each, under the CIDs that they had."""

    def __getitem__(self, cid: Cid) -> bytes:
        return flipped(self.data[cid])


def lying_stream(stream: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
    """What an IPFS API answers, each piece of it a bit off when a file is asked for."""

    def answer(*arguments: Any, **options: Any) -> Iterator[bytes]:
        pieces = stream(*arguments, **options)
        return map(flipped, pieces) if _ASKED_FOR_A_FILE.get() else pieces

    return answer


@misbehaviour(
    "lying-store",
    "every object is verified against its CID; its peer " + NOT_ITS_OWN,
    Expected(),
    door="store",
)
def lying_store(kind: type) -> type:
    """A store gives one peer other bytes than were asked for."""

    class Lying(kind):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if isinstance(self, IpfsStore):
                self._api.stream = lying_stream(self._api.stream)  # type: ignore[method-assign]

        @property
        def served(self) -> Any:
            """What a store in memory reads from; an IPFS store has no such thing."""
            if not _ASKED_FOR_A_FILE.get():
                return self._objects
            lies = Flipped()
            lies.data = self._objects
            return lies

        @served.setter
        def served(self, objects: dict[Cid, bytes]) -> None:
            self._objects = objects

        def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
            token = _ASKED_FOR_A_FILE.set(True)
            try:
                super().get_file(cid, max_bytes, path)
            finally:
                _ASKED_FOR_A_FILE.reset(token)

    return Lying


@misbehaviour("empty-store", "its peer " + NOT_ITS_OWN, Expected(), door="store")
def empty_store(kind: type) -> type:
    """A store finds nobody who has what is asked for."""

    class Empty(kind):  # type: ignore[misc, valid-type]
        def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
            raise ObjectMissing(f"no reachable store has {cid}")

    return Empty


class Slowness:
    """How a slow store is waited for; a test lets the chain's time pass instead."""

    wait: ClassVar[Callable[[], None]] = lambda: time.sleep(5)


@misbehaviour(
    "slow-store",
    "windows are limits: its peer is in time, or has a strike if it is not",
    Expected(),
    door="store",
)
def slow_store(kind: type) -> type:
    """A store takes minutes for every object."""

    class Slow(kind):  # type: ignore[misc, valid-type]
        def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
            Slowness.wait()
            super().get_file(cid, max_bytes, path)

    return Slow


def topic_of(event: str) -> str:
    """The first topic of an event's logs."""
    entry = next(e for e in load_artifact().abi if e["type"] == "event" and e["name"] == event)
    return "0x" + keccak(signature(entry).encode()).hex()


def deceived(kind: type, change: Callable[[str, Any], Any]) -> type:
    """A reader whose endpoint's answers go through `change(method, result)`."""

    class Lying(Rpc):
        def call(self, method: str, *params: object) -> Any:
            return change(method, super().call(method, *params))

    class Deceived(kind):  # type: ignore[misc, valid-type]
        def __init__(self, url: str, contract: str, **options: Any) -> None:
            super().__init__(url, contract, **(options | {"rpc": Lying(url)}))

    return Deceived


def log_deceived(kind: type, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> type:
    """A reader to whom each log is told as `change` makes it; None hides it."""

    def changed(method: str, result: Any) -> Any:
        if method != "eth_getLogs":
            return result
        return [told for entry in result if (told := change(entry)) is not None]

    return deceived(kind, changed)


@misbehaviour(
    "hiding-endpoint",
    "a set with a member in it that never committed is none that the contract locks: its peer opens nothing, and stops",
    Expected(stops="the RPC endpoint shows", strikes=1),
    door="reader",
)
def hiding_endpoint(kind: type) -> type:
    """An endpoint hides a member's commitments from one peer."""

    def hidden(entry: dict[str, Any]) -> dict[str, Any] | None:
        topics = entry["topics"]
        return None if topics[0] == topic_of("UpdateCommitted") and int(topics[2], 16) == 0 else entry

    return log_deceived(kind, hidden)


@misbehaviour(
    "equivocating-endpoint",
    "a set is held to the contract's own rules before it is opened: its peer opens none of two, and stops",
    Expected(stops="the RPC endpoint shows"),
    door="reader",
)
def equivocating_endpoint(kind: type) -> type:
    """An endpoint shows one peer another participant set than was locked, of two members."""

    def shown(entry: dict[str, Any]) -> dict[str, Any]:
        if entry["topics"][0] != topic_of("AggregateCommitted"):
            return entry
        words = [entry["data"][2:][64 * i : 64 * (i + 1)] for i in range(5)]
        words[2] = f"{0b11:064x}"
        return entry | {"data": "0x" + "".join(words)}

    return log_deceived(kind, shown)


@misbehaviour(
    "other-chain",
    "nothing is read from another chain than expected, nothing signed for it: its peer does not start",
    Expected(out=True, stops="expected chain", strikes=1),
    door="reader",
)
def other_chain(kind: type) -> type:
    """An endpoint serves another chain."""
    return deceived(kind, lambda method, result: "0x7" if method == "eth_chainId" else result)


def _clock_skew() -> None:
    """Put each member's own clock wrong by another number of days: by its thread's name, or by one."""
    right = time.time
    Liar.memory["skewed"] = True

    def wrong() -> float:
        name = threading.current_thread().name
        return right() + DAY_S * (int(name[-1]) - 2 if name.startswith("member-") else 1)

    time.time = wrong


@misbehaviour(
    "clock-skew",
    "time is the chain's: no peer looks at its own clock to judge a phase",
    Expected(),
    process=_clock_skew,
)
class ClockSkew:
    """A member's own clock is wrong by a day."""


def _staged(name: str, tries: str, why: str, expected: Expected) -> None:
    """Enters what takes more than one peer to play."""

    def staged() -> None:
        raise NotImplementedError

    staged.__doc__ = tries
    misbehaviour(name, why, expected, staged=True)(staged)


_staged(
    "front-run-commitment",
    "Copies a commitment from the pool, and gets ahead of its author.",
    "a commitment binds its sender: the copy can be rebuilt by nobody, and is left out; the author's own counts",
    Expected(out=True, faults=(4,), logged="update refused"),
)
_staged(
    "replayed-transaction",
    "A stranger sends a member's transactions again, on the same chain and on another.",
    "a nonce is spent once, and a signature names its chain",
    Expected(),
)
_staged(
    "replayed-signature",
    "A stranger hands a member's signed statement to another federation's contract.",
    "a signed statement names chain and contract",
    Expected(refused="no member"),
)
_staged(
    "stranger",
    "An account that is no member commits, vouches, aggregates, opens, closes and votes.",
    "the contract hears members only",
    Expected(refused="no member"),
)
_staged(
    "block-clock",
    "Whoever makes the blocks puts each one's time ten minutes ahead.",
    "windows are limits: who has spoken counts; who is late has a strike, and nobody is named for it",
    Expected(),
)
_staged(
    "charter-mismatch",
    "A member's charter says something else than the contract was founded with.",
    "its peer does not start",
    Expected(out=True, stops="your charter", strikes=1),
)
_staged(
    "task-mismatch",
    "A member's task file is another than the charter's.",
    "its peer does not start",
    Expected(out=True, stops="federation.toml and the task file", strikes=1),
)
_staged(
    "weight-claim",
    "Enrols with more samples than it has, within the cap.",
    "nobody can count another's samples; the cap bounds what a claim brings",
    Expected(),
)
_staged(
    "weight-over-cap",
    "Enrols with a weight above the charter's cap.",
    "everybody counts the cap; the audit names who claimed more",
    Expected(faults=(2,)),
)
_staged(
    "low-order-key",
    "Registers an X25519 key of low order, to which nothing can be sealed.",
    "its shares are zeros and open for nobody; it can vouch for nothing and open nothing, the others can",
    Expected(),
)
_staged(
    "slashed-speaker",
    "Goes on speaking after it was slashed.",
    "the contract hears it no more",
    Expected(slashed=1, refused="was slashed"),
)
