"""Challenges as a member or a watchtower sends them: from real uploads, through the sender, and back by the reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from coincurve import PrivateKey

from fedchain.chain.reader import Reader
from fedchain.crypto import CommittedUpload, RoundContext, deal, prove_residue
from fedchain.crypto.aggregate import leaf_hashes
from fedchain.crypto.packing import unpack_residues
from fedchain.errors import TransactionFailed
from fedchain.protocol.actions import CommitUpdate, WithdrawReward
from fedchain.protocol.cid import cid_of
from fedchain.protocol.commitment import update_commitment
from fedchain.protocol.disputes import Refused, judge
from fedchain.protocol.evidence import ChallengeEquivocation
from fedchain.protocol.ids import Bitmap, Digest, Index, Root
from fedchain.protocol.merkle import root_of
from fedchain.protocol.phase import Phase, phase_of
from fedchain.protocol.statements import OpeningStatement, statement_digest

LIAR = Index(1)


class Committed:
    """A federation of three whose members have committed real uploads, one with a residue beyond q."""

    def __init__(self, federation: Any) -> None:
        self.federation = federation
        self.senders = federation.enrol_all()
        self.reader: Reader = federation.reader()
        self.uploads: dict[Index, CommittedUpload] = {}
        state = self.reader.refresh()
        for index, sender in enumerate(self.senders):
            context = RoundContext(self.reader.chain_id, self.reader.contract, 1, 0, state.terms.genesis_digest)
            upload = deal(
                context,
                dealer=Index(index),
                dealer_address=sender.address,
                encryption_keys={i: member.encryption_key for i, member in state.members.items()},
                threshold=state.terms.threshold,
                coefficients=np.arange(state.terms.model_size // 2),
            )
            content = bytearray(upload.ciphertext)
            if index == LIAR:
                content[16:23] = b"\xff" * 7
            root = root_of(leaf_hashes(unpack_residues(bytes(content[16:])).reshape(-1, 64)))
            where = (self.reader.chain_id, self.reader.contract, 1, 0, sender.address)
            commitment = update_commitment(*where, root, upload.shares_root)
            sender.submit("commit", CommitUpdate(1, 0, commitment, cid_of(bytes(content)), cid_of(upload.shares)))
            self.uploads[Index(index)] = CommittedUpload(bytes(content), upload.shares_root)

    def evidence(self, index: Index) -> Any:
        attempt = self.reader.refresh().current
        assert attempt is not None
        return prove_residue(attempt, index, self.uploads[index], 100)

    def judged(self, challenge: Any) -> Index:
        state = self.reader.refresh()
        return judge(state, self.reader.chain_id, self.reader.contract, challenge, self.reader.now())


@pytest.fixture
def committed(federation: Any) -> Committed:
    return Committed(federation)


def opening_signed(committed: Committed, member: int, root: bytes) -> tuple[OpeningStatement, bytes]:
    said = OpeningStatement(1, 0, 0, Bitmap(0b111), Root(root), cid_of(root))
    digest = statement_digest(committed.reader.chain_id, committed.reader.contract, said)
    signature = PrivateKey(committed.federation.key(member)).sign_recoverable(digest, hasher=None)
    return said, signature[:64] + bytes((27 + signature[64],))


def test_a_malformed_residue_costs_its_dealer_the_bond(committed: Committed) -> None:
    challenge = committed.evidence(LIAR)
    assert committed.judged(challenge) == LIAR
    watch = committed.senders[2]
    watch.submit("challenge", challenge)
    state = committed.reader.refresh()
    assert state.slashed == 1 << LIAR and state.heard == 0b101
    bond = state.terms.bond_wei
    event = committed.reader.log()[-1].event
    assert (event.index, event.challenger, event.round, event.rule) == (LIAR, watch.address, 1, 4)  # type: ignore[union-attr]
    assert (event.burnt_wei, event.reward_wei) == (bond - bond // 2, bond // 2)  # type: ignore[union-attr]
    assert state.rewards == {watch.address: bond // 2}
    watch.submit("reward", WithdrawReward())
    assert not committed.reader.refresh().rewards
    # Two of three are left, and three are the least that may be summed: the run is over, and bonds will be free.
    assert phase_of(committed.reader.refresh(), 1, committed.reader.now()) is Phase.FINISHED


def test_an_honest_upload_yields_no_evidence_and_forged_evidence_is_refused_by_both(committed: Committed) -> None:
    assert committed.evidence(Index(0)) is None
    committed.uploads[Index(0)] = committed.uploads[LIAR]
    forged = committed.evidence(Index(0))
    with pytest.raises(Refused) as here:
        committed.judged(forged)
    with pytest.raises(TransactionFailed) as there:
        committed.senders[2].submit("challenge", forged)
    assert here.value.error_name == there.value.error_name == "FederationBadEvidence"


def test_two_openings_of_one_place_cost_their_signer_the_bond(committed: Committed) -> None:
    first, second = (opening_signed(committed, LIAR, word * 32) for word in (b"a", b"b"))
    honest = ChallengeEquivocation(*first, *first)
    for refused in (honest, ChallengeEquivocation(*first, *opening_signed(committed, 0, b"b" * 32))):
        with pytest.raises(Refused) as here:
            committed.judged(refused)
        with pytest.raises(TransactionFailed) as there:
            committed.senders[2].submit(f"challenge {here.value.error_name}", refused)
        assert here.value.error_name == there.value.error_name
    challenge = ChallengeEquivocation(*first, *second)
    assert committed.judged(challenge) == LIAR
    committed.senders[2].submit("challenge", challenge)
    assert committed.reader.refresh().slashed == 1 << LIAR
    with pytest.raises(Refused, match="AlreadySlashed"):
        committed.judged(challenge)


def test_a_slashed_member_is_not_heard(committed: Committed) -> None:
    committed.senders[2].submit("challenge", committed.evidence(LIAR))
    update = CommitUpdate(1, 0, Digest(b"\x01" * 32), cid_of(b"x"), cid_of(b"y"))
    with pytest.raises(TransactionFailed) as refused:
        committed.senders[LIAR].submit("commit again", update)
    assert refused.value.error_name == "FederationSlashed"
