"""Members that misbehave, each a few lines of a real peer changed.

`python tests/misbehave.py wrong-sum 2 peer run …` runs the peer that `fedchain peer run …` would, but for one lie in
round 2. What it lies about it also stores, as everybody else does: a lie that is withheld cannot be proven wrong.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from fedchain.cli.main import main
from fedchain.crypto import Aggregate
from fedchain.crypto.parameters import PLAIN_MODULUS, SHARE_PRIME, Q
from fedchain.peer import node
from fedchain.peer.decoder import Decoder, Outcome
from fedchain.protocol.ids import Bitmap
from fedchain.protocol.model import model_digest
from fedchain.protocol.state import Attempt, FederationState


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


LIARS: dict[str, type[Liar]] = {"wrong-sum": WrongSum, "wrong-result": WrongResult, "wrong-key-sum": WrongKeySum}

if __name__ == "__main__":
    liar, round, *arguments = sys.argv[1:]
    LIARS[liar].round = int(round)
    node.Decoder = LIARS[liar]  # type: ignore[misc]
    sys.argv = ["fedchain", *arguments]
    main()
