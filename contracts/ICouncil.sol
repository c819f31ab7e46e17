// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IRecord} from "./IRecord.sol";

/// @title What is decided about a federation's rounds beside what its members state: challenges, demands, votes.
/// @notice Part of the specification (IFederation.sol), at the federation's own address.
interface ICouncil is IRecord {
    // ---------------------------------------------------------------- challenges (R1–R5)
    //
    // Any account may challenge, in one transaction, while the bonds are there: until the challenge window after the run's end
    // (FederationChallengeOver). A challenge against an honest statement always reverts (FederationHonest), and so does
    // evidence about anything but what is on record (FederationBadEvidence).
    //
    // Evidence. A *proof* is a leaf and its path: 16 words with the leaf's 64 residues, uint64 little-endian, then `depth` siblings,
    // lowest first. `proofs` are proofs of equal length, one after another. depth = ceil(log2(leaves)); ciphertexts, aggregates
    // and results have ceil(modelSize / 128) leaves, openings and key sums 32.
    //
    // Verdict. The liar's bond goes: half is burnt (it stays here, out of anyone's reach, with the odd wei), half is the challenger's
    // (withdrawReward). A slashed member is not heard again, and its turns pass. It is still counted, as everyone is, until the round
    // ends: phases never move backwards within a round. What it has said before counts as said.

    /// @notice R1. A residue of the aggregate on record is not the sum mod q of the participants' residues there (or not below q).
    /// The aggregate is cleared and its author slashed. The set stays locked; `restateAggregate` fills the gap.
    /// @param leaf which leaf, below ceil(modelSize / 128)
    /// @param commits all commitments of the attempt that was locked; `word` is the shares root of a participant's upload,
    /// and the commitment of anyone else. (A participant's ciphertext root follows from its proof, and with it its commitment.)
    /// @param proofs the aggregate's leaf, then that leaf of each participant's ciphertext, in the order of `commits`
    function challengeAggregate(uint32 round, uint16 group, uint64 leaf, Line[] calldata commits, bytes32[] calldata proofs)
        external;

    /// @notice R2. An element of the key sum on record is not what the openers' openings give there: their Lagrange combination
    /// at 0 (member i at x = i + 1) mod 65521. The result falls and its author is slashed.
    /// @param leaf which leaf, below 32
    /// @param openings all openings of the group; `word` is 0 for an opener (its root follows from its proof), else the root
    /// @param proofs the key sum's leaf, then that leaf of each opener's opening, in the order of `openings`
    function challengeKeySum(uint32 round, uint16 group, uint64 leaf, Line[] calldata openings, bytes32[] calldata proofs)
        external;

    /// @notice R3. A coefficient of the result on record is not the decoding of C + a·S there, or its noise is out of bounds.
    /// With v = C_k + (a·S)_k mod q, m = ⌊(v + 501) / 1002⌋ mod 2^44 and e = v − 1002·m mod q, nearest to zero, the result stands
    /// if its residue is m, e² ≤ 2100·|U|, and every |S_j| ≤ 42·|U|. C is what the commitments give, never what the aggregator said
    /// of it: nobody is judged by another's statement. The result falls and its author is slashed.
    /// @param coefficient k, below 64·ceil(modelSize / 128): coefficient k mod 2048 of polynomial k / 2048
    /// @param keySum S as an opening is stored: 2048 elements mod 65521, two bytes each, little-endian
    /// @param commits as for R1
    /// @param proofs the result's leaf that holds k, then that leaf of each participant's ciphertext, in the order of `commits`
    function challengeResult(
        uint32 round,
        uint16 group,
        uint64 coefficient,
        bytes calldata keySum,
        Line[] calldata commits,
        bytes32[] calldata proofs
    ) external;

    /// @notice R4. A committed ciphertext holds a residue that is not below q. Its member is slashed; the sum mod q is still a
    /// fact, so nothing else falls. Any attempt that holds commitments, void ones too.
    /// @param index the member
    /// @param commits all commitments of the attempt; `word` is the shares root of that member's upload, and the commitment of
    /// anyone else
    /// @param proof the leaf of that member's ciphertext
    function challengeResidue(
        uint32 round,
        uint32 attempt,
        uint8 index,
        uint64 leaf,
        Line[] calldata commits,
        bytes32[] calldata proof
    ) external;

    /// @notice R5. One member signed two openings of one (round, attempt, group) that differ in set or root. It is slashed. (Two
    /// attempts are no conflict: after a rollback a round is opened again, on another model.)
    /// @param firstSignature r ‖ s ‖ v, 65 bytes
    function challengeEquivocation(
        OpeningStatement calldata first,
        bytes calldata firstSignature,
        OpeningStatement calldata second,
        bytes calldata secondSignature
    ) external;

