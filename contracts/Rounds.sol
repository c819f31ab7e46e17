// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {_bit, _lowest, _sizeOf} from "./Bitmaps.sol";
import {IFederation} from "./IFederation.sol";
import {Members} from "./Members.sol";
import {OPENING_TYPE, RECEIPT_TYPE, UPDATE_TYPE, _domainOf, _signedDigest} from "./Signatures.sol";

/// @title What members say in a round (P1–P5), each for itself or several in one transaction.
abstract contract Rounds is Members {
    // ---------------------------------------------------------------- statements

    /// @inheritdoc IFederation
    function commitUpdate(
        uint32 round,
        uint32 attempt,
        bytes32 commitment,
        bytes32 ciphertextCid,
        bytes32 sharesCid
    ) external {
        uint8 index = _memberIndex(msg.sender);
        (Attempt memory live,) = _admit(round, attempt, Phase.Training, Phase.Training);
        if (live.committed & _bit(index) != 0) revert FederationAlreadyCommitted();
        Statements storage said = _statements[round][attempt];
        said.commitments = _committed(live, said.commitments, round, index, commitment, ciphertextCid, sharesCid);
        _attempts[round] = live;
    }

    /// @inheritdoc IFederation
    function commitUpdates(uint32 round, uint32 attempt, SignedUpdate[] calldata updates) external {
        (Attempt memory live,) = _admit(round, attempt, Phase.Training, Phase.Training);
        bytes32 domain = _domainOf(address(this));
        Statements storage said = _statements[round][attempt];
        bytes32 commitments = said.commitments;
        for (uint256 i = 0; i < updates.length; i++) {
            SignedUpdate calldata line = updates[i];
            bytes32 digest = keccak256(
                abi.encode(UPDATE_TYPE, round, attempt, line.commitment, line.ciphertextCid, line.sharesCid)
            );
            uint8 index = _signerOf(domain, digest, line.signature);
            if (live.committed & _bit(index) != 0) continue;
            commitments = _committed(
                live, commitments, round, index, line.commitment, line.ciphertextCid, line.sharesCid
            );
        }
        said.commitments = commitments;
        _attempts[round] = live;
    }

    /// @inheritdoc IFederation
    function postReceipt(uint32 round, uint32 attempt, uint128 whole) external {
        uint8 index = _memberIndex(msg.sender);
        (Attempt memory live,) = _admit(round, attempt, Phase.Receipts, Phase.Receipts);
        Statements storage said = _statements[round][attempt];
        if (said.received & _bit(index) != 0) revert FederationAlreadyPosted();
        said.received = _receive(said, live, round, index, whole, said.received);
        said.lastReceiptAt = uint40(block.timestamp);
    }

    /// @inheritdoc IFederation
    function postReceipts(uint32 round, uint32 attempt, SignedReceipt[] calldata receipts) external {
        (Attempt memory live,) = _admit(round, attempt, Phase.Receipts, Phase.Receipts);
        bytes32 domain = _domainOf(address(this));
        Statements storage said = _statements[round][attempt];
        uint64 received = said.received;
        for (uint256 i = 0; i < receipts.length; i++) {
            SignedReceipt calldata line = receipts[i];
            bytes32 digest = keccak256(abi.encode(RECEIPT_TYPE, round, attempt, line.whole));
            uint8 index = _signerOf(domain, digest, line.signature);
            if (received & _bit(index) == 0) received = _receive(said, live, round, index, line.whole, received);
        }
        if (received == said.received) return; // nothing was said: the time of the last receipt stays
        said.received = received;
        said.lastReceiptAt = uint40(block.timestamp);
    }

    /// @inheritdoc IFederation
    function complain(uint32 round, uint32 attempt, uint128 dealers, bytes32 evidenceCid) external {
        uint8 index = _memberIndex(msg.sender);
        (Attempt memory live,) = _admit(round, attempt, Phase.Training, Phase.Receipts);
        Statements storage said = _statements[round][attempt];
        if (said.complainers & _bit(index) != 0) revert FederationAlreadyPosted();
        _checkCommitted(dealers, live);
        if (dealers == 0 || evidenceCid == 0) revert FederationEmptyDigest();
        said.complainers |= _bit(index);
        said.complained |= uint64(dealers);
        emit Complained(round, attempt, index, dealers, evidenceCid);
    }

    /// @inheritdoc IFederation
    function commitAggregate(
        uint32 round,
        uint32 attempt,
        uint16 group,
        uint128 participants,
        bytes32 basis,
        bytes32 root,
        bytes32 cid
    ) external {
        uint8 index = _memberIndex(msg.sender);
        (Attempt memory live, uint256 receipts) = _admit(round, attempt, Phase.Aggregating, Phase.Aggregating);
        _checkGroup(group);
        uint256 turn = _turnOf(receipts);
        uint8 expected = _aggregatorOf(live, turn);
        if (index != expected) revert FederationNotAggregator(expected);
        if (root == 0 || cid == 0) revert FederationEmptyDigest();
        _checkBasis(basis, _statements[round][attempt].commitments);
        _checkParticipants(live, participants);

        _countMissed(live, turn);
        _attempts[round].locked = true;
        Group storage locked = _groups[round][group];
        locked.participants = uint64(participants);
        locked.aggregator = index;
        locked.threshold = uint8(threshold());
        locked.aggregateRoot = root;
        emit AggregateCommitted(round, attempt, group, index, participants, root, cid);
    }

    /// @inheritdoc IFederation
    function publishOpening(uint32 round, uint32 attempt, uint16 group, bytes32 root, bytes32 cid) external {
        uint8 index = _memberIndex(msg.sender);
        _admit(round, attempt, Phase.Opening, Phase.Closing);
        _checkGroup(group);
        Group storage locked = _groups[round][group];
        if (locked.opened & _bit(index) != 0) revert FederationAlreadyOpened();
        locked.openings = _opened(locked.openings, round, attempt, group, index, root, cid);
        locked.opened |= _bit(index);
    }

    /// @inheritdoc IFederation
    function publishOpenings(uint32 round, uint32 attempt, uint16 group, SignedOpening[] calldata lines) external {
        _admit(round, attempt, Phase.Opening, Phase.Closing);
        _checkGroup(group);
        bytes32 domain = _domainOf(address(this));
        Group storage locked = _groups[round][group];
        (uint64 opened, uint64 participants, bytes32 openings) = (locked.opened, locked.participants, locked.openings);
        for (uint256 i = 0; i < lines.length; i++) {
            SignedOpening calldata line = lines[i];
            bytes32 digest = keccak256(
                abi.encode(OPENING_TYPE, round, attempt, group, participants, line.root, line.cid)
            );
            uint8 index = _signerOf(domain, digest, line.signature);
            if (opened & _bit(index) != 0) continue;
            openings = _opened(openings, round, attempt, group, index, line.root, line.cid);
            opened |= _bit(index);
        }
        locked.opened = opened;
        locked.openings = openings;
    }

    /// @inheritdoc IFederation
    function commitResult(
        uint32 round,
        uint32 attempt,
        uint16 group,
        uint128 openers,
        bytes32 basis,
        bytes32 keySumRoot,
        bytes32 resultRoot,
        bytes32 resultCid,
        bytes32 modelDigest,
        bytes32 modelCid
    ) external {
        uint8 index = _memberIndex(msg.sender);
        _admit(round, attempt, Phase.Closing, Phase.Closing);
        _checkGroup(group);
        if (keySumRoot == 0 || resultRoot == 0 || resultCid == 0 || modelDigest == 0 || modelCid == 0) {
            revert FederationEmptyDigest();
        }
        _checkBasis(basis, basisOf(round, group));
        Group storage locked = _groups[round][group];
        if (openers & ~uint128(locked.opened) != 0 || _sizeOf(openers) != locked.threshold) {
            revert FederationBadOpeners(openers);
        }

        locked.closer = index;
        locked.openers = uint64(openers);
        locked.closedAt = uint40(block.timestamp);
        locked.keySumRoot = keySumRoot;
        locked.resultRoot = resultRoot;
        locked.modelDigest = modelDigest;
        _begin(round + 1);
        emit ResultCommitted(
            round, attempt, group, index, openers, keySumRoot, resultRoot, resultCid, modelDigest, modelCid
        );
    }

    /// @inheritdoc IFederation
    function voteToStop(uint32 round, bytes32 modelDigest) external {
        uint8 index = _memberIndex(msg.sender);
        if (round != _round || round == 1) revert FederationWrongRound(_round);
        (Phase phase, Attempt memory live,) = _phaseOf(round);
        if (phase == Phase.Finished) revert FederationWrongPhase(phase);
        _checkBasis(modelDigest, _modelBefore(round));
        if (live.stopVotes & _bit(index) != 0) revert FederationAlreadyVoted();

        _attempts[round].stopVotes |= _bit(index);
        _lastVoteAt = uint40(block.timestamp);
        emit StopVoted(round, index);
    }

    // ---------------------------------------------------------------- views

    /// @inheritdoc IFederation
    function roundAt(uint32 round) external view returns (RoundView memory) {
        if (round == 0 || round > _round) revert FederationWrongRound(_round);
        Attempt memory attempt = _attempts[round];
        if (round == _round) (attempt,,) = _liveAttempt(_current());
        Statements storage said = _statements[round][attempt.attempt];
        Group storage locked = _groups[round][0];
        return RoundView({
            round: round,
            attempt: attempt.attempt,
            startedAt: attempt.startedAt,
            lastCommitAt: attempt.lastCommitAt,
            lastReceiptAt: said.lastReceiptAt,
            committed: attempt.committed,
            received: said.received,
            participants: locked.participants,
            opened: locked.opened,
            stopVotes: attempt.stopVotes
        });
    }

    /// @inheritdoc IFederation
    function aggregatorNow() external view returns (uint8) {
        if (_roundBegan() == 0) revert FederationWrongPhase(Phase.Enrolling);
        if (_standing == 0) revert FederationWrongPhase(Phase.Finished);
        (Attempt memory live,, uint256 receipts) = _liveAttempt(_current());
        return live.locked ? _groups[_round][0].aggregator : _aggregatorOf(live, _turnOf(receipts));
    }

    /// @inheritdoc IFederation
    function commitmentsOf(uint32 round, uint32 attempt) external view returns (bytes32) {
        return _statements[round][attempt].commitments;
    }

    /// @inheritdoc IFederation
    function receiptOf(uint32 round, uint32 attempt, uint8 index) external view returns (uint128) {
        Statements storage said = _statements[round][attempt];
        if (index >= MAX_MEMBERS || said.received & _bit(index) == 0) return 0;
        if (round > _round || attempt != _attempts[round].attempt) return 0;
        return _attempts[round].committed ^ said.lacking[index];
    }

    /// @inheritdoc IFederation
    function aggregateOf(uint32 round, uint16 group) external view returns (Aggregate memory) {
        if (round > _round) return Aggregate(0, 0, 0);
        Group storage locked = _groups[round][group];
        return Aggregate(locked.aggregator, locked.participants, locked.aggregateRoot);
    }

    /// @inheritdoc IFederation
    function openingsOf(uint32 round, uint16 group) external view returns (bytes32) {
        return round > _round ? bytes32(0) : _groups[round][group].openings;
    }

    /// @inheritdoc IFederation
    function basisOf(uint32 round, uint16 group) public view returns (bytes32) {
        Group storage locked = _groups[round][group];
        if (round > _round || locked.participants == 0) return 0;
        bytes32 commitments = _commitmentsOf(round, _lockedAttempt(round));
        return keccak256(abi.encode(_modelBefore(round), commitments, locked.participants, locked.openings));
    }

    /// @inheritdoc IFederation
    function resultOf(uint32 round, uint16 group) external view returns (Result memory) {
        if (round >= _round || round == 0) return Result(0, 0, 0, 0, 0);
        Group storage locked = _groups[round][group];
        return Result({
            member: locked.closer,
            openers: locked.openers,
            keySumRoot: locked.keySumRoot,
            resultRoot: locked.resultRoot,
            modelDigest: locked.modelDigest
        });
    }

    /// @inheritdoc IFederation
    function model() external view returns (bytes32) {
        return _modelBefore(_round);
    }

    // ---------------------------------------------------------------- checks

    /// @dev Lets statements in: about the current round, in one of two neighbouring phases, in the live attempt. A
    /// transaction that comes late is refused here and never lands in another attempt.
    function _admit(uint32 round, uint32 attempt, Phase first, Phase last)
        private
        view
        returns (Attempt memory live, uint256 receipts)
    {
        if (round != _round) revert FederationWrongRound(_round);
        Phase phase;
        (phase, live, receipts) = _phaseOf(round);
        if (phase < first || phase > last) revert FederationWrongPhase(phase);
        if (attempt != live.attempt) revert FederationWrongAttempt(live.attempt);
    }

    /// @dev Only committed updates can be spoken of.
    function _checkCommitted(uint128 updates, Attempt memory live) private pure {
        uint128 unknown = updates & ~uint128(live.committed);
        if (unknown != 0) revert FederationUnknownUpdates(unknown);
    }

    /// @dev Whether U may be locked (P3). Twin: check_participants(). Each loop ends at MAX_MEMBERS or MAX_ABANDONED.
    function _checkParticipants(Attempt memory live, uint128 participants) private view {
        uint256 size = _sizeOf(participants);
        uint256 least = minParticipants();
        if (size < least) revert FederationTooFewParticipants(size, least);
        _checkCommitted(participants, live);
        Statements storage said = _statements[_round][live.attempt];
        // One receipt is enough to leave an update out, and so is one complaint: it may show what no receipt says.
        uint128 agreed = live.committed & ~said.complained;
        uint256 covering = 0;
        for (uint256 received = said.received; received != 0; received &= received - 1) {
            uint128 lacking = said.lacking[_lowest(received)];
            agreed &= ~lacking;
            if (participants & lacking == 0) covering++;
        }
        least = threshold();
        if (covering < least) revert FederationNotCovered(covering, least);
        uint64[] storage abandoned = _abandoned[_modelBefore(_round)];
        uint256 count = abandoned.length;
        // Who was not in the set that was given up last may be too close to it, and so left out.
        if (count != 0) agreed &= abandoned[count - 1];
        if (agreed & ~participants != 0) revert FederationCensored(agreed & ~participants);
        _checkFar(abandoned, participants, least);
    }

    /// @dev Of the sets given up on this model, all that differ from this one are one and the same, and far from it (P3.8).
    function _checkFar(uint64[] storage abandoned, uint128 participants, uint256 least) private view {
        // Whoever was slashed may have been honest and away: only t members may say that its update need not be hidden.
        uint256 gone = _removed;
        uint256 other = 0;
        for (uint256 i = 0; i < abandoned.length; i++) {
            uint256 apart = (abandoned[i] ^ participants) & ~gone;
            if (apart == 0) continue;
            if (_sizeOf(apart) <= least || (other != 0 && other != apart)) revert FederationTooClose(abandoned[i]);
            other = apart;
        }
    }

    /// @dev A strike for who posted no receipt, and for who let its turn to aggregate pass (P2, P3); not where somebody complained:
    /// whoever has seen bad dealings proven may have had no set to post.
    function _countMissed(Attempt memory live, uint256 turn) private {
        Statements storage said = _statements[_round][live.attempt];
        if (said.complained != 0) turn = 0;
        uint256 missed = _standing & ~said.received;
        for (uint256 i = 0; i < turn; i++) missed |= _bit(_aggregatorOf(live, i));
        missed &= ~uint256(_slashed);
        if (missed == 0) return;
        _strike(missed);
        emit DutiesMissed(_round, live.attempt, uint128(missed));
    }

    // ---------------------------------------------------------------- single statements, signed or sent

    /// @dev The list's running digest with one commitment more; `live` holds it too.
    function _committed(
        Attempt memory live,
        bytes32 commitments,
        uint32 round,
        uint8 index,
        bytes32 commitment,
        bytes32 ciphertextCid,
        bytes32 sharesCid
    ) private returns (bytes32) {
        if (commitment == 0 || ciphertextCid == 0 || sharesCid == 0) revert FederationEmptyDigest();
        live.lastCommitAt = uint40(block.timestamp);
        live.committed |= _bit(index);
        emit UpdateCommitted(round, live.attempt, index, commitment, ciphertextCid, sharesCid);
        return keccak256(abi.encode(commitments, index, commitment));
    }

    /// @dev Who has posted a receipt, with one more.
    function _receive(
        Statements storage said,
        Attempt memory live,
        uint32 round,
        uint8 index,
        uint128 whole,
        uint64 received
    ) private returns (uint64) {
        _checkCommitted(whole, live);
        if (whole != live.committed) said.lacking[index] = live.committed ^ uint64(whole);
        emit ReceiptPosted(round, live.attempt, index, whole);
        return received | _bit(index);
    }

    /// @dev The list's running digest with one opening more.
    function _opened(
        bytes32 openings,
        uint32 round,
        uint32 attempt,
        uint16 group,
        uint8 index,
        bytes32 root,
        bytes32 cid
    ) private returns (bytes32) {
        if (root == 0 || cid == 0) revert FederationEmptyDigest();
        emit OpeningPublished(round, attempt, group, index, root, cid);
        return keccak256(abi.encode(openings, index, root));
    }

    // ---------------------------------------------------------------- signatures (EIP-712, EIP-2098)

    /// @dev The member that signed. A high s is another spelling of the same signature, and signs nothing else.
    function _signerOf(bytes32 domain, bytes32 digest, Signature calldata signature) private view returns (uint8) {
        uint256 vs = uint256(signature.vs);
        digest = _signedDigest(domain, digest);
        return _memberIndex(ecrecover(digest, uint8(27 + (vs >> 255)), signature.r, bytes32(vs & (2 ** 255 - 1))));
    }
}
