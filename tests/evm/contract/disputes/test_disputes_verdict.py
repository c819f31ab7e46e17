"""What a verdict does: where the bond goes, who is heard no more, and how the sum or the model is put right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from web3 import Web3

from fedchain.chain.build import compile_sources

ENROLLING, TRAINING, RECEIPTS, AGGREGATING, OPENING, CLOSING, CLOSED, PENDING, FINISHED = range(9)
ONE, ZERO = b"\x01" * 32, bytes(32)
NEVER = 2**256 - 1
STRANGER = 9

PlayOf = Callable[..., Any]
Refuses = Callable[..., Any]

HUNTER = """// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

interface IFederation { function withdrawReward() external; }

/// A challenger that is a contract, and asks for its reward again while it is being paid.
contract Hunter {
    uint256 public paid;
    uint256 public refused;
    bool public takes;

    constructor(bool takes_) { takes = takes_; }

    function speak(address federation, bytes calldata words) external {
        (bool heard, bytes memory answer) = federation.call(words);
        if (!heard) assembly { revert(add(answer, 32), mload(answer)) }
    }

    receive() external payable {
        require(takes);
        paid += 1;
        try IFederation(msg.sender).withdrawReward() {} catch { refused += 1; }
    }
}
"""


def balance(chain: Any, account: str) -> int:
    return int(chain.rpc("eth_getBalance", account, "latest"), 16)


def challenge(played: Any, name: str, *evidence: Any, by: int | str = STRANGER, at: int | None = None) -> list[Any]:
    federation = played.federation
    sender = federation.chain.accounts[by] if isinstance(by, int) else by
    told = federation.events(federation.send(sender, f"challenge{name}", *evidence, at=at))
    assert isinstance(told, list)
    return told


def stranger_of(federation: Any) -> str:
    return str(federation.chain.accounts[STRANGER])


def lie_about_the_sum(played: Any, leaf: int = 0) -> Any:
    played.aggregate.leaves[leaf, 0] ^= np.uint64(1)
    return played


def lie_about_the_result(played: Any) -> Any:
    played.result.leaves[0, 0] += np.uint64(1)
    return played


def put_right(played: Any) -> Any:
    """After a lie was refuted: what is true."""
    played.aggregate, played.result = played.sum(), played.decoded()
    return played


# Where the money goes.


@pytest.mark.parametrize("bond", [10**15, 33, 32])
def test_half_the_bond_is_burnt_and_half_is_the_challengers(play: PlayOf, refuses: Refuses, bond: int) -> None:
    played = lie_about_the_sum(play(bond=bond)).commit().post().lock()
    federation, chain = played.federation, played.federation.chain
    stranger = chain.accounts[STRANGER]
    ((_, refuted), (_, slashed)) = challenge(played, "Aggregate", *played.against_aggregate(0))
    assert refuted["index"] == slashed["index"] == 0
    assert (slashed["burnt"], slashed["reward"]) == (bond - bond // 2, bond // 2)
    assert federation.call("burnt") == bond - bond // 2
    assert federation.call("rewardOf", stranger) == bond // 2
    assert balance(chain, federation.address) == 5 * bond
    purse = balance(chain, stranger)
    receipt = federation.send(stranger, "withdrawReward")
    fee = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert federation.events(receipt) == [("RewardWithdrawn", {"account": stranger.lower(), "amount": bond // 2})]
    assert balance(chain, stranger) == purse + bond // 2 - fee
    assert balance(chain, federation.address) == 5 * bond - bond // 2
    with refuses("FederationNothingToWithdraw"):
        federation.send(stranger, "withdrawReward")
    with refuses("FederationNothingToWithdraw"):
        federation.send(0, "withdrawReward")


def test_a_liar_that_catches_itself_still_loses_half(play: PlayOf) -> None:
    played = lie_about_the_sum(play(bond=10**15)).commit().post().lock()
    federation = played.federation
    challenge(played, "Aggregate", *played.against_aggregate(0), by=federation.founders[0])
    federation.send(0, "withdrawReward")
    assert balance(federation.chain, federation.address) == 4 * 10**15 + 5 * 10**14
    assert federation.call("burnt") == 5 * 10**14
    assert federation.call("memberAt", 0)["slashed"]


def test_the_first_challenger_is_paid_and_the_second_is_refused(play: PlayOf, refuses: Refuses, sign: Any) -> None:
    played = lie_about_the_result(lie_about_the_sum(play()))
    played.updates[4].leaves[5, 5] = 2**60
    played.all(closer=1)
    federation = played.federation
    pair = (*sign(federation, 3), *sign(federation, 3, participants=15))
    lies = {
        "Aggregate": (played.against_aggregate(0), ("FederationNoStatement",)),
        "Result": (played.against_result(0), ("FederationNoStatement",)),
        "Residue": (played.against_residue(4, 5), ("FederationAlreadySlashed", 4)),
        "Equivocation": (pair, ("FederationAlreadySlashed", 3)),
    }
    for name, (evidence, refusal) in lies.items():
        told = challenge(played, name, *evidence, by=8)
        assert told[-1][0] == "MemberSlashed"
        with refuses(*refusal):
            challenge(played, name, *evidence, by=STRANGER)
    half = federation.terms["bond"] // 2
    assert federation.call("rewardOf", federation.chain.accounts[8]) == 4 * half
    assert federation.call("rewardOf", federation.chain.accounts[STRANGER]) == 0
    assert federation.call("slashed") == 0b11011


def test_a_statement_falls_even_when_its_author_has_no_bond_left(play: PlayOf, sign: Any) -> None:
    played = lie_about_the_result(lie_about_the_sum(play())).all(closer=0)
    federation = played.federation
    told = challenge(played, "Equivocation", *sign(federation, 0), *sign(federation, 0, participants=15))
    assert [name for name, _ in told] == ["MemberSlashed"]
    told = challenge(played, "Aggregate", *played.against_aggregate(0))
    assert told == [("AggregateRefuted", {"round": 1, "attempt": 0, "group": 0, "index": 0})]
    told = challenge(played, "Result", *played.against_result(0))
    assert told == [("ResultRefuted", {"round": 1, "attempt": 0, "group": 0, "index": 0})]
    assert federation.call("burnt") == federation.terms["bond"] // 2
    assert federation.call("currentRound") == 1


@pytest.mark.parametrize("takes", [True, False])
def test_a_challenger_that_is_a_contract_is_paid_once_or_not_at_all(
    play: PlayOf, refuses: Refuses, takes: bool
) -> None:
    output = compile_sources({"Hunter.sol": HUNTER})["contracts"]["Hunter.sol"]["Hunter"]
    played = lie_about_the_sum(play(bond=10**15)).commit().post().lock()
    federation = played.federation
    account = federation.founders[1]
    created = "0x" + output["evm"]["bytecode"]["object"] + f"{int(takes):064x}"
    hunter = Web3.to_checksum_address(federation.transact(account, created, to=None)["contractAddress"])
    contract = Web3().eth.contract(hunter, abi=output["abi"])

    def speak(name: str, *arguments: Any) -> Any:
        words = bytes.fromhex(federation.encode(name, *arguments)[2:])
        data = contract.encode_abi("speak", [federation.address, words])
        return federation.events(federation.transact(account, data, hunter))

    # The verdict does not depend on whether the challenger can be paid.
    assert speak("challengeAggregate", *played.against_aggregate(0))[1][0] == "MemberSlashed"
    assert federation.call("rewardOf", hunter) == 5 * 10**14
    if not takes:
        with refuses("FederationTransferFailed"):
            speak("withdrawReward")
        assert federation.call("rewardOf", hunter) == 5 * 10**14
        return
    assert [name for name, _ in speak("withdrawReward")] == ["RewardWithdrawn"]
    assert balance(federation.chain, hunter) == 5 * 10**14
    assert balance(federation.chain, federation.address) == 4 * 10**15 + 5 * 10**14
    tried = [federation.eth_call({"to": hunter, "data": contract.encode_abi(name)}) for name in ("paid", "refused")]
    assert [int.from_bytes(count, "big") for count in tried] == [1, 1]


def test_every_coin_is_a_bond_a_reward_or_burnt(play: PlayOf, sign: Any) -> None:
    """A whole run with two slashes: what came in goes out, and what is left was burnt."""
    bond = 1001
    played = lie_about_the_sum(play(bond=bond, rounds=1, challengeWindow=50)).all(closer=1)
    federation, chain = played.federation, played.federation.chain
    stranger = chain.accounts[STRANGER]
    challenge(played, "Aggregate", *played.against_aggregate(0))
    challenge(played, "Equivocation", *sign(federation, 3), *sign(federation, 3, participants=15), by=2)
    chain.mine_at(chain.now + 50)
    for member in (1, 2, 4):
        federation.send(member, "withdrawBond")
    assert balance(chain, federation.address) == 2 * bond
    federation.send(stranger, "withdrawReward")
    federation.send(2, "withdrawReward")
    assert balance(chain, federation.address) == federation.call("burnt") == 2 * (bond - bond // 2)


# When it is possible.


def test_a_challenge_is_possible_as_long_as_bonds_are_held(play: PlayOf, refuses: Refuses) -> None:
    played = lie_about_the_sum(play(rounds=1, challengeWindow=5000)).all()
    free = played.federation.chain.now + 5000
    data = played.federation.encode("challengeAggregate", *played.against_aggregate(0))
    request = {"from": played.federation.chain.accounts[STRANGER], "to": played.federation.address, "data": data}
    played.federation.eth_call(request, at=free - 1)
    for name, evidence in (
        ("Aggregate", played.against_aggregate(0)),
        ("KeySum", played.against_key_sum(0)),
        ("Result", played.against_result(0)),
        ("Residue", played.against_residue(0, 0)),
    ):
        with refuses("FederationChallengeOver", free):
            challenge(played, name, *evidence, at=free)
    played.federation.send(0, "withdrawBond")


def test_nothing_can_be_challenged_before_the_run(play: PlayOf, found: Any, refuses: Refuses, sign: Any) -> None:
    federation = found(5)
    federation.enrol(2)
    with refuses("FederationNoStatement"):
        pair = (*sign(federation, 2), *sign(federation, 2, participants=15))
        federation.send(0, "challengeEquivocation", *pair)


# Who is not heard.


def test_a_slashed_member_is_not_heard_again(play: PlayOf, refuses: Refuses, sign: Any) -> None:
    played = play(aggregateWindow=100)
    federation = played.federation
    federation.send(stranger_of(federation), "challengeEquivocation", *pair_of(federation, sign, 2))
    every = {
        "commitUpdate": (1, 0, ONE, ONE, ONE),
        "postReceipt": (1, 0, 0),
        "commitAggregate": (1, 0, 0, 15, ONE, ONE, ONE),
        "publishOpening": (1, 0, 0, ONE, ONE),
        "commitResult": (1, 0, 0, 7, ONE, ONE, ONE, ONE, ONE, ONE),
        "voteToStop": (1, ONE),
        "restateAggregate": (1, 0, 31, ONE, ONE, ONE),
    }
    for name, arguments in every.items():
        with refuses("FederationSlashed", 2):
            federation.send(2, name, *arguments)
    with refuses("FederationNothingToWithdraw"):
        federation.send(2, "withdrawBond", at=federation.chain.now + 10**7)
    seen = federation.call("memberAt", 2)
    assert seen["slashed"] and seen["standing"] and not seen["bonded"]
    assert (federation.call("slashed"), federation.call("bonded")) == (0b00100, 0b11011)


def pair_of(federation: Any, sign: Any, account: int) -> tuple[Any, ...]:
    return (*sign(federation, account), *sign(federation, account, participants=15))


def test_a_slashed_members_turn_passes_and_it_does_not_count_in_the_next_round(
    play: PlayOf, refuses: Refuses, sign: Any
) -> None:
    played = play(trainingWindow=600, receiptWindow=300, aggregateWindow=100)
    federation, chain = played.federation, played.federation.chain
    federation.send(1, "challengeEquivocation", *pair_of(federation, sign, 0))
    for member in (4, 3, 2, 1):
        federation.commit(member)
    start = federation.call("roundAt", 1)["startedAt"]
    assert federation.call("standing") == 0b11111
    assert federation.call("phaseOf", 1) == TRAINING  # it counts: everyone else waits for the deadline
    chain.mine_at(start + 600)
    for member in (4, 3, 2, 1):
        federation.receipt(member, 0b11110)
    assert federation.call("phaseOf", 1) == RECEIPTS
    chain.mine_at(start + 900)
    assert federation.call("aggregatorNow") == 0
    with refuses("FederationSlashed", 0):
        federation.aggregate(0, 0b11110)
    with refuses("FederationNotAggregator", 0):
        federation.aggregate(1, 0b11110)
    federation.aggregate(1, 0b11110, at=start + 1000)
    for member in (1, 2, 3):
        federation.open(member)
    federation.close(4)
    assert federation.call("standing") == 0b11110
    for member in (1, 2, 3, 4):
        federation.commit(member, 2)
    assert federation.call("phaseOf", 2) == RECEIPTS  # nobody waits for it any more
    for member in (1, 2, 3, 4):
        federation.receipt(member, 0b11110, 2)
    turns = [federation.call("aggregatorNow", at=chain.now + 100 * turn) for turn in range(4)]
    assert turns == [2, 3, 4, 1]


def test_slashing_never_moves_a_phase_back(play: PlayOf, sign: Any) -> None:
    """In every phase, with windows so long that only everyone's word ends them."""
    windows = {"trainingWindow": 10**6, "receiptWindow": 10**6, "aggregateWindow": 10**6}
    for phase in (TRAINING, RECEIPTS, AGGREGATING, OPENING, CLOSING):
        played = play(**windows)
        federation = played.federation
        if phase >= RECEIPTS:
            played.commit()
        if phase >= AGGREGATING:
            played.post()
        if phase >= OPENING:
            played.lock()
        if phase >= CLOSING:
            played.open(4, 3, 2)
        assert federation.call("phaseOf", 1) == phase
        federation.send(1, "challengeEquivocation", *pair_of(federation, sign, 3))
        assert federation.call("phaseOf", 1) == phase


