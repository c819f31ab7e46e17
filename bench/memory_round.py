"""One round of one peer at full size, in a process of its own, its memory watched: `bench/memory.py` starts these.

    others       the other members deal their uploads, one after the other, and store them
    peer         member 0 lives through a round: trains, deals, vouches for all, aggregates, opens, closes, and trains
                 and deals for the next one
    challenger   member 1 lives through it where member 0 posts a wrong sum, or a wrong result: it makes the evidence
    auditor      a stranger audits the round that `peer` left behind
    plain        the same model trained for as many steps, with torch alone: what to compare with

The node, its roles and its store are the real ones, on a real IPFS node; the chain is kept in memory, because what a
peer holds of it is a few kilobytes. What other members say and compute is done between two looks at the chain, and not
counted. Prints one JSON object: the peak of resident memory in bytes, by step and by phase.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

os.environ.setdefault("OMP_NUM_THREADS", "1")

BYTES_PER_KIB = 1024


def peak_bytes() -> int:
    """The most memory that was resident since `forget_peak`."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * BYTES_PER_KIB


def forget_peak() -> None:
    """Begin a new measurement (Linux: proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


class Peaks:
    """The largest peak of each step; steps may lie within others."""

    def __init__(self) -> None:
        self.bytes: dict[str, int] = {}
        self._open: list[str] = []

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Note the peak while the body runs, for this step and those around it."""
        self._note()
        forget_peak()
        self._open.append(name)
        try:
            yield
        finally:
            self._note()
            self._open.pop()
            forget_peak()

    def _note(self) -> None:
        peak = peak_bytes()
        for name in self._open:
            self.bytes[name] = max(peak, self.bytes.get(name, 0))


PEAKS = Peaks()

with PEAKS.of("imports"):
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import TensorDataset

    import fedchain.chain.sender
    import fedchain.crypto.tenseal_engine  # noqa: F401 - what a peer has loaded counts
    from fedchain.audit import audit
    from fedchain.audit.codec import Mined, mined_from_json, mined_to_json
    from fedchain.chain.deployment import terms_of
    from fedchain.crypto import (
        Aggregate,
        Opening,
        Result,
        aggregate_size,
        deal,
        generate_encryption_key,
        make_opening,
        open_aggregate,
        open_share,
        shares_size,
        sum_ciphertexts,
    )
    from fedchain.errors import FedchainError
    from fedchain.lab.memory import CONTRACT, MemoryChain, MemoryKeys, Seat
    from fedchain.lab.run import with_invented_members
    from fedchain.learn import LocalData, Machine, Task, first_model
    from fedchain.peer.context import PeerContext
    from fedchain.peer.journal import Journal
    from fedchain.peer.log import peer_log
    from fedchain.peer.meter import Meter
    from fedchain.peer.node import Node
    from fedchain.peer.start import DEPOSITS
    from fedchain.ports import Logged, Store
    from fedchain.protocol.actions import (
        Action,
        CommitAggregate,
        CommitResult,
        CommitUpdate,
        Enrol,
        PostReceipt,
        PublishOpening,
    )
    from fedchain.protocol.arithmetic import quantise
    from fedchain.protocol.charter import Charter, Federation
    from fedchain.protocol.commitment import update_commitment
    from fedchain.protocol.disputes import basis_of, commitments_digest
    from fedchain.protocol.evidence import ChallengeAggregate, ChallengeResult
    from fedchain.protocol.ids import Bitmap, Digest, Index, bitmap_of, members_of
    from fedchain.protocol.outer import update_size_of
    from fedchain.protocol.phase import Phase, live_attempt, phase_of
    from fedchain.protocol.state import Attempt, FederationState
    from fedchain.protocol.transition import fold
    from fedchain.protocol.update_format import join_values, update_format
    from fedchain.store.ipfs import IpfsStore

WINDOW_S = 10_000
WEIGHT = 64
Lie = Literal["sum", "result"]


class Wide(Task):
    """A network of about as many parameters as asked for, in one wide layer; its data are noise."""

    name = "wide"
    parameters = 10_000_000
    inputs, classes = 64, 10

    def model(self) -> nn.Module:
        width = int((self.parameters + 1600) ** 0.5) - 40
        sides = (self.inputs, width), (width, width), (width, self.classes)
        first, wide, last = (nn.Linear(*side) for side in sides)
        return nn.Sequential(first, nn.ReLU(), wide, nn.ReLU(), last)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        return LocalData(train=self._noise(WEIGHT, seed + index), validation=self._noise(8, seed + index + 1000))

    def test_data(self) -> TensorDataset:
        return self._noise(8, 999)

    def _noise(self, count: int, seed: int) -> TensorDataset:
        random = torch.Generator().manual_seed(seed)
        labels = torch.randint(self.classes, (count,), generator=random)
        return TensorDataset(torch.randn(count, self.inputs, generator=random), labels)


