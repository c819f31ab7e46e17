"""Dealers: what they encrypt under which key, whom they deal what, and what they store."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fedchain.crypto import RoundContext, Upload, deal
from fedchain.crypto import dealing as dealing_module
from fedchain.crypto import upload as upload_module
from fedchain.crypto.aggregate import leaf_hashes
from fedchain.crypto.packing import pack_residues, unpack_residues
from fedchain.crypto.parameters import HEADER_BYTES, LEAF_RESIDUES, SHARE_PRIME, N
from fedchain.peer import trainer
from fedchain.peer.journal import Dealt
from fedchain.peer.trainer import Trainer
from fedchain.protocol.cid import cid_of
from fedchain.protocol.ids import Index
from fedchain.protocol.merkle import root_of
from fedchain.protocol.state import Attempt, FederationState

from .catalogue import Expected, Liar, keeping, misbehaviour, replaced

VICTIM = Index(0)

LEFT_OUT = "no receipt vouches for it, and the sum goes without"
PROVEN = "who got a wrong share complains with evidence that anybody checks, and the sum goes without"


class Forger(Trainer, Liar):
    """Deals something else than it trained, in its round."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        return deal(context, **place)

    def _deal(self, state: FederationState, attempt: Attempt, now: int) -> Dealt:
        if not self.lies_in(attempt):
            return super()._deal(state, attempt, now)

        def forged(context: RoundContext, **place: Any) -> Upload:
            return self.forge(attempt, context, place)

        with replaced(trainer, "deal", forged):
            return super()._deal(state, attempt, now)


@misbehaviour(
    "spoiler",
    "the openings do not open the sum: t members give the set up, and the round begins again; nobody can tell whose key"
    " it was",
    Expected(attempts=2),
)
class Spoiler(Forger):
    """Deals another key than it encrypted under, in the first attempt."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        upload = deal(context, **place)
        if attempt.attempt:
            return upload
        other = deal(context, **place)
        return replace(upload, ciphertext=other.ciphertext, ciphertext_root=other.ciphertext_root)


@misbehaviour(
    "other-seed",
    "as with a spoiler: the set is given up by vote; nobody can tell whose ciphertext it was",
    Expected(attempts=2),
)
class OtherSeed(Forger):
    """Encrypts under another round's public polynomials, and deals the key rightly, in the first attempt."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        if attempt.attempt:
            return deal(context, **place)
        other, encrypt = replace(context, round=context.round + 1).seed, upload_module.encrypt
        with replaced(upload_module, "encrypt", lambda seed, *rest: encrypt(other, *rest)):
            return deal(context, **place)


@misbehaviour(
    "residue-beyond-q",
    "one leaf of its tree proves it on chain (R4), and no receipt vouches for it",
    Expected(out=True, slashed=4, faults=(4,), logged="challenging"),
)
class ResidueBeyondQ(Forger):
    """Commits to a ciphertext with a residue of 2^54 - 1, above q."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        upload = deal(context, **place)
        residues = unpack_residues(upload.ciphertext[HEADER_BYTES:]).copy()
        residues[0] = 2**54 - 1
        leaves = residues.reshape(-1, LEAF_RESIDUES)
        content = upload.ciphertext[:HEADER_BYTES] + pack_residues(leaves)
        return replace(upload, ciphertext=content, ciphertext_root=root_of(leaf_hashes(leaves)))


@misbehaviour("truncated-blob", LEFT_OUT, Expected(out=True, faults=(4,), logged="update refused"))
class TruncatedBlob(Forger):
    """Stores a ciphertext without its last leaf."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        upload = deal(context, **place)
        return replace(upload, ciphertext=upload.ciphertext[:-432])


@misbehaviour(
    "blob-too-long",
    "no more than an upload's size is ever fetched: it is not to be had, is waited for half of the receipt window, and"
    " the sum goes without",
    Expected(out=True, logged="update not yet available"),
)
class BlobTooLong(Forger):
    """Stores a ciphertext with a byte more than there can be."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        upload = deal(context, **place)
        return replace(upload, ciphertext=upload.ciphertext + b"\0")


@misbehaviour("poisoned-shape", LEFT_OUT, Expected(out=True, logged="update not yet available"))
class PoisonedShape(Forger):
    """Encrypts an update to a larger model than there is."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        longer = np.concatenate([place["coefficients"], np.zeros(LEAF_RESIDUES, dtype=np.uint64)])
        return deal(context, **(place | {"coefficients": longer}))


