"""What every transaction of a federation costs in gas, on anvil: `python bench/gas.py`.

Beside each figure stands the plain one, measured in the same run: the same calldata sent to a contract that writes it
into an event and keeps nothing. That is what saying the same words on chain costs any protocol; the rest is what this
contract remembers and checks.

    statements   in a round of ten members, the second one: words that were written before cost less to write again
    rounds       of 3, 5, 10 and 20 members, everyone speaking for itself, or in batches of signed lines
    challenges   and demands, for 10 and 64 members and 1,000,000 parameters; trees of that size are not built: a leaf
                 and any siblings make a root, and the contract cannot tell
    sizes        of the code, in bytes

The federations are those of the contract's tests (tests/evm/contract/conftest.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from fedchain.chain.artifacts import COUNCIL, FEDERATION, load_artifact

TESTS = Path(__file__).parents[1] / "tests" / "evm"
ROUNDS = (3, 5, 10, 20)
BATCHES = (5, 10, 20)
PARAMETERS = 1_000_000
BARE_TRANSACTION = 21_000
# calldatacopy(0, 0, calldatasize()); log1(0, calldatasize(), 1)
SAYS_ONLY = "0x600d600c600039600d6000f336600060003760013660 00a100".replace(" ", "")
LIMITS = {  # of issue 3, item 6
    "a member's commit, receipt and opening": 110_000,
    "the same in batches of 5": 60_000,
    "the same in batches of 10": 60_000,
    "the same in batches of 20": 60_000,
    "challengeAggregate, 10 members": 450_000,
    "challengeResult, 10 members": 1_500_000,
    "bytes of Federation": 24_575,
    "bytes of Council": 24_575,
    "bytes of the deployment with 64 founders": 49_152,
}

Found = Callable[..., Any]
Figures = dict[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description="Gas of each transaction, beside an event with the same words")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "gas.json")
    options = parser.parse_args()
    with federations() as found:
        bench = Bench(found)
        bench.measure()
    report(bench)
    figures = bench.limited()
    result = {
        "gas": bench.gas,
        "plain": bench.plain,
        "ratio": {what: round(bench.gas[what] / bench.plain[what], 2) for what in bench.plain},
        "bare_transaction": BARE_TRANSACTION,
        "rounds": bench.rounds,
        "limits": {what: {"figure": figures[what], "limit": most} for what, most in LIMITS.items()},
        "not_met": [what for what, most in LIMITS.items() if figures[what] > most],
        "compiler": load_artifact().compiler,
        "artifact": load_artifact().artifact_hash,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def load(path: str) -> ModuleType:
    """A module of the tests, which are no package."""
    name = f"bench_{Path(path).parent.name}_{Path(path).stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TESTS / path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@contextmanager
def federations() -> Iterator[Found]:
    """`found(10, threshold=6)`: a federation of ten on an anvil that ends with this."""
    stage = load("contract/conftest.py")
    anvil = load("conftest.py").launch_anvil(accounts=66)

    def found(members: int, **terms: Any) -> Any:
        return stage.Deployed(anvil, anvil.accounts[:members], stage.TERMS | terms)

    try:
        yield found
    finally:
        anvil.stop()


class Bench:
    """The figures, by what they are of."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.gas: Figures = {}
        self.plain: Figures = {}
        self.rounds: dict[int, Figures] = {}
        self._logger = ""

    def measure(self) -> None:
        self.membership()
        self.statements()
        for members in ROUNDS:
            self.round(members)
        self.votes()
        self.challenges()
        self.demands()
        self.sizes()

    # ---------------------------------------------------------------- keeping figures

    def keep(self, what: str, *receipts: Any) -> int:
        """The dearest of these transactions, and what its words alone cost."""
        dearest = max(receipts, key=lambda receipt: int(receipt["gasUsed"], 16))
        self.gas[what] = int(dearest["gasUsed"], 16)
        if dearest["to"]:
            self.plain[what] = self.plainly(dearest)
        return self.gas[what]

    def plainly(self, receipt: Any) -> int:
        """The gas of the same calldata in an event."""
        chain = self.chain
        if not self._logger:
            request = {"from": chain.accounts[0], "data": SAYS_ONLY, "gas": hex(200_000)}
            self._logger = chain.receipt(chain.rpc("eth_sendTransaction", request))["contractAddress"]
        said = chain.rpc("eth_getTransactionByHash", receipt["transactionHash"])["input"]
        request = {"from": chain.accounts[0], "to": self._logger, "data": said, "gas": hex(16_000_000)}
        return int(chain.receipt(chain.rpc("eth_sendTransaction", request))["gasUsed"], 16)

    def federation(self, members: int, **terms: Any) -> Any:
        federation = self.found(members, threshold=members // 2 + 1, **terms)
        self.chain = federation.chain
        return federation

    # ---------------------------------------------------------------- what is measured

    def membership(self) -> None:
        for members in (64, 10):
            federation = self.federation(members, challengeWindow=1000)
            self.keep(f"deploy with {members} founders", federation.deployment)
        self.keep("enrol", *[federation.enrol(member) for member in range(10)])
        self.keep("rotateKey", federation.send(2, "rotateKey", b"\x09" * 32))
        self.keep("resign", federation.send(3, "resign"))
        federation.chain.mine_at(federation.chain.now + 2 * 10**9)
        self.keep("withdrawBond", federation.send(4, "withdrawBond"))

    def statements(self) -> None:
        federation = self.federation(10).all_enrol().finish_round()
        whole = federation.everyone()
        commits = [federation.commit(member, 2) for member in range(10)]
        self.keep("commitUpdate, first of an attempt", commits[0])
        self.keep("commitUpdate", *commits[1:])
        receipts = [federation.receipt(member, whole if member else whole ^ 1, 2) for member in range(10)]
        self.keep("postReceipt, first of an attempt, one update left out", receipts[0])
        self.keep("postReceipt", *receipts[1:])
        self.keep("commitAggregate", federation.aggregate(1, whole, 2))
        openings = [federation.open(member, 2) for member in range(10)]
        self.keep("publishOpening, first", openings[0])
        self.keep("publishOpening", *openings[1:])
        self.keep("commitResult", federation.close(0, 2))
        self.keep("voteToStop", federation.stop(0, 3))

    def round(self, members: int) -> None:
        """The second round, everyone speaking for itself; and in batches."""
        federation = self.federation(members).all_enrol().finish_round()
        whole, everyone = federation.everyone(), range(members)
        singles = [federation.commit(member, 2) for member in everyone]
        singles += [federation.receipt(member, whole, 2) for member in everyone]
        others = [federation.aggregate(1, whole, 2)]
        singles += [federation.open(member, 2) for member in everyone]
        others.append(federation.close(0, 2))
        each, rest = (sum(int(receipt["gasUsed"], 16) for receipt in said) for said in (singles, others))
        self.rounds[members] = {"total": each + rest, "a member": each // members, "sum and result": rest}
        self.gas[f"a round of {members}"] = each + rest
        self.plain[f"a round of {members}"] = sum(self.plainly(receipt) for receipt in singles + others)
        if members in BATCHES:
            said = self.batches(federation, members, round=3)
            batched = sum(self.gas[f"{name}, {members} lines"] for name in said)
            self.rounds[members] |= {"a member in batches": batched // members, "total in batches": batched + rest}

    def batches(self, federation: Any, members: int, round: int) -> tuple[str, ...]:
        whole, words = federation.everyone(), [bytes([member + 1]) * 32 for member in range(members)]
        names = ("commitUpdates", "postReceipts", "publishOpenings")

        def say(name: str, place: tuple[int, ...], lines: list[Any]) -> None:
            self.keep(f"{name}, {members} lines", federation.send(0, name, *place, lines))

        say(
            names[0],
            (round, 0),
            [(w, w, w, federation.line(i, "Update", round, 0, w, w, w)) for i, w in enumerate(words)],
        )
        say(names[1], (round, 0), [(whole, federation.line(i, "Receipt", round, 0, whole)) for i in range(members)])
        federation.aggregate(federation.call("aggregatorNow"), whole, round)
        lines = [(w, w, federation.line(i, "Opening", round, 0, 0, whole, w, w)) for i, w in enumerate(words)]
        say(names[2], (round, 0, 0), lines)
        return names

    def votes(self) -> None:
        federation = self.federation(10).all_enrol().finish_round()
        newcomer, model = federation.chain.accounts[60], federation.call("model")

        def ballot(name: str, *arguments: Any) -> None:
            said = [federation.send(member, name, *arguments) for member in range(6)]
            self.keep(f"{name}, the first vote", said[0])
            self.keep(f"{name}, the next ones", *said[1:5])
            self.keep(f"{name}, the last one", said[5])

        ballot("voteToAdmit", newcomer)
        ballot("voteToRemove", 9)
        federation.lock_round(2)
        ballot("voteToAbandon", 2, 0)
        ballot("voteToRefuse", 1, model)

    def challenges(self) -> None:
        costs = load("contract/disputes/test_disputes_gas.py").costs
        for members in (10, 64):
            federation = self.federation(members, modelSize=PARAMETERS).all_enrol()
            for name, gas in costs(federation).items():
                self.gas[f"{name}, {members} members"] = gas
            if members == 10:
                statements = [(1, 0, 0, 31, bytes([word]) * 32, bytes(32)) for word in (7, 8)]
                signed = [(said, federation.signed(3, "Opening", *said).signature) for said in statements]
                self.keep("challengeEquivocation", federation.send(2, "challengeEquivocation", *signed[0], *signed[1]))

    def demands(self) -> None:
        gas = load("contract/demands/test_demands_gas.py").costs
        for members in (10, 64):
            federation = self.federation(members, modelSize=PARAMETERS, challengeWindow=8000).all_enrol()
            self.gas |= gas(federation)

    def sizes(self) -> None:
        for name in (FEDERATION, COUNCIL):
            self.gas[f"bytes of {name}"] = len(load_artifact(name).deployed_bytecode)
        words = 14 + 1 + 1 + 64  # the terms, where the founders begin, how many, and who
        self.gas["bytes of the deployment with 64 founders"] = len(load_artifact().bytecode) + 32 * words

    def limited(self) -> Figures:
        """The figures that have a limit."""
        figures = {"a member's commit, receipt and opening": self.rounds[10]["a member"]}
        figures |= {f"the same in batches of {n}": self.rounds[n]["a member in batches"] for n in BATCHES}
        return figures | {what: self.gas[what] for what in LIMITS if what in self.gas}


def report(bench: Bench) -> None:
    """The tables for people."""
    table = Table(title="Gas", caption="plain: the same words in an event, with nothing kept")
    table.add_column("")
    for heading in ("gas", "plain", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for what, gas in bench.gas.items():
        plain = bench.plain.get(what)
        beside = (f"{plain:,}", f"{gas / plain:.2f}") if plain else ("", "")
        if not what.startswith("bytes"):
            table.add_row(what, f"{gas:,}", *beside)
    Console().print(table)
    table = Table(title="A round, everyone speaking (the second one)")
    table.add_column("members", justify="right")
    names = ("total", "a member", "sum and result", "a member in batches", "total in batches")
    for name in names:
        table.add_column(name, justify="right")
    for members, figures in bench.rounds.items():
        table.add_row(str(members), *[f"{figures[name]:,}" if name in figures else "" for name in names])
    Console().print(table)
    table = Table(title="Limits")
    for heading in ("", "figure", "limit"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for what, figure in bench.limited().items():
        colour = "green" if figure <= LIMITS[what] else "red"
        table.add_row(what, f"[{colour}]{figure:,}[/{colour}]", f"≤ {LIMITS[what]:,}")
    Console().print(table)


if __name__ == "__main__":
    main()
