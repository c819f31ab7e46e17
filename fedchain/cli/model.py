"""`fedchain model`: the federation's model, held to the chain before anything is done with it. Needs no key."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import CharterMismatch, UsageError
from .operate import ConfirmationsOption, ContractOption, DeploymentOption, RpcOption
from .options import open_reader

if TYPE_CHECKING:
    from ..audit.models import ModelOnChain, Recomputed
    from ..audit.shelf import Objects
    from ..learn import Task
    from ..ports import ChainReader
    from ..protocol.state import FederationState

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Fetch, use and export the model, verified against the chain first. Needs no key.",
)

Depth = Literal["none", "round", "all"]

IpfsOption = Annotated[str, typer.Option(help="An IPFS API.", envvar="FEDCHAIN_IPFS")]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="An audit bundle (`fedchain audit --bundle`) instead of IPFS, and without --contract of the chain.",
        dir_okay=False,
    ),
]
RoundOption = Annotated[
    int | None, typer.Option(min=0, help="The model after this round; 0 is the first one [default: the newest].")
]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--model", help="A model file you have; its digest must be on this chain. Nothing is fetched.", dir_okay=False
    ),
]
RecomputeOption = Annotated[
    str | None,
    typer.Option(
        metavar="none|round|all",
        help="Compute the round's model again from its encrypted updates, or all rounds' [default: round; with"
        " --model: none].",
        show_default=False,
    ),
]
TaskArgument = Annotated[
    Path, typer.Argument(help="Your task file, or the federation's folder; it must be the one that was agreed on.")
]
KeptOption = Annotated[
    Path | None,
    typer.Option(help="Where the charter keeps tensors local: what your peer kept of its own.", dir_okay=False),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for an object.")]
LOCAL_IPFS = "http://127.0.0.1:5001"


@app.command()
def fetch(
    out: Annotated[Path, typer.Option(help="Where to write it.", dir_okay=False)] = Path("model.safetensors"),
    round: RoundOption = None,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    ipfs: IpfsOption = LOCAL_IPFS,
    bundle: BundleOption = None,
    recompute: RecomputeOption = None,
    confirmations: ConfirmationsOption = 0,
    timeout_s: TimeoutOption = 30,
) -> None:
    """Get a round's model as safetensors, checked: the contract's code, the digest on chain, the sum it came from.

    Anybody can do this, with no key. The file is the very object whose SHA-256 the contract holds, so `sha256sum` shows
    the digest again; every safetensors reader opens it. Where the charter's optimiser keeps state, it stands beside the
    model's tensors, under names that begin with ~fedchain; `fedchain model export` leaves it out.

    Examples:

    - `fedchain model fetch --rpc http://127.0.0.1:8545 --contract 0x5FbD… --ipfs http://127.0.0.1:5001`
    - `fedchain model fetch --round 3 --recompute all --rpc URL --deployment deployment.json --out third.safetensors`
    - `fedchain model fetch --from audit.zip`
    """
    sources = _Sources(rpc, contract, deployment, ipfs, bundle, confirmations, timeout_s)
    with sources.open() as federation:
        content = federation.model(round, None, recompute)
    _write(out, content)
    _say(f"written     {out}, {len(content):,} bytes")


@app.command()
def predict(
    task: TaskArgument,
    rows: Annotated[Path, typer.Argument(help="What to predict for: a CSV file, or arrays as .npz.", dir_okay=False)],
    out: Annotated[
        Path | None, typer.Option(help="A .csv or .npz file [default: CSV on standard output].", dir_okay=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that holds the truth: metrics are shown.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column that is no input; repeatable.")
    ] = None,
    round: RoundOption = None,
    model_file: FileOption = None,
    kept_file: KeptOption = None,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    ipfs: IpfsOption = LOCAL_IPFS,
    bundle: BundleOption = None,
    recompute: RecomputeOption = None,
    confirmations: ConfirmationsOption = 0,
    timeout_s: TimeoutOption = 30,
) -> None:
    """Run the task's model over your own rows, after the model was held to the chain and the task to the charter.

    The columns go to the model in the file's order, unless the task's `prepare` says otherwise (docs/tasks.md). The
    task file runs with your rights: only one whose digest the charter binds is loaded.

    Examples:

    - `fedchain model predict peers/hospitals patients.csv --rpc URL --contract ADDRESS`
    - `fedchain model predict task.py patients.csv --target malignant --out said.csv --rpc URL --contract ADDRESS`
    - `fedchain model predict task.py rows.npz --model model.safetensors --from audit.zip`
    """
    from ..learn.predicting import inputs_of, judge, whole_model
    from ..learn.predicting import predict as run
    from ..learn.tables import csv_text, npz_bytes, read_table, without
    from ..protocol.outer import model_part

    table = read_table(rows)
    truth = [target] if target is not None else []
    chosen = without(table, [*(ignore or []), *truth])
    sources = _Sources(rpc, contract, deployment, ipfs, bundle, confirmations, timeout_s)
    with sources.open() as federation:
        agreed, local_tensors = federation.task(task)
        content = model_part(federation.model(round, model_file, recompute))
    whole = whole_model(agreed, content, local_tensors, _read(kept_file) if kept_file else None)
    inputs = inputs_of(agreed, chosen)
    columns = run(agreed, whole, inputs)
    if target is not None:
        metrics = judge(agreed, whole, inputs, table[target])
        _say("metrics     " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    if out is None:
        sys.stdout.write(csv_text(columns))
        return
    _write(out, npz_bytes(columns) if out.suffix == ".npz" else csv_text(columns).encode())
    _say(f"written     {out}, {len(table[next(iter(table))]):,} rows")


@app.command()
def export(
    task: TaskArgument,
    out: Annotated[
        Path, typer.Option(help="The ending says the form: .safetensors, .pt (TorchScript) or .onnx.", dir_okay=False)
    ],
    like: Annotated[
        Path | None,
        typer.Option(
            help="Rows such as the model will see, CSV or .npz [default: the task's test data].", dir_okay=False
        ),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="A column of --like that is no input; repeatable.")
    ] = None,
    round: RoundOption = None,
    model_file: FileOption = None,
    kept_file: KeptOption = None,
    rpc: RpcOption = None,
    contract: ContractOption = None,
    deployment: DeploymentOption = None,
    ipfs: IpfsOption = LOCAL_IPFS,
    bundle: BundleOption = None,
    recompute: RecomputeOption = None,
    confirmations: ConfirmationsOption = 0,
    timeout_s: TimeoutOption = 30,
) -> None:
    """Write the model for use elsewhere, after it was held to the chain: safetensors, TorchScript or ONNX.

    TorchScript and ONNX hold architecture and values and need neither this package nor the task; the exported model is
    run and compared with the original before it is written, and names contract, round and digest in its metadata. It
    takes what `prepare` gives, not raw rows. ONNX needs an extra: `pip install 'fedchain[onnx]'`.

    Examples:

    - `fedchain model export peers/hospitals --out tumours.onnx --rpc URL --contract ADDRESS`
    - `fedchain model export task.py --like rows.csv --out model.pt --rpc URL --contract ADDRESS`
    """
    from ..learn.predicting import inputs_of, sample_inputs, to_onnx, to_torchscript, whole_model
    from ..learn.tables import read_table, without
    from ..protocol.outer import model_part

    forms = {".pt": to_torchscript, ".onnx": to_onnx, ".safetensors": None}
    if out.suffix not in forms:
        raise UsageError(f"--out {out}: end the name in .safetensors, .pt (TorchScript) or .onnx")
    sources = _Sources(rpc, contract, deployment, ipfs, bundle, confirmations, timeout_s)
    with sources.open() as federation:
        agreed, local_tensors = federation.task(task)
        content = federation.model(round, model_file, recompute)
        origin = federation.origin(content)
    content = whole_model(agreed, model_part(content), local_tensors, _read(kept_file) if kept_file else None)
    exporter = forms[out.suffix]
    if exporter is not None:
        inputs = sample_inputs(agreed) if like is None else inputs_of(agreed, without(read_table(like), ignore or []))
        content = exporter(agreed, content, inputs, origin)
    _write(out, content)
    _say(f"written     {out}, {len(content):,} bytes" + ("; its outputs were compared" if exporter else ""))


class _Federation:
    """A federation as chain and store tell it, and what may be used of it."""

    def __init__(self, reader: ChainReader, store: Objects, told_by: str) -> None:
        self._reader = reader
        self._store = store
        self._told_by = told_by
        self._state: FederationState = reader.refresh()

    def model(self, round: int | None, file: Path | None, recompute: str | None) -> bytes:
        """The model that the options name, verified, with a line on each thing that was checked."""
        from ..audit.models import check_model, fetch_model, model_on_chain, round_of
        from ..protocol.model import model_digest

        depth = _depth(recompute, file)
        where = f"{self._reader.contract} on chain {self._reader.chain_id}"
        _say(f"federation  {where}, {self._told_by}; code and terms are this version's")
        if file is None:
            model = model_on_chain(self._state, self._reader.now(), round)
            content = fetch_model(self._state, self._store, model)
        else:
            content = _read(file)
            number = round_of(self._state, model_digest(content)) if round is None else round
            model = model_on_chain(self._state, self._reader.now(), number)
            check_model(model, content)
        _say(f"model       {self._place(model)}, digest {model.digest.hex()}")
        _say("checked     " + self._recomputed(model, depth))
        now = self._reader.now()
        if now < model.contested_until:
            left = model.contested_until - now
            _say(f"mind        its round can be challenged for another {left} s of chain time, and the model with it")
        return content

    def task(self, path: Path) -> tuple[Task, tuple[str, ...]]:
        """The user's own task file, if the charter that the contract binds binds it; and which tensors stay local."""
        from ..audit.models import fetch_charter
        from ..learn import load_task
        from ..protocol.charter import read_charter

        terms = self._state.terms
        if path.is_dir():
            charter = read_charter(path)
            if charter.digest() != terms.charter_digest:
                raise CharterMismatch(
                    f"{path} has the charter {charter.digest().hex()}, the contract holds {terms.charter_digest.hex()};"
                    " name the task file alone, or get the folder that the members agreed on"
                )
            return load_task(path / charter.federation.task, charter.task_sha256), charter.algorithm.local_tensors
        charter = fetch_charter(terms, self._store)
        return load_task(path, charter.task_sha256), charter.algorithm.local_tensors

    def origin(self, content: bytes) -> dict[str, Any]:
        """Where a verified model comes from, for an exported file's metadata."""
        from ..audit.models import round_of
        from ..protocol.model import model_digest

        digest = model_digest(content)
        return {
            "chain_id": self._reader.chain_id,
            "contract": str(self._reader.contract),
            "round": round_of(self._state, digest),
            "model_digest": digest.hex(),
        }

    def _place(self, model: ModelOnChain) -> str:
        if model.round == 0:
            return "the first one, which round 1 starts from"
        if model.final:
            return f"after round {model.round}, the last of the run"
        return f"after round {model.round} of at most {self._state.terms.rounds}"

    def _recomputed(self, model: ModelOnChain, depth: Depth) -> str:
        from ..audit.models import recompute

        if depth == "none" or model.round == 0:
            return "its bytes against the digest on chain; nothing was computed again"
        done = recompute(self._reader, self._store, model, whole_chain=depth == "all")
        for fault in done.faults:
            _say(
                f"mind        {fault.check}, round {fault.round}, by {fault.offender}: got {fault.got}; not this model"
            )
        return _told(done)


