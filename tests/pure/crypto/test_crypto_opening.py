"""Opening a sum: any committee agrees, too few learn nothing, and a wrong opening is caught or named."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from fedchain.crypto import (
    NotEnoughOpenings,
    Opening,
    SpoiledRound,
    make_opening,
    open_aggregate,
    sum_ciphertexts,
)
from fedchain.crypto.opening import _Probe
from fedchain.crypto.parameters import ETA, SHARE_PRIME, N, key_bound, noise_bound
from fedchain.crypto.shamir import centred, interpolate, lagrange, point_of
from fedchain.errors import MalformedObject
from fedchain.protocol.ids import Index
from fedchain.protocol.merkle import hash_leaves, root_of

from .conftest import Scene

Move = Callable[..., Opening]


def test_every_committee_of_t_gives_the_same_exact_sums_and_roots(scene: Scene) -> None:
    results = [scene.open({j: scene.openings[j] for j in map(Index, c)}) for c in combinations(range(5), 3)]
    for result in results:
        assert np.array_equal(result.sums, scene.sums)
        assert result.wrong == ()
    assert len({result.result_root for result in results}) == len({result.key_sum_root for result in results}) == 1


def test_the_roots_are_over_64_bit_leaves_of_s_and_of_the_plaintext(scene: Scene) -> None:
    opened = scene.open(scene.openings)
    s_leaves = np.mod(opened.key_sum, SHARE_PRIME).astype("<u8").tobytes()
    assert opened.key_sum_root == root_of(hash_leaves(s_leaves, 512))
    plain = np.zeros(192, dtype="<u8")
    plain[:150] = scene.sums
    assert opened.result_root == root_of(hash_leaves(plain.tobytes(), 512))
    assert scene.openings[Index(0)].root() == root_of(
        hash_leaves(scene.openings[Index(0)].elements.astype("<u8").tobytes(), 512)
    )


@pytest.mark.parametrize(("n", "threshold", "d"), [(3, 2, 2), (4, 3, 128), (7, 4, 4098)])
def test_other_federations_open_exactly_too(make_scene: type[Scene], n: int, threshold: int, d: int) -> None:
    scene = make_scene(n=n, threshold=threshold, d=d)
    assert np.array_equal(scene.open(scene.openings).sums, scene.sums)


def test_a_subset_of_dealers_is_opened_by_everybody(make_scene: type[Scene]) -> None:
    scene = make_scene(n=6, threshold=4, dealers=5)
    assert np.array_equal(scene.open(scene.openings).sums, scene.sums)


def test_the_largest_values_of_sixty_four_members_do_not_overflow(make_scene: type[Scene]) -> None:
    """One member's upload counted 64 times is a sum of 64: residues, keys and noise at their limit."""
    scene = make_scene(n=3, threshold=2, d=200, dealers=3)
    top = scene.deal(0, np.full(100, 2**38 - 1))
    aggregate = sum_ciphertexts([top.ciphertext] * 16, scene.d)
    openings = {Index(j): make_opening([scene.share(0, j, top.shares)] * 16) for j in range(3)}
    opened = open_aggregate(aggregate, openings, threshold=2, participants=64, context=scene.context, d=200)
    assert opened.sums.tolist() == [16 * (2**38 - 1)] * 100


def test_noise_stays_far_from_the_decoding_limit() -> None:
    assert [noise_bound(n) for n in (3, 5, 64)] == [79, 102, 366]
    assert noise_bound(64) < 501
    assert key_bound(64) == 64 * ETA < SHARE_PRIME // 2


def test_fewer_than_t_openings_open_nothing(scene: Scene) -> None:
    two = {j: scene.openings[j] for j in (Index(0), Index(3))}
    with pytest.raises(NotEnoughOpenings, match="2 openings of 3"):
        scene.open(two)
    with pytest.raises(SpoiledRound):
        scene.open(two, threshold=2)


def test_t_minus_one_openings_are_consistent_with_every_sum_of_keys(scene: Scene) -> None:
    """For any S some opening of an absent member makes the same two openings say S: they exclude nothing."""
    held = [0, 3]
    known = np.stack([scene.openings[Index(j)].elements.astype(np.int64) for j in held])
    for seed in range(3):
        other = np.random.default_rng(seed).integers(-5 * ETA, 5 * ETA + 1, N)
        third = interpolate([0, *map(point_of, held)], np.vstack((np.mod(other, SHARE_PRIME)[None, :], known)), x=5)
        completed = interpolate([*map(point_of, held), 5], np.vstack((known, third[None, :])))
        assert np.array_equal(centred(completed), other)


