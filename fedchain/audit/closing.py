"""Checks 7 to 10: the sum, the openings, the decoded result and the new model, each recomputed (P3, P4, P5).

Every step is judged by what the auditor computed itself in the step before, not by what was posted; where that was not
possible it goes on from what was posted, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..crypto import (
    OPENING_BYTES,
    Aggregate,
    NotEnoughOpenings,
    Opened,
    Opening,
    Result,
    aggregate_size,
    open_aggregate,
    result_size,
    sum_ciphertexts,
)
from ..errors import Fault, ObjectCorrupt, ObjectMissing, UsageError
from ..protocol.arithmetic import SumOutOfRange, counted_weights
from ..protocol.charter import Charter
from ..protocol.events import AggregateCommitted, Motion, ResultCommitted
from ..protocol.ids import Digest, Index, is_subset, members_of, size_of
from ..protocol.model import flatten, model_digest
from ..protocol.outer import model_of_sum, update_size_of
from ..protocol.state import EMPTY, Ballot, PostedSum
from ..protocol.update_format import fetched_model_bound, model_size_of
from .docket import CONTRACT
from .ledger import FEDERATION
from .report import Refutation
from .subject import Subject
from .uploads import Upload

UNKNOWN = "unknown: a participant whose key is not its ciphertext's, or too many openers"
"""Who spoils a sum that no committee opens: an audit of one round cannot tell (P5.14; `protocol/suspicion.py`)."""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What the auditor computed itself of one attempt; None, or no openings, where it could not.

    `out_of_range`: the sum opens, and no honest values give it.
    """

    total: Aggregate | None = None
    openings: Mapping[Index, Opening] = field(default_factory=dict)
    opened: Opened | None = None
    out_of_range: bool = False


@dataclass(frozen=True, slots=True)
class _Opening:
    """What came of opening the sum. `refuted`: all was there, and yet nothing that was published opens it."""

    opened: Opened | None
    refuted: bool = False
    openings: Mapping[Index, Opening] = field(default_factory=dict)


def check_closing(subject: Subject, uploads: dict[Index, Upload]) -> Recomputed:
    """Checks 7 to 10 of one attempt, as far as it got."""
    locked, result = subject.attempt.aggregate, subject.attempt.result
    if locked is None:
        for number in (7, 8, 9, 10):
            if result is None:
                subject.ledger.defer(subject.scope, number, "no participant set is locked")
            else:
                subject.block(number, "a result was posted with no participant set locked (check 6)")
        return Recomputed()
    if not locked.participants or not is_subset(locked.participants, subject.attempt.committed):
        for number in (7, 8, 9, 10):
            subject.block(number, "the locked set names members without a committed update (check 6)")
        return Recomputed()
    total, recomputed = _check_sum(subject, locked, uploads)
    opening = _check_openings(subject, locked, total, closed=result is not None)
    if result is None:
        for number in (9, 10):
            subject.ledger.defer(subject.scope, number, "no result is posted")
    else:
        _check_result(subject, result, opening, recomputed)
    model, abandoned = None, subject.outcome == "abandoned"
    if result is not None or subject.attempt.refuted_results or (abandoned and opening.opened is not None):
        model = _expected_model(subject, locked, opening.opened)
    if abandoned and opening.opened is not None:
        why = (
            f": no model follows from its sum ({model})"
            if isinstance(model, Fault)
            else ", though its openings open it"
        )
        subject.ledger.note(subject.scope, 8, f"given up by vote{why}")
    elif isinstance(model, Fault):
        # The sum is exact and the base is whole: a value out of range was put there by somebody in the sum.
        subject.ledger.raised(subject.scope, 10, model, "one of the participants")
    _check_fallen_results(subject, opening.opened if recomputed else None, model)
    if result is not None:
        _check_model(subject, result, model)
    out_of_range = isinstance(model, SumOutOfRange)
    return Recomputed(total if recomputed else None, opening.openings, opening.opened, out_of_range)


def _check_sum(
    subject: Subject, locked: AggregateCommitted, uploads: dict[Index, Upload]
) -> tuple[Aggregate | None, bool]:
    """Check 7. The auditor's own sum, and that it is; where it cannot be made, the posted one, if its root is right."""
    stands = subject.attempt.posted_sum
    posted = _posted_sum(subject, stands) if stands is not None else None
    paths, missing = [], []
    for index in members_of(locked.participants):
        upload = uploads.get(index)
        if upload is None or upload.ciphertext is None:
            missing.append(subject.name(index))
        else:
            paths.append(upload.ciphertext)
    if missing:
        subject.block(7, f"no ciphertext to sum from {', '.join(missing)}")
        return posted, False
    posted = None  # Two sums of a large model at once would only take memory.
    total = sum_ciphertexts(paths, subject.state.terms.model_size)
    root = total.root()
    if stands is not None and root != stands.root:
        subject.fault(7, stands.index, f"the sum of the committed updates {root.hex()}", stands.root.hex())
    for refuted in subject.attempt.refuted_sums:
        told = f"the sum of {subject.name(refuted.index)} fell"
        subject.ledger.note(subject.scope, 7, told if stands else f"{told}; none stands")
    fallen = (fallen for fallen in subject.fallen if fallen.what == "aggregate")
    for refuted, cause in zip(subject.attempt.refuted_sums, fallen, strict=False):
        _judge_fallen(subject, cause, right=root == refuted.root)
    return total, True


