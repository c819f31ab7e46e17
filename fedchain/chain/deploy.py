"""Founds a federation: sends the one transaction that creates the contract, waits, and checks what came to stand."""

from __future__ import annotations

import hashlib

from eth_hash.auto import keccak
from web3 import Web3

from ..errors import ChainMismatch
from ..ports import TransactionJournal
from ..protocol.events import Terms
from ..protocol.ids import Address
from .account import ChainAccount
from .artifacts import load_artifact
from .deployment import Deployment, constructor_arguments, read_deployment, verify, write_deployment
from .reader import Reader
from .rpc import Rpc
from .sender import VolatileJournal

__all__ = ["Deployment", "deploy", "read_deployment", "verify", "write_deployment"]


def deploy(
    rpc_url: str,
    account_key: bytes,
    terms: Terms,
    founders: tuple[Address, ...],
    *,
    expected_chain_id: int | None = None,
    confirmations: int = 0,
    timeout_s: float = 300.0,
    journal: TransactionJournal | None = None,
) -> Deployment:
    """Create the contract, wait for its confirmations, and verify what stands on chain.

    With a `journal` that outlives the process, an interrupted deployment is gone on with: the same terms and founders
    never create a second contract.

    Raises ChainMismatch (another chain id, other code), TransactionFailed (empty account, terms that the contract
    refuses, with its reason), ChainUnreachable.
    """
    rpc = Rpc(rpc_url)
    account = ChainAccount(rpc, account_key, expected_chain_id=expected_chain_id)
    artifact = load_artifact()
    creator = Web3().eth.contract(abi=list(artifact.abi), bytecode=artifact.bytecode)
    data = str(creator.constructor(*constructor_arguments(terms, founders)).data_in_transaction)
    promises = journal if journal is not None else VolatileJournal()
    key = f"deploy/{hashlib.sha256(bytes.fromhex(data[2:])).hexdigest()}"
    raw = promises.transaction(key)
    if raw is None:
        prepared, nonce = account.prepare(None, bytes.fromhex(data[2:]), 0), account.nonce("pending")
        raw = account.sign(prepared, nonce)
        promises.promise_transaction(key, nonce, raw)
    if account.receipt(keccak(raw)) is None:
        account.send(raw)
    receipt = account.wait(raw, confirmations=confirmations, timeout_s=timeout_s, resend=lambda: account.send(raw))
    if receipt.contract is None:
        raise ChainMismatch(f"the transaction 0x{receipt.transaction.hex()} was mined and created no contract")
    reader = Reader(
        rpc_url,
        receipt.contract,
        confirmations=confirmations,
        expected_chain_id=account.chain_id,
        from_block=receipt.block_number,
        rpc=rpc,
    )
    return verify(reader)
