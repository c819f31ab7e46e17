"""Nothing waits for ever: every request, every child process and every wait in the package has its time.

Held on the source, so that a new call without one is found before it hangs; `test_hostile` and `test_rpc` show that the
times are kept.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for folder in ("fedchain", "docs", "peers") for path in (ROOT / folder).rglob("*.py"))

NOT_USED = {"httpx", "aiohttp", "urllib.request", "http.client", "ftplib", "smtplib", "telnetlib"}
"""Other ways to the network: whoever needs one extends this test."""

REQUESTS = {"get", "post", "put", "patch", "delete", "head", "options", "request"}
CHILDREN = {"run", "call", "check_call", "check_output"}
WAITS = {"wait", "join", "result", "communicate"}
"""Of processes, threads, events and futures: each takes its time as the first argument."""

ALLOWED = {
    # Members of an experiment in one process pass the turn on; whoever fails stops all (`Turns.stop`).
    ("fedchain/lab/memory.py", "self._changed.wait_for(lambda: self._stopped or self._at_work[self._turn] == me)"),
    # A cut cable: that nothing passes is what it is for.
    ("fedchain/devnet/links.py", "self._whole.wait()"),
}


def untimed(module: str, source: str) -> Iterator[str]:
    """Every call in a module that could wait for ever."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (f"import {a.name}" for a in names if a.name in NOT_USED)
            case ast.ImportFrom(module=str() as origin) if origin in NOT_USED:
                yield f"from {origin} import"
            case ast.Call() if not _is_timed(node) and (module, ast.unparse(node)) not in ALLOWED:
                yield ast.unparse(node)
            case _:
                pass


def _is_timed(call: ast.Call) -> bool:
    """Whether a call ends by itself, or says when."""
    said = {keyword.arg for keyword in call.keywords}
    if {"timeout", "timeout_s", None} & said or not isinstance(call.func, ast.Attribute):
        return True
    name, owner = call.func.attr, ast.unparse(call.func.value)
    if owner == "subprocess":
        return name not in CHILDREN
    if owner == "socket" and name == "create_connection":
        return len(call.args) > 1
    if owner == "requests" or owner.endswith(("session", "_http")):
        return name not in REQUESTS
    if owner == "urllib.request" or name == "urlopen":
        return False
    if name == "open_connection":
        return False
    if name == "wait_for":
        return owner == "asyncio" or len(call.args) > 1
    if name == "acquire":
        return bool(call.args or said)
    return name not in WAITS or bool(call.args)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_request_child_and_wait_has_its_time(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    # `asyncio.wait_for(asyncio.open_connection(…), s)`: the time stands around the call.
    source = path.read_text()
    found = [
        call for call in untimed(name, source) if f"asyncio.wait_for({call}, " not in ast.unparse(ast.parse(source))
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "requests.get(url)",
        "requests.post(url, json={})",
        "self._session.post(url, stream=True)",
        "self._http.request('GET', url)",
        "subprocess.run(['ls'], check=True)",
        "subprocess.check_output(['ls'])",
        "process.wait()",
        "process.communicate()",
        "self._thread.join()",
        "future.result()",
        "event.wait()",
        "condition.wait_for(lambda: done)",
        "lock.acquire()",
        "socket.create_connection(('h', 1))",
        "asyncio.open_connection('h', 1)",
        "import httpx",
        "import urllib.request",
        "from http.client import HTTPConnection",
    ],
)
def test_a_call_that_could_wait_for_ever_is_found(line: str) -> None:
    assert list(untimed("fedchain/some.py", line))


@pytest.mark.parametrize(
    "line",
    [
        "requests.get(url, timeout=3)",
        "subprocess.run(['ls'], timeout=3)",
        "subprocess.Popen(['ls'])",
        "process.wait(3)",
        "', '.join(parts)",
        "event.wait(timeout=1)",
        "entries.get(key)",
        "lock.acquire(blocking=False)",
    ],
)
def test_a_call_that_ends_is_left_alone(line: str) -> None:
    assert not list(untimed("fedchain/some.py", line))
