"""How a stage's images come to a GPU: kept there as bytes where they fit, else copied one batch ahead.

Either way the batches are those of the sampler, to the bit.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pggan_kit.data.sampler import Sampler, Source

FREE_SHARE = 0.25
"""Of a GPU's free memory, what a stage's images may take unless `data.device_memory` says otherwise."""


def fed(source: Source, device: torch.device, limit: int | None) -> Source:
    """The source, as a device is best fed with it.

    Args:
        source: a stage's images.
        device: of the networks; on a CPU nothing is to be done.
        limit: `data.device_memory`.
    """
    if device.type != "cuda" or not isinstance(source, Sampler):
        return source
    room = torch.cuda.mem_get_info(device)[0] * FREE_SHARE if limit is None else limit * 2**20
    return Resident(source, device) if source.nbytes <= room else Ahead(source, SideStream(device))


class Resident:
    """A sampler's images on a device; batches are gathered there.

    Args:
        sampler: decides which images are drawn and flipped.
        device: where they are kept, as uint8.
    """

    def __init__(self, sampler: Sampler, device: torch.device) -> None:
        self._sampler, self._device = sampler, device
        self._images = torch.from_numpy(np.array(sampler.images)).to(device)
        self._labels = None if sampler.labels is None else torch.from_numpy(np.array(sampler.labels)).to(device)

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """See `Sampler.batch`; on the device."""
        rows, flips = self._sampler.rows(position, count)
        chosen = self._put(rows)
        images = self._images[chosen]
        if flips is not None:
            images = torch.where(self._put(flips).view(-1, 1, 1, 1), images.flip(3), images)
        return images, None if self._labels is None else self._labels[chosen]

    def _put(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)


class Batch(NamedTuple):
    """What a sampler gives."""

    images: Tensor
    labels: Tensor | None


class Copier(Protocol):
    """Copies to a device beside its work: `SideStream`."""

    def begin(self, batch: Batch) -> Batch:
        """Begin to copy; called in a thread of its own."""

    def finish(self, batch: Batch) -> None:
        """Let the device's work from here on wait for what `begin` returned."""


class SideStream:
    """Copies from pinned memory on a CUDA stream of its own.

    Args:
        device: to which.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def begin(self, batch: Batch) -> Batch:
        """See `Copier`."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            return Batch(self._copied(batch.images), None if batch.labels is None else self._copied(batch.labels))

    def _copied(self, rows: Tensor) -> Tensor:
        # torch's allocator of pinned memory waits for the copy before it gives the block to anybody else.
        return rows.pin_memory().to(self._device, non_blocking=True)

    def finish(self, batch: Batch) -> None:
        """See `Copier`."""
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for rows in batch:
            if rows is not None:
                rows.record_stream(current)  # else its memory could be taken while this stream still reads it


class Ahead:
    """Makes and copies the next batch in a thread while the device works on the last one.

    Args:
        source: called by that thread alone.
        copier: brings batches to the device.
    """

    def __init__(self, source: Source, copier: Copier) -> None:
        self._source, self._copier = source, copier
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._place = (-1, 0)
        self._coming: Future[Batch] | None = None

    def batch(self, position: int, count: int) -> tuple[Tensor, Tensor | None]:
        """See `Sampler.batch`; on the device. It is there already where the batch before it was asked for last."""
        if self._coming is None or self._place != (position, count):
            self._begin(position, count)
        assert self._coming is not None
        batch = self._coming.result()
        self._copier.finish(batch)
        self._begin(position + count, count)
        return batch

    def _begin(self, position: int, count: int) -> None:
        self._place = (position, count)
        self._coming = self._thread.submit(self._make, position, count)

    def _make(self, position: int, count: int) -> Batch:
        return self._copier.begin(Batch(*self._source.batch(position, count)))
