"""What a peer says of itself over HTTP: well or not, and figures; to this machine, and never at the peer's expense."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from fedchain.errors import ChainUnreachable, StoreUnreachable, UsageError
from fedchain.lab.memory import MemoryStore
from fedchain.peer.exposition import CALLERS, TIMEOUT_S, parse_listen, serving
from fedchain.peer.health import PATIENCE_S, STALE_S, Doors, Health
from fedchain.peer.log import peer_log
from fedchain.peer.meter import Meter, duties_of
from fedchain.protocol.actions import PostReceipt
from fedchain.protocol.ids import Address, Bitmap, Index
from fedchain.protocol.phase import Phase
from fedchain.protocol.state import FederationState

ME = Index(0)


class World:
    """Doors that answer, or do not, and a clock that stands still."""

    def __init__(self) -> None:
        self.now, self.chain, self.store, self.gas = 1_000_000.0, True, True, 50_000

    def doors(self) -> Doors:
        return Doors(self.head, lambda: (40, 0), lambda: 3 * 10**18, lambda transaction: self.gas, self.ask_store)

    def head(self) -> tuple[int, int]:
        if not self.chain:
            raise ChainUnreachable("gone")
        return 42, int(self.now) - 3

    def ask_store(self) -> None:
        if not self.store:
            raise StoreUnreachable("gone")


def state_in(stage: Any, phase: Phase) -> FederationState:
    """The walkthrough's first round as it was in a phase."""
    if phase is not Phase.TRAINING:
        found: FederationState = getattr(stage, phase.name.lower())
        return found
    return replace(stage.receipts, current=replace(stage.receipts.current, commits=MappingProxyType({})))


