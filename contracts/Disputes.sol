// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFederation} from "./IFederation.sol";
import {Judge} from "./Judge.sol";
import {Rounds} from "./Rounds.sol";

/// @title Challenges (R1–R5): whoever posted a wrong number loses its bond to whoever proves it.
/// @dev Judge.sol says which digests the evidence belongs to, and whether the statement is faulty. Here those digests are compared
/// with the record, and the verdict is carried out. Every challenge: 1. bonds are held; 2. there is a statement; 3. the evidence is about
/// it; 4. it is faulty; 5. what follows from it falls; 6. its author is slashed, if it has a bond left.
abstract contract Disputes is Rounds {
    Judge private immutable _judge;

    constructor() {
        _judge = new Judge();
    }

    /// @inheritdoc IFederation
    function challengeAggregate(
        uint32 round,
        uint16 group,
        uint64 leaf,
        Line[] calldata commits,
        bytes32[] calldata proofs
    ) external {
        _checkBondsHeld();
        Group storage locked = _lockedGroup(round, group);
        if (locked.aggregateRoot == 0) revert FederationNoStatement();
        Judge.Place memory place = _placeOf(round, _lockedAttempt(round), locked.participants);
        Judge.Finding memory found = _judge.aggregate(place, leaf, commits, proofs);
        if (found.claim != locked.aggregateRoot) revert FederationBadEvidence("aggregate");
        if (found.list != _commitmentsOf(round, place.attempt)) revert FederationBadEvidence("commitments");
        if (!found.faulty) revert FederationHonest();

        uint8 liar = locked.aggregator;
        delete locked.aggregateRoot;
        emit AggregateRefuted(round, place.attempt, group, liar);
        _punish(liar, round, 1);
    }

    /// @inheritdoc IFederation
    function challengeKeySum(
        uint32 round,
        uint16 group,
        uint64 leaf,
        Line[] calldata openings,
        bytes32[] calldata proofs
    ) external {
        _checkBondsHeld();
        Group storage locked = _closedGroup(round, group);
        Judge.Finding memory found = _judge.keySum(locked.openers, leaf, openings, proofs);
        if (found.claim != locked.keySumRoot) revert FederationBadEvidence("key sum");
        if (found.list != locked.openings) revert FederationBadEvidence("openings");
        if (!found.faulty) revert FederationHonest();
        _refuteResult(round, group, locked.closer, 2);
    }

    /// @inheritdoc IFederation
    function challengeResult(
        uint32 round,
        uint16 group,
        uint64 coefficient,
        bytes calldata keySum,
        Line[] calldata commits,
        bytes32[] calldata proofs
    ) external {
        _checkBondsHeld();
        Group storage locked = _closedGroup(round, group);
        Judge.Place memory place = _placeOf(round, _lockedAttempt(round), locked.participants);
        place.baseModel = _modelBefore(round);
        Judge.Finding memory found = _judge.result(place, coefficient, keySum, commits, proofs);
        if (found.keySum != locked.keySumRoot) revert FederationBadEvidence("key sum");
        if (found.claim != locked.resultRoot) revert FederationBadEvidence("result");
        if (found.list != _commitmentsOf(round, place.attempt)) revert FederationBadEvidence("commitments");
        if (!found.faulty) revert FederationHonest();
        _refuteResult(round, group, locked.closer, 3);
    }

    /// @inheritdoc IFederation
    function challengeResidue(
        uint32 round,
        uint32 attempt,
        uint8 index,
        uint64 leaf,
        Line[] calldata commits,
        bytes32[] calldata proof
    ) external {
        _checkBondsHeld();
        bytes32 list = _commitmentsOf(round, attempt);
        if (list == 0 || index >= _founderCount) revert FederationNoStatement();
        if (slashed() & _bit(index) != 0) revert FederationAlreadySlashed(index);
        Judge.Place memory place = _placeOf(round, attempt, _bit(index));
        Judge.Finding memory found = _judge.residue(place, leaf, commits, proof);
        if (found.list != list) revert FederationBadEvidence("commitments");
        if (!found.faulty) revert FederationHonest();
        _punish(index, round, 4);
    }

    /// @inheritdoc IFederation
    function challengeEquivocation(
        OpeningStatement calldata first,
        bytes calldata firstSignature,
        OpeningStatement calldata second,
        bytes calldata secondSignature
    ) external {
        _checkBondsHeld();
        (address signer, bool faulty) =
            _judge.equivocation(address(this), first, firstSignature, second, secondSignature);
        if (signer == address(0)) revert FederationBadEvidence("signature");
        uint256 index = _founderIndex(signer);
        if (enrolled() & _bit(index) == 0) revert FederationNotMember(signer);
        if (slashed() & _bit(index) != 0) revert FederationAlreadySlashed(uint8(index));
        if (!faulty) revert FederationHonest();
        _punish(uint8(index), first.round, 5);
    }

    /// @inheritdoc IFederation
    function judge() external view returns (address) {
        return address(_judge);
    }

    /// @dev The record of a round that is closed, and so holds a result.
    function _closedGroup(uint32 round, uint16 group) private view returns (Group storage locked) {
        locked = _lockedGroup(round, group);
        if (round >= currentRound()) revert FederationNoStatement();
    }

    /// @dev Where these members' commitments were made. The loop ends at MAX_MEMBERS.
    function _placeOf(uint32 round, uint32 attempt, uint64 participants)
        private
        view
        returns (Judge.Place memory place)
    {
        place.federation = address(this);
        place.round = round;
        place.attempt = attempt;
        place.participants = participants;
        place.modelSize = _modelSize;
        place.accounts = new address[](_founderCount);
        for (uint256 i = 0; i < _founderCount; i++) {
            if (participants & _bit(i) != 0) place.accounts[i] = _accountOf(i);
        }
    }

    function _refuteResult(uint32 round, uint16 group, uint8 liar, uint8 rule) private {
        _rollBack(round);
        emit ResultRefuted(round, _lockedAttempt(round), group, liar);
        _punish(liar, round, rule);
    }

    /// @dev A statement falls even where its author has no bond left.
    function _punish(uint8 index, uint32 round, uint8 rule) private {
        if (slashed() & _bit(index) == 0) _slash(index, round, rule);
    }
}
