// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title Objects that members commit to, in the smallest form that is judged as real ones are (docs/crypto.md).
/// @notice Every number of an object is the same, so that all nodes of a level of its tree are one. All one-time keys are 0: a
/// ciphertext is Δ·m, every opening and every key sum is 0, and a result is the sum of all m.
library Numbers {
    uint256 internal constant Q = 17627370416504833;
    uint256 internal constant DELTA = 1002;
    uint256 internal constant KEY_DEPTH = 5;

    /// @dev Four times the number, eight bytes each, little-endian.
    function word(uint256 number) internal pure returns (bytes32) {
        uint256 turned = 0;
        for (uint256 i = 0; i < 8; i++) turned |= (number >> (8 * i) & 255) << (56 - 8 * i);
        return bytes32(turned | turned << 64 | turned << 128 | turned << 192);
    }

    /// @dev The hash of each node of the tree's lowest `height + 1` levels; last the one above them all.
    function nodes(uint256 number, uint256 height) internal pure returns (bytes32[] memory hashes) {
        bytes32 w = word(number);
        bytes memory leaf = abi.encodePacked(bytes1(0), w, w, w, w, w, w, w, w);
        hashes = new bytes32[](height + 1);
        hashes[0] = sha256(abi.encodePacked(leaf, w, w, w, w, w, w, w, w));
        for (uint256 i = 1; i <= height; i++) {
            hashes[i] = sha256(abi.encodePacked(bytes1(0x01), hashes[i - 1], hashes[i - 1]));
        }
    }

    function root(uint256 number, uint256 depth) internal pure returns (bytes32) {
        return nodes(number, depth)[depth];
    }

    /// @dev What shows a node `level` levels above the leaves: the nodes six levels below it (of a leaf its words), and its siblings.
    /// With level 0 that is a proof.
    function page(uint256 number, uint256 depth, uint256 level) internal pure returns (bytes32[] memory words) {
        bytes32[] memory hashes = nodes(number, depth);
        uint256 below = level < 6 ? level : 6;
        uint256 count = level == 0 ? 16 : 1 << below;
        words = new bytes32[](count + depth - level);
        for (uint256 i = 0; i < count; i++) words[i] = level == 0 ? word(number) : hashes[level - below];
        for (uint256 i = level; i < depth; i++) words[count + i - level] = hashes[i];
    }

    /// @dev A key sum as it is stored: 2048 elements of two bytes.
    function elements(uint256 number) internal pure returns (bytes memory stored) {
        stored = new bytes(4096);
        if (number == 0) return stored;
        for (uint256 i = 0; i < 4096; i += 2) stored[i] = bytes1(uint8(number));
    }
}
