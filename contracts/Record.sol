// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {_bit, _lowest} from "./Bitmaps.sol";
import {IRecord} from "./IRecord.sol";

/// @title Everything that a federation keeps on chain, and the few ways in which it changes together.
/// @dev Federation.sol and Council.sol run on this one storage: the latter by delegatecall. Both inherit it, it comes first, and
/// nothing else declares storage. What never changes and only Federation.sol reads is in its code (Phases.sol). All money here is
/// bonds, deposits and rewards, each with one way out, and what was burnt, which has none.
abstract contract Record is IRecord {
    /// @dev Members that a federation may ever have: two fields of the encrypted sum carry 64, and bitmaps and loops end there.
    uint256 internal constant MAX_MEMBERS = 64;
    uint256 internal constant MIN_MEMBERS = 3;
    uint256 internal constant MAX_STRIKES = 15;

    /// @dev Three words a member. What else is said of it stands in the bitmaps.
    struct Seat {
        address account;
        uint32 weight;
        uint40 leftAt; // when it ceased to count
        bytes32 encryptionKey;
    }

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

    /// @dev What was said in one attempt before a set is locked. A receipt is kept as what it lacks, the committed updates
    /// that it leaves out: mostly none, and a zero costs nothing to store.
    struct Statements {
        bytes32 commitments;
        uint40 lastReceiptAt;
        uint64 received;
        uint64 complainers;
        uint64 complained; // whose updates somebody complained of; ends the second word
        uint64[MAX_MEMBERS] lacking;
    }

    /// @dev What was said about one group of one round. Its set is locked once for an attempt. The result is one only while the
    /// round is closed: who rolls back need not clear it. Round 0 has a model, the genesis model, and nothing else.
    struct Group {
        uint64 participants;
        uint64 opened;
        uint8 aggregator;
        uint8 closer;
        uint8 threshold; // t when the set was locked
        uint64 openers;
        uint40 closedAt; // ends the first word
        bytes32 aggregateRoot;
        bytes32 openings;
        bytes32 keySumRoot;
        bytes32 resultRoot;
        bytes32 modelDigest;
    }

    // One word, which every statement reads. Who is slashed leaves _standing when the next round begins.
    uint64 internal _standing;
    uint64 internal _slashed;
    uint40 internal _roundBeganAt; // 0 until a round begins by a statement: the first begins with the run
    uint40 internal _lastEnrolAt; // of those before the run begins
    uint32 internal _round = 1;
    uint8 internal _seatCount;

    // One word, which only the beginning of a round rewrites, and votes.
    uint64 internal _joining; // enrolled, and count from the next round on
    uint64 internal _leaving; // count no more from the next round on
    uint64 internal _admitted; // may enrol
    uint64 internal _removed; // by vote

    uint64 internal _bonded; // whose bonds are here
    uint40 internal _lastVoteAt;
    uint40 internal _lastSlashAt;
    uint40 internal _demandsUntil; // until when demands may extend the clock

    // What the constructor writes, for Council.sol.
    uint96 internal _bond;
    uint64 internal _modelSize;
    uint32 internal _challengeWindow;

    uint256 private _strikes; // four bits a member
    uint256 internal _burnt;

    mapping(address account => uint256) internal _indexPlusOne;
    mapping(uint256 index => Seat) internal _seats;
    mapping(address account => uint256) internal _rewards;

    mapping(uint32 round => Attempt) internal _attempts;
    mapping(uint32 round => mapping(uint32 attempt => Statements)) internal _statements;
    mapping(uint32 round => mapping(uint16 group => Group)) internal _groups;
    mapping(bytes32 baseModel => uint64[]) internal _abandoned; // sets

    mapping(bytes32 motion => uint64) internal _votes;
    mapping(bytes32 demand => uint256) internal _demands; // who demands, and the deadline above; for ever

    // ---------------------------------------------------------------- members

    /// @dev The sender's index; only who counts is a member, and a slashed one is not heard.
    function _memberIndex(address account) internal view returns (uint8) {
        uint256 index = _seatOf(account);
        uint64 bit = _bit(index);
        if (_slashed & bit != 0) revert FederationSlashed(uint8(index));
        if (_standing & bit == 0) revert FederationNotMember(account);
        return uint8(index);
    }

    function _seatOf(address account) internal view returns (uint256) {
        uint256 indexPlusOne = _indexPlusOne[account];
        if (indexPlusOne == 0) revert FederationNotMember(account);
        return indexPlusOne - 1;
    }

    /// @dev The next free index, at most MAX_MEMBERS - 1.
    function _seat(address account) internal {
        uint256 index = _seatCount;
        if (index == MAX_MEMBERS) revert FederationBadMemberCount(index + 1);
        _seats[index].account = account;
        _indexPlusOne[account] = index + 1;
        _seatCount = uint8(index + 1);
    }

    /// @dev The members that are heard: they count, and were never slashed.
    function _heard() internal view returns (uint256) {
        return _standing & ~_slashed;
    }

    // ---------------------------------------------------------------- rounds

    /// @dev A round begins, for the first time or again: with it, who has joined counts, and who has left or was slashed does not.
    /// Attempt numbers are never used twice, so that no (round, attempt) ever has two models or two sets.
    function _begin(uint32 round) internal {
        Attempt storage attempt = _attempts[round];
        bool again = attempt.startedAt != 0;
        uint32 number = again ? attempt.attempt + 1 : 0;
        _attempts[round] = Attempt(number, uint40(block.timestamp), 0, 0, 0, false);
        if (again) delete _groups[round][0];

        for (uint256 left = _leaving; left != 0; left &= left - 1) _seats[_lowest(left)].leftAt = uint40(block.timestamp);
        _standing = (_standing | _joining) & ~(_slashed | _leaving);
        _joining = 0;
        _leaving = 0;
        _round = round;
        _roundBeganAt = uint40(block.timestamp);
    }

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
        return _groups[round - 1][0].modelDigest;
    }

    /// @dev Groups (P6) are not open yet: the whole round is group 0.
    function _checkGroup(uint16 group) internal pure {
        if (group != 0) revert FederationBadGroup(group);
    }

    /// @dev A statement is true or false of what it rests on; on a fork that may be something else.
    function _checkBasis(bytes32 basis, bytes32 current) internal pure {
        if (basis != current) revert FederationOtherBasis(current);
    }

    // ---------------------------------------------------------------- stakes

    /// @dev Takes the bond of a member, if it is here: half is burnt (it stays here for ever), else a liar that catches itself would
    /// lose nothing; the other half waits for whoever showed it, who may be a contract that refuses it. Nothing is called. Nobody (0)
    /// is owed nothing: all is burnt.
    function _slash(uint8 index, uint32 round, uint8 rule, address challenger) internal {
        if (_bonded & ~_slashed & _bit(index) == 0) return;
        uint256 bond = _bond;
        uint256 reward = challenger == address(0) ? 0 : bond / 2;
        _slashed |= _bit(index);
        _bonded &= ~_bit(index);
        _lastSlashAt = uint40(block.timestamp);
        _burnt += bond - reward;
        if (reward != 0) _rewards[challenger] += reward;
        emit MemberSlashed(index, challenger, round, rule, bond - reward, reward);
    }

    /// @dev One strike more for each of these.
    function _strike(uint256 members) internal {
        uint256 strikes = _strikes;
        for (; members != 0; members &= members - 1) {
            uint256 index = _lowest(members);
            if (_strikesIn(strikes, index) < MAX_STRIKES) strikes += 1 << (4 * index);
        }
        _strikes = strikes;
    }

    /// @dev Its strikes were paid for.
    function _clearStrikes(uint256 index) internal {
        _strikes &= ~(15 << (4 * index));
    }

    function _strikesOf(uint256 index) internal view returns (uint256) {
        return _strikesIn(_strikes, index);
    }

    function _strikesIn(uint256 strikes, uint256 index) private pure returns (uint256) {
        return strikes >> (4 * index) & 15;
    }

    /// @dev How long a demand may be answered: an eighth of the challenge window, so that a path of eight pages fits into it.
    function _answerWindow() internal view returns (uint256) {
        return _challengeWindow < 8 ? 1 : _challengeWindow / 8;
    }
}
