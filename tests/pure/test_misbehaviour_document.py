"""`docs/misbehaviour.md` is the catalogue of `tests/misbehave.py`, and every entry of it is tried."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from misbehave import MISBEHAVIOURS, listed, table

from fedchain.peer import node

DOCUMENT = Path(__file__).parents[2] / "docs" / "misbehaviour.md"


def test_the_document_holds_the_catalogue() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text.endswith(table()), "python tests/misbehave.py --table writes what comes after the document's opening"


def test_every_misbehaviour_says_why_it_fails_and_most_can_be_started() -> None:
    assert len(MISBEHAVIOURS) >= 30
    for name, it in MISBEHAVIOURS.items():
        assert name == it.name and it.tries and it.why
        assert it.staged != bool(it.roles or it.store or it.reader or it.sender or it.process)
    names = [line.partition("\t")[0] for line in listed().splitlines()]
    assert len(names) == len(set(names)) > 60


def test_who_is_left_unnamed_is_told_so_with_a_reason() -> None:
    """Nobody is named by accident: where an entry names nobody, something else is promised."""
    for it in MISBEHAVIOURS.values():
        if it.expected.named_by == "nobody":
            assert len(it.why.split()) >= 4


def test_each_changes_what_a_peer_is_made_of_and_leaves_it_as_it_was() -> None:
    before = dict(vars(node))
    for it in MISBEHAVIOURS.values():
        with ExitStack() as stack:
            it.bend(stack)
            changed = {value for name, value in vars(node).items() if value is not before.get(name)}
            assert changed == set(it.roles)
        assert vars(node) == before
