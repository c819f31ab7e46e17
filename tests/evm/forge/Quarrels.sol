// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ICouncil} from "../../../contracts/ICouncil.sol";
import {IFederation} from "../../../contracts/IFederation.sol";
import {vm} from "./Cheats.sol";
import {Numbers} from "./Numbers.sol";
import {Statements} from "./Statements.sol";

/// @title Challenges and demands, with evidence made from what was stated; and what must become of them.
abstract contract Quarrels is Statements {
    /// @dev A demand that is open, and what shows it: the number that fills the object, if there is one.
    struct Asked {
        Page page;
        bytes32 name;
        uint256 number;
        bool exists;
        bool honest; // its author is
    }

    Asked[] internal _asked;
    Page private _last; // that was answered, or whose demand was closed

    // ---------------------------------------------------------------- challenges

    /// @dev Whether challenges are heard now.
    function _isOpen() internal view returns (bool) {
        return _federation.phaseOf(1) != Phase.Enrolling && block.timestamp < _federation.challengesEndAt();
    }

    /// @dev A challenge against a statement on record, whose evidence is right, does what it should.
    function _judged(bytes4 refusal, bool faulty) internal pure {
        if (faulty) _hold(refusal == 0, "a lie stands");
        else _hold(refusal == FederationHonest.selector, "a true statement is not honest");
    }

    /// @dev All commitments of an attempt; of those that are rebuilt from their leaves, the shares root.
    function _commits(uint32 round, uint32 attempt, uint256 rebuilt) internal view returns (Line[] memory lines) {
        uint8[] storage order = _committers[_place(round, attempt)];
        lines = new Line[](order.length);
        for (uint256 i = 0; i < lines.length; i++) {
            bytes32 word = _holds(rebuilt, order[i])
                ? _sharesRootOf(round, attempt, order[i])
                : _commitmentOf(round, attempt, order[i]);
            lines[i] = Line(order[i], word);
        }
    }

    /// @dev The claim's proof, then the participants'.
    function _updateProofs(uint32 round, uint32 attempt, uint256 participants, uint256 claim)
        internal
        view
        returns (bytes32[] memory proofs)
    {
        uint256 length = 16 + _depth;
        proofs = new bytes32[](length * (1 + _size(participants)));
        _put(proofs, 0, claim, _depth);
        uint256 next = length;
        uint8[] storage order = _committers[_place(round, attempt)];
        for (uint256 i = 0; i < order.length; i++) {
            if (!_holds(participants, order[i])) continue;
            _put(proofs, next, _residueOf(round, attempt, order[i]), _depth);
            next += length;
        }
    }

    function _put(bytes32[] memory proofs, uint256 next, uint256 number, uint256 depth) internal pure {
        bytes32[] memory proof = Numbers.page(number, depth, 0);
        for (uint256 i = 0; i < proof.length; i++) proofs[next + i] = proof[i];
    }

    function _challengeAggregate(address challenger, uint32 round) internal {
        RoundView memory seen = _federation.roundAt(round);
        Flaw flaw = _sumFlaw[_place(round, seen.attempt)];
        bool stated = _federation.aggregateOf(round, 0).root != 0;
        bytes memory data = abi.encodeCall(
            ICouncil.challengeAggregate,
            (
                round,
                0,
                uint64(_draw(1 << _depth)),
                _commits(round, seen.attempt, seen.participants),
                _updateProofs(round, seen.attempt, seen.participants, _sumOf(round, seen.attempt, seen.participants))
            )
        );
        bool heard = stated && _isOpen();
        bytes4 refusal = _send(challenger, 0, data);
        if (heard && flaw != Flaw.Absent) _judged(refusal, flaw == Flaw.Wrong);
        else _hold(refusal != 0, "a challenge of nothing was heard");
    }

    function _openingLines(bytes32 place, uint32 round, uint32 attempt, uint256 openers)
        internal
        view
        returns (Line[] memory lines)
    {
        uint8[] storage order = _openers[place];
        lines = new Line[](order.length);
        for (uint256 i = 0; i < lines.length; i++) {
            bytes32 root = _openingRoot(round, attempt, _openingFlaw[place][order[i]]);
            lines[i] = Line(order[i], _holds(openers, order[i]) ? bytes32(0) : root);
        }
    }

    function _openingProofs(bytes32 place, uint256 openers, uint256 claim)
        internal
        view
        returns (bytes32[] memory proofs)
    {
        uint256 length = 16 + Numbers.KEY_DEPTH;
        proofs = new bytes32[](length * (1 + _size(openers)));
        _put(proofs, 0, claim, Numbers.KEY_DEPTH);
        uint256 next = length;
        uint8[] storage order = _openers[place];
        for (uint256 i = 0; i < order.length; i++) {
            if (!_holds(openers, order[i])) continue;
            _put(proofs, next, _elementOf(_openingFlaw[place][order[i]]), Numbers.KEY_DEPTH);
            next += length;
        }
    }

    function _challengeKeySum(address challenger, uint32 round) internal {
        uint32 attempt = _federation.roundAt(round).attempt;
        bytes32 place = _place(round, attempt);
        Result memory result = _federation.resultOf(round, 0);
        bytes memory data = abi.encodeCall(
            ICouncil.challengeKeySum,
            (
                round,
                0,
                uint64(_draw(32)),
                _openingLines(place, round, attempt, result.openers),
                _openingProofs(place, result.openers, _keySumOf(_resultFlaw[place]))
            )
        );
        bool plain = _resultFlaw[place] != Flaw.Absent && result.openers != 0
            && _flawed(_openingFlaw[place], result.openers, Flaw.None) == result.openers;
        bool heard = result.modelDigest != 0 && _isOpen();
        bytes4 refusal = _send(challenger, 0, data);
        // With wrong openings among them a key sum of ones may be the true one.
        if (heard && plain) _judged(refusal, _resultFlaw[place] == Flaw.Key);
        else if (!heard) _hold(refusal != 0, "a challenge of nothing was heard");
    }

    function _challengeResult(address challenger, uint32 round) internal {
        RoundView memory seen = _federation.roundAt(round);
        bytes32 place = _place(round, seen.attempt);
        Flaw flaw = _resultFlaw[place];
        bytes memory data = _resultEvidence(seen, _keySumOf(flaw));
        bool spoiled = _flawed(_updateFlaw[place], seen.participants, Flaw.Noise) != 0;
        bool heard = _federation.resultOf(round, 0).modelDigest != 0 && _isOpen();
        bytes4 refusal = _send(challenger, 0, data);
        if (heard && flaw != Flaw.Absent) _judged(refusal, flaw == Flaw.Key || flaw == Flaw.Wrong || spoiled);
        else _hold(refusal != 0, "a challenge of nothing was heard");
    }

    function _resultEvidence(RoundView memory seen, uint256 element) private returns (bytes memory) {
        uint256 claim = _resultOf(seen.round, seen.attempt, seen.participants);
        return abi.encodeCall(
            ICouncil.challengeResult,
            (
                seen.round,
                0,
                uint64(_draw(64 << _depth)),
                Numbers.elements(element),
                _commits(seen.round, seen.attempt, seen.participants),
                _updateProofs(seen.round, seen.attempt, seen.participants, claim)
            )
        );
    }

    function _challengeResidue(address challenger, uint32 round, uint32 attempt, uint8 index) internal {
        bytes32 place = _place(round, attempt);
        Flaw flaw = _updateFlaw[place][index];
        bool committed = false;
        for (uint256 i = 0; i < _committers[place].length; i++) committed = committed || _committers[place][i] == index;
        bytes memory data = abi.encodeCall(
            ICouncil.challengeResidue,
            (
                round,
                attempt,
                index,
                uint64(_draw(1 << _depth)),
                _commits(round, attempt, 1 << index),
                Numbers.page(_residueOf(round, attempt, index), _depth, 0)
            )
        );
        bool heard = committed && flaw != Flaw.Absent && _isOpen() && _holds(_federation.bonded(), index);
        bytes4 refusal = _send(challenger, 0, data);
        if (heard) _judged(refusal, flaw == Flaw.Residue);
        else _hold(refusal != 0, "a challenge of nothing was heard");
    }

    /// @dev A liar signs two openings of one place; an honest member signs one, whatever else it says of where it lies.
    function _challengeEquivocation(address challenger, uint8 index, OpeningStatement memory first) internal {
        OpeningStatement memory second = abi.decode(abi.encode(first), (OpeningStatement));
        bool lies = _isLiar[_accountOf(index)];
        if (!lies) second.cid = "another cid";
        else if (_chance(2)) second.root = "another root";
        else second.participants ^= 1;
        bytes memory data = abi.encodeCall(
            ICouncil.challengeEquivocation, (first, _signed(index, first), second, _signed(index, second))
        );
        bool heard = _isOpen() && _holds(_federation.bonded(), index);
        bytes4 refusal = _send(challenger, 0, data);
        if (heard) _judged(refusal, lies);
        else _hold(refusal != 0, "a challenge of nothing was heard");
    }

    function _signed(uint256 index, OpeningStatement memory said) private returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(_keyOf[_accountOf(index)], _digest(_openingStructure(said)));
        return abi.encodePacked(r, s, v);
    }

    // ---------------------------------------------------------------- demands

    /// @dev Demands a page of what is on record of this kind in this round; of many, one.
    function _demand(address demander, Kind kind, uint32 round) internal {
        Asked memory asked;
        (asked.page.kind, asked.page.round) = (kind, round);
        asked.page.attempt = _federation.roundAt(round).attempt;
        if (kind == Kind.Ciphertext && asked.page.attempt != 0 && _chance(2)) {
            asked.page.attempt = uint32(_draw(asked.page.attempt));
        }
        Line[] memory list = _describe(asked);
        uint256 depth = kind == Kind.Opening || kind == Kind.KeySum ? Numbers.KEY_DEPTH : _depth;
        asked.page.level = uint8(_draw(depth + 1));
        asked.page.position = uint64(_draw(1 << depth - asked.page.level));
        asked.name = keccak256(abi.encode(asked.page));
        asked.honest = !_isLiar[_accountOf(asked.page.index)];
        bytes memory data = abi.encodeCall(ICouncil.demandPage, (asked.page, list));
        if (_send(demander, _council.demandDeposit(), data) != 0) return;
        _deposits++;
        _asked.push(asked);
        _hold(asked.exists || !asked.honest, "the tests know what an honest member stated");
    }

    /// @dev Fills in whose statement it is, and what it holds; gives the list that it stands in.
    function _describe(Asked memory asked) private returns (Line[] memory list) {
        Page memory page = asked.page;
        bytes32 place = _place(page.round, page.attempt);
        if (page.kind == Kind.Ciphertext) return _describeUpdate(asked, place);
        if (page.kind == Kind.Opening) return _describeOpening(asked, place);
        uint256 participants = _federation.roundAt(page.round).participants;
        Flaw flaw = page.kind == Kind.Aggregate ? _sumFlaw[place] : _resultFlaw[place];
        asked.exists = flaw != Flaw.Absent;
        if (page.kind == Kind.Aggregate) {
            Aggregate memory sum = _federation.aggregateOf(page.round, 0);
            (page.index, page.word) = (sum.aggregator, sum.root);
            asked.number = _sumOf(page.round, page.attempt, participants);
            return list;
        }
        Result memory result = _federation.resultOf(page.round, 0);
        page.index = result.member;
        page.word = page.kind == Kind.KeySum ? result.keySumRoot : result.resultRoot;
        asked.number = page.kind == Kind.Result
            ? _resultOf(page.round, page.attempt, participants)
            : _keySumOf(flaw);
    }

    function _describeUpdate(Asked memory asked, bytes32 place) private returns (Line[] memory) {
        Page memory page = asked.page;
        if (_committers[place].length != 0) page.index = _committers[place][_draw(_committers[place].length)];
        page.word = _commitmentOf(page.round, page.attempt, page.index);
        asked.number = _residueOf(page.round, page.attempt, page.index);
        asked.exists = _updateFlaw[place][page.index] != Flaw.Absent;
        return _commits(page.round, page.attempt, 0);
    }

    function _describeOpening(Asked memory asked, bytes32 place) private returns (Line[] memory) {
        Page memory page = asked.page;
        if (_openers[place].length != 0) page.index = _openers[place][_draw(_openers[place].length)];
        Flaw flaw = _openingFlaw[place][page.index];
        page.word = _openingRoot(page.round, page.attempt, flaw);
        asked.number = _elementOf(flaw);
        asked.exists = flaw != Flaw.Absent;
        return _openingLines(place, page.round, page.attempt, 0);
    }

    /// @dev Shows what was demanded, if it can be shown.
    function _show(address account, uint256 which) internal {
        Asked memory asked = _asked[which];
        Page memory page = asked.page;
        bool isKey = page.kind == Kind.Opening || page.kind == Kind.KeySum;
        uint256 depth = isKey ? Numbers.KEY_DEPTH : _depth;
        bytes32 other = page.kind == Kind.Ciphertext ? _sharesRootOf(page.round, page.attempt, page.index) : bytes32(0);
        bytes32[] memory words = Numbers.page(asked.number, depth, page.level);
        bool inTime = block.timestamp < _council.deadlineOf(asked.name);
        bytes4 refusal = _send(account, 0, abi.encodeCall(ICouncil.showPage, (page, other, words)));
        _hold((refusal == 0) == (inTime && asked.exists), "what exists can be shown, in time, and nothing else");
        if (refusal == 0) _forget(which);
    }

    function _closeDemand(address account, uint256 which) internal {
        Asked memory asked = _asked[which];
        bool late = block.timestamp >= _council.deadlineOf(asked.name);
        bytes4 refusal = _send(account, 0, abi.encodeCall(ICouncil.closeDemand, (asked.page)));
        _hold((refusal == 0) == late, "a demand is closed after its deadline, and always then");
        if (refusal == 0) _forget(which);
    }

    function _forget(uint256 which) private {
        _deposits--;
        _last = _asked[which].page;
        _asked[which] = _asked[_asked.length - 1];
        _asked.pop();
    }

    /// @dev A demand is answered once, or closed once, and its page not demanded again.
    function _answerAgain(address account) internal {
        if (_last.word == 0) return;
        bytes4 refusal = _send(account, 0, abi.encodeCall(ICouncil.showPage, (_last, 0, new bytes32[](0))));
        _hold(refusal == FederationNoDemand.selector, "a demand is answered twice");
        refusal = _send(account, 0, abi.encodeCall(ICouncil.closeDemand, (_last)));
        _hold(refusal == FederationNoDemand.selector, "a demand is closed twice");
        bytes memory data = abi.encodeCall(ICouncil.demandPage, (_last, new Line[](0)));
        refusal = _send(account, _council.demandDeposit(), data);
        _hold(refusal == FederationAlreadyDemanded.selector, "a page is demanded twice");
    }

    /// @inheritdoc Statements
    function _pass(uint256 seconds_) internal override {
        uint256 until = _clock + seconds_;
        for (uint256 i = _asked.length; i != 0; i--) {
            Asked storage asked = _asked[i - 1];
            uint256 deadline = _council.deadlineOf(asked.name);
            if (asked.honest && _clock < deadline && deadline <= until) _show(_accountOf(asked.page.index), i - 1);
        }
        _clock = until;
        vm.warp(until);
    }
}