def test_a_guessed_sum_of_keys_does_not_pass(scene: Scene) -> None:
    probe = _Probe(scene.aggregate, scene.dealers, scene.context)
    right = scene.open(scene.openings).key_sum
    assert probe.passes(right)
    near = right.copy()
    near[100] += 1
    assert not probe.passes(near)
    assert not probe.passes(np.zeros(N, dtype=np.int64))
    too_large = right.copy()
    too_large[0] = key_bound(5) + 1
    assert not probe.passes(too_large)


def test_an_opening_off_by_one_is_named_when_there_are_more_than_t(scene: Scene, moved: Move) -> None:
    for liar in range(5):
        openings = scene.openings | {Index(liar): moved(scene.openings[Index(liar)], 1)}
        for absent in (None, (liar + 1) % 5):
            opened = scene.open({j: o for j, o in openings.items() if j != absent})
            assert opened.wrong == (liar,)
            assert np.array_equal(opened.sums, scene.sums)


def test_an_opening_off_by_one_is_caught_by_the_noise_with_exactly_t(scene: Scene, moved: Move) -> None:
    openings = {j: scene.openings[j] for j in map(Index, (0, 2, 4))} | {Index(2): moved(scene.openings[Index(2)], 1)}
    with pytest.raises(SpoiledRound, match="no committee fits"):
        scene.open(openings)


def test_smallness_of_s_alone_would_let_a_wrong_opening_through(scene: Scene) -> None:
    """Why the noise is checked: an opening moved so that one coefficient of S changes by one leaves S small."""
    points = [point_of(j) for j in (0, 1, 2)]
    by = pow(int(lagrange(points, 0)[1]), -1, SHARE_PRIME)
    elements = scene.openings[Index(1)].elements.astype(np.int64)
    elements[7] = (elements[7] + by) % SHARE_PRIME
    openings = {j: scene.openings[j] for j in map(Index, (0, 1, 2))} | {Index(1): Opening(elements.astype(np.uint16))}
    s = centred(interpolate(points, np.stack([openings[Index(j)].elements.astype(np.int64) for j in (0, 1, 2)])))
    assert np.abs(s).max() <= key_bound(5)
    with pytest.raises(SpoiledRound):
        scene.open(openings)


def test_two_liars_of_seven_are_named_whatever_they_say(make_scene: type[Scene], moved: Move) -> None:
    scene = make_scene(n=7, threshold=4, d=10)
    lies = {
        "independent": {1: (5, 3), 4: (77, 9)},
        "equal": {1: (5, 3), 4: (5, 3)},
        "everywhere": {0: (11, slice(None)), 1: (13, slice(None))},
    }
    for told in lies.values():
        openings = dict(scene.openings)
        for liar, (by, at) in told.items():
            openings[Index(liar)] = moved(openings[Index(liar)], by, at)
        opened = scene.open(openings)
        assert opened.wrong == tuple(told)
        assert np.array_equal(opened.sums, scene.sums)


def test_more_liars_than_unique_decoding_corrects_are_still_found(make_scene: type[Scene], moved: Move) -> None:
    """Three of seven, threshold four: past half the redundancy, so committees are searched and the noise decides."""
    scene = make_scene(n=7, threshold=4, d=10)
    openings = dict(scene.openings)
    for liar, by in ((0, 1), (1, 500), (5, 9)):
        openings[Index(liar)] = moved(openings[Index(liar)], by)
    opened = scene.open(openings)
    assert opened.wrong == (0, 1, 5)
    assert np.array_equal(opened.sums, scene.sums)


