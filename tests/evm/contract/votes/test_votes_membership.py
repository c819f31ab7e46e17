"""Who takes part in a run that goes on: members vote in and out, come, go and come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from web3 import Web3

ENROLLING, TRAINING, RECEIPTS, AGGREGATING, OPENING, CLOSING, CLOSED, PENDING, FINISHED = range(9)
ADMIT, REMOVE, ABANDON, REFUSE = range(4)
BOND = 10**15
NEVER = 2**256 - 1
ZERO_ADDRESS = "0x" + 40 * "0"

Found = Callable[..., Any]
Refuses = Callable[..., Any]


def account_of(federation: Any, at: int) -> str:
    return str(Web3.to_checksum_address(federation.chain.accounts[at]))


def subject_of(account: str) -> bytes:
    return bytes(12) + bytes.fromhex(account[2:])


def balance(federation: Any) -> int:
    return int(federation.chain.rpc("eth_getBalance", federation.address, "latest"), 16)


def admit(federation: Any, account: str, voters: tuple[int, ...] = (0, 1, 2)) -> list[Any]:
    """These members vote; what the contract says to the last vote."""
    for voter in voters:
        told = federation.events(federation.send(voter, "voteToAdmit", account))
    return list(told)


def remove(federation: Any, index: int, voters: tuple[int, ...] = (0, 1, 2)) -> list[Any]:
    for voter in voters:
        told = federation.events(federation.send(voter, "voteToRemove", index))
    return list(told)


def join(federation: Any, account: str, voters: tuple[int, ...] = (0, 1, 2)) -> int:
    """It is admitted, and enrols; its index. From then on the test names it by that."""
    ((_, _), (_, admitted)) = admit(federation, account, voters)
    index: int = admitted["index"]
    if index == len(federation.founders):
        federation.founders.append(account)
    federation.enrol(index)
    return index


# Coming.


def test_who_is_admitted_by_t_votes_enrols_and_counts_from_the_next_round(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3).all_enrol()
    newcomer = account_of(federation, 7)
    subject = subject_of(newcomer)
    with refuses("FederationNotMember", newcomer.lower()):
        federation.send(newcomer, "enrol", b"\x01" * 32, 1, value=BOND)
    for count, voter in enumerate((4, 0), start=1):
        told = federation.events(federation.send(voter, "voteToAdmit", newcomer))
        said = {"motion": ADMIT, "index": voter, "round": 0, "attempt": 0, "subject": subject}
        assert told == [("MotionVoted", said)]
        assert federation.call("votesOf", ADMIT, 0, 0, subject).bit_count() == count
    assert (federation.call("votesOf", ADMIT, 0, 0, subject), federation.call("memberCount")) == (0b10001, 5)
    told = federation.events(federation.send(2, "voteToAdmit", newcomer))
    assert [name for name, _ in told] == ["MotionVoted", "MemberAdmitted"]
    assert told[1][1] == {"index": 5, "member": newcomer.lower()}
    assert federation.call("votesOf", ADMIT, 0, 0, subject) == 0
    assert federation.call("memberCount") == 6
    seat = federation.call("memberAt", 5)
    assert (seat["account"], seat["standing"], seat["bonded"]) == (newcomer.lower(), False, False)

    with refuses("FederationWrongBond", BOND, BOND - 1):
        federation.send(newcomer, "enrol", b"\x01" * 32, 1, value=BOND - 1)
    with refuses("FederationBadEncryptionKey"):
        federation.send(newcomer, "enrol", bytes(32), 1, value=BOND)
    with refuses("FederationBadWeight"):
        federation.send(newcomer, "enrol", b"\x01" * 32, 0, value=BOND)
    federation.founders.append(newcomer)
    ((name, said),) = federation.events(federation.enrol(5))
    assert (name, said["index"], said["member"], said["weight"]) == ("MemberEnrolled", 5, newcomer.lower(), 60)
    with refuses("FederationAlreadyEnrolled", newcomer.lower()):
        federation.enrol(5)
    assert (federation.call("standing"), federation.call("bonded")) == (0b011111, 0b111111)
    for name, arguments in (("commitUpdate", (1, 0, *[b"\x01" * 32] * 3)), ("voteToRemove", (0,)), ("resign", ())):
        with refuses("FederationNotMember", newcomer.lower()):
            federation.send(5, name, *arguments)

    federation.finish_round(1, members=range(5))  # five are everyone: nobody waits for the sixth
    assert federation.call("standing") == 0b111111
    assert (federation.call("threshold"), federation.call("minParticipants")) == (4, 5)
    for member in range(5):
        federation.commit(member, 2)
    assert federation.call("phaseOf", 2) == TRAINING
    federation.commit(5, 2)
    assert federation.call("phaseOf", 2) == RECEIPTS
    for member in range(6):
        federation.receipt(member, 63, 2)
    federation.aggregate(federation.call("aggregatorNow"), 63, 2)
    for member in (5, 0, 1, 2):
        assert federation.call("phaseOf", 2) == OPENING
        federation.open(member, 2)
    federation.close(5, 2)
    assert federation.call("resultOf", 2, 0)["member"] == 5


@pytest.mark.parametrize("phase", range(TRAINING, CLOSED))
def test_whoever_joins_in_a_phase_changes_nothing_in_it(found: Found, phase: int) -> None:
    windows = {"trainingWindow": 10**6, "receiptWindow": 10**6, "aggregateWindow": 10**6}
    federation = found(5, threshold=3, **windows).all_enrol()
    if phase >= RECEIPTS:
        federation.all_commit()
    if phase >= AGGREGATING:
        federation.all_post()
    if phase >= OPENING:
        federation.lock()
    if phase >= CLOSING:
        for member in range(3):
            federation.open(member)
    before = federation.call("roundAt", 1)
    assert federation.call("phaseOf", 1) == phase
    join(federation, account_of(federation, 7))
    federation.send(4, "resign")
    assert federation.call("phaseOf", 1) == phase
    assert federation.call("roundAt", 1) == before
    assert (federation.call("standing"), federation.call("threshold")) == (0b11111, 3)


def test_a_void_attempt_lets_nobody_in_or_out(found: Found) -> None:
    """Time voids it without a transaction: who counts must not depend on one."""
    federation = found(5, threshold=3, trainingWindow=600).all_enrol()
    join(federation, account_of(federation, 7))
    federation.send(0, "resign")
    federation.chain.mine_at(federation.chain.now + 600)
    federation.commit(1, attempt=1)
    assert federation.call("roundAt", 1)["attempt"] == 1
    assert federation.call("standing") == 0b11111


def test_who_has_joined_may_take_its_bond_back_before_it_counts(found: Found, refuses: Refuses) -> None:
    federation = found(5, bond=BOND).all_enrol()
    newcomer = account_of(federation, 7)
    assert join(federation, newcomer) == 5
    assert (balance(federation), federation.call("bondFreeAt", 5)) == (6 * BOND, 0)
    told = federation.events(federation.send(5, "withdrawBond"))
    assert told == [("BondWithdrawn", {"index": 5, "amount": BOND})]
    assert (balance(federation), federation.call("bonded")) == (5 * BOND, 0b11111)
    with refuses("FederationNotAdmitted"):  # one admission is for one enrolment
        federation.enrol(5)
    federation.finish_round(1, members=range(5))
    assert federation.call("standing") == 0b11111
    assert join(federation, newcomer) == 5  # its old seat
    assert federation.call("memberCount") == 6
    federation.finish_round(2, members=range(5))
    assert federation.call("standing") == 0b111111
    with refuses("FederationBondLocked", NEVER):
        federation.send(5, "withdrawBond")


def test_a_founder_who_missed_the_beginning_joins_like_everyone_else(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, enrolWindow=1000)
    for member in range(4):
        federation.enrol(member)
    federation.chain.mine_at(federation.founded_at + 1000)
    with refuses("FederationNotAdmitted"):
        federation.enrol(4)
    assert join(federation, federation.founders[4]) == 4
    assert federation.call("memberCount") == 5
    federation.finish_round(1, members=range(4))
    assert federation.call("standing") == 0b11111


def test_nobody_enrols_in_a_finished_run(found: Found, refuses: Refuses) -> None:
    federation = found(5, rounds=1).all_enrol()
    newcomer = account_of(federation, 7)
    admit(federation, newcomer)
    federation.finish_round()
    with refuses("FederationWrongPhase", FINISHED):
        federation.send(newcomer, "enrol", b"\x01" * 32, 1, value=BOND)


# Going.


def test_who_is_removed_has_its_duties_until_the_next_round_and_its_bond_a_window_later(
    found: Found, refuses: Refuses
) -> None:
    federation = found(5, threshold=3, challengeWindow=500, bond=BOND).all_enrol().all_commit()
    told = remove(federation, 4)
    assert [name for name, _ in told] == ["MotionVoted", "MemberLeaving"]
    assert told[0][1]["subject"] == (4).to_bytes(32, "big")
    assert told[1][1] == {"index": 4, "removed": True}
    assert (federation.call("leaving"), federation.call("standing")) == (0b10000, 0b11111)
    with refuses("FederationAlreadyLeaving"):
        remove(federation, 4)
    federation.all_post().lock()
    for member in (4, 3, 2):  # it is heard until then, and its vote counts
        federation.open(member)
    federation.send(4, "voteToRemove", 0)
    assert federation.call("votesOf", REMOVE, 0, 0, bytes(32)) == 0b10000
    federation.close(4)
    left_at = federation.chain.now
    seat = federation.call("memberAt", 4)
    assert (seat["standing"], seat["bonded"], seat["leftAt"], seat["slashed"]) == (False, True, left_at, False)
    assert (federation.call("leaving"), federation.call("standing")) == (0, 0b01111)
    assert federation.call("votesOf", REMOVE, 0, 0, bytes(32)) == 0  # it is not heard any more
    with refuses("FederationNotMember", federation.founders[4].lower()):
        federation.commit(4, 2)
    with refuses("FederationBondLocked", left_at + 500):
        federation.send(4, "withdrawBond", at=left_at + 499)
    assert federation.call("bondFreeAt", 0) == NEVER
    federation.send(4, "withdrawBond", at=left_at + 500)
    assert balance(federation) == 4 * BOND
    federation.finish_round(2, members=range(4))
    assert federation.call("phaseOf", 3) == TRAINING


def test_who_resigns_is_gone_with_the_next_round_and_may_come_back(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, challengeWindow=500, rounds=9, bond=BOND).all_enrol()
    leaver = federation.founders[2]
    assert federation.events(federation.send(2, "resign")) == [("MemberLeaving", {"index": 2, "removed": False})]
    with refuses("FederationAlreadyLeaving"):
        federation.send(2, "resign")
    federation.finish_round()
    left_at = federation.chain.now
    assert federation.call("standing") == 0b11011
    with refuses("FederationNotMember", leaver.lower()):
        federation.send(2, "resign")
    admit(federation, leaver, (0, 1, 3))
    with refuses("FederationAlreadyEnrolled", leaver.lower()):  # its bond still answers for what it said
        federation.enrol(2)
    federation.send(2, "withdrawBond", at=left_at + 500)
    federation.enrol(2)
    assert federation.call("memberAt", 2)["leftAt"] == left_at
    federation.finish_round(2, members=(0, 1, 3, 4))
    seat = federation.call("memberAt", 2)
    assert (seat["standing"], seat["leftAt"], seat["weight"]) == (True, 0, 30)
    federation.finish_round(3)
    assert federation.call("roundAt", 3)["committed"] == 0b11111
    assert balance(federation) == 5 * BOND


def test_who_resigns_may_be_removed_as_well_and_who_is_removed_may_be_admitted_anew(found: Found) -> None:
    federation = found(5, threshold=3, challengeWindow=1).all_enrol()
    federation.send(3, "resign")
    assert remove(federation, 3)[1] == ("MemberLeaving", {"index": 3, "removed": True})
    federation.finish_round()
    federation.send(3, "withdrawBond", at=federation.chain.now + 1)
    assert join(federation, federation.founders[3]) == 3
    federation.finish_round(2, members=(0, 1, 2, 4))
    assert remove(federation, 3)[1] == ("MemberLeaving", {"index": 3, "removed": True})
    federation.finish_round(3)
    assert federation.call("standing") == 0b10111


def test_a_bond_that_was_free_at_the_end_of_the_run_is_free_for_who_left_too(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, challengeWindow=500, rounds=2).all_enrol()
    federation.send(4, "resign")
    federation.finish_round()
    left_at = federation.chain.now
    for member in range(3):
        federation.stop(member, 2)
    finished = federation.chain.now
    assert federation.call("bondFreeAt", 4) == left_at + 500
    assert federation.call("bondFreeAt", 0) == finished + 500
    assert left_at <= finished


def test_when_too_many_leave_the_run_is_finished(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, challengeWindow=500).all_enrol()
    for member in (3, 4):
        federation.send(member, "resign")
    federation.finish_round()
    assert federation.call("phaseOf", 2) == FINISHED  # three cannot lock a set of four
    finished = federation.chain.now
    assert federation.call("finishedAt") == finished
    for member in range(5):
        federation.send(member, "withdrawBond", at=finished + 500)
    assert balance(federation) == 0


# Keys.


def test_a_key_is_rotated_by_its_member_alone_while_the_run_goes_on(found: Found, refuses: Refuses) -> None:
    federation = found(5, rounds=1)
    federation.enrol(0)
    for name, arguments in (("rotateKey", (b"\x07" * 32,)), ("resign", ())):
        with refuses("FederationWrongPhase", ENROLLING):
            federation.send(0, name, *arguments)
    for member in range(1, 5):
        federation.enrol(member)
    with refuses("FederationBadEncryptionKey"):
        federation.send(1, "rotateKey", bytes(32))
    told = federation.events(federation.send(1, "rotateKey", b"\x07" * 32))
    assert told == [("EncryptionKeyRotated", {"index": 1, "encryptionKey": b"\x07" * 32})]
    assert federation.call("memberAt", 1)["encryptionKey"] == b"\x07" * 32
    stranger = account_of(federation, 7)
    with refuses("FederationNotMember", stranger.lower()):
        federation.send(stranger, "rotateKey", b"\x07" * 32)
    federation.finish_round()
    for name, arguments in (("rotateKey", (b"\x07" * 32,)), ("resign", ())):
        with refuses("FederationWrongPhase", FINISHED):
            federation.send(0, name, *arguments)


# What can be voted on, by whom, and when.


def test_there_must_be_something_to_vote_on(found: Found, refuses: Refuses, sign: Any) -> None:
    federation = found(5, threshold=3, rounds=9).all_enrol()
    newcomer, liar = account_of(federation, 7), federation.founders[4]
    federation.send(0, "challengeEquivocation", *sign(federation, 4), *sign(federation, 4, participants=15))
    for account in (ZERO_ADDRESS, federation.founders[1], liar):
        with refuses("FederationBadSubject"):
            federation.send(0, "voteToAdmit", account)
    for index in (5, 63, 64, 255):
        with refuses("FederationBadSubject"):
            federation.send(0, "voteToRemove", index)
    admit(federation, newcomer)
    with refuses("FederationBadSubject"):  # admitted already
        federation.send(0, "voteToAdmit", newcomer)
    federation.founders.append(newcomer)
    federation.enrol(5)
    with refuses("FederationBadSubject"):  # joining
        federation.send(0, "voteToAdmit", newcomer)
    with refuses("FederationBadSubject"):  # it does not count yet
        federation.send(0, "voteToRemove", 5)


def test_who_was_slashed_never_comes_back(found: Found, refuses: Refuses, sign: Any) -> None:
    """Also if it was admitted before the lie came out."""
    federation = found(5, threshold=3, rounds=9, challengeWindow=500).all_enrol()
    federation.send(4, "resign")
    federation.finish_round()
    admit(federation, federation.founders[4])
    federation.send(0, "challengeEquivocation", *sign(federation, 4), *sign(federation, 4, participants=15))
    with refuses("FederationSlashed", 4):
        federation.enrol(4)
    with refuses("FederationBadSubject"):
        federation.send(0, "voteToAdmit", federation.founders[4])


def test_only_members_that_are_heard_vote_and_each_once(found: Found, refuses: Refuses, sign: Any) -> None:
    federation = found(5, threshold=3).all_enrol()
    stranger, newcomer = account_of(federation, 8), account_of(federation, 7)
    federation.send(0, "challengeEquivocation", *sign(federation, 4), *sign(federation, 4, participants=15))
    votes: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("voteToAdmit", (newcomer,)),
        ("voteToRemove", (3,)),
        ("voteToAbandon", (1, 0)),
        ("voteToRefuse", (1, b"\x01" * 32)),
    )
    for name, arguments in votes:
        with refuses("FederationNotMember", stranger.lower()):
            federation.send(stranger, name, *arguments)
        with refuses("FederationSlashed", 4):
            federation.send(4, name, *arguments)
    for name, arguments in votes[:2]:
        federation.send(1, name, *arguments)
        with refuses("FederationAlreadyVoted"):
            federation.send(1, name, *arguments)


def test_votes_are_cast_in_a_run_that_has_begun_and_is_not_finished(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, rounds=1)
    for member in range(4):
        federation.enrol(member)
    newcomer = account_of(federation, 7)
    votes: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("voteToAdmit", (newcomer,)),
        ("voteToRemove", (1,)),
        ("voteToAbandon", (1, 0)),
    )
    for name, arguments in votes:
        with refuses("FederationWrongPhase", ENROLLING):
            federation.send(0, name, *arguments)
    with refuses("FederationNoStatement"):
        federation.send(0, "voteToRefuse", 1, b"\x01" * 32)
    federation.enrol(4)
    federation.finish_round()
    for name, arguments in (*votes[:2], ("voteToAbandon", (2, 0))):
        with refuses("FederationWrongPhase", FINISHED):
            federation.send(0, name, *arguments)


def test_a_vote_counts_while_its_voter_is_heard(found: Found, sign: Any) -> None:
    federation = found(5, threshold=3).all_enrol()
    newcomer = account_of(federation, 7)
    subject = subject_of(newcomer)
    admit(federation, newcomer, (0, 1))
    federation.send(2, "challengeEquivocation", *sign(federation, 0), *sign(federation, 0, participants=15))
    assert federation.call("votesOf", ADMIT, 0, 0, subject) == 0b00010
    assert [name for name, _ in admit(federation, newcomer, (2,))] == ["MotionVoted"]
    assert federation.call("votesOf", ADMIT, 0, 0, subject) == 0b00110
    assert [name for name, _ in admit(federation, newcomer, (3,))] == ["MotionVoted", "MemberAdmitted"]


def test_who_joins_and_who_must_go_is_for_those_to_decide_who_stand_together(found: Found) -> None:
    """Votes of a time when others stood are none of today: with a sixth member all begin anew."""
    federation = found(5, threshold=3).all_enrol()
    first, second = account_of(federation, 7), account_of(federation, 8)
    join(federation, first)
    admit(federation, second, (0, 1))
    remove(federation, 4, (0, 1))
    federation.finish_round(1, members=range(5))
    for motion, subject in ((ADMIT, subject_of(second)), (REMOVE, (4).to_bytes(32, "big"))):
        assert federation.call("votesOf", motion, 0, 0, subject) == 0
    for voter in (2, 0, 1):  # who has voted before may vote again
        assert [name for name, _ in admit(federation, second, (voter,))] == ["MotionVoted"]
        assert [name for name, _ in remove(federation, 4, (voter,))] == ["MotionVoted"]
    assert [name for name, _ in admit(federation, second, (5,))] == ["MotionVoted", "MemberAdmitted"]
    assert [name for name, _ in remove(federation, 4, (5,))] == ["MotionVoted", "MemberLeaving"]


def test_a_ballot_outlives_a_round_in_which_nobody_comes_or_goes(found: Found) -> None:
    federation = found(5, threshold=3).all_enrol()
    newcomer = account_of(federation, 7)
    admit(federation, newcomer, (0, 1))
    federation.finish_round(1)
    assert [name for name, _ in admit(federation, newcomer, (2,))] == ["MotionVoted", "MemberAdmitted"]


def test_motions_are_kept_apart(found: Found) -> None:
    """A vote to remove member 1 is none to admit the account of that number, nor about anyone else."""
    federation = found(5, threshold=3).all_enrol()
    one = "0x" + 39 * "0" + "1"
    federation.send(0, "voteToRemove", 1)
    federation.send(1, "voteToAdmit", one)
    federation.send(2, "voteToRemove", 2)
    assert federation.call("votesOf", REMOVE, 0, 0, (1).to_bytes(32, "big")) == 0b00001
    assert federation.call("votesOf", ADMIT, 0, 0, (1).to_bytes(32, "big")) == 0b00010
    assert federation.call("votesOf", REMOVE, 0, 0, (2).to_bytes(32, "big")) == 0b00100
    assert federation.call("votesOf", REFUSE, 0, 0, (1).to_bytes(32, "big")) == 0


def test_64_members_are_the_most_there_ever_can_be(
    found: Found, refuses: Refuses, start_anvil: Callable[..., Any]
) -> None:
    chain = start_anvil(accounts=66)
    federation = found(63, founders=chain.accounts[:63], on=chain, threshold=32, challengeWindow=1).all_enrol()
    voters = tuple(range(32))
    assert join(federation, account_of(federation, 63), voters) == 63
    with refuses("FederationBadMemberCount", 65):
        admit(federation, account_of(federation, 64), voters)
    federation.send(5, "resign")
    federation.finish_round(1, members=range(63))
    assert federation.call("standing") == 2**64 - 1 - 0b100000
    assert (federation.call("threshold"), federation.call("memberCount")) == (32, 64)
    voters = tuple(i for i in range(33) if i != 5)
    admit(federation, account_of(federation, 64), voters[:-1])
    with refuses("FederationBadMemberCount", 65):  # who has gone keeps its seat
        federation.send(voters[-1], "voteToAdmit", account_of(federation, 64))
    federation.send(5, "withdrawBond", at=federation.chain.now + 1)
    assert join(federation, federation.founders[5], voters) == 5
    assert federation.call("bonded") == 2**64 - 1


def test_a_whole_run_of_comings_and_goings_leaves_no_coin_behind(found: Found, sign: Any) -> None:
    federation = found(5, threshold=3, rounds=4, challengeWindow=50, bond=1001).all_enrol()
    join(federation, account_of(federation, 7))
    federation.send(0, "resign")
    federation.finish_round(1, members=range(5))
    federation.send(0, "withdrawBond", at=federation.chain.now + 50)
    remove(federation, 1, (2, 3, 4))
    federation.finish_round(2, members=range(1, 6))
    federation.send(2, "challengeEquivocation", *sign(federation, 1), *sign(federation, 1, participants=15))
    join(federation, federation.founders[0], (2, 3, 4))
    federation.finish_round(3, members=range(2, 6))
    assert federation.call("standing") == 0b111101
    federation.finish_round(4, members=(0, 2, 3, 4, 5))
    assert federation.call("phaseOf", 5) == FINISHED
    federation.chain.mine_at(federation.chain.now + 50)
    for member in (0, 2, 3, 4, 5):
        federation.send(member, "withdrawBond")
    assert federation.call("bonded") == 0
    federation.send(2, "withdrawReward")
    assert balance(federation) == federation.call("burnt") == 501
