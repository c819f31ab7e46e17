"""The committed build: what `contracts/` compiles to, byte for byte, and what a chain then holds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import solcx
from web3 import Web3

from fedchain.chain import build
from fedchain.chain.artifacts import COUNCIL, artifact_file, load_artifact
from fedchain.chain.deployment import council_of
from fedchain.chain.logs import signature
from fedchain.errors import UsageError

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="the npm compiler needs Node")
EIP_170 = 24_576

Found = Callable[..., Any]


@needs_node
def test_the_sources_compile_to_the_committed_bytes() -> None:
    artifacts = build.build(build.SHIM)
    assert set(artifacts) == {path.stem for path in artifact_file(COUNCIL).parent.glob("*.json")}
    for name, artifact in artifacts.items():
        assert build.to_text(artifact) == artifact_file(name).read_text(encoding="utf-8")


def in_order(abi: list[dict[str, Any]]) -> list[str]:
    return sorted({json.dumps(entry, sort_keys=True) for entry in abi})


@needs_node
def test_the_contract_is_the_two_interfaces_and_nothing_more() -> None:
    names = ["IRecord", "IFederation", "ICouncil"]
    files = [f"contracts/{name}.sol" for name in names]
    output = build.compile_sources(
        {file: (build.ROOT / file).read_text(encoding="utf-8") for file in files}, build.SHIM
    )
    said = [output["contracts"][file][name]["abi"] for file, name in zip(files, names, strict=True)]
    unnamed = {"constructor", "fallback", "receive"}
    contract = [entry for entry in load_artifact().abi if entry["type"] not in unnamed]
    assert in_order(contract) == in_order([entry for abi in said for entry in abi])
    assert len(contract) == len(in_order(contract))
    # The federation passes on what it does not know: what it knows, its council would never be asked.
    asked, passed_on = (
        {signature(e) for e in abi if e["type"] == "function"} for abi in (said[1], load_artifact(COUNCIL).abi)
    )
    assert len(asked) > 30 and len(passed_on) > 15
    assert not {Web3.keccak(text=s)[:4] for s in asked} & {Web3.keccak(text=s)[:4] for s in passed_on}


def test_a_warning_stops_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    output = {"errors": [{"severity": "warning", "formattedMessage": "Warning: Unused local variable."}]}
    monkeypatch.setattr(build, "compile_sources", lambda sources, solc: output)
    with pytest.raises(UsageError, match="Unused local variable"):
        build.build()


@needs_node
def test_the_shim_serves_every_way_to_compile_of_py_solc_x(tmp_path: Path) -> None:
    source = "pragma solidity ^0.8.28; contract One { function one() external pure returns (uint256) { return 1; } }"
    (tmp_path / "One.sol").write_text(source)
    (tmp_path / "Two.sol").write_text('import {One} from "./One.sol"; contract Two is One {}')
    options = {"solc_binary": build.SHIM, "optimize": True, "optimize_runs": 200, "evm_version": "paris"}
    wanted = build.compile_sources({"One.sol": source}, build.SHIM)["contracts"]["One.sol"]["One"]
    files = solcx.compile_files([tmp_path / "Two.sol"], ["abi", "bin"], base_path=tmp_path, **options)
    assert files["One.sol:One"] == {"abi": wanted["abi"], "bin": wanted["evm"]["bytecode"]["object"]}
    assert solcx.compile_source(source, **options)["<stdin>:One"]["hashes"] == {"one()": "901717d1"}
    with pytest.raises(solcx.exceptions.SolcError, match="Undeclared identifier"):
        solcx.compile_source(source.replace("return 1", "return two"), ["bin"], **options)


@needs_node
def test_a_source_that_does_not_compile_is_one_readable_error() -> None:
    with pytest.raises(UsageError, match="ParserError: Expected ';'") as refused:
        build.compile_sources({"Bad.sol": "contract Bad { uint256 x }"}, build.SHIM)
    assert len(str(refused.value).splitlines()) < 12


def test_the_check_tells_a_changed_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    artifacts = {name: json.loads(artifact_file(name).read_text(encoding="utf-8")) for name in build.CONTRACTS}
    monkeypatch.setattr(build, "artifact_file", lambda name: tmp_path / f"{name}.json")
    monkeypatch.setattr(build, "build", lambda: artifacts)
    assert build.main(["--check"]) == 1
    assert not list(tmp_path.iterdir())
    assert build.main([]) == 0
    assert build.main(["--check"]) == 0
    for artifact in artifacts.values():
        source = next(iter(artifact["sources"]))
        was, artifact["sources"][source] = artifact["sources"][source], "0" * 64
        assert build.main(["--check"]) == 1
        artifact["sources"][source] = was
    assert build.main(["--check"]) == 0


def test_a_compiler_that_is_missing_or_another_version_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEDCHAIN_SOLC", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="nowhere, which is no file"):
        build.find_solc()
    older = tmp_path / "solc"
    older.write_text("#!/bin/sh\necho 'Version: 0.8.20+commit.a1b79de6.Linux.g++'\n")
    older.chmod(0o755)
    monkeypatch.setenv("FEDCHAIN_SOLC", str(older))
    assert build.find_solc() == older
    with pytest.raises(UsageError, match=r"is solc 0\.8\.20; the build is made with 0\.8\.37"):
        build.build()
    monkeypatch.delenv("FEDCHAIN_SOLC")
    monkeypatch.delenv("FEDCHAIN_SOLC_DOWNLOAD", raising=False)
    monkeypatch.setenv("SOLCX_BINARY_PATH", str(tmp_path))  # where py-solc-x has nothing installed
    if shutil.which("node"):
        assert build.find_solc() == build.SHIM
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no Solidity compiler"):
        build.find_solc()
    installed = tmp_path / f"solc-v{build.SOLC_VERSION}"
    installed.write_text("")
    assert build.find_solc() == installed


@pytest.mark.parametrize("name", build.CONTRACTS)
def test_the_runtime_code_fits_the_limit_of_eip_170(name: str) -> None:
    assert 0 < len(load_artifact(name).deployed_bytecode) < EIP_170


def test_the_readme_tells_the_sizes() -> None:
    readme = (build.ROOT / "contracts" / "README.md").read_text(encoding="utf-8")
    sizes = {name: f"{len(load_artifact(name).deployed_bytecode):,}" for name in build.CONTRACTS}
    assert f"`Federation` has {sizes['Federation']} bytes, `Council`\n{sizes['Council']}" in readme


def test_the_creation_code_fits_the_limit_of_eip_3860_with_64_founders() -> None:
    """It carries the council's as well, and the arguments: 14 terms, and the list of founders."""
    assert len(load_artifact().bytecode) + 32 * (14 + 2 + 64) < 2 * EIP_170


