"""The reader on a real chain: incremental, cheap, and right through confirmations and reorganisations."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fedchain.chain import reader as reader_module
from fedchain.chain.reader import Reader
from fedchain.chain.rpc import Rpc
from fedchain.errors import ChainMismatch, ChainUnreachable
from fedchain.protocol.actions import WithdrawBond
from fedchain.protocol.events import MemberEnrolled, UpdateCommitted
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.transition import fold


def test_the_state_is_what_the_log_folds_to(federation: Any, commit: Any) -> None:
    reader = federation.reader()
    assert reader.refresh().terms.rounds == 3
    senders = federation.enrol_all()
    senders[1].submit("commit/1/0", commit(b"one"))

    state = reader.refresh()

    assert state == fold(entry.event for entry in reader.log())
    assert [type(entry.event) for entry in reader.log()][1:] == [MemberEnrolled] * 3 + [UpdateCommitted]
    assert list(state.members[1].encryption_key) == [2] * 32
    assert state.current is not None and state.current.commits[1].ciphertext_cid == commit(b"one").ciphertext_cid
    assert phase_of(state, 1, reader.now()) is Phase.TRAINING
    assert state == federation.reader().refresh(), "reading at once and bit by bit must give the same state"


def test_the_deployment_block_is_found_when_it_is_not_given(federation: Any) -> None:
    federation.enrol_all()
    for _ in range(20):
        federation.anvil.rpc("evm_mine")

    reader = federation.reader(from_block=None)

    assert len(reader.refresh().members) == 3
    assert reader.log()[0].block_number == federation.deployment.block


def test_a_poll_with_nothing_new_costs_one_call_and_the_time_another(federation: Any, proxy: Any) -> None:
    federation.enrol_all()
    reader = federation.reader(url=proxy.url)
    reader.refresh()
    proxy.calls.clear()

    for _ in range(10):
        reader.refresh()
        reader.now()

    assert sum(proxy.calls.values()) == 20


def test_one_new_block_costs_at_most_three_calls(federation: Any, proxy: Any, enrol: Any) -> None:
    reader = federation.reader(url=proxy.url)
    reader.refresh()
    federation.sender(0).submit("enrol", enrol(0))
    proxy.calls.clear()
    assert len(reader.refresh().members) == 1
    assert sum(proxy.calls.values()) <= 3, proxy.calls


def test_a_long_chain_is_read_in_pages(federation: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    federation.enrol_all()
    federation.anvil.rpc("anvil_mine", hex(100))
    monkeypatch.setattr(reader_module, "_PAGE_BLOCKS", 10)

    state = federation.reader(url=proxy.url).refresh()

    assert len(state.members) == 3
    assert proxy.calls["eth_getLogs"] >= 10


def test_an_endpoint_that_allows_small_pages_only_gets_small_pages(federation: Any, proxy: Any) -> None:
    federation.enrol_all()
    federation.anvil.rpc("anvil_mine", hex(40))

    def small(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_getLogs" and "fromBlock" in params[0]:
            span = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
            if span > 5:
                return {"jsonrpc": "2.0", "id": answer["id"], "error": {"code": -32005, "message": "too many blocks"}}
        return answer

    proxy.tamper = small
    assert len(federation.reader(url=proxy.url).refresh().members) == 3


def test_nothing_is_believed_before_it_has_its_confirmations(federation: Any, enrol: Any) -> None:
    federation.anvil.rpc("anvil_mine", hex(2))
    reader = federation.reader(confirmations=2)
    assert not reader.refresh().members
    federation.sender(0).submit("enrol", enrol(0))
    seen = []
    for _ in range(3):
        seen.append(len(reader.refresh().members))
        federation.anvil.rpc("evm_mine")
    assert seen == [0, 0, 1]


def test_a_contract_without_its_confirmations_is_waited_for(federation: Any) -> None:
    with pytest.raises(ChainUnreachable, match="confirmations"):
        federation.reader(confirmations=5).refresh()


def test_now_is_the_time_that_the_next_block_will_have(federation: Any) -> None:
    reader = federation.reader()
    reader.refresh()
    federation.anvil.rpc("evm_increaseTime", 500)
    told = reader.now()
    federation.anvil.rpc("evm_mine")
    assert told >= federation.anvil.now - 1
    assert told > reader.refresh().founded_at + 499


@pytest.mark.parametrize("pending", [{"result": None}, {"error": {"code": -32602, "message": "unknown block tag"}}])
def test_without_a_pending_block_now_is_the_latest_blocks_time(federation: Any, proxy: Any, pending: Any) -> None:
    proxy.tamper = lambda method, params, answer: (
        {"jsonrpc": "2.0", "id": answer["id"]} | pending if params[:1] == ["pending"] else answer
    )
    reader = federation.reader(url=proxy.url)
    reader.refresh()
    assert reader.now() == federation.anvil.now


def test_who_leaves_before_the_run_may_come_again(federation: Any, enrol: Any) -> None:
    federation.sender(0).submit("enrol", enrol(0))
    reader = federation.reader()
    federation.anvil.rpc("evm_increaseTime", 7300)
    federation.anvil.rpc("evm_mine")
    federation.sender(0).submit("withdraw", WithdrawBond())
    assert not reader.refresh().members
    federation.sender(0).submit("enrol again", enrol(1))
    assert reader.refresh().members[0].weight == 2


def test_gas_is_what_the_receipt_says(federation: Any, enrol: Any) -> None:
    transaction = federation.sender(0).submit("enrol", enrol(0))
    receipt = federation.anvil.rpc("eth_getTransactionReceipt", "0x" + transaction.hex())
    assert federation.reader().gas_used(transaction) == int(receipt["gasUsed"], 16) > 21_000


def test_gas_of_an_unknown_transaction_is_a_plain_error(federation: Any) -> None:
    with pytest.raises(ChainUnreachable, match="knows no mined transaction"):
        federation.reader().gas_used(b"\x05" * 32)


class TestAfterAReorganisation:
    """On an anvil of its own: `anvil_reorg` drops the transactions of the blocks it replaces."""

    def test_what_the_chain_took_back_is_forgotten(self, start_anvil: Any, found: Any, enrol: Any) -> None:
        federation = found(start_anvil())
        reader = federation.reader()
        federation.sender(0).submit("enrol", enrol(0))
        before = reader.refresh()
        federation.sender(1).submit("enrol", enrol(1))
        assert set(reader.refresh().members) == {0, 1}

        federation.anvil.rpc("anvil_reorg", 1, [])

        assert reader.refresh() == before
        assert reader.refresh() == federation.reader().refresh()

    def test_only_what_came_after_the_fork_is_read_again(
        self, start_anvil: Any, found: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        federation = found(start_anvil())
        reader = federation.reader()
        for index in range(2):
            federation.sender(index).submit("enrol", enrol(index))
            reader.refresh()
        federation.anvil.rpc("anvil_mine", hex(30))
        reader.refresh()
        asked: list[Any] = []
        call = Rpc.call

        def noting(self: Rpc, method: str, *params: Any) -> Any:
            if method == "eth_getLogs":
                asked.append(params[0])
            return call(self, method, *params)

        monkeypatch.setattr(Rpc, "call", noting)
        federation.anvil.rpc("anvil_reorg", 5, [])

        assert len(reader.refresh().members) == 2
        assert asked and all(int(a.get("fromBlock", "0xff"), 16) > federation.deployment.block + 1 for a in asked)

    def test_a_statement_that_comes_again_is_read_again(self, start_anvil: Any, found: Any, enrol: Any) -> None:
        federation = found(start_anvil())
        reader, sender = federation.reader(), federation.sender(0)
        sender.submit("enrol", enrol(0))
        first = reader.refresh(), reader.log()[-1]
        federation.anvil.rpc("anvil_reorg", 1, [])
        assert not reader.refresh().members

        assert sender.submit("enrol", enrol(0)) == first[1].transaction, "the very same bytes are sent again"

        assert set(reader.refresh().members) == {0}
        assert reader.log()[-1].block_hash != first[1].block_hash
        assert len(reader.log()) == 2

    def test_a_reorganisation_that_takes_the_contract_is_said_so(self, start_anvil: Any, found: Any) -> None:
        anvil = start_anvil()
        anvil.rpc("anvil_mine", hex(3))
        federation = found(anvil)
        reader = federation.reader()
        reader.refresh()
        anvil.rpc("anvil_reorg", 2, [])
        with pytest.raises(ChainMismatch, match="never said FederationFounded"):
            reader.refresh()

    def test_a_chain_that_went_back_is_followed_back(self, start_anvil: Any, found: Any, enrol: Any) -> None:
        federation = found(start_anvil())
        reader = federation.reader()
        founded = reader.refresh()
        snapshot = federation.anvil.remember()
        federation.sender(0).submit("enrol", enrol(0))
        assert reader.refresh().members
        federation.anvil.take_back(snapshot)
        assert reader.refresh() == founded

    def test_a_chain_that_changes_under_the_reading_is_read_once_more(
        self, chain: Any, found: Any, proxy: Any, enrol: Any
    ) -> None:
        federation = found(chain)
        federation.enrol_all()
        seen = []

        def another_hash(method: str, params: list[Any], answer: Any) -> Any:
            if method == "eth_getBlockByNumber" and params[0] not in ("latest", "pending") and not seen:
                seen.append(params[0])
                answer["result"]["hash"] = "0x" + "ab" * 32
            return answer

        proxy.tamper = another_hash
        assert len(federation.reader(url=proxy.url).refresh().members) == 3
        assert seen

    def test_a_reorganisation_in_the_middle_of_a_reading_is_no_fault(
        self, start_anvil: Any, found: Any, proxy_for: Any, enrol: Any
    ) -> None:
        """Between the head and the logs the chain changes: an enrolment that was read comes again in a later block."""
        federation = found(start_anvil())
        proxy, journal, anvil = proxy_for(federation.anvil.url), federation.journal(0), federation.anvil
        federation.sender(0, journal).submit("enrol", enrol(0))
        reader = federation.reader(url=proxy.url)
        reader.refresh()
        anvil.rpc("anvil_mine", hex(3))

        def reorganise(method: str) -> None:
            if method == "eth_getLogs":
                proxy.before = lambda method: None
                anvil.rpc("anvil_reorg", 4, [["0x" + journal.transaction("enrol").hex(), 2]])

        proxy.before = reorganise
        assert set(reader.refresh().members) == {0}
        assert [entry.block_number for entry in reader.log()] == [1, 4]


def test_a_wrong_chain_id_is_named(federation: Any) -> None:
    with pytest.raises(ChainMismatch, match="serves chain 31337, expected chain 11155111"):
        federation.reader(expected_chain_id=11_155_111).refresh()


def test_an_address_without_a_contract_is_named(chain: Any) -> None:
    with pytest.raises(ChainMismatch, match="no contract at"):
        Reader(chain.url, chain.accounts[5]).refresh()


def test_a_contract_that_is_no_federation_is_refused(chain: Any) -> None:
    # Its code, at creation and when called: one log with topic 0 and no data. It speaks, and not in our words.
    speaks = "600060006000a1"
    runtime = speaks + "00"
    created = "0x" + speaks + "67" + runtime + "600052" + "60086018f3"
    contract = _mined(chain, {"from": chain.accounts[0], "data": created, "gas": hex(200_000)})["contractAddress"]
    with pytest.raises(ChainMismatch, match="an event that this version does not know"):
        Reader(chain.url, contract).refresh()


def test_a_silent_contract_is_no_federation(chain: Any) -> None:
    created = "0x" + "6000600055" + "600160005360016000f3"
    contract = _mined(chain, {"from": chain.accounts[0], "data": created, "gas": hex(200_000)})["contractAddress"]
    with pytest.raises(ChainMismatch, match="never said FederationFounded"):
        Reader(chain.url, contract).refresh()


def _mined(chain: Any, transaction: dict[str, str]) -> Any:
    sent = chain.rpc("eth_sendTransaction", transaction)
    for _ in range(200):
        if receipt := chain.rpc("eth_getTransactionReceipt", sent):
            return receipt
        time.sleep(0.01)
    raise AssertionError("not mined")
