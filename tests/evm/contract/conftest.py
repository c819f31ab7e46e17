"""One federation on the session's anvil, for the tests of the contract: `found` deploys it and gives a `Deployed`,
which speaks for its members at exact times; `refuses` expects one of the contract's errors. `play` prepares rounds with
real numbers (`tests/plays.py`), and `sign` signs openings.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from web3 import Web3

from fedchain.chain.artifacts import load_artifact

GAS = 16_000_000  # fixed: an estimate would be made at the old time. A transaction may not have more (EIP-7825)
TERMS: dict[str, Any] = {
    "charterDigest": b"\x01" * 32,
    "charterCid": b"\x02" * 32,
    "genesisDigest": b"\x03" * 32,
    "genesisCid": b"\x04" * 32,
    "modelSize": 1000,
    "rounds": 3,
    "threshold": 3,
    "enrolWindow": 1000,
    "trainingWindow": 600,
    "receiptWindow": 300,
    "aggregateWindow": 100,
    "challengeWindow": 5000,
    "closeWindow": 10**9,
    "bond": 10**15,
}


# What members sign, as IRecord.sol words it.
SIGNED = {
    "Update": "uint32 round,uint32 attempt,bytes32 commitment,bytes32 ciphertextCid,bytes32 sharesCid",
    "Receipt": "uint32 round,uint32 attempt,uint128 whole",
    "Opening": "uint32 round,uint32 attempt,uint16 group,uint128 participants,bytes32 root,bytes32 cid",
}


class Refused(Exception):
    """The contract reverted: the error's name and arguments."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        super().__init__(f"{name}{arguments}")
        self.name = name
        self.arguments = arguments


def digest(*words: object) -> bytes:
    """Some 32 bytes that stand for a root, a digest or a CID."""
    return _keccak(" ".join(map(str, words)))


