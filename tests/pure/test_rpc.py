"""The JSON-RPC door against a small server that is slow, huge, broken or rude: one line each, in bounded time."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fedchain.chain.reader import Reader
from fedchain.chain.rpc import ResponseTooLarge, Rpc, RpcRefused, octets, parse_address, quantity
from fedchain.errors import ChainUnreachable, FedchainError, UsageError

Serve = Callable[[Callable[[socket.socket, bytes], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server that gives each request to `answer(connection, body)`; gives its URL."""
    listeners: list[socket.socket] = []

    def start(answer: Callable[[socket.socket, bytes], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def loop() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=attend, args=(connection,), daemon=True).start()

        def attend(connection: socket.socket) -> None:
            with connection:
                try:
                    request = b""
                    while b"\r\n\r\n" not in request:
                        request += connection.recv(65_536)
                    head, _, body = request.partition(b"\r\n\r\n")
                    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    while len(body) < length:
                        body += connection.recv(65_536)
                    answer(connection, body)
                except OSError:
                    return

        threading.Thread(target=loop, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


def _http(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


def _always(body: bytes, status: str = "200 OK", headers: str = "") -> Callable[[socket.socket, bytes], None]:
    return lambda connection, _: connection.sendall(_http(body, status, headers))


def _result(result: object) -> Callable[[socket.socket, bytes], None]:
    def answer(connection: socket.socket, body: bytes) -> None:
        connection.sendall(
            _http(json.dumps({"jsonrpc": "2.0", "id": json.loads(body)["id"], "result": result}).encode())
        )

    return answer


def _rpc(url: str, **options: float) -> Rpc:
    return Rpc(url, **({"timeout_s": 0.4, "attempts": 2, "pause_s": 0.01} | options))  # type: ignore[arg-type]


def test_a_result_is_given(serve: Serve) -> None:
    assert _rpc(serve(_result("0x7"))).call("eth_chainId") == "0x7"


def test_an_error_object_is_given_with_its_data(serve: Serve) -> None:
    error = {"code": 3, "message": "execution\nreverted", "data": "0x12"}
    with pytest.raises(RpcRefused) as refused:
        _rpc(serve(_always(json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode()))).call("eth_call")
    assert (refused.value.code, refused.value.message, refused.value.data) == (3, "execution reverted", "0x12")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "does not answer .the connection broke off"),
        (b"<html>hello</html>", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON-RPC object"),
        (b'{"id": 1, "result": ' + b"[" * 200 + b"]" * 200 + b"}", "no JSON-RPC object"),
        (b'{"id": 1, "result": ' + b"9" * 100_000 + b"}", "no JSON"),
        (b"[]", "no JSON-RPC object"),
        (b"7", "no JSON-RPC object"),
        (b"null", "no JSON-RPC object"),
        (b"{}", "neither a result nor an error"),
        (b'{"jsonrpc": "2.0", "id": 999, "result": 1}', "neither a result nor an error"),
        (b'{"id": 1, "error": 7}', "a malformed error"),
    ],
)
def test_nonsense_is_one_line(serve: Serve, body: bytes, words: str) -> None:
    with pytest.raises(ChainUnreachable, match=words) as refused:
        _rpc(serve(_always(body))).call("eth_chainId")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.parametrize("answer", [b"{}", b"[]", b"[1]", b'[{"id": 1, "result": 1}]', b'[{"id": [], "result": 1}]'])
def test_a_nonsensical_batch_is_one_line(serve: Serve, answer: bytes) -> None:
    with pytest.raises(ChainUnreachable, match="nonsense"):
        _rpc(serve(_always(answer))).batch([("a", ()), ("b", ())])


def test_a_batch_may_come_in_any_order(serve: Serve) -> None:
    def backwards(connection: socket.socket, body: bytes) -> None:
        answers = [{"id": one["id"], "result": one["method"]} for one in json.loads(body)]
        connection.sendall(_http(json.dumps(answers[::-1]).encode()))

    assert _rpc(serve(backwards)).batch([("a", ()), ("b", ()), ("c", ())]) == ["a", "b", "c"]


class TestSize:
    def test_a_huge_announced_answer_is_not_read(self, serve: Serve) -> None:
        def huge(connection: socket.socket, _: bytes) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n")

        with pytest.raises(ResponseTooLarge):
            _rpc(serve(huge)).call("eth_getLogs")

    def test_a_huge_unannounced_answer_is_cut_off(self, serve: Serve) -> None:
        sent = []

        def endless(connection: socket.socket, _: bytes) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                connection.sendall(b" " * 65_536)
                sent.append(65_536)

        with pytest.raises(ResponseTooLarge, match="more than 1 MiB"):
            _rpc(serve(endless), timeout_s=10, max_bytes=1 << 20).call("eth_getLogs")
        assert sum(sent) < 32 << 20

    def test_a_compressed_bomb_is_not_unpacked(self, serve: Serve) -> None:
        import gzip

        bomb = gzip.compress(b" " * (8 << 20))
        with pytest.raises(ChainUnreachable, match="no JSON"):
            _rpc(serve(_always(bomb, headers="Content-Encoding: gzip\r\n")), max_bytes=1 << 20).call("eth_getLogs")


class TestTime:
    @pytest.mark.parametrize("when", ["before", "amid"])
    def test_silence_ends_in_bounded_time(self, serve: Serve, when: str) -> None:
        def silent(connection: socket.socket, _: bytes) -> None:
            if when == "amid":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(3)

        with _within(1.5), pytest.raises(ChainUnreachable, match="does not answer"):
            _rpc(serve(silent)).call("eth_chainId")

    def test_dripping_ends_in_bounded_time(self, serve: Serve) -> None:
        def drip(connection: socket.socket, _: bytes) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _i in range(1000):
                connection.sendall(b" ")
                time.sleep(0.05)

        with _within(1.5), pytest.raises(ChainUnreachable, match="no answer in time"):
            _rpc(serve(drip)).call("eth_chainId")

    def test_a_dead_endpoint_is_said_so(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        with _within(1.5), pytest.raises(ChainUnreachable, match="connection refused"):
            _rpc(f"http://127.0.0.1:{port}").call("eth_chainId")


class TestTryingAgain:
    @pytest.mark.parametrize(
        "first", [b"", _http(b"", "503 Busy"), _http(b"", "429 Slow down"), b"HTTP/1.1 200 OK\r\n"]
    )
    def test_a_passing_failure_is_tried_again(self, serve: Serve, first: bytes) -> None:
        asked: list[bytes] = []

        def once(connection: socket.socket, body: bytes) -> None:
            asked.append(body)
            if len(asked) == 1:
                connection.sendall(first)
            else:
                _result("0x1")(connection, body)

        assert _rpc(serve(once)).call("eth_chainId") == "0x1"
        assert len(asked) == 2

    def test_a_body_that_breaks_off_is_tried_again(self, serve: Serve) -> None:
        asked: list[bytes] = []

        def once(connection: socket.socket, body: bytes) -> None:
            asked.append(body)
            if len(asked) == 1:
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"jsonrpc"')
            else:
                _result("0x1")(connection, body)

        assert _rpc(serve(once)).call("eth_chainId") == "0x1"

    @pytest.mark.parametrize("status", ["301 Moved", "401 No", "404 Not here"])
    def test_a_refusal_is_not_tried_again(self, serve: Serve, status: str) -> None:
        asked: list[bytes] = []

        def refuse(connection: socket.socket, body: bytes) -> None:
            asked.append(body)
            connection.sendall(_http(b"", status, "Location: http://127.0.0.1:1/\r\n"))

        with pytest.raises(ChainUnreachable, match=f"HTTP status {status[:3]}"):
            _rpc(serve(refuse)).call("eth_chainId")
        assert len(asked) == 1


def test_a_providers_secret_path_is_never_printed() -> None:
    with pytest.raises(ChainUnreachable) as refused:
        _rpc("http://someone:hush@127.0.0.1:1/v3/secret-key", attempts=1).call("eth_chainId")
    assert "secret-key" not in str(refused.value) and "hush" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8545", "ftp://host", "http://", "http://host:99999", "ws://host", "http://[::"]
)
def test_a_url_that_is_none_is_the_operators_mistake(url: str) -> None:
    with pytest.raises(UsageError, match="--rpc"):
        Rpc(url)


@pytest.mark.parametrize(
    "value", [None, 7, "7", "0x", "0xg", "0x+1", "0x1_0", "0x 1", "0x" + "1" * 65, "-0x1", [], True]
)
def test_a_quantity_is_hex_and_bounded(value: object) -> None:
    with pytest.raises(ChainUnreachable, match="a nonce is not a quantity"):
        quantity(Rpc("http://127.0.0.1:1"), value, "a nonce")


@pytest.mark.parametrize("value", [None, 7, "", "0", "0x0", "0x zz", "0x00 00", "0x" + "00" * 33, "0x" + "00" * 31, []])
def test_data_has_its_length(value: object) -> None:
    with pytest.raises(ChainUnreachable, match="a hash is not 32 bytes"):
        octets(Rpc("http://127.0.0.1:1"), value, "a hash", length=32)


@pytest.mark.parametrize(
    "text", ["", "0x12", "0x" + "g" * 40, "5FbDB2315678afecb367f032d93F642f64180aa3", "0x" + "1" * 41]
)
def test_an_address_that_is_none_is_the_operators_mistake(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        parse_address(text)


def test_a_mistyped_digit_of_an_address_is_noticed() -> None:
    right = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
    assert parse_address(right) == parse_address(right.lower()) == right
    with pytest.raises(UsageError, match="mistyped"):
        parse_address(right.replace("93F6", "92F6"))


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"id":1,"result":{}}', b'{"id":1,"result":"0x1"}', b"<html>"])
def test_a_reader_of_a_garbage_endpoint_gives_one_line(serve: Serve, body: bytes) -> None:
    url = serve(_always(body))
    with pytest.raises(FedchainError) as refused:
        Reader(url, "0x" + "11" * 20, rpc=_rpc(url)).refresh()
    assert "\n" not in str(refused.value)


class _within:
    """Fails when the block takes longer than so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        assert time.monotonic() - self.started < self.seconds
