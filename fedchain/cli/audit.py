"""`fedchain audit`: every round recomputed from chain and store, with no key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ..errors import UsageError

if TYPE_CHECKING:
    from ..audit import Report
    from ..audit.shelf import Objects
    from ..chain.reader import Reader
    from ..ports import ChainReader
    from ..protocol.ids import Address


class AuditCommand(TyperCommand):
    """Lets `--json` stand without a file: the report for machines then goes to standard output."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with "-" after a bare `--json`."""
        given: list[str] = []
        for i, argument in enumerate(args):
            given.append(argument)
            follows = args[i + 1] if i + 1 < len(args) else "--"
            if argument == "--json" and follows.startswith("--"):
                given.append("-")
        return list(super().parse_args(ctx, given))


def audit(
    context: typer.Context,
    rpc: Annotated[str | None, typer.Option(help="The chain's RPC URL.", envvar="FEDCHAIN_RPC")] = None,
    contract: Annotated[str | None, typer.Option(help="The federation's contract address.")] = None,
    deployment: Annotated[
        Path | None, typer.Option(help="The deployment file (instead of --contract).", dir_okay=False)
    ] = None,
    ipfs: Annotated[str, typer.Option(help="An IPFS API.", envvar="FEDCHAIN_IPFS")] = "http://127.0.0.1:5001",
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="[FILE]", help="Write the report for machines; alone or with -, print it."),
    ] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Write the report as one page for people.", dir_okay=False)
    ] = None,
    bundle_file: Annotated[
        Path | None,
        typer.Option("--bundle", help="Write log and objects as one file, to be audited offline.", dir_okay=False),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option("--from", help="Audit a bundle; with --rpc only its objects are believed.", dir_okay=False),
    ] = None,
    only_round: Annotated[
        int | None, typer.Option("--round", min=1, help="Fetch and recompute this round alone.")
    ] = None,
    confirmations: Annotated[int, typer.Option(min=0, help="Blocks to wait before the chain is believed.")] = 0,
    from_block: Annotated[
        int | None, typer.Option(min=0, help="The block of the deployment [default: found by search].")
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for an object.")] = 30,
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the run, audit each statement as it comes; the report at its end.")
    ] = False,
    challenge: Annotated[
        bool, typer.Option("--challenge", help="With --watch and --key: take what is wrong to the contract.")
    ] = False,
    key: Annotated[
        Path | None, typer.Option(help="The keystore of the account that challenges; any account may.", dir_okay=False)
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="A file with the key's password [default: FEDCHAIN_PASSWORD, or a prompt].")
    ] = None,
    demand_budget: Annotated[
        int,
        typer.Option(
            min=0,
            help="So many deposits (a 32nd of a bond each) may be out, or gone, for pages that others keep back.",
        ),
    ] = 40,
    poll_s: Annotated[float, typer.Option("--poll", min=0.05, help="Seconds between looks at the chain.")] = 2,
) -> None:
    """Check every round of a federation: charter, uploads, order, sums, openings, results, models, stakes.

    Needs no key and nobody's permission: an RPC endpoint, the contract's address and a store are enough. Every fault is
    named with the member that committed it. Exit code 0: no fault; 1: a fault; 2: the audit could not be made.

    Examples:

    - `fedchain audit --rpc http://127.0.0.1:8545 --contract 0x5FbD… --ipfs http://127.0.0.1:5001`
    - `fedchain audit --rpc URL --contract ADDRESS --ipfs API --html audit.html --bundle audit.zip`
    - `fedchain audit --from audit.zip --json`
    - `fedchain audit --watch --challenge --key ada.json --rpc URL --contract ADDRESS --ipfs API`
    """
    from rich.console import Console
    from rich.text import Text

    from ..audit import print_report, write_html

    sources = _Sources(rpc, contract, deployment, ipfs, from_file, confirmations, from_block, timeout_s)
    if from_file is not None and _from_environment(context, "rpc"):
        # A variable that is set for other commands must not send an offline audit to the network.
        sources = replace(sources, rpc=None)
    if from_file is not None and bundle_file is not None:
        raise UsageError("--bundle writes what --from reads; give one of them")
    # What is printed for machines must be all that stands on standard output.
    console = Console(stderr=json_file == "-", highlight=False)
    if challenge and not (watch and key is not None):
        raise UsageError("--challenge sends transactions: give --watch and --key FILE with it")
    if watch:
        if from_file is not None or only_round is not None:
            raise UsageError("--watch follows the chain; drop --from and --round")
        signer = key if challenge else None
        sources.watch(
            signer, password_file, demand_budget, poll_s, lambda line: console.print(Text(line), soft_wrap=True)
        )
    try:
        report = sources.audit(only_round, bundle_file)
        if json_file is not None:
            _write_json(report, json_file)
        if html_file is not None:
            write_html(report, html_file)
    except OSError as error:
        if error.filename is None:
            raise
        raise UsageError(f"{error.filename} cannot be written: {error.strerror}") from error
    print_report(console, report)
    if from_file is not None and sources.rpc is None:
        console.print(f"log:     as {from_file} tells it; no chain was asked (--rpc URL asks one)", soft_wrap=True)
    for what, path in (("report", html_file), ("bundle", bundle_file)):
        if path is not None:
            console.print(f"{what}:  {path}", soft_wrap=True)
    if report.verdict != "ok":
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Sources:
    """Where the options say that log and objects come from."""

    rpc: str | None
    contract: str | None
    deployment: Path | None
    ipfs: str
    bundle: Path | None
    confirmations: int
    from_block: int | None
    timeout_s: float

    def audit(self, only_round: int | None, bundle_file: Path | None) -> Report:
        """The audit over these sources; `bundle_file` keeps all that it read."""
        from ..audit.bundle import open_bundle
        from ..store.ipfs import IpfsStore

        if self.bundle is None:
            return self._of_chain(IpfsStore(self.ipfs, timeout_s=self.timeout_s), None, only_round, bundle_file)
        with open_bundle(self.bundle) as bundle:
            if self.rpc is None:
                return _run(bundle, bundle, only_round)
            return self._of_chain(bundle, bundle.contract, only_round, None)

    def watch(
        self,
        key: Path | None,
        password_file: Path | None,
        deposits: int,
        poll_s: float,
        tell: Callable[[str], None],
    ) -> None:
        """Follow the run until nothing can be challenged any more; with a key, challenge what is wrong, and demand what
        is kept back."""
        from ..audit import follow
        from ..store.ipfs import IpfsStore

        reader = self._reader(None)
        sender = None
        if key is not None:
            # Only who challenges loads code that can sign.
            from ..chain.keys import load_identity
            from ..chain.sender import Sender, VolatileJournal
            from .options import read_password

            identity = load_identity(key, read_password(password_file))
            sender = Sender(
                self.rpc or "", reader.contract, identity.account_private, VolatileJournal(), chain_id=reader.chain_id
            )
        follow(reader, IpfsStore(self.ipfs, timeout_s=self.timeout_s), sender, tell, deposits=deposits, poll_s=poll_s)

    def _of_chain(
        self, store: Objects, bundled: Address | None, only_round: int | None, bundle_file: Path | None
    ) -> Report:
        from ..audit.bundle import BundleWriter

        reader = self._reader(bundled)
        if bundle_file is None:
            return _run(reader, store, only_round)
        writer = BundleWriter(store, bundle_file)
        try:
            report = _run(reader, writer, only_round)
            creation = reader.input_of(reader.log()[0].transaction).data
            writer.finish(reader, reader.code_at(), creation, reader.balance())
        finally:
            writer.abandon()
        return report

    def _reader(self, bundled: Address | None) -> Reader:
        from ..chain.reader import Reader
        from .options import open_reader

        contract = self.contract if self.contract or self.deployment else bundled
        if self.rpc is None or contract is None or self.from_block is None:
            return open_reader(self.rpc, contract, self.deployment, self.confirmations)
        return Reader(self.rpc, contract, confirmations=self.confirmations, from_block=self.from_block)


def _from_environment(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "ENVIRONMENT"


def _run(chain: ChainReader, store: Objects, only_round: int | None) -> Report:
    from ..audit import audit as audit_federation

    with _progress() as watch:
        return audit_federation(chain, store, only_round=only_round, watch=watch)


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """A bar on standard error while the audit runs; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("audit", total=1)

        def watch(done: int, total: int, what: str) -> None:
            progress.update(task, completed=done, total=total, description=what)

        yield watch


def _write_json(report: Report, file: str) -> None:
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False)
    if file == "-":
        print(text)
        return
    path = Path(file)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)
