"""One peer's IPFS node on the devnet: real Kubo where `ipfs` is on the PATH, else the embedded node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import FedchainError
from ..store.ipfs import IpfsStore
from .processes import ManagedProcess, ProcessFailed, python_environment

_FORCE_PRIVATE = {"LIBP2P_FORCE_PNET": "1"}
INIT_S = 60.0


def find_kubo() -> str | None:
    """The `ipfs` program, where one is installed. FEDCHAIN_KUBO names another; `FEDCHAIN_KUBO=embedded` uses none."""
    named = os.environ.get("FEDCHAIN_KUBO")
    if named == "embedded":
        return None
    return named or shutil.which("ipfs")


class IpfsPeer:
    """One node on a directory of its own: an API for its peer, a port that the other nodes dial."""

    def __init__(
        self, name: str, directory: Path, *, api_port: int, swarm_port: int, swarm_key: Path, kubo: str | None
    ) -> None:
        self.api = f"http://127.0.0.1:{api_port}"
        self.store = IpfsStore(self.api, timeout_s=20, attempts=3)
        self._probe = IpfsStore(self.api, timeout_s=2, attempts=1)
        self._repo = directory
        self._ports = (api_port, swarm_port)
        self._swarm_key = swarm_key
        self._kubo = kubo
        if kubo:
            command = [kubo, "daemon", "--migrate=true", "--enable-gc"]
            environment = {**os.environ, **_FORCE_PRIVATE, "IPFS_PATH": str(directory)}
        else:
            command = [sys.executable, "-m", "fedchain.store.node", "--repo", str(directory)]
            command += ["--parent-pid", str(os.getpid())]
            command += ["--api-port", str(api_port), "--swarm-port", str(swarm_port), "--swarm-key", str(swarm_key)]
            environment = {**python_environment(), **_FORCE_PRIVATE}
        self.process = ManagedProcess(
            name,
            command,
            log=directory.with_suffix(".log"),
            leash=directory if kubo else None,
            environment=environment,
        )

    def start(self) -> None:
        """Start it, without waiting. Raises ProcessFailed."""
        if self._kubo:
            self._configure_kubo(self._kubo)
        self.process.start()

    def is_healthy(self) -> bool:
        """Whether its API answers now."""
        try:
            self._probe.identity()
        except FedchainError:
            return False
        return True

    def address(self) -> str:
        """The multiaddress that the other nodes dial."""
        return f"/ip4/127.0.0.1/tcp/{self._ports[1]}/p2p/{self.store.identity().peer_id}"

    def _configure_kubo(self, kubo: str) -> None:
        """A repository on our swarm only: no bootstrap, no discovery, no gateway, loopback."""
        path = self._repo / "config"
        if not path.exists():
            made = subprocess.run(
                [kubo, "init"],
                env={**os.environ, "IPFS_PATH": str(self._repo)},
                capture_output=True,
                text=True,
                timeout=INIT_S,
                check=False,
            )
            if made.returncode:
                reason = (made.stderr.strip() or "no reason given").splitlines()[-1]
                raise ProcessFailed(f"`{kubo} init` fails: {reason}")
        config: dict[str, Any] = json.loads(path.read_text())
        config["Bootstrap"] = []
        config.setdefault("AutoConf", {})["Enabled"] = False
        config.setdefault("Discovery", {})["MDNS"] = {"Enabled": False}
        config["Addresses"].update(
            API=f"/ip4/127.0.0.1/tcp/{self._ports[0]}", Gateway=[], Swarm=[f"/ip4/127.0.0.1/tcp/{self._ports[1]}"]
        )
        config["Routing"] = {"Type": "none"}
        config["DNS"] = {"Resolvers": {}}
        config["Ipns"] = {**config.get("Ipns", {}), "DelegatedPublishers": []}
        config["AutoNAT"] = {"ServiceMode": "disabled"}
        config.setdefault("AutoTLS", {})["Enabled"] = False
        swarm = config.setdefault("Swarm", {})
        swarm["DisableNatPortMap"] = True
        swarm["RelayClient"] = {"Enabled": False}
        swarm["RelayService"] = {"Enabled": False}
        swarm.setdefault("Transports", {})["Network"] = {
            "QUIC": False,
            "Websocket": False,
            "WebTransport": False,
            "WebRTCDirect": False,
            "Relay": False,
        }
        path.write_text(json.dumps(config, indent=2))
        shutil.copyfile(self._swarm_key, self._repo / "swarm.key")
