"""HTTP answers whose headers come in time, whatever the other side does.

A time-out of requests and urllib3 is one for each piece that arrives: a server that drips a byte of its headers every
second holds its caller for hours, before there is a body to bound. Whoever asks the world bounds the body itself.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import requests
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.response import HTTPResponse


def answer_in_time(session: requests.Session) -> None:
    """From now on this session's time-outs to read also bound how long all the headers of an answer may take."""
    for adapter in session.adapters.values():
        if isinstance(adapter, requests.adapters.HTTPAdapter):
            pools = adapter.poolmanager.pool_classes_by_scheme
            adapter.poolmanager.pool_classes_by_scheme = {scheme: _in_time(pool) for scheme, pool in pools.items()}


def _in_time(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """The same kind of pool, of connections that cut themselves; an adapter may stand in a session twice."""
    if issubclass(pool.ConnectionCls, _InTime):
        return pool
    connection = type(pool.ConnectionCls.__name__, (_InTime, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _InTime(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # urllib3 declares it so too
        """The answer, its headers read."""
        with _Cut(self):
            return super().getresponse()


class _Cut:
    """Ends all reading from a connection when its time-out is over, and says so as a time-out."""

    def __init__(self, connection: HTTPConnection) -> None:
        # By the end of the headers urllib3 may have let go of it.
        self._socket = connection.sock
        self._late = False
        timeout = connection.timeout
        self._timer = threading.Timer(timeout, self._cut) if isinstance(timeout, int | float) else None

    def __enter__(self) -> None:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._late:
            raise TimeoutError("the headers did not come in time")

    def _cut(self) -> None:
        self._late = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
