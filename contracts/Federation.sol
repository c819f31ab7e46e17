// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Rounds} from "./Rounds.sol";
import {Membership} from "./Membership.sol";

/// @title One federation: the contract that is deployed, once for every run.
/// @notice See IFederation.sol for what it promises.
contract Federation is Rounds {
    constructor(Terms memory terms_, address[] memory founders) Membership(terms_, founders) {}
}
