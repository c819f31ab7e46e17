// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title A federation: several members train one model, and nobody sees another's update.
/// @notice The specification of the contract. Clause numbers (P1 …) are those of docs/protocol.md. Nobody owns it: after
/// deployment the deployer has no power. Phases are derived from counts and deadlines; no transaction "moves" a round.
/// @dev Members are named by their index in the founders' list; bit i of every bitmap is member i. A CID travels as the
/// 32-byte SHA-256 digest inside a CIDv0. All windows are seconds, all times block timestamps.
interface IFederation {
    // ---------------------------------------------------------------- types

    /// @notice A stage of a round (`phaseOf`). Twin: fedchain/protocol/phase.py.
    enum Phase {
        Enrolling,
        Training,
        Receipts,
        Aggregating,
        Opening,
        Closing,
        Closed,
        Pending,
        Finished
    }

    /// @notice What the federation was founded with; none of it ever changes.
    struct Terms {
        bytes32 charterDigest; // SHA-256 of the canonical charter
        bytes32 charterCid;
        bytes32 genesisDigest; // SHA-256 of the first model's bytes
        bytes32 genesisCid;
        uint64 modelSize; // float parameters in an update
        uint32 rounds; // at most this many
        uint8 threshold; // t of n: floor(n/2)+1 <= t <= n-1
        uint32 enrolWindow;
        uint32 trainingWindow;
        uint32 receiptWindow;
        uint32 aggregateWindow;
        uint32 challengeWindow;
        uint96 bond; // wei, paid at enrolment
    }

    struct Member {
        address account;
        bytes32 encryptionKey; // X25519, zero until enrolled
        uint32 weight;
        bool enrolled;
        bool withdrawn;
    }

    /// @notice One attempt at the round under way, or the attempt that closed an earlier round.
    struct RoundView {
        uint32 round;
        uint32 attempt;
        uint64 startedAt;
        uint64 lastCommitAt;
        uint64 lastReceiptAt;
        uint128 committed;
        uint128 received; // who posted a receipt
        uint128 participants; // 0 until locked
        uint128 opened; // who published an opening
        uint128 stopVotes;
    }

    struct Aggregate {
        uint8 aggregator; // member index
        uint128 participants; // 0: none yet
        bytes32 root;
        bytes32 cid;
    }

    struct Result {
        uint8 member;
        bytes32 keySumRoot;
        bytes32 resultRoot;
        bytes32 modelDigest; // 0: none yet
        bytes32 modelCid;
    }

    // ---------------------------------------------------------------- events (past tense, right after the change)

    event FederationFounded(Terms terms, address[] founders);
    event MemberEnrolled(uint8 indexed index, address indexed member, bytes32 encryptionKey, uint32 weight);
    event UpdateCommitted(
        uint32 indexed round, uint32 attempt, uint8 indexed index, bytes32 commitment, bytes32 ciphertextCid, bytes32 sharesCid
    );
    event ReceiptPosted(uint32 indexed round, uint32 attempt, uint8 indexed index, uint128 whole);
    event AggregateCommitted(
        uint32 indexed round, uint32 attempt, uint16 group, uint8 indexed index, uint128 participants, bytes32 root, bytes32 cid
    );
    event OpeningPublished(uint32 indexed round, uint32 attempt, uint16 group, uint8 indexed index, bytes32 root, bytes32 cid);
    event ResultCommitted(
        uint32 indexed round,
        uint32 attempt,
        uint16 group,
        uint8 indexed index,
        bytes32 keySumRoot,
        bytes32 resultRoot,
        bytes32 modelDigest,
        bytes32 modelCid
    );
    event StopVoted(uint32 indexed round, uint8 indexed index);
    event BondWithdrawn(uint8 indexed index, uint256 amount);

    // ---------------------------------------------------------------- errors

    // founding
    error FederationBadMemberCount(uint256 count);
    error FederationDuplicateMember(address member);
    error FederationZeroMember(uint256 index);
    error FederationBadThreshold(uint8 threshold, uint256 least, uint256 most);
    error FederationBadTerms(bytes32 what);
    // who
    error FederationNotMember(address account);
    error FederationAlreadyEnrolled(address account);
    error FederationWrongBond(uint256 expected, uint256 sent);
    error FederationBadEncryptionKey();
    error FederationBadWeight();
    // when
    error FederationWrongPhase(Phase actual);
    error FederationWrongRound(uint32 current);
    error FederationWrongAttempt(uint32 current);
    error FederationBadGroup(uint16 group);
    // what
    error FederationEmptyDigest();
    error FederationAlreadyCommitted();
    error FederationAlreadyPosted();
    error FederationUnknownUpdates(uint128 unknown);
    error FederationNotAggregator(uint8 expected);
    error FederationTooFewParticipants(uint256 count, uint256 least);
    error FederationNotCovered(uint256 receipts, uint256 threshold);
    error FederationCensored(uint128 missing);
    error FederationAlreadyOpened();
    error FederationAlreadyVoted();
    error FederationBondLocked(uint256 until); // the largest number while nobody can know
    error FederationNothingToWithdraw();
    error FederationTransferFailed();

    // ---------------------------------------------------------------- joining

