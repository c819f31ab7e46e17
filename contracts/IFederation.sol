// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IRecord} from "./IRecord.sol";

/// @title A federation: several members train one model, and nobody sees another's update.
/// @notice The specification of the contract. Clause numbers (P1 …) are those of docs/protocol.md. Nobody owns it: after
/// deployment the deployer has no power. Phases are derived from counts and deadlines; no transaction "moves" a round.
/// Whoever signs a wrong number loses its bond to whoever proves it in one transaction (R1–R5): challenges, demands and votes
/// are in ICouncil.sol, and answer at the same address. The types, events and errors of both are in IRecord.sol.
/// @dev Members are named by their index: founders in their order, then others as they are admitted; bit i of every bitmap is member i. A CID travels as the
/// 32-byte SHA-256 digest inside a CIDv0. All windows are seconds, all times block timestamps.
interface IFederation is IRecord {
    // ---------------------------------------------------------------- joining

    /// @notice A founder pays the bond and registers its X25519 key and weight (its samples; the charter may cap it).
    /// @dev Once per founder, while the phase is Enrolling. The run begins when all founders have enrolled, or at the
    /// deadline with at least max(3, t+1); with fewer it begins when enough have. Later, whom the members have admitted by vote
    /// (FederationNotAdmitted otherwise) enrols in any phase of a run that goes on, and counts from the next round to begin.
    function enrol(bytes32 encryptionKey, uint32 weight) external payable;

    /// @notice A member will not count any more when the next round begins. Until then it is heard, and has its duties.
    function resign() external;

    /// @notice A member registers another X25519 key. Shares are sealed to it from the next round to begin.
    function rotateKey(bytes32 encryptionKey) external;

    /// @notice A member takes its bond back, less a 64th for each strike (which is burnt): once the challenge window has passed
    /// after the end of the run, or after it ceased to count; a little later if a demand came late (`bondFreeAt`). A
    /// founder's bond is also free when the run never began and the enrolment deadline has passed by the challenge window: who leaves
    /// before the run begins is no longer enrolled, and may enrol again. Who has enrolled for the next round may take it back before
    /// that begins. A slashed member has no bond.
    function withdrawBond() external;

    /// @notice Pays the sender what its challenges, or its answers to demands, have earned.
    function withdrawReward() external;

    // ---------------------------------------------------------------- a round

    /// @notice P1. Binds the sender to one upload. `commitment` = keccak256(abi.encode(bytes32("fedchain update v1"),
    /// block.chainid, address(this), round, attempt, member, ciphertextRoot, sharesRoot)). Phase Training, once an attempt.
    /// @dev `round` and `attempt` must be the live ones: a late transaction never lands in another attempt.
    function commitUpdate(uint32 round, uint32 attempt, bytes32 commitment, bytes32 ciphertextCid, bytes32 sharesCid) external;

    /// @notice P2. Which committed updates are whole for the sender: it holds them, they are well formed, its share fits.
    /// A posted bit is a promise to keep the objects. Phase Receipts, once an attempt; only committed updates may be named.
    function postReceipt(uint32 round, uint32 attempt, uint128 whole) external;

    /// @notice P2. The sender holds that the updates of `dealers` are not whole, and that the object `evidenceCid` shows it. Phase
    /// Training or Receipts, once an attempt; only committed updates may be named, at least one. Peers and auditors judge the
    /// evidence off chain; here it is believed as a receipt is: nobody's set must hold these updates.
    function complain(uint32 round, uint32 attempt, uint128 dealers, bytes32 evidenceCid) external;

    /// @notice P3. Posts the homomorphic sum over `participants`, and locks that set: one set an attempt, for ever.
    /// Phase Aggregating, only the member whose turn it is. Requires: at least max(3, t+1) participants; all committed; at
    /// least t receipts cover the set; nothing left out that every posted receipt holds to be whole and nobody complained of
    /// (FederationCensored; once a set was abandoned on the same model, of the members of the newest such set); and from each of those sets it differs in nobody
    /// or in more than t members (FederationTooClose), those who were removed by vote not counted: a difference of two
    /// sums is a sum. For the same reason it is no third set: those of them that it differs from are one and the same. A set that
    /// was forgotten when its base model fell counts as abandoned: that model may stand again.
    /// Who posted no receipt, and (if nobody complained) who let its turn pass before, has one strike more (`DutiesMissed`).
    /// `basis` is `commitmentsOf` as the sender knows it (FederationOtherBasis if it is another here): a true statement that is
    /// mined again on a fork, where somebody committed to something else, is refused and not made a lie.
    function commitAggregate(
        uint32 round,
        uint32 attempt,
        uint16 group,
        uint128 participants,
        bytes32 basis,
        bytes32 root,
        bytes32 cid
    ) external;

    /// @notice P4. Publishes the sum of the sender's shares over the locked set. Phase Opening or Closing, once a
    /// (round, attempt, group). With fewer than t openings the phase simply goes on.
    function publishOpening(uint32 round, uint32 attempt, uint16 group, bytes32 root, bytes32 cid) external;

    /// @notice P5. Posts the opened result and the new global model, and closes the round. Phase Closing, any member.
    /// `openers` are the t members whose openings the key sum was interpolated from, each with a published opening
    /// (FederationBadOpeners otherwise): with them the key sum is a fact that the contract can check (R2). `resultCid` names the
    /// key sum and the decoded sum themselves, so that others can show where they are wrong. `basis` is `basisOf` as the sender
    /// knows it (FederationOtherBasis): an opening that comes first makes the sender state its result anew.
    function commitResult(
        uint32 round,
        uint32 attempt,
        uint16 group,
        uint128 openers,
        bytes32 basis,
        bytes32 keySumRoot,
        bytes32 resultRoot,
        bytes32 resultCid,
        bytes32 modelDigest,
        bytes32 modelCid
    ) external;

