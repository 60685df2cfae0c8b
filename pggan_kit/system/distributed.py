"""The processes that `torchrun` or `--ranks` starts, and what they agree on. See docs/distributed.md.

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

from pggan_kit.errors import ConfigError, LostRanksError, TrainingError, UserError, first_line
from pggan_kit.system.processes import RENDEZVOUS
from pggan_kit.system.shared_memory import SharedMemoryMeans, connect_ranks

TIMEOUT = timedelta(minutes=30)
"""Time that a rank waits for the others before it fails: rank 0 may evaluate or write meanwhile."""

T = TypeVar("T")

_memory: SharedMemoryMeans | None = None
"""Means of CPU tensors in memory that all ranks share; None where torch.distributed adds up."""


def join_group() -> None:
    """Join the group that `torchrun` or `--ranks` describes in the environment; without one, do nothing.

    Raises:
        ConfigError: The other processes cannot be found.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if world == "1" or dist.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_device())
        backend = "cpu:gloo,cuda:nccl"
    global _memory
    try:
        # Without an address, `torchrun` says in the environment where rank 0 is.
        dist.init_process_group(
            backend,
            init_method=os.environ.get(RENDEZVOUS),
            timeout=TIMEOUT,
            rank=int(os.environ.get("RANK", "-1")),
            world_size=int(world),
        )
        if backend == "gloo":
            _memory = connect_ranks(TIMEOUT)
    except (ValueError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"WORLD_SIZE is {world} in the environment, and the other processes cannot be found: start all of them "
            f"with torchrun ({first_line(error)})"
        ) from error


def local_device() -> int:
    """Return the index of this process's GPU among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()


def rank() -> int:
    """Return the rank of this process, 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes that train together, 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all ranks.

    Raises:
        LostRanksError: Another rank has ended, or does not answer.
    """
    if world_size() > 1:
        with _explain_missing_ranks():
            dist.barrier()


def average(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all ranks, in one collective. All ranks end with equal bits.

    Raises:
        LostRanksError: Another rank has ended, or does not answer.
    """
    if world_size() == 1 or not tensors:
        return
    if _memory is not None:
        with _explain_missing_ranks():
            _memory.average(tensors)
        return

    # One flat tensor, since each collective has a cost of its own.
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _explain_missing_ranks():
        dist.all_reduce(flat)
    flat /= world_size()

    lengths = [tensor.numel() for tensor in tensors]
    for tensor, mean in zip(tensors, flat.split(lengths), strict=True):
        tensor.copy_(mean.view_as(tensor))


def share_from_rank_0(values: list[Any]) -> None:
    """Replace a list's items by those of rank 0, on all ranks.

    Raises:
        LostRanksError: Another rank has ended, or does not answer.
    """
    if world_size() > 1:
        with _explain_missing_ranks():
            dist.broadcast_object_list(values, src=0)


def run_on_rank_0(action: Callable[[], T]) -> T:
    """Run an action on rank 0. All ranks return its result (plain data), or raise the user's error that it raised.

    Raises:
        LostRanksError: Another rank has ended, or does not answer.
        TrainingError: On all ranks but 0, the action raised an exception that is no message for users.
    """
    outcome: list[Any] = [None, None]
    if rank() == 0:
        try:
            outcome[0] = action()
        except UserError as error:
            outcome[1] = error
        except Exception as error:
            # The other ranks would wait for an answer that never comes.
            share_from_rank_0([None, TrainingError(f"process 0 failed: {type(error).__name__}: {first_line(error)}")])
            raise

    share_from_rank_0(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


class Agreement:
    """A request of any rank that all ranks learn of at the same step.

    A request of one step is agreed on at the next, so that no step waits for it. A process that trains alone learns of
    it at once.
    """

    def __init__(self) -> None:
        self._requested: Tensor | None = None
        self._work: dist.Work | None = None

    def largest(self, wanted: int) -> int:
        """Return the largest number that any rank requests, 0 without a request. Call it in every step, on all ranks.

        Raises:
            LostRanksError: Another rank has ended, or does not answer.
        """
        if world_size() == 1:
            return wanted
        with _explain_missing_ranks():
            if self._work is not None:
                self._work.wait()
            # What was asked for in an earlier step has been agreed on meanwhile.
            agreed = 0
            if self._requested is not None:
                agreed = int(self._requested)
            if agreed == 0:
                self._requested = torch.tensor(wanted)
                self._work = dist.all_reduce(self._requested, dist.ReduceOp.MAX, async_op=True)
        return agreed


@contextlib.contextmanager
def _explain_missing_ranks() -> Iterator[None]:
    """Raise a TrainingError in a user's words where other ranks are missing."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        raise LostRanksError(
            f"process {rank()} of {world_size()} lost the others: one of them has exited, with the reason in its "
            f"output, or does not answer. Start all of them again with `pggan-kit resume` ({first_line(error)})"
        ) from error
