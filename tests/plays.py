"""Whole rounds with real numbers, for challenges and demands: `Play` deals, sums, opens and decodes a small model with
`fedchain.crypto`, says it on a chain, and makes the evidence against any part of it.

Evidence and pages are built here from what specifies them (docs/crypto.md, ICouncil.sol), and not by the package's own
challenger, so that the two can disagree. A test lies by changing a tree before it is said.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
from eth_hash.auto import keccak

from fedchain.crypto import (
    Aggregate,
    RoundContext,
    Upload,
    deal,
    generate_encryption_key,
    make_opening,
    open_aggregate,
    open_share,
)
from fedchain.crypto.numpy_engine import decode
from fedchain.crypto.packing import unpack_residues
from fedchain.crypto.parameters import HEADER_BYTES, SHARE_PRIME, N, Q
from fedchain.crypto.ring import SmallFactor
from fedchain.crypto.seed import public_polynomials
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.ids import Address, Digest, Index
from fedchain.protocol.merkle import hash_leaves, prove, root_of

MODEL_SIZE = 1100  # nine leaves, so that trees are padded; one polynomial
KEY_LEAVES = 32


class Tree:
    """An object as it is committed to: (leaves, 64) uint64, which a test may change."""

    def __init__(self, residues: Any) -> None:
        self.leaves = np.array(residues, dtype=np.uint64).reshape(-1, 64)

    def hashes(self) -> list[bytes]:
        return hash_leaves(self.leaves.astype("<u8").tobytes(), 512)

    def root(self) -> bytes:
        return root_of(self.hashes())

    def proof(self, leaf: int) -> list[bytes]:
        """16 words of content, then the path."""
        content = self.leaves[leaf].astype("<u8").tobytes()
        return [content[i : i + 32] for i in range(0, 512, 32)] + list(prove(self.hashes(), leaf))

    def levels(self) -> list[list[bytes]]:
        """Every level of the padded tree, leaves first."""
        hashes = self.hashes()
        level = hashes + [bytes(32)] * ((1 << (len(hashes) - 1).bit_length()) - len(hashes))
        levels = [level]
        while len(level) > 1:
            level = [sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=True)]
            levels.append(level)
        return levels

    def page(self, level: int, position: int) -> list[bytes]:
        """What shows a node: the nodes six levels below it, or the leaves' (of a leaf, its words), then its path."""
        levels, below = self.levels(), min(6, level)
        words = self.proof(position)[:16]
        if level:
            words = levels[level - below][position << below : (position + 1) << below]
        return words + [levels[up][(position >> (up - level)) ^ 1] for up in range(level, len(levels) - 1)]


@cache
def keys_of(members: int) -> list[tuple[bytes, bytes]]:
    return [generate_encryption_key() for _ in range(members)]


