"""A founded federation on a real anvil, its members' senders, and a proxy that lies as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests

from fedchain.chain.deploy import Deployment, deploy
from fedchain.chain.reader import Reader
from fedchain.chain.sender import Sender
from fedchain.peer.journal import Journal
from fedchain.protocol.actions import CommitUpdate, Enrol
from fedchain.protocol.cid import cid_of
from fedchain.protocol.events import Terms
from fedchain.protocol.ids import Address, Digest

BOND_WEI = 10**15


def some_terms(**changes: Any) -> Terms:
    """Complete terms for three to five founders; the windows are an hour."""
    entries: dict[str, Any] = {
        "charter_digest": Digest(b"\x01" * 32),
        "charter_cid": cid_of(b"charter"),
        "genesis_digest": Digest(b"\x02" * 32),
        "genesis_cid": cid_of(b"genesis"),
        "model_size": 100,
        "rounds": 3,
        "threshold": 2,
        "enrol_window_s": 3600,
        "training_window_s": 3600,
        "receipt_window_s": 3600,
        "aggregate_window_s": 3600,
        "challenge_window_s": 3600,
        "close_window_s": 10**9,
        "bond_wei": BOND_WEI,
    }
    return Terms(**(entries | changes))


@dataclass
class FoundedOn:
    """A federation of the first three accounts of one anvil, and what a test does with it."""

    anvil: Any
    deployment: Deployment
    folder: Path
    closing: ExitStack
    numbers: Iterator[int] = field(default_factory=count)

    def key(self, index: int) -> bytes:
        """A member's private key."""
        return bytes.fromhex(self.anvil.keys[index][2:])

    def journal(self, index: int) -> Journal:
        """A member's journal, the real one, on disk."""
        return self.closing.enter_context(Journal(self.folder / f"journal-{index}-{next(self.numbers)}.jsonl"))

    def sender(self, index: int, journal: Any = None, **options: Any) -> Sender:
        """A member's sender."""
        journal = journal if journal is not None else self.journal(index)
        options = {"chain_id": self.anvil.chain_id, "mine_timeout_s": 10.0} | options
        url = options.pop("url", self.anvil.url)
        return Sender(url, self.deployment.address, self.key(index), journal, **options)

    def reader(self, **options: Any) -> Reader:
        """Anybody's reader."""
        options = {"from_block": self.deployment.block} | options
        url = options.pop("url", self.anvil.url)
        return Reader(url, self.deployment.address, **options)

    def enrol_all(self) -> list[Sender]:
        """Enrol the three members; gives their senders."""
        senders = [self.sender(i) for i in range(3)]
        for index, sender in enumerate(senders):
            sender.submit("enrol", enrolment(index))
        return senders


def enrolment(index: int) -> Enrol:
    """A member's enrolment."""
    return Enrol(encryption_key=bytes([index + 1] * 32), weight=index + 1, bond_wei=BOND_WEI)


def commitment(word: bytes = b"update", round: int = 1, attempt: int = 0) -> CommitUpdate:
    """An update's commitment."""
    return CommitUpdate(round, attempt, Digest(b"\x03" * 32), cid_of(word), cid_of(word + b" shares"))


def found_on(anvil: Any, folder: Path, closing: ExitStack, *, confirmations: int = 0, **changes: Any) -> FoundedOn:
    """Found a federation of an anvil's first three accounts; keyword arguments change its terms."""
    deployment = deploy(
        anvil.url,
        bytes.fromhex(anvil.keys[0][2:]),
        some_terms(**changes),
        tuple(Address(account) for account in anvil.accounts[:3]),
        expected_chain_id=anvil.chain_id,
        confirmations=confirmations,
    )
    return FoundedOn(anvil, deployment, folder, closing)


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Callable[..., FoundedOn]]:
    """Founds a federation on an anvil: `found(chain)`."""
    with ExitStack() as closing:
        yield lambda anvil, **options: found_on(anvil, tmp_path, closing, **options)


@pytest.fixture(scope="module")
def spoken(anvil: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FoundedOn]:
    """One federation for tests that only read: founded, three members enrolled, the first one's update committed."""
    snapshot = anvil.remember()
    with ExitStack() as closing:
        federation = found_on(anvil, tmp_path_factory.mktemp("spoken"), closing)
        federation.enrol_all()[0].submit("commit/1/0", commitment())
        yield federation
    anvil.take_back(snapshot)


@pytest.fixture
def federation(chain: Any, found: Callable[..., FoundedOn]) -> FoundedOn:
    """A fresh federation on the session's anvil."""
    return found(chain)


@pytest.fixture
def terms() -> Callable[..., Terms]:
    """Complete terms; keyword arguments change entries."""
    return some_terms


@pytest.fixture
def enrol() -> Callable[[int], Enrol]:
    """A member's enrolment, by index."""
    return enrolment


@pytest.fixture
def commit() -> Callable[..., CommitUpdate]:
    """An update's commitment."""
    return commitment


Tamper = Callable[[str, list[Any], Any], Any]


class Proxy:
    """An RPC endpoint before a real one: counts calls by method, and changes answers as `tamper` says.

    `tamper(method, params, answer)` gets and gives whole JSON-RPC answers; `before(method)` is called for each call.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.calls: Counter[str] = Counter()
        self.tamper: Tamper = lambda method, params, answer: answer
        self.before: Callable[[str], None] = lambda method: None
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for one in asked if isinstance(asked, list) else [asked]:
                    proxy.calls[one["method"]] += 1
                    proxy.before(one["method"])
                answered = requests.post(proxy.target, json=asked, timeout=10).json()
                if isinstance(asked, list):
                    pairs = zip(asked, answered, strict=True)
                    answered = [proxy.tamper(a["method"], a["params"], b) for a, b in pairs]
                else:
                    answered = proxy.tamper(asked["method"], asked["params"], answered)
                body = json.dumps(answered).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def proxy_for() -> Iterator[Callable[[str], Proxy]]:
    """Starts proxies: `proxy_for(anvil.url)`."""
    with ExitStack() as closing:

        def start(url: str) -> Proxy:
            running = Proxy(url)
            closing.callback(running.close)
            return running

        yield start


@pytest.fixture
def proxy(anvil: Any, proxy_for: Callable[[str], Proxy]) -> Proxy:
    """A proxy before the session's anvil."""
    return proxy_for(anvil.url)
