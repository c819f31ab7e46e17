"""Scenario files: what is shipped can be played, and what is wrong is named in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from commands import fedchain
from misbehave import MISBEHAVIOURS
from soak import CHANCE, MEMBERS, MORTALS, STEPS, slope, soak

from fedchain.cli.scenario_faults import check_points
from fedchain.devnet import scenario as scenarios
from fedchain.devnet.scenario import Cut, Kill, Reorg, find_launcher, find_scenario, read_scenario, shipped
from fedchain.errors import UsageError
from fedchain.protocol.charter import read_charter

SHIPPED = list(shipped())

GOOD = """
name = "mine"
shows = "What it shows."
federation = "../peers/hospitals"
members = 5

[charter.run]
rounds = 2

[[faults]]
kind = "kill"
peers = [1]
round = 1
point = "before-aggregate"
for_s = 2

[[faults]]
kind = "cut"
peers = [3, 4]
round = 2
said = "update"
by = 0
for_s = 3

[expect]
rounds_closed = 2
ends_within_s = 60
"""


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_scenario_can_be_played(file: Path) -> None:
    scenario = read_scenario(file)
    check_points(scenario)
    assert scenario.name == file.stem
    charter = read_charter(file.parent / scenario.federation).with_settings(scenario.settings())
    assert charter.run.rounds == scenario.expect.rounds_closed
    assert not any(MISBEHAVIOURS[lie.name].staged for lie in scenario.lies)
    assert find_scenario(file.stem) == file


def test_the_document_tells_of_every_shipped_scenario() -> None:
    document = (SHIPPED[0].parents[1] / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|.*\| \d+ \|$", document, re.MULTILINE)) == {file.stem for file in SHIPPED}


def test_the_shipped_ones_hold_every_kind_of_fault() -> None:
    kinds = {fault.kind for file in SHIPPED for fault in read_scenario(file).faults}
    assert kinds == {"kill", "pause", "cut", "lie", "reorg", "chain-down", "store-down"}
    assert len(SHIPPED) >= 11


def test_a_scenario_is_read_with_quick_windows_and_its_own_entries(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    scenario = read_scenario(file)
    assert [type(fault) for fault in scenario.faults] == [Kill, Cut]
    assert scenario.cut_off == {3, 4}
    assert "run.rounds=2" in scenario.settings() and "windows.receipt_s=20" in scenario.settings()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "mine"', 'name = "My Own"', "name: "),
        ("members = 5", "members = 4", "fault 2 (cut): no member 4 among 4"),
        ("members = 5", "membres = 5", "membres: no such entry"),
        ("by = 0", "by = 9", "fault 2 (cut): no member 9 among 5"),
        ("for_s = 3", "for_s = 0", "fault 2 (cut): for_s: "),
        ("for_s = 3", "fors = 3", "fault 2 (cut): fors: no such entry"),
        ("for_s = 3", "for_s = 3\ndepth = 2", "fault 2 (cut): depth: no such entry"),
        ('kind = "cut"', 'kind = "cutt"', "fault 2: Input tag 'cutt'"),
        ('said = "update"', "", "fault 2 (cut): says when in 0 ways"),
        ('said = "update"', 'said = "update"\nafter_s = 3', "fault 2 (cut): says when in 2 ways"),
        ('said = "update"\nby = 0', "after_s = 3", "fault 2 (cut): round = N belongs to"),
        ("round = 2\n", "", "fault 2 (cut): round = N belongs to"),
        ('said = "update"', 'phase = "opening"', "fault 2 (cut): by = MEMBER belongs to said"),
        ("rounds = 2", "rounts = 2", "charter: a charter has no entry run.rounts"),
        ("[charter.run]", "[charter.runs]", "charter: a charter has no section 'runs'"),
        ("rounds_closed = 2", "rounds_closed = true", "expect.rounds_closed: "),
        ("rounds_closed = 2", "rounds_closed = 2\nslashed = [5]", "expect: no member 5 among 5"),
        ("[expect]", "[expekt]", "expekt: no such entry"),
        ('shows = "What it shows."', "shows = 3", "shows: "),
        ("[[faults]]", "[[faults]", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(UsageError) as refused:
        read_scenario(file)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert str(file) in str(refused.value)


def test_a_point_that_no_peer_passes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD.replace("before-aggregate", "before-lunch"))
    with pytest.raises(UsageError, match=r"fault 1 \(kill\): point: 'before-lunch' is none of before-vote"):
        check_points(read_scenario(file))


def test_one_peer_tells_one_lie(tmp_path: Path) -> None:
    lie = '[[faults]]\nkind = "lie"\nname = "wrong-sum"\npeers = [1]\nround = 1\n'
    file = tmp_path / "mine.toml"
    file.write_text(GOOD.replace("[expect]", f"{lie}\n{lie}\n[expect]"))
    with pytest.raises(UsageError, match="a peer lies in one way"):
        read_scenario(file)


def test_a_name_that_is_none_lists_those_there_are() -> None:
    said = fedchain("devnet", "run", "partitoin")
    assert said.returncode == 2 and said.stderr.count("\n") == 1
    assert "no scenario 'partitoin'; there are all-at-once, " in said.stderr
    assert "cannot be read" in fedchain("devnet", "run", "nowhere.toml").stderr


def test_outside_the_source_tree_it_says_where_scenarios_and_liars_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenarios, "source_trees", lambda: (tmp_path, tmp_path))
    with pytest.raises(UsageError, match="the package ships none"):
        find_scenario("partition")
    with pytest.raises(UsageError, match=r"lying peers, which the package does not ship.*--misbehave"):
        find_launcher(None)
    with pytest.raises(UsageError, match="there is no file"):
        find_launcher(tmp_path / "nothing.py")
    said = fedchain("devnet", "scenarios")
    assert said.returncode == 2 and "in the source tree's devnet/scenarios" in said.stderr


def test_the_list_shows_every_scenario_with_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    listed = fedchain("devnet", "scenarios").stdout
    for file in SHIPPED:
        assert file.stem in listed and read_scenario(file).shows in listed


class TestSoakPlan:
    """The plan of `tests/live/test_soak.py`."""

    def test_the_same_seed_gives_the_same_faults_in_about_a_fifth_of_all_steps(self) -> None:
        assert soak(50, 3) == soak(50, 3) != soak(50, 4)
        timed = [fault for seed in range(10) for fault in soak(50, seed).timed]
        steps = 10 * 50 * len(STEPS)
        assert 0.17 < len(timed) / steps < 0.23 and CHANCE == 0.2
        assert {fault.kind for fault in timed} == {"kill", "pause", "cut", "reorg", "store-down", "chain-down"}

    def test_survivors_are_never_killed_and_no_reorganisation_is_deeper_than_peers_wait(self) -> None:
        for seed in range(20):
            plan = soak(50, seed)
            killed: set[Any] = {peer for fault in plan.timed if isinstance(fault, Kill) for peer in fault.peers}
            assert killed | set(plan.liars) <= set(MORTALS) and plan.members == MEMBERS
            assert all(fault.depth <= plan.confirmations for fault in plan.timed if isinstance(fault, Reorg))

    def test_the_slope_sees_growth_and_no_outlier(self) -> None:
        flat = [(x, 100.0) for x in range(30)]
        assert slope(flat) == 0
        assert slope([*flat, (30, 9000.0)]) == 0
        assert slope([(x, 5.0 * x) for x in range(30)]) == 5
