// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {_sizeOf} from "./Bitmaps.sol";
import {Commitments} from "./Commitments.sol";
import {IRecord} from "./IRecord.sol";
import {OPENING_TYPE, _domainOf, _signedDigest} from "./Signatures.sol";

/// @title Judges numbers: is what a member posted what follows from what others committed to (R1–R5)?
/// @notice It knows no state. It rebuilds from the evidence the digests that the evidence is about, and says whether the statement
/// is faulty; Disputes.sol compares the digests with the record and carries the verdict out. Anyone may ask it before a challenge. The numbers of the encryption and
/// the layout of what was committed to are those of docs/crypto.md. Twin: fedchain/protocol/evidence.py, the same names and
/// branches.
/// @dev Calldata is most of a challenge's cost: evidence is flat words. Assembly is where a loop runs hundreds of times.
abstract contract Judge is Commitments {
    uint256 private constant N = 2048;
    uint256 private constant Q = 17627370416504833; // 1002·2^44 + 1
    uint256 private constant DELTA = 1002;
    uint256 private constant PLAIN_MODULUS = 2 ** 44;
    uint256 private constant ACCEPTED = 1046 * Q; // a word below it is uniform mod q
    uint256 private constant ETA = 42; // the largest coefficient of one key
    uint256 private constant NOISE = 100 * 21; // ten standard deviations, squared, of one participant's noise
    uint256 private constant SHARE_PRIME = 65521;

    // Four lanes of 64 bits, one residue each. Residues below 2^58 of 64 members add up without a carry between lanes.
    uint256 private constant LANE = 0xffffffffffffffff;
    uint256 private constant ODD_BYTES = 0x00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff;
    uint256 private constant ODD_PAIRS = 0x0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff;
    uint256 private constant ODD_FOURS = 0x00000000ffffffff00000000ffffffff00000000ffffffff00000000ffffffff;
    uint256 private constant ODD_EIGHTS = 0x0000000000000000ffffffffffffffff0000000000000000ffffffffffffffff;
    uint256 private constant ABOVE_54_BITS = 0xffc0000000000000ffc0000000000000ffc0000000000000ffc0000000000000;
    uint256 private constant ABOVE_16_BITS = 0xffffffffffff0000ffffffffffff0000ffffffffffff0000ffffffffffff0000;

    /// @dev Where the commitments of one attempt were made, and over whom; `accounts` by member index.
    struct Place {
        address federation;
        uint32 round;
        uint32 attempt;
        uint128 participants;
        uint64 modelSize;
        bytes32 baseModel; // read by `result` only
        address[] accounts;
    }

    /// @dev The digests that belong to the evidence, and the verdict if they are those on record.
    struct Finding {
        bytes32 claim; // root of the object that is judged
        bytes32 keySum; // root of S, of `result` only
        bytes32 list; // running digest of the list of commitments or openings
        bool faulty;
    }

    /// @dev One way through the proofs, first to last: which leaf of which tree, the word at which the next proof begins, and the sum
    /// so far of the leaves that were counted, in lanes that are not reduced.
    struct Walk {
        uint256 leaf;
        uint256 depth;
        uint256 position;
        uint256[LEAF_WORDS] sums;
    }

    /// @dev Coefficient `place` of polynomial `polynomial`: of C, and of the result as it was claimed.
    struct Coefficient {
        uint256 polynomial;
        uint256 place;
        uint256 sum;
        uint256 claimed;
    }

    /// @notice R1. Whether a leaf of the aggregate is the sum mod q of the participants' leaves.
    function judgeAggregate(
        Place memory place,
        uint64 leaf,
        IRecord.Line[] calldata commits,
        bytes32[] calldata proofs
    ) public view returns (Finding memory found) {
        Walk memory walk = _begin(leaf, _leavesOf(place.modelSize), proofs, 1 + _sizeOf(place.participants));
        found.claim = _next(walk, proofs);
        found.list = _sum(walk, place, commits, proofs);
        // A residue of q or more is never what a sum mod q is.
        found.faulty = !_isReduced(proofs, walk.sums, Q);
    }

    /// @notice R2. Whether a leaf of S is the Lagrange combination at 0 of the openers' leaves.
    function judgeKeySum(uint128 openers, uint64 leaf, IRecord.Line[] calldata openings, bytes32[] calldata proofs)
        public
        view
        returns (Finding memory found)
    {
        Walk memory walk = _begin(leaf, KEY_LEAVES, proofs, 1 + _sizeOf(openers));
        found.claim = _next(walk, proofs);
        found.list = _combination(walk, openers, openings, proofs);
        found.faulty = !_isReduced(proofs, walk.sums, SHARE_PRIME);
    }

    /// @notice R3. Whether a coefficient of the result is the decoding of C + a·S there, S small and the noise honest.
    function judgeResult(
        Place memory place,
        uint64 coefficient,
        bytes calldata elements,
        IRecord.Line[] calldata commits,
        bytes32[] calldata proofs
    ) public view returns (Finding memory found) {
        Walk memory walk = _begin(coefficient / 64, _leavesOf(place.modelSize), proofs, 1 + _sizeOf(place.participants));
        found.claim = _next(walk, proofs);
        found.list = _sum(walk, place, commits, proofs);
        found.keySum = _keySumRoot(elements);
        found.faulty = !_isDecoded(place, elements, _coefficientOf(walk, coefficient, proofs));
    }

    /// @notice R4. Whether a leaf of the one participant's ciphertext holds a residue of q or more.
    function judgeResidue(Place memory place, uint64 leaf, IRecord.Line[] calldata commits, bytes32[] calldata proof)
        public
        view
        returns (Finding memory found)
    {
        Walk memory walk = _begin(leaf, _leavesOf(place.modelSize), proof, 1);
        found.list = _sum(walk, place, commits, proof);
        // One residue alone, added up, is the residue mod q.
        found.faulty = !_isReduced(proof, walk.sums, Q);
    }

    /// @notice R5. Who signed both statements, and whether they contradict each other; nobody (0) if it was not one account.
    function judgeEquivocation(
        address federation,
        IRecord.OpeningStatement calldata first,
        bytes calldata firstSignature,
        IRecord.OpeningStatement calldata second,
        bytes calldata secondSignature
    ) public view returns (address signer, bool faulty) {
        signer = _signerOf(openingDigest(federation, first), firstSignature);
        if (signer != _signerOf(openingDigest(federation, second), secondSignature)) return (address(0), false);
        bool samePlace =
            first.round == second.round && first.attempt == second.attempt && first.group == second.group;
        faulty = samePlace && (first.participants != second.participants || first.root != second.root);
    }

    /// @notice The EIP-712 digest that a shareholder signs.
    function openingDigest(address federation, IRecord.OpeningStatement calldata said)
        public
        view
        returns (bytes32)
    {
        return _signedDigest(_domainOf(federation), keccak256(abi.encode(OPENING_TYPE, said)));
    }

    // ---------------------------------------------------------------- walking through proofs

    /// @dev At the first of `count` proofs of this leaf.
    function _begin(uint256 leaf, uint256 leaves, bytes32[] calldata proofs, uint256 count)
        private
        pure
        returns (Walk memory walk)
    {
        if (leaf >= leaves) revert IRecord.FederationBadEvidence("leaf");
        walk.leaf = leaf;
        walk.depth = _depthOf(leaves);
        if (proofs.length != count * (LEAF_WORDS + walk.depth)) revert IRecord.FederationBadEvidence("proofs");
    }

    /// @dev The root that the next proof belongs to; goes on to the one after.
    function _next(Walk memory walk, bytes32[] calldata proofs) private view returns (bytes32 root) {
        if (walk.position == proofs.length) revert IRecord.FederationBadEvidence("proofs");
        root = _rootOf(proofs, walk.position, walk.leaf, walk.depth);
        walk.position += LEAF_WORDS + walk.depth;
    }

    /// @dev Every proof was called for.
    function _end(Walk memory walk, bytes32[] calldata proofs) private pure {
        if (walk.position != proofs.length) revert IRecord.FederationBadEvidence("proofs");
    }

    /// @dev Adds `weight` times the next proof's leaf to the sums. Numbers that no honest member commits to are reduced first, so that
    /// the sum is defined whatever was committed; a lane then holds what 64 members can add to it.
    function _count(Walk memory walk, bytes32[] calldata proofs, uint256 modulus, uint256 weight) private pure {
        if (walk.position == proofs.length) revert IRecord.FederationBadEvidence("proofs");
        uint256 above = modulus == Q ? ABOVE_54_BITS : ABOVE_16_BITS;
        uint256[LEAF_WORDS] memory sums = walk.sums;
        uint256 position = walk.position;
        assembly ("memory-safe") {
            let source := add(proofs.offset, shl(5, position))
            for { let end := add(source, 512) } lt(source, end) { source := add(source, 32) } {
                // As _lanes and _reduced below.
                let lanes := calldataload(source)
                lanes := or(shl(8, and(lanes, ODD_BYTES)), and(shr(8, lanes), ODD_BYTES))
                lanes := or(shl(16, and(lanes, ODD_PAIRS)), and(shr(16, lanes), ODD_PAIRS))
                lanes := or(shl(32, and(lanes, ODD_FOURS)), and(shr(32, lanes), ODD_FOURS))
                if and(lanes, above) {
                    let reduced := 0
                    for { let shift := 0 } lt(shift, 256) { shift := add(shift, 64) } {
                        reduced := or(reduced, shl(shift, mod(and(shr(shift, lanes), LANE), modulus)))
                    }
                    lanes := reduced
                }
                mstore(sums, add(mload(sums), mul(lanes, weight)))
                sums := add(sums, 32)
            }
        }
    }

    /// @dev Whether the leaf that stands first is the sums mod `modulus`.
    function _isReduced(bytes32[] calldata proofs, uint256[LEAF_WORDS] memory sums, uint256 modulus)
        private
        pure
        returns (bool)
    {
        for (uint256 i = 0; i < LEAF_WORDS; i++) {
            if (_lanes(proofs[i]) != _reduced(sums[i], modulus)) return false;
        }
        return true;
    }

    /// @dev Goes through an attempt's commitments: rebuilds those of the participants from their leaves and shares roots, counts their
    /// leaves, and gives the list's running digest.
    function _sum(Walk memory walk, Place memory place, IRecord.Line[] calldata commits, bytes32[] calldata proofs)
        private
        view
        returns (bytes32 list)
    {
        for (uint256 i = 0; i < commits.length; i++) {
            uint8 index = commits[i].index;
            bytes32 commitment = commits[i].word;
            if (_holds(place.participants, index)) {
                _count(walk, proofs, Q, 1);
                commitment = _commitmentOf(
                    place.federation, place.round, place.attempt, place.accounts[index], _next(walk, proofs), commitment
                );
            }
            list = _appended(list, index, commitment);
        }
        _end(walk, proofs);
    }

    /// @dev Goes through a group's openings: rebuilds the roots of the openers' from their leaves, counts these with their weights, and
    /// gives the list's running digest.
    function _combination(
        Walk memory walk,
        uint128 openers,
        IRecord.Line[] calldata openings,
        bytes32[] calldata proofs
    ) private view returns (bytes32 list) {
        for (uint256 i = 0; i < openings.length; i++) {
            uint8 index = openings[i].index;
            bytes32 root = openings[i].word;
            if (_holds(openers, index)) {
                _count(walk, proofs, SHARE_PRIME, _weightOf(openers, index));
                root = _next(walk, proofs);
            }
            list = _appended(list, index, root);
        }
        _end(walk, proofs);
    }

    /// @dev λ of this opener: the product of x_j / (x_j - x_i) over the other openers, mod 65521; member i stands at x = i + 1.
    function _weightOf(uint128 openers, uint256 index) private pure returns (uint256 weight) {
        unchecked {
            uint256 below = 1;
            weight = 1;
            for (uint256 j = 0; j < 64; j++) {
                if (j == index || openers >> j & 1 == 0) continue;
                weight = weight * (j + 1) % SHARE_PRIME;
                below = below * (SHARE_PRIME + j - index) % SHARE_PRIME;
            }
            for (uint256 power = SHARE_PRIME - 2; power != 0; power >>= 1) {
                if (power & 1 == 1) weight = weight * below % SHARE_PRIME;
                below = below * below % SHARE_PRIME;
            }
        }
    }

    /// @dev The root of S from its stored form: two bytes an element there, eight in a leaf.
    function _keySumRoot(bytes calldata elements) private view returns (bytes32 root) {
        if (elements.length != 2 * N) revert IRecord.FederationBadEvidence("key sum");
        uint256 nodes;
        assembly ("memory-safe") {
            nodes := mload(0x40)
            let scratch := add(nodes, 1024)
            mstore(0x40, scratch)
            let content := add(scratch, 32)
            let source := elements.offset
            let first := shl(240, 0xffff)
            let done := 1
            mstore(scratch, 0)
            for { let node := nodes } lt(node, scratch) { node := add(node, 32) } {
                for { let to := content } lt(to, add(content, 512)) { source := add(source, 8) } {
                    let four := calldataload(source)
                    let spread := or(and(four, first), shr(48, and(four, shr(16, first))))
                    mstore(to, or(spread, or(shr(96, and(four, shr(32, first))), shr(144, and(four, shr(48, first))))))
                    to := add(to, 32)
                }
                done := and(done, staticcall(gas(), 2, add(scratch, 31), 513, node, 32))
            }
            if iszero(done) { revert(0, 0) }
        }
        root = _topOf(nodes, 1024);
    }

    // ---------------------------------------------------------------- lanes

    /// @dev A word of a leaf as four lanes: the bytes of each residue turned round.
    function _lanes(bytes32 word) private pure returns (uint256 lanes) {
        lanes = uint256(word);
        lanes = (lanes & ODD_BYTES) << 8 | (lanes >> 8) & ODD_BYTES;
        lanes = (lanes & ODD_PAIRS) << 16 | (lanes >> 16) & ODD_PAIRS;
        lanes = (lanes & ODD_FOURS) << 32 | (lanes >> 32) & ODD_FOURS;
    }

    /// @dev Every lane mod `modulus`.
    function _reduced(uint256 lanes, uint256 modulus) private pure returns (uint256) {
        unchecked {
            return (lanes >> 192) % modulus << 192 | ((lanes >> 128) & LANE) % modulus << 128
                | ((lanes >> 64) & LANE) % modulus << 64 | (lanes & LANE) % modulus;
        }
    }

    function _holds(uint256 bitmap, uint256 index) private pure returns (bool) {
        return bitmap >> index & 1 == 1;
    }

    // ---------------------------------------------------------------- one coefficient of a·S

    /// @dev Whether the claim is the decoding of C + a·S there, S small and the noise honest. Twin: numpy_engine.decode() and noise().
    function _isDecoded(Place memory place, bytes calldata elements, Coefficient memory one)
        private
        view
        returns (bool)
    {
        uint256 members = _sizeOf(place.participants);
        (uint256 factors, bool small) = _factors(elements, ETA * members);
        if (!small) return false;
        uint256 product = _product(_seedOf(place), one.polynomial, one.place, factors, ETA * members);
        uint256 v = (one.sum + product) % Q;
        uint256 plain = (v + DELTA / 2) / DELTA % PLAIN_MODULUS;
        uint256 noise = v > DELTA * plain ? v - DELTA * plain : DELTA * plain - v;
        // Only a plaintext of 0 under negative noise wraps around q.
        if (noise > Q / 2) noise = Q - noise;
        return one.claimed == plain && noise * noise <= NOISE * members;
    }

    function _coefficientOf(Walk memory walk, uint256 coefficient, bytes32[] calldata proofs)
        private
        pure
        returns (Coefficient memory)
    {
        uint256 word = coefficient % 64 / 4;
        uint256 shift = 192 - 64 * (coefficient % 4); // the first residue of a word is in its highest lane
        return Coefficient({
            polynomial: coefficient / N,
            place: coefficient % N,
            sum: (walk.sums[word] >> shift & LANE) % Q,
            claimed: _lanes(proofs[word]) >> shift & LANE
        });
    }

    function _seedOf(Place memory place) private view returns (bytes32) {
        return sha256(
            abi.encode(
                bytes32("fedchain polynomials v1"),
                block.chainid,
                place.federation,
                place.round,
                place.attempt,
                place.baseModel
            )
        );
    }

    /// @dev S as the product meets it: 4096 lanes of 32 bits from memory address `factors` on, first S turned round, then the negative of
    /// that (X^N = -1), each with `bound` added, so that none is negative. `small` says whether |S_j| <= bound for all j.
    function _factors(bytes calldata elements, uint256 bound) private pure returns (uint256 factors, bool small) {
        assembly ("memory-safe") {
            factors := mload(0x40)
            // The last read reaches half a word past the lanes.
            mstore(0x40, add(factors, 16416))
            let ones := 0x0000000100000001000000010000000100000001000000010000000100000001
            let least := mul(ones, bound)
            let most := shl(1, least)
            let fits := not(0)
            let source := add(elements.offset, 4096)
            for { let to := factors } gt(source, elements.offset) { } {
                source := sub(source, 32)
                // 16 elements, two bytes each, little-endian: turned round as a whole they are numbers, the last one first.
                let turned := calldataload(source)
                turned := or(shl(8, and(turned, ODD_BYTES)), and(shr(8, turned), ODD_BYTES))
                turned := or(shl(16, and(turned, ODD_PAIRS)), and(shr(16, turned), ODD_PAIRS))
                turned := or(shl(32, and(turned, ODD_FOURS)), and(shr(32, turned), ODD_FOURS))
                turned := or(shl(64, and(turned, ODD_EIGHTS)), and(shr(64, turned), ODD_EIGHTS))
                turned := or(shl(128, turned), shr(128, turned))
                for { let end := add(to, 64) } lt(to, end) { to := add(to, 32) } {
                    let lanes := shr(128, turned)
                    turned := shl(128, turned)
                    lanes := and(or(lanes, shl(64, lanes)), ODD_EIGHTS)
                    lanes := and(or(lanes, shl(32, lanes)), ODD_FOURS)
                    lanes := and(or(lanes, shl(16, lanes)), ODD_PAIRS)
                    // 65521 and 15 carry into bit 16: what is no element mod 65521 is not small, whatever it is congruent to.
                    fits := and(fits, not(add(lanes, mul(ones, 15))))
                    lanes := add(lanes, least)
                    // mod 65521: 2^17 - 65521 more carry into bit 17 exactly if there is something to take off.
                    let over := and(shr(17, add(lanes, mul(ones, 65551))), ones)
                    lanes := sub(lanes, mul(over, SHARE_PRIME))
                    // Bit 16 stays exactly if the number is at most twice the bound.
                    fits := and(fits, sub(add(most, shl(16, ones)), lanes))
                    mstore(to, lanes)
                    mstore(add(to, 8192), sub(most, lanes))
                }
            }
            small := eq(and(shr(16, fits), ones), ones)
        }
    }

    /// @dev (a·S)_place mod q, where a is polynomial `polynomial` of this seed: 512 hashes.
    function _product(bytes32 seed, uint256 polynomial, uint256 place, uint256 factors, uint256 bound)
        private
        view
        returns (uint256 sum)
    {
        uint256 accepted = ACCEPTED;
        assembly ("memory-safe") {
            // A word that is not accepted is drawn again: the same word of the digest with the next retry.
            function redrawn(message, group, digest, limit) -> whole {
                whole := digest
                for { let shift := 0 } lt(shift, 256) { shift := add(shift, 64) } {
                    let word := and(shr(shift, digest), LANE)
                    if lt(word, limit) { continue }
                    whole := and(whole, not(shl(shift, LANE)))
                    for { let retry := 1 } iszero(lt(word, limit)) { retry := add(retry, 1) } {
                        mstore(add(message, 32), or(group, shl(160, retry)))
                        if iszero(staticcall(gas(), 2, message, 44, 0, 32)) { revert(0, 0) }
                        word := and(shr(shift, mload(0)), LANE)
                    }
                    whole := or(whole, shl(shift, word))
                }
            }
            let message := mload(0x40)
            mstore(message, seed)
            let group := shl(224, polynomial)
            // Coefficient 0 of a meets S_place, the next one S_(place-1), and so on.
            factors := add(factors, shl(2, sub(2047, place)))
            for { let end := add(factors, 8192) } lt(factors, end) { factors := add(factors, 16) } {
                mstore(add(message, 32), group)
                if iszero(staticcall(gas(), 2, message, 44, 0, 32)) { revert(0, 0) }
                let digest := mload(0)
                // A word of 1046·q or more begins with eleven ones: seldom is there one in a digest.
                let tops := and(shr(53, digest), 0x00000000000007ff00000000000007ff00000000000007ff00000000000007ff)
                tops := add(tops, 0x0000000000000001000000000000000100000000000000010000000000000001)
                if and(tops, 0x0000000000000800000000000000080000000000000008000000000000000800) {
                    digest := redrawn(message, group, digest, accepted)
                }
                group := add(group, shl(192, 1))
                // 64 bits times 13 bits, 2048 times: far from 256.
                let four := mload(factors)
                sum := add(sum, mul(shr(192, digest), sub(shr(224, four), bound)))
                sum := add(sum, mul(and(shr(128, digest), LANE), sub(and(shr(192, four), 0xffffffff), bound)))
                sum := add(sum, mul(and(shr(64, digest), LANE), sub(and(shr(160, four), 0xffffffff), bound)))
                sum := add(sum, mul(and(digest, LANE), sub(and(shr(128, four), 0xffffffff), bound)))
            }
            sum := smod(sum, Q)
            if slt(sum, 0) { sum := add(sum, Q) }
        }
    }

    // ---------------------------------------------------------------- signatures

    function _signerOf(bytes32 digest, bytes calldata signature) private pure returns (address) {
        if (signature.length != 65) revert IRecord.FederationBadEvidence("signature");
        return ecrecover(digest, uint8(signature[64]), bytes32(signature[:32]), bytes32(signature[32:64]));
    }
}
