"""The sampler: every epoch has each image once, and a position of the clock always has the same image and flip."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets import make_random_dataset

from pggan_kit.data import sampler as sampling
from pggan_kit.data.array_files import ArrayWriter, open_array
from pggan_kit.data.pyramid import Level
from pggan_kit.data.sampler import Sampler, flip_rows, open_data
from pggan_kit.data.settings import DataSettings
from pggan_kit.errors import DataError
from pggan_kit.schedule import Stage


def make_numbered_level(n: int) -> Level:
    """Return images of one row and three columns that show their own number, brighter to the right."""
    numbers = np.arange(n, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(numbers, (n, 1, 1, 3)).copy()
    images[..., 1:] += 100
    return Level(images, np.arange(n))


def read_labels(sampler: Sampler, position: int, count: int) -> list[int]:
    """Return the labels of a batch, which are the numbers of its images."""
    _, labels = sampler.batch(position, count)
    assert labels is not None
    return labels.tolist()


def test_each_epoch_has_each_image_once_in_another_order() -> None:
    sampler = Sampler(make_numbered_level(50), seed=3)
    first = read_labels(sampler, 0, 50)
    second = read_labels(sampler, 50, 50)
    assert sorted(first) == list(range(50))
    assert sorted(second) == list(range(50))
    assert first != second
    assert first != list(range(50))
    assert read_labels(Sampler(make_numbered_level(50), seed=4), 0, 50) != first


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_both_ways_in_memory_give_what_flipping_gives(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare batches of a level whose flipped images are kept with those of one that has no room for them."""
    images = np.random.default_rng(0).integers(0, 255, (150, 3, 4, 6)).astype(kind)
    kept = Sampler(Level(images, None), 1, mirror=True)
    flipped = Sampler(Level(images, None), 1, mirror=True)
    first = kept.batch(20, 200)[0]
    monkeypatch.setattr(sampling, "RESIDENT_BYTES", 2 * images.nbytes - 1)
    second = flipped.batch(20, 200)[0]
    assert kept._both_ways is not None
    assert flipped._both_ways is None
    assert torch.equal(first, second)
    assert not torch.equal(first, Sampler(Level(images, None), 1).batch(20, 200)[0])


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("n", [1, 7, 50])
def test_a_position_has_the_same_image_in_any_batch(n: int, mirror: bool) -> None:
    whole_images, whole_labels = Sampler(make_numbered_level(n), 1, mirror).batch(0, 230)
    assert whole_labels is not None

    # Forwards, in batches of several sizes.
    for batch_size in (1, 7, 64, 230):
        sampler = Sampler(make_numbered_level(n), 1, mirror)
        starts = range(0, 230, batch_size)
        batches = [sampler.batch(start, min(batch_size, 230 - start)) for start in starts]
        assert torch.equal(torch.cat([images for images, _ in batches]), whole_images)
        assert torch.equal(torch.cat([labels for _, labels in batches if labels is not None]), whole_labels)

    # Back and forth.
    sampler = Sampler(make_numbered_level(n), 1, mirror)
    for start in (200, 3, 120):
        images, labels = sampler.batch(start, 20)
        assert labels is not None
        assert torch.equal(images, whole_images[start : start + 20])
        assert torch.equal(labels, whole_labels[start : start + 20])


def test_half_of_the_images_are_flipped_as_a_whole() -> None:
    n = 120
    images, labels = Sampler(make_numbered_level(n), 5, mirror=True).batch(0, 20 * n)
    plain_images, plain_labels = Sampler(make_numbered_level(n), 5).batch(0, 20 * n)
    assert labels is not None
    assert plain_labels is not None
    assert torch.equal(labels, plain_labels), "flipping does not change the order"

    flipped = images[:, 0, 0, 0] != plain_images[:, 0, 0, 0]
    assert torch.equal(images[flipped], plain_images[flipped].flip(3))
    assert torch.equal(images[~flipped], plain_images[~flipped])

    # Four standard errors of a share of one half.
    assert abs(flipped.float().mean().item() - 0.5) < 4 * 0.5 / (20 * n) ** 0.5
    assert not torch.equal(flipped[:n], flipped[n : 2 * n]), "each epoch flips other images"


