"""An operator's way with the real parts: key, deploy, verify, enrol, status, on a chain and an IPFS node."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fedchain.chain import deploy as deploy_module
from fedchain.chain.account import ChainAccount
from fedchain.chain.deployment import read_deployment
from fedchain.chain.keys import public_identity
from fedchain.chain.reader import Reader
from fedchain.cli.main import main
from fedchain.devnet.network import Devnet
from fedchain.protocol.charter import parse_charter, read_charter
from fedchain.protocol.model import layout_of
from fedchain.store.ipfs import IpfsStore

TASK = '''
import torch
from torch import nn
from torch.utils.data import TensorDataset
from fedchain.learn import LocalData, Task


class Line(Task):
    """One weight and one bias."""

    name = "line"

    def model(self):
        return nn.Linear(1, 1)

    def local_data(self, index, members, seed):
        xs = torch.linspace(0, 1, 20 + index).unsqueeze(1)
        return LocalData(train=TensorDataset(xs, xs), validation=TensorDataset(xs[:5], xs[:5]))

    def test_data(self):
        xs = torch.linspace(0, 1, 5).unsqueeze(1)
        return TensorDataset(xs, xs)
'''


class Operator:
    """One operator's folder with a task, three keys with coins, and the command line."""

    def __init__(
        self, devnet: Devnet, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("FEDCHAIN_PASSWORD", "correct horse")
        monkeypatch.setenv("FEDCHAIN_RPC", devnet.rpc)
        monkeypatch.setenv("FEDCHAIN_IPFS", devnet.ipfs_apis[0])
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.folder = folder / "federation"
        self.folder.mkdir()
        (self.folder / "task.py").write_text(TASK)
        (self.folder / "federation.toml").write_text(
            '# agreed by all\n[federation]\nname = "line"\n[update]\nweight_cap = 21\n[run]\nrounds = 9\n'
        )
        self.keys = [folder / f"{name}.json" for name in ("ada", "bob", "eve")]
        for key in self.keys:
            self("key", "new", key, "--fast")
            devnet.fund(public_identity(key).address, 10**18)
        self.addresses = [public_identity(key).address for key in self.keys]
        self.members = [argument for address in self.addresses for argument in ("--member", address)]

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
def operator(
    devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    """An operator with nothing but a task and keys."""
    return Operator(devnet, tmp_path, monkeypatch, capsys)


def test_from_a_folder_to_an_enrolled_federation(operator: Operator, devnet: Devnet) -> None:
    folder, file = operator.folder, operator.folder / "deployment.json"
    deploying = ("deploy", folder, "--key", operator.keys[0], *operator.members, "--set", "run.rounds=4")
    code, out, err = operator(*deploying, "--chain-id", devnet.chain_id)
    assert (code, err) == (0, ""), err
    deployment = read_deployment(file)
    assert deployment.address in out

    # What was deployed is in the folder, on chain and in the store, and is the same.
    charter, store = read_charter(folder), IpfsStore(devnet.ipfs_apis[0])
    assert charter.digest().hex() == deployment.charter_digest and charter.run.rounds == 4
    assert parse_charter(store.get(deployment.charter_cid, 65_536)) == charter
    assert layout_of(store.get(deployment.genesis_cid, 10_000)).size == 2
    assert (folder / "federation.toml.orig").read_text().startswith("# agreed by all")
    state = Reader(devnet.rpc, deployment.address, from_block=deployment.block).refresh()
    assert state.founders == tuple(operator.addresses)
    assert (state.terms.rounds, state.terms.model_size, state.terms.threshold) == (4, 2, 2)
    assert sorted(p.name for p in folder.iterdir()) == [
        "deployment.json", "federation.toml", "federation.toml.orig", "task.py"
    ]  # fmt: skip

    assert operator("verify", "--deployment", file)[0] == 0
    assert "was deployed already" in operator(*deploying)[2]

    # The weight is the task's samples, capped by the charter, or as given.
    for key, more in zip(operator.keys, ((), (), ("--weight", "7")), strict=True):
        code, out, err = operator("enrol", folder, "--deployment", file, "--key", key, *more)
        assert (code, err) == (0, ""), err
    state = Reader(devnet.rpc, deployment.address, from_block=deployment.block).refresh()
    assert [state.members[i].weight for i in sorted(state.members)] == [20, 21, 7]
    assert state.members[1].encryption_key == public_identity(operator.keys[1]).encryption_public
    again = operator("enrol", folder, "--deployment", file, "--key", operator.keys[0])
    assert again[0] == 0 and "enrolled before, with weight 20" in again[1]
    assert "training" in operator("status", "--deployment", file)[1]


def test_members_agree_on_a_charter_by_its_digest(operator: Operator) -> None:
    charter = operator.folder / "federation.toml"
    code, _, err = operator("charter", operator.folder)
    told = "nothing to agree on before it is complete"
    assert code == 2 and "names no members yet" in err and err.count("\n") == 1, told
    members = ", ".join(f'"{address}"' for address in operator.addresses)
    charter.write_text(charter.read_text().replace("[update]", f"members = [{members}]\n[update]"))
    shown = operator("charter", operator.folder)
    digest = read_charter(operator.folder).digest().hex()
    assert shown[0] == 0 and shown[1].endswith(f"charter     {digest}\n")
    assert all(f"member {i:<4} {address}\n" in shown[1] for i, address in enumerate(operator.addresses))

    # One letter of the task is another charter.
    (operator.folder / "task.py").write_text(TASK + "#")
    assert operator("charter", operator.folder)[1].splitlines()[:3] == shown[1].splitlines()[:3]
    assert digest not in operator("charter", operator.folder)[1]

    # What they agreed on is what is deployed.
    (operator.folder / "task.py").write_text(TASK)
    assert operator("deploy", operator.folder, "--key", operator.keys[0])[0] == 0
    verified = operator("verify", "--deployment", operator.folder / "deployment.json")[1]
    assert f"charter {digest[:16]}" in verified
    assert not (operator.folder / "federation.toml.orig").exists(), "nothing was overridden, nothing is rewritten"


def test_an_interrupted_deployment_is_gone_on_with(
    operator: Operator, devnet: Devnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the sending: the same command finds its contract, and creates no second."""
    deploying = ("deploy", operator.folder, "--key", operator.keys[0], *operator.members)
    with monkeypatch.context() as patched:
        patched.setattr(ChainAccount, "wait", _pull_the_plug)
        with pytest.raises(ZeroDivisionError):
            operator(*deploying)
    assert not (operator.folder / "deployment.json").exists()

    code, _, err = operator(*deploying)

    assert (code, err) == (0, ""), err
    sent = deploy_module.Rpc(devnet.rpc).call("eth_getTransactionCount", operator.addresses[0], "latest")
    assert int(sent, 16) == 1


def test_a_folder_that_differs_from_what_was_deployed_cannot_enrol(operator: Operator) -> None:
    folder, file = operator.folder, operator.folder / "deployment.json"
    assert operator("deploy", folder, "--key", operator.keys[0], *operator.members)[0] == 0
    (folder / "task.py").write_text(TASK + "# improved\n")
    code, _, err = operator("enrol", folder, "--deployment", file, "--key", operator.keys[1])
    assert code == 2 and "byte for byte what the members agreed on" in err and err.count("\n") == 1


def test_a_peer_pays_no_bond_into_a_contract_of_other_code(operator: Operator, devnet: Devnet) -> None:
    """One byte more at the code's end changes nothing that it does, and is not the committed build."""
    file, chain = operator.folder / "deployment.json", deploy_module.Rpc(devnet.rpc)
    assert operator("deploy", operator.folder, "--key", operator.keys[0], *operator.members)[0] == 0
    contract = read_deployment(file).address
    chain.call("anvil_setCode", contract, chain.call("eth_getCode", contract, "latest") + "00")
    code, _, err = operator(
        "peer", "run", operator.folder, "--deployment", file, "--key", operator.keys[1], "--enrol", "--quiet"
    )
    assert code == 2 and "is not the committed build" in err and err.count("\n") == 1
    assert chain.call("eth_getTransactionCount", operator.addresses[1], "pending") == "0x0"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--chain-id", "1"), "serves chain 31337, expected chain 1"),
        (("--ipfs", "http://127.0.0.1:1"), "127.0.0.1:1"),
        (("--set", "run.rounds=0"), "run.rounds"),
        (("--member", "0x12"), "is not an address"),
    ],
)
def test_a_mistake_costs_nothing(operator: Operator, devnet: Devnet, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = operator("deploy", operator.folder, "--key", operator.keys[0], *operator.members, *arguments)
    assert code == 2 and words in err and err.count("\n") == 1
    assert not (operator.folder / "deployment.json").exists()
    assert deploy_module.Rpc(devnet.rpc).call("eth_getTransactionCount", operator.addresses[0], "pending") == "0x0"


def _pull_the_plug(*_: object, **__: object) -> None:
    raise ZeroDivisionError
