"""What a misbehaviour is: its name, whose classes it changes, and what must come of it.

`MISBEHAVIOURS` is filled by the modules beside this one. A change holds for one process (`bend`), or while the peer of
one member is made among others (`in_step`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from fedchain.chain import reader as chain_reader
from fedchain.chain import sender as chain_sender
from fedchain.peer import node
from fedchain.peer.aggregator import Aggregator
from fedchain.peer.challenger import Challenger
from fedchain.peer.decoder import Decoder
from fedchain.peer.holdings import Holdings
from fedchain.peer.respondent import Respondent
from fedchain.peer.shareholder import Shareholder
from fedchain.peer.trainer import Trainer
from fedchain.peer.voter import Voter
from fedchain.protocol.cid import cid_of
from fedchain.protocol.ids import Cid
from fedchain.protocol.state import Attempt
from fedchain.store import ipfs

Door = Callable[[type], type]
"""Makes another class of a store, a reader or a sender: the same door, but for what somebody does to it."""

ROLES = (Aggregator, Challenger, Decoder, Holdings, Respondent, Shareholder, Trainer, Voter)


class Liar:
    """What every role that lies knows: in which round; 0 stands for every round."""

    round: ClassVar[int] = 0
    contributed: ClassVar[dict[tuple[int, int, int], Any]] = {}
    """The values that a member really encrypted, by (member, round, attempt), where they are not what it trained."""
    hidden: ClassVar[set[Cid]] = set()
    """Objects that the liar keeps to itself."""
    memory: ClassVar[dict[str, Any]] = {}
    """What the liar remembers from round to round."""

    @staticmethod
    def lies_in(attempt: Attempt | None) -> bool:
        """Whether this is the round to lie in."""
        return attempt is not None and Liar.round in (0, attempt.round)

    @staticmethod
    def begin(round: int) -> None:
        """Forget all that was before, and lie in this round."""
        Liar.round = round
        for known in (Liar.contributed, Liar.hidden, Liar.memory):
            known.clear()  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Expected:
    """What comes of a misbehaviour in its round, by its author; what is left out does not happen.

    In every case the round closes with exactly the model of its participants' updates, and nobody else is blamed.
    """

    out: bool = False
    """Its update is not in the sum."""
    slashed: int = 0
    """It loses its bond by this rule: 1 to 5 for R1 to R5, 6 for silence on a demand, 7 for a vote."""
    strikes: int = 0
    """So many duties missed."""
    faults: tuple[int, ...] = ()
    """The audit's checks that name it."""
    logged: str = ""
    """What peers log with its name."""
    refused: str = ""
    """Why the contract refuses it."""
    stops: str = ""
    """With which words its own peer ends."""
    attempts: int = 1
    """How often the round began."""

    @property
    def named_by(self) -> str:
        """Who tells whose it was, in words."""
        told = ["the contract refuses it"] if self.refused else []
        told += ["its own peer stops"] if self.stops else []
        told += ["peers"] if self.logged else []
        told += ["audit check " + ", ".join(map(str, self.faults))] if self.faults else []
        told += [f"slashed by {_RULES[self.slashed]}"] if self.slashed else []
        told += ["a strike"] if self.strikes else []
        return "; ".join(told) or "nobody"


_RULES = {n: f"R{n}" for n in range(1, 6)} | {6: "silence on a demand", 7: "vote"}


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """One named misbehaviour. `member` does it in `round` when it is tried; `absent` members take no part then.

    `why`: what stops it, or what is guaranteed all the same where nobody can tell.
    """

    name: str
    tries: str
    why: str
    expected: Expected
    module: str
    roles: tuple[type, ...] = ()
    store: Door | None = None
    reader: Door | None = None
    sender: Door | None = None
    member: int = 2
    round: int = 1
    absent: tuple[int, ...] = ()
    beside: tuple[str, int] | None = None
    """Another misbehaviour that it needs, and who does that."""
    staged: bool = False
    """Whether it takes more than a peer that is bent: a test of its own plays it. All else can be started
    (`python tests/misbehave.py`)."""
    settles: int = 0
    """So many rounds later everything has come of it."""
    process: Callable[[], None] | None = None
    """What else to change in its process."""

    def bend(self, stack: ExitStack) -> None:
        """Change the roles that peers are made of, until the stack is closed."""
        for kind in self.roles:
            for role in ROLES:
                if issubclass(kind, role):
                    stack.enter_context(replaced(node, role.__name__, kind))

    def bend_process(self) -> None:
        """Change the parts that peers are made of, for the whole of this process."""
        for kind in self.roles:
            for role in ROLES:
                if issubclass(kind, role):
                    setattr(node, role.__name__, kind)
        for module, name, door in (
            (ipfs, "IpfsStore", self.store),
            (chain_reader, "Reader", self.reader),
            (chain_sender, "Sender", self.sender),
        ):
            if door is not None:
                setattr(module, name, door(getattr(module, name)))
        if self.process is not None:
            self.process()


MISBEHAVIOURS: dict[str, Misbehaviour] = {}


def misbehaviour(name: str, why: str, expected: Expected, **more: Any) -> Callable[[Any], Any]:
    """Enters what it stands before under a name, and with the first line of its docstring.

    That is a role, or with `door="store"` a function that makes another class of a store, and so on.
    """

    def enter(it: Any) -> Any:
        parts = dict(more)
        door = parts.pop("door", None)
        if door is not None:
            parts[door] = it
        elif isinstance(it, type) and issubclass(it, ROLES):
            parts["roles"] = (*parts.get("roles", ()), it)
        line = (it.__doc__ or "").partition("\n")[0].rstrip(".")
        assert line and name not in MISBEHAVIOURS
        MISBEHAVIOURS[name] = Misbehaviour(name, line, why, expected, it.__module__, **parts)
        return it

    return enter


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Something else under a module's or class's name, for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def keeping(kind: type) -> type:
    """A store that keeps what is hidden to itself."""

    class Keeping(kind):  # type: ignore[misc, valid-type]
        def put(self, content: bytes) -> Cid:
            cid = cid_of(content)
            return cid if cid in Liar.hidden else super().put(content)  # type: ignore[no-any-return]

    return Keeping
