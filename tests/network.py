"""An in-memory network: thousands of rounds of the protocol in seconds, under random schedules and faults.

Real are the rules, folded as every peer folds the log. The chain is on paper (`paper.py`), and its blocks may be taken
back; honest members are `paper_peers.py`, rogues (`rogues.py`) say what they like; silence, crashes, withheld objects
and forks are up to the test. `readable` tells what rogues could read with all openings that honest members ever made.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from paper import Chain, digest_of, right_model
from paper_peers import Crashed, Peer, Place, Upload, account
from rogues import Rogue

from fedchain.errors import TransactionFailed
from fedchain.protocol import actions as say
from fedchain.protocol.ids import Bitmap, Digest, bitmap_of, size_of
from fedchain.protocol.phase import Phase, live_attempt, phase_of
from fedchain.protocol.state import Attempt, FederationState


@dataclass(frozen=True, slots=True)
class Opened:
    """A set that honest members opened in one place; `gone` were removed by vote by then."""

    place: Place
    participants: Bitmap
    threshold: int
    gone: int


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


def enrolment(index: int) -> say.Enrol:
    return say.Enrol(bytes([index]) * 32, 1 + index, 0)
