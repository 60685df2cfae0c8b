"""Test pictures in tar files, as WebDataset has them."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.foreign_data import LABELS, PIXELS, encode, make_samples, write_shards, write_tar

from pggan_kit.errors import DataError, SkipImage
from pggan_kit.testing import DatasetSuite
from pggan_plugins.datasets import WebDataset


class TestSuite(DatasetSuite):
    @pytest.fixture(autouse=True)
    def _shards(self, tmp_path: Path) -> None:
        self.shards = write_shards(tmp_path / "shards")

    def make(self) -> Any:
        return WebDataset(self.shards, label_key="cls")


@pytest.mark.parametrize("key", ["cls", "json"])
@pytest.mark.parametrize("names", ["", "train-*.tar", "train-{000000..000001}.tar"])
def test_pictures_and_labels_of_all_shards(tmp_path: Path, names: str, key: str) -> None:
    write_shards(tmp_path)
    dataset = WebDataset(tmp_path / names, label_key=key)
    for i, pixels in enumerate(PIXELS):
        np.testing.assert_array_equal(dataset.image(i), pixels)
    assert ([dataset.label(i) for i in range(6)], dataset.classes, dataset.class_names) == (LABELS, 3, [])
    assert dataset.left_out == {".json" if key == "cls" else ".cls": 6}
    assert dataset.image_name(5) == str(tmp_path / "train-000001.tar" / "005.png")
    assert len(WebDataset(tmp_path / "train-000001.tar")) == 3


def test_brackets_in_the_name_of_a_folder_are_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "crops [256]" / "a")
    assert len(WebDataset(tmp_path / "crops [256]" / "a" / "train-*.tar")) == 6
    assert len(WebDataset(tmp_path / "crops [256]" / "*" / "train-00000[1].tar")) == 3
    monkeypatch.chdir(tmp_path)
    assert len(WebDataset("crops [256]/a/train-*.tar")) == 6


def test_samples_are_files_with_the_same_name_up_to_the_first_dot(tmp_path: Path) -> None:
    files = {
        "a/1.front.png": encode(PIXELS[0]),
        "a/1.back.png": encode(PIXELS[1]),
        "a/2.txt": b"no picture",
        "a/._2.png": b"hidden",
    }
    path = write_tar(tmp_path / "a.tar", files)
    dataset = WebDataset(path, image_key="back.png")
    np.testing.assert_array_equal(dataset.image(0), PIXELS[1])
    assert dataset.left_out == {".front.png": 1, "hidden": 1, "samples without a picture": 1}
    with pytest.raises(DataError, match=r"sample a/1 has the pictures \.front\.png, \.back\.png: set .*image_key"):
        WebDataset(path)
    with pytest.raises(DataError, match=r"a\.tar holds no files \.jpg"):
        WebDataset(path, image_key="jpg")
    with pytest.raises(DataError, match=r"a\.tar holds no pictures \(\.png"):
        WebDataset(write_tar(path, {"1.txt": b""}))


def test_other_shards_of_the_same_pictures_need_no_reading(tmp_path: Path) -> None:
    """What a picture is follows from its content, wherever it lies."""
    first = WebDataset(write_shards(tmp_path), label_key="cls")
    second = WebDataset(write_tar(tmp_path / "all.tar", make_samples(range(6))))
    assert first.row_fingerprints() == second.row_fingerprints()
    assert first.fingerprint() != second.fingerprint()
    other = {**make_samples(range(6)), "002.png": encode(PIXELS[2, ::-1].copy())}
    third = WebDataset(write_tar(tmp_path / "all.tar", other))
    changed = [a != b for a, b in zip(second.row_fingerprints(), third.row_fingerprints(), strict=True)]
    assert changed == [False, False, True, False, False, False]


def test_truncated_pictures_are_named_or_skipped(tmp_path: Path) -> None:
    files = make_samples(range(3))
    jpeg = encode(PIXELS[1].repeat(8, 0).repeat(8, 1), "JPEG")
    del files["001.png"]
    files["001.jpg"] = jpeg[: len(jpeg) // 2]
    path = write_tar(tmp_path / "a.tar", files)
    broken = 1
    with pytest.raises(DataError, match=r"a\.tar/001\.jpg: cannot be read as an image .*on_error = 'skip'"):
        WebDataset(path).image(broken)
    with pytest.raises(SkipImage, match=r"001\.jpg"):
        WebDataset(path, on_error="skip").image(broken)


def test_shards_that_cannot_be_read(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", make_samples(range(3)))
    content = whole.read_bytes()
    gone = WebDataset(whole)
    whole.write_bytes(content[:700])
    with pytest.raises(DataError, match=r"a\.tar: is cut off"):
        gone.image(2)
    for damaged in (content[:700], b"junk" * 1000, gzip.compress(content)):
        whole.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.tar cannot be read as a tar file without compression"):
            WebDataset(whole)
    with tarfile.open(whole, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("1.png"))
    with pytest.raises(DataError, match=r"a\.tar has two files 1\.png"):
        WebDataset(whole)


@pytest.mark.parametrize(
    ("label", "key", "message"),
    [
        (None, "cls", r"001\.png has no label: there is no \.cls beside it; add it, or set label_key = None"),
        (b"cat", "cls", r"the \.cls beside it must hold a class number from 0 up; mend it"),
        (b"-1", "cls", "must hold a class number from 0 up"),
        (b'{"class": 1}', "json", "must hold a field 'label' with a class number from 0 up"),
        (b'{"label": "1"}', "json", "must hold a field 'label'"),
        (b"[1]", "json", "must hold a field 'label'"),
        (b"{", "json", "must hold a field 'label'"),
    ],
)
def test_wrong_labels(tmp_path: Path, label: bytes | None, key: str, message: str) -> None:
    files = make_samples(range(3))
    files.pop(f"001.{key}")
    if label is not None:
        files[f"001.{key}"] = label
    with pytest.raises(DataError, match=message):
        WebDataset(write_tar(tmp_path / "a.tar", files), label_key=key)


def test_wrong_arguments(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    for setting, value in (("image_key", ".jpg"), ("label_key", ""), ("label_field", "")):
        with pytest.raises(ValueError, match=f"^{setting} must be"):
            WebDataset(shards, **{setting: value})
    with pytest.raises(DataError, match=r"no tar files at .*nothing\*: set datasets\.WebDataset\.shards"):
        WebDataset(tmp_path / "nothing*")
    with pytest.raises(DataError, match=r"no file .*train-000002\.tar, one of 3 shards"):
        WebDataset(tmp_path / "train-{000000..000002}.tar")
    with pytest.raises(DataError, match=r"\{000002\.\.000001\} .*stands for 0 shards"):
        WebDataset(tmp_path / "train-{000002..000001}.tar")
    files = {name: b"1" if name.endswith("cls") else content for name, content in make_samples(range(3)).items()}
    with pytest.raises(DataError, match="gives all images the one label 1: set label_key = None"):
        WebDataset(write_tar(tmp_path / "a.tar", files), label_key="cls")
    with pytest.raises(ValueError, match=r"^channels must be"):
        WebDataset(shards, channels=4)
