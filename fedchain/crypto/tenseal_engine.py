"""The sum and the decryption through TenSEAL (Microsoft SEAL): the same integers as `numpy_engine`, to the bit.

Only this module imports TenSEAL. What it works around, in TenSEAL 0.3.18:

- `ts.context` always makes relinearisation keys, which a single-prime modulus cannot have: the serialized context is
  written by hand and loaded.
- Adding two ciphertexts without a second polynomial raises "result ciphertext is transparent": the first carries ones
  there, which stay in the sum and are not read.
- TenSEAL saves compressed bytes only, but loads plain ones; results are read out coefficient by coefficient, and what
  is hashed and stored is the canonical packing of `packing`, never TenSEAL's bytes.
- A damaged ciphertext loads silently: sizes, headers and ranges have been checked before anything comes here.
- Work holds the GIL, and a context's memory and threads live as long as it does: one small context is kept, each with
  one thread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import tenseal as ts
from numpy.typing import NDArray
from tenseal import sealapi

from .parameters import PLAIN_MODULUS, N, Q
from .seed import Residues

_BFV = 1
_NO_SCALE = -1.0


def add(blocks: Iterable[Residues]) -> Residues:
    """The sum mod q of members' residues, each below q: one `+=` of BFV vectors a member."""
    total = None
    size = 0
    for block in blocks:
        size = block.size
        c0 = np.zeros((-(-size // N), N), dtype=np.uint64)
        c0.reshape(-1)[:size] = block
        # Ones on the first and nothing on the rest keep the sum from being "transparent"; nobody reads them.
        c1 = np.full_like(c0, 1 if total is None else 0)
        vector = _load(_context(), c0, c1)
        if total is None:
            total = vector
        else:
            total += vector
    if total is None:
        raise ValueError("a sum has at least one term")
    return np.concatenate([_read(ciphertext, N) for ciphertext in total.ciphertext()])[:size]


class Decryption:
    """SEAL's decryptor with S loaded as the secret key: S is public once a round is open."""

    def __init__(self, key_sum: NDArray[np.int64]) -> None:
        self._context = _deserialized(_secret_key(key_sum))
        self._decryptor = self._context.data.decryptor()

    def plaintexts(self, c: Residues, a: Residues) -> NDArray[np.uint64]:
        """The plaintext coefficients of the ciphertexts (c, a): (k, N) uint64 below t."""
        plain = np.zeros_like(c)
        found = ts._ts_cpp.Plaintext()
        for row, ciphertext in zip(plain, _load(self._context, c, a).ciphertext(), strict=True):
            self._decryptor.decrypt(ciphertext, found)
            # SEAL cuts leading zeros off.
            count = found.coeff_count()
            row[:count] = _read(found, count)
        return plain


@lru_cache(maxsize=1)
def _context() -> Any:
    return _deserialized(b"")


def _deserialized(private: bytes) -> Any:
    """A TenSEAL context from its protobuf: parameters, no public keys, perhaps a secret key."""
    public = b"\x19" + struct.pack("<d", _NO_SCALE)
    parts = _field(1, _parameters()) + _field(2, public)
    return ts.context_from(parts + (_field(3, private) if private else b""), n_threads=1)


def _parameters() -> bytes:
    """seal::EncryptionParameters: scheme, degree, one coefficient modulus, plain modulus."""
    return _seal_object(struct.pack("<BQQ", _BFV, N, 1) + _modulus(Q) + _modulus(PLAIN_MODULUS))


def _secret_key(s: NDArray[np.int64]) -> bytes:
    """TenSEALPrivateProto with S as SEAL keeps secret keys: transformed (NTT)."""
    terms = [f"{int(x) % PLAIN_MODULUS:x}x^{power}" for power, x in enumerate(s.tolist()) if x]
    plain = sealapi.Plaintext(" + ".join(reversed(terms)) or "0")
    sealapi.Evaluator(_seal_context()).transform_to_ntt_inplace(plain, _parms_id())
    transformed = np.fromiter(map(plain.dyn_array().at, range(N)), dtype=np.uint64, count=N)
    return _field(1, _seal_object(_packed_parms_id() + struct.pack("<Qd", N, 1.0) + _array(transformed)))


@lru_cache(maxsize=1)
def _seal_context() -> Any:
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(N)
    parameters.set_coeff_modulus([sealapi.Modulus(Q)])
    parameters.set_plain_modulus(sealapi.Modulus(PLAIN_MODULUS))
    return sealapi.SEALContext(parameters, False, sealapi.SEC_LEVEL_TYPE.TC128)


def _parms_id() -> list[int]:
    return list(_seal_context().first_parms_id())


@lru_cache(maxsize=1)
def _packed_parms_id() -> bytes:
    return struct.pack("<4Q", *_parms_id())


def _load(context: Any, c0: Residues, c1: Residues) -> Any:
    """A BFV vector whose chunks are the ciphertexts (c0, c1): BFVVectorProto, chunk sizes first."""
    sizes = b"".join(b"\x08" + _varint(N) for _ in c0)
    ciphertexts = (_field(2, _ciphertext(x, y)) for x, y in zip(c0, c1, strict=True))
    return ts.bfv_vector_from(context, sizes + b"".join(ciphertexts))


def _ciphertext(c0: Residues, c1: Residues) -> bytes:
    """seal::Ciphertext: parameters' id, not transformed, 2 polynomials of N, 1 modulus, scale, correction factor."""
    return _seal_object(
        _packed_parms_id() + struct.pack("<BQQQdQ", 0, 2, N, 1, 1.0, 1) + _array(np.concatenate((c0, c1)))
    )


def _array(elements: Residues) -> bytes:
    return _seal_object(struct.pack("<Q", elements.size) + elements.astype("<u8", copy=False).tobytes())


def _modulus(value: int) -> bytes:
    return _seal_object(struct.pack("<Q", value))


def _seal_object(body: bytes) -> bytes:
    """SEAL's envelope, uncompressed: magic, header size, version, compression, reserved, whole size."""
    header = sealapi.Serialization.SEALHeader()
    envelope = (header.magic, header.header_size, header.version_major, header.version_minor)
    return struct.pack("<HBBBBHQ", *envelope, 0, 0, header.header_size + len(body)) + body


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(encoded) + bytes((value,))


def _read(polynomial: Any, count: int) -> Residues:
    """The first coefficients of a SEAL object that has no buffer to read from."""
    return np.fromiter(map(polynomial.__getitem__, range(count)), dtype=np.uint64, count=count)
