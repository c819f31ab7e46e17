"""The audit of one federation: every check of docs/audit.md, on every round, from chain and store alone.

Takes readers only. It needs no key and nobody's permission, believes neither the contract nor the store nor a member,
and goes on after a fault: later rounds are judged against what stands on chain.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from ..chain.deployment import verify
from ..chain.reader import Reader
from ..ports import ChainReader, Logged
from ..protocol.charter import Charter
from ..protocol.events import FederationFounded
from ..protocol.ids import Index, members_of, size_of
from ..protocol.phase import challenges_end_at, live_attempt, training_end
from ..protocol.privacy import account_of
from ..protocol.state import Attempt, FederationState
from ..protocol.suspicion import suspicion, was_opened
from .bundle import Bundle
from .closing import check_closing
from .founding import CodeCheck, check_chain, check_charter, check_code, check_genesis
from .history import History, replay
from .ledger import FEDERATION, Ledger, Scope
from .report import (
    FEDERATION_CHECKS,
    ROUND_CHECKS,
    Account,
    Complaint,
    Money,
    Outcome,
    Refutation,
    Report,
    Seconds,
    Status,
    Totals,
)
from .shelf import Objects, Shelf
from .stakes import check_money, membership_of
from .subject import Subject
from .uploads import check_uploads
from .words import gwei_in_words, time_in_words

OBJECT_CHECKS = (3, 4, 5, 7, 8, 9, 10)
"""The checks of a round that need its objects."""

Watch = Callable[[int, int, str], None]
"""Called with (done, total, what comes next) while the audit runs."""


def audit(
    reader: ChainReader,
    store: Objects,
    *,
    code_check: CodeCheck | None = None,
    only_round: int | None = None,
    watch: Watch = lambda done, total, what: None,
) -> Report:
    """Audit the federation that `reader` reads, with the objects of `store`.

    `code_check` compares the contract's code with the committed build; left out, it is made from a reader that can tell
    (`chain.reader.Reader`, `Bundle`). `only_round` limits what is fetched to one round; what the log alone tells is
    always checked whole. `watch` is called as the audit goes on.
    Raises ChainUnreachable, ChainMismatch and StoreUnreachable: the auditor's own doors are shut, nobody is to blame.
    """
    with tempfile.TemporaryDirectory(prefix="fedchain-audit-") as folder:
        return _Audit(reader, store, Path(folder), only_round, watch).run(code_check or _code_check_of(reader))


def _code_check_of(reader: ChainReader) -> CodeCheck | None:
    """The comparison that a reader allows, if any."""
    match reader:
        case Reader():

            def compare() -> None:
                verify(reader)

            return compare
        case Bundle():
            return reader.code_check()
        case _:
            return None


def _balance_of(reader: ChainReader) -> int | None:
    """What the contract holds, of a reader that can tell."""
    return reader.balance() if isinstance(reader, Reader | Bundle) else None


class _Audit:
    def __init__(self, reader: ChainReader, store: Objects, folder: Path, only_round: int | None, watch: Watch) -> None:
        self._reader = reader
        self._shelf = Shelf(store, folder)
        self._ledger = Ledger()
        self._only_round = only_round
        self._watch = watch
        self._right: dict[Refutation, bool] = {}
        self._complaints: list[Complaint] = []
        self._opened: set[tuple[int, int]] = set()

    def run(self, code_check: CodeCheck | None) -> Report:
        self._watch(0, 1, "reading the chain")
        check_code(code_check, self._ledger)
        self._reader.refresh()
        log, now = self._reader.log(), self._reader.now()
        founding = log[0].event if log else None
        charter = None
        if isinstance(founding, FederationFounded):
            charter = check_charter(founding, self._shelf, self._ledger)
        chain_id, contract = self._reader.chain_id, self._reader.contract
        history = replay(log, charter, self._ledger, chain_id=chain_id, contract=contract)
        state = history.state
        check_genesis(state, charter, self._shelf, self._ledger)
        gas = self._gas(log, history)
        attempts = list(_attempts(state, now))
        accounts = []
        for done, (attempt, outcome) in enumerate(attempts):
            self._watch(done, len(attempts), f"round {attempt.round}, attempt {attempt.attempt}")
            accounts.append(self._account(history, attempt, outcome, charter, now, gas))
        closed = tuple(a for a in accounts if a.outcome == "closed")
        check_chain(state, closed, self._ledger)
        money = check_money(history.state, history.docket, _balance_of(self._reader), self._ledger)
        self._note_bonds(history, now)
        self._watch(len(attempts), len(attempts), "done")
        unfinished = tuple(a for a in accounts if a.outcome != "closed")
        return self._report(log, history, charter, closed, unfinished, gas, money)

    def _gas(self, log: tuple[Logged, ...], history: History) -> dict[Scope, int]:
        """The gas of every scope's transactions; one that made several events counts once, where its first belongs."""
        gas: defaultdict[Scope, int] = defaultdict(int)
        counted: set[bytes] = set()
        for entry, scope in zip(log, history.scopes, strict=True):
            if entry.transaction not in counted:
                counted.add(entry.transaction)
                gas[scope] += self._reader.gas_used(entry.transaction)
        return gas

    def _account(
        self,
        history: History,
        attempt: Attempt,
        outcome: Outcome,
        charter: Charter | None,
        now: int,
        gas: dict[Scope, int],
    ) -> Account:
        state, place = history.state, (attempt.round, attempt.attempt)
        subject = Subject(
            chain_id=self._reader.chain_id,
            contract=self._reader.contract,
            state=state,
            attempt=attempt,
            outcome=outcome,
            charter=charter,
            shelf=self._shelf,
            ledger=self._ledger,
            fallen=tuple(f for f in history.docket.refutations if (f.round, f.attempt) == place),
        )
        fetched_before = self._shelf.fetched_bytes
        if self._only_round not in (None, attempt.round):
            self._defer(subject.scope, "left out (--round)")
        elif outcome == "open" and training_end(state, attempt, now) is None:
            self._defer(subject.scope, "the training window is open")
        else:
            recomputed = check_closing(subject, check_uploads(subject))
            if recomputed.opened is not None and not recomputed.out_of_range:
                self._opened.add((attempt.round, attempt.attempt))
        self._right |= subject.right
        self._complaints += subject.complaints
        self._shelf.clear(keep=attempt.result.model_cid if attempt.result else attempt.base_cid)
        locked, result = attempt.aggregate, attempt.result
        return Account(
            round=attempt.round,
            attempt=attempt.attempt,
            outcome=outcome,
            committed=members_of(attempt.committed),
            participants=members_of(locked.participants) if locked else (),
            aggregator=locked.index if locked else None,
            openers=tuple(sorted(attempt.openings)),
            closer=result.index if result else None,
            upload_bytes=subject.seen_bytes,
            download_bytes=self._shelf.fetched_bytes - fetched_before,
            gas=gas.get(subject.scope, 0),
            seconds=_seconds(state, attempt, now),
            model_digest=result.model_digest if result else None,
            checks=tuple(self._ledger.check(subject.scope, number) for number in ROUND_CHECKS),
        )

    def _defer(self, scope: Scope, reason: str) -> None:
        for number in OBJECT_CHECKS:
            self._ledger.defer(scope, number, reason)

    def _note_bonds(self, history: History, now: int) -> None:
        """Check 12 has judged every withdrawal; what is left to say is what the contract must still hold."""
        state = history.state
        held = size_of(state.bonded)
        free = challenges_end_at(state, now)
        if free is None:
            until = "held until the run is over"
        else:
            until = f"held until {time_in_words(free)}" if now < free else "free to be taken back"
        self._ledger.note(FEDERATION, 12, f"{held} bonds of {gwei_in_words(state.terms.bond_wei)}, {until}")
        if state.slashed:
            self._ledger.note(FEDERATION, 12, f"{size_of(state.slashed)} slashed")

    def _report(
        self,
        log: tuple[Logged, ...],
        history: History,
        charter: Charter | None,
        closed: tuple[Account, ...],
        unfinished: tuple[Account, ...],
        gas: dict[Scope, int],
        money: Money,
    ) -> Report:
        state, docket = history.state, history.docket
        checks = tuple(self._ledger.check(FEDERATION, number) for number in FEDERATION_CHECKS)
        every = [*checks, *(c for account in (*closed, *unfinished) for c in account.checks)]
        return Report(
            chain_id=self._reader.chain_id,
            contract=self._reader.contract,
            block_number=log[-1].block_number,
            block_hash=log[-1].block_hash,
            charter=charter,
            members=tuple(membership_of(state, Index(i), docket) for i in range(len(state.accounts))),
            rounds=closed,
            unfinished=unfinished,
            refutations=tuple(replace(fallen, right=self._right.get(fallen)) for fallen in docket.refutations),
            complaints=tuple(self._complaints),
            votings=tuple(docket.votings),
            demands=tuple(docket.demands.values()),
            money=money,
            checks=checks,
            totals=Totals(
                rounds=len(closed),
                upload_bytes=sum(a.upload_bytes for a in (*closed, *unfinished)),
                download_bytes=self._shelf.fetched_bytes,
                gas=sum(gas.values()),
                seconds=sum(a.seconds.total for a in closed),
                checks_passed=sum(c.status is Status.PASSED for c in every),
                checks_not_possible=sum(c.status is Status.NOT_POSSIBLE for c in every),
            ),
            model_digest=state.model_digest,
            model_cid=state.model_cid,
            faults=self._ledger.faults(),
            privacy=account_of(charter, state) if charter else None,
            suspicion=suspicion(state, is_spoiled=self._is_spoiled),
        )

    def _is_spoiled(self, attempt: Attempt) -> bool:
        """Whether an attempt's set was opened by t members, and not even the auditor could decode it to what honest
        values give."""
        return was_opened(attempt) and (attempt.round, attempt.attempt) not in self._opened


