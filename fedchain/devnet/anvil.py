"""The devnet's chain: anvil, its clock, and its state on disk.

anvil's own persistence loses everything on kill -9 or leaves truncated files, so the state is asked for and written
here: to a temporary file, then renamed.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import requests

from ..errors import UsageError
from .processes import ManagedProcess

SAVE_EVERY_S = 5.0
SAVE_S = 90.0
OLD_STATES = 2_000  # of blocks before the newest hundreds; each is a file of some 200 kB
_REPOSITORY = Path(__file__).parents[2]


class RpcFailed(Exception):
    """The chain did not answer a call, or answered with an error."""


def find_anvil() -> Path:
    """The native binary: FEDCHAIN_ANVIL, PATH, or what `make setup` installed. Raises UsageError.

    Not npm's wrapper script: killing that one leaves anvil running.
    """
    named = os.environ.get("FEDCHAIN_ANVIL")
    if named:
        if not os.access(named, os.X_OK):
            raise UsageError(f"FEDCHAIN_ANVIL names {named}, which is not a program: correct it or unset it")
        return Path(named)
    on_path = shutil.which("anvil")
    if on_path and "node_modules" not in str(Path(on_path).resolve()):
        return Path(on_path)
    places = [_REPOSITORY, Path.cwd()]
    installed = [
        binary
        for place in places
        for binary in sorted((place / "devnet" / "node_modules" / "@foundry-rs").glob("anvil-*/bin/anvil*"))
        if os.access(binary, os.X_OK)
    ]
    if not installed:
        raise UsageError("no anvil: run `make setup`, put Foundry's `anvil` on the PATH, or set FEDCHAIN_ANVIL")
    return installed[0]


class ChainRpc:
    """The chain's JSON-RPC, as far as the devnet itself needs it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = requests.Session()
        # A proxy named in the environment must not see what is meant for this host.
        self._http.trust_env = False

    def call(self, method: str, *parameters: Any, timeout_s: float = 10.0) -> Any:
        """One JSON-RPC call. Raises RpcFailed."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        try:
            answer = self._http.post(self.url, json=request, timeout=timeout_s).json()
        except (requests.RequestException, ValueError) as error:
            raise RpcFailed(f"the chain at {self.url} does not answer {method}") from error
        if not isinstance(answer, dict) or "result" not in answer:
            raise RpcFailed(f"the chain refuses {method}: {answer}")
        return answer["result"]


class Anvil(ChainRpc):
    """One anvil on a directory; its chain survives `stop`, and all but the last seconds survive a kill."""

    def __init__(
        self, directory: Path, *, port: int, chain_id: int, block_time: int, automine: bool, save_every_s: float
    ) -> None:
        super().__init__(f"http://127.0.0.1:{port}")
        self._saved = directory / "state.json.gz"
        self._loading = directory / "state.json"
        self._directory = directory
        self._old_states = directory / "cache"
        self._save_every_s = save_every_s
        self._ending = threading.Event()
        self._saver: threading.Thread | None = None
        self._saving = threading.Lock()
        command = [str(find_anvil()), "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(chain_id)]
        command += ["--quiet", "--no-request-size-limit"]
        command += ["--cache-path", str(self._old_states), "--max-persisted-states", str(OLD_STATES)]
        if block_time > 0:
            # Mixed: a transaction is mined at once, and time goes on when there is none.
            command += [*(["--mixed-mining"] if automine else []), "--block-time", str(block_time)]
        elif not automine:
            command += ["--no-mining"]
        self._command = command
        self.process = self._process([])

    def start(self) -> None:
        """Start on the saved state where there is one; return when it answers. Raises ProcessFailed."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._forget_old_states()
        arguments = []
        if self._saved.exists():
            with gzip.open(self._saved, "rb") as saved, self._loading.open("wb") as loading:
                shutil.copyfileobj(saved, loading)
            arguments = ["--load-state", str(self._loading)]
        self.process = self._process(arguments)
        self.process.start()
        self.process.wait_healthy(self.is_healthy)
        self._loading.unlink(missing_ok=True)
        self._restore_clock()
        self._ending.clear()
        self._saver = threading.Thread(target=self._save_regularly, name="anvil-saver", daemon=True)
        self._saver.start()

    def stop(self) -> None:
        """Save, then end it."""
        self._stop_saving()
        with contextlib.suppress(RpcFailed):
            self.save()
        self.process.stop()
        self._forget_old_states()

    def kill(self) -> None:
        """End it at once, saving nothing."""
        self._stop_saving()
        self.process.kill()
        self._forget_old_states()

    def is_healthy(self) -> bool:
        """Whether it answers now."""
        try:
            self.call("eth_chainId", timeout_s=2.0)
        except RpcFailed:
            return False
        return True

    def save(self) -> None:
        """Write the whole chain (blocks, logs, accounts) to disk; the file is never half written."""
        with self._saving:
            state = bytes.fromhex(str(self.call("anvil_dumpState", timeout_s=SAVE_S)).removeprefix("0x"))
            fresh = self._saved.with_suffix(".new")
            with fresh.open("wb") as file:
                file.write(state)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._saved)

    def _process(self, arguments: list[str]) -> ManagedProcess:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("ANVIL_")}
        return ManagedProcess(
            "anvil",
            [*self._command, *arguments],
            log=self._directory / "anvil.log",
            leash=self._directory,
            environment=environment,
        )

    def _forget_old_states(self) -> None:
        """What anvil keeps of old blocks is of no use to the next one, and a killed one leaves it behind."""
        shutil.rmtree(self._old_states, ignore_errors=True)

    def _restore_clock(self) -> None:
        """A chain whose time ran ahead of ours must not go back: anvil forgets by how much it was ahead."""
        ahead = int(self.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16) - int(time.time())
        if ahead > 0:
            self.call("evm_increaseTime", ahead)

    def _save_regularly(self) -> None:
        pause = self._save_every_s
        while not self._ending.wait(pause):
            began = time.monotonic()
            with contextlib.suppress(RpcFailed):
                self.save()
            # A long chain takes longer to write: never more than a twentieth of the time.
            pause = max(self._save_every_s, 20 * (time.monotonic() - began))

    def _stop_saving(self) -> None:
        self._ending.set()
        if self._saver is not None:
            self._saver.join(SAVE_S)
            self._saver = None
