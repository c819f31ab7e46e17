"""A whole federation in memory: real cryptography, real arithmetic, a chain and a store that are a list and a dict.

`Play` plays honest rounds, one method a step of docs/protocol.md; a test overrides the step that somebody gets wrong.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from nacl.public import PrivateKey

from fedchain.audit.audit import audit
from fedchain.audit.report import Report
from fedchain.crypto import (
    Aggregate,
    Opened,
    Opening,
    RoundContext,
    Upload,
    deal,
    make_opening,
    open_aggregate,
    open_share,
    show_aggregate,
    sum_ciphertexts,
)
from fedchain.errors import ObjectCorrupt, ObjectMissing
from fedchain.ports import Logged
from fedchain.protocol.arithmetic import average, counted_weights, quantise
from fedchain.protocol.charter import Charter
from fedchain.protocol.cid import cid_of
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.descent import aggregate_page
from fedchain.protocol.events import (
    AggregateCommitted,
    BondWithdrawn,
    DutiesMissed,
    EncryptionKeyRotated,
    Event,
    FederationFounded,
    MemberAdmitted,
    MemberEnrolled,
    MemberLeaving,
    Motion,
    MotionVoted,
    OpeningPublished,
    PageDemanded,
    PageShown,
    ReceiptPosted,
    ResultCommitted,
    RewardWithdrawn,
    SetAbandoned,
    Terms,
    UpdateCommitted,
)
from fedchain.protocol.evidence import NO_ROOT
from fedchain.protocol.ids import Address, Bitmap, Cid, Index, Root, bitmap_of, members_of
from fedchain.protocol.model import assemble, layout_from, model_digest
from fedchain.protocol.outer import following_model, with_first_state
from fedchain.protocol.pages import Page
from fedchain.protocol.participants import choose_participants
from fedchain.protocol.phase import aggregator_of, duties_missed, live_attempt
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply, founded
from fedchain.protocol.update_format import UpdateFormat, join_values, model_size_of, split_sums, update_format

CHAIN_ID = 31337
CONTRACT = Address("0x" + "c0" * 20)
MEMBERS = tuple(Address("0x" + f"{i + 1:02x}" * 20) for i in range(5))
JOINER, STRANGER = Address("0x" + "06" * 20), Address("0x" + "99" * 20)
"""Who is no founder; who is no member."""

KEYS = tuple(PrivateKey(bytes([i + 1]) * 32) for i in range(6))
WEIGHTS = (100, 60, 80, 40, 20, 90)
LAYOUT = layout_from({"hidden.weight": (50, 40), "hidden.bias": (50,), "out.weight": (19, 50)})
"""3,000 values."""

BEGIN = 1_700_000_000


class MemoryStore:
    """Implements `ports.Store`. `served` are the bytes given for a CID, right or wrong; verified on every read."""

    def __init__(self) -> None:
        self.served: dict[Cid, bytes] = {}
        self.bytes_up = self.bytes_down = 0

    def put(self, content: bytes) -> Cid:
        cid = cid_of(content)
        self.served[cid] = content
        self.bytes_up += len(content)
        return cid

    def get(self, cid: Cid, max_bytes: int) -> bytes:
        if cid not in self.served:
            raise ObjectMissing(f"no peer has {cid}")
        content = self.served[cid]
        if len(content) > max_bytes or cid_of(content) != cid:
            raise ObjectCorrupt(f"what the store gives for {cid} is not the object")
        self.bytes_down += len(content)
        return content

    def get_file(self, cid: Cid, max_bytes: int, path: Path) -> None:
        path.write_bytes(self.get(cid, max_bytes))

    def pin(self, cid: Cid) -> None:
        pass

    def unpin(self, cid: Cid) -> None:
        pass


@dataclass
class MemoryChain:
    """Implements `ports.ChainReader` over a list of events; one block an event."""

    events: list[Event] = field(default_factory=list)
    time: int = BEGIN
    chain_id: int = CHAIN_ID
    contract: Address = CONTRACT
    together: set[int] = field(default_factory=set)
    """The events that belong to the transaction of the one before."""

    def refresh(self) -> FederationState:
        first = self.events[0]
        assert isinstance(first, FederationFounded)
        state = founded(first)
        for event in self.events[1:]:
            try:
                state = apply(state, event)
            except ValueError:
                continue
        return state

    def now(self) -> int:
        return self.time

    def log(self) -> tuple[Logged, ...]:
        logged, first = [], 0
        for i, event in enumerate(self.events):
            first = first if i in self.together else i
            logged.append(Logged(event, 10 + i, bytes([i % 256]) * 32, first.to_bytes(32, "big"), i - first))
        return tuple(logged)

    def gas_used(self, transaction: bytes) -> int:
        return 50_000


def charter_of(**changes: dict[str, Any]) -> Charter:
    """The charter of the five, with sections changed."""
    entries: dict[str, Any] = {
        "federation": {"name": "five", "members": list(MEMBERS)},
        "run": {"rounds": 3},
        "windows": {"enrol_s": 600, "training_s": 300, "receipt_s": 200, "aggregate_s": 100, "challenge_s": 1000},
        "update": {"clip_value": 0.25, "weight_cap": 100},
        "task_sha256": "ab" * 32,
    }
    for section, values in changes.items():
        entries[section] = entries.get(section, {}) | values
    return Charter.model_validate(entries)


class Play:
    """One federation's life. Every step is a method that says something on chain, or makes what is said."""

    def __init__(self, rounds: int = 2, charter: Charter | None = None) -> None:
        self.charter = charter or charter_of()
        self.members = MEMBERS
        self.store = MemoryStore()
        self.chain = MemoryChain()
        self.rounds = rounds
        self.random = np.random.default_rng(7)
        self.uploads: dict[tuple[int, Index], Upload] = {}
        self.private_keys = {bytes(key.public_key): bytes(key) for key in KEYS}

    def run(self) -> Play:
        """Play everything: founding, enrolment, the rounds."""
        self.found()
        for i in range(len(self.members)):
            self.enrol(Index(i))
        for number in range(1, self.rounds + 1):
            self.round(number)
        return self

    def audit(self, **options: Any) -> Report:
        """The audit of what was played."""
        return audit(self.chain, self.store, code_check=lambda: None, **options)

    def say(self, event: Event, after_s: int = 5) -> None:
        """Put one event on chain, some seconds after the last."""
        self.chain.time += after_s
        self.chain.events.append(replace(event, at=self.chain.time))

    def say_with(self, event: Event) -> None:
        """Another event of the same transaction."""
        self.chain.together.add(len(self.chain.events))
        self.say(event, after_s=0)

    @property
    def state(self) -> FederationState:
        return self.chain.refresh()

    def attempt(self) -> Any:
        attempt = live_attempt(self.state, self.chain.time)
        assert attempt is not None
        return attempt

    # founding and enrolment

    def found(self) -> None:
        genesis = assemble(LAYOUT, self.random.normal(0, 0.1, LAYOUT.size).astype(np.float32))
        genesis = with_first_state(genesis, self.charter)
        self.say(FederationFounded(self.terms(genesis), self.members, 0))

    def terms(self, genesis: bytes) -> Terms:
        windows = self.charter.windows
        return Terms(
            charter_digest=self.charter.digest(),
            charter_cid=self.store.put(self.charter.canonical()),
            genesis_digest=model_digest(genesis),
            genesis_cid=self.store.put(genesis),
            model_size=model_size_of(self.charter, LAYOUT.size),
            rounds=self.charter.run.rounds,
            threshold=self.charter.threshold,
            enrol_window_s=windows.enrol_s,
            training_window_s=windows.training_s,
            receipt_window_s=windows.receipt_s,
            aggregate_window_s=windows.aggregate_s,
            challenge_window_s=windows.challenge_s,
            close_window_s=windows.close_s,
            bond_wei=self.charter.stake.bond_gwei * 10**9,
        )

    def enrol(self, index: Index) -> None:
        self.say(MemberEnrolled(index, self.members[index], bytes(KEYS[index].public_key), WEIGHTS[index], 0))

    # votes, and what follows from them

    def vote(
        self, motion: Motion, subject: bytes = bytes(32), round: int = 0, attempt: int = 0, by: Any = (0,)
    ) -> None:
        """Each of these members votes for one motion."""
        for index in by:
            self.say(MotionVoted(motion, index, round, attempt, subject.rjust(32, b"\0"), 0))

    def admit(self, account: Address, by: Any = (0, 1, 2)) -> None:
        """Members vote an account in; it enrols."""
        self.vote(Motion.ADMIT, bytes.fromhex(account[2:]), by=by)
        index = self.state.index_of(account)
        self.say_with(MemberAdmitted(Index(len(self.state.accounts)) if index is None else index, account, 0))
        self.members = self.state.accounts

    def remove(self, index: Index, by: Any = (0, 1, 2)) -> None:
        self.vote(Motion.REMOVE, bytes([index]), by=by)
        self.say_with(MemberLeaving(index, True, 0))

    def abandon(self, number: int, by: Any = (0, 1, 2)) -> None:
        """Members give up the locked set."""
        attempt, participants = self.attempt().attempt, self.locked(number).participants
        self.vote(Motion.ABANDON, round=number, attempt=attempt, by=by)
        self.say_with(SetAbandoned(number, attempt, 0, participants, 0))

    def rotate(self, index: Index) -> None:
        key = PrivateKey(bytes([0x80 + index]) * 32)
        self.private_keys[bytes(key.public_key)] = bytes(key)
        self.say(EncryptionKeyRotated(index, bytes(key.public_key), 0))

    # demands

    def demand(self, page: Page, by: Address) -> None:
        self.say(PageDemanded(page.name, by, self.chain.time + 5 + self.state.terms.answer_window_s, page, 0))

    def show(self, page: Page, words: Any, by: Address, other: Root = NO_ROOT) -> None:
        self.say(PageShown(page.name, by, other, words, 0))

    # one round

    def round(self, number: int) -> None:
        for index in self.trainers(number):
            self.commit(number, index)
        for index in self.shareholders(number):
            self.receipt(number, index)
        self.aggregate(number)
        for index in self.openers(number):
            self.opening(number, index)
        self.close(number)

    def trainers(self, number: int) -> list[Index]:
        return list(members_of(self.state.heard))

    def shareholders(self, number: int) -> list[Index]:
        return list(members_of(self.state.heard))

    def openers(self, number: int) -> list[Index]:
        return list(members_of(self.state.heard))

    def context(self, number: int) -> RoundContext:
        base, _ = self.state.base_model(number)
        return RoundContext(self.chain.chain_id, self.chain.contract, number, self.attempt().attempt, base)

    def encryption_keys(self) -> dict[Index, bytes]:
        keys: dict[Index, bytes] = self.attempt().encryption_keys
        return keys

    @property
    def weights(self) -> dict[Index, int]:
        return counted_weights(self.attempt(), self.charter.update)

    @property
    def form(self) -> UpdateFormat:
        return update_format(self.charter, LAYOUT.size)

    def weight(self, index: Index) -> int:
        return self.weights[index]

    def deal(self, number: int, index: Index) -> Upload:
        """What a trainer makes: an update, quantised, encrypted, its key shared."""
        context = self.context(number)
        values = quantise(
            self.random.normal(0, 0.02, LAYOUT.size),
            weight=self.weight(index),
            max_weight=max(self.weights.values()),
            form=self.form,
            rotation=context.rotation_seed,
            random=self.random,
        )
        return deal(
            context,
            dealer=index,
            dealer_address=self.members[index],
            encryption_keys=self.encryption_keys(),
            threshold=self.attempt().threshold,
            coefficients=join_values(values, self.form),
        )

    def commit(self, number: int, index: Index) -> None:
        upload = self.deal(number, index)
        self.uploads[number, index] = upload
        attempt = self.attempt().attempt
        commitment = update_commitment(
            self.chain.chain_id,
            self.chain.contract,
            number,
            attempt,
            self.members[index],
            upload.ciphertext_root,
            upload.shares_root,
        )
        ciphertext, shares = (self.store.put(content) for content in self.stored(number, index, upload))
        self.say(UpdateCommitted(number, attempt, index, commitment, ciphertext, shares, 0))

    def stored(self, number: int, index: Index, upload: Upload) -> tuple[bytes, bytes]:
        """The two objects that a trainer stores."""
        return upload.ciphertext, upload.shares

    def whole(self, number: int, index: Index) -> Bitmap:
        """What a shareholder vouches for."""
        return self.attempt().committed

    def receipt(self, number: int, index: Index) -> None:
        self.say(ReceiptPosted(number, self.attempt().attempt, index, self.whole(number, index), 0))

    def participants(self, number: int) -> Bitmap:
        chosen = choose_participants(self.state, self.attempt())
        assert chosen is not None
        return chosen

    def aggregator(self, number: int) -> Index:
        return aggregator_of(self.state, self.attempt(), self.chain.time + 5)

    def ciphertexts(self, number: int, participants: Bitmap) -> list[bytes]:
        commits = self.attempt().commits
        return [self.store.served[commits[i].ciphertext_cid] for i in members_of(participants)]

    def sum(self, number: int, participants: Bitmap) -> Aggregate:
        return sum_ciphertexts(self.ciphertexts(number, participants), self.form.model_size)

    def aggregate(self, number: int) -> None:
        participants = self.participants(number)
        total = self.sum(number, participants)
        cid = self.store.put(total.pack())
        index, attempt = self.aggregator(number), self.attempt().attempt
        self.lock(AggregateCommitted(number, attempt, 0, index, participants, total.root(), cid, 0))

    def lock(self, event: AggregateCommitted) -> None:
        """Lock a set, as the contract does: who missed a duty by then is told right before."""
        missed = duties_missed(self.state, self.attempt(), self.chain.time + 5)
        if not missed:
            self.say(event)
            return
        self.say(DutiesMissed(event.round, event.attempt, missed, 0))
        self.say_with(event)

    def locked(self, number: int) -> AggregateCommitted:
        locked = self.attempt().aggregate
        assert locked is not None
        return locked

    def open(self, number: int, index: Index) -> Opening:
        """The sum of a shareholder's shares over the locked set."""
        shares = [
            open_share(
                self.uploads[number, dealer].shares,
                self.context(number),
                dealer=dealer,
                dealer_address=self.members[dealer],
                encryption_keys=self.encryption_keys(),
                threshold=self.attempt().threshold,
                me=index,
                private_key=self.private_keys[self.encryption_keys()[index]],
            )
            for dealer in members_of(self.locked(number).participants)
        ]
        return make_opening(shares)

    def opening(self, number: int, index: Index) -> None:
        opening = self.open(number, index)
        cid = self.store.put(opening.encode())
        self.say(OpeningPublished(number, self.attempt().attempt, 0, index, opening.root(), cid, 0))

    def opened(self, number: int) -> Opened:
        participants = self.locked(number).participants
        return self.open_total(number, sum_ciphertexts(self.ciphertexts(number, participants), self.form.model_size))

    def open_total(self, number: int, total: Aggregate) -> Opened:
        """A sum, opened by everybody's honest openings."""
        return open_aggregate(
            total,
            {i: self.open(number, i) for i in members_of(self.state.heard)},
            threshold=self.attempt().threshold,
            participants=self.locked(number).participants.bit_count(),
            context=self.context(number),
            d=self.form.model_size,
        )

    def total_weight(self, participants: Bitmap) -> int:
        return sum(self.weight(i) for i in members_of(participants))

    def next_model(self, number: int, opened: Opened) -> bytes:
        participants = self.locked(number).participants
        base = self.store.served[self.state.base_model(number)[1]]
        mean = average(
            split_sums(opened.sums, self.form),
            participants=participants.bit_count(),
            total_weight=self.total_weight(participants),
            max_weight=max(self.weights.values()),
            form=self.form,
            rotation=self.context(number).rotation_seed,
        )
        return following_model(
            base,
            mean,
            charter=self.charter,
            weight=self.total_weight(participants),
            of_weight=sum(self.weights.values()),
        )

    def closer(self, number: int) -> Index:
        return self.locked(number).index

    def result(self, number: int) -> ResultCommitted:
        opened = self.opened(number)
        model = self.next_model(number, opened)
        return ResultCommitted(
            number,
            self.attempt().attempt,
            0,
            self.closer(number),
            bitmap_of(opened.committee),
            opened.key_sum_root,
            opened.result_root,
            self.store.put(opened.result.pack()),
            model_digest(model),
            self.store.put(model),
            0,
        )

    def close(self, number: int) -> None:
        self.say(self.result(number))

    # changing history afterwards

    def dropped(self, kind: type, **where: Any) -> Play:
        """A copy without the first event of a kind (and of these field values)."""
        play, at = self.copy(), self.place(kind, **where)
        del play.chain.events[at]
        play.chain.together = {i - (i > at) for i in play.chain.together if i != at}
        return play

    def inserted(self, event: Any, kind: type, **where: Any) -> Play:
        """A copy in which an event comes right after the first of a kind, at its time and in its transaction."""
        play, at = self.copy(), self.place(kind, **where)
        play.chain.events.insert(at + 1, replace(event, at=play.chain.events[at].at))
        play.chain.together = {i + (i > at) for i in play.chain.together} | {at + 1}
        return play

    def place(self, kind: type, **where: Any) -> int:
        """Where the first event of a kind with these field values stands in the log."""
        return next(i for i, event in enumerate(self.chain.events) if event is self.event(kind, **where))

    def copy(self) -> Play:
        """The same federation, to be changed without changing this one."""
        return copy.deepcopy(self)

    def edited(self, kind: type, changes: Any, **where: Any) -> Play:
        """A copy in which the first event of a kind (and of these field values) says something else."""
        play = self.copy()
        for i, event in enumerate(play.chain.events):
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in where.items()):
                play.chain.events[i] = replace(event, **(changes(event) if callable(changes) else changes))
                return play
        raise AssertionError(f"no {kind.__name__} with {where}")

    def event(self, kind: type, **where: Any) -> Any:
        """The first event of a kind with these field values."""
        return next(
            event
            for event in self.chain.events
            if isinstance(event, kind) and all(getattr(event, name) == value for name, value in where.items())
        )


