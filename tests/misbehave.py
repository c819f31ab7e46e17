"""Members that misbehave, each a few lines of a real peer changed.

`python tests/misbehave.py wrong-sum 2 peer run …` runs the peer that `fedchain peer run …` would, but for one lie in
round 2; round 0 stands for every round. Without arguments it lists what there is. What a liar lies about it also
stores, as everybody else does; but who hides its lie stores nothing of it.
"""

from __future__ import annotations

import sys

from misbehaviours import doors, openings, results, sums, uploads
from misbehaviours.catalogue import MISBEHAVIOURS, Expected, Liar, Misbehaviour

from fedchain.cli.main import main

__all__ = [
    "MISBEHAVIOURS",
    "Expected",
    "Liar",
    "Misbehaviour",
    "doors",
    "lie",
    "openings",
    "results",
    "sums",
    "uploads",
]


def lie(name: str, round: int) -> None:
    """Make every peer of this process misbehave like that in that round (0: in every one)."""
    Liar.begin(round)
    MISBEHAVIOURS[name].bend_process()


def listed() -> str:
    """A line a misbehaviour that a process can be started with: its name, a tab, what it tries."""
    return "\n".join(f"{one.name}\t{one.tries}" for one in MISBEHAVIOURS.values() if one.startable)


if __name__ == "__main__":
    if not sys.argv[1:]:
        print(listed())
        raise SystemExit(0)
    liar, round, *arguments = sys.argv[1:]
    lie(liar, int(round))
    sys.argv = ["fedchain", *arguments]
    main()
