"""Nobody owns a federation: whoever deployed it can do what any stranger can, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_hash.auto import keccak

from fedchain.chain.artifacts import load_artifact

ONE = b"\x01" * 32
DEPLOYER, STRANGER = 0, 8

Found = Callable[..., Any]

VIEWS = {"view", "pure"}
OPENING = (1, 0, 0, 31, ONE, ONE)
PAGE = (0, 0, 1, 0, 0, 0, 0, ONE)
# Every function that changes something, with arguments that are plausible somewhere in a run.
EVERY: dict[str, tuple[Any, ...]] = {
    "enrol": (ONE, 1),
    "resign": (),
    "rotateKey": (ONE,),
    "withdrawBond": (),
    "withdrawReward": (),
    "commitUpdate": (1, 0, ONE, ONE, ONE),
    "postReceipt": (1, 0, 31),
    "complain": (1, 0, 1, ONE),
    "commitAggregate": (1, 0, 0, 31, ONE, ONE, ONE),
    "publishOpening": (1, 0, 0, ONE, ONE),
    "commitResult": (1, 0, 0, 7, ONE, ONE, ONE, ONE, ONE, ONE),
    "commitUpdates": (1, 0, [(ONE, ONE, ONE, (ONE, ONE))]),
    "postReceipts": (1, 0, [(31, (ONE, ONE))]),
    "publishOpenings": (1, 0, 0, [(ONE, ONE, (ONE, ONE))]),
    "voteToStop": (1, ONE),
    "challengeAggregate": (1, 0, 0, [], []),
    "challengeKeySum": (1, 0, 0, [], []),
    "challengeResult": (1, 0, 0, b"", [], []),
    "challengeResidue": (1, 0, 0, 0, [], []),
    "challengeEquivocation": (OPENING, bytes(65), OPENING, bytes(65)),
    "restateAggregate": (1, 0, 31, ONE, ONE, ONE),
    "demandPage": (PAGE, []),
    "showPage": (PAGE, bytes(32), []),
    "closeDemand": (PAGE,),
    "voteToAdmit": ("0x" + "11" * 20,),
    "voteToRemove": (0,),
    "voteToAbandon": (1, 0),
    "voteToRefuse": (1, ONE),
}


def outcome(federation: Any, sender: str, name: str, at: int, value: int) -> Any:
    """What the contract says to this call: the refusal with its arguments, or the answer; who asks is written 'me'."""
    data = federation.encode(name, *EVERY[name])
    request = {"from": sender, "to": federation.address, "data": data, "value": hex(value)}
    try:
        return federation.eth_call(request, at=at)
    except federation.Refused as refused:
        return refused.name, tuple("me" if word == sender.lower() else word for word in refused.arguments)
    except federation.chain.Error as error:
        return str(error)


def stages(federation: Any) -> Any:
    """A run, stopped in every phase."""
    yield "Enrolling"
    federation.all_enrol()
    yield "Training"
    federation.all_commit()
    yield "Receipts"
    federation.all_post()
    yield "Aggregating"
    federation.lock()
    yield "Opening"
    for member in range(3):
        federation.open(member)
    yield "Closing"
    federation.close(0)
    yield "Finished"
    federation.chain.mine_at(federation.chain.now + federation.terms["challengeWindow"])
    yield "bonds are free"


def test_every_function_that_changes_something_is_tried() -> None:
    functions = [entry for entry in load_artifact().abi if entry["type"] == "function"]
    assert {entry["name"] for entry in functions if entry["stateMutability"] not in VIEWS} == set(EVERY)


def test_the_deployer_is_a_stranger_in_every_phase(found: Found, chain: Any) -> None:
    federation = found(founders=chain.accounts[1:6], threshold=3, rounds=1)
    deployer, stranger = chain.accounts[DEPLOYER], chain.accounts[STRANGER]
    assert federation.deployment["from"] == deployer.lower()
    tried = 0
    for stage in stages(federation):
        for name in EVERY:
            for value in {0, federation.terms["bond"], federation.call("demandDeposit")}:
                said = outcome(federation, deployer, name, chain.now, value)
                assert said == outcome(federation, stranger, name, chain.now, value), (stage, name, value)
                # What any account may do, it may do with evidence, or a deposit; here it has neither.
                assert not isinstance(said, bytes), (stage, name, value)
                tried += 1
    assert tried == 8 * 3 * len(EVERY)


def test_no_function_of_an_owner_is_answered(found: Found, chain: Any) -> None:
    federation = found(founders=chain.accounts[1:6], threshold=3)
    for words in (
        *("owner()", "transferOwnership(address)", "renounceOwnership()", "pause()", "unpause()", "upgradeTo(address)"),
        *("upgradeToAndCall(address,bytes)", "initialize()", "kill()", "destroy()", "withdraw()", "sweep(address)"),
        *("setCouncil(address)", "grantRole(bytes32,address)", "admin()", "implementation()", "proxiableUUID()"),
    ):
        data = "0x" + (keccak(words.encode())[:4] + bytes(96)).hex()
        with pytest.raises(chain.Error, match="revert"):
            federation.eth_call({"from": chain.accounts[DEPLOYER], "to": federation.address, "data": data})


def test_the_councils_own_address_holds_nothing_and_decides_nothing(found: Found, chain: Any) -> None:
    """Its code is asked in a federation's storage; asked directly, it has no members, no rounds and no bonds."""
    federation = found(founders=chain.accounts[1:6], threshold=3).all_enrol().finish_round()
    council = federation.call("council")
    for name, arguments in EVERY.items():
        for sender in (chain.accounts[DEPLOYER], federation.founders[0]):
            with pytest.raises((federation.Refused, chain.Error)):
                federation.eth_call({"from": sender, "to": council, "data": federation.encode(name, *arguments)})
    assert int(chain.rpc("eth_getBalance", council, "latest"), 16) == 0
