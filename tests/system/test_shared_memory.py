"""Sums in shared memory: those of gloo up to rounding, equal bits on all ranks, and no rank that waits forever."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import pytest
import torch
import torch.distributed as dist
from helpers.forks import Fork, fork_ranks
from helpers.patience import PATIENCE_SECONDS
from torch import Tensor

from pggan_kit.errors import TrainingError
from pggan_kit.system import distributed, shared_memory
from pggan_kit.testing.support import draw_noise

SLOT = 64
"""Bytes of a slot in these tests: most tensors take several turns."""

LENGTHS = (1, 7, 8, 15, 16, 17, 100, 3, 64)
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def draw_summand(rank: int, turn: int, length: int, dtype: torch.dtype) -> Tensor:
    return draw_noise(length, seed=100 * rank + turn).to(dtype)


def wait_for_success(ranks: list[Fork]) -> None:
    for process in ranks:
        assert process.wait() == 0, process.read_errors()


def connect() -> shared_memory.SharedMemorySum:
    """Join the ranks of the environment, and return what `distributed.average` uses."""
    distributed.join_group()
    assert distributed._memory is not None, "ranks of one machine share memory"
    return distributed._memory


def report_sums(folder: Path) -> None:
    """Add up tensors of many sizes and dtypes, at times that differ between ranks; save the sums, and gloo's."""
    shared_memory.SLOT_BYTES = SLOT
    memory = connect()
    rank = distributed.rank()
    pauses = random.Random(rank)
    sums = []
    sums_of_gloo = []
    for dtype in DTYPES:
        for turn, length in enumerate(LENGTHS):
            flat = draw_summand(rank, turn, length, dtype)
            if dtype != torch.bfloat16:
                theirs = flat.clone()
                dist.all_reduce(theirs)
                sums_of_gloo.append(theirs)
            time.sleep(pauses.choice([0.0, 0.0, 0.002]))
            memory.add_up(flat)
            sums.append(flat)
    torch.save({"ours": sums, "gloo": sums_of_gloo}, folder / f"sums{rank}.pt")


@pytest.mark.parametrize("world", [2, 3])
def test_sums_are_those_of_gloo_and_equal_bit_for_bit_on_all_ranks(world: int, tmp_path: Path) -> None:
    wait_for_success(fork_ranks(world, lambda: report_sums(tmp_path)))
    reports = [torch.load(tmp_path / f"sums{rank}.pt", weights_only=True) for rank in range(world)]

    wanted = []
    for dtype in DTYPES:
        for turn, length in enumerate(LENGTHS):
            wanted.append(sum(draw_summand(rank, turn, length, dtype).double() for rank in range(world)))
    for report in reports:
        for ours, first, exact in zip(report["ours"], reports[0]["ours"], wanted, strict=True):
            assert torch.equal(ours, first)
            tolerance = 4 * world * torch.finfo(ours.dtype).eps
            torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(reports[0]["ours"], reports[0]["gloo"], strict=False):
        torch.testing.assert_close(ours, theirs)


def test_nothing_is_left_of_the_files(tmp_path: Path) -> None:
    def connect_and_look() -> None:
        shared_memory.MEMORY = tmp_path
        connect()

    wait_for_success(fork_ranks(2, connect_and_look))
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_waits_sleeps() -> None:
    """A core that is waited on is free for other programs."""

    def wait_for_rank_1() -> None:
        memory = connect()
        memory.add_up(torch.ones(3))
        if distributed.rank() == 1:
            time.sleep(1.0)
        used = time.process_time()
        memory.add_up(torch.ones(3))
        assert time.process_time() - used < 0.25

    wait_for_success(fork_ranks(2, wait_for_rank_1))


def test_tensors_of_different_sizes_are_refused() -> None:
    def average_own_number() -> None:
        connect()
        with pytest.raises(TrainingError, match=r"tensors of different sizes \((8 and 4|4 and 8) bytes\)"):
            distributed.average([torch.ones(1 + distributed.rank())])

    wait_for_success(fork_ranks(2, average_own_number))


def test_a_rank_that_is_killed_ends_the_others_with_a_message() -> None:
    def average_until_killed() -> None:
        connect()
        distributed.average([torch.ones(3)])
        if distributed.rank() == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(2):  # one that had the last rank's message before may notice a turn later
            distributed.average([torch.ones(3)])

    *left, killed = fork_ranks(3, average_until_killed)
    assert killed.wait() == -signal.SIGKILL
    for process in left:
        assert process.wait() == 1
        assert "of 3 lost the others: one of them has exited" in process.read_errors()


def test_a_rank_that_hangs_is_not_waited_for_forever() -> None:
    def average_beside_a_sleeper() -> None:
        distributed.TIMEOUT = timedelta(seconds=5)
        connect()
        if distributed.rank() == 1:
            time.sleep(PATIENCE_SECONDS)
        with pytest.raises(TrainingError, match=r"process 0 of 2 lost the others: .* does not answer"):
            distributed.average([torch.ones(3)])

    waiting, sleeping = fork_ranks(2, average_beside_a_sleeper)
    try:
        wait_for_success([waiting])
    finally:
        sleeping.send_signal(signal.SIGKILL)
        sleeping.wait()


def fail_with(number: int) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("function", "number"),
    [("_make_folder", errno.EACCES), ("_make_files", errno.ENOSPC), ("_map_slots", errno.ENOENT)],
)
def test_ranks_that_cannot_share_memory_use_gloo(function: str, number: int) -> None:
    """A rank of another machine does not find the folder, and one of a full disk has no room for its slots."""

    def average_without_memory() -> None:
        if function == "_make_folder" or os.environ["RANK"] == "1":
            setattr(shared_memory, function, fail_with(number))
        distributed.join_group()
        assert distributed._memory is None
        ones = torch.full((3,), float(distributed.rank()))
        distributed.average([ones])
        assert ones.tolist() == [0.5, 0.5, 0.5]

    wait_for_success(fork_ranks(2, average_without_memory))
