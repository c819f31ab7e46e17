"""From a raw log entry to an event: strict, because the endpoint may hand us anything.

The ABI says which events there are; whatever it does not name, or is not encoded in the one canonical way, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError, EncodingError
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from ..errors import ChainMismatch
from ..protocol.cid import cid_of_digest
from ..protocol.events import (
    AggregateCommitted,
    AggregateRefuted,
    AggregateRestated,
    BondWithdrawn,
    Complained,
    DemandClosed,
    DutiesMissed,
    EncryptionKeyRotated,
    Event,
    FederationFounded,
    MemberAdmitted,
    MemberEnrolled,
    MemberLeaving,
    MemberSlashed,
    Motion,
    MotionVoted,
    OpeningPublished,
    PageDemanded,
    PageShown,
    ReceiptPosted,
    ResultCommitted,
    ResultRefuted,
    RewardWithdrawn,
    SetAbandoned,
    StopVoted,
    Terms,
    UpdateCommitted,
)
from ..protocol.ids import MAX_MEMBERS, Address, Bitmap, Digest, Index, Root
from ..protocol.pages import Kind, Page

_MAX_DATA_BYTES = 32 * (64 + MAX_MEMBERS)
"""The longest event is FederationFounded: 14 words of terms, two of layout, the founders."""


def abi_type(entry: Mapping[str, Any]) -> str:
    """The type of an ABI parameter as eth_abi writes it: structs become tuples."""
    kind = str(entry["type"])
    if not kind.startswith("tuple"):
        return kind
    return "(" + ",".join(abi_type(c) for c in entry["components"]) + ")" + kind.removeprefix("tuple")


def signature(entry: Mapping[str, Any]) -> str:
    """The canonical signature of an ABI function, event or error: its name and its types."""
    return f"{entry['name']}({','.join(abi_type(i) for i in entry['inputs'])})"


class LogDecoder:
    """Decodes the federation's logs by its ABI."""

    def __init__(self, abi: Sequence[Mapping[str, Any]]) -> None:
        self._events = {keccak(signature(e).encode()): e for e in abi if e["type"] == "event"}
        """By topic 0: the events this version knows."""

    def decode(self, topics: Sequence[bytes], data: bytes, at: int) -> Event:
        """The event of one log entry in a block of time `at` (seconds).

        Raises ChainMismatch for an unknown event or a malformed one.
        """
        entry = self._events.get(topics[0]) if topics else None
        build = _BUILDERS.get(str(entry["name"])) if entry else None
        if entry is None or build is None:
            raise ChainMismatch(
                f"the contract's log holds an event that this version does not know (topic {_topic(topics)});"
                " is this a federation contract of the same version?"
            )
        if len(data) > _MAX_DATA_BYTES:
            raise _malformed(entry)
        indexed = [i for i in entry["inputs"] if i["indexed"]]
        plain = [i for i in entry["inputs"] if not i["indexed"]]
        values = _decoded(entry, indexed, b"".join(topics[1:])) | _decoded(entry, plain, data)
        try:
            return build(values, at)
        except ValueError as error:
            raise ChainMismatch(f"the contract's log holds an impossible {entry['name']}: {error}") from error


def _decoded(entry: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]], data: bytes) -> dict[str, Any]:
    types = [abi_type(i) for i in inputs]
    try:
        values = decode(types, data)
        canonical = encode(types, values) == data
    except (DecodingError, EncodingError, OverflowError, ValueError) as error:
        raise _malformed(entry) from error
    if not canonical:
        raise _malformed(entry)
    return {str(i["name"]): value for i, value in zip(inputs, values, strict=True)}


def _malformed(entry: Mapping[str, Any]) -> ChainMismatch:
    return ChainMismatch(f"the contract's log holds a malformed {entry['name']} event; the RPC endpoint is not honest")


def _topic(topics: Sequence[bytes]) -> str:
    return topics[0].hex() if topics else "none"


def _index(v: Mapping[str, Any]) -> Index:
    if v["index"] >= MAX_MEMBERS:
        raise ValueError(f"member {v['index']}, of at most {MAX_MEMBERS}")
    return Index(v["index"])


