"""Hand optimizers their learning rates as tensors, where their steps may be part of a CUDA graph.

A rate that is a plain number is a constant of a graph. Groups of parameters go on holding plain numbers, which policies
and hooks change and checkpoints keep; only during an optimizer's step does its group hold the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def uses_rate_tensors(device: torch.device) -> bool:
    """Return whether rates are tensors on a device: a GPU, in captured and in eager steps alike.

    A tensor's float32 differs from a plain number in its last bits, and both kinds of step must agree.
    """
    return device.type == "cuda"


def is_capturable(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer's step may be part of a CUDA graph: torch's say so in `capturable`."""
    return all(group.get("capturable", False) for group in optimizer.param_groups)


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let a new optimizer, or one whose state was just loaded, keep its numbers on a GPU, where it is able to."""
    if not uses_rate_tensors(device) or not all("capturable" in group for group in optimizer.param_groups):
        return
    for group in optimizer.param_groups:
        group["capturable"] = True
    for param, state in optimizer.state.items():
        step = state.get("step")
        if isinstance(step, Tensor):
            state["step"] = step.to(param.device)


class RateTensors:
    """The rates of a run's optimizers as 0-dim float32 tensors.

    Args:
        device: The device of the networks.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tensors: dict[tuple[str, int], Tensor] = {}
        self._written: dict[tuple[str, int], float] = {}

    def write(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Bring the tensors up to the rates of an optimizer's groups, before the step."""
        if not (uses_rate_tensors(self._device) and is_capturable(optimizer)):
            return
        for number, group in enumerate(optimizer.param_groups):
            rate = group["lr"]
            if isinstance(rate, Tensor):  # a rate that its author keeps as a tensor is one already
                continue
            key = (name, number)
            if key not in self._tensors:
                self._tensors[key] = torch.full((), rate, dtype=torch.float32, device=self._device)
            elif self._written[key] != rate:
                self._tensors[key].fill_(rate)
            self._written[key] = rate

    @contextmanager
    def lend(self, name: str, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Let an optimizer's groups hold the tensors in a block."""
        if not (uses_rate_tensors(self._device) and is_capturable(optimizer)):
            yield
            return
        rates = [group["lr"] for group in optimizer.param_groups]
        for number, group in enumerate(optimizer.param_groups):
            group["lr"] = self._tensors.get((name, number), group["lr"])
        try:
            yield
        finally:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