def _judge_fallen(subject: Subject, fallen: Refutation, *, right: bool) -> None:
    """Check 12. What was challenged and fell was wrong: the committed build lets no right statement fall by evidence.

    A right one may be kept back, and fall for that; and t members may refuse it, which the report tells.
    """
    subject.right[fallen] = right
    if right and fallen.by == "challenge":
        what = "sum" if fallen.what == "aggregate" else fallen.what
        got = f"the right {what} of round {fallen.round}, by {subject.name(fallen.offender)}"
        subject.ledger.fault(FEDERATION, 12, offender=CONTRACT, expected="only wrong statements refuted", got=got)


def _posted_sum(subject: Subject, locked: PostedSum) -> Aggregate | None:
    """The sum that somebody stored, if it is what it committed to."""
    d = subject.state.terms.model_size
    path = subject.fetch(locked.cid, aggregate_size(d), "aggregate", locked.index, owed=subject.kept)
    if path is None:
        return None
    try:
        posted = Aggregate.parse(path.read_bytes(), d, offender=subject.name(locked.index), round=locked.round)
    except Fault as fault:
        subject.ledger.raised(subject.scope, 4, fault, subject.name(locked.index))
        return None
    if posted.root() != locked.root:
        subject.fault(7, locked.index, f"an object of the committed root {locked.root.hex()}", posted.root().hex())
        return None
    return posted


def _check_openings(subject: Subject, locked: AggregateCommitted, total: Aggregate | None, *, closed: bool) -> _Opening:
    """Check 8. The sum opened with every opening that is what its author committed to; wrong ones are named."""
    threshold, published = subject.attempt.threshold, subject.attempt.openings
    openings, lost = _read_openings(subject)
    if len(published) < threshold and not closed:
        subject.ledger.defer(subject.scope, 8, f"{len(published)} of {threshold} openings are published")
        return _Opening(None, openings=openings)
    if total is None:
        subject.block(8, "there is no sum to open")
        return _Opening(None, openings=openings)
    try:
        opened = open_aggregate(
            total,
            openings,
            threshold=threshold,
            participants=size_of(locked.participants),
            context=subject.context,
            d=subject.state.terms.model_size,
        )
    except NotEnoughOpenings:
        subject.block(8, f"{len(openings)} usable openings of {threshold} needed")
        return _Opening(None, refuted=not lost, openings=openings)
    except Fault as spoiled:
        if subject.outcome == "abandoned" and not lost:
            subject.ledger.note(subject.scope, 8, f"given up by vote: its openings do not open it ({spoiled})")
        elif closed and not lost:
            subject.ledger.raised(subject.scope, 8, spoiled, UNKNOWN)
        else:
            subject.block(8, "the openings that are there do not open the sum")
        return _Opening(None, refuted=not lost, openings=openings)
    certain = len(opened.wrong) <= len(openings) - 2 * threshold + 2
    for index in opened.wrong:
        got = "another one" if certain else f"another one, unless {threshold - 1} liars in concert shifted the blame"
        subject.fault(8, index, "an opening on the polynomial of the others", got)
    return _Opening(opened, openings=openings)


def _read_openings(subject: Subject) -> tuple[dict[Index, Opening], bool]:
    """The openings that are what their authors committed to, and whether one of the others could not be had."""
    published = sorted(subject.attempt.openings.items())
    subject.shelf.fetch([(event.cid, OPENING_BYTES) for _, event in published])
    openings: dict[Index, Opening] = {}
    lost = False
    for index, event in published:
        path = subject.fetch(event.cid, OPENING_BYTES, "opening", index, owed=subject.kept)
        if path is None:
            subject.block(8, f"the opening of {subject.name(index)} is not to be had")
            lost = True
            continue
        try:
            opening = Opening.parse(path.read_bytes(), offender=subject.name(index), round=event.round)
        except Fault as fault:
            subject.ledger.raised(subject.scope, 4, fault, subject.name(index))
            continue
        if opening.root() != event.root:
            subject.fault(8, index, f"an opening of the committed root {event.root.hex()}", opening.root().hex())
            continue
        openings[index] = opening
    return openings, lost


