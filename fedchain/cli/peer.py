"""`fedchain peer run`: one member's node, from its key to the end of the run."""

from __future__ import annotations

from contextlib import ExitStack
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
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, or auto (a GPU where there is one).")] = "cpu",
    mixed_precision: Annotated[
        bool, typer.Option("--mixed-precision", help="Train in bfloat16 where torch allows it: quicker on a GPU.")
    ] = False,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads to train with; one gives the same bits every time.")
    ] = 1,
    relay: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            show_default=False,
            help="A folder shared with `fedchain relay`, which sends signed statements of all in one transaction.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            metavar="ADDRESS:PORT",
            help="Serve GET /healthz and /metrics (Prometheus) here, for example 127.0.0.1:9464.",
        ),
    ] = None,
    metrics_anywhere: Annotated[
        bool, typer.Option("--metrics-anywhere", help="Let --metrics be an address that others can reach.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="The least that is logged: debug, info, warning or error.")] = "info",
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
    from ..learn import Machine
    from ..peer.exposition import parse_listen, serving
    from ..peer.health import Health, doors_of
    from ..peer.journal import Journal
    from ..peer.log import LEVELS, peer_log
    from ..peer.meter import Meter
    from ..peer.outbox import Outbox
    from ..peer.start import enrol as enrol_member
    from ..peer.start import may_enrol, run_peer, stand
    from ..protocol.events import BondWithdrawn
    from ..protocol.phase import is_finished, phase_of, start_of_run
    from ..protocol.retention import check_registered
    from ..protocol.signature import Signature
    from ..protocol.state import FederationState
    from ..protocol.statements import Statement
    from ..store.ipfs import IpfsStore
    from .options import open_reader, read_password

    if engine not in ("tenseal", "numpy"):
        raise UsageError(f"--engine {engine!r}: choose tenseal or numpy")
    if log_level not in LEVELS:
        raise UsageError(f"--log-level {log_level!r}: choose {', '.join(LEVELS)}")
    listen = None if metrics is None else parse_listen(metrics, anywhere=metrics_anywhere)
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
    log = peer_log(folder / "peer.log", quiet=quiet, level=log_level)
    with Journal(folder / "journal.jsonl") as journal, ExitStack() as stack:
        journal.bind(reader.chain_id, reader.contract, reader.log()[0].transaction)
        # A member that withholds an object must not cost the others their window.
        store = IpfsStore(ipfs, timeout_s=min(60.0, max(2.0, state.terms.receipt_window_s / 4)))
        standing = stand(state, federation, identity.address, store.get_file)
        check_registered(state, standing.me, keys.publics)
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

        def bonds_taken() -> int:
            return sum(isinstance(e.event, BondWithdrawn) and e.event.index == standing.me for e in reader.log())

        taken = bonds_taken()

        def join(state: FederationState, now: int) -> bool:
            # Also when the chain went back behind an enrolment; who took its bond back meant to.
            if not may_enrol(state, standing.me, now) or bonds_taken() != taken:
                return False
            enrol_member(state, standing, sender, identity.encryption_public, before=taken)
            log.info("enrolled", weight_samples=standing.samples)
            return True

        now = reader.now()
        joins = enrol or start_of_run(state, now) is not None
        if not (joins and join(state, now)) and may_enrol(state, standing.me, now):
            raise UsageError(f"{identity.address} is not enrolled; run fedchain enrol first, or add --enrol")
        meter = Meter(folder / "rounds.jsonl", store)
        health = Health(meter, standing.me, doors_of(reader.rpc_url, identity.address, reader, ipfs))
        if listen is not None:
            stack.enter_context(health)
            stack.enter_context(serving(listen, health, meter, log))

        def watch(state: FederationState, now: int) -> None:
            health.look(state, now)
            phase = phase_of(state, state.round, now).name.lower()
            read = reader.block_read
            log.debug("looked", block=None if read is None else read.number, round=state.round, phase=phase)

        final = run_peer(
            standing=standing,
            state=state,
            address=identity.address,
            keys=keys,
            reader=reader,
            sender=sender,
            store=store,
            journal=journal,
            folder=folder,
            seed=seed if seed is not None else fresh_seed(),
            engine=cast(Literal["numpy", "tenseal"], engine),
            log=log,
            challenge=challenge,
            deposits=deposits,
            stay=stay,
            machine=Machine(device=device, threads=threads, mixed_precision=mixed_precision),
            outbox=None if relay is None else Outbox(relay, standing.me, sign),
            poll_s=poll_s,
            watch=watch,
            join=join if joins else None,
            meter=meter,
            mined=health.mined,
        )
        ended = "run finished" if is_finished(final, reader.now()) else "member has left"
        log.info(ended, rounds=len(final.closed), model=final.model_digest.hex())


@app.command()
def tune(
    federation: Annotated[Path, typer.Argument(help="The federation's folder: federation.toml and its task.")],
    model: Annotated[Path, typer.Option(help="The run's final model (safetensors).", dir_okay=False)],
    member: Annotated[int, typer.Option(min=0, help="Whose data to train on: this member's index.")],
    out: Annotated[Path, typer.Option(help="Where to write this member's own model (safetensors).", dir_okay=False)],
    epochs: Annotated[int, typer.Option(min=1, help="How often to go through this member's data.")] = 1,
    workdir: Annotated[
        Path | None, typer.Option(help="The peer's work folder, for tensors that the charter keeps local.")
    ] = None,
    members: Annotated[
        int | None, typer.Option(min=1, help="Members that the data is split among [default: the charter's].")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the training.")] = 1,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda or auto.")] = "cpu",
) -> None:
    """Fine-tune the final model on one member's own data, and say what that gains and costs.

    It usually serves that member better and everybody else worse, so both are shown: accuracy (or the task's metric) on
    the member's own held-out data and on the common test data, before and after. Nothing is sent anywhere.

    Example: `fedchain peer tune peers/digits --model model.safetensors --member 0 --out mine.safetensors`
    """
    from ..errors import Fault, UsageError
    from ..learn import Machine, evaluate, fine_tune, load_task, local_data_of
    from ..peer.kept import KeptState
    from ..protocol.charter import read_charter
    from ..protocol.ids import Index

    charter = read_charter(federation)
    everyone = members or len(charter.federation.members)
    if not 0 <= member < everyone:
        raise UsageError(f"--member {member}: the charter names {everyone} members; give --members, or another index")
    task = load_task(federation / charter.federation.task, charter.task_sha256)
    data = local_data_of(task, member, everyone, charter.run.seed)
    patterns = charter.algorithm.local_tensors
    kept = KeptState(workdir / "kept", Index(member)).newest() if workdir is not None and patterns else None
    try:
        stored = model.read_bytes()
    except OSError as error:
        raise UsageError(f"the model {model} cannot be read: {error.strerror}") from error
    try:
        own = fine_tune(
            task, stored, charter.algorithm, data, seed, epochs=epochs, machine=Machine(device=device), kept=kept
        )
    except Fault as fault:
        raise UsageError(f"{model} is no model of this task: {fault}") from fault
    try:
        out.write_bytes(own)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from error
    typer.echo(f"{task.metric:<12} own held-out data   test data of all")
    for name, blob, local, keep in (("before", stored, patterns, kept), ("after", own, (), None)):
        mine, all_ = (
            evaluate(task, blob, examples, local_tensors=local, kept=keep)[task.metric]
            for examples in (data.validation, task.test_data())
        )
        typer.echo(f"{name:<12} {mine:<19.4f} {all_:.4f}")
    typer.echo(f"written to {out}")


DEVNET_CHAINS = (1337, 31337)
CONFIRMATIONS = 3
"""Where nobody says otherwise: blocks on top of a statement before it is believed, on a chain that is no devnet."""


def fresh_seed() -> int:
    """A seed from the operating system, for a peer that was given none."""
    import secrets

    return secrets.randbelow(2**63)
