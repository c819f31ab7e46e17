"""A member's two keys at rest: an eth-account keystore that signs, and beside it the X25519 key that opens shares.

Both are sealed with one password: the keystore by scrypt (the Ethereum keystore format, version 3), the X25519 key by
Argon2id and XSalsa20-Poly1305 (PyNaCl's SecretBox). Nothing secret ever touches a disk in the clear, and no file is
ever overwritten: a key that is lost cannot be made again. A member that rotates its X25519 key has several for a while,
a file each (`KeyRing`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nacl.exceptions
import nacl.public
import nacl.pwhash
import nacl.secret
from eth_utils.address import to_checksum_address

from ..errors import UsageError
from ..protocol.ids import Address
from .signing import Account

_FAST_SCRYPT_N = 1 << 14
_MAX_SCRYPT_MEMORY = 1 << 30
_MAX_KEY_FILE_BYTES = 16_384
_FORM = "fedchain x25519 v1"


@dataclass(frozen=True, slots=True)
class Identity:
    """A member's keys, unsealed. `repr` shows no secret.

    `account_private` (32 bytes, secp256k1) signs transactions; `encryption_private` and `encryption_public` (X25519,
    32 bytes each) open and seal shares.
    """

    address: Address
    account_private: bytes = field(repr=False)
    encryption_private: bytes = field(repr=False)
    encryption_public: bytes


@dataclass(frozen=True, slots=True)
class PublicIdentity:
    """What the files say without a password."""

    address: Address
    encryption_public: bytes


def encryption_file(keystore: Path, number: int = 1) -> Path:
    """Where an X25519 key of `ada.json` lies: beside it in `ada.x25519.json`, the next in `ada.x25519.2.json`."""
    suffix = ".x25519.json" if number == 1 else f".x25519.{number}.json"
    return keystore.with_name(keystore.name.removesuffix(".json") + suffix)


def encryption_files(keystore: Path) -> dict[int, Path]:
    """The X25519 keys of a keystore that are there, by number: the highest is the newest."""
    stem = re.escape(keystore.name.removesuffix(".json"))
    pattern = re.compile(rf"{stem}\.x25519(?:\.([2-9]|[1-9][0-9]{{1,8}}))?\.json")
    found = {
        int(match[1] or 1): file for file in keystore.parent.glob("*.json") if (match := pattern.fullmatch(file.name))
    }
    return dict(sorted(found.items()))


def new_identity(keystore: Path, password: str, fast: bool = False) -> Identity:
    """Make fresh keys, seal them into `keystore` and the file beside it, and give them.

    `fast` (n = 2**14, 0.1 s instead of 1 s) is for devnets: it costs an attacker sixteen times less a guess. Raises
    UsageError when a file is already there or cannot be written.
    """
    if not password:
        raise UsageError("an empty password protects nothing; give one")
    sealed = encryption_file(keystore)
    for file in (keystore, sealed):
        if file.exists() or file.is_symlink():
            raise UsageError(f"{file} is already there; keys are never overwritten, choose another name")
    private_key = Account.create(secrets.token_hex(32)).key
    address = Address(Account.from_key(private_key).address)
    encryption = nacl.public.PrivateKey.generate()
    identity = Identity(
        address=address,
        account_private=bytes(private_key),
        encryption_private=bytes(encryption),
        encryption_public=bytes(encryption.public_key),
    )
    cost = _FAST_SCRYPT_N if fast else None
    store = Account.encrypt(identity.account_private, password, kdf="scrypt", iterations=cost)
    store["address"] = address
    # The X25519 file first: a keystore that is there is whole.
    _write_new(sealed, _sealed(address, encryption, password, _costs(fast)))
    _write_new(keystore, store)
    return identity


def load_identity(keystore: Path, password: str) -> Identity:
    """The keys of a keystore and the newest file beside it. Raises UsageError: missing, malformed, wrong password."""
    sealed = _newest_file(keystore)
    store = _read(keystore)
    _check_keystore_cost(keystore, store)
    try:
        private_key = bytes(Account.decrypt(store, password))
        address = Address(Account.from_key(private_key).address)
    except ValueError as error:
        if "MAC mismatch" in str(error):
            raise UsageError(f"the password does not open {keystore}") from error
        raise _malformed(keystore) from error
    except (KeyError, TypeError, AttributeError, NotImplementedError) as error:
        raise _malformed(keystore) from error
    named = store.get("address")
    if isinstance(named, str) and named.lower().removeprefix("0x") != address[2:].lower():
        raise _malformed(keystore)
    encryption = nacl.public.PrivateKey(_unseal(sealed, _read(sealed), address, password))
    return Identity(
        address=address,
        account_private=private_key,
        encryption_private=bytes(encryption),
        encryption_public=bytes(encryption.public_key),
    )


def public_identity(keystore: Path) -> PublicIdentity:
    """Address and X25519 public key, read without a password (so a changed file may lie). Raises UsageError."""
    store, sealed = _read(keystore), _newest_file(keystore)
    address = store.get("address")
    if not isinstance(address, str) or len(address.removeprefix("0x")) != 40 or _hex(address, 20) is None:
        raise _malformed(keystore)
    public = _public_of(sealed, _read(sealed))
    return PublicIdentity(Address(to_checksum_address("0x" + address.removeprefix("0x"))), public)


class KeyRing:
    """A member's X25519 keys: the newest, and earlier ones for as long as something that was sealed to them may have to
    be opened. Implements `ports.EncryptionKeys`.

    A key is unsealed when it is first asked for, so that a peer at work finds one that was made since it started.
    """

    def __init__(self, keystore: Path, password: str, identity: Identity) -> None:
        self._keystore = keystore
        self._password = password
        self._address = identity.address
        self._unsealed = {identity.encryption_public: identity.encryption_private}

    @property
    def newest(self) -> bytes:
        """The public key that was made last; perhaps nobody was told of it yet."""
        return self._public(_newest_file(self._keystore))

    @property
    def publics(self) -> tuple[bytes, ...]:
        """Every public key whose private key is here, oldest first."""
        return tuple(self._public(file) for file in encryption_files(self._keystore).values())

    def private_of(self, public: bytes) -> bytes | None:
        """The private key to a public one; None where it is not here. Raises UsageError for a damaged file."""
        if public not in self._unsealed:
            for file in encryption_files(self._keystore).values():
                entries = _read(file)
                if _public_of(file, entries) == public:
                    self._unsealed[public] = _unseal(file, entries, self._address, self._password)
        return self._unsealed.get(public)

    def add(self) -> bytes:
        """Make a fresh key, as dear to guess as the newest, sealed into a file of its own; gives its public key."""
        number, newest = max(encryption_files(self._keystore).items())
        costs = _costs_in(newest, _read(newest))
        fresh = nacl.public.PrivateKey.generate()
        file = encryption_file(self._keystore, number + 1)
        _write_new(file, _sealed(self._address, fresh, self._password, costs))
        self._unsealed[bytes(fresh.public_key)] = bytes(fresh)
        return bytes(fresh.public_key)

    def erase_except(self, needed: Collection[bytes]) -> tuple[bytes, ...]:
        """Erase every key but these and the newest, for ever; gives the public keys of those erased.

        Nothing that was sealed to them can be opened any more, whoever gets hold of this disk and its password later.
        What the file system or the drive keeps of an overwritten file is beyond us, and so are copies.
        """
        *older, _ = encryption_files(self._keystore).values()
        erased = []
        for file in older:
            public = self._public(file)
            if public not in needed:
                _erase(file)
                self._unsealed.pop(public, None)
                erased.append(public)
        return tuple(erased)

    def _public(self, file: Path) -> bytes:
        return _public_of(file, _read(file))


def _newest_file(keystore: Path) -> Path:
    files = encryption_files(keystore)
    return files[max(files)] if files else encryption_file(keystore)


def _public_of(file: Path, entries: dict[str, Any]) -> bytes:
    public = _hex(entries.get("public"), 32)
    if public is None or entries.get("form") != _FORM:
        raise _malformed(file)
    return public


def _costs(fast: bool) -> tuple[int, int]:
    """Argon2id's work and memory."""
    if fast:
        return nacl.pwhash.argon2id.OPSLIMIT_MIN, nacl.pwhash.argon2id.MEMLIMIT_INTERACTIVE // 4
    return nacl.pwhash.argon2id.OPSLIMIT_MODERATE, nacl.pwhash.argon2id.MEMLIMIT_MODERATE


