"""The stranger: a real contract on a real chain, objects on real IPFS nodes, five members of whom some lie.

What the contract cannot see (it computes no sum) goes through; the audit, given an RPC URL, an address and an IPFS API,
names each liar. The members are played by the audit's own test builder, its statements sent as transactions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from audit_play import flipped, found
from onchain_play import OnChainPlay

from fedchain.audit import audit
from fedchain.chain.reader import Reader
from fedchain.chain.sender import Sender
from fedchain.devnet.network import Devnet
from fedchain.peer.journal import Journal
from fedchain.protocol.cid import cid_of
from fedchain.protocol.ids import Bitmap
from fedchain.store.ipfs import IpfsStore

TRAINER, OPENER = 1, 3
"""Who lies in round 1, and in round 2."""

WITHHOLDER, REPLACER = 1, 2
"""The aggregators of rounds 2 and 3."""

PATIENCE_S = 3
"""How long an audit here waits for an object; what nobody stored costs it that long."""

WINDOWS = {"training_s": 3600, "receipt_s": 3600}


class RealStore(IpfsStore):
    """The builder's store, on an IPFS node; it remembers what it was given."""

    def __init__(self, api: str) -> None:
        super().__init__(api)
        self.served: dict[str, bytes] = {}
        self.withhold = False

    def put(self, content: bytes) -> Any:
        cid = cid_of(content) if self.withhold else super().put(content)
        self.served[cid] = content
        return cid


class LyingFederation(OnChainPlay):
    """Five members on real parts: one flips a byte of its upload, one withholds the sum, one swaps its opening, one
    replaces the model."""

    def __init__(self, devnet: Devnet, folder: Path, files: ExitStack) -> None:
        super().__init__(devnet.rpc, [bytes([0xA0 + i]) * 32 for i in range(5)], rounds=3, windows=WINDOWS)
        self.store: Any = RealStore(devnet.ipfs_apis[0])
        self.folder, self.files = folder, files
        for member in self.members:
            devnet.fund(member, 10**20)
        self.publishing = False

    def sender(self, key: bytes) -> Sender:
        journal = self.files.enter_context(Journal(self.folder / f"{self.keys.index(key)}.jsonl"))
        return Sender(self.rpc, self.deployed.address, key, journal)

    def aggregate(self, number: int) -> None:
        self.store.withhold = number == 2
        super().aggregate(number)
        self.store.withhold = False

    def stored(self, number: int, index: Any, upload: Any) -> tuple[bytes, bytes]:
        if (number, index) == (1, TRAINER):
            return flipped(upload.ciphertext, 1000), upload.shares
        return upload.ciphertext, upload.shares

    def whole(self, number: int, index: Any) -> Bitmap:
        return Bitmap(0b11101) if number == 1 else Bitmap(0b11111)

    def opening(self, number: int, index: Any) -> None:
        self.publishing = True
        super().opening(number, index)
        self.publishing = False

    def open(self, number: int, index: Any) -> Any:
        swapped = (number, index) == (2, OPENER) and self.publishing
        return super().open(number, 0 if swapped else index)

    def next_model(self, number: int, opened: Any) -> bytes:
        model: bytes = super().next_model(number, opened)
        return flipped(model, len(model) - 3) if number == 3 else model


@pytest.fixture(scope="module")
def liars(devnet: Devnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with ExitStack() as files:
        yield LyingFederation(devnet, tmp_path_factory.mktemp("liars"), files).run()


def expected(liars: Any) -> set[tuple[int, int, str]]:
    return {
        (3, 1, liars.members[TRAINER]),
        (4, 2, liars.members[WITHHOLDER]),
        (8, 2, liars.members[OPENER]),
        (10, 3, liars.members[REPLACER]),
    }


def test_a_stranger_names_the_flipped_byte_the_withheld_sum_the_swapped_opening_and_the_replaced_model(
    liars: Any, devnet: Devnet
) -> None:
    chain = liars.chain.reader
    report = audit(Reader(devnet.rpc, chain.contract), IpfsStore(devnet.ipfs_apis[4], timeout_s=PATIENCE_S))
    assert found(report) == expected(liars)
    assert report.checks[0].status.value == "passed"
    assert [account.participants for account in report.rounds] == [(0, 2, 3, 4), tuple(range(5)), tuple(range(5))]
    assert report.totals.gas > 1_000_000


def _without_words(fault: dict[str, Any]) -> dict[str, Any]:
    return fault | {"got": fault["got"].partition(":")[0]}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedchain.cli.main", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
        check=False,
    )


def test_the_command_exits_1_and_its_bundle_says_the_same_offline(liars: Any, devnet: Devnet, tmp_path: Path) -> None:
    bundle, page = tmp_path / "audit.zip", tmp_path / "audit.html"
    where = ["--rpc", devnet.rpc, "--contract", liars.chain.contract, "--ipfs", devnet.ipfs_apis[3]]
    where += ["--timeout", str(PATIENCE_S)]
    online = command(*where, "--json", "--html", page, "--bundle", bundle)
    assert online.returncode == 1, online.stderr
    report = json.loads(online.stdout)
    named = {(int(f["check"].split()[0]), f["round"], f["offender"]) for f in report["faults"]}
    assert named == expected(liars)
    assert all(offender in page.read_text(encoding="utf-8") for _, _, offender in named)
    offline = command("--from", bundle, "--json")
    assert offline.returncode == 1, offline.stderr
    # But for the words in which a store and a bundle say that they do not have the sum.
    assert [_without_words(f) for f in json.loads(offline.stdout).pop("faults")] == [
        _without_words(f) for f in report["faults"]
    ]
    assert json.loads(offline.stdout) | {"faults": []} == report | {"faults": []}
    # The chain's own log, and only the objects from the bundle.
    mixed = command("--from", bundle, "--rpc", devnet.rpc, "--json")
    assert [_without_words(f) for f in json.loads(mixed.stdout)["faults"]] == [
        _without_words(f) for f in report["faults"]
    ]


def test_a_store_that_does_not_answer_is_one_line_and_blames_nobody(liars: Any, devnet: Devnet) -> None:
    where = ["--rpc", devnet.rpc, "--contract", liars.chain.contract, "--ipfs", "http://127.0.0.1:9"]
    dead = command(*where, "--timeout", "2")
    assert dead.returncode == 2
    assert len(dead.stderr.strip().splitlines()) == 1
