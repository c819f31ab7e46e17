"""The picture that `fedchain status` draws: members, round, phase, whose turn it is, and the time left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eth_utils.address import to_checksum_address
from rich.console import Group
from rich.table import Table
from rich.text import Text
from typing_extensions import assert_never

from ..audit.words import privacy_in_words, spoiled_in_words
from ..errors import CharterMismatch
from ..protocol.charter import Charter, read_charter
from ..protocol.events import Motion
from ..protocol.ids import Index, members_of, size_of
from ..protocol.phase import (
    Phase,
    aggregator_of,
    challenges_end_at,
    is_finished,
    live_attempt,
    phase_of,
    receipts_end,
    training_end,
    turn_of,
)
from ..protocol.privacy import account_of
from ..protocol.state import Attempt, Ballot, FederationState
from ..protocol.suspicion import suspicion
from ..protocol.votes import votes_for


@dataclass(frozen=True, slots=True)
class Duty:
    """What the federation waits for, and until when: `deadline` (seconds of chain time) is None where there is none."""

    waits_for: str
    deadline: int | None


def duty_of(state: FederationState, now: int) -> Duty:
    """What must happen next, in words, and the deadline by which it should."""
    terms, phase = state.terms, phase_of(state, state.round, now)
    attempt = live_attempt(state, now)
    if attempt is None:
        missing = len(state.founders) - len(state.members)
        return Duty(f"{_counted(missing, 'founder')} to enrol", state.founded_at + terms.enrol_window_s)
    everyone = len(attempt.order)
    match phase:
        case Phase.FINISHED:
            free = challenges_end_at(state, now)
            if free is not None and now < free:
                return Duty("nothing: the run is finished; while statements may be challenged bonds are held", free)
            return Duty("nothing: the run is finished, and bonds are free", None)
        case Phase.TRAINING:
            end = attempt.started_at + terms.training_window_s
            return Duty(f"{_counted(everyone - len(attempt.commits), 'member')} to commit an update", end)
        case Phase.RECEIPTS:
            trained = training_end(state, attempt, now)
            end = (trained or now) + terms.receipt_window_s
            return Duty(f"{_counted(everyone - len(attempt.receipts), 'member')} to post a receipt", end)
        case Phase.AGGREGATING:
            received = receipts_end(state, attempt, now) or now
            end = received + (turn_of(state, attempt, now) + 1) * terms.aggregate_window_s
            return Duty(f"member {aggregator_of(state, attempt, now)} to post the sum", end)
        case Phase.OPENING:
            return Duty(f"{_counted(attempt.threshold - len(attempt.openings), 'more opening')}", None)
        case _:
            return Duty("any member to post the result", None)


def charter_in(folder: Path, state: FederationState) -> Charter:
    """The charter in a member's folder. Raises CharterMismatch unless it is the one whose digest the contract holds."""
    charter = read_charter(folder)
    if charter.digest() != state.terms.charter_digest:
        raise CharterMismatch(f"{folder} holds another charter than this federation's; give the right folder")
    return charter


def picture(state: FederationState, now: int, where: str, charter: Charter | None = None) -> Group:
    """The whole picture, for a terminal; with the charter also what was spent of its privacy budget."""
    phase, attempt = phase_of(state, state.round, now), live_attempt(state, now)
    round = min(state.round, state.terms.rounds)
    head = Text.assemble((where, "dim"), "\n")
    head.append(f"round {round} of {state.terms.rounds}", style="bold")
    if attempt is not None and attempt.attempt and not is_finished(state, now):
        head.append(f", attempt {attempt.attempt + 1}")
    head.append(" · ")
    head.append(phase.name.lower(), style="bold green" if phase is Phase.FINISHED else "bold cyan")
    head.append(f" · {len(state.closed)} closed · {size_of(state.standing)} of {len(state.accounts)} members count")
    head.append(f" · threshold {state.threshold}")
    lines = [Text("waits for " + _waiting(state, now))]
    account = account_of(charter, state) if charter is not None else None
    if account is not None:
        lines.append(Text("privacy: " + privacy_in_words(account), "bold red" if account.is_overspent else ""))
    lines += [Text(f"spoiled {line}", "bold red") for line in spoiled_in_words(suspicion(state))]
    lines += [Text(f"motion  {line}") for line in motions_of(state)]
    lines += [Text(f"demand  {line}") for line in demands_of(state, now)]
    return Group(head, _members(state, attempt, phase, now), *lines)


