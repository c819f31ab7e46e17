"""NIID-Bench's ways of dividing a data set among silos (arXiv:2102.02079, section 4), as the paper's code does it.

They differ from `fedchain.learn.splits` in detail: a silo that has its even share already gets no more (`dirichlet`), a
draw that leaves a silo with fewer than ten rows is drawn again. Each gives (rows of silo 0, rows of silo 1, …).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

LEAST = 10
"""Fewer rows than this, and everything is drawn again."""


def iid(labels: Rows, silos: int, random: np.random.Generator) -> list[Rows]:
    """`homo`: equal parts at random."""
    return [np.sort(part) for part in np.array_split(random.permutation(len(labels)), silos)]


def dirichlet(labels: Rows, silos: int, random: np.random.Generator, alpha: float = 0.5) -> list[Rows]:
    """`noniid-labeldir`: each label's rows in shares from Dirichlet(alpha), none for silos that have an even part."""
    while True:
        parts: list[list[Rows]] = [[] for _ in range(silos)]
        for label in np.unique(labels):
            rows = random.permutation(np.flatnonzero(labels == label))
            sizes = np.array([sum(map(len, part)) for part in parts])
            shares = random.dirichlet(np.full(silos, alpha)) * (sizes < len(labels) / silos)
            ends = (np.cumsum(shares / shares.sum()) * len(rows)).astype(int)[:-1]
            for part, dealt in zip(parts, np.split(rows, ends), strict=True):
                part.append(dealt)
        whole = [np.concatenate(part) for part in parts]
        if min(map(len, whole)) >= LEAST:
            return whole


def some_labels(labels: Rows, silos: int, random: np.random.Generator, each: int) -> list[Rows]:
    """`noniid-#label<each>`: silo i has label i (mod the labels) and each−1 others; a label's silos share it evenly."""
    kinds = np.unique(labels)
    own = []
    for i in range(silos):
        home = i % len(kinds)
        others = [kind for kind in range(len(kinds)) if kind != home]
        own.append({home, *random.choice(others, min(each, len(kinds)) - 1, replace=False)})
    parts: list[list[Rows]] = [[np.zeros(0, np.int64)] for _ in range(silos)]
    for kind, label in enumerate(kinds):
        having = [i for i in range(silos) if kind in own[i]]
        rows = random.permutation(np.flatnonzero(labels == label))
        for i, dealt in zip(having, np.array_split(rows, len(having)), strict=True):
            parts[i].append(dealt)
    return [np.concatenate(part) for part in parts]


def quantity(labels: Rows, silos: int, random: np.random.Generator, alpha: float = 0.5) -> list[Rows]:
    """`iid-diff-quantity`: the same mixture for all, in sizes from Dirichlet(alpha)."""
    while True:
        shares = random.dirichlet(np.full(silos, alpha))
        ends = (np.cumsum(shares) * len(labels)).astype(int)[:-1]
        parts = np.split(random.permutation(len(labels)), ends)
        if min(map(len, parts)) >= LEAST:
            return parts


PARTITIONS: dict[str, Callable[[Rows, int, np.random.Generator], list[Rows]]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "labels1": lambda labels, silos, random: some_labels(labels, silos, random, 1),
    "labels2": lambda labels, silos, random: some_labels(labels, silos, random, 2),
    "labels3": lambda labels, silos, random: some_labels(labels, silos, random, 3),
    "quantity": quantity,
}
"""The settings by the names of the command line; Dirichlet's parameter is 0.5 as in the paper's tables."""
