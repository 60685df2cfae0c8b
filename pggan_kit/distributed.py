"""Ranks started by `torchrun`, and the one collective that training needs: a flat all-reduce of gradients.

DDP does not suit networks that grow and are differentiated twice; averaging the gradients after backward does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def start() -> None:
    """Join the group that `torchrun` describes in the environment; without one, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def rank() -> int:
    """This process's number, 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together, 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait for all ranks."""
    if dist.is_initialized():
        dist.barrier()


def average_gradients(params: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all ranks, in one collective. Every rank ends with the same bits."""
    if world_size() == 1:
        return
    grads = [p.grad for p in params if p.grad is not None]
    flat = torch.cat([grad.reshape(-1) for grad in grads])
    dist.all_reduce(flat)
    flat /= world_size()
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def share(values: list[Any]) -> None:
    """Replace a list's items by those of rank 0."""
    if world_size() > 1:
        dist.broadcast_object_list(values, src=0)
