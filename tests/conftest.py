"""What tests of several folders share: test modules cannot import each other, fixtures hand these out."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import load_script


def load(name: str) -> ModuleType:
    """A module of this folder that is no test."""
    if name not in sys.modules:
        load_script(Path(__file__).parent / f"{name}.py", name)
    return sys.modules[name]


@pytest.fixture(scope="session")
def evidence_cases() -> ModuleType:
    """Random challenges whose truth is known (`evidence_cases.py`)."""
    return load("evidence_cases")


@pytest.fixture(scope="session")
def plays() -> ModuleType:
    """Whole rounds with real numbers on a chain (`plays.py`)."""
    return load("plays")


@pytest.fixture(scope="session")
def histories() -> ModuleType:
    """Random histories on a chain, folded in Python (`histories.py`)."""
    return load("histories")


@pytest.fixture(scope="session")
def quarrels() -> ModuleType:
    """Challenges in random histories (`quarrels.py`)."""
    return load("quarrels")


@pytest.fixture(scope="session")
def assemblies() -> ModuleType:
    """Votes and demands in random histories (`assemblies.py`)."""
    return load("assemblies")


@pytest.fixture(scope="session")
def networks() -> ModuleType:
    """Members, rogues and a chain on paper, for thousands of rounds (`network.py`)."""
    load("paper")
    return load("network")


@pytest.fixture(scope="session")
def stages() -> ModuleType:
    """The module of `stage`, for a test that plays another round."""
    return load("stage")


@pytest.fixture
def stage(tmp_path: Path) -> Any:
    """One round of the walkthrough, kept at every phase, and peers that act on it (`stage.py`)."""
    return load("stage").Stage(tmp_path)