def test_a_rolled_back_round_stays_in_closing_whoever_counts_by_then(play: PlayOf, sign: Any) -> None:
    windows = {"trainingWindow": 10**6, "receiptWindow": 10**6}
    played = lie_about_the_result(play(**windows)).commit().post()
    federation = played.federation
    federation.send(1, "challengeEquivocation", *pair_of(federation, sign, 3))
    played.lock().open(4, 2, 1)
    played.openers = [4, 2, 1]
    played.close(1)
    assert federation.call("standing") == 0b10111
    challenge(played, "Result", *played.against_result(0))
    assert federation.call("phaseOf", 1) == CLOSING
    assert federation.call("standing") == 0b10111


# Too few are left.


def test_a_run_with_too_few_left_is_finished_and_bonds_are_free(play: PlayOf, refuses: Refuses, sign: Any) -> None:
    played = play(members=3, threshold=2, challengeWindow=500)
    federation = played.federation
    federation.send(1, "challengeEquivocation", *pair_of(federation, sign, 0))
    slashed_at = federation.chain.now
    assert federation.call("phaseOf", 1) == FINISHED
    with refuses("FederationWrongPhase", FINISHED):
        federation.commit(1)
    with refuses("FederationBondLocked", slashed_at + 500):
        federation.send(1, "withdrawBond", at=slashed_at + 499)
    federation.send(1, "withdrawBond", at=slashed_at + 500)
    with refuses("FederationChallengeOver", slashed_at + 500):
        federation.send(1, "challengeEquivocation", *pair_of(federation, sign, 2))
    federation.send(2, "withdrawBond")
    federation.send(1, "withdrawReward")
    assert balance(federation.chain, federation.address) == federation.call("burnt") == federation.terms["bond"] // 2


