"""Signs and sends one member's statements; implements `ports.ChainWriter`.

Each duty has a key, and a key makes one statement: one recipient, one value, one calldata, byte for byte. Its raw
transaction is journalled before it is sent, and after a crash, a reorganisation or a lost connection the very same
bytes are sent again. The statement is signed anew only where those bytes can do nothing any more (mined and reverted,
or their nonce taken by another transaction), or where their fee is too low (same nonce, higher fee).

Why no kill -9 loses or doubles a statement: before the journal has a transaction nobody has seen it, and after that it
is sent until it is settled. Two of the same nonce are never both mined. Two of different nonces may be, when a deeper
reorganisation than the confirmations waited for revives the first; but they say the same, and the contract takes each
statement of a member once and reverts its repetition, coins and all. One account has one sender; its nonces are counted
here, because the chain's own count lags behind.
"""

from __future__ import annotations

import threading
import time

from eth_hash.auto import keccak
from web3 import Web3

from ..errors import ChainMismatch, TransactionFailed
from ..ports import TransactionJournal
from ..protocol.actions import Action
from ..protocol.ids import Address
from .account import ChainAccount
from .artifacts import load_artifact
from .calls import call_of
from .raw import nonce_of, parse_raw
from .rpc import Rpc, code_at, parse_address

_MOST_RAISES = 3
"""How often one `submit` may raise a waiting transaction's fee; it waits an equal part of its time before each."""


