// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

// What members sign off chain (EIP-712). Twin: fedchain/protocol/statements.py.

bytes32 constant UPDATE_TYPE =
    keccak256("Update(uint32 round,uint32 attempt,bytes32 commitment,bytes32 ciphertextCid,bytes32 sharesCid)");
bytes32 constant RECEIPT_TYPE = keccak256("Receipt(uint32 round,uint32 attempt,uint128 whole)");
bytes32 constant OPENING_TYPE =
    keccak256("Opening(uint32 round,uint32 attempt,uint16 group,uint128 participants,bytes32 root,bytes32 cid)");

bytes32 constant DOMAIN_TYPE =
    keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

/// @dev The domain of one federation on this chain.
function _domainOf(address federation) view returns (bytes32) {
    return keccak256(abi.encode(DOMAIN_TYPE, keccak256("fedchain"), keccak256("1"), block.chainid, federation));
}

/// @dev What is signed: `structHash` is that of a statement, its type first.
function _signedDigest(bytes32 domain, bytes32 structHash) pure returns (bytes32) {
    return keccak256(abi.encodePacked(hex"1901", domain, structHash));
}
