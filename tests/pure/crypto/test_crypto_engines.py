"""The sum and the decoding: canonical bytes in any order, numpy and TenSEAL to the bit, memory that does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.crypto import Aggregate, aggregate_size, sum_ciphertexts
from fedchain.crypto import numpy_engine as plain
from fedchain.crypto import tenseal_engine as seal
from fedchain.crypto.encoding import AGGREGATE, header
from fedchain.crypto.packing import pack_residues, unpack_residues
from fedchain.crypto.parameters import DELTA, HEADER_BYTES, LEAF_RESIDUES, PLAIN_MODULUS, N, Q
from fedchain.crypto.ring import SmallFactor
from fedchain.crypto.seed import public_polynomials
from fedchain.errors import MalformedObject

from .conftest import Scene


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_order_and_both_engines_give_the_same_bytes(scene: Scene, tmp_path: Path) -> None:
    blobs = [upload.ciphertext for upload in scene.uploads]
    packed = scene.aggregate.pack()
    for order in list(permutations(range(5)))[::17]:
        assert sum_ciphertexts([blobs[i] for i in order], scene.d).pack() == packed
    by_seal = sum_ciphertexts(blobs[::-1], scene.d, "tenseal")
    assert by_seal.pack() == packed and by_seal.root() == scene.aggregate.root()
    files = []
    for i, blob in enumerate(blobs):
        files.append(tmp_path / str(i))
        files[-1].write_bytes(blob)
    assert sum_ciphertexts(files, scene.d).pack() == packed
    assert len(packed) == aggregate_size(scene.d)


@given(st.integers(0, 2**32 - 1), st.integers(1, 64), st.sampled_from([1, 3, 32, 33, 70]))
@settings(max_examples=8, deadline=None)
def test_seal_and_numpy_add_to_the_same_residues(seed: int, members: int, leaves: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = [rng.integers(0, Q, leaves * LEAF_RESIDUES, dtype=np.uint64) for _ in range(members)]
    blocks[0][:4] = Q - 1
    expected = [sum(column) % Q for column in zip(*(block.tolist() for block in blocks), strict=True)]
    assert plain.add(iter(blocks)).tolist() == expected
    assert seal.add(iter(blocks)).tolist() == expected


@given(st.integers(0, 2**32 - 1), st.integers(1, 64))
@settings(max_examples=6, deadline=None)
def test_seal_and_numpy_decrypt_to_the_same_integers(seed: int, members: int) -> None:
    rng = np.random.default_rng(seed)
    s = rng.integers(-42 * members, 42 * members + 1, N)
    a = public_polynomials(bytes(32), 0, 2)
    m = rng.integers(0, PLAIN_MODULUS, (2, N), dtype=np.uint64)
    m[0, :3], m[1, 100:] = (0, 1, PLAIN_MODULUS - 1), 0
    e = rng.integers(-500, 501, (2, N))
    a_s = SmallFactor(s).times(a).view(np.int64)
    c = np.mod(m.view(np.int64) * DELTA + e - a_s, Q).view(np.uint64)
    phase = np.mod(c.view(np.int64) + a_s, Q).view(np.uint64)
    assert np.array_equal(plain.decode(phase), m)
    assert np.array_equal(plain.noise(phase, m), e)
    assert np.array_equal(seal.Decryption(s).plaintexts(c, a), m)


def test_a_round_opened_through_seal_has_the_same_roots(scene: Scene) -> None:
    one, other = scene.open(scene.openings), scene.open(scene.openings, engine="tenseal")
    assert np.array_equal(one.sums, other.sums) and np.array_equal(other.sums, scene.sums)
    assert (one.key_sum_root, one.result_root) == (other.key_sum_root, other.result_root)


def test_an_aggregate_goes_there_and_back_and_its_root_sees_every_residue(scene: Scene, tmp_path: Path) -> None:
    stored = tmp_path / "aggregate"
    stored.write_bytes(scene.aggregate.pack())
    for blob in (scene.aggregate.pack(), stored):
        again = Aggregate.parse(blob, scene.d, "member 1", 3)
        assert np.array_equal(again.residues, scene.aggregate.residues)
        assert again.root() == scene.aggregate.root()
    again.residues[0, 150] ^= np.uint64(1)
    assert again.root() != scene.aggregate.root()


@pytest.mark.parametrize(
    ("field", "corrupt"),
    [
        ("size", lambda c: c[:-27]),
        ("magic", lambda c: b"FCUP" + c[4:]),
        ("version", lambda c: c[:7] + b"\1" + c[8:]),
        ("length", lambda c: header(AGGREGATE, 299) + c[16:]),
        ("residue 64", lambda c: c[: 16 + 432] + b"\xff" * 432 + c[16 + 864 :]),
    ],
)
def test_a_malformed_aggregate_names_its_field(scene: Scene, field: str, corrupt: object) -> None:
    with pytest.raises(MalformedObject) as fault:
        Aggregate.parse(corrupt(scene.aggregate.pack()), scene.d, "member 2", 3)  # type: ignore[operator]
    assert fault.value.evidence.check == f"aggregate: {field}"
    assert (fault.value.evidence.offender, fault.value.evidence.round) == ("member 2", 3)


def test_both_engines_refuse_a_residue_of_q(scene: Scene) -> None:
    residues = unpack_residues(scene.uploads[1].ciphertext[HEADER_BYTES:])
    residues[9] = Q
    broken = scene.uploads[1].ciphertext[:HEADER_BYTES] + pack_residues(residues)
    for engine in ("numpy", "tenseal"):
        with pytest.raises(MalformedObject, match=r"update 1 of the sum.*residue 9"):
            sum_ciphertexts([scene.uploads[0].ciphertext, broken], scene.d, engine)  # type: ignore[arg-type]


def test_a_sum_of_none_or_of_more_than_sixty_four_is_refused(scene: Scene) -> None:
    for count in (0, 65):
        with pytest.raises(ValueError, match="1 to 64"):
            sum_ciphertexts([scene.uploads[0].ciphertext] * count, scene.d)


def test_importing_crypto_imports_neither_tenseal_nor_torch() -> None:
    code = "import sys, fedchain.crypto; print([m for m in ('tenseal', 'torch', 'scipy') if m in sys.modules])"
    assert run(code).strip() == "[]"


def test_summing_through_seal_prints_nothing(tmp_path: Path) -> None:
    """TenSEAL warns on the C++ side's standard output when it makes vectors of several chunks."""
    code = (
        "import numpy as np; from fedchain.crypto import tenseal_engine as e;"
        "e.add([np.ones(8192, np.uint64)] * 2); e.Decryption(np.ones(2048, np.int64))"
    )
    assert run(code) == ""


