// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title What these tests use of forge's cheat codes.
interface Cheats {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function warp(uint256 time) external;
    function deal(address account, uint256 wei_) external;
    function prank(address sender) external;
    function addr(uint256 privateKey) external returns (address);
    function sign(uint256 privateKey, bytes32 digest) external returns (uint8 v, bytes32 r, bytes32 s);
    function signCompact(uint256 privateKey, bytes32 digest) external returns (bytes32 r, bytes32 vs);
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function snapshotState() external returns (uint256);
    function revertToStateAndDelete(uint256 snapshot) external returns (bool);
    function envOr(string calldata name, string calldata otherwise) external returns (string memory);
    function toString(bytes calldata value) external returns (string memory);
    function writeLine(string calldata path, string calldata line) external;
}

Cheats constant vm = Cheats(address(uint160(uint256(keccak256("hevm cheat code")))));
