"""Group testing for spoilers, and why the rules on sets leave no room for it (P3.8): counted, and read by attackers."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedchain.crypto import Opening, SpoiledRound, open_aggregate, sum_ciphertexts
from fedchain.crypto import upload as upload_module
from fedchain.crypto.parameters import SHARE_PRIME
from fedchain.errors import Fault
from fedchain.protocol.events import least_participants
from fedchain.protocol.ids import Bitmap, Index, bitmap_of, size_of
from fedchain.protocol.participants import check_participants, choose_participants, too_close

from .conftest import Scene


def thresholds(n: int) -> range:
    return range(n // 2 + 1, n)


def pairs(n: int, t: int) -> list[tuple[int, int, int]]:
    """(|U|, |V|, |U ∩ V|) of all different sets of n members that may both be opened on one model."""
    sizes, found = range(least_participants(t), n + 1), []
    for u, v in product(sizes, sizes):
        for both in range(max(0, u + v - n), min(u, v) + 1):
            if u + v - 2 * both > t:
                found.append((u, v, both))
    return found


def test_the_count_of_pairs_is_that_of_the_rule_itself() -> None:
    """Set by set for a few members, by the function that peers, contract and audit judge by."""
    for n in range(3, 8):
        for t in thresholds(n):
            sets = [Bitmap(s) for s in range(1 << n) if size_of(s) >= least_participants(t)]
            for given_up in sets:
                state: Any = SimpleNamespace(abandoned={b"m": (given_up,)}, removed=0)
                attempt: Any = SimpleNamespace(base_digest=b"m", threshold=t)
                others = [s for s in sets if s != given_up and too_close(state, attempt, s) is None]
                sizes = {(size_of(given_up), size_of(s), size_of(s & given_up)) for s in others}
                assert sizes <= set(pairs(n, t))
                assert bool(others) == any(u == size_of(given_up) for u, _, _ in pairs(n, t))


def test_two_groups_without_a_member_in_common_are_never_allowed() -> None:
    """Each needs t+1 > n/2 members."""
    assert not [1 for n in range(3, 65) for t in thresholds(n) for _, _, both in pairs(n, t) if both == 0]


def test_after_a_set_of_everybody_no_other_set_is_allowed_however_many_members_there_are() -> None:
    assert not [1 for n in range(3, 65) for t in thresholds(n) for u, _, _ in pairs(n, t) if u == n]


def test_with_fewer_than_nine_members_or_ten_no_second_set_exists_at_all() -> None:
    exists = {n for n in range(3, 65) if pairs(n, n // 2 + 1)}
    assert exists == {9, 11, *range(12, 65)}
    # And not with a higher threshold than the least, where there are fewer than 12.
    assert {(n, t) for n in range(3, 13) for t in thresholds(n) if pairs(n, t)} == {(9, 5), (11, 6), (12, 7)}


@pytest.mark.parametrize(
    ("n", "largest", "cornered"), [(9, 6, 3), (11, 8, 4), (12, 8, 4), (13, 10, 4), (21, 18, 6), (64, 60, 17)]
)
def test_a_second_set_takes_many_absent_members_and_corners_a_spoiler_among_few(
    n: int, largest: int, cornered: int
) -> None:
    """`largest`: how many may be in the first set, for there to be a second one. `cornered`: among how many members a
    spoiler is found at best, if the second closes or if it does not, whichever is more."""
    found = pairs(n, n // 2 + 1)
    assert max(u for u, _, _ in found) == largest < n
    assert min(max(u - both, both) for u, _, both in found) == cornered


def test_where_everybody_is_there_a_second_set_leaves_nobody_out_who_was_in_the_first() -> None:
    """The rule against censors: what all receipts hold to be whole is in U, as far as the set given up last goes."""
    n, t = 12, 7
    first, second = bitmap_of([Index(i) for i in range(8)]), bitmap_of([Index(i) for i in range(4, 12)])
    everybody = Bitmap((1 << n) - 1)
    receipts = {Index(i): SimpleNamespace(whole=everybody) for i in range(n)}
    attempt: Any = SimpleNamespace(base_digest=b"m", threshold=t, min_participants=t + 1, committed=everybody, round=1)
    attempt.receipts, attempt.complained = receipts, 0
    state: Any = SimpleNamespace(abandoned={b"m": (first,)}, removed=0)
    assert too_close(state, attempt, second) is None
    with pytest.raises(Fault, match="censored"):
        check_participants(state, attempt, second)
    assert choose_participants(state, attempt) == first
    # If the other four were away, those who were away before are enough for the second set.
    attempt.committed = second
    attempt.receipts = {i: SimpleNamespace(whole=second) for i in receipts}
    check_participants(state, attempt, second)


# What smaller groups would give away.


def opened(scene: Scene, members: list[int], openings: dict[Index, Opening]) -> Any:
    total = sum_ciphertexts([scene.uploads[i].ciphertext for i in members], scene.d)
    return open_aggregate(
        total, openings, threshold=scene.threshold, participants=len(members), context=scene.context, d=scene.d
    ).sums


def openings_of(scene: Scene, members: list[int], by: range) -> dict[Index, Opening]:
    made = {}
    for j in by:
        total = sum(scene.share(i, j).astype(np.int64) for i in members) % SHARE_PRIME
        made[Index(j)] = Opening(total.astype(np.uint16))
    return made


@pytest.mark.parametrize("group", [[0, 1, 2], [0, 3, 4]])
def test_in_a_group_of_three_two_colluders_read_the_third(scene: Scene, group: list[int]) -> None:
    """t - 1 = 2 members take off their own updates; with t+1 = 4 in every set two honest ones would be left."""
    sums = opened(scene, group, openings_of(scene, group, range(5)))
    stolen = sums - sum(scene.values[i] for i in group[1:])
    assert np.array_equal(stolen, scene.values[group[0]])


def test_a_spoiler_reads_the_sum_it_spoiled_and_with_a_set_less_one_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving members out one by one, to see when a round closes, shows the spoiler one update after another: it alone
    can decode the spoiled sum, and everybody the next one. That is why sets differ in more than t, or in nobody."""
    scene, spoiler, keys = Scene(), 4, []
    sample = upload_module.sample_binomial

    def noted(count: int, random: Any) -> Any:
        keys.append(sample(count, random).copy())
        return keys[-1].copy()

    with monkeypatch.context() as patch:
        patch.setattr(upload_module, "sample_binomial", noted)
        dealt, encrypted = scene.deal(spoiler), scene.deal(spoiler)
    honest = scene.uploads[spoiler]
    scene.uploads[spoiler] = upload_module.Upload(
        encrypted.ciphertext, dealt.shares, encrypted.ciphertext_root, dealt.shares_root
    )
    everybody = list(range(5))
    openings = openings_of(scene, everybody, range(5))
    with pytest.raises(SpoiledRound):
        opened(scene, everybody, openings)
    # What it knows beside all others: by how much the key that it dealt is not its ciphertext's.
    beside = (keys[1] - keys[0]) % SHARE_PRIME
    moved = {
        j: Opening(((o.elements.astype(np.int64) + beside) % SHARE_PRIME).astype(np.uint16))
        for j, o in openings.items()
    }
    spoiled_sum = opened(scene, everybody, moved)
    assert np.array_equal(spoiled_sum, scene.sums)
    # Then the round is tried without member 0, and the spoiler behaves.
    scene.uploads[spoiler] = honest
    without = opened(scene, [1, 2, 3, 4], openings_of(scene, [1, 2, 3, 4], range(5)))
    assert np.array_equal(spoiled_sum - without, scene.values[0])
