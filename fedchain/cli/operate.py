"""What an operator does by hand: make a key, found a federation, check it, join it, watch it, leave it.

Heavy imports stay inside the commands: `--help` must be quick, and `status` and `verify` must need no key.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ChainMismatch, TransactionFailed, UsageError, WorldError
from ..protocol.charter import Charter, read_charter
from ..protocol.ids import Address
from ..protocol.privacy import remarks_on
from .options import FolderOption, open_reader, read_password

if TYPE_CHECKING:
    from ..chain.deployment import Deployment
    from ..chain.keys import Identity
    from ..chain.reader import Reader
    from ..chain.sender import Sender
    from ..ports import TransactionJournal

key_app = typer.Typer(help="Make and show a member's keys.", no_args_is_help=True, rich_markup_mode="markdown")

FolderArgument = Annotated[
    Path, typer.Argument(help="The federation's folder: federation.toml and its task.", file_okay=False)
]
RpcOption = Annotated[str | None, typer.Option(help="The chain's RPC URL.", envvar="FEDCHAIN_RPC", show_default=False)]
KeyOption = Annotated[Path, typer.Option(help="Your keystore (`fedchain key new`).", dir_okay=False)]
ContractOption = Annotated[str | None, typer.Option(help="The federation's contract address.", show_default=False)]
DeploymentOption = Annotated[
    Path | None, typer.Option(help="The deployment file (instead of --contract).", dir_okay=False, show_default=False)
]
PasswordOption = Annotated[
    Path | None,
    typer.Option(help="A file with the key's password [default: FEDCHAIN_PASSWORD, or a prompt].", show_default=False),
]
ConfirmationsOption = Annotated[int, typer.Option(min=0, help="Blocks to wait before the chain is believed.")]


def register(app: typer.Typer) -> None:
    """Add this file's commands to the command line."""
    app.add_typer(key_app, name="key")
    for command in (deploy, verify, enrol, status, withdraw):
        app.command()(command)


@key_app.command("new")
def new_key(
    keystore: Annotated[Path, typer.Argument(help="Where to write it, for example ada.json.", dir_okay=False)],
    password_file: PasswordOption = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Cheaper to open, and to guess: for devnets and tests only.")
    ] = False,
) -> None:
    """Make a member's keys: one that signs, and beside it one that opens shares, both sealed by one password.

    Give the address to the others: the charter names the members by it. Keep copies of both files: a lost key cannot
    be made again, and its bond is lost with it.

    Example: `fedchain key new ada.json`
    """
    from ..chain.keys import encryption_file, new_identity

    identity = new_identity(keystore, read_password(password_file, confirm=True), fast=fast)
    typer.echo(f"address         {identity.address}")
    typer.echo(f"encryption key  {identity.encryption_public.hex()}")
    typer.echo(f"written to {keystore} and {encryption_file(keystore)}; keep copies of both")


@key_app.command("show")
def show_key(
    keystore: Annotated[Path, typer.Argument(help="The keystore.", dir_okay=False)],
    rpc: RpcOption = None,
) -> None:
    """Show a keystore's address and public encryption key, with no password; with --rpc, what it holds on that chain.

    Example: `fedchain key show ada.json --rpc http://127.0.0.1:8545`
    """
    from ..chain.keys import public_identity

    public = public_identity(keystore)
    typer.echo(f"address         {public.address}")
    typer.echo(f"encryption key  {public.encryption_public.hex()}")
    if rpc is not None:
        from ..chain.account import in_coins
        from ..chain.rpc import Rpc, chain_id, quantity

        node = Rpc(rpc)
        balance = quantity(node, node.call("eth_getBalance", public.address, "latest"), "a balance")
        typer.echo(f"holds           {in_coins(balance)} on chain {chain_id(node)}")


