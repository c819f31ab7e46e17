"""Several members' statements in one transaction: each line is its member's own, by its signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

ENROLLING, TRAINING, RECEIPTS, AGGREGATING, OPENING, CLOSING = range(6)
ONE, ZERO = b"\x01" * 32, bytes(32)
STRANGER = 9

Found = Callable[..., Any]
Refuses = Callable[..., Any]


def update(federation: Any, member: int, round: int = 1, attempt: int = 0, **domain: Any) -> tuple[Any, ...]:
    words = [bytes([member, n]) * 16 for n in (1, 2, 3)]
    return *words, federation.line(member, "Update", round, attempt, *words, **domain)


def receipt(federation: Any, member: int, whole: int, round: int = 1, attempt: int = 0) -> tuple[Any, ...]:
    return whole, federation.line(member, "Receipt", round, attempt, whole)


def opening(federation: Any, member: int, participants: int = 31, round: int = 1, attempt: int = 0) -> tuple[Any, ...]:
    words = [bytes([member, n]) * 16 for n in (4, 5)]
    return *words, federation.line(member, "Opening", round, attempt, 0, participants, *words)


def batch(federation: Any, name: str, *arguments: Any, at: int | None = None) -> list[Any]:
    """Sent by an account that is no member."""
    return list(federation.events(federation.send(federation.chain.accounts[STRANGER], name, *arguments, at=at)))


def test_a_round_in_batches_is_the_round_in_single_statements(found: Found) -> None:
    """Two federations: the same events, line by line, and the same record."""
    order = (3, 1, 4, 0, 2)
    batched, single = (found(5, threshold=3).all_enrol() for _ in range(2))
    told = batch(batched, "commitUpdates", 1, 0, [update(batched, member) for member in order])
    alone = [single.send(m, "commitUpdate", 1, 0, *[bytes([m, n]) * 16 for n in (1, 2, 3)]) for m in order]
    assert told == [event for said in alone for event in single.events(said)]
    assert batched.call("commitmentsOf", 1, 0) == single.call("commitmentsOf", 1, 0) != ZERO
    wholes = dict(zip(order, (31, 15, 31, 30, 31), strict=True))
    told = batch(batched, "postReceipts", 1, 0, [receipt(batched, m, whole) for m, whole in wholes.items()])
    alone = [single.receipt(member, whole) for member, whole in wholes.items()]
    assert told == [event for said in alone for event in single.events(said)]
    for federation in (batched, single):
        assert [federation.call("receiptOf", 1, 0, m) for m in range(5)] == [wholes[m] for m in range(5)]
        federation.lock()
    told = batch(batched, "publishOpenings", 1, 0, 0, [opening(batched, member) for member in order])
    alone = [single.send(m, "publishOpening", 1, 0, 0, *[bytes([m, n]) * 16 for n in (4, 5)]) for m in order]
    assert told == [event for said in alone for event in single.events(said)]
    assert batched.call("openingsOf", 1, 0) == single.call("openingsOf", 1, 0) != ZERO
    assert batched.call("phaseOf", 1) == CLOSING
    batched.close(0)
    assert batched.call("roundAt", 1)["opened"] == 31


def test_lines_of_members_that_have_spoken_are_passed_over(found: Found) -> None:
    federation = found(5, threshold=3).all_enrol()
    federation.commit(1)
    lines = [update(federation, member) for member in (0, 1, 0, 2)]
    told = batch(federation, "commitUpdates", 1, 0, lines)
    assert [said["index"] for _, said in told] == [0, 2]
    for member in (3, 4):
        federation.commit(member)
    federation.receipt(1, 31)
    told = batch(federation, "postReceipts", 1, 0, [receipt(federation, m, m) for m in (0, 1, 0, 2, 3)])
    assert [said["index"] for _, said in told] == [0, 2, 3]
    assert federation.call("receiptOf", 1, 0, 1) == 31
    federation.receipt(4, 31)
    assert federation.call("phaseOf", 1) == AGGREGATING


def test_openings_of_members_that_have_opened_are_passed_over(found: Found) -> None:
    federation = found(5, threshold=3).all_enrol().all_commit().all_post().lock()
    federation.open(1)
    told = batch(federation, "publishOpenings", 1, 0, 0, [opening(federation, m) for m in (0, 1, 0)])
    assert [said["index"] for _, said in told] == [0]
    batch(federation, "publishOpenings", 1, 0, 0, [opening(federation, m) for m in (0, 3, 2)])
    assert federation.call("roundAt", 1)["opened"] == 0b01111


@pytest.mark.parametrize("lines", [[], [1]])
def test_a_batch_that_says_nothing_changes_nothing(found: Found, lines: list[int]) -> None:
    federation = found(5, threshold=3, trainingWindow=600).all_enrol()
    federation.commit(1)
    before = federation.call("roundAt", 1)
    at = federation.chain.now + 50
    assert batch(federation, "commitUpdates", 1, 0, [update(federation, m) for m in lines], at=at) == []
    assert federation.call("roundAt", 1) == before
    for member in (0, 2, 3, 4):
        federation.commit(member)
    federation.receipt(1, 31)
    before = federation.call("roundAt", 1)
    assert batch(federation, "postReceipts", 1, 0, [receipt(federation, m, 3) for m in lines], at=at + 50) == []
    assert federation.call("roundAt", 1) == before


def test_a_line_counts_for_its_signer_and_for_what_it_signed(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3).all_enrol()
    other = found(5, threshold=3)

    def signers(line: tuple[Any, ...], name: str = "commitUpdates", *more: Any) -> Any:
        """Nobody's signature is somebody's: an account that no key of a member gives."""
        with pytest.raises(federation.Refused) as refused:
            batch(federation, name, 1, 0, *more, [line])
        assert (refused.value.name, len(refused.value.arguments)) == ("FederationNotMember", 1)
        return refused.value.arguments[0]

    good = update(federation, 2)
    members = {founder.lower() for founder in federation.founders}
    for at in range(3):
        bent = [*good]
        bent[at] = ONE
        assert signers(tuple(bent)) not in members
    for line in (
        update(federation, 2, round=2),
        update(federation, 2, attempt=1),
        update(federation, 2, verifyingContract=other.address),
        update(federation, 2, chainId=1),
        update(federation, 2, name="another"),
        (*good[:3], federation.line(2, "Receipt", 1, 0, 31)),
        (*good[:3], (ONE, ZERO)),
    ):
        assert signers(line) not in members
    stranger = (*good[:3], federation.line(STRANGER, "Update", 1, 0, *good[:3]))
    assert signers(stranger) == federation.chain.accounts[STRANGER].lower()
    assert int(signers((*good[:3], (ZERO, ZERO))), 16) == 0
    ((_, said),) = batch(federation, "commitUpdates", 1, 0, [good])
    assert (said["index"], said["commitment"]) == (2, good[0])


def test_one_bad_line_refuses_the_batch(found: Found, refuses: Refuses, sign: Any) -> None:
    federation = found(5, threshold=3).all_enrol()
    lines = [update(federation, member) for member in range(5)]
    empty = (ZERO, ONE, ONE)
    with refuses("FederationEmptyDigest"):
        batch(federation, "commitUpdates", 1, 0, [*lines[:4], (*empty, federation.line(4, "Update", 1, 0, *empty))])
    assert federation.call("roundAt", 1)["committed"] == 0
    federation.send(0, "challengeEquivocation", *sign(federation, 3), *sign(federation, 3, participants=15))
    with refuses("FederationSlashed", 3):
        batch(federation, "commitUpdates", 1, 0, lines)
    batch(federation, "commitUpdates", 1, 0, [line for line in lines if line is not lines[3]])
    federation.chain.mine_at(federation.call("roundAt", 1)["startedAt"] + 600)
    with refuses("FederationUnknownUpdates", 0b01000):
        batch(federation, "postReceipts", 1, 0, [receipt(federation, 0, 0b10111), receipt(federation, 1, 0b01000)])


def test_batches_come_in_the_phase_round_and_attempt_of_their_statements(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3).all_enrol()
    batches: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("commitUpdates", ([update(federation, 0)],)),
        ("postReceipts", ([receipt(federation, 0, 31)],)),
        ("publishOpenings", (0, [opening(federation, 0)])),
    )

    def refused_but(allowed: str, phase: int) -> None:
        for name, arguments in batches:
            for round, attempt in ((2, 0), (1, 1)):
                with pytest.raises(federation.Refused, match="FederationWrong"):
                    batch(federation, name, round, attempt, *arguments)
            if name != allowed:
                with refuses("FederationWrongPhase", phase):
                    batch(federation, name, 1, 0, *arguments)

    refused_but("commitUpdates", TRAINING)
    federation.all_commit()
    refused_but("postReceipts", RECEIPTS)
    federation.all_post()
    refused_but("", AGGREGATING)
    federation.lock()
    refused_but("publishOpenings", OPENING)
    with refuses("FederationBadGroup", 1):
        batch(federation, "publishOpenings", 1, 0, 1, [opening(federation, 0)])


def test_an_opening_that_was_signed_for_another_set_is_nobodys(found: Found) -> None:
    federation = found(5, threshold=3).all_enrol().all_commit().all_post().lock()
    with pytest.raises(federation.Refused, match="FederationNotMember"):
        batch(federation, "publishOpenings", 1, 0, 0, [opening(federation, 2, participants=15)])
    batch(federation, "publishOpenings", 1, 0, 0, [opening(federation, 2)])


def test_a_published_line_is_evidence_of_equivocation(found: Found, sign: Any) -> None:
    """What a member signed for a batch is the statement that R5 judges: same type, same domain."""
    federation = found(5, threshold=3).all_enrol().all_commit().all_post().lock()
    root, cid, (r, vs) = opening(federation, 2)
    word = int.from_bytes(vs, "big")
    signature = r + (word & (1 << 255) - 1).to_bytes(32, "big") + bytes([27 + (word >> 255)])
    published = ((1, 0, 0, 31, root, cid), signature)
    told = batch(federation, "challengeEquivocation", *published, *sign(federation, 2))
    assert [(name, said["index"], said["rule"]) for name, said in told] == [("MemberSlashed", 2, 5)]
