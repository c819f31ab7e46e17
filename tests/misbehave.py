"""Members that misbehave, each a few lines of a real peer changed.

`python tests/misbehave.py wrong-sum 2 peer run …` runs the peer that `fedchain peer run …` would, but for one lie in
round 2; round 0 stands for every round. Without arguments it lists what there is, and with `--table` it writes what
`docs/misbehaviour.md` holds. What a liar lies about it also stores, as everybody else does; but who hides its lie
stores nothing of it.
"""

from __future__ import annotations

import sys

from misbehaviours import commitments, doors, openings, results, sums, uploads
from misbehaviours.catalogue import MISBEHAVIOURS, Expected, Liar, Misbehaviour

from fedchain.cli.main import main

__all__ = ["MISBEHAVIOURS", "Expected", "Liar", "Misbehaviour", "lie"]


def lie(name: str, round: int) -> None:
    """Make every peer of this process misbehave like that in that round (0: in every one)."""
    Liar.begin(round)
    MISBEHAVIOURS[name].bend_process()


def listed() -> str:
    """A line a misbehaviour that a process can be started with: its name, a tab, what it tries."""
    return "\n".join(f"{one.name}\t{one.tries}" for one in MISBEHAVIOURS.values() if not one.staged)


def table() -> str:
    """The catalogue as `docs/misbehaviour.md` has it."""
    parts = []
    for module in (uploads, commitments, openings, sums, results, doors):
        rows = [one for one in MISBEHAVIOURS.values() if one.module == module.__name__]
        assert module.__doc__
        heading, _, rest = module.__doc__.partition(":")
        parts += [
            f"## {heading}",
            "",
            rest.strip().capitalize(),
            "",
            "| name | what is tried | why it fails | who is named |",
        ]
        parts += ["|---|---|---|---|"]
        parts += [f"| `{one.name}` | {one.tries} | {one.why} | {one.expected.named_by} |" for one in rows]
        parts += [""]
    return "\n".join(parts)


if __name__ == "__main__":
    if sys.argv[1:] == ["--table"]:
        print(table())
        raise SystemExit(0)
    if not sys.argv[1:]:
        print(listed())
        raise SystemExit(0)
    liar, round, *arguments = sys.argv[1:]
    lie(liar, int(round))
    sys.argv = ["fedchain", *arguments]
    main()
