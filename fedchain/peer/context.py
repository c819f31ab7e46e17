"""What the three roles of one peer share: who it is, what the charter says, and the doors to chain and store."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog

from ..crypto import RoundContext
from ..errors import CharterMismatch, MalformedObject, ObjectCorrupt
from ..ports import ChainReader, ChainWriter, EncryptionKeys, Store
from ..protocol.charter import Charter
from ..protocol.events import Terms
from ..protocol.ids import Address, Cid, Digest, Index, Root
from ..protocol.model import model_digest
from ..protocol.outer import update_size_of
from ..protocol.state import Attempt
from ..protocol.statements import OpeningStatement, Statement
from ..protocol.update_format import fetched_model_bound, model_size_of
from .journal import Journal
from .kept import KeptState
from .meter import Meter
from .outbox import Outbox

if TYPE_CHECKING:
    from ..learn import LocalData, Machine, Task

GROUP = 0
"""The only group for now; statements are keyed by (round, group) from the start (P6)."""


@dataclass(slots=True)
class PeerContext:
    """One peer's standing in one federation.

    `seed` drives training and rounding, and nothing secret. `folder` holds the journal, fetched objects and models.
    `challenge`: whether it takes wrong statements to the contract, or leaves that to others; `deposits`: for how many
    demanded pages at most its deposits may be out, or gone; `outbox`: where it hands statements to a relayer, if any.
    `machine`: how it computes; None is one thread of the CPU.
    """

    me: Index
    address: Address
    keys: EncryptionKeys
    charter: Charter
    terms: Terms
    task: Task
    data: LocalData
    reader: ChainReader
    sender: ChainWriter
    store: Store
    journal: Journal
    meter: Meter
    folder: Path
    seed: int
    engine: Literal["numpy", "tenseal"]
    challenge: bool
    deposits: int
    outbox: Outbox | None
    log: structlog.stdlib.BoundLogger
    machine: Machine | None = None

    @property
    def objects(self) -> Path:
        """Where fetched objects of the rounds under way are kept."""
        return self.folder / "objects"

    @property
    def kept(self) -> KeptState:
        """What this peer keeps of its own training."""
        return KeptState(self.folder / "kept", self.me)

    @property
    def models(self) -> Path:
        """Where the global models are kept, one file a round."""
        return self.folder / "models"

    def round_context(self, attempt: Attempt) -> RoundContext:
        """What the one-time keys and public polynomials of this attempt are bound to."""
        return RoundContext(
            chain_id=self.reader.chain_id,
            contract=self.reader.contract,
            round=attempt.round,
            attempt=attempt.attempt,
            model_digest=attempt.base_digest,
        )

    def base_model(self, attempt: Attempt) -> bytes:
        """The model that members train from in this attempt."""
        return self.model(attempt.base_digest, attempt.base_cid)

    def duty(self, name: str, attempt: Attempt, fallen: int = 0, basis: Digest | None = None) -> str:
        """The name under which a duty's one statement is journalled.

        `fallen`: how often it fell and is due again; `basis`: what it rests on, where the contract compares that.
        """
        key = f"{name}/{attempt.round}/{attempt.attempt}/{GROUP}" + (f"/{fallen}" if fallen else "")
        return key if basis is None else f"{key}/{basis.hex()}"

    def is_relayed(self, said: Statement, now: int, *, since: int, window_s: int) -> bool:
        """Whether a statement is left to a relayer: it was handed over, and its window has a third left to wait for.

        A second, other opening of one place is not signed: this peer sends it itself, if at all.
        """
        if self.outbox is None or now >= since + 2 * window_s // 3:
            return False
        if isinstance(said, OpeningStatement) and not self.journal.may_sign(said):
            return False
        self.outbox.lay(said)
        return True

    def model(self, digest: Digest, cid: Cid) -> bytes:
        """A global model by the digest that the chain holds: from disk, or fetched, verified and kept.

        Raises ObjectCorrupt when the object under the CID is not the model of that digest.
        """
        path = self.models / f"{digest.hex()}.safetensors"
        if path.exists():
            content = path.read_bytes()
            if hashlib.sha256(content).digest() == digest:
                return content
        content = self.store.get(cid, fetched_model_bound(self.terms.model_size, self.charter))
        if model_digest(content) != digest:
            raise ObjectCorrupt(f"the object {cid} is not the model whose digest {digest.hex()} stands on chain")
        self.keep_model(content)
        self.store.pin(cid)
        return content

    def keep_model(self, content: bytes) -> Path:
        """Write a model to disk under its digest, whole or not at all."""
        self.models.mkdir(parents=True, exist_ok=True)
        path = self.models / f"{model_digest(content).hex()}.safetensors"
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_bytes(content)
            part.replace(path)
        return path

    def keep_result(self, key_sum_root: Root, result_root: Root, content: bytes) -> None:
        """Write what a round was decoded to, whole or not at all.

        All that is built on a round falls with its closer's silence (P5.11): others can answer for it only with this,
        once the round's uploads were let go.
        """
        path = self._result_path(key_sum_root, result_root)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            part = path.with_suffix(".part")
            part.write_bytes(content)
            part.replace(path)

    def result(self, key_sum_root: Root, result_root: Root) -> bytes | None:
        """What this peer decoded to these two roots, if it did."""
        path = self._result_path(key_sum_root, result_root)
        return path.read_bytes() if path.exists() else None

    def forget_results(self, of: Collection[tuple[Root, Root]]) -> None:
        """Let the results of these pairs of roots go; what else was decoded stays."""
        for path in {self._result_path(*roots) for roots in of} & set(self.models.with_name("results").glob("*")):
            path.unlink()

    def _result_path(self, key_sum_root: Root, result_root: Root) -> Path:
        return self.models.with_name("results") / f"{key_sum_root.hex()}-{result_root.hex()}"

    def check_genesis(self) -> None:
        """Raise CharterMismatch unless the first model is of the contract's size, the charter's state beside it."""
        genesis = self.model(self.terms.genesis_digest, self.terms.genesis_cid)
        try:
            size = model_size_of(self.charter, update_size_of(genesis, self.charter))
        except MalformedObject as broken:
            raise CharterMismatch(f"the first model does not fit the charter: {broken}") from broken
        if size != self.terms.model_size:
            raise CharterMismatch(
                f"updates to the first model are of the size {size}, the contract says {self.terms.model_size}"
            )