@misbehaviour("other-bytes", LEFT_OUT, Expected(out=True, faults=(3,), logged="update refused"))
class OtherBytes(Forger):
    """Commits to its ciphertext, and stores another one."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        return replace(deal(context, **place), ciphertext=deal(context, **place).ciphertext)


@misbehaviour(
    "withheld-blob",
    "waited for half of the receipt window, then the sum goes without; nobody owes what is in no sum",
    Expected(out=True, logged="update not yet available"),
    store=keeping,
)
class WithheldBlob(Forger):
    """Commits to an upload and keeps its ciphertext from everyone."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        upload = deal(context, **place)
        self.hidden.add(cid_of(upload.ciphertext))
        return upload


class WrongShares(Forger):
    """Deals shares off the polynomials, one more than they should be, to those it picks."""

    @staticmethod
    def wronged(shareholders: list[Index], dealer: Index) -> list[int]:
        raise NotImplementedError

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        rows = self.wronged(sorted(place["encryption_keys"]), place["dealer"])
        evaluate = dealing_module.evaluate

        def wrong(polynomials: Any, points: Any) -> Any:
            values = evaluate(polynomials, points)
            if values.shape[1] == N:
                values[rows] = (values[rows] + 1) % SHARE_PRIME
            return values

        with replaced(dealing_module, "evaluate", wrong):
            return deal(context, **place)


@misbehaviour("garbage-shares", PROVEN, Expected(out=True, faults=(5,), logged="bad dealing"))
class GarbageShares(WrongShares):
    """Deals shares that fit no polynomial to everybody else."""

    @staticmethod
    def wronged(shareholders: list[Index], dealer: Index) -> list[int]:
        return [row for row, index in enumerate(shareholders) if index != dealer]


@misbehaviour("garbage-share-to-one", PROVEN, Expected(out=True, faults=(5,), logged="bad dealing"))
class GarbageShareToOne(WrongShares):
    """Deals a wrong share to one victim only."""

    @staticmethod
    def wronged(shareholders: list[Index], dealer: Index) -> list[int]:
        return [shareholders.index(VICTIM)]


@misbehaviour("share-to-one-only", PROVEN, Expected(out=True, faults=(5,), logged="bad dealing"))
class ShareToOneOnly(WrongShares):
    """Deals a right share to one victim only, so that nobody else believes it."""

    @staticmethod
    def wronged(shareholders: list[Index], dealer: Index) -> list[int]:
        return [row for row, index in enumerate(shareholders) if index not in (dealer, VICTIM)]


@misbehaviour("wrong-rounds-key", LEFT_OUT, Expected(out=True, faults=(4,), logged="update refused"), round=2)
class WrongRoundsKey(Forger):
    """Deals a key, and encrypts, for the round before."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        return deal(replace(context, round=context.round - 1), **place)


@misbehaviour("stale-place", LEFT_OUT, Expected(out=True, faults=(4,), logged="update refused"), round=2)
class StalePlace(Forger):
    """Deals and encrypts on the model that stood before the last round."""

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        return deal(replace(context, model_digest=self._context.terms.genesis_digest), **place)


@misbehaviour("replayed-update", LEFT_OUT, Expected(out=True, faults=(4,), logged="update refused"), round=2)
class ReplayedUpdate(Forger):
    """Commits in one round to the very objects of the round before."""

    def _deal(self, state: FederationState, attempt: Attempt, now: int) -> Dealt:
        def kept(context: RoundContext, **place: Any) -> Upload:
            self.memory["upload"] = deal(context, **place)
            return self.memory["upload"]

        if self.lies_in(attempt):
            return super()._deal(state, attempt, now)
        with replaced(trainer, "deal", kept):
            return super()._deal(state, attempt, now)

    def forge(self, attempt: Attempt, context: RoundContext, place: dict[str, Any]) -> Upload:
        return self.memory.get("upload") or deal(context, **place)


@misbehaviour(
    "reused-key",
    "nobody can tell; every round has public polynomials of its own, so both ciphertexts stay ring-LWE samples of one"
    " secret, and what it risks is its own",
    Expected(),
    round=2,
)
class ReusedKey(Forger):
    """Encrypts its updates of two rounds under one key."""

    def _deal(self, state: FederationState, attempt: Attempt, now: int) -> Dealt:
        sample = upload_module.sample_binomial

        def the_same(count: int, random: Any) -> Any:
            if "key" not in self.memory:
                self.memory["key"] = sample(count, random)
            self.memory["uses"] = self.memory.get("uses", 0) + 1
            return self.memory["key"].copy()

        with replaced(upload_module, "sample_binomial", the_same):
            return super()._deal(state, attempt, now)
