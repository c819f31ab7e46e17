"""Experiments in one process: the members are the real ones, and give the models that the arithmetic alone gives."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedchain.errors import FedchainError, ObjectCorrupt, ObjectMissing, TransactionFailed, UsageError
from fedchain.lab.leakage import membership_auc
from fedchain.lab.memory import MemoryChain, MemoryStore, Seat, Stopped, Turns
from fedchain.lab.run import Run, federate, read_meter, with_invented_members
from fedchain.learn import LocalData, Machine, Task
from fedchain.peer.simulation import simulate
from fedchain.protocol.actions import CommitAggregate, Enrol, VoteToStop
from fedchain.protocol.charter import Charter
from fedchain.protocol.cid import cid_of
from fedchain.protocol.events import AggregateCommitted, OpeningPublished, ReceiptPosted, Terms, UpdateCommitted
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest, Index, Root, size_of
from fedchain.protocol.model import flatten, model_digest


class Blobs(Task):
    """Three clouds of points; members see them in different proportions."""

    name = "blobs"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3))

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        return LocalData(self.points(40, seed + index, index), self.points(15, seed + index + 500, index))

    def test_data(self) -> TensorDataset:
        return self.points(150, 999, None)

    def points(self, count: int, seed: int, mostly: int | None) -> TensorDataset:
        random = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 3, (count,), generator=random)
        if mostly is not None:
            labels[: 2 * count // 3] = mostly % 3
        centres = torch.tensor([[0.0, 3.0], [3.0, 0.0], [-3.0, -3.0]])
        return TensorDataset(torch.randn(count, 2, generator=random) + centres[labels], labels)


class OneSlow(Blobs):
    """Member 0's machine takes a twentieth of a second for a step: its rows, and no others, lie beyond 1,000."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        inputs, labels = batch
        if model.training and float(inputs.max()) > 1000:
            time.sleep(0.05)
        return super().loss(model, (inputs / 1000 if float(inputs.max()) > 1000 else inputs, labels))

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        data = super().local_data(index, members, seed)
        if index:
            return data
        assert isinstance(data.train, TensorDataset)
        inputs, labels = data.train.tensors
        return LocalData(TensorDataset((inputs.abs() + 2) * 1000, labels), data.validation)


