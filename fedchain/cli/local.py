"""A whole federation on this machine: keys, charter, contract, and each peer a process of its own.

The demonstration and the live tests run on this. It plays no part in the federation: what it knows of a round it reads
from the chain, as anyone may.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import tomli_w

from ..chain.deploy import deploy
from ..chain.deployment import Deployment, read_deployment, terms_of, write_deployment
from ..chain.keys import Identity, load_identity, new_identity
from ..chain.reader import Reader
from ..devnet.network import Devnet
from ..devnet.processes import die_with_parent
from ..errors import UsageError
from ..lab.run import Meter, read_meter
from ..learn import Task, first_model, load_task, read_start
from ..protocol.charter import Charter, read_charter
from ..protocol.ids import Address
from ..store.ipfs import IpfsStore

FUNDS_WEI = 10**20
KILL_S = 10.0
_MARK = ".fedchain-local"


@dataclass(slots=True)
class PeerProcess:
    """One member's process, and what is needed to start it again."""

    index: int
    folder: Path
    command: list[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, crash: dict[str, str] | None = None) -> None:
        """Start the process; it dies with this one. `crash` sets crash points (`fedchain.peer.crash`)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "output.log").open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=os.environ | self.environment | (crash or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How the process ended; None while it runs or before it was started."""
        return None if self.process is None else self.process.poll()

    def last_words(self) -> str:
        """The last line this peer wrote."""
        lines = (self.folder / "output.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"

    def kill(self) -> None:
        """Pull the plug: SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(KILL_S)

    def stop(self) -> None:
        """End the process: asked once, then made."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()


class LocalFederation:
    """A federation in one work folder. Made by `found`, gone on with by `resume`."""

    def __init__(self, workdir: Path, charter: Charter) -> None:
        self.workdir = workdir
        self.charter = charter
        self.task: Task = load_task(self.folder / charter.federation.task, charter.task_sha256)
        self.peers: list[PeerProcess] = []
        self._deployment: Deployment | None = None

    @classmethod
    def found(cls, workdir: Path, source: Path, members: int, settings: list[str]) -> LocalFederation:
        """An empty work folder with the agreed charter, the task, and a fresh key a member."""
        charter = read_charter(source).with_settings(settings)
        _wipe(workdir)
        password = secrets.token_hex(16)
        secret = workdir / "password"
        secret.touch(mode=0o600)
        secret.write_text(password, encoding="utf-8")
        addresses = [new_identity(_key_file(workdir, i), password, fast=True).address for i in range(members)]
        charter = charter.with_members(tuple(addresses))
        charter.check_complete()
        folder = workdir / "federation"
        folder.mkdir()
        origin = source if source.is_dir() else source.parent
        shutil.copyfile(origin / charter.federation.task, folder / charter.federation.task)
        if charter.run.start.endswith(".safetensors"):
            shutil.copyfile(origin / charter.run.start, folder / charter.run.start)
        (folder / "federation.toml").write_text(tomli_w.dumps(charter.to_toml()), encoding="utf-8")
        return cls(workdir, read_charter(folder))

    @classmethod
    def resume(cls, workdir: Path) -> LocalFederation:
        """The federation that an earlier process made in this folder."""
        folder = workdir / "federation"
        if not (folder / "federation.toml").exists():
            raise UsageError(f"nothing to resume in {workdir}; run fedchain demo without --resume")
        return cls(workdir, read_charter(folder))

    @property
    def folder(self) -> Path:
        """The federation's folder: charter and task, as every member has it."""
        return self.workdir / "federation"

    @property
    def members(self) -> tuple[Address, ...]:
        """The founders, in index order."""
        return tuple(Address(member) for member in self.charter.federation.members)

    @property
    def deployment(self) -> Deployment:
        """Where the contract stands; after `deploy`."""
        if self._deployment is None:
            self._deployment = read_deployment(self.workdir / "deployment.json")
        return self._deployment

    @property
    def deployed(self) -> bool:
        """Whether the contract was deployed by this or an earlier process."""
        return (self.workdir / "deployment.json").exists()

    def identity(self, index: int) -> Identity:
        """One member's keys."""
        password = (self.workdir / "password").read_text(encoding="utf-8")
        return load_identity(_key_file(self.workdir, index), password)

    def deploy(self, devnet: Devnet) -> Deployment:
        """Fund the members, store charter and genesis model, found the contract."""
        for member in self.members:
            devnet.fund(member, FUNDS_WEI)
        store = IpfsStore(devnet.ipfs_apis[0])
        start = read_start(self.folder, self.charter, self.task, store.get_file)
        model = first_model(self.task, self.charter, start)
        terms = terms_of(self.charter, store.put(self.charter.canonical()), model, store.put(model))
        self._deployment = deploy(
            devnet.rpc,
            self.identity(0).account_private,
            terms,
            self.members,
            expected_chain_id=devnet.chain_id,
            confirmations=0,
        )
        write_deployment(self.workdir / "deployment.json", self._deployment)
        return self._deployment

    def reader(self, devnet: Devnet) -> Reader:
        """A reader of this federation's contract, as anyone may have."""
        return Reader(devnet.rpc, self.deployment.address, from_block=self.deployment.block)

    def prepare_peers(self, devnet: Devnet, poll_s: float) -> None:
        """Make each member's command; `peers[i].start()` starts it."""
        self.peers = [self.peer_of(devnet, index, poll_s) for index in range(len(self.members))]

    def key_of(self, index: int) -> Path:
        """Where one member's keystore is, or that of who is to join as that member."""
        return _key_file(self.workdir, index)

    def peer_of(
        self, devnet: Devnet, index: int, poll_s: float, *, rpc: str | None = None, ipfs: str | None = None
    ) -> PeerProcess:
        """One member's process, not yet started; `rpc` and `ipfs` are other ways to the devnet's endpoints."""
        key = _key_file(self.workdir, index)
        command = [sys.executable, "-m", "fedchain.cli.main", "peer", "run", str(self.folder), "--enrol", "--quiet"]
        # Nobody here keeps anything back, and whoever watches waits for the end.
        command += ["--no-stay"]
        command += ["--key", str(key), "--password-file", str(self.workdir / "password")]
        command += ["--rpc", rpc or devnet.rpc, "--ipfs", ipfs or devnet.ipfs_apis[index]]
        command += ["--deployment", str(self.workdir / "deployment.json")]
        command += ["--workdir", str(key.parent / "work"), "--poll", str(poll_s)]
        command += ["--seed", str(self.charter.run.seed)]
        return PeerProcess(
            index=index,
            folder=key.parent / "work",
            command=command,
            environment={"OMP_NUM_THREADS": "1", "TERM": "dumb"},
        )

    def wait_for_peers(self, timeout_s: float) -> None:
        """Let the peers check the last model and leave by themselves."""
        deadline = time.monotonic() + timeout_s
        for peer in self.peers:
            if peer.process is not None:
                try:
                    peer.process.wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    peer.stop()

    def stop_peers(self) -> None:
        """End every peer's process."""
        for peer in self.peers:
            if peer.process is not None and peer.alive:
                peer.process.terminate()
        for peer in self.peers:
            peer.stop()

    def meters(self) -> list[Meter]:
        """What each peer metered, by index, one entry a round (`fedchain.peer.meter`); of who never began, nothing."""
        files = [peer.folder / "rounds.jsonl" for peer in self.peers]
        return [read_meter(file) if file.exists() else () for file in files]


def _key_file(workdir: Path, index: int) -> Path:
    return workdir / "peers" / f"peer-{index}" / "key.json"


def _wipe(workdir: Path) -> None:
    """An empty folder. Raises UsageError rather than wipe one that was not made here."""
    if workdir.exists() and any(workdir.iterdir()):
        if not (workdir / _MARK).exists():
            raise UsageError(f"{workdir} is not empty and nothing of ours made it; choose another folder")
        shutil.rmtree(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / _MARK).touch()
