"""The devnet as a context: an EVM chain and one IPFS node a peer on a private swarm, in the foreground of this process.

    with Devnet(directory, peers=5) as net:
        net.rpc, net.chain_id, net.ipfs_apis

Everything it starts ends with it, whatever becomes of this process (see `leash` and the node's `--parent-pid`). Chain
and objects stay in the directory and are there again the next time; `fresh=True` starts from nothing. It is also what
the detached supervisor of `fedchain devnet up` runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import filelock
from typing_extensions import Self

from ..errors import UsageError
from ..protocol.ids import Address
from ..store.node import new_swarm_key
from .anvil import SAVE_EVERY_S, Anvil, ChainRpc, find_anvil
from .control import launch, take_down
from .ipfs_peer import IpfsPeer, find_kubo
from .processes import START_S, ProcessFailed, check_free, free_ports, is_free
from .status import Pids, Status, remove_status, start_time_of, write_status

MAX_PEERS = 64
_PORT_TRIES = 3
_PORT_LOST = ("in use", "is taken", "does not listen on port")
_LAST = "last.json"


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one devnet, kept from one start to the next so that addresses stay."""

    rpc: int
    api: tuple[int, ...]
    swarm: tuple[int, ...]


class Devnet:
    """An EVM chain and `peers` IPFS nodes. One process owns a directory at a time."""

    def __init__(
        self,
        workdir: Path | str,
        *,
        peers: int = 5,
        chain_id: int = 31337,
        block_time: int = 1,
        automine: bool = True,
        fresh: bool = False,
        rpc_port: int = 0,
        ipfs_api: Sequence[str] = (),
        save_every_s: float = SAVE_EVERY_S,
        keep: bool = False,
        detached: bool = False,
    ) -> None:
        """Nothing runs before `start` (or `with`). Raises UsageError on impossible options.

        Transactions are mined at once and a block comes every `block_time` seconds even without any, so that time goes
        on; `automine=False` leaves only the latter, `block_time=0` only the former. `rpc_port` 0 finds a free port.
        `ipfs_api` names nodes that run already (one for all peers, or one each); then none is started. `keep` leaves
        everything running after `stop`, under a supervisor of its own; its nodes cannot be killed from here. `detached`
        is the supervisor's own.
        """
        if not 1 <= peers <= MAX_PEERS:
            raise UsageError(f"a devnet has 1 to {MAX_PEERS} peers, not {peers}")
        if len(ipfs_api) > 1 and len(ipfs_api) != peers:
            raise UsageError(f"{len(ipfs_api)} IPFS APIs for {peers} peers: give one for all, or one each")
        self.workdir = Path(workdir).resolve()
        self.peers = peers
        self.chain_id = chain_id
        self._block_time = block_time
        self._automine = automine
        self._fresh = fresh
        self._rpc_port = rpc_port
        self._given_apis = tuple(ipfs_api)
        self._save_every_s = save_every_s
        self._keep = keep
        self._detached = detached
        self._kept: Status | None = None
        self._lock = filelock.FileLock(self.workdir / "lock")
        self._anvil: Anvil | None = None
        self._nodes: list[IpfsPeer] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def rpc(self) -> str:
        """The chain's JSON-RPC endpoint."""
        return self._kept.rpc if self._kept is not None else self._chain.url

    @property
    def ipfs_apis(self) -> tuple[str, ...]:
        """One IPFS API a peer."""
        if self._kept is not None:
            return self._kept.ipfs_apis
        if self._given_apis:
            return self._given_apis if len(self._given_apis) == self.peers else self._given_apis * self.peers
        return tuple(node.api for node in self._nodes)

    @property
    def pids(self) -> Pids:
        """The processes."""
        if self._kept is not None:
            return self._kept.pids
        return Pids(os.getpid(), self._chain.process.pid, tuple(node.process.pid for node in self._nodes))

    def status(self) -> Status:
        """Endpoints and processes, as in `devnet.json`."""
        started = start_time_of(self.pids.supervisor)
        return Status(self.rpc, self.chain_id, self.ipfs_apis, self.pids, started, foreground=not self._detached)

    def start(self) -> None:
        """Start everything and wait until it answers. Raises UsageError, ProcessFailed, StoreUnreachable."""
        if self._keep:
            self._kept = launch(self.workdir, self.options())
            return
        # Found out before anything runs: what is missing, and which ports are taken.
        find_anvil()
        if self._rpc_port:
            check_free(self._rpc_port, "--rpc-port")
        self.workdir.mkdir(parents=True, exist_ok=True)
        try:
            # A moment's patience: a process that is just being killed still holds it.
            self._lock.acquire(timeout=1)
        except filelock.Timeout as error:
            raise UsageError(
                f"a devnet already runs in {self.workdir}: `fedchain devnet down --workdir {self.workdir}` stops it"
            ) from error
        try:
            # What a killed devnet left may still be ending.
            take_down(self.workdir)
            if self._fresh:
                self._wipe()
            self._check_same_chain()
            self._start_on_free_ports()
            self._announce()
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        """Save the chain and end every process (with `keep`, leave everything as it is)."""
        self._kept = None
        if not self._keep:
            self._end()

    @staticmethod
    def stop_leftover(workdir: Path | str) -> bool:
        """Stop a devnet that another command left running in this directory; False when there is none."""
        return take_down(Path(workdir).resolve())

    def fund(self, address: Address | str, wei: int) -> None:
        """Set an account's balance."""
        ChainRpc(self.rpc).call("anvil_setBalance", address, hex(wei))

    def kill_ipfs(self, index: int) -> None:
        """End one peer's IPFS node at once, as a power cut would."""
        self._node(index).process.kill()
        self._announce()

    def restart_ipfs(self, index: int) -> None:
        """Start a killed node again, on its own objects and ports, connected to the others."""
        node = self._node(index)
        if not node.process.pid:
            node.start()
        node.process.wait_healthy(node.is_healthy)
        others = [other.address() for other in self._nodes if other is not node and other.process.pid]
        node.store.connect_peers(others)
        self._announce()

    def kill_chain(self, *, saved: bool = False) -> None:
        """End the chain at once; what came after the last save is lost. `saved`: save right before, as a node whose
        database is on disk."""
        if saved:
            self._chain.save()
        self._chain.kill()
        self._announce()

    def restart_chain(self) -> None:
        """Start the chain again from its last save, on its own port."""
        self._chain.start()
        self._announce()

    def reorganise(self, depth: int) -> None:
        """Replace the last `depth` blocks by empty ones; their transactions are gone. Raises RpcFailed."""
        self._chain.call("anvil_reorg", depth, [])

    def check_alive(self) -> None:
        """Raise ProcessFailed when a part ended by itself."""
        for process in [self._chain.process, *(node.process for node in self._nodes)]:
            if not process.pid:
                raise ProcessFailed(f"{process.name} has ended: {process.last_words()} (log: {process.log})")

    @property
    def _chain(self) -> Anvil:
        if self._anvil is None:
            raise UsageError(f"no devnet of this process runs in {self.workdir}")
        return self._anvil

    def _node(self, index: int) -> IpfsPeer:
        if not 0 <= index < len(self._nodes):
            raise UsageError(f"no IPFS node {index} of this process runs in {self.workdir}")
        return self._nodes[index]

    def options(self) -> list[str]:
        """This devnet as its supervisor's options."""
        options = ["--peers", str(self.peers), "--chain-id", str(self.chain_id), "--block-time", str(self._block_time)]
        options += ["--rpc-port", str(self._rpc_port), "--save-every", str(self._save_every_s)]
        options += [*(["--no-automine"] if not self._automine else []), *(["--fresh"] if self._fresh else [])]
        return options + [word for api in self._given_apis for word in ("--ipfs-api", api)]

    def _check_same_chain(self) -> None:
        """A saved chain keeps its id. Raises UsageError."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            last = int(json.loads((self.workdir / _LAST).read_text())["chain_id"])
            if last != self.chain_id:
                raise UsageError(
                    f"the chain saved in {self.workdir} has the id {last}, not {self.chain_id}: "
                    f"give --chain-id {last}, or --fresh to start from nothing"
                )

    def _start_on_free_ports(self) -> None:
        """Between finding a free port and listening on it another program may take it: try again with others."""
        for attempt in range(1, _PORT_TRIES + 1):
            ports = self._ports(reuse=attempt == 1)
            try:
                self._start_on(ports)
            except ProcessFailed as error:
                self._end_processes()
                if attempt == _PORT_TRIES or not any(sign in str(error) for sign in _PORT_LOST):
                    raise
            else:
                (self.workdir / _LAST).write_text(json.dumps({"chain_id": self.chain_id, **asdict(ports)}))
                return

    def _start_on(self, ports: Ports) -> None:
        key = self.workdir / "swarm.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_text(new_swarm_key())
        kubo = find_kubo()
        self._nodes = [
            IpfsPeer(
                f"IPFS node {index}",
                self.workdir / f"ipfs-{index}",
                api_port=ports.api[index],
                swarm_port=ports.swarm[index],
                swarm_key=key,
                kubo=kubo,
            )
            for index in range(len(ports.api))
        ]
        for node in self._nodes:
            node.start()
        self._anvil = Anvil(
            self.workdir / "chain",
            port=ports.rpc,
            chain_id=self.chain_id,
            block_time=self._block_time,
            automine=self._automine,
            save_every_s=self._save_every_s,
        )
        self._anvil.start()
        for node in self._nodes:
            node.process.wait_healthy(node.is_healthy)
        self._dial()

    def _dial(self) -> None:
        """Every node dials those before it: discovery would take ten seconds."""
        addresses = [node.address() for node in self._nodes]
        with ThreadPoolExecutor(4) as pool:
            dials = [pool.submit(node.store.connect_peers, addresses[:i]) for i, node in enumerate(self._nodes)]
            for dial in dials:
                dial.result(START_S)

    def _ports(self, *, reuse: bool) -> Ports:
        """Last time's ports where they are still free, so that a deployment file stays true; else new ones."""
        count = 0 if self._given_apis else self.peers
        fresh = free_ports(2 * count + 1)
        ports = Ports(fresh[0], tuple(fresh[1 : count + 1]), tuple(fresh[count + 1 :]))
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads((self.workdir / _LAST).read_text())
            last = Ports(int(known["rpc"]), tuple(map(int, known["api"])), tuple(map(int, known["swarm"])))
            if reuse and is_free(last.rpc):
                ports = Ports(last.rpc, ports.api, ports.swarm)
            if reuse and len(last.api) == count and all(map(is_free, [*last.api, *last.swarm])):
                ports = Ports(ports.rpc, last.api, last.swarm)
        return Ports(self._rpc_port, ports.api, ports.swarm) if self._rpc_port else ports

    def _announce(self) -> None:
        write_status(self.workdir, self.status())

    def _end(self) -> None:
        self._end_processes()
        remove_status(self.workdir)
        self._lock.release()

    def _end_processes(self) -> None:
        if self._anvil is not None:
            self._anvil.stop()
        with ThreadPoolExecutor(8) as pool:
            for node in self._nodes:
                pool.submit(node.process.stop)
        self._anvil = None
        self._nodes = []

    def _wipe(self) -> None:
        """Delete what a devnet keeps here, and nothing else that lies in this directory."""
        kept = [self.workdir / name for name in ("chain", "swarm.key", _LAST)]
        for path in [*kept, *self.workdir.glob("ipfs-*")]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