def found(report: Report) -> set[tuple[int, int, str]]:
    """The faults of a report as (check, round, offender)."""
    assert all(f.expected and f.got and f.offender for f in report.faults)
    return {(int(f.check.split()[0]), f.round, f.offender) for f in report.faults}


def flipped(content: bytes, at: int) -> bytes:
    """The same bytes with one bit changed."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


class Lively(Play):
    """Honest rounds in which members come, go, rotate keys, miss duties, give up a set, and are asked for pages."""

    def commit(self, number: int, index: Index) -> None:
        if (number, index) == (1, 0):
            self.admit(JOINER)
            self.enrol(Index(5))
            self.remove(Index(4))
            self.rotate(Index(2))
        if (number, index) == (3, 0):
            self.say(MemberLeaving(Index(3), False, 0))
        super().commit(number, index)

    def aggregate(self, number: int) -> None:
        # The first aggregator of the run lets its turn pass.
        self.chain.time += self.charter.windows.aggregate_s if number == 1 else 0
        super().aggregate(number)

    def close(self, number: int) -> None:
        if number == 2 and self.attempt().attempt == 0:
            self.abandon(2)
            super().round(2)
            return
        if number == 3:
            self.say(BondWithdrawn(Index(4), self.state.bond_of(Index(4)), 0), after_s=2000)
        super().close(number)
        if number == 1:
            self.show_root()

    def show_root(self) -> None:
        """Somebody demands the root's page of the first sum, and its author shows it."""
        posted = self.state.closed[1].posted_sum
        assert posted is not None
        page, author = aggregate_page(posted, self.form.model_size), self.members[posted.index]
        total = Aggregate.parse(self.store.served[posted.cid], self.form.model_size)
        self.demand(page, by=STRANGER)
        self.show(page, show_aggregate(page, total), by=author)
        self.say(RewardWithdrawn(author, self.state.terms.deposit_wei, 0))
