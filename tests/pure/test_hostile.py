"""Whatever is fetched may be hostile: each kind of it costs bounded memory and time, and ends in one clear line.

The inventory: ciphertext, shares, aggregate, result, opening, model, first weights, charter (stored, and as a file),
bundle, signed statement, keystore, answers of an RPC endpoint and of an IPFS API. What a log may say is held by
`test_chain_hostile` and `test_bundle`, what a store may give by `test_store`.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hostile_wire import (
    MIB,
    Answer,
    HostileServer,
    dripping,
    dripping_head,
    endless_chunk_size,
    endless_chunks,
    endless_head,
    endless_line,
    huge_chunk,
    huge_length,
    moved,
    never,
    said,
)

from fedchain.audit.bundle import open_bundle
from fedchain.chain.keys import load_identity, new_identity
from fedchain.chain.rpc import MAX_RESPONSE_BYTES, Rpc
from fedchain.crypto import Aggregate, Opening, Result, aggregate_size, check_ciphertext, check_shares, result_size
from fedchain.crypto.seed import RoundContext
from fedchain.errors import FedchainError
from fedchain.learn.pretrained import start_from
from fedchain.peer.health import Health, doors_of
from fedchain.peer.meter import Meter
from fedchain.protocol.charter import MAX_CHARTER_BYTES, parse_charter, read_charter
from fedchain.protocol.cid import cid_of
from fedchain.protocol.ids import Address, Digest, Index
from fedchain.protocol.model import flatten, layout_of
from fedchain.protocol.signed import decode
from fedchain.store.ipfs import IpfsStore

D = 10_000
CONTEXT = RoundContext(31337, Address("0x" + "fe" * 20), 1, 0, Digest(bytes(32)))
DEEP = b"[" * 1_000_000
ADDRESS = Address("0x" + "11" * 20)


@contextmanager
def bounded(mib: float, seconds: float) -> Iterator[None]:
    """The body allocates at most so much, and ends in time."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield
    finally:
        took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < mib * MIB, f"{peak / MIB:.0f} MiB"
    assert took < seconds, f"{took:.1f} s"


def one_line(call: Callable[[], object], mib: float = 8, seconds: float = 10, kind: type = FedchainError) -> None:
    """The call ends in one line of ours, within its bounds."""
    with bounded(mib, seconds), pytest.raises(kind) as raised:
        call()
    assert "\n" not in str(raised.value) and 10 < len(str(raised.value)) < 1000


def model(header: bytes, length: int | None = None, data: bytes = b"") -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def shares(blob: bytes) -> object:
    keys = {Index(i): os.urandom(32) for i in range(20)}
    return check_shares(
        blob, CONTEXT, dealer=Index(0), dealer_address=ADDRESS, encryption_keys=keys, threshold=11, offender="x"
    )


