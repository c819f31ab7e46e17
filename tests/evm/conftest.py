"""A real EVM for the tests of this folder: one anvil a session, put back to its first state after every test.

`chain` is the anvil to use in a test; `start_anvil` starts further ones with other settings. Every anvil leads a
process group of its own, which is killed when its fixture ends, and dies with this process whatever becomes of it.
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

ROOT = Path(__file__).parents[2]
MNEMONIC = "test test test test test test test test test test test junk"
START_S = 30.0


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

    Error = RpcError

    process: subprocess.Popen[bytes]
    url: str
    chain_id: int
    accounts: list[str]
    keys: list[str]
    cache: tempfile.TemporaryDirectory[str]  # old states; in their default place a killed anvil leaves them for ever
    _http: requests.Session = field(default_factory=requests.Session)
    _ids: Iterator[int] = field(default_factory=count)

    def rpc(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call; raises RpcError."""
        return self.batch([(method, params)])[0]

    def batch(self, calls: list[tuple[str, Any]]) -> list[Any]:
        """Several JSON-RPC calls (method, parameters) in one request; raises RpcError for the first that fails."""
        requests = [
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
            for method, params in calls
        ]
        answers = {answer["id"]: answer for answer in self._http.post(self.url, json=requests, timeout=30).json()}
        results = []
        for request in requests:
            answer = answers[request["id"]]
            if "error" in answer:
                raise RpcError(answer["error"]["message"], answer["error"].get("data"))
            results.append(answer["result"])
        return results

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

    def remember(self) -> str:
        """A mark of the chain as it is now, for `take_back`."""
        return str(self.rpc("evm_snapshot"))

    def take_back(self, mark: str) -> None:
        """Put the chain back to this mark, which is then gone.

        anvil shows a receipt before it strikes the transaction from its pool: one that is taken back meanwhile would
        be valid again, and mined again with the next.
        """
        self.rpc("anvil_dropAllTransactions")
        assert self.rpc("evm_revert", mark), f"anvil remembers no {mark}"

    def stop(self) -> None:
        """Kill the whole process group."""
        self._http.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)
        self.cache.cleanup()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def launch_anvil(*arguments: str, accounts: int = 12) -> Anvil:
    """Start anvil on a port that it finds itself, and wait until it answers."""
    cache = tempfile.TemporaryDirectory(prefix="anvil-states-", ignore_cleanup_errors=True)
    command = [str(anvil_binary()), "--host", "127.0.0.1", "--port", "0", "--accounts", str(accounts)]
    command += ["--mnemonic", MNEMONIC, "--cache-path", cache.name, *arguments]
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
                    cache=cache,
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
    snapshot = anvil.remember()
    yield anvil
    anvil.take_back(snapshot)


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
