// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {_bit} from "./Bitmaps.sol";
import {Commitments} from "./Commitments.sol";
import {ICouncil} from "./ICouncil.sol";
import {Verdicts} from "./Verdicts.sol";

/// @title Demands for availability (P5): a committed object whose author keeps it back is shown on chain, or falls.
/// @dev A demand is one word: who demands, and until when it may be answered. An answered or closed one has no deadline any more, but
/// is known for ever: what was shown stands in the log, so no page needs to be shown twice. Deposits wait in _rewards; nothing
/// is called. Nothing in a round asks for a demand, so none can be held up by one.
abstract contract Demands is Verdicts, Commitments {
    /// @dev A page is 64 nodes at most: a path from root to leaf is six levels a page.
    uint256 private constant PAGE_LEVELS = 6;
    uint256 private constant DEPOSIT_PART = 32;

    /// @inheritdoc ICouncil
    function demandPage(Page calldata page, Line[] calldata list) external payable returns (bytes32 demand) {
        if (msg.value != demandDeposit()) revert FederationWrongDeposit(demandDeposit(), msg.value);
        demand = _nameOf(page);
        if (_demands[demand] != 0) revert FederationAlreadyDemanded();
        _checkGroup(page.group);
        bytes32 record = _recordOf(page);
        if (record == 0) revert FederationNoStatement();
        if (record != (_isListed(page.kind) ? _listOf(page, list) : page.word)) {
            revert FederationBadEvidence("statement");
        }
        (uint256 leaves,) = _treeOf(page);
        // What only pads a tree has nothing behind it.
        if (leaves - 1 >> page.level < page.position) revert FederationBadEvidence("page");
        _checkOwed(page);

        uint256 deadline = block.timestamp + _answerWindow();
        _demands[demand] = deadline << 160 | uint160(msg.sender);
        // For as long again whoever has seen the deadline pass may close the demand.
        _demandsUntil = uint40(deadline + _answerWindow());
        emit PageDemanded(demand, msg.sender, deadline, page);
    }

    /// @inheritdoc ICouncil
    function showPage(Page calldata page, bytes32 other, bytes32[] calldata words) external {
        (bytes32 demand, address demander, uint256 deadline) = _openDemand(page);
        if (block.timestamp >= deadline) revert FederationDemandOver(deadline);
        bytes32 word = _rootOver(page, words);
        if (page.kind == Kind.Ciphertext) {
            word = _commitmentOf(
                address(this), page.round, page.attempt, _seats[page.index].account, word, other
            );
        } else if (other != 0) {
            word = 0;
        }
        if (word != page.word) revert FederationBadEvidence("words");

        _end(demand, demander, msg.sender);
        emit PageShown(demand, msg.sender, other, words);
    }

    /// @inheritdoc ICouncil
    function closeDemand(Page calldata page) external {
        (bytes32 demand, address demander, uint256 deadline) = _openDemand(page);
        if (block.timestamp < deadline) revert FederationDemandOpen(deadline);
        bytes32 record = _recordOf(page);
        // A list on record only grows. Once bonds are free, nothing falls any more.
        bool silent = record != 0 && (_isListed(page.kind) || record == page.word)
            && block.timestamp < _self().challengesEndAt();

        _end(demand, demander, demander);
        emit DemandClosed(demand, silent);
        if (!silent) return;
        if (page.kind == Kind.Aggregate) _refuteAggregate(page.round, page.group);
        else if (!_isListed(page.kind)) _refuteResult(page.round, page.group);
        _slash(page.index, page.round, 6, demander);
    }

    /// @inheritdoc ICouncil
    function demandDeposit() public view returns (uint256) {
        return _bond / DEPOSIT_PART;
    }

    /// @inheritdoc ICouncil
    function deadlineOf(bytes32 demand) external view returns (uint256) {
        return _demands[demand] >> 160;
    }

    // ---------------------------------------------------------------- demands

    function _nameOf(Page calldata page) private pure returns (bytes32) {
        return keccak256(abi.encode(page));
    }

    function _openDemand(Page calldata page)
        private
        view
        returns (bytes32 demand, address demander, uint256 deadline)
    {
        demand = _nameOf(page);
        uint256 open = _demands[demand];
        (demander, deadline) = (address(uint160(open)), open >> 160);
        if (deadline == 0) revert FederationNoDemand();
    }

    function _end(bytes32 demand, address demander, address owed) private {
        _demands[demand] = uint160(demander);
        _rewards[owed] += demandDeposit();
    }

    /// @dev Whether the author still answers for what it stated, and something would follow from its silence. Who has left keeps its
    /// objects for as long as who stays to the end. A result is answered for as long as its members look at it: with its silence a
    /// closer could else take back, at any time, all that was built on a right one.
    function _checkOwed(Page calldata page) private view {
        uint64 bit = _bit(page.index);
        uint256 end = _self().finishedAt();
        uint256 left = _standing & bit == 0 ? _seats[page.index].leftAt : 0;
        if (end == 0 || left != 0 && left < end) end = left;
        if (page.kind == Kind.KeySum || page.kind == Kind.Result) {
            uint256 closed = _groups[page.round][page.group].closedAt;
            if (end == 0 || closed < end) end = closed;
        }
        if (end != 0 && block.timestamp >= end + _challengeWindow) {
            revert FederationChallengeOver(end + _challengeWindow);
        }
        if (_isListed(page.kind) && _bonded & ~_slashed & bit == 0) revert FederationAlreadySlashed(page.index);
    }

    // ---------------------------------------------------------------- what is on record

    /// @dev Of statements that many members make, a list is on record.
    function _isListed(Kind kind) private pure returns (bool) {
        return kind == Kind.Ciphertext || kind == Kind.Opening;
    }

    /// @dev What is on record of this kind, by this author: the running digest of a list, or a root; 0 if nothing is.
    function _recordOf(Page calldata page) private view returns (bytes32) {
        (Kind kind, uint32 round) = (page.kind, page.round);
        if (kind == Kind.Ciphertext) return _commitmentsOf(round, page.attempt);
        Group storage locked = _groups[round][page.group];
        if (round > _round || page.attempt != _lockedAttempt(round)) return 0;
        if (kind == Kind.Opening) return locked.openings;
        if (kind == Kind.Aggregate) return page.index == locked.aggregator ? locked.aggregateRoot : bytes32(0);
        if (round == _round || page.index != locked.closer) return 0;
        return kind == Kind.KeySum ? locked.keySumRoot : locked.resultRoot;
    }

    /// @dev The running digest of a list that holds the page's statement; 0 if it does not.
    function _listOf(Page calldata page, Line[] calldata list) private pure returns (bytes32 digest) {
        bool holds = false;
        for (uint256 i = 0; i < list.length; i++) {
            (uint8 index, bytes32 word) = (list[i].index, list[i].word);
            if (index == page.index && word == page.word) holds = true;
            digest = _appended(digest, index, word);
        }
        if (!holds) return 0;
    }

    // ---------------------------------------------------------------- pages

    /// @dev The leaves and the depth of the tree that a page is of; a page above its root is refused.
    function _treeOf(Page calldata page) private view returns (uint256 leaves, uint256 depth) {
        leaves = page.kind == Kind.Opening || page.kind == Kind.KeySum ? KEY_LEAVES : _leavesOf(_modelSize);
        depth = _depthOf(leaves);
        if (page.level > depth) revert FederationBadEvidence("page");
    }

    /// @dev The root that a page's words belong to.
    function _rootOver(Page calldata page, bytes32[] calldata words) private view returns (bytes32) {
        (, uint256 depth) = _treeOf(page);
        uint256 level = page.level;
        uint256 count = level == 0 ? LEAF_WORDS : 1 << (level < PAGE_LEVELS ? level : PAGE_LEVELS);
        if (words.length != count + depth - level) revert FederationBadEvidence("words");
        bytes32 node;
        if (level == 0) {
            node = _leafOf(words, 0);
        } else {
            uint256 nodes;
            assembly ("memory-safe") {
                nodes := mload(0x40)
                mstore(0x40, add(nodes, shl(5, count)))
                calldatacopy(nodes, words.offset, shl(5, count))
            }
            node = _topOf(nodes, 32 * count);
        }
        return _climb(node, words, count, page.position, depth - level);
    }
}
