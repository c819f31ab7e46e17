"""One Kubo RPC endpoint over ipfshttpclient, made dependable: bounded time, bounded size, retries, errors in our words.

The one module that knows ipfshttpclient 0.7.0, of which it uses addresses, multipart encoder, errors and HTTP session
(`_Session`). Not its commands: `connect()` refuses every daemon from 0.8 on, `swarm.connect` sends each character as an
argument, answers are read whole into memory however long they are, and an error that comes late in a download is passed
over: the bytes just stop. What arrives is believed by nobody here; `ipfs` verifies it.

Every call ends: after `timeout_s` of silence, and overall at the deadline that the caller gives.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from ipfshttpclient import exceptions, multipart
from ipfshttpclient.http_requests import ClientSync

from ..errors import ObjectCorrupt, ObjectMissing, StoreUnreachable, UsageError
from ..wire import answer_in_time

SLOWEST = 256 * 1024
"""Bytes a second below which a transfer is given up."""

MAX_REPLY_BYTES = 4 << 20
"""Forty thousand pins; what is parsed from it takes up to forty times the room."""

CONNECT_S = 5.0
UPLOAD_CHUNK = 1 << 20
"""ipfshttpclient's default of 8 KiB halves the speed."""

PIECE_BYTES = 1 << 18
MAX_REFUSAL_BYTES = 1 << 16
CONNECTIONS = 64

FIRST_PAUSE_S = 0.2

_T = TypeVar("_T")


class CutShort(Exception):
    """The daemon ended its answer before the object's end."""


class _Silence(Exception):
    """The daemon took the request and sent nothing in time."""


_LOST = (
    exceptions.ConnectionError,
    exceptions.ProtocolError,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    CutShort,
)
"""What a second try may mend."""

_SILENT = (exceptions.TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError, _Silence)


class _Session(ClientSync):  # type: ignore[misc]
    """ipfshttpclient's HTTP session, with answers that are read piece by piece and refusals of bounded length."""

    def _make_session(self) -> Any:
        session = super()._make_session()
        for adapter in session.adapters.values():
            adapter.init_poolmanager(10, CONNECTIONS)
            # urllib3 warns its users of this argument, which ipfshttpclient still passes.
            adapter.poolmanager.connection_pool_kw.pop("strict", None)
        answer_in_time(session)
        if any(f"://{host}:" in self._base_url for host in ("127.0.0.1", "[::1]")):
            # A proxy named in the environment must not see what is meant for this host.
            session.trust_env = False
        return session

    def _do_raise_for_status(self, response: Any) -> None:
        if response.status_code < 400:
            return
        original = requests.HTTPError(f"HTTP {response.status_code}", response=response)
        # Not unpacked: a compressed refusal is none that Kubo gives, and may be a bomb.
        text = response.raw.read(MAX_REFUSAL_BYTES, decode_content=False)
        with contextlib.suppress(ValueError, RecursionError):
            refusal = json.loads(text)
            if isinstance(refusal, dict) and "Message" in refusal:
                raise exceptions.ErrorResponse(str(refusal["Message"]), original)
        raise exceptions.StatusError(original)

    def pieces(self, path: str, parameters: Sequence[tuple[str, str]], **request: Any) -> Generator[bytes, None, None]:
        """The answer as it comes in: every piece that the socket has, at most `PIECE_BYTES` at once."""
        closables, _ = self._request("POST", path, parameters, auth=None, chunk_size=None, **request)
        try:
            response = closables[0]
            while piece := response.raw.read1(PIECE_BYTES, decode_content=False):
                yield piece
        finally:
            for closable in closables:
                closable.close()


