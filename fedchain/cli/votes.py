"""What members decide by hand: whom to admit or remove, which set or model does not stand, when to stop, leave, rotate.

A running peer votes by itself where it can show that something is wrong (to abandon, to refuse, to stop); who joins and
who must go is for people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from ..protocol.ids import Index
from ..protocol.phase import Phase, phase_of
from .operate import (
    ConfirmationsOption,
    ContractOption,
    DeploymentOption,
    KeyOption,
    PasswordOption,
    RpcOption,
    open_sender,
)
from .options import open_reader, read_password

if TYPE_CHECKING:
    from pathlib import Path

    from ..chain.keys import Identity
    from ..chain.reader import Reader
    from ..protocol.actions import Action, Vote
    from ..protocol.state import FederationState

vote_app = typer.Typer(
    help="Vote: with t votes of members that are heard it is done. A vote cannot be taken back.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands to the command line."""
    app.add_typer(vote_app, name="vote")
    app.command()(resign)
    app.command("rotate-key")(rotate_key)


@dataclass(frozen=True, slots=True)
class _Member:
    """Who runs the command, and what the chain says by now."""

    reader: Reader
    identity: Identity
    password: str
    state: FederationState
    now: int
    index: Index
    confirmations: int

    def send(self, key: str, action: Action) -> None:
        """Sign, send, and wait until it is mined."""
        open_sender(self.reader, self.identity, self.confirmations).submit(key, action)


@vote_app.command("admit")
def vote_admit(
    account: Annotated[str, typer.Argument(metavar="ADDRESS", help="Who may enrol, in a run that has begun.")],
    key: KeyOption,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    confirmations: ConfirmationsOption = 0,
    password_file: PasswordOption = None,
    yes: YesOption = False,
) -> None:
    """Vote that an account may enrol: it counts from the round on that begins after its enrolment.

    Example: `fedchain vote admit 0x… --key ada.json --deployment deployment.json`
    """
    from ..chain.rpc import parse_address
    from ..protocol.actions import VoteToAdmit

    member = _member(key, rpc, contract, deployment, confirmations, password_file)
    address = parse_address(account)
    _vote(member, VoteToAdmit(address), f"to admit {address}", yes)


@vote_app.command("remove")
def vote_remove(
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="A member's index or address.")],
    key: KeyOption,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    confirmations: ConfirmationsOption = 0,
    password_file: PasswordOption = None,
    yes: YesOption = False,
) -> None:
    """Vote that a member counts no more when the next round begins. Its bond is not touched.

    Example: `fedchain vote remove 3 --key ada.json --deployment deployment.json`
    """
    from ..protocol.actions import VoteToRemove

    voter = _member(key, rpc, contract, deployment, confirmations, password_file)
    index = _index_in(voter.state, member)
    _vote(voter, VoteToRemove(index), f"to remove member {index}, {voter.state.accounts[index]}", yes)


@vote_app.command("abandon")
def vote_abandon(
    key: KeyOption,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    confirmations: ConfirmationsOption = 0,
    password_file: PasswordOption = None,
    yes: YesOption = False,
) -> None:
    """Vote to give up the locked set of the round under way: the round begins again, with fresh updates.

    For a round that cannot be closed. A running peer votes so by itself when it can show that the set is spoiled, or
    when too few openings came in half of the close window.

    Example: `fedchain vote abandon --key ada.json --deployment deployment.json`
    """
    from ..protocol.actions import VoteToAbandon
    from ..protocol.phase import live_attempt

    member = _member(key, rpc, contract, deployment, confirmations, password_file)
    attempt = live_attempt(member.state, member.now)
    if attempt is None or attempt.aggregate is None:
        raise UsageError("no set is locked: there is nothing to abandon; see fedchain status")
    what = f"to abandon the set of round {attempt.round}, attempt {attempt.attempt + 1}"
    _vote(member, VoteToAbandon(attempt.round, attempt.attempt), what, yes)


@vote_app.command("refuse")
def vote_refuse(
    round: Annotated[int, typer.Argument(metavar="ROUND", min=1, help="A closed round.")],
    key: KeyOption,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    confirmations: ConfirmationsOption = 0,
    password_file: PasswordOption = None,
    yes: YesOption = False,
) -> None:
    """Vote that a closed round's model does not follow from its result: it falls, and every later round with it.

    Whoever posted it loses its whole bond. Audit the round first. A running peer votes so by itself.

    Example: `fedchain vote refuse 4 --key ada.json --deployment deployment.json`
    """
    from ..protocol.actions import VoteToRefuse

    member = _member(key, rpc, contract, deployment, confirmations, password_file)
    closed = member.state.closed.get(round)
    if closed is None or closed.result is None:
        raise UsageError(f"round {round} is not closed: there is no model to refuse; see fedchain status")
    digest, author = closed.result.model_digest, member.state.accounts[closed.result.index]
    _vote(member, VoteToRefuse(round, digest), f"to refuse model {digest.hex()} of round {round}, by {author}", yes)


@vote_app.command("stop")
def vote_stop(
    key: KeyOption,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    confirmations: ConfirmationsOption = 0,
    password_file: PasswordOption = None,
    yes: YesOption = False,
) -> None:
    """Vote that the model which stands is good enough: with t votes in one round the run is finished.

    Example: `fedchain vote stop --key ada.json --deployment deployment.json`
    """
    from ..protocol.actions import VoteToStop

    member = _member(key, rpc, contract, deployment, confirmations, password_file)
    state = member.state
    if state.stop_votes >> member.index & 1:
        raise UsageError(f"you have voted to stop in round {state.round}")
    if state.round == 1:
        raise UsageError("no model of this run stands yet: vote to stop when round 1 has closed")
    _confirm(f"vote to stop with model {state.model_digest.hex()} of round {state.round - 1}", yes)
    member.send("stop", VoteToStop(round=state.round, model=state.model_digest))
    _tell(member, "voted to stop")