def test_the_caller_may_change_a_batch() -> None:
    level = make_numbered_level(5)
    sampler = Sampler(level, 0)
    images, labels = sampler.batch(0, 5)
    assert (images.dtype, images.shape) == (torch.uint8, (5, 1, 1, 3))
    assert labels is not None
    assert labels.dtype == torch.int64

    before = images.clone()
    images.zero_()
    assert torch.equal(sampler.batch(0, 5)[0], before)
    assert Sampler(Level(level.images, None), 0).batch(0, 2)[1] is None


def test_large_levels_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_data(make_random_dataset(30), DataSettings(cache=str(tmp_path), workers=2), [(6, 6)], 0)
    resident = data.sampler((6, 6))
    monkeypatch.setattr("pggan_kit.data.sampler.RESIDENT_BYTES", 0)
    mapped = data.sampler(Stage(0, 6, 6, 1, 0, 10, 4))
    assert mapped.images.base is not None
    assert not mapped.images.flags.writeable
    assert resident.images.base is None
    assert torch.equal(resident.batch(20, 30)[0], mapped.batch(20, 30)[0])


@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 8, 12, 14, 16, 24])
def test_flips_reverse_columns_at_every_width(width: int) -> None:
    images = np.random.default_rng(width).integers(0, 256, (6, 3, 5, width), np.uint8)
    expected = images.copy()
    flips = np.array([True, False, True, True, False, False])
    for picture in np.flatnonzero(flips):
        for column in range(width):
            expected[picture, :, :, column] = images[picture, :, :, width - 1 - column]
    flip_rows(images, flips)
    assert np.array_equal(images, expected)


def write_level(path: Path, n: int = 40) -> Level:
    """Return a level that is mapped from a file, as the cache gives it."""
    with ArrayWriter(path, np.uint8, (3, 6, 6)) as writer:
        writer.append(np.random.default_rng(0).integers(0, 256, (n, 3, 6, 6), np.uint8))
        writer.commit()
    images = open_array(path, np.uint8, 4)
    assert images is not None
    return Level(images, np.arange(n))


@pytest.mark.parametrize("mirror", [False, True])
def test_a_level_that_does_not_fit_into_memory_gives_the_same_batches(
    mirror: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = write_level(tmp_path / "level.npy")
    resident = Sampler(level, 3, mirror)
    monkeypatch.setattr("pggan_kit.data.sampler.RESIDENT_BYTES", 100)
    cold = Sampler(level, 3, mirror)
    assert cold._reader is not None

    # Over the end of epochs, and back.
    for position, count in ((0, 16), (16, 40), (150, 7), (33, 90)):
        images, labels = cold.batch(position, count)
        expected_images, expected_labels = resident.batch(position, count)
        assert labels is not None and expected_labels is not None
        assert torch.equal(images, expected_images) and torch.equal(labels, expected_labels)


def test_reading_leaves_no_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pggan_kit.data.sampler.RESIDENT_BYTES", 100)
    level = write_level(tmp_path / "level.npy")
    opened = len(os.listdir("/dev/fd"))
    for _ in range(5):
        Sampler(level, 3).batch(0, 4)
    gc.collect()
    assert len(os.listdir("/dev/fd")) == opened


def test_a_file_that_is_cut_short_while_it_is_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory map would end the process with SIGBUS."""
    monkeypatch.setattr("pggan_kit.data.sampler.RESIDENT_BYTES", 100)
    level = write_level(tmp_path / "level.npy")
    sampler = Sampler(level, 3)
    os.truncate(tmp_path / "level.npy", 1000)
    with pytest.raises(DataError, match=r"level\.npy was cut short while it was used: remove it"):
        sampler.batch(0, 40)