class Deployed:
    """One federation on a chain. Time stands still unless a call says `at` (a block timestamp in seconds)."""

    Refused = Refused

    def __init__(self, chain: Any, founders: list[str], terms: dict[str, Any]) -> None:
        artifact = load_artifact()
        self.chain = chain
        self.founders = [Web3.to_checksum_address(founder) for founder in founders]
        self.terms = terms
        self.codec = Web3().codec
        self.functions = {e["name"]: e for e in artifact.abi if e["type"] == "function"}
        self.refusals = {_hash_of(e)[:4]: e for e in artifact.abi if e["type"] == "error"}
        self.announcements = {"0x" + _hash_of(e).hex(): e for e in artifact.abi if e["type"] == "event"}
        inputs = next(e["inputs"] for e in artifact.abi if e["type"] == "constructor")
        arguments = self.codec.encode([_type_of(i) for i in inputs], [tuple(terms.values()), self.founders])
        self.deployment = self.transact(chain.accounts[0], "0x" + (artifact.bytecode + arguments).hex(), to=None)
        self.address = Web3.to_checksum_address(self.deployment["contractAddress"])
        self.founded_at = chain.now

    def transact(self, sender: str, data: str, to: str | None, at: int | None = None, value: int = 0) -> dict[str, Any]:
        """Send one transaction in a block of its own; raises Refused."""
        if at is not None:
            self.chain.next_block_at(at)
        elif to is not None:
            self.chain.next_block_at(self.chain.now)
        request = {"from": sender, "data": data, "gas": hex(GAS), "value": hex(value)} | ({"to": to} if to else {})
        receipt = self.chain.receipt(self.chain.rpc("eth_sendTransaction", request))
        if receipt["status"] != "0x1":
            # The block is mined, with nothing changed: the same call at the same time says why.
            self.eth_call(request, at=self.chain.now)
            raise AssertionError(f"a transaction failed and its call does not: {receipt}")
        return receipt

    def eth_call(self, request: dict[str, Any], at: int | None = None) -> bytes:
        """The answer to a call on the newest state, at any time; raises Refused."""
        override = [] if at is None else [{}, {"time": hex(at)}]
        try:
            return bytes.fromhex(self.chain.rpc("eth_call", request, "latest", *override)[2:])
        except self.chain.Error as error:
            raise self._refused(error) from error

    def send(
        self, member: int | str, name: str, *arguments: Any, at: int | None = None, value: int = 0
    ) -> dict[str, Any]:
        """One transaction from a founder (its index) or any account; gives the receipt, raises Refused."""
        sender = self.founders[member] if isinstance(member, int) else member
        return self.transact(sender, self.encode(name, *arguments), self.address, at, value)

    def encode(self, name: str, *arguments: Any) -> str:
        """A function's calldata."""
        entry = self.functions[name]
        return "0x" + (_hash_of(entry)[:4] + self.codec.encode([_type_of(i) for i in entry["inputs"]], arguments)).hex()

    def call(self, name: str, *arguments: Any, at: int | None = None) -> Any:
        """A view's answer; a struct comes as a dict."""
        return self.call_all([(name, *arguments)], at)[0]

    def call_all(self, questions: list[tuple[Any, ...]], at: int | None = None) -> list[Any]:
        """The answers of several views, `(name, *arguments)`, in one request; raises Refused."""
        time_override = [] if at is None else [{}, {"time": hex(at)}]
        calls = [({"to": self.address, "data": self.encode(*q)}, "latest", *time_override) for q in questions]
        try:
            answers = self.chain.batch([("eth_call", call) for call in calls])
        except self.chain.Error as error:
            raise self._refused(error) from error
        return [self._decoded(q[0], bytes.fromhex(a[2:])) for q, a in zip(questions, answers, strict=True)]

    def _decoded(self, name: str, answer: bytes) -> Any:
        outputs = self.functions[name]["outputs"]
        values = self.codec.decode([_type_of(output) for output in outputs], answer)
        named = [_named(output, value) for output, value in zip(outputs, values, strict=True)]
        return named[0] if len(named) == 1 else tuple(named)

    def events(self, receipt: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """The contract's events in a receipt: each one's name and arguments, a struct as a dict."""
        told = []
        for log in receipt["logs"]:
            entry = self.announcements[log["topics"][0]]
            indexed = [i for i in entry["inputs"] if i["indexed"]]
            plain = [i for i in entry["inputs"] if not i["indexed"]]
            words = b"".join(bytes.fromhex(topic[2:]) for topic in log["topics"][1:])
            values = [
                *zip(indexed, self.codec.decode([_type_of(i) for i in indexed], words), strict=True),
                *zip(
                    plain,
                    self.codec.decode([_type_of(i) for i in plain], bytes.fromhex(log["data"][2:])),
                    strict=True,
                ),
            ]
            told.append((entry["name"], {i["name"]: _named(i, value) for i, value in values}))
        return told

    def _refused(self, error: Any) -> Exception:
        data = bytes.fromhex((error.data or "0x")[2:])
        entry = self.refusals.get(data[:4])
        if entry is None:
            return error
        return Refused(entry["name"], self.codec.decode([i["type"] for i in entry["inputs"]], data[4:]))

    def signed(self, account: int, kind: str, *values: Any, **domain: Any) -> Any:
        """What the chain's account signs (EIP-712): one of SIGNED, here unless `domain` says otherwise."""
        fields = [dict(zip(("type", "name"), field.split(), strict=True)) for field in SIGNED[kind].split(",")]
        where = {"name": "fedchain", "version": "1", "chainId": self.chain.chain_id, "verifyingContract": self.address}
        said = {field["name"]: value for field, value in zip(fields, values, strict=True)}
        message = encode_typed_data(where | domain, {kind: fields}, said)
        return Account.sign_message(message, self.chain.keys[account])

    def line(self, account: int, kind: str, *values: Any, **domain: Any) -> tuple[bytes, bytes]:
        """The same as a batch holds it: r, and yParity with s in one word (EIP-2098)."""
        made = self.signed(account, kind, *values, **domain)
        return made.r.to_bytes(32, "big"), ((made.v - 27 << 255) | made.s).to_bytes(32, "big")

    # What members say, with digests made from who, where and when.

    def enrol(self, member: int, at: int | None = None) -> dict[str, Any]:
        key, weight = digest("key", member), 10 * (member + 1)
        return self.send(member, "enrol", key, weight, at=at, value=self.terms["bond"])

    def commit(self, member: int, round: int = 1, attempt: int = 0, at: int | None = None) -> dict[str, Any]:
        three = [digest(word, member, round, attempt) for word in ("commitment", "ciphertext", "shares")]
        return self.send(member, "commitUpdate", round, attempt, *three, at=at)

    def receipt(
        self, member: int, whole: int, round: int = 1, attempt: int = 0, at: int | None = None
    ) -> dict[str, Any]:
        return self.send(member, "postReceipt", round, attempt, whole, at=at)

    def aggregate(
        self, member: int, participants: int, round: int = 1, attempt: int = 0, at: int | None = None
    ) -> dict[str, Any]:
        two = [digest(word, member, round, attempt) for word in ("aggregate", "aggregate cid")]
        basis = self.call("commitmentsOf", round, attempt)
        return self.send(member, "commitAggregate", round, attempt, 0, participants, basis, *two, at=at)

    def open(self, member: int, round: int = 1, attempt: int = 0, at: int | None = None) -> dict[str, Any]:
        two = [digest(word, member, round, attempt) for word in ("opening", "opening cid")]
        return self.send(member, "publishOpening", round, attempt, 0, *two, at=at)

    def close(self, member: int, round: int = 1, attempt: int = 0, at: int | None = None) -> dict[str, Any]:
        five = [digest(word, round) for word in ("key sum", "result", "result cid", "model", "model cid")]
        said = (round, attempt, 0, self.openers(), self.call("basisOf", round, 0), *five)
        return self.send(member, "commitResult", *said, at=at)

    def stop(self, member: int | str, round: int, at: int | None = None) -> dict[str, Any]:
        return self.send(member, "voteToStop", round, self.call("model"), at=at)

    def openers(self) -> int:
        """The first t members that have opened the current round."""
        opened: int = self.call("roundAt", self.call("currentRound"))["opened"]
        first = [i for i in range(64) if opened >> i & 1][: self.call("threshold")]
        return sum(1 << i for i in first)

    # Where a test wants to begin.

    def everyone(self) -> int:
        """The bitmap of all founders."""
        return (1 << len(self.founders)) - 1

    def all_enrol(self) -> Deployed:
        for member in range(len(self.founders)):
            self.enrol(member)
        return self

    def all_commit(self, round: int = 1, attempt: int = 0) -> Deployed:
        for member in range(len(self.founders)):
            self.commit(member, round, attempt)
        return self

    def all_commit_but(self, silent: int) -> Deployed:
        for member in range(len(self.founders)):
            if member != silent:
                self.commit(member)
        return self

    def all_post(self, round: int = 1, attempt: int = 0) -> Deployed:
        for member in range(len(self.founders)):
            self.receipt(member, self.everyone(), round, attempt)
        return self

    def lock(self, round: int = 1, attempt: int = 0) -> Deployed:
        self.aggregate(self.call("aggregatorNow"), self.everyone(), round, attempt)
        return self

    def lock_round(self, round: int = 1, attempt: int = 0, members: Sequence[int] | None = None) -> Deployed:
        """From Training to Opening: these members, or everyone, commit, post, and are the set."""
        members = range(len(self.founders)) if members is None else members
        whole = sum(1 << member for member in members)
        for member in members:
            self.commit(member, round, attempt)
        for member in members:
            self.receipt(member, whole, round, attempt)
        self.aggregate(self.call("aggregatorNow"), whole, round, attempt)
        return self

    def finish_round(self, round: int = 1, attempt: int = 0, members: Sequence[int] | None = None) -> Deployed:
        """A whole round in which these members, or everyone, do their duty, from Training to Closed."""
        self.lock_round(round, attempt, members)
        members = range(len(self.founders)) if members is None else members
        for member in members[: self.call("threshold")]:
            self.open(member, round, attempt)
        self.close(members[0], round, attempt)
        return self


def _hash_of(entry: dict[str, Any]) -> bytes:
    return _keccak(f"{entry['name']}({','.join(_type_of(i) for i in entry['inputs'])})")


@cache
def _keccak(text: str) -> bytes:
    return bytes(Web3.keccak(text=text))


def _type_of(entry: dict[str, Any]) -> str:
    if not entry["type"].startswith("tuple"):
        return str(entry["type"])
    return f"({','.join(_type_of(part) for part in entry['components'])}){entry['type'][5:]}"


def _named(entry: dict[str, Any], value: Any) -> Any:
    if entry["type"] != "tuple":
        return value
    return {part["name"]: _named(part, v) for part, v in zip(entry["components"], value, strict=True)}


@pytest.fixture
def found(chain: Any) -> Callable[..., Deployed]:
    """`found(5, threshold=4)` deploys a federation of five with these terms; `founders=[…]` names them."""

    def deploy(members: int = 5, founders: list[str] | None = None, on: Any = None, **terms: Any) -> Deployed:
        where = on or chain
        return Deployed(where, where.accounts[:members] if founders is None else founders, TERMS | terms)

    return deploy


@pytest.fixture
def refuses() -> Callable[..., contextlib.AbstractContextManager[None]]:
    """`with refuses("FederationWrongPhase", 2):` expects exactly this error, with exactly these arguments."""

    @contextlib.contextmanager
    def expect(name: str, *arguments: Any) -> Iterator[None]:
        with pytest.raises(Refused) as refused:
            yield
        assert (refused.value.name, refused.value.arguments) == (name, arguments)

    return expect


@pytest.fixture
def readme_tells() -> Callable[[dict[str, int]], None]:
    """`readme_tells({"enrol": 85_862})` prints rows of gas, and holds contracts/README.md to them, to a hundredth."""

    def check(measured: dict[str, int]) -> None:
        readme = Path(__file__).parents[3] / "contracts" / "README.md"
        rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \|$", readme.read_text(encoding="utf-8"), re.MULTILINE)
        told = {what: int(figure.replace(",", "")) for what, figure in rows}
        print()
        for what, figure in measured.items():
            print(f"| {what} | {figure:,} |")
        assert measured == {what: pytest.approx(told.get(what, 0), rel=0.01) for what in measured}

    return check


@pytest.fixture
def play(found: Callable[..., Any], plays: ModuleType) -> Callable[..., Any]:
    """`play()` founds a federation of five and prepares its first round; `play(federation, round=2)` a later one."""

    def prepare(federation: Any = None, *, members: int = 5, **chosen: Any) -> Any:
        rounds = {key: chosen.pop(key) for key in ("round", "attempt", "out", "silent") if key in chosen}
        if federation is None:
            federation = found(members, **({"modelSize": plays.MODEL_SIZE} | chosen)).all_enrol()
        return plays.Play(federation, **rounds)

    return prepare


@pytest.fixture
def sign() -> Callable[..., tuple[Any, bytes]]:
    """`sign(federation, 2, participants=31)`: an opening by the chain's account 2, and its signature."""

    def signed(federation: Any, account: int, **said: Any) -> tuple[Any, bytes]:
        statement = {"round": 1, "attempt": 0, "group": 0, "participants": 31, "root": b"\x07" * 32}
        values = tuple((statement | {"cid": b"\x08" * 32} | said).values())
        return values, federation.signed(account, "Opening", *values).signature

    return signed