def test_a_locked_round_goes_on_while_those_left_can_finish_it(play: PlayOf, refuses: Refuses, sign: Any) -> None:
    played = play(members=3, threshold=2, challengeWindow=500).commit().post().lock()
    federation = played.federation
    federation.send(1, "challengeEquivocation", *pair_of(federation, sign, 0))
    assert federation.call("phaseOf", 1) == OPENING
    federation.send(1, "challengeEquivocation", *pair_of(federation, sign, 2))
    slashed_at = federation.chain.now
    assert federation.call("phaseOf", 1) == FINISHED  # one member cannot open what needs two
    federation.send(1, "withdrawBond", at=slashed_at + 500)

    played = play(members=3, threshold=2, challengeWindow=500).commit().post().lock().open(2)
    federation = played.federation
    federation.send(1, "challengeEquivocation", *pair_of(federation, sign, 0))
    federation.send(1, "challengeEquivocation", *pair_of(federation, sign, 2))
    assert federation.call("phaseOf", 1) == OPENING  # what was opened was opened
    played.open(1)
    played.openers = [2, 1]
    federation.chain.mine_at(federation.chain.now + 10_000)
    played.close(1)
    closed_at = federation.chain.now
    assert [federation.call("phaseOf", round) for round in (1, 2)] == [CLOSED, FINISHED]
    with refuses("FederationBondLocked", closed_at + 500):
        federation.send(1, "withdrawBond", at=closed_at + 499)
    federation.send(1, "withdrawBond", at=closed_at + 500)

    played = play(members=3, threshold=2, challengeWindow=500).commit().post().lock().open()
    federation = played.federation
    for member in range(3):
        federation.send(stranger_of(federation), "challengeEquivocation", *pair_of(federation, sign, member))
    assert federation.call("phaseOf", 1) == FINISHED  # nobody is left to close it


