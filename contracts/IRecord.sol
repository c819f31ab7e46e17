// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title The words of a federation: the types, events and errors of IFederation.sol and ICouncil.sol.
interface IRecord {
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
        uint64 modelSize; // twice the coefficients of an update
        uint32 rounds; // at most this many
        uint8 threshold; // the least t: floor(n/2)+1 <= t <= n-1 of the n founders; see threshold()
        uint32 enrolWindow;
        uint32 trainingWindow;
        uint32 receiptWindow;
        uint32 aggregateWindow;
        uint32 challengeWindow; // at least 1
        uint32 closeWindow; // a round that does not close within it ends the run
        uint96 bond; // wei, paid at enrolment; at least 32, so that no demand is free
    }

    struct Member {
        address account;
        bytes32 encryptionKey; // X25519, zero until enrolled; the newest, which counts from the next round to begin
        uint32 weight;
        bool standing; // counts in the current round
        bool bonded; // its bond is here
        bool slashed;
        uint8 strikes;
        uint40 leftAt; // when it ceased to count; 0 while it does
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
    /// "Opening(uint32 round,uint32 attempt,uint16 group,uint128 participants,bytes32 root,bytes32 cid)".
    struct OpeningStatement {
        uint32 round;
        uint32 attempt;
        uint16 group;
        uint128 participants;
        bytes32 root;
        bytes32 cid;
    }

    /// @notice A member's signature over a statement (EIP-712, the same domain), in the short form of EIP-2098.
    struct Signature {
        bytes32 r;
        bytes32 vs;
    }

    /// @notice One line of a batch of commitments. Signed:
    /// "Update(uint32 round,uint32 attempt,bytes32 commitment,bytes32 ciphertextCid,bytes32 sharesCid)".
    struct SignedUpdate {
        bytes32 commitment;
        bytes32 ciphertextCid;
        bytes32 sharesCid;
        Signature signature;
    }

    /// @notice One line of a batch of receipts. Signed: "Receipt(uint32 round,uint32 attempt,uint128 whole)".
    struct SignedReceipt {
        uint128 whole;
        Signature signature;
    }

    /// @notice One line of a batch of openings. Signed: an OpeningStatement, whose set is the locked one.
    struct SignedOpening {
        bytes32 root;
        bytes32 cid;
        Signature signature;
    }

    /// @notice What members vote on. With t votes of members that are heard it is done, in the same transaction.
    enum Motion {
        Admit,
        Remove,
        Abandon,
        Refuse
    }

    /// @notice Which committed object a demand is about.
    enum Kind {
        Ciphertext, // of an update
        Aggregate,
        Opening,
        KeySum,
        Result
    }

    /// @notice What is demanded: a node of a committed object's Merkle tree. `level` 0 is a leaf, the depth of the tree its root;
    /// `position` counts nodes of that level from the left. `word` is what is on record: the root, and for a ciphertext the
    /// commitment.
    struct Page {
        Kind kind;
        uint8 index; // who stated it
        uint32 round;
        uint32 attempt;
        uint16 group;
        uint8 level;
        uint64 position;
        bytes32 word;
    }

    // ---------------------------------------------------------------- events (past tense, right after the change)

    event FederationFounded(Terms terms, address[] founders);
    event MemberEnrolled(uint8 indexed index, address indexed member, bytes32 encryptionKey, uint32 weight);
    event UpdateCommitted(
        uint32 indexed round, uint32 attempt, uint8 indexed index, bytes32 commitment, bytes32 ciphertextCid, bytes32 sharesCid
    );
    event ReceiptPosted(uint32 indexed round, uint32 attempt, uint8 indexed index, uint128 whole);
    event Complained(uint32 indexed round, uint32 attempt, uint8 indexed index, uint128 dealers, bytes32 evidenceCid);
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
    event DutiesMissed(uint32 indexed round, uint32 attempt, uint128 members); // each one strike more
    // Membership: what members vote for, leaving, and keys take effect when the next round begins.
    event MotionVoted(Motion indexed motion, uint8 indexed index, uint32 round, uint32 attempt, bytes32 subject);
    event MemberAdmitted(uint8 indexed index, address indexed member); // may enrol now
    event MemberLeaving(uint8 indexed index, bool removed);
    event EncryptionKeyRotated(uint8 indexed index, bytes32 encryptionKey);
    event SetAbandoned(uint32 indexed round, uint32 attempt, uint16 group, uint128 participants);
    event BondWithdrawn(uint8 indexed index, uint256 amount);
    // Challenges: what falls is told first, then who was slashed for it; a liar that has no bond left is not slashed again.
    event AggregateRefuted(uint32 indexed round, uint32 attempt, uint16 group, uint8 indexed index);
    event ResultRefuted(uint32 indexed round, uint32 attempt, uint16 group, uint8 indexed index);
    event MemberSlashed(
        uint8 indexed index, address indexed challenger, uint32 round, uint8 rule, uint256 burnt, uint256 reward
    ); // rule: 1 to 5 for R1 to R5, 6 for silence on a demand, 7 for a result refused by vote (all is burnt)
    event AggregateRestated(
        uint32 indexed round, uint32 attempt, uint16 group, uint8 indexed index, bytes32 root, bytes32 cid
    );
    event RewardWithdrawn(address indexed account, uint256 amount);
    event PageDemanded(bytes32 indexed demand, address indexed demander, uint256 deadline, Page page);
    event PageShown(bytes32 indexed demand, address indexed account, bytes32 other, bytes32[] words);
    event DemandClosed(bytes32 indexed demand, bool silent); // silent: the author was slashed, and the statement fell

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
    error FederationTooClose(uint128 abandoned); // a difference of two sums would be a sum of few
    error FederationNotAdmitted(); // members vote on who joins a run that has begun
    error FederationAlreadyLeaving();
    error FederationBadSubject(); // nothing to vote on there
    // challenges
    error FederationSlashed(uint8 index); // a slashed member is not heard
    error FederationHonest(); // the statement holds against this evidence
    error FederationBadEvidence(bytes32 what); // the evidence is not about what is on record
    error FederationNoStatement(); // nothing on record that could be judged, or restated
    error FederationAlreadySlashed(uint8 index); // nothing is left to take, and nothing else would follow
    error FederationChallengeOver(uint256 since); // bonds are free
    // demands
    error FederationWrongDeposit(uint256 expected, uint256 sent);
    error FederationAlreadyDemanded();
    error FederationNoDemand(); // none, or it was answered or closed
    error FederationDemandOpen(uint256 until);
    error FederationDemandOver(uint256 since); // too late to answer
    // bonds
    error FederationBondLocked(uint256 until); // the largest number while nobody can know
    error FederationNothingToWithdraw();
    error FederationTransferFailed();
    error FederationNoPayment(); // money comes with enrol and demandPage only
}