def _bitmap(value: int) -> Bitmap:
    if value >> MAX_MEMBERS:
        raise ValueError(f"a set with members beyond {MAX_MEMBERS}")
    return Bitmap(value)


def _terms(values: Sequence[Any]) -> Terms:
    (
        charter_digest, charter_cid, genesis_digest, genesis_cid, model_size, rounds, threshold,
        enrol_s, training_s, receipt_s, aggregate_s, challenge_s, close_s, bond_wei,
    ) = values  # fmt: skip
    return Terms(
        charter_digest=Digest(charter_digest),
        charter_cid=cid_of_digest(charter_cid),
        genesis_digest=Digest(genesis_digest),
        genesis_cid=cid_of_digest(genesis_cid),
        model_size=model_size,
        rounds=rounds,
        threshold=threshold,
        enrol_window_s=enrol_s,
        training_window_s=training_s,
        receipt_window_s=receipt_s,
        aggregate_window_s=aggregate_s,
        challenge_window_s=challenge_s,
        close_window_s=close_s,
        bond_wei=bond_wei,
    )


def _founded(v: Mapping[str, Any], at: int) -> FederationFounded:
    terms, n = _terms(v["terms"]), len(v["founders"])
    # What the constructor demands; phase_of divides by the windows and counts on the threshold.
    if not 3 <= n <= MAX_MEMBERS or len(set(v["founders"])) != n:
        raise ValueError(f"{n} founders, or one twice")
    if not n // 2 + 1 <= terms.threshold <= n - 1:
        raise ValueError(f"a threshold of {terms.threshold} among {n}")
    if 0 in terms.windows_s or not terms.rounds or not terms.model_size:
        raise ValueError("a window, the rounds or the model's size is zero")
    return FederationFounded(terms, tuple(Address(to_checksum_address(f)) for f in v["founders"]), at)


def _enrolled(v: Mapping[str, Any], at: int) -> MemberEnrolled:
    if not v["weight"]:
        raise ValueError("a weight of zero")
    return MemberEnrolled(_index(v), Address(to_checksum_address(v["member"])), v["encryptionKey"], v["weight"], at)


def _update(v: Mapping[str, Any], at: int) -> UpdateCommitted:
    return UpdateCommitted(
        round=v["round"],
        attempt=v["attempt"],
        index=_index(v),
        commitment=Digest(v["commitment"]),
        ciphertext_cid=cid_of_digest(v["ciphertextCid"]),
        shares_cid=cid_of_digest(v["sharesCid"]),
        at=at,
    )


def _receipt(v: Mapping[str, Any], at: int) -> ReceiptPosted:
    return ReceiptPosted(v["round"], v["attempt"], _index(v), _bitmap(v["whole"]), at)


def _complaint(v: Mapping[str, Any], at: int) -> Complained:
    cid = cid_of_digest(v["evidenceCid"])
    return Complained(v["round"], v["attempt"], _index(v), _bitmap(v["dealers"]), cid, at)


def _aggregate(v: Mapping[str, Any], at: int) -> AggregateCommitted:
    return AggregateCommitted(
        round=v["round"],
        attempt=v["attempt"],
        group=v["group"],
        index=_index(v),
        participants=_bitmap(v["participants"]),
        root=Root(v["root"]),
        cid=cid_of_digest(v["cid"]),
        at=at,
    )


def _opening(v: Mapping[str, Any], at: int) -> OpeningPublished:
    cid = cid_of_digest(v["cid"])
    return OpeningPublished(v["round"], v["attempt"], v["group"], _index(v), Root(v["root"]), cid, at)


def _result(v: Mapping[str, Any], at: int) -> ResultCommitted:
    return ResultCommitted(
        round=v["round"],
        attempt=v["attempt"],
        group=v["group"],
        index=_index(v),
        openers=_bitmap(v["openers"]),
        key_sum_root=Root(v["keySumRoot"]),
        result_root=Root(v["resultRoot"]),
        result_cid=cid_of_digest(v["resultCid"]),
        model_digest=Digest(v["modelDigest"]),
        model_cid=cid_of_digest(v["modelCid"]),
        at=at,
    )


def _stop(v: Mapping[str, Any], at: int) -> StopVoted:
    return StopVoted(v["round"], _index(v), at)