# The sum is stated anew.


def test_a_refuted_sum_is_stated_anew_and_its_author_answers_for_it(play: PlayOf, refuses: Refuses) -> None:
    played = lie_about_the_sum(play(members=7, threshold=4)).commit().post().lock()
    federation = played.federation
    with refuses("FederationNoStatement"):
        played.restate(1)
    challenge(played, "Aggregate", *played.against_aggregate(0))
    kept = federation.call("aggregateOf", 1, 0)
    assert (kept["root"], kept["participants"]) == (ZERO, 0b1111111)
    assert federation.call("phaseOf", 1) == OPENING
    played.open(6, 5, 4)  # openings do not wait for it
    with refuses("FederationSlashed", 0):
        played.restate(0)
    with refuses("FederationNotMember", stranger_of(federation).lower()):
        played.restate(stranger_of(federation))
    with refuses("FederationEmptyDigest"):
        federation.send(1, "restateAggregate", 1, 0, 127, played.basis, ZERO, ONE)
    with refuses("FederationEmptyDigest"):
        federation.send(1, "restateAggregate", 1, 0, 127, played.basis, ONE, ZERO)
    for participants, basis in ((126, played.basis), (127, ONE), (127 | 1 << 64, played.basis)):  # as on a fork
        with refuses("FederationOtherBasis", played.basis):
            federation.send(1, "restateAggregate", 1, 0, participants, basis, ONE, ONE)
    played.aggregate.leaves[5, 5] ^= np.uint64(1)  # another lie
    ((name, said),) = federation.events(played.restate(1))
    assert (name, said["round"], said["attempt"], said["index"]) == ("AggregateRestated", 1, 0, 1)
    assert (said["root"], federation.call("aggregatorNow")) == (played.aggregate.root(), 1)
    told = challenge(played, "Aggregate", *played.against_aggregate(5))
    assert [(name, said["index"]) for name, said in told] == [("AggregateRefuted", 1), ("MemberSlashed", 1)]
    put_right(played).open(3).close(4)
    played.restate(3)  # in a closed round as well
    with refuses("FederationHonest"):
        challenge(played, "Aggregate", *played.against_aggregate(5))
    with refuses("FederationNoStatement"):
        played.restate(4)
    with refuses("FederationNoStatement"):
        federation.send(4, "restateAggregate", 2, 0, 127, played.basis, ONE, ONE)
    assert federation.call("phaseOf", 2) == TRAINING


