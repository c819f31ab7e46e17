"""A bundle says offline what the audit said online; a hostile one is refused or found out, and never unpacked."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fedchain.audit import audit
from fedchain.audit.bundle import BundleWriter, open_bundle
from fedchain.chain.artifacts import load_artifact
from fedchain.chain.deployment import creation_code
from fedchain.errors import ChainMismatch, ObjectCorrupt, ObjectMissing, UsageError
from fedchain.protocol.events import AggregateCommitted, FederationFounded, ResultCommitted, UpdateCommitted
from fedchain.protocol.ids import Root


def bundled(play: Any, file: Path, code: bytes | None = None, creation: bytes | None = None) -> Any:
    """Audit into a bundle; gives the report."""
    founded = play.event(FederationFounded)
    writer = BundleWriter(play.store, file)
    try:
        report = audit(play.chain, writer, code_check=lambda: None)
        writer.finish(
            play.chain,
            load_artifact().deployed_bytecode if code is None else code,
            creation_code(founded.terms, founded.founders) if creation is None else creation,
            None,
        )
    finally:
        writer.abandon()
    return report


def offline(file: Path) -> Any:
    with open_bundle(file) as bundle:
        return audit(bundle, bundle)


@pytest.fixture
def file(honest: Any, tmp_path: Path) -> Path:
    path = tmp_path / "audit.zip"
    bundled(honest, path)
    return path


def rewritten(file: Path, change: Any) -> None:
    """The same bundle, its members changed by a function of (name, content)."""
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(file, "w") as new:
        for name, content in members.items():
            changed = change(name, content)
            if changed is not None:
                new.writestr(name, changed)


def rewritten_log(file: Path, change: Any) -> None:
    def of(name: str, content: bytes) -> bytes:
        if name != "bundle.json":
            return content
        head = json.loads(content)
        change(head)
        return json.dumps(head).encode()

    rewritten(file, of)


def test_the_audit_offline_is_the_audit_online(honest: Any, tmp_path: Path) -> None:
    online = bundled(honest, tmp_path / "b.zip")
    assert online.verdict == "ok" and online.complete
    assert offline(tmp_path / "b.zip").to_json() == online.to_json()
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]


def test_faults_are_the_same_offline(named: Any, honest: Any, tmp_path: Path) -> None:
    play = honest.edited(ResultCommitted, {"result_root": Root(b"\x11" * 32)}, round=2)
    del play.store.served[play.event(UpdateCommitted, round=1, index=3).ciphertext_cid]
    online = bundled(play, tmp_path / "b.zip")
    assert named.found(offline(tmp_path / "b.zip")) == named.found(online) != set()


def test_an_audit_that_fails_leaves_no_bundle_behind(honest: Any, tmp_path: Path) -> None:
    writer = BundleWriter(honest.store, tmp_path / "b.zip")
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_changed_object_is_found_out(named: Any, honest: Any, file: Path) -> None:
    cid = honest.event(AggregateCommitted, round=1).cid
    rewritten(file, lambda name, content: named.flipped(content, 50) if cid in name else content)
    assert named.found(offline(file)) == {(4, 1, named.MEMBERS[0])}


def test_a_missing_object_is_found_out(named: Any, honest: Any, file: Path) -> None:
    cid = honest.event(AggregateCommitted, round=1).cid
    rewritten(file, lambda name, content: None if cid in name else content)
    assert named.found(offline(file)) == {(4, 1, named.MEMBERS[0])}


def test_a_log_that_was_changed_is_found_out(named: Any, file: Path) -> None:
    def change(head: Any) -> None:
        entry = next(e for e in head["log"] if e["event"] == "AggregateCommitted")
        entry["says"]["root"] = "22" * 32

    rewritten_log(file, change)
    assert (7, 1, named.MEMBERS[0]) in named.found(offline(file))


@pytest.mark.parametrize("part", ["code", "creation"])
def test_other_code_in_a_bundle_names_the_contract(named: Any, file: Path, part: str) -> None:
    rewritten_log(file, lambda head: head.update({part: "6080" + head[part][4:-2] + "ff"}))
    assert named.found(offline(file)) == {(1, 0, "the contract")}


def test_a_bundle_without_code_leaves_that_check_undone(honest: Any, tmp_path: Path) -> None:
    bundled(honest, tmp_path / "b.zip", code=b"", creation=b"")
    report = offline(tmp_path / "b.zip")
    assert report.faults == () and not report.complete


@pytest.mark.parametrize(
    "change",
    [
        lambda head: head.update(format=2),
        lambda head: head.update(log=[]),
        lambda head: head.update(log=head["log"][1:]),
        lambda head: head.update(contract="0x12"),
        lambda head: head.update(chain_id=True),
        lambda head: head.update(now=-1),
        lambda head: head.update(code="zz"),
        lambda head: head.pop("now"),
        lambda head: head["log"][0].update(extra=1),
        lambda head: head["log"][0]["says"].pop("at"),
        lambda head: head["log"][0]["says"]["terms"].update(aggregate_window_s=0),
        lambda head: head["log"][0]["says"]["terms"].update(model_size=1 << 50),
        lambda head: head["log"][0]["says"]["terms"].update(charter_cid="../../etc/passwd"),
        lambda head: head["log"][0]["says"].update(founders=["0x" + "11" * 20] * 100),
        lambda head: head["log"][1]["says"].update(index=64),
        lambda head: head["log"][1]["says"].update(weight=-1),
        lambda head: head["log"][1]["says"].update(weight=1.5),
        lambda head: head["log"][1].update(event="Logged"),
        lambda head: head["log"][1].update(transaction="00"),
    ],
)
def test_a_malformed_log_is_refused(file: Path, change: Any) -> None:
    rewritten_log(file, change)
    with pytest.raises(UsageError, match="not a bundle"):
        offline(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a zip at all"])
def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.zip").write_bytes(content)
    with pytest.raises(UsageError, match="not a bundle"):
        offline(tmp_path / "b.zip")


def test_a_missing_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no bundle"):
        offline(tmp_path / "b.zip")


def test_a_truncated_zip_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UsageError, match="not a bundle"):
        offline(file)


def test_a_compressed_bomb_is_read_no_further_than_allowed(honest: Any, file: Path, tmp_path: Path) -> None:
    cid = honest.event(AggregateCommitted, round=1).cid
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive, pytest.warns(UserWarning):
        archive.writestr(f"objects/{cid}", bytes(50_000_000))
    with open_bundle(file) as bundle, pytest.raises(ObjectCorrupt, match="more than 1,000 bytes"):
        bundle.get_file(cid, 1000, tmp_path / "object")


def test_nothing_is_written_outside_the_folder_that_the_audit_names(honest: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("../escaped", b"x")
        archive.writestr("/tmp/escaped-absolute", b"x")
        archive.writestr("bundle.json", b"{}")
    with pytest.raises(UsageError):
        offline(tmp_path / "b.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]
    assert not (tmp_path.parent / "escaped").exists() and not Path("/tmp/escaped-absolute").exists()


def test_an_object_is_asked_for_by_its_exact_name(file: Path, tmp_path: Path) -> None:
    with open_bundle(file) as bundle, pytest.raises(ObjectMissing):
        bundle.get_file("../bundle.json", 1 << 20, tmp_path / "object")  # type: ignore[arg-type]


def test_a_log_out_of_the_impossible_is_a_mismatch(file: Path) -> None:
    def change(head: Any) -> None:
        for entry in head["log"]:
            if entry["event"] == "UpdateCommitted":
                entry["says"]["attempt"] = 9

    rewritten_log(file, change)
    with pytest.raises(ChainMismatch, match="impossible"):
        offline(file)
