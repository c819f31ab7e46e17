"""`fedchain compare`: what it measures, and the page, the pictures and the tables it makes of that."""

from __future__ import annotations

import base64
import builtins
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from typer.testing import CliRunner

from fedchain.cli.compare import sizes_of
from fedchain.cli.main import app
from fedchain.cli.new import make_folder
from fedchain.errors import UsageError
from fedchain.lab.compare import Comparison, compare
from fedchain.lab.exposure import exposures
from fedchain.lab.page import bytes_in_words, render_page, seconds_in_words
from fedchain.lab.plots import check_plots, draw
from fedchain.lab.run import federate, with_invented_members
from fedchain.lab.summary import entries, headline, rows_of
from fedchain.learn import LocalData, Task, alone, centralised, evaluate, passes_of
from fedchain.protocol.charter import Charter

PNG = b"\x89PNG\r\n\x1a\n"


class Specialists(Task):
    """Three clouds; each member sees two classes at most: alone, nobody can tell all three."""

    name = "specialists"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 3))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def local_data(self, index: int, members: int, seed: int) -> LocalData:
        kinds = [index % 3, (index + 1) % 3]
        return LocalData(self.points(40, seed + index, kinds), self.points(20, seed + index + 500, kinds))

    def test_data(self) -> TensorDataset:
        return self.points(150, 999, [0, 1, 2])

    def points(self, count: int, seed: int, kinds: list[int]) -> TensorDataset:
        random = torch.Generator().manual_seed(seed)
        labels = torch.tensor(kinds)[torch.randint(0, len(kinds), (count,), generator=random)]
        centres = torch.tensor([[0.0, 3.0], [3.0, 0.0], [-3.0, -3.0]])
        return TensorDataset(torch.randn(count, 2, generator=random) + centres[labels], labels)


def charter_of(*settings: str) -> Charter:
    entries = {"federation": {"name": "specialists", "description": "Clouds <b>&</b> more"}, "task_sha256": "ab" * 32}
    charter = Charter.model_validate(entries)
    return charter.with_settings(["run.rounds=3", "run.seed=4", "algorithm.local_epochs=2", *settings])


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(charter_of(), Specialists(), members=3, seeds=(4, 5), scale=(3, 5))


def test_members_that_lack_a_class_gain_by_federating(comparison: Comparison) -> None:
    central, federated, _, each, best = rows_of(comparison)
    assert each.test <= best.test < federated.test <= 1
    assert federated.test > 0.85 and central.test > 0.85
    assert each.moved == best.moved == 0 < central.moved < federated.moved


def test_the_baselines_are_those_of_the_demonstration(comparison: Comparison) -> None:
    """The same base, epochs and seed as `learn.centralised` and `learn.alone`: looking on the way changes nothing."""
    task, trial = Specialists(), comparison.trials[0]
    run = federate(comparison.charter, task)
    assert run.state.model_digest.hex() == trial.model_digest
    arguments = (run.charter.algorithm, 6, 4)
    algorithm, epochs, seed = arguments
    assert trial.centralised.test == centralised(task, run.models[0], algorithm, run.datas, epochs, seed)
    assert trial.alone[1].test == alone(task, run.models[0], algorithm, run.datas[1], epochs, seed)
    assert trial.federated.test == evaluate(task, run.models[-1], task.test_data())
    own = tuple(evaluate(task, run.models[-1], data.validation)["accuracy"] for data in run.datas)
    assert trial.federated.own == own


def test_a_private_round_is_a_part_of_a_pass_through_the_rows_for_every_way() -> None:
    """It makes one step, on rows drawn with a probability, however many local epochs the charter has."""
    step = ["outer.learning_rate=0.5", "algorithm.local_epochs=10", "run.rounds=4"]
    private = charter_of(*step, "privacy.mode=records", "privacy.epsilon=50", "privacy.clip=1")
    rates = (1.0, 0.5, 0.3)
    charters = [private.with_settings([f"privacy.sampling_rate={rate}"]) for rate in rates]
    assert [passes_of(charter, 4) for charter in charters] == [4, 2, 2]
    assert passes_of(charter_of(*step), 4) == 40
    trial = compare(charters[1], Specialists(), members=3, seeds=(4,)).trials[0]
    assert len(trial.federated.curve) == 5 and len(trial.centralised.curve) == len(trial.alone[0].curve) == 3


def test_every_way_begins_at_the_same_model_and_is_followed_to_its_end(comparison: Comparison) -> None:
    for trial in comparison.trials:
        ways = (trial.federated, trial.centralised, *trial.alone)
        assert len({way.curve[0] for way in ways}) == 1
        for way in ways:
            assert len(way.curve) == trial.rounds + 1 == 4
            assert way.curve[-1] == way.test["accuracy"]
            assert 0 <= way.auc <= 1 and way.seconds > 0
        assert trial.samples == (40, 40, 40) and trial.raw_bytes == 3 * 40 * (2 * 4 + 8)
        assert len(trial.tuned_own) == len(trial.tuned_test) == len(trial.costs) == 3
    assert [trial.seed for trial in comparison.trials] == [4, 5]