def test_a_sum_is_restated_only_while_bonds_are_held(play: PlayOf, refuses: Refuses) -> None:
    played = lie_about_the_sum(play(rounds=1, challengeWindow=500)).all(closer=1)
    over = played.federation.chain.now + 500
    challenge(played, "Aggregate", *played.against_aggregate(0))
    played.federation.chain.mine_at(over)
    with refuses("FederationChallengeOver", over):
        put_right(played).restate(2)


# The model is rolled back.


def test_a_wrong_result_takes_the_round_back_to_closing_and_the_run_goes_on(play: PlayOf, refuses: Refuses) -> None:
    played = lie_about_the_result(play(rounds=2)).all(closer=3)
    federation = played.federation
    wrong = federation.call("model")
    assert wrong == played.model
    federation.stop(4, 2)
    federation.commit(1, 2)
    federation.commit(2, 2)
    before = federation.call("roundAt", 1)
    challenge(played, "Result", *played.against_result(0))
    assert (federation.call("currentRound"), federation.call("phaseOf", 1)) == (1, CLOSING)
    assert federation.call("phaseOf", 2) == PENDING
    assert federation.call("model") == federation.terms["genesisDigest"]
    assert federation.call("roundAt", 1) == before  # its set, its openings
    assert set(federation.call("resultOf", 1, 0).values()) == {0, ZERO}
    with refuses("FederationNoStatement"):
        challenge(played, "Result", *played.against_result(0))
    with refuses("FederationWrongRound", 1):
        federation.commit(0, 2)
    with refuses("FederationSlashed", 3):
        played.close(3)
    put_right(played).close(2)
    assert federation.call("model") == played.model != wrong
    begun = federation.call("roundAt", 2)
    fresh = {"committed": 0, "received": 0, "participants": 0, "opened": 0, "stopVotes": 0, "lastCommitAt": 0}
    assert begun == fresh | {"round": 2, "attempt": 1, "startedAt": federation.chain.now, "lastReceiptAt": 0}
    with refuses("FederationWrongAttempt", 1):
        federation.commit(1, 2, attempt=0)
    assert federation.call("standing") == 0b10111

    # Another attempt, and another model: other polynomials.
    second = play(federation, round=2, attempt=1, out=(3,), silent=(3,)).all(closer=4)
    for name, evidence in (
        ("Aggregate", second.against_aggregate(8)),
        ("KeySum", second.against_key_sum(8)),
        ("Result", second.against_result(500)),
    ):
        with refuses("FederationHonest"):
            challenge(second, name, *evidence)
    assert federation.call("phaseOf", 3) == FINISHED


