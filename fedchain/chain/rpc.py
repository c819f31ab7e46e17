"""JSON-RPC over HTTP, bounded in time and size: the one door to an Ethereum node.

The endpoint is not trusted to be well: it may be dead, slow, huge or wrong. Whatever it does becomes one line. This
module knows no contract and signs nothing; it imports neither web3 nor eth_account.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import requests
from eth_utils.address import to_checksum_address
from urllib3.exceptions import HTTPError

from ..errors import ChainMismatch, ChainUnreachable, UsageError
from ..protocol.ids import Address
from ..wire import answer_in_time

MAX_RESPONSE_BYTES = 8 << 20
"""JSON grows about tenfold when parsed; a page of logs that does not fit is asked for in smaller pages."""

_CHUNK = 65_536
_DEEPEST = 100
"""Parsing deeper JSON could overflow the C stack, which no exception catches."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


class RpcRefused(ChainUnreachable):
    """The endpoint understood the call and answered with an error object: `code`, `message` and `data` are its own."""

    def __init__(self, endpoint: str, method: str, code: int, message: str, data: object) -> None:
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"the RPC endpoint {endpoint} refused {method}: {message}")


class Rpc:
    """One endpoint. Every call ends within about `attempts * timeout_s` seconds, and reads at most `max_bytes`."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 10.0,
        attempts: int = 3,
        pause_s: float = 0.2,
        max_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise UsageError(f"--rpc: {url!r} is not a URL: {error}") from error
        if parts.scheme not in ("http", "https") or not host:
            raise UsageError(f"--rpc: {url!r} is not an HTTP(S) URL; write for example http://127.0.0.1:8545")
        self.url = url
        self.endpoint = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
        """The URL as errors name it: providers put their customers' keys into the path."""
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._pause_s = pause_s
        self._max_bytes = max_bytes
        self._ids = count(1)
        self._session = requests.Session()
        answer_in_time(self._session)
        # A proxy from the environment must not see, or break, what never leaves this machine.
        self._session.trust_env = host not in ("127.0.0.1", "localhost", "::1")

    def call(self, method: str, *params: object) -> Any:
        """The result of one call. Raises RpcRefused for an error object, ChainUnreachable for everything else."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        return self._result(method, request["id"], self._post(method, request))

    def batch(self, calls: Sequence[tuple[str, Sequence[object]]]) -> list[Any]:
        """The results of several calls in one request, in their order; the first error object is raised."""
        if not calls:
            return []
        batched = [
            {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
            for method, params in calls
        ]
        answer = self._post(calls[0][0], batched)
        if isinstance(answer, dict) and "error" in answer:
            self._result(calls[0][0], None, answer)
        if not isinstance(answer, list) or len(answer) != len(batched):
            raise self.nonsense("a batch of another length than asked for")
        by_id = {a.get("id"): a for a in answer if isinstance(a, dict) and isinstance(a.get("id"), int)}
        results = []
        for request, (method, _) in zip(batched, calls, strict=True):
            results.append(self._result(method, request["id"], by_id.get(request["id"])))
        return results

    def nonsense(self, what: str) -> ChainUnreachable:
        """The error for an answer that no node would give."""
        return ChainUnreachable(f"the RPC endpoint {self.endpoint} answers nonsense: {what}")

    def _result(self, method: str, id: object, answer: object) -> Any:
        if not isinstance(answer, dict):
            raise self.nonsense(f"{method} gave no JSON-RPC object")
        error = answer.get("error")
        if error is not None:
            if not isinstance(error, dict):
                raise self.nonsense(f"{method} gave a malformed error")
            code = error.get("code")
            message = " ".join(str(error.get("message", "no reason given")).split())[:300]
            raise RpcRefused(self.endpoint, method, code if isinstance(code, int) else 0, message, error.get("data"))
        if answer.get("id") != id or "result" not in answer:
            raise self.nonsense(f"{method} gave neither a result nor an error")
        return answer["result"]

    def _post(self, method: str, request: object) -> object:
        reason = ""
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(self._pause_s * 2 ** (attempt - 1))
            try:
                status, body = self._exchange(request)
            except (requests.RequestException, HTTPError, OSError) as error:
                reason = _in_words(error)
                continue
            if status in _BUSY:
                reason = f"HTTP status {status}"
                continue
            try:
                answer: object = json.loads(body) if _depth(body) <= _DEEPEST else None
            except ValueError as error:
                if status != 200:
                    raise ChainUnreachable(
                        f"the RPC endpoint {self.endpoint} answers {method} with HTTP status {status}"
                    ) from error
                raise self.nonsense(f"{method} gave no JSON") from error
            if answer is None:
                raise self.nonsense(f"{method} gave no JSON-RPC object")
            return answer
        raise ChainUnreachable(
            f"the RPC endpoint {self.endpoint} does not answer ({reason}); is the node running and the URL right?"
        )

    def _exchange(self, request: object) -> tuple[int, bytes]:
        deadline = time.monotonic() + self._timeout_s
        with self._session.post(
            self.url,
            json=request,
            headers={"Accept-Encoding": "identity"},
            timeout=self._timeout_s,
            stream=True,
            allow_redirects=False,
        ) as response:
            announced = response.headers.get("Content-Length", "")
            length = int(announced[:20]) if announced.isdecimal() else None
            if length is not None and length > self._max_bytes:
                raise self._too_large()
            body = bytearray()
            # read1 returns what has arrived: an endpoint that drips bytes cannot hold us past the deadline.
            while part := response.raw.read1(_CHUNK):
                body += part
                if len(body) > self._max_bytes:
                    raise self._too_large()
                if time.monotonic() > deadline:
                    raise requests.Timeout("answers too slowly")
            if len(body) < (length or 0) or (not body and response.status_code == 200):
                raise requests.ConnectionError("the connection broke off")
            return response.status_code, bytes(body)

    def _too_large(self) -> ResponseTooLarge:
        return ResponseTooLarge(f"the RPC endpoint {self.endpoint} sent more than {self._max_bytes >> 20} MiB at once")


class ResponseTooLarge(ChainUnreachable):
    """An answer above the bound; a page of logs may be asked for in halves."""


def quantity(rpc: Rpc, value: object, what: str) -> int:
    """A JSON-RPC quantity ("0x1a") as an integer below 2**256. Raises ChainUnreachable."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise rpc.nonsense(f"{what} is not a quantity")


