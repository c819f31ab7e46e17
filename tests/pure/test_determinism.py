"""The same charter, data and seed end in the same model: through any committee, order, engine and store, on a CPU.

Keys, noise and shares are drawn afresh in every run; the model's digest must not show any of it.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from fedchain.crypto import (
    Opening,
    RoundContext,
    deal,
    generate_encryption_key,
    make_opening,
    open_aggregate,
    open_share,
    sum_ciphertexts,
)
from fedchain.lab.run import federate
from fedchain.learn import LocalData, Task, first_model, local_data_of, train_locally
from fedchain.peer.journal import Journal
from fedchain.peer.simulation import simulate
from fedchain.protocol.arithmetic import average, quantise, weight_of
from fedchain.protocol.charter import Charter
from fedchain.protocol.ids import Address, Index
from fedchain.protocol.model import model_digest
from fedchain.protocol.outer import following_model, update_size_of
from fedchain.protocol.seeds import seed_for
from fedchain.protocol.update_format import join_values, split_sums, update_format

MEMBERS, THRESHOLD, ROUNDS = 5, 3, 2
ADDRESSES = tuple(Address(f"0x{i + 1:040x}") for i in range(MEMBERS))


class Clouds(Task):
    """Three clouds of points, members of uneven size, dropout from the global generator."""

    name = "clouds"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        labels = torch.arange(20 + 7 * index) % 3
        noise = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(seed * 1000 + index))
        data = TensorDataset(noise + 2.0 * labels[:, None], labels)
        return LocalData(data, data)

    def test_data(self) -> TensorDataset:
        train = self.local_data(9, 1, 9).train
        assert isinstance(train, TensorDataset)
        return train


def charter_of(**sections: dict[str, Any]) -> Charter:
    entries = {"federation": {"name": "clouds", "members": ADDRESSES}, "run": {"rounds": ROUNDS, "seed": 5}, **sections}
    return Charter.model_validate(entries | {"task_sha256": "ab" * 32})


CHARTERS = {
    "fedavg, 16 bits": charter_of(update={"bits": 16, "rotate": False}),
    "fedavgm, 4 bits, rotated": charter_of(
        outer={"optimizer": "fedavgm"}, update={"bits": 4, "rotate": True, "clip_value": 0.05}
    ),
    "scaffold, fedadam": charter_of(
        algorithm={"name": "scaffold", "effective_steps": 2, "sampling": "class-balanced"},
        outer={"optimizer": "fedadam"},
    ),
    "local head, fednova, fedyogi": charter_of(
        algorithm={"name": "fednova", "effective_steps": 3, "local_tensors": ["3.*"], "loss": "class-weighted"},
        outer={"optimizer": "fedyogi"},
    ),
    "a mask, fedavgm, 4 bits, rotated": charter_of(
        outer={"optimizer": "fedavgm"}, update={"mask": 0.4, "bits": 4, "rotate": True, "clip_value": 0.05}
    ),
    "a mask, local head, fedadam, 16 bits": charter_of(
        algorithm={"name": "fedprox", "mu": 0.01, "local_tensors": ["3.*"]},
        outer={"optimizer": "fedadam"},
        update={"mask": 0.1, "bits": 16, "rotate": False},
    ),
}


def encrypted(
    charter: Charter, chance: random.Random, engine: Literal["numpy", "tenseal"], files: Path | None
) -> bytes:
    """The last model of a run with real keys; `chance` decides on orders and committees, `files` is a store on disk."""
    task, seed = Clouds(), charter.run.seed
    keys = [generate_encryption_key() for _ in range(MEMBERS)]
    publics = {Index(i): public for i, (_, public) in enumerate(keys)}
    datas = [local_data_of(task, i, MEMBERS, seed) for i in range(MEMBERS)]
    weights = [weight_of(len(data.train), charter.update) for data in datas]
    base = first_model(task, charter)
    form = update_format(charter, update_size_of(base, charter))
    kept: list[bytes | None] = [None] * MEMBERS
    for round in range(1, ROUNDS + 1):
        context = RoundContext(31337, ADDRESSES[0], round, 0, model_digest(base))
        uploads: list[Any] = []
        for i in chance.sample(range(MEMBERS), MEMBERS):
            place = {"member": i, "round": round, "attempt": 0}
            training = seed_for("training", seed, **place)
            sent = form.places(context.rotation_seed)
            result = train_locally(task, base, charter.algorithm, datas[i], training, kept=kept[i], sent=sent)
            kept[i] = result.kept
            values = quantise(
                result.update,
                weight=weights[i],
                max_weight=max(weights),
                form=form,
                rotation=context.rotation_seed,
                random=np.random.default_rng(seed_for("rounding", seed, **place)),
            )
            dealing: dict[str, Any] = {
                "dealer": Index(i),
                "dealer_address": ADDRESSES[i],
                "encryption_keys": publics,
                "threshold": THRESHOLD,
            }
            upload = deal(context, **dealing, coefficients=join_values(values, form))
            ciphertext: bytes | Path = upload.ciphertext
            if files is not None:
                ciphertext = files / f"{round}-{i}"
                ciphertext.write_bytes(upload.ciphertext)
            uploads.append((ciphertext, upload.shares, dealing))
        d = form.model_size
        total = sum_ciphertexts([ciphertext for ciphertext, _, _ in uploads], d, engine=engine)
        openings: dict[Index, Opening] = {}
        for shareholder in chance.sample(range(MEMBERS), chance.choice([THRESHOLD, THRESHOLD + 1])):
            me = {"me": Index(shareholder), "private_key": keys[shareholder][0]}
            shares = [open_share(sealed, context, **dealing, **me) for _, sealed, dealing in uploads]
            openings[Index(shareholder)] = make_opening(shares)
        opened = open_aggregate(
            total, openings, threshold=THRESHOLD, participants=MEMBERS, context=context, d=d, engine=engine
        )
        mean = average(
            split_sums(opened.sums, form),
            participants=MEMBERS,
            total_weight=sum(weights),
            max_weight=max(weights),
            form=form,
            rotation=context.rotation_seed,
        )
        base = following_model(base, mean, charter=charter, weight=sum(weights), of_weight=sum(weights))
    return base


@pytest.mark.parametrize("name", CHARTERS)
def test_one_charter_and_seed_give_one_model_through_every_committee_order_engine_and_store(
    name: str, tmp_path: Path
) -> None:
    charter = CHARTERS[name]
    *_, last = simulate(charter, Clouds(), members=MEMBERS)
    plain = model_digest(last.model)
    runs: list[tuple[int, Literal["numpy", "tenseal"], Path | None]] = [
        (1, "numpy", None),
        (2, "numpy", tmp_path),
        (3, "tenseal", None),
    ]
    for chance, engine, files in runs:
        assert model_digest(encrypted(charter, random.Random(chance), engine, files)) == plain, (name, engine, files)


@pytest.mark.parametrize("name", CHARTERS)
def test_the_real_peers_come_to_the_model_that_the_simulation_gives(name: str) -> None:
    charter, rounds = CHARTERS[name], simulate(CHARTERS[name], Clouds(), members=MEMBERS)
    run = federate(charter, Clouds(), engine="numpy")
    plain = list(rounds)
    assert run.models == (first_model(Clouds(), charter), *(done.model for done in plain))
    for member, kept in enumerate(run.kept):
        assert kept == (None, *(done.kept[member] for done in plain)), member


def test_what_a_member_keeps_is_on_disk_before_its_upload_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, bool]] = []
    promise = Journal.promise_upload

    def watched(self: Journal, round: int, attempt: int, dealt: Any) -> None:
        kept = self._path.parent / "kept" / f"round-{round:06d}-{attempt:06d}.safetensors"
        seen.append((round, kept.exists()))
        promise(self, round, attempt, dealt)

    monkeypatch.setattr(Journal, "promise_upload", watched)
    federate(CHARTERS["scaffold, fedadam"], Clouds(), engine="numpy")
    assert sorted(seen) == [(1, True)] * MEMBERS + [(2, True)] * MEMBERS


def test_another_seed_or_algorithm_gives_another_model() -> None:
    def digest(charter: Charter) -> bytes:
        *_, last = simulate(charter, Clouds(), members=MEMBERS, rounds=1)
        return model_digest(last.model)

    digests = {digest(charter) for charter in CHARTERS.values()}
    digests.add(digest(CHARTERS["fedavg, 16 bits"].with_settings(["run.seed=6"])))
    assert len(digests) == len(CHARTERS) + 1


def test_an_absent_member_is_in_no_sum() -> None:
    charter = CHARTERS["scaffold, fedadam"]
    (some,) = simulate(charter, Clouds(), members=MEMBERS, rounds=1, absent=[0, 3])
    (every,) = simulate(charter, Clouds(), members=MEMBERS, rounds=1)
    assert len(some.steps) == 3 and [kept is None for kept in some.kept] == [True, False, False, True, False]
    assert model_digest(some.model) != model_digest(every.model)


def test_a_simulated_member_does_what_its_speed_allows() -> None:
    charter = charter_of(
        algorithm={"local_steps": "adaptive", "budget_s": 2.0, "local_epochs": 10, "batch_size": 5},
        outer={"optimizer": "fedavgm"},
    )
    (only,) = simulate(charter, Clouds(), members=MEMBERS, rounds=1, speeds=[1, 2, 4, 8, 1000])
    assert only.steps == (2, 4, 8, 16, 100)
