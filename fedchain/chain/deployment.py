"""The deployment file, and the check that what stands on chain is what this package would deploy. Needs no key.

The code alone does not prove the terms: immutables are masked, and code of one's own making can put the genuine code
there with an event that lies. So the check also reads the transaction that created the contract: the committed build's
constructor, with the very terms and founders that the log claims. That constructor deploys the council, whose code
is compared as well.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from eth_abi.abi import encode
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from ..errors import ChainMismatch, UsageError
from ..protocol.charter import Charter
from ..protocol.cid import digest_of_cid
from ..protocol.events import FederationFounded, Terms
from ..protocol.founding import GWEI
from ..protocol.ids import Address, Cid
from ..protocol.model import model_digest
from ..protocol.outer import update_size_of
from ..protocol.update_format import model_size_of
from .artifacts import COUNCIL, load_artifact
from .logs import abi_type
from .reader import Reader
from .rpc import parse_address

_MAX_FILE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a federation stands: what a member needs to find it, and to be sure of it. Digests are hex."""

    chain_id: int
    address: Address
    block: int
    transaction: str
    artifact_hash: str
    charter_digest: str
    charter_cid: Cid
    genesis_digest: str
    genesis_cid: Cid


def write_deployment(file: Path, deployment: Deployment) -> None:
    """Write the deployment file, whole or not at all. Raises UsageError."""
    write_text(file, json.dumps(asdict(deployment), indent=2) + "\n")


def read_deployment(file: Path) -> Deployment:
    """A deployment file. Raises UsageError when it is missing or malformed."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the deployment file {file} cannot be read: {error.strerror or error}") from error
    malformed = UsageError(f"{file} is not a deployment file; `fedchain deploy` writes one")
    try:
        entries = json.loads(content) if len(content) <= _MAX_FILE_BYTES else None
    except (ValueError, RecursionError) as error:
        raise malformed from error
    kinds = {field.name: int if field.type == "int" else str for field in fields(Deployment)}
    if not isinstance(entries, dict) or any(type(entries.get(name)) is not kind for name, kind in kinds.items()):
        raise malformed
    deployment = Deployment(**{name: entries[name] for name in kinds})
    if deployment.block < 0 or deployment.chain_id < 0 or parse_address(deployment.address) != deployment.address:
        raise malformed
    return deployment


def terms_of(charter: Charter, charter_cid: Cid, genesis: bytes, genesis_cid: Cid) -> Terms:
    """What the contract is founded with: a complete charter's terms and the first model (safetensors).

    Raises UsageError for an incomplete charter, MalformedObject for a model that is none.
    """
    charter.check_complete()
    return Terms(
        charter_digest=charter.digest(),
        charter_cid=charter_cid,
        genesis_digest=model_digest(genesis),
        genesis_cid=genesis_cid,
        model_size=model_size_of(charter, update_size_of(genesis, charter)),
        rounds=charter.run.rounds,
        threshold=charter.threshold,
        enrol_window_s=charter.windows.enrol_s,
        training_window_s=charter.windows.training_s,
        receipt_window_s=charter.windows.receipt_s,
        aggregate_window_s=charter.windows.aggregate_s,
        challenge_window_s=charter.windows.challenge_s,
        close_window_s=charter.windows.close_s,
        bond_wei=charter.stake.bond_gwei * GWEI,
    )


def constructor_arguments(terms: Terms, founders: tuple[Address, ...]) -> tuple[tuple[int | bytes, ...], list[str]]:
    """The constructor's arguments, in the ABI's order."""
    words: tuple[int | bytes, ...] = (
        terms.charter_digest,
        digest_of_cid(terms.charter_cid),
        terms.genesis_digest,
        digest_of_cid(terms.genesis_cid),
        terms.model_size,
        terms.rounds,
        terms.threshold,
        *terms.windows_s,
        terms.bond_wei,
    )
    return words, list(founders)


def creation_code(terms: Terms, founders: tuple[Address, ...]) -> bytes:
    """What a transaction must carry to create this federation: the committed bytecode and its arguments."""
    artifact = load_artifact()
    constructor = next(entry for entry in artifact.abi if entry["type"] == "constructor")
    types = [abi_type(i) for i in constructor["inputs"]]
    return artifact.bytecode + encode(types, constructor_arguments(terms, founders))


def council_of(contract: Address) -> Address:
    """Where this federation's council is: the first contract that it created (CREATE, nonce 1)."""
    created = keccak(b"\xd6\x94" + bytes.fromhex(contract[2:]) + b"\x01")  # RLP of (address, 1)
    return Address(to_checksum_address(created[-20:]))


def verify(reader: Reader) -> Deployment:
    """Check that the contract is the committed build, created with the terms and founders that its log claims.

    1. The code on chain is the committed build's, immutables masked. 2. The log begins with FederationFounded, in the
    transaction that created the contract. 3. That transaction carried the committed constructor and those very terms
    and founders. 4. The code of the council that this constructor creates is the committed build's too. Raises
    ChainMismatch, ChainUnreachable.
    """
    artifact = load_artifact()
    code = reader.code_at()
    if not code:
        raise ChainMismatch(f"there is no contract at {reader.contract} on chain {reader.chain_id}")
    if not artifact.matches(code):
        raise ChainMismatch(
            f"the code at {reader.contract} on chain {reader.chain_id} is not the committed build"
            f" {artifact.artifact_hash[:16]}…; do not trust this contract, or use the version that deployed it"
        )
    reader.refresh()
    first = reader.log()[0]
    assert isinstance(first.event, FederationFounded)
    sent = reader.input_of(first.transaction)
    if sent.to is not None or sent.created != reader.contract:
        raise ChainMismatch(f"{reader.contract} was not created by the transaction that founded it; do not trust it")
    if sent.data != creation_code(first.event.terms, first.event.founders):
        raise ChainMismatch(
            f"{reader.contract} was not created by the committed constructor with the terms it claims; do not trust it"
        )
    council = council_of(reader.contract)
    if not load_artifact(COUNCIL).matches(reader.code_at(address=council)):
        raise ChainMismatch(f"the code of {reader.contract}'s council, at {council}, is not the committed build")
    terms = first.event.terms
    return Deployment(
        chain_id=reader.chain_id,
        address=reader.contract,
        block=first.block_number,
        transaction="0x" + first.transaction.hex(),
        artifact_hash=artifact.artifact_hash,
        charter_digest=terms.charter_digest.hex(),
        charter_cid=terms.charter_cid,
        genesis_digest=terms.genesis_digest.hex(),
        genesis_cid=terms.genesis_cid,
    )


def write_text(file: Path, text: str) -> None:
    """Replace a text file, whole or not at all. Raises UsageError."""
    part = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error