def test_what_a_member_receives_grows_faster_with_the_members_than_what_it_sends(comparison: Comparison) -> None:
    three, five = comparison.scales
    assert (three.members, five.members) == (3, 5)
    assert five.bytes_down / three.bytes_down > 1.5 * five.bytes_up / three.bytes_up
    assert five.bytes_up > three.bytes_up, "a share more for every member"
    assert five.federated > five.alone


def test_a_charter_that_keeps_tensors_local_is_judged_by_each_members_own_model() -> None:
    charter = charter_of('algorithm.local_tensors=["2.*"]', "run.rounds=2")
    trial = compare(charter, Specialists(), members=3, seeds=(4,)).trials[0]
    assert trial.federated.test["accuracy"] < 0.8 < min(trial.federated.own), "personal models know their own classes"
    assert len(trial.federated.curve) == 3


def test_the_page_stands_alone_and_holds_every_figure(comparison: Comparison) -> None:
    pictures = draw(comparison)
    assert set(pictures) == {"quality", "members", "cost", "scaling"}
    assert all(picture.startswith(PNG) and len(picture) > 5000 for picture in pictures.values())
    page = render_page(comparison, pictures, "1.2.3")
    assert not re.search(r"https?://|<script|@import|url\(", page)
    assert re.findall(r'src="([^"]{5})', page) == ["data:"] * 4
    for picture in pictures.values():
        assert base64.b64encode(picture).decode() in page
    assert "Clouds &lt;b&gt;&amp;&lt;/b&gt; more" in page and "<b>&</b>" not in page
    for row in rows_of(comparison):
        assert f"{row.test:.4f}" in page and row.way in page
    assert comparison.trials[1].model_digest in page and headline(comparison) in page
    without = render_page(comparison, {}, "1.2.3")
    assert "<img" not in without


def test_the_same_comparison_draws_the_same_pictures(comparison: Comparison) -> None:
    assert draw(comparison) == draw(comparison)


def test_the_figures_for_machines_are_plain_json(comparison: Comparison) -> None:
    again = json.loads(json.dumps(entries(comparison), allow_nan=False))
    assert again["trials"][0]["federated"]["test"] == dict(comparison.trials[0].federated.test)
    assert again["rows"][1]["way"] == "federated, encrypted"
    assert [scale["members"] for scale in again["scales"]] == [3, 5]


def test_the_headline_says_which_way_the_gap_goes(comparison: Comparison) -> None:
    def told(central: float, federated: float, higher: bool) -> str:
        trial = comparison.trials[0]
        changed = replace(
            trial,
            centralised=replace(trial.centralised, test={"accuracy": central}),
            federated=replace(trial.federated, test={"accuracy": federated}),
        )
        return headline(replace(comparison, trials=(changed,), higher_is_better=higher))

    assert "0.100 short of centralised" in told(0.9, 0.8, True)
    assert "0.100 beyond centralised" in told(0.8, 0.9, True)
    assert "0.100 short of centralised" in told(0.8, 0.9, False)
    assert "the same as centralised" in told(0.9, 0.9001, True)


def test_who_can_read_what_follows_from_the_charter() -> None:
    charter = with_invented_members(charter_of("committee.threshold=6"), 8)
    table = {question: answer for question, _, answer, _ in exposures(charter)}
    assert table["who can read one member's update"].startswith("any 6 of the 8 members")
    assert table["the smallest sum that is ever opened"] == "of 7 members' updates"
    assert table["differential privacy of the model"].startswith("none")


def test_quantities_are_written_for_people() -> None:
    assert [bytes_in_words(n) for n in (12, 3_456, 7_890_000, 1.5e9)] == ["12 B", "3.46 kB", "7.89 MB", "1.5 GB"]
    assert [seconds_in_words(s) for s in (0.1234, 9.99, 1234.5)] == ["0.12 s", "9.99 s", "1,234 s"]


def test_numbers_of_members_are_read_and_wrong_ones_explained() -> None:
    assert sizes_of("10, 3,3") == (3, 10)
    assert sizes_of("") == ()
    for wrong in ("2", "3-5", "65", "a"):
        with pytest.raises(UsageError, match="from 3 to 64 with commas"):
            sizes_of(wrong)


def test_plots_without_matplotlib_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def without_matplotlib(name: str, *arguments: Any, **options: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return there(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(UsageError, match=r"pip install 'fedchain\[plots\]', or add --no-plots"):
        check_plots()


def test_the_command_writes_page_figures_and_pictures(tmp_path: Path) -> None:
    make_folder(tmp_path / "wines", "wines")
    arguments = ["compare", str(tmp_path / "wines"), "--peers", "3", "--seeds", "1", "--rounds", "2"]
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*arguments, "--scale", "", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "who sees what" in done.output
    figures = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    for way in figures["rows"]:
        for shown in (f"{way['test']:.4f}", f"{way['own']:.4f}", f"{way['worst']:.4f}"):
            assert f" {shown} " in done.output, "cut off on eighty columns"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.html",
        "comparison.json",
        "quality.png",
        "members.png",
        "cost.png",
    }
    assert figures["federation"] == "wines" and figures["trials"][0]["rounds"] == 2
