// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICouncil} from "./ICouncil.sol";
import {IFederation} from "./IFederation.sol";
import {Record} from "./Record.sol";

/// @title What falls when a statement does: for challenges, demands and votes alike.
/// @dev Runs in a federation's storage (delegatecall): this contract is the federation, and asks itself for what is derived.
abstract contract Verdicts is Record, ICouncil {
    function _self() internal view returns (IFederation) {
        return IFederation(address(this));
    }

    /// @dev Whoever makes a statement, or judges one, does so while there is something at stake.
    function _checkBondsHeld() internal view {
        if (_self().phaseOf(1) == Phase.Enrolling) revert FederationNoStatement();
        uint256 until = _self().challengesEndAt();
        if (block.timestamp >= until) revert FederationChallengeOver(until);
    }

    /// @dev The record of a round that is closed, and so holds a result.
    function _closedGroup(uint32 round, uint16 group) internal view returns (Group storage locked) {
        locked = _lockedGroup(round, group);
        if (round >= _round) revert FederationNoStatement();
    }

    /// @dev The sum on record falls; its set stays locked. Its author.
    function _refuteAggregate(uint32 round, uint16 group) internal returns (uint8 author) {
        Group storage locked = _groups[round][group];
        author = locked.aggregator;
        delete locked.aggregateRoot;
        emit AggregateRefuted(round, _lockedAttempt(round), group, author);
    }

    /// @dev The locked set of a round may have been opened: a later one on the same model must be far from it (P3.8). Each closer falls
    /// once, so that these are few.
    function _giveUp(uint32 round) internal returns (uint64 participants) {
        participants = _groups[round][0].participants;
        _abandoned[_modelBefore(round)].push(participants);
    }

    /// @dev The results from `round` on fall, and it is in Closing again; later rounds are forgotten. What they held is cleared when they
    /// begin again: no loop over rounds, so that no run is too long to be rolled back. The author of this one.
    function _refuteResult(uint32 round, uint16 group) internal returns (uint8 author) {
        // If the same result is posted again, the next round begins again on the same model.
        if (_groups[round + 1][0].participants != 0) _giveUp(round + 1);
        // Members may have prepared statements for the live attempt: it is not begun again on another model.
        _attempts[_round].attempt = _self().roundAt(_round).attempt;
        _round = round;
        _roundBeganAt = uint40(block.timestamp);
        author = _groups[round][group].closer;
        emit ResultRefuted(round, _lockedAttempt(round), group, author);
    }
}