def charter_of(members: int, settings: list[str]) -> Charter:
    """The charter of a run of two rounds, of which the second is begun."""
    charter = with_invented_members(Charter(federation=Federation(name="memory")), members)
    windows = [f"windows.{name}_s={WINDOW_S}" for name in ("enrol", "training", "receipt", "aggregate", "challenge")]
    charter = charter.with_settings(["run.rounds=2", *windows, *settings])
    # The task stands in this file, not beside a charter.
    return charter.model_copy(update={"task_sha256": "0" * 64})


class Company:
    """Every member but one: what they say when the chain is looked at. Their uploads lie in the store."""

    def __init__(self, folder: Path, me: Index, lie: Lie | None = None) -> None:
        self.notes = json.loads((folder / "play.json").read_text())
        self.me, self._lie = me, lie
        self.task = Wide()
        self.task.parameters = self.notes["parameters"]
        self.charter = charter_of(self.notes["members"], self.notes["settings"])
        self.store: Store = IpfsStore(self.notes["api"])
        self.genesis = first_model(self.task, self.charter)
        charter_cid, genesis_cid = self.store.put(self.charter.canonical()), self.store.put(self.genesis)
        terms = terms_of(self.charter, charter_cid, self.genesis, genesis_cid)
        self.chain = MemoryChain(terms, tuple(self.charter.federation.members))  # type: ignore[arg-type]
        self.keys = [(bytes.fromhex(private), bytes.fromhex(public)) for private, public in self.notes["keys"]]
        # Everybody is in before anybody trains: uploads are sealed to everybody's key.
        for index in range(len(self.keys)):
            self.say(Index(index), Enrol(self.keys[index][1], WEIGHT, 0))

    def say(self, index: Index, action: Action) -> None:
        """Put one member's statement on the log."""
        self.chain.say(index, self.chain.state.founders[index], action)

    def speak(self) -> None:
        """Say what is due from the others now."""
        state = self.chain.state
        attempt = live_attempt(state, self.chain.now)
        if attempt is None or attempt.round > 1:
            return
        others = [Index(i) for i in range(len(self.keys)) if i != self.me]
        match phase_of(state, state.round, self.chain.now):
            case Phase.TRAINING:
                for index in others:
                    if index not in attempt.commits:
                        self.say(index, commitment_from(self.notes["commits"][str(index)]))
            case Phase.RECEIPTS:
                for index in others:
                    if index not in attempt.receipts:
                        self.say(index, PostReceipt(1, 0, attempt.committed))
            case Phase.AGGREGATING if self.me != 0:
                self._aggregate(attempt)
            case Phase.OPENING if self.me in attempt.openings or self._lie == "sum":
                for index in others[: attempt.threshold - 1]:
                    if index not in attempt.openings:
                        self._open(attempt, index)
            case Phase.CLOSING if self._lie == "result":
                self._close(attempt)
            case _:
                return

    def sum(self, attempt: Attempt, participants: Bitmap) -> Aggregate:
        """The right sum."""
        d, commits = self.chain.state.terms.model_size, attempt.commits
        fetched = [self.store.get(commits[i].ciphertext_cid, aggregate_size(d)) for i in members_of(participants)]
        return sum_ciphertexts(fetched, d)

    def _aggregate(self, attempt: Attempt) -> None:
        """Member 0 posts the sum, wrong in its last leaf where it lies about sums."""
        total = self.sum(attempt, attempt.committed)
        if self._lie == "sum":
            total.residues[0, 0] ^= np.uint64(1)
        basis = commitments_digest(attempt)
        said = CommitAggregate(1, 0, 0, attempt.committed, basis, total.root(), self.store.put(total.pack()))
        self.say(Index(0), said)

    def opening(self, attempt: Attempt, index: Index) -> Opening:
        """One member's opening of the locked set."""
        assert attempt.aggregate is not None
        shares = []
        for dealer in members_of(attempt.aggregate.participants):
            blob = self.store.get(attempt.commits[dealer].shares_cid, shares_size(len(self.keys), attempt.threshold))
            shares.append(
                open_share(
                    blob,
                    round_context(attempt.base_digest),
                    dealer=dealer,
                    dealer_address=self.chain.state.founders[dealer],
                    encryption_keys=attempt.encryption_keys,
                    threshold=attempt.threshold,
                    me=index,
                    private_key=self.keys[index][0],
                )
            )
        return make_opening(shares)

    def _open(self, attempt: Attempt, index: Index) -> None:
        opening = self.opening(attempt, index)
        self.say(index, PublishOpening(1, 0, 0, opening.root(), self.store.put(opening.encode())))

    def _close(self, attempt: Attempt) -> None:
        """Member 0 posts a result that is wrong in one coefficient, with the model of the round before."""
        assert attempt.aggregate is not None
        openings = {index: Opening.parse(self.store.get(said.cid, 4096)) for index, said in attempt.openings.items()}
        d = self.chain.state.terms.model_size
        opened = open_aggregate(
            self.sum(attempt, attempt.aggregate.participants),
            openings,
            threshold=attempt.threshold,
            participants=len(members_of(attempt.aggregate.participants)),
            context=round_context(attempt.base_digest),
            d=d,
        )
        wrong = Result(opened.result.elements, opened.result.coefficients.copy(), d)
        wrong.coefficients[-1, 0] ^= np.uint64(1)
        said = CommitResult(
            round=1,
            attempt=0,
            group=0,
            openers=bitmap_of(opened.committee),
            basis=basis_of(attempt),
            key_sum_root=opened.key_sum_root,
            result_root=wrong.root(),
            result_cid=self.store.put(wrong.pack()),
            model_digest=attempt.base_digest,
            model_cid=attempt.base_cid,
        )
        self.say(Index(0), said)