def test_the_council_on_chain_is_the_build_and_stands_where_it_must(found: Found) -> None:
    federation = found(5)
    council = council_of(federation.address)
    assert Web3.to_checksum_address(federation.call("council")) == council
    code = bytes.fromhex(federation.chain.rpc("eth_getCode", council, "latest")[2:])
    assert code == load_artifact(COUNCIL).deployed_bytecode
    assert load_artifact(COUNCIL).immutable_references == ()


def test_both_pieces_declare_the_same_storage() -> None:
    """The council runs in the federation's storage: a word more in either would be another's."""
    for name in ("Federation", "Phases", "Members", "Rounds", "Council", "Judge", "Disputes", "Demands", "Votes"):
        code = (build.ROOT / "contracts" / f"{name}.sol").read_text(encoding="utf-8")
        states = re.findall(
            r"^    (?:mapping|u?int\d*|bytes\d*|bool|address|[A-Z]\w+(?:\[\])?) .*;", code, re.MULTILINE
        )
        assert [line for line in states if "constant" not in line and "immutable" not in line] == [], name


def test_the_code_on_chain_is_the_build_with_its_terms(found: Found) -> None:
    artifact = load_artifact()
    federation = found(5)
    code = bytearray.fromhex(federation.chain.rpc("eth_getCode", federation.address, "latest")[2:])
    assert len(code) == len(artifact.deployed_bytecode)
    assert bytes(code) != artifact.deployed_bytecode
    assert artifact.matches(bytes(code))
    places = {i for start, length in artifact.immutable_references for i in range(start, start + length)}
    outside = next(i for i in range(len(code) // 2, len(code)) if i not in places)
    code[outside] ^= 1
    assert not artifact.matches(bytes(code))
    assert not artifact.matches(b"")


def test_the_artifacts_name_is_its_content() -> None:
    artifact = load_artifact()
    assert len(artifact.artifact_hash) == 64
    assert artifact.compiler.startswith(build.SOLC_VERSION)
    assert artifact.immutable_references == tuple(sorted(artifact.immutable_references))


def test_reading_the_build_needs_neither_compiler_nor_web3() -> None:
    code = (
        "import sys; from fedchain.chain.artifacts import load_artifact; load_artifact(); "
        "print(sorted({'web3', 'solcx', 'eth_account'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_contract_runs_on_a_chain_without_newer_instructions(found: Found, start_anvil: Callable[..., Any]) -> None:
    federation = found(3, on=start_anvil("--hardfork", "paris", "--chain-id", "7"), threshold=2, rounds=1)
    federation.all_enrol().finish_round()
    assert federation.call("phaseOf", 2) == 8
