"""Members that misbehave, each a few lines of a real peer changed.

`python tests/misbehave.py wrong-sum 2 peer run …` runs the peer that `fedchain peer run …` would, but for one lie in
round 2. What it lies about it also stores, as everybody else does; but who hides its lie stores nothing of it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from fedchain.cli.main import main
from fedchain.crypto import Aggregate, RoundContext, Upload, deal
from fedchain.crypto.parameters import PLAIN_MODULUS, SHARE_PRIME, Q
from fedchain.peer import node, trainer
from fedchain.peer.decoder import Decoder, Outcome
from fedchain.peer.respondent import Respondent
from fedchain.protocol.cid import cid_of
from fedchain.protocol.ids import Bitmap, Cid
from fedchain.protocol.model import model_digest
from fedchain.protocol.state import Attempt, FederationState
from fedchain.store import ipfs
from fedchain.store.ipfs import IpfsStore


class Liar(Decoder):
    """Computes everything right but in one round."""

    round: ClassVar[int] = 0


class WrongSum(Liar):
    """Aggregates a sum in which one residue is off by one."""

    def sum(self, attempt: Attempt, participants: Bitmap) -> Aggregate | None:
        total = super().sum(attempt, participants)
        if total is None or attempt.round != self.round:
            return total
        residues = total.residues.copy()
        residues[0, 100] = (residues[0, 100] + np.uint64(1)) % np.uint64(Q)
        return replace(total, residues=residues)


class HiddenSum(WrongSum):
    """Aggregates a wrong sum, and lets nobody fetch it; pages of it are shown when they are demanded."""

    hidden: ClassVar[set[Cid]] = set()

    def sum(self, attempt: Attempt, participants: Bitmap) -> Aggregate | None:
        total = super().sum(attempt, participants)
        if total is not None and attempt.round == self.round:
            self.hidden.add(cid_of(total.pack()))
        return total


class SilentSum(HiddenSum):
    """Aggregates a wrong sum, lets nobody fetch it, and answers no demand."""


class Keeping(IpfsStore):
    """A store that keeps what is hidden to itself."""

    def put(self, content: bytes) -> Cid:
        return cid if (cid := cid_of(content)) in HiddenSum.hidden else super().put(content)


class WrongModel(Liar):
    """Closes with right roots, and a model of its own."""

    def outcome(self, state: FederationState, attempt: Attempt) -> Outcome | None:
        honest = super().outcome(state, attempt)
        return honest if honest is None or attempt.round != self.round else posted(honest)


class Spoiler(Liar):
    """Deals another key than it encrypted under, in the first attempt."""

    @classmethod
    def deal(cls, context: RoundContext, **place: Any) -> Upload:
        upload = deal(context, **place)
        if (context.round, context.attempt) != (cls.round, 0):
            return upload
        other = deal(context, **place)
        return replace(upload, ciphertext=other.ciphertext, ciphertext_root=other.ciphertext_root)


class WrongResult(Liar):
    """Closes with one coefficient off by one, and a model of its own."""

    def outcome(self, state: FederationState, attempt: Attempt) -> Outcome | None:
        honest = super().outcome(state, attempt)
        return honest if honest is None or attempt.round != self.round else self.lie(honest)

    def lie(self, honest: Outcome) -> Outcome:
        coefficients = honest.opened.result.coefficients.copy()
        coefficients[0, 7] = (coefficients[0, 7] + np.uint64(1)) % np.uint64(PLAIN_MODULUS)
        return posted(honest, coefficients=coefficients)


class WrongKeySum(WrongResult):
    """Closes with an S that no opening gives, and a model of its own."""

    def lie(self, honest: Outcome) -> Outcome:
        elements = honest.opened.result.elements.copy()
        elements[2047] = (int(elements[2047]) + 1) % SHARE_PRIME
        return posted(honest, elements=elements)


def posted(honest: Outcome, **lies: Any) -> Outcome:
    """What a closer posts that changes its result so."""
    result = replace(honest.opened.result, **lies)
    opened = replace(honest.opened, result=result, key_sum_root=result.key_sum_root(), result_root=result.root())
    model = honest.model[:-4] + np.float32(0.25).tobytes()
    return replace(honest, opened=opened, model=model, digest=model_digest(model))


LIARS: dict[str, type[Liar]] = {
    "wrong-sum": WrongSum,
    "hidden-sum": HiddenSum,
    "silent-sum": SilentSum,
    "spoiler": Spoiler,
    "wrong-result": WrongResult,
    "wrong-key-sum": WrongKeySum,
    "wrong-model": WrongModel,
}


def lie(liar: str, round: int) -> None:
    """Make every peer of this process that liar in that round."""
    LIARS[liar].round = round
    node.Decoder = LIARS[liar]  # type: ignore[misc]
    ipfs.IpfsStore = Keeping  # type: ignore[misc]
    if LIARS[liar] is Spoiler:
        trainer.deal = Spoiler.deal  # type: ignore[assignment]
    if LIARS[liar] is SilentSum:
        Respondent.act = lambda self, state, now: False  # type: ignore[method-assign]


if __name__ == "__main__":
    liar, round, *arguments = sys.argv[1:]
    lie(liar, int(round))
    sys.argv = ["fedchain", *arguments]
    main()
