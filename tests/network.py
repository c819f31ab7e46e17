"""An in-memory network: thousands of rounds of the protocol in seconds, under random schedules and faults.

Real are the rules, folded as every peer folds the log, the shareholder, the aggregator, the voter and the journal's
promises. The chain is on paper (`paper.py`), and its blocks may be taken back. Uploads are names, so that everybody
knows what is right. Rogues say what they like; silence, crashes, withheld objects and forks are up to the test.
`readable` tells what rogues could read with all openings that honest members ever made.
"""

from __future__ import annotations

import random
from collections import defaultdict
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
from paper import CID, Chain, Refute, digest_of, names_of, right_model, right_roots, right_sum

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
from fedchain.protocol.disputes import Refused, basis_of, commitments_digest
from fedchain.protocol.ids import Address, Bitmap, Digest, Index, Root, bitmap_of, members_of, size_of
from fedchain.protocol.participants import choose_participants
from fedchain.protocol.phase import Phase, aggregator_of, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.votes import check_vote

Place = tuple[int, int, Digest]
"""Round, attempt and base model: where an upload belongs."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What stands behind a commitment. `spoiled`: dealt under another key; `victims` got a wrong share."""

    member: int
    place: Place
    spoiled: bool = False
    victims: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Opened:
    """A set that honest members opened in one place; `gone` were removed by vote by then."""

    place: Place
    participants: Bitmap
    threshold: int
    gone: int


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


class Rogue:
    """A member that says what the contract lets in, and what it likes; its objects may be missing or spoiled.

    `wild` rogues also spoil rounds, deal wrong shares and withhold objects from some: nothing but votes ends that.
    """

    def __init__(self, network: Network, index: int, wild: bool) -> None:
        self.network, self.me, self.wild = network, Index(index), wild
        self.dice = network.dice

    def act(self) -> None:
        state, now = self.network.chain.state, self.network.chain.now
        attempt = live_attempt(state, now)
        if attempt is None or self.dice.random() < 0.4:
            return
        try:
            address, phase = state.accounts[self.me], phase_of(state, state.round, now)
            for action in self.actions(state, attempt, phase, now):
                self.network.chain.say(address, action)
        except TransactionFailed:
            return

    def actions(self, state: FederationState, attempt: Attempt, phase: Phase, now: int) -> list[Any]:
        place, dice = (attempt.round, attempt.attempt), self.dice
        match phase:
            case Phase.TRAINING if dice.random() < 0.7:
                return [say.CommitUpdate(*place, self.upload(attempt), CID, CID)]
            case Phase.RECEIPTS if dice.random() < 0.8:
                missing = dice.choice((0, 1 << dice.choice(attempt.order), dice.getrandbits(64)))
                receipt = say.PostReceipt(*place, Bitmap(attempt.committed & ~missing))
                # With evidence or without: a rogue that was dealt a wrong share, perhaps by a friend, can show it.
                accused = Bitmap(attempt.committed & (missing or 1 << dice.choice(attempt.order)))
                complains = self.wild and accused and dice.random() < 0.5
                return [say.Complain(*place, accused, CID), receipt] if complains else [receipt]
            case Phase.AGGREGATING if aggregator_of(state, attempt, now) == self.me:
                return self.aggregates(state, attempt)
            case Phase.OPENING | Phase.CLOSING:
                return self.closes(attempt, phase)
            case _:
                return []

    def upload(self, attempt: Attempt) -> Digest:
        """An upload, now and then a spoiled one, or one that not everybody gets."""
        if not self.wild:
            return self.network.upload(self.me, attempt)
        others = frozenset(i for i in attempt.order if self.dice.random() < 0.3)
        kind = self.dice.choice(("right", "spoiled", "wrong shares", "withheld", "other place"))
        lie: dict[str, Any] = {"spoiled": {"spoiled": True}, "wrong shares": {"victims": others}}.get(kind, {})
        name = self.network.upload(self.me, attempt, number=self.dice.getrandbits(32), **lie)
        if kind == "withheld":
            self.network.withheld |= {(name, i) for i in others}
        if kind == "other place":
            upload = self.network.uploads[name]
            self.network.uploads[name] = replace(upload, place=(attempt.round, attempt.attempt + 1, upload.place[2]))
        return name

    def aggregates(self, state: FederationState, attempt: Attempt) -> list[Any]:
        """Some set that the rules allow, with a right or a wrong sum; the contract refuses the others."""
        best, dice = choose_participants(state, attempt), self.dice
        sets = [Bitmap(attempt.committed & dice.getrandbits(64)) for _ in range(30 if self.wild else 0)]
        chosen = [s for s in (*sets, best) if s is not None]
        root = Root(dice.randbytes(32)) if dice.random() < 0.5 else None
        basis = commitments_digest(attempt)
        for participants in chosen:
            posted = root or right_sum(attempt, participants)
            action = say.CommitAggregate(attempt.round, attempt.attempt, 0, participants, basis, posted, CID)
            try:
                self.network.chain.say(state.accounts[self.me], action)
                break
            except TransactionFailed:
                continue
        return []

    def closes(self, attempt: Attempt, phase: Phase) -> list[Any]:
        place, dice = (attempt.round, attempt.attempt), self.dice
        assert attempt.aggregate is not None
        if self.wild and dice.random() < 0.3:
            return [say.VoteToAbandon(*place)]
        if self.me not in attempt.openings:
            names = names_of(attempt, attempt.aggregate.participants)
            root = opening_root(names, self.me) if dice.random() < 0.5 else Root(dice.randbytes(32))
            return [say.PublishOpening(*place, 0, root, CID)]
        if phase is Phase.CLOSING and dice.random() < 0.3:
            openers = bitmap_of(sorted(attempt.openings)[: attempt.threshold])
            roots = right_roots(attempt) if dice.random() < 0.5 else (Root(dice.randbytes(32)), Root(bytes(32)))
            model = right_model(attempt) if dice.random() < 0.3 else Digest(dice.randbytes(32))
            return [say.CommitResult(*place, 0, openers, basis_of(attempt), *roots, CID, model, CID)]
        return []


