"""Convert tensors between memory formats and precisions."""

from __future__ import annotations

import torch
from torch import Tensor


def as_channels_last(images: Tensor) -> Tensor:
    """The same images (N, C, h, w) in this memory format, which convolutions then keep.

    The strides of gray images would do for both formats, and torch would take the other one.
    """
    n, c, h, w = images.shape
    if c == 1:
        return images.reshape(n, h, w, 1).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=torch.channels_last)


def at_least_float32(x: Tensor) -> Tensor:
    """What leaves a network is read by losses, metrics and people: low precision ends here."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