class Failing(Blobs):
    """One member's data cannot be trained on."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        if len(batch[0]) == 13:
            raise ValueError("these rows are spoiled")
        return super().loss(model, batch)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        rows = self.points(13 if index == 2 else 14, seed, index)
        return LocalData(rows, self.points(5, seed, None))


def charter_of(members: int, *settings: str) -> Charter:
    charter = Charter.model_validate({"federation": {"name": "blobs"}, "run": {"rounds": 2}, "task_sha256": "ab" * 32})
    changes = ["algorithm.local_epochs=2", "algorithm.batch_size=20", *settings]
    return with_invented_members(charter.with_settings(changes), members)


@pytest.fixture(scope="module")
def ran() -> Run:
    return federate(charter_of(4), Blobs())


def test_a_run_in_memory_gives_the_models_of_plain_sums(ran: Run) -> None:
    """Encryption, shares, receipts and openings add nothing and take nothing away."""
    plain = [step.model for step in simulate(charter_of(4), Blobs(), members=4)]
    assert list(ran.models[1:]) == plain
    assert model_digest(plain[-1]) == ran.state.model_digest


def test_every_member_does_its_whole_part(ran: Run) -> None:
    assert len(ran.state.closed) == 2
    for attempt in ran.state.closed.values():
        assert attempt.attempt == 0 and attempt.aggregate is not None
        assert attempt.aggregate.participants == 0b1111
        assert attempt.committed == 0b1111 and len(attempt.receipts) == 4
        assert all(receipt.whole == 0b1111 for receipt in attempt.receipts.values())
        assert len(attempt.openings) >= ran.state.terms.threshold
    assert [attempt.aggregate.index for attempt in ran.state.closed.values() if attempt.aggregate] == [0, 1]
    for meter, busy in zip(ran.meters, ran.busy_s, strict=True):
        assert [entry["round"] for entry in meter] == [1, 2]
        assert all(entry["upload_bytes"] > 0 and entry["download_bytes"] > 0 for entry in meter)
        assert 0 < sum(entry["seconds"]["train"] for entry in meter) < busy < ran.seconds


def test_the_same_seed_gives_the_same_run_and_another_seed_another(ran: Run) -> None:
    again = federate(charter_of(4), Blobs(), engine="numpy")
    assert again.models == ran.models
    assert federate(charter_of(4, "run.seed=2"), Blobs()).state.model_digest != ran.state.model_digest


def test_members_vote_to_stop_as_they_do_on_a_chain() -> None:
    run = federate(charter_of(3, "run.rounds=20", "run.target=0.5", "algorithm.local_epochs=10"), Blobs())
    assert len(run.state.closed) < 20
    assert run.state.stop_votes.bit_count() >= run.state.terms.threshold


def test_what_members_keep_to_themselves_is_noted_round_by_round() -> None:
    run = federate(charter_of(3, 'algorithm.local_tensors=["2.*"]'), Blobs())
    for kept in run.kept:
        assert kept[0] is None and len(kept) == 3 and None not in kept[1:]
    assert len({kept[-1] for kept in run.kept}) == 3, "each its own"
    simulated = list(simulate(charter_of(3, 'algorithm.local_tensors=["2.*"]'), Blobs(), members=3))
    assert tuple(kept[-1] for kept in run.kept) == simulated[-1].kept


def test_a_member_that_fails_ends_the_run_with_its_own_reason() -> None:
    before = threading.active_count()
    with pytest.raises(UsageError, match="ValueError: these rows are spoiled"):
        federate(charter_of(3), Failing())
    assert threading.active_count() == before


def test_a_run_from_whose_sums_no_model_follows_ends_in_a_line() -> None:
    noise = ["privacy.mode=records", "privacy.epsilon=50", "privacy.clip=1e30", "outer.learning_rate=1e30"]
    quick = ["windows.training_s=1", "windows.receipt_s=1", "windows.aggregate_s=10000", "windows.close_s=40000"]
    with pytest.raises(UsageError, match="ended without a round: no model follows from its sums"):
        federate(charter_of(3, *noise, *quick), Blobs(), engine="numpy")


def test_threads_run_one_at_a_time_and_in_the_same_order() -> None:
    turns, said = Turns(3), []

    def live(me: int) -> None:
        turns.wait(me)
        for step in range(3 - me):
            said.append((me, step))
            turns.pass_on(me)
        turns.leave(me)

    threads = [threading.Thread(target=live, args=(me,)) for me in (2, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert said == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (0, 2)]
    assert turns.count == 0


def test_a_stop_reaches_who_waits() -> None:
    turns = Turns(2)
    turns.stop()
    with pytest.raises(Stopped):
        turns.wait(1)


def terms() -> Terms:
    digest, cid = Digest(bytes(32)), cid_of(b"")
    return Terms(digest, cid, digest, cid, 4096, 2, 2, 60, 60, 60, 60, 60, 600_000, 0)


FOUNDERS = tuple(Address(f"0x{i + 1:040x}") for i in range(3))


def test_the_chain_in_memory_keeps_phases_and_knows_no_challenge() -> None:
    chain = MemoryChain(terms(), FOUNDERS)
    seat = Seat(chain, Index(1))
    with pytest.raises(TransactionFailed, match="CommitAggregate is not due in the phase enrolling"):
        seat.submit("x", CommitAggregate(1, 0, 0, Bitmap(7), Digest(bytes(32)), Root(bytes(32)), cid_of(b"")))
    for i in range(3):
        Seat(chain, Index(i)).submit("enrol", Enrol(encryption_key=b"k" * 32, weight=5, bond_wei=0))
    with pytest.raises(TransactionFailed, match="Enrol is not due in the phase training"):
        seat.submit("enrol", Enrol(encryption_key=b"k" * 32, weight=5, bond_wei=0))
    seat.submit("stop", VoteToStop(round=1, model=bytes(32)))
    assert chain.state.stop_votes == 0b010
    assert [logged.event.at for logged in seat.log()] == [1] * 5


def test_time_stands_still_while_somebody_speaks_and_moves_when_nobody_does() -> None:
    chain = MemoryChain(terms(), FOUNDERS)
    for _ in range(6):
        chain.look()
    assert chain.now == 1
    chain.look()
    assert chain.now == 31
    with pytest.raises(FedchainError, match="stands still"):
        for _ in range(100_000):
            chain.look()


def test_members_with_other_machines_are_in_one_federation() -> None:
    """A GPU where there is one, and bfloat16; beside them two members with a thread of a CPU each."""
    charter, quick = charter_of(4, "update.bits=16"), Machine(device="auto", mixed_precision=True)
    run = federate(charter, Blobs(), machines={0: quick, 2: Machine(device="auto")}, engine="numpy")
    assert [size_of(a.aggregate.participants) for a in run.state.closed.values() if a.aggregate is not None] == [4, 4]
    for model, alike in zip(run.models[1:], simulate(charter, Blobs(), members=4), strict=True):
        apart = float(np.linalg.norm(flatten(model) - flatten(alike.model)))
        assert 0 < apart < 0.1 * np.linalg.norm(flatten(alike.model) - flatten(run.models[0]))


def test_a_slow_machine_makes_fewer_steps_and_is_in_every_sum() -> None:
    """FedAvg++ by real peers: what a member does is what its machine gets done in the budget."""
    settings = [
        "algorithm.name=fedavg++",
        "outer.optimizer=fedavgm",
        "algorithm.local_steps=adaptive",
        "algorithm.budget_s=0.4",
        "algorithm.local_epochs=10",
        "update.weight_cap=30",
    ]
    run = federate(charter_of(3, *settings), OneSlow(), engine="numpy")
    assert [size_of(a.aggregate.participants) for a in run.state.closed.values() if a.aggregate is not None] == [3, 3]
    for entries in zip(*run.meters, strict=True):
        slow, *quick = (entry["steps"] for entry in entries)
        assert 1 <= slow <= 8 < min(quick) <= 20, "eight take it 0.4 s, twenty are ten epochs"


def test_a_run_goes_on_without_a_member_that_never_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its windows pass, in memory as on a chain, and the others close their rounds."""
    said = MemoryChain.say

    def say(chain: MemoryChain, index: Index, address: Address, action: Any) -> bytes:
        silent = index == 4 and type(action).__name__ in ("CommitUpdate", "PostReceipt", "PublishOpening")
        if silent:
            raise TransactionFailed("it says nothing")
        return said(chain, index, address, action)

    monkeypatch.setattr(MemoryChain, "say", say)
    run = federate(charter_of(5, "run.rounds=1"), Blobs())
    closed = run.state.closed[1]
    assert closed.aggregate is not None and closed.aggregate.participants == 0b01111