def _sealed(
    address: Address, encryption: nacl.public.PrivateKey, password: str, costs: tuple[int, int]
) -> dict[str, Any]:
    salt = secrets.token_bytes(nacl.pwhash.argon2id.SALTBYTES)
    opslimit, memlimit = costs
    # The address is sealed with the key, so that a file laid beside another's keystore is noticed.
    content = bytes.fromhex(address[2:]) + bytes(encryption)
    box = nacl.secret.SecretBox(_stretched(password, salt, opslimit, memlimit)).encrypt(content)
    return {
        "form": _FORM,
        "address": address,
        "public": bytes(encryption.public_key).hex(),
        "kdf": {"name": "argon2id", "salt": salt.hex(), "opslimit": opslimit, "memlimit": memlimit},
        "box": box.hex(),
    }


def _unseal(file: Path, entries: dict[str, Any], address: Address, password: str) -> bytes:
    opslimit, memlimit = _costs_in(file, entries)
    salt = _hex(entries["kdf"].get("salt"), 16)
    box = _hex(entries.get("box"), nacl.secret.SecretBox.NONCE_SIZE + nacl.secret.SecretBox.MACBYTES + 52)
    if entries.get("form") != _FORM or box is None or salt is None:
        raise _malformed(file)
    try:
        content = nacl.secret.SecretBox(_stretched(password, salt, opslimit, memlimit)).decrypt(box)
    except nacl.exceptions.CryptoError as error:
        raise UsageError(f"the password does not open {file}, or the file was changed") from error
    if content[:20] != bytes.fromhex(address[2:]):
        raise UsageError(f"{file} belongs to another keystore; put the file that was made with it back beside it")
    if bytes(nacl.public.PrivateKey(content[20:]).public_key) != _public_of(file, entries):
        raise _malformed(file)
    return content[20:]


