"""The charter: what the members agree on before the first round, and the contract holds the digest of.

`federation.toml` is its form for people; `canonical()` is its form for machines: JSON with sorted keys, which is stored
on IPFS and hashed. Unknown keys are refused: a misspelt entry must not silently fall back to a default.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from typing_extensions import Self

from ..errors import UsageError
from .ids import MAX_MEMBERS, Address, Digest
from .private_charter import Privacy, check_private
from .section import Bounded, Positive, checked_toml, first_slip
from .section import Section as _Section
from .windows import Windows as Windows

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_CHARTER_BYTES = 65_536

USUAL_MEMBERS_MAX = 16
"""How many members the sums of a charter have room for that does not say it: a consortium, and room to grow."""


class Federation(_Section):
    """Who and what: the name, the founders' addresses in index order, the task file."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")
    description: str = Field(default="", max_length=500)
    task: str = Field(default="task.py", pattern=r"^[A-Za-z0-9_.-]+\.py$")
    members: tuple[str, ...] = Field(default=(), strict=False)

    @field_validator("description")
    @classmethod
    def _one_line(cls, description: str) -> str:
        # It is shown on terminals of people who fetched it: no escape sequences, line breaks or lone surrogates.
        if not description.isprintable():
            raise ValueError("must be one line of printable text")
        return description

    @field_validator("members")
    @classmethod
    def _addresses(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        for member in members:
            if not re.fullmatch("0x[0-9a-fA-F]{40}", member):
                raise ValueError(f"{member!r} is not an address (0x and 40 hex digits)")
        if len({m.lower() for m in members}) != len(members):
            raise ValueError("an address stands twice")
        if len(members) > MAX_MEMBERS:
            raise ValueError(f"at most {MAX_MEMBERS} members")
        return members


class Run(_Section):
    """How long: rounds at most, and the metric at which members vote to stop (absent: run all rounds).

    `start` are the weights to begin with: a safetensors file beside the charter, or its CID; "" is the task's own
    initial values under `seed`.
    """

    rounds: int = Field(default=10, ge=1, le=100_000)
    target: float | None = Field(default=None, ge=0)
    seed: int = Field(default=1, ge=0, lt=2**63)
    start: str = Field(default="", pattern=r"^(|[A-Za-z0-9][A-Za-z0-9_.-]*\.safetensors|Qm[1-9A-HJ-NP-Za-km-z]{44})$")


class Algorithm(_Section):
    """How each member trains, and what it sends (docs/learning.md).

    `mu` is FedProx's proximal weight. `effective_steps` scales what FedNova and SCAFFOLD send: about as many local
    steps as a member makes in a round. `local_steps`: "fixed" goes `local_epochs` times through the own data;
    "adaptive" stops there too, but earlier after `budget_s` seconds (0: what the training window leaves).
    `local_tensors` are patterns (`head.*`) of tensors that stay with each member.
    """

    name: Literal["fedavg", "fedprox", "fednova", "scaffold", "fedavg++"] = "fedavg"
    mu: Bounded = 0.0
    effective_steps: int = Field(default=0, ge=0, le=1_000_000)
    local_epochs: int = Field(default=1, ge=1, le=1000)
    batch_size: int = Field(default=32, ge=1)
    local_steps: Literal["fixed", "adaptive"] = "fixed"
    budget_s: float = Field(default=0.0, ge=0)
    sampling: Literal["shuffled", "class-balanced"] = "shuffled"
    loss: Literal["plain", "class-weighted"] = "plain"
    local_tensors: tuple[str, ...] = Field(default=(), strict=False, max_length=64)

    @field_validator("name", mode="before")
    @classmethod
    def _no_outer_optimizer(cls, name: object) -> object:
        if name in ("fedavgm", "fedadagrad", "fedadam", "fedyogi"):
            raise ValueError(f'{name} is what is done with the average; write outer.optimizer = "{name}"')
        return name

    @field_validator("local_tensors")
    @classmethod
    def _patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not (0 < len(pattern) <= 200 and pattern.isascii() and pattern.isprintable()):
                raise ValueError(f"{pattern[:80]!r} is no pattern of tensor names (1 to 200 printable characters)")
        return patterns

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.name != "fedprox" and self.mu:
            raise ValueError('algorithm.mu belongs to fedprox; set name = "fedprox" or drop mu')
        if self.name == "fedprox" and not self.mu:
            raise ValueError("fedprox needs algorithm.mu > 0")
        if self.name in ("fednova", "scaffold") and not self.effective_steps:
            raise ValueError(f"{self.name} needs algorithm.effective_steps: about the local steps of one round")
        if self.name not in ("fednova", "scaffold") and self.effective_steps:
            raise ValueError("algorithm.effective_steps belongs to fednova and scaffold; drop it")
        if self.local_steps == "fixed" and self.budget_s:
            raise ValueError('algorithm.budget_s belongs to local_steps = "adaptive"')
        return self


class Outer(_Section):
    """What every peer does with the decrypted average, alike: the server optimiser of the literature.

    Left out, `learning_rate` is 1, or 0.01 for the adaptive ones; `beta1` is 0.5 for fedavgm, 0.9 for fedadam and
    fedyogi, 0 for fedadagrad. `beta2` and `tau` belong to the adaptive ones (Reddi et al. 2021, arXiv:2003.00295).
    """

    optimizer: Literal["none", "fedavgm", "fedadagrad", "fedadam", "fedyogi"] = "none"
    learning_rate: Positive | None = None
    beta1: float | None = Field(default=None, ge=0, lt=1)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    tau: Positive = 1e-3

    @model_validator(mode="after")
    def _no_idle_momentum(self) -> Self:
        if self.optimizer == "none" and self.beta1 is not None:
            raise ValueError('outer.beta1 belongs to an optimizer; set outer.optimizer = "fedavgm" or drop beta1')
        return self

    @property
    def rate(self) -> float:
        """η, with the default filled in."""
        usual = 1.0 if self.optimizer in ("none", "fedavgm") else 0.01
        return usual if self.learning_rate is None else self.learning_rate

    @property
    def momentum(self) -> float:
        """β₁, with the default filled in."""
        usual = {"fedavgm": 0.5, "fedadam": 0.9, "fedyogi": 0.9}.get(self.optimizer, 0.0)
        return usual if self.beta1 is None else self.beta1


class Update(_Section):
    """How an update becomes integers: mask, L2 clip (0: none), rotation, each value within ±clip_value, `bits` a value.

    `mask` is which part of the model's parameters a round trains and sends, drawn by a public seed (`masking`).
    `bits`: 2^bits − 1 values from −clip_value to clip_value; "auto" takes as many as fit six to a coefficient
    (`update_format.auto_steps`). `rotate` turns the update first, by a public rotation that evens its values out.
    `members_max` is how many members a sum has room for, now and after any vote; 0 means 16, or the founders if they
    are more. `weight_cap` bounds a member's weight (0: no cap), so that one large member cannot drown the rest.
    """

    mask: float = Field(default=1.0, ge=0.01, le=1)
    clip_norm: float = Field(default=0.0, ge=0)
    clip_value: Positive = 0.25
    bits: int | Literal["auto"] = "auto"
    rotate: bool = True
    members_max: int = Field(default=0, ge=0, le=MAX_MEMBERS)
    weight_cap: int = Field(default=0, ge=0, lt=2**32)

    @field_validator("bits", mode="before")
    @classmethod
    def _known_bits(cls, bits: object) -> object:
        if bits != "auto" and not (type(bits) is int and 2 <= bits <= 16):
            raise ValueError('2 to 16, or "auto"')
        return bits

    @field_validator("members_max")
    @classmethod
    def _some_members(cls, members: int) -> int:
        if 0 < members < 3:
            raise ValueError("a federation has at least 3 members; 0 chooses for you")
        return members


class Committee(_Section):
    """t of n: how many shareholders open a round. 0 means floor(n/2)+1, which is also the least allowed."""

    threshold: int = Field(default=0, ge=0, le=MAX_MEMBERS)


class Stake(_Section):
    """What a member puts at stake, in gwei of the chain's coin."""

    bond_gwei: int = Field(default=10_000_000, ge=1, lt=2**63)


class Storage(_Section):
    """How long members pin the objects of past rounds; models are kept for ever."""

    keep_rounds: int = Field(default=5, ge=1)


class Charter(_Section):
    """The whole charter. `task_sha256` binds the task's code, `start_sha256` the file of first weights; both are taken
    from the files beside it."""

    version: Literal[1] = 1
    federation: Federation
    run: Run = Run()
    algorithm: Algorithm = Algorithm()
    outer: Outer = Outer()
    update: Update = Update()
    privacy: Privacy = Privacy()
    committee: Committee = Committee()
    windows: Windows = Windows()
    stake: Stake = Stake()
    storage: Storage = Storage()
    task_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    start_sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")

    @model_validator(mode="after")
    def _algorithm_fits(self) -> Self:
        if self.algorithm.name == "scaffold" and self.update.mask < 1:
            raise ValueError("scaffold sends a second vector, which update.mask has no part for; drop one of them")
        entries = self.outer.optimizer, self.algorithm.local_steps, self.update.weight_cap > 0
        if self.algorithm.name == "fedavg++" and entries != ("fedavgm", "adaptive", True):
            raise ValueError(
                'fedavg++ is outer.optimizer = "fedavgm", algorithm.local_steps = "adaptive" and update.weight_cap > 0'
                " together; set all three"
            )
        return self

    @model_validator(mode="after")
    def _private(self) -> Self:
        check_private(self)
        return self

    @property
    def threshold(self) -> int:
        """t, with the default filled in; needs the members."""
        return self.committee.threshold or len(self.federation.members) // 2 + 1

    @property
    def members_max(self) -> int:
        """How many members a sum has room for, with the default filled in; needs the members."""
        return self.update.members_max or max(USUAL_MEMBERS_MAX, len(self.federation.members))

    def canonical(self) -> bytes:
        """The charter as every member hashes it: UTF-8 JSON, sorted keys, no spaces.

        A mask of 1 is left out: charters from before there were masks keep their digests.
        """
        entries = self.model_dump(mode="json")
        if self.update.mask == 1:
            del entries["update"]["mask"]
        return json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> Digest:
        """SHA-256 of `canonical()`."""
        return Digest(hashlib.sha256(self.canonical()).digest())

    def check_complete(self) -> None:
        """Raise UsageError unless this charter can be deployed: members named, threshold within the rules."""
        n = len(self.federation.members)
        if n < 3:
            raise UsageError(f"the charter names {n} members; a federation needs at least 3 (federation.members)")
        least, most = n // 2 + 1, n - 1
        if not least <= self.threshold <= most:
            raise UsageError(f"committee.threshold is {self.threshold}; with {n} members it must be {least} to {most}")
        if n > self.members_max:
            raise UsageError(
                f"the charter names {n} members, its sums have room for {self.members_max}: raise update.members_max"
            )
        if not self.task_sha256:
            raise UsageError("the charter does not bind its task; load it with its task file beside it")
        if self.run.start.endswith(".safetensors") and not self.start_sha256:
            raise UsageError(
                "the charter does not bind the weights that run.start names; load it with the file beside it"
            )

    def with_members(self, members: tuple[Address, ...]) -> Charter:
        """The same charter with these founders."""
        return self._rebuilt({"federation": {"members": list(members)}})

    def with_settings(self, settings: list[str]) -> Charter:
        """The same charter with entries replaced, each "section.key=value" (value as in TOML; bare words are text)."""
        changes: dict[str, dict[str, Any]] = {}
        for setting in settings:
            name, equals, text = setting.partition("=")
            section, dot, key = name.strip().partition(".")
            if not (equals and dot and section and key):
                raise UsageError(f"--set {setting!r}: write section.key=value, for example run.rounds=3")
            known = type(self).model_fields.get(section)
            if known is None or not isinstance(getattr(self, section), _Section):
                raise UsageError(f"--set {setting!r}: the charter has no section {section!r}")
            if key not in type(getattr(self, section)).model_fields:
                raise UsageError(f"--set {setting!r}: section {section!r} has no entry {key!r}")
            try:
                value = tomllib.loads(f"value = {text.strip()}")["value"]
            except tomllib.TOMLDecodeError:
                value = text.strip()
            changes.setdefault(section, {})[key] = value
        return self._rebuilt(changes)

    def _rebuilt(self, changes: dict[str, dict[str, Any]]) -> Charter:
        entries = self.model_dump(mode="json")
        for section, values in changes.items():
            entries[section] |= values
        if "start" in changes.get("run", {}):
            entries["start_sha256"] = ""
        return _validated(entries, "the changed charter")

    def to_toml(self) -> dict[str, Any]:
        """The entries for a TOML writer: nothing that is None, and no task digest (it is taken from the file)."""
        entries = self.model_dump(mode="json", exclude_none=True, exclude={"task_sha256", "start_sha256"})
        return dict(entries)


def read_charter(path: Path) -> Charter:
    """The charter of a federation's folder (or of the file itself), bound to the task file beside it.

    Raises UsageError for a missing or malformed file, each entry named.
    """
    file = path / "federation.toml" if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            entries = tomllib.loads(checked_toml(stream.read(MAX_CHARTER_BYTES + 1), MAX_CHARTER_BYTES))
    except FileNotFoundError as error:
        raise UsageError(f"no charter at {file}; a federation's folder holds federation.toml and its task") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    for digest in ("task_sha256", "start_sha256"):
        if digest in entries:
            kind = "task file" if digest == "task_sha256" else "file that run.start names"
            raise UsageError(f"{file}: {digest} is taken from the {kind}; remove the entry")
    charter = _validated(entries, str(file))
    task = file.parent / charter.federation.task
    try:
        code = task.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} names the task {charter.federation.task}, which cannot be read: {error}") from error
    digests = {"task_sha256": hashlib.sha256(code).hexdigest()}
    if charter.run.start.endswith(".safetensors"):
        try:
            with (file.parent / charter.run.start).open("rb") as weights:
                digests["start_sha256"] = sha256_of(weights)
        except OSError as error:
            raise UsageError(f"{file}: run.start names {charter.run.start}, which cannot be read: {error}") from error
    return charter.model_copy(update=digests)


def parse_charter(content: bytes) -> Charter:
    """A charter from its canonical bytes, as fetched: hostile until its digest was compared. Raises UsageError."""
    if len(content) > MAX_CHARTER_BYTES:
        raise UsageError(f"a charter has at most {MAX_CHARTER_BYTES} bytes, this one {len(content)}")
    try:
        entries = json.loads(content)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsageError("the stored charter is not JSON") from error
    charter = _validated(entries, "the stored charter")
    if charter.canonical() != content:
        raise UsageError("the stored charter is not in canonical form")
    return charter


def _validated(entries: object, source: str) -> Charter:
    try:
        return Charter.model_validate(entries)
    except ValidationError as error:
        raise UsageError(f"{source}: {first_slip(error)}") from error


def sha256_of(file: BinaryIO) -> str:
    """SHA-256, in hex, of what a file holds from here to its end, a mebibyte of it in memory at a time."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
