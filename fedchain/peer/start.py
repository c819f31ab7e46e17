"""From an operator's options to a peer at work: who am I, is this the federation I agreed to, is my data there?

A peer whose charter, task or model differs from what the contract holds refuses to start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from ..errors import CharterMismatch, UsageError
from ..learn import LocalData, Machine, Task, first_model, load_task, local_data_of, read_start
from ..learn.pretrained import Fetch
from ..ports import ChainReader, ChainWriter, EncryptionKeys, Store
from ..protocol.actions import Enrol
from ..protocol.arithmetic import weight_of
from ..protocol.charter import Charter, read_charter
from ..protocol.founding import disagreements
from ..protocol.ids import Address, Index
from ..protocol.model import model_digest
from ..protocol.phase import Phase, phase_of, start_of_run
from ..protocol.state import FederationState
from .context import PeerContext
from .crash import crash_point
from .journal import Journal
from .meter import Meter
from .node import Node
from .outbox import Outbox

DEPOSITS = 40
"""How many deposits a peer risks on demands, unless it is told otherwise: enough for the costliest lie, an S of which
every leaf is wrong; each is a 32nd of a bond, and half of the liar's bond comes back."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One member's place in a federation it has checked: its index, the charter, its task and its own data."""

    me: Index
    charter: Charter
    task: Task
    data: LocalData

    @property
    def samples(self) -> int:
        """How many samples this member trains on."""
        return len(self.data.train)


def stand(state: FederationState, folder: Path, address: Address, fetch: Fetch | None = None) -> Standing:
    """This address's standing in the federation, by the charter, task and first weights in `folder`.

    `fetch` gets weights that the charter names by CID; without it they must lie in the folder.
    Raises CharterMismatch when the folder's charter is not the contract's, UsageError when the address is no member's.
    """
    charter = read_charter(folder)
    check_charter(state, charter)
    me = state.index_of(address)
    if me is None:
        raise UsageError(
            f"{address} is not a member; ask {state.threshold} of the members to run: fedchain vote admit {address}"
        )
    task = load_task(folder / charter.federation.task, charter.task_sha256)
    if model_digest(first_model(task, charter, read_start(folder, charter, task, fetch))) != state.terms.genesis_digest:
        raise CharterMismatch(
            "the contract's first model is not the one that the charter's task and seed give here; ask the deployer"
            " how it was made, and use the same version of torch"
        )
    # Where data are dealt out by index, as in examples, who joins later changes nothing about the founders' parts.
    data = local_data_of(task, me, max(len(state.founders), me + 1), charter.run.seed)
    return Standing(me=me, charter=charter, task=task, data=data)


def check_charter(state: FederationState, charter: Charter) -> None:
    """Raise CharterMismatch unless the contract was founded with this charter, in every entry.

    The deployer wrote the contract's digest and its terms alike, so both are compared: founders that the charter does
    not name could be one person's, who would then hold t shares of every key.
    """
    for entry, agreed, deployed in disagreements(charter, state.terms, state.founders):
        raise CharterMismatch(f"your charter says {entry} = {agreed}, the contract has {deployed}; do not join it")
    if charter.digest() != state.terms.charter_digest:
        raise CharterMismatch(
            f"your charter has the digest {charter.digest().hex()}, the contract holds"
            f" {state.terms.charter_digest.hex()}; federation.toml and the task file must be byte for byte what the"
            " members agreed on"
        )


def may_enrol(state: FederationState, me: Index, now: int) -> bool:
    """Whether this member is not enrolled, and may: a founder before the run begins, later whom members have admitted.

    Who left and was admitted again enrols again, once its bond is back.
    """
    if start_of_run(state, now) is None:
        return me not in state.members
    admitted = bool(state.admitted >> me & 1 and not state.bonded >> me & 1)
    return admitted and phase_of(state, state.round, now) is not Phase.FINISHED


def enrol(
    state: FederationState, standing: Standing, sender: ChainWriter, encryption_public: bytes, before: int = 0
) -> None:
    """Pay the bond and register key and weight; `before`: how often this member has taken its bond back."""
    weight = weight_of(standing.samples, standing.charter.update)
    crash_point("before-enrol", 0)
    key = f"enrol/{before}" if before else "enrol"
    sender.submit(key, Enrol(encryption_key=encryption_public, weight=weight, bond_wei=state.terms.bond_wei))
    crash_point("after-enrol", 0)


def run_peer(
    *,
    standing: Standing,
    state: FederationState,
    address: Address,
    keys: EncryptionKeys,
    reader: ChainReader,
    sender: ChainWriter,
    store: Store,
    journal: Journal,
    folder: Path,
    seed: int,
    engine: Literal["numpy", "tenseal"],
    log: structlog.stdlib.BoundLogger,
    challenge: bool = True,
    deposits: int = DEPOSITS,
    stay: bool = True,
    machine: Machine | None = None,
    outbox: Outbox | None = None,
    poll_s: float = 0.25,
    watch: Callable[[FederationState, int], None] | None = None,
    join: Callable[[FederationState, int], bool] | None = None,
    meter: Meter | None = None,
    mined: Callable[[bytes], None] = lambda transaction: None,
) -> FederationState:
    """Work for the federation until its run is finished; gives the final state.

    `meter`: where its figures are collected; `mined` is told every transaction that made a statement.
    """
    meter = meter or Meter(folder / "rounds.jsonl", store)
    context = PeerContext(
        me=standing.me,
        address=address,
        keys=keys,
        charter=standing.charter,
        terms=state.terms,
        task=standing.task,
        data=standing.data,
        reader=reader,
        sender=meter.counted(sender, mined),
        store=store,
        journal=journal,
        meter=meter,
        folder=folder,
        seed=seed,
        engine=engine,
        challenge=challenge,
        deposits=deposits,
        outbox=outbox,
        log=log,
        machine=machine,
    )
    if phase_of(state, state.round, reader.now()) is not Phase.FINISHED:
        context.check_genesis()
    return Node(context, poll_s=poll_s, watch=watch, stay=stay, join=join).run()
