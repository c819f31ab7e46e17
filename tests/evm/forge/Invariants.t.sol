// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {vm} from "./Cheats.sol";
import {Company} from "./Company.sol";
import {Handler} from "./Handler.sol";

/// @title Any history of a federation: what must be true in it is asserted after each step (Company.sol).
/// @dev Each run's table of calls goes into the file that FORGE_TABLE names, one line a run.
abstract contract Invariants {
    Handler private _handler;

    function _setting() internal pure virtual returns (Company.Setting memory);

    function setUp() external {
        _handler = new Handler(_setting());
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    /// @dev The handler has asserted everything by then.
    function invariant_holds() external view {}

    function afterInvariant() external {
        _handler.checkAtTheEnd();
        string memory path = vm.envOr("FORGE_TABLE", "");
        if (bytes(path).length == 0) return;
        (bytes32[] memory outcomes, uint256[] memory counts, uint256[9] memory phases) = _handler.outcomes();
        vm.writeLine(path, vm.toString(abi.encode(outcomes, counts, phases)));
    }
}

/// @dev Seven founders, three of them liars; one leaf an object; a bond that does not halve.
contract SevenTest is Invariants {
    function _setting() internal pure override returns (Company.Setting memory) {
        return Company.Setting({
            founders: 7,
            strangers: 3,
            threshold: 4,
            modelSize: 128,
            bond: 1 ether + 7,
            challengeWindow: 5000,
            liars: 42
        });
    }
}

/// @dev Five founders, one of them a liar, and a liar who may join; eight leaves an object; a challenge window of seconds.
contract FiveTest is Invariants {
    function _setting() internal pure override returns (Company.Setting memory) {
        return Company.Setting({
            founders: 5,
            strangers: 4,
            threshold: 3,
            modelSize: 1024,
            bond: 33,
            challengeWindow: 100,
            liars: 68
        });
    }
}
