"""The reproduction of NIID-Bench: its partitions, and that a setting that was broken off goes on."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench" / "niid"


@pytest.fixture
def niid(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """bench/niid/run.py, imported as Python finds it when it is run."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("run")


@pytest.mark.parametrize("name", ["iid", "dirichlet", "labels1", "labels2", "labels3", "quantity"])
@pytest.mark.parametrize(("kinds", "silos"), [(10, 10), (2, 10), (10, 12)])
def test_a_partition_deals_every_row_once_and_is_as_uneven_as_it_says(
    niid: Any, name: str, kinds: int, silos: int
) -> None:
    labels = np.random.default_rng(0).integers(0, kinds, 3000)
    for seed in range(3):
        parts = niid.PARTITIONS[name](labels, silos, np.random.default_rng(seed))
        again = niid.PARTITIONS[name](labels, silos, np.random.default_rng(seed))
        assert len(parts) == silos and all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
        assert sorted(np.concatenate(parts).tolist()) == list(range(3000))
        sizes = [len(part) for part in parts]
        assert min(sizes) >= 10
        seen = {len(np.unique(labels[part])) for part in parts}
        if name.startswith("labels"):
            assert seen == {min(int(name[-1]), kinds)}
        elif name == "iid":
            assert seen == {kinds} and max(sizes) - min(sizes) <= 1
        else:
            assert max(sizes) > 1.5 * min(sizes)


def options(**changes: Any) -> argparse.Namespace:
    chosen = {"set": "breast-cancer", "silos": 4, "epochs": 2, "rounds": 4, "charter": []}
    return argparse.Namespace(**chosen | changes)


def test_a_setting_that_was_broken_off_goes_on_to_the_same_figures(
    niid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = niid.read_set("breast-cancer", None)
    monkeypatch.setattr(niid, "OUT", tmp_path / "whole")
    niid.play("one", options(), rows, "dirichlet", "scaffold", 1)
    monkeypatch.setattr(niid, "OUT", tmp_path / "broken")
    honest, judged = niid.evaluate, []

    def plug(*args: Any) -> Any:
        judged.append(1)
        if len(judged) == 3:
            raise KeyboardInterrupt
        return honest(*args)

    monkeypatch.setattr(niid, "evaluate", plug)
    with pytest.raises(KeyboardInterrupt):
        niid.play("one", options(), rows, "dirichlet", "scaffold", 1)
    assert niid.finished() == [] and (tmp_path / "broken" / "niid" / "one.npz").exists()
    niid.play("one", options(), rows, "dirichlet", "scaffold", 1)
    assert len(judged) == 5, "two rounds, one broken off, two more"
    (entry,) = niid.finished()
    whole = json.loads((tmp_path / "whole" / "niid.jsonl").read_text())
    assert entry["accuracies"] == whole["accuracies"] and len(entry["accuracies"]) == 4
    assert entry["best"] > 0.6 and not list((tmp_path / "broken" / "niid").iterdir())


def test_the_table_shows_ours_beside_the_published(niid: Any) -> None:
    entry = {
        "set": "fmnist",
        "partition": "dirichlet",
        "algorithm": "fedavg",
        "rounds": 50,
        "epochs": 10,
        "charter": [],
    }
    shown = niid.table([entry | {"best": best, "last": 0.88} for best in (0.88, 0.89)])
    assert shown.splitlines()[-1] == "| fmnist | dirichlet | fedavg | 50 | 88.5 | 88.0 | 2 | 88.4 |"


def test_the_networks_are_the_papers(niid: Any) -> None:
    import torch

    def size(inputs: torch.Tensor, classes: int) -> int:
        labels = torch.arange(400) % classes
        rows = niid.Rows(train=(inputs, labels), test=(inputs, labels), classes=classes)
        model = niid.Silos(rows, "iid", 10, 1).model()
        assert model(inputs[:2]).shape == (2, classes)
        return sum(part.numel() for part in model.parameters())

    assert size(torch.zeros(400, 1, 28, 28), 10) == 44_426
    assert size(torch.zeros(400, 123), 2) == 123 * 32 + 32 + 32 * 16 + 16 + 16 * 8 + 8 + 8 * 2 + 2


def test_a_set_that_is_not_bundled_asks_for_its_path(niid: Any, tmp_path: Path) -> None:
    from fedchain.errors import UsageError

    with pytest.raises(UsageError, match="--set adult needs --data"):
        niid.read_set("adult", None)
    with pytest.raises(UsageError, match="a9a is not LIBSVM's a9a"):
        niid.read_set("adult", tmp_path)
    (tmp_path / "a9a").write_text("+1 3:1 123:1\n-1 2:1\n")
    (tmp_path / "a9a.t").write_text("-1 3:1\n")
    rows = niid.read_set("adult", tmp_path)
    assert rows.train[0].shape == (2, 123) and rows.train[1].tolist() == [1, 0] and rows.test[1].tolist() == [0]