def _costs_in(file: Path, entries: dict[str, Any]) -> tuple[int, int]:
    """Argon2id's work and memory as a file states them. Raises UsageError for any that we would never write."""
    kdf = entries.get("kdf")
    if not isinstance(kdf, dict) or kdf.get("name") != "argon2id":
        raise _malformed(file)
    opslimit, memlimit = kdf.get("opslimit"), kdf.get("memlimit")
    if type(opslimit) is not int or type(memlimit) is not int:
        raise _malformed(file)
    # A file must not make us reserve more memory, or work longer, than the costliest settings we would write.
    if not (
        nacl.pwhash.argon2id.OPSLIMIT_MIN <= opslimit <= nacl.pwhash.argon2id.OPSLIMIT_SENSITIVE
        and nacl.pwhash.argon2id.MEMLIMIT_MIN <= memlimit <= nacl.pwhash.argon2id.MEMLIMIT_SENSITIVE
    ):
        raise _malformed(file)
    return opslimit, memlimit


def _erase(file: Path) -> None:
    try:
        with file.open("r+b") as stream:
            stream.write(bytes(file.stat().st_size))
            stream.flush()
            os.fsync(stream.fileno())
        file.unlink()
    except OSError as error:
        raise UsageError(f"{file} cannot be erased: {error.strerror or error}") from error


def _stretched(password: str, salt: bytes, opslimit: int, memlimit: int) -> bytes:
    size = nacl.secret.SecretBox.KEY_SIZE
    return nacl.pwhash.argon2id.kdf(size, password.encode(), salt, opslimit=opslimit, memlimit=memlimit)


def _check_keystore_cost(file: Path, store: dict[str, Any]) -> None:
    """Refuse a keystore whose key derivation would eat the machine before the password is even looked at."""
    crypto = store.get("crypto", store.get("Crypto"))
    if not isinstance(crypto, dict) or not isinstance(crypto.get("kdfparams"), dict) or store.get("version") != 3:
        raise _malformed(file)
    params: dict[str, Any] = crypto["kdfparams"]
    if crypto.get("cipher") != "aes-128-ctr" or params.get("dklen") != 32:
        raise _malformed(file)
    names = ("n", "r", "p") if crypto.get("kdf") == "scrypt" else ("c",)
    costs = [params.get(name) for name in names]
    if not all(type(cost) is int and cost >= 1 for cost in costs):
        raise _malformed(file)
    if names == ("c",):
        excessive = params["c"] > 10_000_000
    else:
        excessive = 128 * params["n"] * params["r"] > _MAX_SCRYPT_MEMORY or params["p"] > 16
    if excessive:
        raise _malformed(file)


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_KEY_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"no key at {file}; make one with `fedchain key new {file}`") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror or error}") from error
    try:
        entries = json.loads(content) if len(content) <= _MAX_KEY_FILE_BYTES else None
    except (ValueError, RecursionError) as error:
        raise _malformed(file) from error
    if not isinstance(entries, dict):
        raise _malformed(file)
    return entries


def _write_new(file: Path, entries: dict[str, Any]) -> None:
    """Whole or not at all, readable by its owner only, and never over another file."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(json.dumps(entries, indent=2).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.link(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{file} is already there; keys are never overwritten, choose another name") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error


def _malformed(file: Path) -> UsageError:
    return UsageError(f"{file} is not a key file that fedchain wrote; restore it from your copy")


def _hex(value: object, length: int) -> bytes | None:
    if not isinstance(value, str) or len(value.removeprefix("0x")) != 2 * length:
        return None
    try:
        return bytes.fromhex(value.removeprefix("0x"))
    except ValueError:
        return None