def octets(rpc: Rpc, value: object, what: str, *, length: int | None = None, at_most: int = 1 << 20) -> bytes:
    """JSON-RPC data ("0x00ff") as bytes, of exactly `length` or of at most `at_most`. Raises ChainUnreachable."""
    if isinstance(value, str) and value.startswith("0x") and len(value) <= 2 + 2 * at_most:
        try:
            content = bytes.fromhex(value[2:])
        except ValueError:
            content = None
        if content is not None and length in (None, len(content)) and len(value) == 2 + 2 * len(content):
            return content
    raise rpc.nonsense(f"{what} is not {'data' if length is None else f'{length} bytes of data'}")


def chain_id(rpc: Rpc, expected: int | None = None) -> int:
    """The id of the endpoint's chain (EIP-155). Raises ChainMismatch unless it is the expected one, if one is."""
    found = quantity(rpc, rpc.call("eth_chainId"), "eth_chainId")
    if expected is not None and found != expected:
        raise ChainMismatch(f"the RPC endpoint {rpc.endpoint} serves chain {found}, expected chain {expected}")
    return found


def code_at(rpc: Rpc, address: Address, block: int | str = "latest") -> bytes:
    """The code at an address, empty when there is none."""
    where = hex(block) if isinstance(block, int) else block
    return octets(rpc, rpc.call("eth_getCode", address, where), "eth_getCode")


def parse_address(text: str) -> Address:
    """An address as people write it, checksummed. Raises UsageError; a mixed-case one must have the right checksum."""
    if not _ADDRESS.fullmatch(text):
        raise UsageError(f"{text!r} is not an address (0x and 40 hex digits)")
    address = to_checksum_address(text)
    if text[2:] not in (text[2:].lower(), text[2:].upper()) and text != address:
        raise UsageError(f"{text} has a wrong checksum: a digit was mistyped")
    return Address(address)


def _depth(body: bytes) -> int:
    """How deeply JSON is nested, at most: brackets inside strings count too, as nodes send none to speak of."""
    depth = deepest = 0
    for bracket in body.translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _in_words(error: Exception) -> str:
    if isinstance(error, requests.Timeout | TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate is not valid"
    text = str(error)
    for sign, words in (
        ("Connection refused", "connection refused"),
        ("Name or service not known", "no such host"),
        ("nodename nor servname", "no such host"),
        ("Temporary failure in name resolution", "its name cannot be resolved"),
        ("Network is unreachable", "the network is unreachable"),
        ("No route to host", "no route to host"),
        ("Read timed out", "no answer in time"),
        ("broke off", "the connection broke off"),
        ("onnection aborted", "the connection broke off"),
    ):
        if sign in text:
            return words
    return type(error).__name__
