// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Federation} from "../../../contracts/Federation.sol";
import {ICouncil} from "../../../contracts/ICouncil.sol";
import {IFederation} from "../../../contracts/IFederation.sol";
import {IRecord} from "../../../contracts/IRecord.sol";
import {Cheats, vm} from "./Cheats.sol";

/// @dev An account with code: being paid, it asks for more.
contract Greedy {
    receive() external payable {
        (bool again,) = msg.sender.call(abi.encodeCall(IFederation.withdrawReward, ()));
        (bool more,) = msg.sender.call(abi.encodeCall(IFederation.withdrawBond, ()));
        require(!again && !more, "paid twice");
    }
}

/// @title The people around one federation, a clock, and what must be true after everything that anybody does.
/// @dev Fewer members than the threshold are liars: they may state anything. The others are honest: they state what is true, and show
/// what they are asked for. This contract is the federation's deployer.
abstract contract Company is IRecord {
    struct Setting {
        uint8 founders;
        uint8 strangers; // may be admitted
        uint8 threshold;
        uint64 modelSize; // 128·2^k
        uint96 bond;
        uint32 challengeWindow;
        uint256 liars; // a bitmap of the founders, then the strangers
    }

    /// @dev Where the run is, as anybody can see it.
    struct Moment {
        uint32 round;
        uint32 attempt;
        Phase phase;
        uint256 burnt;
        uint256 slashed;
    }

    uint32 internal constant TRAINING = 600;
    uint32 internal constant RECEIPTS = 300;
    uint32 internal constant TURN = 100;
    uint32 internal constant ENROLMENT = 1000;
    uint32 internal constant CLOSE = 20_000;
    uint32 internal constant ROUNDS = 20;

    IFederation internal _federation;
    ICouncil internal _council; // the same address
    Setting internal _setting;
    uint256 internal _depth; // of ciphertexts, aggregates and results
    address[] internal _people; // founders, strangers, then who is no member and never will be
    mapping(address account => uint256 privateKey) internal _keyOf;
    mapping(address account => bool) internal _isLiar;

    uint256 private _entropy;
    uint256 internal _clock;
    uint256 private _seatsSeen;
    uint256 internal _honest; // members, by index
    uint256 internal _deposits; // demands that are open
    mapping(bytes32 place => uint128 participants) private _setOf;
    mapping(bytes32 place => bytes32 model) private _baseOf;

    // The table: how often each function was called with each outcome (0: it was done), and how many calls came in each phase.
    bytes32[] private _outcomes; // function ‖ refusal
    mapping(bytes32 outcome => uint256) private _countOf;
    uint256[9] private _phasesSeen;

    constructor(Setting memory setting) {
        _setting = setting;
        uint256 leaves = setting.modelSize / 128;
        while (1 << _depth < leaves) _depth++;
        address[] memory founders = new address[](setting.founders);
        for (uint256 i = 0; i < uint256(setting.founders) + setting.strangers; i++) {
            address account = vm.addr(i + 1);
            if (i < setting.founders) founders[i] = account;
            _keyOf[account] = i + 1;
            _isLiar[account] = setting.liars >> i & 1 == 1;
            _people.push(account);
        }
        _people.push(vm.addr(1000));
        _keyOf[vm.addr(1000)] = 1000;
        _people.push(address(new Greedy()));
        for (uint256 i = 0; i < _people.length; i++) vm.deal(_people[i], 1e9 ether);
        vm.deal(address(this), 1e9 ether);
        _clock = 1_800_000_000;
        vm.warp(_clock);
        Federation federation = new Federation(_terms(setting), founders);
        (_federation, _council) = (federation, ICouncil(address(federation)));
        _meet();
    }

    function _terms(Setting memory setting) private pure returns (Terms memory) {
        return Terms({
            charterDigest: "charter",
            charterCid: "charter cid",
            genesisDigest: "genesis",
            genesisCid: "genesis cid",
            modelSize: setting.modelSize,
            rounds: ROUNDS,
            threshold: setting.threshold,
            enrolWindow: ENROLMENT,
            trainingWindow: TRAINING,
            receiptWindow: RECEIPTS,
            aggregateWindow: TURN,
            challengeWindow: setting.challengeWindow,
            closeWindow: CLOSE,
            bond: setting.bond
        });
    }

    // ---------------------------------------------------------------- what must be true

    /// @dev Everything that is done in these tests is done inside it; `seed` decides what is left open.
    modifier watched(uint256 seed) {
        _entropy = seed;
        vm.warp(_clock);
        vm.recordLogs();
        Moment memory before = _moment();
        _;
        _check(before);
    }

    /// @dev An assertion. Reverts, and so ends the test.
    function _hold(bool truth, string memory what) internal pure {
        require(truth, what);
    }

    function _check(Moment memory before) private {
        _checkProgress(before, _moment());
        _checkMoney();
        _checkMembers();
        _checkSet(_federation.currentRound());
        _checkSet(uint32(1 + _draw(_federation.currentRound())));
        _checkBase(_live());
    }

    /// @dev Phases go forward within an attempt, attempts within a round, and rounds unless a result was refuted.
    function _checkProgress(Moment memory before, Moment memory now_) private {
        if (now_.round > 1) _hold(_federation.phaseOf(now_.round - 1) == Phase.Closed, "an earlier round is open");
        Phase next = _federation.phaseOf(now_.round + 1);
        bool pends = now_.phase != Phase.Enrolling && now_.phase != Phase.Finished;
        _hold(next == (pends ? Phase.Pending : now_.phase), "a later round has begun");
        if (_wasTold(ResultRefuted.selector)) {
            _hold(now_.round <= before.round, "a refuted result is an earlier round's");
            _hold(now_.phase == Phase.Closing || now_.phase == Phase.Finished, "a refuted round is in Closing");
        } else {
            _hold(_order(now_) >= _order(before), "the run went back");
        }
        _hold(now_.burnt >= before.burnt, "what is burnt came back");
        _hold(before.slashed & ~now_.slashed == 0, "a slash was forgotten");
        _hold((_federation.finishedAt() != 0) == (now_.phase == Phase.Finished), "finished without a time, or not");
        _hold(_federation.finishedAt() <= block.timestamp, "finished in the future");
        _hold(_federation.model() != 0, "no model stands");
    }

    function _order(Moment memory moment) private pure returns (uint256) {
        return uint256(moment.round) << 64 | uint256(moment.attempt) << 8 | uint256(moment.phase);
    }

    function _wasTold(bytes32 topic) private returns (bool told) {
        Cheats.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; i++) {
            if (logs[i].emitter == address(_federation) && logs[i].topics[0] == topic) told = true;
        }
    }

    /// @dev Every wei here is a bond, a reward, a deposit, or burnt.
    function _checkMoney() internal view {
        uint256 owed = _federation.burnt() + _size(_federation.bonded()) * _setting.bond;
        for (uint256 i = 0; i < _people.length; i++) owed += _federation.rewardOf(_people[i]);
        owed += _federation.rewardOf(address(this));
        owed += _deposits * _council.demandDeposit();
        _hold(address(_federation).balance == owed, "money was made or lost");
    }

    /// @dev No honest member is slashed, however the others lie: they are fewer than the threshold.
    function _checkMembers() private {
        _meet();
        uint256 slashed = _federation.slashed();
        _hold(slashed & _honest == 0, "an honest member is slashed");
        _hold(slashed & _federation.bonded() == 0, "a slashed member has a bond");
        _hold(_federation.threshold() >= _setting.threshold, "the threshold fell below the terms'");
    }

    /// @dev Who has a seat by now.
    function _meet() private {
        for (; _seatsSeen < _federation.memberCount(); _seatsSeen++) {
            if (!_isLiar[_accountOf(_seatsSeen)]) _honest |= 1 << _seatsSeen;
        }
    }

    /// @dev One participant set a (round, attempt, group), for ever.
    function _checkSet(uint32 round) private {
        RoundView memory seen = _federation.roundAt(round);
        bytes32 place = _place(round, seen.attempt);
        if (_setOf[place] == 0) _setOf[place] = seen.participants;
        _hold(_setOf[place] == seen.participants, "a second participant set");
    }

    /// @dev An attempt trains from one model, for ever: whoever prepared a statement for it need not ask again.
    function _checkBase(RoundView memory live) private {
        bytes32 place = _place(live.round, live.attempt);
        if (_baseOf[place] == 0) _baseOf[place] = _federation.model();
        _hold(_baseOf[place] == _federation.model(), "a second model");
    }

    function _moment() internal view returns (Moment memory) {
        uint32 round = _federation.currentRound();
        return Moment({
            round: round,
            attempt: _federation.roundAt(round).attempt,
            phase: _federation.phaseOf(round),
            burnt: _federation.burnt(),
            slashed: _federation.slashed()
        });
    }

    // ---------------------------------------------------------------- doing

    /// @dev A transaction; gives the error's selector, 0 if it was done. A refusal is always one of the contract's own errors.
    function _send(address sender, uint256 value, bytes memory data) internal returns (bytes4 refusal) {
        _phasesSeen[uint256(_phase())]++;
        vm.prank(sender);
        (bool done, bytes memory answer) = address(_federation).call{value: value}(data);
        if (!done) {
            _hold(answer.length >= 4, "a refusal without a reason");
            refusal = bytes4(answer);
            _hold(refusal != 0x4e487b71 && refusal != 0x08c379a0, "a panic");
        }
        bytes32 outcome = bytes32(bytes4(data)) | bytes32(refusal) >> 32;
        if (_countOf[outcome]++ == 0) _outcomes.push(outcome);
    }

    /// @dev A number below `below`, which the seed decides.
    function _draw(uint256 below) internal returns (uint256) {
        _entropy = uint256(keccak256(abi.encode(_entropy)));
        return _entropy % below;
    }

    function _chance(uint256 of_) internal returns (bool) {
        return _draw(of_) == 0;
    }

    /// @dev One of the set bits of a bitmap; 0 if there is none.
    function _drawFrom(uint256 bitmap) internal returns (uint8) {
        if (bitmap == 0) return 0;
        for (uint256 skip = _draw(_size(bitmap)); skip != 0; skip--) bitmap &= bitmap - 1;
        uint8 index = 0;
        while (bitmap >> index & 1 == 0) index++;
        return index;
    }

    function _anybody() internal returns (address) {
        return _people[_draw(_people.length)];
    }

    function _accountOf(uint256 index) internal view returns (address) {
        return _federation.memberAt(uint8(index)).account;
    }

    /// @dev Who is heard.
    function _heard() internal view returns (uint256) {
        return _federation.standing() & ~_federation.slashed();
    }

    function _phase() internal view returns (Phase) {
        return _federation.phaseOf(_federation.currentRound());
    }

    function _live() internal view returns (RoundView memory) {
        return _federation.roundAt(_federation.currentRound());
    }

    function _place(uint32 round, uint32 attempt) internal pure returns (bytes32) {
        return keccak256(abi.encode(round, attempt));
    }

    function _holds(uint256 bitmap, uint256 index) internal pure returns (bool) {
        return bitmap >> index & 1 == 1;
    }

    function _size(uint256 bitmap) internal pure returns (uint256 size) {
        for (; bitmap != 0; bitmap &= bitmap - 1) size++;
    }

    // ---------------------------------------------------------------- the table

    /// @notice The calls of this run: function ‖ error, how many times, and how many calls came in each phase.
    function outcomes() external view returns (bytes32[] memory kinds, uint256[] memory counts, uint256[9] memory phases) {
        counts = new uint256[](_outcomes.length);
        for (uint256 i = 0; i < counts.length; i++) counts[i] = _countOf[_outcomes[i]];
        return (_outcomes, counts, _phasesSeen);
    }
}
