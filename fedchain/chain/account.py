"""One account on one chain: what a transaction costs, its signature, sending it, and waiting until it is mined.

It decides nothing about nonces and keeps nothing: `sender.py` does, with a journal. Sending is safe to repeat, and the
truth about a transaction is asked of the chain, never read from an error message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from ..errors import NO_FUNDS, ChainUnreachable, TransactionFailed, UsageError
from ..protocol.ids import Address
from .artifacts import load_artifact
from .raw import nonce_of, parse_raw
from .reverts import Revert, RevertReader
from .rpc import Rpc, RpcRefused, chain_id, octets, parse_address, quantity
from .signing import Account

MOST_GAS = 16_000_000
"""No transaction of a federation needs more, and chains cap a transaction's gas at 2**24 (EIP-7825)."""

_MARGIN = 2
"""Estimated gas is multiplied by this: whoever closes a phase pays more than the state at estimation shows."""

_DEFAULT_TIP_WEI = 10**9
_MOST_TIP_WEI = 200 * 10**9
_MOST_FEE_WEI = 20_000 * 10**9
"""Tip and legacy price are paid as asked, so a lying node could drain the account: beyond these, nothing is signed."""

_RESEND_S = 3.0
_POLL_S, _LONGEST_POLL_S = 0.02, 1.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined transaction: `succeeded` is False when the contract reverted it."""

    transaction: bytes
    block_number: int
    succeeded: bool
    gas_used: int
    contract: Address | None


class ChainAccount:
    """An account that can sign on one chain; `expected_chain_id` is asserted before anything is signed."""

    def __init__(self, rpc: Rpc, private_key: bytes, *, expected_chain_id: int | None = None) -> None:
        self.rpc = rpc
        self._signer = Account.from_key(private_key)
        self.address = Address(self._signer.address)
        self._expected_chain_id = expected_chain_id
        self._chain_id: int | None = None
        self._reverts = RevertReader(load_artifact().abi)

    @property
    def chain_id(self) -> int:
        """The endpoint's chain. Raises ChainMismatch when it is not the expected one."""
        if self._chain_id is None:
            self._chain_id = chain_id(self.rpc, self._expected_chain_id)
        return self._chain_id

    def nonce(self, block: str) -> int:
        """How many transactions the account has in `block` ("latest": mined; "pending": and waiting)."""
        return quantity(self.rpc, self.rpc.call("eth_getTransactionCount", self.address, block), "a nonce")

    def balance(self) -> int:
        """The account's coins, in wei."""
        return quantity(self.rpc, self.rpc.call("eth_getBalance", self.address, "latest"), "a balance")

    def prepare(self, to: Address | None, data: bytes, value: int) -> dict[str, Any]:
        """A transaction without a nonce: gas and fees filled in, EIP-1559 where the chain has it.

        Raises TransactionFailed when the contract would revert it (with its reason) or the account cannot pay.
        """
        chain, latest = self.chain_id, self._latest()
        fees, balance = self._fees(latest), self.balance()
        self._check_funds(balance, value)
        gas = min(_MARGIN * self._estimate(to, data, value), MOST_GAS)
        gas = min(gas, quantity(self.rpc, latest.get("gasLimit"), "a block's gasLimit"))
        self._check_funds(balance, value + gas * fees.get("maxFeePerGas", fees.get("gasPrice", 0)))
        transaction: dict[str, Any] = {"chainId": chain, "data": data, "value": value, "gas": gas, **fees}
        return transaction if to is None else transaction | {"to": to}

    def sign(self, transaction: Mapping[str, Any], nonce: int) -> bytes:
        """The raw signed transaction."""
        return bytes(self._signer.sign_transaction({**transaction, "nonce": nonce}).raw_transaction)

    def dearer(self, raw: bytes) -> bytes | None:
        """The same statement at the same nonce, signed again for what the market asks, and for enough to replace `raw`.

        None when `raw` pays the market's fee already, or when only a fee beyond the caps would be enough. Raises
        TransactionFailed when the account cannot pay.
        """
        old, chain, latest = parse_raw(raw), self.chain_id, self._latest()
        fees = self._fees(latest)
        legacy = "gasPrice" in fees
        fee = fees["gasPrice"] if legacy else fees["maxFeePerGas"]
        tip = fee if legacy else fees["maxPriorityFeePerGas"]
        least = fee if legacy else quantity(self.rpc, latest.get("baseFeePerGas"), "baseFeePerGas") + tip
        if old.fee >= least and old.tip >= tip:
            return None
        fee, tip = max(fee, _replacing(old.fee)), max(tip, _replacing(old.tip))
        if fee > _MOST_FEE_WEI or (not legacy and tip > _MOST_TIP_WEI):
            return None
        self._check_funds(self.balance(), old.value + old.gas * fee)
        price = {"gasPrice": fee} if legacy else {"maxFeePerGas": fee, "maxPriorityFeePerGas": tip}
        transaction: dict[str, Any] = {"chainId": chain, "data": old.data, "value": old.value, "gas": old.gas, **price}
        return self.sign(transaction | ({"to": to_checksum_address(old.to)} if old.to else {}), old.nonce)

    def try_out(self, raw: bytes) -> None:
        """Raise TransactionFailed, with the reason, when the contract would refuse this statement on the latest state.

        Not on the pending state: there the waiting transaction itself may stand already.
        """
        old = parse_raw(raw)
        call = {"from": self.address, "to": "0x" + old.to.hex(), "value": hex(old.value), "data": "0x" + old.data.hex()}
        try:
            self.rpc.call("eth_call", call, "latest")
        except RpcRefused as error:
            raise self._failed(self._reverts.of(error), error.message) from error

    def send(self, raw: bytes) -> None:
        """Hand a signed transaction to the node; no error when it is known, waiting or mined already.

        Raises TransactionFailed when the node will not have it, ChainUnreachable.
        """
        try:
            self.rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
            return
        except RpcRefused as error:
            refused = error
        # "already known", "nonce too low", "known transaction": every client has its own words. Ask what is the case.
        if self.is_known(raw):
            return
        nonce = nonce_of(raw)
        if self.nonce("latest") > nonce and self.receipt(keccak(raw)) is None:
            raise TransactionFailed(
                f"another transaction of {self.address} took nonce {nonce}; does a second program use the same key?",
                "NonceTaken",
            ) from refused
        raise TransactionFailed(f"the chain refuses the transaction: {refused.message}") from refused

    def is_known(self, raw: bytes) -> bool:
        """Whether the node has this transaction, waiting or mined."""
        return isinstance(self.rpc.call("eth_getTransactionByHash", "0x" + keccak(raw).hex()), dict)

    def receipt(self, transaction: bytes) -> Receipt | None:
        """The receipt of a mined transaction; None while there is none."""
        answer = self.rpc.call("eth_getTransactionReceipt", "0x" + transaction.hex())
        if answer is None:
            return None
        if not isinstance(answer, dict):
            raise self.rpc.nonsense("eth_getTransactionReceipt gave no receipt")
        octets(self.rpc, answer.get("transactionHash"), "a receipt's transactionHash", length=32)
        contract = answer.get("contractAddress")
        try:
            created = parse_address(contract) if isinstance(contract, str) else None
        except UsageError as error:
            raise self.rpc.nonsense("a receipt's contractAddress is no address") from error
        return Receipt(
            transaction=transaction,
            block_number=quantity(self.rpc, answer.get("blockNumber"), "a receipt's blockNumber"),
            succeeded=quantity(self.rpc, answer.get("status"), "a receipt's status") == 1,
            gas_used=quantity(self.rpc, answer.get("gasUsed"), "a receipt's gasUsed"),
            contract=created,
        )

    def wait(
        self,
        raw: bytes,
        *,
        confirmations: int,
        timeout_s: float,
        resend: Callable[[], None],
        others: Callable[[], Iterable[bytes]] = tuple,
    ) -> Receipt:
        """The receipt, once the transaction is mined with so many blocks on top of it; `resend` is called now and then.

        `others` gives the transactions that make the same statement: when any of them succeeds, its receipt is given.
        Raises TransactionFailed with the contract's reason when it was reverted, ChainUnreachable after `timeout_s`.
        """
        deadline, resend_at, pause = time.monotonic() + timeout_s, time.monotonic() + _RESEND_S, _POLL_S
        while True:
            receipt = self._settling(raw, others())
            if receipt is not None and self.is_deep(receipt, confirmations):
                if not receipt.succeeded:
                    raise self._reverted(receipt)
                return receipt
            if time.monotonic() >= deadline:
                what = "is not mined" if receipt is None else f"has not {confirmations} confirmations"
                raise ChainUnreachable(
                    f"the transaction 0x{keccak(raw).hex()} was sent and {what} after {timeout_s:.0f} s;"
                    " it may still be: run the command again to go on waiting"
                )
            if receipt is None and time.monotonic() >= resend_at:
                resend()
                resend_at = time.monotonic() + _RESEND_S
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_POLL_S)

    def is_deep(self, receipt: Receipt, confirmations: int) -> bool:
        """Whether so many blocks lie on top of a mined transaction."""
        return not confirmations or self._head() - receipt.block_number >= confirmations

    def spent_nonces(self, confirmations: int) -> int:
        """How many transactions the account had when the newest block with so many others on top was mined."""
        return self.nonce(hex(max(self._head() - confirmations, 0)) if confirmations else "latest")

    def _settling(self, raw: bytes, others: Iterable[bytes]) -> Receipt | None:
        """The receipt that settles a statement: any that succeeded, else a reverted one that used up this nonce."""
        reverted = None
        for one in dict.fromkeys((raw, *others)):
            receipt = self.receipt(keccak(one))
            if receipt is not None and receipt.succeeded:
                return receipt
            if receipt is not None and nonce_of(one) == nonce_of(raw):
                reverted = receipt
        return reverted

    def _head(self) -> int:
        return quantity(self.rpc, self.rpc.call("eth_blockNumber"), "eth_blockNumber")

    def _latest(self) -> dict[str, Any]:
        latest = self.rpc.call("eth_getBlockByNumber", "latest", False)
        if not isinstance(latest, dict):
            raise self.rpc.nonsense("no latest block")
        return latest

    def _estimate(self, to: Address | None, data: bytes, value: int) -> int:
        call: dict[str, str] = {"from": self.address, "data": "0x" + data.hex(), "value": hex(value)}
        if to is not None:
            call["to"] = to
        refused: RpcRefused | None = None
        # "pending": after a deadline a devnet's latest block still has the old time. Some nodes have no such block.
        for block in (("pending",), ()):
            try:
                return quantity(self.rpc, self.rpc.call("eth_estimateGas", call, *block), "an estimate of gas")
            except RpcRefused as error:
                refused = error
                if self._reverts.of(error) is not None:
                    break
        assert refused is not None
        raise self._failed(self._reverts.of(refused), refused.message) from refused

    def _fees(self, latest: Mapping[str, Any]) -> dict[str, int]:
        """EIP-1559: the fee may double before the transaction is mined; the price where the chain has no fee market."""
        base = latest.get("baseFeePerGas")
        if base is None:
            price = quantity(self.rpc, self.rpc.call("eth_gasPrice"), "eth_gasPrice")
            self._check_fee(price)
            return {"gasPrice": price}
        try:
            tip = quantity(self.rpc, self.rpc.call("eth_maxPriorityFeePerGas"), "eth_maxPriorityFeePerGas")
        except RpcRefused:
            tip = _DEFAULT_TIP_WEI
        tip = min(tip, _MOST_TIP_WEI)
        most = 2 * quantity(self.rpc, base, "baseFeePerGas") + tip
        self._check_fee(most)
        return {"maxFeePerGas": most, "maxPriorityFeePerGas": tip}

    def _check_fee(self, wei: int) -> None:
        if wei > _MOST_FEE_WEI:
            raise TransactionFailed(
                f"the RPC endpoint {self.rpc.endpoint} asks for {wei // 10**9} gwei a gas, which no chain does;"
                " nothing was signed"
            )

    def _check_funds(self, balance: int, needed: int) -> None:
        if balance >= needed and balance:
            return
        holds = f"holds {in_coins(balance)}" if balance else "is empty"
        needs = f" and this transaction may take {in_coins(needed)}" if needed else ""
        raise TransactionFailed(
            f"the account {self.address} {holds} on chain {self.chain_id}{needs}; send it some coins first",
            NO_FUNDS,
        )

    def _reverted(self, receipt: Receipt) -> TransactionFailed:
        """Why a mined transaction was reverted: played again where it stood, because receipts give no reason."""
        sent = self.rpc.call("eth_getTransactionByHash", "0x" + receipt.transaction.hex())
        where = f"transaction 0x{receipt.transaction.hex()} was mined and reverted"
        if not isinstance(sent, dict):
            return TransactionFailed(where)
        if quantity(self.rpc, sent.get("gas"), "a transaction's gas") <= receipt.gas_used:
            return TransactionFailed(f"{where}: it ran out of gas")
        call = {key: sent[key] for key in ("from", "to", "value") if sent.get(key)} | {"data": sent.get("input")}
        for block in (receipt.block_number, receipt.block_number - 1):
            try:
                self.rpc.call("eth_call", call, hex(max(block, 0)))
            except RpcRefused as error:
                revert = self._reverts.of(error)
                if revert is not None:
                    return TransactionFailed(f"{where}: {revert.sentence}", revert.name)
        return TransactionFailed(f"{where}; the node cannot say why any more")

    def _failed(self, revert: Revert | None, message: str) -> TransactionFailed:
        if revert is None:
            return TransactionFailed(f"the chain refuses the transaction: {message}")
        return TransactionFailed(f"the contract refuses: {revert.sentence}", revert.name)


def _replacing(wei: int) -> int:
    """The least fee for which every client lets a waiting transaction be replaced: an eighth more."""
    return wei + wei // 8 + 1


def in_coins(wei: int) -> str:
    """An amount for people: coins with up to six decimals."""
    return f"{wei / 10**18:.6f}".rstrip("0").rstrip(".") + " coins"
