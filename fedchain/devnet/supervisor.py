"""The devnet as a process of its own: `python -m fedchain.devnet.supervisor --workdir DIR …` (see `control`).

Ends, with everything it started, on SIGTERM; where a part of the devnet ends by itself, it says so in its log and goes
on: `fedchain devnet status` shows what is down.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from ..errors import FedchainError, UsageError
from .network import Devnet
from .processes import ProcessFailed

TICK_S = 1.0


def main(arguments: list[str] | None = None) -> int:
    """Run one devnet until told to stop; 2 with one line on stderr when the options cannot be, 1 when it fails."""
    options = parser().parse_args(arguments)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with devnet_of(options) as net:
            print(f"up: RPC {net.rpc}, IPFS {' '.join(net.ipfs_apis)}", flush=True)
            watch(net, stop)
    except FedchainError as error:
        print(f"fedchain: {error}", file=sys.stderr, flush=True)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def watch(net: Devnet, stop: threading.Event) -> None:
    """Return when told to stop; say once when a part has ended by itself."""
    told = False
    while not stop.wait(TICK_S):
        try:
            net.check_alive()
        except ProcessFailed as error:
            if not told:
                print(f"fedchain: {error}", file=sys.stderr, flush=True)
            told = True


def devnet_of(options: argparse.Namespace) -> Devnet:
    """The devnet that these options describe."""
    return Devnet(
        options.workdir,
        peers=options.peers,
        chain_id=options.chain_id,
        block_time=options.block_time,
        automine=not options.no_automine,
        fresh=options.fresh,
        rpc_port=options.rpc_port,
        ipfs_api=options.ipfs_api,
        save_every_s=options.save_every,
        detached=True,
    )


def parser() -> argparse.ArgumentParser:
    """The options, the same as `fedchain devnet up`'s."""
    options = argparse.ArgumentParser(prog="python -m fedchain.devnet.supervisor", description=__doc__)
    options.add_argument("--workdir", type=Path, required=True)
    options.add_argument("--peers", type=int, default=5)
    options.add_argument("--chain-id", type=int, default=31337)
    options.add_argument("--block-time", type=int, default=1)
    options.add_argument("--no-automine", action="store_true")
    options.add_argument("--fresh", action="store_true")
    options.add_argument("--rpc-port", type=int, default=0)
    options.add_argument("--ipfs-api", action="append", default=[])
    options.add_argument("--save-every", type=float, default=5.0)
    return options


if __name__ == "__main__":
    sys.exit(main())