def first_weights(blob: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(blob)
        file.flush()
        start_from(torch.nn.Linear(2, 2), Path(file.name), "task")


OBJECTS: dict[str, Callable[[bytes], object]] = {
    "ciphertext": lambda blob: check_ciphertext(blob, D, offender="x", round=1),
    "shares": shares,
    "aggregate": lambda blob: Aggregate.parse(blob, D),
    "result": lambda blob: Result.parse(blob, D),
    "opening": Opening.parse,
    "model": flatten,
    "first weights": first_weights,
    "stored charter": parse_charter,
}


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize(
    "blob",
    [b"", b"\0", b"\xff" * 4096, DEEP, b"{" * MIB, b"\xff" * 8 + b"{}", zlib.compress(bytes(MIB)), bytes(MIB)],
    ids=["empty", "a byte", "ones", "deep", "braces", "length of 2^64", "compressed", "zeros"],
)
def test_bytes_that_are_no_object_are_refused(name: str, blob: bytes) -> None:
    one_line(lambda: OBJECTS[name](blob), mib=24)


@pytest.mark.parametrize("name", ["ciphertext", "aggregate", "result"])
def test_an_object_that_claims_another_length_is_refused_before_it_is_read(name: str, tmp_path: Path) -> None:
    """A file of 10 GB, which takes no room on the disk, with a header that fits it; and one of the right size."""
    magic = {"ciphertext": b"FCUP", "aggregate": b"FCAG", "result": b"FCRE"}[name]
    size = {"ciphertext": aggregate_size, "aggregate": aggregate_size, "result": result_size}[name](D)
    head = magic + (1).to_bytes(4, "little") + (1 << 60).to_bytes(8, "little")
    one_line(lambda: OBJECTS[name](head.ljust(size, b"\0")), mib=4)
    if name != "result":
        file = tmp_path / "object"
        with file.open("wb") as sparse:
            sparse.write(head)
            sparse.truncate(10_000_000_000)
        read = {
            "ciphertext": lambda: check_ciphertext(file, D, offender="x", round=1),
            "aggregate": lambda: Aggregate.parse(file, D),
        }[name]
        one_line(read, mib=1, seconds=2)


@pytest.mark.parametrize(
    "blob",
    [
        model(b"{}", 1 << 60),
        model(b"{}", (1 << 64) - 1),
        model(b'{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,4]}}'),
        model(b'{"a":{"dtype":"F32","shape":[1099511627775],"data_offsets":[0,4398046511100]}}'),
        model(b'{"a":' + b"[" * 90_000 + b"]" * 90_000 + b"}"),
        model(b"{" + b",".join(b'"%d":{}' % i for i in range(9_000)) + b"}"),
        model(b'{"a":{"dtype":"F32","shape":[' + b"9" * 90_000 + b'],"data_offsets":[0,4]}}'),
        model(b'{"__metadata__":{"x":"' + b"y" * 90_000 + b'"}}'),
    ],
    ids=["2^60", "2^64-1", "2^80 values", "4 TB", "nested", "many tensors", "long number", "metadata"],
)
def test_a_model_whose_header_lies_is_refused(blob: bytes) -> None:
    one_line(lambda: layout_of(blob), mib=8)
    one_line(lambda: first_weights(blob), mib=8)


@pytest.mark.parametrize(
    "text",
    ["[" * 50_000, "a = " + "[" * 50_000, "a = {b = " * 20_000, "x = " + "9" * 50_000, "\0", "a." * 40_000 + "b = 1"],
    ids=["brackets", "arrays", "tables", "number", "zero", "keys"],
)
def test_a_charter_file_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text(text)
    one_line(lambda: read_charter(tmp_path), mib=64)


def test_a_stored_charter_has_its_bound() -> None:
    one_line(lambda: parse_charter(b'{"federation":' + b"[" * MAX_CHARTER_BYTES), mib=1)
    one_line(lambda: parse_charter(b'{"a":[' + b"[]," * 20_000 + b"[]]}"), mib=16)


def test_a_signed_statement_has_its_bound() -> None:
    with bounded(1, 1), pytest.raises(ValueError, match="too long"):
        decode(b"[" * 1_000_000)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * (60 * MIB),
        b'{"format":1,"log":[' + b"[]," * (4 * MIB) + b"[]]}",
        b'{"format":1,"log":[' + b"{}," * (4 * MIB) + b"{}]}",
        bytes(65 * MIB),
    ],
    ids=["deep", "many lists", "many objects", "beyond the bound"],
)
def test_a_bundle_that_unpacks_to_a_bomb_is_refused(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bundle"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("bundle.json", text)
    assert file.stat().st_size < MIB
    del text
    with bounded(256, 30), pytest.raises(FedchainError), open_bundle(file):
        pass


@pytest.mark.parametrize("cost", [{"n": 1 << 30}, {"r": 1 << 20}, {"p": 1 << 20}, {"n": 1 << 22, "r": 64}])
def test_a_keystore_cannot_ask_for_more_memory_than_the_machine_has(cost: dict[str, int], tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    new_identity(key, "password", fast=True)
    entries = json.loads(key.read_text())
    entries["crypto"]["kdfparams"] |= cost
    key.write_text(json.dumps(entries))
    one_line(lambda: load_identity(key, "password"), seconds=2)


def ok(body: bytes, head: str = "") -> Answer:
    return said(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}{head}", body)


def refused(body: bytes, head: str = "") -> Answer:
    return said(f"HTTP/1.1 500 Internal Server Error\r\nContent-Length: {len(body)}{head}", body)


def packed(size: int) -> bytes:
    """A gzip stream of so many zeros, a thousandth as long."""
    unpacking = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(unpacking.compress(bytes(MIB)) for _ in range(size // MIB)) + unpacking.flush()


GZIP = "\r\nContent-Encoding: gzip"
BOMB = packed(256 * MIB)
ANSWERS: dict[str, Answer] = {
    "10 GB announced": huge_length,
    "endless chunks": endless_chunks,
    "a chunk of 2^60": huge_chunk,
    "endless headers": endless_head,
    "endless status line": endless_line,
    "endless chunk size": endless_chunk_size,
    "a byte at a time": dripping(0.2),
    "headers a byte at a time": dripping_head(0.2),
    "a circle": moved,
    "gzip bomb": ok(BOMB, GZIP),
    "refused by a gzip bomb": refused(BOMB, GZIP),
    "refused in deep JSON": refused(b'{"Message":' + b"[" * 60_000),
    "deep JSON": ok(DEEP),
    "many lists": ok(b"[" + b"[]," * (MIB // 8) + b"[]]"),
    "many lines": ok(b"{}\n" * (MIB // 8)),
    "a long number": ok(b"9" * MIB),
    "nothing": said("HTTP/1.1 200 OK\r\nContent-Length: 100"),
    "no HTTP": said("hello"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_of_an_ipfs_api_costs_more_than_it_may(name: str) -> None:
    with HostileServer(ANSWERS[name]) as server:
        store = IpfsStore(server.url, timeout_s=1, attempts=1)
        one_line(lambda: store.get(cid_of(b"x"), MIB), mib=32, seconds=30)
        with bounded(256, 60):
            try:
                store.pins()
            except FedchainError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_of_an_rpc_endpoint_costs_more_than_it_may(name: str) -> None:
    with HostileServer(ANSWERS[name]) as server:
        rpc = Rpc(server.url, timeout_s=1, attempts=1)
        one_line(lambda: rpc.call("eth_blockNumber"), mib=32 + 20 * MAX_RESPONSE_BYTES / MIB, seconds=60)


@pytest.mark.parametrize("attempts", [1, 2])
def test_who_accepts_and_never_answers_is_given_up(attempts: int) -> None:
    with never() as server:
        store = IpfsStore(server.url, timeout_s=0.5, attempts=attempts)
        rpc = Rpc(server.url, timeout_s=0.5, attempts=attempts)
        for call in (
            lambda: store.get(cid_of(b"x"), MIB),
            lambda: store.put(b"x" * MIB),
            lambda: store.pin(cid_of(b"x")),
            store.identity,
            lambda: rpc.call("eth_chainId"),
            lambda: rpc.batch([("eth_chainId", ()), ("eth_blockNumber", ())]),
        ):
            one_line(call, mib=16, seconds=20)
        assert server.asked >= 6


def test_doors_that_never_answer_hold_neither_health_nor_its_end_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("fedchain.peer.health.ASK_S", 0.5)

    class Unread:
        block_read = None

    with never() as server:
        meter = Meter(tmp_path / "rounds.jsonl", IpfsStore(server.url, timeout_s=0.5, attempts=1))
        doors = doors_of(server.url, ADDRESS, Unread(), server.url)  # type: ignore[arg-type]
        health = Health(meter, Index(0), doors)
        with bounded(16, 20):
            health.ask()
        assert meter.registry.get_sample_value("fedchain_reachable", {"door": "chain"}) == 0
        assert meter.registry.get_sample_value("fedchain_reachable", {"door": "store"}) == 0
        with bounded(16, 5), health:
            assert health.verdict()[1]["reachable"] == {"chain": False, "store": False}


def test_the_bounds_are_measured() -> None:
    with pytest.raises(AssertionError, match="MiB"), bounded(1, 10):
        io.BytesIO(bytes(4 * MIB))
    with pytest.raises(AssertionError, match=r"\d s"), bounded(1, 0.01):
        time.sleep(0.1)
