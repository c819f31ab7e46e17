// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Disputes} from "./Disputes.sol";
import {Membership} from "./Membership.sol";

/// @title One federation: the contract that is deployed, once for every run.
/// @notice See IFederation.sol for what it promises.
contract Federation is Disputes {
    constructor(Terms memory terms_, address[] memory founders) Membership(terms_, founders) {}
}
