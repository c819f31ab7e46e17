"""The memory of a peer in each step of a round, at full size: `python bench/memory.py`.

    peak     the most memory that was resident at once (VmHWM, reset before each step), in MiB: interpreter, torch,
             TenSEAL and web3 with it, which are about 280 MiB before anything is done
    ratio    what a step needs beyond that, in sizes of the model (4 bytes a parameter)

for several charters; and beside it the same training by torch alone. What is measured says `memory_round.py`: real
nodes on a real IPFS node, a process for each role. The IPFS node's own memory is not a peer's, and not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedchain.devnet.network import Devnet

MIB = 1 << 20
LIMIT_BYTES = 1 << 30
SCRIPT = Path(__file__).with_name("memory_round.py")
PATIENCE_S = 3600
CHARTERS: dict[str, list[str]] = {
    "as it is by default": [],
    "16 bits, not rotated": ["update.bits=16", "update.rotate=false"],
    "FedAdam": ["outer.optimizer=fedadam"],
    "SCAFFOLD, FedAdam": ["algorithm.name=scaffold", "algorithm.effective_steps=2", "outer.optimizer=fedadam"],
    "private records": [
        "privacy.mode=records",
        "privacy.epsilon=50",
        "privacy.clip=1",
        "privacy.sampling_rate=0.5",
        "outer.learning_rate=0.1",
    ],
    "private members": ["privacy.mode=clients", "privacy.epsilon=50", "privacy.clip=1"],
}
ROLES = ("peer", "liar-sum", "liar-result", "auditor")


def measure(parameters: int, members: int, settings: list[str], roles: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """The peaks in bytes, by role and step, of one round."""
    with tempfile.TemporaryDirectory(prefix="fedchain-memory-") as name:
        folder = Path(name)
        with Devnet(folder / "devnet", peers=1) as net:
            options = ["--parameters", str(parameters), "--members", str(members), "--api", net.ipfs_apis[0]]
            options += [word for setting in settings for word in ("--set", setting)]
            return {role: _play(role, folder, options) for role in ("others", *roles)}


def _play(role: str, folder: Path, options: list[str]) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), role, str(folder), *options],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{role}: {done.stderr[-2000:]}")
    peaks: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description="The memory of a peer in each step of a round")
    parser.add_argument("--parameters", type=int, default=10_000_000)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--charter", action="append", choices=CHARTERS, help="only these; may be repeated")
    parser.add_argument("--role", action="append", choices=ROLES, help="only these; may be repeated")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "memory.json")
    options = parser.parse_args()
    found: dict[str, Any] = {"parameters": options.parameters, "members": options.members, "peaks": {}}
    table = Table(
        "charter",
        "role",
        "imports",
        "largest peak, MiB",
        "in",
        "ratio",
        title=f"{options.parameters:,} parameters, {options.members} members",
    )
    for charter in options.charter or CHARTERS:
        peaks = measure(options.parameters, options.members, CHARTERS[charter], ("plain", *(options.role or ROLES)))
        found["peaks"][charter] = peaks
        for role, steps in peaks.items():
            if role == "others":
                continue
            base = steps["imports"]
            step = max(steps, key=lambda name: steps[name])
            ratio = (steps[step] - base) / (4 * options.parameters)
            over = " OVER" if steps[step] > LIMIT_BYTES and role != "plain" else ""
            table.add_row(charter, role, f"{base / MIB:.0f}", f"{steps[step] / MIB:.0f}{over}", step, f"{ratio:.1f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
