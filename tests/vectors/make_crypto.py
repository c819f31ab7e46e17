"""Makes the known-answer vectors of the cryptography: `python tests/vectors/make_crypto.py` rewrites `crypto_*.json`.

Every input is fixed: randomness is a SHAKE-256 stream, so that another implementation can check its own answers, and a
test notices when an encoding moves. `crypto_negative.json` bends the objects of `crypto_round.json`, one field each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nacl.bindings import crypto_scalarmult_base

from fedchain.crypto import (
    Opening,
    RoundContext,
    make_opening,
    open_aggregate,
    open_share,
    sum_ciphertexts,
)
from fedchain.crypto.dealing import Place
from fedchain.crypto.packing import pack_residues
from fedchain.crypto.parameters import LEAF_RESIDUES, Q
from fedchain.crypto.seed import public_polynomials
from fedchain.crypto.upload import deal_with
from fedchain.protocol.ids import Address, Digest, Index
from fedchain.protocol.merkle import hash_leaf, prove, root_of
from fedchain.protocol.scheme import ACCEPTED

FOLDER = Path(__file__).parent
CONTEXT = RoundContext(31337, Address("0x" + "fe" * 20), 3, 1, Digest(bytes(range(32))))
MEMBERS, THRESHOLD, D = 4, 3, 130
"""D is the contract's modelSize: 65 coefficients."""


def main() -> None:
    for name, content in all_vectors().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def all_vectors() -> dict[str, Any]:
    """Every vector file by its name."""
    return {
        "crypto_seed": seeds(),
        "crypto_packing": packing(),
        "crypto_merkle": merkle(),
        "crypto_round": whole_round(),
        "crypto_negative": negatives(),
    }


def stream(label: str) -> Callable[[int], bytes]:
    """A source of "randomness": the SHAKE-256 output of a label, read from its start."""
    whole, place = hashlib.shake_256(label.encode()).digest(1 << 20), 0

    def random(count: int) -> bytes:
        nonlocal place
        place += count
        assert place <= len(whole)
        return whole[place - count : place]

    return random


def seeds() -> list[dict[str, Any]]:
    """Contexts, their seeds, and coefficients of their public polynomials, redrawn ones among them."""
    places = (CONTEXT, RoundContext(1, Address("0x" + "00" * 19 + "01"), 1, 0, Digest(bytes(32))))
    found = []
    for context in places:
        a = public_polynomials(context.seed, 0, 4)
        redrawn = [(k, j) for k in range(4) for j in range(2048) if word(context.seed, k, j) >= ACCEPTED]
        found.append(
            {
                **context_fields(context),
                "seed": context.seed.hex(),
                "coefficients": [
                    {"k": k, "j": j, "value": int(a[k, j]), "redrawn": (k, j) in redrawn}
                    for k, j in [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 2047), (3, 1000), *redrawn]
                ],
                "a_0_sha256": hashlib.sha256(a[0].astype("<u8").tobytes()).hexdigest(),
            }
        )
    return found


