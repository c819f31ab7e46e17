"""Checks 3, 4 and 5 on fetched objects: uploads' sizes, ranges and commitments; who vouched and complained (P1, P2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..crypto import CommittedUpload, check_ciphertext, check_shares, ciphertext_size, shares_size
from ..errors import Fault
from ..protocol.commitment import update_commitment
from ..protocol.events import UpdateCommitted
from ..protocol.ids import Cid, Index, Root
from .complaints import check_complaints
from .subject import Subject


@dataclass(frozen=True, slots=True)
class Upload:
    """One member's upload as the auditor found it.

    `ciphertext` is None where the object is missing or malformed; `broken` says that its author broke a rule with it.
    `stored` is the ciphertext's object whatever it holds, `shares_root` None where there is no shares object to hash:
    with both the upload is evidence.
    """

    ciphertext: Path | None
    broken: bool
    stored: Path | None
    shares_root: Root | None

    @property
    def evidence(self) -> CommittedUpload | None:
        """What a proof about it is made from."""
        if self.stored is None or self.shares_root is None:
            return None
        return CommittedUpload(self.stored, self.shares_root)


@dataclass(frozen=True, slots=True)
class _Part:
    """One of an upload's two objects; no root where it is missing or malformed."""

    path: Path | None
    root: Root | None
    malformed: bool = False


def check_uploads(subject: Subject) -> dict[Index, Upload]:
    """Every committed upload, fetched and checked; then the receipts that vouched for them, and the complaints."""
    d, n, threshold = subject.state.terms.model_size, len(subject.attempt.order), subject.attempt.threshold
    commits = subject.attempt.commits.values()
    subject.shelf.fetch(
        [(commit.ciphertext_cid, ciphertext_size(d)) for commit in commits]
        + [(commit.shares_cid, shares_size(n, threshold)) for commit in commits]
    )
    uploads = {index: _check_upload(subject, commit) for index, commit in sorted(subject.attempt.commits.items())}
    for author, receipt in sorted(subject.attempt.receipts.items()):
        for index, upload in uploads.items():
            if upload.broken and receipt.whole >> index & 1:
                subject.fault(5, author, "only whole updates in a receipt", f"that of {subject.name(index)}, not whole")
    check_complaints(subject)
    return uploads


def _check_upload(subject: Subject, commit: UpdateCommitted) -> Upload:
    index, terms, threshold = commit.index, subject.state.terms, subject.attempt.threshold
    author = subject.name(index)
    keys = subject.attempt.encryption_keys
    ciphertext = _check_part(
        subject,
        index,
        "ciphertext",
        commit.ciphertext_cid,
        ciphertext_size(terms.model_size),
        lambda path: check_ciphertext(path, terms.model_size, offender=author, round=commit.round),
    )
    shares = _check_part(
        subject,
        index,
        "shares",
        commit.shares_cid,
        shares_size(len(keys), threshold),
        lambda path: check_shares(
            path.read_bytes(),
            subject.context,
            dealer=index,
            dealer_address=subject.state.accounts[index],
            encryption_keys=keys,
            threshold=threshold,
            offender=author,
        ),
    )
    readable = ciphertext.path if ciphertext.root else None
    if ciphertext.root is None or shares.root is None:
        subject.block(3, f"the commitment of {author} cannot be rebuilt without its objects")
        return Upload(readable, ciphertext.malformed or shares.malformed, ciphertext.path, shares.root)
    rebuilt = update_commitment(
        subject.chain_id,
        subject.contract,
        commit.round,
        commit.attempt,
        subject.state.accounts[index],
        ciphertext.root,
        shares.root,
    )
    if rebuilt != commit.commitment:
        subject.fault(3, index, f"the commitment to the stored upload {rebuilt.hex()}", commit.commitment.hex())
    return Upload(readable, rebuilt != commit.commitment, ciphertext.path, shares.root)


def _check_part(
    subject: Subject, author: Index, what: str, cid: Cid, size: int, check: Callable[[Path], Root]
) -> _Part:
    path = subject.fetch(cid, size, what, author, owed=subject.owed(author))
    if path is None:
        return _Part(None, None)
    try:
        return _Part(path, check(path))
    except Fault as fault:
        subject.ledger.raised(subject.scope, 4, fault, subject.name(author))
        return _Part(path, None, malformed=True)
