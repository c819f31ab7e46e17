"""The judge on chain and the judge in Python, given the same evidence: the same digests and verdicts, and the truth.

The cases come from `tests/evidence_cases.py`. A sample runs with every test run, a hundred thousand with the slow ones.
"""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any

import pytest
from eth_abi.abi import decode, encode
from eth_hash.auto import keccak

from fedchain.chain.artifacts import COUNCIL, load_artifact
from fedchain.chain.logs import abi_type, signature
from fedchain.protocol import evidence as ev
from fedchain.protocol.cid import digest_of_cid

FUNCTIONS = {
    "R1": "judgeAggregate",
    "R2": "judgeKeySum",
    "R3": "judgeResult",
    "R4": "judgeResidue",
    "R5": "judgeEquivocation",
}
CALLS_AT_ONCE = 50


class ChainJudge:
    """Judge.sol, as the council holds it, on an anvil, asked by eth_call."""

    def __init__(self, chain: Any) -> None:
        artifact = load_artifact(COUNCIL)
        self._chain = chain
        self._functions = {e["name"]: e for e in artifact.abi if e["type"] == "function"}
        creation = {"from": chain.accounts[0], "data": "0x" + artifact.bytecode.hex(), "gas": hex(8_000_000)}
        self._address = chain.receipt(chain.rpc("eth_sendTransaction", creation))["contractAddress"]

    def findings(self, cases: list[Any]) -> list[Any]:
        """What the contract finds in each case: a Finding (for R5 a pair), or the word of the refusal."""
        calls = [
            {"jsonrpc": "2.0", "id": i, "method": "eth_call", "params": [self._call(case), "latest"]}
            for i, case in enumerate(cases)
        ]
        answers = self._chain._http.post(self._chain.url, json=calls, timeout=120).json()
        by_id = {answer["id"]: answer for answer in answers}
        return [self._found(case, by_id[i]) for i, case in enumerate(cases)]

    def _call(self, case: Any) -> dict[str, str]:
        entry = self._functions[FUNCTIONS[case.rule]]
        types = [abi_type(i) for i in entry["inputs"]]
        data = keccak(signature(entry).encode())[:4] + encode(types, words(case))
        return {"to": self._address, "data": "0x" + data.hex(), "gas": hex(100_000_000)}

    def _found(self, case: Any, answer: dict[str, Any]) -> Any:
        if "error" in answer:
            data = bytes.fromhex((answer["error"].get("data") or "0x")[2:])
            assert data[:4] == keccak(b"FederationBadEvidence(bytes32)")[:4], (case, answer)
            return decode(["bytes32"], data[4:])[0].rstrip(b"\0").decode()
        result = bytes.fromhex(answer["result"][2:])
        if case.rule == "R5":
            signer, faulty = decode(["address", "bool"], result)
            return signer, faulty
        claim, key_sum, listed, faulty = decode(["(bytes32,bytes32,bytes32,bool)"], result)[0]
        return ev.Finding(claim=claim, key_sum=key_sum, list=listed, faulty=faulty)


def words(case: Any) -> tuple[Any, ...]:
    """A case's arguments in the ABI's order."""
    if case.rule == "R5":
        _, federation, challenge = case.arguments
        both = challenge.first, challenge.second
        said = [(s.round, s.attempt, s.group, s.participants, s.root, digest_of_cid(s.cid)) for s in both]
        return federation, said[0], challenge.first_signature, said[1], challenge.second_signature
    *before, lines, proofs = case.arguments
    listed = [(line.index, line.word) for line in lines]
    if case.rule == "R2":
        return *before, listed, list(proofs)
    place, *rest = before
    where = (place.federation, place.round, place.attempt, place.participants, place.model_size, place.base_model)
    return (*where, list(place.accounts)), *rest, listed, list(proofs)


def lowered(found: Any) -> Any:
    """The signer's address as both sides write it."""
    return (found[0].lower(), found[1]) if isinstance(found, tuple) else found


def compare(
    chain: Any, evidence_cases: ModuleType, seed: int, count: int, rule: str | None = None
) -> Counter[tuple[str, str]]:
    judge = ChainJudge(chain)
    cases = evidence_cases.Cases(seed, chain.chain_id)
    tally: Counter[tuple[str, str]] = Counter()
    for _ in range(0, count, CALLS_AT_ONCE):
        drawn = [cases.draw(rule) for _ in range(CALLS_AT_ONCE)]
        for case, found in zip(drawn, judge.findings(drawn), strict=True):
            evidence_cases.check(case)
            assert lowered(found) == lowered(evidence_cases.judged(case)), case
            tally[case.rule, case.kind] += 1
    return tally


def test_both_judges_find_the_same(chain: Any, evidence_cases: ModuleType) -> None:
    tally = compare(chain, evidence_cases, seed=1, count=300)
    for rule in evidence_cases.RULES:
        assert len({kind for of, kind in tally if of == rule}) >= 4, tally


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rule", FUNCTIONS)
def test_both_judges_find_the_same_in_twenty_thousand_cases_of_each_rule(
    chain: Any, evidence_cases: ModuleType, rule: str
) -> None:
    tally = compare(chain, evidence_cases, seed=2, count=20_000, rule=rule)
    assert min(tally.values()) >= 100, tally