class Seen(FedchainError):
    """The peer sent its evidence, or its update of round 2: what was to be seen has been seen."""


class WatchedSeat(Seat):
    """A place at the chain that notes what is resident between two looks, and lets the others speak in between."""

    def __init__(self, company: Company) -> None:
        super().__init__(company.chain, company.me)
        self._company = company
        self._look: Any = None

    def refresh(self) -> FederationState:
        """The state, after the others spoke."""
        self.leave()
        self._company.speak()
        state = self._company.chain.state
        self._look = PEAKS.of(f"in {phase_of(state, state.round, self._company.chain.now).name.lower()}")
        self._look.__enter__()
        return state

    def leave(self) -> None:
        """Between two looks nothing counts."""
        if self._look is not None:
            self._look.__exit__(None, None, None)
            self._look = None

    def submit(self, key: str, action: Action) -> bytes:
        """Say it, unless it is the last that is waited for."""
        if isinstance(action, ChallengeAggregate | ChallengeResult) or (
            isinstance(action, CommitUpdate) and action.round == 2
        ):
            raise Seen(type(action).__name__)
        return super().submit(key, action)


class WatchedMeter(Meter):
    """The meter's steps, with their peaks."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Note what is resident in a step."""
        with PEAKS.of(name), super().step(name):
            yield


def round_context(base: Digest) -> Any:
    """Where the uploads of this round belong."""
    from fedchain.crypto import RoundContext

    return RoundContext(chain_id=Seat.chain_id, contract=CONTRACT, round=1, attempt=0, model_digest=base)


def commitment_from(noted: list[str]) -> CommitUpdate:
    """What a member says of the upload that was noted."""
    commitment, ciphertext, shares = noted
    return CommitUpdate(1, 0, Digest(bytes.fromhex(commitment)), ciphertext, shares)  # type: ignore[arg-type]


def play_others(folder: Path, parameters: int, members: int, settings: list[str], api: str) -> None:
    """Deal everybody's upload into the store; each peer process leaves its own one out."""
    keys = [generate_encryption_key() for _ in range(members)]
    notes: dict[str, Any] = {"parameters": parameters, "members": members, "settings": settings, "api": api}
    notes |= {"keys": [[private.hex(), public.hex()] for private, public in keys], "commits": {}}
    (folder / "play.json").write_text(json.dumps(notes))
    company = Company(folder, Index(0))
    attempt = live_attempt(company.chain.state, company.chain.now)
    assert attempt is not None
    form = update_format(company.charter, update_size_of(company.genesis, company.charter))
    random, context = np.random.default_rng(1), round_context(attempt.base_digest)
    for index in range(members):
        if form.noise is None:
            update = random.normal(0, 0.001, form.size).astype(np.float32)
            rotation = context.rotation_seed
            values = quantise(update, weight=1, max_weight=1, form=form, rotation=rotation, random=random)
        else:
            values = np.full(form.values, form.steps)
        address = company.chain.state.founders[index]
        upload = deal(
            context,
            dealer=Index(index),
            dealer_address=address,
            encryption_keys=attempt.encryption_keys,
            threshold=attempt.threshold,
            coefficients=join_values(values, form),
        )
        roots = upload.ciphertext_root, upload.shares_root
        said = update_commitment(Seat.chain_id, CONTRACT, 1, 0, address, *roots)
        cids = company.store.put(upload.ciphertext), company.store.put(upload.shares)
        notes["commits"][index] = [said.hex(), *cids]
    (folder / "play.json").write_text(json.dumps(notes))