def motions_of(state: FederationState) -> list[str]:
    """The motions under way, each with its votes: of members that are heard, and of how many it takes."""
    lines = []
    for ballot in state.ballots:
        if ballot != state.ballot(ballot.motion, ballot.round, ballot.attempt, ballot.subject):
            continue  # other members stand now
        votes = votes_for(state, ballot)
        # What a ballot of a round that is over was about has settled itself.
        if votes and _is_open(state, ballot):
            voters = ", ".join(str(index) for index in members_of(votes))
            lines.append(f"{_motion(state, ballot)}: {size_of(votes)} of {state.threshold} votes, by {voters}")
    if state.stop_votes and state.round <= state.terms.rounds:
        voters = ", ".join(str(index) for index in members_of(state.stop_votes))
        count = f"{size_of(state.stop_votes)} of {state.threshold} votes"
        lines.append(f"stop with the model of round {state.round - 1}: {count}, by {voters}")
    return lines


def demands_of(state: FederationState, now: int) -> list[str]:
    """The demands that are open: of what, whose, and until when."""
    lines = []
    for demand in state.demands.values():
        if demand.open:
            page, left = demand.page, demand.deadline - now
            what = f"page {page.level}/{page.position} of the {page.kind.name.lower().replace('_', ' ')}"
            when = f"{in_time(left)} left" if left > 0 else "unanswered: who closes it proves the silence"
            lines.append(f"{what} of round {page.round}, by member {page.index}: {when}")
    return lines


def _is_open(state: FederationState, ballot: Ballot) -> bool:
    match ballot.motion:
        case Motion.ABANDON:
            current = state.current
            return current is not None and (ballot.round, ballot.attempt) == (current.round, current.attempt)
        case Motion.REFUSE:
            closed = state.closed.get(ballot.round)
            return closed is not None and closed.result is not None and closed.result.model_digest == ballot.subject
        case _:
            return True


def _motion(state: FederationState, ballot: Ballot) -> str:
    match ballot.motion:
        case Motion.ADMIT:
            return f"admit {to_checksum_address(ballot.subject[-20:])}"
        case Motion.REMOVE:
            return f"remove member {int.from_bytes(ballot.subject, 'big')}"
        case Motion.ABANDON:
            return f"abandon the set of round {ballot.round}, attempt {ballot.attempt + 1}"
        case Motion.REFUSE:
            return f"refuse the model {ballot.subject.hex()[:16]}… of round {ballot.round}"
        case _:
            assert_never(ballot.motion)


def _waiting(state: FederationState, now: int) -> str:
    duty = duty_of(state, now)
    if duty.deadline is None:
        return duty.waits_for
    left = duty.deadline - now
    return f"{duty.waits_for}; {'time left ' + in_time(left) if left > 0 else 'overdue by ' + in_time(-left)}"


def _members(state: FederationState, attempt: Attempt | None, phase: Phase, now: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("", "member", "weight", "committed", "receipt", "opened", "strikes", ""):
        table.add_column(name, justify="left" if name in ("member", "") else "right")
    for i, account in enumerate(state.accounts):
        index = Index(i)
        member = state.members.get(index)
        said = ["", "", ""]
        if attempt is not None and phase is not Phase.FINISHED:
            receipt = attempt.receipts.get(index)
            said = [
                "yes" if index in attempt.commits else "",
                f"{size_of(receipt.whole)}/{len(attempt.commits)}" if receipt else "",
                "yes" if index in attempt.openings else "",
            ]
        table.add_row(
            str(i),
            f"{account[:10]}…{account[-6:]}",
            str(member.weight) if member else "-",
            *said,
            str(state.strikes.get(index, "")),
            _remark(state, attempt, phase, now, index),
        )
    return table


def _remark(state: FederationState, attempt: Attempt | None, phase: Phase, now: int, index: Index) -> str:
    if state.slashed >> index & 1:
        return "slashed"
    if index not in state.members:
        return "admitted" if state.admitted >> index & 1 else "not enrolled"
    if not state.bonded >> index & 1:
        return "bond taken back"
    if state.joining >> index & 1:
        return "counts from the next round on"
    if not state.standing >> index & 1:
        return "left"
    if state.leaving >> index & 1:
        return "removed: counts no more from the next round on" if state.removed >> index & 1 else "resigned"
    if attempt is not None and phase is Phase.AGGREGATING and aggregator_of(state, attempt, now) == index:
        return "aggregates now"
    if attempt is not None and attempt.aggregate is not None and attempt.aggregate.index == index:
        return "aggregated"
    return ""


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def in_time(seconds: int) -> str:
    """A span for people: its two largest units."""
    parts: list[str] = []
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        amount, seconds = divmod(seconds, unit)
        if amount or (unit == 1 and not parts):
            parts.append(f"{amount} {name}")
    return " ".join(parts[:2])
