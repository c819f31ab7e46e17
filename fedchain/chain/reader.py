"""Reads one federation from any Ethereum node: logs in, state out. Needs no key, and imports nothing that could sign.

A poll with nothing new is one call: the head's hash stands for the whole chain behind it. When the head moved, the last
block read is compared with the chain again; if its hash changed (a reorganisation, or a node that went back), the log
is cut back to the newest block that both agree on and read again from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import ChainMismatch, ChainUnreachable
from ..ports import Logged
from ..protocol.events import FederationFounded
from ..protocol.ids import Address
from ..protocol.state import FederationState
from ..protocol.transition import apply, check_possible, founded
from .artifacts import load_artifact
from .logs import LogDecoder
from .rpc import ResponseTooLarge, Rpc, RpcRefused, chain_id, code_at, octets, parse_address, quantity

_PAGE_BLOCKS = 2_000
"""What public endpoints commonly allow in one eth_getLogs; halved when an endpoint refuses."""

_MAX_LOGS_A_PAGE = 50_000
_CHECKPOINTS = 256
_TRIES = 5
_LATEST_TIMESTAMP = 1 << 40


@dataclass(frozen=True, slots=True)
class Block:
    """What the reader asks of a block header; `timestamp` in seconds."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: int


@dataclass(frozen=True, slots=True)
class Creation:
    """What a mined transaction carried: `to` is None when it created the contract `created`."""

    to: str | None
    data: bytes
    created: Address | None


class _ChainMoved(Exception):
    """The chain changed between two calls of one reading; begin again."""


