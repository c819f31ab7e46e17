"""What `fedchain status` and `fedchain vote` tell people: motions, strikes, who comes and goes, open demands."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from rich.console import Console

from fedchain.cli import votes
from fedchain.cli.main import main
from fedchain.cli.status import demands_of, duty_of, motions_of, picture
from fedchain.errors import UsageError
from fedchain.protocol.actions import VoteToAdmit, VoteToRemove
from fedchain.protocol.descent import aggregate_page, leaf_page
from fedchain.protocol.events import Motion, MotionVoted, PageDemanded
from fedchain.protocol.ids import Address, Bitmap, Index
from fedchain.protocol.phase import finished_at
from fedchain.protocol.state import FederationState
from fedchain.protocol.transition import apply

SOMEBODY = Address("0xEeeeeEeeeEeEeeEeEeEeeEEEeeeeEeeeeeeeEEeE")


def voted(state: FederationState, motion: Motion, subject: bytes, round: int = 0, attempt: int = 0) -> FederationState:
    for index in (0, 3):
        state = apply(state, MotionVoted(motion, Index(index), round, attempt, subject, 50))
    return state


def test_every_motion_under_way_is_told_with_its_votes(stage: Any) -> None:
    state = stage.opening
    assert motions_of(state) == []
    state = voted(state, Motion.ADMIT, bytes.fromhex(SOMEBODY[2:]).rjust(32, b"\0"))
    state = voted(state, Motion.REMOVE, (2).to_bytes(32, "big"))
    state = voted(state, Motion.ABANDON, bytes(32), round=1)
    state = replace(state, stop_votes=Bitmap(0b10))
    assert motions_of(state) == [
        f"admit {SOMEBODY}: 2 of 3 votes, by 0, 3",
        "remove member 2: 2 of 3 votes, by 0, 3",
        "abandon the set of round 1, attempt 1: 2 of 3 votes, by 0, 3",
        "stop with the model of round 0: 1 of 3 votes, by 1",
    ]
    heard = replace(state, slashed=Bitmap(0b01000))
    assert motions_of(heard)[0] == f"admit {SOMEBODY}: 1 of 3 votes, by 0", "who was slashed is not counted"


def test_a_motion_about_what_is_over_is_not_told(stage: Any) -> None:
    closed = stage.world.state
    over = voted(closed, Motion.ABANDON, bytes(32), round=1)
    assert motions_of(over) == []
    refused = voted(closed, Motion.REFUSE, stage.model_digest, round=1)
    what = f"refuse the model {stage.model_digest.hex()[:16]}… of round 1"
    assert motions_of(refused) == [f"{what}: 2 of 3 votes, by 0, 3"]
    assert motions_of(voted(closed, Motion.REFUSE, b"o" * 32, round=1)) == []


def test_open_demands_are_told_with_the_time_left(stage: Any) -> None:
    state = stage.world.state
    page = leaf_page(aggregate_page(state.closed[1].posted_sum, 5_000), 9)
    state = apply(state, PageDemanded(page.name, SOMEBODY, 100, page, at=93))
    what = "page 0/9 of the aggregate of round 1, by member 0"
    assert demands_of(state, 95) == [f"{what}: 5 s left"]
    assert demands_of(state, 100) == [f"{what}: unanswered: who closes it proves the silence"]
    known = state.demands[page.name]
    shown = replace(state, demands=MappingProxyType({page.name: replace(known, open=False)}))
    assert demands_of(shown, 95) == []


def test_the_picture_tells_who_comes_and_goes_and_how_often_somebody_was_missed(stage: Any) -> None:
    state = replace(
        stage.opening,
        accounts=(*stage.opening.accounts, SOMEBODY),
        admitted=Bitmap(0b100000),
        leaving=Bitmap(0b00110),
        removed=Bitmap(0b00100),
        strikes=MappingProxyType({Index(4): 2}),
    )
    console = Console(file=io.StringIO(), width=150)
    console.print(picture(voted(state, Motion.REMOVE, (2).to_bytes(32, "big")), stage.now, "here"))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    rows = {line.split()[0]: line.rstrip() for line in lines if line[:1].isdigit()}
    assert rows["1"].endswith("resigned")
    assert rows["2"].endswith("removed: counts no more from the next round on")
    assert rows["4"].split()[-1] == "2"
    assert rows["5"].endswith("admitted")
    assert any(line.startswith("motion  remove member 2: 2 of 3 votes") for line in lines)


def test_a_set_that_was_opened_and_given_up_is_told_with_who_was_in_it(stage: Any) -> None:
    state = stage.closing
    console = Console(file=io.StringIO(), width=200)
    console.print(picture(state, stage.now, "here"))
    assert "spoiled" not in console.file.getvalue()  # type: ignore[attr-defined]
    console.print(picture(replace(state, voided=(state.current,)), stage.now, "here"))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "spoiled opened by t members, and did not close: round 1 attempt 1; in all of them: 0, 1, 2, 3, 4" in shown
    assert "it is among: 0, 1, 2, 3, 4" in shown


def test_a_finished_run_holds_bonds_until_the_challenge_window_has_passed(stage: Any) -> None:
    state = stage.world.state
    ended = finished_at(state, stage.now + 2 * state.terms.close_window_s)
    assert ended is not None
    end = ended + state.terms.challenge_window_s
    assert duty_of(state, end - 1).deadline == end
    assert "bonds are free" in duty_of(state, end).waits_for and duty_of(state, end).deadline is None


Said = tuple[int, str, str]


@pytest.fixture
def typed(stage: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Types a command as member 1 of the stage; what it would send is in `typed.sent`."""
    sent: list[Any] = []

    class Reader:
        chain_id, contract, rpc_url = 1, SOMEBODY, ""

        def refresh(self) -> FederationState:
            return typed_on.state  # type: ignore[attr-defined, no-any-return]

    class Sender:
        def submit(self, key: str, action: Any) -> bytes:
            sent.append(action)
            return bytes(32)

    def member(*_: Any) -> Any:
        return votes._Member(Reader(), None, "", typed_on.state, stage.now, Index(1), 0)  # type: ignore[arg-type, attr-defined]

    def typed_on(state: FederationState, *arguments: str, answer: str = "") -> Said:
        typed_on.state = state  # type: ignore[attr-defined]
        monkeypatch.setattr(sys, "argv", ["fedchain", *arguments, "--key", "ada.json"])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    monkeypatch.setattr(votes, "_member", member)
    monkeypatch.setattr(votes, "open_sender", lambda *_: Sender())
    typed_on.sent = sent  # type: ignore[attr-defined]
    return typed_on


