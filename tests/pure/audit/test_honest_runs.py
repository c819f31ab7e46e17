"""Honest runs are never blamed: not by a peer, not by the audit, whatever the order in which things happen.

Real cryptography, objects and roles, on the contract on paper (`paper.py`). Members speak in random order, come late,
sleep through whole rounds, get objects late, change keys, join and leave.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nacl.public import PrivateKey
from paper import Chain
from paper_peers import PaperJournal

from fedchain.crypto import deal
from fedchain.errors import ObjectMissing, TransactionFailed, WorldError
from fedchain.peer.aggregator import Aggregator
from fedchain.peer.challenger import Challenger
from fedchain.peer.context import PeerContext
from fedchain.peer.decoder import Decoder
from fedchain.peer.holdings import Holdings
from fedchain.peer.journal import Dealt
from fedchain.peer.shareholder import Shareholder
from fedchain.peer.voter import Voter
from fedchain.protocol import actions as say
from fedchain.protocol.arithmetic import counted_weights, quantise
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.ids import Address, Index, Root
from fedchain.protocol.model import assemble, layout_from, model_digest
from fedchain.protocol.phase import Phase, live_attempt, phase_of
from fedchain.protocol.state import FederationState
from fedchain.protocol.update_format import join_values, model_size_of, update_format

LAYOUT = layout_from({"weight": (20, 20), "bias": (20,)})
ROUNDS = 3
ON_ITS_WAY = "on its way"


class Late:
    """One member's view of the store: some objects take a while to get to it."""

    bytes_up = bytes_down = 0

    def __init__(self, store: Any, clock: Callable[[], int], dice: random.Random) -> None:
        self._store, self._clock, self._dice = store, clock, dice
        self._here_at: dict[str, int] = {}

    def put(self, content: bytes) -> Any:
        cid = self._store.put(content)
        self._here_at[cid] = 0
        return cid

    def get(self, cid: Any, max_bytes: int) -> Any:
        if cid in self._store.served and self._clock() < self._here_at.setdefault(cid, self._clock() + self.delay()):
            raise ObjectMissing(f"{cid} is {ON_ITS_WAY}")
        return self._store.get(cid, max_bytes)

    def get_file(self, cid: Any, max_bytes: int, path: Path) -> None:
        path.write_bytes(self.get(cid, max_bytes))

    def pin(self, cid: Any) -> None:
        """Nothing goes."""

    unpin = pin

    def delay(self) -> int:
        return self._dice.choice((0, 0, 0, 30, 90))