def test_liars_in_a_large_committee_are_named_without_a_search(
    make_scene: type[Scene], moved: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty choose eleven is past any search: decoding finds up to half the redundancy, and gives up beyond."""
    monkeypatch.setattr("fedchain.crypto.opening.MAX_COMMITTEES", 0)
    scene = make_scene(n=20, threshold=11, d=10, dealers=12)
    openings = dict(scene.openings)
    for liar in range(4):
        openings[Index(liar)] = moved(openings[Index(liar)], 1 + liar)
    opened = scene.open(openings)
    assert opened.wrong == (0, 1, 2, 3)
    assert np.array_equal(opened.sums, scene.sums)
    openings[Index(4)] = moved(openings[Index(4)], 1)
    with pytest.raises(SpoiledRound):
        scene.open(openings)


def test_liars_whose_errors_cancel_change_no_integer_and_put_the_blame_on_nobody_else(scene: Scene) -> None:
    """Members 0 and 1 shift their openings so that, with member 2, S comes out right: two stories fit three each."""
    weights = lagrange([1, 2, 3], 0)
    openings = dict(scene.openings)
    for liar, by in ((0, int(weights[1])), (1, -int(weights[0]))):
        elements = openings[Index(liar)].elements.astype(np.int64)
        elements[7] = (elements[7] + by) % SHARE_PRIME
        openings[Index(liar)] = Opening(elements.astype(np.uint16))
    opened = scene.open(openings)
    assert np.array_equal(opened.sums, scene.sums)
    assert opened.key_sum_root == scene.open(scene.openings).key_sum_root
    assert not set(opened.wrong) & {2, 3, 4}


def test_an_opening_for_another_set_of_participants_is_named(scene: Scene) -> None:
    partial = make_opening([scene.share(i, 2) for i in range(4)])
    opened = scene.open(scene.openings | {Index(2): partial})
    assert opened.wrong == (2,)


def test_a_dealer_whose_key_is_not_its_ciphertexts_spoils_the_round(scene: Scene) -> None:
    swapped = [scene.deal(0).ciphertext, *(upload.ciphertext for upload in scene.uploads[1:])]
    aggregate = sum_ciphertexts(swapped, scene.d)
    with pytest.raises(SpoiledRound):
        open_aggregate(aggregate, scene.openings, threshold=3, participants=5, context=scene.context, d=scene.d)


def test_one_bad_coefficient_late_in_the_model_spoils_the_round(make_scene: type[Scene]) -> None:
    """The first polynomial is clean: every stored coefficient is checked, not only what the search looks at."""
    scene = make_scene(n=3, threshold=2, d=9000)
    aggregate = scene.aggregate
    aggregate.residues.reshape(-1)[4490] += np.uint64(400)
    with pytest.raises(SpoiledRound, match="noise of coefficient 4490"):
        scene.open(scene.openings)


def test_what_lies_past_the_stored_leaves_is_not_judged(make_scene: type[Scene]) -> None:
    scene = make_scene(n=3, threshold=2, d=10)
    assert not scene.aggregate.residues[0, 64:].any()
    assert np.array_equal(scene.open(scene.openings).sums, scene.sums)


def test_the_wrong_size_is_our_bug_and_not_a_fault(scene: Scene) -> None:
    with pytest.raises(ValueError, match="of the size 300, not 299"):
        scene.open(scene.openings, d=299)
    with pytest.raises(ValueError, match="participants"):
        scene.open(scene.openings, participants=65)


def test_openings_travel_as_4096_bytes(scene: Scene) -> None:
    opening = scene.openings[Index(1)]
    content = opening.encode()
    assert len(content) == 4096
    again = Opening.parse(content, "member 1", 3)
    assert np.array_equal(again.elements, opening.elements) and again.root() == opening.root()


@pytest.mark.parametrize(
    ("field", "corrupt"),
    [
        ("size", lambda c: c[:-1]),
        ("size", lambda c: c + b"\0\0"),
        ("element 0", lambda c: b"\xf1\xff" + c[2:]),
        ("element 2047", lambda c: c[:-2] + b"\xff\xff"),
    ],
    ids=["truncated", "longer", "first-element", "last-element"],
)
def test_a_malformed_opening_names_its_field(scene: Scene, field: str, corrupt: Callable[[bytes], bytes]) -> None:
    with pytest.raises(MalformedObject) as fault:
        Opening.parse(corrupt(scene.openings[Index(1)].encode()), "member 1", 3)
    assert fault.value.evidence.check == f"opening: {field}"
    assert fault.value.evidence.offender == "member 1"


def test_an_opening_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one share"):
        make_opening([])