def deploy(
    federation: FolderArgument,
    key: KeyOption,
    rpc: RpcOption = None,
    expected_chain_id: Annotated[
        int | None,
        typer.Option(
            "--chain-id", help="Refuse any other chain [recommended on a public network].", show_default=False
        ),
    ] = None,
    confirmations: ConfirmationsOption = 0,
    ipfs: Annotated[str, typer.Option(help="Your IPFS API.", envvar="FEDCHAIN_IPFS")] = "http://127.0.0.1:5001",
    out: Annotated[
        Path | None,
        typer.Option(help="The deployment file [default: deployment.json in the folder].", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override an entry of the charter; repeatable."),
    ] = None,
    members: Annotated[
        list[str] | None, typer.Option("--member", metavar="ADDRESS", help="A founder, in index order; repeatable.")
    ] = None,
    password_file: PasswordOption = None,
) -> None:
    """Found a federation: store charter and first model, create the contract, check it, write the deployment file.

    Whoever deploys pays the gas and has no power afterwards. With --set or --member the folder's federation.toml is
    rewritten to what was deployed (the old one stays as federation.toml.orig): give the folder to every member.
    Interrupted, run the same command again: it goes on, and never creates a second contract.

    Example: `fedchain deploy peers/digits --key ada.json --rpc http://127.0.0.1:8545 --chain-id 31337
    --member 0x… --member 0x… --member 0x…`
    """
    from ..chain.deployment import write_deployment
    from ..chain.keys import load_identity
    from ..chain.rpc import Rpc, chain_id, parse_address
    from ..peer.journal import Journal

    file = out if out is not None else federation / "deployment.json"
    if file.exists():
        raise UsageError(f"{file} is there: this federation was deployed already; give another --out for a second one")
    charter = read_charter(federation).with_settings(settings or [])
    if members:
        charter = charter.with_members(tuple(parse_address(member) for member in members))
    charter.check_complete()
    typer.echo("".join(f"note      {remark}\n" for remark in remarks_on(charter)), nl=False)
    url = _given(rpc)
    chain_id(Rpc(url), expected_chain_id)
    identity = load_identity(key, read_password(password_file))
    promise = file.with_name(f".{file.name}.journal")
    try:
        with Journal(promise) as journal:
            founded = found(federation, charter, identity, url, ipfs, expected_chain_id, confirmations, journal)
    except TransactionFailed:
        # Refused or reverted: the promise is spent, and the next try must sign anew.
        _forget(promise)
        raise
    typer.echo(f"deployed  {founded.address} on chain {founded.chain_id}, block {founded.block}; its code was checked")
    if charter != read_charter(federation):
        _rewrite_charter(federation / "federation.toml", charter)
    write_deployment(file, founded)
    _forget(promise)
    typer.echo(f"written   {file}")
    typer.echo(f"next      each member runs: fedchain enrol {federation} --deployment {file} --key KEYSTORE --rpc URL")


def found(
    folder: Path,
    charter: Charter,
    identity: Identity,
    rpc: str,
    ipfs: str,
    expected_chain_id: int | None,
    confirmations: int,
    journal: TransactionJournal,
) -> Deployment:
    """Put the charter and its genesis model into IPFS, and found the contract that holds their digests."""
    from ..chain.deploy import deploy as create
    from ..chain.deployment import terms_of
    from ..learn import first_model, load_task, read_start
    from ..store.ipfs import IpfsStore

    task = load_task(folder / charter.federation.task, charter.task_sha256)
    store = IpfsStore(ipfs)
    model = first_model(task, charter, read_start(folder, charter, task, store.get_file))
    terms = terms_of(charter, store.put(charter.canonical()), model, store.put(model))
    founders = tuple(Address(member) for member in charter.federation.members)
    return create(
        rpc,
        identity.account_private,
        terms,
        founders,
        expected_chain_id=expected_chain_id,
        confirmations=confirmations,
        journal=journal,
    )


def verify(
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    confirmations: ConfirmationsOption = 0,
) -> None:
    """Check that a contract is this version's build, founded with the terms it claims. Needs no key.

    Example: `fedchain verify --rpc http://127.0.0.1:8545 --contract 0x…`
    """
    from ..chain.deployment import read_deployment
    from ..chain.deployment import verify as check

    reader = open_reader(rpc, contract, deployment, confirmations)
    found = check(reader)
    typer.echo(f"1 code        is the committed build {found.artifact_hash[:16]}…, immutables masked")
    typer.echo(f"2 founding    transaction {found.transaction} in block {found.block}")
    typer.echo(
        f"3 terms       what the constructor was given; charter {found.charter_digest[:16]}… {found.charter_cid}"
    )
    if deployment is not None:
        if found != read_deployment(deployment):
            raise ChainMismatch(f"{deployment} says otherwise than the chain; get the file from who deployed it")
        typer.echo(f"4 file        {deployment} says the same")
    typer.echo(f"ok: {found.address} on chain {found.chain_id} is a federation of this version")


def enrol(
    federation: FolderArgument,
    key: KeyOption,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    weight: Annotated[
        int | None,
        typer.Option(
            min=1, help="Your weight [default: your task's samples]; the charter may cap it.", show_default=False
        ),
    ] = None,
    confirmations: ConfirmationsOption = 0,
    password_file: PasswordOption = None,
) -> None:
    """Join a federation that names you as a founder, or whose members admitted you: check it, pay the bond, register.

    Your folder must hold the very charter and task whose digests the contract has. The bond comes back after the run.

    Example: `fedchain enrol peers/digits --deployment deployment.json --key ada.json --rpc http://127.0.0.1:8545`
    """
    from ..chain.account import in_coins
    from ..chain.deployment import verify as check
    from ..chain.keys import KeyRing, load_identity
    from ..peer.start import may_enrol, stand
    from ..protocol.actions import Enrol
    from ..protocol.arithmetic import weight_of
    from ..protocol.retention import check_registered

    reader = open_reader(rpc, contract, deployment, confirmations)
    check(reader)
    password = read_password(password_file)
    identity = load_identity(key, password)
    state = reader.refresh()
    standing = stand(state, federation, identity.address)
    check_registered(state, standing.me, KeyRing(key, password, identity).publics)
    if not may_enrol(state, standing.me, reader.now()):
        member = state.members.get(standing.me)
        if member is None:
            raise UsageError(
                f"the run has begun: enrolment is over; ask {state.threshold} of the members to run:"
                f" fedchain vote admit {identity.address}"
            )
        typer.echo(f"member {standing.me} enrolled before, with weight {member.weight}; nothing to do")
        return
    action = Enrol(
        encryption_key=identity.encryption_public,
        weight=weight_of(weight if weight is not None else standing.samples, standing.charter.update),
        bond_wei=state.terms.bond_wei,
    )
    open_sender(reader, identity, confirmations).submit("enrol", action)
    typer.echo(f"enrolled  as member {standing.me}, weight {action.weight}, bond {in_coins(action.bond_wei)}")
    typer.echo(f"next      fedchain peer run {federation} --key {key} --rpc URL --contract {reader.contract}")


def status(
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until the run is finished, or Ctrl-C.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.2, help="With --watch: seconds between looks.")] = 1.0,
    confirmations: ConfirmationsOption = 0,
    federation: FolderOption = None,
) -> None:
    """Show where a federation stands: round, phase, who has spoken, whose turn it is, the time left. Needs no key.

    Example: `fedchain status --rpc http://127.0.0.1:8545 --contract 0x… --watch`
    """
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from ..protocol.phase import Phase, phase_of
    from .status import charter_in, picture

    reader, console = open_reader(rpc, contract, deployment, confirmations), Console()
    charter = charter_in(federation, reader.refresh()) if federation is not None else None

    def look() -> tuple[Group, bool]:
        state, now = reader.refresh(), reader.now()
        where = f"{reader.contract} on chain {reader.chain_id}"
        return picture(state, now, where, charter), phase_of(state, state.round, now) is Phase.FINISHED

    def look_again() -> tuple[Group, bool]:
        time.sleep(every_s)
        try:
            return look()
        except WorldError as error:
            # Whoever watches for hours wants to see an outage, and its end.
            return Group(Text(f"{error}; looking again")), False

    drawn, finished = look()
    if not watch or not console.is_terminal:
        console.print(drawn, soft_wrap=True)
        while watch and not finished:
            drawn, finished = look_again()
            console.print(drawn, soft_wrap=True)
        return
    with Live(drawn, console=console, auto_refresh=False) as live:
        while not finished:
            drawn, finished = look_again()
            live.update(drawn, refresh=True)


