"""Forge's fuzz and invariant tests of the contract (the Solidity files of this folder), and what they reached.

A campaign of random calls proves nothing while the calls are refused: each writes a table of what was called, done and
refused, and in which phase. Here the tables of its runs are added up, printed (`pytest -s`), and held to have reached
everything. Needs forge 1.7 (npm's `@foundry-rs/forge-*`, which `make setup` installs on Linux x86-64; else
FEDCHAIN_FORGE or the PATH) and the compiler that the build uses; without them these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_abi import decode
from eth_utils.abi import function_abi_to_4byte_selector

from fedchain.chain.artifacts import load_artifact
from fedchain.chain.build import find_solc
from fedchain.errors import UsageError

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[3]
WORK = ROOT / "build" / "forge"  # forge may write here alone
PHASES = ("Enrolling", "Training", "Receipts", "Aggregating", "Opening", "Closing", "Closed", "Pending", "Finished")
NOT_CURRENT = {"Closed", "Pending"}  # phases of other rounds than the current one; asserted after every call
DEPTH = 200  # calls a run (foundry.toml)
CHANGING = {"nonpayable", "payable"}
SENT = (  # every function that changes anything
    *("enrol", "resign", "rotateKey", "withdrawBond", "withdrawReward", "commitUpdate", "commitUpdates", "postReceipt"),
    *("postReceipts", "complain", "commitAggregate", "publishOpening", "publishOpenings", "commitResult", "voteToStop"),
    *("challengeAggregate", "challengeKeySum", "challengeResult", "challengeResidue", "challengeEquivocation"),
    *("restateAggregate", "demandPage", "showPage", "closeDemand"),
    *("voteToAdmit", "voteToRemove", "voteToAbandon", "voteToRefuse"),
)


def forge() -> Path:
    """FEDCHAIN_FORGE, PATH, or what `make setup` installed."""
    named = os.environ.get("FEDCHAIN_FORGE") or shutil.which("forge")
    if named:
        return Path(named)
    installed = sorted((ROOT / "devnet" / "node_modules" / "@foundry-rs").glob("forge-*/bin/forge"))
    if not installed:
        pytest.skip("no forge: `make setup` installs it on Linux x86-64; else put Foundry's forge on the PATH")
    return installed[0]


def run(contract: str, **settings: object) -> str:
    """What forge says of this test contract; a failure of one of its tests fails this test."""
    binary = forge()
    try:
        solc = find_solc()
    except UsageError as missing:
        pytest.skip(str(missing))
    WORK.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FOUNDRY_", "DAPP_"))}
    environment |= {"FOUNDRY_CONFIG": str(HERE / "foundry.toml"), "FOUNDRY_SOLC": str(solc), "NO_COLOR": "1"}
    environment |= {name: str(value) for name, value in settings.items()}
    command = [str(binary), "test", "--root", str(ROOT), "--match-contract", f"^{contract}$", "--threads", "1"]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, f"{said.stdout[-6000:]}\n{said.stderr[-2000:]}"
    return said.stdout


@dataclass
class Campaign:
    """What the calls of many runs came to."""

    calls: Counter[tuple[str, str]]  # (function, the error it was refused with, or "")
    phases: Counter[str]  # in which the calls came

    def done(self) -> set[str]:
        return {function for (function, error), count in self.calls.items() if not error and count}

    def report(self) -> str:
        """The table of contracts/README.md."""
        lines = ["| function | called | done | refused with |", "|---|---|---|---|"]
        for name in SENT:
            refused = Counter({e: n for (f, e), n in self.calls.items() if f == name and e})
            total, done = sum(refused.values()) + self.calls[name, ""], self.calls[name, ""]
            reasons = ", ".join(f"{e.removeprefix('Federation')} {n:,}" for e, n in refused.most_common(4))
            more = f", {len(refused) - 4} more" if len(refused) > 4 else ""
            lines.append(f"| `{name}` | {total:,} | {done:,} | {reasons}{more} |")
        reached = ", ".join(f"{phase} {self.phases[phase]:,}" for phase in PHASES if phase not in NOT_CURRENT)
        return "\n".join([*lines, "", f"Calls in each phase: {reached}."])


def play(contract: str, runs: int) -> Campaign:
    """Plays this many runs of an invariant test, `DEPTH` calls of its handler each."""
    table = WORK / f"{contract}.txt"
    table.unlink(missing_ok=True)
    said = run(contract, FOUNDRY_INVARIANT_RUNS=runs, FORGE_TABLE=table)
    assert f"(runs: {runs}, calls: {runs * DEPTH}, reverts: 0)" in said, said
    names = {
        function_abi_to_4byte_selector(entry): entry["name"]
        for entry in load_artifact().abi
        if entry["type"] in {"function", "error"}
    } | {bytes(4): ""}
    calls, phases = Counter[tuple[str, str]](), Counter[str]()
    for line in table.read_text(encoding="utf-8").splitlines():
        kinds, counts, seen = decode(["bytes32[]", "uint256[]", "uint256[9]"], bytes.fromhex(line[2:]))
        for kind, count in zip(kinds, counts, strict=True):
            calls[names[kind[:4]], names[kind[4:8]]] += count
        phases += Counter(dict(zip(PHASES, seen, strict=True)))
    campaign = Campaign(calls, phases)
    (WORK / f"{contract}.md").write_text(campaign.report() + "\n", encoding="utf-8")
    print(f"\n{contract}: {runs} runs of {DEPTH} calls\n{campaign.report()}")
    return campaign


def test_single_rules_hold_for_any_input() -> None:
    assert "6 passed" in run("FuzzTest", FOUNDRY_FUZZ_RUNS=50)


@pytest.mark.parametrize("contract", ["FiveTest", "SevenTest"])
def test_what_must_be_true_is_true_after_any_calls(contract: str) -> None:
    campaign = play(contract, runs=6)
    assert set(PHASES) - NOT_CURRENT <= set(campaign.phases)
    assert len(campaign.done()) > len(SENT) / 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("contract", ["FiveTest", "SevenTest"])
def test_it_is_true_after_100_000_calls_that_do_everything(contract: str) -> None:
    campaign = play(contract, runs=500)
    assert set(PHASES) - NOT_CURRENT <= set(campaign.phases)
    assert campaign.done() == set(SENT)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_single_rules_hold_for_a_thousand_inputs() -> None:
    assert "6 passed" in run("FuzzTest", FOUNDRY_FUZZ_RUNS=1000)


def test_every_function_that_changes_anything_is_played() -> None:
    changing = {e["name"] for e in load_artifact().abi if e["type"] == "function" and e["stateMutability"] in CHANGING}
    assert changing == set(SENT)