def test_a_rollback_forgets_every_later_round(play: PlayOf, refuses: Refuses) -> None:
    played = lie_about_the_result(play(rounds=5, trainingWindow=600)).all(closer=3)
    federation = played.federation
    for round in (2, 3):
        federation.finish_round(round)
    federation.all_commit(4).all_post(4).lock(4)
    federation.open(0, 4)
    old = {round: federation.call("roundAt", round) for round in (2, 3, 4)}
    gas = int(federation.send(1, "challengeResult", *played.against_result(0))["gasUsed"], 16)
    assert federation.call("currentRound") == 1
    for round in (2, 3, 4, 5):
        assert federation.call("phaseOf", round) == PENDING
        with refuses("FederationWrongRound", 1):
            federation.call("roundAt", round)
        for view in ("aggregateOf", "resultOf"):
            assert set(federation.call(view, round, 0).values()) == {0, ZERO}
        assert federation.call("openingsOf", round, 0) == federation.call("basisOf", round, 0) == ZERO
        assert federation.call("receiptOf", round, 0, 0) == 0
        for name in ("Aggregate", "KeySum"):
            with refuses("FederationNoStatement"):
                challenge(played, name, round, 0, 0, [], [])
        with refuses("FederationNoStatement"):
            federation.send(2, "restateAggregate", round, 0, 31, ONE, ONE, ONE)
    put_right(played).close(2)
    for round in (2, 3, 4):
        begun = federation.call("roundAt", round)
        assert (begun["attempt"], begun["participants"], begun["opened"]) == (old[round]["attempt"] + 1, 0, 0)
        assert federation.call("openingsOf", round, 0) == ZERO
        others = [0, 1, 2, 4]
        for member in others:
            federation.commit(member, round, 1)
        for member in others:
            federation.receipt(member, 0b10111, round, 1)
        federation.aggregate(federation.call("aggregatorNow"), 0b10111, round, 1)
        for member in others:
            federation.open(member, round, 1)
        federation.close(0, round, 1)
    assert federation.call("roundAt", 5)["attempt"] == 0
    # Rolling back costs the same, however long the run: compare with one in which only the next round has its set.
    other = lie_about_the_result(play(rounds=5)).all(closer=3)
    other.federation.all_commit(2).all_post(2).lock(2)
    single = int(other.federation.send(1, "challengeResult", *other.against_result(0))["gasUsed"], 16)
    assert gas - single < 30_000


