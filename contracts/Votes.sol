// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {_bit, _sizeOf} from "./Bitmaps.sol";
import {ICouncil} from "./ICouncil.sol";
import {Verdicts} from "./Verdicts.sol";

/// @title What members decide by vote: who joins, who must go, which set is given up, which model does not stand.
/// @dev A ballot is a bitmap, named by its motion and what it is about, and deleted when it is carried. Of those who voted only
/// who is heard by then counts, against the t of that time. Every vote: 1. by a member that is heard; 2. while the run goes on (of
/// Refuse: while bonds are held); 3. there is something to vote on; 4. once; 5. with the t-th, what it asks for is done.
abstract contract Votes is Verdicts {
    /// @dev Each set that is locked later on the same model is compared with them all. Rollbacks may add a few (Verdicts.sol).
    uint256 private constant MAX_ABANDONED = 8;

    /// @inheritdoc ICouncil
    function voteToAdmit(address account) external {
        uint8 voter = _memberIndex(msg.sender);
        _checkGoesOn();
        uint256 seat = _indexPlusOne[account];
        if (account == address(0)) revert FederationBadSubject();
        if (seat != 0 && (_standing | _joining | _slashed | _admitted) & _bit(seat - 1) != 0) {
            revert FederationBadSubject();
        }
        if (!_isCarried(voter, Motion.Admit, 0, 0, bytes32(uint256(uint160(account))))) return;

        if (seat == 0) {
            _seat(account);
            seat = _seatCount;
        }
        _admitted |= _bit(seat - 1);
        emit MemberAdmitted(uint8(seat - 1), account);
    }

    /// @inheritdoc ICouncil
    function voteToRemove(uint8 index) external {
        uint8 voter = _memberIndex(msg.sender);
        _checkGoesOn();
        uint64 bit = index < MAX_MEMBERS ? _bit(index) : 0;
        // Who is heard no more may be in a set that was given up. No set just beside that one is locked unless it is removed (P3).
        bool gone = _slashed & bit != 0 || (_standing | _joining) & bit == 0 && _seats[index].leftAt != 0;
        if (_heard() & bit == 0 && !gone) revert FederationBadSubject();
        if (_removed & bit != 0 && (gone || _leaving & bit != 0)) revert FederationAlreadyLeaving();
        if (!_isCarried(voter, Motion.Remove, 0, 0, bytes32(uint256(index)))) return;

        _leaving |= bit & _standing;
        _removed |= bit;
        emit MemberLeaving(index, true);
    }

    /// @inheritdoc ICouncil
    function voteToAbandon(uint32 round, uint32 attempt) external {
        uint8 voter = _memberIndex(msg.sender);
        if (round != _round) revert FederationWrongRound(_round);
        Phase phase = _checkGoesOn();
        if (phase != Phase.Opening && phase != Phase.Closing) revert FederationWrongPhase(phase);
        uint32 locked = _lockedAttempt(round);
        if (attempt != locked) revert FederationWrongAttempt(locked);
        if (_abandoned[_modelBefore(round)].length >= MAX_ABANDONED) revert FederationBadSubject();
        if (!_isCarried(voter, Motion.Abandon, round, attempt, 0)) return;

        emit SetAbandoned(round, attempt, 0, _giveUp(round));
        _begin(round);
    }

    /// @inheritdoc ICouncil
    function voteToRefuse(uint32 round, bytes32 modelDigest) external {
        uint8 voter = _memberIndex(msg.sender);
        _checkBondsHeld();
        _checkBasis(modelDigest, _closedGroup(round, 0).modelDigest);
        if (!_isCarried(voter, Motion.Refuse, round, _lockedAttempt(round), modelDigest)) return;

        // Nobody gains by a vote: with a reward, t members could take an honest closer's bond.
        _slash(_refuteResult(round, 0), round, 7, address(0));
    }

    /// @inheritdoc ICouncil
    function votesOf(Motion motion, uint32 round, uint32 attempt, bytes32 subject) external view returns (uint128) {
        return uint128(_votes[_ballot(motion, round, attempt, subject)] & _heard());
    }

    function _checkGoesOn() private view returns (Phase phase) {
        phase = _self().phaseOf(_round);
        if (phase == Phase.Enrolling || phase == Phase.Finished) revert FederationWrongPhase(phase);
    }

    /// @dev Counts a vote; says whether it was the one that was wanting.
    function _isCarried(uint8 voter, Motion motion, uint32 round, uint32 attempt, bytes32 subject)
        private
        returns (bool carried)
    {
        bytes32 ballot = _ballot(motion, round, attempt, subject);
        uint64 votes = _votes[ballot];
        if (votes & _bit(voter) != 0) revert FederationAlreadyVoted();
        votes |= _bit(voter);
        carried = _sizeOf(votes & _heard()) >= _self().threshold();
        _votes[ballot] = carried ? 0 : votes;
        emit MotionVoted(motion, voter, round, attempt, subject);
    }

    /// @dev Who joins and who must go is for those to decide who stand together: with other members it is another ballot.
    function _ballot(Motion motion, uint32 round, uint32 attempt, bytes32 subject) private view returns (bytes32) {
        return keccak256(abi.encode(motion, round, attempt, subject, motion < Motion.Abandon ? _standing : 0));
    }
}