def test_peak_memory_of_a_sum_does_not_grow_with_its_members(tmp_path: Path) -> None:
    """Two and twelve updates of 4 million parameters (13.5 MB each): the peak may not move by half a megabyte."""
    code = """
import sys, tracemalloc, json, resource
from pathlib import Path
from fedchain.crypto import check_ciphertext, ciphertext_size, sum_ciphertexts
from fedchain.crypto.encoding import UPDATE, header
d, members, folder = 4_000_000, int(sys.argv[1]), Path(sys.argv[2])
paths = []
for i in range(members):
    path = folder / f"{members}-{i}"
    path.write_bytes(header(UPDATE, d))
    with path.open("r+b") as file:
        file.truncate(ciphertext_size(d))
    paths.append(path)
small = sum_ciphertexts([paths[0]] * 2, d)
del small
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tracemalloc.start()
aggregate = sum_ciphertexts(paths, d)
peak = tracemalloc.get_traced_memory()[1]
tracemalloc.reset_peak()
check_ciphertext(paths[0], d, offender="", round=1)
checked = tracemalloc.get_traced_memory()[1] - aggregate.residues.nbytes
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([peak, aggregate.residues.nbytes, checked, (after - before) * 1024]))
"""
    measured = {}
    for members in (2, 12):
        done = subprocess.run(
            [sys.executable, "-c", code, str(members), str(tmp_path)], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        measured[members] = json.loads(done.stdout)
    (few, result, checked, _), (many, _, _, resident) = measured[2], measured[12]
    assert abs(many - few) < 500_000
    assert many < result + 12_000_000
    assert checked < 12_000_000
    assert resident < 20_000_000
