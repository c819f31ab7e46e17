"""The layers of the package: an import points left only, folders on one layer never import each other.

errors ← protocol (pure) ← ports ← {chain, store, crypto, learn} ← {peer, audit, devnet} ← lab ← cli
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from setuptools.discovery import PEP420PackageFinder

from fedchain.protocol.charter import tomllib

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fedchain"

LAYERS = (
    ("errors",),
    ("protocol",),
    ("ports", "wire"),
    ("chain", "store", "crypto", "learn"),
    ("peer", "audit", "devnet"),
    ("lab",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

IMPURE = {"asyncio", "datetime", "http", "multiprocessing", "os", "random", "secrets", "select", "socket", "subprocess"}
IMPURE |= {"tempfile", "threading", "time", "urllib", "uuid", "requests", "web3", "torch", "tenseal", "ipfshttpclient"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path, package: Path = PACKAGE) -> str:
    """The folder or single module directly under the package that a file belongs to; "" for the package itself."""
    first = path.relative_to(package).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports_of(path: Path, package: Path = PACKAGE) -> set[str]:
    """Every module that a file imports anywhere in it, absolute; for `from a import b` both a and a.b."""
    found: set[str] = set()
    here = (package.name, *path.relative_to(package).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def wrong_imports(path: Path, package: Path = PACKAGE) -> set[str]:
    """The layers that a file imports though it may not."""
    own = layer_of(path, package)
    if own == "":
        return {name for name in imports_of(path, package) if name.startswith(package.name)}
    parts = [name.split(".") for name in imports_of(path, package)]
    used = {part[1] for part in parts if part[0] == package.name and len(part) > 1} & RANK.keys()
    return {name for name in used if name != own and RANK[name] >= RANK[own]}


def test_every_folder_of_the_package_has_its_layer() -> None:
    assert {layer_of(module) for module in MODULES} - {""} <= RANK.keys(), "give a new folder its place in LAYERS"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_lower_layers_only(module: Path) -> None:
    assert wrong_imports(module) == set()


@pytest.mark.parametrize("module", sorted((PACKAGE / "protocol").glob("*.py")), ids=lambda path: path.name)
def test_the_protocol_has_no_clock_socket_or_random_source(module: Path) -> None:
    assert {name.split(".")[0] for name in imports_of(module)} & IMPURE == set()


def test_a_forbidden_import_is_seen_in_every_spelling(tmp_path: Path) -> None:
    for folder, line, wrong in [
        ("protocol", "from ..chain import rpc", {"chain"}),
        ("protocol", "from .. import chain", {"chain"}),
        ("protocol", "import fedchain.ports", {"ports"}),
        ("store", "def f():\n    from fedchain.crypto.shamir import open", {"crypto"}),
        ("peer", "from ..audit.report import Report", {"audit"}),
        ("chain", "from ..cli import main", {"cli"}),
        ("chain", "from . import rpc\nfrom ..protocol import ids\nfrom ..errors import Fault", set()),
        ("cli", "from ..peer import node\nfrom ..learn import Task", set()),
    ]:
        package = tmp_path / "fedchain"
        file = package / folder / "module.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(line)
        assert wrong_imports(file, package) == wrong, line


def test_the_auditor_needs_neither_torch_nor_a_key() -> None:
    code = (
        "import pkgutil, importlib, sys, fedchain.audit as audit\n"
        "for module in pkgutil.iter_modules(audit.__path__, 'fedchain.audit.'): importlib.import_module(module.name)\n"
        "print(*sorted({'torch', 'eth_account', 'web3', 'tenseal'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=dict(os.environ)
    )
    assert done.stdout.split() == []


def test_the_wheel_holds_fedchain_alone() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = PEP420PackageFinder.find(where=str(ROOT), include=settings["packages"]["find"]["include"])
    assert "fedchain" in packages and {name.split(".")[0] for name in packages} == {"fedchain"}
    folders = {str(path.parent.relative_to(ROOT)).replace(os.sep, ".") for path in MODULES}
    assert folders <= set(packages), "a folder of the package is left out of the wheel"