def _withdrawn(v: Mapping[str, Any], at: int) -> BondWithdrawn:
    return BondWithdrawn(_index(v), v["amount"], at)


def _aggregate_refuted(v: Mapping[str, Any], at: int) -> AggregateRefuted:
    return AggregateRefuted(v["round"], v["attempt"], v["group"], _index(v), at)


def _restated(v: Mapping[str, Any], at: int) -> AggregateRestated:
    cid = cid_of_digest(v["cid"])
    return AggregateRestated(v["round"], v["attempt"], v["group"], _index(v), Root(v["root"]), cid, at)


def _result_refuted(v: Mapping[str, Any], at: int) -> ResultRefuted:
    return ResultRefuted(v["round"], v["attempt"], v["group"], _index(v), at)


def _slashed(v: Mapping[str, Any], at: int) -> MemberSlashed:
    if not 1 <= v["rule"] <= 7:
        raise ValueError(f"a rule {v['rule']}, of seven")
    challenger = Address(to_checksum_address(v["challenger"]))
    return MemberSlashed(_index(v), challenger, v["round"], v["rule"], v["burnt"], v["reward"], at)


def _rewarded(v: Mapping[str, Any], at: int) -> RewardWithdrawn:
    return RewardWithdrawn(Address(to_checksum_address(v["account"])), v["amount"], at)


def _missed(v: Mapping[str, Any], at: int) -> DutiesMissed:
    return DutiesMissed(v["round"], v["attempt"], _bitmap(v["members"]), at)


def _motion(v: Mapping[str, Any], at: int) -> MotionVoted:
    return MotionVoted(Motion(v["motion"]), _index(v), v["round"], v["attempt"], v["subject"], at)


def _admitted(v: Mapping[str, Any], at: int) -> MemberAdmitted:
    return MemberAdmitted(_index(v), Address(to_checksum_address(v["member"])), at)


def _leaving(v: Mapping[str, Any], at: int) -> MemberLeaving:
    return MemberLeaving(_index(v), v["removed"], at)


def _rotated(v: Mapping[str, Any], at: int) -> EncryptionKeyRotated:
    return EncryptionKeyRotated(_index(v), v["encryptionKey"], at)


def _abandoned(v: Mapping[str, Any], at: int) -> SetAbandoned:
    return SetAbandoned(v["round"], v["attempt"], v["group"], _bitmap(v["participants"]), at)


def _demanded(v: Mapping[str, Any], at: int) -> PageDemanded:
    kind, index, round, attempt, group, level, position, word = v["page"]
    page = Page(Kind(kind), _index({"index": index}), round, attempt, group, level, position, word)
    if page.name != v["demand"]:
        raise ValueError("a demand under another page's name")
    return PageDemanded(Digest(v["demand"]), Address(to_checksum_address(v["demander"])), v["deadline"], page, at)


def _shown(v: Mapping[str, Any], at: int) -> PageShown:
    account = Address(to_checksum_address(v["account"]))
    return PageShown(Digest(v["demand"]), account, Root(v["other"]), tuple(v["words"]), at)


def _demand_closed(v: Mapping[str, Any], at: int) -> DemandClosed:
    return DemandClosed(Digest(v["demand"]), v["silent"], at)


_BUILDERS: dict[str, Callable[[Mapping[str, Any], int], Event]] = {
    "FederationFounded": _founded,
    "MemberEnrolled": _enrolled,
    "UpdateCommitted": _update,
    "ReceiptPosted": _receipt,
    "Complained": _complaint,
    "AggregateCommitted": _aggregate,
    "OpeningPublished": _opening,
    "ResultCommitted": _result,
    "StopVoted": _stop,
    "BondWithdrawn": _withdrawn,
    "AggregateRefuted": _aggregate_refuted,
    "AggregateRestated": _restated,
    "ResultRefuted": _result_refuted,
    "MemberSlashed": _slashed,
    "RewardWithdrawn": _rewarded,
    "DutiesMissed": _missed,
    "MotionVoted": _motion,
    "MemberAdmitted": _admitted,
    "MemberLeaving": _leaving,
    "EncryptionKeyRotated": _rotated,
    "SetAbandoned": _abandoned,
    "PageDemanded": _demanded,
    "PageShown": _shown,
    "DemandClosed": _demand_closed,
}
