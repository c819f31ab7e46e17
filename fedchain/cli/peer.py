"""`fedchain peer run`: one member's node, from its key to the end of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

app = typer.Typer(no_args_is_help=True, help="Run a member's node.")


@app.command()
def run(
    federation: Annotated[Path, typer.Argument(help="The federation's folder: federation.toml and its task.")],
    key: Annotated[Path, typer.Option(help="This member's keystore (fedchain key new).")],
    rpc: Annotated[str | None, typer.Option(help="The chain's RPC URL.", envvar="FEDCHAIN_RPC")] = None,
    contract: Annotated[str | None, typer.Option(help="The federation's contract address.")] = None,
    deployment: Annotated[
        Path | None, typer.Option(help="The deployment file (instead of --contract).", dir_okay=False)
    ] = None,
    ipfs: Annotated[
        str, typer.Option(help="This member's IPFS API.", envvar="FEDCHAIN_IPFS")
    ] = "http://127.0.0.1:5001",
    workdir: Annotated[
        Path | None, typer.Option(help="Where journal, models and objects are kept [default: beside the key].")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="A file with the key's password [default: FEDCHAIN_PASSWORD, or a prompt].")
    ] = None,
    enrol: Annotated[
        bool,
        typer.Option("--enrol", help="A founder enrols first (pays the bond); whom members admitted does in any case."),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of training and rounding [default: fresh; the same seed, the same run]."),
    ] = None,
    engine: Annotated[str, typer.Option(help="Who sums and decrypts: tenseal or numpy.")] = "tenseal",
    confirmations: Annotated[
        int | None,
        typer.Option(min=0, help="Blocks to wait before the chain is believed [default: 3; on a devnet's chain id 0]."),
    ] = None,
    poll_s: Annotated[float, typer.Option("--poll", min=0.05, help="Seconds between looks at the chain.")] = 0.5,
    challenge: Annotated[
        bool, typer.Option("--challenge/--no-challenge", help="Take wrong sums and results to the contract.")
    ] = True,
    deposits: Annotated[
        int,
        typer.Option(
            min=0,
            help="So many deposits (a 32nd of a bond each) may be out, or gone, for pages that others keep back.",
        ),
    ] = 40,
    stay: Annotated[
        bool,
        typer.Option(
            "--stay/--no-stay", help="At the end, answer demands until your bond is free: who is silent loses it."
        ),
    ] = True,
    relay: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            show_default=False,
            help="A folder shared with `fedchain relay`, which sends signed statements of all in one transaction.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Write the log to the work folder only.")] = False,
) -> None:
    """Work for a federation until its run is finished: train, encrypt, vouch, sum, open, close.

    Whom the members have admitted by vote is enrolled, and takes part from the next round on. Who resigned, or was
    removed, works to the end of the round. Stop it when you like (Ctrl-C, or a power cut): started again, it goes on
    where the federation stands.

    Example: `fedchain peer run peers/digits --key ada.json --rpc http://127.0.0.1:8545 --deployment deployment.json`
    """
    from ..chain.deployment import verify
    from ..chain.keys import KeyRing, load_identity
    from ..chain.sender import Sender
    from ..chain.signing import sign_statement
    from ..errors import UsageError
    from ..peer.journal import Journal
    from ..peer.log import peer_log
    from ..peer.outbox import Outbox
    from ..peer.start import check_key, may_enrol, run_peer, stand
    from ..peer.start import enrol as enrol_member
    from ..protocol.events import BondWithdrawn
    from ..protocol.phase import start_of_run
    from ..protocol.signature import Signature
    from ..protocol.statements import Statement
    from ..store.ipfs import IpfsStore
    from .options import open_reader, read_password

    if engine not in ("tenseal", "numpy"):
        raise UsageError(f"--engine {engine!r}: choose tenseal or numpy")
    password = read_password(password_file)
    identity = load_identity(key, password)
    keys = KeyRing(key, password, identity)
    reader = open_reader(rpc, contract, deployment, confirmations or 0)
    if confirmations is None and reader.chain_id not in DEVNET_CHAINS:
        confirmations = CONFIRMATIONS
        reader = open_reader(rpc, contract, deployment, confirmations)
    # Neither a bond is paid into, nor an update dealt under, a contract that is not this version's build.
    verify(reader)
    state = reader.refresh()
    folder = workdir if workdir is not None else key.parent / f"{key.stem}-peer-{reader.contract[2:10].lower()}"
    folder.mkdir(parents=True, exist_ok=True)
    log = peer_log(folder / "peer.log", quiet=quiet)
    with Journal(folder / "journal.jsonl") as journal:
        journal.bind(reader.chain_id, reader.contract, reader.log()[0].transaction)
        standing = stand(state, federation, identity.address)
        check_key(state, standing.me, keys)
        # A statement is done when the reader believes it: until then its duty would look undone, and be done again.
        sender = Sender(
            rpc or "",
            reader.contract,
            identity.account_private,
            journal,
            chain_id=reader.chain_id,
            confirmations=confirmations or 0,
        )
        log = log.bind(member=int(standing.me))
        log.info("peer started", address=identity.address, samples=standing.samples, contract=reader.contract)

        def sign(said: Statement) -> Signature:
            return sign_statement(identity.account_private, reader.chain_id, reader.contract, said)

        now = reader.now()
        joins = may_enrol(state, standing.me, now)
        if joins and (enrol or start_of_run(state, now) is not None):
            taken = sum(isinstance(e.event, BondWithdrawn) and e.event.index == standing.me for e in reader.log())
            enrol_member(state, standing, sender, identity.encryption_public, before=taken)
            log.info("enrolled", weight_samples=standing.samples)
        elif joins:
            raise UsageError(f"{identity.address} is not enrolled; run fedchain enrol first, or add --enrol")
        final = run_peer(
            standing=standing,
            state=state,
            address=identity.address,
            keys=keys,
            reader=reader,
            sender=sender,
            # A member that withholds an object must not cost the others their window.
            store=IpfsStore(ipfs, timeout_s=min(60.0, max(2.0, state.terms.receipt_window_s / 4))),
            journal=journal,
            folder=folder,
            seed=seed if seed is not None else fresh_seed(),
            engine=cast(Literal["numpy", "tenseal"], engine),
            log=log,
            challenge=challenge,
            deposits=deposits,
            stay=stay,
            outbox=None if relay is None else Outbox(relay, standing.me, sign),
            poll_s=poll_s,
        )
        log.info("run finished", rounds=len(final.closed), model=final.model_digest.hex())


DEVNET_CHAINS = (1337, 31337)
CONFIRMATIONS = 3
"""Where nobody says otherwise: blocks on top of a statement before it is believed, on a chain that is no devnet."""


def fresh_seed() -> int:
    """A seed from the operating system, for a peer that was given none."""
    import secrets

    return secrets.randbelow(2**63)