class Reader:
    """One federation as one endpoint tells it; implements `ports.ChainReader`. Use it from one thread.

    `from_block` is the block of the deployment (found by bisection when absent, which needs a node that keeps old
    state). `confirmations` is how many blocks must lie on top of a block before it is believed.
    """

    def __init__(
        self,
        rpc_url: str,
        contract: str,
        *,
        confirmations: int = 0,
        expected_chain_id: int | None = None,
        from_block: int | None = None,
        rpc: Rpc | None = None,
    ) -> None:
        self._rpc = rpc or Rpc(rpc_url)
        self._contract = parse_address(contract)
        self._confirmations = confirmations
        self._expected_chain_id = expected_chain_id
        self._from_block = from_block
        self._decoder = LogDecoder(load_artifact().abi)
        self._chain_id: int | None = None
        self._head: Block | None = None
        self._read: Block | None = None
        self._checkpoints: deque[tuple[int, bytes]] = deque(maxlen=_CHECKPOINTS)
        self._log: list[Logged] = []
        self._state: FederationState | None = None
        self._page = _PAGE_BLOCKS
        self._gas: dict[bytes, int] = {}

    @property
    def chain_id(self) -> int:
        """The chain's id (EIP-155). Raises ChainMismatch when it is not the expected one."""
        if self._chain_id is None:
            self._chain_id = chain_id(self._rpc, self._expected_chain_id)
        return self._chain_id

    @property
    def contract(self) -> Address:
        """The federation's contract."""
        return self._contract

    @property
    def block_read(self) -> Block | None:
        """The newest block whose logs were read; asks nobody."""
        return self._read

    @property
    def rpc_url(self) -> str:
        """The endpoint."""
        return self._rpc.url

    def refresh(self) -> FederationState:
        """The state as of the newest block with enough confirmations; reads only what is new.

        Raises ChainUnreachable, ChainMismatch.
        """
        for _ in range(_TRIES):
            try:
                self._catch_up()
                break
            except _ChainMoved:
                self._head = None
        else:
            raise ChainUnreachable(f"the chain at {self._rpc.endpoint} changes faster than it can be read")
        if self._state is None:
            raise ChainUnreachable(
                f"the contract {self._contract} has not {self._confirmations} confirmations yet; wait for more blocks"
            )
        return self._state

    def now(self) -> int:
        """The time to judge the state by: the next block's, or with confirmations to wait for that of the block read.

        A state that lags behind the head must not be judged by the head's time: windows would seem to pass in which
        statements were made that are not confirmed yet.
        """
        if self._confirmations and self._read is not None:
            return self._read.timestamp
        try:
            pending = self._rpc.call("eth_getBlockByNumber", "pending", False)
        except RpcRefused:
            pending = None
        if not isinstance(pending, dict) or pending.get("timestamp") is None:
            return self._block("latest").timestamp
        # Some nodes give a pending block that is older than the head.
        return max(_timestamp(self._rpc, pending), self._head.timestamp if self._head else 0)

    def log(self) -> tuple[Logged, ...]:
        """Every event read so far, in chain order."""
        return tuple(self._log)

    def gas_used(self, transaction: bytes) -> int:
        """The gas one mined transaction took. Raises ChainUnreachable when the node does not know it."""
        if transaction not in self._gas:
            receipt = self._rpc.call("eth_getTransactionReceipt", "0x" + transaction.hex())
            if not isinstance(receipt, dict):
                raise ChainUnreachable(f"{self._rpc.endpoint} knows no mined transaction 0x{transaction.hex()}")
            self._gas[transaction] = quantity(self._rpc, receipt.get("gasUsed"), "gasUsed")
        return self._gas[transaction]

    def code_at(self, block: int | str = "latest", address: Address | None = None) -> bytes:
        """The contract's code on chain at a block, or that of another address; empty when there is none."""
        return code_at(self._rpc, address or self._contract, block)

    def balance(self) -> int | None:
        """What the contract held (wei) at the block that was read last; None where the endpoint keeps no such state."""
        block = hex(self._read.number) if self._read is not None else "latest"
        try:
            return quantity(self._rpc, self._rpc.call("eth_getBalance", self._contract, block), "a balance")
        except RpcRefused:
            return None

    def input_of(self, transaction: bytes) -> Creation:
        """What a mined transaction carried. Raises ChainUnreachable when the node does not know it."""
        name = "0x" + transaction.hex()
        calls = [("eth_getTransactionByHash", (name,)), ("eth_getTransactionReceipt", (name,))]
        sent, receipt = self._rpc.batch(calls)
        if not isinstance(sent, dict) or not isinstance(receipt, dict):
            raise ChainUnreachable(f"{self._rpc.endpoint} knows no mined transaction {name}")
        created = receipt.get("contractAddress")
        return Creation(
            to=None if sent.get("to") is None else str(sent["to"]),
            data=octets(self._rpc, sent.get("input"), "a transaction's input"),
            created=parse_address(created) if isinstance(created, str) else None,
        )

    def _catch_up(self) -> None:
        head = self._block("latest")
        if self._head is not None and head.hash == self._head.hash:
            return
        _ = self.chain_id
        safe_number = head.number - self._confirmations
        if self._read is not None and not self._follows(head):
            self._cut_back(safe_number)
        start = self._start(head) if self._read is None else self._read.number + 1
        if safe_number < start:
            self._head = head
            return
        safe = head if safe_number == head.number else self._block(hex(safe_number))
        if start == safe_number:
            fresh = self._entries_of(safe)
        else:
            fresh = [entry for page in self._pages(start, safe_number) for entry in page]
            # Read by number, the logs belong to this chain only if its end is still the same.
            if self._block(hex(safe_number)).hash != safe.hash:
                raise _ChainMoved
        state, log = self._state, []
        for entry in fresh:
            state = self._after(state, entry)
            log.append(entry)
        if state is None:
            raise ChainMismatch(
                f"{self._contract} on chain {self.chain_id} never said FederationFounded after block {start};"
                " is it a federation, and the block of its deployment right?"
            )
        self._log += log
        self._state, self._read, self._head = state, safe, head
        self._checkpoints.append((safe.number, safe.hash))

    def _follows(self, head: Block) -> bool:
        """Whether everything read so far is still part of the chain under `head`."""
        assert self._read is not None
        if self._head is not None and head.parent_hash == self._head.hash:
            return True
        return self._hash_at(self._read.number) == self._read.hash

    def _cut_back(self, safe_number: int) -> None:
        """Forget what the chain took back: keep the log up to the newest known block that is still there."""
        known = dict(self._checkpoints) | {e.block_number: e.block_hash for e in self._log}
        step, candidates = 0, sorted((n for n in known if n <= safe_number), reverse=True)
        common: Block | None = None
        while step < len(candidates):
            block = self._block_if_any(hex(candidates[step]))
            if block is not None and block.hash == known.get(block.number):
                common = block
                break
            # One, two, four … back: a deep reorganisation costs few calls, and at most re-reads what stood.
            step = 2 * step + 1
        last = common.number if common else -1
        self._log = [entry for entry in self._log if entry.block_number <= last]
        self._checkpoints = deque((c for c in self._checkpoints if c[0] <= last), maxlen=_CHECKPOINTS)
        self._state = None
        for entry in self._log:
            self._state = self._after(self._state, entry)
        self._read = common if self._state is not None else None
        self._head = None

    def _after(self, state: FederationState | None, entry: Logged) -> FederationState:
        """The state after one more entry. Raises ChainMismatch for a log that the contract cannot have written."""
        event = entry.event
        where = f"the log of {self._contract} at block {entry.block_number}"
        if state is None:
            if not isinstance(event, FederationFounded):
                raise ChainMismatch(f"{where} does not begin with FederationFounded; read from the deployment's block")
            return founded(event)
        try:
            check_possible(state, event)
            return apply(state, event)
        except ValueError as error:
            raise ChainMismatch(f"{where} is impossible: {error}") from error

    def _start(self, head: Block) -> int:
        """The block of the deployment: as given, or found by bisection over eth_getCode."""
        if self._from_block is None:
            if not self.code_at(hex(head.number)):
                raise ChainMismatch(f"there is no contract at {self._contract} on chain {self.chain_id}")
            low, high = 0, head.number
            while low < high:
                middle = (low + high) // 2
                try:
                    there = bool(self.code_at(hex(middle)))
                except RpcRefused as error:
                    raise ChainUnreachable(
                        f"{self._rpc.endpoint} keeps no state of block {middle}; give the deployment file, or its block"
                    ) from error
                low, high = (low, middle) if there else (middle + 1, high)
            self._from_block = low
        elif self._state is None and self._from_block > head.number:
            raise ChainUnreachable(
                f"{self._rpc.endpoint} is at block {head.number}, before the deployment at block {self._from_block}"
            )
        return self._from_block

    def _pages(self, start: int, end: int) -> Iterator[list[Logged]]:
        while start <= end:
            last = min(end, start + self._page - 1)
            try:
                raw = self._rpc.call(
                    "eth_getLogs", {"address": self._contract, "fromBlock": hex(start), "toBlock": hex(last)}
                )
            except (RpcRefused, ResponseTooLarge):
                if last == start:
                    raise
                self._page = max(1, (last - start + 1) // 2)
                continue
            yield self._entries(raw, start, last)
            start = last + 1
            self._page = min(2 * self._page, _PAGE_BLOCKS)

    def _entries_of(self, block: Block) -> list[Logged]:
        """One block's entries, asked for by its hash: they cannot be another block's (EIP-234)."""
        try:
            raw = self._rpc.call("eth_getLogs", {"address": self._contract, "blockHash": "0x" + block.hash.hex()})
        except RpcRefused as error:
            raise _ChainMoved from error
        return self._entries(raw, block.number, block.number)

    def _entries(self, raw: object, start: int, end: int) -> list[Logged]:
        if not isinstance(raw, list) or len(raw) > _MAX_LOGS_A_PAGE:
            raise self._rpc.nonsense("eth_getLogs gave no list of logs")
        placed = sorted((self._place(entry, start, end) for entry in raw), key=lambda p: (p.number, p.log_index))
        if len({(p.number, p.log_index) for p in placed}) != len(placed):
            raise self._rpc.nonsense("two logs in one place")
        times = self._times(placed)
        return [
            Logged(
                event=self._decoder.decode(p.topics, p.data, times[p.number]),
                block_number=p.number,
                block_hash=p.hash,
                transaction=p.transaction,
                log_index=p.log_index,
            )
            for p in placed
        ]

    def _place(self, entry: object, start: int, end: int) -> _Placed:
        if not isinstance(entry, dict) or not isinstance(entry.get("topics"), list) or len(entry["topics"]) > 4:
            raise self._rpc.nonsense("a log without topics")
        if str(entry.get("address")).lower() != self._contract.lower() or entry.get("removed"):
            raise self._rpc.nonsense("a log that was not asked for")
        number = quantity(self._rpc, entry.get("blockNumber"), "a log's blockNumber")
        if not start <= number <= end:
            raise self._rpc.nonsense(f"a log of block {number}, asked for {start} to {end}")
        return _Placed(
            number=number,
            hash=octets(self._rpc, entry.get("blockHash"), "a log's blockHash", length=32),
            transaction=octets(self._rpc, entry.get("transactionHash"), "a log's transactionHash", length=32),
            log_index=quantity(self._rpc, entry.get("logIndex"), "a log's logIndex"),
            topics=tuple(octets(self._rpc, t, "a log's topic", length=32) for t in entry["topics"]),
            data=octets(self._rpc, entry.get("data"), "a log's data", at_most=1 << 14),
        )

    def _times(self, placed: Sequence[_Placed]) -> dict[int, int]:
        """The timestamps of the blocks that hold these logs; each block's hash must be the one its logs name."""
        hashes = {p.number: p.hash for p in placed}
        if any(hashes[p.number] != p.hash for p in placed):
            raise _ChainMoved
        numbers, times = sorted(hashes), {}
        for i in range(0, len(numbers), 100):
            few = numbers[i : i + 100]
            answers = self._rpc.batch([("eth_getBlockByNumber", (hex(n), False)) for n in few])
            for number, answer in zip(few, answers, strict=True):
                block = _header(self._rpc, answer) if answer is not None else None
                if block is None or block.number != number or block.hash != hashes[number]:
                    raise _ChainMoved
                times[number] = block.timestamp
        return times

    def _hash_at(self, number: int) -> bytes | None:
        block = self._block_if_any(hex(number))
        return block.hash if block else None

    def _block(self, which: str) -> Block:
        block = self._block_if_any(which)
        if block is None:
            raise _ChainMoved
        return block

    def _block_if_any(self, which: str) -> Block | None:
        answer = self._rpc.call("eth_getBlockByNumber", which, False)
        return None if answer is None else _header(self._rpc, answer)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A log entry whose form was checked, and not yet its meaning."""

    number: int
    hash: bytes
    transaction: bytes
    log_index: int
    topics: tuple[bytes, ...]
    data: bytes


def _header(rpc: Rpc, answer: object) -> Block:
    if not isinstance(answer, dict):
        raise rpc.nonsense("eth_getBlockByNumber gave no block")
    return Block(
        number=quantity(rpc, answer.get("number"), "a block's number"),
        hash=octets(rpc, answer.get("hash"), "a block's hash", length=32),
        parent_hash=octets(rpc, answer.get("parentHash"), "a block's parentHash", length=32),
        timestamp=_timestamp(rpc, answer),
    )


def _timestamp(rpc: Rpc, answer: dict[str, object]) -> int:
    timestamp = quantity(rpc, answer.get("timestamp"), "a block's timestamp")
    if timestamp >= _LATEST_TIMESTAMP:
        raise rpc.nonsense(f"a block of time {timestamp}")
    return timestamp