def withdraw(
    key: KeyOption,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    confirmations: ConfirmationsOption = 0,
    password_file: PasswordOption = None,
    reward: Annotated[
        bool, typer.Option("--reward", help="Take what your challenges and answers to demands have earned instead.")
    ] = False,
) -> None:
    """Take your bond back, when the challenge window has passed after the run's end, or since you ceased to count.

    Example: `fedchain withdraw --key ada.json --rpc http://127.0.0.1:8545 --contract 0x…`
    """
    from ..chain.account import in_coins
    from ..chain.keys import load_identity
    from ..protocol.actions import WithdrawBond, WithdrawReward

    reader = open_reader(rpc, contract, deployment, confirmations)
    identity = load_identity(key, read_password(password_file))
    state = reader.refresh()
    if reward:
        owed = state.rewards.get(identity.address, 0)
        open_sender(reader, identity, confirmations).submit("withdraw", WithdrawReward())
        typer.echo(f"{in_coins(owed)} went to {identity.address} for its challenges and answers")
        return
    index = state.index_of(identity.address)
    open_sender(reader, identity, confirmations).submit("withdraw", WithdrawBond())
    assert index is not None
    strikes = state.strikes.get(index, 0)
    less = f", less {strikes} of 64 parts for as many strikes" if strikes else ""
    typer.echo(f"{in_coins(state.bond_of(index))} went back to {identity.address}{less}")


def open_sender(reader: Reader, identity: Identity, confirmations: int) -> Sender:
    from ..chain.sender import Sender, VolatileJournal

    return Sender(
        reader.rpc_url,
        reader.contract,
        identity.account_private,
        VolatileJournal(),
        chain_id=reader.chain_id,
        confirmations=confirmations,
    )


def _given(rpc: str | None) -> str:
    if rpc is None:
        raise UsageError("no chain: give --rpc URL, or set FEDCHAIN_RPC")
    return rpc


def _forget(promise: Path) -> None:
    for leftover in (promise, promise.with_name(promise.name + ".lock")):
        leftover.unlink(missing_ok=True)


def _rewrite_charter(file: Path, charter: Charter) -> None:
    """Make the folder say what was deployed; comments go, so the old file is kept."""
    import tomli_w

    from ..chain.deployment import write_text

    write_text(file.with_name(file.name + ".orig"), file.read_text(encoding="utf-8"))
    write_text(file, tomli_w.dumps(charter.to_toml()))
