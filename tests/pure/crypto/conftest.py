"""A small committee with real keys: every crypto test plays on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pytest
from numpy.typing import NDArray

from fedchain.crypto import (
    Aggregate,
    Opened,
    Opening,
    RoundContext,
    Upload,
    deal,
    generate_encryption_key,
    make_opening,
    open_aggregate,
    open_share,
    sum_ciphertexts,
)
from fedchain.crypto.dealing import Place
from fedchain.protocol.ids import Address, Digest, Index

CONTEXT = RoundContext(31337, Address("0x" + "fe" * 20), 3, 1, Digest(bytes(range(32))))


def address_of(index: int) -> Address:
    """Member `index`'s address."""
    return Address("0x" + f"{index + 1:040x}")


@dataclass
class Scene:
    """n members, all of them shareholders; the first `dealers` of them deal one update of the size d each."""

    n: int = 5
    threshold: int = 3
    d: int = 300
    dealers: int = 0
    context: RoundContext = CONTEXT
    seed: int = 1
    keys: list[tuple[bytes, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self.dealers = self.dealers or self.n
        self.keys = [generate_encryption_key() for _ in range(self.n)]

    @property
    def encryption_keys(self) -> dict[Index, bytes]:
        return {Index(j): public for j, (_, public) in enumerate(self.keys)}

    @cached_property
    def values(self) -> NDArray[np.int64]:
        """One row a dealer, a coefficient for two of d: 64 of the largest still stay below 2**44."""
        return np.random.default_rng(self.seed).integers(0, 2**38, (self.dealers, -(-self.d // 2)))

    def place(self, dealer: int, **changes: object) -> Place:
        terms: dict[str, object] = {
            "context": self.context,
            "dealer": Index(dealer),
            "dealer_address": address_of(dealer),
            "encryption_keys": self.encryption_keys,
            "threshold": self.threshold,
        }
        return Place(**(terms | changes))  # type: ignore[arg-type]

    def deal(self, dealer: int, values: NDArray[np.int64] | None = None) -> Upload:
        return deal(
            self.context,
            dealer=Index(dealer),
            dealer_address=address_of(dealer),
            encryption_keys=self.encryption_keys,
            threshold=self.threshold,
            coefficients=self.values[dealer] if values is None else values,
        )

    @cached_property
    def uploads(self) -> list[Upload]:
        return [self.deal(i) for i in range(self.dealers)]

    def share(self, dealer: int, holder: int, blob: bytes | None = None) -> NDArray[np.uint16]:
        return open_share(
            self.uploads[dealer].shares if blob is None else blob,
            self.context,
            dealer=Index(dealer),
            dealer_address=address_of(dealer),
            encryption_keys=self.encryption_keys,
            threshold=self.threshold,
            me=Index(holder),
            private_key=self.keys[holder][0],
        )

    @cached_property
    def openings(self) -> dict[Index, Opening]:
        return {Index(j): make_opening([self.share(i, j) for i in range(self.dealers)]) for j in range(self.n)}

    @cached_property
    def aggregate(self) -> Aggregate:
        return sum_ciphertexts([upload.ciphertext for upload in self.uploads], self.d)

    def open(self, openings: dict[Index, Opening], **changes: object) -> Opened:
        terms: dict[str, object] = {
            "threshold": self.threshold,
            "participants": self.dealers,
            "context": self.context,
            "d": self.d,
        }
        return open_aggregate(self.aggregate, openings, **(terms | changes))  # type: ignore[arg-type]

    @property
    def sums(self) -> NDArray[np.int64]:
        return self.values.sum(axis=0)


def shifted(opening: Opening, by: int, at: int | slice = 7) -> Opening:
    """The opening with one element (or several) moved in the field."""
    elements = opening.elements.astype(np.int64)
    elements[at] = (elements[at] + by) % 65521
    return Opening(elements.astype(np.uint16))


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Five members, three of whom open: read it, do not change it."""
    return Scene()


@pytest.fixture
def make_scene() -> type[Scene]:
    return Scene


@pytest.fixture
def moved() -> Callable[..., Opening]:
    return shifted
