"""Checks 1 and 11: what the federation was founded on, and the chain of models that grew from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from ..errors import ChainMismatch, Fault, ObjectCorrupt, ObjectMissing, UsageError
from ..protocol.charter import MAX_CHARTER_BYTES, Charter, parse_charter
from ..protocol.events import FederationFounded
from ..protocol.founding import disagreements
from ..protocol.model import flatten, model_digest
from ..protocol.outer import update_size_of, with_first_state
from ..protocol.privacy import plan_of
from ..protocol.state import FederationState
from ..protocol.update_format import fetched_model_bound, model_size_of
from .docket import CONTRACT
from .ledger import FEDERATION, Ledger
from .report import Account, Status
from .shelf import Shelf

DEPLOYER = "the deployer"
"""Who chose the terms, the charter and the first model, and has no power since."""


CodeCheck = Callable[[], None]
"""Compares the code on chain with the committed build. Raises ChainMismatch, whose text says how they differ."""


def check_code(code_check: CodeCheck | None, ledger: Ledger) -> None:
    """Check 1, the contract: only known code makes the log worth what the rules say it is worth."""
    if code_check is None:
        ledger.block(FEDERATION, 1, "the contract's code was not to be had")
        return
    try:
        code_check()
    except ChainMismatch as error:
        ledger.fault(FEDERATION, 1, offender=CONTRACT, expected="the code of the committed build", got=str(error))


def check_charter(event: FederationFounded, shelf: Shelf, ledger: Ledger) -> Charter | None:
    """Check 1, the charter: its digest, its form, its members, and that the contract's terms say the same."""
    terms = event.terms

    def fault(expected: str, got: str) -> None:
        ledger.fault(FEDERATION, 1, offender=DEPLOYER, expected=expected, got=got)

    try:
        content = shelf.content(terms.charter_cid, MAX_CHARTER_BYTES)
    except (ObjectMissing, ObjectCorrupt) as error:
        fault(f"the charter {terms.charter_cid}, at most {MAX_CHARTER_BYTES} bytes", f"unavailable: {error}")
        ledger.block(FEDERATION, 1, "the charter is not to be had")
        return None
    digest = hashlib.sha256(content).digest()
    if digest != terms.charter_digest:
        fault(f"a charter of the digest {terms.charter_digest.hex()}", digest.hex())
    try:
        charter = parse_charter(content)
        charter.check_complete()
        plan_of(charter)
    except UsageError as error:
        fault("a complete charter in canonical form", str(error))
        return None
    for entry, agreed, deployed in disagreements(charter, terms, event.founders):
        fault(f"{entry} = {agreed}", f"{deployed} in the contract")
    ledger.note(FEDERATION, 1, f"charter {digest.hex()[:16]}…, task {charter.task_sha256[:16]}…")
    return charter


def check_genesis(state: FederationState, charter: Charter | None, shelf: Shelf, ledger: Ledger) -> None:
    """Check 11, the beginning: the first model's bytes, form and size; with the charter also the state beside it."""
    terms = state.terms

    def fault(expected: str, got: str) -> None:
        ledger.fault(FEDERATION, 11, offender=DEPLOYER, expected=expected, got=got)

    try:
        content = shelf.content(terms.genesis_cid, fetched_model_bound(terms.model_size, charter))
    except (ObjectMissing, ObjectCorrupt) as error:
        fault(f"the first model {terms.genesis_cid}", f"unavailable: {error}")
        ledger.block(FEDERATION, 11, "the first model is not to be had")
        return
    digest = model_digest(content)
    if digest != terms.genesis_digest:
        fault(f"a first model of the digest {terms.genesis_digest.hex()}", digest.hex())
    try:
        flatten(content)
        if charter is not None:
            size = model_size_of(charter, update_size_of(content, charter))
            if size != terms.model_size:
                fault(f"a model whose updates have the size {terms.model_size}, as in the contract", str(size))
            begun = with_first_state(content, charter)
            if begun != content:
                fault("the state that every run begins with", "another one beside the first model")
    except Fault as broken:
        ledger.raised(FEDERATION, 11, broken, DEPLOYER)
    except UsageError as error:
        fault("a model that the charter's noise fits", str(error))


def check_chain(state: FederationState, closed: Sequence[Account], ledger: Ledger) -> None:
    """Check 11, the links: every closed round's model was recomputed from the one before it (check 10).

    That rounds close one after the other needs no check of its own: the fold admits no other result (check 6).
    """
    for account in closed:
        status = account.check(10).status
        if status is Status.PENDING:
            ledger.defer(FEDERATION, 11, f"round {account.round} was left out")
        elif status is not Status.PASSED:
            why = "is at fault" if status is Status.FAULT else "could not be recomputed"
            ledger.block(FEDERATION, 11, f"the model of round {account.round} {why} (check 10)")
    if closed:
        ledger.note(FEDERATION, 11, f"{len(closed)} models from {state.terms.genesis_digest.hex()[:16]}…")
