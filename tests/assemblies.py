"""What the members of a random history (`histories.py`) decide and demand: votes, who comes and goes, keys, pages.

Both twins must let in the same, and refuse the rest by the same reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fedchain.protocol import actions as say
from fedchain.protocol.demands import check_closed, check_demand, check_shown
from fedchain.protocol.disputes import Refused
from fedchain.protocol.events import DemandClosed
from fedchain.protocol.evidence import NO_ROOT, Line
from fedchain.protocol.ids import Address, Digest, Index, Root, members_of
from fedchain.protocol.merkle import hash_leaf
from fedchain.protocol.pages import Kind, Page, Words, show
from fedchain.protocol.phase import Phase, bond_free_at, phase_of
from fedchain.protocol.scheme import KEY_LEAVES
from fedchain.protocol.state import Attempt, FederationState
from fedchain.protocol.votes import ballot_of, check_vote

NOBODY = Address("0x" + "00" * 20)


def reason_of(check: Callable[..., Any], *arguments: Any) -> str:
    """The error's name by which a check refuses; "" if it does not."""
    try:
        check(*arguments)
    except Refused as refused:
        return refused.error_name
    return ""


def hearing(state: FederationState, member: Index | None) -> str:
    """The error's name for a sender that is not heard; "" for one that is."""
    if member is not None and state.slashed >> member & 1:
        return "FederationSlashed"
    return "" if member is not None and state.standing >> member & 1 else "FederationNotMember"


