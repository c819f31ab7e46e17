"""Every error that the contract can give, provoked once, by name and with its arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedchain.chain.artifacts import load_artifact

ENROLLING, TRAINING, RECEIPTS, AGGREGATING, OPENING = range(5)
ZERO, ONE = bytes(32), b"\x01" * 32
NEVER = 2**256 - 1

Found = Callable[..., Any]
Refuses = Callable[..., Any]
# Provoked by rounds with real numbers: in which folder. Each is named there, with its arguments.
ELSEWHERE = {
    "FederationHonest": "disputes",
    "FederationBadEvidence": "disputes",
    "FederationTooClose": "votes",
    "FederationWrongDeposit": "demands",
    "FederationAlreadyDemanded": "demands",
    "FederationNoDemand": "demands",
    "FederationDemandOpen": "demands",
    "FederationDemandOver": "demands",
}
PROVOKED: dict[str, Callable[[Found, Refuses], None]] = {}


def provokes(error: str) -> Callable[[Callable[[Found, Refuses], None]], Callable[[Found, Refuses], None]]:
    def register(scenario: Callable[[Found, Refuses], None]) -> Callable[[Found, Refuses], None]:
        assert error not in PROVOKED
        PROVOKED[error] = scenario
        return scenario

    return register


@pytest.mark.parametrize(
    "error", sorted({e["name"] for e in load_artifact().abi if e["type"] == "error"} - set(ELSEWHERE))
)
def test_this_error_is_provoked(error: str, found: Found, refuses: Refuses) -> None:
    PROVOKED[error](found, refuses)


def test_the_errors_of_the_abi_are_the_errors_provoked() -> None:
    assert {e["name"] for e in load_artifact().abi if e["type"] == "error"} == set(PROVOKED) | set(ELSEWHERE)
    for error, folder in ELSEWHERE.items():
        files = (Path(__file__).parent / folder).glob("test_*.py")
        assert any(f'refuses("{error}"' in path.read_text(encoding="utf-8") for path in files), error


def addresses(count: int) -> list[str]:
    return [f"0x{0xFED0000 + i:040x}" for i in range(count)]


@provokes("FederationBadMemberCount")
def too_few_or_too_many_founders(found: Found, refuses: Refuses) -> None:
    for count in (0, 2):
        with refuses("FederationBadMemberCount", count):
            found(founders=addresses(count), threshold=2)
    # So many words of arguments that a chain does not even run the constructor (EIP-3860).
    with pytest.raises(Exception, match="max initcode size exceeded"):
        found(founders=addresses(65), threshold=33)
    found(founders=addresses(3), threshold=2)
    found(founders=addresses(64), threshold=33)


@provokes("FederationDuplicateMember")
def a_founder_stands_twice(found: Found, refuses: Refuses) -> None:
    first, second = addresses(2)
    with refuses("FederationDuplicateMember", first):
        found(founders=[first, second, *addresses(6)[3:], first])


@provokes("FederationZeroMember")
def a_founder_has_no_address(found: Found, refuses: Refuses) -> None:
    with refuses("FederationZeroMember", 2):
        found(founders=[*addresses(2), f"0x{0:040x}", *addresses(5)[3:]])


@provokes("FederationBadThreshold")
def the_threshold_is_no_majority_or_leaves_nobody_to_spare(found: Found, refuses: Refuses) -> None:
    for members, least, most in ((3, 2, 2), (4, 3, 3), (5, 3, 4), (6, 4, 5)):
        for threshold in (0, least - 1, most + 1):
            with refuses("FederationBadThreshold", threshold, least, most):
                found(members, threshold=threshold)
        for threshold in range(least, most + 1):
            assert found(members, threshold=threshold).call("minParticipants") == threshold + 1


@provokes("FederationBadTerms")
def a_term_is_missing(found: Found, refuses: Refuses) -> None:
    for what in ("charterDigest", "charterCid", "genesisDigest", "genesisCid"):
        with refuses("FederationBadTerms", what.encode().ljust(32, b"\0")):
            found(5, **{what: ZERO})
    windows = ("enrolWindow", "trainingWindow", "receiptWindow", "aggregateWindow", "challengeWindow", "closeWindow")
    for what in ("modelSize", "rounds", *windows):
        with refuses("FederationBadTerms", what.encode().ljust(32, b"\0")):
            found(5, **{what: 0})
    with refuses("FederationBadTerms", b"modelSize".ljust(32, b"\0")):
        found(5, modelSize=2**40 + 1)
    found(5, modelSize=2**40)
    with refuses("FederationBadTerms", b"rounds".ljust(32, b"\0")):
        found(5, rounds=2**32 - 1)
    for bond in (0, 31):  # a demand would be free
        with refuses("FederationBadTerms", b"bond".ljust(32, b"\0")):
            found(5, bond=bond)
    found(5, **dict.fromkeys(windows, 1), bond=32)


@provokes("FederationNotMember")
def a_stranger_or_a_founder_who_never_enrolled_speaks(found: Found, refuses: Refuses) -> None:
    federation = found(5)
    stranger = federation.chain.accounts[6]
    with refuses("FederationNoStatement"):
        federation.send(stranger, "challengeEquivocation", *conflict(federation, 6))
    for name, arguments in (("enrol", (ONE, 1)), ("withdrawBond", ())):
        with refuses("FederationNotMember", stranger.lower()):
            federation.send(stranger, name, *arguments)
    for member in range(4):
        federation.enrol(member)
    federation.chain.mine_at(federation.founded_at + 1000)
    for speaker in (stranger, federation.founders[4]):
        for name, arguments in (
            ("commitUpdate", (1, 0, ONE, ONE, ONE)),
            ("postReceipt", (1, 0, 0)),
            ("complain", (1, 0, 1, ONE)),
            ("commitAggregate", (1, 0, 0, 15, ONE, ONE, ONE)),
            ("publishOpening", (1, 0, 0, ONE, ONE)),
            ("commitResult", (1, 0, 0, 7, ONE, ONE, ONE, ONE, ONE, ONE)),
            ("voteToStop", (1, ONE)),
            ("restateAggregate", (1, 0, 31, ONE, ONE, ONE)),
            ("resign", ()),
            ("rotateKey", (ONE,)),
            ("voteToAdmit", (stranger,)),
            ("voteToRemove", (0,)),
            ("voteToAbandon", (1, 0)),
            ("voteToRefuse", (1, ONE)),
        ):
            with refuses("FederationNotMember", speaker.lower()):
                federation.send(speaker, name, *arguments)
    with refuses("FederationNotMember", stranger.lower()):
        federation.send(stranger, "challengeEquivocation", *conflict(federation, 6))
    with refuses("FederationAlreadySlashed", 4):  # it has no bond here
        federation.send(stranger, "challengeEquivocation", *conflict(federation, 4))


@provokes("FederationAlreadyEnrolled")
def a_founder_enrols_twice(found: Found, refuses: Refuses) -> None:
    federation = found(5)
    federation.enrol(0)
    with refuses("FederationAlreadyEnrolled", federation.founders[0].lower()):
        federation.enrol(0)


@provokes("FederationWrongBond")
def the_bond_is_not_what_was_agreed(found: Found, refuses: Refuses) -> None:
    federation = found(5, bond=10**15)
    for sent in (0, 10**15 - 1, 10**15 + 1):
        with refuses("FederationWrongBond", 10**15, sent):
            federation.send(0, "enrol", ONE, 1, value=sent)


@provokes("FederationBadEncryptionKey")
def the_encryption_key_is_zero(found: Found, refuses: Refuses) -> None:
    federation = found(5)
    with refuses("FederationBadEncryptionKey"):
        federation.send(0, "enrol", ZERO, 1, value=10**15)


@provokes("FederationBadWeight")
def the_weight_is_zero(found: Found, refuses: Refuses) -> None:
    federation = found(5)
    with refuses("FederationBadWeight"):
        federation.send(0, "enrol", ONE, 0, value=10**15)


@provokes("FederationWrongPhase")
def a_statement_comes_in_another_phase(found: Found, refuses: Refuses) -> None:
    statements = {
        "commitUpdate": (1, 0, ONE, ONE, ONE),
        "postReceipt": (1, 0, 31),
        "complain": (1, 0, 1, ONE),
        "commitAggregate": (1, 0, 0, 31, ONE, ONE, ONE),
        "publishOpening": (1, 0, 0, ONE, ONE),
        "commitResult": (1, 0, 0, 7, ONE, ONE, ONE, ONE, ONE, ONE),
    }
    federation = found(5)
    federation.enrol(0)

    def refused_but(*allowed: str, phase: int) -> None:
        assert federation.call("phaseOf", 1) == phase
        for name, arguments in statements.items():
            if name not in allowed:
                with refuses("FederationWrongPhase", phase):
                    federation.send(0, name, *arguments)

    refused_but(phase=ENROLLING)
    with refuses("FederationWrongPhase", ENROLLING):
        federation.call("aggregatorNow")
    for member in range(1, 5):
        federation.enrol(member)
    refused_but("commitUpdate", "complain", phase=TRAINING)
    federation.all_commit()
    refused_but("postReceipt", "complain", phase=RECEIPTS)
    federation.all_post()
    refused_but("commitAggregate", "complain", phase=AGGREGATING)
    federation.lock()
    refused_but("publishOpening", phase=OPENING)
    for member in range(2, 5):
        federation.open(member)
    refused_but("publishOpening", "commitResult", phase=OPENING + 1)
    federation.close(0)


@provokes("FederationWrongRound")
def a_statement_is_about_another_round(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol()
    for round in (0, 2):
        with refuses("FederationWrongRound", 1):
            federation.commit(0, round)
        with refuses("FederationWrongRound", 1):
            federation.call("roundAt", round)
    with refuses("FederationWrongRound", 1):  # no model but the first stands yet
        federation.stop(0, 1)
    federation.finish_round()
    for round in (1, 3):
        for name, arguments in (
            ("commitUpdate", (round, 0, ONE, ONE, ONE)),
            ("postReceipt", (round, 0, 31)),
            ("complain", (round, 0, 1, ONE)),
            ("commitAggregate", (round, 0, 0, 31, ONE, ONE, ONE)),
            ("publishOpening", (round, 0, 0, ONE, ONE)),
            ("commitResult", (round, 0, 0, 7, ONE, ONE, ONE, ONE, ONE, ONE)),
            ("voteToStop", (round, ONE)),
        ):
            with refuses("FederationWrongRound", 2):
                federation.send(0, name, *arguments)


@provokes("FederationWrongAttempt")
def a_statement_is_about_another_attempt(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol()
    with refuses("FederationWrongAttempt", 0):
        federation.commit(0, attempt=1)
    start = federation.chain.now
    federation.commit(0)
    with refuses("FederationWrongAttempt", 1):  # the window passed with one update
        federation.commit(1, attempt=0, at=start + 600)
    federation.all_commit(attempt=1)
    with refuses("FederationWrongAttempt", 1):
        federation.receipt(0, 31, attempt=0)
    federation.all_post(attempt=1)
    with refuses("FederationWrongAttempt", 1):
        federation.aggregate(1, 31, attempt=0)
    federation.lock(attempt=1)
    with refuses("FederationWrongAttempt", 1):
        federation.open(0, attempt=0)
    for member in range(3):
        federation.open(member, attempt=1)
    with refuses("FederationWrongAttempt", 1):
        federation.close(0, attempt=2)
    federation.close(0, attempt=1)


@provokes("FederationBadGroup")
def a_group_is_named_that_there_is_not(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol().all_commit().all_post()
    with refuses("FederationBadGroup", 1):
        federation.send(0, "commitAggregate", 1, 0, 1, 31, ONE, ONE, ONE)
    federation.lock()
    for name, arguments in (
        ("challengeAggregate", (1, 1, 0, [], [])),
        ("challengeKeySum", (1, 1, 0, [], [])),
        ("challengeResult", (1, 1, 0, b"", [], [])),
        ("restateAggregate", (1, 1, 31, ONE, ONE, ONE)),
    ):
        with refuses("FederationBadGroup", 1):
            federation.send(0, name, *arguments)
    with refuses("FederationBadGroup", 65535):
        federation.send(0, "publishOpening", 1, 0, 65535, ONE, ONE)
    for member in range(3):
        federation.open(member)
    with refuses("FederationBadGroup", 1):
        federation.send(0, "commitResult", 1, 0, 1, 7, ONE, ONE, ONE, ONE, ONE, ONE)


@provokes("FederationEmptyDigest")
def a_digest_is_zero(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol()

    def each_digest_counts(name: str, *head: int | bytes, digests: int, member: int = 0) -> None:
        for zeroed in range(digests):
            words = [ZERO if i == zeroed else ONE for i in range(digests)]
            with refuses("FederationEmptyDigest"):
                federation.send(member, name, *head, *words)

    each_digest_counts("commitUpdate", 1, 0, digests=3)
    federation.all_commit()
    each_digest_counts("complain", 1, 0, 1, digests=1)
    with refuses("FederationEmptyDigest"):
        federation.send(0, "complain", 1, 0, 0, ONE)
    federation.all_post()
    each_digest_counts("commitAggregate", 1, 0, 0, 31, ONE, digests=2)
    federation.lock()
    each_digest_counts("publishOpening", 1, 0, 0, digests=2)
    for member in range(3):
        federation.open(member)
    each_digest_counts("commitResult", 1, 0, 0, 7, ONE, digests=5)
    federation.close(0)


@provokes("FederationAlreadyCommitted")
def a_member_commits_twice(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol()
    federation.commit(2)
    with refuses("FederationAlreadyCommitted"):
        federation.commit(2)


@provokes("FederationAlreadyPosted")
def a_member_posts_two_receipts(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol().all_commit()
    federation.receipt(2, 0)
    with refuses("FederationAlreadyPosted"):
        federation.receipt(2, 31)
    federation.send(2, "complain", 1, 0, 1, ONE)
    with refuses("FederationAlreadyPosted"):
        federation.send(2, "complain", 1, 0, 3, ONE)


@provokes("FederationUnknownUpdates")
def an_update_is_named_that_nobody_committed(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol()
    start = federation.chain.now
    for member in range(4):
        federation.commit(member)
    federation.chain.mine_at(start + 600)
    with refuses("FederationUnknownUpdates", 0b10000):
        federation.receipt(0, 0b11111)
    with refuses("FederationUnknownUpdates", 1 << 127):
        federation.receipt(0, 0b01111 | 1 << 127)
    with refuses("FederationUnknownUpdates", 0b10000):
        federation.send(0, "complain", 1, 0, 0b11000, ONE)
    for member in range(5):
        federation.receipt(member, 0b01111)
    for stranger in (0b10000, 1 << 64, 1 << 127):
        with refuses("FederationUnknownUpdates", stranger):
            federation.aggregate(0, 0b01111 | stranger)


@provokes("FederationNotAggregator")
def a_member_aggregates_out_of_turn(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol().all_commit().all_post()
    for member in range(1, 5):
        with refuses("FederationNotAggregator", 0):
            federation.aggregate(member, 31)


@provokes("FederationTooFewParticipants")
def the_set_is_smaller_than_t_plus_1(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3).all_enrol().all_commit().all_post()
    for participants, size in ((0b00000, 0), (0b00001, 1), (0b10110, 3)):
        with refuses("FederationTooFewParticipants", size, 4):
            federation.aggregate(0, participants)
    smallest = found(3, threshold=2).all_enrol().all_commit().all_post()
    with refuses("FederationTooFewParticipants", 2, 3):
        smallest.aggregate(0, 0b011)


@provokes("FederationNotCovered")
def fewer_than_t_receipts_hold_the_set(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3).all_enrol().all_commit()
    for member, whole in enumerate((0b11111, 0b11111, 0b01111, 0b01111, 0b01111)):
        federation.receipt(member, whole)
    with refuses("FederationNotCovered", 2, 3):
        federation.aggregate(0, 0b11111)
    federation.aggregate(0, 0b01111)


@provokes("FederationCensored")
def an_update_is_left_out_that_everyone_holds(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3).all_enrol().all_commit()
    for member, whole in enumerate((0b11111, 0b11111, 0b11111, 0b11111, 0b01111)):
        federation.receipt(member, whole)
    with refuses("FederationCensored", 0b00001):
        federation.aggregate(0, 0b11110)
    federation.aggregate(0, 0b01111)  # one receipt complains about update 4: it may be left out, and need not be


@provokes("FederationAlreadyOpened")
def a_member_opens_twice(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol().all_commit().all_post().lock()
    federation.open(2)
    with refuses("FederationAlreadyOpened"):
        federation.open(2)


@provokes("FederationBadOpeners")
def the_openers_are_not_t_members_that_have_opened(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3).all_enrol().all_commit().all_post().lock()
    for member in (0, 1, 2, 3):
        federation.open(member)
    basis = federation.call("basisOf", 1, 0)
    for openers in (0, 0b00011, 0b01111, 0b10011, 0b00111 | 1 << 64, 0b00011 | 1 << 127):
        with refuses("FederationBadOpeners", openers):
            federation.send(0, "commitResult", 1, 0, 0, openers, basis, ONE, ONE, ONE, ONE, ONE)
    federation.send(0, "commitResult", 1, 0, 0, 0b01101, basis, ONE, ONE, ONE, ONE, ONE)


# Challenges with made-up numbers; disputes/ has the real ones.


def conflict(federation: Any, member: int) -> tuple[Any, ...]:
    """Two openings by this member that contradict each other, each with its signature."""
    pair = [(1, 0, 0, participants, ONE, ONE) for participants in (15, 31)]
    return tuple(part for said in pair for part in (said, federation.signed(member, "Opening", *said).signature))


@provokes("FederationOtherBasis")
def a_statement_rests_on_something_else(found: Found, refuses: Refuses) -> None:
    """As on a fork, where another list of commitments, another set or another opening came to stand."""
    federation = found(5).all_enrol().all_commit().all_post()
    basis = federation.call("commitmentsOf", 1, 0)
    for other in (ZERO, ONE, federation.call("commitmentsOf", 1, 1), federation.call("basisOf", 1, 0)):
        with refuses("FederationOtherBasis", basis):
            federation.send(0, "commitAggregate", 1, 0, 0, 31, other, ONE, ONE)
    assert federation.call("basisOf", 1, 0) == federation.call("basisOf", 2, 0) == ZERO
    federation.lock()
    seen = {federation.call("basisOf", 1, 0)}
    for member in (0, 1, 2):
        federation.open(member)
        seen.add(federation.call("basisOf", 1, 0))
    assert len(seen) == 4
    known = federation.call("basisOf", 1, 0)
    federation.open(3)
    current = federation.call("basisOf", 1, 0)
    for other in (known, basis, ZERO):
        with refuses("FederationOtherBasis", current):
            federation.send(0, "commitResult", 1, 0, 0, 7, other, ONE, ONE, ONE, ONE, ONE)
    federation.send(0, "commitResult", 1, 0, 0, 7, current, ONE, ONE, ONE, ONE, ONE)
    for other in (ZERO, current, federation.terms["genesisDigest"]):
        with refuses("FederationOtherBasis", ONE):
            federation.send(0, "voteToStop", 2, other)


@provokes("FederationSlashed")
def a_slashed_member_speaks(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol()
    federation.send(0, "challengeEquivocation", *conflict(federation, 3))
    with refuses("FederationSlashed", 3):
        federation.commit(3)


@provokes("FederationAlreadySlashed")
def a_slashed_member_is_challenged_again(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol()
    federation.send(0, "challengeEquivocation", *conflict(federation, 3))
    with refuses("FederationAlreadySlashed", 3):
        federation.send(0, "challengeEquivocation", *conflict(federation, 3))
    federation.all_commit_but(3)
    with refuses("FederationAlreadySlashed", 3):
        federation.send(0, "challengeResidue", 1, 0, 3, 0, [], [])


@provokes("FederationNoStatement")
def what_is_challenged_was_never_said(found: Found, refuses: Refuses) -> None:
    federation = found(5)
    every: dict[str, tuple[Any, ...]] = {
        "challengeAggregate": (1, 0, 0, [], []),
        "challengeKeySum": (1, 0, 0, [], []),
        "challengeResult": (1, 0, 0, b"", [], []),
        "challengeResidue": (1, 0, 0, 0, [], []),
        "restateAggregate": (1, 0, 31, ONE, ONE, ONE),
    }

    def refused(*but: str) -> None:
        for name, arguments in every.items():
            if name not in but:
                with refuses("FederationNoStatement"):
                    federation.send(0, name, *arguments)

    federation.enrol(0)
    refused()
    with refuses("FederationNoStatement"):
        federation.send(0, "challengeEquivocation", *conflict(federation, 0))
    for member in range(1, 5):
        federation.enrol(member)
    refused()
    federation.all_commit()
    refused("challengeResidue")
    federation.all_post().lock()
    refused("challengeResidue", "challengeAggregate")
    for round in (0, 2, 3):
        with refuses("FederationNoStatement"):
            federation.send(0, "challengeAggregate", round, 0, 0, [], [])


@provokes("FederationChallengeOver")
def a_challenge_comes_after_the_window(found: Found, refuses: Refuses) -> None:
    federation = found(5, rounds=1, challengeWindow=70).all_enrol().finish_round()
    over = federation.chain.now + 70
    with refuses("FederationChallengeOver", over):
        federation.send(0, "challengeEquivocation", *conflict(federation, 3), at=over)
    again = found(5, rounds=1, challengeWindow=70).all_enrol().finish_round()
    again.send(0, "challengeEquivocation", *conflict(again, 3), at=again.chain.now + 69)


@provokes("FederationAlreadyVoted")
def a_member_votes_twice(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol().finish_round()
    federation.stop(2, 2)
    with refuses("FederationAlreadyVoted"):
        federation.stop(2, 2)


@provokes("FederationBondLocked")
def a_bond_is_asked_for_too_early(found: Found, refuses: Refuses) -> None:
    federation = found(5, rounds=1)
    federation.enrol(0)
    free = federation.founded_at + 1000 + 5000  # if the run never begins
    with refuses("FederationBondLocked", free):
        federation.send(0, "withdrawBond", at=free - 1)
    running = found(5, rounds=1, challengeWindow=50).all_enrol()
    with refuses("FederationBondLocked", NEVER):
        running.send(0, "withdrawBond")
    running.finish_round()
    with refuses("FederationBondLocked", running.chain.now + 50):
        running.send(0, "withdrawBond", at=running.chain.now + 49)


@provokes("FederationNothingToWithdraw")
def there_is_no_bond_or_no_longer(found: Found, refuses: Refuses) -> None:
    federation = found(5, rounds=1, challengeWindow=1)
    for name in ("withdrawBond", "withdrawReward"):
        with refuses("FederationNothingToWithdraw"):
            federation.send(0, name)
    federation.all_enrol().finish_round()
    federation.send(0, "withdrawBond", at=federation.chain.now + 1)
    with refuses("FederationNothingToWithdraw"):
        federation.send(0, "withdrawBond")


@provokes("FederationTransferFailed")
def a_member_cannot_take_its_bond(found: Found, refuses: Refuses) -> None:
    federation = found(5, rounds=1, challengeWindow=1).all_enrol().finish_round()
    federation.chain.mine_at(federation.chain.now + 1)
    federation.chain.rpc("anvil_setCode", federation.founders[3], "0x60006000fd")  # reverts whatever it is sent
    federation.chain.rpc("anvil_impersonateAccount", federation.founders[3])
    with refuses("FederationTransferFailed"):
        federation.send(3, "withdrawBond")
    federation.send(2, "withdrawBond")
    assert federation.call("bonded") == 0b11011


# Members who come and go; votes/ has the rest.


@provokes("FederationNotAdmitted")
def a_founder_enrols_after_the_beginning(found: Found, refuses: Refuses) -> None:
    federation = found(5)
    for member in range(4):
        federation.enrol(member)
    with refuses("FederationNotAdmitted"):
        federation.enrol(4, at=federation.founded_at + 1000)


@provokes("FederationAlreadyLeaving")
def a_member_resigns_twice(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol()
    federation.send(3, "resign")
    with refuses("FederationAlreadyLeaving"):
        federation.send(3, "resign")


@provokes("FederationBadSubject")
def there_is_nothing_to_vote_on(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol()
    with refuses("FederationBadSubject"):
        federation.send(3, "voteToAdmit", federation.founders[2])
    with refuses("FederationBadSubject"):
        federation.send(3, "voteToRemove", 5)


@provokes("FederationNoPayment")
def money_comes_with_nothing_else(found: Found, refuses: Refuses) -> None:
    federation = found(5)
    with refuses("FederationNoPayment"):
        federation.transact(federation.founders[0], "0x", federation.address, value=1)
    with refuses("FederationNoPayment"):
        federation.transact(federation.founders[0], "0x", federation.address)
