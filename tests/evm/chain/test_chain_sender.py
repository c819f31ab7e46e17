"""The sender on a real chain: nothing is sent twice, nothing is lost, and a refusal comes in words."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from eth_hash.auto import keccak

from fedchain.chain import account
from fedchain.chain.account import ChainAccount
from fedchain.chain.raw import parse_raw
from fedchain.chain.rpc import Rpc
from fedchain.chain.sender import Sender, VolatileJournal
from fedchain.errors import NO_FUNDS, ChainMismatch, ChainUnreachable, TransactionFailed
from fedchain.protocol.actions import (
    CommitAggregate,
    CommitResult,
    PostReceipt,
    PublishOpening,
    VoteToStop,
    WithdrawBond,
)
from fedchain.protocol.cid import cid_of
from fedchain.protocol.disputes import basis_of, commitments_digest
from fedchain.protocol.ids import Bitmap, Digest, Root
from fedchain.protocol.phase import Phase, phase_of


class Plug(Exception):
    """The plug is pulled here."""


def test_every_action_is_understood_by_the_contract(federation: Any, commit: Any) -> None:
    """One round, then a vote: each action lands, and the log says the same words."""
    members, reader = federation.enrol_all(), federation.reader()
    root, cid = Root(b"\x04" * 32), cid_of(b"object")
    for i, member in enumerate(members):
        member.submit("commit/1/0", commit(bytes([i])))
    for member in members:
        member.submit("receipt/1/0", PostReceipt(1, 0, Bitmap(0b111)))
    basis = commitments_digest(reader.refresh().current)
    members[0].submit("aggregate/1/0/0", CommitAggregate(1, 0, 0, Bitmap(0b111), basis, root, cid))
    for member in members[:2]:
        member.submit("open/1/0/0", PublishOpening(1, 0, 0, root, cid))
    basis = basis_of(reader.refresh().current)
    result = CommitResult(1, 0, 0, Bitmap(0b11), basis, root, root, cid, Digest(b"\x05" * 32), cid)
    members[2].submit("result/1/0/0", result)
    assert phase_of(reader.refresh(), 2, reader.now()) is Phase.TRAINING
    for member in members[:2]:
        member.submit("stop/2", VoteToStop(2, Digest(b"\x05" * 32)))

    state = reader.refresh()

    attempt = state.closed[1]
    assert {i: c.ciphertext_cid for i, c in attempt.commits.items()} == {
        i: commit(bytes([i])).ciphertext_cid for i in range(3)
    }
    assert [r.whole for r in attempt.receipts.values()] == [0b111] * 3
    assert attempt.aggregate is not None and attempt.aggregate.participants == 0b111
    assert set(attempt.openings) == {0, 1}
    assert attempt.result is not None and attempt.result.index == 2 and attempt.result.model_cid == cid
    assert phase_of(state, 2, reader.now()) is Phase.FINISHED
    federation.anvil.rpc("evm_increaseTime", 4000)
    federation.anvil.rpc("evm_mine")
    members[1].submit("withdraw", WithdrawBond())
    assert reader.refresh().bonded == 0b101


class TestADutyMakesOneStatement:
    def test_the_second_submit_gives_the_first_transaction(self, federation: Any, enrol: Any) -> None:
        sender = federation.sender(0)
        first = sender.submit("enrol", enrol(0))
        assert sender.submit("enrol", enrol(0)) == first
        assert _nonce(federation, 0, "latest") == _nonce(federation, 0, "pending") == 2

    def test_it_is_journalled_before_it_is_sent(self, federation: Any, proxy: Any, enrol: Any) -> None:
        journal, held = federation.journal(1), []
        proxy.before = lambda method: (
            held.append(journal.transaction("enrol")) if method == "eth_sendRawTransaction" else None
        )
        federation.sender(1, journal, url=proxy.url).submit("enrol", enrol(1))
        assert held and held[0] is not None

    def test_a_crash_before_sending_sends_the_same_bytes(
        self, federation: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = federation.journal(1)
        with monkeypatch.context() as patched:
            patched.setattr(ChainAccount, "send", _pull_the_plug)
            with pytest.raises(Plug):
                federation.sender(1, journal).submit("enrol", enrol(1))
        promised = journal.transaction("enrol")
        assert promised is not None and _nonce(federation, 1, "pending") == 0

        sent = federation.sender(1, journal).submit("enrol", enrol(1))

        assert sent == keccak(promised)
        assert _nonce(federation, 1, "latest") == 1

    def test_a_crash_after_sending_sends_nothing_new(
        self, federation: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = federation.journal(1)
        with monkeypatch.context() as patched:
            patched.setattr(ChainAccount, "wait", _pull_the_plug)
            with pytest.raises(Plug):
                federation.sender(1, journal).submit("enrol", enrol(1))

        federation.sender(1, journal).submit("enrol", enrol(1))

        assert _nonce(federation, 1, "latest") == 1

    def test_a_crash_before_the_journal_promises_nothing(
        self, federation: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = federation.journal(1)
        with monkeypatch.context() as patched:
            patched.setattr(type(journal), "promise_transaction", _pull_the_plug)
            with pytest.raises(Plug):
                federation.sender(1, journal).submit("enrol", enrol(1))
        assert _nonce(federation, 1, "pending") == 0
        federation.sender(1, journal).submit("enrol", enrol(1))
        assert 1 in federation.reader().refresh().members

    def test_a_refusal_before_signing_leaves_the_key_unused(self, federation: Any, commit: Any) -> None:
        journal = federation.journal(0)
        sender = federation.sender(0, journal)
        with pytest.raises(TransactionFailed):
            sender.submit("commit/1/0", commit())
        assert journal.transaction("commit/1/0") is None
        federation.enrol_all()
        sender.submit("commit/1/0", commit())


class TestNonces:
    def test_a_promise_that_never_left_holds_nothing_up(
        self, federation: Any, commit: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The duty whose transaction was lost may never come again: whatever comes next closes the gap first."""
        federation.enrol_all()
        journal = federation.journal(1)
        with monkeypatch.context() as patched:
            patched.setattr(ChainAccount, "send", _pull_the_plug)
            with pytest.raises(Plug):
                federation.sender(1, journal).submit("commit/1/0", commit())
        for index in (0, 2):
            federation.sender(index).submit("commit/1/0", commit())

        monkeypatch.setattr(ChainAccount, "_estimate", lambda *_: 200_000)
        federation.sender(1, journal).submit("receipt/1/0", PostReceipt(1, 0, Bitmap(0b111)))

        current = federation.reader().refresh().current
        assert (current.committed, set(current.receipts)) == (0b111, {1})

    def test_eight_threads_of_one_account_use_every_nonce_once(
        self, federation: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ChainAccount, "_estimate", lambda *_: 100_000)
        sender = federation.sender(1, VolatileJournal())
        refused: list[str] = []

        def work(name: int) -> None:
            for i in range(5):
                try:
                    sender.submit(f"{name}/{i}", VoteToStop(9, Digest(bytes(32))))
                except TransactionFailed as failed:
                    refused.append(failed.error_name)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused == ["FederationNotMember"] * 40, "all 40 were mined, and refused by the contract alone"
        assert _nonce(federation, 1, "latest") == 40

    def test_a_second_program_with_the_same_key_is_named(
        self, federation: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = federation.journal(1)
        with monkeypatch.context() as patched:
            patched.setattr(ChainAccount, "send", _pull_the_plug)
            with pytest.raises(Plug):
                federation.sender(1, journal).submit("enrol", enrol(1))
        federation.sender(1, VolatileJournal()).submit("enrol", enrol(2))

        with pytest.raises(TransactionFailed, match=r"another transaction .* took nonce 0") as failed:
            federation.sender(1, journal, confirmations=1).submit("enrol", enrol(1))
        assert failed.value.error_name == "NonceTaken"
        federation.anvil.rpc("evm_mine")
        with pytest.raises(TransactionFailed, match="has enrolled already"):
            federation.sender(1, journal, confirmations=1).submit("enrol", enrol(1))
        assert len(journal.transactions("enrol")) == 1


class TestRefusals:
    def test_the_reason_of_a_refusal_is_in_words(self, federation: Any, commit: Any, enrol: Any) -> None:
        federation.sender(0).submit("enrol", enrol(0))
        with pytest.raises(TransactionFailed, match=r"contract refuses: .* is in phase Enrolling") as failed:
            federation.sender(0).submit("commit/1/0", commit())
        assert failed.value.error_name == "FederationWrongPhase"

    def test_the_reason_of_a_mined_revert_is_in_words(
        self, federation: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What changed between estimation and mining is told."""
        monkeypatch.setattr(ChainAccount, "_estimate", lambda *_: 100_000)
        journal = federation.journal(3)
        for words in ("mined and reverted: .* is no member", "contract refuses: .* is no member"):
            with pytest.raises(TransactionFailed, match=words) as failed:
                federation.sender(3, journal).submit("enrol", enrol(3))
            assert failed.value.error_name == "FederationNotMember"
            monkeypatch.undo()
        assert _nonce(federation, 3, "latest") == 1, "what would be reverted again is not signed again"

    def test_running_out_of_gas_is_said_so(self, federation: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ChainAccount, "_estimate", lambda *_: 15_000)
        with pytest.raises(TransactionFailed, match="ran out of gas"):
            federation.sender(0).submit("enrol", enrol(0))

    def test_an_empty_account_is_said_so(self, federation: Any, enrol: Any) -> None:
        federation.anvil.rpc("anvil_setBalance", federation.anvil.accounts[1], "0x0")
        with pytest.raises(
            TransactionFailed, match=r"the account 0x\w{40} is empty on chain 31337 .*; send it some coins"
        ) as failed:
            federation.sender(1).submit("enrol", enrol(1))
        assert failed.value.error_name == NO_FUNDS

    def test_an_account_that_cannot_pay_bond_and_fees_is_said_so(self, federation: Any, enrol: Any) -> None:
        federation.anvil.rpc("anvil_setBalance", federation.anvil.accounts[1], hex(enrol(1).bond_wei + 1))
        with pytest.raises(TransactionFailed, match=r"holds 0\.001 coins .* may take 0\.00"):
            federation.sender(1).submit("enrol", enrol(1))

    def test_another_chain_gets_no_signature(self, federation: Any, enrol: Any) -> None:
        journal = federation.journal(1)
        with pytest.raises(ChainMismatch, match="expected chain 1"):
            federation.sender(1, journal, chain_id=1).submit("enrol", enrol(1))
        assert journal.transaction("enrol") is None

    def test_coins_are_not_sent_where_no_contract_is(self, federation: Any, enrol: Any) -> None:
        sender = Sender(federation.anvil.url, federation.anvil.accounts[8], federation.key(1), VolatileJournal())
        with pytest.raises(ChainMismatch, match="no contract at"):
            sender.submit("enrol", enrol(1))


class TestAChainThatForgets:
    def test_dropped_transactions_are_sent_again(
        self, start_anvil: Any, found: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With no mining the pool is emptied under the waiting sender; it sends the same bytes again."""
        monkeypatch.setattr(account, "_RESEND_S", 0.2)
        anvil = start_anvil()
        federation = found(anvil)
        anvil.rpc("evm_setAutomine", False)
        journal = federation.journal(1)
        sender = federation.sender(1, journal, mine_timeout_s=15.0)
        done: list[bytes] = []
        waiting = threading.Thread(target=lambda: done.append(sender.submit("enrol", enrol(1))))
        waiting.start()
        _until(lambda: anvil.rpc("txpool_status")["pending"] != "0x0")
        anvil.rpc("anvil_dropAllTransactions")
        anvil.rpc("evm_mine")
        _until(lambda: anvil.rpc("txpool_status")["pending"] != "0x0")
        anvil.rpc("evm_mine")
        waiting.join(10)
        assert done == [keccak(journal.transaction("enrol"))]
        assert 1 in federation.reader().refresh().members

    def test_confirmations_are_waited_for(self, start_anvil: Any, found: Any, enrol: Any) -> None:
        anvil = start_anvil()
        federation = found(anvil)
        done: list[bytes] = []
        sender = federation.sender(1, confirmations=2)
        waiting = threading.Thread(target=lambda: done.append(sender.submit("enrol", enrol(1))))
        waiting.start()
        _until(lambda: 1 in federation.reader().refresh().members)
        anvil.rpc("evm_mine")
        time.sleep(0.3)
        assert not done
        anvil.rpc("evm_mine")
        waiting.join(5)
        assert done

    def test_waiting_ends_in_bounded_time_and_goes_on_later(self, start_anvil: Any, found: Any, enrol: Any) -> None:
        anvil = start_anvil()
        federation = found(anvil)
        anvil.rpc("evm_setAutomine", False)
        journal = federation.journal(1)
        with pytest.raises(ChainUnreachable, match="is not mined after 0 s"):
            federation.sender(1, journal, mine_timeout_s=0.3).submit("enrol", enrol(1))
        anvil.rpc("evm_setAutomine", True)
        anvil.rpc("evm_mine")
        assert federation.sender(1, journal).submit("enrol", enrol(1)) == keccak(journal.transaction("enrol"))

    def test_a_sender_that_lost_its_node_goes_on_with_the_same_bytes(
        self, federation: Any, enrol: Any, proxy: Any
    ) -> None:
        """The answer to the sending is lost: the caller tries again, and one transaction is mined."""
        journal, rpc = federation.journal(1), Rpc(proxy.url, attempts=1)
        proxy.tamper = lambda method, params, answer: [] if method == "eth_sendRawTransaction" else answer
        sender = federation.sender(1, journal, url=proxy.url, rpc=rpc)
        with pytest.raises(ChainUnreachable, match="nonsense"):
            sender.submit("enrol", enrol(1))
        proxy.tamper = lambda method, params, answer: answer
        assert sender.submit("enrol", enrol(1)) == keccak(journal.transaction("enrol"))
        assert _nonce(federation, 1, "latest") == 1


class TestAStatementSignedAnew:
    """Never another one: the same recipient, coins and calldata, where the old transaction can do nothing any more."""

    def test_receipts_mined_before_the_last_commit_are_made_again(self, federation: Any, commit: Any) -> None:
        """A reorganisation puts the very same transactions into an order in which the receipts come too early."""
        anvil, receipt = federation.anvil, PostReceipt(1, 0, Bitmap(0b111))
        federation.enrol_all()
        journals = [federation.journal(i) for i in range(3)]
        senders = [federation.sender(i, journal) for i, journal in enumerate(journals)]
        fork = anvil.remember()
        for key, action in (("commit/1/0", commit()), ("receipt/1/0", receipt)):
            for sender in senders:
                sender.submit(key, action)
        commits, receipts = (
            [journal.transaction(key) for journal in journals] for key in ("commit/1/0", "receipt/1/0")
        )
        anvil.take_back(fork)
        for raw in (commits[0], commits[1], receipts[0], receipts[1], commits[2], receipts[2]):
            anvil.receipt(anvil.rpc("eth_sendRawTransaction", "0x" + raw.hex()))
        assert set(federation.reader().refresh().current.receipts) == {2}

        made = [sender.submit("receipt/1/0", receipt) for sender in senders]

        assert set(federation.reader().refresh().current.receipts) == {0, 1, 2}
        assert [len(journal.transactions("receipt/1/0")) for journal in journals] == [2, 2, 1]
        assert made == [keccak(journal.transaction("receipt/1/0")) for journal in journals]
        for journal in journals[:2]:
            old, new = map(parse_raw, journal.transactions("receipt/1/0"))
            assert (new.nonce, new.statement) == (old.nonce + 1, old.statement)
        assert [sender.submit("receipt/1/0", receipt) for sender in senders] == made

    def test_a_revived_old_transaction_fulfils_the_duty(self, federation: Any, commit: Any, enrol: Any) -> None:
        """The chain turns back once more: the transaction that was reverted succeeds, and the second is reverted."""
        anvil, fork = federation.anvil, federation.anvil.remember()
        journal = _reverted_commit(federation, commit(), enrol)
        federation.sender(1, journal).submit("commit/1/0", commit())
        old, new = journal.transactions("commit/1/0")
        anvil.take_back(fork)
        federation.enrol_all()

        assert federation.sender(1, journal).submit("commit/1/0", commit()) == keccak(old)

        assert anvil.receipt("0x" + keccak(new).hex())["status"] == "0x0"
        assert 1 in federation.reader().refresh().current.commits

    def test_a_revert_is_believed_only_as_deep_as_configured(self, federation: Any, commit: Any, enrol: Any) -> None:
        journal = _reverted_commit(federation, commit(), enrol)
        sender = federation.sender(1, journal, confirmations=3, mine_timeout_s=0.2)
        with pytest.raises(ChainUnreachable, match="has not 3 confirmations"):
            sender.submit("commit/1/0", commit())
        assert len(journal.transactions("commit/1/0")) == 1
        federation.anvil.rpc("anvil_mine", "0x3")
        with pytest.raises(ChainUnreachable, match="has not 3 confirmations"):
            sender.submit("commit/1/0", commit())
        assert 1 in federation.reader().refresh().current.commits

    def test_what_a_transfer_took_the_nonce_of_is_sent_at_another(
        self, federation: Any, commit: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        federation.enrol_all()
        journal, accounts = federation.journal(1), federation.anvil.accounts
        with monkeypatch.context() as patched:
            patched.setattr(ChainAccount, "send", _pull_the_plug)
            with pytest.raises(Plug):
                federation.sender(1, journal).submit("commit/1/0", commit())
        transfer = {"from": accounts[1], "to": accounts[5], "value": "0x1"}
        federation.anvil.receipt(federation.anvil.rpc("eth_sendTransaction", transfer))

        federation.sender(1, journal).submit("commit/1/0", commit())

        old, new = map(parse_raw, journal.transactions("commit/1/0"))
        assert (new.nonce, new.statement) == (old.nonce + 1, old.statement)
        assert 1 in federation.reader().refresh().current.commits

    def test_no_second_statement_is_signed(self, federation: Any, commit: Any, enrol: Any) -> None:
        journal = _reverted_commit(federation, commit(), enrol)
        nonce = _nonce(federation, 1, "pending")
        with pytest.raises(TransactionFailed, match="another statement was signed for commit/1/0") as failed:
            federation.sender(1, journal).submit("commit/1/0", commit(b"another"))
        assert failed.value.error_name == "OtherStatement"
        assert len(journal.transactions("commit/1/0")) == 1
        assert _nonce(federation, 1, "pending") == nonce

    def test_a_crash_between_journal_and_sending_sends_what_was_signed_anew(
        self, federation: Any, commit: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal = _reverted_commit(federation, commit(), enrol)
        with monkeypatch.context() as patched:
            patched.setattr(ChainAccount, "send", _pull_the_plug)
            with pytest.raises(Plug):
                federation.sender(1, journal).submit("commit/1/0", commit())
        _, promised = journal.transactions("commit/1/0")
        nonce = _nonce(federation, 1, "pending")

        assert federation.sender(1, journal).submit("commit/1/0", commit()) == keccak(promised)

        assert len(journal.transactions("commit/1/0")) == 2
        assert _nonce(federation, 1, "latest") == nonce + 1


class TestAFeeThatIsTooLow:
    @pytest.fixture
    def waiting(self, start_anvil: Any, found: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A federation whose member 1 waits with its enrolment; nothing is mined."""
        monkeypatch.setattr(account, "_RESEND_S", 0.05)
        federation = found(start_anvil())
        federation.anvil.rpc("evm_setAutomine", False)
        federation.stuck = federation.journal(1)
        with pytest.raises(ChainUnreachable, match="is not mined"):
            federation.sender(1, federation.stuck, mine_timeout_s=0.04).submit("enrol", enrol(1))
        return federation

    @pytest.fixture
    def stuck(self, waiting: Any) -> Any:
        """The same after a block with a base fee far above what was signed; anvil's pool has dropped it."""
        waiting.anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**11))
        waiting.anvil.rpc("evm_mine")
        assert _nonce(waiting, 1, "pending") == 0
        return waiting

    @pytest.mark.parametrize("dropped", [True, False])
    def test_it_is_raised_at_the_same_nonce(self, waiting: Any, proxy_for: Any, enrol: Any, dropped: bool) -> None:
        """Whether the node has let the cheap one go, or keeps it in its pool for better times."""
        stuck, proxy = waiting, proxy_for(waiting.anvil.url)
        if dropped:
            stuck.anvil.rpc("anvil_dropAllTransactions")
        proxy.tamper = _dear_blocks
        sender = stuck.sender(1, stuck.stuck, url=proxy.url, mine_timeout_s=4.0)
        with _submitting(sender, "enrol", enrol(1)) as done:
            _until(lambda: len(stuck.stuck.transactions("enrol")) == 2)
            time.sleep(0.2)
            stuck.anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(10**11))
            stuck.anvil.rpc("evm_mine")
        low, high = stuck.stuck.transactions("enrol")
        assert done == [keccak(high)]
        old, new = parse_raw(low), parse_raw(high)
        assert (new.nonce, new.statement, new.gas) == (old.nonce, old.statement, old.gas)
        assert 8 * new.fee >= 9 * old.fee and 8 * new.tip >= 9 * old.tip
        assert 1 in stuck.reader().refresh().members

    def test_a_crash_before_the_raised_one_is_sent_makes_one_statement(
        self, stuck: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send = ChainAccount.send

        def only_the_first(self: ChainAccount, raw: bytes) -> None:
            if raw != first:
                raise Plug
            send(self, raw)

        first = stuck.stuck.transaction("enrol")
        with monkeypatch.context() as patched:
            patched.setattr(ChainAccount, "send", only_the_first)
            with pytest.raises(Plug):
                stuck.sender(1, stuck.stuck, mine_timeout_s=1.0).submit("enrol", enrol(1))
        assert len(stuck.stuck.transactions("enrol")) == 2
        with _submitting(stuck.sender(1, stuck.stuck), "enrol", enrol(1)) as done:
            time.sleep(0.3)
            stuck.anvil.rpc("evm_mine")
        assert done == [keccak(stuck.stuck.transaction("enrol"))]
        assert _nonce(stuck, 1, "pending") == 1

    def test_the_cheaper_one_that_was_mined_fulfils_the_duty(self, waiting: Any, proxy_for: Any, enrol: Any) -> None:
        """The dearer one was journalled and never left; meanwhile the cheap one found its block."""
        stuck, proxy = waiting, proxy_for(waiting.anvil.url)
        proxy.tamper = _dear_blocks
        low = stuck.stuck.transaction("enrol")
        high = ChainAccount(Rpc(proxy.url), stuck.key(1)).dearer(low)
        assert high is not None
        stuck.stuck.promise_transaction("enrol", 0, high)
        stuck.anvil.rpc("evm_mine")
        assert stuck.sender(1, stuck.stuck).submit("enrol", enrol(1)) == keccak(low)
        assert _nonce(stuck, 1, "pending") == 1

    def test_a_node_that_keeps_the_cheaper_one_is_waited_for(
        self, waiting: Any, proxy_for: Any, enrol: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It wants still more to replace it: the statement waits there all the same."""
        send, proxy = ChainAccount.send, proxy_for(waiting.anvil.url)
        proxy.tamper = _dear_blocks
        low = waiting.stuck.transaction("enrol")
        high = ChainAccount(Rpc(proxy.url), waiting.key(1)).dearer(low)
        assert high is not None
        waiting.stuck.promise_transaction("enrol", 0, high)
        refused: list[bytes] = []

        def underpriced(self: ChainAccount, raw: bytes) -> None:
            if raw == high:
                refused.append(raw)
                raise TransactionFailed("the chain refuses the transaction: replacement transaction underpriced")
            send(self, raw)

        monkeypatch.setattr(ChainAccount, "send", underpriced)
        with _submitting(waiting.sender(1, waiting.stuck), "enrol", enrol(1)) as done:
            _until(lambda: refused)
            waiting.anvil.rpc("evm_mine")
        assert done == [keccak(low)]

    def test_what_the_contract_would_refuse_by_now_is_not_raised(self, stuck: Any, enrol: Any) -> None:
        stuck.anvil.rpc("anvil_setCode", stuck.deployment.address, "0x60006000fd")
        with pytest.raises(TransactionFailed, match="contract refuses"):
            stuck.sender(1, stuck.stuck, mine_timeout_s=1.0).submit("enrol", enrol(1))
        assert len(stuck.stuck.transactions("enrol")) == 1

    def test_another_dutys_transaction_that_blocks_the_way_is_raised(
        self, stuck: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The duty of the lower nonce may never be tried again."""
        monkeypatch.setattr(ChainAccount, "_estimate", lambda *_: 100_000)
        refused: list[str] = []

        def vote() -> None:
            try:
                stuck.sender(1, stuck.stuck, mine_timeout_s=4.0).submit("stop/1", VoteToStop(1, Digest(bytes(32))))
            except TransactionFailed as failed:
                refused.append(failed.error_name)

        voting = threading.Thread(target=vote)
        voting.start()
        _until(lambda: len(stuck.stuck.transactions("enrol")) == 2)
        time.sleep(0.2)
        stuck.anvil.rpc("evm_mine")
        voting.join(10)
        assert refused == ["FederationWrongRound"]
        assert 1 in stuck.reader().refresh().members

    def test_it_is_raised_three_times_and_no_more_before_the_caller_is_asked(
        self, stuck: Any, proxy_for: Any, enrol: Any
    ) -> None:
        proxy, base = proxy_for(stuck.anvil.url), [10**11]

        def rising(method: str, params: list[Any], answer: Any) -> Any:
            if method == "eth_getBlockByNumber":
                base[0] *= 3
                answer["result"]["baseFeePerGas"] = hex(base[0])
            return answer

        proxy.tamper = rising
        with pytest.raises(ChainUnreachable, match="is not mined"):
            stuck.sender(1, stuck.stuck, url=proxy.url, mine_timeout_s=2.0).submit("enrol", enrol(1))
        fees = [parse_raw(raw).fee for raw in stuck.stuck.transactions("enrol")]
        assert len(fees) == 1 + 3 and fees == sorted(set(fees))

    def test_beyond_the_cap_it_is_not_raised(self, stuck: Any, proxy_for: Any, enrol: Any) -> None:
        proxy = proxy_for(stuck.anvil.url)

        def absurd(method: str, params: list[Any], answer: Any) -> Any:
            if method == "eth_getBlockByNumber":
                answer["result"]["baseFeePerGas"] = hex(10**15)
            return answer

        proxy.tamper = absurd
        with pytest.raises(TransactionFailed, match="which no chain does"):
            stuck.sender(1, stuck.stuck, url=proxy.url, mine_timeout_s=1.0).submit("enrol", enrol(1))
        assert len(stuck.stuck.transactions("enrol")) == 1

    def test_a_fee_that_the_market_takes_is_left_alone(self, waiting: Any, enrol: Any) -> None:
        with pytest.raises(ChainUnreachable, match="is not mined"):
            waiting.sender(1, waiting.stuck, mine_timeout_s=0.6).submit("enrol", enrol(1))
        assert len(waiting.stuck.transactions("enrol")) == 1

    def test_a_node_that_will_not_keep_it_gets_a_higher_one_at_once(
        self, stuck: Any, proxy_for: Any, enrol: Any
    ) -> None:
        stuck.anvil.rpc("anvil_dropAllTransactions")
        low = "0x" + stuck.stuck.transaction("enrol").hex()
        proxy = proxy_for(stuck.anvil.url)

        def picky(method: str, params: list[Any], answer: Any) -> Any:
            if method == "eth_sendRawTransaction" and params == [low]:
                stuck.anvil.rpc("anvil_dropAllTransactions")
                error = {"code": -32000, "message": "max fee per gas less than block base fee"}
                return {"jsonrpc": "2.0", "id": answer["id"], "error": error}
            return answer

        proxy.tamper = picky
        with _submitting(stuck.sender(1, stuck.stuck, url=proxy.url), "enrol", enrol(1)) as done:
            _until(lambda: stuck.anvil.rpc("txpool_status")["pending"] != "0x0")
            stuck.anvil.rpc("evm_mine")
        assert done == [keccak(stuck.stuck.transactions("enrol")[1])]

    def test_on_a_chain_without_a_fee_market_the_price_is_raised(self, start_anvil: Any, found: Any) -> None:
        federation = found(start_anvil("--hardfork", "berlin"))
        account = ChainAccount(Rpc(federation.anvil.url), federation.key(1))
        call = {"to": federation.deployment.address, "data": b"say", "value": 5, "gas": 30_000, "gasPrice": 8}
        cheap = account.sign({"chainId": account.chain_id, **call}, 3)
        dearer = account.dearer(cheap)
        assert dearer is not None and dearer[0] >= 0x80
        old, new = parse_raw(cheap), parse_raw(dearer)
        assert (new.nonce, new.statement, new.gas) == (old.nonce, old.statement, old.gas) and new.fee > 10**8
        assert account.dearer(dearer) is None


@pytest.mark.parametrize("fee_market", [True, False])
def test_chains_with_and_without_a_fee_market_are_served(
    start_anvil: Any, found: Any, enrol: Any, fee_market: bool
) -> None:
    federation = found(start_anvil(*([] if fee_market else ["--hardfork", "berlin"])))
    sent = federation.sender(1).submit("enrol", enrol(1))
    kind = federation.anvil.rpc("eth_getTransactionByHash", "0x" + sent.hex())["type"]
    assert kind == ("0x2" if fee_market else "0x0")


def test_a_node_without_a_pending_block_is_asked_about_the_latest(federation: Any, proxy: Any, enrol: Any) -> None:
    def no_pending(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_estimateGas" and "pending" in params:
            return {"jsonrpc": "2.0", "id": answer["id"], "error": {"code": -32602, "message": "unknown block tag"}}
        return answer

    proxy.tamper = no_pending
    federation.sender(1, url=proxy.url).submit("enrol", enrol(1))
    assert proxy.calls["eth_estimateGas"] == 2


def _reverted_commit(federation: Any, action: Any, enrol: Any) -> Any:
    """Member 1's commitment was mined, and reverted, before the last members enrolled; gives its journal."""
    journal = federation.journal(1)
    federation.sender(1, journal).submit("enrol", enrol(1))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ChainAccount, "_estimate", lambda *_: 200_000)
        with pytest.raises(TransactionFailed, match="mined and reverted"):
            federation.sender(1, journal).submit("commit/1/0", action)
    for index in (0, 2):
        federation.sender(index).submit("enrol", enrol(index))
    return journal


@contextmanager
def _submitting(sender: Sender, key: str, action: Any) -> Iterator[list[bytes]]:
    """Submit beside the block; at its end the list holds the transaction's hash."""
    done: list[bytes] = []
    waiting = threading.Thread(target=lambda: done.append(sender.submit(key, action)))
    waiting.start()
    yield done
    waiting.join(10)


def _dear_blocks(method: str, params: list[Any], answer: Any) -> Any:
    """Blocks whose base fee is far above what was signed, as a proxy tells of them."""
    if method == "eth_getBlockByNumber":
        answer["result"]["baseFeePerGas"] = hex(10**11)
    return answer


def _pull_the_plug(*_: Any, **__: Any) -> Any:
    raise Plug


def _nonce(federation: Any, index: int, block: str) -> int:
    return int(federation.anvil.rpc("eth_getTransactionCount", federation.anvil.accounts[index], block), 16)


def _until(true: Any) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.02)
