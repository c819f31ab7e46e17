// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title What a digest on record commits to: Merkle trees, an update's two roots, lists.
/// @dev Twins: fedchain/protocol/merkle.py and commitment.py. Trees are positional and tagged: SHA-256(0x00 ‖ 512 bytes) is a leaf,
/// SHA-256(0x01 ‖ left ‖ right) a node, padded with zeros (docs/crypto.md). SHA-256 is a precompile: its calls fail by running out
/// of gas only.
abstract contract Commitments {
    uint256 internal constant KEY_LEAVES = 32; // of an opening, or a key sum
    uint256 internal constant LEAF_WORDS = 16; // 64 residues, four a word
    uint256 private constant VALUES_PER_LEAF = 128;

    // ---------------------------------------------------------------- updates and lists

    /// @dev What the member has posted in commitUpdate, if these are its roots. Twin: update_commitment().
    function _commitmentOf(
        address federation,
        uint32 round,
        uint32 attempt,
        address member,
        bytes32 ciphertextRoot,
        bytes32 sharesRoot
    ) internal view returns (bytes32) {
        return keccak256(
            abi.encode(
                bytes32("fedchain update v1"),
                block.chainid,
                federation,
                round,
                attempt,
                member,
                ciphertextRoot,
                sharesRoot
            )
        );
    }

    /// @dev The running digest of a list after one line more.
    function _appended(bytes32 list, uint8 index, bytes32 word) internal pure returns (bytes32) {
        return keccak256(abi.encode(list, index, word));
    }

    // ---------------------------------------------------------------- trees

    /// @dev Of a ciphertext, an aggregate, a result.
    function _leavesOf(uint256 modelSize) internal pure returns (uint256) {
        return (modelSize + VALUES_PER_LEAF - 1) / VALUES_PER_LEAF;
    }

    /// @dev The least depth that has room for the leaves. Twin: depth_of().
    function _depthOf(uint256 leaves) internal pure returns (uint256 depth) {
        while (1 << depth < leaves) depth++;
    }

    /// @dev The root that the proof at word `position` belongs to: a leaf's words, then its siblings.
    function _rootOf(bytes32[] calldata proofs, uint256 position, uint256 leaf, uint256 depth)
        internal
        view
        returns (bytes32)
    {
        return _climb(_leafOf(proofs, position), proofs, position + LEAF_WORDS, leaf, depth);
    }

    /// @dev The hash of the leaf whose words stand at word `position`.
    function _leafOf(bytes32[] calldata words, uint256 position) internal view returns (bytes32 leaf) {
        assembly ("memory-safe") {
            let scratch := mload(0x40)
            mstore(scratch, 0) // the tag is the byte before the content
            calldatacopy(add(scratch, 32), add(words.offset, shl(5, position)), 512)
            if iszero(staticcall(gas(), 2, add(scratch, 31), 513, 0, 32)) { revert(0, 0) }
            leaf := mload(0)
        }
    }

    /// @dev The node `height` levels above the `place`-th node of its level, whose hash is `node`; the siblings on the way stand at
    /// word `position`, lowest first. Twin: fold().
    function _climb(bytes32 node, bytes32[] calldata words, uint256 position, uint256 place, uint256 height)
        internal
        view
        returns (bytes32 top)
    {
        assembly ("memory-safe") {
            let scratch := mload(0x40)
            let content := add(scratch, 32)
            let source := add(words.offset, shl(5, position))
            let done := 1
            mstore(0, node)
            mstore(scratch, 1)
            for { let end := add(source, shl(5, height)) } lt(source, end) { source := add(source, 32) } {
                let right := shl(5, and(place, 1))
                mstore(add(content, right), mload(0))
                mstore(add(content, xor(right, 32)), calldataload(source))
                done := and(done, staticcall(gas(), 2, add(scratch, 31), 65, 0, 32))
                place := shr(1, place)
            }
            if iszero(done) { revert(0, 0) }
            top := mload(0)
        }
    }

    /// @dev The node above the nodes that fill `width` bytes (32·2^k) of memory from address `nodes` on, the last that was allocated; it
    /// overwrites them.
    function _topOf(uint256 nodes, uint256 width) internal view returns (bytes32 top) {
        assembly ("memory-safe") {
            let scratch := add(nodes, width)
            let content := add(scratch, 32)
            let done := 1
            mstore(scratch, 1)
            for { width := shr(1, width) } gt(width, 16) { width := shr(1, width) } {
                for { let to := 0 } lt(to, width) { to := add(to, 32) } {
                    let from := add(nodes, shl(1, to))
                    mstore(content, mload(from))
                    mstore(add(content, 32), mload(add(from, 32)))
                    done := and(done, staticcall(gas(), 2, add(scratch, 31), 65, add(nodes, to), 32))
                }
            }
            if iszero(done) { revert(0, 0) }
            top := mload(nodes)
        }
    }
}
