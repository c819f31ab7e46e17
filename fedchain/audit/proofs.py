"""Evidence from what an audit fetched and recomputed: every challenge that the contract would uphold (R1–R4).

What a member withholds cannot be proven wrong; the faults of the audit name it all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..crypto import (
    CommittedUpload,
    Result,
    aggregate_size,
    prove_aggregate,
    prove_key_sum,
    prove_residue,
    prove_result,
    result_size,
)
from ..errors import MalformedObject, ObjectCorrupt, ObjectMissing
from ..protocol.disputes import Refused, judge
from ..protocol.evidence import Challenge
from ..protocol.ids import Index, members_of
from .closing import Recomputed
from .subject import Subject
from .uploads import Upload


def prove(subject: Subject, uploads: dict[Index, Upload], recomputed: Recomputed, now: int) -> Iterator[Challenge]:
    """Every challenge against this attempt that would be upheld at `now`."""
    about_sums = _aggregate(subject, uploads, recomputed), _result(subject, uploads, recomputed)
    for challenge in (*_residues(subject, uploads), *about_sums):
        if challenge is None:
            continue
        try:
            judge(subject.state, subject.chain_id, subject.contract, challenge, now)
        except Refused:
            continue
        yield challenge


def _residues(subject: Subject, uploads: dict[Index, Upload]) -> Iterator[Challenge | None]:
    """R4, against everybody that was not slashed before."""
    for index, upload in uploads.items():
        if upload.ciphertext is None and upload.evidence is not None:
            try:
                yield prove_residue(subject.attempt, index, upload.evidence, subject.state.terms.model_size)
            except MalformedObject:
                # Another size or header: broken, but not in a way that a contract can see.
                continue


def _aggregate(subject: Subject, uploads: dict[Index, Upload], recomputed: Recomputed) -> Challenge | None:
    """R1, against the sum that stands."""
    posted, total = subject.attempt.posted_sum, recomputed.total
    evidence = _participants(subject, uploads)
    if posted is None or total is None or evidence is None or total.root() == posted.root:
        return None
    d = subject.state.terms.model_size
    try:
        claimed = subject.shelf.file(posted.cid, aggregate_size(d))
        return prove_aggregate(subject.attempt, evidence, claimed, d)
    except (ObjectMissing, ObjectCorrupt, MalformedObject):
        return None


def _result(subject: Subject, uploads: dict[Index, Upload], recomputed: Recomputed) -> Challenge | None:
    """R2, or where S follows from its openings R3, against the result that stands."""
    result, total, opened = subject.attempt.result, recomputed.total, recomputed.opened
    if result is None or total is None:
        return None
    if opened is not None and (opened.key_sum_root, opened.result_root) == (result.key_sum_root, result.result_root):
        return None
    d = subject.state.terms.model_size
    try:
        content = subject.shelf.content(result.result_cid, result_size(d))
        posted = Result.parse(content, d, offender=subject.name(result.index), round=result.round)
    except (ObjectMissing, ObjectCorrupt, MalformedObject):
        return None
    challenge: Challenge | None = None
    if all(index in recomputed.openings for index in members_of(result.openers)):
        challenge = prove_key_sum(subject.attempt, recomputed.openings, posted)
    evidence = _participants(subject, uploads)
    if challenge is None and evidence is not None:
        challenge = prove_result(subject.attempt, evidence, posted, total, subject.context)
    return challenge


def _participants(subject: Subject, uploads: dict[Index, Upload]) -> dict[Index, CommittedUpload] | None:
    """The participants' uploads as evidence; None where one of them is not to be had."""
    locked = subject.attempt.aggregate
    if locked is None:
        return None
    found: dict[Index, CommittedUpload] = {}
    for index in members_of(locked.participants):
        upload = uploads.get(index)
        if upload is None or upload.evidence is None:
            return None
        found[index] = upload.evidence
    return found