class Sender:
    """One account's only sender in one federation. May be used from several threads.

    `confirmations` is how many blocks must lie on top of a transaction before `submit` returns; `mine_timeout_s` bounds
    the wait. Nothing is asked of the endpoint before the first `submit`.
    """

    def __init__(
        self,
        rpc_url: str,
        contract: str,
        private_key: bytes,
        journal: TransactionJournal,
        *,
        chain_id: int | None = None,
        confirmations: int = 0,
        mine_timeout_s: float = 120.0,
        rpc: Rpc | None = None,
    ) -> None:
        self._rpc = rpc or Rpc(rpc_url)
        self._contract = parse_address(contract)
        self._journal = journal
        self._confirmations = confirmations
        self._mine_timeout_s = mine_timeout_s
        self._account = ChainAccount(self._rpc, private_key, expected_chain_id=chain_id)
        self._encoder = Web3().eth.contract(abi=list(load_artifact().abi))
        self._turn = threading.Lock()
        self._found = False

    @property
    def address(self) -> Address:
        """The account."""
        return self._account.address

    def submit(self, key: str, action: Action) -> bytes:
        """Send one action and wait until it is mined; gives the hash of the transaction that made the statement.

        The raw transaction is journalled under `key` before it is sent; while it may still be mined it stands, whatever
        `action` says now. Raises ChainUnreachable, and TransactionFailed (`error_name` is the contract's error,
        "NonceTaken" or "OtherStatement"): the duty stays as it is, and may be tried again.
        """
        with self._turn:
            raw = self._standing(key) or self._promise(key, action)
        nonce, patience = nonce_of(raw), self._mine_timeout_s / (_MOST_RAISES + 1)
        raises = [time.monotonic() + i * patience for i in range(1, _MOST_RAISES + 1)]
        if self._account.receipt(keccak(raw)) is None:
            try:
                self._send(key, nonce)
            except TransactionFailed:
                # A node may keep no transaction whose fee is below the block's.
                raises.pop(0)
                if not self._raise_fees(key, nonce):
                    raise
                self._send(key, nonce)

        def resend() -> None:
            if raises and time.monotonic() >= raises[0]:
                raises.pop(0)
                self._raise_fees(key, nonce)
            self._send(key, nonce)

        receipt = self._account.wait(
            raw,
            confirmations=self._confirmations,
            timeout_s=self._mine_timeout_s,
            resend=resend,
            others=lambda: self._journal.transactions(key),
        )
        return receipt.transaction

    def _standing(self, key: str) -> bytes | None:
        """The transaction of this key that succeeded, else the newest that may yet be mined; None when none may."""
        promised = self._journal.transactions(key)
        if not promised:
            return None
        # Counted before the receipts are asked for: what is mined in between has one.
        spent, standing = self._account.spent_nonces(self._confirmations), None
        for raw in promised:
            receipt = self._account.receipt(keccak(raw))
            if receipt is not None and receipt.succeeded:
                return raw
            over = nonce_of(raw) < spent if receipt is None else self._account.is_deep(receipt, self._confirmations)
            standing = standing if over else raw
        return standing

    def _promise(self, key: str, action: Action) -> bytes:
        """Sign, and journal before anybody else sees it. What was promised before under this key is over."""
        name, arguments, value = call_of(action)
        data = bytes.fromhex(str(self._encoder.encode_abi(name, args=list(arguments)))[2:])
        statement = bytes.fromhex(self._contract[2:]), value, data
        if any(parse_raw(raw).statement != statement for raw in self._journal.transactions(key)):
            raise TransactionFailed(f"another statement was signed for {key}; no second one is", "OtherStatement")
        self._check_contract()
        prepared = self._account.prepare(self._contract, data, value)
        nonce = max(self._account.nonce("pending"), self._journal.next_nonce())
        raw = self._account.sign(prepared, nonce)
        self._journal.promise_transaction(key, nonce, raw)
        return raw

    def _raise_fees(self, key: str, nonce: int) -> bool:
        """Sign again, for a higher fee, whatever waits for too low a one up to this duty's nonce; whether anything did.

        A lower nonce may belong to a duty that never comes again. It is raised even if the contract would refuse it by
        now: it holds up all that follow, and a reverted transaction lets them pass as well.
        """
        raised = False
        with self._turn:
            for owner, raw in self._journal.promised_from(self._account.nonce("latest")):
                place = nonce_of(raw)
                if place > nonce:
                    break
                dearer = self._account.dearer(raw)
                if dearer is None:
                    continue
                if owner == key:
                    try:
                        self._account.try_out(raw)
                    except TransactionFailed:
                        if self._account.nonce("latest") > place:
                            break  # Mined this very moment: of course it is refused a second time.
                        raise
                self._journal.promise_transaction(owner, place, dearer)
                raised = True
                if owner != key:
                    self._offer(dearer)
        return raised

    def _check_contract(self) -> None:
        """Coins sent to an address without code would be lost."""
        if self._found:
            return
        if not code_at(self._rpc, self._contract):
            raise ChainMismatch(f"there is no contract at {self._contract} on chain {self._account.chain_id}")
        self._found = True

    def _send(self, key: str, nonce: int) -> None:
        """Send this duty's newest transaction of a nonce, and before it those that the chain has not got.

        A gap holds all up; whose duty it is will hear of a refusal, this one only wants the gap closed if it can be.
        """
        for _, promised in self._journal.promised_from(self._account.nonce("pending")):
            if nonce_of(promised) >= nonce:
                break
            self._offer(promised)
        *older, newest = (raw for raw in self._journal.transactions(key) if nonce_of(raw) == nonce)
        try:
            self._account.send(newest)
        except TransactionFailed:
            # The same statement for a lower fee may wait there, or be mined: then nothing is lost.
            if not any(self._account.is_known(raw) for raw in older):
                raise

    def _offer(self, raw: bytes) -> None:
        try:
            self._account.send(raw)
        except TransactionFailed:
            return


class VolatileJournal:
    """A journal in memory, for an operator's single commands: the contract itself refuses their repetition."""

    def __init__(self) -> None:
        self._promised: list[tuple[str, int, bytes]] = []

    def transaction(self, key: str) -> bytes | None:
        """The newest raw transaction promised under `key`, if any."""
        return (self.transactions(key) or (None,))[-1]

    def transactions(self, key: str) -> tuple[bytes, ...]:
        """Every raw transaction promised under `key`, oldest first."""
        return tuple(raw for owner, _, raw in self._promised if owner == key)

    def promise_transaction(self, key: str, nonce: int, raw: bytes) -> None:
        """Keep these bytes for as long as this process lives."""
        self._promised.append((key, nonce, raw))

    def next_nonce(self) -> int:
        """One more than the largest nonce promised; 0 when none is."""
        return max((nonce + 1 for _, nonce, _ in self._promised), default=0)

    def promised_from(self, nonce: int) -> tuple[tuple[str, bytes], ...]:
        """For this nonce and each later one, ascending: the newest raw transaction, with its key."""
        newest = {place: (key, raw) for key, place, raw in self._promised}
        return tuple(newest[place] for place in sorted(newest) if place >= nonce)
