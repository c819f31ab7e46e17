// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFederation} from "./IFederation.sol";
import {Membership} from "./Membership.sol";

/// @title What members say in a round (P1–P5), and the phase that follows from it.
/// @dev Nothing here "moves" a round: every statement asks the derivations at the end of this file, which are the twin of
/// fedchain/protocol/phase.py: the same names, the same order, the same branches. A time of 0 is Python's None.
abstract contract Rounds is Membership {
    /// @dev The newest attempt of a round that holds a statement: one word, all that a commit reads and rewrites. The votes
    /// to stop are the round's, and outlive a void attempt.
    struct Attempt {
        uint32 attempt;
        uint40 startedAt;
        uint40 lastCommitAt;
        uint64 committed;
        uint64 stopVotes;
        bool locked; // a participant set is
    }

    /// @dev What was said in one attempt before a set is locked. A receipt is kept as its complaints, the committed updates
    /// that it leaves out: mostly none, and a zero costs nothing to store.
    struct Statements {
        bytes32 commitments;
        uint40 lastReceiptAt;
        uint64 received;
        uint64[MAX_MEMBERS] complaints;
    }

    /// @dev What was said about one group of one round. Its set is locked once for ever, so it needs no attempt number. The result
    /// is one only while the round is closed: who rolls back need not clear it.
    struct Group {
        uint64 participants;
        uint64 opened;
        uint8 aggregator;
        uint8 closer;
        uint64 openers;
        bytes32 aggregateRoot;
        bytes32 openings;
        bytes32 keySumRoot;
        bytes32 resultRoot;
        bytes32 modelDigest;
    }

    // These two share a word with the bitmaps of Membership.sol.
    uint32 private _round = 1;
    uint40 private _lastVoteAt;

    mapping(uint32 round => Attempt) private _attempts;
    mapping(uint32 round => mapping(uint32 attempt => Statements)) private _statements;
    mapping(uint32 round => mapping(uint16 group => Group)) private _groups;

    // ---------------------------------------------------------------- statements

    /// @inheritdoc IFederation
    function commitUpdate(
        uint32 round,
        uint32 attempt,
        bytes32 commitment,
        bytes32 ciphertextCid,
        bytes32 sharesCid
    ) external {
        (uint8 index, Attempt memory live,) = _admit(round, attempt, Phase.Training, Phase.Training);
        if (commitment == 0 || ciphertextCid == 0 || sharesCid == 0) revert FederationEmptyDigest();
        if (live.committed & _bit(index) != 0) revert FederationAlreadyCommitted();

        live.lastCommitAt = uint40(block.timestamp);
        live.committed |= _bit(index);
        _attempts[round] = live;
        Statements storage said = _statements[round][attempt];
        said.commitments = keccak256(abi.encode(said.commitments, index, commitment));
        emit UpdateCommitted(round, attempt, index, commitment, ciphertextCid, sharesCid);
    }

    /// @inheritdoc IFederation
    function postReceipt(uint32 round, uint32 attempt, uint128 whole) external {
        (uint8 index, Attempt memory live,) = _admit(round, attempt, Phase.Receipts, Phase.Receipts);
        Statements storage said = _statements[round][attempt];
        if (said.received & _bit(index) != 0) revert FederationAlreadyPosted();
        if (whole & ~uint128(live.committed) != 0) revert FederationUnknownUpdates(whole & ~uint128(live.committed));

        said.lastReceiptAt = uint40(block.timestamp);
        said.received |= _bit(index);
        if (whole != live.committed) said.complaints[index] = live.committed ^ uint64(whole);
        emit ReceiptPosted(round, attempt, index, whole);
    }

    /// @inheritdoc IFederation
    function commitAggregate(
        uint32 round,
        uint32 attempt,
        uint16 group,
        uint128 participants,
        bytes32 basis,
        bytes32 root,
        bytes32 cid
    ) external {
        (uint8 index, Attempt memory live, uint256 receipts) =
            _admit(round, attempt, Phase.Aggregating, Phase.Aggregating);
        _checkGroup(group);
        uint8 expected = _aggregatorOf(live, receipts);
        if (index != expected) revert FederationNotAggregator(expected);
        if (root == 0 || cid == 0) revert FederationEmptyDigest();
        _checkBasis(basis, _statements[round][attempt].commitments);
        _checkParticipants(live, participants);

        _attempts[round].locked = true;
        Group storage locked = _groups[round][group];
        locked.participants = uint64(participants);
        locked.aggregator = index;
        locked.aggregateRoot = root;
        emit AggregateCommitted(round, attempt, group, index, participants, root, cid);
    }

    /// @inheritdoc IFederation
    function publishOpening(uint32 round, uint32 attempt, uint16 group, bytes32 root, bytes32 cid) external {
        (uint8 index,,) = _admit(round, attempt, Phase.Opening, Phase.Closing);
        _checkGroup(group);
        if (root == 0 || cid == 0) revert FederationEmptyDigest();
        Group storage locked = _groups[round][group];
        if (locked.opened & _bit(index) != 0) revert FederationAlreadyOpened();

        locked.opened |= _bit(index);
        locked.openings = keccak256(abi.encode(locked.openings, index, root));
        emit OpeningPublished(round, attempt, group, index, root, cid);
    }

    /// @inheritdoc IFederation
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
    ) external {
        (uint8 index,,) = _admit(round, attempt, Phase.Closing, Phase.Closing);
        _checkGroup(group);
        if (keySumRoot == 0 || resultRoot == 0 || resultCid == 0 || modelDigest == 0 || modelCid == 0) {
            revert FederationEmptyDigest();
        }
        _checkBasis(basis, basisOf(round, group));
        Group storage locked = _groups[round][group];
        if (openers & ~uint128(locked.opened) != 0 || _sizeOf(openers) != _threshold) {
            revert FederationBadOpeners(openers);
        }

        locked.closer = index;
        locked.openers = uint64(openers);
        locked.keySumRoot = keySumRoot;
        locked.resultRoot = resultRoot;
        locked.modelDigest = modelDigest;
        _begin(round + 1);
        emit ResultCommitted(
            round, attempt, group, index, openers, keySumRoot, resultRoot, resultCid, modelDigest, modelCid
        );
    }

    /// @inheritdoc IFederation
    function restateAggregate(
        uint32 round,
        uint16 group,
        uint128 participants,
        bytes32 basis,
        bytes32 root,
        bytes32 cid
    ) external {
        uint8 index = _memberIndex(msg.sender);
        _checkBondsHeld();
        Group storage locked = _lockedGroup(round, group);
        if (locked.aggregateRoot != 0) revert FederationNoStatement();
        if (root == 0 || cid == 0) revert FederationEmptyDigest();
        bytes32 current = _commitmentsOf(round, _lockedAttempt(round));
        if (participants != locked.participants) revert FederationOtherBasis(current);
        _checkBasis(basis, current);

        locked.aggregator = index;
        locked.aggregateRoot = root;
        emit AggregateRestated(round, _attempts[round].attempt, group, index, root, cid);
    }

    /// @inheritdoc IFederation
    function voteToStop(uint32 round) external {
        uint8 index = _memberIndex(msg.sender);
        if (round != _round || round == 1) revert FederationWrongRound(_round);
        Phase phase = phaseOf(round);
        if (phase != Phase.Training) revert FederationWrongPhase(phase);
        if (_attempts[round].stopVotes & _bit(index) != 0) revert FederationAlreadyVoted();

        _attempts[round].stopVotes |= _bit(index);
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
        Attempt memory attempt = _attempts[round];
        if (round == _round) (attempt,,) = _liveAttempt();
        Statements storage said = _statements[round][attempt.attempt];
        Group storage locked = _groups[round][0];
        return RoundView({
            round: round,
            attempt: attempt.attempt,
            startedAt: attempt.startedAt,
            lastCommitAt: attempt.lastCommitAt,
            lastReceiptAt: said.lastReceiptAt,
            committed: attempt.committed,
            received: said.received,
            participants: locked.participants,
            opened: locked.opened,
            stopVotes: attempt.stopVotes
        });
    }

    /// @inheritdoc IFederation
    function aggregatorNow() external view returns (uint8) {
        if (!_hasBegun()) revert FederationWrongPhase(Phase.Enrolling);
        (Attempt memory live,, uint256 receipts) = _liveAttempt();
        return live.locked ? _groups[_round][0].aggregator : _aggregatorOf(live, receipts);
    }

    /// @inheritdoc IFederation
    function commitmentsOf(uint32 round, uint32 attempt) external view returns (bytes32) {
        return _statements[round][attempt].commitments;
    }

    /// @inheritdoc IFederation
    function receiptOf(uint32 round, uint32 attempt, uint8 index) external view returns (uint128) {
        Statements storage said = _statements[round][attempt];
        if (index >= MAX_MEMBERS || said.received & _bit(index) == 0) return 0;
        if (round > _round || attempt != _attempts[round].attempt) return 0;
        return _attempts[round].committed ^ said.complaints[index];
    }

    /// @inheritdoc IFederation
    function aggregateOf(uint32 round, uint16 group) external view returns (Aggregate memory) {
        if (round > _round) return Aggregate(0, 0, 0);
        Group storage locked = _groups[round][group];
        return Aggregate(locked.aggregator, locked.participants, locked.aggregateRoot);
    }

    /// @inheritdoc IFederation
    function openingsOf(uint32 round, uint16 group) external view returns (bytes32) {
        return round > _round ? bytes32(0) : _groups[round][group].openings;
    }

    /// @inheritdoc IFederation
    function basisOf(uint32 round, uint16 group) public view returns (bytes32) {
        Group storage locked = _groups[round][group];
        if (round > _round || locked.participants == 0) return 0;
        bytes32 commitments = _commitmentsOf(round, _lockedAttempt(round));
        return keccak256(abi.encode(_modelBefore(round), commitments, locked.participants, locked.openings));
    }

    /// @inheritdoc IFederation
    function resultOf(uint32 round, uint16 group) external view returns (Result memory) {
        if (round >= _round) return Result(0, 0, 0, 0, 0);
        Group storage locked = _groups[round][group];
        return Result({
            member: locked.closer,
            openers: locked.openers,
            keySumRoot: locked.keySumRoot,
            resultRoot: locked.resultRoot,
            modelDigest: locked.modelDigest
        });
    }

    /// @inheritdoc IFederation
    function model() external view returns (bytes32) {
        return _modelBefore(_round);
    }

    /// @inheritdoc IFederation
    function phaseOf(uint32 round) public view override returns (Phase) {
        (Phase phase,,) = _phaseOf(round);
        return phase;
    }

    // ---------------------------------------------------------------- checks

    /// @dev Lets a statement in: from a member, about the current round, in one of two neighbouring phases, in the live
    /// attempt. A transaction that comes late is refused here and never lands in another attempt.
    function _admit(uint32 round, uint32 attempt, Phase first, Phase last)
        private
        view
        returns (uint8 index, Attempt memory live, uint256 receipts)
    {
        index = _memberIndex(msg.sender);
        if (round != _round) revert FederationWrongRound(_round);
        Phase phase;
        (phase, live, receipts) = _phaseOf(round);
        if (phase < first || phase > last) revert FederationWrongPhase(phase);
        if (attempt != live.attempt) revert FederationWrongAttempt(live.attempt);
    }

    /// @dev Groups (P6) are not open yet: the whole round is group 0.
    function _checkGroup(uint16 group) private pure {
        if (group != 0) revert FederationBadGroup(group);
    }

    /// @dev A statement is true or false of what it rests on; on a fork that may be something else.
    function _checkBasis(bytes32 basis, bytes32 current) private pure {
        if (basis != current) revert FederationOtherBasis(current);
    }

    /// @dev Whether U may be locked (P3). Twin: check_participants(). The loop ends at MAX_MEMBERS.
    function _checkParticipants(Attempt memory live, uint128 participants) private view {
        uint256 size = _sizeOf(participants);
        if (size < minParticipants()) revert FederationTooFewParticipants(size, minParticipants());
        uint128 agreed = live.committed;
        if (participants & ~agreed != 0) revert FederationUnknownUpdates(participants & ~agreed);
        Statements storage said = _statements[_round][live.attempt];
        uint256 received = said.received;
        uint256 covering = 0;
        for (uint256 i = 0; i < _founderCount; i++) {
            if (received & _bit(i) == 0) continue;
            uint128 complaints = said.complaints[i];
            agreed &= ~complaints;
            if (participants & complaints == 0) covering++;
        }
        if (covering < _threshold) revert FederationNotCovered(covering, _threshold);
        if (agreed & ~participants != 0) revert FederationCensored(agreed & ~participants);
    }

    /// @dev Whoever makes a statement, or judges one, does so while there is something at stake.
    function _checkBondsHeld() internal view {
        if (!_hasBegun()) revert FederationNoStatement();
        uint256 until = _bondFreeAt();
        if (block.timestamp >= until) revert FederationChallengeOver(until);
    }

    // ---------------------------------------------------------------- what challenges judge, and change

    /// @dev The record of a group whose set is locked, of a round that is not forgotten.
    function _lockedGroup(uint32 round, uint16 group) internal view returns (Group storage locked) {
        _checkGroup(group);
        locked = _groups[round][group];
        if (round > _round || locked.participants == 0) revert FederationNoStatement();
    }

    /// @dev The attempt that was locked in a round that is not forgotten.
    function _lockedAttempt(uint32 round) internal view returns (uint32) {
        return _attempts[round].attempt;
    }

    function _commitmentsOf(uint32 round, uint32 attempt) internal view returns (bytes32) {
        return _statements[round][attempt].commitments;
    }

    /// @dev The model that members train from in `round`, which is not forgotten.
    function _modelBefore(uint32 round) internal view returns (bytes32) {
        return round == 1 ? _genesisDigest : _groups[round - 1][0].modelDigest;
    }

    /// @dev The results from `round` on fall; later rounds are forgotten. What they held is cleared when they begin again: no loop
    /// over rounds, so that no run is too long to be rolled back.
    function _rollBack(uint32 round) internal {
        // Members may have prepared statements for the live attempt: it is not begun again on another model.
        (Attempt memory live,,) = _liveAttempt();
        _attempts[_round].attempt = live.attempt;
        _round = round;
    }

    /// @dev A round begins, for the first time or again.
    function _begin(uint32 round) private {
        Attempt storage attempt = _attempts[round];
        bool again = attempt.startedAt != 0;
        uint32 number = again ? attempt.attempt + 1 : 0;
        _attempts[round] = Attempt(number, uint40(block.timestamp), 0, 0, 0, false);
        if (again) delete _groups[round][0];
        _round = round;
        _settle();
    }

    // ---------------------------------------------------------------- derivations (twin: fedchain/protocol/phase.py)

    /// @dev The phase of `round` now; and the live attempt and its receipts' end, which whoever asks to speak needs too.
    function _phaseOf(uint32 round) private view returns (Phase, Attempt memory attempt, uint256 receipts) {
        if (!_hasBegun()) return (Phase.Enrolling, attempt, 0);
        if (round < _round) return (Phase.Closed, attempt, 0);
        uint256 training;
        (attempt, training, receipts) = _liveAttempt();
        if (_isFinished(attempt)) return (Phase.Finished, attempt, receipts);
        if (round > _round) return (Phase.Pending, attempt, receipts);
        if (attempt.locked) {
            bool enough = _sizeOf(_groups[round][0].opened) >= _threshold;
            return (enough ? Phase.Closing : Phase.Opening, attempt, receipts);
        }
        if (training == 0) return (Phase.Training, attempt, receipts);
        if (receipts == 0) return (Phase.Receipts, attempt, receipts);
        return (Phase.Aggregating, attempt, receipts);
    }

    /// @dev All rounds are closed, or at least t members voted that the target is met, or too few are left. Of the current round's
    /// attempts, any will do: each has its votes.
    function _isFinished(Attempt memory attempt) private view returns (bool) {
        return _round > _rounds || _sizeOf(attempt.stopVotes) >= _threshold || _areTooFew(attempt.locked);
    }

    /// @dev Too few members are heard to lock a set, or, if one is locked, to open it or to close the round. Else slashing could
    /// leave a run that never ends, and bonds that are never free.
    function _areTooFew(bool locked) private view returns (bool) {
        uint256 heard = _heard();
        if (_sizeOf(heard) >= minParticipants()) return false;
        if (!locked) return true;
        return heard == 0 || _sizeOf(heard | _groups[_round][0].opened) < _threshold;
    }

    /// @dev When enrolment ended: all founders enrolled, or the window passed with enough of them; 0 before.
    function _startOfRun() private view returns (uint256) {
        uint256 deadline = _foundedAt + _enrolWindow;
        return _end(_sizeOf(enrolled()), _founderCount, minParticipants(), _lastEnrolment(), deadline);
    }

    /// @dev Whether the run has begun: a later round shows it at once.
    function _hasBegun() private view returns (bool) {
        return _round > 1 || _startOfRun() != 0;
    }

    /// @dev When training ended (P1): all members committed, or the deadline passed with at least max(3, t+1).
    function _trainingEnd(Attempt memory attempt) private view returns (uint256) {
        uint256 deadline = attempt.startedAt + _trainingWindow;
        uint256 minimum = minParticipants();
        return _end(_sizeOf(attempt.committed), _sizeOf(standing()), minimum, attempt.lastCommitAt, deadline);
    }

    /// @dev When the receipts were in (P2): all members posted, or the deadline passed with at least t.
    function _receiptsEnd(Attempt memory attempt, uint256 training) private view returns (uint256) {
        if (training == 0) return 0;
        uint256 deadline = training + _receiptWindow;
        Statements storage said = _statements[_round][attempt.attempt];
        return _end(_sizeOf(said.received), _sizeOf(standing()), _threshold, said.lastReceiptAt, deadline);
    }

    /// @dev The attempt under way: time voids an attempt without anyone's transaction; it starts at 0 while enrolling.
    /// An attempt is void when its training window passes with too few updates (P1), or when every member in the rotation
    /// let its turn to aggregate pass (P3). The next attempt begins at that very moment, with nothing in it. An attempt with a
    /// locked set is never void. With it, computed once: when its training ended, and when its receipts were in.
    function _liveAttempt() private view returns (Attempt memory attempt, uint256 training, uint256 receipts) {
        attempt = _attempts[_round];
        if (attempt.locked) return (attempt, 0, 0);
        if (attempt.startedAt == 0) {
            uint256 start = _startOfRun();
            if (start == 0) return (attempt, 0, 0);
            attempt.startedAt = uint40(start);
        }
        uint256 window = _trainingWindow;
        training = _trainingEnd(attempt);
        receipts = _receiptsEnd(attempt, training);
        if (receipts != 0) {
            uint256 exhausted = receipts + _sizeOf(standing()) * _aggregateWindow;
            if (block.timestamp >= exhausted) {
                _renew(attempt, 1, exhausted);
                (training, receipts) = (0, 0);
            }
        }
        if (training == 0 && block.timestamp >= attempt.startedAt + window) {
            uint256 missed = (block.timestamp - attempt.startedAt) / window;
            _renew(attempt, missed, attempt.startedAt + missed * window);
        }
    }

    /// @dev How many aggregators have let their window pass (P3), from 0; meaningful once the receipts are in.
    function _turnOf(uint256 receipts) private view returns (uint256) {
        if (receipts == 0) return 0;
        return (block.timestamp - receipts) / _aggregateWindow;
    }

    /// @dev Whose turn it is to aggregate (P3): round-robin over those who count, moving on as windows pass.
    function _aggregatorOf(Attempt memory attempt, uint256 receipts) private view returns (uint8) {
        uint256 order = standing();
        uint256 place = (uint256(_round) - 1 + attempt.attempt + _turnOf(receipts)) % _sizeOf(order);
        for (; place != 0; place--) order &= order - 1; // drop the lowest member
        return uint8(_sizeOf((order & ~(order - 1)) - 1));
    }

    /// @dev When a window ended: at the last statement if everyone spoke; else at the deadline, or at the statement after
    /// it that made the number sufficient; 0 while it runs.
    function _end(uint256 count, uint256 everyone, uint256 enough, uint256 lastAt, uint256 deadline)
        private
        view
        returns (uint256)
    {
        if (count == everyone) return lastAt;
        if (count < enough || block.timestamp < deadline) return 0;
        return deadline > lastAt ? deadline : lastAt;
    }

    /// @dev Makes `attempt` a fresh one, `later` numbers on. A window is a second at least: 32 bits last 136 years.
    function _renew(Attempt memory attempt, uint256 later, uint256 startedAt) private pure {
        attempt.attempt = uint32(attempt.attempt + later);
        attempt.startedAt = uint40(startedAt);
        attempt.lastCommitAt = 0;
        attempt.committed = 0;
    }

    /// @inheritdoc Membership
    function _bondFreeAt() internal view override returns (uint256) {
        if (!_hasBegun()) return _foundedAt + _enrolWindow + _challengeWindow;
        Attempt memory newest = _attempts[_round];
        if (!_isFinished(newest)) return type(uint256).max;
        return _finishedAt(newest) + _challengeWindow;
    }

    /// @dev When the run ended, if it has.
    function _finishedAt(Attempt memory newest) private view returns (uint256) {
        if (_round > _rounds) return newest.startedAt;
        if (_sizeOf(newest.stopVotes) >= _threshold) return _lastVoteAt;
        return newest.startedAt > _lastSlash() ? newest.startedAt : _lastSlash();
    }
}
