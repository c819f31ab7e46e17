"""Keys at rest: sealed, owner-only, never overwritten, and refused in one line when anything is wrong."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nacl.public
import pytest
from eth_account import Account

from fedchain.chain.keys import (
    Identity,
    KeyRing,
    encryption_file,
    encryption_files,
    load_identity,
    new_identity,
    public_identity,
)
from fedchain.errors import UsageError

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Identity]:
    """A keystore that tests must not change, and what is in it."""
    keystore = tmp_path_factory.mktemp("keys") / "ada.json"
    return keystore, new_identity(keystore, PASSWORD, fast=True)


@pytest.fixture
def keystore(made: tuple[Path, Identity], tmp_path: Path) -> Path:
    """A copy to spoil."""
    copy = tmp_path / "ada.json"
    for source in (made[0], encryption_file(made[0])):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    return copy


def test_what_was_made_is_what_is_loaded(made: tuple[Path, Identity]) -> None:
    keystore, identity = made
    assert load_identity(keystore, PASSWORD) == identity
    assert Account.from_key(identity.account_private).address == identity.address
    assert bytes(nacl.public.PrivateKey(identity.encryption_private).public_key) == identity.encryption_public


def test_the_keystore_is_an_ordinary_one(made: tuple[Path, Identity]) -> None:
    """Any Ethereum tool can open it."""
    assert bytes(Account.decrypt(json.loads(made[0].read_text()), PASSWORD)) == made[1].account_private


def test_addresses_and_public_keys_need_no_password(made: tuple[Path, Identity]) -> None:
    public = public_identity(made[0])
    assert (public.address, public.encryption_public) == (made[1].address, made[1].encryption_public)


def test_nothing_secret_is_in_the_files_or_in_the_repr(made: tuple[Path, Identity]) -> None:
    keystore, identity = made
    seen = keystore.read_text() + encryption_file(keystore).read_text() + repr(identity)
    for secret in (identity.account_private, identity.encryption_private):
        assert secret.hex() not in seen and repr(secret) not in seen


def test_only_the_owner_may_read(made: tuple[Path, Identity]) -> None:
    for file in (made[0], encryption_file(made[0])):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_nothing_else_is_left_in_the_folder(made: tuple[Path, Identity]) -> None:
    assert {p.name for p in made[0].parent.iterdir()} == {"ada.json", "ada.x25519.json"}


def test_two_keys_have_nothing_in_common(tmp_path: Path) -> None:
    one, other = (new_identity(tmp_path / f"{name}.json", PASSWORD, fast=True) for name in "ab")
    assert one.account_private != other.account_private and one.encryption_private != other.encryption_private


@pytest.mark.parametrize("there", ["ada.json", "ada.x25519.json"])
def test_keys_are_never_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(UsageError, match="never overwritten"):
        new_identity(tmp_path / "ada.json", PASSWORD, fast=True)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(there, "precious")]


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "ada.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="never overwritten"):
        new_identity(tmp_path / "ada.json", PASSWORD, fast=True)


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    made: list[Identity] = []
    refused: list[str] = []

    def make() -> None:
        try:
            made.append(new_identity(tmp_path / "ada.json", PASSWORD, fast=True))
        except UsageError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 5)
    assert load_identity(tmp_path / "ada.json", PASSWORD) == made[0]


def test_an_empty_password_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="empty password"):
        new_identity(tmp_path / "ada.json", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot be written"):
        new_identity(tmp_path / "ada.json", PASSWORD, fast=True)


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        new_identity(tmp_path / "file" / "ada.json", PASSWORD, fast=True)


def test_a_wrong_password_is_said_so(keystore: Path) -> None:
    with pytest.raises(UsageError, match=r"the password does not open .*ada\.json"):
        load_identity(keystore, "wrong")


def test_a_missing_keystore_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make one with `fedchain key new"):
        load_identity(tmp_path / "nobody.json", PASSWORD)


def test_a_missing_encryption_key_is_named(keystore: Path) -> None:
    encryption_file(keystore).unlink()
    with pytest.raises(UsageError, match=r"ada\.x25519\.json"):
        load_identity(keystore, PASSWORD)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"\xff", b"{}", b"[" * 16_000, b" " * 20_000, b'{"version": 3}']
)
def test_a_malformed_file_is_refused(keystore: Path, which: int, content: bytes) -> None:
    (keystore, encryption_file(keystore))[which].write_bytes(content)
    for read in (lambda: load_identity(keystore, PASSWORD), lambda: public_identity(keystore)):
        with pytest.raises(UsageError) as refused:
            read()
        assert "\n" not in str(refused.value)


def _change(file: Path, *path: str) -> Callable[[Any], None]:
    def write(value: Any) -> None:
        entries = json.loads(file.read_text())
        place = entries
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        file.write_text(json.dumps(entries))

    return write


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 4),
        (("address",), "0x" + "11" * 20),
        (("crypto",), 7),
        (("crypto", "kdf"), "none"),
        (("crypto", "kdfparams"), []),
        (("crypto", "kdfparams", "n"), 1 << 40),
        (("crypto", "kdfparams", "r"), 1 << 30),
        (("crypto", "kdfparams", "p"), 1 << 20),
        (("crypto", "kdfparams", "dklen"), 1 << 40),
        (("crypto", "kdfparams", "n"), True),
        (("crypto", "kdfparams", "n"), 1000),
        (("crypto", "kdfparams", "salt"), 5),
        (("crypto", "cipher"), "rot13"),
        (("crypto", "cipherparams"), {}),
        (("crypto", "ciphertext"), "zz"),
        (("crypto", "mac"), "00" * 32),
    ],
)
def test_a_spoilt_keystore_entry_is_refused(keystore: Path, path: tuple[str, ...], value: Any) -> None:
    _change(keystore, *path)(value)
    with pytest.raises(UsageError):
        load_identity(keystore, PASSWORD)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("form",), "other"),
        (("public",), "00" * 32),
        (("public",), 5),
        (("kdf",), None),
        (("kdf", "name"), "md5"),
        (("kdf", "salt"), "00"),
        (("kdf", "salt"), "zz" * 16),
        (("kdf", "salt"), "00" * 16),
        (("kdf", "opslimit"), 0),
        (("kdf", "opslimit"), 1 << 40),
        (("kdf", "memlimit"), 1 << 50),
        (("kdf", "memlimit"), "16"),
        (("box",), "00" * 92),
        (("box",), "00"),
        (("box",), None),
    ],
)
def test_a_spoilt_encryption_key_entry_is_refused(keystore: Path, path: tuple[str, ...], value: Any) -> None:
    _change(encryption_file(keystore), *path)(value)
    with pytest.raises(UsageError):
        load_identity(keystore, PASSWORD)


def test_another_members_encryption_key_is_noticed(keystore: Path, tmp_path: Path) -> None:
    """Even under the same password: shares sealed to it could never be opened by this member."""
    other = tmp_path / "bob.json"
    new_identity(other, PASSWORD, fast=True)
    encryption_file(keystore).write_bytes(encryption_file(other).read_bytes())
    with pytest.raises(UsageError, match="belongs to another keystore"):
        load_identity(keystore, PASSWORD)


def test_a_key_that_is_added_is_the_newest_and_the_one_before_still_opens(
    keystore: Path, made: tuple[Path, Identity]
) -> None:
    first = made[1]
    ring = KeyRing(keystore, PASSWORD, load_identity(keystore, PASSWORD))
    second = ring.add()
    assert (ring.publics, ring.newest) == ((first.encryption_public, second), second)
    assert load_identity(keystore, PASSWORD).encryption_public == second == public_identity(keystore).encryption_public
    assert ring.private_of(first.encryption_public) == first.encryption_private
    private = ring.private_of(second)
    assert private is not None and bytes(nacl.public.PrivateKey(private).public_key) == second
    assert [file.name for file in encryption_files(keystore).values()] == ["ada.x25519.json", "ada.x25519.2.json"]
    assert stat.S_IMODE(encryption_file(keystore, 2).stat().st_mode) == 0o600


def test_a_ring_finds_a_key_that_another_process_added(keystore: Path) -> None:
    identity = load_identity(keystore, PASSWORD)
    mine, other = (KeyRing(keystore, PASSWORD, identity) for _ in range(2))
    added = other.add()
    assert mine.private_of(added) == other.private_of(added) is not None
    assert mine.private_of(b"\x05" * 32) is None


def test_erased_keys_are_gone_and_the_newest_never_goes(keystore: Path, made: tuple[Path, Identity]) -> None:
    ring = KeyRing(keystore, PASSWORD, load_identity(keystore, PASSWORD))
    first, second, third = made[1].encryption_public, ring.add(), ring.add()
    assert ring.erase_except({second}) == (first,)
    assert ring.private_of(first) is None and ring.publics == (second, third)
    assert not encryption_file(keystore).exists()
    assert ring.erase_except(()) == (second,)
    assert ring.publics == (third,), "the newest stays, needed or not"
    assert ring.add() == ring.newest and encryption_files(keystore).keys() == {3, 4}, "no number comes twice"
    assert load_identity(keystore, PASSWORD).encryption_public == ring.newest


def test_a_key_file_with_a_number_of_another_keystore_is_no_key_of_this_one(keystore: Path) -> None:
    (keystore.parent / "ada.x25519.x.json").write_text("{}")
    (keystore.parent / "grada.x25519.2.json").write_text("{}")
    assert list(encryption_files(keystore)) == [1]


def test_importing_the_signer_leaves_json_of_any_depth_harmless() -> None:
    """py_ecc raises the recursion limit to 100,000, at which the JSON parser overflows the C stack."""
    code = "import json, fedchain.chain.keys\ntry: json.loads('[' * 10**6)\nexcept RecursionError: print('harmless')"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout == "harmless\n", ran.stderr[-300:]


def test_the_reader_can_sign_nothing() -> None:
    """What an auditor runs imports neither web3 nor eth_account, nor torch or tenseal."""
    code = (
        "import sys, fedchain.chain.reader, fedchain.chain.deployment\n"
        "print(sorted({'torch', 'tenseal', 'web3', 'eth_account', 'eth_keys'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
