// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFederation} from "./IFederation.sol";

/// @title Who takes part, and what each has at stake: founders, enrolment, bonds, slashing, rewards.
/// @dev The terms live in the code (immutables), so that reading them costs no storage access. What a round may do with a
/// member is for Rounds.sol; this contract asks it two things only: the phase, and when bonds are free. All money that it holds
/// is bonds and rewards, each with one way out, and what was burnt, which has none.
abstract contract Membership is IFederation {
    /// @dev Founders a federation may have: two fields of the encrypted sum carry 64 members, and bitmaps and loops end there.
    uint256 internal constant MAX_MEMBERS = 64;
    uint256 internal constant MIN_MEMBERS = 3;
    /// @dev Beyond any model, and what 32 bits can count polynomials of. Twin: MAX_PARAMETERS.
    uint256 private constant MAX_MODEL_SIZE = 2 ** 40;

    bytes32 private immutable _charterDigest;
    bytes32 private immutable _charterCid;
    bytes32 internal immutable _genesisDigest;
    bytes32 private immutable _genesisCid;
    uint64 internal immutable _modelSize;
    uint96 private immutable _bond;

    uint256 internal immutable _rounds;
    uint256 internal immutable _threshold;
    uint256 internal immutable _enrolWindow;
    uint256 internal immutable _trainingWindow;
    uint256 internal immutable _receiptWindow;
    uint256 internal immutable _aggregateWindow;
    uint256 internal immutable _challengeWindow;
    uint256 internal immutable _founderCount;
    uint256 internal immutable _foundedAt;

    /// @dev Two words a founder; whether it is enrolled, or has its bond back, stands in the bitmaps.
    struct Founder {
        address account;
        uint32 weight;
        bytes32 encryptionKey;
    }

    mapping(address account => uint256) private _indexPlusOne;
    mapping(uint256 index => Founder) private _founders;
    mapping(address account => uint256) private _rewards;

    uint64 private _withdrawn;
    uint40 private _lastSlashAt;
    uint152 private _burnt;

    // Last here, so that the first words of Rounds.sol share their slot: every statement reads them together. Who is enrolled is
    // in the one or the other: a slashed member leaves _standing when the next round begins.
    uint64 private _standing;
    uint64 private _slashed;
    uint40 private _lastEnrolAt;

    constructor(Terms memory terms_, address[] memory founders) {
        uint256 count = founders.length;
        if (count < MIN_MEMBERS || count > MAX_MEMBERS) revert FederationBadMemberCount(count);
        for (uint256 i = 0; i < count; i++) {
            address founder = founders[i];
            if (founder == address(0)) revert FederationZeroMember(i);
            if (_indexPlusOne[founder] != 0) revert FederationDuplicateMember(founder);
            _indexPlusOne[founder] = i + 1;
            _founders[i].account = founder;
        }
        uint256 least = count / 2 + 1;
        if (terms_.threshold < least || terms_.threshold > count - 1) {
            revert FederationBadThreshold(terms_.threshold, least, count - 1);
        }
        if (terms_.charterDigest == 0) revert FederationBadTerms("charterDigest");
        if (terms_.charterCid == 0) revert FederationBadTerms("charterCid");
        if (terms_.genesisDigest == 0) revert FederationBadTerms("genesisDigest");
        if (terms_.genesisCid == 0) revert FederationBadTerms("genesisCid");
        if (terms_.modelSize == 0 || terms_.modelSize > MAX_MODEL_SIZE) revert FederationBadTerms("modelSize");
        // The round after the last one has a number too.
        if (terms_.rounds == 0 || terms_.rounds == type(uint32).max) revert FederationBadTerms("rounds");
        if (terms_.enrolWindow == 0) revert FederationBadTerms("enrolWindow");
        if (terms_.trainingWindow == 0) revert FederationBadTerms("trainingWindow");
        if (terms_.receiptWindow == 0) revert FederationBadTerms("receiptWindow");
        if (terms_.aggregateWindow == 0) revert FederationBadTerms("aggregateWindow");

        _charterDigest = terms_.charterDigest;
        _charterCid = terms_.charterCid;
        _genesisDigest = terms_.genesisDigest;
        _genesisCid = terms_.genesisCid;
        _modelSize = terms_.modelSize;
        _bond = terms_.bond;
        _rounds = terms_.rounds;
        _threshold = terms_.threshold;
        _enrolWindow = terms_.enrolWindow;
        _trainingWindow = terms_.trainingWindow;
        _receiptWindow = terms_.receiptWindow;
        _aggregateWindow = terms_.aggregateWindow;
        _challengeWindow = terms_.challengeWindow;
        _founderCount = count;
        _foundedAt = block.timestamp;
        emit FederationFounded(terms_, founders);
    }

    /// @inheritdoc IFederation
    function enrol(bytes32 encryptionKey, uint32 weight) external payable {
        uint256 index = _founderIndex(msg.sender);
        Phase phase = phaseOf(currentRound());
        if (phase != Phase.Enrolling) revert FederationWrongPhase(phase);
        if (_standing & _bit(index) != 0) revert FederationAlreadyEnrolled(msg.sender);
        if (msg.value != _bond) revert FederationWrongBond(_bond, msg.value);
        if (encryptionKey == 0) revert FederationBadEncryptionKey();
        if (weight == 0) revert FederationBadWeight();

        _founders[index].weight = weight;
        _founders[index].encryptionKey = encryptionKey;
        _standing |= _bit(index);
        _lastEnrolAt = uint40(block.timestamp);
        emit MemberEnrolled(uint8(index), msg.sender, encryptionKey, weight);
    }

    /// @inheritdoc IFederation
    function withdrawBond() external {
        uint256 index = _founderIndex(msg.sender);
        uint64 bit = _bit(index);
        if (enrolled() & ~(_withdrawn | _slashed) & bit == 0) revert FederationNothingToWithdraw();
        uint256 until = _bondFreeAt();
        if (block.timestamp < until) revert FederationBondLocked(until);

        if (phaseOf(currentRound()) == Phase.Enrolling) {
            // Nobody may take part without a stake: who leaves before the run begins is a founder again, no more.
            _standing &= ~bit;
            delete _founders[index].weight;
            delete _founders[index].encryptionKey;
        } else {
            _withdrawn |= bit;
        }
        emit BondWithdrawn(uint8(index), _bond);
        _pay(msg.sender, _bond);
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
            challengeWindow: uint32(_challengeWindow),
            bond: _bond
        });
    }

    /// @inheritdoc IFederation
    function memberCount() external view returns (uint256) {
        return _founderCount;
    }

    /// @inheritdoc IFederation
    function memberAt(uint8 index) external view returns (Member memory) {
        Founder storage founder = _founders[index];
        return Member({
            account: founder.account,
            encryptionKey: founder.encryptionKey,
            weight: founder.weight,
            enrolled: index < _founderCount && enrolled() & _bit(index) != 0,
            withdrawn: index < _founderCount && _withdrawn & _bit(index) != 0,
            slashed: index < _founderCount && _slashed & _bit(index) != 0
        });
    }

    /// @inheritdoc IFederation
    function enrolled() public view returns (uint128) {
        return _standing | _slashed;
    }

    /// @inheritdoc IFederation
    function standing() public view returns (uint128) {
        return _standing;
    }

    /// @inheritdoc IFederation
    function slashed() public view returns (uint128) {
        return _slashed;
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
    function minParticipants() public view returns (uint256) {
        return _threshold + 1 < MIN_MEMBERS ? MIN_MEMBERS : _threshold + 1;
    }

    /// @inheritdoc IFederation
    function currentRound() public view virtual returns (uint32);

    /// @inheritdoc IFederation
    function phaseOf(uint32 round) public view virtual returns (Phase);

    /// @dev When bonds are free; the largest number while nobody can know.
    function _bondFreeAt() internal view virtual returns (uint256);

    function _lastEnrolment() internal view returns (uint256) {
        return _lastEnrolAt;
    }

    function _lastSlash() internal view returns (uint256) {
        return _lastSlashAt;
    }

    /// @dev The members that are heard: enrolled, and never slashed.
    function _heard() internal view returns (uint256) {
        return _standing & ~_slashed;
    }

    /// @dev A round begins: who was slashed before does not count in it.
    function _settle() internal {
        _standing &= ~_slashed;
    }

    /// @dev Takes the bond of a member that is not slashed yet: half is burnt (it stays here for ever), else a liar that catches itself
    /// would lose nothing; the other half waits for the challenger, who may be a contract that refuses it. Nothing is called.
    function _slash(uint8 index, uint32 round, uint8 rule) internal {
        uint256 reward = _bond / 2;
        _slashed |= _bit(index);
        _lastSlashAt = uint40(block.timestamp);
        _burnt += uint152(_bond - reward);
        _rewards[msg.sender] += reward;
        emit MemberSlashed(index, msg.sender, round, rule, _bond - reward, reward);
    }

    function _pay(address account, uint256 amount) private {
        (bool sent,) = account.call{value: amount}("");
        if (!sent) revert FederationTransferFailed();
    }

    /// @dev The sender's index; only a founder that has enrolled is a member, and a slashed one is not heard.
    function _memberIndex(address account) internal view returns (uint8) {
        uint256 index = _founderIndex(account);
        uint64 bit = _bit(index);
        if (_slashed & bit != 0) revert FederationSlashed(uint8(index));
        if (_standing & bit == 0) revert FederationNotMember(account);
        return uint8(index);
    }

    function _accountOf(uint256 index) internal view returns (address) {
        return _founders[index].account;
    }

    function _founderIndex(address account) internal view returns (uint256) {
        uint256 indexPlusOne = _indexPlusOne[account];
        if (indexPlusOne == 0) revert FederationNotMember(account);
        return indexPlusOne - 1;
    }

    /// @dev The bit that member `index` (less than MAX_MEMBERS) owns in every bitmap.
    function _bit(uint256 index) internal pure returns (uint64) {
        return uint64(1 << index);
    }

    /// @dev How many members a bitmap holds. Twin: size_of(). Adds neighbouring bits in parallel; at most 128 may be set.
    function _sizeOf(uint256 bitmap) internal pure returns (uint256) {
        unchecked {
            bitmap -= (bitmap >> 1) & 0x5555555555555555555555555555555555555555555555555555555555555555;
            bitmap = (bitmap & 0x3333333333333333333333333333333333333333333333333333333333333333)
                + ((bitmap >> 2) & 0x3333333333333333333333333333333333333333333333333333333333333333);
            bitmap = (bitmap + (bitmap >> 4)) & 0x0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f;
            return (bitmap * 0x0101010101010101010101010101010101010101010101010101010101010101) >> 248;
        }
    }
}
