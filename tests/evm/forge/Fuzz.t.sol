// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {_bit, _lowest, _sizeOf} from "../../../contracts/Bitmaps.sol";
import {IFederation} from "../../../contracts/IFederation.sol";
import {vm} from "./Cheats.sol";
import {Company} from "./Company.sol";
import {Quarrels} from "./Quarrels.sol";

/// @title Single rules, for any input: bitmaps, batches and signatures, verdicts on any numbers.
contract FuzzTest is Quarrels {
    constructor()
        Company(
            Setting({
                founders: 9,
                strangers: 0,
                threshold: 5,
                modelSize: 512,
                bond: 1 ether,
                challengeWindow: 5000,
                liars: 15
            })
        )
    {}

    function setUp() external watched(1) {
        _reach(Phase.Training);
    }

    function testFuzz_a_bitmap_is_counted_bit_by_bit(uint128 bitmap) external pure {
        _hold(_sizeOf(bitmap) == _size(bitmap), "size");
    }

    function testFuzz_the_lowest_member_is_the_first(uint64 above, uint8 index) external pure {
        index %= 64;
        _hold(_lowest(uint256(above) << 1 + index & type(uint64).max | _bit(index)) == index, "lowest");
    }

    /// @dev Any members, of whom any have spoken before: each line is as if its member had sent it, and the others change nothing.
    function testFuzz_a_batch_is_its_lines(uint256 seed, uint16 batched, uint16 before) external watched(seed) {
        (uint256 members, uint256 alone) = (batched & 511, before & 511);
        if (alone == 511) alone = 510;
        RoundView memory live = _live();
        SignedUpdate[] memory lines = _signedUpdates(live, members | alone);
        uint256 snapshot = vm.snapshotState();
        _commitEach(live, lines, members | alone, alone);
        _commitEach(live, lines, members | alone, members & ~alone);
        bytes32 singly = _basis(1, 0);
        RoundView memory then = _live();
        vm.revertToStateAndDelete(snapshot);

        _commitEach(live, lines, members | alone, alone);
        bytes4 refusal = _send(address(this), 0, abi.encodeCall(IFederation.commitUpdates, (1, 0, lines)));
        _hold(refusal == 0 && _basis(1, 0) == singly, "another list");
        _hold(keccak256(abi.encode(_live())) == keccak256(abi.encode(then)), "another record");
    }

    function _commitEach(RoundView memory live, SignedUpdate[] memory lines, uint256 all, uint256 members) private {
        for ((uint8 i, uint256 next) = (0, 0); next < lines.length; i++) {
            if (!_holds(all, i)) continue;
            SignedUpdate memory line = lines[next++];
            bytes memory data = abi.encodeCall(
                IFederation.commitUpdate,
                (live.round, live.attempt, line.commitment, line.ciphertextCid, line.sharesCid)
            );
            if (_holds(members, i)) _hold(_send(_accountOf(i), 0, data) == 0, "a single statement was refused");
        }
    }

    /// @dev Whatever is changed in a signed line, or in its signature, nobody is heard by it.
    function testFuzz_a_line_is_its_signer_s_alone(uint256 seed, bytes32 change) external watched(seed) {
        if (change == 0) change = bytes32(uint256(1));
        RoundView memory live = _live();
        SignedUpdate[] memory lines = _signedUpdates(live, 1 << _draw(9));
        uint256 field = _draw(5);
        if (field == 0) lines[0].commitment ^= change;
        else if (field == 1) lines[0].ciphertextCid ^= change;
        else if (field == 2) lines[0].sharesCid ^= change;
        else if (field == 3) lines[0].signature.r ^= change;
        else lines[0].signature.vs ^= change;
        bytes4 refusal = _send(address(this), 0, abi.encodeCall(IFederation.commitUpdates, (1, 0, lines)));
        _hold(refusal == FederationNotMember.selector, "somebody was heard");
    }

    /// @dev R1 and R4 on any flaws of four liars among nine: the sum on record is right or wrong, and judged so.
    function testFuzz_a_sum_is_judged(uint256 seed, bool right) external watched(seed) {
        _reach(Phase.Aggregating);
        uint8 turn = _federation.aggregatorNow();
        Flaw flaw = right || !_isLiar[_accountOf(turn)] ? Flaw.None : Flaw.Wrong;
        if (_phase() != Phase.Aggregating || _aggregate(turn, flaw, _agreed(_live())) != 0) return;
        _challengeAggregate(_anybody(), 1);
        for (uint8 i = 0; i < 9; i++) _challengeResidue(_anybody(), 1, _live().attempt, i);
    }

    /// @dev Of any kind, level and place: whoever has the object shows it.
    function testFuzz_any_page_shows_what_is_on_record(uint256 seed, uint8 kind) external watched(seed) {
        _reach(Phase.Closing);
        if (_phase() != Phase.Closing) return;
        _close(8, Flaw.None);
        if (_federation.currentRound() == 1) return;
        _demand(_anybody(), Kind(kind % 5), 1);
        _hold(_asked.length == 1, "a demand was refused");
        if (_asked[0].exists) _show(_anybody(), 0);
        else _hold(!_asked[0].honest, "an honest member stated nothing");
    }
}