def test_a_vote_is_asked_for_and_cast(stage: Any, typed: Any) -> None:
    code, out, _ = typed(stage.opening, "vote", "admit", SOMEBODY.lower(), answer="y\n")
    assert code == 0 and "cannot be taken back" in out
    assert typed.sent == [VoteToAdmit(SOMEBODY)]
    code, out, _ = typed(stage.opening, "vote", "remove", stage.members[2].address, "--yes")
    assert code == 0 and "cannot be taken back" not in out
    assert typed.sent[1:] == [VoteToRemove(Index(2))]


def test_who_says_no_casts_nothing(stage: Any, typed: Any) -> None:
    code, _, _ = typed(stage.opening, "vote", "remove", "2", answer="n\n")
    assert code != 0 and typed.sent == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("vote", "remove", "9"), "9 is no member"),
        (("vote", "admit", "0x12"), "address"),
        (("vote", "refuse", "1"), "round 1 is not closed"),
        (("vote", "remove", "4"), "you have voted so before"),
        (("vote", "admit", "0x0000000000000000000000000000000000000001"), "nothing to vote on"),
        (("vote", "stop"), "you have voted to stop"),
        (("resign",), "leaving already"),
    ],
)
def test_what_cannot_be_decided_is_refused_in_one_line(stage: Any, typed: Any, arguments: Any, why: str) -> None:
    state = apply(stage.opening, MotionVoted(Motion.REMOVE, Index(1), 0, 0, (4).to_bytes(32, "big"), 50))
    state = replace(state, stop_votes=Bitmap(0b10), leaving=Bitmap(0b10))
    code, _, err = typed(state, *arguments, "--yes")
    assert code == 2 and why in err and err.count("\n") == 1, err
    assert typed.sent == []


def test_nobody_stops_with_a_model_that_no_round_has_made(stage: Any, typed: Any) -> None:
    code, _, err = typed(stage.opening, "vote", "stop", "--yes")
    assert code == 2 and "vote to stop when round 1 has closed" in err and typed.sent == []


def test_nothing_is_abandoned_before_a_set_is_locked(stage: Any, typed: Any) -> None:
    code, _, err = typed(stage.receipts, "vote", "abandon", "--yes")
    assert code == 2 and "no set is locked" in err


def test_a_member_is_named_by_index_or_address(stage: Any) -> None:
    assert votes._index_in(stage.opening, "3") == votes._index_in(stage.opening, stage.members[3].address) == 3
    with pytest.raises(UsageError, match="lists them"):
        votes._index_in(stage.opening, str(Path("5")))
