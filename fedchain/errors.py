"""The three kinds of error, never mixed: a member's fault, the world, and the operator's own mistake.

Our own bugs are none of these: they surface as ordinary Python exceptions. Every class here is caught at the
command line and printed as one line that says what is wrong and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass


class FedchainError(Exception):
    """Base of every expected error; its text is one line for the person who runs the command."""


class UsageError(FedchainError):
    """The operator asked for something that cannot be: a bad charter, option, file or key."""


class CharterMismatch(UsageError):
    """The local charter, task or model is not the one whose digest the contract holds."""


class WorldError(FedchainError):
    """Something outside the federation failed; trying again later may succeed."""


class ChainUnreachable(WorldError):
    """The RPC endpoint does not answer, or answers with nonsense."""


class ChainMismatch(FedchainError):
    """The endpoint answers, but for another chain, another contract, or other code than expected."""


NO_FUNDS = "InsufficientFunds"
"""The `error_name` of a transaction that its account cannot pay for: nothing was sent."""


class TransactionFailed(FedchainError):
    """The chain refused a transaction; the text names the contract's reason in words.

    `error_name` is the contract's error (for example "FederationWrongPhase"), NO_FUNDS and the like where nothing
    reached the contract, or "" where it gave none.
    """

    def __init__(self, reason: str, error_name: str = "") -> None:
        self.error_name = error_name
        super().__init__(reason)


class StoreUnreachable(WorldError):
    """The IPFS API does not answer in bounded time."""


class ObjectMissing(WorldError):
    """No reachable store had the object within the time allowed."""


class ObjectCorrupt(WorldError):
    """A store returned bytes that do not hash to the CID that was asked for."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a third party needs to verify a fault: numbers and digests, never secrets.

    `check` is the audit check's number and name (for example "7 aggregate"); `expected` and `got` are printable.
    """

    check: str
    round: int
    offender: str
    expected: str
    got: str


class Fault(FedchainError):
    """A member broke a rule of the protocol.

    Carries `check` (the rule's name), `offender` (an address, or "member 3" where only the index is known), `round`
    (0 where no round applies), `expected` and `got`, all printable.
    """

    def __init__(self, check: str, *, offender: str = "", round: int = 0, expected: str = "", got: str = "") -> None:
        self.evidence = Evidence(check=check, round=round, offender=offender, expected=expected, got=got)
        where = f" in round {round}" if round else ""
        who = f" by {offender}" if offender else ""
        super().__init__(f"fault{who}{where}: {check}: expected {expected or 'the rule'}, got {got or 'otherwise'}")


class MalformedObject(Fault):
    """Fetched bytes are not what the protocol allows: size, header, range or encoding."""
