"""eth_account, imported in one place: whoever signs takes it from here.

Importing it raises Python's recursion limit to 100,000 (py_ecc does, for pairings that nobody here computes). At that
limit JSON of hostile depth no longer ends in RecursionError: it overflows the C stack and kills the process, from a
fetched model's header as well as from an RPC answer. So the limit is put back.
"""

from __future__ import annotations

import sys

from eth_account import Account

__all__ = ["Account"]

_PYTHONS_OWN_LIMIT = 1000

sys.setrecursionlimit(_PYTHONS_OWN_LIMIT)
