// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {_bit} from "./Bitmaps.sol";
import {IFederation} from "./IFederation.sol";
import {Phases} from "./Phases.sol";

/// @title Who takes part, and what each has at stake: founders, enrolment, leaving, keys, bonds, rewards.
/// @dev Who else may join, and who must go, members decide by vote (Votes.sol).
abstract contract Members is Phases {
    constructor(Terms memory terms_, address[] memory founders) Phases(terms_, _seated(founders)) {
        emit FederationFounded(terms_, founders);
    }

    /// @inheritdoc IFederation
    function enrol(bytes32 encryptionKey, uint32 weight) external payable {
        uint256 index = _seatOf(msg.sender);
        uint64 bit = _bit(index);
        if (_slashed & bit != 0) revert FederationSlashed(uint8(index));
        Phase phase = phaseOf(_round);
        if (phase == Phase.Finished) revert FederationWrongPhase(phase);
        if (_bonded & bit != 0) revert FederationAlreadyEnrolled(msg.sender);
        if (phase != Phase.Enrolling && _admitted & bit == 0) revert FederationNotAdmitted();
        if (msg.value != _bond) revert FederationWrongBond(_bond, msg.value);
        if (encryptionKey == 0) revert FederationBadEncryptionKey();
        if (weight == 0) revert FederationBadWeight();

        _seats[index].weight = weight;
        _seats[index].encryptionKey = encryptionKey;
        _bonded |= bit;
        if (phase == Phase.Enrolling) {
            _standing |= bit;
            _lastEnrolAt = uint40(block.timestamp);
        } else {
            _joining |= bit;
            _admitted &= ~bit;
            _removed &= ~bit;
        }
        emit MemberEnrolled(uint8(index), msg.sender, encryptionKey, weight);
    }

    /// @inheritdoc IFederation
    function resign() external {
        uint8 index = _memberOfARunThatGoesOn();
        if (_leaving & _bit(index) != 0) revert FederationAlreadyLeaving();
        _leaving |= _bit(index);
        emit MemberLeaving(index, false);
    }

    /// @inheritdoc IFederation
    function rotateKey(bytes32 encryptionKey) external {
        uint8 index = _memberOfARunThatGoesOn();
        if (encryptionKey == 0) revert FederationBadEncryptionKey();
        _seats[index].encryptionKey = encryptionKey;
        emit EncryptionKeyRotated(index, encryptionKey);
    }

    /// @inheritdoc IFederation
    function withdrawBond() external {
        uint256 index = _seatOf(msg.sender);
        uint64 bit = _bit(index);
        if (_bonded & bit == 0) revert FederationNothingToWithdraw();
        uint256 until = bondFreeAt(uint8(index));
        if (block.timestamp < until) revert FederationBondLocked(until);

        _bonded &= ~bit;
        _joining &= ~bit;
        if (_roundBegan() == 0) {
            // Nobody may take part without a stake: who leaves before the run begins is a founder again, no more.
            _standing &= ~bit;
            delete _seats[index].weight;
            delete _seats[index].encryptionKey;
        }
        uint256 bond = _bond;
        uint256 lost = bond * _strikesOf(index) / 64;
        _clearStrikes(index);
        _burnt += lost;
        emit BondWithdrawn(uint8(index), bond - lost);
        _pay(msg.sender, bond - lost);
    }

    /// @inheritdoc IFederation
    function withdrawReward() external {
        uint256 amount = _rewards[msg.sender];
        if (amount == 0) revert FederationNothingToWithdraw();
        delete _rewards[msg.sender];
        emit RewardWithdrawn(msg.sender, amount);
        _pay(msg.sender, amount);
    }

    /// @inheritdoc IFederation
    function memberCount() external view returns (uint256) {
        return _seatCount;
    }

    /// @inheritdoc IFederation
    function memberAt(uint8 index) external view returns (Member memory) {
        Seat storage seat = _seats[index];
        uint256 bit = index < MAX_MEMBERS ? _bit(index) : 0;
        bool counts = _standing & bit != 0;
        return Member({
            account: seat.account,
            encryptionKey: seat.encryptionKey,
            weight: seat.weight,
            standing: counts,
            bonded: _bonded & bit != 0,
            slashed: _slashed & bit != 0,
            strikes: bit == 0 ? 0 : uint8(_strikesOf(index)),
            leftAt: counts ? 0 : seat.leftAt
        });
    }

    /// @inheritdoc IFederation
    function standing() external view returns (uint128) {
        return _standing;
    }

    /// @inheritdoc IFederation
    function slashed() external view returns (uint128) {
        return _slashed;
    }

    /// @inheritdoc IFederation
    function bonded() external view returns (uint128) {
        return _bonded;
    }

    /// @inheritdoc IFederation
    function leaving() external view returns (uint128) {
        return _leaving;
    }

    /// @inheritdoc IFederation
    function burnt() external view returns (uint256) {
        return _burnt;
    }

    /// @inheritdoc IFederation
    function rewardOf(address account) external view returns (uint256) {
        return _rewards[account];
    }

    /// @inheritdoc IFederation
    function bondFreeAt(uint8 index) public view returns (uint256) {
        if (_roundBegan() == 0) return _foundedAt + _enrolWindow + _challengeWindow;
        uint256 end = challengesEndAt();
        uint64 bit = index < MAX_MEMBERS ? _bit(index) : 0;
        if (_standing & bit != 0) return end;
        if (_joining & bit != 0) return 0; // it has stated nothing yet
        uint256 gone = _extended(uint256(_seats[index].leftAt) + _challengeWindow);
        return gone < end ? gone : end;
    }

    /// @dev The sender's index, where it may still arrange how it takes part.
    function _memberOfARunThatGoesOn() private view returns (uint8 index) {
        index = _memberIndex(msg.sender);
        Phase phase = phaseOf(_round);
        if (phase == Phase.Enrolling || phase == Phase.Finished) revert FederationWrongPhase(phase);
    }

    function _pay(address account, uint256 amount) private {
        (bool sent,) = account.call{value: amount}("");
        if (!sent) revert FederationTransferFailed();
    }

    /// @dev Gives the founders their seats; how many there are.
    function _seated(address[] memory founders) private returns (uint256 count) {
        count = founders.length;
        if (count < MIN_MEMBERS || count > MAX_MEMBERS) revert FederationBadMemberCount(count);
        for (uint256 i = 0; i < count; i++) {
            address founder = founders[i];
            if (founder == address(0)) revert FederationZeroMember(i);
            if (_indexPlusOne[founder] != 0) revert FederationDuplicateMember(founder);
            _seat(founder);
        }
    }
}
