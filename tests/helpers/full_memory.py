"""Memory that is full from a number of rows on, on a machine that has no card."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.nn import functional


def limit_rows(rows: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let convolutions of images of a height run out of memory above a number of rows; those of fake tensors do not."""
    convolve = torch.conv2d

    def convolve_or_run_out(x: Tensor, *args: Any, **options: Any) -> Tensor:
        if len(x) > rows and x.shape[2] == height and not isinstance(x, FakeTensor):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return convolve(x, *args, **options)

    for place in (torch, functional):
        monkeypatch.setattr(place, "conv2d", convolve_or_run_out)