    /// @notice P1, for several members in one transaction, by any account: each line is signed by its member. A line of a member
    /// that has committed already is passed over.
    function commitUpdates(uint32 round, uint32 attempt, SignedUpdate[] calldata updates) external;

    /// @notice P2, for several members in one transaction. As commitUpdates.
    function postReceipts(uint32 round, uint32 attempt, SignedReceipt[] calldata receipts) external;

    /// @notice P4, for several members in one transaction. As commitUpdates.
    function publishOpenings(uint32 round, uint32 attempt, uint16 group, SignedOpening[] calldata lines) external;

    /// @notice The sender holds that the model which stands before `round` meets the charter's target (FederationOtherBasis if it
    /// is another one). From Training to Closing of the current round, after at least one closed round (FederationWrongRound
    /// before), once a round. With t votes the run is finished.
    function voteToStop(uint32 round, bytes32 modelDigest) external;

    // ---------------------------------------------------------------- views

    function terms() external view returns (Terms memory);

    function memberCount() external view returns (uint256);

    function memberAt(uint8 index) external view returns (Member memory);

    /// @notice Who counts as everyone in the current round: the enrolled, less those slashed or gone before it began. The order of
    /// rotation. Void attempts change nothing about it.
    function standing() external view returns (uint128);

    function slashed() external view returns (uint128);

    /// @notice Whose bonds are here.
    function bonded() external view returns (uint128);

    /// @notice Who will not count any more when the next round begins.
    function leaving() external view returns (uint128);

    /// @notice What slashing and strikes have burnt so far, in wei.
    function burnt() external view returns (uint256);

    /// @notice What `withdrawReward` would pay to `account`.
    function rewardOf(address account) external view returns (uint256);

    /// @notice The contract whose code answers to ICouncil.sol here; this one's constructor deployed it, and nothing changes it.
    function council() external view returns (address);

    /// @notice t: how many members open a set, or carry a motion. Of the n that stand, floor(n/2)+1, and never less than the terms'
    /// threshold. A locked set keeps the t it was locked with.
    function threshold() external view returns (uint256);

    /// @notice When the run ended; 0 while it goes on.
    function finishedAt() external view returns (uint256);

    /// @notice From when on a member's bond is free; the largest number while nobody can know. Nothing is left to withdraw if
    /// its bond is not here.
    function bondFreeAt(uint8 index) external view returns (uint256);

    /// @notice Until when statements may be challenged, and refuted sums restated; the largest number while nobody can know.
    function challengesEndAt() external view returns (uint256);

    /// @notice The least size of a participant set: max(3, t+1).
    function minParticipants() external view returns (uint256);

    /// @notice The round under way, from 1; rounds + 1 once all are closed.
    function currentRound() external view returns (uint32);

    /// @notice The phase of `round` now, derived. Twin: phase_of(). The run is finished when all rounds are closed, when t voted to
    /// stop, when the current round has not closed within the close window, or when too few are left to go on: no set is locked and fewer than max(3, t+1) enrolled members are not slashed; or
    /// a set is locked, and fewer than t of those have opened or still may, or nobody is left to close. Once a set is locked
    /// the round is in Opening or Closing, whoever counts by then.
    function phaseOf(uint32 round) external view returns (Phase);

    /// @notice The live attempt of the current round, or the attempt that closed an earlier one. Twin: live_attempt().
    /// While enrolling nothing has begun: startedAt is 0. A round that is not under way yet is FederationWrongRound.
    function roundAt(uint32 round) external view returns (RoundView memory);

    /// @notice Whose turn it is to aggregate now, in phase Aggregating; before, whose turn is first; once a set is locked, who
    /// stands for its sum. Twin: aggregator_of().
    function aggregatorNow() external view returns (uint8);

    /// @notice The running digest of an attempt's commitments, in the order in which they came: 0 before the first, then
    /// keccak256(abi.encode(before, index, commitment)). CIDs say where, not what: they stand in the events alone, of every
    /// statement.
    /// @dev One word an attempt instead of one an update: who challenges hands the list (the log) back, and the contract
    /// compares. So every statement of every attempt can be proven for as long as there are bonds.
    function commitmentsOf(uint32 round, uint32 attempt) external view returns (bytes32);

    /// @notice The updates that a member's receipt holds to be whole; 0 in an attempt that came to nothing.
    function receiptOf(uint32 round, uint32 attempt, uint8 index) external view returns (uint128);

    /// @notice The sum on record; participants are 0 before the lock, the root is 0 also between R1 and `restateAggregate`.
    function aggregateOf(uint32 round, uint16 group) external view returns (Aggregate memory);

    /// @notice The running digest of a group's openings: 0 before the first, then
    /// keccak256(abi.encode(before, index, root)).
    function openingsOf(uint32 round, uint16 group) external view returns (bytes32);

    /// @notice All that a result rests on: keccak256(abi.encode(the model before the round, commitmentsOf the locked attempt, the
    /// participants, openingsOf)). 0 where no set is locked.
    function basisOf(uint32 round, uint16 group) external view returns (bytes32);

    /// @notice The result on record; all 0 before it, and after it has fallen.
    function resultOf(uint32 round, uint16 group) external view returns (Result memory);

    /// @notice The digest of the model that stands: the last result's, or the genesis model's.
    function model() external view returns (bytes32);
}
