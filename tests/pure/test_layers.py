"""The house's rule: an import points left only, and the wheel holds `fedchain` alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fedchain"

LAYERS = (
    {"errors"},
    {"protocol"},
    {"ports"},
    {"chain", "store", "crypto", "learn"},
    {"peer", "audit", "devnet"},
    {"cli"},
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    """The folder or module right under fedchain that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """The parts of fedchain that a file imports, at its top or inside a function."""
    package = ("fedchain", *path.relative_to(PACKAGE).parent.parts)
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [(*module, alias.name) for alias in node.names]
        parts |= {name[1] for name in names if name[0] == "fedchain" and len(name) > 1}
    return parts - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_an_import_points_left_only(path: Path) -> None:
    own = part_of(path)
    assert own in RANK, f"fedchain/{own} stands in no layer; give it one in this test and in docs/protocol.md"
    for other in imported_parts(path) - {own}:
        assert other in RANK, f"{path} imports fedchain.{other}, which stands in no layer"
        assert RANK[other] < RANK[own], f"{path}: {own} may not import {other}"


def test_the_rule_would_notice_a_wrong_import(tmp_path: Path) -> None:
    wrong = PACKAGE / "protocol" / "ids.py"
    assert imported_parts(PACKAGE / "peer" / "trainer.py") >= {"crypto", "learn", "protocol"}
    assert imported_parts(wrong) <= {"protocol"}
    assert RANK["peer"] > RANK["crypto"] > RANK["protocol"]


@pytest.mark.parametrize("path", sorted((PACKAGE / "protocol").glob("*.py")), ids=lambda path: path.name)
def test_the_protocol_has_no_clock_socket_file_or_random_source(path: Path) -> None:
    forbidden = {
        "time",
        "datetime",
        "socket",
        "requests",
        "random",
        "secrets",
        "os",
        "subprocess",
        "threading",
        "torch",
    }
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    assert not names & forbidden


def test_the_wheel_holds_fedchain_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["fedchain", "fedchain.*"]


def test_every_folder_of_the_package_is_importable_from_a_wheel() -> None:
    for folder in {path.parent for path in MODULES}:
        assert (folder / "__init__.py").exists(), f"{folder} would be missing from the wheel"


@pytest.mark.parametrize(
    "module", ["fedchain.audit", "fedchain.chain.reader", "fedchain.store.ipfs", "fedchain.crypto"]
)
def test_what_the_auditor_needs_imports_nothing_that_signs_or_trains(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "bad = {'torch', 'web3', 'eth_account', 'tenseal', 'coincurve'} & set(sys.modules)\n"
        "sys.exit(f'imports {sorted(bad)}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
