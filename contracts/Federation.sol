// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Council} from "./Council.sol";
import {Members} from "./Members.sol";
import {Rounds} from "./Rounds.sol";

/// @title One federation: the contract that is deployed, once for every run.
/// @notice See IFederation.sol and ICouncil.sol for what it promises.
contract Federation is Rounds {
    address private immutable _council;

    constructor(Terms memory terms_, address[] memory founders) Members(terms_, founders) {
        _council = address(new Council());
    }

    /// @dev What is not answered here, Council.sol answers, in this storage. Its address stands in this code, and its code never
    /// changes: this is one contract in two pieces. What neither knows reverts there.
    fallback() external payable {
        address code = _council;
        assembly ("memory-safe") {
            let free := mload(0x40)
            calldatacopy(free, 0, calldatasize())
            let done := delegatecall(gas(), code, free, calldatasize(), 0, 0)
            returndatacopy(free, 0, returndatasize())
            if iszero(done) { revert(free, returndatasize()) }
            return(free, returndatasize())
        }
    }

    receive() external payable {
        revert FederationNoPayment();
    }

    /// @notice The contract whose code answers to ICouncil.sol here.
    function council() external view returns (address) {
        return _council;
    }
}
