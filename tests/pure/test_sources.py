"""Data from a user's path, from inside a package's archive, from scikit-learn, and from arrays that may lie."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fedchain.errors import UsageError
from fedchain.learn import sources, tables
from fedchain.learn.sources import BUNDLED, bundled, data_path, read_member
from fedchain.learn.tables import read_table

CSV = b"name,size\na,1\nb,2.5\n"


def archive(path: Path, **files: bytes) -> Path:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in files.items():
                zipped.writestr(f"package/{name}.csv", content)
    else:
        with tarfile.open(path, "w:gz") as tarred:
            for name, content in files.items():
                entry = tarfile.TarInfo(f"package/{name}.csv")
                entry.size = len(content)
                tarred.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["a.whl", "a.tar.gz"])
def test_a_table_is_read_out_of_a_package_that_is_not_installed(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / name, rows=CSV)
    table = read_table(path, "package/rows.csv")
    assert table["name"].tolist() == ["a", "b"] and table["size"].tolist() == [1.0, 2.5]
    with pytest.raises(UsageError, match=r"has no package/other\.csv in it; is it the right package"):
        read_table(path, "package/other.csv")
    assert [file.name for file in tmp_path.iterdir()] == [name], "nothing is unpacked"


@pytest.mark.parametrize("name", ["a.whl", "a.tar.gz"])
def test_an_archive_that_is_cut_or_none_is_refused(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / name, rows=np.random.default_rng(0).bytes(5000))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match="no whole wheel, zip or tar"):
        read_member(path, "package/rows.csv")
    with pytest.raises(UsageError, match="cannot be read"):
        read_member(tmp_path / "missing.whl", "package/rows.csv")


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.whl", rows=CSV * 200)
    content = bytearray(path.read_bytes())
    content[60:70] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no whole wheel, zip or tar"):
        read_member(path, "package/rows.csv")


@pytest.mark.parametrize("name", ["a.whl", "a.tar.gz"])
def test_a_member_that_unpacks_to_too_much_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 1 << 20)
    path = archive(tmp_path / name, rows=bytes((1 << 20) + 1))
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        read_member(path, "package/rows.csv")


def test_a_link_in_a_tar_leads_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tarred:
        entry = tarfile.TarInfo("rows.csv")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tarred.addfile(entry)
    with pytest.raises(UsageError, match="is no plain file"):
        read_member(path, "rows.csv")


def npy(shape: tuple[int, ...], content: bytes) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return out.getvalue() + content


def test_an_array_that_says_more_than_it_holds_is_refused_before_there_is_room_for_it(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("rows.npy", npy((2**40, 2**10), bytes(80)))
    with pytest.raises(UsageError, match=r"rows\.npy says \(1099511627776, 1024\) of float64"):
        read_table(path)
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("rows.npy", npy((10,), bytes(80)))
    assert read_table(path)["rows"].tolist() == [0.0] * 10


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(tmp_path / "a.npz", rows=np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="not an npz file of plain arrays"):
        read_table(tmp_path / "a.npz")
    assert not (tmp_path / "exploded").exists()


def test_arrays_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", rows=np.zeros(1 << 18))
    with pytest.raises(UsageError, match="unpacks to more than 1 MiB"):
        read_table(tmp_path / "a.npz")


def test_the_sets_inside_scikit_learn_need_no_download() -> None:
    sizes = {name: (*bundled(name)[0].shape, bundled(name)[1].dtype.kind) for name in BUNDLED}
    assert sizes == {
        "breast_cancer": (569, 30, "i"),
        "diabetes": (442, 10, "f"),
        "digits": (1797, 64, "i"),
        "iris": (150, 4, "i"),
        "wine": (178, 13, "i"),
    }
    assert bundled("diabetes")[0][:, 0].min() == 19, "ages in years, not scaled by everybody's"
    with pytest.raises(UsageError, match="'covtype' is none of them"):
        bundled("covtype")


def test_a_path_that_is_not_there_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUMPS_DATA", raising=False)
    with pytest.raises(UsageError, match="PUMPS_DATA is not set: ask the plant"):
        data_path("PUMPS_DATA", None, "ask the plant")
    with pytest.raises(UsageError, match=r"^ask the plant$"):
        data_path("PUMPS_DATA", str(tmp_path / "none"), "ask the plant")
    monkeypatch.setenv("PUMPS_DATA", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"PUMPS_DATA names .*none, where nothing is: ask the plant"):
        data_path("PUMPS_DATA", str(tmp_path), "ask the plant")
    monkeypatch.setenv("PUMPS_DATA", str(tmp_path))
    assert data_path("PUMPS_DATA", None, "ask the plant") == tmp_path