class Watched:
    """One peer's meter, health and port."""

    def __init__(self, stage: Any, folder: Path) -> None:
        self.world, self.stage, self.log_file = World(), stage, folder / "peer.log"
        self.meter = Meter(folder / "rounds.jsonl", MemoryStore(folder, {}, 0))
        self.health = Health(self.meter, ME, self.world.doors(), clock=lambda: self.world.now)
        self.log = peer_log(self.log_file, quiet=True)
        self.port: int | None = None

    def look(self, phase: Phase) -> None:
        self.health.look(state_in(self.stage, phase), self.stage.now)

    def get(self, path: str) -> requests.Response:
        return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)

    def health_said(self, status: int) -> dict[str, Any]:
        answer = self.get("/healthz")
        assert answer.status_code == status, answer.text
        said: dict[str, Any] = answer.json()
        assert said["healthy"] is (status == 200)
        return said

    def metric(self, name: str, **labels: str) -> float:
        answer = self.get("/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain")
        found = [
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert len(found) == 1, (name, labels, found)
        return float(found[0])


@pytest.fixture
def watched(stage: Any, tmp_path: Path) -> Iterator[Watched]:
    peer = Watched(stage, tmp_path)
    with serving(("127.0.0.1", 0), peer.health, peer.meter, peer.log) as port:
        peer.port = port
        yield peer


def test_a_peer_at_work_is_healthy_and_says_where_it_stands(watched: Watched) -> None:
    watched.health.ask()
    watched.look(Phase.RECEIPTS)
    said = watched.health_said(200)
    assert said["phase"] == "receipts" and said["round"] == 1 and said["duties"] == ["post a receipt"]
    assert said["head"] == {"block": 42, "age_s": 3.0, "read": 40}
    assert said["reachable"] == {"chain": True, "store": True} and said["reasons"] == []


def test_a_finished_run_is_in_its_last_round(watched: Watched) -> None:
    watched.health.ask()
    state = watched.stage.receipts
    every = dict.fromkeys(range(1, state.terms.rounds + 1), state.current)
    watched.health.look(replace(state, closed=MappingProxyType(every), current=None), watched.stage.now)
    said = watched.health_said(200)
    assert (said["phase"], said["round"]) == ("finished", state.terms.rounds)
    assert watched.metric("fedchain_round") == state.terms.rounds


@pytest.mark.parametrize("door", ["chain", "store"])
def test_a_door_that_is_shut_for_long_is_unhealthy_and_named(watched: Watched, door: str) -> None:
    watched.health.ask()
    setattr(watched.world, door, False)
    watched.health.ask()
    watched.health_said(200)
    assert watched.metric("fedchain_reachable", door=door) == 0
    watched.world.now += STALE_S + 1
    watched.health.ask()
    assert watched.health_said(503)["reasons"] == [f"the {door} does not answer"]
    assert watched.metric("fedchain_healthy") == 0


def test_a_peer_that_no_longer_looks_is_unhealthy(watched: Watched) -> None:
    watched.look(Phase.TRAINING)
    patience = max(PATIENCE_S, state_in(watched.stage, Phase.TRAINING).terms.training_window_s)
    watched.world.now += patience + 1
    watched.health.ask()
    assert "has not read the chain" in watched.health_said(503)["reasons"][0]
    watched.look(Phase.TRAINING)
    watched.health_said(200)


def test_a_slashed_member_is_unhealthy(watched: Watched) -> None:
    watched.health.ask()
    watched.health.look(replace(watched.stage.receipts, slashed=Bitmap(1 << ME)), watched.stage.now)
    assert watched.health_said(503)["reasons"] == ["this member was slashed"]
    assert watched.metric("fedchain_slashed") == 1


def test_figures_are_counted(watched: Watched, tmp_path: Path) -> None:
    meter, health = watched.meter, watched.health
    sender = meter.counted(watched.stage.peer(0).chain, health.mined)
    with meter.step("train"):
        pass
    sender.submit("receipt/1/0", PostReceipt(1, 0, Bitmap(7)))
    meter.failed(ChainUnreachable("gone"))
    (tmp_path / "journal.jsonl").write_bytes(b"x" * 1234)
    watched.look(Phase.OPENING)
    health.ask()
    assert watched.metric("fedchain_step_seconds_count", step="train") == 1
    assert watched.metric("fedchain_step_seconds_count", step="close") == 0
    assert watched.metric("fedchain_statements_total", action="PostReceipt", outcome="made") == 1
    assert watched.metric("fedchain_errors_total", kind="ChainUnreachable") == 1
    assert watched.metric("fedchain_phase", fedchain_phase="opening") == 1
    assert watched.metric("fedchain_gas_total") == watched.world.gas
    assert watched.metric("fedchain_balance_ether") == 3
    assert watched.metric("fedchain_block_lag") == 2
    assert watched.metric("fedchain_journal_bytes") == 1234
    assert watched.metric("process_resident_memory_bytes") > 10**7
    assert watched.health_said(200)["last_act"]["what"] == "PostReceipt"


def test_a_statement_that_failed_is_counted_as_such(watched: Watched) -> None:
    class Refusing:
        address = Address("0x" + "11" * 20)

        def submit(self, key: str, action: Any) -> bytes:
            raise ChainUnreachable("gone")

    with pytest.raises(ChainUnreachable):
        watched.meter.counted(Refusing()).submit("k", PostReceipt(1, 0, Bitmap(7)))
    assert watched.metric("fedchain_statements_total", action="PostReceipt", outcome="failed") == 1
    assert watched.meter.last_act is None


def test_duties_are_those_of_the_phase(stage: Any) -> None:
    due = {
        phase: duties_of(state_in(stage, phase), stage.now, ME)
        for phase in (Phase.TRAINING, Phase.RECEIPTS, Phase.OPENING)
    }
    assert due == {
        Phase.TRAINING: ("commit an update",),
        Phase.RECEIPTS: ("post a receipt",),
        Phase.OPENING: ("publish an opening",),
    }


def test_what_is_documented_is_what_is_served(watched: Watched) -> None:
    watched.health.ask()
    watched.meter.failed(OSError())
    watched.meter.stated(PostReceipt(1, 0, Bitmap(7)), "made")
    (watched.log_file.parent / "journal.jsonl").touch()
    served = set(re.findall(r"^# TYPE (fedchain_\w+)", watched.get("/metrics").text, re.M))
    table = (Path(__file__).parents[2] / "docs" / "operate.md").read_text()
    documented = set(re.findall(r"^\| `(fedchain_\w+)", table, re.M))
    assert served == documented


def test_other_paths_and_methods_are_refused(watched: Watched) -> None:
    assert watched.get("/").status_code == 404
    assert watched.get("/../journal.jsonl").status_code == 404
    assert requests.post(f"http://127.0.0.1:{watched.port}/metrics", timeout=10).status_code == 405


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:9464", "[", "localhost.evil.example"])
def test_another_sites_page_reads_nothing(watched: Watched, host: str) -> None:
    answer = requests.get(f"http://127.0.0.1:{watched.port}/metrics", headers={"Host": host}, timeout=10)
    assert answer.status_code == 403 and b"fedchain_" not in answer.content


@pytest.mark.parametrize("host", ["localhost:9464", "192.0.2.7:9464", "[::1]:9464"])
def test_it_is_asked_by_address(watched: Watched, host: str) -> None:
    answer = requests.get(f"http://127.0.0.1:{watched.port}/metrics", headers={"Host": host}, timeout=10)
    assert answer.ok


def test_a_port_that_is_taken_is_one_line_and_the_peer_goes_on(stage: Any, tmp_path: Path) -> None:
    peer = Watched(stage, tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with serving(("127.0.0.1", taken.getsockname()[1]), peer.health, peer.meter, peer.log) as port:
            assert port is None
    lines = [json.loads(line) for line in peer.log_file.read_text().splitlines()]
    assert len(lines) == 1 and lines[0]["level"] == "error" and "going on without" in lines[0]["event"]


def test_two_peers_of_one_process_have_their_own_figures(stage: Any, tmp_path: Path) -> None:
    first, second = Watched(stage, tmp_path), Watched(stage, tmp_path)
    first.meter.failed(OSError())
    assert second.meter.registry.get_sample_value("fedchain_errors_total", {"kind": "OSError"}) is None


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("localhost:1", ("127.0.0.1", 1)),
        (":9464", ("127.0.0.1", 9464)),
        ("9464", ("127.0.0.1", 9464)),
        ("[::1]:9464", ("::1", 9464)),
        ("127.9.9.9:0", ("127.9.9.9", 0)),
    ],
)
def test_addresses_of_this_machine_are_served(listen: str, expected: tuple[str, int]) -> None:
    assert parse_listen(listen, anywhere=False) == expected


@pytest.mark.parametrize("listen", ["0.0.0.0:9464", "192.0.2.1:9464", "[::]:9464", "8.8.8.8:1"])
def test_an_address_that_others_reach_must_be_meant(listen: str) -> None:
    with pytest.raises(UsageError, match="--metrics-anywhere"):
        parse_listen(listen, anywhere=False)
    parse_listen(listen, anywhere=True)


@pytest.mark.parametrize("listen", ["127.0.0.1", "127.0.0.1:", "host.example:9464", "127.0.0.1:99999", "a:b:c"])
def test_what_is_no_address_is_the_operators_mistake(listen: str) -> None:
    with pytest.raises(UsageError, match="--metrics"):
        parse_listen(listen, anywhere=True)


def test_callers_that_drip_are_cut_off_and_others_served_again(watched: Watched) -> None:
    """Twice as many connections as slots, a byte at a time."""
    began = time.monotonic()
    with ExitStack() as stack:
        callers = [
            stack.enter_context(socket.create_connection(("127.0.0.1", watched.port or 0))) for _ in range(2 * CALLERS)
        ]
        callers[0].sendall(b"GET /")
        _wait(lambda: all(_is_cut(caller) for caller in callers), 4 * TIMEOUT_S)
    assert time.monotonic() - began < 4 * TIMEOUT_S
    _wait(lambda: watched.get("/healthz").ok, 10)


def _is_cut(caller: socket.socket) -> bool:
    caller.settimeout(0.01)
    try:
        # A byte every now and then must not keep a connection open.
        caller.send(b"a")
        return caller.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _wait(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if done():
                return
        except requests.RequestException:
            pass
        time.sleep(0.05)
    raise AssertionError("not in time")