def test_attempts_go_on_from_the_live_one_and_from_rollback_to_rollback(play: PlayOf) -> None:
    played = lie_about_the_result(play(rounds=5, trainingWindow=600)).all(closer=3)
    federation, chain = played.federation, played.federation.chain
    chain.mine_at(chain.now + 2 * 600 + 5)  # two void attempts with nothing in them; the third is live
    assert federation.call("roundAt", 2)["attempt"] == 2
    challenge(played, "Result", *played.against_result(0))
    played.close(4)  # the same lie again
    assert federation.call("roundAt", 2)["attempt"] == 3
    challenge(played, "Result", *played.against_result(0))
    put_right(played).close(2)
    assert federation.call("roundAt", 2)["attempt"] == 4
    assert federation.call("slashed") == 0b11000


def test_a_run_that_was_finished_goes_on_after_a_rollback(play: PlayOf, refuses: Refuses) -> None:
    played = lie_about_the_result(play(rounds=2, challengeWindow=5000)).all(closer=3)
    federation, chain = played.federation, played.federation.chain
    federation.finish_round(2)
    finished = chain.now
    assert federation.call("phaseOf", 2) == CLOSED
    assert federation.call("phaseOf", 3) == FINISHED
    challenge(played, "Result", *played.against_result(0), at=finished + 4999)
    assert [federation.call("phaseOf", round) for round in (1, 2, 3)] == [CLOSING, PENDING, PENDING]
    with refuses("FederationBondLocked", NEVER):
        federation.send(0, "withdrawBond", at=finished + 10**7)
    put_right(played).close(2)
    assert federation.call("phaseOf", 2) == TRAINING


def test_votes_to_stop_fall_with_the_model_they_were_about(play: PlayOf) -> None:
    played = lie_about_the_result(play(rounds=9, challengeWindow=5000)).all(closer=3)
    federation = played.federation
    for member in (0, 1, 2):
        federation.stop(member, 2)
    assert federation.call("phaseOf", 2) == FINISHED
    challenge(played, "Result", *played.against_result(0))
    assert federation.call("phaseOf", 1) == CLOSING
    put_right(played).close(4)
    assert federation.call("phaseOf", 2) == TRAINING
    assert federation.call("roundAt", 2)["stopVotes"] == 0


def test_a_reopened_round_takes_further_openings_and_other_openers(play: PlayOf, refuses: Refuses) -> None:
    played = lie_about_the_result(play(rounds=2)).commit().post().lock().open(4, 3, 2).close(3)
    federation = played.federation
    challenge(played, "Result", *played.against_result(0))
    with refuses("FederationSlashed", 3):
        played.open(3)
    played.open(1)
    put_right(played).openers = [4, 3, 1]
    played.close(1)
    with refuses("FederationHonest"):
        challenge(played, "KeySum", *played.against_key_sum(17))
    assert federation.call("resultOf", 1, 0)["openers"] == 0b11010


def test_a_residue_of_a_forgotten_attempt_is_still_refuted(play: PlayOf, refuses: Refuses) -> None:
    played = lie_about_the_result(play(rounds=2)).all(closer=3)
    second = play(played.federation, round=2)
    second.updates[1].leaves[7, 7] = 2**60
    second.commit()
    challenge(played, "Result", *played.against_result(0))
    told = challenge(second, "Residue", *second.against_residue(1, 7))
    assert [(name, said["index"], said["rule"], said["round"]) for name, said in told] == [("MemberSlashed", 1, 4, 2)]


# Evidence that is not about the record.


