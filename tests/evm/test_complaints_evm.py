"""Real peers on a real contract: who deals badly, complains falsely or opens wrongly is named, and rounds close."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_step import Federation, Ground

from fedchain.audit.report import Report
from fedchain.crypto import (
    Opening,
    Place,
    RoundContext,
    Upload,
    charge,
    check_ciphertext,
    complaint,
    deal,
    dealing,
    encode_complaint,
)
from fedchain.crypto.parameters import SHARE_PRIME, N
from fedchain.peer import node, shareholder, trainer
from fedchain.peer.complaints import Complaints
from fedchain.peer.context import PeerContext
from fedchain.peer.holdings import Holdings
from fedchain.peer.shareholder import Shareholder
from fedchain.peer.trainer import Trainer
from fedchain.protocol.cid import cid_of
from fedchain.protocol.ids import Address, Bitmap, Index, bitmap_of, members_of
from fedchain.protocol.merkle import root_of
from fedchain.protocol.state import Attempt, FederationState

VICTIM, DEALER, ACCUSED = Index(1), Index(3), Index(4)


@pytest.fixture(scope="module")
def ground(anvil: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    before = anvil.remember()
    ground = Ground(anvil, tmp_path_factory.mktemp("complaints"))
    ground.enrol()
    ground.keep()
    yield ground
    anvil.take_back(before)


def played(ground: Ground, folder: Path, bent: Mapping[int, dict[str, type]]) -> tuple[Federation, Report]:
    """Both rounds, with other classes in some peers; each round's model is what its participants' updates give."""
    federation = Federation(ground, folder)
    for index, kinds in bent.items():
        federation.peers[index].bend = bending(kinds)
    state = federation.run(lambda: all(said(federation, i, "round closed", 2) for i in range(5)))
    assert len(state.closed) == 2
    for round, closed in state.closed.items():
        assert closed.result is not None and closed.attempt == 0
        assert hashlib.sha256(federation.expected_model(round)).digest() == closed.result.model_digest
    return federation, federation.audit()


def bending(kinds: Mapping[str, type]) -> Callable[[ExitStack], None]:
    def bend(stack: ExitStack) -> None:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, kind in kinds.items():
            patch.setattr(node, name, kind)

    return bend


def said(federation: Federation, member: int, event: str, round: int) -> list[dict[str, Any]]:
    return [e for e in federation.peers[member].said if e["event"] == event and e.get("round") == round]


def named(federation: Federation, event: str, round: int, by: list[int]) -> set[int]:
    """Whom these members' logs name, each of them the same."""
    addresses = {peer.member.address: peer.index for peer in federation.peers}
    told = [{addresses[e["offender"]] for e in said(federation, member, event, round)} for member in by]
    assert all(names == told[0] for names in told)
    return told[0]


def faults(federation: Federation, report: Report) -> set[tuple[int, int, int]]:
    addresses = {peer.member.address: peer.index for peer in federation.peers}
    return {(int(f.check.split()[0]), f.round, addresses[f.offender]) for f in report.faults}


def participants(federation: Federation, round: int) -> set[int]:
    locked = federation.state.closed[round].aggregate
    assert locked is not None
    return set(members_of(locked.participants))


class BadDealer(Trainer):
    """Deals the victim something else in the first round."""

    @staticmethod
    def deal(context: RoundContext, **place: Any) -> Upload:
        raise NotImplementedError

    def _deal(self, state: FederationState, attempt: Attempt, now: int) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            if attempt.round == 1:
                patch.setattr(trainer, "deal", self.deal)
            return super()._deal(state, attempt, now)


class GarbageShare(BadDealer):
    """Its share is on no polynomial."""

    @staticmethod
    def deal(context: RoundContext, **place: Any) -> Upload:
        evaluate = dealing.evaluate

        def wrong(polynomials: Any, points: Any) -> Any:
            values = evaluate(polynomials, points)
            if values.shape[1] == N:
                values[VICTIM] = (values[VICTIM] + 1) % SHARE_PRIME
            return values

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dealing, "evaluate", wrong)
            return deal(context, **place)


class BrokenBox(BadDealer):
    """Its box does not open."""

    @staticmethod
    def deal(context: RoundContext, **place: Any) -> Upload:
        upload = deal(context, **place)
        n, t = len(place["encryption_keys"]), place["threshold"]
        at = dealing.public_bytes(n, t) + VICTIM * dealing.RECORD_BYTES + 100
        shares = upload.shares[:at] + bytes([upload.shares[at] ^ 1]) + upload.shares[at + 1 :]
        return replace(upload, shares=shares, shares_root=root_of(dealing.leaves_of_shares(shares, n, t)))


class Accusing(Holdings):
    """Complains about a whole dealing in some round, by an honest looking charge, and does not vouch for it."""

    round = 1
    accounts: tuple[Address, ...] = ()

    def examine(self, state: FederationState, attempt: Attempt, only: Bitmap | None = None) -> None:
        self.accounts = state.accounts
        super().examine(state, attempt, only)

    def whole(self, attempt: Attempt) -> Bitmap:
        return Bitmap(super().whole(attempt) & ~(bool(self.charges(attempt)) << ACCUSED))

    def charges(self, attempt: Attempt) -> dict[Index, bytes]:
        if attempt.round != self.round:
            return super().charges(attempt)
        context, commit = self._context, attempt.commits[ACCUSED]
        holding, keys = self.of(attempt, ACCUSED), attempt.encryption_keys
        private = context.keys.private_of(keys[context.me])
        assert holding is not None and private is not None
        place = Place(context.round_context(attempt), ACCUSED, self.accounts[ACCUSED], keys, attempt.threshold)
        shares = context.store.get(commit.shares_cid, 10**6)
        root = check_ciphertext(holding.ciphertext, context.terms.model_size, offender="", round=attempt.round)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(complaint, "_fault_in", lambda *_: "anything")
            made = charge(shares, place, context.me, private, root)
        assert made is not None
        return {ACCUSED: made}


