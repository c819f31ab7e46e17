"""Whether a peer joins: only a contract that was founded with its charter, in every entry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from fedchain.chain.deployment import terms_of
from fedchain.errors import CharterMismatch, UsageError
from fedchain.learn import first_model, load_task
from fedchain.peer.node import has_left
from fedchain.peer.start import may_enrol, stand
from fedchain.protocol.charter import read_charter
from fedchain.protocol.events import (
    EncryptionKeyRotated,
    FederationFounded,
    MemberAdmitted,
    MemberEnrolled,
    ResultCommitted,
)
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest, Index, Root
from fedchain.protocol.retention import check_registered, needed_keys
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply, founded

HOSPITALS = Path(__file__).parents[2] / "peers" / "hospitals"
JOINER = Address("0x" + "ee" * 20)
FOUNDERS = tuple(Address(f"0x{i:040x}") for i in range(1, 6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    named = ", ".join(f'"{founder}"' for founder in FOUNDERS)
    charter = (HOSPITALS / "federation.toml").read_text(encoding="utf-8")
    assert "members = []" in charter
    (folder / "federation.toml").write_text(charter.replace("members = []", f"members = [{named}]"), encoding="utf-8")
    (folder / "task.py").write_bytes((HOSPITALS / "task.py").read_bytes())
    return folder


@pytest.fixture(scope="module")
def state(folder: Path) -> FederationState:
    charter = read_charter(folder)
    model = first_model(load_task(folder / "task.py", charter.task_sha256), charter)
    terms = terms_of(charter, Cid("Qm"), model, Cid("Qm"))
    return founded(FederationFounded(terms, FOUNDERS, 0))


def test_a_founder_joins_what_was_founded_as_agreed(folder: Path, state: FederationState) -> None:
    standing = stand(state, folder, FOUNDERS[2])
    assert standing.me == 2
    assert standing.samples > 0


def test_founders_that_the_charter_does_not_name_are_noticed_before_anything_is_dealt(
    folder: Path, state: FederationState
) -> None:
    """One person's addresses under the agreed digest would hold t shares of every key."""
    sybils = tuple(Address(f"0x{i:040x}") for i in range(101, 105))
    with pytest.raises(CharterMismatch, match=r"federation\.members"):
        stand(replace(state, founders=(FOUNDERS[0], *sybils)), folder, FOUNDERS[0])


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        (r"run\.rounds", {"rounds": 99_999}),
        (r"committee\.threshold", {"threshold": 4}),
        (r"windows\.enrol_s", {"enrol_window_s": 1}),
        (r"windows\.training_s", {"training_window_s": 1}),
        (r"windows\.receipt_s", {"receipt_window_s": 1}),
        (r"windows\.aggregate_s", {"aggregate_window_s": 1}),
        (r"windows\.challenge_s", {"challenge_window_s": 1}),
        (r"windows\.close_s", {"close_window_s": 1}),
        (r"stake\.bond_gwei", {"bond_wei": 1}),
        ("digest", {"charter_digest": Digest(b"x" * 32)}),
        ("first model", {"genesis_digest": Digest(b"x" * 32)}),
    ],
)
def test_a_term_that_differs_from_the_charter_is_refused(
    folder: Path, state: FederationState, entry: str, change: dict[str, object]
) -> None:
    with pytest.raises(CharterMismatch, match=entry):
        stand(replace(state, terms=replace(state.terms, **change)), folder, FOUNDERS[0])  # type: ignore[arg-type]


def test_a_stranger_is_told_what_to_ask_the_members_for(folder: Path, state: FederationState) -> None:
    with pytest.raises(UsageError, match=f"fedchain vote admit {JOINER}"):
        stand(state, folder, JOINER)


def test_who_was_admitted_has_a_place_and_its_own_part_of_an_examples_data(
    folder: Path, state: FederationState
) -> None:
    admitted = apply(running(state), MemberAdmitted(Index(5), JOINER, 20))
    standing, founder = stand(admitted, folder, JOINER), stand(admitted, folder, FOUNDERS[2])
    assert standing.me == 5 and standing.samples > 0
    assert founder.samples == stand(state, folder, FOUNDERS[2]).samples