    /// @notice A founder pays the bond and registers its X25519 key and weight (its samples; the charter may cap it).
    /// @dev Once per founder, while the phase is Enrolling. The run begins when all founders have enrolled, or at the
    /// deadline with at least max(3, t+1); with fewer it begins when enough have.
    function enrol(bytes32 encryptionKey, uint32 weight) external payable;

    /// @notice A member takes its bond back once the run is finished and the challenge window has passed; a founder's bond is
    /// also free when the run never began and the enrolment deadline has passed by the challenge window. Who leaves before
    /// the run begins is no longer enrolled, and may enrol again.
    function withdrawBond() external;

    // ---------------------------------------------------------------- a round

    /// @notice P1. Binds the sender to one upload. `commitment` = keccak256(abi.encode(bytes32("fedchain update v1"),
    /// block.chainid, address(this), round, attempt, member, ciphertextRoot, sharesRoot)). Phase Training, once an attempt.
    /// @dev `round` and `attempt` must be the live ones: a late transaction never lands in another attempt.
    function commitUpdate(uint32 round, uint32 attempt, bytes32 commitment, bytes32 ciphertextCid, bytes32 sharesCid) external;

    /// @notice P2. Which committed updates are whole for the sender: it holds them, they are well formed, its share fits.
    /// A posted bit is a promise to keep the objects. Phase Receipts, once an attempt; only committed updates may be named.
    function postReceipt(uint32 round, uint32 attempt, uint128 whole) external;

    /// @notice P3. Posts the homomorphic sum over `participants`, and locks that set for ever: one set a (round, group).
    /// Phase Aggregating, only the member whose turn it is. Requires: at least max(3, t+1) participants; all committed; at
    /// least t receipts cover the set; nothing left out that every posted receipt holds to be whole.
    function commitAggregate(uint32 round, uint32 attempt, uint16 group, uint128 participants, bytes32 root, bytes32 cid)
        external;

    /// @notice P4. Publishes the sum of the sender's shares over the locked set. Phase Opening or Closing, once a
    /// (round, attempt, group). With fewer than t openings the phase simply goes on.
    function publishOpening(uint32 round, uint32 attempt, uint16 group, bytes32 root, bytes32 cid) external;

    /// @notice P5. Posts the opened result and the new global model, and closes the round. Phase Closing, any member.
    function commitResult(
        uint32 round,
        uint32 attempt,
        uint16 group,
        bytes32 keySumRoot,
        bytes32 resultRoot,
        bytes32 modelDigest,
        bytes32 modelCid
    ) external;

    /// @notice The sender holds that the model standing before `round` meets the charter's target. Phase Training of the
    /// current round, after at least one closed round (FederationWrongRound before), once a round. With t votes the run is
    /// finished.
    function voteToStop(uint32 round) external;

    // ---------------------------------------------------------------- views

    function terms() external view returns (Terms memory);

    function memberCount() external view returns (uint256);

    function memberAt(uint8 index) external view returns (Member memory);

    function enrolled() external view returns (uint128);

    /// @notice The least size of a participant set: max(3, t+1).
    function minParticipants() external view returns (uint256);

    /// @notice The round under way, from 1; rounds + 1 once all are closed.
    function currentRound() external view returns (uint32);

    /// @notice The phase of `round` now, derived. Twin: phase_of().
    function phaseOf(uint32 round) external view returns (Phase);

    /// @notice The live attempt of the current round, or the attempt that closed an earlier one. Twin: live_attempt().
    /// While enrolling nothing has begun: startedAt is 0. A round that is not under way yet is FederationWrongRound.
    function roundAt(uint32 round) external view returns (RoundView memory);

    /// @notice Whose turn it is to aggregate now, in phase Aggregating; before, whose turn is first. Twin: aggregator_of().
    function aggregatorNow() external view returns (uint8);

    /// @notice The running digest of an attempt's commitments, in the order in which they came: 0 before the first, then
    /// keccak256(abi.encode(before, index, commitment, ciphertextCid, sharesCid)).
    /// @dev One word an attempt instead of one an update: who challenges hands the list (the log) back, and the contract
    /// compares. So every statement of every attempt can be proven for as long as there are bonds.
    function commitmentsOf(uint32 round, uint32 attempt) external view returns (bytes32);

    /// @notice The updates that a member's receipt holds to be whole; 0 in an attempt that came to nothing.
    function receiptOf(uint32 round, uint32 attempt, uint8 index) external view returns (uint128);

    function aggregateOf(uint32 round, uint16 group) external view returns (Aggregate memory);

    /// @notice The running digest of a group's openings: 0 before the first, then
    /// keccak256(abi.encode(before, index, root, cid)).
    function openingsOf(uint32 round, uint16 group) external view returns (bytes32);

    function resultOf(uint32 round, uint16 group) external view returns (Result memory);

    /// @notice The model that stands: the last result's, or the genesis model.
    function model() external view returns (bytes32 digest, bytes32 cid);

    // ---------------------------------------------------------------- room for what comes later
    // Challenges (R1–R5), slashing, members' votes, group testing and groups (P5, P6) join this interface; everything they
    // need to judge is already keyed by (round, group), and every statement already names its author.
}
