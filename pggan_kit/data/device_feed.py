"""How a stage's images reach a device: kept on a GPU as bytes where they fit, or else read and copied one batch ahead.

Either way the batches equal the sampler's bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pggan_kit.data.sampler import Sampler, Source
from pggan_kit.layers.value_maps import hold_in_tensor

FREE_SHARE = 0.25
"""Maximum share of a GPU's free memory for a stage's images, unless `data.device_memory` says otherwise."""


def choose_feed(source: Source, device: torch.device, limit: int | None) -> Source:
    """Return the source of a stage's batches that suits a device.

    For a CPU it is the one that is given where its images are in memory; else rows are read one batch ahead.

    Args:
        source: Source of a stage's batches.
        device: Device of the networks.
        limit: Value of `data.device_memory`: maximum MiB, or None for `FREE_SHARE`.
    """
    if not isinstance(source, Sampler):
        return source
    if device.type != "cuda":
        return source if source.is_resident else PrefetchFeed(source, NoCopier())

    # Images that fit into the device's memory need no copies at all.
    if limit is None:
        free_bytes, _ = torch.cuda.mem_get_info(device)
        largest_bytes = free_bytes * FREE_SHARE
    else:
        largest_bytes = limit * 2**20
    if source.nbytes <= largest_bytes:
        return ResidentFeed(source, device)
    return PrefetchFeed(source, SideStream(device))


def close_feed(source: Source) -> None:
    """End the thread of a source whose stage is over, which may be making a batch that nobody will ask for."""
    if isinstance(source, PrefetchFeed):
        source.close()


def draw_batch(source: Source, position: int, count: int) -> Sequence[Tensor]:
    """Draw a batch as far as the host does it: the images, or what `gather_batch` takes them from a device by.

    Args:
        source: Source of the batch.
        position: Place on the clock.
        count: Number of images.

    Returns:
        Tensors with `count` rows each.
    """
    if isinstance(source, ResidentFeed):
        return source.draw(position, count)
    images, labels = source.batch(position, count)
    if labels is None:
        return (images,)
    return images, labels


def gather_batch(source: Source, drawn: Sequence[Tensor]) -> Batch:
    """Return the batch of what `draw_batch` returned, or of some of its rows, once that is on the device."""
    if isinstance(source, ResidentFeed):
        return source.gather(*drawn)
    return Batch(drawn[0], drawn[1] if len(drawn) > 1 else None)


def look_at_batch(source: Source, position: int, count: int) -> tuple[Tensor, Tensor | None]:
    """Return a batch as `Sampler.batch` does, on any device, and leave alone what a feed has made ahead."""
    if isinstance(source, (PrefetchFeed, ResidentFeed)):
        return source.look(position, count)
    return source.batch(position, count)


class Batch(NamedTuple):
    """A batch as a sampler returns it.

    Attributes:
        images: Images (count, C, h, w).
        labels: int64 (count,), or None where there are none.
    """

    images: Tensor
    labels: Tensor | None


class ResidentFeed:
    """A source that keeps a sampler's images on a device and gathers its batches there.

    Args:
        sampler: Sampler that decides which images are drawn and flipped.
        device: Device that keeps the images, as the data's own numbers.
    """

    def __init__(self, sampler: Sampler, device: torch.device) -> None:
        self.values = sampler.values
        self._sampler = sampler
        self._device = device
        self._images = hold_in_tensor(np.array(sampler.images)).to(device)
        self._labels: Tensor | None = None
        if sampler.labels is not None:
            self._labels = torch.from_numpy(np.array(sampler.labels)).to(device)

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Return a batch as `Sampler.batch` does, on the device."""
        drawn = [tensor.to(self._device, non_blocking=True) for tensor in self.draw(position, count)]
        return self.gather(*drawn)

    def look(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Return a batch on the device, of which nothing is made ahead; see `look_at_batch`."""
        return self.batch(position, count)

    def draw(self, position: int, count: int) -> list[Tensor]:
        """Return which images a batch has, int64 (count,), and where images are flipped, which, bool (count,)."""
        rows, flips = self._sampler.pick_rows(position, count)
        drawn = [torch.from_numpy(rows)]
        if flips is not None:
            drawn.append(torch.from_numpy(flips))
        return drawn

    def gather(self, rows: Tensor, flips: Tensor | None = None) -> Batch:
        """Return the images, on the device, that `draw` chose."""
        images = self._images[rows]
        if flips is not None:
            images = torch.where(flips.view(-1, 1, 1, 1), images.flip(3), images)
        labels = None
        if self._labels is not None:
            labels = self._labels[rows]
        return Batch(images, labels)


class Copier(Protocol):
    """Copies batches to a device while it works, as `SideStream` does."""

    def begin(self, batch: Batch) -> Batch:
        """Begin to copy a batch, in a thread of its own, and return the copy, which may not be complete."""

    def finish(self, batch: Batch) -> None:
        """Let the device's work from here on wait for a batch that `begin` returned."""


class NoCopier:
    """A copier for batches that stay where they are made."""

    def begin(self, batch: Batch) -> Batch:
        """Return the batch; see `Copier`."""
        return batch

    def finish(self, batch: Batch) -> None:
        """Do nothing: the batch is complete; see `Copier`."""


class SideStream:
    """A copier from pinned memory on a CUDA stream of its own.

    Args:
        device: Device that receives the batches.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def begin(self, batch: Batch) -> Batch:
        """Begin to copy a batch; see `Copier`."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            images = self._copy(batch.images)
            labels = None
            if batch.labels is not None:
                labels = self._copy(batch.labels)
        return Batch(images, labels)

    def _copy(self, rows: Tensor) -> Tensor:
        # torch's allocator of pinned memory waits for the copy before it gives the block to anybody else.
        return rows.pin_memory().to(self._device, non_blocking=True)

    def finish(self, batch: Batch) -> None:
        """Let the device wait for a batch; see `Copier`."""
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for rows in batch:
            if rows is not None:
                rows.record_stream(current)  # or else its memory could be reused while this stream still reads it


class PrefetchFeed:
    """A source that makes and copies the next batch in a thread while the device works on the last one.

    Args:
        source: Source of the batches, called by that thread alone.
        copier: Copier that brings batches to the device.
    """

    def __init__(self, source: Source, copier: Copier) -> None:
        self.values = source.values
        self._source = source
        self._copier = copier
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._place = (-1, 0)
        self._next: Future[Batch] | None = None

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Return a batch as `Sampler.batch` does, on the device; without delay if the one before it was the last."""
        if self._next is None or self._place != (position, count):
            self._next = self._begin(position, count)
        batch = self._next.result()
        self._copier.finish(batch)
        self._next = self._begin(position + count, count)
        return batch

    def look(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Return a batch on the host, made by the thread as all others; see `look_at_batch`."""
        return self._thread.submit(self._source.batch, position, count).result()

    def close(self) -> None:
        """End the thread, and drop the batch that it has made."""
        self._thread.shutdown(cancel_futures=True)
        self._next = None

    def _begin(self, position: int, count: int) -> Future[Batch]:
        """Begin to make the batch at a place of the clock."""
        self._place = (position, count)
        return self._thread.submit(self._make, position, count)

    def _make(self, position: int, count: int) -> Batch:
        images, labels = self._source.batch(position, count)
        return self._copier.begin(Batch(images, labels))
