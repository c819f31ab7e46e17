"""The committed build of the contracts: ABI and bytecode, read from inside the package. Needs no compiler and no key.

Two are built: the federation, which members talk to, and the council, whose code it runs for challenges, demands and
votes; the federation's constructor deploys it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ARTIFACTS = Path(__file__).parent / "artifacts"
FEDERATION, COUNCIL = "Federation", "Council"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What one contract of `contracts/` compiles to.

    `deployed_bytecode` holds zeros where the constructor writes the terms; `immutable_references` lists those places
    as (start, length) in bytes, ascending. `artifact_hash` is the SHA-256 of bytecode and canonical ABI: the build's
    name.
    """

    name: str
    compiler: str
    abi: tuple[dict[str, Any], ...]
    bytecode: bytes
    deployed_bytecode: bytes
    immutable_references: tuple[tuple[int, int], ...]
    artifact_hash: str

    def matches(self, code: bytes) -> bool:
        """Whether code found on a chain is this build, whatever its terms."""
        return self._masked(code) == self._masked(self.deployed_bytecode)

    def _masked(self, code: bytes) -> bytes:
        masked = bytearray(code)
        for start, length in self.immutable_references:
            masked[start : start + length] = bytes(len(masked[start : start + length]))
        return bytes(masked)


def artifact_file(name: str) -> Path:
    """Where the build of this contract is kept."""
    return ARTIFACTS / f"{name}.json"


@cache
def load_artifact(name: str = FEDERATION) -> Artifact:
    """The build that this package was made with."""
    entries = json.loads(artifact_file(name).read_text(encoding="utf-8"))
    bytecode = bytes.fromhex(entries["bytecode"][2:])
    abi = json.dumps(entries["abi"], sort_keys=True, separators=(",", ":")).encode()
    return Artifact(
        name=entries["contractName"],
        compiler=entries["compiler"],
        abi=tuple(entries["abi"]),
        bytecode=bytecode,
        deployed_bytecode=bytes.fromhex(entries["deployedBytecode"][2:]),
        immutable_references=tuple((start, length) for start, length in entries["immutableReferences"]),
        artifact_hash=hashlib.sha256(bytecode + abi).hexdigest(),
    )
