"""What an audit found, as values: the numbered checks, one account a round, every fault, the verdict.

Nothing here is computed; `audit.py` fills it in, `terminal.py` and `html.py` show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from math import isfinite
from typing import Any, Literal

from ..errors import Evidence
from ..protocol.charter import Charter
from ..protocol.ids import Address, Cid, Digest, Index, members_of
from ..protocol.privacy import PrivacyAccount
from ..protocol.suspicion import Suspicion

FORMAT = 1
"""The version of the JSON form; it changes when an entry changes its meaning."""


class Status(str, Enum):
    """How a check ended."""

    PASSED = "passed"
    FAULT = "fault"
    NOT_POSSIBLE = "not possible"
    """Something that the check needs could not be had; it neither passed nor failed."""
    PENDING = "pending"
    """The chain has not come that far yet, or the caller left this round out."""


CHECKS: Mapping[int, tuple[str, str]] = {
    1: ("charter", "the charter's digest, its terms, and the contract's code"),
    2: ("members", "founders, enrolment, votes, keys, who counts, and weights within the cap"),
    3: ("commitments", "each commitment rebuilt from the fetched upload, each by a member, once"),
    4: ("objects", "every object there, of the right size, its numbers in range"),
    5: ("receipts", "receipts that name only committed updates, none that is not whole; complaints, by their evidence"),
    6: ("order", "phases, deadlines, rotation, the participant set, and sets given up by vote"),
    7: ("aggregate", "the sum of the ciphertexts, recomputed"),
    8: ("openings", "each opening's digest; wrong ones named; the key sum within its bound"),
    9: ("result", "the decoded sum and the key sum, recomputed"),
    10: ("model", "the new global model, recomputed bit by bit"),
    11: ("chain", "every model follows from the one before, back to the first"),
    12: (
        "stakes",
        "bonds, strikes, deposits, slashes and rewards: each follows from what was said, missed or withheld",
    ),
}
"""The numbers are fixed: documents, tests and reports refer to them."""

FEDERATION_CHECKS = (1, 2, 11, 12)
ROUND_CHECKS = (3, 4, 5, 6, 7, 8, 9, 10)

Outcome = Literal["closed", "open", "void", "abandoned", "forgotten"]
"""What became of an attempt; "abandoned": its locked set was given up by vote; "forgotten": it was built on a model
whose result fell."""

Standing = Literal["counts", "joining", "leaving", "left", "removed", "slashed", "admitted", "not enrolled"]
"""Where a member stands: whether it counts, and if not, why. "admitted": it may enrol; "removed": it left by vote."""


def check_name(number: int) -> str:
    """The name under which a check's faults are listed, for example "7 aggregate"."""
    return f"{number} {CHECKS[number][0]}"


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check and how it ended; `detail` says what was found, or what was missing."""

    number: int
    status: Status
    detail: str = ""

    @property
    def name(self) -> str:
        return CHECKS[self.number][0]


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where a round's time went, as far as block timestamps tell; None where the chain cannot know.

    `train` runs to the first commitment (encryption is in it: only the peer itself can tell the two apart), `commit`
    from there to the last one, `aggregate` to the locked set (receipts are in it), `open` to the opening that made t,
    `close` to the result.
    """

    train: int | None = None
    encrypt: int | None = None
    commit: int | None = None
    aggregate: int | None = None
    open: int | None = None
    close: int | None = None

    @property
    def total(self) -> int:
        return sum(s for s in (self.train, self.encrypt, self.commit, self.aggregate, self.open, self.close) if s)


@dataclass(frozen=True, slots=True)
class Account:
    """One attempt at one round: who took part, what it cost, how its checks ended.

    `upload_bytes` are the bytes of every object that members stored for it and the auditor saw; `download_bytes` those
    that the auditor fetched for it. `gas` is that of all its transactions.
    """

    round: int
    attempt: int
    outcome: Outcome
    committed: tuple[Index, ...]
    participants: tuple[Index, ...]
    aggregator: Index | None
    openers: tuple[Index, ...]
    closer: Index | None
    upload_bytes: int
    download_bytes: int
    gas: int
    seconds: Seconds
    model_digest: Digest | None
    checks: tuple[Check, ...]

    def check(self, number: int) -> Check:
        """The check with this number."""
        return next(c for c in self.checks if c.number == number)


