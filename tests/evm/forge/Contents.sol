// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {vm} from "./Cheats.sol";
import {Company} from "./Company.sol";
import {Numbers} from "./Numbers.sol";

/// @title What members stated, truly or not: a memory from which anything can be made that follows from it.
abstract contract Contents is Company {
    /// @dev What is wrong with a statement.
    enum Flaw {
        None,
        Noise, // of an update: it decodes to nothing
        Residue, // of an update: q too high, the same sum mod q
        Absent, // a root with nothing behind it
        Wrong, // a number is one too high
        Key, // of a result: its key sum is one too high
        Model // of a result: the model does not follow from it
    }

    bytes32 internal constant CID = "cid";
    uint256 private constant MUCH_NOISE = 400; // its square is beyond 2100 a participant, of up to 12; twice and thrice it too

    // By place, that is (round, attempt).
    mapping(bytes32 place => uint8[]) internal _committers; // in their order
    mapping(bytes32 place => mapping(uint256 index => Flaw)) internal _updateFlaw;
    mapping(bytes32 place => Flaw) internal _sumFlaw;
    mapping(bytes32 place => uint256) internal _thresholdOf; // when the set was locked
    mapping(bytes32 place => uint8[]) internal _openers; // in their order
    mapping(bytes32 place => mapping(uint256 index => Flaw)) internal _openingFlaw;
    mapping(bytes32 place => Flaw) internal _resultFlaw;

    // ---------------------------------------------------------------- contents

    function _plain(uint32 round, uint32 attempt, uint256 index) private pure returns (uint256) {
        return 1000 + 7 * index + 100 * uint256(round) + attempt % 50;
    }

    /// @dev The number that fills a member's ciphertext.
    function _residueOf(uint32 round, uint32 attempt, uint256 index) internal view returns (uint256 residue) {
        Flaw flaw = _updateFlaw[_place(round, attempt)][index];
        residue = Numbers.DELTA * _plain(round, attempt, index);
        if (flaw == Flaw.Residue) residue += Numbers.Q;
        if (flaw == Flaw.Noise) residue += MUCH_NOISE;
    }

    function _sharesRootOf(uint32 round, uint32 attempt, uint256 index) internal pure returns (bytes32) {
        return keccak256(abi.encode("shares", round, attempt, index));
    }

    function _commitmentOf(uint32 round, uint32 attempt, uint256 index) internal view returns (bytes32) {
        bool absent = _updateFlaw[_place(round, attempt)][index] == Flaw.Absent;
        return keccak256(
            abi.encode(
                bytes32("fedchain update v1"),
                block.chainid,
                address(_federation),
                round,
                attempt,
                _accountOf(index),
                absent ? _nothing(round, attempt) : Numbers.root(_residueOf(round, attempt, index), _depth),
                _sharesRootOf(round, attempt, index)
            )
        );
    }

    /// @dev A root with nothing behind it.
    function _nothing(uint32 round, uint32 attempt) internal pure returns (bytes32) {
        return keccak256(abi.encode("nothing", round, attempt));
    }

    /// @dev The number that fills the sum of these members' updates, as it should be.
    function _trueSum(uint32 round, uint32 attempt, uint256 participants) internal view returns (uint256 sum) {
        for (uint256 i = 0; i < 64; i++) {
            if (_holds(participants, i)) sum += _residueOf(round, attempt, i) % Numbers.Q;
        }
        return sum % Numbers.Q;
    }

    function _sumOf(uint32 round, uint32 attempt, uint256 participants) internal view returns (uint256) {
        return _trueSum(round, attempt, participants) + (_sumFlaw[_place(round, attempt)] == Flaw.Wrong ? 1 : 0);
    }

    /// @dev The number that fills an opening.
    function _elementOf(Flaw flaw) internal pure returns (uint256) {
        return flaw == Flaw.Wrong ? 1 : 0;
    }

    /// @dev The number that fills the key sum of a result.
    function _keySumOf(Flaw flaw) internal pure returns (uint256) {
        return flaw == Flaw.Key ? 1 : 0;
    }

    function _resultOf(uint32 round, uint32 attempt, uint256 participants) internal view returns (uint256 result) {
        for (uint256 i = 0; i < 64; i++) if (_holds(participants, i)) result += _plain(round, attempt, i);
        if (_resultFlaw[_place(round, attempt)] == Flaw.Wrong) result++;
    }

    /// @dev Of these members, those whose statement has this flaw.
    function _flawed(mapping(uint256 => Flaw) storage flawOf, uint256 members, Flaw flaw)
        internal
        view
        returns (uint256 found)
    {
        for (uint256 i = 0; i < 64; i++) if (_holds(members, i) && flawOf[i] == flaw) found |= 1 << i;
    }

    function _basis(uint32 round, uint32 attempt) internal view returns (bytes32) {
        return _federation.commitmentsOf(round, attempt);
    }

    function _sumRoot(uint32 round, uint32 attempt, uint256 participants) internal view returns (bytes32) {
        if (_sumFlaw[_place(round, attempt)] == Flaw.Absent) return _nothing(round, attempt);
        return Numbers.root(_sumOf(round, attempt, participants), _depth);
    }

    function _openingRoot(uint32 round, uint32 attempt, Flaw flaw) internal pure returns (bytes32) {
        if (flaw == Flaw.Absent) return _nothing(round, attempt);
        return Numbers.root(_elementOf(flaw), Numbers.KEY_DEPTH);
    }

    function _resultRoots(uint32 round, uint32 attempt, uint256 participants)
        internal
        view
        returns (bytes32 keySum, bytes32 result)
    {
        Flaw flaw = _resultFlaw[_place(round, attempt)];
        if (flaw == Flaw.Absent) return (_nothing(round, attempt), _nothing(round, attempt));
        keySum = Numbers.root(_keySumOf(flaw), Numbers.KEY_DEPTH);
        result = Numbers.root(_resultOf(round, attempt, participants), _depth);
    }

    /// @dev A digest that stands for the model which follows from a result; each lie has its own.
    function _modelOf(uint32 round, uint32 attempt, Flaw flaw) internal pure returns (bytes32) {
        return keccak256(abi.encode("model", round, attempt, flaw));
    }

    // ---------------------------------------------------------------- signatures (EIP-712, EIP-2098)

    function _sign(uint256 index, bytes32 structure) internal returns (Signature memory) {
        (bytes32 r, bytes32 vs) = vm.signCompact(_keyOf[_accountOf(index)], _digest(structure));
        return Signature(r, vs);
    }

    function _digest(bytes32 structure) internal view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256("fedchain"),
                keccak256("1"),
                block.chainid,
                address(_federation)
            )
        );
        return keccak256(abi.encodePacked(hex"1901", domain, structure));
    }

    function _updateStructure(RoundView memory live, SignedUpdate memory line) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("Update(uint32 round,uint32 attempt,bytes32 commitment,bytes32 ciphertextCid,bytes32 sharesCid)"),
                live.round,
                live.attempt,
                line.commitment,
                line.ciphertextCid,
                line.sharesCid
            )
        );
    }

    function _receiptStructure(RoundView memory live, uint128 whole) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256("Receipt(uint32 round,uint32 attempt,uint128 whole)"), live.round, live.attempt, whole
            )
        );
    }

    function _openingStructure(OpeningStatement memory said) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                keccak256(
                    "Opening(uint32 round,uint32 attempt,uint16 group,uint128 participants,bytes32 root,bytes32 cid)"
                ),
                said
            )
        );
    }
}
