"""Compile the contracts and write, or compare, the committed build: `python -m fedchain.chain.build [--check]`.

For whoever changes `contracts/`; a user of the package needs no compiler, because the build is committed inside it.
The compiler is driven by py-solc-x and found in this order: the path in FEDCHAIN_SOLC; what py-solc-x has installed;
py-solc-x's own download, when FEDCHAIN_SOLC_DOWNLOAD=1 allows it; npm's WebAssembly build behind
`devnet/solc-shim.mjs`. All are the same version and give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .artifacts import COUNCIL, FEDERATION, artifact_file

SOLC_VERSION = "0.8.37"
CONTRACTS = (FEDERATION, COUNCIL)

ROOT = Path(__file__).parents[2]
SHIM = ROOT / "devnet" / "solc-shim.mjs"

# Source unit names and settings go into the metadata hash, and so into the bytecode: they are fixed. "paris" is the
# last target that runs on every EVM chain: a consortium's may not have activated PUSH0 (shanghai) or MCOPY (cancun).
_NAMES = (
    *("IRecord", "IFederation", "ICouncil", "Bitmaps", "Record", "Phases", "Members", "Rounds", "Federation"),
    *("Signatures", "Commitments", "Judge", "Verdicts", "Disputes", "Demands", "Votes", "Council"),
)
SOURCES = tuple(sorted(f"contracts/{name}.sol" for name in _NAMES))
SETTINGS: dict[str, Any] = {
    "optimizer": {"enabled": True, "runs": 200},
    "evmVersion": "paris",
    "viaIR": False,
    "metadata": {"bytecodeHash": "ipfs"},
    "remappings": [],
}


def find_solc() -> Path:
    """The compiler's executable, in the order the module names. Raises UsageError when there is none."""
    named = os.environ.get("FEDCHAIN_SOLC")
    if named:
        path = Path(named)
        if not path.is_file():
            raise UsageError(f"FEDCHAIN_SOLC names {named}, which is no file")
        return path
    import solcx
    from solcx.exceptions import DownloadError, SolcInstallationError

    try:
        if SOLC_VERSION in {str(version) for version in solcx.get_installed_solc_versions()}:
            return Path(solcx.install.get_executable(SOLC_VERSION))
        if os.environ.get("FEDCHAIN_SOLC_DOWNLOAD") == "1":
            solcx.install_solc(SOLC_VERSION)
            return Path(solcx.install.get_executable(SOLC_VERSION))
    except (OSError, DownloadError, SolcInstallationError) as error:
        # A home that cannot be written, or a download that cannot be reached: there is one more way.
        print(f"py-solc-x has no compiler to give: {error}", file=sys.stderr)
    if shutil.which("node") and (SHIM.parent / "node_modules" / "solc" / "package.json").is_file():
        return SHIM
    raise UsageError(
        f"no Solidity compiler {SOLC_VERSION}: run `npm ci --prefix devnet` (needs Node), or set FEDCHAIN_SOLC to one, "
        "or FEDCHAIN_SOLC_DOWNLOAD=1"
    )


def compile_sources(sources: dict[str, str], solc: Path | None = None) -> dict[str, Any]:
    """The compiler's standard-JSON output for named sources, under the build's settings.

    Raises UsageError with the compiler's own words when a source does not compile, or the compiler is another version.
    """
    import solcx
    from solcx.exceptions import SolcError

    executable = solc or find_solc()
    try:
        version = str(solcx.wrapper.get_solc_version(executable))
    except (OSError, SolcError) as error:
        raise UsageError(f"{executable} is no Solidity compiler that runs here: {error}") from error
    if version != SOLC_VERSION:
        raise UsageError(f"{executable} is solc {version}; the build is made with {SOLC_VERSION}")
    outputs = ["abi", "metadata", "evm.bytecode.object", "evm.deployedBytecode"]
    task = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": {**SETTINGS, "outputSelection": {"*": {"*": outputs}}},
    }
    try:
        output: dict[str, Any] = solcx.compile_standard(task, solc_binary=executable)
    except SolcError as error:
        # str(error) would print all of the compiler's output.
        messages = [e["formattedMessage"] for e in error.error_dict or [] if e["severity"] == "error"]
        raise UsageError("\n".join(messages) or f"solc failed: {error.stderr_data}") from error
    return output


def build(solc: Path | None = None) -> dict[str, dict[str, Any]]:
    """The artifacts by name, compiled from this checkout's `contracts/`; a warning is an error. Raises UsageError."""
    try:
        sources = {name: (ROOT / name).read_text(encoding="utf-8") for name in SOURCES}
    except OSError as error:
        raise UsageError(f"the contracts' sources are not here; build from a checkout: {error}") from error
    output = compile_sources(sources, solc)
    if warnings := [error["formattedMessage"] for error in output.get("errors", [])]:
        raise UsageError("\n".join(warnings))
    return {name: _artifact(name, output, sources) for name in CONTRACTS}


def _artifact(name: str, output: dict[str, Any], sources: dict[str, str]) -> dict[str, Any]:
    source_name = f"contracts/{name}.sol"
    compiled = output["contracts"][source_name][name]
    metadata = json.loads(compiled["metadata"])
    references = compiled["evm"]["deployedBytecode"].get("immutableReferences", {})
    places = sorted((place["start"], place["length"]) for uses in references.values() for place in uses)
    return {
        "contractName": name,
        "sourceName": source_name,
        "compiler": metadata["compiler"]["version"],
        "settings": SETTINGS,
        "sources": {used: hashlib.sha256(sources[used].encode()).hexdigest() for used in sorted(metadata["sources"])},
        "abi": _abi(name, output),
        "bytecode": "0x" + compiled["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + compiled["evm"]["deployedBytecode"]["object"],
        "immutableReferences": [list(place) for place in places],
    }


def _abi(name: str, output: dict[str, Any]) -> list[dict[str, Any]]:
    """What a contract answers to. A federation answers to ICouncil.sol too, through its council's code."""
    abi: list[dict[str, Any]] = output["contracts"][f"contracts/{name}.sol"][name]["abi"]
    if name == FEDERATION:
        inherited = output["contracts"]["contracts/ICouncil.sol"]["ICouncil"]["abi"]
        abi = abi + [entry for entry in inherited if entry not in abi]
    return abi


def to_text(artifact: dict[str, Any]) -> str:
    """The committed form: sorted, one entry a line, so that a diff shows what changed."""
    return json.dumps(artifact, indent=1, sort_keys=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the artifacts, or with --check compare them; the exit code is 1 when they differ."""
    parser = argparse.ArgumentParser(prog="python -m fedchain.chain.build", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed build and write nothing")
    check = parser.parse_args(arguments).check
    try:
        artifacts = build()
    except UsageError as error:
        print(error, file=sys.stderr)
        return 1
    for name, artifact in artifacts.items():
        file, text = artifact_file(name), to_text(artifact)
        size = f"{len(artifact['deployedBytecode']) // 2 - 1:,} bytes at run time, solc {artifact['compiler']}"
        if not check:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            print(f"{file.name}: {size}")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            remedy = "python -m fedchain.chain.build writes it anew"
            print(f"{file.name} is not what contracts/ compiles to; {remedy}", file=sys.stderr)
            return 1
        else:
            print(f"{file.name} is what contracts/ compiles to: {size}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