@dataclass(frozen=True, slots=True)
class Slash:
    """What its wrong cost a member, and brought somebody; `rule` is 1 to 5 for R1 to R5, 6 for a page that stayed out,
    7 for a vote."""

    rule: int
    challenger: Address
    burnt_wei: int
    reward_wei: int


@dataclass(frozen=True, slots=True)
class Refutation:
    """A statement that fell on chain: it was proven wrong, kept back, or refused by vote. Or an upload or an opening
    whose author fell, while it stays a fact.

    It stands no more, so it is no fault of what stands. `slash` is None where the author had no bond left to lose;
    `attempt` is None where the chain does not tell it (R4, R5). `restated_by` posted a refuted sum anew. `right` is
    whether the statement is what the auditor computed itself; None where it could not.
    """

    what: Literal["aggregate", "result", "update", "opening"]
    round: int
    attempt: int | None
    offender: Index
    at: int
    by: Literal["challenge", "silence", "vote"] = "challenge"
    slash: Slash | None = None
    restated_by: Index | None = None
    right: bool | None = None


@dataclass(frozen=True, slots=True)
class Complaint:
    """That a member complained about a dealer's record, and what its evidence comes to: "false" is its author's fault,
    "off record" (about another commitment) and "unchecked" nobody's. `why`: the check that the record fails."""

    round: int
    attempt: int
    author: Index
    dealer: Index
    outcome: Literal["proven", "false", "off record", "unchecked"]
    why: str = ""


@dataclass(frozen=True, slots=True)
class Voting:
    """What members voted on: `subject` is an account, or a model's digest in hex; empty for a set. `round` is 0 where
    the motion is about a member."""

    motion: Literal["admit", "remove", "abandon", "refuse"]
    round: int
    attempt: int
    subject: str
    voters: tuple[Index, ...]
    carried_at: int | None = None


@dataclass(frozen=True, slots=True)
class Demanded:
    """A page of a committed object that somebody demanded to see. "silent": nobody showed it, and its author fell;
    "closed": nobody did, and nothing followed. `by` is who showed it."""

    kind: Literal["ciphertext", "aggregate", "opening", "key sum", "result"]
    round: int
    attempt: int
    author: Index
    level: int
    position: int
    demander: Address
    at: int
    deadline: int
    outcome: Literal["open", "shown", "silent", "closed"] = "open"
    by: Address | None = None


@dataclass(frozen=True, slots=True)
class Money:
    """What the contract holds, by what the log tells; all in wei.

    `bonds`: of those who may take them back, strikes and all; `deposits`: of open demands; `rewards`: not taken yet;
    `burnt`: what slashes and strikes took, for ever here. `balance`: what the chain says; None where it was not asked.
    """

    bonds: int
    deposits: int
    rewards: int
    burnt: int
    balance: int | None = None

    @property
    def held(self) -> int:
        return self.bonds + self.deposits + self.rewards + self.burnt


