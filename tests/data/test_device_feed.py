"""How images reach a device: always the sampler's own batches, bit for bit. A stub replaces the CUDA stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pggan_kit.data import device_feed
from pggan_kit.data.array_files import open_array
from pggan_kit.data.device_feed import Batch, PrefetchFeed, ResidentFeed, choose_feed, close_feed, look_at_batch
from pggan_kit.data.pyramid import Level
from pggan_kit.data.sampler import Sampler
from pggan_kit.layers.value_maps import BYTES
from pggan_kit.testing.support import are_equal

PLACES = [(0, 4), (4, 4), (8, 4), (12, 4), (12, 9), (21, 3), (0, 4), (4, 4)]
"""Positions and counts of batches: in order, across the ends of epochs, with another count, and back at the start."""


def make_sampler(mirror: bool = True, labelled: bool = True) -> Sampler:
    """Return a sampler of seven random images."""
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 6), np.uint8)
    labels = None
    if labelled:
        labels = np.arange(7)
    return Sampler(Level(images, labels), seed=3, mirror=mirror)


def keep_on_cpu(sampler: Sampler) -> ResidentFeed:
    return ResidentFeed(sampler, torch.device("cpu"))


def prefetch(sampler: Sampler) -> PrefetchFeed:
    return PrefetchFeed(sampler, StubCopier())


class StubCopier:
    """A copier that copies nothing, and records the threads and the order of its calls."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.finished: list[Batch] = []

    def begin(self, batch: Batch) -> Batch:
        self.begun.append(threading.current_thread().name)
        return batch

    def finish(self, batch: Batch) -> None:
        self.finished.append(batch)


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("make_feed", [keep_on_cpu, prefetch])
def test_batches_are_the_sampler_s(make_feed: Callable[[Sampler], Any], mirror: bool, labelled: bool) -> None:
    feed = make_feed(make_sampler(mirror, labelled))
    sampler = make_sampler(mirror, labelled)
    for position, count in PLACES:
        images, labels = feed.batch(position, count)
        expected_images, expected_labels = sampler.batch(position, count)
        assert images.dtype == torch.uint8
        assert torch.equal(images, expected_images)
        assert are_equal(labels, expected_labels)


def test_the_next_batch_is_made_in_a_thread_while_the_last_one_is_used() -> None:
    made: list[tuple[int, int]] = []
    began = threading.Event()

    class Source:
        values = BYTES

        def batch(self, position: int, count: int) -> tuple[torch.Tensor, None]:
            made.append((position, count))
            if position == 4:
                began.set()
            return torch.tensor([position]), None

    copier = StubCopier()
    feed = PrefetchFeed(Source(), copier)
    assert feed.batch(0, 4)[0].tolist() == [0]
    assert began.wait(10), "the next batch is not begun before it is asked for"
    assert feed.batch(4, 4)[0].tolist() == [4]
    assert [int(batch.images) for batch in copier.finished] == [0, 4], "the device waits for each batch"
    assert made[:2] == [(0, 4), (4, 4)], "nothing is made twice"
    assert threading.current_thread().name not in copier.begun


def test_to_look_at_a_batch_leaves_the_next_one_as_it_is() -> None:
    """Check that no batch is made twice, and that the source is called by one thread alone."""
    made: list[tuple[int, int]] = []
    threads: set[int] = set()

    class Source:
        values = BYTES

        def batch(self, position: int, count: int) -> tuple[torch.Tensor, None]:
            made.append((position, count))
            threads.add(threading.get_ident())
            return torch.arange(position, position + count), None

    feed = PrefetchFeed(Source(), StubCopier())
    feed.batch(0, 4)
    images, _ = look_at_batch(feed, 7, 3)
    assert images.tolist() == [7, 8, 9]
    assert feed.batch(4, 4)[0].tolist() == [4, 5, 6, 7]
    feed.close()
    assert sorted(made)[:3] == [(0, 4), (4, 4), (7, 3)]
    assert made.count((4, 4)) == 1
    assert len(threads) == 1


@pytest.mark.parametrize("make_feed", [keep_on_cpu, prefetch, lambda sampler: sampler])
def test_a_batch_that_is_looked_at_is_the_sampler_s(make_feed: Callable[[Sampler], Any]) -> None:
    images, labels = look_at_batch(make_feed(make_sampler()), 3, 9)
    expected_images, expected_labels = make_sampler().batch(3, 9)
    assert torch.equal(images, expected_images)
    assert are_equal(labels, expected_labels)


def test_an_error_of_the_source_reaches_the_step_that_asks_for_it() -> None:
    class Broken:
        values = BYTES

        def batch(self, position: int, count: int) -> tuple[torch.Tensor, None]:
            if position:
                raise OSError("the disk is gone")
            return torch.zeros(1), None

    feed = PrefetchFeed(Broken(), StubCopier())
    feed.batch(0, 1)
    with pytest.raises(OSError, match="the disk is gone"):
        feed.batch(1, 1)


MEBIBYTE = 2**20

CHOICES = [
    (None, 4 * MEBIBYTE, "ResidentFeed"),
    (None, 4 * MEBIBYTE - 1, "PrefetchFeed"),
    (1, 0, "ResidentFeed"),
    (0, 2**40, "PrefetchFeed"),
]
"""`data.device_memory`, free memory in bytes, and the feed of a level of one MiB."""


@pytest.mark.parametrize(("limit", "free", "feed"), CHOICES)
def test_a_level_that_fits_stays_on_the_device(
    limit: int | None, free: int, feed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**41))
    for name in ("ResidentFeed", "PrefetchFeed", "SideStream"):
        monkeypatch.setattr(device_feed, name, lambda *args, name=name: name)
    source = Sampler(Level(np.zeros((16, 1, 256, 256), np.uint8), None), seed=0)
    assert source.nbytes == MEBIBYTE
    assert choose_feed(source, torch.device("cuda:0"), limit) == feed


def test_a_cpu_uses_the_sampler_itself_where_the_images_are_in_memory() -> None:
    source = make_sampler()
    assert choose_feed(source, torch.device("cpu"), None) is source


def test_a_cpu_reads_rows_of_a_large_level_one_batch_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches, and how they are flipped, are those of a level in memory."""
    path = tmp_path / "level.npy"
    np.save(path, make_sampler().images)
    images = open_array(path, np.uint8, 4)
    assert images is not None
    monkeypatch.setattr("pggan_kit.data.sampler.RESIDENT_BYTES", images.nbytes - 1)
    feed = choose_feed(Sampler(Level(images, np.arange(7)), seed=3, mirror=True), torch.device("cpu"), None)
    assert isinstance(feed, PrefetchFeed)
    sampler = make_sampler()
    for position, count in PLACES:
        expected, labels = sampler.batch(position, count)
        found, found_labels = feed.batch(position, count)
        assert torch.equal(found, expected) and are_equal(found_labels, labels)
    close_feed(feed)
