"""Test how the range of a data set's numbers is found, and what is said of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.datasets import ArrayDataset

from pggan_kit.data.constant_channels import find_image_of_row
from pggan_kit.data.sampler import Data, open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError, SettingError
from pggan_kit.layers.value_maps import BYTES, ValueMap


class NamedDataset(ArrayDataset):
    """A data set whose images have names."""

    def image_name(self, i: int) -> str:
        return f"scan-{i}.npy"


def open_images(images: np.ndarray, folder: Path, value_range: Any) -> Data:
    """Open images (n, 4, 4, C) at their own size."""
    settings = DataSettings(cache=folder, workers=1, value_range=value_range)
    name = f"{images.dtype} {images.sum()}"
    return open_data(NamedDataset(list(images), name=name), settings, [(4, 4)], 0)


def make_images(kind: str = "float32", count: int = 50) -> np.ndarray:
    rng = np.random.default_rng(4)
    return (rng.normal(size=(count, 4, 4, 2)) * (300, 20) + 1000).astype(kind)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
def test_ranges_that_are_computed(kind: str, tmp_path: Path) -> None:
    images = make_images(kind)
    extremes = open_images(images, tmp_path, "min_max").values
    low, high = images.min((0, 1, 2)), images.max((0, 1, 2))
    assert extremes == ValueMap(kind, list(zip(low.tolist(), high.tolist(), strict=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        percentiles = open_images(images, tmp_path, ("percentile", 5, 95)).values.ranges
    method = "linear" if kind == "float32" else "nearest"
    expected = np.percentile(images.reshape(-1, 2).astype(np.float64), (5, 95), axis=0, method=method)
    np.testing.assert_allclose(np.array(percentiles).T, expected, atol=1e-4 if kind == "float32" else 1)


@pytest.mark.parametrize("drawn", [128, 256, 512])
@pytest.mark.parametrize("chunk_bytes", [64, 64 << 20])
def test_percentiles_are_of_pixels_of_all_columns(
    drawn: int, chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pixel has its own place as its value, so that places that are left out move the percentiles."""
    images = np.broadcast_to(np.arange(16, dtype=np.float32).reshape(4, 4, 1), (64, 4, 4, 1))
    monkeypatch.setattr("pggan_kit.data.value_range.DRAWN_NUMBERS", drawn)
    monkeypatch.setattr("pggan_kit.data.value_range.CHUNK_BYTES", chunk_bytes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (ends,) = open_images(images, tmp_path, ("percentile", 10, 90)).values.ranges
    np.testing.assert_allclose(ends, np.percentile(images, (10, 90)), atol=0.75)


def test_a_range_is_computed_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_images()
    with pytest.warns(UserWarning, match="cuts off"):
        first = open_images(images, tmp_path, ("percentile", 5, 95)).values
    assert len(list((tmp_path / "pyramids").glob("*.range"))) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr("pggan_kit.data.value_range._measure_percentiles", None)
        assert open_images(images, tmp_path, ("percentile", 5, 95)).values == first
    next((tmp_path / "pyramids").glob("*.range")).write_text("{}")
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="cuts off"):
        assert open_images(images, tmp_path, ["percentile", 5, 95]).values == first


def test_bytes_have_a_range_of_their_own(tmp_path: Path) -> None:
    data = open_images(make_images("uint8"), tmp_path, None)
    assert data.values is BYTES and "values" not in data.record()
    assert not list((tmp_path / "pyramids").glob("*.range"))
    assert open_images(make_images("uint8"), tmp_path, (0, 255)).values.is_plain
    with pytest.raises(DataError, match=r"the images are float32, which has no range .* a pair for each channel \(2\)"):
        open_images(make_images(), tmp_path, None)
    with pytest.raises(SettingError, match=r"data\.value_range has 3 pairs, and the images 2 channels"):
        open_images(make_images(), tmp_path, [(0, 1)] * 3)


