"""The known-answer vectors: what other implementations and the contract may rely on. A moved encoding fails here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scripts import load_script

from fedchain.crypto import (
    Aggregate,
    Opening,
    RoundContext,
    check_ciphertext,
    check_shares,
    open_aggregate,
    open_share,
    sum_ciphertexts,
)
from fedchain.crypto.packing import pack_residues, unpack_residues
from fedchain.crypto.seed import public_polynomials
from fedchain.errors import Fault
from fedchain.protocol.ids import Address, Digest, Index
from fedchain.protocol.merkle import hash_leaf, is_proof

VECTORS = Path(__file__).parents[2] / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


def context_of(entry: dict[str, Any]) -> RoundContext:
    return RoundContext(
        entry["chain_id"],
        Address(entry["contract"]),
        entry["round"],
        entry["attempt"],
        Digest(bytes.fromhex(entry["model_digest"])),
    )


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    return load_script(VECTORS / "make_crypto.py", "make_crypto")


ROUND = load("crypto_round")
TERMS: dict[str, Any] = {
    "encryption_keys": {Index(j): bytes.fromhex(m["public_key"]) for j, m in enumerate(ROUND["members"])},
    "threshold": ROUND["threshold"],
}
DEALER_0: dict[str, Any] = {"dealer": Index(0), "dealer_address": Address(ROUND["members"][0]["address"]), **TERMS}


def test_the_script_still_makes_the_committed_vectors(maker: ModuleType) -> None:
    for name, content in maker.all_vectors().items():
        assert json.loads(json.dumps(content)) == load(name), name


@pytest.mark.parametrize("entry", load("crypto_seed"), ids=lambda entry: entry["seed"][:8])
def test_seeds_and_public_polynomials(entry: dict[str, Any]) -> None:
    context = context_of(entry)
    assert context.seed.hex() == entry["seed"]
    a = public_polynomials(context.seed, 0, 4)
    for c in entry["coefficients"]:
        assert int(a[c["k"], c["j"]]) == c["value"]
    assert any(c["redrawn"] for c in entry["coefficients"])
    assert hashlib.sha256(a[0].astype("<u8").tobytes()).hexdigest() == entry["a_0_sha256"]


def test_packing() -> None:
    entry = load("crypto_packing")
    residues = np.array(entry["residues"], dtype=np.uint64)
    assert pack_residues(residues).hex() == entry["packed"]
    assert unpack_residues(bytes.fromhex(entry["packed"])).tolist() == entry["residues"]
    assert hash_leaf(residues.astype("<u8").tobytes()).hex() == entry["leaf_hash"]


@pytest.mark.parametrize("tree", load("crypto_merkle"), ids=lambda tree: f"{len(tree['leaves'])}-leaves")
def test_merkle_proofs(tree: dict[str, Any]) -> None:
    leaves = [bytes.fromhex(leaf) for leaf in tree["leaves"]]
    path = [bytes.fromhex(sibling) for sibling in tree["path"]]
    root, index = bytes.fromhex(tree["root"]), tree["index"]
    assert is_proof(root, leaves[index], index, path, len(leaves))  # type: ignore[arg-type]


def test_a_round_from_its_stored_objects() -> None:
    context, d = context_of(ROUND), ROUND["d"]
    blobs = [bytes.fromhex(upload["ciphertext"]) for upload in ROUND["uploads"]]
    for blob, upload in zip(blobs, ROUND["uploads"], strict=True):
        assert check_ciphertext(blob, d, offender="", round=3).hex() == upload["ciphertext_root"]
    shares = bytes.fromhex(ROUND["shares_of_dealer_0"])
    assert check_shares(shares, context, **DEALER_0, offender="").hex() == ROUND["uploads"][0]["shares_root"]
    for j, member in enumerate(ROUND["members"]):
        open_share(shares, context, **DEALER_0, me=Index(j), private_key=bytes.fromhex(member["private_key"]))
    aggregate = sum_ciphertexts(blobs, d)
    assert aggregate.pack().hex() == ROUND["aggregate"]
    assert aggregate.root().hex() == ROUND["aggregate_root"]
    openings = {Index(j): Opening.parse(bytes.fromhex(o["opening"])) for j, o in enumerate(ROUND["openings"])}
    assert [opening.root().hex() for opening in openings.values()] == [o["root"] for o in ROUND["openings"]]
    opened = open_aggregate(aggregate, openings, threshold=3, participants=4, context=context, d=d)
    assert opened.sums.tolist() == ROUND["sums"]
    assert opened.sums.tolist() == np.sum([upload["coefficients"] for upload in ROUND["uploads"]], axis=0).tolist()
    assert opened.key_sum[:16].tolist() == ROUND["key_sum_first"]
    assert opened.key_sum_root.hex() == ROUND["key_sum_root"]
    assert opened.result_root.hex() == ROUND["result_root"]


@pytest.mark.parametrize("vector", load("crypto_negative"), ids=lambda vector: vector["name"])
def test_a_bent_object_fails_at_the_field_that_was_bent(vector: dict[str, Any]) -> None:
    base = {
        "ciphertext": ROUND["uploads"][0]["ciphertext"],
        "shares": ROUND["shares_of_dealer_0"],
        "opening": ROUND["openings"][0]["opening"],
        "aggregate": ROUND["aggregate"],
    }
    whole = bytes.fromhex(base[vector["object"]])
    if "length" in vector:
        bent = whole[: vector["length"]]
    else:
        replacement = bytes.fromhex(vector["bytes"])
        bent = whole[: vector["offset"]] + replacement + whole[vector["offset"] + len(replacement) :]
    assert bent != whole
    with pytest.raises(Fault) as fault:
        match vector["object"]:
            case "ciphertext":
                check_ciphertext(bent, ROUND["d"], offender="x", round=3)
            case "shares":
                private_key = bytes.fromhex(ROUND["members"][0]["private_key"])
                open_share(bent, context_of(ROUND), **DEALER_0, me=Index(0), private_key=private_key)
            case "opening":
                Opening.parse(bent)
            case "aggregate":
                Aggregate.parse(bent, ROUND["d"])
    assert fault.value.evidence.check == vector["check"]
