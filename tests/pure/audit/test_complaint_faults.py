"""Complaints under audit: evidence names the dealer, a false complaint its author, and none at all names nobody."""

from __future__ import annotations

from typing import Any

import pytest

from fedchain.audit import Status
from fedchain.audit.html import render_html
from fedchain.crypto import Place, charge, complaint, complaint_size, dealing, encode_complaint
from fedchain.crypto.parameters import SHARE_PRIME, N
from fedchain.protocol.cid import cid_of
from fedchain.protocol.events import Complained
from fedchain.protocol.ids import Bitmap, Cid, Index

DEALER, VICTIM = Index(3), Index(1)
WITHOUT_DEALER = Bitmap(0b10111)
NOWHERE = cid_of(b"what nobody has")


def playing(named: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two rounds in which one member deals the victim a wrong share in the first, and the victim complains."""

    class Complaining(named.Play):  # type: ignore[misc]
        spoilt, vouches, dealers = True, WITHOUT_DEALER, Bitmap(1 << DEALER)

        def deal(self, number: int, index: int) -> Any:
            if (number, index) != (1, DEALER) or not self.spoilt:
                return super().deal(number, index)
            honest = dealing.evaluate

            def crooked(polynomials: Any, points: Any) -> Any:
                values = honest(polynomials, points)
                if values.shape[1] == N:
                    values[VICTIM, :] = (values[VICTIM, :] + 1) % SHARE_PRIME
                return values

            with monkeypatch.context() as patch:
                patch.setattr(dealing, "evaluate", crooked)
                return super().deal(number, index)

        def charge(self, dealer: Index) -> bytes:
            attempt, upload = self.attempt(), self.uploads[1, dealer]
            place = Place(
                self.context(1), dealer, self.members[dealer], self.encryption_keys(), self.attempt().threshold
            )
            private = self.private_keys[attempt.encryption_keys[VICTIM]]
            made = charge(upload.shares, place, VICTIM, private, upload.ciphertext_root)
            if made is None:
                with monkeypatch.context() as patch:
                    patch.setattr(complaint, "_fault_in", lambda *_: "anything")
                    made = charge(upload.shares, place, VICTIM, private, upload.ciphertext_root)
            assert made is not None
            return made

        def evidence(self) -> Cid:
            return self.store.put(encode_complaint(VICTIM, {DEALER: self.charge(DEALER)}))

        def receipt(self, number: int, index: Index) -> None:
            if (number, index) == (1, VICTIM):
                self.say(Complained(1, 0, VICTIM, self.dealers, self.evidence(), 0))
            super().receipt(number, index)

        def whole(self, number: int, index: int) -> Bitmap:
            return self.vouches if (number, index) == (1, VICTIM) else super().whole(number, index)

        def participants(self, number: int) -> Bitmap:
            return WITHOUT_DEALER if number == 1 and self.spoilt else super().participants(number)

    return Complaining


def test_a_complaint_with_evidence_names_the_dealer(named: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    report = playing(named, monkeypatch)().run().audit()
    assert named.found(report) == {(5, 1, named.MEMBERS[DEALER])}
    assert "low-degree proof" in report.faults[0].got
    assert [(c.author, c.dealer, c.outcome, c.why) for c in report.complaints] == [
        (VICTIM, DEALER, "proven", "share: low-degree proof")
    ]
    assert report.to_json()["complaints"][0]["outcome"] == "proven"
    assert "complained about the dealing of" in render_html(report)


def test_a_false_complaint_names_its_author_alone(named: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lying(playing(named, monkeypatch)):  # type: ignore[misc]
        spoilt = False

    report = Lying().run().audit()
    assert named.found(report) == {(5, 1, named.MEMBERS[VICTIM])}
    assert report.complaints[0].outcome == "false"
    assert DEALER in report.rounds[0].participants


def test_a_complaint_without_its_evidence_blames_nobody(named: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Withholding(playing(named, monkeypatch)):  # type: ignore[misc]
        def evidence(self) -> Cid:
            return NOWHERE

    report = Withholding().run().audit()
    assert report.faults == () and not report.complete
    assert report.rounds[0].check(5).status is Status.NOT_POSSIBLE
    assert report.complaints[0].outcome == "unchecked"


@pytest.mark.parametrize("content", [b"", b"nonsense", bytes(complaint_size(5, 3, 1)), b"x" * 10**6])
def test_nonsense_for_evidence_names_its_author_or_nobody(
    named: Any, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Babbling(playing(named, monkeypatch)):  # type: ignore[misc]
        def evidence(self) -> Cid:
            return self.store.put(content)

    report = Babbling().run().audit()
    # What is longer than any evidence is not fetched: then nobody can tell.
    expected = set() if len(content) > 10**5 else {(5, 1, named.MEMBERS[VICTIM])}
    assert named.found(report) == expected


@pytest.mark.parametrize("vouches", [True, False])
def test_evidence_of_another_round_proves_nothing(named: Any, vouches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who replays it beside an honest receipt contradicts itself."""

    class Replaying(playing(named, monkeypatch)):  # type: ignore[misc]
        kept: Cid

        def evidence(self) -> Cid:
            self.kept = super().evidence()
            return self.kept

        def receipt(self, number: int, index: Index) -> None:
            if (number, index) == (2, VICTIM):
                self.say(Complained(2, 0, VICTIM, Bitmap(1 << DEALER), self.kept, 0))
            super().receipt(number, index)

        def whole(self, number: int, index: int) -> Bitmap:
            return super().whole(number, index) if vouches or index != VICTIM else WITHOUT_DEALER

    report = Replaying().run().audit()
    contradiction = {(5, 2, named.MEMBERS[VICTIM])} if vouches else set()
    assert named.found(report) == {(5, 1, named.MEMBERS[DEALER])} | contradiction
    assert [c.outcome for c in report.complaints] == ["proven", "off record"]
    assert report.complete and DEALER in report.rounds[1].participants


def test_who_complains_and_vouches_is_named(named: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Both(playing(named, monkeypatch)):  # type: ignore[misc]
        vouches = Bitmap(0b11111)

    report = Both().run().audit()
    assert (5, 1, named.MEMBERS[VICTIM]) in named.found(report)


def test_one_proven_charge_stands_beside_a_false_one(named: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mixed(playing(named, monkeypatch)):  # type: ignore[misc]
        dealers = Bitmap(1 << DEALER | 1 << 0)

        def evidence(self) -> Cid:
            charges = {dealer: self.charge(dealer) for dealer in (Index(0), DEALER)}
            return self.store.put(encode_complaint(VICTIM, charges))

        def whole(self, number: int, index: int) -> Bitmap:
            return Bitmap(0b10110) if (number, index) == (1, VICTIM) else super().whole(number, index)

    report = Mixed().run().audit()
    assert named.found(report) == {(5, 1, named.MEMBERS[DEALER]), (5, 1, named.MEMBERS[VICTIM])}
    assert {c.dealer: c.outcome for c in report.complaints} == {DEALER: "proven", 0: "false"}