    /// @notice After R1: posts the sum over the locked set anew. Any member that is not slashed, in any round up to the current
    /// one whose aggregate was refuted (FederationNoStatement otherwise); it is liable for it as the aggregator was. No phase
    /// depends on it. `participants` and `basis` are the locked set and `commitmentsOf` its attempt (FederationOtherBasis).
    function restateAggregate(
        uint32 round,
        uint16 group,
        uint128 participants,
        bytes32 basis,
        bytes32 root,
        bytes32 cid
    ) external;

    // After R2 or R3 on round r the model is rolled back: every result from r on has fallen, the current round is r, in phase
    // Closing (its set stays locked, its openings stay), and a run that was finished goes on. Later rounds are forgotten. When one
    // begins again, it begins afresh: no votes, and an attempt number one higher than the newest of the forgotten ones (for the
    // round that was current, than its live attempt).

    // ---------------------------------------------------------------- demands (P5)
    //
    // A root with nothing behind it cannot be refuted. So any account may demand, for a deposit of a 32nd of a bond, that a page of a
    // committed object's Merkle tree be shown on chain within an eighth of the challenge window. Whoever shows it has the deposit;
    // if nobody does, the object's author is slashed (rule 6) and what it stated falls. With the right tree at hand, the path to a
    // wrong leaf is found in one page for each six levels and one for the leaf: at most eight.
    //
    // No phase waits for a demand. Demands are accepted until the challenge window after the end of the run (or of the author's
    // time as a member; of a key sum or a result, after it was posted); the clock of challenges and bonds is extended by at most a
    // quarter of that window, once, however many come.

    /// @notice Demands a page of a statement on record. `list` is what it stands in: all commitments of the attempt for a
    /// ciphertext, all openings of the group for an opening (`word`: as stated, for each), empty for the rest.
    /// FederationBadEvidence if the record says something else, FederationAlreadyDemanded if this page was demanded before.
    /// @return demand its name: keccak256(abi.encode(page))
    function demandPage(Page calldata page, Line[] calldata list) external payable returns (bytes32 demand);

    /// @notice Shows a demanded page, by any account, before the deadline. `words` are the nodes min(6, level) levels below the
    /// node (for a leaf its 16 words), then the node's siblings up to the root, lowest first.
    /// @param other for a ciphertext, the update's shares root, which its commitment binds too; else 0
    function showPage(Page calldata page, bytes32 other, bytes32[] calldata words) external;

    /// @notice Closes a demand whose deadline passed. The deposit goes back. If the statement is still on record, its author is
    /// slashed (rule 6) and it falls, as after a challenge: an aggregate is cleared, a result is rolled back.
    function closeDemand(Page calldata page) external;

    /// @notice What `demandPage` costs, in wei: a 32nd of the bond.
    function demandDeposit() external view returns (uint256);

    /// @notice The deadline of an open demand; 0 if there is none, or it was answered or closed.
    function deadlineOf(bytes32 demand) external view returns (uint256);

    // ---------------------------------------------------------------- votes
    //
    // Members that are heard vote, in any phase of a run that has begun and is not finished (Refuse: while bonds are held). A vote
    // cannot be taken back. With t votes (`threshold`) of members that are still heard the motion is carried at once. Votes on members
    // (Admit, Remove) count while the same members stand: when somebody has come or gone, they are cast anew.

    /// @notice Admit: `account` may enrol. It has the next free index (at most 64 members, ever), or its old one.
    function voteToAdmit(address account) external;

    /// @notice Remove: the member leaves when the next round begins. Its bond is not touched. Who has left already can be removed
    /// still, so that a set that was given up with it in it keeps no other from being locked.
    function voteToRemove(uint8 index) external;

    /// @notice Abandon: the locked set of the current round is given up, in phase Opening or Closing, and the round begins again
    /// with the next attempt. For a round that cannot be closed: spoiled, or with too few openings. At most 8 times on one model.
    function voteToAbandon(uint32 round, uint32 attempt) external;

    /// @notice Refuse: the model on record for `round` is not what follows from its result (a contract cannot hash a model), so the
    /// result falls as after R3, and the closer's whole bond is burnt: nobody gains by a vote (rule 7).
    function voteToRefuse(uint32 round, bytes32 modelDigest) external;

    /// @notice Who has voted for a motion, of those that are heard. `subject` as in the event.
    function votesOf(Motion motion, uint32 round, uint32 attempt, bytes32 subject) external view returns (uint128);
}
