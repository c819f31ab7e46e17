// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICouncil} from "../../../contracts/ICouncil.sol";
import {IFederation} from "../../../contracts/IFederation.sol";
import {vm} from "./Cheats.sol";
import {Company} from "./Company.sol";
import {Quarrels} from "./Quarrels.sol";

/// @title What forge calls in any order: each function is one thing that somebody does, and its one argument decides the rest.
/// @dev Whoever states something may find that it is not the time: one time in two the others then play on until it is.
contract Handler is Quarrels {
    mapping(bytes32 place => bool) private _hasComplained; // and who

    constructor(Setting memory setting) Company(setting) {}

    // ---------------------------------------------------------------- taking part

    function enrol(uint256 seed) external watched(seed) {
        address account = _anybody();
        uint256 value = _setting.bond;
        if (_chance(8)) value += 1;
        bytes32 key = _chance(8) ? bytes32(0) : bytes32("key");
        _send(account, value, abi.encodeCall(IFederation.enrol, (key, uint32(_draw(8)))));
    }

    function admitAndEnrol(uint256 seed) external watched(seed) {
        address account = _people[_draw(uint256(_setting.founders) + _setting.strangers)];
        _voteTogether(abi.encodeCall(ICouncil.voteToAdmit, (account)), Motion.Admit, 0, 0, _subject(account));
        if (!_chance(4)) _enrol(account);
    }

    function resign(uint256 seed) external watched(seed) {
        if (_chance(4)) _send(_anybody(), 0, abi.encodeCall(IFederation.resign, ()));
    }

    function rotateKey(uint256 seed) external watched(seed) {
        bytes32 key = _chance(8) ? bytes32(0) : bytes32("another key");
        _send(_anybody(), 0, abi.encodeCall(IFederation.rotateKey, (key)));
    }

    /// @dev A bond is paid when it is free, less a 64th a strike, and not otherwise.
    function withdrawBond(uint256 seed) external watched(seed) {
        uint8 index = uint8(_draw(_federation.memberCount()));
        Member memory member = _federation.memberAt(index);
        bool free = block.timestamp >= _federation.bondFreeAt(index);
        uint256 before = member.account.balance;
        bytes4 refusal = _send(member.account, 0, abi.encodeCall(IFederation.withdrawBond, ()));
        _hold((refusal == 0) == (free && member.bonded), "a bond is paid when it is free, and not otherwise");
        if (refusal != 0) return;
        uint256 lost = uint256(_setting.bond) * member.strikes / 64;
        _hold(member.account.balance - before == _setting.bond - lost, "a bond has its size");
    }

    function withdrawReward(uint256 seed) external watched(seed) {
        address account = _anybody();
        uint256 reward = _federation.rewardOf(account);
        uint256 before = account.balance;
        bytes4 refusal = _send(account, 0, abi.encodeCall(IFederation.withdrawReward, ()));
        _hold((refusal == 0) == (reward != 0), "a reward is paid if there is one");
        _hold(account.balance - before == reward, "a reward has its size");
    }

    // ---------------------------------------------------------------- a round

    function commit(uint256 seed) external watched(seed) {
        _mayReach(Phase.Training);
        uint8 index = _drawFrom(_heard() & ~_live().committed);
        _commit(index, _lie(index, Flaw.Noise, Flaw.Absent));
    }

    function commitTogether(uint256 seed) external watched(seed) {
        _mayReach(Phase.Training);
        RoundView memory live = _live();
        uint256 members = _federation.standing() & _draw(type(uint256).max);
        SignedUpdate[] memory lines = _signedUpdates(live, members);
        if (lines.length != 0 && _chance(16)) lines[0].sharesCid = "not what was signed";
        bytes memory data = abi.encodeCall(IFederation.commitUpdates, (live.round, live.attempt, lines));
        if (_send(_anybody(), 0, data) != 0) return;
        for (uint8 i = 0; i < 64; i++) {
            if (_holds(members & ~live.committed, i)) _committers[_place(live.round, live.attempt)].push(i);
        }
    }

    function postReceipt(uint256 seed) external watched(seed) {
        _mayReach(Phase.Receipts);
        _postReceipt(_drawFrom(_heard() & ~_live().received));
    }

    function postReceiptsTogether(uint256 seed) external watched(seed) {
        _mayReach(Phase.Receipts);
        RoundView memory live = _live();
        uint256 members = _federation.standing() & _draw(type(uint256).max);
        SignedReceipt[] memory lines = _signedReceipts(live, members);
        if (lines.length != 0 && _chance(16)) lines[0].whole ^= 1;
        _send(_anybody(), 0, abi.encodeCall(IFederation.postReceipts, (live.round, live.attempt, lines)));
    }

    function complain(uint256 seed) external watched(seed) {
        if (_phase() == Phase.Training) _mayReach(Phase.Receipts);
        RoundView memory live = _live();
        uint128 dealers = uint128(_draw(type(uint256).max) & (_chance(8) ? type(uint128).max : live.committed));
        bytes32 cid = _chance(16) ? bytes32(0) : bytes32("evidence");
        bytes memory data = abi.encodeCall(IFederation.complain, (live.round, live.attempt, dealers, cid));
        bool due = (_phase() == Phase.Training || _phase() == Phase.Receipts) && dealers != 0 && cid != 0;
        due = due && dealers & ~live.committed == 0;
        uint8 index = _drawFrom(_heard());
        bytes32 place = keccak256(abi.encode(_place(live.round, live.attempt), index));
        bool again = _hasComplained[place];
        bool done = _send(_accountOf(index), 0, data) == 0;
        _hold(done == (due && !again), "a complaint is heard until the receipts are in, once a member");
        _hasComplained[place] = again || done;
    }

    function commitAggregate(uint256 seed) external watched(seed) {
        _mayReach(Phase.Aggregating);
        Phase phase = _phase();
        uint8 index = phase == Phase.Aggregating && !_chance(8) ? _federation.aggregatorNow() : _drawFrom(_heard());
        Flaw flaw = _lie(index, Flaw.Absent, Flaw.Wrong);
        uint128 participants = _agreed(_live());
        if (flaw != Flaw.None && _chance(4)) participants = uint128(_live().committed & _draw(type(uint256).max));
        _aggregate(index, flaw, participants);
    }

    function publishOpening(uint256 seed) external watched(seed) {
        _mayReach(Phase.Opening);
        uint8 index = _drawFrom(_heard() & ~_live().opened);
        _open(index, _lie(index, Flaw.Absent, Flaw.Wrong));
    }

    function publishOpeningsTogether(uint256 seed) external watched(seed) {
        _mayReach(Phase.Opening);
        RoundView memory live = _live();
        bytes32 place = _place(live.round, live.attempt);
        uint256 members = _federation.standing() & ~uint256(live.opened) & _draw(type(uint256).max);
        SignedOpening[] memory lines = _signedOpenings(live, members);
        if (lines.length != 0 && _chance(16)) lines[0].cid = "not what was signed";
        bytes memory data = abi.encodeCall(IFederation.publishOpenings, (live.round, live.attempt, 0, lines));
        if (_send(_anybody(), 0, data) != 0) return;
        for (uint8 i = 0; i < 64; i++) if (_holds(members, i)) _openers[place].push(i);
    }

    function commitResult(uint256 seed) external watched(seed) {
        _mayReach(Phase.Closing);
        uint8 index = _drawFrom(_heard());
        Flaw flaw = _lie(index, Flaw.Absent, Flaw.Model);
        if (flaw == Flaw.None && !_isDecodable(_live()) && _holds(_honest, index)) return;
        _close(index, flaw);
    }

    function restateAggregate(uint256 seed) external watched(seed) {
        uint32 round = _someRound();
        for (uint32 i = 1; i <= _federation.currentRound() && !_isMissing(round); i++) round = i;
        RoundView memory seen = _federation.roundAt(round);
        bytes32 place = _place(round, seen.attempt);
        uint8 index = _drawFrom(_heard());
        Flaw flaw = _lie(index, Flaw.Absent, Flaw.Wrong);
        Flaw before = _sumFlaw[place];
        _sumFlaw[place] = flaw;
        bytes32 root = _sumRoot(round, seen.attempt, seen.participants);
        bytes32 basis = _chance(16) ? bytes32("elsewhere") : _basis(round, seen.attempt);
        bytes memory data = abi.encodeCall(ICouncil.restateAggregate, (round, 0, seen.participants, basis, root, "cid"));
        if (_send(_accountOf(index), 0, data) != 0) _sumFlaw[place] = before;
    }

    /// @dev Whether a round's sum was refuted, and not stated anew.
    function _isMissing(uint32 round) private view returns (bool) {
        Aggregate memory sum = _federation.aggregateOf(round, 0);
        return sum.participants != 0 && sum.root == 0;
    }

    function playOn(uint256 seed) external watched(seed) {
        _reach(Phase(1 + _draw(5)));
    }

    // ---------------------------------------------------------------- quarrels

    function challengeAggregate(uint256 seed) external watched(seed) {
        _challengeAggregate(_anybody(), _chance(2) ? _someRound() : _suspectRound());
    }

    function challengeKeySum(uint256 seed) external watched(seed) {
        _challengeKeySum(_anybody(), _someRound());
    }

    function challengeResult(uint256 seed) external watched(seed) {
        _challengeResult(_anybody(), _someRound());
    }

    function challengeResidue(uint256 seed) external watched(seed) {
        uint32 round = _someRound();
        uint32 attempt = _federation.roundAt(round).attempt;
        if (attempt != 0 && _chance(2)) attempt = uint32(_draw(attempt));
        uint8[] storage order = _committers[_place(round, attempt)];
        uint8 index = order.length == 0 ? 0 : order[_draw(order.length)];
        _challengeResidue(_anybody(), round, attempt, index);
    }

    function challengeEquivocation(uint256 seed) external watched(seed) {
        RoundView memory live = _live();
        if (!_chance(16)) return;
        OpeningStatement memory said = OpeningStatement(live.round, live.attempt, 0, live.participants, "root", "cid");
        _challengeEquivocation(_anybody(), uint8(_draw(_federation.memberCount())), said);
    }

    function demandPage(uint256 seed) external watched(seed) {
        uint32 round = _someRound();
        _demand(_anybody(), Kind(_draw(5)), round);
    }

    function showPage(uint256 seed) external watched(seed) {
        if (_chance(8)) _answerAgain(_anybody());
        if (_asked.length != 0) _show(_anybody(), _draw(_asked.length));
    }

    function closeDemand(uint256 seed) external watched(seed) {
        if (_asked.length == 0) return;
        uint256 which = _draw(_asked.length);
        uint256 deadline = _council.deadlineOf(_asked[which].name);
        if (!_asked[which].honest && deadline > _clock && _chance(2)) _pass(deadline - _clock);
        if (which < _asked.length) _closeDemand(_anybody(), which);
    }

    // ---------------------------------------------------------------- votes

    function voteToAdmit(uint256 seed) external watched(seed) {
        _send(_anybody(), 0, abi.encodeCall(ICouncil.voteToAdmit, (_anybodyOrNobody())));
    }

    function voteToRemove(uint256 seed) external watched(seed) {
        uint8 index = uint8(_draw(_federation.memberCount()));
        bytes memory data = abi.encodeCall(ICouncil.voteToRemove, (index));
        if (!_chance(8)) _send(_anybody(), 0, data);
        else _voteTogether(data, Motion.Remove, 0, 0, bytes32(uint256(index)));
    }

    /// @dev Members give a set up that they cannot open; or, now and then, another.
    function voteToAbandon(uint256 seed) external watched(seed) {
        RoundView memory live = _live();
        if (_isDecodable(live) && !_chance(4)) {
            _voteToAbandon(_anybody());
            return;
        }
        uint256 voters = _heard() & ~_council.votesOf(Motion.Abandon, live.round, live.attempt, 0);
        for (uint8 i = 0; i < 64; i++) if (_holds(voters, i) && _voteToAbandon(_accountOf(i)) != 0) return;
    }

    /// @dev Honest members refuse a model that does not follow from its result, and no other.
    function voteToRefuse(uint256 seed) external watched(seed) {
        uint32 round = _someRound();
        uint32 attempt = _federation.roundAt(round).attempt;
        bytes32 model = _federation.resultOf(round, 0).modelDigest;
        bytes memory data = abi.encodeCall(ICouncil.voteToRefuse, (round, model));
        bool wrong = _resultFlaw[_place(round, attempt)] == Flaw.Model;
        bool opens = _isOpen() && model != 0;
        uint256 voters = wrong ? _heard() : _heard() & ~_honest;
        bool carried = false;
        uint256 silent = voters & ~_council.votesOf(Motion.Refuse, round, attempt, model);
        for (uint8 i = 0; i < 64 && !carried; i++) {
            if (!_holds(silent, i)) continue;
            carried = _send(_accountOf(i), 0, data) == 0 && _federation.currentRound() <= round;
        }
        if (opens) _hold(carried == (wrong && _size(voters) >= _federation.threshold()), "t members refuse a model");
    }

    function voteToStop(uint256 seed) external watched(seed) {
        uint32 round = _federation.currentRound();
        bytes memory data = abi.encodeCall(IFederation.voteToStop, (round, _federation.model()));
        if (!_chance(32)) {
            _send(_anybody(), 0, data);
            return;
        }
        uint256 voters = _heard();
        for (uint8 i = 0; i < 64; i++) if (_holds(voters, i)) _send(_accountOf(i), 0, data);
    }

    // ---------------------------------------------------------------- time, and what is true at any time

    function wait(uint256 seed) external watched(seed) {
        uint256 kind = _draw(256);
        if (kind < 160) _pass(1 + _draw(60));
        else if (kind < 224) _pass(1 + _draw(TRAINING));
        else if (kind < 250) _pass(1 + _draw(_setting.challengeWindow / 4));
        else if (kind < 255) _pass(1 + _draw(_setting.challengeWindow));
        else _pass(1 + _draw(2 * CLOSE));
    }

    /// @dev No lock-up. From here, and whatever nobody does, every bond that is here can be withdrawn in time, then every
    /// deposit and every reward; nothing stays but what was burnt.
    function everybodyGoesHome(uint256 seed) external watched(seed) {
        if (_chance(4)) _checkNothingIsLocked();
    }

    function _checkNothingIsLocked() private {
        uint256 snapshot = vm.snapshotState();
        vm.warp(_clock + ENROLMENT + CLOSE + 2 * uint256(_setting.challengeWindow));
        for (uint8 i = 0; i < _federation.memberCount(); i++) {
            if (!_holds(_federation.bonded(), i)) continue;
            bytes4 refusal = _send(_accountOf(i), 0, abi.encodeCall(IFederation.withdrawBond, ()));
            _hold(refusal == 0, "a bond is locked up");
        }
        while (_asked.length != 0) _closeDemand(_people[0], _asked.length - 1);
        for (uint256 i = 0; i < _people.length; i++) {
            if (_federation.rewardOf(_people[i]) == 0) continue;
            bytes4 refusal = _send(_people[i], 0, abi.encodeCall(IFederation.withdrawReward, ()));
            _hold(refusal == 0, "a reward is locked up");
        }
        _hold(address(_federation).balance == _federation.burnt(), "something stays that is not burnt");
        _hold(vm.revertToStateAndDelete(snapshot), "no way back");
    }

    /// @dev The deployer, this contract, is heard no more than anybody: what a member might do now it may not.
    function deployerTries(uint256 seed) external watched(seed) {
        RoundView memory live = _live();
        bytes[13] memory tries = [
            abi.encodeCall(IFederation.enrol, ("key", 1)),
            abi.encodeCall(IFederation.resign, ()),
            abi.encodeCall(IFederation.rotateKey, ("key")),
            abi.encodeCall(IFederation.withdrawBond, ()),
            abi.encodeCall(IFederation.commitUpdate, (live.round, live.attempt, "c", "c", "c")),
            abi.encodeCall(IFederation.postReceipt, (live.round, live.attempt, live.committed)),
            abi.encodeCall(IFederation.complain, (live.round, live.attempt, live.committed, "c")),
            abi.encodeCall(IFederation.publishOpening, (live.round, live.attempt, 0, "c", "c")),
            abi.encodeCall(IFederation.voteToStop, (live.round, _federation.model())),
            abi.encodeCall(ICouncil.voteToAdmit, (address(this))),
            abi.encodeCall(ICouncil.voteToRemove, (0)),
            abi.encodeCall(ICouncil.voteToAbandon, (live.round, live.attempt)),
            abi.encodeCall(ICouncil.voteToRefuse, (live.round, _federation.model()))
        ];
        uint256 chosen = _draw(tries.length);
        bytes4 refusal = _send(address(this), chosen == 0 ? _setting.bond : 0, tries[chosen]);
        _hold(refusal == FederationNotMember.selector, "the deployer is no member");
    }

    // ---------------------------------------------------------------- small things

    function _mayReach(Phase phase) private {
        if (_phase() != phase && _chance(2)) _reach(phase);
    }

    /// @dev A round that is closed or under way; the newest ones more often.
    function _someRound() private returns (uint32) {
        uint32 current = _federation.currentRound();
        uint256 back = _draw(_chance(2) ? 2 : 5);
        return current > back ? uint32(current - back) : 1;
    }

    /// @dev The newest round with a wrong sum on record; if there is none, some round.
    function _suspectRound() private returns (uint32) {
        for (uint32 round = _federation.currentRound(); round != 0; round--) {
            if (_federation.aggregateOf(round, 0).root == 0) continue;
            if (_sumFlaw[_place(round, _federation.roundAt(round).attempt)] == Flaw.Wrong) return round;
        }
        return _someRound();
    }

    function _subject(address account) private pure returns (bytes32) {
        return bytes32(uint256(uint160(account)));
    }

    function _anybodyOrNobody() private returns (address) {
        return _chance(16) ? address(0) : _anybody();
    }

    /// @dev Everyone who is heard votes until the motion is carried, or refused.
    function _voteTogether(bytes memory data, Motion motion, uint32 round, uint32 attempt, bytes32 subject) private {
        uint256 voters = _heard() & ~_council.votesOf(motion, round, attempt, subject);
        for (uint8 i = 0; i < 64; i++) {
            if (_holds(voters, i) && _send(_accountOf(i), 0, data) != 0) return;
        }
    }

    /// @notice For the end of a run.
    function checkAtTheEnd() external {
        vm.warp(_clock);
        _checkNothingIsLocked();
    }
}
