// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFederation} from "./IFederation.sol";
import {Membership} from "./Membership.sol";

/// @title What members say in a round (P1–P5), and the phase that follows from it.
/// @dev Nothing here "moves" a round: every statement asks the derivations at the end of this file, which are the twin of
/// fedchain/protocol/phase.py: the same names, the same order, the same branches. A time of 0 is Python's None.
abstract contract Rounds is Membership {
    /// @dev One attempt's training. Its own word, so that a commit rewrites one slot.
    struct Training {
        uint32 attempt;
        uint40 startedAt;
        uint40 lastCommitAt;
        uint64 committed;
    }

    /// @dev One attempt's receipts, and the round's votes to stop (they outlive a void attempt).
    struct Receipts {
        uint40 lastReceiptAt;
        uint64 received;
        uint64 stopVotes;
    }

    /// @dev What was said about one group of one round. A set is locked once for ever, so no attempt number is needed.
    struct Group {
        uint64 participants;
        uint64 opened;
        uint8 aggregator;
        uint8 closer;
        bytes32 aggregateRoot;
        bytes32 aggregateCid;
        bytes32 openings;
        bytes32 keySumRoot;
        bytes32 resultRoot;
        bytes32 modelDigest;
        bytes32 modelCid;
    }

    // These two share a slot with the bitmaps of Membership.sol.
    uint32 private _round = 1;
    uint40 private _lastVoteAt;

    mapping(uint32 round => Training) private _training;
    mapping(uint32 round => Receipts) private _receipts;
    mapping(uint32 round => mapping(uint16 group => Group)) private _groups;
    mapping(uint32 round => mapping(uint32 attempt => bytes32)) private _commitments;
    mapping(uint32 round => mapping(uint32 attempt => uint64[MAX_MEMBERS])) private _whole;

    // ---------------------------------------------------------------- statements

    /// @inheritdoc IFederation
    function commitUpdate(
        uint32 round,
        uint32 attempt,
        bytes32 commitment,
        bytes32 ciphertextCid,
        bytes32 sharesCid
    ) external {
        (uint8 index, RoundView memory live) = _admit(round, attempt, Phase.Training, Phase.Training);
        if (commitment == 0 || ciphertextCid == 0 || sharesCid == 0) revert FederationEmptyDigest();
        if (live.committed & _bit(index) != 0) revert FederationAlreadyCommitted();

        if (live.committed == 0 && _receipts[round].received != 0) {
            // The attempt before this one came to nothing; its receipts are not this one's.
            _receipts[round].received = 0;
            _receipts[round].lastReceiptAt = 0;
        }
        _training[round] = Training({
            attempt: attempt,
            startedAt: uint40(live.startedAt),
            lastCommitAt: uint40(block.timestamp),
            committed: uint64(live.committed) | _bit(index)
        });
        _commitments[round][attempt] =
            keccak256(abi.encode(_commitments[round][attempt], index, commitment, ciphertextCid, sharesCid));
        emit UpdateCommitted(round, attempt, index, commitment, ciphertextCid, sharesCid);
    }

    /// @inheritdoc IFederation
    function postReceipt(uint32 round, uint32 attempt, uint128 whole) external {
        (uint8 index, RoundView memory live) = _admit(round, attempt, Phase.Receipts, Phase.Receipts);
        if (live.received & _bit(index) != 0) revert FederationAlreadyPosted();
        if (whole & ~live.committed != 0) revert FederationUnknownUpdates(whole & ~live.committed);

        _receipts[round].lastReceiptAt = uint40(block.timestamp);
        _receipts[round].received = uint64(live.received) | _bit(index);
        _whole[round][attempt][index] = uint64(whole);
        emit ReceiptPosted(round, attempt, index, whole);
    }

    /// @inheritdoc IFederation
    function commitAggregate(
        uint32 round,
        uint32 attempt,
        uint16 group,
        uint128 participants,
        bytes32 root,
        bytes32 cid
    ) external {
        (uint8 index, RoundView memory live) = _admit(round, attempt, Phase.Aggregating, Phase.Aggregating);
        _checkGroup(group);
        uint8 expected = _aggregatorOf(live);
        if (index != expected) revert FederationNotAggregator(expected);
        if (root == 0 || cid == 0) revert FederationEmptyDigest();
        _checkParticipants(live, participants);

        Group storage spoken = _groups[round][group];
        spoken.participants = uint64(participants);
        spoken.aggregator = index;
        spoken.aggregateRoot = root;
        spoken.aggregateCid = cid;
        emit AggregateCommitted(round, attempt, group, index, participants, root, cid);
    }

    /// @inheritdoc IFederation
    function publishOpening(uint32 round, uint32 attempt, uint16 group, bytes32 root, bytes32 cid) external {
        (uint8 index, RoundView memory live) = _admit(round, attempt, Phase.Opening, Phase.Closing);
        _checkGroup(group);
        if (root == 0 || cid == 0) revert FederationEmptyDigest();
        if (live.opened & _bit(index) != 0) revert FederationAlreadyOpened();

        Group storage spoken = _groups[round][group];
        spoken.opened = uint64(live.opened) | _bit(index);
        spoken.openings = keccak256(abi.encode(spoken.openings, index, root, cid));
        emit OpeningPublished(round, attempt, group, index, root, cid);
    }

    /// @inheritdoc IFederation
    function commitResult(
        uint32 round,
        uint32 attempt,
        uint16 group,
        bytes32 keySumRoot,
        bytes32 resultRoot,
        bytes32 modelDigest,
        bytes32 modelCid
    ) external {
        (uint8 index,) = _admit(round, attempt, Phase.Closing, Phase.Closing);
        _checkGroup(group);
        if (keySumRoot == 0 || resultRoot == 0 || modelDigest == 0 || modelCid == 0) revert FederationEmptyDigest();

        Group storage spoken = _groups[round][group];
        spoken.closer = index;
        spoken.keySumRoot = keySumRoot;
        spoken.resultRoot = resultRoot;
        spoken.modelDigest = modelDigest;
        spoken.modelCid = modelCid;
        _round = round + 1;
        _training[round + 1].startedAt = uint40(block.timestamp);
        emit ResultCommitted(round, attempt, group, index, keySumRoot, resultRoot, modelDigest, modelCid);
    }

    /// @inheritdoc IFederation
    function voteToStop(uint32 round) external {
        uint8 index = _memberIndex(msg.sender);
        if (round != _round || round == 1) revert FederationWrongRound(_round);
        Phase phase = phaseOf(round);
        if (phase != Phase.Training) revert FederationWrongPhase(phase);
        uint64 votes = _receipts[round].stopVotes;
        if (votes & _bit(index) != 0) revert FederationAlreadyVoted();

        _receipts[round].stopVotes = votes | _bit(index);
        _lastVoteAt = uint40(block.timestamp);
        emit StopVoted(round, index);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IFederation
    function currentRound() public view override returns (uint32) {
        return _round;
    }

    /// @inheritdoc IFederation
    function roundAt(uint32 round) external view returns (RoundView memory) {
        if (round == 0 || round > _round) revert FederationWrongRound(_round);
        return round < _round ? _attemptOf(round) : _liveAttempt();
    }

    /// @inheritdoc IFederation
    function aggregatorNow() external view returns (uint8) {
        if (_startOfRun() == 0) revert FederationWrongPhase(Phase.Enrolling);
        return _aggregatorOf(_liveAttempt());
    }

    /// @inheritdoc IFederation
    function commitmentsOf(uint32 round, uint32 attempt) external view returns (bytes32) {
        return _commitments[round][attempt];
    }

    /// @inheritdoc IFederation
    function receiptOf(uint32 round, uint32 attempt, uint8 index) external view returns (uint128) {
        return index < MAX_MEMBERS ? _whole[round][attempt][index] : 0;
    }

    /// @inheritdoc IFederation
    function aggregateOf(uint32 round, uint16 group) external view returns (Aggregate memory) {
        Group storage spoken = _groups[round][group];
        return Aggregate(spoken.aggregator, spoken.participants, spoken.aggregateRoot, spoken.aggregateCid);
    }

    /// @inheritdoc IFederation
    function openingsOf(uint32 round, uint16 group) external view returns (bytes32) {
        return _groups[round][group].openings;
    }

    /// @inheritdoc IFederation
    function resultOf(uint32 round, uint16 group) external view returns (Result memory) {
        Group storage spoken = _groups[round][group];
        return Result(spoken.closer, spoken.keySumRoot, spoken.resultRoot, spoken.modelDigest, spoken.modelCid);
    }

    /// @inheritdoc IFederation
    function model() external view returns (bytes32 digest, bytes32 cid) {
        if (_round == 1) return _genesis();
        Group storage spoken = _groups[_round - 1][0];
        return (spoken.modelDigest, spoken.modelCid);
    }

    // ---------------------------------------------------------------- checks

    /// @dev Lets a statement in: from a member, about the current round, in one of two neighbouring phases, in the live
    /// attempt. A transaction that comes late is refused here and never lands in another attempt.
    function _admit(uint32 round, uint32 attempt, Phase first, Phase last)
        private
        view
        returns (uint8 index, RoundView memory live)
    {
        index = _memberIndex(msg.sender);
        if (round != _round) revert FederationWrongRound(_round);
        Phase phase = phaseOf(round);
        if (phase < first || phase > last) revert FederationWrongPhase(phase);
        live = _liveAttempt();
        if (attempt != live.attempt) revert FederationWrongAttempt(live.attempt);
    }

    /// @dev Groups (P6) are not open yet: the whole round is group 0.
    function _checkGroup(uint16 group) private pure {
        if (group != 0) revert FederationBadGroup(group);
    }

    /// @dev Whether U may be locked (P3). Twin: check_participants(). The loop ends at MAX_MEMBERS.
    function _checkParticipants(RoundView memory live, uint128 participants) private view {
        uint256 size = _sizeOf(participants);
        if (size < minParticipants()) revert FederationTooFewParticipants(size, minParticipants());
        if (participants & ~live.committed != 0) revert FederationUnknownUpdates(participants & ~live.committed);
        uint64[MAX_MEMBERS] storage receipts = _whole[live.round][live.attempt];
        uint256 covering = 0;
        uint128 agreed = live.committed;
        for (uint256 i = 0; i < _founderCount; i++) {
            if (live.received & _bit(i) == 0) continue;
            uint128 whole = receipts[i];
            agreed &= whole;
            if (participants & ~whole == 0) covering++;
        }
        if (covering < _threshold) revert FederationNotCovered(covering, _threshold);
        if (agreed & ~participants != 0) revert FederationCensored(agreed & ~participants);
    }

    // ---------------------------------------------------------------- derivations (twin: fedchain/protocol/phase.py)

    /// @inheritdoc IFederation
    function phaseOf(uint32 round) public view override returns (Phase) {
        if (_startOfRun() == 0) return Phase.Enrolling;
        if (round < _round) return Phase.Closed;
        if (_isFinished()) return Phase.Finished;
        if (round > _round) return Phase.Pending;
        RoundView memory attempt = _liveAttempt();
        if (_trainingEnd(attempt) == 0) return Phase.Training;
        if (_receiptsEnd(attempt) == 0) return Phase.Receipts;
        if (attempt.participants == 0) return Phase.Aggregating;
        if (_sizeOf(attempt.opened) < _threshold) return Phase.Opening;
        return Phase.Closing;
    }

    /// @dev All rounds are closed, or at least t members voted that the target is met.
    function _isFinished() private view returns (bool) {
        return _round > _rounds || _sizeOf(_receipts[_round].stopVotes) >= _threshold;
    }

    /// @dev When enrolment ended: all founders enrolled, or the window passed with enough of them; 0 before.
    function _startOfRun() private view returns (uint256) {
        uint256 deadline = _foundedAt + _enrolWindow;
        return _end(_sizeOf(enrolled()), _founderCount, minParticipants(), _lastEnrolment(), deadline);
    }

    /// @dev When training ended (P1): all members committed, or the deadline passed with at least max(3, t+1).
    function _trainingEnd(RoundView memory attempt) private view returns (uint256) {
        uint256 deadline = attempt.startedAt + _trainingWindow;
        uint256 minimum = minParticipants();
        return _end(_sizeOf(attempt.committed), _sizeOf(enrolled()), minimum, attempt.lastCommitAt, deadline);
    }

    /// @dev When the receipts were in (P2): all members posted, or the deadline passed with at least t.
    function _receiptsEnd(RoundView memory attempt) private view returns (uint256) {
        uint256 training = _trainingEnd(attempt);
        if (training == 0) return 0;
        uint256 deadline = training + _receiptWindow;
        return _end(_sizeOf(attempt.received), _sizeOf(enrolled()), _threshold, attempt.lastReceiptAt, deadline);
    }

    /// @dev The attempt under way: time voids an attempt without anyone's transaction; startedAt is 0 while enrolling.
    /// An attempt is void when its training window passes with too few updates (P1), or when every member in the rotation
    /// let its turn to aggregate pass (P3). The next attempt begins at that very moment, with nothing in it.
    function _liveAttempt() private view returns (RoundView memory attempt) {
        uint256 start = _startOfRun();
        attempt = _attemptOf(_round);
        if (start == 0) return attempt;
        if (attempt.startedAt == 0) attempt.startedAt = uint64(start);
        uint256 window = _trainingWindow;
        uint256 receipts = _receiptsEnd(attempt);
        if (receipts != 0 && attempt.participants == 0) {
            uint256 exhausted = receipts + _sizeOf(enrolled()) * _aggregateWindow;
            if (block.timestamp >= exhausted) _renew(attempt, 1, exhausted);
        }
        if (_trainingEnd(attempt) == 0 && block.timestamp >= attempt.startedAt + window) {
            uint256 missed = (block.timestamp - attempt.startedAt) / window;
            _renew(attempt, missed, attempt.startedAt + missed * window);
        }
    }

    /// @dev How many aggregators have let their window pass (P3), from 0; meaningful once the receipts are in.
    function _turnOf(RoundView memory attempt) private view returns (uint256) {
        uint256 receipts = _receiptsEnd(attempt);
        if (receipts == 0) return 0;
        return (block.timestamp - receipts) / _aggregateWindow;
    }

    /// @dev Whose turn it is to aggregate (P3): round-robin over the enrolled, moving on as windows pass.
    function _aggregatorOf(RoundView memory attempt) private view returns (uint8) {
        uint256 order = enrolled();
        uint256 place = (uint256(attempt.round) - 1 + attempt.attempt + _turnOf(attempt)) % _sizeOf(order);
        for (; place != 0; place--) order &= order - 1; // drop the lowest member
        return uint8(_sizeOf((order & ~(order - 1)) - 1));
    }

    /// @dev When a window ended: at the last statement if everyone spoke; else at the deadline, or at the statement after it
    /// that made the number sufficient; 0 while it runs.
    function _end(uint256 count, uint256 everyone, uint256 enough, uint256 lastAt, uint256 deadline)
        private
        view
        returns (uint256)
    {
        if (count == everyone) return lastAt;
        if (count < enough || block.timestamp < deadline) return 0;
        return deadline > lastAt ? deadline : lastAt;
    }

    /// @dev Makes `attempt` a fresh one, `later` numbers on. One window is at least a second: 32 bits last 136 years.
    function _renew(RoundView memory attempt, uint256 later, uint256 startedAt) private pure {
        attempt.attempt = uint32(attempt.attempt + later);
        attempt.startedAt = uint64(startedAt);
        attempt.lastCommitAt = 0;
        attempt.lastReceiptAt = 0;
        attempt.committed = 0;
        attempt.received = 0;
    }

    /// @dev The newest attempt at `round` that holds a statement; time may have voided it since.
    function _attemptOf(uint32 round) private view returns (RoundView memory) {
        Training storage training = _training[round];
        Receipts storage receipts = _receipts[round];
        Group storage spoken = _groups[round][0];
        return RoundView({
            round: round,
            attempt: training.attempt,
            startedAt: training.startedAt,
            lastCommitAt: training.lastCommitAt,
            lastReceiptAt: receipts.lastReceiptAt,
            committed: training.committed,
            received: receipts.received,
            participants: spoken.participants,
            opened: spoken.opened,
            stopVotes: receipts.stopVotes
        });
    }

    /// @inheritdoc Membership
    function _bondFreeAt() internal view override returns (uint256) {
        if (_startOfRun() == 0) return _foundedAt + _enrolWindow + _challengeWindow;
        if (!_isFinished()) return type(uint256).max;
        uint256 finishedAt = _round > _rounds ? _training[_round].startedAt : _lastVoteAt;
        return finishedAt + _challengeWindow;
    }
}