class Network:
    """The members, the chain between them, and what everybody ever opened. `final` blocks are never taken back."""

    def __init__(self, seed: int, members: int, rogues: int = 0, *, wild: bool = False, final: int = 0) -> None:
        self.dice = random.Random(seed)
        self.final = final
        self.uploads: dict[Digest, Upload] = {}
        self.withheld: set[tuple[Digest, int]] = set()
        self.opened: defaultdict[Opened, set[int]] = defaultdict(set)
        self.chain = Chain(tuple(account(i) for i in range(members)))
        self.rogues = {i: Rogue(self, i, wild) for i in self.dice.sample(range(members), rogues)}
        self.peers = {i: Peer(self, i) for i in range(members) if i not in self.rogues}
        self.awake = set(range(members))
        for i in range(members):
            self.chain.say(account(i), enrolment(i))
        for _ in range(final):
            self.chain.mine()

    def seen(self) -> tuple[FederationState, int]:
        """The state and the time of the newest final block."""
        block = self.chain.blocks[-1 - self.final] if len(self.chain.blocks) > self.final else self.chain.blocks[0]
        return block.state, block.at

    def act(self, index: int) -> None:
        """One member looks, and does what it does; nothing of a member that sleeps or is no member any more."""
        member = self.peers.get(index) or self.rogues.get(index)
        if index in self.awake and member is not None:
            try:
                member.act()
            except Crashed:
                assert isinstance(member, Peer)
                member.crash = None
                member.start()

    def turn(self, after_s: int) -> None:
        """Everybody acts once, in a random order; then a block."""
        members = [*self.peers, *self.rogues]
        self.dice.shuffle(members)
        for index in members:
            self.act(index)
        self.chain.mine(after_s)

    def fork(self, depth: int) -> None:
        """Take back blocks that are final for nobody; some of what they said is mined again, in another order."""
        self.chain.rewind(min(depth, self.final))
        again, self.chain.dropped = self.chain.dropped, []
        self.dice.shuffle(again)
        for sender, action in again[: self.dice.randint(0, len(again))]:
            try:
                self.chain.say(sender, action)
            except TransactionFailed:
                continue

    def votes(self, vote: say.Vote) -> None:
        """Every honest member that may, votes; the chain counts."""
        for peer in self.peers.values():
            try:
                self.chain.say(peer.address, vote)
            except TransactionFailed:
                continue

    def join(self) -> None:
        """Members admit one more account, and it enrols; it counts from the next round on."""
        index = len(self.chain.state.accounts)
        self.votes(say.VoteToAdmit(account(index)))
        if index < len(self.chain.state.accounts):
            self.chain.say(account(index), enrolment(index))
            # It may have been here before, on blocks that were taken back.
            self.peers.setdefault(index, Peer(self, index))
            self.awake.add(index)

    def resign(self, index: int) -> None:
        try:
            self.chain.say(account(index), say.Resign())
        except TransactionFailed:
            return

    def calm(self, bound_s: int) -> None:
        """From now on every honest member is awake and gets everything, until a round closes for good, or time is up.

        A round has closed for good when an honest member has committed to the next one.
        """
        self.awake |= set(self.peers)
        self.withheld = {(name, i) for name, i in self.withheld if self.uploads[name].member in self.rogues}
        first, until = self.chain.state.round, self.chain.now + bound_s
        while self.chain.now < until and not self.is_built_on(first):
            self.turn(7)

    def is_built_on(self, round: int) -> bool:
        """Whether honest members go on from this round's result."""
        state = self.chain.state
        attempt = state.current
        built = state.round > round + 1 or (attempt is not None and bool(attempt.commits.keys() & self.peers.keys()))
        return state.round > round and built

    def is_locked(self) -> bool:
        phase = phase_of(self.chain.state, self.chain.state.round, self.chain.now)
        return phase in (Phase.OPENING, Phase.CLOSING)

    def is_over(self) -> bool:
        return phase_of(self.chain.state, self.chain.state.round, self.chain.now) is Phase.FINISHED

    def upload(self, member: int, attempt: Attempt, **lies: Any) -> Digest:
        place = (attempt.round, attempt.attempt, attempt.base_digest)
        name = digest_of("upload", member, place, lies.pop("number", 0))
        self.uploads[name] = Upload(member, place, **lies)
        return name

    def note_opening(self, member: int, action: say.PublishOpening) -> None:
        """An honest member gives an opening away: whatever becomes of the block, rogues have it."""
        state, now = self.seen()
        attempt = live_attempt(state, now)
        assert attempt is not None and attempt.aggregate is not None
        assert (attempt.round, attempt.attempt) == (action.round, action.attempt)
        place = (attempt.round, attempt.attempt, attempt.base_digest)
        gone = state.removed
        self.opened[Opened(place, attempt.aggregate.participants, attempt.threshold, gone)].add(member)

    def check_base(self, state: FederationState, attempt: Attempt) -> None:
        """Nobody honest builds on a model that does not follow from the round before (P5.4)."""
        before = state.closed.get(attempt.round - 1)
        assert before is None or attempt.base_digest == right_model(before)

    def readable(self) -> list[Opened]:
        """The sets that rogues can open: with every share of theirs, and what honest members gave away."""
        return [o for o, honest in self.opened.items() if len(honest) + len(self.rogues) >= o.threshold]


