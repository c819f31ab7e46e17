"""The operator's commands that need a chain and no store: keys, verify, status, withdraw; and their one-line errors."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from fedchain.chain import keys
from fedchain.chain.deployment import write_deployment
from fedchain.cli.main import main
from fedchain.cli.status import in_time
from fedchain.protocol.actions import VoteToStop
from fedchain.protocol.disputes import basis_of, commitments_digest
from fedchain.protocol.ids import Digest

PASSWORD = "correct horse"


class Cli:
    """Runs the command line in this process; gives exit code, output and errors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["fedchain", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line, with the password in the environment."""
    monkeypatch.setenv("FEDCHAIN_PASSWORD", PASSWORD)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FEDCHAIN_RPC", raising=False)
    return Cli(monkeypatch, capsys)


class TestKeys:
    def test_a_key_is_made_and_shown(self, cli: Cli, tmp_path: Path) -> None:
        made = cli("key", "new", tmp_path / "ada.json", "--fast")
        shown = cli("key", "show", tmp_path / "ada.json")
        assert (made[0], shown[0]) == (0, 0)
        assert made[1].splitlines()[:2] == shown[1].splitlines()
        assert keys.public_identity(tmp_path / "ada.json").address in shown[1]

    def test_a_second_key_in_the_same_place_is_refused(self, cli: Cli, tmp_path: Path) -> None:
        cli("key", "new", tmp_path / "ada.json", "--fast")
        code, _, err = cli("key", "new", tmp_path / "ada.json", "--fast")
        assert code == 2 and "never overwritten" in err and err.count("\n") == 1

    def test_the_password_may_come_from_a_file(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "password").write_text("other\n")
        cli("key", "new", tmp_path / "ada.json", "--fast", "--password-file", tmp_path / "password")
        assert keys.load_identity(tmp_path / "ada.json", "other")

    def test_what_a_key_holds_is_shown(self, cli: Cli, chain: Any, tmp_path: Path) -> None:
        cli("key", "new", tmp_path / "ada.json", "--fast")
        address = keys.public_identity(tmp_path / "ada.json").address
        chain.rpc("anvil_setBalance", address, hex(25 * 10**17))
        assert (
            "holds           2.5 coins on chain 31337"
            in cli("key", "show", tmp_path / "ada.json", "--rpc", chain.url)[1]
        )


class TestVerify:
    def test_each_check_is_numbered(self, cli: Cli, federation: Any, tmp_path: Path) -> None:
        file = tmp_path / "deployment.json"
        write_deployment(file, federation.deployment)
        code, out, _ = cli("verify", "--rpc", federation.anvil.url, "--deployment", file)
        assert code == 0 and out.splitlines()[-1].startswith(f"ok: {federation.deployment.address}")
        assert [line[0] for line in out.splitlines()[:-1]] == ["1", "2", "3", "4"]

    def test_other_code_is_an_error(self, cli: Cli, federation: Any) -> None:
        federation.anvil.rpc("anvil_setCode", federation.deployment.address, "0x6001")
        code, _, err = cli("verify", "--rpc", federation.anvil.url, "--contract", federation.deployment.address)
        assert code == 2 and "is not the committed build" in err

    def test_a_file_of_another_federation_is_an_error(self, cli: Cli, federation: Any, tmp_path: Path) -> None:
        from dataclasses import replace

        file = tmp_path / "deployment.json"
        write_deployment(file, replace(federation.deployment, charter_digest="00" * 32))
        code, _, err = cli("verify", "--rpc", federation.anvil.url, "--deployment", file)
        assert code == 2 and "says otherwise than the chain" in err


class TestStatus:
    def test_it_shows_who_has_spoken_and_what_is_waited_for(self, cli: Cli, federation: Any, commit: Any) -> None:
        where = ("--rpc", federation.anvil.url, "--contract", federation.deployment.address)
        out = cli("status", *where)[1]
        assert "enrolling" in out and "waits for 3 founders to enrol; time left" in out
        members = federation.enrol_all()
        members[1].submit("commit/1/0", commit())

        out = cli("status", *where)[1]

        assert "round 1 of 3 · training · 0 closed · 3 of 3 members count · threshold 2" in out
        assert "waits for 2 members to commit an update; time left" in out
        rows = [line.split() for line in out.splitlines() if line[:1].isdigit() and line[1] == " "]
        assert [row[2:] for row in rows] == [["1"], ["2", "yes"], ["3"]]
        federation.anvil.rpc("evm_increaseTime", 3700)
        federation.anvil.rpc("evm_mine")
        assert "round 1 of 3, attempt 2" in cli("status", *where)[1]

    def test_watching_outlasts_an_outage_and_ends_with_the_run(
        self, cli: Cli, start_anvil: Any, found: Any, commit: Any, proxy_for: Any
    ) -> None:
        from fedchain.protocol.actions import CommitAggregate, CommitResult, PostReceipt, PublishOpening
        from fedchain.protocol.cid import cid_of

        federation = found(start_anvil())
        members, root, cid = federation.enrol_all(), b"\x04" * 32, cid_of(b"object")
        for member in members:
            member.submit("commit", commit())
        for member in members:
            member.submit("receipt", PostReceipt(1, 0, 0b111))
        where = ("--rpc", federation.anvil.url, "--contract", federation.deployment.address)
        assert "waits for member 0 to post the sum" in cli("status", *where)[1]
        reader = federation.reader()
        basis = commitments_digest(reader.refresh().current)
        members[0].submit("aggregate", CommitAggregate(1, 0, 0, 0b111, basis, root, cid))
        assert "waits for 2 more openings" in cli("status", *where)[1]
        for member in members[:2]:
            member.submit("open", PublishOpening(1, 0, 0, root, cid))
        assert "waits for any member to post the result" in cli("status", *where)[1]
        basis = basis_of(reader.refresh().current)
        members[2].submit("result", CommitResult(1, 0, 0, 0b11, basis, root, root, cid, root, cid))

        proxy = proxy_for(federation.anvil.url)

        looks: list[str] = []

        def outage(method: str, params: list[Any], answer: Any) -> Any:
            if (method, params[:1]) != ("eth_getBlockByNumber", ["latest"]):
                return answer
            looks.append(method)
            if len(looks) == 7:
                for member in members[:2]:
                    member.submit("stop", VoteToStop(2, Digest(root)))
            down = {"id": answer["id"], "error": {"code": -32000, "message": "restarting"}}
            return down if 3 <= len(looks) <= 4 else answer

        proxy.tamper = outage
        where = ("--rpc", proxy.url, "--contract", federation.deployment.address)
        code, out, err = cli("status", *where, "--watch", "--every", "0.2")
        assert (code, err) == (0, "")
        before, after = out.split("refused eth_getBlockByNumber: restarting; looking again", maxsplit=1)
        assert "round 2 of 3" in before and "round 2 of 3" in after
        assert "finished" in after and "bonds are held; time left" in after


class TestWithdraw:
    def test_a_refusal_is_one_line(self, cli: Cli, federation: Any, tmp_path: Path) -> None:
        keystore = self._keystore(federation, tmp_path, 1)
        federation.enrol_all()
        where = ("--rpc", federation.anvil.url, "--contract", federation.deployment.address)
        code, _, err = cli("withdraw", "--key", keystore, *where)
        assert code == 2 and err.count("\n") == 1
        assert "the bond is locked until the run is finished and the challenge window has passed" in err

    def test_the_bond_comes_back(self, cli: Cli, federation: Any, tmp_path: Path, enrol: Any) -> None:
        """Too few founders came: after enrolment and challenge window the bond is free."""
        keystore = self._keystore(federation, tmp_path, 1)
        federation.sender(1).submit("enrol", enrol(1))
        federation.anvil.rpc("evm_increaseTime", 7300)
        federation.anvil.rpc("evm_mine")
        code, out, err = cli(
            "withdraw", "--key", keystore, "--rpc", federation.anvil.url, "--contract", federation.deployment.address
        )
        assert (code, err) == (0, "")
        assert out == f"0.001 coins went back to {federation.anvil.accounts[1]}\n"

    @staticmethod
    def _keystore(federation: Any, folder: Path, index: int) -> Path:
        """A keystore of one of anvil's accounts."""
        identity = Account.from_key(federation.key(index))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(keys.Account, "create", lambda *_: identity)
            keys.new_identity(folder / "member.json", PASSWORD, fast=True)
        return folder / "member.json"


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("status",), "no chain: give --rpc URL"),
            (("status", "--rpc", "http://127.0.0.1:1"), "no federation: give --contract"),
            (("status", "--rpc", "host:80", "--contract", "0x" + "11" * 20), "is not an HTTP"),
            (("status", "--rpc", "http://127.0.0.1:1", "--contract", "0x12"), "is not an address"),
            (("verify", "--rpc", "http://127.0.0.1:1", "--deployment", "nowhere.json"), "cannot be read"),
            (
                ("withdraw", "--key", "nowhere.json", "--rpc", "http://127.0.0.1:1", "--contract", "0x" + "11" * 20),
                "no key",
            ),
            (("deploy", ".", "--key", "nowhere.json", "--rpc", "http://127.0.0.1:1"), "no charter at"),
            (("key", "show", "nowhere.json"), "make one with `fedchain key new"),
        ],
    )
    def test_a_mistake_is_one_line(self, cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(tmp_path)
            code, _, err = cli(*arguments)
        assert code == 2 and words in err and err.count("\n") == 1

    def test_a_dead_endpoint_is_one_line(self, cli: Cli) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        code, _, err = cli("status", "--rpc", f"http://127.0.0.1:{port}", "--contract", "0x" + "11" * 20)
        assert code == 2 and "does not answer (connection refused)" in err and err.count("\n") == 1

    @pytest.mark.parametrize("command", ["key new", "key show", "deploy", "verify", "enrol", "status", "withdraw"])
    def test_every_command_shows_an_example(self, cli: Cli, command: str) -> None:
        code, out, _ = cli(*command.split(), "--help")
        assert code == 0 and f"Example: fedchain {command}" in " ".join(out.split())


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_061, "1 d 1 h")]
)
def test_a_span_is_told_by_its_two_largest_units(seconds: int, words: str) -> None:
    assert in_time(seconds) == words
