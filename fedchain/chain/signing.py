"""Signing: eth_account, imported in one place, and what members sign off chain (EIP-712) with it.

Importing it raises Python's recursion limit to 100,000 (py_ecc does, for pairings that nobody here computes). At that
limit JSON of hostile depth no longer ends in RecursionError: it overflows the C stack and kills the process, from a
fetched model's header as well as from an RPC answer. So the limit is put back.
"""

from __future__ import annotations

import sys

from eth_account import Account

from ..protocol.ids import Address
from ..protocol.signature import Signature
from ..protocol.statements import Statement, statement_digest

__all__ = ["Account", "sign_statement"]

_PYTHONS_OWN_LIMIT = 1000

sys.setrecursionlimit(_PYTHONS_OWN_LIMIT)


def sign_statement(private_key: bytes, chain_id: int, federation: Address, said: Statement) -> Signature:
    """A member's signature over a statement, for whoever hands in a batch."""
    digest = statement_digest(chain_id, federation, said)
    return Signature.shortened(bytes(Account.unsafe_sign_hash(digest, private_key).signature))
