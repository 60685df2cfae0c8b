"""How images come to a device: always the sampler's own batches, to the bit. Streams are stood in for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pggan_kit.data import device_feed as feeding
from pggan_kit.data.device_feed import Ahead, Batch, Resident, fed
from pggan_kit.data.pyramid import Level
from pggan_kit.data.sampler import Sampler
from pggan_kit.testing.support import equal

PLACES = [(0, 4), (4, 4), (8, 4), (12, 4), (12, 9), (21, 3), (0, 4), (4, 4)]
"""What is asked for: in order, over epochs' ends, by another count, from a place before."""


def sampler(mirror: bool = True, labelled: bool = True) -> Sampler:
    rng = np.random.default_rng(0)
    labels = np.arange(7) if labelled else None
    return Sampler(Level(rng.integers(0, 256, (7, 3, 4, 6), np.uint8), labels), seed=3, mirror=mirror)


class Copies:
    """Stands in for `SideStream`: notes who calls it, and in what order."""

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
@pytest.mark.parametrize("way", [lambda s: Resident(s, torch.device("cpu")), lambda s: Ahead(s, Copies())])
def test_batches_are_the_sampler_s(way: Callable[[Sampler], Any], mirror: bool, labelled: bool) -> None:
    source, plain = way(sampler(mirror, labelled)), sampler(mirror, labelled)
    for place in PLACES:
        images, labels = source.batch(*place)
        wanted, wanted_labels = plain.batch(*place)
        assert images.dtype == torch.uint8 and torch.equal(images, wanted)
        assert equal(labels, wanted_labels)


def test_the_next_batch_is_made_in_a_thread_while_the_last_one_is_used() -> None:
    made: list[tuple[int, int]] = []
    began = threading.Event()

    class Source:
        def batch(self, position: int, count: int) -> tuple[torch.Tensor, None]:
            made.append((position, count))
            if position == 4:
                began.set()
            return torch.tensor([position]), None

    copies = Copies()
    ahead = Ahead(Source(), copies)
    assert ahead.batch(0, 4)[0].tolist() == [0]
    assert began.wait(10), "the next batch is not begun before it is asked for"
    assert ahead.batch(4, 4)[0].tolist() == [4]
    assert [int(batch.images) for batch in copies.finished] == [0, 4], "the device waits for what it is given"
    assert made[:2] == [(0, 4), (4, 4)], "nothing is made twice"
    assert threading.current_thread().name not in copies.begun


def test_an_error_of_the_source_reaches_the_step_that_asks_for_it() -> None:
    class Broken:
        def batch(self, position: int, count: int) -> tuple[torch.Tensor, None]:
            if position:
                raise OSError("the disk is gone")
            return torch.zeros(1), None

    ahead = Ahead(Broken(), Copies())
    ahead.batch(0, 1)
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.batch(1, 1)


SIZE = 2**20
ON_A_GPU = [(None, 4 * SIZE, "Resident"), (None, 4 * SIZE - 1, "Ahead"), (1, 0, "Resident"), (0, 2**40, "Ahead")]
"""`data.device_memory`, free memory, and how an image set of one MiB is fed."""


@pytest.mark.parametrize(("limit", "free", "way"), ON_A_GPU)
def test_what_fits_stays_on_the_device(limit: int | None, free: int, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**41))
    for name in ("Resident", "Ahead", "SideStream"):
        monkeypatch.setattr(feeding, name, lambda *args, name=name: name)
    source = Sampler(Level(np.zeros((16, 1, 256, 256), np.uint8), None), seed=0)
    assert source.nbytes == SIZE
    assert fed(source, torch.device("cuda:0"), limit) == way


def test_on_a_cpu_nothing_is_done() -> None:
    source = sampler()
    assert fed(source, torch.device("cpu"), None) is source