def leaks(opened: list[Opened]) -> list[str]:
    """What is wrong with these sets being open all at once: sums, and differences of sums, of too few.

    1. None is smaller than max(3, t+1). 2. In one attempt only one is. 3. No combination of the sums on one model is a
    sum over t members or fewer; those who were removed by vote by then are not counted.
    """
    found = []
    models: defaultdict[Digest, list[Opened]] = defaultdict(list)
    for o in opened:
        models[o.place[2]].append(o)
        if size_of(o.participants) < max(3, o.threshold + 1):
            found.append(f"a set of {size_of(o.participants)}")
    for sets in models.values():
        for a, b in combinations(sets, 2):
            if a.place == b.place and a.participants != b.participants:
                found.append(f"two sets in one attempt: {a.participants:b}, {b.participants:b}")
        found += [f"a sum over {few:b}" for few in small_sums(sets)]
    return found


def small_sums(sets: list[Opened]) -> list[int]:
    """Members, t at most, over which some combination of these sets' sums is a sum; nobody gone among them."""
    gone, threshold = sets[-1].gone, min(o.threshold for o in sets)
    rows = np.array([[o.participants >> i & 1 for i in range(64) if not gone >> i & 1] for o in sets])
    rows = np.unique(rows, axis=0)
    rank = np.linalg.matrix_rank(rows)
    columns = [i for i in range(64) if not gone >> i & 1]
    present = [k for k in range(len(columns)) if rows[:, k].any()]
    if len(rows) == 1:
        return []
    return [
        bitmap_of([columns[k] for k in few])
        for few in combinations(present, threshold)
        # Something of the span vanishes everywhere but here.
        if np.linalg.matrix_rank(np.delete(rows, few, axis=1)) < rank
    ]


def account(index: int) -> Address:
    return Address(f"0x{index + 1:040x}")


def enrolment(index: int) -> say.Enrol:
    return say.Enrol(bytes([index]) * 32, 1 + index, 0)


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
