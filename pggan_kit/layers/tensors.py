"""Convert tensors between memory formats and precisions, and images between numbers in [-1, 1] and bytes."""

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


def images_to_uint8(images: Tensor) -> Tensor:
    """Convert images in [-1, 1] to bytes of the same shape, rounded; what lies outside is clipped."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def images_from_uint8(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert images of bytes to numbers in [-1, 1] of a dtype."""
    return pixels.to(dtype) / 127.5 - 1.0
