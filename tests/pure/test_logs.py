"""From log entries to events and back: every event of the ABI is understood, and nothing impossible is."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from fedchain.chain.artifacts import load_artifact
from fedchain.chain.logs import LogDecoder, abi_type, signature
from fedchain.errors import ChainMismatch
from fedchain.protocol.cid import cid_of_digest
from fedchain.protocol.events import (
    Complained,
    DemandClosed,
    DutiesMissed,
    EncryptionKeyRotated,
    Event,
    MemberAdmitted,
    MemberLeaving,
    Motion,
    MotionVoted,
    PageDemanded,
    PageShown,
    SetAbandoned,
)
from fedchain.protocol.ids import Address, Bitmap, Digest, Index, Root
from fedchain.protocol.pages import Kind, Page

ABI = load_artifact().abi
EVENTS = {e["name"]: e for e in ABI if e["type"] == "event"}
ACCOUNT = Address("0x5FbDB2315678afecb367f032d93F642f64180aa3")
PAGE = Page(Kind.OPENING, Index(3), 2, 1, 0, 5, 0, b"w" * 32)
WORD = b"d" * 32


def decoded(name: str, **said: Any) -> Event:
    """What the decoder makes of an event with these arguments."""
    entry = EVENTS[name]
    indexed = [i for i in entry["inputs"] if i["indexed"]]
    plain = [i for i in entry["inputs"] if not i["indexed"]]
    topics = [keccak(signature(entry).encode()), *(encode([abi_type(i)], [said[i["name"]]]) for i in indexed)]
    return LogDecoder(ABI).decode(topics, encode([abi_type(i) for i in plain], [said[i["name"]] for i in plain]), 9)


def test_every_event_of_the_contract_has_its_class() -> None:
    assert set(EVENTS) == {kind.__name__ for kind in get_args(Event)}


@pytest.mark.parametrize(
    ("name", "said", "event"),
    [
        ("DutiesMissed", {"round": 2, "attempt": 1, "members": 5}, DutiesMissed(2, 1, Bitmap(5), 9)),
        (
            "Complained",
            {"round": 2, "attempt": 1, "index": 3, "dealers": 5, "evidenceCid": WORD},
            Complained(2, 1, Index(3), Bitmap(5), cid_of_digest(WORD), 9),
        ),
        (
            "MotionVoted",
            {"motion": 3, "index": 4, "round": 2, "attempt": 1, "subject": WORD},
            MotionVoted(Motion.REFUSE, Index(4), 2, 1, WORD, 9),
        ),
        ("MemberAdmitted", {"index": 7, "member": ACCOUNT}, MemberAdmitted(Index(7), ACCOUNT, 9)),
        ("MemberLeaving", {"index": 7, "removed": True}, MemberLeaving(Index(7), True, 9)),
        ("EncryptionKeyRotated", {"index": 7, "encryptionKey": WORD}, EncryptionKeyRotated(Index(7), WORD, 9)),
        (
            "SetAbandoned",
            {"round": 2, "attempt": 1, "group": 0, "participants": 7},
            SetAbandoned(2, 1, 0, Bitmap(7), 9),
        ),
        (
            "PageDemanded",
            {"demand": PAGE.name, "demander": ACCOUNT, "deadline": 50, "page": (2, 3, 2, 1, 0, 5, 0, b"w" * 32)},
            PageDemanded(PAGE.name, ACCOUNT, 50, PAGE, 9),
        ),
        (
            "PageShown",
            {"demand": WORD, "account": ACCOUNT, "other": b"o" * 32, "words": [b"a" * 32] * 96},
            PageShown(Digest(WORD), ACCOUNT, Root(b"o" * 32), (b"a" * 32,) * 96, 9),
        ),
        ("DemandClosed", {"demand": WORD, "silent": True}, DemandClosed(Digest(WORD), True, 9)),
    ],
)
def test_what_members_decide_and_demand_is_read(name: str, said: dict[str, Any], event: Event) -> None:
    assert decoded(name, **said) == event


@pytest.mark.parametrize(
    ("name", "said", "words"),
    [
        ("DutiesMissed", {"round": 2, "attempt": 1, "members": 1 << 64}, "members beyond 64"),
        (
            "MotionVoted",
            {"motion": 4, "index": 4, "round": 2, "attempt": 1, "subject": WORD},
            "4 is not a valid Motion",
        ),
        ("MemberAdmitted", {"index": 64, "member": ACCOUNT}, "member 64, of at most 64"),
        (
            "PageDemanded",
            {"demand": WORD, "demander": ACCOUNT, "deadline": 50, "page": (2, 3, 2, 1, 0, 5, 0, b"w" * 32)},
            "under another page's name",
        ),
        (
            "PageDemanded",
            {"demand": WORD, "demander": ACCOUNT, "deadline": 50, "page": (5, 3, 2, 1, 0, 5, 0, b"w" * 32)},
            "5 is not a valid Kind",
        ),
        (
            "MemberSlashed",
            {"index": 1, "challenger": ACCOUNT, "round": 1, "rule": 8, "burnt": 1, "reward": 1},
            "a rule 8, of seven",
        ),
    ],
)
def test_what_the_contract_never_says_is_impossible(name: str, said: dict[str, Any], words: str) -> None:
    with pytest.raises(ChainMismatch, match=f"impossible {name}: .*{words}"):
        decoded(name, **said)
