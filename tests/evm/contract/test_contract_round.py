"""Whole rounds on a real EVM: what is said, what is kept, and who takes over when somebody is silent (P1–P5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_abi import encode
from web3 import Web3

from fedchain.chain.artifacts import load_artifact
from fedchain.chain.logs import signature

ENROLLING, TRAINING, RECEIPTS, AGGREGATING, OPENING, CLOSING, CLOSED, PENDING, FINISHED = range(9)
ONE = b"\x01" * 32

Found = Callable[..., Any]
Refuses = Callable[..., Any]


def test_a_whole_round_is_said_and_kept(found: Found) -> None:
    federation = found(5)
    view = federation.call
    assert view("phaseOf", 1) == ENROLLING
    assert view("roundAt", 1)["startedAt"] == 0
    assert view("model") == federation.terms["genesisDigest"]
    for member in range(5):
        told = federation.events(federation.enrol(member))
        (name, said), kept = told[0], view("memberAt", member)
        assert (name, said["index"], said["member"]) == ("MemberEnrolled", member, kept["account"])
        assert (said["encryptionKey"], said["weight"]) == (kept["encryptionKey"], kept["weight"])
        assert kept["standing"] and kept["bonded"] and not kept["slashed"]
        assert (kept["strikes"], kept["leftAt"]) == (0, 0)
    assert view("standing") == view("bonded") == 0b11111

    assert view("phaseOf", 1) == TRAINING
    chain = bytes(32)
    for member in (3, 1, 4, 0, 2):
        ((name, said),) = federation.events(federation.commit(member))
        assert (name, said["round"], said["attempt"], said["index"]) == ("UpdateCommitted", 1, 0, member)
        words = [chain, member, said["commitment"]]
        chain = bytes(Web3.keccak(encode(["bytes32", "uint8", "bytes32"], words)))
        assert view("commitmentsOf", 1, 0) == chain
    assert view("roundAt", 1)["committed"] == 0b11111

    assert view("phaseOf", 1) == RECEIPTS
    wholes = [0b11111, 0b01111, 0b11111, 0b11101, 0b00000]
    for member, whole in enumerate(wholes):
        ((name, said),) = federation.events(federation.receipt(member, whole))
        assert (name, said) == ("ReceiptPosted", {"round": 1, "attempt": 0, "index": member, "whole": whole})
    assert [view("receiptOf", 1, 0, member) for member in range(5)] == wholes
    assert view("roundAt", 1)["received"] == 0b11111

    assert view("phaseOf", 1) == AGGREGATING
    assert view("aggregatorNow") == 0
    ((name, said),) = federation.events(federation.aggregate(0, 0b01111))
    kept = view("aggregateOf", 1, 0)
    assert (name, said["group"], said["index"], kept["aggregator"]) == ("AggregateCommitted", 0, 0, 0)
    assert said["participants"] == kept["participants"] == view("roundAt", 1)["participants"] == 0b01111
    assert said["root"] == kept["root"] != said["cid"]

    assert view("phaseOf", 1) == OPENING
    chain = bytes(32)
    for member in (4, 2, 0):  # a member that is no participant opens as well
        ((name, said),) = federation.events(federation.open(member))
        assert (name, said["group"], said["index"]) == ("OpeningPublished", 0, member)
        chain = bytes(Web3.keccak(encode(["bytes32", "uint8", "bytes32"], [chain, member, said["root"]])))
        assert view("openingsOf", 1, 0) == chain
    assert view("roundAt", 1)["opened"] == 0b10101

    assert view("phaseOf", 1) == CLOSING
    federation.open(1)  # redundancy names a wrong opening
    ((name, said),) = federation.events(federation.close(3))
    kept = view("resultOf", 1, 0)
    assert (name, said["index"], kept["member"]) == ("ResultCommitted", 3, 3)
    for word in ("openers", "keySumRoot", "resultRoot", "modelDigest"):
        assert said[word] == kept[word] not in (0, bytes(32))
    assert view("model") == kept["modelDigest"]

    assert [view("phaseOf", round) for round in (0, 1, 2, 3)] == [CLOSED, CLOSED, TRAINING, PENDING]
    assert view("currentRound") == 2
    closed, begun = view("roundAt", 1), view("roundAt", 2)
    assert (closed["committed"], closed["participants"], closed["opened"]) == (0b11111, 0b01111, 0b10111)
    assert begun["startedAt"] == federation.chain.now
    assert begun["committed"] == begun["received"] == begun["participants"] == begun["opened"] == 0


def test_a_complaint_moves_no_phase_and_leaves_the_receipts_as_they_are(found: Found) -> None:
    federation = found(5, threshold=3).all_enrol()
    view, evidence = federation.call, b"\x07" * 32

    def kept() -> list[Any]:
        """All that a phase could follow from."""
        views = ("memberAt", 1), ("memberAt", 3), ("roundAt", 1), ("phaseOf", 1), ("commitmentsOf", 1, 0)
        return [view(*question) for question in (*views, ("slashed",), ("burnt",), ("receiptOf", 1, 0, 4))]

    def complain(member: int, dealers: int) -> None:
        before = kept()
        told = federation.events(federation.send(member, "complain", 1, 0, dealers, evidence))
        said = {"round": 1, "attempt": 0, "index": member, "dealers": dealers, "evidenceCid": evidence}
        assert told == [("Complained", said)]
        assert kept() == before

    federation.commit(1)
    complain(3, 0b00010)
    for member in (0, 2, 3, 4):
        federation.commit(member)
    complain(0, 0b00010)
    federation.receipt(4, 0b11101)
    complain(4, 0b11111)  # whatever its receipt says
    complain(2, 0b00100)  # itself, if it likes


def test_what_somebody_complained_of_may_be_left_out_whatever_the_receipts_say(found: Found, refuses: Any) -> None:
    """Else a dealer and its friend, who vouches for it, made the aggregator sum what the friend has proven wrong."""
    for participants in (0b111011, 0b111111):  # it may be kept as well: who has seen the evidence knows better
        federation = found(6, threshold=4).all_enrol().all_commit()
        federation.send(5, "complain", 1, 0, 0b000100, b"\x07" * 32)
        federation.all_post()
        for censored in (0b000001, 0b001000):
            with refuses("FederationCensored", censored):
                federation.aggregate(0, 0b111111 ^ censored)
        federation.aggregate(0, participants)


def test_the_founding_is_told_and_never_changes(found: Found) -> None:
    federation = found(4, threshold=3)
    ((name, said),) = federation.events(federation.deployment)
    assert name == "FederationFounded"
    assert said["terms"] == federation.terms == federation.call("terms")
    assert [Web3.to_checksum_address(founder) for founder in said["founders"]] == federation.founders
    assert federation.call("memberCount") == 4
    accounts = [Web3.to_checksum_address(federation.call("memberAt", i)["account"]) for i in range(4)]
    assert accounts == federation.founders
    assert federation.call("memberAt", 4) == federation.call("memberAt", 255)
    assert int(federation.call("memberAt", 4)["account"], 16) == 0


def test_the_run_ends_after_its_rounds_and_the_rotation_goes_round(found: Found, refuses: Refuses) -> None:
    federation = found(5, rounds=3).all_enrol()
    for round in (1, 2, 3):
        assert federation.call("phaseOf", round) == TRAINING
        assert federation.call("aggregatorNow") == round - 1
        federation.finish_round(round)
        assert federation.call("aggregateOf", round, 0)["aggregator"] == round - 1
    assert federation.call("currentRound") == 4
    assert [federation.call("phaseOf", round) for round in (3, 4, 5)] == [CLOSED, FINISHED, FINISHED]
    with refuses("FederationWrongPhase", FINISHED):
        federation.commit(0, round=4)


def test_an_attempt_with_too_few_updates_is_void_and_training_begins_again(found: Found) -> None:
    federation = found(5, trainingWindow=600).all_enrol()
    start = federation.chain.now
    for member in range(3):
        federation.commit(member)
    live = federation.call("roundAt", 1, at=start + 600)
    assert (live["attempt"], live["startedAt"], live["committed"], live["lastCommitAt"]) == (1, start + 600, 0, 0)
    federation.commit(1, attempt=5, at=start + 5 * 600 + 7)  # four more windows with nothing in them
    live = federation.call("roundAt", 1)
    assert (live["attempt"], live["startedAt"], live["committed"]) == (5, start + 5 * 600, 0b00010)
    assert federation.call("commitmentsOf", 1, 0) != federation.call("commitmentsOf", 1, 5) != bytes(32)


def test_a_dead_aggregator_is_passed_over(found: Found, refuses: Refuses) -> None:
    federation = found(5, aggregateWindow=100).all_enrol().all_commit().all_post()
    start = federation.chain.now
    for turn in range(5):
        assert federation.call("aggregatorNow", at=start + 100 * turn) == turn
        assert federation.call("aggregatorNow", at=start + 100 * turn + 99) == turn
    with refuses("FederationNotAggregator", 2):
        federation.aggregate(0, 31, at=start + 200)
    federation.aggregate(2, 31)
    assert federation.call("aggregateOf", 1, 0)["aggregator"] == 2


def test_when_nobody_aggregates_the_attempt_is_void_and_the_next_begins_with_another(found: Found) -> None:
    federation = found(5, aggregateWindow=100).all_enrol().all_commit().all_post()
    exhausted = federation.chain.now + 500
    assert federation.call("phaseOf", 1, at=exhausted - 1) == AGGREGATING
    live = federation.call("roundAt", 1, at=exhausted)
    assert (live["attempt"], live["startedAt"], live["committed"], live["received"]) == (1, exhausted, 0, 0)
    federation.chain.mine_at(exhausted)
    federation.all_commit(attempt=1)
    live = federation.call("roundAt", 1)
    assert (live["received"], live["lastReceiptAt"]) == (0, 0)
    assert federation.call("receiptOf", 1, 0, 0) == 0  # the receipts of the void attempt hold nothing any more
    federation.all_post(attempt=1)
    assert federation.call("aggregatorNow") == 1
    federation.lock(attempt=1)
    assert federation.call("roundAt", 1)["participants"] == 31


def test_a_locked_set_stays_whatever_time_passes(found: Found, refuses: Refuses) -> None:
    federation = found(5).all_enrol().all_commit().all_post().lock()
    federation.open(0)
    federation.chain.mine_at(federation.chain.now + 10**6)
    assert federation.call("phaseOf", 1) == OPENING
    assert federation.call("roundAt", 1)["attempt"] == 0
    with refuses("FederationWrongPhase", OPENING):
        federation.aggregate(federation.call("aggregatorNow"), 0b01111)
    federation.open(1)
    federation.open(2)
    federation.close(4)
    assert federation.call("phaseOf", 1) == CLOSED


def test_too_few_receipts_at_the_deadline_wait_for_the_t_th(found: Found) -> None:
    federation = found(5, threshold=3, receiptWindow=300).all_enrol().all_commit()
    end = federation.chain.now + 300
    federation.receipt(0, 31)
    federation.receipt(1, 31)
    assert federation.call("phaseOf", 1, at=end + 5000) == RECEIPTS
    federation.receipt(4, 31, at=end + 5000)
    assert federation.call("phaseOf", 1) == AGGREGATING
    assert federation.call("aggregatorNow", at=end + 5099) == 0  # the first turn begins with the receipt that sufficed
    assert federation.call("aggregatorNow", at=end + 5100) == 1


def test_a_late_receipt_is_refused_once_enough_were_in(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, receiptWindow=300).all_enrol().all_commit()
    end = federation.chain.now + 300
    for member in range(4):
        federation.receipt(member, 31)
    with refuses("FederationWrongPhase", AGGREGATING):
        federation.receipt(4, 31, at=end)


def test_enrolment_with_too_few_waits_past_its_deadline(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, enrolWindow=1000)
    for member in (4, 2, 1):
        federation.enrol(member)
    late = federation.founded_at + 7777
    assert federation.call("phaseOf", 1, at=late) == ENROLLING
    federation.enrol(0, at=late)
    assert federation.call("phaseOf", 1) == TRAINING
    assert federation.call("roundAt", 1)["startedAt"] == late
    with refuses("FederationNotAdmitted"):
        federation.enrol(3)


def test_the_rotation_names_only_the_enrolled(found: Found) -> None:
    federation = found(6, threshold=4, aggregateWindow=100)
    for member in (0, 1, 3, 4, 5):
        federation.enrol(member)
    federation.chain.mine_at(federation.founded_at + 1000)
    for member in (0, 1, 3, 4, 5):
        federation.commit(member)
    for member in (0, 1, 3, 4, 5):
        federation.receipt(member, 0b111011)
    start = federation.chain.now
    turns = [federation.call("aggregatorNow", at=start + 100 * turn) for turn in range(5)]
    assert turns == [0, 1, 3, 4, 5]
    federation.aggregate(3, 0b111011, at=start + 200)


def test_t_votes_finish_the_run(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, rounds=9).all_enrol().finish_round()
    for member in (1, 4):
        ((name, said),) = federation.events(federation.stop(member, 2))
        assert (name, said) == ("StopVoted", {"round": 2, "index": member})
    assert federation.call("phaseOf", 2) == TRAINING
    federation.stop(0, 2)
    assert federation.call("roundAt", 2)["stopVotes"] == 0b10011
    assert [federation.call("phaseOf", round) for round in (1, 2, 3)] == [CLOSED, FINISHED, FINISHED]
    with refuses("FederationWrongPhase", FINISHED):
        federation.stop(2, 2)
    with refuses("FederationWrongPhase", FINISHED):
        federation.commit(2, round=2)
    assert federation.call("model") == federation.call("resultOf", 1, 0)["modelDigest"]


def test_votes_outlive_a_void_attempt_but_not_the_round(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, trainingWindow=600).all_enrol().finish_round()
    federation.stop(0, 2)
    federation.stop(1, 2)
    federation.chain.mine_at(federation.chain.now + 600)
    federation.commit(0, round=2, attempt=1)
    assert federation.call("roundAt", 2)["stopVotes"] == 0b00011
    with refuses("FederationAlreadyVoted"):
        federation.stop(1, 2)
    for member in range(1, 5):
        federation.commit(member, round=2, attempt=1)
    federation.all_post(2, 1).lock(2, 1)
    for member in range(3):
        federation.open(member, 2, 1)
    federation.close(0, 2, 1)
    assert federation.call("roundAt", 2)["stopVotes"] == 0b00011
    assert federation.call("roundAt", 3)["stopVotes"] == 0
    federation.stop(2, 3)
    assert federation.call("phaseOf", 3) == TRAINING


def test_a_vote_to_stop_is_cast_in_every_phase_of_a_round(found: Found) -> None:
    federation = found(7, threshold=6, rounds=9).all_enrol().finish_round()
    federation.stop(0, 2)
    federation.all_commit(2)
    federation.stop(1, 2)
    federation.all_post(2)
    federation.stop(2, 2)
    federation.lock(2)
    federation.stop(3, 2)
    for member in range(6):
        federation.open(member, 2)
    federation.stop(4, 2)
    assert federation.call("phaseOf", 2) == CLOSING
    federation.stop(5, 2)
    assert federation.call("phaseOf", 2) == FINISHED
    assert federation.call("finishedAt") == federation.chain.now


PAID = {"enrol", "demandPage"}


def test_the_contract_takes_no_coin_but_bonds_and_deposits(found: Found, refuses: Refuses) -> None:
    federation = found(5)
    sender, code = federation.founders[0], load_artifact()
    with refuses("FederationNoPayment"):
        federation.transact(sender, "0x", federation.address, value=1)
    for data in ("0xdeadbeef", "0xde"):
        with pytest.raises(federation.chain.Error, match="revert"):
            federation.transact(sender, data, federation.address, value=1)
    payable = {e["name"] for e in code.abi if e["type"] == "function" and e["stateMutability"] == "payable"}
    assert payable == PAID
    for entry in code.abi:
        if entry["type"] == "function" and entry["name"] not in PAID:
            selector = Web3.keccak(text=signature(entry))[:4]
            with pytest.raises(federation.chain.Error, match="revert"):  # before its arguments are read
                federation.transact(sender, "0x" + (selector + bytes(2048)).hex(), federation.address, value=1)