@dataclass(frozen=True, slots=True)
class Membership:
    """An account of the federation, and what it registered when it enrolled.

    `keys`: how many X25519 keys it has registered; `strikes`: duties missed that its bond must still pay for.
    """

    index: Index
    address: Address
    enrolled: bool
    weight: int
    founder: bool
    standing: Standing
    strikes: int
    keys: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over everything audited; `gas` includes founding and enrolment."""

    rounds: int
    upload_bytes: int
    download_bytes: int
    gas: int
    seconds: int
    checks_passed: int
    checks_not_possible: int


@dataclass(frozen=True, slots=True)
class Report:
    """The audit's result. `rounds` are the closed ones; `unfinished` the void, abandoned and forgotten attempts, and
    the one under way; `refutations` what fell on chain, which is no fault of what stands. `privacy` is what the run
    spent of the charter's budget; None where the charter promises none, or was not to be had."""

    chain_id: int
    contract: Address
    block_number: int
    block_hash: bytes
    charter: Charter | None
    members: tuple[Membership, ...]
    rounds: tuple[Account, ...]
    unfinished: tuple[Account, ...]
    refutations: tuple[Refutation, ...]
    complaints: tuple[Complaint, ...]
    votings: tuple[Voting, ...]
    demands: tuple[Demanded, ...]
    money: Money
    checks: tuple[Check, ...]
    totals: Totals
    model_digest: Digest
    model_cid: Cid
    faults: tuple[Evidence, ...]
    privacy: PrivacyAccount | None = None
    suspicion: Suspicion | None = None
    """What spoiled sets tell of who spoiled them."""

    @property
    def verdict(self) -> Literal["ok", "fault"]:
        """What counts: "fault" as soon as one rule was broken."""
        return "fault" if self.faults else "ok"

    @property
    def complete(self) -> bool:
        """Whether every check that was due could be made: an audit may find no fault because it could not look."""
        return self.totals.checks_not_possible == 0

    def address_of(self, index: Index) -> str:
        """The member's address; its number where the founders' list has none."""
        return self.members[index].address if 0 <= index < len(self.members) else f"member {index}"

    def to_json(self) -> dict[str, Any]:
        """The report for machines: digests in hex, members by index."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "complete": self.complete,
            "chain_id": self.chain_id,
            "contract": self.contract,
            "block": {"number": self.block_number, "hash": self.block_hash.hex()},
            "federation": self.charter.federation.name if self.charter else None,
            "task_sha256": self.charter.task_sha256 if self.charter else None,
            "members": [asdict(m) for m in self.members],
            "rounds": [_account_json(a) for a in self.rounds],
            "unfinished": [_account_json(a) for a in self.unfinished],
            "refutations": [asdict(r) for r in self.refutations],
            "complaints": [asdict(c) for c in self.complaints],
            "spoiled": _suspicion_json(self.suspicion) if self.suspicion else None,
            "votings": [asdict(v) for v in self.votings],
            "demands": [asdict(d) for d in self.demands],
            "money": asdict(self.money),
            "checks": [_check_json(c) for c in self.checks],
            "totals": asdict(self.totals),
            "privacy": _privacy_json(self.privacy) if self.privacy else None,
            "model_digest": self.model_digest.hex(),
            "model_cid": self.model_cid,
            "faults": [asdict(f) for f in self.faults],
        }


def _privacy_json(account: PrivacyAccount) -> dict[str, Any]:
    return {
        "mode": account.mode,
        "epsilon": account.epsilon,
        "delta": account.delta,
        "noise_multiplier": account.multiplier,
        "spent": _finite(account.spent),
        "rounds_left": account.rounds_left,
        "releases": [
            {**asdict(release), "epsilon": _finite(release.epsilon), "total": _finite(release.total)}
            for release in account.releases
        ],
    }


def _suspicion_json(found: Suspicion) -> dict[str, Any]:
    return {
        "sets": [{"round": attempt.round, "attempt": attempt.attempt} for attempt in found.spoiled],
        "in_all": list(members_of(found.always)),
        "closed_since": list(members_of(found.cleared)),
        "suspects": list(members_of(found.suspects)),
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity, which is what a sum without noise costs."""
    return value if isfinite(value) else None


def _account_json(account: Account) -> dict[str, Any]:
    return {
        "round": account.round,
        "attempt": account.attempt,
        "outcome": account.outcome,
        "committed": list(account.committed),
        "participants": list(account.participants),
        "aggregator": account.aggregator,
        "openers": list(account.openers),
        "closer": account.closer,
        "upload_bytes": account.upload_bytes,
        "download_bytes": account.download_bytes,
        "gas": account.gas,
        "seconds": asdict(account.seconds),
        "metrics": {},
        "model_digest": account.model_digest.hex() if account.model_digest else None,
        "checks": [_check_json(c) for c in account.checks],
    }


def _check_json(check: Check) -> dict[str, Any]:
    return {"number": check.number, "name": check.name, "status": check.status.value, "detail": check.detail}