def _told(done: Recomputed) -> str:
    rounds, missing = done.rounds, done.missing
    same = f"computed again from the encrypted updates of {_counted(rounds)}: the same" if rounds else ""
    if not missing:
        return f"its bytes against the digest on chain; {same}"
    lost = f"round {missing[0][0]} could not be computed again ({missing[0][1]})"
    return "its bytes against the digest on chain; " + "; ".join(part for part in (same, lost) if part)


def _counted(rounds: tuple[int, ...]) -> str:
    return f"round {rounds[0]}" if len(rounds) == 1 else f"{len(rounds)} rounds"


@dataclass(frozen=True, slots=True)
class _Sources:
    """Where the options say that log and objects come from."""

    rpc: str | None
    contract: str | None
    deployment: Path | None
    ipfs: str
    bundle: Path | None
    confirmations: int
    timeout_s: float

    @contextmanager
    def open(self) -> Iterator[_Federation]:
        """The federation, its code and founding checked. Raises ChainMismatch where they are not this version's."""
        from ..audit.bundle import open_bundle
        from ..chain.deployment import verify
        from ..store.ipfs import IpfsStore

        if self.bundle is None:
            reader = open_reader(self.rpc, self.contract, self.deployment, self.confirmations)
            verify(reader)
            yield _Federation(reader, IpfsStore(self.ipfs, timeout_s=self.timeout_s), "as the chain tells")
            return
        with open_bundle(self.bundle) as bundle:
            if self.contract is not None or self.deployment is not None:
                reader = open_reader(self.rpc, self.contract, self.deployment, self.confirmations)
                verify(reader)
                yield _Federation(reader, bundle, "as the chain tells")
                return
            check = bundle.code_check()
            if check is None:
                raise UsageError(f"{self.bundle} holds no code to check; make the bundle anew")
            check()
            yield _Federation(bundle, bundle, f"as {self.bundle} tells, no chain was asked")


def _depth(recompute: str | None, file: Path | None) -> Depth:
    match recompute:
        case None:
            return "round" if file is None else "none"
        case "none" | "round" | "all":
            return recompute
        case _:
            raise UsageError(f"--recompute {recompute!r}: choose none, round or all")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error


def _write(file: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    part = file.with_name(file.name + ".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error


def _say(line: str) -> None:
    """On standard error: what is printed for other programs must be all that stands on standard output."""
    print(line, file=sys.stderr)
