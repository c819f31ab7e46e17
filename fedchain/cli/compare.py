"""`fedchain compare`: federated, centralised and each alone, side by side, with tables, plots and one page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..lab.compare import Comparison


def compare(
    federation: Annotated[
        Path, typer.Argument(help="The federation's folder: federation.toml and its task.", file_okay=False)
    ],
    peers: Annotated[int, typer.Option(min=3, max=64, help="How many members.")] = 5,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds at most [default: the charter's].")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="How many seeds, from the charter's on.")] = 3,
    scale: Annotated[
        str, typer.Option(metavar="N,N,…", help='Numbers of members to try on the first seed; "" for none.')
    ] = "3,5,10",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override an entry of the charter; repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the files go [default: .fedchain/compare/NAME].", file_okay=False)
    ] = None,
    plots: Annotated[bool, typer.Option("--plots/--no-plots", help="Draw pictures (needs matplotlib).")] = True,
) -> None:
    """Is federating worth it? One model, the same data and seeds: federated, centralised, and each member alone.

    Compares quality, training time, bytes, what leaks, and how it goes with more members. The federated side is the
    real protocol (training, encryption, sums, opening, decoding) with chain and store in memory, so that it takes
    seconds; it gives the same models as `fedchain demo` with the same seed. Needs everybody's data in one place.
    Writes comparison.html, which stands alone, comparison.json, and the plots as PNG. Plots need an extra:
    `pip install 'fedchain[plots]'`.

    Examples:

    - `fedchain compare peers/digits`
    - `fedchain compare peers/hospitals --peers 4 --seeds 5 --scale ""`
    - `fedchain compare peers/digits --set outer.optimizer=fedavgm --out momentum`
    """
    from rich.console import Console

    from ..lab.compare import compare as make
    from ..lab.plots import check_plots, draw
    from ..learn import load_task, read_start
    from ..protocol.charter import read_charter

    sizes = sizes_of(scale)
    if plots:
        check_plots()
    changes = [*(settings or ()), *([f"run.rounds={rounds}"] if rounds is not None else [])]
    charter = read_charter(federation).with_settings(changes)
    task = load_task(federation / charter.federation.task, charter.task_sha256)
    console = Console()
    first = charter.run.seed
    with console.status("comparing") as status:
        comparison = make(
            charter,
            task,
            members=peers,
            seeds=range(first, first + seeds),
            scale=sizes,
            start=read_start(federation, charter, task),
            watch=lambda what: status.update(what),
        )
        pictures = draw(comparison) if plots else {}
    folder = out if out is not None else Path(".fedchain") / "compare" / charter.federation.name
    write(folder, comparison, pictures)
    show(console, comparison)
    console.print(f"page:  {folder / 'comparison.html'}", soft_wrap=True)
    if pictures:
        console.print(f"plots: {', '.join(f'{name}.png' for name in pictures)} beside it", soft_wrap=True)


def sizes_of(scale: str) -> tuple[int, ...]:
    """The numbers in `--scale`, ascending. Raises UsageError."""
    parts = [part.strip() for part in scale.split(",") if part.strip()]
    if not all(part.isdecimal() and 3 <= int(part) <= 64 for part in parts):
        raise UsageError(f"--scale {scale!r}: write numbers of members from 3 to 64 with commas, for example 3,5,10")
    return tuple(sorted({int(part) for part in parts}))


def write(folder: Path, comparison: Comparison, pictures: dict[str, bytes]) -> None:
    """The page, the figures for machines, the pictures. Raises UsageError."""
    from .. import __version__
    from ..lab.page import render_page
    from ..lab.summary import entries

    files = {f"{name}.png": png for name, png in pictures.items()}
    files["comparison.json"] = (json.dumps(entries(comparison), indent=2, ensure_ascii=False) + "\n").encode()
    files["comparison.html"] = render_page(comparison, pictures, __version__).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            part = folder / f"{name}.part"
            part.write_bytes(content)
            part.replace(folder / name)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error


def show(console: Console, comparison: Comparison) -> None:
    """The tables, on a terminal."""
    from rich.table import Table

    from ..lab.exposure import exposures
    from ..lab.page import bytes_in_words, seconds_in_words
    from ..lab.summary import headline, rows_of

    count = len(comparison.charter.federation.members)
    rows = [
        (
            row.way,
            f"{row.test:.4f}" + (f" ± {row.spread:.4f}" if row.spread is not None else ""),
            f"{row.own:.4f}",
            f"{row.worst:.4f}",
            "–" if row.auc is None else f"{row.auc:.3f}",
            "–" if row.seconds is None else seconds_in_words(row.seconds),
            bytes_in_words(row.moved),
        )
        for row in rows_of(comparison)
    ]
    headings = ("trained", comparison.metric, "own data", "worst member", "AUC", "time", "bytes moved")
    table = figures(f"{comparison.charter.federation.name}, {count} members", headings, rows)
    for place, row in enumerate(rows):
        table.rows[place].style = "bold" if row[0] == "federated, encrypted" else ""
    console.print(table)
    console.print(
        "[dim]own data: each member's held-out rows; AUC: of membership inference, 0.5 is a coin;"
        " time: of training, all members together[/dim]\n"
    )
    seen = Table(title="who sees what", title_justify="left")
    for column in ("", "centralised", "federated", "each alone"):
        seen.add_column(column, header_style="bold")
    for entry in exposures(comparison.charter):
        seen.add_row(*entry)
    console.print(seen)
    if comparison.scales:
        console.print()
        columns = ("members", "rounds", "federated", "each alone", "train", "protocol", "up", "down")
        grown = [
            (
                str(scale.members),
                str(scale.rounds),
                f"{scale.federated:.4f}",
                f"{scale.alone:.4f}",
                seconds_in_words(scale.training_s),
                seconds_in_words(scale.protocol_s),
                bytes_in_words(scale.bytes_up),
                bytes_in_words(scale.bytes_down),
            )
            for scale in comparison.scales
        ]
        console.print(figures("with more members; seconds and bytes of one member, a round", columns, grown))
    console.print(f"\n{headline(comparison)}", soft_wrap=True)


def figures(title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    """A table whose figures are whole on eighty columns: the first column wraps, where it is words, and headings do."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", pad_edge=False)
    for place, heading in enumerate(headings):
        words = place == 0 and not rows[0][0].isdecimal()
        widest = None if words else max(map(len, [*heading.split(), *(row[place] for row in rows)]))
        table.add_column(heading, justify="left" if words else "right", header_style="bold", width=widest)
    for row in rows:
        table.add_row(*row)
    return table