def test_what_a_range_cuts_off_is_said_with_the_image_that_lost_most(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(0, 1, (50, 4, 4, 1)).astype(np.float32)
    images[31, :3, 0] = 9.0
    pattern = (
        r"data\.value_range cuts off 0\.38 % of channel 0, which has numbers from .* to 9 and the range \(0, 1\), "
    )
    with pytest.warns(UserWarning, match=pattern + r"and 18\.75 % of it in image 31 \(scan-31\.npy\)$"):
        open_images(images, tmp_path, (0, 1))
    images[31, 1:3, 0] = 0.5
    images = np.concatenate([images] * 2)  # 1 of 1,600
    images[81, 0, 0] = 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_images(images, tmp_path, (0, 1))


def test_channels_that_teach_nothing(tmp_path: Path) -> None:
    images = make_images()
    images[..., 1] = 7.0
    with pytest.raises(
        DataError, match=r"channel 1 has the one number 7 in all images, or nearly, from which no range"
    ):
        open_images(images, tmp_path, "min_max")
    images[..., 1] = 8.0
    with pytest.warns(UserWarning, match="channel 1 has the one number 8 in all images: it teaches nothing"):
        open_images(images, tmp_path, (0, 2500))
    with pytest.warns(UserWarning, match=r"channel 1 has numbers from .* a small part of its range \(0, 65535\)"):
        open_images(make_images("uint16"), tmp_path, (0, 65535))


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_a_band_that_is_missing_is_said_with_the_image_that_lacks_it(kind: str, tmp_path: Path) -> None:
    """Also of bytes, whose range nobody looks for; what is constant in a small copy alone is not."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(kind)
    images[[7, 31], ..., 2] = 0
    images[12, ..., 1] = np.tile([[3, 9], [9, 3]], (4, 4))  # one number at 4x4
    settings = DataSettings(cache=tmp_path, workers=1, value_range=(0, 255))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        open_data(NamedDataset(list(images), name=kind), settings, [(4, 4), (8, 8)], 0)
        open_data(NamedDataset(list(images), name=kind), settings, [(4, 4), (8, 8)], 0)
    expected = (
        "channel 2 has one number alone, as a band that is missing, in 2 of 40 images, first in image 7 (scan-7.npy): "
        "nothing is changed; where it is a fault, leave them out of the data"
    )
    assert [str(warning.message) for warning in said] == [expected]
    with pytest.warns(
        UserWarning, match=r"^all pixels are equal in 1 of 40 images, the first of which is image 31 \(scan-31"
    ):
        open_images(np.where(np.arange(40)[:, None, None, None] == 31, 0, images[:, :4, :4, :1]), tmp_path, (0, 255))


def test_the_image_is_named_also_where_others_were_left_out(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    images[[7, 31], ..., 2] = 0
    source = NamedDataset(list(images))
    source.broken = {0, 3, 9}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        open_data(source, DataSettings(cache=tmp_path, workers=1), [(8, 8)], 0)
    assert any("in 2 of 37 images, first in image 7 (scan-7.npy): nothing" in str(each.message) for each in said)


def test_the_rows_of_the_copies_belong_to_the_images_that_were_kept() -> None:
    for skipped in ([], [0], [0, 1, 2], [3, 4, 9], [9]):
        kept = [image for image in range(10) if image not in skipped]
        assert [find_image_of_row(row, skipped) for row in range(len(kept))] == kept


def test_what_is_cut_off_of_other_data_is_said_too(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(0, 1, (20, 4, 4, 1)).astype(np.float32)
    settings = DataSettings(cache=tmp_path, value_range="min_max")
    held = images + 0.5
    for data, values, words in (
        (held, ValueMap("float32", [(0, 1)]), ["cuts off"]),
        (held, ValueMap("float32", [(0, 1)]), []),
        (held, ValueMap("float32", [(0, 9)]), []),
    ):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            open_data(NamedDataset(list(data), name="held"), settings, [(4, 4)], 0, values=values)
        assert [word in str(warning.message) for word, warning in zip(words, said, strict=True)] == [True] * len(words)

    # Training data that are opened with their own map, as for a search of neighbours, were looked through before.
    with pytest.warns(UserWarning, match="cuts off"):
        own = open_images(images, tmp_path, (0, 0.5)).values
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        name = f"{images.dtype} {images.sum()}"
        open_data(NamedDataset(list(images), name=name), settings, [(4, 4)], 0, values=own)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 1e300])
def test_numbers_that_are_none_are_refused_with_the_name_of_the_image(tmp_path: Path, number: float) -> None:
    images = make_images("float64", 3)
    images[2, 1, 1, 0] = number
    with pytest.raises(
        DataError, match=r"image 2 \(scan-2\.npy\) has 1 of 32 numbers that are NaN or infinite: replace"
    ):
        open_images(images, tmp_path, (0, 1))


def test_images_of_two_types_are_refused(tmp_path: Path) -> None:
    dataset = NamedDataset([np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 1), np.uint16)])
    with pytest.raises(DataError, match=r"image 1 \(scan-1\.npy\) is uint16 where those before it are uint8"):
        open_data(dataset, DataSettings(cache=tmp_path), [(4, 4)], 0)


def test_other_data_are_read_in_the_units_of_the_training_data(tmp_path: Path) -> None:
    settings = DataSettings(cache=tmp_path, value_range="min_max")
    values = ValueMap("uint16", [(0, 4095)])
    data = open_data(NamedDataset([np.zeros((4, 4, 1), np.uint16)] * 4), settings, [(4, 4)], 0, values=values)
    assert data.values is values and data.sampler((4, 4)).values is values
    dataset = NamedDataset([np.zeros((4, 4, 1), np.uint8)] * 4, name="bytes")
    with pytest.raises(DataError, match="the images are uint8, and those of the training data uint16"):
        open_data(dataset, settings, [(4, 4)], 0, values=values)


def test_all_levels_of_a_ct_come_back(tmp_path: Path) -> None:
    """Build, read, map to what the network sees, and invert: 12 bits keep their 4,096 levels."""
    levels = np.arange(-1024, 3072, dtype=np.int16)
    slices = np.stack([levels, levels[::-1]]).reshape(2, 64, 64, 1)
    settings = DataSettings(cache=tmp_path, value_range=(-1024, 3071))
    data = open_data(ArrayDataset(list(slices)), settings, [(64, 64)], 0)
    sampler = data.sampler((64, 64))
    images = data.values.to_images(sampler.batch(0, 2)[0])
    assert len(images.unique()) == 4096 and images.aminmax() == (-1, 1)
    rows, _ = sampler.pick_rows(0, 2)
    np.testing.assert_array_equal(data.values.to_units(images).numpy(), slices.transpose(0, 3, 1, 2)[rows])


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("resident", [True, False])
def test_batches_of_deep_images(kind: str, resident: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn and flipped is what the data hold, whether it lies in memory or is read row by row."""
    if not resident:
        monkeypatch.setattr("pggan_kit.data.sampler.RESIDENT_BYTES", 0)
    images = make_images(kind, 20)
    settings = DataSettings(cache=tmp_path, value_range="min_max", mirror=True)
    data = open_data(ArrayDataset(list(images)), settings, [(4, 4)], 0)
    sampler = data.sampler((4, 4))
    numbers = data.values.to_units(data.values.to_images(sampler.batch(15, 10)[0])).numpy()
    rows, flips = sampler.pick_rows(15, 10)
    assert flips is not None and 0 < flips.sum() < 10
    expected = images.transpose(0, 3, 1, 2)[rows]
    expected[flips] = expected[flips][..., ::-1]
    np.testing.assert_allclose(
        numbers, expected, rtol=1e-6 if kind == "float32" else 0, atol=1e-3 * (kind == "float32")
    )
    assert torch.equal(sampler.batch(15, 10)[0], sampler.batch(15, 10)[0])
