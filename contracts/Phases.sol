// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {_lowest, _sizeOf} from "./Bitmaps.sol";
import {IFederation} from "./IFederation.sol";
import {Record} from "./Record.sol";

/// @title The phase of a round, derived from counts, deadlines and the time (P1–P5).
/// @dev Nothing "moves" a round: every statement asks the derivations here, which are the twin of fedchain/protocol/phase.py: the
/// same names, the same order, the same branches. A time of 0 is Python's None. The terms live in the code (immutables), so
/// that reading them costs no storage access.
abstract contract Phases is Record, IFederation {
    /// @dev Beyond any model, and what 32 bits can count polynomials of. Twin: MAX_PARAMETERS.
    uint256 private constant MAX_MODEL_SIZE = 2 ** 40;
    /// @dev Of less than a wei's deposit a demand would be free (Demands.sol).
    uint256 private constant MIN_BOND = 32;

    /// @dev What every derivation starts from, read once: each field is of one word of storage, or follows from it.
    struct Current {
        uint32 round;
        uint256 began; // 0 while members enrol
        uint256 everyone; // who counts
        uint256 heard; // who counts, and was never slashed
        uint256 threshold;
    }

    bytes32 private immutable _charterDigest;
    bytes32 private immutable _charterCid;
    bytes32 private immutable _genesisDigest;
    bytes32 private immutable _genesisCid;
    uint256 internal immutable _rounds;
    uint256 internal immutable _threshold;
    uint256 internal immutable _enrolWindow;
    uint256 internal immutable _trainingWindow;
    uint256 internal immutable _receiptWindow;
    uint256 internal immutable _aggregateWindow;
    uint256 internal immutable _closeWindow;
    uint256 internal immutable _founderCount;
    uint256 internal immutable _foundedAt;

    constructor(Terms memory terms_, uint256 founderCount) {
        uint256 least = founderCount / 2 + 1;
        if (terms_.threshold < least || terms_.threshold > founderCount - 1) {
            revert FederationBadThreshold(terms_.threshold, least, founderCount - 1);
        }
        _checkTerm(terms_.charterDigest != 0, "charterDigest");
        _checkTerm(terms_.charterCid != 0, "charterCid");
        _checkTerm(terms_.genesisDigest != 0, "genesisDigest");
        _checkTerm(terms_.genesisCid != 0, "genesisCid");
        _checkTerm(terms_.modelSize != 0 && terms_.modelSize <= MAX_MODEL_SIZE, "modelSize");
        // The round after the last one has a number too.
        _checkTerm(terms_.rounds != 0 && terms_.rounds != type(uint32).max, "rounds");
        _checkTerm(terms_.enrolWindow != 0, "enrolWindow");
        _checkTerm(terms_.trainingWindow != 0, "trainingWindow");
        _checkTerm(terms_.receiptWindow != 0, "receiptWindow");
        _checkTerm(terms_.aggregateWindow != 0, "aggregateWindow");
        // Without one, nobody could ever refute the last result.
        _checkTerm(terms_.challengeWindow != 0, "challengeWindow");
        _checkTerm(terms_.closeWindow != 0, "closeWindow");
        _checkTerm(terms_.bond >= MIN_BOND, "bond");

        _charterDigest = terms_.charterDigest;
        _charterCid = terms_.charterCid;
        _genesisDigest = terms_.genesisDigest;
        _genesisCid = terms_.genesisCid;
        _rounds = terms_.rounds;
        _threshold = terms_.threshold;
        _enrolWindow = terms_.enrolWindow;
        _trainingWindow = terms_.trainingWindow;
        _receiptWindow = terms_.receiptWindow;
        _aggregateWindow = terms_.aggregateWindow;
        _closeWindow = terms_.closeWindow;
        _founderCount = founderCount;
        _foundedAt = block.timestamp;

        _bond = terms_.bond;
        _modelSize = terms_.modelSize;
        _challengeWindow = terms_.challengeWindow;
        _groups[0][0].modelDigest = terms_.genesisDigest;
    }

    function _checkTerm(bool holds, bytes32 what) private pure {
        if (!holds) revert FederationBadTerms(what);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IFederation
    function terms() external view returns (Terms memory) {
        return Terms({
            charterDigest: _charterDigest,
            charterCid: _charterCid,
            genesisDigest: _genesisDigest,
            genesisCid: _genesisCid,
            modelSize: _modelSize,
            rounds: uint32(_rounds),
            threshold: uint8(_threshold),
            enrolWindow: uint32(_enrolWindow),
            trainingWindow: uint32(_trainingWindow),
            receiptWindow: uint32(_receiptWindow),
            aggregateWindow: uint32(_aggregateWindow),
            challengeWindow: _challengeWindow,
            closeWindow: uint32(_closeWindow),
            bond: _bond
        });
    }

    /// @inheritdoc IFederation
    function threshold() public view returns (uint256) {
        return _thresholdOf(_standing);
    }

    /// @inheritdoc IFederation
    function minParticipants() public view returns (uint256) {
        return _minimum(threshold());
    }

    /// @inheritdoc IFederation
    function currentRound() external view returns (uint32) {
        return _round;
    }

    /// @inheritdoc IFederation
    function phaseOf(uint32 round) public view returns (Phase) {
        (Phase phase,,) = _phaseOf(round);
        return phase;
    }

    /// @inheritdoc IFederation
    function finishedAt() public view returns (uint256) {
        Current memory current = _current();
        if (current.began == 0) return 0;
        Attempt memory newest = _attempts[current.round];
        return _isFinished(current, newest) ? _finishedAt(current, newest) : 0;
    }

    /// @inheritdoc IFederation
    function challengesEndAt() public view returns (uint256) {
        uint256 finished = finishedAt();
        return finished == 0 ? type(uint256).max : _extended(finished + _challengeWindow);
    }

    // ---------------------------------------------------------------- derivations (twin: fedchain/protocol/phase.py)

    function _current() internal view returns (Current memory) {
        (uint32 round, uint256 began, uint256 everyone, uint256 slashed_) =
            (_round, _roundBeganAt, _standing, _slashed);
        if (began == 0) began = _startOfRun();
        return Current(round, began, everyone, everyone & ~slashed_, _thresholdOf(everyone));
    }

    /// @dev The phase of `round` now; and the live attempt and its receipts' end, which whoever asks to speak needs too.
    function _phaseOf(uint32 round) internal view returns (Phase, Attempt memory attempt, uint256 receipts) {
        Current memory current = _current();
        if (current.began == 0) return (Phase.Enrolling, attempt, 0);
        if (round < current.round) return (Phase.Closed, attempt, 0);
        uint256 training;
        (attempt, training, receipts) = _liveAttempt(current);
        if (_isFinished(current, attempt)) return (Phase.Finished, attempt, receipts);
        if (round > current.round) return (Phase.Pending, attempt, receipts);
        if (attempt.locked) {
            Group storage locked = _groups[round][0];
            bool enough = _sizeOf(locked.opened) >= locked.threshold;
            return (enough ? Phase.Closing : Phase.Opening, attempt, receipts);
        }
        if (training == 0) return (Phase.Training, attempt, receipts);
        if (receipts == 0) return (Phase.Receipts, attempt, receipts);
        return (Phase.Aggregating, attempt, receipts);
    }

    /// @dev All rounds are closed, or at least t members voted that the target is met, or too few are left, or the round takes
    /// too long: then nobody may ever close it, and bonds must not wait for that. Of the current round's attempts, any will do: each
    /// has its votes.
    function _isFinished(Current memory current, Attempt memory attempt) private view returns (bool) {
        return current.round > _rounds || _sizeOf(attempt.stopVotes) >= current.threshold
            || _areTooFew(current, attempt.locked) || block.timestamp >= current.began + _closeWindow;
    }

    /// @dev When the run ended, if it has.
    function _finishedAt(Current memory current, Attempt memory newest) private view returns (uint256) {
        uint256 began = current.began;
        if (current.round > _rounds) return began;
        // After a rollback both may be older than the round's new beginning.
        if (_sizeOf(newest.stopVotes) >= current.threshold) return _later(began, _lastVoteAt);
        if (_areTooFew(current, newest.locked)) return _later(began, _lastSlashAt);
        return began + _closeWindow;
    }

    /// @dev Too few members are heard to lock a set, or, if one is locked, to open it or to close the round. Else slashing could
    /// leave a run that never ends, and bonds that are never free.
    function _areTooFew(Current memory current, bool locked) private view returns (bool) {
        uint256 heard = current.heard;
        if (!locked) return _sizeOf(heard) < _minimum(current.threshold);
        Group storage group = _groups[current.round][0];
        return heard == 0 || _sizeOf(heard | group.opened) < group.threshold;
    }

    /// @dev When enrolment ended: all founders enrolled, or the window passed with enough of them; 0 before.
    function _startOfRun() private view returns (uint256) {
        uint256 deadline = _foundedAt + _enrolWindow;
        return _end(_standing, (1 << _founderCount) - 1, _minimum(_threshold), _lastEnrolAt, deadline);
    }

    /// @dev When the current round began: the first one with the run; 0 before that.
    function _roundBegan() internal view returns (uint256) {
        return _roundBeganAt != 0 ? _roundBeganAt : _startOfRun();
    }

    /// @dev When training ended (P1): all members committed, or the deadline passed with at least max(3, t+1).
    function _trainingEnd(Current memory current, Attempt memory attempt) private view returns (uint256) {
        uint256 deadline = attempt.startedAt + _trainingWindow;
        uint256 enough = _minimum(current.threshold);
        return _end(attempt.committed, current.everyone, enough, attempt.lastCommitAt, deadline);
    }

    /// @dev When the receipts were in (P2): all members posted, or the deadline passed with at least t.
    function _receiptsEnd(Current memory current, Attempt memory attempt, uint256 training)
        private
        view
        returns (uint256)
    {
        if (training == 0) return 0;
        uint256 deadline = training + _receiptWindow;
        Statements storage said = _statements[current.round][attempt.attempt];
        return _end(said.received, current.everyone, current.threshold, said.lastReceiptAt, deadline);
    }

    /// @dev The attempt under way: time voids an attempt without anyone's transaction; it starts at 0 while enrolling.
    /// An attempt is void when its training window passes with too few updates (P1), or when every member in the rotation
    /// let its turn to aggregate pass (P3). The next attempt begins at that very moment, with nothing in it. An attempt with a
    /// locked set is never void. With it, computed once: when its training ended, and when its receipts were in.
    function _liveAttempt(Current memory current)
        internal
        view
        returns (Attempt memory attempt, uint256 training, uint256 receipts)
    {
        attempt = _attempts[current.round];
        if (attempt.locked) return (attempt, 0, 0);
        if (attempt.startedAt == 0) {
            uint256 start = _startOfRun();
            if (start == 0) return (attempt, 0, 0);
            attempt.startedAt = uint40(start);
        }
        uint256 window = _trainingWindow;
        training = _trainingEnd(current, attempt);
        receipts = _receiptsEnd(current, attempt, training);
        if (receipts != 0) {
            uint256 exhausted = receipts + _sizeOf(current.everyone) * _aggregateWindow;
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
    function _turnOf(uint256 receipts) internal view returns (uint256) {
        if (receipts == 0) return 0;
        return (block.timestamp - receipts) / _aggregateWindow;
    }

    /// @dev Who is at `turn` in the rotation (P3): round-robin over those who count.
    function _aggregatorOf(Attempt memory attempt, uint256 turn) internal view returns (uint8) {
        uint256 order = _standing;
        uint256 place = (uint256(_round) - 1 + attempt.attempt + turn) % _sizeOf(order);
        for (; place != 0; place--) order &= order - 1; // drop the lowest member
        return uint8(_lowest(order));
    }

    /// @dev `plain`, the end of a challenge window, or a little later if a demand came late: bounded, however many come.
    function _extended(uint256 plain) internal view returns (uint256) {
        uint256 most = plain + 2 * _answerWindow();
        return _later(plain, _demandsUntil < most ? _demandsUntil : most);
    }

    function _minimum(uint256 threshold_) private pure returns (uint256) {
        return threshold_ + 1 < MIN_MEMBERS ? MIN_MEMBERS : threshold_ + 1;
    }

    function _thresholdOf(uint256 everyone) private view returns (uint256) {
        uint256 majority = _sizeOf(everyone) / 2 + 1;
        return majority > _threshold ? majority : _threshold;
    }

    /// @dev When a window ended: at the last statement if everyone spoke (nobody else is heard); else at the deadline, or at the statement after
    /// it that made the number sufficient; 0 while it runs.
    function _end(uint256 spoke, uint256 everyone, uint256 enough, uint256 lastAt, uint256 deadline)
        private
        view
        returns (uint256)
    {
        if (spoke == everyone) return lastAt;
        if (block.timestamp < deadline || _sizeOf(spoke) < enough) return 0;
        return _later(deadline, lastAt);
    }

    function _later(uint256 a, uint256 b) private pure returns (uint256) {
        return a > b ? a : b;
    }

    /// @dev Makes `attempt` a fresh one, `later` numbers on. A window is a second at least: 32 bits last 136 years.
    function _renew(Attempt memory attempt, uint256 later, uint256 startedAt) private pure {
        attempt.attempt = uint32(attempt.attempt + later);
        attempt.startedAt = uint40(startedAt);
        attempt.lastCommitAt = 0;
        attempt.committed = 0;
    }
}
