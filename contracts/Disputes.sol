// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {_bit} from "./Bitmaps.sol";
import {ICouncil} from "./ICouncil.sol";
import {Judge} from "./Judge.sol";
import {Verdicts} from "./Verdicts.sol";

/// @title Challenges (R1–R5): whoever posted a wrong number loses its bond to whoever proves it.
/// @dev Judge.sol says which digests the evidence belongs to, and whether the statement is faulty. Here those digests are compared
/// with the record, and the verdict is carried out. Every challenge: 1. bonds are held; 2. there is a statement; 3. the evidence is about
/// it; 4. it is faulty; 5. what follows from it falls; 6. its author is slashed, if it has a bond left.
abstract contract Disputes is Verdicts, Judge {
    /// @inheritdoc ICouncil
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
        Place memory place = _placeOf(round, _lockedAttempt(round), locked.participants);
        Finding memory found = judgeAggregate(place, leaf, commits, proofs);
        if (found.claim != locked.aggregateRoot) revert FederationBadEvidence("aggregate");
        if (found.list != _commitmentsOf(round, place.attempt)) revert FederationBadEvidence("commitments");
        if (!found.faulty) revert FederationHonest();

        _slash(_refuteAggregate(round, group), round, 1, msg.sender);
    }

    /// @inheritdoc ICouncil
    function challengeKeySum(
        uint32 round,
        uint16 group,
        uint64 leaf,
        Line[] calldata openings,
        bytes32[] calldata proofs
    ) external {
        _checkBondsHeld();
        Group storage locked = _closedGroup(round, group);
        Finding memory found = judgeKeySum(locked.openers, leaf, openings, proofs);
        if (found.claim != locked.keySumRoot) revert FederationBadEvidence("key sum");
        if (found.list != locked.openings) revert FederationBadEvidence("openings");
        if (!found.faulty) revert FederationHonest();
        _slash(_refuteResult(round, group), round, 2, msg.sender);
    }

    /// @inheritdoc ICouncil
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
        Place memory place = _placeOf(round, _lockedAttempt(round), locked.participants);
        place.baseModel = _modelBefore(round);
        Finding memory found = judgeResult(place, coefficient, keySum, commits, proofs);
        if (found.keySum != locked.keySumRoot) revert FederationBadEvidence("key sum");
        if (found.claim != locked.resultRoot) revert FederationBadEvidence("result");
        if (found.list != _commitmentsOf(round, place.attempt)) revert FederationBadEvidence("commitments");
        if (!found.faulty) revert FederationHonest();
        _slash(_refuteResult(round, group), round, 3, msg.sender);
    }

    /// @inheritdoc ICouncil
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
        if (list == 0 || index >= _seatCount) revert FederationNoStatement();
        if (_bonded & _bit(index) == 0) revert FederationAlreadySlashed(index);
        Place memory place = _placeOf(round, attempt, _bit(index));
        Finding memory found = judgeResidue(place, leaf, commits, proof);
        if (found.list != list) revert FederationBadEvidence("commitments");
        if (!found.faulty) revert FederationHonest();
        _slash(index, round, 4, msg.sender);
    }

    /// @inheritdoc ICouncil
    function challengeEquivocation(
        OpeningStatement calldata first,
        bytes calldata firstSignature,
        OpeningStatement calldata second,
        bytes calldata secondSignature
    ) external {
        _checkBondsHeld();
        (address signer, bool faulty) =
            judgeEquivocation(address(this), first, firstSignature, second, secondSignature);
        if (signer == address(0)) revert FederationBadEvidence("signature");
        uint256 index = _seatOf(signer);
        if (_bonded & _bit(index) == 0) revert FederationAlreadySlashed(uint8(index));
        if (!faulty) revert FederationHonest();
        _slash(uint8(index), first.round, 5, msg.sender);
    }

    /// @inheritdoc ICouncil
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

    /// @dev Where these members' commitments were made. The loop ends at MAX_MEMBERS.
    function _placeOf(uint32 round, uint32 attempt, uint64 participants)
        private
        view
        returns (Place memory place)
    {
        place.federation = address(this);
        place.round = round;
        place.attempt = attempt;
        place.participants = participants;
        place.modelSize = _modelSize;
        place.accounts = new address[](_seatCount);
        for (uint256 i = 0; i < place.accounts.length; i++) {
            if (participants & _bit(i) != 0) place.accounts[i] = _seats[i].account;
        }
    }
}
