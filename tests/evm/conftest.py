"""A real EVM for the tests of this folder: one anvil a session, put back to its first state after every test.

`chain` is the anvil to use in a test; `start_anvil` starts further ones with other settings. Every anvil leads a
process group of its own, which is killed when its fixture ends, and dies with this process whatever becomes of it.
`found` deploys a federation on `chain` and gives a `Deployed`, which speaks for its members at exact times; `refuses`
expects one of the contract's errors.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
from eth_account import Account
from web3 import Web3

from fedchain.chain.artifacts import load_artifact

ROOT = Path(__file__).parents[2]
MNEMONIC = "test test test test test test test test test test test junk"
START_S = 15.0
GAS = 8_000_000  # fixed: an estimate would be made at the old time
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
    "bond": 10**15,
}


def anvil_binary() -> Path:
    """FEDCHAIN_ANVIL, PATH, or what `make setup` installed; the native binary, because npm's wrapper orphans it."""
    named = os.environ.get("FEDCHAIN_ANVIL") or shutil.which("anvil")
    if named:
        return Path(named)
    installed = sorted((ROOT / "devnet" / "node_modules" / "@foundry-rs").glob("anvil-*/bin/anvil*"))
    if not installed:
        pytest.fail("no anvil: run `make setup`, or set FEDCHAIN_ANVIL to one", pytrace=False)
    return installed[0]


class RpcError(Exception):
    """The chain's answer was an error; `data` holds a revert's bytes."""

    def __init__(self, message: str, data: Any) -> None:
        super().__init__(message)
        self.data = data


