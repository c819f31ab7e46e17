"""The charter: one canonical form, no silent default for a slip, and every error one line that names the entry."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.errors import UsageError
from fedchain.protocol.charter import (
    MAX_CHARTER_BYTES,
    Algorithm,
    Charter,
    Federation,
    Run,
    Update,
    parse_charter,
    read_charter,
    tomllib,
)
from fedchain.protocol.ids import MAX_MEMBERS, Address

MEMBERS = tuple(Address("0x" + f"{i:040x}") for i in range(1, 6))
TASK_SHA256 = hashlib.sha256(b"x = 1\n").hexdigest()
CHARTER = Charter(federation=Federation(name="trial", members=MEMBERS), task_sha256=TASK_SHA256)


def folder(path: Path, text: str, task: bytes = b"x = 1\n") -> Path:
    (path / "federation.toml").write_text(text, encoding="utf-8")
    (path / "task.py").write_bytes(task)
    return path


def refused(error: BaseException) -> str:
    text = str(error)
    assert text and "\n" not in text and len(text) < 500, text
    return text


def test_the_canonical_form_is_pinned() -> None:
    """A change here is another charter for every federation that exists: raise `version` instead."""
    assert CHARTER.canonical() == (
        b'{"algorithm":{"batch_size":32,"budget_s":0.0,"effective_steps":0,"local_epochs":1,"local_steps":"fixed",'
        b'"local_tensors":[],"loss":"plain","mu":0.0,"name":"fedavg","sampling":"shuffled"},"committee":{"threshold":0},'
        b'"federation":{"description":"","members":["0x0000000000000000000000000000000000000001",'
        b'"0x0000000000000000000000000000000000000002","0x0000000000000000000000000000000000000003",'
        b'"0x0000000000000000000000000000000000000004","0x0000000000000000000000000000000000000005"],"name":"trial",'
        b'"task":"task.py"},"outer":{"beta1":null,"beta2":0.99,"learning_rate":null,"optimizer":"none","tau":0.001},'
        b'"privacy":{"clip":0.0,"colluders":null,"delta":1e-05,"dropouts":0,"epsilon":0.0,"mode":"none",'
        b'"noise_multiplier":0.0,"sampling_rate":1.0},'
        b'"run":{"rounds":10,"seed":1,"start":"","target":null},"stake":{"bond_gwei":10000000},'
        b'"start_sha256":"","storage":{"keep_rounds":5},"task_sha256":"' + TASK_SHA256.encode() + b'",'
        b'"update":{"bits":"auto","clip_norm":0.0,"clip_value":0.25,"members_max":0,"rotate":true,"weight_cap":0},'
        b'"version":1,'
        b'"windows":{"aggregate_s":600,"challenge_s":86400,"close_s":2592000,"enrol_s":86400,"receipt_s":900,"training_s":3600}}'
    )
    assert CHARTER.digest() == hashlib.sha256(CHARTER.canonical()).digest()


def test_the_canonical_bytes_come_back_as_the_same_charter() -> None:
    assert parse_charter(CHARTER.canonical()) == CHARTER


def test_every_entry_counts_in_the_digest() -> None:
    digests = {CHARTER.digest()}
    for setting in (
        'federation.name="other"',
        'federation.description="for two"',
        'federation.task="another.py"',
        "run.rounds=11",
        "run.target=0.5",
        "run.seed=2",
        "algorithm.local_epochs=2",
        "algorithm.batch_size=31",
        "update.clip_norm=1.0",
        "update.clip_value=0.5",
        "update.bits=4",
        "update.rotate=false",
        "update.members_max=5",
        "update.weight_cap=9",
        "committee.threshold=4",
        "windows.enrol_s=1",
        "windows.training_s=1",
        "windows.receipt_s=1",
        "windows.aggregate_s=1",
        "windows.challenge_s=1",
        "stake.bond_gwei=1",
        "storage.keep_rounds=1",
    ):
        digests.add(CHARTER.with_settings([setting]).digest())
    digests.add(CHARTER.with_settings(["algorithm.name=fedprox", "algorithm.mu=0.1"]).digest())
    digests.add(CHARTER.with_members(MEMBERS[::-1]).digest())
    digests.add(CHARTER.model_copy(update={"task_sha256": "0" * 64}).digest())
    assert len(digests) == 26


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 100_000),
    st.none() | st.floats(0, allow_nan=False, allow_infinity=False),
    st.integers(0, 2**63 - 1),
    st.floats(1e-30, 1e30),
    st.text(max_size=50).filter(str.isprintable),
)
def test_any_charter_survives_canonical_form_and_toml(
    rounds: int, target: float | None, seed: int, clip_value: float, description: str
) -> None:
    charter = Charter(
        federation=Federation(name="trial", members=MEMBERS, description=description),
        run=Run(rounds=rounds, target=target, seed=seed),
        update=Update(clip_value=clip_value),
    )
    assert parse_charter(charter.canonical()) == charter
    assert Charter.model_validate(tomllib.loads(tomli_w.dumps(charter.to_toml()))) == charter


def test_a_folder_gives_the_charter_bound_to_its_task(tmp_path: Path) -> None:
    text = tomli_w.dumps(CHARTER.to_toml())
    assert read_charter(folder(tmp_path, text)) == CHARTER
    assert read_charter(tmp_path / "federation.toml") == CHARTER
    other = read_charter(folder(tmp_path, text, task=b"x = 2\n"))
    assert other.task_sha256 == hashlib.sha256(b"x = 2\n").hexdigest() and other.digest() != CHARTER.digest()


def test_comments_and_order_do_not_change_the_digest(tmp_path: Path) -> None:
    text = '# agreed\nversion = 1\n[run]\nseed = 1 # dice\nrounds = 10\n[federation]\nname = "trial"\n'
    assert read_charter(folder(tmp_path, text)).digest() == CHARTER.with_members(()).digest()


TRIAL = '[federation]\nname = "trial"\n'

WRONG_FILES: dict[str, tuple[str, str]] = {
    "empty": ("", "federation: Field required"),
    "not_toml": ("[federation\n", "cannot be read"),
    "unknown_section": (TRIAL + "[runs]\nrounds = 3\n", "runs: no such entry"),
    "unknown_key": (TRIAL + "[run]\nround = 3\n", "run.round: no such entry"),
    "section_not_a_table": ("federation = 3\n", "federation: "),
    "task_digest_given": ('task_sha256 = ""\n' + TRIAL, "task_sha256 is taken from the task file"),
    "version_2": ("version = 2\n" + TRIAL, "version: Input should be 1"),
    "name_missing": ("[federation]\n", "federation.name: Field required"),
    "name_with_capitals": ('[federation]\nname = "Trial"\n', "federation.name: "),
    "name_too_long": (f'[federation]\nname = "{"a" * 65}"\n', "federation.name: "),
    "description_of_two_lines": (TRIAL + 'description = "a\\nb"\n', "federation.description: must be one line"),
    "description_with_an_escape": (TRIAL + 'description = "\\u001b[2J"\n', "federation.description: must be one line"),
    "task_outside_the_folder": (TRIAL + 'task = "../task.py"\n', "federation.task: "),
    "task_not_python": (TRIAL + 'task = "task.so"\n', "federation.task: "),
    "task_missing": (TRIAL + 'task = "other.py"\n', "names the task other.py, which cannot be read"),
    "member_too_short": (TRIAL + 'members = ["0x12"]\n', "federation.members: '0x12' is not an address"),
    "member_not_hex": (TRIAL + f'members = ["0x{"g" * 40}"]\n', "is not an address"),
    "member_not_text": (TRIAL + "members = [3]\n", "federation.members.0: "),
    "members_not_a_list": (TRIAL + 'members = "0x12"\n', "federation.members: "),
    "member_twice": (TRIAL + f'members = ["0x{"a" * 40}", "0x{"A" * 40}"]\n', "an address stands twice"),
    "members_too_many": (
        TRIAL + f"members = {json.dumps([f'0x{i:040x}' for i in range(MAX_MEMBERS + 1)])}\n",
        "at most 64 members",
    ),
    "rounds_zero": (TRIAL + "[run]\nrounds = 0\n", "run.rounds: "),
    "rounds_as_text": (TRIAL + '[run]\nrounds = "3"\n', "run.rounds: "),
    "rounds_true": (TRIAL + "[run]\nrounds = true\n", "run.rounds: "),
    "rounds_fractional": (TRIAL + "[run]\nrounds = 3.0\n", "run.rounds: "),
    "target_negative": (TRIAL + "[run]\ntarget = -0.1\n", "run.target: "),
    "target_nan": (TRIAL + "[run]\ntarget = nan\n", "run.target: "),
    "target_infinite": (TRIAL + "[run]\ntarget = inf\n", "run.target: "),
    "seed_negative": (TRIAL + "[run]\nseed = -1\n", "run.seed: "),
    "algorithm_unknown": (TRIAL + '[algorithm]\nname = "fedsgd"\n', "algorithm.name: "),
    "mu_without_fedprox": (TRIAL + "[algorithm]\nmu = 0.1\n", "algorithm: algorithm.mu belongs to fedprox"),
    "fedprox_without_mu": (TRIAL + '[algorithm]\nname = "fedprox"\n', "algorithm: fedprox needs algorithm.mu > 0"),
    "local_epochs_zero": (TRIAL + "[algorithm]\nlocal_epochs = 0\n", "algorithm.local_epochs: "),
    "batch_size_zero": (TRIAL + "[algorithm]\nbatch_size = 0\n", "algorithm.batch_size: "),
    "clip_value_zero": (TRIAL + "[update]\nclip_value = 0\n", "update.clip_value: "),
    "clip_value_infinite": (TRIAL + "[update]\nclip_value = inf\n", "update.clip_value: "),
    "clip_value_too_small_to_divide_by": (TRIAL + "[update]\nclip_value = 1e-320\n", "update.clip_value: "),
    "clip_value_beyond_float32": (
        TRIAL + "[update]\nclip_value = 1e300\n",
        "update.clip_value: must be a number from 1e-30 to 1e+30",
    ),
    "learning_rate_beyond_float32": (TRIAL + "[outer]\nlearning_rate = 1e300\n", "outer.learning_rate: "),
    "mu_beyond_float32": (TRIAL + '[algorithm]\nname = "fedprox"\nmu = 1e300\n', "algorithm.mu: "),
    "tau_too_small_to_divide_by": (TRIAL + '[outer]\noptimizer = "fedadam"\ntau = 1e-320\n', "outer.tau: "),
    "private_clip_beyond_float32": (TRIAL + '[privacy]\nmode = "records"\nclip = 1e300\n', "privacy.clip: "),
    "clip_norm_negative": (TRIAL + "[update]\nclip_norm = -1\n", "update.clip_norm: "),
    "bits_1": (TRIAL + "[update]\nbits = 1\n", 'update.bits: 2 to 16, or "auto"'),
    "bits_17": (TRIAL + "[update]\nbits = 17\n", 'update.bits: 2 to 16, or "auto"'),
    "bits_true": (TRIAL + "[update]\nbits = true\n", 'update.bits: 2 to 16, or "auto"'),
    "bits_few": (TRIAL + '[update]\nbits = "few"\n', 'update.bits: 2 to 16, or "auto"'),
    "members_max_2": (TRIAL + "[update]\nmembers_max = 2\n", "update.members_max: a federation has at least 3"),
    "members_max_65": (TRIAL + "[update]\nmembers_max = 65\n", "update.members_max: "),
    "rotate_1": (TRIAL + "[update]\nrotate = 1\n", "update.rotate: "),
    "weight_cap_of_33_bits": (TRIAL + "[update]\nweight_cap = 4294967296\n", "update.weight_cap: "),
    "threshold_65": (TRIAL + "[committee]\nthreshold = 65\n", "committee.threshold: "),
    "window_zero": (TRIAL + "[windows]\ntraining_s = 0\n", "windows.training_s: "),
    "window_of_33_bits": (TRIAL + "[windows]\nenrol_s = 4294967296\n", "windows.enrol_s: "),
    "bond_negative": (TRIAL + "[stake]\nbond_gwei = -1\n", "stake.bond_gwei: "),
    "keep_rounds_zero": (TRIAL + "[storage]\nkeep_rounds = 0\n", "storage.keep_rounds: "),
}


@pytest.mark.parametrize("mistake", WRONG_FILES)
def test_a_mistake_in_the_file_is_named_in_one_line(tmp_path: Path, mistake: str) -> None:
    text, reason = WRONG_FILES[mistake]
    with pytest.raises(UsageError) as caught:
        read_charter(folder(tmp_path, text))
    assert reason in refused(caught.value)
    assert "federation.toml" in str(caught.value)


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no charter at .*; a federation's folder holds") as caught:
        read_charter(tmp_path)
    refused(caught.value)
    (tmp_path / "federation.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        read_charter(tmp_path)
    refused(caught.value)


def changed(change: Any) -> bytes:
    entries = json.loads(CHARTER.canonical())
    change(entries)
    return json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "too_long": (b" " * (MAX_CHARTER_BYTES + 1), "at most 65536 bytes"),
    "not_json": (b"{", "not JSON"),
    "not_text": (b"\xff" * 9, "not JSON"),
    "too_deep": (b"[" * 60_000, "not JSON"),
    "a_number_too_long": (b"1" * 60_000, "not JSON"),
    "a_list": (b"[]", "the stored charter: the file: "),
    "whitespace": (CHARTER.canonical() + b"\n", "not in canonical form"),
    "another_order": (
        json.dumps(dict(reversed(json.loads(CHARTER.canonical()).items())), separators=(",", ":")).encode(),
        "not in canonical form",
    ),
    "duplicate_key": (CHARTER.canonical()[:-1] + b',"version":1}', "not in canonical form"),
    "default_left_out": (changed(lambda e: e["run"].pop("seed")), "not in canonical form"),
    "number_in_another_spelling": (CHARTER.canonical().replace(b"0.25", b"0.250"), "not in canonical form"),
    "integer_for_a_float": (CHARTER.canonical().replace(b'"mu":0.0', b'"mu":0'), "not in canonical form"),
    "unknown_key": (changed(lambda e: e["run"].update(pace=3)), "run.pace: no such entry"),
    "nan": (changed(lambda e: e["run"].update(target=float("nan"))), "run.target: "),
    "lone_surrogate": (changed(lambda e: e["federation"].update(description="\ud800")), "federation.description: "),
    "task_digest_not_hex": (changed(lambda e: e.update(task_sha256="z" * 64)), "task_sha256: "),
}


@pytest.mark.parametrize("vector", HOSTILE)
def test_hostile_charter_bytes_are_refused_in_one_line(vector: str) -> None:
    content, reason = HOSTILE[vector]
    with pytest.raises(UsageError) as caught:
        parse_charter(content)
    assert reason in refused(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_random_bytes_are_refused_and_nothing_else(content: bytes) -> None:
    with pytest.raises(UsageError):
        parse_charter(content)


def test_settings_replace_entries_and_keep_the_rest() -> None:
    settings_given = ["run.rounds=3", "run.target = 0.9", "algorithm.name=fedprox", "algorithm.mu=0.01"]
    charter = CHARTER.with_settings([*settings_given, 'federation.description="a = b"'])
    assert charter.run == Run(rounds=3, target=0.9)
    assert charter.algorithm == Algorithm(name="fedprox", mu=0.01)
    assert charter.federation.description == "a = b"
    assert charter.federation.members == MEMBERS and charter.task_sha256 == TASK_SHA256
    assert CHARTER.with_settings([]) == CHARTER
    assert CHARTER.with_settings(["run.rounds=3", "run.rounds=4"]).run.rounds == 4


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("rounds=3", "write section.key=value"),
        ("run.rounds", "write section.key=value"),
        ("run.=3", "write section.key=value"),
        ("=3", "write section.key=value"),
        ("runs.rounds=3", "the charter has no section 'runs'"),
        ("version.x=3", "the charter has no section 'version'"),
        ("task_sha256.x=3", "the charter has no section 'task_sha256'"),
        ("run.round=3", "section 'run' has no entry 'round'"),
        ("run.a.b=3", "section 'run' has no entry 'a.b'"),
        ("run.model_fields=3", "section 'run' has no entry 'model_fields'"),
        ("run.rounds=0", "the changed charter: run.rounds: "),
        ("run.rounds=many", "the changed charter: run.rounds: "),
        ("run.rounds=", "the changed charter: run.rounds: "),
        ("run.rounds={a=1}", "the changed charter: run.rounds: "),
        ("run.rounds=2020-01-01", "the changed charter: run.rounds: "),
        ("run.target=inf", "the changed charter: run.target: "),
        ("algorithm.mu=0.1", "algorithm.mu belongs to fedprox"),
        ("federation.name=two words", "the changed charter: federation.name: "),
        ("windows.close_s=15299", "give it at least three times as long, 15300"),
        ("federation.members=[]\nx", "the changed charter: federation.members: "),
    ],
)
def test_a_wrong_setting_is_explained_in_one_line(setting: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        CHARTER.with_settings([setting])
    assert reason in refused(caught.value)


@pytest.mark.parametrize(
    ("members", "threshold", "reason"),
    [
        (0, 0, "names 0 members"),
        (2, 0, "needs at least 3"),
        (5, 2, "with 5 members it must be 3 to 4"),
        (5, 5, "with 5 members it must be 3 to 4"),
    ],
)
def test_an_incomplete_charter_cannot_be_deployed(members: int, threshold: int, reason: str) -> None:
    charter = CHARTER.with_members(MEMBERS[:members]).with_settings([f"committee.threshold={threshold}"])
    with pytest.raises(UsageError, match=reason) as caught:
        charter.check_complete()
    refused(caught.value)


def test_a_charter_without_its_task_cannot_be_deployed() -> None:
    with pytest.raises(UsageError, match="does not bind its task"):
        CHARTER.model_copy(update={"task_sha256": ""}).check_complete()


@pytest.mark.parametrize(("members", "threshold"), [(3, 2), (4, 3), (5, 3), (64, 33)])
def test_the_threshold_is_a_majority_unless_more_is_asked(members: int, threshold: int) -> None:
    addresses = tuple(Address(f"0x{i:040x}") for i in range(members))
    charter = CHARTER.with_members(addresses)
    charter.check_complete()
    assert charter.threshold == threshold
    assert charter.with_settings([f"committee.threshold={members - 1}"]).threshold == members - 1
