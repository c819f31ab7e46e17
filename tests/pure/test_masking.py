"""A mask trains and sends a part of the model each round: the same part for all, drawn by everybody alike."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from fedchain.crypto import ciphertext_size
from fedchain.errors import UsageError
from fedchain.learn import LocalData, Task, first_model, genesis, train_locally
from fedchain.peer.simulation import simulate
from fedchain.protocol.arithmetic import average, clipped_fraction, quantise
from fedchain.protocol.charter import Algorithm, Charter, Federation, Update, parse_charter
from fedchain.protocol.ids import Digest
from fedchain.protocol.masking import EVERYWHERE, places_of, sent_of
from fedchain.protocol.model import ModelLayout, flatten, layout_of, model_bytes_bound, model_digest, split
from fedchain.protocol.private_values import bounded_units, noise_in
from fedchain.protocol.rotation import rotation_seed
from fedchain.protocol.update_format import (
    UpdateFormat,
    fetched_model_bound,
    join_values,
    model_size_of,
    split_sums,
    update_format,
)

SEED = rotation_seed(3, 0, Digest(bytes(32)))
PLAIN = Charter(federation=Federation(name="masks"))


def charter(**update: object) -> Charter:
    return Charter(federation=Federation(name="masks"), update=Update.model_validate(update))


def form(size: int, **update: object) -> UpdateFormat:
    return update_format(charter(**update), size)


def mean_of(updates: np.ndarray, agreed: UpdateFormat, rotation: bytes, seed: int = 0) -> np.ndarray:
    """What everybody decodes of these updates, through coefficients."""
    sums, share = np.zeros(agreed.coefficients, dtype=np.uint64), {"form": agreed, "rotation": rotation}
    for i, update in enumerate(updates):
        random = np.random.default_rng(seed * 100 + i)
        sums += join_values(quantise(update, weight=1, max_weight=1, random=random, **share), agreed)
    count = len(updates)
    return average(split_sums(sums, agreed), participants=count, total_weight=count, max_weight=1, **share)


@pytest.mark.parametrize(
    ("mask", "size", "sent"), [(1, 7, 7), (0.5, 7, 4), (0.07, 100, 7), (0.1, 30, 3), (0.01, 1, 1), (0.3, 11, 4)]
)
def test_the_share_of_a_model_is_rounded_up_from_the_decimal_that_one_reads(mask: float, size: int, sent: int) -> None:
    assert sent_of(size, mask) == sent == form(size, mask=mask).sent


def test_the_coordinates_are_those_with_the_least_keys_of_shake() -> None:
    stream = hashlib.shake_256(b"fedchain mask v1".ljust(32, b"\0") + SEED).digest(8 * 50)
    keys = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") for i in range(50)]
    assert places_of(SEED, 50, 12).tolist() == sorted(sorted(range(50), key=lambda i: keys[i])[:12])
    with pytest.raises(ValueError, match="read-only"):
        places_of(SEED, 50, 12)[0] = 1


def test_of_equal_keys_the_first_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def digest(self, size: int) -> bytes:
            return np.array([5, 2, 5, 9, 5, 1, 5, 0], dtype="<u8").tobytes()

    monkeypatch.setattr("fedchain.protocol.masking.hashlib.shake_256", lambda seed: Stream())
    for sent, places in [
        (1, [7]),
        (3, [1, 5, 7]),
        (5, [0, 1, 2, 5, 7]),
        (7, [0, 1, 2, 4, 5, 6, 7]),
        (8, list(range(8))),
    ]:
        assert places_of.__wrapped__(bytes(32), 8, sent).tolist() == places


def test_another_round_attempt_or_model_sends_other_coordinates() -> None:
    seeds = [rotation_seed(3, 0, Digest(bytes(32))), rotation_seed(4, 0, Digest(bytes(32)))]
    seeds += [rotation_seed(3, 1, Digest(bytes(32))), rotation_seed(3, 0, Digest(bytes(31) + b"\1"))]
    assert len({tuple(places_of(seed, 1000, 100)) for seed in seeds}) == 4


def test_every_coordinate_is_sent_as_often_as_the_others() -> None:
    counts = np.zeros(200)
    for round in range(1000):
        counts[places_of(rotation_seed(round, 0, Digest(bytes(32))), 200, 50)] += 1
    # Binomial(1000, 1/4): five standard deviations.
    assert np.abs(counts - 250).max() < 5 * np.sqrt(1000 * 0.25 * 0.75)


def test_a_mask_of_one_changes_no_bit_and_no_digest() -> None:
    """The bits themselves are pinned in test_update_format and test_charter."""
    assert charter(mask=1).canonical() == PLAIN.canonical() and b'"mask"' not in PLAIN.canonical()
    whole = form(5000, mask=1.0)
    assert whole == form(5000) and (whole.sent, whole.places(SEED)) == (5000, slice(None))


def test_a_mask_counts_in_the_charters_digest_and_comes_back() -> None:
    agreed = charter(mask=0.25)
    assert agreed.digest() != PLAIN.digest() and parse_charter(agreed.canonical()) == agreed
    spelt = PLAIN.canonical().replace(b'"members_max"', b'"mask":1.0,"members_max"')
    with pytest.raises(UsageError, match="not in canonical form"):
        parse_charter(spelt)


@pytest.mark.parametrize("mask", ["0", "-0.5", "1.01", "0.001", "nan", '"half"', "true", "[0.5]"])
def test_a_mask_that_is_no_share_is_refused_in_one_line(mask: str) -> None:
    with pytest.raises(UsageError, match=r"update\.mask") as caught:
        PLAIN.with_settings([f"update.mask={mask}"])
    assert "\n" not in str(caught.value)


def test_scaffold_with_a_mask_is_refused() -> None:
    with pytest.raises(UsageError, match=r"scaffold sends a second vector, which update\.mask"):
        PLAIN.with_settings(["algorithm.name=scaffold", "algorithm.effective_steps=5", "update.mask=0.5"])


masked = st.builds(
    form,
    st.integers(1, 3000),
    mask=st.sampled_from([0.01, 0.1, 0.25, 1 / 3, 0.5, 0.99]),
    rotate=st.booleans(),
    bits=st.sampled_from([2, "auto", 16]),
)


@given(masked, st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_what_is_sent_is_read_within_a_step_and_the_rest_is_0(agreed: UpdateFormat, seed: int) -> None:
    updates = np.random.default_rng(seed).uniform(-0.1, 0.1, (3, agreed.size))
    rotation = rotation_seed(seed, 0, Digest(bytes(32)))
    mean = mean_of(updates, agreed, rotation, seed)
    places = places_of(rotation, agreed.size, agreed.sent)
    assert mean.shape == (agreed.size,) and not np.delete(mean, places).any()
    # A rotated value is put together of a whole block's rounding errors.
    bound = agreed.step * np.sqrt(agreed.block) + 1e-12
    assert np.abs(mean[places] - updates.mean(axis=0)[places]).max() <= bound


@given(masked)
@settings(max_examples=60, deadline=None)
def test_a_masked_upload_takes_what_a_model_of_that_part_takes(agreed: UpdateFormat) -> None:
    whole = charter(**agreed.settings.model_dump() | {"mask": 1.0})
    assert agreed.model_size == model_size_of(whole, agreed.sent)
    assert (agreed.values, agreed.block) == ((part := update_format(whole, agreed.sent)).values, part.block)


def test_a_quarter_of_a_million_parameters_takes_a_quarter_of_the_bytes() -> None:
    sizes = [ciphertext_size(form(1_000_000, mask=mask).model_size) for mask in (1, 0.25)]
    assert sizes[1] / sizes[0] == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("bits", [2, 3, "auto", 16])
@pytest.mark.parametrize("mask", [0.01, 0.3, 0.77, 1])
def test_every_model_of_a_masked_charter_may_be_fetched(bits: int | str, mask: float) -> None:
    for members in (3, 16, 64):
        for size in (1, 100, 100_058):
            agreed = charter(bits=bits, members_max=members, mask=mask)
            assert fetched_model_bound(model_size_of(agreed, size), agreed) >= model_bytes_bound(size)


def test_clipping_measures_what_is_sent_and_nothing_else() -> None:
    agreed = form(1000, mask=0.1, rotate=False, bits=16, clip_norm=1.0, clip_value=1.0)
    update = np.full(1000, 50.0)
    update[places_of(SEED, 1000, 100)] = 0.01
    mean = mean_of(update[None], agreed, SEED)
    assert mean[places_of(SEED, 1000, 100)] == pytest.approx(0.01, abs=agreed.step), "length 0.1: nothing is cut"
    share: dict[str, Any] = {"weight": 1, "max_weight": 1, "rotation": SEED}
    loose = replace(agreed, settings=agreed.settings.model_copy(update={"clip_norm": 0.0}))
    assert clipped_fraction(update, form=loose, **share) == 0
    assert clipped_fraction(-update[::-1].copy(), form=loose, **share) > 0.8


@pytest.mark.parametrize("mode", ["records", "clients"])
def test_a_private_vector_is_masked_and_keeps_to_the_sensitivity(mode: str) -> None:
    privacy = {"mode": mode, "epsilon": 8.0, "clip": 1.0}
    entries: dict[str, Any] = {"federation": {"name": "private", "members": [f"0x{i:040x}" for i in range(5)]}}
    entries |= {"privacy": privacy, "outer": {"learning_rate": 0.1}, "update": {"mask": 0.2}}
    agreed = update_format(Charter.model_validate(entries), 3000)
    noise, vector = noise_in(agreed), np.random.default_rng(0).normal(0, 10, 3000)
    assert agreed.sent == 600
    for seed in range(20):
        units = bounded_units(vector, form=agreed, rotation=SEED, random=np.random.default_rng(seed))
        assert units.shape == (agreed.values,) and int(np.dot(units, units)) <= noise.units**2
    # Whatever stands outside the mask, not a unit of it is in what is sent.
    other = np.full(3000, 1e6)
    other[places_of(SEED, 3000, 600)] = vector[places_of(SEED, 3000, 600)]
    one, two = (bounded_units(v, form=agreed, rotation=SEED, random=np.random.default_rng(1)) for v in (vector, other))
    assert np.array_equal(one, two)


def test_the_average_under_a_mask_has_these_very_bits() -> None:
    """Pinned: a machine where this fails would not agree with the others on any model."""
    agreed = form(50_000, bits=4, rotate=True, clip_value=0.3, mask=0.3)
    sums = (np.arange(agreed.values, dtype=np.int64) * 7919) % (5 * 14 + 1)
    mean = average(sums, participants=5, total_weight=1062, max_weight=511, form=agreed, rotation=SEED)
    assert hashlib.sha256(mean.astype("<f8")).hexdigest() == (
        "65e71c5cfe8c7d816a6cd3691512bcf4e1218391ce082464fe034ce8d6a79e18"
    )


class Net(Task):
    """A batch norm, whose running means no optimizer moves, a frozen layer, and an optimizer as one gives it."""

    name = "net"

    def __init__(self, optimizer: str = "sgd", tied: bool = False) -> None:
        self._optimizer, self._tied = optimizer, tied

    def model(self) -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3))
        model[3].weight.requires_grad_(False)
        if self._tied:
            model.append(nn.Linear(3, 3))
            model.append(model[-1])
        return model

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self._optimizer == "adamw":
            return torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.5)
        return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.1)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        labels = torch.arange(60) % 3
        inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(seed * 100 + index)) + labels[:, None]
        return LocalData(TensorDataset(inputs, labels), TensorDataset(inputs, labels))

    def test_data(self) -> TensorDataset:
        raise NotImplementedError


def trained(task: Net, sent: Any = EVERYWHERE, **algorithm: Any) -> tuple[np.ndarray, ModelLayout]:
    base = genesis(task, 1, algorithm.get("local_tensors", ()))
    data = task.local_data(0, 1, 1)
    return train_locally(task, base, Algorithm(local_epochs=3, **algorithm), data, 7, sent=sent).update, layout_of(base)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("algorithm", [{}, {"name": "fedprox", "mu": 0.1}, {"name": "fednova", "effective_steps": 3}])
def test_members_train_what_they_send_and_nothing_else(optimizer: str, algorithm: dict[str, Any]) -> None:
    task = Net(optimizer)
    every, layout = trained(task, **algorithm)
    sent = places_of(SEED, layout.size, layout.size // 3)
    update, _ = trained(task, sent, **algorithm)
    learnt = np.repeat(["running" not in name and name != "3.weight" for name in layout.names], layout.sizes)
    outside = np.setdiff1d(np.arange(layout.size), sent)
    assert not update[outside][learnt[outside]].any() and every[outside][learnt[outside]].all()
    assert np.count_nonzero(update[sent]) == np.count_nonzero(learnt[sent] | (every[sent] != 0))
    # What the others' standing still leaves to learn is not what they would have moved anyway.
    assert not np.allclose(update[sent], every[sent], atol=1e-5)


def test_sending_all_coordinates_trains_to_the_very_bits_of_training_without_a_mask() -> None:
    every, layout = trained(Net())
    assert np.array_equal(trained(Net(), np.arange(layout.size))[0], every)


def test_local_tensors_are_trained_whole_whatever_is_sent() -> None:
    task = Net()
    local = {"local_tensors": ("4.*",)}
    base = genesis(task, 1, ["4.*"])
    sent = places_of(SEED, layout_of(base).size, 5)
    result = train_locally(task, base, Algorithm(**local), task.local_data(0, 1, 1), 7, sent=sent)
    assert result.kept is not None
    before = split(layout_of(whole := genesis(task, 1)), flatten(whole))
    after = split(layout_of(result.kept), flatten(result.kept))
    assert set(after) == {"4.bias", "4.weight"} and all((after[name] != before[name]).all() for name in after)


def test_a_model_that_ties_tensors_bears_no_mask() -> None:
    agreed = charter(mask=0.5)
    with pytest.raises(UsageError, match=r"model\(\) ties tensors, which update\.mask would untie"):
        first_model(Net(tied=True), agreed)
    assert first_model(Net(tied=True), PLAIN) and first_model(Net(), agreed)


class Line(Net):
    """One layer, whose rows can be told apart."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 3))


@pytest.mark.parametrize("mode", ["none", "records", "clients"])
def test_a_round_moves_what_its_mask_names_in_every_privacy_mode(mode: str) -> None:
    entries: dict[str, Any] = {"federation": {"name": "lines", "members": [f"0x{i:040x}" for i in range(5)]}}
    entries |= {"outer": {"learning_rate": 0.5}, "update": {"mask": 0.25}, "task_sha256": "ab" * 32}
    if mode != "none":
        entries["privacy"] = {"mode": mode, "epsilon": 900.0, "clip": 1.0, "sampling_rate": 1.0}
    agreed, task = Charter.model_validate(entries), Line()
    base = first_model(task, agreed)
    (done,) = simulate(agreed, task, members=5, rounds=1, base=base)
    size = layout_of(base).size
    sent = places_of(rotation_seed(1, 0, model_digest(base)), size, sent_of(size, 0.25))
    moved = np.flatnonzero(flatten(done.model) != flatten(base))
    assert set(moved) <= set(sent) and len(moved) > len(sent) / 2
