"""What the federation was founded on: charter, code, members, weights, the first model (checks 1, 2 and 11)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from nacl.public import PrivateKey

from fedchain.audit import Status, audit
from fedchain.errors import ChainMismatch
from fedchain.protocol.events import FederationFounded, MemberEnrolled
from fedchain.protocol.ids import Address, Index
from fedchain.protocol.model import assemble, layout_from, model_digest

DEPLOYER = (1, 0, "the deployer")


def refounded(honest: Any, **terms: Any) -> Any:
    """The honest run, its contract founded on other terms."""
    return honest.edited(FederationFounded, lambda event: {"terms": replace(event.terms, **terms)})


def test_a_charter_of_another_digest_is_named(named: Any, honest: Any) -> None:
    assert named.found(refounded(honest, charter_digest=b"\x01" * 32).audit()) == {DEPLOYER}


@pytest.mark.parametrize(
    ("term", "value", "entry"),
    [
        ("rounds", 4, "run.rounds"),
        ("enrol_window_s", 601, "windows.enrol_s"),
        ("training_window_s", 301, "windows.training_s"),
        ("receipt_window_s", 201, "windows.receipt_s"),
        ("aggregate_window_s", 101, "windows.aggregate_s"),
        ("challenge_window_s", 999, "windows.challenge_s"),
        ("bond_wei", 1, "stake.bond_gwei"),
    ],
)
def test_terms_that_differ_from_the_charter_are_named(
    named: Any, honest: Any, term: str, value: int, entry: str
) -> None:
    report = refounded(honest, **{term: value}).audit()
    assert named.found(report) == {DEPLOYER}
    assert entry in report.faults[0].expected


def test_a_threshold_that_differs_from_the_charter_is_named(named: Any) -> None:
    play = named.Play(rounds=1)
    play.terms = lambda genesis: replace(named.Play.terms(play, genesis), threshold=4)
    report = play.run().audit()
    assert named.found(report) == {DEPLOYER}
    assert "committee.threshold = 3" in report.faults[0].expected


def test_a_threshold_that_the_contract_must_refuse_is_named(named: Any, honest: Any) -> None:
    assert (1, 0, "the contract") in named.found(refounded(honest, threshold=2).audit())


def test_founders_that_the_charter_does_not_name_are_named(named: Any) -> None:
    play = named.Play(rounds=1, charter=named.charter_of(federation={"members": list(reversed(named.MEMBERS))}))
    assert named.found(play.run().audit()) == {DEPLOYER}


def test_a_charter_that_is_not_canonical_is_named_and_the_model_not_judged(named: Any, honest: Any) -> None:
    import hashlib

    content = json.dumps(honest.charter.model_dump(mode="json"), indent=1).encode()
    play = refounded(
        honest, charter_digest=hashlib.sha256(content).digest(), charter_cid=honest.copy().store.put(content)
    )
    play.store.put(content)
    report = play.audit()
    assert named.found(report) == {DEPLOYER}
    assert report.rounds[0].check(10).status is Status.NOT_POSSIBLE
    assert report.checks[1].status is Status.NOT_POSSIBLE, "the weight cap cannot be known"


def test_a_withheld_charter_is_named(named: Any, honest: Any) -> None:
    play = honest.copy()
    del play.store.served[play.event(FederationFounded).terms.charter_cid]
    report = play.audit()
    assert named.found(report) == {DEPLOYER}
    assert not report.complete
    assert "the charter is not to be had" in report.checks[0].detail


def test_a_withheld_first_model_is_named(named: Any, honest: Any) -> None:
    play = honest.copy()
    del play.store.served[play.event(FederationFounded).terms.genesis_cid]
    report = play.audit()
    assert named.found(report) == {(11, 0, "the deployer")}
    assert "the first model is not to be had" in report.checks[2].detail
    assert report.rounds[0].check(10).status is Status.NOT_POSSIBLE
    assert report.rounds[1].check(10).status is Status.PASSED


def test_other_code_on_chain_names_the_contract(named: Any, honest: Any) -> None:
    def other() -> None:
        raise ChainMismatch("the code is not the committed build")

    report = audit(honest.chain, honest.store, code_check=other)
    assert named.found(report) == {(1, 0, "the contract")}


def test_code_that_was_not_compared_is_not_called_right(honest: Any) -> None:
    report = audit(honest.chain, honest.store)
    assert report.faults == () and not report.complete
    assert report.checks[0].status is Status.NOT_POSSIBLE


def test_a_weight_above_the_cap_is_named(named: Any) -> None:
    play = named.Play(rounds=1)
    play.enrol = lambda index: play.say(
        MemberEnrolled(
            index,
            named.MEMBERS[index],
            bytes(PrivateKey(bytes([index + 1]) * 32).public_key),
            101 if index == 2 else 50,
            0,
        )
    )
    report = play.run().audit()
    assert named.found(report) == {(2, 0, named.MEMBERS[2])}
    assert report.faults[0].got == "101"


@pytest.mark.parametrize(
    ("changes", "offender"),
    [
        ({"weight": 0}, 1),
        ({"encryption_key": bytes(32)}, 1),
        ({"encryption_key": b"short"}, 1),
    ],
)
def test_an_enrolment_that_the_contract_must_refuse_is_named(
    named: Any, honest: Any, changes: Any, offender: int
) -> None:
    play = honest.copy()
    play.chain.events = play.chain.events[:6]
    assert play.audit().faults == ()
    play = play.edited(MemberEnrolled, changes, index=offender)
    assert named.found(play.audit()) == {(2, 0, named.MEMBERS[offender])}


def test_a_stranger_that_enrols_is_named(named: Any, honest: Any) -> None:
    stranger = Address("0x" + "99" * 20)
    play = honest.copy()
    play.chain.events = play.chain.events[:6]
    assert named.found(play.edited(MemberEnrolled, {"member": stranger}, index=1).audit()) == {(2, 0, stranger)}
    outside = play.edited(MemberEnrolled, {"member": stranger, "index": Index(5)}, index=4)
    assert named.found(outside.audit()) == {(2, 0, stranger)}


def test_an_enrolment_after_the_run_began_is_named(named: Any, honest: Any) -> None:
    play = honest.copy()
    late = play.chain.events[5]
    play.chain.events = play.chain.events[:5]
    play.say(late, after_s=600)
    report = play.audit()
    assert named.found(report) == {(2, 0, named.MEMBERS[4])}
    assert "before the run began" in report.faults[0].expected
    assert not report.members[4].enrolled


def test_a_second_enrolment_is_named_and_changes_nothing(named: Any, honest: Any) -> None:
    play = honest.copy()
    play.chain.events = play.chain.events[:4]
    play.say(replace(play.event(MemberEnrolled, index=2), weight=90))
    report = play.audit()
    assert named.found(report) == {(2, 0, named.MEMBERS[2])}
    assert "one enrolment" in report.faults[0].expected
    assert report.members[2].weight == named.WEIGHTS[2]


def test_a_second_founding_names_the_contract(named: Any, honest: Any) -> None:
    play = honest.copy()
    play.chain.events = play.chain.events[:6]
    play.say(play.chain.events[0])
    assert named.found(play.audit()) == {(2, 0, "the contract")}


@pytest.mark.parametrize("founders", [slice(0, 2), [0, 1, 2, 2, 3]])
def test_founders_that_are_too_few_or_named_twice_name_the_contract(named: Any, honest: Any, founders: Any) -> None:
    members = named.MEMBERS[founders] if isinstance(founders, slice) else tuple(named.MEMBERS[i] for i in founders)
    play = honest.copy()
    play.chain.events = play.chain.events[:1]
    faults = play.edited(FederationFounded, {"founders": members}).audit().faults
    assert any(f.check == "2 members" and f.offender == "the contract" for f in faults)


@pytest.mark.parametrize("begin", [1, 99])
def test_a_log_without_a_founding_is_no_federations(honest: Any, begin: int) -> None:
    class Headless:
        chain_id, contract = honest.chain.chain_id, honest.chain.contract

        def refresh(self) -> None: ...

        def now(self) -> int:
            return int(honest.chain.time)

        def log(self) -> Any:
            return honest.chain.log()[begin:]

    with pytest.raises(ChainMismatch, match="FederationFounded"):
        audit(Headless(), honest.store)  # type: ignore[arg-type]


def test_a_first_model_of_another_digest_is_named(named: Any, honest: Any) -> None:
    # Whoever trains from the digest on chain trains from nothing that exists.
    play = refounded(honest, genesis_digest=b"\x02" * 32)
    assert (11, 0, "the deployer") in named.found(play.audit())


def test_a_first_model_of_another_size_is_named(named: Any, honest: Any) -> None:
    import numpy as np

    small = assemble(layout_from({"w": (9,)}), np.zeros(9, dtype=np.float32))
    play = honest.copy()
    play.chain.events = play.chain.events[:6]
    play = refounded(play, genesis_digest=model_digest(small), genesis_cid=play.store.put(small))
    play.store.put(small)
    report = play.audit()
    assert named.found(report) == {(11, 0, "the deployer")}
    assert report.faults[0].got == "4"


def test_a_first_model_that_is_no_model_is_named(named: Any, honest: Any) -> None:
    play = honest.copy()
    play.chain.events = play.chain.events[:6]
    play = refounded(play, genesis_digest=model_digest(b"pickle"), genesis_cid=play.store.put(b"pickle"))
    play.store.put(b"pickle")
    assert named.found(play.audit()) == {(11, 0, "the deployer")}