class Assembly:
    """What the members of one history decide and demand. `only` names the kinds of motions, where given."""

    def __init__(self, history: Any, demanding: float = 0.3, motions: str = "admit remove abandon refuse") -> None:
        self.history = history
        self.chosen = history.chosen
        self.demanding = demanding
        self.motions = motions.split()
        self.vote: say.Vote | None = None

    def step(self, at: int) -> None:
        """One vote, one coming or going, or one demand."""
        die = self.chosen.random()
        if die < self.demanding:
            self.demand_or_answer(at)
        elif die < self.demanding + 0.15:
            self.come_or_go(at)
        else:
            self.cast(at)

    def expect(self, sender: Address, action: say.Action, at: int, reason: str) -> None:
        """Both twins let it in, or refuse it by the same reason."""
        assert self.history.act(sender, action, at) == reason, (action, self.history.state.index_of(sender))

    # Votes: one campaign at a time, so that now and then one succeeds.

    def cast(self, at: int) -> None:
        state = self.history.state
        locked = phase_of(state, state.round, at) in (Phase.OPENING, Phase.CLOSING)
        lapsed = isinstance(self.vote, say.VoteToAbandon) and not locked
        if self.vote is None or lapsed or self.chosen.random() < (0.3 if locked and "abandon" in self.motions else 0.1):
            self.vote = self.campaign(state, locked)
        vote = self.vote
        spoken = state.ballots.get(ballot_of(state, vote), 0)
        silent = members_of(state.heard & ~spoken)
        member = self.chosen.choice(silent) if silent and self.chosen.random() < 0.9 else self.history.anybody()
        reason = hearing(state, Index(member)) or reason_of(check_vote, state, Index(member), vote, at)
        self.expect(state.accounts[member], vote, at, reason)
        if ballot_of(state, vote) not in self.history.state.ballots:
            self.history.tally[f"{type(vote).__name__} carried"] += not reason
            self.vote = None

    def campaign(self, state: FederationState, locked: bool) -> say.Vote:
        motion = self.chosen.choice(self.motions)
        if motion == "abandon" and (locked or self.chosen.random() < 0.2):
            number = state.current.attempt if state.current else 0
            # Seldom of another place.
            return say.VoteToAbandon(state.round - (self.chosen.random() < 0.1), number + (self.chosen.random() < 0.1))
        if motion == "refuse":
            round = self.chosen.choice((*state.closed, *state.closed, *state.closed, state.round))
            closed = state.closed.get(round)
            digest = closed.result.model_digest if closed is not None and closed.result else bytes(32)
            return say.VoteToRefuse(round, Digest(self.history.basis(digest)))
        if motion == "remove":
            return say.VoteToRemove(Index(self.history.anybody()))
        accounts = self.history.chain.accounts
        account = self.chosen.choice((*accounts, NOBODY) if self.chosen.random() < 0.2 else accounts)
        return say.VoteToAdmit(Address(account))

    # Who comes and goes.

    def come_or_go(self, at: int) -> None:
        state, terms = self.history.state, self.history.state.terms
        kind = self.chosen.choice(("enrol", "enrol", "resign", "rotate", "bond"))
        member = Index(self.history.anybody())
        if kind == "enrol":
            welcome = members_of(state.admitted)
            member = self.chosen.choice(welcome) if welcome and self.chosen.random() < 0.8 else member
            weight = self.chosen.randrange(1, 50)
            said = say.Enrol(self.chosen.randbytes(32), weight, terms.bond_wei)
            self.expect(state.accounts[member], said, at, self.enrolling(state, member, at))
            return
        phase = phase_of(state, state.round, at)
        wrong = "FederationWrongPhase" if phase in (Phase.ENROLLING, Phase.FINISHED) else ""
        reason = hearing(state, member) or wrong
        if kind == "resign":
            if self.chosen.random() < 0.4:  # else nobody would be left
                leaving = "FederationAlreadyLeaving" if state.leaving >> member & 1 else ""
                self.expect(state.accounts[member], say.Resign(), at, reason or leaving)
        elif kind == "rotate":
            self.expect(state.accounts[member], say.RotateKey(self.chosen.randbytes(32)), at, reason)
        else:
            apart = members_of(state.bonded & ~state.standing)
            member = self.chosen.choice(apart) if apart and self.chosen.random() < 0.8 else member
            free = bond_free_at(state, member, at)
            locked = "" if free is not None and at >= free else "FederationBondLocked"
            locked = locked if state.bonded >> member & 1 else "FederationNothingToWithdraw"
            self.expect(state.accounts[member], say.WithdrawBond(), at, locked)
            self.history.tally["a bond back while the run goes on"] += not locked and phase is not Phase.FINISHED

    def enrolling(self, state: FederationState, member: Index, at: int) -> str:
        phase = phase_of(state, state.round, at)
        if state.slashed >> member & 1:
            return "FederationSlashed"
        if phase is Phase.FINISHED:
            return "FederationWrongPhase"
        if state.bonded >> member & 1:
            return "FederationAlreadyEnrolled"
        known = phase is Phase.ENROLLING or state.admitted >> member & 1
        return "" if known else "FederationNotAdmitted"

    # Demands.

    def demand_or_answer(self, at: int) -> None:
        state = self.history.state
        known, die = [demand.page for demand in state.demands.values()], self.chosen.random()
        waiting = [demand.page for demand in state.demands.values() if demand.open]
        page = self.chosen.choice(waiting if waiting and self.chosen.random() < 0.9 else known) if known else None
        if page is None or (die < 0.4 and not waiting):
            self.demand(at)
        elif die < 0.8:
            self.answer(page, at)
        else:
            self.close(page, at)

    def demand(self, at: int) -> None:
        history, state = self.history, self.history.state
        attempts = (*state.voided, *state.forgotten, *state.closed.values(), state.current)
        said = [attempt for attempt in attempts if attempt is not None and attempt.commits]
        if not said:
            return
        page, lines = self.page_of(self.chosen.choice((*said, said[-1])))
        deposit = state.terms.deposit_wei + (self.chosen.random() < 0.05)
        action = say.DemandPage(page, lines, deposit)
        self.expect(history.chain.accounts[-1], action, at, reason_of(check_demand, state, action, at))

    def page_of(self, attempt: Attempt) -> tuple[Page, tuple[Line, ...]]:
        """A page of something that was said in this attempt; seldom with something wrong in it."""
        state = self.history.state
        lines: tuple[Line, ...] = ()
        words: dict[Kind, tuple[Index, Any]] = {Kind.CIPHERTEXT: self.chosen.choice(list(attempt.commits.items()))}
        if attempt.posted_sum is not None:
            words[Kind.AGGREGATE] = attempt.posted_sum.index, attempt.posted_sum
        if attempt.openings:
            words[Kind.OPENING] = self.chosen.choice(list(attempt.openings.items()))
        if attempt.result is not None:
            words[Kind.KEY_SUM] = words[Kind.RESULT] = attempt.result.index, attempt.result
        kind = self.chosen.choice(list(words))
        index, said = words[kind]
        names = {Kind.CIPHERTEXT: "commitment", Kind.KEY_SUM: "key_sum_root", Kind.RESULT: "result_root"}
        word = self.history.basis(getattr(said, names.get(kind, "root")))
        if kind is Kind.CIPHERTEXT:
            lines = tuple(Line(i, commit.commitment) for i, commit in attempt.commits.items())
        elif kind is Kind.OPENING:
            lines = tuple(Line(i, opening.root) for i, opening in attempt.openings.items())
        depth = 5 if kind in (Kind.OPENING, Kind.KEY_SUM) else 0
        level = self.chosen.randint(0, depth + (self.chosen.random() < 0.1))
        position = self.chosen.randrange((1 << max(depth - level, 0)) + (self.chosen.random() < 0.1))
        if self.chosen.random() < 0.05:
            index = Index(self.chosen.randrange(len(state.accounts)))
        return Page(kind, index, attempt.round, attempt.attempt, 0, level, position, word), lines

    def answer(self, page: Page, at: int) -> None:
        history, state = self.history, self.history.state
        other, words = self.words_of(page)
        if self.chosen.random() < 0.1:
            words = (*words[:-1], self.chosen.randbytes(32)) if self.chosen.random() < 0.5 else words[1:]
        action = say.ShowPage(page, other, words)
        reason = reason_of(check_shown, state, history.chain.chain_id, history.address, action, at)
        self.expect(state.accounts[history.anybody()], action, at, reason)

    def words_of(self, page: Page) -> tuple[Root, Words]:
        """What shows this page, where it is known; made up where it is not."""
        history = self.history
        if page.kind is Kind.CIPHERTEXT:
            leaf, other = history.uploads[page.round, page.attempt, page.index]
            return other, show(page, [hash_leaf(_content(leaf))], _content(leaf))
        leaf = history.leaves.get(page.word, (0,) * 64)
        contents = [_content(leaf)]
        if page.kind in (Kind.OPENING, Kind.KEY_SUM):
            contents += [bytes(512)] * (KEY_LEAVES - 1)
        return NO_ROOT, show(
            page, [hash_leaf(content) for content in contents], contents[page.position % len(contents)]
        )

    def close(self, page: Page, at: int) -> None:
        history, state = self.history, self.history.state
        deadline = state.demands[page.name].deadline
        if at < deadline and self.chosen.random() < 0.3:
            at = deadline
        action, bonded = say.CloseDemand(page), state.bonded
        reason = reason_of(check_closed, state, action, at)
        silent = check_closed(state, action, at) if not reason else False
        self.expect(history.chain.accounts[-1], action, at, reason)
        if reason:
            return
        first, *rest = history.told
        assert isinstance(first, DemandClosed) and first.silent == silent
        history.tally["silent" if silent else "closed without blame"] += 1
        fell = {Kind.AGGREGATE: ["AggregateRefuted"], Kind.KEY_SUM: ["ResultRefuted"], Kind.RESULT: ["ResultRefuted"]}
        slashed = ["MemberSlashed"] if bonded >> page.index & 1 else []
        assert [type(event).__name__ for event in rest] == (fell.get(page.kind, []) + slashed if silent else [])


def _content(leaf: tuple[int, ...]) -> bytes:
    return b"".join(residue.to_bytes(8, "little") for residue in leaf)
