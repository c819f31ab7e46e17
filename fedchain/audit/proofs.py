"""Evidence from what an audit fetched and recomputed: every challenge that the contract would uphold (R1–R4).

Of what a member keeps back there is none until its pages were shown on chain: here it is said which of them to demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeGuard

from ..crypto import (
    CommittedUpload,
    DeadEnd,
    Opened,
    Pages,
    Result,
    ResultPursuit,
    aggregate_size,
    prove_aggregate,
    prove_key_sum,
    prove_residue,
    prove_result,
    pursue_sum,
    result_size,
)
from ..errors import MalformedObject, ObjectCorrupt, ObjectMissing
from ..protocol.descent import shown_pages
from ..protocol.disputes import Refused, judge
from ..protocol.events import Event, ResultCommitted
from ..protocol.evidence import Challenge
from ..protocol.ids import Index, members_of
from ..protocol.pages import Page
from ..protocol.state import PostedSum
from .closing import Recomputed
from .subject import Subject
from .uploads import Upload

_Step = Challenge | tuple[Page, ...] | DeadEnd | None
"""Evidence; or pages that it takes; or neither."""


def prove(
    subject: Subject, uploads: dict[Index, Upload], recomputed: Recomputed, log: Iterable[Event], now: int
) -> tuple[tuple[Challenge, ...], tuple[Page, ...]]:
    """Every challenge against this attempt that would be upheld at `now`; and the pages that would have to be shown for
    more, because somebody keeps back what it committed to."""
    shown = shown_pages(log)
    lost = {name for name, demand in subject.state.demands.items() if not demand.open and name not in shown}
    pages, evidence, total = Pages(shown, lost), _participants(subject, uploads), recomputed.total
    steps = list(_residues(subject, uploads))
    posted, result = subject.attempt.posted_sum, subject.attempt.result
    if posted is not None and total is not None and evidence is not None and total.root() != posted.root:
        stored = _stored_sum(subject, evidence, posted)
        steps.append(
            stored if _would_be_upheld(stored, subject, now) else pursue_sum(subject.attempt, total, evidence, pages)
        )
    if result is not None and total is not None and not _is_right(result, recomputed.opened):
        steps.append(_result(subject, evidence, result, recomputed, pages))
    challenges = tuple(step for step in steps if _would_be_upheld(step, subject, now))
    return challenges, tuple(page for step in steps if isinstance(step, tuple) for page in step)


def _would_be_upheld(step: _Step, subject: Subject, now: int) -> TypeGuard[Challenge]:
    if step is None or isinstance(step, tuple | DeadEnd):
        return False
    try:
        judge(subject.state, subject.chain_id, subject.contract, step, now)
    except Refused:
        return False
    return True


def _residues(subject: Subject, uploads: dict[Index, Upload]) -> Iterator[_Step]:
    """R4, against everybody that was not slashed before."""
    for index, upload in uploads.items():
        if upload.ciphertext is None and upload.evidence is not None:
            try:
                yield prove_residue(subject.attempt, index, upload.evidence, subject.state.terms.model_size)
            except MalformedObject:
                # Another size or header: broken, but not in a way that a contract can see.
                continue


def _stored_sum(subject: Subject, uploads: Mapping[Index, CommittedUpload], posted: PostedSum) -> _Step:
    """R1, by the object that the sum's author stored; no evidence where that is not what it committed to."""
    d = subject.state.terms.model_size
    try:
        return prove_aggregate(subject.attempt, uploads, subject.shelf.file(posted.cid, aggregate_size(d)), d)
    except (ObjectMissing, ObjectCorrupt, MalformedObject):
        return None


def _is_right(result: ResultCommitted, opened: Opened | None) -> bool:
    roots = result.key_sum_root, result.result_root
    return opened is not None and (opened.key_sum_root, opened.result_root) == roots


def _result(
    subject: Subject,
    uploads: Mapping[Index, CommittedUpload] | None,
    result: ResultCommitted,
    recomputed: Recomputed,
    pages: Pages,
) -> _Step:
    """R2, or where S follows from its openings R3, against the result that stands: by the object that its author
    stored, or, where that is not what it committed to, by its pages."""
    total, openings = recomputed.total, recomputed.openings
    assert total is not None
    posted = _stored_result(subject, result)
    if posted is None:
        if uploads is None or recomputed.opened is None:
            return None
        right = recomputed.opened.result
        return ResultPursuit(subject.attempt, right, total, subject.context, uploads, openings, pages).step()
    challenge: _Step = None
    if all(index in openings for index in members_of(result.openers)):
        challenge = prove_key_sum(subject.attempt, openings, posted)
    if challenge is None and uploads is not None:
        challenge = prove_result(subject.attempt, uploads, posted, total, subject.context)
    return challenge


def _stored_result(subject: Subject, result: ResultCommitted) -> Result | None:
    """What the result's author stored; None where that is not what it committed to."""
    d = subject.state.terms.model_size
    try:
        content = subject.shelf.content(result.result_cid, result_size(d))
        posted = Result.parse(content, d, offender=subject.name(result.index), round=result.round)
    except (ObjectMissing, ObjectCorrupt, MalformedObject):
        return None
    return posted if (posted.key_sum_root(), posted.root()) == (result.key_sum_root, result.result_root) else None


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
