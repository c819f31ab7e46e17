"""Signs and sends one member's statements; implements `ports.ChainWriter`.

Each duty has a key, and a key signs once: the raw transaction is journalled before it is sent, and after a crash, a
reorganisation or a lost connection the very same bytes are sent again. One account has one sender; its nonces are
counted here, because the chain's own count lags behind.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from eth_hash.auto import keccak
from typing_extensions import assert_never
from web3 import Web3

from ..errors import ChainMismatch, TransactionFailed
from ..ports import TransactionJournal
from ..protocol.actions import (
    Action,
    CommitAggregate,
    CommitResult,
    CommitUpdate,
    Enrol,
    PostReceipt,
    PublishOpening,
    RestateAggregate,
    VoteToStop,
    WithdrawBond,
    WithdrawReward,
)
from ..protocol.cid import digest_of_cid
from ..protocol.evidence import (
    Challenge,
    ChallengeAggregate,
    ChallengeEquivocation,
    ChallengeKeySum,
    ChallengeResidue,
    ChallengeResult,
    Line,
)
from ..protocol.ids import Address
from .account import ChainAccount
from .artifacts import load_artifact
from .rpc import Rpc, code_at, parse_address


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
        """Send one action and wait until it is mined; gives the transaction's hash.

        The raw transaction is journalled under `key` before it is sent; a key never signs twice. Raises
        TransactionFailed (`error_name` is the contract's error) and ChainUnreachable. A refusal before signing promises
        nothing, and the key may be used again; a transaction that was mined and reverted uses its key up.
        """
        raw = self._journal.transaction(key)
        if raw is None:
            with self._turn:
                raw = self._promise(key, action)
        if self._account.receipt(keccak(raw)) is None:
            self._send(raw)
        receipt = self._account.wait(
            raw,
            confirmations=self._confirmations,
            timeout_s=self._mine_timeout_s,
            resend=lambda: self._send(raw),
        )
        return receipt.transaction

    def _promise(self, key: str, action: Action) -> bytes:
        """Sign, and journal before anybody else sees it."""
        raw = self._journal.transaction(key)
        if raw is not None:
            return raw
        name, arguments, value = call_of(action)
        data = bytes.fromhex(str(self._encoder.encode_abi(name, args=list(arguments)))[2:])
        self._check_contract()
        prepared = self._account.prepare(self._contract, data, value)
        nonce = max(self._account.nonce("pending"), self._journal.next_nonce())
        raw = self._account.sign(prepared, nonce)
        self._journal.promise_transaction(key, nonce, raw)
        return raw

    def _check_contract(self) -> None:
        """Coins sent to an address without code would be lost."""
        if self._found:
            return
        if not code_at(self._rpc, self._contract):
            raise ChainMismatch(f"there is no contract at {self._contract} on chain {self._account.chain_id}")
        self._found = True

    def _send(self, raw: bytes) -> None:
        """Send a promised transaction, and before it those that the chain has not got: a gap holds all up."""
        for promised in self._journal.promised_from(self._account.nonce("pending")):
            if promised == raw:
                break
            try:
                self._account.send(promised)
            except TransactionFailed:
                # Its own duty will hear of it; this one only wants the gap closed if it can be.
                continue
        self._account.send(raw)


class VolatileJournal:
    """A journal in memory, for an operator's single commands: the contract itself refuses their repetition."""

    def __init__(self) -> None:
        self._promised: dict[str, tuple[int, bytes]] = {}

    def transaction(self, key: str) -> bytes | None:
        """The raw transaction promised under `key`, if any."""
        return self._promised[key][1] if key in self._promised else None

    def promise_transaction(self, key: str, nonce: int, raw: bytes) -> None:
        """Keep these bytes for as long as this process lives."""
        self._promised[key] = (nonce, raw)

    def next_nonce(self) -> int:
        """One more than the largest nonce promised; 0 when none is."""
        return max((nonce + 1 for nonce, _ in self._promised.values()), default=0)

    def promised_from(self, nonce: int) -> tuple[bytes, ...]:
        """The raw transactions promised with this nonce or a later one, ascending."""
        return tuple(raw for promised, raw in sorted(self._promised.values()) if promised >= nonce)


def challenge_call_of(challenge: Challenge) -> tuple[str, Sequence[Any]]:
    """The contract's function and its arguments for a challenge."""
    match challenge:
        case ChallengeAggregate():
            place = challenge.round, challenge.group, challenge.leaf
            return "challengeAggregate", (*place, _lines(challenge.commits), list(challenge.proofs))
        case ChallengeKeySum():
            place = challenge.round, challenge.group, challenge.leaf
            return "challengeKeySum", (*place, _lines(challenge.openings), list(challenge.proofs))
        case ChallengeResult():
            place = challenge.round, challenge.group, challenge.coefficient
            evidence = challenge.key_sum, _lines(challenge.commits), list(challenge.proofs)
            return "challengeResult", (*place, *evidence)
        case ChallengeResidue():
            where = challenge.round, challenge.attempt, challenge.index, challenge.leaf
            return "challengeResidue", (*where, _lines(challenge.commits), list(challenge.proof))
        case ChallengeEquivocation():
            first, second = (
                (said.round, said.attempt, said.group, said.participants, said.root)
                for said in (challenge.first, challenge.second)
            )
            return "challengeEquivocation", (first, challenge.first_signature, second, challenge.second_signature)
        case _:
            assert_never(challenge)


def _lines(lines: Sequence[Line]) -> list[tuple[int, bytes]]:
    return [(line.index, line.word) for line in lines]


def call_of(action: Action) -> tuple[str, Sequence[Any], int]:
    """The contract's function, its arguments and the wei sent along, for an action."""
    match action:
        case Enrol(encryption_key=key, weight=weight, bond_wei=bond):
            return "enrol", (key, weight), bond
        case CommitUpdate():
            cids = digest_of_cid(action.ciphertext_cid), digest_of_cid(action.shares_cid)
            return "commitUpdate", (action.round, action.attempt, action.commitment, *cids), 0
        case PostReceipt():
            return "postReceipt", (action.round, action.attempt, action.whole), 0
        case CommitAggregate():
            place = action.round, action.attempt, action.group
            return "commitAggregate", (*place, action.participants, action.root, digest_of_cid(action.cid)), 0
        case PublishOpening():
            place = action.round, action.attempt, action.group
            return "publishOpening", (*place, action.root, digest_of_cid(action.cid)), 0
        case CommitResult():
            place = action.round, action.attempt, action.group
            result = action.key_sum_root, action.result_root, digest_of_cid(action.result_cid)
            model = action.model_digest, digest_of_cid(action.model_cid)
            return "commitResult", (*place, action.openers, *result, *model), 0
        case VoteToStop():
            return "voteToStop", (action.round,), 0
        case WithdrawBond():
            return "withdrawBond", (), 0
        case RestateAggregate():
            return "restateAggregate", (action.round, action.group, action.root, digest_of_cid(action.cid)), 0
        case WithdrawReward():
            return "withdrawReward", (), 0
        case (
            ChallengeAggregate() | ChallengeKeySum() | ChallengeResult() | ChallengeResidue() | ChallengeEquivocation()
        ):
            return *challenge_call_of(action), 0
        case _:
            assert_never(action)
