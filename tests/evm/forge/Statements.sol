// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICouncil} from "../../../contracts/ICouncil.sol";
import {IFederation} from "../../../contracts/IFederation.sol";
import {Contents} from "./Contents.sol";

/// @title What members state, each for itself or in batches, and how they play on.
abstract contract Statements is Contents {
    uint128 private _givenUp; // the set that was abandoned last in the round under way

    // ---------------------------------------------------------------- statements

    /// @dev What an honest member never does; a liar does it one time in two.
    function _lie(uint256 index, Flaw first, Flaw last) internal returns (Flaw) {
        if (!_isLiar[_accountOf(index)] || _chance(2)) return Flaw.None;
        return Flaw(uint256(first) + _draw(uint256(last) - uint256(first) + 1));
    }

    function _voteToAbandon(address account) internal returns (bytes4 refusal) {
        RoundView memory live = _live();
        refusal = _send(account, 0, abi.encodeCall(ICouncil.voteToAbandon, (live.round, live.attempt)));
        if (refusal == 0 && _live().attempt != live.attempt) _givenUp = live.participants;
    }

    function _enrol(address account) internal returns (bytes4) {
        return _send(account, _setting.bond, abi.encodeCall(IFederation.enrol, (keccak256(abi.encode(account)), 10)));
    }

    /// @dev What a member would commit to; forgotten again unless it does.
    function _prepareUpdate(RoundView memory live, uint256 index, Flaw flaw)
        internal
        returns (SignedUpdate memory line)
    {
        mapping(uint256 => Flaw) storage flawOf = _updateFlaw[_place(live.round, live.attempt)];
        if (!_holds(live.committed, index)) flawOf[index] = flaw;
        line.commitment = _commitmentOf(live.round, live.attempt, index);
        (line.ciphertextCid, line.sharesCid) = (CID, CID);
    }

    function _commit(uint8 index, Flaw flaw) internal {
        RoundView memory live = _live();
        SignedUpdate memory line = _prepareUpdate(live, index, flaw);
        bytes memory data = abi.encodeCall(
            IFederation.commitUpdate, (live.round, live.attempt, line.commitment, line.ciphertextCid, line.sharesCid)
        );
        if (_send(_accountOf(index), 0, data) == 0) _committers[_place(live.round, live.attempt)].push(index);
    }

    /// @dev The updates that a member holds to be whole. An honest one holds them in its hands; whether it looks at each residue
    /// is its affair (R4).
    function _whole(RoundView memory live, uint256 index) internal returns (uint128 whole) {
        mapping(uint256 => Flaw) storage flawOf = _updateFlaw[_place(live.round, live.attempt)];
        if (_isLiar[_accountOf(index)] && _chance(2)) return uint128(live.committed & _draw(type(uint256).max));
        whole = uint128(live.committed & ~_flawed(flawOf, live.committed, Flaw.Absent));
        if (_chance(2)) whole &= ~uint128(_flawed(flawOf, live.committed, Flaw.Residue));
    }

    function _postReceipt(uint8 index) internal returns (bytes4) {
        RoundView memory live = _live();
        return _send(
            _accountOf(index),
            0,
            abi.encodeCall(IFederation.postReceipt, (live.round, live.attempt, _whole(live, index)))
        );
    }

    /// @dev What an honest aggregator sums: everything that each honest receipt covers.
    function _agreed(RoundView memory live) internal view returns (uint128 agreed) {
        agreed = live.committed;
        for (uint8 i = 0; i < 64; i++) {
            if (_holds(live.received & _honest, i)) {
                agreed &= _federation.receiptOf(live.round, live.attempt, i);
            }
        }
        agreed &= ~uint128(_flawed(_updateFlaw[_place(live.round, live.attempt)], agreed, Flaw.Absent));
    }

    function _aggregate(uint8 index, Flaw flaw, uint128 participants) internal returns (bytes4 refusal) {
        RoundView memory live = _live();
        bytes32 place = _place(live.round, live.attempt);
        // Until it is done this is nobody's; another attempt has another place.
        if (live.participants == 0) _sumFlaw[place] = flaw;
        uint256 threshold = _federation.threshold();
        bytes32 root = _sumRoot(live.round, live.attempt, participants);
        bytes32 basis = _basis(live.round, live.attempt);
        if (flaw != Flaw.None && _chance(8)) basis = "elsewhere";
        refusal = _send(
            _accountOf(index),
            0,
            abi.encodeCall(
                IFederation.commitAggregate, (live.round, live.attempt, 0, participants, basis, root, CID)
            )
        );
        if (refusal == 0) _thresholdOf[place] = threshold;
    }

    function _open(uint8 index, Flaw flaw) internal {
        RoundView memory live = _live();
        bytes32 place = _place(live.round, live.attempt);
        bytes32 root = _openingRoot(live.round, live.attempt, flaw);
        bytes memory data = abi.encodeCall(IFederation.publishOpening, (live.round, live.attempt, 0, root, CID));
        if (_send(_accountOf(index), 0, data) != 0) return;
        _openers[place].push(index);
        _openingFlaw[place][index] = flaw;
    }

    /// @dev The first of these members, as many as the locked set asks for.
    function _first(uint256 members, uint256 count) internal pure returns (uint128 first) {
        for (uint256 i = 0; i < 64 && count != 0; i++) {
            if (!_holds(members, i)) continue;
            first |= uint128(1 << i);
            count--;
        }
    }

    /// @dev Whether an honest member can close the round: enough true openings, and noise that is in bounds.
    function _isDecodable(RoundView memory live) internal view returns (bool) {
        bytes32 place = _place(live.round, live.attempt);
        return _flawed(_updateFlaw[place], live.participants, Flaw.Noise) == 0
            && _size(_flawed(_openingFlaw[place], live.opened, Flaw.None)) >= _thresholdOf[place];
    }

    function _close(uint8 index, Flaw flaw) internal {
        RoundView memory live = _live();
        bytes32 place = _place(live.round, live.attempt);
        uint256 usable = flaw == Flaw.None ? _flawed(_openingFlaw[place], live.opened, Flaw.None) : live.opened;
        uint128 openers = _first(usable, _thresholdOf[place]);
        Flaw before = _resultFlaw[place];
        _resultFlaw[place] = flaw;
        bytes memory data = _closing(live, openers, flaw);
        if (_send(_accountOf(index), 0, data) != 0) _resultFlaw[place] = before;
        else _givenUp = 0;
    }

    function _closing(RoundView memory live, uint128 openers, Flaw flaw) private view returns (bytes memory) {
        (bytes32 keySum, bytes32 result) = _resultRoots(live.round, live.attempt, live.participants);
        return abi.encodeCall(
            IFederation.commitResult,
            (
                live.round,
                live.attempt,
                0,
                openers,
                _federation.basisOf(live.round, 0),
                keySum,
                result,
                CID,
                _modelOf(live.round, live.attempt, flaw),
                CID
            )
        );
    }

    // ---------------------------------------------------------------- batches

    /// @dev These members' updates, each by its signature; a liar's is flawed now and then.
    function _signedUpdates(RoundView memory live, uint256 members) internal returns (SignedUpdate[] memory lines) {
        lines = new SignedUpdate[](_size(members));
        for ((uint8 i, uint256 next) = (0, 0); next < lines.length; i++) {
            if (!_holds(members, i)) continue;
            lines[next] = _prepareUpdate(live, i, _lie(i, Flaw.Noise, Flaw.Absent));
            lines[next].signature = _sign(i, _updateStructure(live, lines[next]));
            next++;
        }
    }

    function _signedReceipts(RoundView memory live, uint256 members) internal returns (SignedReceipt[] memory lines) {
        lines = new SignedReceipt[](_size(members));
        for ((uint8 i, uint256 next) = (0, 0); next < lines.length; i++) {
            if (!_holds(members, i)) continue;
            lines[next].whole = _whole(live, i);
            lines[next].signature = _sign(i, _receiptStructure(live, lines[next].whole));
            next++;
        }
    }

    /// @dev Of members that have not opened yet.
    function _signedOpenings(RoundView memory live, uint256 members) internal returns (SignedOpening[] memory lines) {
        lines = new SignedOpening[](_size(members));
        mapping(uint256 => Flaw) storage flawOf = _openingFlaw[_place(live.round, live.attempt)];
        OpeningStatement memory said = OpeningStatement(live.round, live.attempt, 0, live.participants, 0, CID);
        for ((uint8 i, uint256 next) = (0, 0); next < lines.length; i++) {
            if (!_holds(members, i)) continue;
            flawOf[i] = _lie(i, Flaw.Absent, Flaw.Wrong);
            said.root = _openingRoot(live.round, live.attempt, flawOf[i]);
            lines[next++] = SignedOpening(said.root, said.cid, _sign(i, _openingStructure(said)));
        }
    }

    // ---------------------------------------------------------------- playing on

    /// @dev Everyone who is heard plays on, liars mostly truly, until the phase is `wanted`, or nothing more can be done.
    function _reach(Phase wanted) internal {
        for (uint256 i = 0; i < 8; i++) {
            Phase phase = _phase();
            if (phase == wanted || phase == Phase.Finished) return;
            if (phase == Phase.Enrolling) _allEnrol();
            else if (phase == Phase.Training) _allCommit();
            else if (phase == Phase.Receipts) _allPost();
            else if (phase == Phase.Aggregating) _aggregateInTurn();
            else if (phase == Phase.Opening) _allOpen();
            else _closeSomehow();
            if (phase == _phase() && phase != Phase.Enrolling) return;
        }
    }

    /// @dev A lie now and then, while all play on.
    function _seldom(uint256 index, Flaw first, Flaw last) private returns (Flaw) {
        return _chance(4) ? _lie(index, first, last) : Flaw.None;
    }

    function _allEnrol() private {
        for (uint256 i = 0; i < _setting.founders; i++) {
            if (!_holds(_federation.bonded(), i)) _enrol(_people[i]);
        }
    }

    function _allCommit() private {
        uint256 silent = _heard() & ~_live().committed;
        for (uint8 i = 0; i < 64; i++) {
            if (_holds(silent, i)) _commit(i, _seldom(i, Flaw.Noise, Flaw.Absent));
        }
        if (_phase() == Phase.Training) _pass(TRAINING);
    }

    function _allPost() private {
        uint256 silent = _heard() & ~_live().received;
        for (uint8 i = 0; i < 64; i++) {
            if (_holds(silent, i)) _postReceipt(i);
        }
        if (_phase() == Phase.Receipts) _pass(RECEIPTS);
    }

    function _aggregateInTurn() private {
        for (uint256 i = 0; i < 8 && _phase() == Phase.Aggregating; i++) {
            uint8 turn = _federation.aggregatorNow();
            uint128 participants = _agreed(_live());
            bytes4 refusal = FederationNotMember.selector;
            if (_holds(_heard(), turn)) refusal = _aggregate(turn, _seldom(turn, Flaw.Absent, Flaw.Wrong), participants);
            if (refusal == 0) return;
            if (refusal != FederationTooClose.selector) _pass(TURN);
            else if (participants & ~_givenUp == 0) _removeAbsent(participants);
            else if (_aggregate(turn, Flaw.None, participants & _givenUp) != 0) _pass(TURN);
        }
    }

    /// @dev After a set was abandoned, members whose update is missing in the next one stand in its way: they are voted out.
    function _removeAbsent(uint128 participants) private {
        uint256 absent = _heard() & _givenUp & ~uint256(participants) & ~uint256(_federation.leaving());
        uint256 voters = _heard();
        for (uint8 i = 0; i < 64; i++) {
            if (!_holds(absent, i)) continue;
            for (uint8 j = 0; j < 64; j++) {
                if (_holds(voters, j) && _send(_accountOf(j), 0, abi.encodeCall(ICouncil.voteToRemove, (i))) != 0) break;
            }
        }
    }

    function _allOpen() private {
        uint256 silent = _heard() & ~_live().opened;
        for (uint8 i = 0; i < 64; i++) {
            if (_holds(silent, i)) _open(i, _seldom(i, Flaw.Absent, Flaw.Wrong));
        }
    }

    /// @dev An honest member closes the round if it can be; a liar does it somehow.
    function _closeSomehow() private {
        uint8 index = _drawFrom(_heard());
        Flaw flaw = _lie(index, Flaw.Absent, Flaw.Model);
        if (flaw != Flaw.None || _isDecodable(_live()) || !_holds(_honest, index)) _close(index, flaw);
    }

    /// @dev Time passes; nobody honest lets a demand pass.
    function _pass(uint256 seconds_) internal virtual;
}
