"""The contract's refusals in words: from the bytes of a revert to one sentence that says what is wrong.

Nodes hand the bytes over in several ways; where one gives none, its own message must do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from ..protocol.ids import members_of
from ..protocol.phase import Phase
from .logs import abi_type, signature
from .rpc import RpcRefused

SENTENCES: Mapping[str, str] = {
    "FederationBadMemberCount": "a federation has 3 to 64 founders, not {count}",
    "FederationDuplicateMember": "the founder {member} is named twice",
    "FederationZeroMember": "founder {index} is the zero address",
    "FederationBadThreshold": "the threshold must be {least} to {most}, not {threshold}",
    "FederationBadTerms": "the terms are incomplete: {what} is zero or out of range",
    "FederationNotMember": "{account} is no member of this federation, or has not enrolled",
    "FederationAlreadyEnrolled": "{account} has enrolled already",
    "FederationWrongBond": "the bond is {expected} wei, {sent} were sent",
    "FederationBadEncryptionKey": "the encryption key is zero",
    "FederationBadWeight": "the weight is zero",
    "FederationWrongPhase": "that is not due now: the contract is in phase {actual}",
    "FederationWrongRound": "that round is not under way: the current round is {current}",
    "FederationWrongAttempt": "that attempt is not under way: the current attempt is {current}",
    "FederationBadGroup": "there is no group {group}",
    "FederationEmptyDigest": "a digest or CID is zero, or nobody is named",
    "FederationAlreadyCommitted": "this member has committed its update in this attempt already",
    "FederationAlreadyPosted": "this member has posted that in this attempt already",
    "FederationUnknownUpdates": "updates are named that were never committed: of {unknown}",
    "FederationNotAggregator": "it is the turn of member {expected} to aggregate",
    "FederationTooFewParticipants": "the set has {count} participants, the least is {least}",
    "FederationNotCovered": "only {receipts} receipts cover the participants, {threshold} must",
    "FederationCensored": "the set leaves out updates that every receipt holds to be whole: of {missing}",
    "FederationAlreadyOpened": "this member has published its opening already",
    "FederationBadOpeners": "openers are t members that have opened, not {openers}",
    "FederationOtherBasis": "the chain holds something else than this statement rests on: {current}",
    "FederationAlreadyVoted": "this member has cast this vote already",
    "FederationTooClose": "the set is too close to one that was given up on this model: of {abandoned}",
    "FederationNotAdmitted": "the run has begun: who joins now must be admitted by the members' votes first",
    "FederationAlreadyLeaving": "that member leaves already when the next round begins",
    "FederationBadSubject": "there is nothing to vote on there",
    "FederationSlashed": "member {index} was slashed, and is not heard any more",
    "FederationHonest": "the statement is right: this evidence proves nothing against it",
    "FederationBadEvidence": "the evidence is not about what is on record: {what}",
    "FederationNoStatement": "there is no such statement on record, or it has fallen already",
    "FederationAlreadySlashed": "member {index} was slashed already",
    "FederationChallengeOver": "nothing can be challenged any more: bonds are free {since}",
    "FederationWrongDeposit": "the deposit is {expected} wei, {sent} were sent",
    "FederationAlreadyDemanded": "that page was demanded before",
    "FederationNoDemand": "nobody demands that page, or it was shown or closed already",
    "FederationDemandOpen": "the page may still be shown, {until}",
    "FederationDemandOver": "the page can be shown no more {since}",
    "FederationBondLocked": "the bond is locked {until}",
    "FederationNothingToWithdraw": "there is no bond to take back, and no reward",
    "FederationTransferFailed": "the account did not accept the payment",
    "FederationNoPayment": "the federation takes coins with an enrolment or a demand only",
}
"""One sentence an error of the ABI; a test holds the two together."""

_STRING = keccak(b"Error(string)")[:4]
_PANIC = keccak(b"Panic(uint256)")[:4]
_HEX = re.compile(r"0x[0-9a-fA-F]{8,}")


@dataclass(frozen=True, slots=True)
class Revert:
    """Why the contract refused: the error's name ("" when it gave none) and a sentence."""

    name: str
    sentence: str


class RevertReader:
    """Turns revert bytes into words by the contract's ABI."""

    def __init__(self, abi: Sequence[Mapping[str, Any]]) -> None:
        self._errors = {keccak(signature(e).encode())[:4]: e for e in abi if e["type"] == "error"}

    def decode(self, revert: bytes) -> Revert:
        """The refusal that these bytes encode."""
        selector, arguments = revert[:4], revert[4:]
        entry = self._errors.get(selector)
        try:
            if entry is not None:
                inputs = entry["inputs"]
                values = decode([abi_type(i) for i in inputs], arguments)
                words = {str(i["name"]): _in_words(i, v) for i, v in zip(inputs, values, strict=True)}
                name = str(entry["name"])
                sentence = SENTENCES.get(name)
                return Revert(name, sentence.format(**words) if sentence else f"{name} {words or ''}".strip())
            if selector == _STRING:
                return Revert("", " ".join(str(decode(["string"], arguments)[0]).split())[:300])
            if selector == _PANIC:
                return Revert("", f"a bug in the contract (panic {decode(['uint256'], arguments)[0]:#x})")
        except DecodingError:
            pass
        if not revert:
            return Revert("", "the contract gave no reason; is this a federation of the same version?")
        return Revert("", f"an error that this version does not know (0x{selector.hex()})")

    def of(self, refused: RpcRefused) -> Revert | None:
        """The revert inside a node's error object, or None when the call failed for another reason."""
        found = _revert_bytes(refused.data)
        if found is not None:
            return self.decode(found)
        if "revert" in refused.message.lower() or refused.code == 3:
            text = _HEX.search(refused.message)
            return self.decode(bytes.fromhex(text[0][2:]) if text and len(text[0]) % 2 == 0 else b"")
        return None


def _revert_bytes(data: object) -> bytes | None:
    """Geth, anvil and Besu give hex; Nethermind writes "Reverted 0x…"; others wrap it in objects."""
    if isinstance(data, Mapping):
        return next((b for v in list(data.values())[:8] if (b := _revert_bytes(v)) is not None), None)
    if isinstance(data, str) and len(data) < 1 << 16:
        text = _HEX.search(data)
        if text and len(text[0]) % 2 == 0:
            return bytes.fromhex(text[0][2:])
        if data == "0x":
            return b""
    return None


def _in_words(entry: Mapping[str, Any], value: object) -> str:
    name, kind = entry["name"], entry["type"]
    if isinstance(value, int):
        if name == "actual":
            return Phase(value).name.capitalize() if value in Phase.__members__.values() else str(value)
        if name == "until":
            return _until(value)
        if name == "since":
            return f"since {_utc(value)}"
        if kind == "uint128":
            return "members " + ", ".join(str(m) for m in members_of(value))
    if kind == "address":
        return to_checksum_address(str(value))
    if isinstance(value, bytes):
        text = value.rstrip(b"\0")
        return text.decode() if text.isascii() else f"0x{value.hex()}"
    return str(value)


def _until(timestamp: int) -> str:
    if timestamp >= 1 << 40:
        return "until the run is finished and the challenge window has passed"
    return f"until {_utc(timestamp)}"


def _utc(timestamp: int) -> str:
    return f"{datetime.fromtimestamp(timestamp, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"
