"""Ten peers, fifty rounds, a fault in a fifth of all steps: it ends, the model follows, and nothing that is held grows.

    python -m pytest -m slow tests/live/test_soak.py -s

`FEDCHAIN_SOAK_ROUNDS` and `FEDCHAIN_SOAK_SEED` choose another length and other faults; `FEDCHAIN_SOAK_OUT` names a file
for the samples. The bounds below are a round's growth by Theil and Sen over the last two thirds of the rounds.
"""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console
from soak import SURVIVORS, Samples, slope, soak

from fedchain.cli.scenario_run import ScenarioRun, print_outcome

ROOT = Path(__file__).parents[2]
ROUNDS = int(os.environ.get("FEDCHAIN_SOAK_ROUNDS", "50"))
SEED = int(os.environ.get("FEDCHAIN_SOAK_SEED", "23"))

MOST = {"rss": 150_000, "disk": 10_000, "files": 0.02, "threads": 0.02}
"""Growth a round that is still flat: bytes of memory and of disk beside models and results, open files, threads."""


@pytest.mark.slow
@pytest.mark.timeout(900 + 120 * ROUNDS)
def test_ten_peers_under_random_faults_end_with_the_audits_model_and_hold_no_more_than_before(tmp_path: Path) -> None:
    samples, console = Samples(), Console(width=110)
    scenario = soak(ROUNDS, SEED)
    run = ScenarioRun(
        scenario,
        ROOT,
        tmp_path / "run",
        console,
        launcher=ROOT / "tests" / "misbehave.py",
        each_look=samples.look,
    )
    outcome = run.run()
    print_outcome(outcome, console)
    grown = growth(samples)
    console.print_json(json.dumps(grown))
    if out := os.environ.get("FEDCHAIN_SOAK_OUT"):
        figures = {**outcome.to_json(), "growth": grown, "nodes": samples.nodes}
        Path(out).write_text(json.dumps({**figures, "samples": [asdict(sample) for sample in samples.all]}))
    assert outcome.ok, outcome.findings
    assert len(scenario.timed) > 0.1 * 5 * ROUNDS, "there were faults"
    for what, most in MOST.items():
        for peer, figures in grown.items():
            assert figures[what]["a_round"] <= most, (what, peer, figures[what])


def growth(samples: Samples) -> dict[int, dict[str, dict[str, float]]]:
    """For each survivor and figure: its growth a round over the last two thirds, and its median and most there."""
    since = ROUNDS // 3
    return {
        peer: {
            what: {
                "a_round": round(slope(points), 4),
                "median": statistics.median(value for _, value in points),
                "most": max(value for _, value in points),
            }
            for what in (*MOST, "kept")
            if (points := samples.of(peer, what, since))
        }
        for peer in SURVIVORS
    }
