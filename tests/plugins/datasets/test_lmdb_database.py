"""Test pictures in LMDB databases, as LSUN ships them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.foreign_data import PIXELS, encode, write_lmdb

from pggan_kit.errors import DataError, SkipImage
from pggan_kit.testing import DatasetSuite
from pggan_plugins.datasets import LMDB

NO_LIBRARY = "needs lmdb, which the extra `lmdb` installs"


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DataError, match=r"datasets\.LMDB needs the library `lmdb` .*pip install 'pggan_kit\[lmdb\]'"):
        LMDB(tmp_path)


class Environment:
    """A stand-in for an opened database: it keeps what was there, as a memory map of a replaced file does."""

    def __init__(self, folder: str, **options: object) -> None:
        self._entries = json.loads(Path(folder, "data.mdb").read_text())

    @contextmanager
    def begin(self) -> Iterator[Environment]:
        """Give a transaction."""
        yield self

    def cursor(self) -> Environment:
        """Return a cursor."""
        return self

    def iternext(self, keys: bool, values: bool) -> Iterator[bytes]:
        """Yield the keys."""
        return (key.encode() for key in sorted(self._entries))

    def get(self, key: bytes) -> bytes:
        """Return the content of an entry."""
        return bytes.fromhex(self._entries[key.decode()])

    def info(self) -> dict[str, int]:
        """Return the number of the last page."""
        return {"last_pgno": 0}

    def stat(self) -> dict[str, int]:
        """Return the bytes of a page."""
        return {"psize": 1}


def test_an_error_of_the_library_names_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", SimpleNamespace(open=Environment, Error=ValueError))
    (tmp_path / "data.mdb").write_text(json.dumps({"a": "damaged", "b": encode(PIXELS[0]).hex()}))
    with pytest.raises(DataError, match=r"a: cannot be read from the database \(.*on_error = 'skip'"):
        LMDB(tmp_path).image(0)


def test_a_database_that_is_replaced_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", SimpleNamespace(open=Environment, Error=ValueError))
    file = tmp_path / "data.mdb"
    file.write_text(json.dumps({str(i): encode(PIXELS[i]).hex() for i in range(3)}))
    first = LMDB(tmp_path)
    other = LMDB(tmp_path)
    assert other._source._environments[""] is first._source._environments[""]  # type: ignore[attr-defined]

    # The old one says so, and the new one has other pictures under a name of their own.
    name = other.fingerprint()
    file.write_text(json.dumps({str(i): encode(PIXELS[i + 1]).hex() for i in range(4)}))
    os.utime(file, ns=(1, 1))
    renewed = LMDB(tmp_path)
    assert [int(renewed.image(i)[0, 0, 0]) for i in range(4)] == PIXELS[1:5, 0, 0, 0].tolist()
    assert renewed.fingerprint() != name
    with pytest.raises(DataError, match=r"data\.mdb was changed since it was opened: make the data set again"):
        first.fingerprint()


class TestSuite(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        pytest.importorskip("lmdb", reason=NO_LIBRARY)
        self.folder = write_lmdb(tmp_path / "bedroom_train_lmdb")

    def make(self) -> Any:
        return LMDB(self.folder)


def test_entries_are_pictures_in_the_order_of_their_keys(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason=NO_LIBRARY)
    folder = write_lmdb(tmp_path / "bedroom_train_lmdb")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    dataset = LMDB(folder)
    for i, pixels in enumerate(PIXELS):
        np.testing.assert_array_equal(dataset.image(i), pixels)
    assert (dataset.classes, dataset.label(3), dataset.image_mode(0)) == (0, 0, "RGB")
    assert dataset.image_name(5) == str(folder / f"{5:040x}")
    assert sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir()) == before, "nothing is written"

    # A picture that is replaced is the only one that is read again.
    rows = dataset.row_fingerprints()
    other = LMDB(write_lmdb(tmp_path / "other_lmdb", {f"k{i}": encode(PIXELS[i or 5], "WEBP") for i in range(6)}))
    changed = [a != b for a, b in zip(rows, other.row_fingerprints(), strict=True)]
    assert changed == [True, False, False, False, False, False]
    assert other.fingerprint() != dataset.fingerprint()


def test_several_databases_may_be_classes(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason=NO_LIBRARY)
    for name in ("church_lmdb", "bedroom_lmdb"):
        write_lmdb(tmp_path / "lsun" / name, {"k/1": encode(PIXELS[len(name) % 6]), "k\xe9": encode(PIXELS[0])})
    (tmp_path / "lsun" / "notes").mkdir()
    dataset = LMDB(tmp_path / "lsun", labels=True)
    assert (dataset.class_names, [dataset.label(i) for i in range(4)]) == (
        ["bedroom_lmdb", "church_lmdb"],
        [0, 0, 1, 1],
    )
    np.testing.assert_array_equal(dataset.image(0), PIXELS[len("bedroom_lmdb") % 6])
    np.testing.assert_array_equal(dataset.image(1), PIXELS[0])
    with pytest.raises(DataError, match="is one database, and with labels = True each database is a class"):
        LMDB(tmp_path / "lsun" / "church_lmdb", labels=True)


def test_damaged_databases(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason=NO_LIBRARY)
    content = (write_lmdb(tmp_path / "whole") / "data.mdb").read_bytes()
    for name, damaged, message in (
        ("cut", content[:-4096], r"data\.mdb is cut off: it has [\d,]+ of [\d,]+ bytes; copy it again"),
        ("junk", b"junk" * 4096, "cannot be read as an LMDB database"),
        ("empty", b"", "cannot be read as an LMDB database|holds no pictures"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.mdb").write_bytes(damaged)
        with pytest.raises(DataError, match=message):
            LMDB(tmp_path / name)
    with pytest.raises(DataError, match="holds no pictures"):
        LMDB(write_lmdb(tmp_path / "none", {}))


def test_broken_entries_are_named_or_skipped(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason=NO_LIBRARY)
    webp = encode(PIXELS[0], "WEBP")
    folder = write_lmdb(tmp_path / "a", {"a": encode(PIXELS[1]), "b": webp[: len(webp) // 2], "c": b"12"})
    for i in (1, 2):
        with pytest.raises(DataError, match=rf"a/{'abc'[i]}: cannot be read as an image .*on_error = 'skip'"):
            LMDB(folder).image(i)
        with pytest.raises(SkipImage):
            LMDB(folder, on_error="skip").image(i)


def test_wrong_arguments(tmp_path: Path) -> None:
    pytest.importorskip("lmdb", reason=NO_LIBRARY)
    with pytest.raises(DataError, match=r"no database in .*: set datasets\.LMDB\.folder"):
        LMDB(tmp_path)
    for setting, value in (("channels", 2), ("fit", "stretch"), ("on_error", "ignore"), ("max_pixels", 0), ("size", 0)):
        with pytest.raises(ValueError, match=f"^{setting} "):
            LMDB(tmp_path, **{setting: value})
