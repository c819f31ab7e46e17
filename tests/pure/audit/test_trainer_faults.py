"""Trainers that break a rule: each is named, with the number of the check, and nobody else is (checks 3, 4, 5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedchain.audit import Status
from fedchain.protocol.events import ReceiptPosted, UpdateCommitted
from fedchain.protocol.ids import Bitmap

LIAR = 1
HEADER = 16
EVERYBODY_ELSE = 0b11101


def play_with(named: Any, ciphertext: Any = None, shares: Any = None) -> Any:
    """Two rounds in which one member stores something else than it dealt in the first, and the others notice."""

    class Liar(named.Play):  # type: ignore[misc]
        def stored(self, number: int, index: int, upload: Any) -> tuple[bytes, bytes]:
            if (number, index) != (1, LIAR):
                return upload.ciphertext, upload.shares
            return (ciphertext or bytes)(upload.ciphertext), (shares or bytes)(upload.shares)

        def whole(self, number: int, index: int) -> Bitmap:
            return Bitmap(EVERYBODY_ELSE) if number == 1 else super().whole(number, index)

    return Liar().run()


def too_large(ciphertext: bytes) -> bytes:
    """The first residue is 2^54 - 1, above q."""
    changed = bytearray(ciphertext)
    changed[HEADER : HEADER + 7] = b"\xff" * 7
    return bytes(changed)


def test_a_flipped_byte_under_a_new_cid_breaks_the_commitment(named: Any) -> None:
    report = play_with(named, ciphertext=lambda c: named.flipped(c, HEADER + 100)).audit()
    assert named.found(report) == {(3, 1, named.MEMBERS[LIAR])}
    assert report.rounds[0].participants == (0, 2, 3, 4)


def test_a_flipped_byte_in_the_sealed_shares_breaks_the_commitment(named: Any) -> None:
    report = play_with(named, shares=lambda s: named.flipped(s, len(s) - 5)).audit()
    assert named.found(report) == {(3, 1, named.MEMBERS[LIAR])}


def test_a_residue_above_q_is_named(named: Any) -> None:
    report = play_with(named, ciphertext=too_large).audit()
    assert named.found(report) == {(4, 1, named.MEMBERS[LIAR])}
    assert "residue 0" in report.faults[0].got


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("size", lambda c: c[:-1]),
        ("size", lambda c: c[:HEADER]),
        ("size", lambda c: b""),
        ("magic", lambda c: b"XXXX" + c[4:]),
        ("length", lambda c: c[:8] + bytes(8) + c[16:]),
    ],
)
def test_a_malformed_ciphertext_is_named_by_its_field(named: Any, field: str, change: Any) -> None:
    report = play_with(named, ciphertext=lambda c: change(c) or b"\0").audit()
    assert named.found(report) == {(4, 1, named.MEMBERS[LIAR])}
    assert f"ciphertext: {field}" in report.faults[0].got


@pytest.mark.parametrize(
    ("field", "change"),
    [("size", lambda s: s[:-1]), ("magic", lambda s: b"XXXX" + s[4:]), ("dealer", lambda s: s[:8] + b"\x07" + s[9:])],
)
def test_malformed_shares_are_named_by_their_field(named: Any, field: str, change: Any) -> None:
    report = play_with(named, shares=change).audit()
    assert named.found(report) == {(4, 1, named.MEMBERS[LIAR])}
    assert f"shares: {field}" in report.faults[0].got


def test_an_object_larger_than_any_upload_is_not_fetched(named: Any) -> None:
    report = play_with(named, ciphertext=lambda c: c + b"\0").audit()
    # Left out of the sum, nobody owes it; what it holds was never looked at.
    assert report.faults == ()
    assert report.rounds[0].check(4).status is Status.NOT_POSSIBLE


def test_a_copied_commitment_names_the_copier(named: Any) -> None:
    class Copier(named.Play):  # type: ignore[misc]
        def commit(self, number: int, index: int) -> None:
            if (number, index) != (1, LIAR):
                return super().commit(number, index)
            other = self.event(UpdateCommitted, round=1, index=0)
            return self.say(replace(other, index=LIAR))

        def whole(self, number: int, index: int) -> Bitmap:
            return Bitmap(EVERYBODY_ELSE) if number == 1 else super().whole(number, index)

    report = Copier().run().audit()
    assert named.found(report) == {(4, 1, named.MEMBERS[LIAR])}
    assert "shares: dealer" in report.faults[0].got


@pytest.mark.parametrize("stored", ["its", "another"])
def test_whose_commitment_was_copied_from_the_pool_is_not_named_though_it_comes_second(named: Any, stored: str) -> None:
    """The commitment is bound to its sender: nobody else can show what it is of, whoever came first."""
    victim = 2

    class FrontRunner(named.Play):  # type: ignore[misc]
        def commit(self, number: int, index: int) -> None:
            if number == 1 and index == LIAR:
                return
            super().commit(number, index)
            if (number, index) == (1, victim):
                copied = self.chain.events.pop()
                own = self.event(UpdateCommitted, round=1, index=0)
                cids = (
                    {"ciphertext_cid": own.ciphertext_cid, "shares_cid": own.shares_cid} if stored == "another" else {}
                )
                self.say(replace(copied, index=LIAR, **cids))
                self.say(copied)

        def whole(self, number: int, index: int) -> Bitmap:
            return Bitmap(EVERYBODY_ELSE) if number == 1 else super().whole(number, index)

    report = FrontRunner(rounds=1).run().audit()
    assert {offender for _, _, offender in named.found(report)} == {named.MEMBERS[LIAR]}
    assert victim in report.rounds[0].participants


@pytest.mark.parametrize("place", ["round", "attempt", "member", "chain", "contract"])
def test_a_commitment_made_for_another_place_is_named(named: Any, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedchain.protocol.commitment import update_commitment

    class Elsewhere(named.Play):  # type: ignore[misc]
        def commit(self, number: int, index: int) -> None:
            super().commit(number, index)
            if (number, index) != (1, LIAR):
                return
            upload = self.uploads[number, index]
            where = {"chain": named.CHAIN_ID, "contract": named.CONTRACT, "round": 1, "attempt": 0}
            where |= {"member": named.MEMBERS[LIAR]}
            where[place] = {"contract": named.MEMBERS[0], "member": named.MEMBERS[0]}.get(place, 9)
            wrong = update_commitment(*where.values(), upload.ciphertext_root, upload.shares_root)
            self.chain.events[-1] = replace(self.chain.events[-1], commitment=wrong)

        def whole(self, number: int, index: int) -> Bitmap:
            return Bitmap(EVERYBODY_ELSE) if number == 1 else super().whole(number, index)

    assert named.found(Elsewhere(rounds=1).run().audit()) == {(3, 1, named.MEMBERS[LIAR])}


def test_a_second_commitment_in_one_attempt_is_named(named: Any) -> None:
    class Twice(named.Play):  # type: ignore[misc]
        def commit(self, number: int, index: int) -> None:
            super().commit(number, index)
            if (number, index) == (1, LIAR):
                super().commit(number, index)

    assert (3, 1, named.MEMBERS[LIAR]) in named.found(Twice(rounds=1).run().audit())


def test_who_vouches_for_a_broken_upload_is_named_beside_its_author(named: Any) -> None:
    voucher = 3

    class Voucher(named.Play):  # type: ignore[misc]
        def stored(self, number: int, index: int, upload: Any) -> tuple[bytes, bytes]:
            ciphertext, shares = super().stored(number, index, upload)
            return (too_large(ciphertext) if index == LIAR else ciphertext), shares

        def whole(self, number: int, index: int) -> Bitmap:
            return Bitmap(0b11111 if index == voucher else EVERYBODY_ELSE)

    report = Voucher(rounds=1).run().audit()
    assert named.found(report) == {(4, 1, named.MEMBERS[LIAR]), (5, 1, named.MEMBERS[voucher])}


def test_a_receipt_for_an_update_that_nobody_committed_is_named(named: Any, honest: Any) -> None:
    play = honest.edited(ReceiptPosted, {"whole": Bitmap(0b100000)}, round=2, index=4)
    # Its other bits are gone as well, which leaves four receipts: enough for the same set.
    assert named.found(play.audit()) == {(5, 2, named.MEMBERS[4])}


def test_a_key_that_is_not_its_ciphertexts_spoils_the_round_and_nobody_can_close_it(named: Any) -> None:
    """Only a closer that invents a result gets past it, and is named."""

    class Spoiler(named.Play):  # type: ignore[misc]
        def deal(self, number: int, index: int) -> Any:
            upload = super().deal(number, index)
            if index != LIAR:
                return upload
            other = super().deal(number, index)
            return replace(upload, shares=other.shares, shares_root=other.shares_root)

        def result(self, number: int) -> Any:
            invented = named.Play(rounds=1).run().event(named.ResultCommitted)
            return replace(invented, model_cid=self.store.put(b"invented"))

    report = Spoiler(rounds=1).run().audit()
    offenders = named.found(report)
    assert (9, 1, named.MEMBERS[0]) in offenders
    assert any(check == 8 and "unknown" in who for check, _, who in offenders)
    assert report.rounds[0].check(10).status is Status.FAULT


def test_a_sum_that_no_honest_values_give_is_named(named: Any) -> None:
    class Zeros(named.Play):  # type: ignore[misc]
        """A last value in a coefficient that is more than five members' honest ones together."""

        def deal(self, number: int, index: int) -> Any:
            from fedchain.crypto import deal

            return deal(
                self.context(number),
                dealer=index,
                dealer_address=named.MEMBERS[index],
                encryption_keys=self.encryption_keys(),
                threshold=self.state.terms.threshold,
                coefficients=named.numpy.full(self.form.coefficients, 400_000 * self.form.radix),
            )

        def next_model(self, number: int, opened: Any) -> bytes:
            return bytes(self.store.served[self.state.base_model(number)[1]])

    play = Zeros(rounds=1).run()
    closer = named.MEMBERS[play.state.closed[1].result.index]
    assert named.found(play.audit()) == {(10, 1, closer), (10, 1, "one of the participants")}