class Honest:
    """An honest member: every role but the trainer is the real one. What it says of others is kept in `blamed`."""

    def __init__(self, run: Run, index: int, address: Address, folder: Path) -> None:
        self.run, self.me, self.address = run, Index(index), address
        self.keys = {bytes(key.public_key): bytes(key) for key in [PrivateKey(run.dice.randbytes(32))]}
        self.blamed: list[str] = []
        folder.mkdir()

        def heard(event: str, **facts: Any) -> None:
            # An object that has not arrived is nobody's fault, and said to be none.
            reason = str(facts.get("reason"))
            waits = ON_ITS_WAY in reason or "wait for more" in reason or event == "a closed round cannot be checked"
            self.blamed += [] if waits else [f"{event}: {facts}"]

        chain: Any = SimpleNamespace(chain_id=run.named.CHAIN_ID, contract=run.named.CONTRACT, submit=self.submit)
        chain.log = lambda: ()
        keys: Any = SimpleNamespace(private_of=self.keys.get)
        meter: Any = SimpleNamespace(step=lambda name: nullcontext())
        log: Any = SimpleNamespace(info=lambda *_, **__: None, warning=heard, error=heard)
        world: dict[str, Any] = {
            "reader": chain,
            "sender": chain,
            "keys": keys,
            "meter": meter,
        }
        self.context = PeerContext(
            **world,
            task=None,  # type: ignore[arg-type]  # nobody trains here
            data=None,  # type: ignore[arg-type]
            me=self.me,
            address=address,
            charter=run.charter,
            terms=run.terms,
            store=Late(run.store, lambda: run.chain.now, run.dice),
            journal=PaperJournal(),
            folder=folder,
            seed=1,
            engine="numpy",
            challenge=True,
            deposits=40,
            outbox=None,
            log=log,
        )
        holdings = Holdings(self.context)
        decoder = Decoder(self.context, holdings)
        self.challenger = Challenger(self.context, holdings, decoder)
        shareholder, aggregator = Shareholder(self.context, holdings), Aggregator(self.context, holdings, decoder)
        voter = Voter(self.context, holdings, decoder)
        self.roles: tuple[Any, ...] = (shareholder, self.challenger, aggregator, voter)

    @property
    def public_key(self) -> bytes:
        return list(self.keys)[-1]

    def rotate(self) -> None:
        key = PrivateKey(self.run.dice.randbytes(32))
        self.keys[bytes(key.public_key)] = bytes(key)
        self.run.chain.say(self.address, say.RotateKey(self.public_key))

    def submit(self, key: str, action: Any) -> bytes:
        self.run.chain.say(self.address, action)
        return bytes(32)

    def act(self) -> None:
        state, now = self.run.chain.state, self.run.chain.now
        attempt = live_attempt(state, now)
        if attempt is None or not state.heard & attempt.standing & 1 << self.me:
            return
        # As in `Node`: what the world fails at is tried again, and keeps a peer from nothing else.
        with suppress(TransactionFailed, WorldError):
            if not self.challenger.settled(state, now):
                return
            if phase_of(state, state.round, now) is Phase.TRAINING and self.me not in attempt.commits:
                self.train(attempt)
        for role in self.roles:
            with suppress(TransactionFailed, WorldError):
                role.act(state, now)

    def train(self, attempt: Any) -> None:
        context, place = self.context, (attempt.round, attempt.attempt)
        form, weights = update_format(context.charter, LAYOUT.size), counted_weights(attempt, context.charter.update)
        dealt = context.journal.dealt(*place)
        if dealt is None:
            random = np.random.default_rng(self.run.dice.getrandbits(32))
            values = quantise(
                random.normal(0, 0.02, LAYOUT.size),
                weight=weights[self.me],
                max_weight=max(weights.values()),
                form=form,
                rotation=context.round_context(attempt).rotation_seed,
                random=random,
            )
            upload = deal(
                context.round_context(attempt),
                dealer=self.me,
                dealer_address=self.address,
                encryption_keys=attempt.encryption_keys,
                threshold=attempt.threshold,
                coefficients=join_values(values, form),
            )
            where = (self.run.named.CHAIN_ID, self.run.named.CONTRACT, *place, self.address)
            commitment = update_commitment(*where, upload.ciphertext_root, upload.shares_root)
            cids = context.store.put(upload.ciphertext), context.store.put(upload.shares)
            dealt = Dealt(commitment, *cids)
            context.journal.promise_upload(*place, dealt)
        self.submit("", say.CommitUpdate(*place, dealt.commitment, dealt.ciphertext_cid, dealt.shares_cid))


