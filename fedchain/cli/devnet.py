"""`fedchain devnet`: a chain and IPFS nodes on this machine, to try a federation on, and scenarios that play on them.

Heavy imports stay inside the commands: `--help` must be quick.
"""

from __future__ import annotations

import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ChainUnreachable, FedchainError, UsageError

if TYPE_CHECKING:
    from ..devnet.status import Status

app = typer.Typer(
    help="An EVM chain and one IPFS node a peer, on this machine, to try a federation on.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

WORKDIR = Path(".fedchain/devnet")

WorkdirOption = Annotated[
    Path, typer.Option("--workdir", "-w", help="Where chain, objects, keys and logs are kept.", show_default=True)
]


@app.command()
def up(
    workdir: WorkdirOption = WORKDIR,
    peers: Annotated[int, typer.Option(help="IPFS nodes, one a peer.", min=1, max=64)] = 5,
    chain_id: Annotated[int, typer.Option(help="The chain's id (EIP-155).", min=1)] = 31337,
    block_time: Annotated[
        int, typer.Option(help="Seconds between blocks when nothing happens; 0: blocks for transactions only.", min=0)
    ] = 1,
    automine: Annotated[
        bool, typer.Option(help="Mine a transaction at once, or let it wait for the next block as real chains do.")
    ] = True,
    rpc_port: Annotated[int, typer.Option(help="The chain's port; 0: the last one, or a free one.", min=0)] = 0,
    ipfs_api: Annotated[
        list[str] | None,
        typer.Option(help="Use this running IPFS node instead of starting any (give one for all, or one a peer)."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete last time's chain and objects first.")] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay here until Ctrl-C, instead of running in the background.")
    ] = False,
) -> None:
    """Start the devnet and wait until it is healthy.

    It goes on from where it was stopped, on the same ports where they are free. The nodes form a private swarm and
    listen on this machine only; they are real Kubo where `ipfs` is on the PATH, else an embedded node.

    Example: `fedchain devnet up --peers 3 --workdir trial`, then `fedchain devnet fund ADDRESS --workdir trial`
    """
    from ..devnet.control import launch
    from ..devnet.network import Devnet
    from ..devnet.supervisor import watch

    net = Devnet(
        workdir,
        peers=peers,
        chain_id=chain_id,
        block_time=block_time,
        automine=automine,
        fresh=fresh,
        rpc_port=rpc_port,
        ipfs_api=ipfs_api or (),
        detached=True,
    )
    if not foreground:
        _show(launch(net.workdir, net.options()), workdir)
        return
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    with net:
        _show(net.status(), workdir)
        watch(net, stop)


@app.command()
def status(
    workdir: WorkdirOption = WORKDIR,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: endpoints, processes and health.")] = False,
) -> None:
    """Show what runs, where, and whether it is healthy. Exit code 1 when a part is down, 2 when nothing runs.

    Example: `fedchain devnet status --json`
    """
    if not _show(_running(workdir), workdir, as_json=as_json):
        raise typer.Exit(1)


@app.command()
def fund(
    addresses: Annotated[list[str], typer.Argument(metavar="ADDRESS", help="Accounts, such as those of your keys.")],
    workdir: WorkdirOption = WORKDIR,
    coins: Annotated[int, typer.Option(help="What each account then holds.", min=0, max=1_000_000)] = 100,
) -> None:
    """Give accounts coins on the devnet's chain, where nobody sells any.

    Example: `fedchain devnet fund 0x… 0x… 0x…`
    """
    from ..chain.rpc import parse_address
    from ..devnet.anvil import ChainRpc, RpcFailed

    accounts, chain = [parse_address(address) for address in addresses], ChainRpc(_running(workdir).rpc)
    for account in accounts:
        try:
            chain.call("anvil_setBalance", account, hex(coins * 10**18))
        except RpcFailed as error:
            raise ChainUnreachable(f"{error}; `fedchain devnet status` says what runs") from error
        typer.echo(f"{account} holds {coins} coins")


@app.command()
def down(workdir: WorkdirOption = WORKDIR) -> None:
    """Stop the devnet; chain and objects are kept. Fine to repeat.

    Example: `fedchain devnet down --workdir trial`
    """
    from ..devnet.control import take_down

    if take_down(workdir.resolve()):
        typer.echo(f"down; chain and objects are kept in {workdir} (`up` goes on from there, `up --fresh` starts anew)")
    else:
        typer.echo(f"nothing runs in {workdir}")


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help="A scenario's name (`fedchain devnet scenarios`), or its file.")],
    keep: Annotated[
        Path | None,
        typer.Option(help="Keep logs, chain, objects and the audit here [default: all is deleted].", file_okay=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: what happened and what was found.")] = False,
    misbehave: Annotated[
        Path | None,
        typer.Option(
            help="What starts lying peers [default: the source tree's tests/misbehave.py].", show_default=False
        ),
    ] = None,
) -> None:
    """Play a fault scenario: real peers on a fresh devnet, faults at their moments, an audit, and a judgement.

    A scenario is a TOML file: members, charter, faults, and what must come of them. Those of the source tree are in
    devnet/scenarios/ and go by their names when this runs in it; the installed package has none, and no lying peers
    either: give it your own files. Exit code 0: all came as expected; 1: something did not.

    Examples:

    - `fedchain devnet run partition`
    - `fedchain devnet run mine.toml --keep out --json`
    """
    import json
    import tempfile

    from rich.console import Console

    from ..devnet.scenario import find_launcher, find_scenario, read_scenario
    from .scenario_run import ScenarioRun, print_outcome

    file = find_scenario(scenario)
    found = read_scenario(file)
    launcher = find_launcher(misbehave) if found.lies else None
    # Whoever ends this process ends it in order: peers, chain and nodes stop with it, and nothing is left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=as_json)
    with tempfile.TemporaryDirectory(prefix="fedchain-scenario-") as folder:
        played = ScenarioRun(found, file.parent, keep or Path(folder) / "run", console, launcher=launcher).run()
    print_outcome(played, console)
    if keep is None and not played.ok:
        console.print("to look at the logs: run it again with --keep DIR")
    if as_json:
        typer.echo(json.dumps(played.to_json(), indent=2))
    if not played.ok:
        raise typer.Exit(1)


@app.command()
def scenarios() -> None:
    """List the fault scenarios of the source tree, each with what it shows.

    Example: `fedchain devnet scenarios`
    """
    from rich.console import Console
    from rich.table import Table

    from ..devnet.scenario import SCENARIOS, read_scenario, shipped

    files = list(shipped())
    if not files:
        raise UsageError(f"no scenarios here: the package ships none, they are in the source tree's {SCENARIOS}")
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("scenario", "shows"):
        table.add_column(column, overflow="fold")
    for file in files:
        table.add_row(file.stem, read_scenario(file).shows)
    Console().print(table)


def _running(workdir: Path) -> Status:
    """The devnet that runs in this directory. Raises UsageError where none does."""
    from ..devnet.status import read_status

    found = read_status(workdir)
    if found is None:
        raise UsageError(f"no devnet runs in {workdir}: `fedchain devnet up --workdir {workdir}` starts one")
    if not found.is_alive:
        raise UsageError(
            f"the devnet of {workdir} was killed (process {found.pids.supervisor} is gone); its chain and objects are "
            f"kept: `fedchain devnet up --workdir {workdir}` goes on from there"
        )
    return found


def _show(found: Status, workdir: Path, *, as_json: bool = False) -> bool:
    """Print the parts with their health; whether all is well."""
    from rich.console import Console
    from rich.table import Table

    chain, nodes = _chain_health(found), [_node_health(api) for api in found.ipfs_apis]
    healthy = bool(chain) and all(nodes)
    if as_json:
        import json

        typer.echo(json.dumps({**asdict(found), "healthy": healthy, "chain": chain, "ipfs": nodes}, indent=2))
        return healthy
    table = Table(title=f"devnet in {workdir}", title_justify="left")
    for column in ("part", "endpoint", "process", "health"):
        table.add_column(column, overflow="fold")
    said = f"block {chain['block']}, chain id {chain['chain_id']}" if chain else "[red]does not answer[/red]"
    table.add_row("chain", found.rpc, str(found.pids.anvil), said)
    for index, (api, node) in enumerate(zip(found.ipfs_apis, nodes, strict=True)):
        pid = found.pids.ipfs[index] if index < len(found.pids.ipfs) else 0
        said = f"{node['peers']} peers, {node['agent']}" if node else "[red]does not answer[/red]"
        table.add_row(f"IPFS {index}", api, str(pid) if pid else "–", said)
    Console().print(table)
    return healthy


def _chain_health(found: Status) -> dict[str, Any]:
    """The chain's block and id; empty where it does not answer as the chain it should be."""
    from ..devnet.anvil import ChainRpc, RpcFailed

    rpc = ChainRpc(found.rpc)
    try:
        chain_id = int(rpc.call("eth_chainId", timeout_s=3.0), 16)
        block = int(rpc.call("eth_blockNumber", timeout_s=3.0), 16)
    except RpcFailed:
        return {}
    return {"chain_id": chain_id, "block": block} if chain_id == found.chain_id else {}


def _node_health(api: str) -> dict[str, Any]:
    """An IPFS node's identity and how many others it sees; empty where it does not answer."""
    from ..store.ipfs import IpfsStore

    store = IpfsStore(api, timeout_s=3.0, attempts=1)
    try:
        identity = store.identity()
        return {"peer_id": identity.peer_id, "agent": identity.agent, "peers": len(store.peers())}
    except FedchainError:
        return {}
