"""The cut-off proxy: what passes, what waits, what arrives late."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from fedchain.devnet.links import Link, Links


@pytest.fixture
def echo() -> Iterator[tuple[str, list[bytes]]]:
    """A service that sends back what it gets, and notes it; the URL it is at."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(caller,), daemon=True).start()

        def answer(caller: socket.socket) -> None:
            # Who calls may be gone before the answer is out.
            with caller, contextlib.suppress(ConnectionResetError):
                while block := caller.recv(65_536):
                    heard.append(block)
                    caller.sendall(block)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/api", heard


@pytest.fixture
def links() -> Iterator[Links]:
    with Links() as made:
        yield made


def call(url: str) -> socket.socket:
    host, port = url.split("/")[2].split(":")
    caller = socket.create_connection((host, int(port)), timeout=10)
    caller.settimeout(10)
    return caller


def waits(caller: socket.socket) -> bool:
    """Whether no answer comes for a moment."""
    caller.settimeout(0.3)
    try:
        return caller.recv(100) is None
    except TimeoutError:
        return True
    finally:
        caller.settimeout(10)


def linked(links: Links, echo: tuple[str, list[bytes]]) -> tuple[Link, socket.socket]:
    link, url = links.to(echo[0])
    assert url.endswith("/api") and url != echo[0]
    caller = call(url)
    caller.sendall(b"one")
    assert caller.recv(100) == b"one"
    return link, caller


def test_a_whole_link_carries_both_ways(links: Links, echo: tuple[str, list[bytes]]) -> None:
    _, caller = linked(links, echo)
    with caller:
        caller.sendall(b"x" * 300_000)
        got = b""
        while len(got) < 300_000:
            got += caller.recv(65_536)
        assert got == b"x" * 300_000


def test_a_cut_link_answers_nothing_and_what_was_sent_arrives_late(links: Links, echo: tuple[str, list[bytes]]) -> None:
    link, caller = linked(links, echo)
    with caller:
        link.cut()
        caller.sendall(b"two")
        assert waits(caller) and echo[1] == [b"one"]
        link.mend()
        assert caller.recv(100) == b"two"


def test_a_caller_during_a_cut_is_let_in_and_waits(links: Links, echo: tuple[str, list[bytes]]) -> None:
    link, url = links.to(echo[0])
    link.cut()
    with call(url) as caller:
        caller.sendall(b"three")
        assert waits(caller) and echo[1] == []
        link.mend()
        assert caller.recv(100) == b"three"


def test_what_a_caller_sent_who_then_gave_up_arrives_all_the_same(links: Links, echo: tuple[str, list[bytes]]) -> None:
    """A transaction of which nobody knows whether it went out: what makes partitions hard."""
    link, caller = linked(links, echo)
    link.cut()
    caller.sendall(b"four")
    assert waits(caller)
    caller.close()
    link.mend()
    for _ in range(100):
        if b"four" in echo[1]:
            return
        threading.Event().wait(0.05)
    raise AssertionError(echo[1])


def test_cuts_add_up_and_each_is_mended(links: Links, echo: tuple[str, list[bytes]]) -> None:
    link, caller = linked(links, echo)
    with caller:
        link.cut()
        link.cut()
        link.mend()
        caller.sendall(b"five")
        assert waits(caller)
        link.mend()
        assert caller.recv(100) == b"five"


def test_one_cut_leaves_other_links_whole(links: Links, echo: tuple[str, list[bytes]]) -> None:
    cut, _ = links.to(echo[0])
    cut.cut()
    linked(links, echo)[1].close()


def test_a_service_that_is_down_is_refused_and_one_that_is_back_is_reached(links: Links) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    _, url = links.to(f"http://127.0.0.1:{port}")
    with call(url) as caller:
        caller.sendall(b"six")
        with contextlib.suppress(ConnectionResetError):
            assert caller.recv(100) == b""


def test_the_end_closes_every_connection_even_of_a_cut_link(echo: tuple[str, list[bytes]]) -> None:
    before = threading.active_count()
    with Links() as made:
        link, caller = linked(made, echo)
        link.cut()
        caller.sendall(b"seven")
    with caller, contextlib.suppress(ConnectionResetError):
        assert caller.recv(100) == b""
    assert threading.active_count() <= before + 1, "the echo's own thread at most"
