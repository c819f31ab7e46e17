"""The model of a round as a stranger gets it: which one stands, whether bytes are it, whether it follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedchain.audit.models import check_model, fetch_model, model_on_chain, recompute, round_of
from fedchain.errors import ChainMismatch, Fault, MalformedObject, ObjectMissing, UsageError
from fedchain.protocol.events import FederationFounded, ReceiptPosted, ResultCommitted
from fedchain.protocol.ids import Bitmap, Digest
from fedchain.protocol.model import assemble, flatten, layout_of, model_digest


def test_the_newest_model_is_given_unless_another_round_is_named(honest: Any) -> None:
    state = honest.state
    newest, first, genesis = (model_on_chain(state, honest.chain.now(), round) for round in (None, 1, 0))
    assert (newest.round, newest.digest, newest.cid) == (2, state.model_digest, state.model_cid)
    assert first.digest == state.closed[1].result.model_digest != newest.digest
    assert genesis.digest == state.terms.genesis_digest
    assert not newest.final, "a third round is still to come"
    window = state.terms.challenge_window_s
    assert newest.contested_until == state.closed[2].result.at + window
    with pytest.raises(UsageError, match=r"round 3 has no model yet: the chain holds those of rounds 0 .* to 2"):
        model_on_chain(state, honest.chain.now(), 3)


def test_the_last_model_of_a_finished_run_is_final(named: Any) -> None:
    play = named.Play(rounds=2, charter=named.charter_of(run={"rounds": 2})).run()
    assert model_on_chain(play.state, play.chain.now()).final
    assert not model_on_chain(play.state, play.chain.now(), 1).final


def test_every_rounds_model_is_fetched_and_is_the_one_on_chain(honest: Any) -> None:
    for round in (0, 1, 2):
        model = model_on_chain(honest.state, honest.chain.now(), round)
        content = fetch_model(honest.state, honest.store, model)
        assert model_digest(content) == model.digest
        assert round_of(honest.state, model.digest) == round


def test_bytes_of_another_digest_are_refused_and_belong_to_no_round(honest: Any) -> None:
    model = model_on_chain(honest.state, honest.chain.now())
    content = fetch_model(honest.state, honest.store, model)
    values = flatten(content).copy()
    values[17] += np.float32(1e-3)
    other = assemble(layout_of(content), values)
    with pytest.raises(ChainMismatch, match=f"the chain holds {model.digest.hex()} for round 2"):
        check_model(model, other)
    with pytest.raises(ChainMismatch, match="is on this chain for no round"):
        round_of(honest.state, model_digest(other))


def test_an_object_under_the_cid_that_is_not_the_digest_on_chain_is_refused(honest: Any) -> None:
    """Whoever closes a round posts both digest and CID; the contract compares neither with the other."""
    play = honest.copy()
    wrong = play.store.put(play.store.served[play.state.terms.genesis_cid])
    play = play.edited(ResultCommitted, {"model_cid": wrong}, round=2)
    with pytest.raises(ChainMismatch, match="do not use it"):
        fetch_model(play.state, play.store, model_on_chain(play.state, play.chain.now()))


def test_bytes_that_are_no_model_are_refused_though_their_digest_is_on_chain(honest: Any) -> None:
    junk = b"not a model"
    play = honest.copy()
    play = play.edited(
        ResultCommitted, {"model_cid": play.store.put(junk), "model_digest": model_digest(junk)}, round=2
    )
    with pytest.raises(MalformedObject):
        fetch_model(play.state, play.store, model_on_chain(play.state, play.chain.now()))


def test_a_model_that_nobody_has_is_missing(honest: Any) -> None:
    play = honest.copy()
    del play.store.served[play.state.model_cid]
    with pytest.raises(ObjectMissing):
        fetch_model(play.state, play.store, model_on_chain(play.state, play.chain.now()))


def test_computing_again_gives_the_same_models(honest: Any) -> None:
    newest = model_on_chain(honest.state, honest.chain.now())
    alone = recompute(honest.chain, honest.store, newest, code_check=lambda: None)
    assert (alone.rounds, alone.missing, alone.faults) == ((2,), (), ())
    whole = recompute(honest.chain, honest.store, newest, whole_chain=True, code_check=lambda: None)
    assert whole.rounds == (1, 2)
    assert recompute(honest.chain, honest.store, model_on_chain(honest.state, honest.chain.now(), 0)).checks == ()


def test_a_model_that_does_not_follow_is_refused_with_its_authors_name(honest: Any, named: Any) -> None:
    """The closer stored another model and posted its right digest: nothing but computing it again shows that."""
    play = honest.copy()
    content = play.store.served[play.state.model_cid]
    values = flatten(content).copy()
    values[0] += np.float32(1)
    other = assemble(layout_of(content), values)
    lie = {"model_digest": model_digest(other), "model_cid": play.store.put(other)}
    play = play.edited(ResultCommitted, lie, round=2)
    newest = model_on_chain(play.state, play.chain.now())
    assert fetch_model(play.state, play.store, newest) == other
    closer = named.MEMBERS[play.state.closed[2].result.index]
    with pytest.raises(Fault, match=f"{closer} in round 2: 10 model"):
        recompute(play.chain, play.store, newest, code_check=lambda: None)
    before = recompute(play.chain, play.store, model_on_chain(play.state, play.chain.now(), 1), code_check=lambda: None)
    assert before.rounds == (1,), "the model before it is as good as ever"


def test_a_wrong_model_early_in_the_chain_shows_only_when_the_whole_chain_is_computed(honest: Any, named: Any) -> None:
    class Drifting(named.Play):  # type: ignore[misc]
        """The closer of round 1 posts a model of its own; round 2 is honest, and built on it."""

        def next_model(self, number: int, opened: Any) -> bytes:
            content = super().next_model(number, opened)
            values = flatten(content).copy()
            values[0] += np.float32(number == 1)
            return bytes(assemble(layout_of(content), values))

    play = Drifting(rounds=2).run()
    newest = model_on_chain(play.state, play.chain.now())
    assert recompute(play.chain, play.store, newest, code_check=lambda: None).rounds == (2,)
    with pytest.raises(Fault, match="in round 1: 10 model"):
        recompute(play.chain, play.store, newest, whole_chain=True, code_check=lambda: None)


def test_what_a_member_did_wrong_elsewhere_is_told_and_refuses_no_model(honest: Any, named: Any) -> None:
    play = honest.edited(ReceiptPosted, {"whole": Bitmap(0b11111 | 1 << 9)}, round=2, index=0)
    done = recompute(play.chain, play.store, model_on_chain(play.state, play.chain.now()), code_check=lambda: None)
    assert done.rounds == (2,)
    assert [fault.check for fault in done.faults] == ["5 receipts"]


def test_a_round_whose_objects_are_gone_is_said_not_to_be_computed(honest: Any) -> None:
    play = honest.copy()
    attempt, first = play.state.closed[1], model_on_chain(play.state, play.chain.now(), 1)
    del play.store.served[attempt.commits[0].ciphertext_cid]
    done = recompute(play.chain, play.store, first, code_check=lambda: None)
    assert done.rounds == (1,), "the posted sum, whose root is on chain, does as well"
    del play.store.served[attempt.posted_sum.cid]
    done = recompute(play.chain, play.store, first, code_check=lambda: None)
    assert done.rounds == ()
    assert [round for round, _ in done.missing] == [1]


def test_a_founding_that_is_not_what_it_claims_refuses_every_model(honest: Any) -> None:
    other = Digest(b"\x07" * 32)
    play = honest.edited(FederationFounded, lambda event: {"terms": replace(event.terms, charter_digest=other)})
    with pytest.raises(Fault, match="1 charter"):
        recompute(play.chain, play.store, model_on_chain(play.state, play.chain.now()), code_check=lambda: None)