class KuboApi:
    """An endpoint; threads may share it."""

    def __init__(
        self, address: str, *, timeout_s: float, attempts: int, token: str | None, headers: Mapping[str, str] | None
    ) -> None:
        """See `IpfsStore`. Raises UsageError where the address is none."""
        multiaddress, base, auth, self.name = parse_address(address)
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        self.timeout_s = timeout_s
        self._attempts = max(1, attempts)
        try:
            self._session = _Session(multiaddress, base, auth=auth, headers=sent)
        except exceptions.AddressError as error:
            raise UsageError(f"{address!r} is not an IPFS API's address (http://127.0.0.1:5001)") from error
        self._session.open_session()

    def close(self) -> None:
        """Close the connections."""
        self._session.close_session()

    def deadline(self, size: int = 0) -> float:
        """When a transfer of so many bytes is given up, on the monotonic clock."""
        return time.monotonic() + self.timeout_s + size / SLOWEST

    def stream(
        self,
        path: str,
        arguments: Sequence[str],
        options: Mapping[str, str],
        *,
        deadline: float,
        max_bytes: int,
        patience_s: float | None = None,
        data: Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[bytes]:
        """The bytes of one answer; ObjectCorrupt at the first beyond `max_bytes`, none after the deadline.

        `patience_s` (default: until the deadline) is how long the daemon itself may try; it is told a little less than
        we wait, so that it is the one to give up and say why.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            raise _Silence
        patience = max(0.05, 0.9 * min(left, self.timeout_s if patience_s is None else patience_s))
        answer = self._session.pieces(
            path,
            [*options.items(), ("timeout", f"{int(patience * 1000)}ms"), *(("arg", given) for given in arguments)],
            data=data,
            headers=dict(headers) if headers else None,
            timeout=(min(CONNECT_S, left), min(self.timeout_s, left)),
        )
        received = 0
        with contextlib.closing(answer):
            for piece in answer:
                received += len(piece)
                if received > max_bytes:
                    raise ObjectCorrupt(
                        f"{self.name} sends more than {max_bytes:,} bytes for {' '.join([path, *arguments])}"
                    )
                yield piece
                if time.monotonic() > deadline:
                    raise _Silence

    def ask(
        self,
        path: str,
        arguments: Sequence[str],
        options: Mapping[str, str],
        *,
        deadline: float,
        data: Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """One command that answers in JSON, an object a line."""
        text = b"".join(
            self.stream(
                path,
                arguments,
                options,
                deadline=deadline,
                max_bytes=MAX_REPLY_BYTES,
                data=data,
                headers=headers,
            )
        )
        try:
            replies = [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            replies = [None]
        if not all(isinstance(reply, dict) for reply in replies):
            raise StoreUnreachable(f"{self.name} answers {path} with something that is not Kubo's: is it an IPFS API?")
        for reply in replies:
            if reply.get("Type") == "error":
                raise exceptions.PartialErrorResponse(str(reply.get("Message")))
        return replies

    def command(
        self,
        path: str,
        arguments: Sequence[str] = (),
        options: Mapping[str, str] | None = None,
        *,
        what: str,
        refused: type[StoreUnreachable] | type[ObjectMissing] = StoreUnreachable,
    ) -> list[dict[str, Any]]:
        """`ask` with retries; a refusal by the daemon is raised as `refused`."""
        deadline = self.deadline()
        return self.attempt(
            lambda: self.ask(path, arguments, options or {}, deadline=deadline),
            deadline=deadline,
            what=what,
            refused=refused,
        )

    def upload(self, content: bytes, options: Mapping[str, str], *, deadline: float) -> list[dict[str, Any]]:
        """`add` one object; gives the daemon's replies."""
        body, headers = multipart.stream_files(io.BytesIO(content), chunk_size=UPLOAD_CHUNK)
        return self.ask("add", (), options, deadline=deadline, data=body, headers=headers)

    def attempt(
        self,
        call: Callable[[], _T],
        *,
        deadline: float,
        what: str,
        refused: type[StoreUnreachable] | type[ObjectMissing] = StoreUnreachable,
    ) -> _T:
        """Call; again after a lost or refused connection, with growing pauses, while deadline and attempts allow.

        Raises StoreUnreachable; `refused` where the daemon says no; UsageError where it wants a token; ObjectMissing
        where the object keeps ending early.
        """
        pause = FIRST_PAUSE_S
        for attempt in range(1, self._attempts + 1):
            try:
                with self._refusals(what, refused):
                    return call()
            except _SILENT as error:
                raise self._silent(what) from error
            except _LOST as error:
                if attempt == self._attempts or time.monotonic() + pause > deadline:
                    raise self._given_up(error, what) from error
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    @contextlib.contextmanager
    def _refusals(self, what: str, refused: type[StoreUnreachable] | type[ObjectMissing]) -> Iterator[None]:
        """Turn the daemon's own refusals into our words."""
        try:
            yield
        except exceptions.StatusError as error:
            status = getattr(getattr(error.original, "response", None), "status_code", 0)
            if status in (401, 403):
                raise UsageError(f"the IPFS API {self.name} refuses access (HTTP {status}): give its token") from error
            if status in (404, 405):
                raise StoreUnreachable(f"{self.name} answers, but is no IPFS API (HTTP {status})") from error
            if not isinstance(error, exceptions.ErrorResponse):
                raise StoreUnreachable(f"the IPFS API {self.name} fails with HTTP {status} (to {what})") from error
            reason = " ".join(str(error).split())[:200]
            if "deadline exceeded" in reason:
                reason = "nobody reachable had it in time"
            raise refused(f"{self.name} could not {what}: {reason}") from error

    def _silent(self, what: str) -> StoreUnreachable:
        return StoreUnreachable(f"the IPFS API {self.name} fell silent (to {what}): no answer in {self.timeout_s:g} s")

    def _given_up(self, error: Exception, what: str) -> StoreUnreachable | ObjectMissing:
        if isinstance(error, CutShort):
            return ObjectMissing(f"{error}, every time: nobody reachable has the rest")
        if isinstance(error, exceptions.ConnectionError):
            return StoreUnreachable(f"no IPFS API answers at {self.name} (to {what}): is the IPFS node running?")
        return StoreUnreachable(f"the IPFS API {self.name} broke off (to {what}): is the IPFS node in trouble?")


def parse_address(api: str) -> tuple[str, str, tuple[str, str] | None, str]:
    """An API's address as (multiaddress, base path, basic auth, name without its password). Raises UsageError."""
    if api.startswith("/"):
        return api, "api/v0", None, api
    try:
        url = urlsplit(api)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if host is None or url.scheme not in ("http", "https") or url.query or url.fragment:
        raise UsageError(f"{api!r} is not an IPFS API's address (http://127.0.0.1:5001 or /ip4/127.0.0.1/tcp/5001)")
    port = port or (443 if url.scheme == "https" else 5001)
    if host == "localhost":
        # As a name it would go through a proxy named in the environment.
        host = "127.0.0.1"
    kind = "ip6" if ":" in host else "ip4" if host.replace(".", "").isdigit() else "dns"
    base = (url.path.strip("/").removesuffix("api/v0").strip("/") + "/api/v0").lstrip("/")
    auth = (unquote(url.username or ""), unquote(url.password or "")) if url.password is not None else None
    shown = f"{url.scheme}://{'[' + host + ']' if kind == 'ip6' else host}:{port}{url.path.rstrip('/')}"
    return f"/{kind}/{host}/tcp/{port}/{url.scheme}", base, auth, shown
