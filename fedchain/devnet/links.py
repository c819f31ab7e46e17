"""Links from a peer to its chain and its store that can be cut: small TCP proxies on this machine.

A cut link loses nothing and answers nothing, like a cable that is out: who asks waits until its own patience ends, and
what was sent arrives when the link is mended, late. It knows no protocol.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

from typing_extensions import Self

_BLOCK = 65_536
PATIENCE_S = 30.0


class Link:
    """One way to one TCP service, at a port of its own on the loopback address. Made by `Links.to`."""

    def __init__(self, host: str, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self._there = host, port
        self._loop = loop
        self._whole = asyncio.Event()
        self._whole.set()
        self._cuts = 0

    async def open(self) -> asyncio.Server:
        """Listen on a free port."""
        return await asyncio.start_server(self._carry, "127.0.0.1", 0)

    def cut(self) -> None:
        """From now on nothing passes. Cuts add up: each is mended once."""
        self._loop.call_soon_threadsafe(self._count, 1)

    def mend(self) -> None:
        """Take one cut back; after the last one everything that waited passes."""
        self._loop.call_soon_threadsafe(self._count, -1)

    def _count(self, more: int) -> None:
        self._cuts += more
        if self._cuts > 0:
            self._whole.clear()
        else:
            self._whole.set()

    async def _carry(self, here_in: asyncio.StreamReader, here_out: asyncio.StreamWriter) -> None:
        try:
            await self._whole.wait()
            there_in, there_out = await asyncio.wait_for(asyncio.open_connection(*self._there), PATIENCE_S)
        except (OSError, asyncio.TimeoutError):
            here_out.close()
            return
        await asyncio.gather(self._pass_on(here_in, there_out), self._pass_on(there_in, here_out))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while block := await source.read(_BLOCK):
                await self._whole.wait()
                sink.write(block)
                await sink.drain()
        except OSError:
            pass  # either end gave up: the other one is told by the close
        finally:
            sink.close()


class Links:
    """All links of one run, carried by one thread, which ends with the block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def to(self, url: str) -> tuple[Link, str]:
        """A link to the service at this URL, and the URL that leads through it."""
        parts = urlsplit(url)
        link = Link(parts.hostname or "127.0.0.1", parts.port or 80, self._loop)
        server = asyncio.run_coroutine_threadsafe(link.open(), self._loop).result(PATIENCE_S)
        self._servers.append(server)
        port = server.sockets[0].getsockname()[1]
        return link, urlunsplit(parts._replace(netloc=f"127.0.0.1:{port}"))

    async def _close(self) -> None:
        """Listen no more, and end every connection."""
        for server in self._servers:
            server.close()
        carried = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in carried:
            task.cancel()
        await asyncio.gather(*carried, return_exceptions=True)