@cache
def dealt(
    context: RoundContext, founders: tuple[str, ...], threshold: int, d: int
) -> tuple[dict[int, Upload], dict[int, dict[int, Any]]]:
    """Everyone's upload, and the shares that each member holds of each. Made once for each place."""
    keys = keys_of(len(founders))
    encryption_keys = {Index(i): public for i, (_, public) in enumerate(keys)}
    uploads, shares = {}, {}
    random = np.random.default_rng(context.round)
    for i, founder in enumerate(founders):
        place: dict[str, Any] = {"dealer": Index(i), "dealer_address": Address(founder), "threshold": threshold}
        place["encryption_keys"] = encryption_keys
        uploads[i] = deal(context, coefficients=random.integers(0, 2**38, d // 2), **place)
        shares[i] = {
            j: open_share(uploads[i].shares, context, me=Index(j), private_key=private, **place)
            for j, (private, _) in enumerate(keys)
        }
    return uploads, shares


class Play:
    """One round of a federation, honest until a test changes something.

    `out` are members whose updates are left out of the sum, `silent` those who say nothing at all.
    """

    def __init__(
        self, federation: Any, round: int = 1, attempt: int = 0, out: Iterable[int] = (), silent: Iterable[int] = ()
    ) -> None:
        self.federation, self.round, self.attempt = federation, round, attempt
        self.d, self.threshold = federation.terms["modelSize"], federation.terms["threshold"]
        self.members = range(len(federation.founders))
        self.participants = [i for i in self.members if i not in set(out)]
        self.bitmap = sum(1 << i for i in self.participants)
        model = Digest(federation.call("model"))
        self.context = RoundContext(federation.chain.chain_id, Address(federation.address), round, attempt, model)
        self.uploads, self.shares = dealt(self.context, tuple(federation.founders), self.threshold, self.d)
        self.updates = {i: Tree(unpack_residues(u.ciphertext[HEADER_BYTES:])) for i, u in self.uploads.items()}
        self.order = [i for i in reversed(self.members) if i not in set(silent)]  # in which members commit and open
        self.openers = self.order[: self.threshold]
        self.opened: list[int] = []
        openings = {i: make_opening([self.shares[p][i] for p in self.participants]) for i in self.members}
        self.openings = {i: Tree(opening.elements) for i, opening in openings.items()}
        self.aggregate = self.sum()
        found = open_aggregate(
            Aggregate(self._polynomials(self.aggregate), self.d),
            {Index(i): openings[i] for i in self.openers},
            threshold=self.threshold,
            participants=len(self.participants),
            context=self.context,
            d=self.d,
        )
        self.key_sum = Tree(np.mod(found.key_sum, SHARE_PRIME))
        self.result = self.decoded()
        assert (self.key_sum.root(), self.result.root()) == (found.key_sum_root, found.result_root)

    # What follows from what.

    def sum(self) -> Tree:
        """The sum mod q of the participants' updates, whatever they hold."""
        total = sum(self.updates[i].leaves.astype(object) for i in self.participants)
        return Tree((total % Q).astype(np.uint64))

    def decoded(self) -> Tree:
        """The decoding of C + a·S for the present updates and S, whatever noise it leaves."""
        s = self.key_sum.leaves.reshape(-1).astype(np.int64)
        s = np.where(s > SHARE_PRIME // 2, s - SHARE_PRIME, s)
        c = self._polynomials(self.sum())
        phase = (SmallFactor(s).times(public_polynomials(self.context.seed, 0, len(c))) + c) % np.uint64(Q)
        return Tree(decode(phase).reshape(-1)[: self.aggregate.leaves.size])

    def _polynomials(self, tree: Tree) -> Any:
        flat = tree.leaves.reshape(-1)
        return np.concatenate([flat, np.zeros(-flat.size % N, dtype=np.uint64)]).reshape(-1, N)

    def commitment(self, member: int) -> bytes:
        return update_commitment(
            self.context.chain_id,
            self.context.contract,
            self.round,
            self.attempt,
            Address(self.federation.founders[member]),
            self.updates[member].root(),
            self.uploads[member].shares_root,
        )

    # What members say.

    def commit(self) -> Play:
        for member in self.order:
            words = [self.commitment(member), b"\x01" * 32, b"\x02" * 32]
            self.federation.send(member, "commitUpdate", self.round, self.attempt, *words)
        return self

    def post(self) -> Play:
        for member in self.order:
            self.federation.receipt(member, self.bitmap, self.round, self.attempt)
        return self

    def lock(self) -> Play:
        words = (self.bitmap, self.basis, self.aggregate.root(), b"\x03" * 32)
        turn = self.federation.call("aggregatorNow")
        self.federation.send(turn, "commitAggregate", self.round, self.attempt, 0, *words)
        self.aggregator = turn
        return self

    def open(self, *members: int) -> Play:
        for member in members or self.order:
            words = (self.openings[member].root(), b"\x04" * 32)
            self.federation.send(member, "publishOpening", self.round, self.attempt, 0, *words)
            self.opened.append(member)
        return self

    def close(self, member: int = 0) -> Play:
        openers = sum(1 << i for i in self.openers)
        basis = self.federation.call("basisOf", self.round, 0)
        words = (openers, basis, self.key_sum.root(), self.result.root(), b"\x05" * 32, self.model, b"\x05" * 32)
        self.federation.send(member, "commitResult", self.round, self.attempt, 0, *words)
        self.closer = member
        return self

    @property
    def basis(self) -> bytes:
        """The running digest of the commitments, whatever the chain holds."""
        digest = bytes(32)
        for i in self.order:
            digest = keccak(digest + i.to_bytes(32, "big") + self.commitment(i))
        return digest

    @property
    def model(self) -> bytes:
        """A digest that stands for the model which follows from the result."""
        return self.result.root()[::-1]

    def all(self, closer: int = 0) -> Play:
        return self.commit().post().lock().open().close(closer)

    def restate(self, member: int) -> dict[str, Any]:
        words = (self.bitmap, self.basis, self.aggregate.root(), b"\x06" * 32)
        told: dict[str, Any] = self.federation.send(member, "restateAggregate", self.round, 0, *words)
        return told

    # What a challenger hands in: the arguments of each challenge.

    def commits(self, rebuilt: Iterable[int]) -> list[tuple[int, bytes]]:
        """The list of commitments; of those that are rebuilt from their leaves, the shares root."""
        wanted = set(rebuilt)
        return [(i, self.uploads[i].shares_root if i in wanted else self.commitment(i)) for i in self.order]

    def updates_at(self, leaf: int) -> list[bytes]:
        return [w for i in self.order if i in self.participants for w in self.updates[i].proof(leaf)]

    def against_aggregate(self, leaf: int) -> tuple[Any, ...]:
        proofs = self.aggregate.proof(leaf) + self.updates_at(leaf)
        return self.round, 0, leaf, self.commits(self.participants), proofs

    def against_key_sum(self, leaf: int) -> tuple[Any, ...]:
        lines = [(i, bytes(32) if i in self.openers else self.openings[i].root()) for i in self.opened]
        proofs = self.key_sum.proof(leaf)
        for i in self.opened:
            if i in self.openers:
                proofs += self.openings[i].proof(leaf)
        return self.round, 0, leaf, lines, proofs

    def against_result(self, coefficient: int) -> tuple[Any, ...]:
        leaf = coefficient // 64
        elements = self.key_sum.leaves.astype("<u2").tobytes()
        proofs = self.result.proof(leaf) + self.updates_at(leaf)
        return self.round, 0, coefficient, elements, self.commits(self.participants), proofs

    def against_residue(self, member: int, leaf: int) -> tuple[Any, ...]:
        return self.round, self.attempt, member, leaf, self.commits([member]), self.updates[member].proof(leaf)