class Withholding(Complaints):
    """Names evidence that nobody can get."""

    def make(self, attempt: Attempt, charges: Mapping[Index, bytes]) -> None:
        evidence = cid_of(encode_complaint(self._context.me, charges))
        if charges and self._context.journal.complaint(attempt.round, attempt.attempt) is None:
            self._context.journal.promise_complaint(attempt.round, attempt.attempt, bitmap_of(tuple(charges)), evidence)


class AccusingInVain(Accusing):
    """Complains in the second round, and keeps its evidence."""

    round = 2

    def __init__(self, context: PeerContext) -> None:
        super().__init__(context)
        self.complaints = Withholding(context)


class Replaying(Complaints):
    """Complains in the second round with the evidence of the first."""

    def make(self, attempt: Attempt, charges: Mapping[Index, bytes]) -> None:
        super().make(attempt, charges)
        before, journal = self._context.journal.complaint(1, 0), self._context.journal
        if attempt.round == 2 and before is not None and journal.complaint(2, 0) is None:
            journal.promise_complaint(2, 0, *before)


class RightThenReplaying(Holdings):
    """Complains rightly first."""

    def __init__(self, context: PeerContext) -> None:
        super().__init__(context)
        self.complaints = Replaying(context)


class WrongOpener(Shareholder):
    """Opens with one element off by one in the second round."""

    def _open(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        honest = shareholder.make_opening

        def wrong(shares: Any) -> Opening:
            elements = honest(shares).elements.astype(np.int64)
            elements[7] = (elements[7] + 1) % SHARE_PRIME
            return Opening(elements.astype(np.uint16))

        with pytest.MonkeyPatch.context() as patch:
            if attempt.round == 2:
                patch.setattr(shareholder, "make_opening", wrong)
            return super()._open(state, attempt, now)


def test_a_garbage_share_to_one_victim_is_shown_and_left_out_and_its_evidence_proves_nothing_in_another_round(
    ground: Ground, tmp_path: Path
) -> None:
    federation, report = played(
        ground, tmp_path, {DEALER: {"Trainer": GarbageShare}, VICTIM: {"Holdings": RightThenReplaying}}
    )
    assert participants(federation, 1) == {0, 1, 2, 4}
    assert participants(federation, 2) == {0, 1, 2, 3, 4}
    assert named(federation, "bad dealing, by evidence", 1, [0, 1, 2, 4]) == {DEALER}
    assert named(federation, "false complaint", 1, [0, 1, 2, 4]) == set()
    assert named(federation, "false complaint", 2, [0, 2, 3, 4]) == set()
    assert named(federation, "bad dealing, by evidence", 2, [0, 2, 3, 4]) == set()
    for member in (0, 2, 3, 4):
        (entry,) = said(federation, member, "a complaint about what is not on record", 2)
        who = [federation.peers[index].member.address for index in (VICTIM, DEALER)]
        assert [entry["member"], entry["author"], entry["dealer"]] == [member, *who]
    # It says beside it that the update is whole, and is named for that.
    assert faults(federation, report) == {(5, 1, DEALER), (5, 2, VICTIM)}
    told = [(c.round, c.author, c.dealer, c.outcome, c.why) for c in report.complaints]
    assert told == [(1, VICTIM, DEALER, "proven", "share: low-degree proof"), (2, VICTIM, DEALER, "off record", "")]


def test_a_box_that_does_not_open_is_shown_and_a_complaint_without_evidence_moves_nobody(
    ground: Ground, tmp_path: Path
) -> None:
    federation, report = played(ground, tmp_path, {DEALER: {"Trainer": BrokenBox}, 2: {"Holdings": AccusingInVain}})
    assert participants(federation, 1) == {0, 1, 2, 4}
    assert named(federation, "bad dealing, by evidence", 1, [0, 1, 2, 4]) == {DEALER}
    assert participants(federation, 2) == {0, 1, 2, 3, 4}
    for member in (0, 1, 3, 4):
        (first, *_) = said(federation, member, "a complaint cannot be checked", 2)
        assert (first["member"], first["author"]) == (member, federation.peers[2].member.address)
        assert not said(federation, member, "false complaint", 2)
    assert faults(federation, report) == {(5, 1, DEALER)}
    assert [(c.round, c.outcome, c.why) for c in report.complaints] == [
        (1, "proven", "share: seal"),
        (2, "unchecked", ""),
    ]
    assert not report.complete


def test_a_false_complaint_names_its_author_and_a_wrong_opening_its_opener_and_both_rounds_close_with_everybody(
    ground: Ground, tmp_path: Path
) -> None:
    federation, report = played(ground, tmp_path, {2: {"Holdings": Accusing}, 0: {"Shareholder": WrongOpener}})
    assert participants(federation, 1) == participants(federation, 2) == {0, 1, 2, 3, 4}
    assert named(federation, "false complaint", 1, [0, 1, 3, 4]) == {2}
    assert named(federation, "wrong opening", 2, [1, 2, 3, 4]) == {0}
    assert faults(federation, report) == {(5, 1, 2), (8, 2, 0)}
    assert [(c.author, c.dealer, c.outcome) for c in report.complaints] == [(2, ACCUSED, "false")]