def _attempts(state: FederationState, now: int) -> Iterator[tuple[Attempt, Outcome]]:
    """Every attempt that holds a statement, by round and number, with what became of it."""
    found: list[tuple[Attempt, Outcome]] = [(attempt, "closed") for attempt in state.closed.values()]
    found += [(attempt, "abandoned" if attempt.aggregate else "void") for attempt in state.voided]
    found += [(attempt, "forgotten") for attempt in state.forgotten]
    current, live = state.current, live_attempt(state, now)
    if current is not None and current.commits:
        under_way = live is not None and (live.round, live.attempt) == (current.round, current.attempt)
        found.append((current, "open" if under_way else "void"))
    yield from sorted(found, key=lambda entry: (entry[0].round, entry[0].attempt))


def _seconds(state: FederationState, attempt: Attempt, now: int) -> Seconds:
    """Where the time went, as far as the attempt got; see `Seconds`."""
    locked, result = attempt.aggregate, attempt.result
    if not attempt.commits:
        return Seconds()
    first = min(commit.at for commit in attempt.commits.values())
    train = first - attempt.started_at
    if locked is None:
        return Seconds(train=train)
    commit = attempt.last_commit_at - first
    aggregate = locked.at - attempt.last_commit_at
    opened = sorted(opening.at for opening in attempt.openings.values())[: attempt.threshold]
    if len(opened) < attempt.threshold:
        return Seconds(train=train, commit=commit, aggregate=aggregate)
    opening = opened[-1] - locked.at
    close = result.at - opened[-1] if result else None
    return Seconds(train=train, commit=commit, aggregate=aggregate, open=opening, close=close)
