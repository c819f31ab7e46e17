"""Honest members on a network in memory (`network.py`): real roles on a chain on paper.

Real are the shareholder, the aggregator, the voter and the journal's promises. Uploads are names, so that everybody
knows what is right; what stands in for store, cryptography and the other roles is a few lines each.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from paper import CID, Refute, names_of, right_model, right_roots, right_sum

from fedchain.crypto import make_opening
from fedchain.crypto.parameters import SHARE_PRIME, N
from fedchain.errors import TransactionFailed
from fedchain.peer.aggregator import Aggregator
from fedchain.peer.complaints import Complaints
from fedchain.peer.journal import Dealt, Journal, PromiseRefused
from fedchain.peer.shareholder import Shareholder
from fedchain.peer.turns import challenge_at
from fedchain.peer.voter import Voter
from fedchain.protocol import actions as say
from fedchain.protocol.disputes import Refused
from fedchain.protocol.ids import Address, Bitmap, Digest, Index, Root, bitmap_of, members_of
from fedchain.protocol.phase import Phase, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.votes import check_vote

if TYPE_CHECKING:
    from network import Network

Place = tuple[int, int, Digest]
"""Round, attempt and base model: where an upload belongs."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What stands behind a commitment. `spoiled`: dealt under another key; `victims` got a wrong share."""

    member: int
    place: Place
    spoiled: bool = False
    victims: frozenset[int] = frozenset()


class Crashed(Exception):
    """The process of a peer ended here."""


class PaperJournal(Journal):
    """The journal's promises without its file: they outlive a crash of the peer, and a fork."""

    def __init__(self) -> None:
        self._dealt, self._complaints, self._receipts, self._opened = {}, {}, {}, {}
        self.statements: dict[str, Any] = {}

    def _write(self, record: dict[str, Any]) -> None:
        self._take(record)


class PaperComplaints(Complaints):
    """Complaints whose evidence everybody gets: who was dealt a wrong share can show it, and nobody else."""

    network: Network

    def wait(self, *_: Any, **__: Any) -> bool:
        return False

    def proven(self, attempt: Attempt) -> Bitmap:
        wronged = {i: self.network.uploads[c.commitment].victims for i, c in attempt.commits.items()}
        said = attempt.complaints.values()
        return bitmap_of([i for c in said for i in members_of(c.dealers) if c.index in wronged.get(i, ())])


class Shelf:
    """What one peer holds of the others' updates; stands in for `Holdings`."""

    complaints: PaperComplaints

    def __init__(self, network: Network, me: int) -> None:
        self._network, self._me = network, me

    def charges(self, attempt: Attempt) -> dict[Index, bytes]:
        held = {index: self.of(attempt, index) for index in attempt.commits}
        return {index: b"a bad record" for index, holding in held.items() if holding and holding.share is None}

    def examine(self, state: FederationState, attempt: Attempt, only: Bitmap | None = None) -> None:
        """Nothing has to be fetched."""

    def of(self, attempt: Attempt, index: Index) -> Any:
        name, place = attempt.commits[index].commitment, (attempt.round, attempt.attempt, attempt.base_digest)
        upload = self._network.uploads[name]
        # A dealing is worth nothing in another place than its own (P1.4).
        if (name, self._me) in self._network.withheld or (upload.member, upload.place) != (index, place):
            return None
        is_mine = attempt.standing >> self._me & 1 and self._me not in upload.victims
        return SimpleNamespace(share=share_of(name, self._me) if is_mine else None)

    def whole(self, attempt: Attempt) -> Bitmap:
        held = {index: self.of(attempt, index) for index in attempt.commits}
        return bitmap_of([index for index, holding in held.items() if holding and holding.share is not None])

    def complete(self, attempt: Attempt) -> bool:
        return not any((c.commitment, self._me) in self._network.withheld for c in attempt.commits.values())


class Sums:
    """What one peer decodes; stands in for `Decoder`."""

    def __init__(self, network: Network, shelf: Shelf) -> None:
        self._network, self._shelf = network, shelf
        self._spoiled: set[tuple[int, int]] = set()
        self._stuck: set[tuple[int, int]] = set()

    def sum(self, attempt: Attempt, participants: Bitmap) -> Any:
        if any(self._shelf.of(attempt, index) is None for index in members_of(participants)):
            return None
        root = right_sum(attempt, participants)
        return SimpleNamespace(root=lambda: root, pack=lambda: root)

    def outcome(self, state: FederationState, attempt: Attempt) -> Any:
        assert attempt.aggregate is not None
        participants, place = attempt.aggregate.participants, (attempt.round, attempt.attempt)
        if self.sum(attempt, participants) is None:
            return None
        names = names_of(attempt, participants)
        right = [i for i, said in sorted(attempt.openings.items()) if said.root == opening_root(names, i)]
        if len(right) < attempt.threshold or any(self._network.uploads[name].spoiled for name in names):
            self._stuck.add(place)
            if len(right) > attempt.threshold:
                self._spoiled.add(place)
            return None
        key_sum_root, result_root = right_roots(attempt)
        opened = SimpleNamespace(
            committee=tuple(right[: attempt.threshold]),
            key_sum_root=key_sum_root,
            result_root=result_root,
            result=SimpleNamespace(pack=lambda: b"an object"),
        )
        return SimpleNamespace(opened=opened, digest=right_model(attempt), model=b"an object")

    def is_spoiled(self, attempt: Attempt) -> bool:
        return (attempt.round, attempt.attempt) in self._spoiled

    def is_undecodable(self, attempt: Attempt) -> bool:
        return (attempt.round, attempt.attempt) in self._stuck


