"""The demonstration's live picture: the round, its phase, and who has done what. Without a terminal, plain lines."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..protocol.charter import Charter
from ..protocol.phase import Phase, aggregator_of, live_attempt, phase_of
from ..protocol.state import FederationState

_DOING = {
    Phase.ENROLLING: "members enrol: bond, encryption key, weight",
    Phase.TRAINING: "members train, encrypt, commit",
    Phase.RECEIPTS: "members check each other's uploads",
    Phase.AGGREGATING: "the aggregator sums ciphertexts",
    Phase.OPENING: "shareholders open the sum, and only the sum",
    Phase.CLOSING: "the sum is decoded, the new model posted",
    Phase.FINISHED: "finished",
}


class DemoView:
    """Shows a federation at work until the block ends."""

    def __init__(self, console: Console, charter: Charter, metric: str) -> None:
        self._console = console
        self._charter = charter
        self._metric = metric
        self._began = time.monotonic()
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._said: set[str] = set()
        self._notes: list[str] = []

    def __enter__(self) -> DemoView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, note: str) -> None:
        """A remark that stays on the screen."""
        self._console.print(f"  [yellow]![/yellow] {note}", soft_wrap=True)

    def show(self, state: FederationState, now: int, metrics: dict[int, dict[str, float]], alive: list[bool]) -> None:
        """Draw the state; without a terminal, one line for each closed round."""
        for round, values in sorted(metrics.items()):
            line = f"round {round} closed: {self._metric} {values[self._metric]:.4f} on test data"
            if line not in self._said:
                self._said.add(line)
                seconds = time.monotonic() - self._began
                self._console.print(f"  [green]✓[/green] {line} [dim]{seconds:.1f} s[/dim]")
        if self._live is not None:
            self._live.update(self._picture(state, now, alive))

    def _picture(self, state: FederationState, now: int, alive: list[bool]) -> Group:
        phase = phase_of(state, state.round, now)
        attempt = live_attempt(state, now)
        rounds = self._charter.run.rounds
        head = Text.assemble(
            ("round ", "dim"),
            (f"{min(state.round, rounds)}", "bold"),
            (f" of at most {rounds}   ", "dim"),
            (phase.name.lower(), "bold cyan"),
            (f"   {_DOING.get(phase, '')}", "dim"),
        )
        if attempt is not None and attempt.attempt:
            head.append(f"   attempt {attempt.attempt + 1}", "yellow")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("peer", "address", "enrolled", "committed", "receipt", "aggregator", "opened"):
            table.add_column(column)
        turn = None
        if attempt is not None and attempt.aggregate is not None:
            turn = attempt.aggregate.index
        elif phase is Phase.AGGREGATING and attempt is not None:
            turn = aggregator_of(state, attempt, now)
        for i, account in enumerate(state.accounts):
            up = i < len(alive) and alive[i]
            table.add_row(
                Text(f"{i}", "green" if up else "red"),
                f"{account[:8]}…{account[-4:]}" + ("" if up or phase is Phase.FINISHED else " [red]dead[/red]"),
                _mark(i in state.members),
                _mark(attempt is not None and i in attempt.commits),
                _mark(attempt is not None and i in attempt.receipts),
                Text("Σ", "bold magenta") if turn == i else "",
                _mark(attempt is not None and i in attempt.openings),
            )
        bar = ProgressBar(total=rounds, completed=len(state.closed), width=60)
        return Group(Text(), head, Text(), table, Text(), bar)


def _mark(done: bool) -> Text:
    return Text("✓", "green") if done else Text("·", "dim")
