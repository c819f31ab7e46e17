"""Quantities and verdicts as people read them, the same on the terminal and in the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from ..protocol.ids import members_of
from ..protocol.privacy import PrivacyAccount
from ..protocol.suspicion import Suspicion
from .report import Complaint, Refutation, Report, Voting


def verdict_in_words(report: Report) -> str:
    """One line: what the audit comes to."""
    if report.faults:
        offenders = sorted({fault.offender for fault in report.faults})
        return f"{_count(len(report.faults), 'fault')}, by {', '.join(offenders)}"
    undone = report.totals.checks_not_possible
    if undone:
        return f"ok as far as could be seen; {_count(undone, 'check')} could not be made"
    passed = f"ok, {_count(report.totals.checks_passed, 'check')} passed over {_count(report.totals.rounds, 'round')}"
    fallen = len(report.refutations)
    return f"{passed}; {_count(fallen, 'statement')} fell on chain" if fallen else passed


def refutation_in_words(report: Report, refutation: Refutation) -> str:
    """What fell, why, by which rule, what it cost its author, who set it right, and what the audit makes of it."""
    how = {"challenge": "was refuted", "silence": "was kept back", "vote": "was refused by vote"}[refutation.by]
    words = f"round {refutation.round}: the {refutation.what} of {report.address_of(refutation.offender)} {how}"
    slash = refutation.slash
    if slash is None:
        words += "; its author had been slashed before"
    else:
        paid = f", {gwei_in_words(slash.reward_wei)} to {slash.challenger}" if slash.reward_wei else ""
        words += f" (R{slash.rule}): slashed, {gwei_in_words(slash.burnt_wei)} burnt{paid}"
    if refutation.restated_by is not None:
        words += f"; posted anew by {report.address_of(refutation.restated_by)}"
    if refutation.right:
        words += "; it was right, as the audit computes it"
    return words


def complaint_in_words(report: Report, complaint: Complaint) -> str:
    """Who complained about whom, and what the evidence comes to."""
    accused, author = report.address_of(complaint.dealer), report.address_of(complaint.author)
    said = f"round {complaint.round}: {author} complained about the dealing of {accused}"
    match complaint.outcome:
        case "proven":
            return f"{said}: proven ({complaint.why})"
        case "false":
            return f"{said}: its evidence proves nothing"
        case "off record":
            return f"{said}: it is about another commitment than the one on record, which is nobody's fault"
        case "unchecked":
            return f"{said}: its evidence is not to be had, which says nothing about either"


def privacy_in_words(account: PrivacyAccount) -> str:
    """What was spent of which budget, and how far the rest goes."""
    noise = f"noise {account.multiplier:g} times what one {'record' if account.mode == 'records' else 'member'} can add"
    spent = f"ε {account.spent:.3f} of {account.epsilon:g} spent at δ {account.delta:g}"
    return f"{spent}, by {_count(len(account.releases), 'release')}; {noise}; room for {account.rounds_left} more"


def spoiled_in_words(found: Suspicion | None) -> list[str]:
    """What the sets that were opened and did not close tell of who spoiled them: people decide whom to remove."""
    if found is None:
        return []
    places = ", ".join(f"round {attempt.round} attempt {attempt.attempt + 1}" for attempt in found.spoiled)
    lines = [f"opened by t members, and did not close: {places}; in all of them: {_indices(found.always)}"]
    if found.cleared:
        lines.append(f"of these in a sum that closed since: {_indices(found.cleared)}")
    price = "to remove an honest member by vote costs the secrecy of one update of its"
    return [*lines, f"if one member spoils every set that it is in, it is among: {_indices(found.suspects)}; {price}"]


def motion_in_words(voting: Voting) -> str:
    """What was voted on."""
    match voting.motion:
        case "abandon":
            return f"round {voting.round}: to give up the set of attempt {voting.attempt + 1}"
        case "refuse":
            return f"round {voting.round}: to refuse the model {voting.subject[:16]}…"
        case motion:
            return f"to {motion} {voting.subject}"


def voting_in_words(voting: Voting) -> str:
    """What was voted on, by whom, and whether it was carried."""
    end = f"carried at {time_in_words(voting.carried_at)}" if voting.carried_at is not None else "not carried"
    return f"voted {motion_in_words(voting)}: members {members_in_words(voting.voters)}; {end}"


def demands_in_words(report: Report) -> list[str]:
    """A line for each object of which pages were demanded: how many, and what became of them."""
    lines = []
    objects = dict.fromkeys((d.round, d.attempt, d.kind, d.author) for d in report.demands)
    for place in objects:
        pages = [d for d in report.demands if (d.round, d.attempt, d.kind, d.author) == place]
        ends = [
            f"{count} {words}"
            for outcome, words in OUTCOMES.items()
            if (count := sum(page.outcome == outcome for page in pages))
        ]
        what = f"{_count(len(pages), 'page')} of the {place[2]} of {report.address_of(place[3])} demanded"
        lines.append(f"round {place[0]}: {what}: {', '.join(ends)}")
    return lines


OUTCOMES = {"open": "open", "shown": "shown", "silent": "kept back, and its author fell", "closed": "closed"}
"""What became of a demand."""


def members_told(report: Report) -> list[str]:
    """A line for each member that did not simply take part from the beginning to the end."""
    lines = []
    for member in report.members:
        words = [] if member.founder else ["not a founder"]
        words += [] if member.standing == "counts" else [member.standing]
        words += [_count(member.strikes, "strike")] if member.strikes else []
        words += [f"{member.keys} keys registered"] if member.keys > 1 else []
        if words:
            lines.append(f"member {member.index} ({member.address}): {', '.join(words)}")
    return lines


def gwei_in_words(wei: int) -> str:
    """10,000,000 gwei: an amount of the chain's coin."""
    return f"{wei / 10**9:,.9f}".rstrip("0").rstrip(".") + " gwei"


def members_in_words(members: Sequence[int]) -> str:
    """0 1 2 5: the members' indices, or how many there are where they are many."""
    return " ".join(str(index) for index in members) if len(members) <= 8 else f"{len(members)} members"


def time_in_words(timestamp: int) -> str:
    """2026-03-01 12:00:00 UTC, from seconds since 1970; the number itself where no calendar reaches."""
    try:
        return datetime.fromtimestamp(timestamp, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return str(timestamp)


def bytes_in_words(count: int) -> str:
    """12.3 MB: powers of ten, as networks and disks are sold."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def seconds_in_words(seconds: int) -> str:
    """2 h 05 min: the two largest units."""
    minutes, s = divmod(seconds, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h:02} h"
    if hours:
        return f"{hours} h {m:02} min"
    return f"{m} min {s:02} s" if minutes else f"{s} s"


def _indices(members: int) -> str:
    return ", ".join(str(index) for index in members_of(members)) or "nobody"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