class Peer:
    """An honest member: real shareholder, aggregator and voter; a trainer and a challenger of a few lines."""

    def __init__(self, network: Network, index: int) -> None:
        self.network, self.me = network, Index(index)
        self.journal = PaperJournal()
        self.crash: str | None = None
        self.start()

    @property
    def address(self) -> Address:
        return account(self.me)

    def start(self) -> None:
        """A new process: all that is left is the journal."""
        self.shelf = Shelf(self.network, self.me)
        self.sums = Sums(self.network, self.shelf)
        self._settled: Attempt | None = None
        quiet = SimpleNamespace(**dict.fromkeys(("info", "warning", "error"), lambda *_, **__: None))
        context: Any = SimpleNamespace(
            me=self.me,
            address=self.address,
            terms=self.network.chain.state.terms,
            journal=self.journal,
            meter=SimpleNamespace(step=lambda name: nullcontext()),
            store=SimpleNamespace(put=lambda content: CID),
            sender=self,
            log=quiet,
            is_relayed=lambda *_, **__: False,
            duty=duty,
        )
        self.shelf.complaints = PaperComplaints(context)
        self.shelf.complaints.network = self.network
        shelf: Any = self.shelf
        sums: Any = self.sums
        self.roles: tuple[Any, ...] = (
            SimpleNamespace(act=self.train),
            Shareholder(context, shelf),
            SimpleNamespace(act=self.challenge_sum),
            Aggregator(context, shelf, sums),
            Voter(context, shelf, sums),
        )

    def act(self) -> None:
        """One look at the chain, as deep as is final for this peer, and all that is due. Raises Crashed."""
        state, now = self.network.seen()
        attempt = live_attempt(state, now)
        heard = attempt is not None and state.heard & attempt.standing & 1 << self.me
        if not heard or phase_of(state, state.round, now) is Phase.FINISHED or not self.is_settled(state, now):
            return
        for role in self.roles:
            try:
                role.act(state, now)
            except TransactionFailed:
                continue

    def submit(self, key: str, action: Any) -> bytes:
        """Journal the statement, and say it; a crash comes before or after. Raises Crashed, PromiseRefused."""
        if self.journal.statements.setdefault(key, action) != action:
            raise PromiseRefused(f"member {self.me} has said something else as {key}")
        if isinstance(action, say.PublishOpening):
            self.network.note_opening(self.me, action)
        if self.crash == "before":
            raise Crashed
        self.network.chain.say(self.address, action)
        if self.crash == "after":
            raise Crashed
        return bytes(32)

    def train(self, state: FederationState, now: int) -> None:
        attempt = live_attempt(state, now)
        assert attempt is not None
        if phase_of(state, state.round, now) is not Phase.TRAINING or self.me in attempt.commits:
            return
        self.network.check_base(state, attempt)
        dealt = self.journal.dealt(attempt.round, attempt.attempt)
        if dealt is None:
            dealt = Dealt(self.network.upload(self.me, attempt), CID, CID)
            self.journal.promise_upload(attempt.round, attempt.attempt, dealt)
        action = say.CommitUpdate(attempt.round, attempt.attempt, dealt.commitment, CID, CID)
        self.submit(f"commit/{attempt.round}/{attempt.attempt}", action)

    def challenge_sum(self, state: FederationState, now: int) -> None:
        attempt = state.current
        posted = attempt.posted_sum if attempt is not None else None
        if attempt is None or posted is None or attempt.aggregate is None:
            return
        due = challenge_at(state, attempt, self.me, since=posted.at, liar=posted.index)
        if posted.root != right_sum(attempt, attempt.aggregate.participants) and now >= due:
            self.network.chain.say(self.address, Refute(attempt.round, result=False))

    def is_settled(self, state: FederationState, now: int) -> bool:
        """Whether the newest closed round is what this peer decodes (P5.4); else it brings the result down."""
        attempt = state.closed.get(len(state.closed))
        if attempt is None or attempt is self._settled:
            return True
        result, outcome = attempt.result, self.sums.outcome(state, attempt)
        assert result is not None
        if outcome is None:
            return False
        if (result.key_sum_root, result.result_root) != right_roots(attempt):
            if now >= challenge_at(state, attempt, self.me, since=result.at, liar=result.index):
                self._try(Refute(attempt.round, result=True))
            return False
        if result.model_digest == outcome.digest:
            self._settled = attempt
            return True
        vote = say.VoteToRefuse(attempt.round, result.model_digest)
        try:
            check_vote(state, self.me, vote, now)
            self._try(vote)
        except Refused:
            pass  # it has voted
        return False

    def _try(self, action: Any) -> None:
        with suppress(TransactionFailed):  # another was faster
            self.network.chain.say(self.address, action)


def account(index: int) -> Address:
    return Address(f"0x{index + 1:040x}")


def duty(name: str, attempt: Attempt, fallen: int = 0, basis: Digest | None = None) -> str:
    """As in `PeerContext`: the name under which a duty's one statement is journalled."""
    return f"{name}/{attempt.round}/{attempt.attempt}/{fallen}/{basis.hex() if basis else ''}"


@lru_cache(maxsize=1000)
def share_of(name: bytes, index: int) -> Any:
    """A share that is this member's alone, of this upload's key alone."""
    return np.full(N, (int.from_bytes(name[:4], "big") * (index + 2) + index) % SHARE_PRIME, dtype=np.uint16)


@lru_cache(maxsize=1000)
def opening_root(names: tuple[bytes, ...], index: int) -> Root:
    """What an honest shareholder opens for these uploads."""
    return make_opening([share_of(name, index) for name in names]).root()
