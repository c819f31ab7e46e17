"""Refusals in words: every error of the contract has its sentence, however a node hands the bytes over."""

from __future__ import annotations

import string
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from fedchain.chain.artifacts import load_artifact
from fedchain.chain.logs import abi_type, signature
from fedchain.chain.reverts import SENTENCES, RevertReader
from fedchain.chain.rpc import RpcRefused

ERRORS = {entry["name"]: entry for entry in load_artifact().abi if entry["type"] == "error"}
READER = RevertReader(load_artifact().abi)


def _revert(name: str, *values: Any) -> bytes:
    entry = ERRORS[name]
    return keccak(signature(entry).encode())[:4] + encode([abi_type(i) for i in entry["inputs"]], values)


def test_every_error_of_the_abi_has_a_sentence_and_no_other() -> None:
    assert set(SENTENCES) == set(ERRORS)


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_a_sentence_uses_the_errors_own_arguments(name: str) -> None:
    used = {field for _, field, _, _ in string.Formatter().parse(SENTENCES[name]) if field}
    assert used == {i["name"] for i in ERRORS[name]["inputs"]}
    zeros = {"address": "0x" + "00" * 20, "bytes32": b"what"}
    revert = READER.decode(_revert(name, *(zeros.get(i["type"], 1) for i in ERRORS[name]["inputs"])))
    assert revert.name == name
    assert "{" not in revert.sentence and revert.sentence[-1] != "."


@pytest.mark.parametrize(
    ("revert", "words"),
    [
        (_revert("FederationWrongPhase", 4), "that is not due now: the contract is in phase Opening"),
        (_revert("FederationCensored", 0b1010), "of members 1, 3"),
        (_revert("FederationBadTerms", b"rounds"), "the terms are incomplete: rounds is zero"),
        (_revert("FederationBondLocked", 1_700_000_000), "locked until 2023-11-14 22:13:20 UTC"),
        (_revert("FederationBondLocked", 2**256 - 1), "locked until the run is finished"),
        (_revert("FederationWrongPhase", 4)[:-1], "an error that this version does not know"),
        (b"\x01\x02\x03\x04", "an error that this version does not know (0x01020304)"),
        (b"", "the contract gave no reason"),
        (keccak(b"Error(string)")[:4] + encode(["string"], ["a\nb"]), "a b"),
        (keccak(b"Panic(uint256)")[:4] + encode(["uint256"], [0x11]), "a bug in the contract (panic 0x11)"),
    ],
)
def test_a_revert_reads_as_a_sentence(revert: bytes, words: str) -> None:
    assert words in READER.decode(revert).sentence


@pytest.mark.parametrize(
    ("code", "message", "data"),
    [
        (3, "execution reverted", "0x{}"),
        (-32000, "execution reverted", "0x{}"),
        (-32015, "VM execution error.", "Reverted 0x{}"),
        (-32000, "Execution reverted", {"data": "0x{}"}),
        (-32603, "Internal error", {"code": 3, "originalError": {"data": "0x{}"}}),
        (-32000, "execution reverted: 0x{}", None),
    ],
)
def test_nodes_hand_the_bytes_over_in_many_ways(code: int, message: str, data: Any) -> None:
    revert = _revert("FederationWrongRound", 7).hex()

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(inner) for key, inner in value.items()}
        return value.replace("{}", revert) if isinstance(value, str) else value

    found = READER.of(RpcRefused("http://node", "eth_call", code, fill(message), fill(data)))
    assert found is not None and found.name == "FederationWrongRound"
    assert found.sentence.endswith("the current round is 7")


@pytest.mark.parametrize("data", [None, 7, [], {}, "0x1", "zz", {"a": {"b": {}}}])
def test_what_is_no_revert_is_not_taken_for_one(data: Any) -> None:
    assert READER.of(RpcRefused("http://node", "eth_call", -32000, "header not found", data)) is None
