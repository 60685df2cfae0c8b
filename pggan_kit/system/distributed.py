"""Ranks started by `torchrun`, and what they have to agree on. See docs/distributed.md.

DDP does not suit networks that grow and are differentiated twice; one flat all-reduce after the backward pass does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pggan_kit.errors import ConfigError, TrainingError, UserError, first_line

TIMEOUT = timedelta(minutes=30)
"""So long a rank waits for the others before it gives up: rank 0 may evaluate or write meanwhile."""

T = TypeVar("T")


def start() -> None:
    """Join the group that `torchrun` describes in the environment; without one, do nothing.

    Raises:
        ConfigError: the others cannot be found.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if world == "1" or dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_device())
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"WORLD_SIZE is {world} in the environment, and the other processes cannot be found: start all of them "
            f"with torchrun ({first_line(error)})"
        ) from error


def local_device() -> int:
    """The number of the GPU that is this process's among its machine's."""
    return int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()


def rank() -> int:
    """This process's number, 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together, 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all ranks.

    Raises:
        TrainingError: another has ended, or does not answer.
    """
    if world_size() > 1:
        with _together():
            dist.barrier()


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all ranks, in one collective. Every rank ends with the same bits.

    Raises:
        TrainingError: another rank has ended, or does not answer.
    """
    if world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _together():
        dist.all_reduce(flat)
    flat /= world_size()
    for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def share_from_rank_0(values: list[Any]) -> None:
    """Replace a list's items by those of rank 0, on all ranks.

    Raises:
        TrainingError: another rank has ended, or does not answer.
    """
    if world_size() > 1:
        with _together():
            dist.broadcast_object_list(values, src=0)


def on_rank_0(action: Callable[[], T]) -> T:
    """Let rank 0 do something. All get what it returned (plain data), or raise the user's error that it raised.

    Raises:
        TrainingError: another rank has ended, or does not answer.
    """
    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told[0] = action()
        except UserError as error:
            told[1] = error
    share_from_rank_0(told)
    if told[1] is not None:
        raise told[1]
    result: T = told[0]
    return result


class Agreement:
    """Whether any rank wants something, known to all of them at the same step: what is said at one step is agreed at
    the next, so that no step waits for it. Alone, a process knows at once."""

    def __init__(self) -> None:
        self._said: Tensor | None = None
        self._work: dist.Work | None = None

    def largest(self, wanted: int) -> int:
        """The largest number of any rank, 0 where none wants anything. To be called in every step, by all.

        Raises:
            TrainingError: another rank has ended, or does not answer.
        """
        if world_size() == 1:
            return wanted
        with _together():
            if self._work is not None:
                self._work.wait()
            agreed = 0 if self._said is None else int(self._said)
            if agreed == 0:
                self._said = torch.tensor(wanted)
                self._work = dist.all_reduce(self._said, dist.ReduceOp.MAX, async_op=True)
        return agreed


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Says in a user's words that others are missing."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            f"process {rank()} of {world_size()} lost the others: one of them has ended, and has said why, or does not "
            f"answer. Start all of them again with `pggan-kit resume` ({first_line(error)})"
        ) from error