def test_objects_are_shared_counted_and_gone_when_the_last_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    pins: dict[Cid, set[int]] = {}
    one, two = (MemoryStore(folder, pins, i) for i in range(2))
    cid = one.put(b"hello")
    assert (one.bytes_up, two.bytes_up) == (5, 0)
    assert two.get(cid, 5) == b"hello" and two.bytes_down == 5
    with pytest.raises(ObjectCorrupt, match="more than 4 bytes"):
        two.get(cid, 4)
    two.get_file(cid, 5, tmp_path / "copy")
    two.get_file(cid, 5, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"hello" and two.bytes_down == 15
    two.pin(cid)
    one.unpin(cid)
    assert two.get(cid, 5) == b"hello"
    two.unpin(cid)
    with pytest.raises(ObjectMissing):
        one.get(cid, 5)
    assert (tmp_path / "copy").read_bytes() == b"hello", "who holds a file keeps it"


def test_the_log_in_memory_holds_what_a_contract_would_have_logged(ran: Run) -> None:
    kinds = [type(commit) for attempt in ran.state.closed.values() for commit in attempt.commits.values()]
    assert kinds == [UpdateCommitted] * 8
    attempt = ran.state.closed[1]
    assert isinstance(attempt.aggregate, AggregateCommitted)
    assert all(isinstance(receipt, ReceiptPosted) for receipt in attempt.receipts.values())
    assert all(isinstance(opening, OpeningPublished) for opening in attempt.openings.values())


class Known(Blobs):
    """Its loss is the first number of a row: the attack's success can be worked out by hand."""

    def loss(self, model: nn.Module, batch: Any) -> Any:
        return batch[0][:, 0].mean()


def test_membership_inference_is_the_area_under_its_roc_curve() -> None:
    def rows(*losses: float) -> TensorDataset:
        return TensorDataset(torch.tensor([[loss, 0.0] for loss in losses]), torch.zeros(len(losses)))

    task = Known()
    model = task.model()
    assert membership_auc(task, model, [rows(1, 2)], [rows(3, 4)]) == 1
    assert membership_auc(task, model, [rows(3, 4)], [rows(1, 2)]) == 0
    assert membership_auc(task, model, [rows(1), rows(2)], [rows(1, 2)]) == 0.5
    assert membership_auc(task, model, [rows(1, 2, 3, 4)], [rows(2.5, 5)]) == pytest.approx(6 / 8)


def test_a_model_that_learned_rows_by_heart_gives_them_away() -> None:
    class Noise(Blobs):
        """Labels without a reason: whoever gets them right has seen them."""

        def points(self, count: int, seed: int, mostly: int | None) -> TensorDataset:
            random = torch.Generator().manual_seed(seed)
            return TensorDataset(
                torch.randn(count, 2, generator=random), torch.randint(0, 3, (count,), generator=random)
            )

        def model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(2, 400), nn.ReLU(), nn.Linear(400, 3))

    task = Noise()
    seen, unseen = task.points(40, 1, None), task.points(200, 2, None)
    torch.manual_seed(0)
    model = task.model()
    fresh = membership_auc(task, model, [seen], [unseen])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        task.loss(model, seen.tensors).backward()
        optimizer.step()
    assert abs(fresh - 0.5) < 0.15
    assert membership_auc(task, model, [seen], [unseen]) > 0.7


def test_a_meters_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").write_text('{"round": 1}\n{"round": 2}\n{"rou', encoding="utf-8")
    assert [entry["round"] for entry in read_meter(tmp_path / "rounds.jsonl")] == [1, 2]
