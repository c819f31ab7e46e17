// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title A federation: several members train one model, and nobody sees another's update.
/// @notice The specification of the contract. Clause numbers (P1 …) are those of docs/protocol.md. Nobody owns it: after
/// deployment the deployer has no power. Phases are derived from counts and deadlines; no transaction "moves" a round.
/// Whoever signs a wrong number loses its bond to whoever proves it in one transaction (R1–R5).
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
        bool slashed;
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
    }

    struct Result {
        uint8 member;
        uint128 openers; // whose openings the key sum was interpolated from
        bytes32 keySumRoot;
        bytes32 resultRoot;
        bytes32 modelDigest; // 0: none yet
    }

    /// @notice One line of an attempt's list of commitments, or of a group's list of openings. A challenger hands the whole
    /// list back, in the order in which its lines came (the log's); the contract compares its running digest.
    struct Line {
        uint8 index;
        bytes32 word; // what each challenge says
    }

    /// @notice What a shareholder signs off chain (EIP-712) when it opens a locked set. The domain is
    /// ("fedchain", "1", chain id, this contract); the type is this struct's, named Opening:
    /// "Opening(uint32 round,uint32 attempt,uint16 group,uint128 participants,bytes32 root)".
    struct OpeningStatement {
        uint32 round;
        uint32 attempt;
        uint16 group;
        uint128 participants;
        bytes32 root;
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
        uint128 openers,
        bytes32 keySumRoot,
        bytes32 resultRoot,
        bytes32 resultCid,
        bytes32 modelDigest,
        bytes32 modelCid
    );
    event StopVoted(uint32 indexed round, uint8 indexed index);
    event BondWithdrawn(uint8 indexed index, uint256 amount);
    // Challenges: what falls is told first, then who was slashed for it; a liar that has no bond left is not slashed again.
    event AggregateRefuted(uint32 indexed round, uint32 attempt, uint16 group, uint8 indexed index);
    event ResultRefuted(uint32 indexed round, uint32 attempt, uint16 group, uint8 indexed index);
    event MemberSlashed(
        uint8 indexed index, address indexed challenger, uint32 round, uint8 rule, uint256 burnt, uint256 reward
    ); // rule: 1 to 5 for R1 to R5
    event AggregateRestated(
        uint32 indexed round, uint32 attempt, uint16 group, uint8 indexed index, bytes32 root, bytes32 cid
    );
    event RewardWithdrawn(address indexed account, uint256 amount);

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
    error FederationBadOpeners(uint128 openers);
    error FederationOtherBasis(bytes32 current); // the statement rests on something else than what is on record here
    error FederationAlreadyVoted();
    // challenges
    error FederationSlashed(uint8 index); // a slashed member is not heard
    error FederationHonest(); // the statement holds against this evidence
    error FederationBadEvidence(bytes32 what); // the evidence is not about what is on record
    error FederationNoStatement(); // nothing on record that could be judged, or restated
    error FederationAlreadySlashed(uint8 index); // nothing is left to take, and nothing else would follow
    error FederationChallengeOver(uint256 since); // bonds are free
    // bonds
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
    /// A slashed member has no bond.
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

    /// @notice The sender holds that the model standing before `round` meets the charter's target. Phase Training of the
    /// current round, after at least one closed round (FederationWrongRound before), once a round. With t votes the run is
    /// finished.
    function voteToStop(uint32 round) external;

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

    /// @notice Pays the sender what its challenges earned.
    function withdrawReward() external;

    // After R2 or R3 on round r the model is rolled back: every result from r on has fallen, the current round is r, in phase
    // Closing (its set stays locked, its openings stay), and a run that was finished goes on. Later rounds are forgotten. When one
    // begins again, it begins afresh: no votes, and an attempt number one higher than the newest of the forgotten ones (for the
    // round that was current, than its live attempt).

    // ---------------------------------------------------------------- views

    function terms() external view returns (Terms memory);

    function memberCount() external view returns (uint256);

    function memberAt(uint8 index) external view returns (Member memory);

    function enrolled() external view returns (uint128);

    /// @notice Who counts as everyone in the current round: the enrolled, less those slashed before it began. The order of
    /// rotation. Void attempts change nothing about it.
    function standing() external view returns (uint128);

    function slashed() external view returns (uint128);

    /// @notice What slashing has burnt so far, in wei.
    function burnt() external view returns (uint256);

    /// @notice What `withdrawReward` would pay to `account`.
    function rewardOf(address account) external view returns (uint256);

    /// @notice The contract that judges evidence (Judge.sol), deployed by this one's constructor.
    function judge() external view returns (address);

    /// @notice The least size of a participant set: max(3, t+1).
    function minParticipants() external view returns (uint256);

    /// @notice The round under way, from 1; rounds + 1 once all are closed.
    function currentRound() external view returns (uint32);

    /// @notice The phase of `round` now, derived. Twin: phase_of(). The run is finished when all rounds are closed, when t voted to
    /// stop, or when too few are left to go on: no set is locked and fewer than max(3, t+1) enrolled members are not slashed; or
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

    // ---------------------------------------------------------------- room for what comes later
    // Demands for availability, members' votes, group testing and groups (P5, P6) join this interface; everything is already
    // keyed by (round, group), and every statement already names its author.
}