def resign(
    key: KeyOption,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    confirmations: ConfirmationsOption = 0,
    password_file: PasswordOption = None,
    yes: YesOption = False,
) -> None:
    """Leave the federation when the next round begins. Until then your peer has its duties: let it run.

    It goes on answering demands until your bond is free; then `fedchain withdraw` takes it back.

    Example: `fedchain resign --key ada.json --deployment deployment.json`
    """
    from ..protocol.actions import Resign

    member = _member(key, rpc, contract, deployment, confirmations, password_file)
    if member.state.leaving >> member.index & 1:
        raise UsageError(f"member {member.index} is leaving already, when the next round begins")
    _confirm(f"resign as member {member.index}: only members' votes would let you in again", yes)
    member.send("resign", Resign())
    typer.echo(f"member {member.index} counts no more when round {member.state.round + 1} begins")
    typer.echo("next      let your peer run to the end, then: fedchain withdraw")


def rotate_key(
    key: KeyOption,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    confirmations: ConfirmationsOption = 0,
    password_file: PasswordOption = None,
) -> None:
    """Make a fresh key that opens shares, and register it: it counts from the next round on.

    It lies in a file of its own beside the keystore. Your peer finds it there, goes on opening what was sealed to the
    old one, and erases that when no round needs it any more. Interrupted, run the same command again.

    Example: `fedchain rotate-key --key ada.json --deployment deployment.json`
    """
    from ..chain.keys import KeyRing, encryption_files
    from ..protocol.actions import RotateKey
    from ..protocol.retention import check_registered

    member = _member(key, rpc, contract, deployment, confirmations, password_file)
    ring = KeyRing(key, member.password, member.identity)
    check_registered(member.state, member.index, ring.publics)
    registered = member.state.members[member.index].encryption_key
    # A key that was made and not registered is left from a command that was interrupted.
    fresh = ring.newest if ring.newest != registered else ring.add()
    member.send(f"rotate/{fresh.hex()}", RotateKey(fresh))
    typer.echo(f"encryption key  {fresh.hex()}, from the next round on")
    typer.echo(f"written to {max(encryption_files(key).items())[1]}; keep a copy until it is erased")


def _member(
    key: Path,
    rpc: str | None,
    contract: str | None,
    deployment: Path | None,
    confirmations: int,
    password_file: Path | None,
) -> _Member:
    """The member that runs a command, of a run that goes on; checked against this version's build."""
    from ..chain.deployment import verify
    from ..chain.keys import load_identity

    reader = open_reader(rpc, contract, deployment, confirmations)
    verify(reader)
    password = read_password(password_file)
    identity = load_identity(key, password)
    state, now = reader.refresh(), reader.now()
    index = state.index_of(identity.address)
    if index is None or index not in state.members:
        raise UsageError(f"{identity.address} is not a member of this federation")
    if state.slashed >> index & 1:
        raise UsageError(f"member {index} was slashed, and is heard no more")
    if phase_of(state, state.round, now) is Phase.ENROLLING:
        raise UsageError("the run has not begun: there is nothing to decide yet; see fedchain status")
    if not state.standing >> index & 1:
        raise UsageError(f"member {index} does not count in this round, and is not heard")
    return _Member(reader, identity, password, state, now, index, confirmations)


def _vote(member: _Member, vote: Vote, what: str, yes: bool) -> None:
    """Check a vote, ask, cast it, and tell whether it was the one that was wanting."""
    from ..protocol.disputes import Refused
    from ..protocol.votes import check_vote

    try:
        check_vote(member.state, member.index, vote, member.now)
    except Refused as refused:
        raise UsageError(f"that vote would be refused: {_in_words(refused)}") from refused
    _confirm(f"vote {what}", yes)
    member.send("vote", vote)
    _tell(member, f"voted {what}")


def _tell(member: _Member, done: str) -> None:
    from .status import motions_of

    state = member.reader.refresh()
    typer.echo(done)
    open_motions = motions_of(state)
    for line in open_motions:
        typer.echo(f"under way  {line}")
    if not open_motions:
        typer.echo("no motion is under way now: yours was the last vote that it took")


def _confirm(what: str, yes: bool) -> None:
    if not yes:
        typer.confirm(f"{what}? This cannot be taken back", abort=True)


def _index_in(state: FederationState, member: str) -> Index:
    """A member by its index or its address. Raises UsageError."""
    index = Index(int(member)) if member.isdecimal() else state.index_of(member)
    if index is None or index >= len(state.accounts):
        raise UsageError(f"{member} is no member; `fedchain status` lists them")
    return index


def _in_words(refused: Exception) -> str:
    from ..protocol.disputes import Refused

    words = {
        "FederationAlreadyVoted": "you have voted so before",
        "FederationAlreadyLeaving": "it is being removed already",
        "FederationBadSubject": "there is nothing to vote on there; see fedchain status",
        "FederationBadMemberCount": "every index is taken",
        "FederationChallengeOver": "the bonds are free, and nothing falls any more",
    }
    assert isinstance(refused, Refused)
    return words.get(refused.error_name, str(refused))
