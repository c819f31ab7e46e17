"""Founding and verifying: on an ordinary devnet, on a differently configured chain, and where it must fail."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedchain.chain.artifacts import load_artifact
from fedchain.chain.deploy import deploy
from fedchain.chain.deployment import council_of, creation_code, read_deployment, verify, write_deployment
from fedchain.chain.reader import Reader
from fedchain.errors import ChainMismatch, ChainUnreachable, TransactionFailed, UsageError
from fedchain.protocol.ids import Address


def test_the_contract_stands_with_the_terms_and_founders_given(federation: Any, terms: Any) -> None:
    state = federation.reader().refresh()
    assert state.terms == terms()
    assert state.founders == tuple(federation.anvil.accounts[:3])
    deployment = federation.deployment
    assert (deployment.chain_id, deployment.block) == (31337, int(federation.anvil.rpc("eth_blockNumber"), 16))
    assert deployment.artifact_hash == load_artifact().artifact_hash
    assert verify(federation.reader()) == deployment


def test_a_chain_with_another_id_slow_blocks_and_confirmations_is_served(
    start_anvil: Any, found: Any, enrol: Any
) -> None:
    anvil = start_anvil("--chain-id", "4242", "--block-time", "1", "--block-base-fee-per-gas", "7000000000")
    federation = found(anvil, confirmations=2)
    assert int(anvil.rpc("eth_blockNumber"), 16) >= federation.deployment.block + 2
    assert federation.deployment.chain_id == 4242

    reader = federation.reader(confirmations=2, expected_chain_id=4242)
    federation.sender(1, confirmations=2).submit("enrol", enrol(1))

    assert 1 in reader.refresh().members, "submit returned when the confirmations were there"
    assert abs(reader.now() - time.time()) < 5


class TestRefusals:
    def test_a_wrong_chain_id(self, chain: Any, terms: Any) -> None:
        with pytest.raises(ChainMismatch, match="serves chain 31337, expected chain 11155111"):
            _deploy(chain.url, chain, terms(), expected_chain_id=11_155_111)
        assert chain.rpc("eth_getTransactionCount", chain.accounts[0], "pending") == "0x0"

    def test_an_empty_account(self, chain: Any, terms: Any) -> None:
        chain.rpc("anvil_setBalance", chain.accounts[0], "0x0")
        with pytest.raises(TransactionFailed, match="is empty on chain 31337; send it some coins first"):
            _deploy(chain.url, chain, terms())

    def test_a_dead_endpoint(self, chain: Any, terms: Any) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        with pytest.raises(ChainUnreachable, match=rf"127\.0\.0\.1:{port} does not answer \(connection refused\)"):
            _deploy(f"http://127.0.0.1:{port}", chain, terms())

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"threshold": 1}, "the threshold must be 2 to 2, not 1"),
            ({"model_size": 0}, "modelSize is zero"),
            ({"training_window_s": 0}, "trainingWindow is zero"),
            ({"challenge_window_s": 0}, "challengeWindow is zero"),
            ({"close_window_s": 0}, "closeWindow is zero"),
        ],
    )
    def test_terms_that_the_contract_refuses(self, chain: Any, terms: Any, changes: Any, words: str) -> None:
        with pytest.raises(TransactionFailed, match=words):
            _deploy(chain.url, chain, terms(**changes))

    def test_a_founder_named_twice(self, chain: Any, terms: Any) -> None:
        with pytest.raises(TransactionFailed, match=f"the founder {chain.accounts[1]} is named twice"):
            _deploy(chain.url, chain, terms(), founders=[chain.accounts[i] for i in (0, 1, 1)])


class TestVerify:
    def test_other_code_is_not_trusted(self, federation: Any) -> None:
        code = bytearray(federation.reader().code_at())
        code[100] ^= 1
        federation.anvil.rpc("anvil_setCode", federation.deployment.address, "0x" + code.hex())
        with pytest.raises(ChainMismatch, match="is not the committed build"):
            verify(federation.reader())

    def test_longer_code_is_not_trusted(self, federation: Any) -> None:
        code = federation.reader().code_at() + b"\0"
        federation.anvil.rpc("anvil_setCode", federation.deployment.address, "0x" + code.hex())
        with pytest.raises(ChainMismatch, match="is not the committed build"):
            verify(federation.reader())

    def test_a_council_with_other_code_is_not_trusted(self, federation: Any) -> None:
        council = council_of(federation.deployment.address)
        code = bytearray(federation.reader().code_at(address=council))
        code[len(code) // 2] ^= 1
        federation.anvil.rpc("anvil_setCode", council, "0x" + code.hex())
        with pytest.raises(ChainMismatch, match=f"council, at {council}, is not the committed build"):
            verify(federation.reader())

    def test_no_code_is_said_so(self, chain: Any) -> None:
        with pytest.raises(ChainMismatch, match="there is no contract at"):
            verify(Reader(chain.url, chain.accounts[7]))

    def test_genuine_code_with_an_event_that_lies_is_not_trusted(self, federation: Any, terms: Any, proxy: Any) -> None:
        """Immutables are masked in code; so the terms are compared with what the constructor was given."""
        lie = creation_code(terms(rounds=9), tuple(Address(a) for a in federation.anvil.accounts[:3]))
        data = "0x" + lie[len(load_artifact().bytecode) :].hex()

        def lying(method: str, params: list[Any], answer: Any) -> Any:
            if method == "eth_getLogs":
                for log in answer["result"]:
                    log["data"] = data
            return answer

        proxy.tamper = lying
        reader = federation.reader(url=proxy.url)
        assert reader.refresh().terms.rounds == 9
        with pytest.raises(ChainMismatch, match="was not created by the committed constructor with the terms"):
            verify(reader)

    def test_a_contract_that_another_contract_made_is_not_trusted(self, federation: Any, proxy: Any) -> None:
        def lying(method: str, params: list[Any], answer: Any) -> Any:
            if method == "eth_getTransactionByHash":
                answer["result"]["to"] = federation.anvil.accounts[4]
            return answer

        proxy.tamper = lying
        with pytest.raises(ChainMismatch, match="was not created by the transaction that founded it"):
            verify(federation.reader(url=proxy.url))


class TestDeploymentFile:
    def test_it_is_read_as_it_was_written(self, federation: Any, tmp_path: Path) -> None:
        file = tmp_path / "new" / "deployment.json"
        write_deployment(file, federation.deployment)
        assert read_deployment(file) == federation.deployment
        assert [p.name for p in file.parent.iterdir()] == ["deployment.json"]

    @pytest.mark.parametrize(
        ("entry", "value"),
        [
            ("chain_id", "1"),
            ("chain_id", True),
            ("address", 7),
            ("address", "0x12"),
            ("block", -1),
            ("block", None),
            ("artifact_hash", []),
        ],
    )
    def test_a_malformed_entry_is_refused(self, federation: Any, tmp_path: Path, entry: str, value: Any) -> None:
        file = tmp_path / "deployment.json"
        write_deployment(file, federation.deployment)
        file.write_text(json.dumps(json.loads(file.read_text()) | {entry: value}))
        with pytest.raises(UsageError):
            read_deployment(file)

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 50_000, b'{"chain_id": 1}' + b" " * 70_000])
    def test_a_malformed_file_is_refused(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "deployment.json"
        file.write_bytes(content)
        with pytest.raises(UsageError, match="is not a deployment file"):
            read_deployment(file)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"nowhere\.json cannot be read: No such file"):
            read_deployment(tmp_path / "nowhere.json")

    def test_a_lower_case_address_is_not_what_we_wrote(self, federation: Any, tmp_path: Path) -> None:
        file = tmp_path / "deployment.json"
        lower = Address(federation.deployment.address.lower())
        write_deployment(file, replace(federation.deployment, address=lower))
        with pytest.raises(UsageError):
            read_deployment(file)


def _deploy(url: str, chain: Any, terms: Any, founders: list[str] | None = None, **options: Any) -> Any:
    named = tuple(Address(a) for a in founders or chain.accounts[:3])
    return deploy(url, bytes.fromhex(chain.keys[0][2:]), terms, named, **options)
