"""Bonds: what goes in comes out, once, to the one who paid it; and nothing else ever moves."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from web3 import Web3

from fedchain.chain.build import compile_sources

BOND = 10**15
GREEDY = """// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

interface IFederation {
    function enrol(bytes32 encryptionKey, uint32 weight) external payable;
    function withdrawBond() external;
}

/// A member that is a contract, and asks for its bond again while it is being paid.
contract Greedy {
    uint256 public paid;
    uint256 public refused;

    function enrol(IFederation federation) external payable {
        federation.enrol{value: msg.value}(bytes32(uint256(1)), 1);
    }

    function speak(address federation, bytes calldata words) external {
        (bool heard, bytes memory answer) = federation.call(words);
        if (!heard) assembly { revert(add(answer, 32), mload(answer)) }
    }

    receive() external payable {
        paid += 1;
        try IFederation(msg.sender).withdrawBond() {} catch { refused += 1; }
    }
}
"""

Found = Callable[..., Any]
Refuses = Callable[..., Any]


def balance(chain: Any, account: str) -> int:
    return int(chain.rpc("eth_getBalance", account, "latest"), 16)


def test_a_bond_goes_back_whole_to_who_paid_it(found: Found) -> None:
    federation = found(5, rounds=1, challengeWindow=1, bond=BOND).all_enrol()
    chain = federation.chain
    assert balance(chain, federation.address) == 5 * BOND
    federation.finish_round()
    chain.mine_at(chain.now + 1)
    for member in (3, 0, 4, 1, 2):
        before = balance(chain, federation.founders[member])
        receipt = federation.send(member, "withdrawBond")
        fee = int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
        assert balance(chain, federation.founders[member]) == before + BOND - fee
        assert federation.events(receipt) == [("BondWithdrawn", {"index": member, "amount": BOND})]
        assert not federation.call("memberAt", member)["bonded"]
        assert federation.call("memberAt", member)["standing"]
    assert balance(chain, federation.address) == 0


def test_who_leaves_before_the_run_is_a_founder_again_and_may_come_back(found: Found, refuses: Refuses) -> None:
    federation = found(5, threshold=3, enrolWindow=1000, challengeWindow=5000, bond=BOND)
    for member in range(3):
        federation.enrol(member)
    federation.send(1, "withdrawBond", at=federation.founded_at + 6000)
    gone = federation.call("memberAt", 1)
    assert (gone["standing"], gone["bonded"], gone["weight"], gone["encryptionKey"]) == (False, False, 0, bytes(32))
    assert federation.call("standing") == federation.call("bonded") == 0b00101
    with refuses("FederationNothingToWithdraw"):
        federation.send(1, "withdrawBond")
    federation.enrol(3)
    assert federation.call("phaseOf", 1) == 0  # three with a stake are not enough: the one who left does not count
    federation.enrol(1)
    assert federation.call("phaseOf", 1) == 1
    assert federation.call("standing") == federation.call("bonded") == 0b01111
    assert balance(federation.chain, federation.address) == 4 * BOND


def test_nobody_takes_a_bond_while_the_run_goes_on(found: Found, refuses: Refuses) -> None:
    federation = found(5, challengeWindow=1).all_enrol()
    for second in (0, 10**5, 10**8):
        with refuses("FederationBondLocked", 2**256 - 1):
            federation.send(0, "withdrawBond", at=federation.chain.now + second)


def test_a_member_that_asks_again_while_it_is_paid_gets_one_bond(found: Found, refuses: Refuses) -> None:
    output = compile_sources({"Greedy.sol": GREEDY})["contracts"]["Greedy.sol"]["Greedy"]
    probe = found(3, threshold=2)  # any federation knows how to send
    deployed = probe.transact(probe.founders[0], "0x" + output["evm"]["bytecode"]["object"], to=None)
    greedy = Web3.to_checksum_address(deployed["contractAddress"])
    contract = Web3().eth.contract(greedy, abi=output["abi"])

    federation = found(founders=[*probe.founders, greedy], threshold=3, rounds=1, challengeWindow=1, bond=BOND)
    for member in range(3):
        federation.enrol(member)
    federation.transact(federation.founders[0], contract.encode_abi("enrol", [federation.address]), greedy, value=BOND)

    def speak(name: str, *arguments: Any) -> dict[str, Any]:
        words = bytes.fromhex(federation.encode(name, *arguments)[2:])
        data = contract.encode_abi("speak", [federation.address, words])
        told: dict[str, Any] = federation.transact(federation.founders[0], data, greedy)
        return told

    for member in range(3):
        federation.commit(member)
    speak("commitUpdate", 1, 0, b"\x01" * 32, b"\x01" * 32, b"\x01" * 32)
    for member in range(3):
        federation.receipt(member, 15)
    speak("postReceipt", 1, 0, 15)
    federation.aggregate(0, 15)
    for member in range(3):
        federation.open(member)
    federation.close(0)
    federation.chain.mine_at(federation.chain.now + 1)

    receipt = speak("withdrawBond")
    assert federation.events(receipt) == [("BondWithdrawn", {"index": 3, "amount": BOND})]
    assert balance(federation.chain, greedy) == BOND
    assert balance(federation.chain, federation.address) == 3 * BOND
    tried = {
        name: int.from_bytes(federation.eth_call({"to": greedy, "data": contract.encode_abi(name)}), "big")
        for name in ("paid", "refused")
    }
    assert tried == {"paid": 1, "refused": 1}
    with refuses("FederationNothingToWithdraw"):
        speak("withdrawBond")
    for member in range(3):
        federation.send(member, "withdrawBond")
    assert balance(federation.chain, federation.address) == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_balance_is_the_bonds_that_are_here_at_every_moment(found: Found, seed: int) -> None:
    chosen = random.Random(seed)
    federation = found(4, threshold=3, enrolWindow=50, challengeWindow=20, rounds=1, bond=BOND)
    chain, refused = federation.chain, 0
    for step in range(60):
        if step == 45:  # let the run begin, and end
            for member in range(4):
                if not federation.call("memberAt", member)["bonded"] and federation.call("phaseOf", 1) == 0:
                    federation.enrol(member)
            federation.finish_round()
        at = chain.now + chosen.choice((0, 1, 30))
        member = chosen.randrange(4)
        entering = step < 45 and federation.call("bonded", at=at).bit_count() < 3  # four would begin the run
        try:
            if entering and chosen.random() < 0.5:
                federation.enrol(member, at=at)
            else:
                federation.send(member, "withdrawBond", at=at)
        except federation.Refused:
            refused += 1
        members = [federation.call("memberAt", i) for i in range(4)]
        staked = sum(m["bonded"] for m in members)
        assert staked == federation.call("bonded").bit_count()
        assert balance(chain, federation.address) == staked * BOND
    assert 0 < refused < 60
    assert staked == 0
