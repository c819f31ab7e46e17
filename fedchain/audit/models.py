"""The global model of a round, as a stranger gets it: found in the log, fetched, compared with the chain. Needs no key.

Three questions, each with its own function. Which model does the chain hold (`model_on_chain`)? Are these bytes that
model (`check_model`)? Does it follow from the encrypted updates (`recompute`, by the audit's checks 10 and 11)?
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ChainMismatch, CharterMismatch, Evidence, Fault, ObjectCorrupt, ObjectMissing, UsageError
from ..ports import ChainReader
from ..protocol.charter import MAX_CHARTER_BYTES, Charter, parse_charter
from ..protocol.events import Terms
from ..protocol.ids import Cid, Digest
from ..protocol.model import flatten, model_digest
from ..protocol.phase import is_finished
from ..protocol.state import FederationState
from ..protocol.update_format import fetched_model_bound
from .audit import audit
from .report import Check, Status
from .shelf import Objects


@dataclass(frozen=True, slots=True)
class ModelOnChain:
    """What the chain says of one global model. `round` 0 is the model that round 1 starts from.

    `contested_until` (seconds of chain time, 0 for round 0): until then its result, or one it was built on, may still
    be refuted and the model with it. `final`: the run is finished, and this is its last model.
    """

    round: int
    digest: Digest
    cid: Cid
    contested_until: int
    final: bool


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What came of computing models again. `checks` are check 10 of each round asked for, with the round's number.

    `faults` are rules that members broke without touching these models.
    """

    checks: tuple[tuple[int, Check], ...]
    faults: tuple[Evidence, ...]

    @property
    def rounds(self) -> tuple[int, ...]:
        """The rounds whose model came out the same."""
        return tuple(round for round, check in self.checks if check.status is Status.PASSED)

    @property
    def missing(self) -> tuple[tuple[int, str], ...]:
        """The rounds that could not be computed again, and why: (round, reason)."""
        return tuple((round, check.detail) for round, check in self.checks if check.status is not Status.PASSED)


def model_on_chain(state: FederationState, now: int, round: int | None = None) -> ModelOnChain:
    """The model that a closed round led to, the newest where no round is named, at a chain time. Raises UsageError."""
    newest = len(state.closed)
    asked = newest if round is None else round
    if not 0 <= asked <= newest:
        had = f"rounds 0 (the first model) to {newest}" if newest else "round 0, the first model, only"
        raise UsageError(f"round {asked} has no model yet: the chain holds those of {had}")
    if asked == 0:
        terms = state.terms
        return ModelOnChain(
            0, terms.genesis_digest, terms.genesis_cid, 0, final=newest == 0 and is_finished(state, now)
        )
    result = state.closed[asked].result
    assert result is not None
    return ModelOnChain(
        round=asked,
        digest=result.model_digest,
        cid=result.model_cid,
        contested_until=result.at + state.terms.challenge_window_s,
        final=asked == newest and is_finished(state, now),
    )


def round_of(state: FederationState, digest: Digest) -> int:
    """The newest closed round whose model has this digest (0: the first model). Raises ChainMismatch."""
    for round in range(len(state.closed), -1, -1):
        if state.base_model(round + 1)[0] == digest:
            return round
    raise ChainMismatch(
        f"the file's digest {digest.hex()} is on this chain for no round: it is no model of this federation, or was"
        " changed; fedchain model fetch gets the right one"
    )


def fetch_model(state: FederationState, store: Objects, model: ModelOnChain) -> bytes:
    """A model's bytes from the store, checked as `check_model` does. Raises ObjectMissing, ObjectCorrupt."""
    charter: Charter | None = None
    with suppress(ObjectMissing, ObjectCorrupt, UsageError):
        charter = fetch_charter(state.terms, store)
    content = fetch_object(store, model.cid, fetched_model_bound(state.terms.model_size, charter))
    check_model(model, content)
    return content


def fetch_charter(terms: Terms, store: Objects) -> Charter:
    """The charter that the contract binds. Raises ObjectMissing, ObjectCorrupt, UsageError, and CharterMismatch where
    the stored one is another."""
    content = fetch_object(store, terms.charter_cid, MAX_CHARTER_BYTES)
    if hashlib.sha256(content).digest() != terms.charter_digest:
        raise CharterMismatch("the stored charter is not the one whose digest the contract holds; do not use it")
    return parse_charter(content)


def fetch_object(store: Objects, cid: Cid, max_bytes: int) -> bytes:
    """A small object, or a model, in memory; verified against its CID. Raises as `fetch_model` does."""
    with tempfile.TemporaryDirectory(prefix="fedchain-object-") as folder:
        path = Path(folder) / "object"
        store.get_file(cid, max_bytes, path)
        return path.read_bytes()


def check_model(model: ModelOnChain, content: bytes) -> None:
    """Hold bytes to the chain: their digest, the canonical form, finite values.

    Raises ChainMismatch for another digest, MalformedObject for bytes that are no model.
    """
    digest = model_digest(content)
    if digest != model.digest:
        raise ChainMismatch(
            f"the digest of these bytes is {digest.hex()}, the chain holds {model.digest.hex()} for round"
            f" {model.round}: whoever stored the object, or posted its CID, lied; do not use it"
        )
    flatten(content)


def recompute(
    reader: ChainReader,
    store: Objects,
    model: ModelOnChain,
    *,
    whole_chain: bool = False,
    code_check: Callable[[], None] | None = None,
) -> Recomputed:
    """Compute a model again from its round's encrypted updates; with `whole_chain`, all from the first model on.

    Raises Fault when one comes out differently, or the founding is not what it claims: then nobody should use it.
    What members did wrong without touching these models is handed back.
    """
    if model.round == 0:
        return Recomputed((), ())
    report = audit(reader, store, code_check=code_check, only_round=None if whole_chain else model.round)
    first = 1 if whole_chain else model.round
    others = []
    for fault in report.faults:
        number = int(fault.check.split()[0])
        if number in (1, 11) or (number == 10 and first <= fault.round <= model.round):
            raise Fault(fault.check, offender=fault.offender, round=fault.round, expected=fault.expected, got=fault.got)
        others.append(fault)
    checks = tuple((a.round, a.check(10)) for a in report.rounds if first <= a.round <= model.round)
    return Recomputed(checks, tuple(others))
