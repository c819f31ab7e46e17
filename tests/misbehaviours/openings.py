"""Shareholders: what they vouch for, and what they open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedchain.crypto import Opening, make_opening
from fedchain.crypto.parameters import SHARE_PRIME
from fedchain.peer import shareholder
from fedchain.peer.holdings import Holdings
from fedchain.peer.shareholder import Shareholder
from fedchain.protocol.actions import PublishOpening
from fedchain.protocol.cid import cid_of
from fedchain.protocol.ids import Bitmap, Root
from fedchain.protocol.phase import Phase, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState

from .catalogue import Expected, Liar, keeping, misbehaviour, replaced

SPARE = "t right openings among five name the wrong one, and open the sum"


@misbehaviour("silent-shareholder", "the window ends without it", Expected(strikes=1))
class SilentShareholder(Shareholder, Liar):
    """Posts no receipt."""

    def _receipt(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        return not self.lies_in(attempt) and super()._receipt(state, attempt, now)


@misbehaviour(
    "false-complaint",
    "an aggregator takes the largest set that t receipts cover: one complaint leaves nobody out",
    Expected(),
)
class FalseComplaint(Holdings, Liar):
    """Says of an honest member's update that it is not whole."""

    def whole(self, attempt: Attempt) -> Bitmap:
        held = super().whole(attempt)
        return Bitmap(held & ~1) if self.lies_in(attempt) else held


@misbehaviour(
    "blind-voucher",
    "the sum takes what t receipts cover; the audit names who vouched beside the author",
    Expected(faults=(5,)),
    member=3,
    beside=("truncated-blob", 2),
)
class BlindVoucher(Holdings, Liar):
    """Vouches for every update, one that is not whole among them."""

    def whole(self, attempt: Attempt) -> Bitmap:
        return attempt.committed if self.lies_in(attempt) else super().whole(attempt)


@misbehaviour(
    "receipt-for-nobody",
    "the contract hears of committed updates only",
    Expected(refused="never committed", strikes=1),
)
class ReceiptForNobody(Holdings, Liar):
    """Vouches for the update of a member that there is not."""

    def whole(self, attempt: Attempt) -> Bitmap:
        held = super().whole(attempt)
        return Bitmap(held | 1 << 9) if self.lies_in(attempt) else held


class WrongOpener(Shareholder, Liar):
    """Opens something else than it should, in its round."""

    def opening(self, shares: Sequence[Any]) -> Opening:
        raise NotImplementedError

    def _open(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        if not self.lies_in(attempt):
            return super()._open(state, attempt, now)
        with replaced(shareholder, "make_opening", self.opening):
            return super()._open(state, attempt, now)


@misbehaviour("opening-off-by-one", SPARE, Expected(faults=(8,), logged="wrong opening"), member=0)
class OpeningOffByOne(WrongOpener):
    """Publishes an opening with one element off by one."""

    def opening(self, shares: Sequence[Any]) -> Opening:
        elements = make_opening(shares).elements.copy()
        elements[7] = (int(elements[7]) + 1) % SHARE_PRIME
        return Opening(elements)


@misbehaviour("opening-for-another-set", SPARE, Expected(faults=(8,), logged="wrong opening"), member=1)
class OpeningForAnotherSet(WrongOpener):
    """Publishes the sum of its shares without one participant's."""

    def opening(self, shares: Sequence[Any]) -> Opening:
        return make_opening(shares[1:])


@misbehaviour("garbage-opening", SPARE, Expected(faults=(8,), logged="wrong opening"))
class GarbageOpening(WrongOpener):
    """Publishes random elements as its opening."""

    def opening(self, shares: Sequence[Any]) -> Opening:
        random = np.random.default_rng(9).integers(0, SHARE_PRIME, len(shares[0]))
        return Opening(random.astype(np.uint16))


@misbehaviour(
    "withheld-opening",
    "t others open; it owes the object as long as the charter keeps it",
    Expected(faults=(4,), logged="opening left out"),
    store=keeping,
)
class WithheldOpening(WrongOpener):
    """Publishes its opening's root, and keeps the opening from everyone."""

    def opening(self, shares: Sequence[Any]) -> Opening:
        opening = make_opening(shares)
        self.hidden.add(cid_of(opening.encode()))
        return opening


@misbehaviour(
    "opening-stored-otherwise",
    "an opening counts where its object has the root that was published; t others open",
    Expected(faults=(8,), logged="opening left out"),
)
class OpeningStoredOtherwise(Shareholder, Liar):
    """Publishes its opening's root, and the CID of another opening."""

    def _open(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        sender, store = self._context.sender, self._context.store

        def elsewhere(key: str, action: PublishOpening) -> bytes:
            other = store.put(Opening(np.ones(2048, dtype=np.uint16)).encode())
            said = PublishOpening(action.round, action.attempt, action.group, action.root, other)
            return type(sender).submit(sender, key, said)

        if not self.lies_in(attempt):
            return super()._open(state, attempt, now)
        with replaced(sender, "submit", elsewhere):
            return super()._open(state, attempt, now)


@misbehaviour("silent-opener", "t others open, and the round closes without it", Expected())
class SilentOpener(Shareholder, Liar):
    """Publishes no opening."""

    def _open(self, state: FederationState, attempt: Attempt, now: int) -> bool:
        return not self.lies_in(attempt) and super()._open(state, attempt, now)


@misbehaviour(
    "early-opening",
    "the contract hears openings of a locked set only",
    Expected(refused="not due now"),
)
class EarlyOpening(Shareholder, Liar):
    """Publishes its shares' sum before any set is locked."""

    tried = False

    def act(self, state: FederationState, now: int) -> bool:
        attempt = live_attempt(state, now)
        early = self.lies_in(attempt) and phase_of(state, state.round, now) is Phase.RECEIPTS
        if attempt is not None and early and not self.tried:
            self.tried = True
            root = Root(attempt.base_digest)
            said = PublishOpening(attempt.round, attempt.attempt, 0, root, cid_of(b"early"))
            self._context.sender.submit("early", said)
        return super().act(state, now)
