"""A mask sends a part of every update: the same part for all, drawn by everybody alike, and right in expectation."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.crypto import ciphertext_size
from fedchain.errors import UsageError
from fedchain.protocol.arithmetic import average, clipped_fraction, quantise
from fedchain.protocol.charter import Charter, Federation, Update, parse_charter
from fedchain.protocol.ids import Digest
from fedchain.protocol.masking import places_of, sent_of
from fedchain.protocol.model import assemble, flatten, layout_from, model_bytes_bound
from fedchain.protocol.outer import following_model, with_first_state
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
    """What everybody decodes of these updates, through coefficients, (size,): 0 where nothing was sent."""
    sums, share = np.zeros(agreed.coefficients, dtype=np.uint64), {"form": agreed, "rotation": rotation}
    for i, update in enumerate(updates):
        random = np.random.default_rng(seed * 100 + i)
        sums += join_values(quantise(update, weight=1, max_weight=1, random=random, **share), agreed)
    count = len(updates)
    mean = np.zeros(agreed.size)
    mean[agreed.places(rotation)] = average(
        split_sums(sums, agreed), participants=count, total_weight=count, max_weight=1, **share
    )
    return mean


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
    with pytest.raises(UsageError, match=r"scaffold's control variates .* drop update\.mask"):
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
def test_what_is_sent_is_read_within_a_step(agreed: UpdateFormat, seed: int) -> None:
    updates = np.random.default_rng(seed).uniform(-0.1, 0.1, (3, agreed.size))
    rotation = rotation_seed(seed, 0, Digest(bytes(32)))
    mean = mean_of(updates, agreed, rotation, seed)
    places, part = places_of(rotation, agreed.size, agreed.sent), agreed.size / agreed.sent
    # A rotated value is put together of a whole block's rounding errors.
    bound = part * agreed.step * np.sqrt(agreed.block) + 1e-12
    assert np.abs(mean[places] - part * updates.mean(axis=0)[places]).max() <= bound


def test_the_mean_over_many_masks_is_the_mean_of_the_whole_updates() -> None:
    agreed, updates = form(100, mask=0.2, rotate=True), np.random.default_rng(1).uniform(-0.2, 0.2, (3, 100))
    draws = 500
    total = sum(mean_of(updates, agreed, rotation_seed(i, 0, Digest(bytes(32))), i) for i in range(draws))
    # A coordinate is its mean m times 5 with probability 1/5: variance 4m², and at most five steps' rounding.
    bound = 5 * np.sqrt((4 * 0.2**2 + (5 * agreed.step) ** 2) / draws)
    assert np.abs(total / draws - updates.mean(axis=0)).max() < bound


@pytest.mark.parametrize("optimizer", ["none", "fedavgm", "fedadagrad", "fedadam", "fedyogi"])
def test_what_is_not_sent_stands_still_with_its_moments_and_the_rest_moves_as_without_a_mask(optimizer: str) -> None:
    agreed = PLAIN.with_settings([f"outer.optimizer={optimizer}"])
    random = np.random.default_rng(4)
    model = assemble(layout_from({"w": (40,)}), random.normal(size=40).astype(np.float32))
    base = with_first_state(model, agreed)
    weights: dict[str, Any] = {"charter": agreed, "weight": 1, "of_weight": 1}
    for round in range(3):
        mean, places = random.normal(size=40), places_of(rotation_seed(round, 0, Digest(bytes(32))), 40, 10)
        some = flatten(following_model(base, mean[places], **weights, sent=places)).reshape(-1, 40)
        every, before = (flatten(m).reshape(-1, 40) for m in (following_model(base, mean, **weights), base))
        still = np.delete(np.arange(40), places)
        assert np.array_equal(some[:, still], before[:, still]) and np.array_equal(some[:, places], every[:, places])
        assert (some[0, places] != before[0, places]).all()
        base = following_model(base, mean[places], **weights, sent=places)
    with pytest.raises(ValueError, match="an average of"):
        following_model(base, mean, **weights, sent=places)


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
    assert mean[places_of(SEED, 1000, 100)] == pytest.approx(0.1, abs=10 * agreed.step), "length 0.1: nothing is cut"
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
    mean = np.zeros(agreed.size)
    share: dict[str, Any] = {"form": agreed, "rotation": SEED}
    mean[agreed.places(SEED)] = average(sums, participants=5, total_weight=1062, max_weight=511, **share)
    assert hashlib.sha256(mean.astype("<f8")).hexdigest() == (
        "8b153d239caf868ad6b30db3f64b956f882b428d89d0ba25e2d2724637b58367"
    )
