"""A node that lies about a real federation: whatever it hands us is refused by name, and never becomes state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedchain.errors import ChainMismatch, ChainUnreachable, FedchainError, TransactionFailed

ENROLLED, COMMITTED = 1, 4
"""Places in the log: founded, three enrolments, one commitment."""


@pytest.fixture
def lying(spoken: Any, proxy: Any) -> Callable[..., Any]:
    """Read the federation through a node that changes the logs: `lying(change)` gives the state."""

    def read(change: Callable[[list[dict[str, Any]]], None], method: str = "eth_getLogs") -> Any:
        def tamper(called: str, params: list[Any], answer: Any) -> Any:
            if called == method:
                change(answer["result"])
            return answer

        proxy.tamper = tamper
        return spoken.reader(url=proxy.url).refresh()

    return read


def test_untouched_logs_are_read(lying: Any) -> None:
    assert lying(lambda logs: None).current.committed == 0b1


def _data(place: int, change: Callable[[str], str]) -> Callable[[Any], None]:
    def tamper(logs: Any) -> None:
        logs[place]["data"] = change(logs[place]["data"])

    return tamper


def _topic(place: int, number: int, value: int) -> Callable[[Any], None]:
    def tamper(logs: Any) -> None:
        logs[place]["topics"][number] = f"0x{value:064x}"

    return tamper


def _again(place: int) -> Callable[[Any], None]:
    return lambda logs: logs.append(logs[place] | {"logIndex": hex(99)})


def _set(place: int, **entries: Any) -> Callable[[Any], None]:
    return lambda logs: logs[place].update(entries)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(_topic(COMMITTED, 0, 7), "an event that this version does not know", id="topic-0"),
        pytest.param(_set(COMMITTED, topics=[]), "an event that this version does not know", id="no-topics"),
        pytest.param(lambda logs: logs[COMMITTED]["topics"].pop(), "malformed UpdateCommitted", id="topic-missing"),
        pytest.param(_topic(COMMITTED, 2, 256), "malformed UpdateCommitted", id="index-padding"),
        pytest.param(_topic(COMMITTED, 2, 200), "impossible UpdateCommitted: member 200", id="index-beyond-64"),
        pytest.param(
            _topic(COMMITTED, 2, 5),
            "a UpdateCommitted of member 5 that the contract would have refused",
            id="index-beyond-founders",
        ),
        pytest.param(_topic(COMMITTED, 1, 2), "round 2 attempt 0, which was not under way", id="round"),
        pytest.param(_data(COMMITTED, lambda d: d[:-2]), "malformed UpdateCommitted", id="data-short"),
        pytest.param(_data(COMMITTED, lambda d: d + "00" * 32), "malformed UpdateCommitted", id="data-long"),
        pytest.param(_data(COMMITTED, lambda d: "0xff" + d[4:]), "malformed UpdateCommitted", id="attempt-padding"),
        pytest.param(_data(0, lambda d: d + "00" * 8000), "malformed FederationFounded", id="founding-long"),
        pytest.param(
            _data(0, lambda d: d[: 2 + 64 * 15] + "f" * 64 + d[2 + 64 * 16 :]),
            "malformed FederationFounded",
            id="founders-without-end",
        ),
        pytest.param(
            _data(0, lambda d: d[: 2 + 64 * 10] + "0" * 64 + d[2 + 64 * 11 :]),
            "impossible FederationFounded: a window",
            id="aggregate-window-zero",
        ),
        pytest.param(
            _data(0, lambda d: d[: 2 + 64 * 6] + f"{1:064x}" + d[2 + 64 * 7 :]),
            "impossible FederationFounded: a threshold of 1",
            id="threshold-too-low",
        ),
        pytest.param(
            _data(ENROLLED, lambda d: d[:66] + "0" * 64),
            "impossible MemberEnrolled: a weight of zero",
            id="weight-zero",
        ),
        pytest.param(
            _again(ENROLLED), "a MemberEnrolled of .* that the contract would have refused", id="enrolled-twice"
        ),
        pytest.param(
            _topic(ENROLLED, 2, 0xABC),
            "a MemberEnrolled of .* that the contract would have refused",
            id="member-address",
        ),
        pytest.param(lambda logs: logs.pop(0), "does not begin with FederationFounded", id="founding-missing"),
        pytest.param(
            lambda logs: logs.pop(ENROLLED),
            "a UpdateCommitted of member 0 that the contract would have refused",
            id="not-enrolled",
        ),
        pytest.param(lambda logs: logs.clear(), "never said FederationFounded", id="no-logs"),
    ],
)
def test_a_log_that_no_contract_wrote_is_a_mismatch(lying: Any, change: Any, words: str) -> None:
    with pytest.raises(ChainMismatch, match=words):
        lying(change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(_set(1, address="0x" + "11" * 20), "a log that was not asked for", id="address"),
        pytest.param(_set(1, removed=True), "a log that was not asked for", id="removed"),
        pytest.param(_set(1, blockNumber="0xffffff"), "a log of block 16777215, asked for", id="blockNumber-beyond"),
        pytest.param(_set(1, blockNumber=5), "blockNumber is not a quantity", id="blockNumber-kind"),
        pytest.param(_set(1, blockHash="0x12"), "blockHash is not 32 bytes", id="blockHash"),
        pytest.param(_set(1, transactionHash=None), "transactionHash is not 32 bytes", id="transactionHash"),
        pytest.param(_set(1, logIndex="0x"), "logIndex is not a quantity", id="logIndex"),
        pytest.param(_set(1, topics="0x"), "a log without topics", id="topics-kind"),
        pytest.param(_set(1, topics=["0x00"] * 9), "a log without topics", id="topics-many"),
        pytest.param(_set(1, data="0xzz"), "data is not data", id="data-not-hex"),
        pytest.param(_set(1, data="0x" + "00" * 70_000), "data is not data", id="data-huge"),
        pytest.param(lambda logs: logs.append(logs[1]), "two logs in one place", id="log-twice"),
        pytest.param(lambda logs: logs.append(7), "a log without topics", id="log-kind"),
    ],
)
def test_a_log_that_no_node_gives_is_nonsense(lying: Any, change: Any, words: str) -> None:
    with pytest.raises(ChainUnreachable, match=words):
        lying(change)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda block: block.update(number=None), id="number"),
        pytest.param(lambda block: block.update(hash="0x"), id="hash"),
        pytest.param(lambda block: block.update(timestamp="0x" + "f" * 20), id="timestamp-huge"),
        pytest.param(lambda block: block.clear(), id="empty"),
    ],
)
def test_a_malformed_block_is_nonsense(lying: Any, change: Any) -> None:
    with pytest.raises(ChainUnreachable, match="nonsense"):
        lying(change, "eth_getBlockByNumber")


def test_logs_of_blocks_that_are_not_on_the_chain_are_not_believed(lying: Any) -> None:
    with pytest.raises(ChainUnreachable, match="changes faster than it can be read"):
        lying(_set(1, blockHash="0x" + "ab" * 32))


def test_logs_of_one_block_with_two_hashes_are_not_believed(lying: Any) -> None:
    def move(logs: Any) -> None:
        logs[1]["blockNumber"], logs[2]["logIndex"] = logs[2]["blockNumber"], "0x1"

    with pytest.raises(ChainUnreachable, match="changes faster than it can be read"):
        lying(move)


@pytest.mark.parametrize("method", ["eth_chainId", "eth_getLogs", "eth_getBlockByNumber", "eth_getCode"])
@pytest.mark.parametrize("result", [None, 7, "0x", "zz", [], {}, [[]], "0x" + "f" * 71, True], ids=repr)
def test_whatever_a_node_answers_becomes_one_line(spoken: Any, proxy: Any, method: str, result: Any) -> None:
    def tamper(called: str, params: list[Any], answer: Any) -> Any:
        return answer | {"result": result} if called == method else answer

    proxy.tamper = tamper
    with pytest.raises(FedchainError) as refused:
        spoken.reader(url=proxy.url, from_block=None).refresh()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", ["eth_estimateGas", "eth_getTransactionCount", "eth_getBalance", "eth_gasPrice"])
@pytest.mark.parametrize("result", [None, "0x", [], {}, "0x" + "f" * 70], ids=repr)
def test_a_sender_signs_nothing_on_nonsense(federation: Any, proxy: Any, enrol: Any, method: str, result: Any) -> None:
    def tamper(called: str, params: list[Any], answer: Any) -> Any:
        if called == "eth_getBlockByNumber":
            answer["result"].pop("baseFeePerGas", None)
        return answer | {"result": result} if called == method else answer

    proxy.tamper, journal = tamper, federation.journal(1)
    with pytest.raises(ChainUnreachable, match="nonsense"):
        federation.sender(1, journal, url=proxy.url).submit("enrol", enrol(1))
    assert journal.transaction("enrol") is None


def test_a_node_that_asks_for_an_absurd_fee_gets_no_signature(federation: Any, proxy: Any, enrol: Any) -> None:
    def tamper(called: str, params: list[Any], answer: Any) -> Any:
        if called == "eth_getBlockByNumber":
            answer["result"]["baseFeePerGas"] = hex(10**15)
        return answer

    proxy.tamper, journal = tamper, federation.journal(1)
    with pytest.raises(TransactionFailed, match="2000001 gwei a gas, which no chain does"):
        federation.sender(1, journal, url=proxy.url).submit("enrol", enrol(1))
    assert journal.transaction("enrol") is None


def test_a_tip_is_capped_whatever_the_node_suggests(federation: Any, proxy: Any, enrol: Any) -> None:
    proxy.tamper = lambda called, params, answer: (
        answer | {"result": hex(10**17)} if called == "eth_maxPriorityFeePerGas" else answer
    )
    sent = federation.sender(1, url=proxy.url).submit("enrol", enrol(1))
    mined = federation.anvil.rpc("eth_getTransactionByHash", "0x" + sent.hex())
    assert int(mined["maxPriorityFeePerGas"], 16) == 200 * 10**9