def play_peer(folder: Path, me: Index, lie: Lie | None) -> None:
    """One member's life in the round, watched."""
    with PEAKS.of("start"):
        company = Company(folder, me, lie)
        own, state = folder / f"peer-{me}-{lie or 'honest'}", company.chain.state
        own.mkdir(exist_ok=True)
        seat = WatchedSeat(company)
        data = company.task.local_data(me, len(company.keys), 1)
    company.genesis = b""  # a peer keeps it on disk
    log = peer_log(own / "peer.log")
    with Journal(own / "journal.jsonl") as journal:
        context = PeerContext(
            me=me,
            address=seat.address,
            keys=MemoryKeys({company.keys[me][1]: company.keys[me][0]}),
            charter=company.charter,
            terms=state.terms,
            task=company.task,
            data=data,
            reader=seat,
            sender=seat,
            store=company.store,
            journal=journal,
            meter=WatchedMeter(own / "rounds.jsonl", company.store),
            folder=own,
            seed=1,
            engine="tenseal",
            challenge=True,
            deposits=DEPOSITS,
            outbox=None,
            log=log,
            machine=Machine(),
        )
        try:
            Node(context, poll_s=0.01, stay=False).run()
        except Seen as seen:
            due = {None: CommitUpdate, "sum": ChallengeAggregate, "result": ChallengeResult}[lie].__name__
            if str(seen) != due:
                raise SystemExit(f"{due} was due, and came {seen}") from seen
        finally:
            seat.leave()
    if lie is None:
        entries = [mined_to_json(Mined(entry, 0)) for entry in company.chain.log]
        (folder / "log.json").write_text(json.dumps({"now": company.chain.now, "log": entries}))


class LoggedChain:
    """Reads the round that was played; implements `ports.ChainReader`."""

    chain_id, contract = Seat.chain_id, CONTRACT

    def __init__(self, file: Path) -> None:
        written = json.loads(file.read_text())
        self._now = int(written["now"])
        self._log = tuple(mined_from_json(entry).logged for entry in written["log"])

    def refresh(self) -> FederationState:
        """The state that the log leads to."""
        return fold(entry.event for entry in self._log)

    def now(self) -> int:
        """The time at the end."""
        return self._now

    def log(self) -> tuple[Logged, ...]:
        """Every event."""
        return self._log

    def gas_used(self, transaction: bytes) -> int:
        """Nothing was executed."""
        return 0


def play_auditor(folder: Path) -> None:
    """A stranger's audit of the round."""
    chain = LoggedChain(folder / "log.json")
    store = IpfsStore(json.loads((folder / "play.json").read_text())["api"])
    with PEAKS.of("audit"):
        report = audit(chain, store)
    passed = len(report.rounds) == 1 and not report.faults
    if not passed:
        raise SystemExit(f"the audit found {report.faults}")


def play_plain(folder: Path) -> None:
    """The same training without a federation."""
    notes = json.loads((folder / "play.json").read_text())
    task = Wide()
    task.parameters = notes["parameters"]
    data = task.local_data(0, 1, 1)
    with PEAKS.of("plain training"):
        model = task.model()
        optimizer = task.optimizer(model)
        for rows in torch.split(torch.arange(len(data.train)), 32):
            optimizer.zero_grad()
            task.loss(model, task.batch(data.train, rows)).backward()
            optimizer.step()
        torch.save(model.state_dict(), folder / "plain.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description="One process of bench/memory.py")
    parser.add_argument("what", choices=("others", "peer", "liar-sum", "liar-result", "auditor", "plain"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--api", default="")
    options = parser.parse_args()
    match options.what:
        case "others":
            play_others(options.folder, options.parameters, options.members, options.set, options.api)
        case "peer":
            play_peer(options.folder, Index(0), None)
        case "auditor":
            play_auditor(options.folder)
        case "plain":
            play_plain(options.folder)
        case lie:
            play_peer(options.folder, Index(1), cast(Lie, lie.removeprefix("liar-")))
    print(json.dumps(PEAKS.bytes))


if __name__ == "__main__":
    main()