def running(state: FederationState, members: int = 5) -> FederationState:
    """The state after these founders have enrolled; with all five the run has begun."""
    for i in range(members):
        state = apply(state, MemberEnrolled(Index(i), FOUNDERS[i], bytes((i,)) * 32, 10, 10))
    return state


def test_a_founder_may_enrol_before_the_run_begins_and_later_only_who_was_admitted(state: FederationState) -> None:
    assert may_enrol(state, Index(1), 5)
    assert not may_enrol(running(state, 4), Index(1), 15), "once is enough"
    begun = running(state)
    assert not may_enrol(begun, Index(1), 15)
    admitted = apply(begun, MemberAdmitted(Index(5), JOINER, 20))
    assert may_enrol(admitted, Index(5), 20)
    joined = apply(admitted, MemberEnrolled(Index(5), JOINER, b"j" * 32, 10, 21))
    assert not may_enrol(joined, Index(5), 22)
    assert not may_enrol(admitted, Index(5), 21 + admitted.terms.close_window_s), "nobody joins a run that is over"


def test_whose_bond_is_still_here_enrols_again_only_after_taking_it(state: FederationState) -> None:
    begun = running(state)
    left_at = MappingProxyType({Index(1): 12})
    left = replace(begun, standing=Bitmap(0b11101), ran_at=10, admitted=Bitmap(0b00010), left_at=left_at)
    assert not may_enrol(left, Index(1), 15)
    assert may_enrol(replace(left, bonded=Bitmap(0b11101)), Index(1), 15)


def test_a_member_has_left_when_it_counts_no_more_and_will_not_again(state: FederationState) -> None:
    begun = running(state)
    assert not has_left(begun, Index(1), 15)
    left = replace(begun, standing=Bitmap(0b11101), ran_at=10)
    assert has_left(left, Index(1), 15)
    assert not has_left(replace(left, joining=Bitmap(0b00010)), Index(1), 15)
    assert not has_left(replace(left, slashed=Bitmap(0b00010)), Index(1), 15), "who was slashed is told so"
    assert not has_left(begun, Index(5), 15), "who never enrolled has not left"


def test_a_member_with_another_key_than_it_registered_is_stopped(state: FederationState) -> None:
    enrolled = apply(state, MemberEnrolled(Index(1), FOUNDERS[1], b"k" * 32, 10, 1))
    ring = [b"a" * 32, b"k" * 32, b"n" * 32]
    check_registered(enrolled, Index(1), ring)
    with pytest.raises(UsageError, match="another encryption key"):
        check_registered(enrolled, Index(1), [b"o" * 32])


def test_a_key_is_needed_while_its_round_is_under_way_or_may_be_opened_again(state: FederationState) -> None:
    begun, me, window = running(state), Index(1), state.terms.challenge_window_s
    first = begun.members[me].encryption_key
    rotated = apply(begun, EncryptionKeyRotated(me, b"n" * 32, 20))
    assert needed_keys(rotated, me, 20) == {first, b"n" * 32}, "the round under way is dealt to the old one"
    current = rotated.current
    assert current is not None and current.members[me].encryption_key == first
    result = ResultCommitted(
        1, 0, 0, me, Bitmap(7), *(Root(b"r" * 32),) * 2, Cid("Qm"), Digest(b"m" * 32), Cid("Qm"), 30
    )
    base = Digest(b"m" * 32), Cid("Qm")
    later = rotated.fresh_attempt(2, 0, 30, base)
    closed = replace(
        rotated, closed=MappingProxyType({1: replace(current, result=result)}), current=later, began_at=30, ran_at=10
    )
    assert needed_keys(closed, me, 30 + window - 1) == {first, b"n" * 32}
    assert needed_keys(closed, me, 30 + window) == {b"n" * 32}
    assert needed_keys(closed, Index(2), 30 + window) == {begun.members[Index(2)].encryption_key}