class Run:
    """One honest federation of five, and perhaps a sixth, until its rounds are closed."""

    def __init__(self, seed: int, named: Any, folder: Path) -> None:
        self.dice, self.named, self.folder = random.Random(seed), named, folder
        self.charter = named.charter_of(run={"rounds": ROUNDS})
        play = named.Play(charter=self.charter)
        self.store = play.store
        genesis = assemble(LAYOUT, np.random.default_rng(seed).normal(0, 0.1, LAYOUT.size).astype(np.float32))
        self.terms = play.terms(genesis)
        object.__setattr__(self.terms, "model_size", model_size_of(self.charter, LAYOUT.size))
        assert self.terms.genesis_digest == model_digest(genesis)
        self.chain = Chain(named.MEMBERS, self.terms, play.chain.time)
        self.members = [Honest(self, i, address, folder / str(i)) for i, address in enumerate(named.MEMBERS)]
        self.asleep: set[int] = set()

    def played(self) -> Run:
        order = self.members[:]
        self.dice.shuffle(order)
        for member in order:
            self.chain.mine(self.dice.randint(0, 60))
            weight = self.named.WEIGHTS[member.me]
            self.chain.say(member.address, say.Enrol(member.public_key, weight, self.terms.bond_wei))
        happenings = [self.somebody_joins, self.somebody_leaves, self.somebody_rotates]
        self.dice.shuffle(happenings)
        round, steps = 0, 0
        while not self.is_over():
            steps += 1
            assert steps < 2000, f"round {self.chain.state.round} does not close"
            if self.chain.state.round != round:
                round = self.chain.state.round
                # At most one sleeps, of those who are enough without it.
                self.asleep = {self.dice.randrange(5)} if self.dice.random() < 0.5 and not self.is_short() else set()
                happenings.pop()() if happenings and self.dice.random() < 0.8 else None
            member = self.dice.choice(self.members)
            said = len(self.chain.blocks)
            if member.me not in self.asleep:
                member.act()
            if len(self.chain.blocks) == said or self.dice.random() < 0.2:
                self.chain.mine(self.dice.choice((1, 5, 20)))
        return self

    def is_over(self) -> bool:
        return phase_of(self.chain.state, self.chain.state.round, self.chain.now) is Phase.FINISHED

    def is_short(self) -> bool:
        state: FederationState = self.chain.state
        attempt = live_attempt(state, self.chain.now)
        return attempt is None or (state.heard & attempt.standing).bit_count() <= attempt.min_participants

    def somebody_joins(self) -> None:
        for member in self.dice.sample(self.members, 3):
            with suppress(TransactionFailed):
                self.chain.say(member.address, say.VoteToAdmit(self.named.JOINER))
        if self.chain.state.admitted:
            member = Honest(self, len(self.members), self.named.JOINER, self.folder / "joiner")
            self.members.append(member)
            self.chain.say(member.address, say.Enrol(member.public_key, 90, self.terms.bond_wei))

    def somebody_leaves(self) -> None:
        if not self.is_short():
            with suppress(TransactionFailed):
                self.chain.say(self.dice.choice(self.members).address, say.Resign())

    def somebody_rotates(self) -> None:
        with suppress(TransactionFailed):
            self.dice.choice(self.members).rotate()

    def report(self) -> Any:
        """What an auditor makes of it."""
        reader = self.named.MemoryChain(time=self.chain.now)
        for block in self.chain.blocks:
            for i, event in enumerate(block.events):
                reader.together |= {len(reader.events)} if i else set()
                reader.events.append(event)
        play = self.named.Play(charter=self.charter)
        play.chain, play.store = reader, self.store
        return play.audit()


def check_nobody_is_blamed(seed: int, named: Any, folder: Path) -> None:
    run = Run(seed, named, folder).played()
    assert len(run.chain.state.closed) == ROUNDS
    assert [said for member in run.members for said in member.blamed] == []
    report = run.report()
    assert report.faults == ()
    assert report.verdict == "ok" and report.complete


@pytest.mark.parametrize("seed", range(12))
def test_nobody_is_blamed_in_an_honest_run(seed: int, named: Any, tmp_path: Path) -> None:
    check_nobody_is_blamed(seed, named, tmp_path)


def test_in_the_same_run_a_wrong_sum_is_blamed_by_peers_and_audit(named: Any, tmp_path: Path) -> None:
    run = Run(0, named, tmp_path)
    lied: set[Address] = set()
    say_right = run.chain.say

    def say_wrong(sender: Address, action: Any) -> None:
        wrong = isinstance(action, say.CommitAggregate) and action.round == ROUNDS
        say_right(sender, replace(action, root=Root(bytes(32))) if wrong else action)
        lied.update({sender} if wrong else ())

    run.chain.say = say_wrong
    run.played()
    assert any("wrong sum on chain" in said for member in run.members for said in member.blamed)
    assert {fault.offender for fault in run.report().faults} == lied


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 200))
def test_nobody_is_blamed_in_200_honest_runs(seed: int, named: Any, tmp_path: Path) -> None:
    check_nobody_is_blamed(seed, named, tmp_path)
