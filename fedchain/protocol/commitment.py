"""The digests that bind a statement to its place: one upload, one chain, one contract, one round, one attempt (P1)."""

from __future__ import annotations

from eth_hash.auto import keccak

from .ids import Address, Digest, Root


def update_commitment(
    chain_id: int,
    contract: Address,
    round: int,
    attempt: int,
    member: Address,
    ciphertext_root: Root,
    shares_root: Root,
) -> Digest:
    """What a trainer posts in `commitUpdate`.

    keccak256(abi.encode("fedchain update v1", chainid, contract, round, attempt, member, ciphertextRoot, sharesRoot)),
    each word 32 bytes, the string as its bytes32: the contract rebuilds it in a challenge.
    """
    words = (
        b"fedchain update v1".ljust(32, b"\0"),
        chain_id.to_bytes(32, "big"),
        bytes.fromhex(contract[2:]).rjust(32, b"\0"),
        round.to_bytes(32, "big"),
        attempt.to_bytes(32, "big"),
        bytes.fromhex(member[2:]).rjust(32, b"\0"),
        ciphertext_root,
        shares_root,
    )
    return Digest(keccak(b"".join(words)))
