"""Fault scenarios: which members, which faults at which moment of the run, and what must come of it.

A scenario is a TOML file; those of the source tree lie in `devnet/scenarios/`, and tests, the command `fedchain devnet
run` and the documents use the same files. Here they are read and checked; `cli.scenario_run` plays them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from typing_extensions import Self

from ..errors import UsageError
from ..protocol.charter import Charter
from ..protocol.phase import Phase
from ..protocol.section import Section, first_slip

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCENARIOS = Path("devnet") / "scenarios"
LAUNCHER = Path("tests") / "misbehave.py"
WINDOWS = {"enrol_s": 120, "training_s": 60, "receipt_s": 20, "aggregate_s": 6, "challenge_s": 60}
"""The windows of a scenario, in seconds, as far as its own `charter` does not say otherwise."""

Said = Literal["update", "receipt", "aggregate", "opening", "result"]
"""A statement of a round on chain."""

Stage = Literal["enrolling", "training", "receipts", "aggregating", "opening", "closing"]
"""A phase, as scenarios write it."""

Members = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]


class _Timed(Section):
    """When: in `round`, as soon as its `phase` is reached, or as soon as it was `said` on chain (`by` a certain
    member); or `after_s` seconds from the start of the peers."""

    round: int = Field(default=0, ge=0)
    phase: Stage | None = None
    said: Said | None = None
    by: int | None = Field(default=None, ge=0)
    after_s: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        moments = [entry for entry in ("phase", "said", "after_s", "point") if getattr(self, entry, None) is not None]
        if len(moments) != 1:
            raise ValueError(
                f"says when in {len(moments)} ways; give one of phase, said, after_s (or point, to a kill)"
            )
        if (moments == ["after_s"]) == (self.round > 0):
            raise ValueError("round = N belongs to phase, said and point, and to nothing else")
        if self.by is not None and self.said is None:
            raise ValueError("by = MEMBER belongs to said")
        return self


class Kill(_Timed):
    """kill -9 of peers, started again after `for_s` seconds (left out: never). `point`: exactly there in the round
    (`fedchain.peer.crash` has the points)."""

    kind: Literal["kill"]
    peers: Members
    point: str | None = None
    for_s: float | None = Field(default=None, ge=0)


class Pause(_Timed):
    """Peers stand still for so long (SIGSTOP, SIGCONT), as a machine does that swaps or is suspended."""

    kind: Literal["pause"]
    peers: Members
    for_s: float = Field(gt=0)


class Cut(_Timed):
    """Peers are cut off from the chain, their stores, or both, for so long."""

    kind: Literal["cut"]
    peers: Members
    links: tuple[Literal["chain", "store"], ...] = Field(default=("chain", "store"), strict=False, min_length=1)
    for_s: float = Field(gt=0)


class Reorg(_Timed):
    """The chain replaces its last `depth` blocks by empty ones: what was said in them is unsaid."""

    kind: Literal["reorg"]
    depth: int = Field(ge=1, le=64)


class ChainDown(_Timed):
    """The chain is killed, and comes back after so long. `loses`: without what came after its last regular save."""

    kind: Literal["chain-down"]
    for_s: float = Field(gt=0)
    loses: bool = False


class StoreDown(_Timed):
    """The IPFS nodes of peers are killed, and come back after so long (left out: never)."""

    kind: Literal["store-down"]
    peers: Members
    for_s: float | None = Field(default=None, gt=0)


class Lie(Section):
    """Peers run as the liar of this name, in this round (0: in all). The liars are in tests/misbehave.py."""

    kind: Literal["lie"]
    peers: Members
    name: str = Field(pattern=r"^[a-z0-9-]+$")
    round: int = Field(ge=0)


TimedFault = Kill | Pause | Cut | Reorg | ChainDown | StoreDown
Fault = Annotated[TimedFault | Lie, Field(discriminator="kind")]


class Expectations(Section):
    """What must come of it. Beyond these, whoever tells no lie must end by itself and with the model of all.

    `slashed`: who loses its bond on chain; `named`: whom the audit finds at fault in what stands; nobody else.
    `struck`: who has strikes for duties missed; `given_up`: how many locked sets were given up by vote (left out: not
    looked at).
    `model_follows`: the audit recomputes every closed round's result and model, and the chain of models.
    """

    rounds_closed: int = Field(ge=0)
    ends_within_s: float = Field(gt=0)
    slashed: tuple[int, ...] = Field(default=(), strict=False)
    named: tuple[int, ...] = Field(default=(), strict=False)
    struck: tuple[int, ...] | None = Field(default=None, strict=False)
    given_up: int | None = Field(default=None, ge=0)
    model_follows: bool = True


class Scenario(Section):
    """One scenario.

    `federation`: the folder of charter and task, seen from the scenario's file. `charter`: entries that are replaced,
    section by section. `confirmations`: how deep a statement lies before peers believe it. `stay`: peers answer demands
    at the end until their bonds are free.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)
    shows: str = Field(min_length=1, max_length=300)
    federation: str
    members: int = Field(ge=3, le=64)
    charter: dict[str, dict[str, Any]] = Field(default={})
    confirmations: int = Field(default=0, ge=0, le=64)
    stay: bool = False
    faults: tuple[Fault, ...] = Field(default=(), strict=False)
    expect: Expectations

    @field_validator("charter")
    @classmethod
    def _known_entries(cls, charter: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for section, entries in charter.items():
            known = Charter.model_fields.get(section)
            if known is None or not isinstance(known.annotation, type) or not issubclass(known.annotation, Section):
                raise ValueError(f"a charter has no section {section!r}")
            for entry in entries:
                if entry not in known.annotation.model_fields:
                    raise ValueError(f"a charter has no entry {section}.{entry}")
        return charter

    @model_validator(mode="after")
    def _members_that_are_there(self) -> Self:
        for number, fault in enumerate(self.faults, start=1):
            by = getattr(fault, "by", None)
            for peer in (*getattr(fault, "peers", ()), *([] if by is None else [by])):
                if peer >= self.members:
                    raise ValueError(f"fault {number} ({fault.kind}): no member {peer} among {self.members}")
        liars = [peer for fault in self.lies for peer in fault.peers]
        if len(set(liars)) != len(liars):
            raise ValueError("a peer lies in one way and in one round")
        for member in (*self.expect.slashed, *self.expect.named, *(self.expect.struck or ())):
            if not 0 <= member < self.members:
                raise ValueError(f"expect: no member {member} among {self.members}")
        return self

    @property
    def lies(self) -> tuple[Lie, ...]:
        """Who lies how, and when."""
        return tuple(fault for fault in self.faults if isinstance(fault, Lie))

    @property
    def liars(self) -> dict[int, Lie]:
        """The lie of each peer that tells one."""
        return {peer: lie for lie in self.lies for peer in lie.peers}

    @property
    def timed(self) -> tuple[TimedFault, ...]:
        """The faults that somebody has to cause while the run goes on."""
        return tuple(fault for fault in self.faults if not isinstance(fault, Lie))

    @property
    def cut_off(self) -> frozenset[int]:
        """The peers that need links that can be cut."""
        return frozenset(peer for fault in self.faults if isinstance(fault, Cut) for peer in fault.peers)

    def settings(self) -> list[str]:
        """The charter's entries that this scenario replaces, as `section.key=value`."""
        entries = {**self.charter, "windows": {**WINDOWS, **self.charter.get("windows", {})}}
        # JSON's numbers, texts, truth values and lists are TOML's too.
        return [
            f"{section}.{key}={json.dumps(value)}" for section, keys in entries.items() for key, value in keys.items()
        ]


def read_scenario(path: Path) -> Scenario:
    """The scenario in this file. Raises UsageError with one line that names the entry."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the scenario {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the scenario {path} is not TOML: {error}") from error
    try:
        return Scenario.model_validate(entries)
    except ValidationError as error:
        raise UsageError(f"{path}: {_numbered(first_slip(error))}") from error


def find_scenario(named: str) -> Path:
    """A scenario's file, by its path or by the name of one that is shipped. Raises UsageError."""
    if named.endswith(".toml"):
        return Path(named)
    found = {path.stem: path for path in shipped()}
    if named in found:
        return found[named]
    if not found:
        raise UsageError(
            f"no scenario {named!r}: the package ships none, they are in the source tree's {SCENARIOS};"
            " go there, or give a file (FILE.toml)"
        )
    raise UsageError(f"no scenario {named!r}; there are {', '.join(sorted(found))}, or give a file (FILE.toml)")


def shipped() -> Iterator[Path]:
    """The scenarios of the source tree, if this runs in one."""
    for root in source_trees():
        if (root / SCENARIOS).is_dir():
            yield from sorted((root / SCENARIOS).glob("*.toml"))
            return


def source_trees() -> tuple[Path, Path]:
    """Where the source tree may be: the current folder, or what this package was installed from."""
    return Path.cwd(), Path(__file__).parents[2]


def find_launcher(given: Path | None) -> Path:
    """The program that starts a lying peer: `LAUNCHER NAME ROUND peer run …`. Raises UsageError."""
    for path in [given] if given is not None else [root / LAUNCHER for root in source_trees()]:
        if path.is_file():
            return path.resolve()
    if given is not None:
        raise UsageError(f"--misbehave: there is no file {given}")
    raise UsageError(
        "this scenario has lying peers, which the package does not ship: run it in the source tree, or give its"
        f" {LAUNCHER} with --misbehave"
    )


def _numbered(slip: str) -> str:
    """`faults.2.cut.for_s: …` as people count: `fault 3 (cut): for_s: …`."""
    where, _, what = slip.partition(": ")
    parts = where.split(".")
    if parts[0] != "faults" or len(parts) < 2 or not parts[1].isdigit():
        return slip
    kind = f" ({parts[2]})" if len(parts) > 2 else ""
    rest = ".".join(parts[3:])
    return f"fault {int(parts[1]) + 1}{kind}: " + (f"{rest}: {what}" if rest else what)


STAGES: dict[str, Phase] = {
    "enrolling": Phase.ENROLLING,
    "training": Phase.TRAINING,
    "receipts": Phase.RECEIPTS,
    "aggregating": Phase.AGGREGATING,
    "opening": Phase.OPENING,
    "closing": Phase.CLOSING,
}
