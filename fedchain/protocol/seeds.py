"""Seeds that differ for every purpose, member, round and attempt, and are the same on every run with the same seed."""

from __future__ import annotations

import hashlib


def seed_for(purpose: str, seed: int, *, member: int = 0, round: int = 0, attempt: int = 0) -> int:
    """A seed in [0, 2^63): the first 63 bits of SHA-256 over the purpose and the five values' decimal text.

    A retry has another attempt number and so other shuffles, other dropout and other rounding (P5). This is for
    reproducibility only: whoever knows `seed` knows the result, so no key and no one-time secret is ever drawn from it.
    """
    text = f"fedchain seed v1\n{purpose}\n{seed}\n{member}\n{round}\n{attempt}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
