"""How values stand in coefficients: nothing runs over, nothing is lost, and everybody works out the same numbers."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.errors import MalformedObject, UsageError
from fedchain.protocol.arithmetic import average, quantise
from fedchain.protocol.charter import Charter, Federation, Update
from fedchain.protocol.ids import MAX_MEMBERS, Digest
from fedchain.protocol.model import model_bytes_bound
from fedchain.protocol.rotation import block_of, root_of_block, rotate, rotation_seed, signs_of, turn_back
from fedchain.protocol.scheme import PLAIN_MODULUS, leaves_of
from fedchain.protocol.update_format import (
    AUTO_FIELDS,
    MAX_FIELDS,
    UpdateFormat,
    auto_steps,
    check_members,
    fetched_model_bound,
    join_values,
    model_size_of,
    split_sums,
    update_format,
)

SEED = rotation_seed(3, 0, Digest(bytes(32)))


def charter(**update: object) -> Charter:
    return Charter(federation=Federation(name="formats"), update=Update.model_validate(update))


def form(size: int = 100, **update: object) -> UpdateFormat:
    return update_format(charter(**update), size)


formats = st.builds(
    form,
    st.integers(1, 300),
    bits=st.one_of(st.integers(2, 16), st.just("auto")),
    members_max=st.integers(3, MAX_MEMBERS),
    rotate=st.booleans(),
)


@given(formats, st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_the_sum_of_joined_values_splits_into_the_sums_of_the_values(form: UpdateFormat, seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(0, 2 * form.steps + 1, (form.members, form.values))
    joined = np.sum([join_values(row, form) for row in values], axis=0)
    assert joined.shape == (form.coefficients,) and joined.max() < PLAIN_MODULUS
    assert np.array_equal(split_sums(joined, form), values.sum(axis=0))


@given(formats)
@settings(max_examples=200, deadline=None)
def test_the_largest_values_of_all_members_still_fit_and_one_member_more_does_not(form: UpdateFormat) -> None:
    largest = join_values(np.full(form.values, 2 * form.steps), form) * np.uint64(form.members)
    assert largest.max() < PLAIN_MODULUS
    assert np.array_equal(split_sums(largest, form), np.full(form.values, 2 * form.steps * form.members))
    sums = np.full(form.values, 2 * form.steps * form.members)
    weights = {"total_weight": form.members, "max_weight": 1, "form": form, "rotation": SEED}
    average(sums, participants=form.members, **weights)
    with pytest.raises(MalformedObject, match="sum: participants"):
        average(sums, participants=form.members + 1, **weights)


def test_a_digit_stands_for_each_value_as_the_documents_say() -> None:
    five = form(5, bits=4, members_max=5)
    assert (five.steps, five.radix, five.fields, five.coefficients) == (7, 71, 7, 1)
    assert int(join_values(np.array([1, 2, 3, 4, 14]), five)[0]) == 1 + 2 * 71 + 3 * 71**2 + 4 * 71**3 + 14 * 71**4
    ten = form(10, bits=4, members_max=5)
    assert [int(c) % 71 for c in join_values(np.arange(10), ten)] == [0, 1], "value i stands in coefficient i mod 2"


@pytest.mark.parametrize(
    ("bits", "members", "steps", "fields"),
    [
        (16, 64, 32767, 2),
        (16, 5, 32767, 2),
        (12, 5, 2047, 3),
        (8, 16, 127, 3),
        (8, 5, 127, 4),
        (4, 5, 7, 7),
        (4, 11, 7, 6),
        (4, 16, 7, 5),
        (3, 16, 3, 6),
        (2, 3, 1, MAX_FIELDS),
        (2, 16, 1, 8),
        ("auto", 5, 16, AUTO_FIELDS),
        ("auto", 16, 5, AUTO_FIELDS),
        ("auto", 26, 3, AUTO_FIELDS),
        ("auto", 27, 8, 5),
        ("auto", 64, 3, 5),
    ],
)
def test_so_many_values_stand_in_a_coefficient(bits: int | str, members: int, steps: int, fields: int) -> None:
    found = form(bits=bits, members_max=members)
    assert (found.steps, found.fields) == (steps, fields)
    assert found.radix**fields <= PLAIN_MODULUS < found.radix ** (fields + 1)


def test_auto_takes_the_finest_steps_for_its_fields() -> None:
    for members in range(3, MAX_MEMBERS + 1):
        steps = auto_steps(members)
        fields = form(bits="auto", members_max=members).fields
        assert steps >= 3 and (2 * (steps + 1) * members + 1) ** fields > PLAIN_MODULUS


def test_the_contracts_size_is_two_a_coefficient() -> None:
    for size in (1, 2, 5, 127, 128, 129, 100_058):
        assert model_size_of(charter(bits=16, rotate=False), size) == size + size % 2
    small = charter(bits=4, members_max=16, rotate=False)
    assert model_size_of(small, 1_000_000) == 2 * 200_000
    assert leaves_of(model_size_of(small, 1_000_000)) == 3125
    assert model_size_of(charter(bits=4, members_max=16, rotate=True), 1_000_000) == 2 * -(-1024 * 977 // 5)


def test_every_model_of_a_contract_may_be_fetched() -> None:
    for bits in (2, 4, 16, "auto"):
        for members in (3, 16, 64):
            for size in (1, 100, 100_058):
                agreed = charter(bits=bits, members_max=members)
                assert fetched_model_bound(model_size_of(agreed, size), None) >= model_bytes_bound(size)


def test_the_bound_on_members_is_the_charters_or_sixteen_or_the_founders() -> None:
    founders = tuple(f"0x{i:040x}" for i in range(20))
    assert charter().members_max == 16
    assert Charter(federation=Federation(name="many", members=founders)).members_max == 20
    assert charter(members_max=7).members_max == 7
    check_members(charter(members_max=7), 7)
    with pytest.raises(UsageError, match=r"room for 7 members \(update.members_max\), not for 8"):
        check_members(charter(members_max=7), 8)


def test_more_founders_than_sums_have_room_for_are_refused() -> None:
    founders = tuple(f"0x{i:040x}" for i in range(5))
    agreed = Charter(federation=Federation(name="few", members=founders), update=Update(members_max=4))
    with pytest.raises(UsageError, match=r"names 5 members, its sums have room for 4: raise update.members_max"):
        agreed.check_complete()


@pytest.mark.parametrize("values", [[0, 15, 0], [0, -1, 0], [0, 0], [0, 0, 0, 0]])
def test_values_that_would_run_over_are_our_bug(values: list[int]) -> None:
    with pytest.raises(ValueError, match=r"integers from 0 to 14|has 3 values"):
        join_values(np.array(values), form(3, bits=4))


def test_coefficients_of_another_size_are_our_bug() -> None:
    with pytest.raises(ValueError, match="has 1 coefficients"):
        split_sums(np.zeros(2, dtype=np.uint64), form(3, bits=4))


def test_a_coefficient_beyond_all_honest_sums_is_refused_at_its_last_value() -> None:
    four = form(10, bits=4, members_max=16)
    coefficients = np.full(four.coefficients, 225**5, dtype=np.uint64)
    with pytest.raises(MalformedObject, match="sum: range"):
        average(
            split_sums(coefficients, four), participants=16, total_weight=16, max_weight=1, form=four, rotation=SEED
        )


@given(st.integers(1, 5000))
@settings(max_examples=200, deadline=None)
def test_blocks_are_powers_of_four_and_fill_up_by_a_sixteenth_at_most(size: int) -> None:
    block = block_of(size)
    assert block in (1, 4, 16, 64, 256, 1024) and root_of_block(block) ** 2 == block
    assert 16 * (-size % block) <= size
    assert block == 1024 or 16 * (-size % (4 * block)) > size


@given(st.integers(1, 3000), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_turning_back_undoes_the_rotation(size: int, seed: int) -> None:
    block, update = block_of(size), np.random.default_rng(seed).integers(-1000, 1000, size)
    rotated = rotate(update.astype(np.float64), block, SEED)
    assert np.isclose(np.linalg.norm(rotated), np.linalg.norm(update))
    whole = np.rint(rotated * root_of_block(block)).astype(np.int64)
    assert np.array_equal(turn_back(whole, block, SEED)[:size], block * update)


def test_a_rotation_spreads_one_large_value_over_its_block() -> None:
    update = np.zeros(2048)
    update[77] = 1.0
    rotated = rotate(update, 1024, SEED)
    assert np.count_nonzero(rotated) == 1024 and np.allclose(np.abs(rotated[rotated != 0]), 1 / 32)
    assert np.flatnonzero(rotated).tolist() == list(range(1, 2048, 2)), "block 1 of 2 holds every other value"


def test_the_signs_are_the_bits_of_shake_of_the_seed() -> None:
    stream = hashlib.shake_256(SEED).digest(3)
    assert signs_of(SEED, 20).tolist() == [-1 if stream[i // 8] >> (i % 8) & 1 else 1 for i in range(20)]
    words = b"fedchain rotation v1".ljust(32, b"\0") + (3).to_bytes(32, "big") + bytes(64)
    assert hashlib.sha256(words).digest() == SEED
    others = [(4, 0, bytes(32)), (3, 1, bytes(32)), (3, 0, bytes(31) + b"\1")]
    assert len({SEED, *(rotation_seed(round, attempt, Digest(base)) for round, attempt, base in others)}) == 4


def test_the_average_of_rotated_updates_has_these_very_bits() -> None:
    """Pinned: a machine where this fails would not agree with the others on any model."""
    turned = form(50_000, bits=4, rotate=True, clip_value=0.3)
    sums = (np.arange(turned.values, dtype=np.int64) * 7919) % (5 * 14 + 1)
    mean = average(sums, participants=5, total_weight=1062, max_weight=511, form=turned, rotation=SEED)
    assert hashlib.sha256(mean.astype("<f8")).hexdigest() == (
        "a08581b4e6876021bf814789dbd3e8daa2845a11d7c1ce062e4cca1050035612"
    )


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("bits", [2, 4, "auto", 16])
def test_the_average_is_unbiased_whatever_the_format(bits: int | str, rotate: bool) -> None:
    random = np.random.default_rng(5)
    size, members = 400, 4
    agreed = form(size, bits=bits, rotate=rotate, clip_value=1.0)
    updates = random.uniform(-0.2, 0.2, (members, size))
    draws = 200
    total = np.zeros(size)
    for _ in range(draws):
        sums = np.zeros(agreed.values, dtype=np.int64)
        for update in updates:
            share = {"weight": 1, "max_weight": 1, "form": agreed, "rotation": SEED}
            sums += quantise(update, **share, random=random)
        total += average(sums, participants=members, total_weight=members, max_weight=1, form=agreed, rotation=SEED)
    # Five standard errors of the mean of draws·members coins, each at most half a step wide.
    bound = 5 * agreed.step / 2 / np.sqrt(draws * members)
    assert np.abs(total / draws - updates.mean(axis=0)).max() <= bound + 1e-12


def test_a_simulation_of_more_members_than_sums_have_room_for_is_refused() -> None:
    from fedchain.peer.simulation import simulate

    with pytest.raises(UsageError, match="room for 16 members"):
        next(simulate(charter(), None, members=17))  # type: ignore[arg-type]
