// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Demands} from "./Demands.sol";
import {Disputes} from "./Disputes.sol";
import {Votes} from "./Votes.sol";

/// @title The code that answers to ICouncil.sol: challenges, demands and votes.
/// @notice A federation runs it in its own storage. By itself it holds nothing and decides nothing; only its judge answers.
/// @dev A contract of its own, so that each stays below the size that a chain accepts.
contract Council is Disputes, Demands, Votes {}