@dataclass
class Anvil:
    """A running anvil: its RPC, its funded accounts (addresses and keys), and its clock."""

    process: subprocess.Popen[bytes]
    url: str
    chain_id: int
    accounts: list[str]
    keys: list[str]
    _http: requests.Session = field(default_factory=requests.Session)
    _ids: Iterator[int] = field(default_factory=count)

    def rpc(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call; raises RpcError."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        answer = self._http.post(self.url, json=request, timeout=30).json()
        if "error" in answer:
            raise RpcError(answer["error"]["message"], answer["error"].get("data"))
        return answer["result"]

    def receipt(self, transaction: str) -> dict[str, Any]:
        """A transaction's receipt, once it is mined (automine may answer before it is)."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            found: dict[str, Any] | None = self.rpc("eth_getTransactionReceipt", transaction)
            if found is not None:
                return found
            time.sleep(0.002)
        raise RuntimeError(f"{transaction} was not mined in {START_S} s")

    @property
    def now(self) -> int:
        """The newest block's timestamp, in seconds."""
        return int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def next_block_at(self, at: int) -> None:
        """Give the next block exactly this timestamp."""
        self.rpc("evm_setNextBlockTimestamp", at)

    def mine_at(self, at: int) -> None:
        """Mine one empty block at exactly this timestamp."""
        self.next_block_at(at)
        self.rpc("evm_mine")

    def stop(self) -> None:
        """Kill the whole process group."""
        self._http.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def launch_anvil(*arguments: str, accounts: int = 12) -> Anvil:
    """Start anvil on a port that it finds itself, and wait until it answers."""
    command = [str(anvil_binary()), "--host", "127.0.0.1", "--port", "0", "--accounts", str(accounts)]
    command += ["--mnemonic", MNEMONIC, *arguments]
    with tempfile.NamedTemporaryFile(prefix="anvil-") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.poll() is None:
            said = Path(output.name).read_text(encoding="utf-8")
            if port := re.search(r"Listening on 127\.0\.0\.1:(\d+)", said):
                keys = [Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{i}") for i in range(accounts)]
                anvil = Anvil(
                    process=process,
                    url=f"http://127.0.0.1:{port[1]}",
                    chain_id=0,
                    accounts=[key.address for key in keys],
                    keys=[key.key.to_0x_hex() for key in keys],
                )
                anvil.chain_id = int(anvil.rpc("eth_chainId"), 16)
                return anvil
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise RuntimeError(f"anvil did not start: {Path(output.name).read_text(encoding='utf-8')[-2000:]}")


Account.enable_unaudited_hdwallet_features()


@pytest.fixture(scope="session")
def anvil() -> Iterator[Anvil]:
    """The session's anvil; use `chain`, which leaves it clean."""
    running = launch_anvil()
    yield running
    running.stop()


@pytest.fixture
def chain(anvil: Anvil) -> Iterator[Anvil]:
    """The session's anvil with its first state; what the test does is taken back."""
    snapshot = anvil.rpc("evm_snapshot")
    yield anvil
    anvil.rpc("evm_revert", snapshot)


@pytest.fixture
def start_anvil() -> Iterator[Callable[..., Anvil]]:
    """Starts further anvils, `start_anvil("--chain-id", "7", "--block-time", "1")`; they end with the test."""
    started: list[Anvil] = []

    def start(*arguments: str, accounts: int = 12) -> Anvil:
        started.append(launch_anvil(*arguments, accounts=accounts))
        return started[-1]

    yield start
    for running in started:
        running.stop()


# ---------------------------------------------------------------- a federation on the chain


class Refused(Exception):
    """The contract reverted: the error's name and arguments."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        super().__init__(f"{name}{arguments}")
        self.name = name
        self.arguments = arguments


def digest(*words: object) -> bytes:
    """Some 32 bytes that stand for a root, a digest or a CID."""
    return bytes(Web3.keccak(text=" ".join(map(str, words))))


class Deployed:
    """One federation on a chain. Time stands still unless a call says `at` (a block timestamp in seconds)."""

    def __init__(self, chain: Anvil, founders: list[str], terms: dict[str, Any], artifact: Any = None) -> None:
        artifact = artifact or load_artifact()
        self.chain = chain
        self.founders = [Web3.to_checksum_address(founder) for founder in founders]
        self.terms = terms
        self.web3 = Web3()
        self.receipts: list[dict[str, Any]] = []
        self.refusals = {
            bytes(Web3.keccak(text=f"{e['name']}({','.join(i['type'] for i in e['inputs'])})")[:4]): e
            for e in artifact.abi
            if e["type"] == "error"
        }
        factory = self.web3.eth.contract(abi=list(artifact.abi), bytecode=artifact.bytecode)
        data = factory.constructor(tuple(terms.values()), self.founders).data_in_transaction
        receipt = self.transact(chain.accounts[0], data, to=None)
        self.address = Web3.to_checksum_address(receipt["contractAddress"])
        self.contract = self.web3.eth.contract(self.address, abi=list(artifact.abi))
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
        self.receipts.append(receipt)
        return receipt

    def eth_call(self, request: dict[str, Any], at: int | None = None) -> bytes:
        """The answer to a call on the newest state, at any time; raises Refused."""
        override = [] if at is None else [{}, {"time": hex(at)}]
        try:
            return bytes.fromhex(self.chain.rpc("eth_call", request, "latest", *override)[2:])
        except RpcError as error:
            raise self._refused(error) from error

    def send(
        self, member: int | str, name: str, *arguments: Any, at: int | None = None, value: int = 0
    ) -> dict[str, Any]:
        """One transaction from a founder (its index) or any account; gives the receipt, raises Refused."""
        sender = self.founders[member] if isinstance(member, int) else member
        return self.transact(sender, self.contract.encode_abi(name, arguments), self.address, at, value)

    def call(self, name: str, *arguments: Any, at: int | None = None) -> Any:
        """A view's answer; a struct comes as a dict."""
        function = self.contract.get_function_by_name(name)(*arguments)
        answer = self.eth_call({"to": self.address, "data": self.contract.encode_abi(name, arguments)}, at)
        outputs = function.abi["outputs"]
        values = self.web3.codec.decode([_type_of(output) for output in outputs], answer)
        named = [_named(output, value) for output, value in zip(outputs, values, strict=True)]
        return named[0] if len(named) == 1 else tuple(named)

    def _refused(self, error: RpcError) -> Exception:
        data = bytes.fromhex((error.data or "0x")[2:])
        entry = self.refusals.get(data[:4])
        if entry is None:
            return error
        return Refused(entry["name"], self.web3.codec.decode([i["type"] for i in entry["inputs"]], data[4:]))

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
        return self.send(member, "commitAggregate", round, attempt, 0, participants, *two, at=at)

    def open(self, member: int, round: int = 1, attempt: int = 0, at: int | None = None) -> dict[str, Any]:
        two = [digest(word, member, round, attempt) for word in ("opening", "opening cid")]
        return self.send(member, "publishOpening", round, attempt, 0, *two, at=at)

    def close(self, member: int, round: int = 1, attempt: int = 0, at: int | None = None) -> dict[str, Any]:
        four = [digest(word, round) for word in ("key sum", "result", "model", "model cid")]
        return self.send(member, "commitResult", round, attempt, 0, *four, at=at)

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

    def all_post(self, round: int = 1, attempt: int = 0) -> Deployed:
        for member in range(len(self.founders)):
            self.receipt(member, self.everyone(), round, attempt)
        return self

    def lock(self, round: int = 1, attempt: int = 0) -> Deployed:
        self.aggregate(self.call("aggregatorNow"), self.everyone(), round, attempt)
        return self

    def finish_round(self, round: int = 1) -> Deployed:
        """A whole round in which everyone does its duty, from Training to Closed."""
        self.all_commit(round).all_post(round).lock(round)
        for member in range(self.terms["threshold"]):
            self.open(member, round)
        self.close(0, round)
        return self


def _type_of(entry: dict[str, Any]) -> str:
    if not entry["type"].startswith("tuple"):
        return str(entry["type"])
    return f"({','.join(_type_of(part) for part in entry['components'])}){entry['type'][5:]}"


def _named(entry: dict[str, Any], value: Any) -> Any:
    if entry["type"] != "tuple":
        return value
    return {part["name"]: _named(part, v) for part, v in zip(entry["components"], value, strict=True)}


@pytest.fixture
def found(chain: Anvil) -> Callable[..., Deployed]:
    """`found(5, threshold=4)` deploys a federation of five with these terms; `founders=[…]` names them."""

    def deploy(members: int = 5, founders: list[str] | None = None, artifact: Any = None, **terms: Any) -> Deployed:
        return Deployed(chain, founders or chain.accounts[:members], TERMS | terms, artifact)

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
