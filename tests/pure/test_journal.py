"""The journal: promises survive kill -9, are never contradicted, and damage is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedchain.chain.raw import parse_raw
from fedchain.chain.signing import Account
from fedchain.errors import UsageError
from fedchain.peer.journal import Dealt, Journal, PromiseRefused
from fedchain.protocol.ids import Address, Bitmap, Cid, Digest

A = Dealt(Digest(b"a" * 32), Cid("QmA"), Cid("QmB"))
BASE = Digest(b"m" * 32)
B = Dealt(Digest(b"b" * 32), Cid("QmA"), Cid("QmB"))


def raw(*, nonce: int, fee: int = 10, **change: Any) -> bytes:
    """A signed transaction; the same arguments give the same bytes."""
    price = {} if "gasPrice" in change else {"maxFeePerGas": fee, "maxPriorityFeePerGas": 1}
    fields = {"chainId": 1, "nonce": nonce, "gas": 21_000, "to": "0x" + "11" * 20, "value": 0, "data": b"say", **price}
    return bytes(Account.from_key(b"k" * 32).sign_transaction(fields | change).raw_transaction)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_promises_are_there_after_a_restart(path: Path) -> None:
    with Journal(path) as journal:
        journal.promise_upload(1, 0, A)
        journal.promise_receipt(1, 0, Bitmap(0b10111))
        journal.promise_opening(1, 0, 0, BASE, Bitmap(0b111), threshold=2)
        journal.promise_transaction("commit/1/0", 7, b"raw")
    with Journal(path) as journal:
        assert journal.dealt(1, 0) == A
        assert journal.dealt(1, 1) is None
        assert journal.receipt(1, 0) == 0b10111
        assert journal.transaction("commit/1/0") == b"raw"
        assert journal.next_nonce() == 8
        assert journal.promised_from(7) == (("commit/1/0", b"raw"),)
        assert journal.promised_from(8) == ()


def test_promised_transactions_come_back_in_the_order_of_their_nonces(path: Path) -> None:
    with Journal(path) as journal:
        for nonce in (2, 0, 1):
            journal.promise_transaction(f"key/{nonce}", nonce, bytes([nonce]))
        assert journal.promised_from(1) == (("key/1", b"\x01"), ("key/2", b"\x02"))


def test_a_second_upload_in_one_attempt_is_refused(path: Path) -> None:
    with Journal(path) as journal:
        journal.promise_upload(1, 0, A)
        journal.promise_upload(1, 0, A)
        with pytest.raises(PromiseRefused, match="another upload"):
            journal.promise_upload(1, 0, B)
        journal.promise_upload(1, 1, B)


def test_a_second_receipt_in_one_attempt_is_refused(path: Path) -> None:
    with Journal(path) as journal:
        journal.promise_receipt(1, 0, Bitmap(3))
        with pytest.raises(PromiseRefused, match="another receipt"):
            journal.promise_receipt(1, 0, Bitmap(7))


@pytest.mark.parametrize(("attempt", "participants"), [(0, 0b1011), (1, 0b0111)])
def test_no_second_set_or_attempt_of_a_round_is_ever_opened(path: Path, attempt: int, participants: int) -> None:
    with Journal(path) as journal:
        journal.promise_opening(4, 0, 0, BASE, Bitmap(0b0111), threshold=2)
    with Journal(path) as journal:
        with pytest.raises(PromiseRefused, match="no other is ever opened"):
            journal.promise_opening(4, attempt, 0, BASE, Bitmap(participants), threshold=2)
        journal.promise_opening(4, 0, 0, BASE, Bitmap(0b0111), threshold=2)


def test_a_round_that_begins_again_on_another_model_may_be_opened_once_more(path: Path) -> None:
    other = Digest(b"o" * 32)
    with Journal(path) as journal:
        journal.promise_opening(4, 0, 0, BASE, Bitmap(0b0111), threshold=2)
        journal.promise_opening(4, 1, 0, other, Bitmap(0b1011), threshold=2)
    with Journal(path) as journal:
        for base, attempt, participants in ((BASE, 1, 0b1011), (other, 2, 0b1011), (other, 1, 0b0111)):
            with pytest.raises(PromiseRefused, match="no other is ever opened"):
                journal.promise_opening(4, attempt, 0, base, Bitmap(participants), threshold=2)


@pytest.mark.parametrize(
    ("participants", "allowed"),
    [
        (0b0000_1111, True),  # the same set, dealt anew
        (0b0111_1111, True),  # three more
        (0b0001_1111, False),  # one more: the difference is its update
        (0b0011_1001, False),  # two come, and the two that go were removed: they do not count
        (0b0111_1000, True),
    ],
)
def test_after_a_set_was_given_up_only_one_far_from_it_is_opened(path: Path, participants: int, allowed: bool) -> None:
    first, removed = Bitmap(0b0000_1111), Bitmap(0b0000_0110)
    with Journal(path) as journal:
        journal.promise_opening(4, 0, 0, BASE, first, threshold=2)
    with Journal(path) as journal:

        def promise(attempt: int, *given_up: Bitmap) -> None:
            journal.promise_opening(
                4, attempt, 0, BASE, Bitmap(participants), threshold=2, given_up=given_up, uncounted=removed
            )

        for given_up in ((), (Bitmap(0b1110_0000),)):
            with pytest.raises(PromiseRefused, match="no other is ever opened"):
                promise(1, *given_up)
        if allowed:
            promise(1, first)
        else:
            with pytest.raises(PromiseRefused, match="never opened"):
                promise(1, first)


def test_a_third_set_of_updates_to_one_model_is_never_opened(path: Path) -> None:
    first, second, third = Bitmap(0b000111111), Bitmap(0b111111000), Bitmap(0b111000111)
    with Journal(path) as journal:
        journal.promise_opening(4, 0, 0, BASE, first, threshold=5)
        journal.promise_opening(4, 1, 0, BASE, second, threshold=5, given_up=(first,))
        with pytest.raises(PromiseRefused, match="a third set"):
            journal.promise_opening(4, 2, 0, BASE, third, threshold=5, given_up=(first, second))
        journal.promise_opening(4, 2, 0, BASE, first, threshold=5, given_up=(first, second))


def test_every_set_that_was_opened_on_a_model_is_remembered(path: Path) -> None:
    first, second = Bitmap(0b0000_1111), Bitmap(0b0111_1111)
    with Journal(path) as journal:
        journal.promise_opening(4, 0, 0, BASE, first, threshold=2)
        journal.promise_opening(4, 1, 0, BASE, second, threshold=2, given_up=(first,))
    with Journal(path) as journal:

        def promise(attempt: int, participants: int, *given_up: Bitmap) -> None:
            journal.promise_opening(4, attempt, 0, BASE, Bitmap(participants), threshold=2, given_up=given_up)

        with pytest.raises(PromiseRefused, match="no other is ever opened"):
            promise(2, first, first)
        with pytest.raises(PromiseRefused, match="never opened"):
            promise(2, 0b0011_1111, first, second)
        with pytest.raises(PromiseRefused, match="no other is ever opened"):
            promise(1, first, first, second)
        promise(1, second)
        promise(2, first, first, second)


def test_a_statement_signed_anew_is_kept_beside_the_old(path: Path) -> None:
    """At a later nonce, or dearer at the same: every transaction is remembered, and the newest of a nonce is sent."""
    old, dearer, later = raw(nonce=4), raw(nonce=4, fee=20), raw(nonce=6)
    with Journal(path) as journal:
        journal.promise_transaction("commit/1/0", 4, old)
        journal.promise_transaction("receipt/1/0", 5, b"another")
        journal.promise_transaction("commit/1/0", 4, dearer)
        journal.promise_transaction("commit/1/0", 6, later)
        journal.promise_transaction("commit/1/0", 4, old)
    with Journal(path) as journal:
        assert journal.transactions("commit/1/0") == (old, dearer, later)
        assert journal.transaction("commit/1/0") == later
        assert journal.transactions("commit/1/1") == ()
        assert journal.promised_from(4) == (
            ("commit/1/0", dearer),
            ("receipt/1/0", b"another"),
            ("commit/1/0", later),
        )
        assert journal.next_nonce() == 7


@pytest.mark.parametrize(
    "change", [{"to": "0x" + "22" * 20}, {"value": 1}, {"data": b"other"}, {"gasPrice": 10, "data": b"other"}], ids=str
)
@pytest.mark.parametrize("nonce", [4, 5])
def test_one_key_never_makes_two_statements(path: Path, nonce: int, change: dict[str, Any]) -> None:
    with Journal(path) as journal:
        journal.promise_transaction("commit/1/0", 4, raw(nonce=4))
    with Journal(path) as journal:
        with pytest.raises(PromiseRefused, match="another statement for commit/1/0"):
            journal.promise_transaction("commit/1/0", nonce, raw(nonce=nonce, **change))
        assert journal.transactions("commit/1/0") == (raw(nonce=4),)


def test_a_legacy_transaction_makes_the_same_statement(path: Path) -> None:
    with Journal(path) as journal:
        journal.promise_transaction("commit/1/0", 4, raw(nonce=4))
        journal.promise_transaction("commit/1/0", 5, raw(nonce=5, gasPrice=10))
        assert parse_raw(raw(nonce=5, gasPrice=10)).nonce == 5


def test_a_journal_of_one_transaction_a_key_is_read_and_gone_on_with(path: Path) -> None:
    body = json.dumps({"key": "commit/1/0", "kind": "transaction", "nonce": 4, "raw": raw(nonce=4).hex()})
    path.write_text(f"{hashlib.sha256(body.encode()).hexdigest()[:16]} {body}\n")
    with Journal(path) as journal:
        assert journal.transactions("commit/1/0") == (raw(nonce=4),)
        journal.promise_transaction("commit/1/0", 5, raw(nonce=5))
        assert journal.promised_from(0) == (("commit/1/0", raw(nonce=4)), ("commit/1/0", raw(nonce=5)))


@pytest.mark.parametrize("torn", [1, 5, 20, 40])
def test_a_torn_last_line_is_dropped_and_written_over(path: Path, torn: int) -> None:
    with Journal(path) as journal:
        journal.promise_upload(1, 0, A)
        journal.promise_receipt(1, 0, Bitmap(3))
    path.write_bytes(path.read_bytes()[:-torn])
    with Journal(path) as journal:
        assert journal.dealt(1, 0) == A
        assert journal.receipt(1, 0) is None
        journal.promise_receipt(1, 0, Bitmap(7))
    with Journal(path) as journal:
        assert journal.receipt(1, 0) == 7


def test_damage_before_the_last_line_stops_the_peer(path: Path) -> None:
    with Journal(path) as journal:
        journal.promise_upload(1, 0, A)
        journal.promise_receipt(1, 0, Bitmap(3))
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="damaged at line 1"):
        Journal(path)


def test_a_flipped_byte_in_a_whole_last_line_stops_the_peer(path: Path) -> None:
    """A whole line that does not match its check is damage, not a torn write: a promise may stand in it."""
    with Journal(path) as journal:
        journal.promise_upload(1, 0, A)
        journal.promise_receipt(1, 0, Bitmap(3))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="damaged at line 2"):
        Journal(path)


@pytest.mark.parametrize("line", [0, 1])
def test_a_byte_that_flips_into_a_carriage_return_is_damage_and_no_end_of_a_line(path: Path, line: int) -> None:
    """Taken for the end of a torn line it would have made the peer forget every promise from there on."""
    with Journal(path) as journal:
        journal.promise_upload(1, 0, A)
        journal.promise_receipt(1, 0, Bitmap(3))
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b"m", b"\r", 1) if b"m" in lines[line] else lines[line].replace(b"p", b"\r", 1)
    path.write_bytes(b"".join(lines))
    with pytest.raises(UsageError, match=f"damaged at line {line + 1}"):
        Journal(path)
    assert path.read_bytes() == b"".join(lines), "nothing was cut off"


def test_a_spoilt_end_of_the_last_line_stops_the_peer(path: Path) -> None:
    with Journal(path) as journal:
        journal.promise_upload(1, 0, A)
        journal.promise_receipt(1, 0, Bitmap(3))
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(UsageError, match="damaged at line 2"):
        Journal(path)


@pytest.mark.parametrize("room", [0, 1, 30, 100])
def test_a_promise_for_which_there_is_no_room_is_none_and_is_made_once_there_is(path: Path, room: int) -> None:
    """The kernel refuses to let the file grow, after `room` bytes of the record: as a full disk does."""
    code = (
        "import resource; from pathlib import Path; from fedchain.peer.journal import Journal, JournalFailed\n"
        "from fedchain.protocol.ids import Bitmap\n"
        f"path = Path({str(path)!r})\n"
        "with Journal(path) as journal:\n"
        "    journal.promise_receipt(1, 0, Bitmap(3)); before = path.stat().st_size\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, (before + {room}, resource.RLIM_INFINITY))\n"
        "    try: journal.promise_transaction('k', 3, b'raw' * 100)\n"
        "    except JournalFailed as failed: print(failed)\n"
        "    assert journal.transaction('k') is None and path.stat().st_size == before\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    journal.promise_transaction('k', 3, b'raw')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout and "make room, and start again" in done.stdout
    assert done.stdout.count("\n") == 1
    with Journal(path) as journal:
        assert journal.receipt(1, 0) == 3 and journal.transaction("k") == b"raw"


@pytest.mark.parametrize("room", [0, 30])
def test_a_journal_without_room_is_left_in_one_line_and_whole(path: Path, room: int) -> None:
    """Leaving it must not fail on what could not be written: that error would hide what is wrong."""
    code = (
        "import resource; from pathlib import Path; from fedchain.peer.journal import Journal, JournalFailed\n"
        "from fedchain.protocol.ids import Bitmap\n"
        f"path = Path({str(path)!r})\n"
        "try:\n"
        "    with Journal(path) as journal:\n"
        "        journal.promise_receipt(1, 0, Bitmap(3)); before = path.stat().st_size\n"
        f"        resource.setrlimit(resource.RLIMIT_FSIZE, (before + {room}, resource.RLIM_INFINITY))\n"
        "        journal.promise_transaction('k', 3, b'raw' * 100)\n"
        "except JournalFailed as failed: print('stopped')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("stopped\n", "")
    with Journal(path) as journal:
        assert journal.receipt(1, 0) == 3 and journal.transaction("k") is None


def test_two_processes_never_share_a_journal(path: Path) -> None:
    with Journal(path):
        code = f"from pathlib import Path; from fedchain.peer.journal import Journal; Journal(Path({str(path)!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "another process runs this peer already" in done.stderr


def test_what_was_promised_before_kill_9_is_there_after_it(path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from fedchain.peer.journal import Journal\n"
        f"journal = Journal(Path({str(path)!r})); journal.promise_transaction('k', 3, b'raw')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ.copy(), check=False)
    assert done.returncode == -signal.SIGKILL
    with Journal(path) as journal:
        assert journal.transaction("k") == b"raw"


def test_a_journal_belongs_to_one_federation(path: Path) -> None:
    """The same address on a chain begun anew is another federation: old promises mean nothing there."""
    with Journal(path) as journal:
        journal.bind(31337, Address("0x" + "Ab" * 20), b"f" * 32)
    with Journal(path) as journal:
        journal.bind(31337, Address("0x" + "ab" * 20), b"f" * 32)
        for other in ((1, "ab", b"f"), (31337, "cd", b"f"), (31337, "ab", b"g")):
            with pytest.raises(UsageError, match="belongs to another federation"):
                journal.bind(other[0], Address("0x" + other[1] * 20), other[2] * 32)
