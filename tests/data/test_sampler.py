"""The sampler: every epoch has each image once, and a position of the clock always has the same image and flip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.datasets import make_random_dataset

from pggan_kit.data.pyramid import Level
from pggan_kit.data.sampler import Sampler, open_data
from pggan_kit.data.settings import DataSettings
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
