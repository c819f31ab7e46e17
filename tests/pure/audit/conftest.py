"""The plays that tests of the audit share: each is played once."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from audit_play import (
    CHAIN_ID,
    CONTRACT,
    JOINER,
    LAYOUT,
    MEMBERS,
    STRANGER,
    WEIGHTS,
    Lively,
    MemoryChain,
    MemoryStore,
    Play,
    charter_of,
    flipped,
    found,
)
from rich.console import Console

from fedchain.audit import print_report
from fedchain.audit.report import Report
from fedchain.protocol.events import ResultCommitted
from fedchain.protocol.model import model_digest


class Named:
    """What tests need by name."""

    numpy, ResultCommitted = np, ResultCommitted
    Play, MemoryStore, MemoryChain = Play, MemoryStore, MemoryChain
    MEMBERS, WEIGHTS, LAYOUT, CHAIN_ID, CONTRACT = MEMBERS, WEIGHTS, LAYOUT, CHAIN_ID, CONTRACT
    JOINER, STRANGER = JOINER, STRANGER
    charter_of, flipped, found = staticmethod(charter_of), staticmethod(flipped), staticmethod(found)
    model_digest = staticmethod(model_digest)


@pytest.fixture(scope="session")
def named() -> type[Named]:
    return Named


@pytest.fixture(scope="session")
def lively() -> Play:
    """Three rounds of it, played once."""
    return Lively(rounds=3).run()


@pytest.fixture(scope="session")
def honest() -> Play:
    """Two honest rounds, played once; whoever changes it takes a copy."""
    return Play(rounds=2).run()


@pytest.fixture(scope="session")
def terminal() -> Callable[[Report], str]:
    """What the terminal shows of a report."""

    def shown(report: Report) -> str:
        console = Console(file=io.StringIO(), width=300, record=True)
        print_report(console, report)
        return console.export_text()

    return shown