def _check_result(subject: Subject, result: ResultCommitted, opening: _Opening, recomputed: bool) -> None:
    """Check 9. What the posted roots must be, from the auditor's own decoding."""
    _check_stored_result(subject, result)
    opened = opening.opened
    if opened is None:
        subject.block(9, "the sum could not be opened")
        if opening.refuted and recomputed:
            subject.fault(9, result.index, "a result that the published openings give", "one that they do not give")
        return
    for what, expected, got in (
        ("key sum", opened.key_sum_root, result.key_sum_root),
        ("decoded sum", opened.result_root, result.result_root),
    ):
        if expected != got:
            subject.fault(9, result.index, f"the {what}'s root {expected.hex()}", got.hex())


def _check_stored_result(subject: Subject, result: ResultCommitted) -> None:
    """Check 9. The object that makes the posted roots provable, right or wrong."""
    d = subject.state.terms.model_size
    path = subject.fetch(result.result_cid, result_size(d), "result", result.index, owed=subject.kept)
    if path is None:
        return
    try:
        stored = Result.parse(path.read_bytes(), d, offender=subject.name(result.index), round=result.round)
    except Fault as fault:
        subject.ledger.raised(subject.scope, 4, fault, subject.name(result.index))
        return
    roots = stored.key_sum_root(), stored.root()
    if roots != (result.key_sum_root, result.result_root):
        expected = f"an object of the committed roots {result.key_sum_root.hex()} and {result.result_root.hex()}"
        subject.fault(9, result.index, expected, f"{roots[0].hex()} and {roots[1].hex()}")


def _check_fallen_results(subject: Subject, opened: Opened | None, model: Digest | Fault | None) -> None:
    """What fell is held against what the auditor decoded itself: a model only members can refuse, and so its digest
    counts where they did."""
    for refuted in subject.attempt.refuted_results:
        subject.ledger.note(subject.scope, 9, f"a result of {subject.name(refuted.index)} fell")
    if opened is None:
        return
    fallen = (fallen for fallen in subject.fallen if fallen.what == "result")
    for refuted, cause in zip(subject.attempt.refuted_results, fallen, strict=False):
        right = (opened.key_sum_root, opened.result_root) == (refuted.key_sum_root, refuted.result_root)
        if cause.by != "vote":
            _judge_fallen(subject, cause, right=right)
        elif model is not None:
            _judge_fallen(subject, cause, right=right and model == refuted.model_digest)


def _check_model(subject: Subject, result: ResultCommitted, expected: Digest | Fault | None) -> None:
    """Check 10. The model's digest, recomputed; and the stored object, by its bytes. Models are owed for ever."""
    bound = fetched_model_bound(subject.state.terms.model_size, subject.charter)
    path = subject.fetch(result.model_cid, bound, "model", result.index, owed=True)
    if path is None:
        subject.block(10, "the new model's object is not to be had")
    else:
        stored = model_digest(path.read_bytes())
        if stored != result.model_digest:
            subject.fault(10, result.index, f"an object of the digest {result.model_digest.hex()}", stored.hex())
    if expected is not None and expected != result.model_digest:
        due = "no model: none follows from the sum" if isinstance(expected, Fault) else f"the model {expected.hex()}"
        subject.fault(10, result.index, due, result.model_digest.hex())
    ballot = Ballot(Motion.REFUSE, subject.attempt.round, subject.attempt.attempt, result.model_digest)
    against = ", ".join(subject.name(index) for index in members_of(subject.state.ballots.get(ballot, EMPTY)))
    if against:
        found = "" if expected is None else ", the right one" if expected == result.model_digest else ", a wrong one"
        subject.ledger.note(subject.scope, 10, f"{against} voted to refuse this model{found}")


def _expected_model(subject: Subject, locked: AggregateCommitted, opened: Opened | None) -> Digest | Fault | None:
    """The digest of the model that follows from the sum, the fault where none does; None where that cannot be told."""
    if opened is None:
        subject.block(10, "the sum could not be opened")
        return None
    if subject.charter is None:
        subject.block(10, "the scale of updates stands in the charter, which was not to be had")
        return None
    base = _base_model(subject, subject.charter)
    if base is None:
        return None
    try:
        model = model_of_sum(
            base,
            opened.sums,
            charter=subject.charter,
            weights=counted_weights(subject.attempt, subject.charter.update),
            participants=members_of(locked.participants),
            rotation=subject.context.rotation_seed,
        )
    except Fault as fault:
        return fault
    return model_digest(model)


def _base_model(subject: Subject, charter: Charter) -> bytes | None:
    """The model that members trained from, by the digest on chain; None, written down, where there is none to use."""
    digest, cid = subject.attempt.base_digest, subject.attempt.base_cid
    bound = fetched_model_bound(subject.state.terms.model_size, charter)
    try:
        base = subject.shelf.content(cid, bound)
        flatten(base)
        size = model_size_of(charter, update_size_of(base, charter))
        if model_digest(base) == digest and size == subject.state.terms.model_size:
            return base
    except (ObjectMissing, ObjectCorrupt, Fault, UsageError):
        pass
    subject.block(10, "the model to train from is not to be had, or is none")
    return None
