// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

// Bit i of every bitmap is member i, less than 64.

/// @dev The bit that member `index` owns.
function _bit(uint256 index) pure returns (uint64) {
    return uint64(1 << index);
}

/// @dev The lowest member of a bitmap that is not empty.
function _lowest(uint256 bitmap) pure returns (uint256) {
    unchecked {
        return _sizeOf((bitmap & ~(bitmap - 1)) - 1);
    }
}

/// @dev How many members a bitmap holds. Twin: size_of(). Adds neighbouring bits in parallel; at most 128 may be set.
function _sizeOf(uint256 bitmap) pure returns (uint256) {
    unchecked {
        bitmap -= (bitmap >> 1) & 0x5555555555555555555555555555555555555555555555555555555555555555;
        bitmap = (bitmap & 0x3333333333333333333333333333333333333333333333333333333333333333)
            + ((bitmap >> 2) & 0x3333333333333333333333333333333333333333333333333333333333333333);
        bitmap = (bitmap + (bitmap >> 4)) & 0x0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f;
        return (bitmap * 0x0101010101010101010101010101010101010101010101010101010101010101) >> 248;
    }
}
