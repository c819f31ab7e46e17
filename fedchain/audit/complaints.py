"""Check 5 on complaints: whose dealing their evidence proves bad, and who complained falsely (P2.6).

Evidence that is not to be had proves nothing about anybody: the check could not be made. Nor does evidence against
another commitment than the one on record, which an honest complaint may be about that a fork put here.
"""

from __future__ import annotations

from typing import Literal

from ..crypto import accused_in, complaint_size, judge_complaint
from ..errors import Fault, ObjectCorrupt, ObjectMissing
from ..protocol.events import Complained
from ..protocol.ids import Index, members_of, size_of
from .report import Complaint
from .subject import Subject

Outcome = Literal["proven", "false", "off record", "unchecked"]


def check_complaints(subject: Subject) -> None:
    """Every complaint of the attempt, by its evidence."""
    for complaint in subject.attempt.complaints.values():
        _check(subject, complaint)


def _check(subject: Subject, complaint: Complained) -> None:
    attempt, author = subject.attempt, subject.name(complaint.index)
    accused = accused_in(attempt, subject.state.accounts, subject.context, complaint.dealers)
    if not accused or len(accused) != size_of(complaint.dealers):
        return  # about no update: what the log alone tells is judged with it
    receipt = attempt.receipts.get(complaint.index)
    both = complaint.dealers & receipt.whole if receipt else 0
    if both:
        names = ", ".join(subject.name(index) for index in members_of(both))
        subject.fault(5, complaint.index, "a receipt without those whom its author complained about", f"{names} too")
    size = complaint_size(size_of(attempt.standing), attempt.threshold, len(accused))
    try:
        evidence = subject.shelf.content(complaint.evidence_cid, size)
    except (ObjectMissing, ObjectCorrupt):
        subject.block(5, f"the complaint of {author}: its evidence is not to be had")
        subject.complaints += [_told(complaint, dealer, "unchecked") for dealer in sorted(accused)]
        return
    found = judge_complaint(evidence, complaint.index, complaint.dealers, accused, name=author)
    for fault in (*found.proven.values(), *found.false):
        subject.ledger.raised(subject.scope, 5, fault)
    for dealer in sorted(accused):
        if dealer in found.proven:
            subject.complaints.append(_told(complaint, dealer, "proven", found.proven[dealer]))
        else:
            outcome: Outcome = "off record" if dealer in found.off_record else "false"
            subject.complaints.append(_told(complaint, dealer, outcome))


def _told(complaint: Complained, dealer: Index, outcome: Outcome, proof: Fault | None = None) -> Complaint:
    why = proof.evidence.check if proof else ""
    return Complaint(complaint.round, complaint.attempt, complaint.index, dealer, outcome, why)
