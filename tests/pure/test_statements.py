"""What members sign off chain (EIP-712): the digests that a wallet would sign, and signatures in their short form."""

from __future__ import annotations

import random

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from fedchain.chain.signing import sign_statement
from fedchain.protocol.cid import cid_of, digest_of_cid
from fedchain.protocol.ids import Address, Bitmap, Digest, Root
from fedchain.protocol.signature import Signature, recover
from fedchain.protocol.statements import (
    OpeningStatement,
    ReceiptStatement,
    Statement,
    UpdateStatement,
    statement_digest,
)

CONTRACT = Address("0x5FbDB2315678afecb367f032d93F642f64180aa3")
UPDATE = UpdateStatement(3, 1, Digest(b"c" * 32), cid_of(b"ciphertext"), cid_of(b"shares"))
RECEIPT = ReceiptStatement(3, 1, Bitmap(0b1011))
OPENING = OpeningStatement(3, 1, 0, Bitmap(0b1011), Root(b"r" * 32), cid_of(b"opening"))
CASES: list[tuple[Statement, str, dict[str, tuple[str, object]]]] = [
    (
        UPDATE,
        "Update",
        {
            "round": ("uint32", 3),
            "attempt": ("uint32", 1),
            "commitment": ("bytes32", b"c" * 32),
            "ciphertextCid": ("bytes32", digest_of_cid(UPDATE.ciphertext_cid)),
            "sharesCid": ("bytes32", digest_of_cid(UPDATE.shares_cid)),
        },
    ),
    (RECEIPT, "Receipt", {"round": ("uint32", 3), "attempt": ("uint32", 1), "whole": ("uint128", 0b1011)}),
    (
        OPENING,
        "Opening",
        {
            "round": ("uint32", 3),
            "attempt": ("uint32", 1),
            "group": ("uint16", 0),
            "participants": ("uint128", 0b1011),
            "root": ("bytes32", b"r" * 32),
            "cid": ("bytes32", digest_of_cid(OPENING.cid)),
        },
    ),
]


@pytest.mark.parametrize(("said", "name", "fields"), CASES, ids=[name for _, name, _ in CASES])
def test_a_wallet_signs_the_same_digest(said: Statement, name: str, fields: dict[str, tuple[str, object]]) -> None:
    domain = {"name": "fedchain", "version": "1", "chainId": 31337, "verifyingContract": CONTRACT}
    types = {name: [{"name": field, "type": kind} for field, (kind, _) in fields.items()]}
    message = encode_typed_data(domain, types, {field: value for field, (_, value) in fields.items()})
    for seed in range(8):
        key = random.Random(seed).randbytes(32)
        signed = Account.sign_message(message, key)
        short = sign_statement(key, 31337, CONTRACT, said)
        assert short.whole == signed.signature
        digest = statement_digest(31337, CONTRACT, said)
        assert recover(digest, short.whole) == Account.from_key(key).address


def test_the_short_form_keeps_the_parity_in_the_highest_bit() -> None:
    for v in (27, 28):
        whole = b"\x11" * 32 + b"\x22" * 32 + bytes((v,))
        short = Signature.shortened(whole)
        assert (len(short.r), len(short.vs), short.vs[0] >> 7) == (32, 32, v - 27)
        assert short.whole == whole


def test_another_place_is_another_digest() -> None:
    base = statement_digest(1, CONTRACT, RECEIPT)
    others = {
        statement_digest(2, CONTRACT, RECEIPT),
        statement_digest(1, Address("0x" + "11" * 20), RECEIPT),
        statement_digest(1, CONTRACT, ReceiptStatement(3, 2, Bitmap(0b1011))),
        statement_digest(1, CONTRACT, ReceiptStatement(4, 1, Bitmap(0b1011))),
        statement_digest(1, CONTRACT, ReceiptStatement(3, 1, Bitmap(0b1010))),
    }
    assert len(others | {base}) == 6
