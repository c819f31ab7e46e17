"""The real ground of the tests in this folder: anvil and IPFS nodes as processes, one devnet for the whole session.

`devnet` has five peers; tests share its chain, and must not kill its parts or wind its time. A test that does starts
its own `Devnet`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fedchain.devnet.network import Devnet


@pytest.fixture(scope="session")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devnet]:
    """A chain and five IPFS nodes, shared by the session."""
    with Devnet(tmp_path_factory.mktemp("devnet"), peers=5) as net:
        yield net
