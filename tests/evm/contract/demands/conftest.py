"""Demands in a round that was played with real numbers (`tests/plays.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_hash.auto import keccak

KINDS = CIPHERTEXT, AGGREGATE, OPENING, KEY_SUM, RESULT = range(5)
STRANGER, OTHER = 9, 10  # accounts of the chain that are no members


class Demands:
    """What is demanded of a play's objects, and what shows it. A page is the contract's tuple."""

    def __init__(self, played: Any) -> None:
        self.played, self.federation, self.chain = played, played.federation, played.federation.chain
        self.stranger, self.other = self.chain.accounts[STRANGER], self.chain.accounts[OTHER]
        self.window = max(1, self.federation.terms["challengeWindow"] // 8)

    def tree(self, kind: int, index: int = 0) -> Any:
        played = self.played
        return (played.updates[index], played.aggregate, played.openings[index], played.key_sum, played.result)[kind]

    def page(self, kind: int, level: int = 0, position: int = 0, index: int | None = None) -> tuple[Any, ...]:
        """A page of the object, as its author (`index`; of an update or an opening, of whom) stated it."""
        played = self.played
        author = {AGGREGATE: "aggregator", KEY_SUM: "closer", RESULT: "closer"}.get(kind)
        index = (getattr(played, author) if author else 2) if index is None else index
        word = played.commitment(index) if kind == CIPHERTEXT else self.tree(kind, index).root()
        return kind, index, played.round, played.attempt, 0, level, position, word

    def depth(self, kind: int) -> int:
        return len(self.tree(kind).levels()) - 1

    def lines(self, kind: int) -> list[tuple[int, bytes]]:
        """The list that a statement of this kind stands in."""
        played = self.played
        if kind == CIPHERTEXT:
            return [(i, played.commitment(i)) for i in played.order]
        return [(i, played.openings[i].root()) for i in played.opened] if kind == OPENING else []

    def demand(
        self, page: tuple[Any, ...], by: str | None = None, at: int | None = None, value: int | None = None
    ) -> list[Any]:
        deposit = self.federation.call("demandDeposit") if value is None else value
        lines = self.lines(page[0])
        return self.said(by or self.stranger, "demandPage", page, lines, at=at, value=deposit)

    def words(self, page: tuple[Any, ...]) -> tuple[bytes, list[bytes]]:
        """What shows a page: the other root that a commitment binds, and the words."""
        kind, index, *_, level, position, _ = page
        other = self.played.uploads[index].shares_root if kind == CIPHERTEXT else bytes(32)
        return other, self.tree(kind, index).page(level, position)

    def show(self, page: tuple[Any, ...], by: str | int | None = None, at: int | None = None) -> list[Any]:
        return self.said(self.other if by is None else by, "showPage", page, *self.words(page), at=at)

    def close(self, page: tuple[Any, ...], by: str | int | None = None, at: int | None = None) -> list[Any]:
        return self.said(self.other if by is None else by, "closeDemand", page, at=at)

    def closed_late(self, page: tuple[Any, ...]) -> list[Any]:
        """It is demanded, and closed when its deadline has passed in silence."""
        demanded = self.demand(page)
        return self.close(page, at=demanded[0][1]["deadline"])

    def name(self, page: tuple[Any, ...]) -> bytes:
        """keccak256(abi.encode(page))."""
        return bytes(keccak(b"".join(field.to_bytes(32, "big") for field in page[:-1]) + page[-1]))

    def said(self, sender: str | int, name: str, *arguments: Any, at: int | None = None, value: int = 0) -> list[Any]:
        told = self.federation.events(self.federation.send(sender, name, *arguments, at=at, value=value))
        return list(told)

    def balance(self) -> int:
        return int(self.chain.rpc("eth_getBalance", self.federation.address, "latest"), 16)


@pytest.fixture
def demands(play: Callable[..., Any]) -> Callable[..., Demands]:
    """`demands(played)` of that play; `demands()` of an honest round of five that member 3 closed."""

    def of(played: Any = None, **chosen: Any) -> Demands:
        return Demands(play(**chosen).all(closer=3) if played is None else played)

    return of
