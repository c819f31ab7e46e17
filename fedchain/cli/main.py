"""The `fedchain` command. Every expected error is one line that says what is wrong and what to do.

Exit codes: 0 done, 1 a fault was found (or a run failed), 2 the command could not be carried out, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer

from ..errors import Fault, FedchainError
from . import audit, charter, compare, demo, devnet, model, new, operate, peer, relay, votes

app = typer.Typer(
    name="fedchain",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

app.add_typer(devnet.app, name="devnet")
app.add_typer(peer.app, name="peer")
app.add_typer(model.app, name="model")
operate.register(app)
votes.register(app)
app.command()(charter.charter)
app.command()(demo.demo)
app.command()(new.new)
app.command()(compare.compare)
app.command()(relay.relay)
app.command(cls=audit.AuditCommand)(audit.audit)


@app.callback(invoke_without_command=True)
def about(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version, and the build of its contract; members need the same.")
    ] = False,
) -> None:
    """Federated learning with no server to trust."""
    if version:
        from .. import __version__
        from ..chain.artifacts import load_artifact

        typer.echo(f"fedchain {__version__}, contract build {load_artifact().artifact_hash[:16]}…")
        raise typer.Exit


def main() -> None:
    """Run the command line; turn expected errors into one line and an exit code."""
    try:
        app()
    except Fault as fault:
        print(f"fedchain: {fault}", file=sys.stderr)
        sys.exit(1)
    except FedchainError as error:
        print(f"fedchain: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # Where it is standard output that has no room, what is left in it must not fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print("fedchain: the disk is full; make room, and run the command again", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