def test_bent_evidence_is_refused_and_says_where(play: PlayOf, refuses: Refuses) -> None:
    """A true lie, and evidence with one thing wrong at a time."""
    played = lie_about_the_result(lie_about_the_sum(play(out=(1,))))
    played.key_sum.leaves[0, 0] = (int(played.key_sum.leaves[0, 0]) + 1) % 65521
    played.all(closer=3)

    def refused(name: str, what: str, evidence: tuple[Any, ...]) -> None:
        with refuses("FederationBadEvidence", what.encode().ljust(32, b"\0")):
            challenge(played, name, *evidence)

    round, group, leaf, lines, proofs = played.against_aggregate(0)
    stride = 16 + 4
    assert len(proofs) == 5 * stride
    refused("Aggregate", "leaf", (round, group, 9, lines, proofs))
    refused("Aggregate", "proofs", (round, group, leaf, lines, proofs[:-1]))
    refused("Aggregate", "proofs", (round, group, leaf, lines, [*proofs, ONE]))
    refused("Aggregate", "proofs", (round, group, leaf, lines, proofs[:-stride]))
    refused("Aggregate", "proofs", (round, group, leaf, [line for line in lines if line[0] != 2], proofs))
    refused("Aggregate", "proofs", (round, group, leaf, [*lines, lines[0]], proofs))
    refused("Aggregate", "aggregate", (round, group, 1, lines, proofs))
    for word in range(stride):
        refused("Aggregate", "aggregate", (round, group, leaf, lines, flipped(proofs, word)))
    for word in range(stride, 5 * stride, 7):
        refused("Aggregate", "commitments", (round, group, leaf, lines, flipped(proofs, word)))
    for i in range(5):
        refused("Aggregate", "commitments", (round, group, leaf, flipped_line(lines, i), proofs))
    refused("Aggregate", "commitments", (round, group, leaf, [line for line in lines if line[0] != 1], proofs))
    refused("Aggregate", "commitments", (round, group, leaf, [lines[1], lines[0], *lines[2:]], proofs))
    refused("Aggregate", "commitments", (round, group, leaf, [*lines, (9, ONE)], proofs))

    round, group, leaf, lines, proofs = played.against_key_sum(0)
    stride = 16 + 5
    refused("KeySum", "leaf", (round, group, 32, lines, proofs))
    refused("KeySum", "proofs", (round, group, leaf, lines, proofs[:-stride]))
    refused("KeySum", "proofs", (round, group, leaf, lines[1:], proofs))
    refused("KeySum", "key sum", (round, group, leaf, lines, flipped(proofs, 3)))
    refused("KeySum", "key sum", (round, group, leaf, lines, flipped(proofs, 20)))
    for word in range(stride, 4 * stride, 5):
        refused("KeySum", "openings", (round, group, leaf, lines, flipped(proofs, word)))
    refused("KeySum", "openings", (round, group, leaf, lines[:-1], proofs))
    refused("KeySum", "openings", (round, group, leaf, flipped_line(lines, 4), proofs))

    round, group, k, elements, lines, proofs = played.against_result(0)
    refused("Result", "leaf", (round, group, 9 * 64, elements, lines, proofs))
    refused("Result", "key sum", (round, group, k, elements[:-1], lines, proofs))
    refused("Result", "key sum", (round, group, k, elements[:-1] + b"\x07", lines, proofs))
    refused("Result", "proofs", (round, group, k, elements, lines, proofs[:-1]))
    refused("Result", "result", (round, group, k, elements, lines, flipped(proofs, 15)))
    refused("Result", "result", (round, group, k + 64, elements, lines, proofs))
    refused("Result", "commitments", (round, group, k, elements, lines, flipped(proofs, 20)))

    round, attempt, index, leaf, lines, proof = played.against_residue(2, 0)
    refused("Residue", "leaf", (round, attempt, index, 9, lines, proof))
    refused("Residue", "proofs", (round, attempt, index, leaf, lines, proof[:-1]))
    refused("Residue", "proofs", (round, attempt, index, leaf, lines, [*proof, *proof]))
    refused("Residue", "proofs", (round, attempt, index, leaf, [line for line in lines if line[0] != 2], proof))
    refused("Residue", "commitments", (round, attempt, index, leaf, lines, flipped(proof, 0)))
    refused("Residue", "commitments", (round, attempt, 3, leaf, lines, proof))
    for challenged in ((2, 0, 0), (1, 1, 0), (1, 0, 5), (1, 0, 64), (1, 0, 255)):
        with refuses("FederationNoStatement"):
            challenge(played, "Residue", *challenged, leaf, lines, proof)


def flipped(words: list[bytes], at: int) -> list[bytes]:
    bent = bytearray(words[at])
    bent[-1] ^= 1
    return [*words[:at], bytes(bent), *words[at + 1 :]]


def flipped_line(lines: list[tuple[int, bytes]], at: int) -> list[tuple[int, bytes]]:
    index, word = lines[at]
    return [*lines[:at], (index, bytes([word[0] ^ 1]) + word[1:]), *lines[at + 1 :]]
