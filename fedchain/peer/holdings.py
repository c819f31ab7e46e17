"""The updates this peer holds: fetched, checked, pinned; receipts vouch for them, openings are made from them (P2)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..crypto import (
    CommittedUpload,
    Place,
    charge,
    check_ciphertext,
    check_shares,
    ciphertext_size,
    open_share,
    shares_size,
)
from ..errors import Fault, MalformedObject, ObjectCorrupt, ObjectMissing, StoreUnreachable, WorldError
from ..protocol.cid import cid_of_stream
from ..protocol.commitment import update_commitment
from ..protocol.events import UpdateCommitted
from ..protocol.ids import Bitmap, Cid, Index, Root, bitmap_of, members_of
from ..protocol.state import Attempt, FederationState
from .complaints import Complaints
from .context import PeerContext


@dataclass(frozen=True, slots=True)
class Holding:
    """One update that is what was committed to: its ciphertext on disk, and this peer's share of its one-time key.

    `share` is None where the dealer gave this peer a wrong one: then the update is not whole for it, and counts all the
    same if enough others hold it to be and nobody is shown what is wrong. `charge` shows it.
    """

    ciphertext: Path
    shares_root: Root
    share: npt.NDArray[np.uint16] | None
    charge: bytes | None = None

    @property
    def upload(self) -> CommittedUpload:
        """What evidence is made from."""
        return CommittedUpload(self.ciphertext, self.shares_root)


class Holdings:
    """Every update of the attempts under way, examined once."""

    def __init__(self, context: PeerContext) -> None:
        self._context = context
        self._held: dict[UpdateCommitted, Holding] = {}
        self._refused: dict[UpdateCommitted, str] = {}
        self.malformed: dict[UpdateCommitted, CommittedUpload] = {}
        """Updates with a residue that no member may commit to, as evidence of it (R4)."""
        self.complaints = Complaints(context)
        self._looked_at: set[tuple[int, int]] = set()

    def examine(self, state: FederationState, attempt: Attempt, only: Bitmap | None = None) -> None:
        """Fetch and check the committed updates not yet examined; `only` those of some members, where given.

        A fault of the dealer is final; a missing object is asked for again at the next call. Whoever needs a set asks
        for that set alone: an update outside it may be withheld on purpose, and must cost no time.
        """
        if only is None:
            self._looked_at.add((attempt.round, attempt.attempt))
        wanted = [c for index, c in attempt.commits.items() if only is None or only >> index & 1]
        unseen = [c for c in wanted if c not in self._held and c not in self._refused]
        if not unseen:
            return
        with ThreadPoolExecutor(max_workers=4) as pool:
            for commit, outcome in zip(unseen, pool.map(lambda c: self._try(state, attempt, c), unseen), strict=True):
                dealer, log = state.accounts[commit.index], self._context.log
                if isinstance(outcome, Holding):
                    self._held[commit] = outcome
                elif isinstance(outcome, Fault):
                    self._refused[commit] = str(outcome)
                    log.warning("update refused", round=commit.round, offender=dealer, reason=str(outcome))
                else:
                    log.warning("update not yet available", round=commit.round, author=dealer, reason=str(outcome))

    def examine_again(self, state: FederationState, attempt: Attempt) -> None:
        """Find once more what a process before this one found: what it refused, and why, is written nowhere."""
        if (attempt.round, attempt.attempt) not in self._looked_at:
            self.examine(state, attempt)

    def whole(self, attempt: Attempt) -> Bitmap:
        """The updates of this attempt that are whole for this peer."""
        held = {index: self._held.get(commit) for index, commit in attempt.commits.items()}
        return bitmap_of([i for i, holding in held.items() if holding is not None and holding.share is not None])

    def charges(self, attempt: Attempt) -> dict[Index, bytes]:
        """What shows others that a dealer gave this peer a bad record, by dealer (P2.6)."""
        held = {index: self._held.get(commit) for index, commit in attempt.commits.items()}
        return {i: holding.charge for i, holding in held.items() if holding is not None and holding.charge is not None}

    def complete(self, attempt: Attempt) -> bool:
        """Whether every committed update was examined with a final outcome."""
        return all(c in self._held or c in self._refused for c in attempt.commits.values())

    def of(self, attempt: Attempt, index: Index) -> Holding | None:
        """What this peer holds of one member's update."""
        return self._held.get(attempt.commits[index])

    def uploads(self, attempt: Attempt) -> dict[Index, CommittedUpload] | None:
        """The participants' uploads, as evidence; None while this peer does not hold every one of them."""
        assert attempt.aggregate is not None
        members = members_of(attempt.aggregate.participants)
        held = {index: holding.upload for index in members if (holding := self.of(attempt, index)) is not None}
        return held if len(held) == len(members) else None

    def forget(self, state: FederationState, before_round: int) -> None:
        """Let the objects of rounds before `before_round` go, from disk and from the pins; models stay for ever.

        What this member stated itself stays in its store: a page of it may be demanded as long as its bond is here
        (P5.12). The folders on disk tell which rounds this peer holds, also after a restart.
        """
        for folder in sorted(self._context.objects.glob("round-*")):
            round = int(folder.name.removeprefix("round-"))
            if round >= before_round:
                continue
            try:
                for cid in _others_objects(state, round, self._context.me):
                    self._context.store.unpin(cid)
            except WorldError as error:
                self._context.log.warning("old objects not unpinned", round=round, reason=str(error))
                return
            shutil.rmtree(folder, ignore_errors=True)
        self.complaints.forget(before_round)
        for seen in (self._held, self._refused, self.malformed):
            for commit in [c for c in seen if c.round < before_round]:
                del seen[commit]

    def _try(self, state: FederationState, attempt: Attempt, commit: UpdateCommitted) -> Holding | Fault | Exception:
        try:
            return self._hold(state, attempt, commit)
        except Fault as fault:
            return fault
        except (ObjectMissing, ObjectCorrupt, StoreUnreachable) as error:
            return error

    @staticmethod
    def _is_intact(path: Path, cid: Cid) -> bool:
        with path.open("rb") as file:
            return cid_of_stream(file) == cid

    def _hold(self, state: FederationState, attempt: Attempt, commit: UpdateCommitted) -> Holding:
        """Fetch one update and check it whole: sizes, ranges, commitment, dealing, and this peer's own share."""
        context = self._context
        dealer = state.accounts[commit.index]
        d, keys, threshold = context.terms.model_size, attempt.encryption_keys, attempt.threshold
        path = context.objects / f"round-{commit.round:06d}" / commit.ciphertext_cid
        if path.exists() and not self._is_intact(path, commit.ciphertext_cid):
            # Damage on the own disk is nobody's fault but the disk's.
            path.unlink()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            context.store.get_file(commit.ciphertext_cid, ciphertext_size(d), path)
        shares = context.store.get(commit.shares_cid, shares_size(len(keys), threshold))
        round_context = context.round_context(attempt)
        shares_root = check_shares(
            shares,
            round_context,
            dealer=commit.index,
            dealer_address=dealer,
            encryption_keys=keys,
            threshold=threshold,
            offender=dealer,
        )
        try:
            ciphertext_root = check_ciphertext(path, d, offender=dealer, round=commit.round)
        except MalformedObject:
            self.malformed[commit] = CommittedUpload(path, shares_root)
            raise
        commitment = update_commitment(
            context.reader.chain_id,
            context.reader.contract,
            commit.round,
            commit.attempt,
            dealer,
            ciphertext_root,
            shares_root,
        )
        if commitment != commit.commitment:
            raise Fault(
                "commitment",
                offender=dealer,
                round=commit.round,
                expected=commit.commitment.hex(),
                got=commitment.hex(),
            )
        share = charged = None
        # Who did not count in this round was dealt no share, and an erased key opens none: it may check the round.
        private_key = context.keys.private_of(keys[context.me]) if context.me in keys else None
        if private_key is not None:
            try:
                share = open_share(
                    shares,
                    round_context,
                    dealer=commit.index,
                    dealer_address=dealer,
                    encryption_keys=keys,
                    threshold=threshold,
                    me=context.me,
                    private_key=private_key,
                )
            except Fault as fault:
                context.log.warning("share refused", round=commit.round, offender=dealer, reason=str(fault))
                place = Place(round_context, commit.index, dealer, keys, threshold)
                charged = charge(shares, place, context.me, private_key, ciphertext_root)
        context.store.pin(commit.ciphertext_cid)
        context.store.pin(commit.shares_cid)
        return Holding(ciphertext=path, shares_root=shares_root, share=share, charge=charged)


def _others_objects(state: FederationState, round: int, me: Index) -> Iterator[Cid]:
    """Every object of a closed round but the model and what `me` stated; of its void and forgotten attempts too."""
    own = set(_objects_of(state, round, me))
    for index in range(len(state.accounts)):
        if index != me:
            yield from (cid for cid in _objects_of(state, round, Index(index)) if cid not in own)


def _objects_of(state: FederationState, round: int, author: Index) -> Iterator[Cid]:
    """What one member stated in a closed round, and in its void and forgotten attempts, but the model."""
    for attempt in (state.closed[round], *(a for a in (*state.voided, *state.forgotten) if a.round == round)):
        if author in attempt.complaints:
            yield attempt.complaints[author].evidence_cid
        if author in attempt.commits:
            yield attempt.commits[author].ciphertext_cid
            yield attempt.commits[author].shares_cid
        if attempt.posted_sum is not None and attempt.posted_sum.index == author:
            yield attempt.posted_sum.cid
        if author in attempt.openings:
            yield attempt.openings[author].cid
        if attempt.result is not None and attempt.result.index == author:
            yield attempt.result.result_cid
