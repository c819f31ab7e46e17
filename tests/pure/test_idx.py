"""IDX files: what the format allows is read as it is, and what a hostile file says is not believed."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedchain.errors import UsageError
from fedchain.learn.idx import read_idx, read_images

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx(array: np.ndarray, kind: str = "u1") -> bytes:
    return header(CODES[kind], *array.shape) + array.astype(kind).tobytes()


def header(code: int, *shape: int) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("packed", [False, True])
def test_every_type_is_read_as_it_was_written(kind: str, packed: bool, tmp_path: Path) -> None:
    array = np.arange(-60, 60).reshape(4, 5, 6) if kind != "u1" else np.arange(120).reshape(4, 5, 6)
    content = idx(array, kind)
    (tmp_path / "file").write_bytes(gzip.compress(content) if packed else content)
    read = read_idx(tmp_path / "file")
    np.testing.assert_array_equal(read, array)
    assert read.dtype == np.dtype(kind).newbyteorder("=")


WHOLE = idx(np.arange(60).reshape(3, 4, 5))
HOSTILE = {
    "empty": (b"", "begins with nothing"),
    "another format": (b"\x89PNG\r\n\x1a\n" + bytes(90), "begins with 89504e47"),
    "a pickle": (b"\x80\x04\x95\x10" + bytes(90), "no IDX file"),
    "unknown type": (header(0x0A, 3) + bytes(3), "no IDX file"),
    "no axes": (b"\0\0\x08\0", "no IDX file"),
    "too many axes": (b"\0\0\x08\xff" + bytes(2000), "no IDX file"),
    "cut header": (header(0x08, 3, 4, 5)[:-2], "cut off within its header"),
    "cut numbers": (WHOLE[:-1], "3 × 4 × 5 numbers in 60 bytes, and has only 59"),
    "more than it says": (WHOLE + b"\0", "and has more"),
    "nothing in it": (header(0x08, 0, 28, 28), "holds no numbers"),
    "absurd size": (header(0x0E, *[2**32 - 1] * 4) + bytes(90), "it is damaged"),
    "promises 3 GiB": (header(0x08, 3 << 30) + bytes(90), "has only 90"),
    "cut gzip": (gzip.compress(WHOLE)[:-9], "the gzip stream ends too soon"),
    "broken gzip": (gzip.compress(WHOLE)[:10] + b"\xff" * 60, "no whole gzip file"),
    "a bomb": (gzip.compress(header(0x08, 8) + bytes(1 << 26)), "8 numbers in 8 bytes, and has more"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_lies_is_refused_with_the_reason_and_costs_no_memory(what: str, tmp_path: Path) -> None:
    content, reason = HOSTILE[what]
    path = tmp_path / "file"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=reason) as caught:
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=64),
    st.sampled_from([b"", b"\0\0\x08\x01", b"\x1f\x8b\x08", WHOLE[:9], gzip.compress(WHOLE)[:20]]),
)
def test_no_bytes_at_all_do_more_than_a_clear_error(tail: bytes, head: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(head + tail)
        try:
            array = read_idx(path)
        except UsageError:
            return
        assert array.size and array.nbytes < 100


def family(folder: Path, **changes: bytes) -> None:
    files = {}
    for part, count in (("train", 6), ("t10k", 3)):
        files[f"{part}-images-idx3-ubyte"] = idx(np.arange(count * 4).reshape(count, 2, 2))
        files[f"{part}-labels-idx1-ubyte"] = idx(np.arange(count) % 3)
    for name, content in files.items():
        (folder / name).write_bytes(changes.get(name.replace("-", "_"), content))


def test_a_set_of_the_family_is_four_files_by_any_of_their_usual_names(tmp_path: Path) -> None:
    family(tmp_path)
    whole = read_images(tmp_path)
    assert whole.train[0].shape == (6, 2, 2) and whole.test[1].tolist() == [0, 1, 2]
    assert whole.train[1].dtype == np.int64
    content = (tmp_path / "train-images-idx3-ubyte").read_bytes()
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(UsageError, match=r"has no train-images-idx3-ubyte or train-images-idx3-ubyte\.gz"):
        read_images(tmp_path)
    (tmp_path / "train-images.idx3-ubyte.gz").write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(read_images(tmp_path).train[0], whole.train[0])


def test_images_and_labels_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    family(tmp_path, train_labels_idx1_ubyte=idx(np.arange(5)))
    with pytest.raises(UsageError, match="6 images, and train-labels-idx1-ubyte 5 labels"):
        read_images(tmp_path)
    family(tmp_path, t10k_images_idx3_ubyte=idx(np.arange(3)))
    with pytest.raises(UsageError, match="1 axes of uint8, not images"):
        read_images(tmp_path)
    family(tmp_path, t10k_labels_idx1_ubyte=idx(np.arange(3), ">i4"))
    with pytest.raises(UsageError, match="1 axes of int32, not labels"):
        read_images(tmp_path)