def word(seed: bytes, k: int, j: int) -> int:
    """The first draw of a coefficient."""
    digest = hashlib.sha256(seed + k.to_bytes(4, "big") + (j // 4).to_bytes(4, "big") + bytes(4)).digest()
    return int.from_bytes(digest[8 * (j % 4) : 8 * (j % 4) + 8], "big")


def packing() -> dict[str, Any]:
    """One leaf of residues as stored and as hashed."""
    leaf = np.frombuffer(stream("packing")(8 * LEAF_RESIDUES), dtype="<u8").astype(np.uint64) % np.uint64(Q)
    leaf[:3] = (0, 1, Q - 1)
    return {
        "residues": leaf.tolist(),
        "packed": pack_residues(leaf).hex(),
        "leaf_hash": hash_leaf(leaf.astype("<u8").tobytes()).hex(),
    }


def merkle() -> list[dict[str, Any]]:
    """Small trees, with a proof of one leaf each."""
    trees = []
    for count, index in ((1, 0), (2, 1), (3, 2), (5, 4), (6, 1)):
        contents = [bytes([i]) * (i + 1) for i in range(count)]
        hashes = [hash_leaf(content) for content in contents]
        trees.append(
            {
                "leaves": [content.hex() for content in contents],
                "root": root_of(hashes).hex(),
                "index": index,
                "path": [sibling.hex() for sibling in prove(hashes, index)],
            }
        )
    return trees


def whole_round() -> dict[str, Any]:
    """Four members deal, open and decode; the first dealer's objects are given whole."""
    privates = [hashlib.sha256(b"member %d" % j).digest() for j in range(MEMBERS)]
    publics = {Index(j): crypto_scalarmult_base(private) for j, private in enumerate(privates)}
    addresses = [Address("0x" + f"{i + 1:040x}") for i in range(MEMBERS)]
    halves = [np.frombuffer(stream(f"values {i}")(2 * D), dtype="<u2").astype(np.int64) for i in range(MEMBERS)]
    coefficients = [half[0::2] + (half[1::2] << 22) for half in halves]
    terms: dict[str, Any] = {"encryption_keys": publics, "threshold": THRESHOLD}
    uploads = [
        deal_with(Place(CONTEXT, Index(i), addresses[i], publics, THRESHOLD), coefficients[i], stream(f"dealer {i}"))
        for i in range(MEMBERS)
    ]
    openings: dict[Index, Opening] = {}
    for j, private in enumerate(privates):
        shares = [
            open_share(
                upload.shares,
                CONTEXT,
                dealer=Index(i),
                dealer_address=addresses[i],
                me=Index(j),
                private_key=private,
                **terms,
            )
            for i, upload in enumerate(uploads)
        ]
        openings[Index(j)] = make_opening(shares)
    aggregate = sum_ciphertexts([upload.ciphertext for upload in uploads], D)
    opened = open_aggregate(aggregate, openings, threshold=THRESHOLD, participants=MEMBERS, context=CONTEXT, d=D)
    return {
        **context_fields(CONTEXT),
        "d": D,
        "threshold": THRESHOLD,
        "members": [
            {"address": addresses[i], "private_key": privates[i].hex(), "public_key": publics[Index(i)].hex()}
            for i in range(MEMBERS)
        ],
        "uploads": [
            {
                "coefficients": coefficients[i].tolist(),
                "ciphertext": upload.ciphertext.hex(),
                "ciphertext_root": upload.ciphertext_root.hex(),
                "shares_sha256": hashlib.sha256(upload.shares).hexdigest(),
                "shares_root": upload.shares_root.hex(),
            }
            for i, upload in enumerate(uploads)
        ],
        "shares_of_dealer_0": uploads[0].shares.hex(),
        "openings": [
            {"opening": opening.encode().hex(), "root": opening.root().hex()} for opening in openings.values()
        ],
        "aggregate": aggregate.pack().hex(),
        "aggregate_root": aggregate.root().hex(),
        "key_sum_first": opened.key_sum[:16].tolist(),
        "key_sum_root": opened.key_sum_root.hex(),
        "sums": opened.sums.tolist(),
        "result_root": opened.result_root.hex(),
    }


def negatives() -> list[dict[str, Any]]:
    """One field bent in each: bytes replaced at an offset, or the object cut to a length; and the check that fails."""

    def bend(name: str, kind: str, offset: int, replacement: str, check: str) -> dict[str, Any]:
        return {"name": name, "object": kind, "offset": offset, "bytes": replacement, "check": check}

    def cut(name: str, kind: str, length: int, check: str) -> dict[str, Any]:
        return {"name": name, "object": kind, "length": length, "check": check}

    records = 56 + 32 * MEMBERS + 16 * THRESHOLD
    return [
        cut("ciphertext_truncated", "ciphertext", 879, "ciphertext: size"),
        bend("ciphertext_magic", "ciphertext", 0, "46434147", "ciphertext: magic"),
        bend("ciphertext_version", "ciphertext", 4, "02", "ciphertext: version"),
        bend("ciphertext_length", "ciphertext", 8, "83", "ciphertext: length"),
        bend(
            "ciphertext_residue_of_q",
            "ciphertext",
            16,
            pack_residues(np.full(4, Q, "<u8"))[:7].hex(),
            "ciphertext: residue 0",
        ),
        cut("shares_truncated", "shares", 100, "shares: size"),
        bend("shares_magic", "shares", 0, "46435550", "shares: magic"),
        bend("shares_version", "shares", 4, "00", "shares: version"),
        bend("shares_dealer", "shares", 8, "01", "shares: dealer"),
        bend("shares_threshold", "shares", 9, "02", "shares: threshold"),
        bend("shares_padding", "shares", 15, "01", "shares: padding"),
        bend("shares_shareholders", "shares", 16, "07", "shares: shareholders"),
        bend("shares_place", "shares", 24, "00", "shares: place"),
        bend("shares_proof_range", "shares", records - 2, "f1ff", "shares: proof"),
        bend("share_sealing_key", "shares", records + 64, "00" * 32, "share: sealing key"),
        bend("share_sealing_key_of_low_order", "shares", records + 64, "01" + "00" * 31, "share: sealing key"),
        bend("share_sealing_key_not_canonical", "shares", records + 64, "f6" + "ff" * 30 + "7f", "share: sealing key"),
        bend("share_other_sealing_key", "shares", records + 64, "09" + "00" * 31, "share: sealing proof"),
        bend("share_sealing_proof", "shares", records + 40, "00", "share: sealing proof"),
        bend("share_sealing_proof_of_zeros", "shares", records, "00" * 64, "share: sealing proof"),
        bend("share_commitment", "shares", 56, "00", "share: commitment"),
        bend("share_other_commitment", "shares", 56 + 32, "00", "share: low-degree proof"),
        bend("share_proof", "shares", records - 2, "0000", "share: low-degree proof"),
        bend("share_seal", "shares", records + 64 + 60, "00", "share: seal"),
        cut("opening_truncated", "opening", 4095, "opening: size"),
        bend("opening_element", "opening", 4094, "f1ff", "opening: element 2047"),
        cut("aggregate_truncated", "aggregate", 16, "aggregate: size"),
        bend("aggregate_magic", "aggregate", 2, "5550", "aggregate: magic"),
        bend("aggregate_residue", "aggregate", 16 + 432, "ffffffffffffff", "aggregate: residue 64"),
    ]


def context_fields(context: RoundContext) -> dict[str, Any]:
    """A context for JSON."""
    return {
        "chain_id": context.chain_id,
        "contract": context.contract,
        "round": context.round,
        "attempt": context.attempt,
        "model_digest": context.model_digest.hex(),
    }


if __name__ == "__main__":
    main()
