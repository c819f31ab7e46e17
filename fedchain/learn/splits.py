"""Dividing one data set among members unevenly, for experiments: each gives (rows of member 0, rows of member 1, …).

Every row goes to exactly one member, every member gets at least `least` rows, and the same arguments give the same
division (with the same numpy), so that every member can work out its own part without asking anyone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import UsageError

Rows = NDArray[np.int64]


def dirichlet(labels: ArrayLike, members: int, *, alpha: float, seed: int, least: int = 1) -> tuple[Rows, ...]:
    """Label skew: each label's rows are dealt out in proportions drawn from Dirichlet(alpha).

    Small alpha is more uneven: 0.1 leaves members with one or two labels, 100 is nearly even (Hsu et al. 2019,
    arXiv:1909.06335; the partition `noniid-labeldir` of NIID-Bench, arXiv:2102.02079).
    """
    truth, random = _checked(labels, members, seed, least)
    parts: list[list[Rows]] = [[] for _ in range(members)]
    for label in np.unique(truth):
        rows = random.permutation(np.flatnonzero(truth == label))
        ends = np.cumsum(random.dirichlet(np.full(members, alpha)))[:-1]
        for part, dealt in zip(parts, np.split(rows, np.round(ends * len(rows)).astype(int)), strict=True):
            part.append(dealt)
    return _balanced([np.concatenate(part) for part in parts], least, random)


def shards(labels: ArrayLike, members: int, *, each: int = 2, seed: int, least: int = 1) -> tuple[Rows, ...]:
    """Label skew of the FedAvg paper: rows sorted by label, cut into members × each shards, `each` shards a member."""
    truth, random = _checked(labels, members, seed, least)
    order = random.permutation(len(truth))
    by_label = order[np.argsort(truth[order], kind="stable")]
    cut = np.array_split(by_label, members * each)
    drawn = random.permutation(members * each).reshape(members, each)
    return _balanced([np.concatenate([cut[shard] for shard in own]) for own in drawn], least, random)


def specialists(labels: ArrayLike, members: int, *, apart: float, seed: int, least: int = 1) -> tuple[Rows, ...]:
    """Label skew by trade: member i's own label is the (i mod k)-th of k, and it sees little else.

    Of each label's rows the part `apart` is dealt evenly to the members whose own label it is, the rest evenly to the
    others: 1 is one label a member, 1/k about the same mixture for all.
    """
    truth, random = _checked(labels, members, seed, least)
    parts: list[list[Rows]] = [[] for _ in range(members)]
    kinds = np.unique(truth)
    for kind, label in enumerate(kinds):
        rows = random.permutation(np.flatnonzero(truth == label))
        # With fewer members than labels, member i also takes the labels i + members, i + 2·members, …
        home = [i for i in range(members) if i % len(kinds) == kind % min(members, len(kinds))]
        others = [i for i in range(members) if i not in home]
        kept = round(apart * len(rows)) if others else len(rows)
        for those, dealt in ((home, rows[:kept]), (others, rows[kept:])):
            for place, member in enumerate(those):
                parts[member].append(dealt[place :: len(those)])
    return _balanced([np.concatenate(part) for part in parts], least, random)


def quantity(count: int, members: int, *, alpha: float, seed: int, least: int = 1) -> tuple[Rows, ...]:
    """Quantity skew: the same mixture everywhere, but shares of the rows drawn from Dirichlet(alpha)."""
    _, random = _checked(np.zeros(count), members, seed, least)
    ends = np.cumsum(random.dirichlet(np.full(members, alpha)))[:-1]
    parts = np.split(random.permutation(count), np.round(ends * count).astype(int))
    return _balanced([np.asarray(part) for part in parts], least, random)


def _checked(labels: ArrayLike, members: int, seed: int, least: int) -> tuple[NDArray[np.generic], np.random.Generator]:
    truth = np.asarray(labels).reshape(-1)
    if members < 1 or members * least > len(truth):
        raise UsageError(f"{len(truth)} rows cannot give {members} members at least {least} each")
    return truth, np.random.default_rng(seed)


def _balanced(parts: list[Rows], least: int, random: np.random.Generator) -> tuple[Rows, ...]:
    """Move rows from the largest member to those with fewer than `least`; shuffle each member's rows."""
    parts = [random.permutation(part).astype(np.int64) for part in parts]
    for poor in range(len(parts)):
        while len(parts[poor]) < least:
            rich = max(range(len(parts)), key=lambda i: len(parts[i]))
            parts[poor] = np.append(parts[poor], parts[rich][-1])
            parts[rich] = parts[rich][:-1]
    return tuple(parts)
