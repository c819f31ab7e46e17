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
from ..ports import ChainReader, ChainWriter, Store
from ..protocol.actions import Enrol
from ..protocol.arithmetic import weight_of
from ..protocol.charter import Charter, read_charter
from ..protocol.founding import disagreements
from ..protocol.ids import Address, Index
from ..protocol.model import model_digest
from ..protocol.phase import Phase, phase_of
from ..protocol.state import FederationState
from .context import PeerContext
from .crash import crash_point
from .journal import Journal
from .meter import Meter
from .node import Node


@dataclass(frozen=True, slots=True)
class Standing:
    """One founder's place in a federation it has checked: its index, the charter, its task and its own data."""

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
    Raises CharterMismatch when the folder's charter is not the contract's, UsageError when the address is no founder.
    """
    charter = read_charter(folder)
    check_charter(state, charter)
    me = state.index_of(address)
    if me is None:
        raise UsageError(f"{address} is not among the federation's founders; its charter names who may join")
    task = load_task(folder / charter.federation.task, charter.task_sha256)
    if model_digest(first_model(task, charter, read_start(folder, charter, fetch))) != state.terms.genesis_digest:
        raise CharterMismatch(
            "the contract's first model is not the one that the charter's task and seed give here; ask the deployer"
            " how it was made, and use the same version of torch"
        )
    data = local_data_of(task, me, len(state.founders), charter.run.seed)
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


def check_key(state: FederationState, me: Index, encryption_public: bytes) -> None:
    """Raise UsageError if this member enrolled with another encryption key: it could open nothing dealt to it."""
    if me in state.members and state.members[me].encryption_key != encryption_public:
        raise UsageError("this member is enrolled with another encryption key; use the key file it enrolled with")


def enrol(state: FederationState, standing: Standing, sender: ChainWriter, encryption_public: bytes) -> bool:
    """Pay the bond and register key and weight, if that was not done before; whether a transaction was sent."""
    check_key(state, standing.me, encryption_public)
    if standing.me in state.members:
        return False
    weight = weight_of(standing.samples, standing.charter.update)
    crash_point("before-enrol", 0)
    sender.submit("enrol", Enrol(encryption_key=encryption_public, weight=weight, bond_wei=state.terms.bond_wei))
    crash_point("after-enrol", 0)
    return True


def run_peer(
    *,
    standing: Standing,
    state: FederationState,
    address: Address,
    encryption_private: bytes,
    reader: ChainReader,
    sender: ChainWriter,
    store: Store,
    journal: Journal,
    folder: Path,
    seed: int,
    engine: Literal["numpy", "tenseal"],
    log: structlog.stdlib.BoundLogger,
    challenge: bool = True,
    machine: Machine | None = None,
    poll_s: float = 0.25,
    watch: Callable[[FederationState, int], None] | None = None,
) -> FederationState:
    """Work for the federation until its run is finished; gives the final state."""
    context = PeerContext(
        me=standing.me,
        address=address,
        encryption_private=encryption_private,
        charter=standing.charter,
        terms=state.terms,
        task=standing.task,
        data=standing.data,
        reader=reader,
        sender=sender,
        store=store,
        journal=journal,
        meter=Meter(folder / "rounds.jsonl", store),
        folder=folder,
        seed=seed,
        engine=engine,
        challenge=challenge,
        log=log,
        machine=machine,
    )
    if phase_of(state, state.round, reader.now()) is not Phase.FINISHED:
        context.check_genesis()
    return Node(context, poll_s=poll_s, watch=watch).run()
