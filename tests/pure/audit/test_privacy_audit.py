"""What the audit says of privacy: ε worked out from charter and chain, and who went on beyond the budget."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fedchain.audit.html import render_html
from fedchain.audit.terminal import print_report
from fedchain.cli.status import charter_in, picture
from fedchain.crypto import Upload, deal, sample_skellam
from fedchain.errors import CharterMismatch
from fedchain.protocol.events import AggregateCommitted, FederationFounded, OpeningPublished, ResultCommitted
from fedchain.protocol.ids import Index
from fedchain.protocol.model import flatten
from fedchain.protocol.privacy import ORDERS, epsilon_of, skellam_rdp
from fedchain.protocol.private_values import bounded_units, noise_in, noisy_values
from fedchain.protocol.update_format import join_values


def private_charter(named: Any, **privacy: Any) -> Any:
    return named.charter_of(
        update={"clip_value": 0.25, "bits": "auto"},
        outer={"learning_rate": 0.1},
        privacy={"mode": "records", "clip": 1.0, "epsilon": 9.0, "noise_multiplier": 1.6, **privacy},
    )


def noisy_play(named: Any, **privacy: Any) -> Any:
    """Two rounds of members who add their part of the noise."""

    class Noisy(named.Play):  # type: ignore[name-defined, misc]
        def deal(self, number: int, index: Index) -> Upload:
            context, noise = self.context(number), noise_in(self.form)
            own = sample_skellam(self.form.values, noise.variance, noise.reach)
            vector = self.random.normal(0, 0.02, self.form.size)
            units = bounded_units(vector, form=self.form, rotation=context.rotation_seed, random=self.random)
            return deal(
                context,
                dealer=index,
                dealer_address=self.members[index],
                encryption_keys=self.encryption_keys(),
                threshold=self.state.terms.threshold,
                coefficients=join_values(noisy_values(units, own, self.form), self.form),
            )

    return Noisy(rounds=2, charter=private_charter(named, **privacy)).run()


@pytest.fixture(scope="module")
def private(named: Any) -> Any:
    return noisy_play(named)


def by_hand(rounds: int, honest: int, shares: int) -> float:
    """ε of full-batch rounds whose sums hold this many honest parts of the noise; planned were `shares`."""
    multiplier = 1.6 * math.sqrt(honest / shares)
    return epsilon_of(tuple(rounds * skellam_rdp(order, multiplier) for order in ORDERS), 1e-5)


def test_an_honest_private_run_passes_and_its_epsilon_is_told(private: Any) -> None:
    report = private.audit()
    assert report.verdict == "ok", report.faults
    assert report.privacy.spent == pytest.approx(by_hand(2, 3, 3))
    assert [release.round for release in report.privacy.releases] == [1, 2]
    told = report.to_json()["privacy"]
    assert told == json.loads(json.dumps(told)) and told["epsilon"] == 9.0
    assert told["spent"] == report.privacy.spent and len(told["releases"]) == 2


def test_terminal_page_and_status_show_what_was_spent(private: Any) -> None:
    report, words = private.audit(), f"ε {by_hand(2, 3, 3):.3f} of 9 spent at δ 1e-05, by 2 releases"
    out = io.StringIO()
    print_report(Console(file=out, width=200), report)
    assert words in out.getvalue()
    page = render_html(report)
    assert words in page and "<h2>Privacy</h2>" in page
    Console(file=out, width=200).print(picture(private.state, private.chain.time, "here", private.charter))
    assert out.getvalue().count(words) == 2


def test_a_run_without_the_promise_is_told_nothing_of_it(honest: Any) -> None:
    report = honest.audit()
    assert report.privacy is None and report.to_json()["privacy"] is None
    assert "<h2>Privacy</h2>" not in render_html(report)


def test_a_round_that_never_closed_counts_once_its_set_was_locked(private: Any) -> None:
    play = private.copy()
    play.chain.events = [e for e in play.chain.events if not (isinstance(e, ResultCommitted) and e.round == 2)]
    assert play.audit().privacy.spent == pytest.approx(by_hand(2, 3, 3))
    play.chain.events = [e for e in play.chain.events if not (isinstance(e, OpeningPublished) and e.round == 2)]
    assert play.audit().privacy.spent == pytest.approx(by_hand(2, 3, 3)), "the chain need not have seen the openings"
    play.chain.events = [e for e in play.chain.events if not (isinstance(e, AggregateCommitted) and e.round == 2)]
    assert play.audit().privacy.spent == pytest.approx(by_hand(1, 3, 3))


def test_who_commits_beyond_the_budget_is_named(named: Any) -> None:
    """The budget pays for one round; everybody went on to a second."""
    play = noisy_play(named, epsilon=by_hand(1, 2, 3) + 0.01)
    report = play.audit()
    offenders = {(fault.check, fault.round, fault.offender) for fault in report.faults}
    assert offenders == {("6 order", 2, member) for member in named.MEMBERS}
    assert report.privacy.is_overspent
    assert all("could take the run beyond ε" in fault.expected for fault in report.faults)
    out = io.StringIO()
    print_report(Console(file=out, width=200), report)
    assert "room for 0 more" in out.getvalue()


def test_noise_that_no_model_has_room_for_is_the_deployers_fault(named: Any, private: Any) -> None:
    play = private.copy()
    terms = play.event(FederationFounded).terms
    charter = private_charter(named, noise_multiplier=999.0)
    other = {"charter_digest": charter.digest(), "charter_cid": play.store.put(charter.canonical())}
    report = play.edited(FederationFounded, {"terms": type(terms)(**_fields(terms) | other)}).audit()
    assert (11, 0, "the deployer") in named.found(report)


def test_status_takes_no_other_charter(named: Any, private: Any, tmp_path: Any) -> None:
    (tmp_path / "task.py").write_text("x = 1\n")
    (tmp_path / "federation.toml").write_text('version = 1\n[federation]\nname = "other"\n')
    with pytest.raises(CharterMismatch, match="another charter"):
        charter_in(tmp_path, private.state)


def test_members_noise_is_in_the_models(private: Any) -> None:
    """After one round the model moved by about what the plan says, not by the updates alone."""
    first, then = private.event(FederationFounded).terms.genesis_cid, private.event(ResultCommitted, round=1).model_cid
    moved = flatten(private.store.served[then]) - flatten(private.store.served[first])
    noise = noise_in(private.form)
    expected = 0.1 * math.sqrt(5 * noise.variance) * noise.unit / sum(private.weights.values())
    assert np.std(moved) == pytest.approx(expected, rel=0.15)


def _fields(terms: Any) -> dict[str, Any]:
    return {name: getattr(terms, name) for name in terms.__dataclass_fields__}
