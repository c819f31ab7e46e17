"""The embedded IPFS node as a process: `python -m fedchain.store.node --repo DIR --api-port P --swarm-key FILE`.

For trying things out: a real, private-swarm IPFS node without installing Kubo. It serves on the loopback address only,
writes its API's address to `DIR/api` as Kubo does, and ends when its parent does. Production runs Kubo.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import signal
import socket
import sys
import threading
from pathlib import Path

from ..errors import FedchainError, UsageError
from .libkubo import EmbeddedNode, NodeError
from .rpc import RpcServer

PRIVATE_ONLY = "LIBP2P_FORCE_PNET"
"""With this in the environment from the start libp2p refuses to run without a swarm key."""

TICK_S = 0.25
TIDY_EVERY_TICKS = 20


def new_swarm_key() -> str:
    """A fresh private swarm key in Kubo's file format."""
    return f"/key/swarm/psk/1.0.0/\n/base16/\n{secrets.token_hex(32)}\n"


def main(arguments: list[str] | None = None) -> int:
    """Run one node until it is told to stop; 0 after a clean stop, 2 with one line on stderr when it cannot run."""
    options = _parser().parse_args(arguments)
    if os.environ.get(PRIVATE_ONLY) != "1":
        # Go reads the environment that the process was started with: start over with it.
        os.environ[PRIVATE_ONLY] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "fedchain.store.node", *(arguments or sys.argv[1:])])
    try:
        return _run(options)
    except FedchainError as error:
        print(f"fedchain.store.node: {error}", file=sys.stderr, flush=True)
        return 2


def _run(options: argparse.Namespace) -> int:
    token = _text_of(options.token_file, "the token").strip() if options.token_file else ""
    swarm_key = _text_of(options.swarm_key, "the swarm key")
    if not re.fullmatch(r"/key/swarm/psk/1\.0\.0/\s+/base16/\s+[0-9a-fA-F]{64}\s*", swarm_key):
        raise UsageError(f"{options.swarm_key} is not a swarm key (/key/swarm/psk/1.0.0/, /base16/, 64 hex digits)")
    stop = threading.Event()
    node = EmbeddedNode(
        options.repo,
        swarm_host=options.swarm_host,
        swarm_port=options.swarm_port or _free_port(options.swarm_host),
        swarm_key=swarm_key,
    )
    try:
        server = RpcServer(options.api_port, node, stop.set, token)
    except OSError as error:
        raise UsageError(
            f"port {options.api_port} is taken ({error.strerror}): stop what uses it or choose another --api-port"
        ) from error
    node.start()
    threading.Thread(target=server.serve_forever, name="rpc", daemon=True).start()
    api_file = node.repo / "api"
    api_file.write_text(f"/ip4/127.0.0.1/tcp/{server.port}\n")
    print(f"ready: API http://127.0.0.1:{server.port}, swarm {node.address}", flush=True)
    for address in options.peer:
        with contextlib.suppress(NodeError):
            node.connect(address, 5.0)
    _watch(node, stop, options.parent_pid)
    api_file.unlink(missing_ok=True)
    node.stop()
    # Go's threads and calls that hang have no other end.
    sys.stdout.flush()
    os._exit(0)


def _watch(node: EmbeddedNode, stop: threading.Event, parent_pid: int) -> None:
    """Return when told to stop or when the parent is gone; keep the node tidy meanwhile."""
    heard = 0
    ticks = 0
    while not stop.is_set() and (not parent_pid or os.getppid() == parent_pid):
        if node.starts != heard:
            # Every start of the node takes the signals away from Python.
            heard = node.starts
            signal.signal(signal.SIGTERM, lambda *_: stop.set())
            signal.signal(signal.SIGINT, lambda *_: stop.set())
        ticks += 1
        if ticks % TIDY_EVERY_TICKS == 0:
            with contextlib.suppress(NodeError):
                node.tidy()
        stop.wait(TICK_S)


def _text_of(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise UsageError(f"cannot read {what} from {path}: {error.strerror}") from error


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fedchain.store.node",
        description="An embedded IPFS node (libkubo) on a private swarm, behind the subset of Kubo's RPC that fedchain "
        "uses. For trying things out; a real federation runs Kubo.",
    )
    parser.add_argument("--repo", type=lambda p: Path(p).resolve(), required=True, help="the repository's directory")
    parser.add_argument("--api-port", type=int, default=0, help="the API's port on 127.0.0.1 (0: a free one)")
    parser.add_argument("--swarm-port", type=int, default=0, help="the port other nodes dial (0: a free one)")
    parser.add_argument("--swarm-host", default="127.0.0.1", help="the address they dial (default: this host only)")
    parser.add_argument(
        "--swarm-key", type=lambda p: Path(p).resolve(), required=True, help="the private swarm's key file"
    )
    parser.add_argument("--peer", action="append", default=[], metavar="MULTIADDR", help="a node to stay connected to")
    parser.add_argument("--parent-pid", type=int, default=0, help="end when this parent process does")
    parser.add_argument("--token-file", type=lambda p: Path(p).resolve(), help="require this token of every caller")
    return parser


if __name__ == "__main__":
    sys.exit(main())
