"""Means in shared memory: those of gloo up to rounding, equal bits on all ranks, and no rank that waits forever."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable
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

SLOT = 64
"""Bytes of a slot in these tests: most tensors take several turns."""

SHAPES: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((1,),),
    ((),),
    ((8,), (8,)),
    ((7,), (2, 4), (0,), ()),
    ((3, 2, 5, 2), (), (17,)),
    ((100,),),
    ((16,),),
)
"""Shapes of the tensors of each turn; 16 float32 fill a slot."""

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def draw_tensors(rank: int, turn: int, dtype: torch.dtype) -> list[Tensor]:
    tensors = []
    for index, shape in enumerate(SHAPES[turn]):
        generator = torch.Generator().manual_seed(100 * rank + 10 * turn + index)
        tensor = torch.randn(shape, generator=generator).to(dtype)
        if len(shape) == 4:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        tensors.append(tensor)
    return tensors


def wait_for_success(ranks: list[Fork]) -> None:
    for process in ranks:
        assert process.wait() == 0, process.read_errors()


def join_in_memory() -> None:
    """Join the ranks of the environment, which then average in shared memory."""
    distributed.join_group()
    assert distributed._memory is not None, "ranks of one machine share memory"


def report_means(folder: Path) -> None:
    """Average tensors of many sizes and dtypes, at times that differ between ranks; save the means, and gloo's."""
    shared_memory.SLOT_BYTES = SLOT
    join_in_memory()
    rank = distributed.rank()
    pauses = random.Random(rank)
    means = []
    means_of_gloo = []
    for dtype in DTYPES:
        for turn in range(len(SHAPES)):
            tensors = draw_tensors(rank, turn, dtype)
            for tensor in tensors:
                theirs = tensor.double().clone(memory_format=torch.contiguous_format)
                dist.all_reduce(theirs)
                means_of_gloo.append(theirs / distributed.world_size())
            time.sleep(pauses.choice([0.0, 0.0, 0.002]))
            distributed.average(tensors)
            means += tensors
    # Without a pause of gloo's between them.
    for _ in range(100):
        distributed.average([tensor := torch.full((SLOT,), float(rank))])
        means.append(tensor)
    torch.save({"ours": means, "gloo": means_of_gloo}, folder / f"means{rank}.pt")


@pytest.mark.parametrize("world", [2, 3])
def test_means_are_those_of_gloo_and_equal_bit_for_bit_on_all_ranks(world: int, tmp_path: Path) -> None:
    wait_for_success(fork_ranks(world, lambda: report_means(tmp_path)))
    reports = [torch.load(tmp_path / f"means{rank}.pt", weights_only=True) for rank in range(world)]

    for report in reports:
        assert len(report["ours"]) == len(report["gloo"]) + 100
        for ours, first in zip(report["ours"], reports[0]["ours"], strict=True):
            assert torch.equal(ours, first)
        for ours, exact in zip(report["ours"], report["gloo"], strict=False):
            tolerance = 4 * world * torch.finfo(ours.dtype).eps
            torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=tolerance)
        for ours in report["ours"][-100:]:
            assert torch.equal(ours, torch.full((SLOT,), (world - 1) / 2))


def test_tensors_of_several_dtypes_keep_theirs() -> None:
    def average_mixed() -> None:
        join_in_memory()
        rank = distributed.rank()
        tensors = [torch.tensor([rank, 1.0], dtype=dtype) for dtype in DTYPES]
        distributed.average(tensors)
        assert [tensor.dtype for tensor in tensors] == list(DTYPES)
        assert all(tensor.tolist() == [0.5, 1.0] for tensor in tensors)

    wait_for_success(fork_ranks(2, average_mixed))


def test_nothing_is_left_of_the_files(tmp_path: Path) -> None:
    def join_and_leave() -> None:
        shared_memory.MEMORY = tmp_path
        join_in_memory()

    wait_for_success(fork_ranks(2, join_and_leave))
    assert list(tmp_path.iterdir()) == []


def test_a_rank_that_waits_sleeps() -> None:
    """A core that is waited on is free for other programs."""

    def wait_for_rank_1() -> None:
        join_in_memory()
        distributed.average([torch.ones(3)])
        if distributed.rank() == 1:
            time.sleep(1.0)
        used = time.process_time()
        distributed.average([torch.ones(3)])
        assert time.process_time() - used < 0.25

    wait_for_success(fork_ranks(2, wait_for_rank_1))


def test_tensors_of_different_sizes_are_refused() -> None:
    def average_own_number() -> None:
        join_in_memory()
        with pytest.raises(
            TrainingError,
            match=r"tensors of different sizes \((1 and 2|2 and 1) elements\): the stage.* should_advance",
        ):
            distributed.average([torch.ones(1 + distributed.rank())])

    wait_for_success(fork_ranks(2, average_own_number))


def test_a_rank_that_is_killed_ends_the_others_with_a_message() -> None:
    def average_until_killed() -> None:
        join_in_memory()
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
        join_in_memory()
        assert distributed._memory is not None
        for peer in distributed._memory._peers:
            assert peer.gettimeout() == distributed.TIMEOUT.total_seconds()
            peer.settimeout(0.2)
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
