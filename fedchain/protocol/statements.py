"""What members sign off chain (EIP-712), so that one transaction can carry the statements of several.

An update's commitment (P1), a receipt (P2) and an opening (P4). The domain is ("fedchain", "1", chain id, contract).
Nothing here can sign.
"""

from __future__ import annotations

from dataclasses import dataclass

from eth_hash.auto import keccak

from .cid import digest_of_cid
from .ids import Address, Bitmap, Cid, Digest, Root

DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
UPDATE_TYPE = b"Update(uint32 round,uint32 attempt,bytes32 commitment,bytes32 ciphertextCid,bytes32 sharesCid)"
RECEIPT_TYPE = b"Receipt(uint32 round,uint32 attempt,uint128 whole)"
OPENING_TYPE = b"Opening(uint32 round,uint32 attempt,uint16 group,uint128 participants,bytes32 root,bytes32 cid)"


@dataclass(frozen=True, slots=True)
class UpdateStatement:
    """What a trainer signs: its upload's commitment, and where the upload's two objects are."""

    round: int
    attempt: int
    commitment: Digest
    ciphertext_cid: Cid
    shares_cid: Cid


@dataclass(frozen=True, slots=True)
class ReceiptStatement:
    """What a shareholder signs: which updates are whole for it."""

    round: int
    attempt: int
    whole: Bitmap


@dataclass(frozen=True, slots=True)
class OpeningStatement:
    """What a shareholder signs when it opens a locked set."""

    round: int
    attempt: int
    group: int
    participants: Bitmap
    root: Root
    cid: Cid


Statement = UpdateStatement | ReceiptStatement | OpeningStatement


def statement_digest(chain_id: int, federation: Address, said: Statement) -> Digest:
    """The EIP-712 digest that a member signs."""
    match said:
        case UpdateStatement():
            cids = digest_of_cid(said.ciphertext_cid) + digest_of_cid(said.shares_cid)
            struct = keccak(UPDATE_TYPE) + _words(said.round, said.attempt) + said.commitment + cids
        case ReceiptStatement():
            struct = keccak(RECEIPT_TYPE) + _words(said.round, said.attempt, said.whole)
        case OpeningStatement():
            place = _words(said.round, said.attempt, said.group, said.participants)
            struct = keccak(OPENING_TYPE) + place + said.root + digest_of_cid(said.cid)
    return Digest(keccak(b"\x19\x01" + _domain(chain_id, federation) + keccak(struct)))


def _domain(chain_id: int, federation: Address) -> bytes:
    contract = bytes.fromhex(federation[2:]).rjust(32, b"\0")
    return keccak(keccak(DOMAIN_TYPE) + keccak(b"fedchain") + keccak(b"1") + _words(chain_id) + contract)


def _words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(32, "big") for number in numbers)
