"""Whether a peer joins: only a contract that was founded with its charter, in every entry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedchain.chain.deployment import terms_of
from fedchain.errors import CharterMismatch, UsageError
from fedchain.learn import first_model, load_task
from fedchain.peer.start import check_key, stand
from fedchain.protocol.charter import read_charter
from fedchain.protocol.events import FederationFounded, MemberEnrolled
from fedchain.protocol.ids import Address, Cid, Digest, Index
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply, founded

HOSPITALS = Path(__file__).parents[2] / "peers" / "hospitals"
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


def test_a_stranger_is_told_that_the_charter_does_not_name_it(folder: Path, state: FederationState) -> None:
    with pytest.raises(UsageError, match="not among the federation's founders"):
        stand(state, folder, Address("0x" + "ee" * 20))


def test_a_member_with_another_key_than_it_enrolled_with_is_stopped(state: FederationState) -> None:
    enrolled = apply(state, MemberEnrolled(Index(1), FOUNDERS[1], b"k" * 32, 10, 1))
    check_key(enrolled, Index(1), b"k" * 32)
    with pytest.raises(UsageError, match="another encryption key"):
        check_key(enrolled, Index(1), b"o" * 32)
