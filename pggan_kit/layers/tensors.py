"""Convert tensors between memory formats and precisions, and images between numbers in [-1, 1] and bytes."""

from __future__ import annotations

import torch
from torch import Tensor


def convert_to_channels_last(images: Tensor) -> Tensor:
    """Convert images (N, C, h, w) to the memory format `channels_last`, which convolutions then keep.

    The strides of gray images suit both formats, and torch would choose the other one.
    """
    n, c, h, w = images.shape
    if c == 1:
        return images.reshape(n, h, w, 1).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=torch.channels_last)


def close_gaps(tensor: Tensor) -> Tensor:
    """Return a tensor whose numbers lie in memory without gaps, in the same order of dimensions: a copy of a view."""
    if tensor.is_contiguous():
        return tensor
    return tensor.clone(memory_format=torch.preserve_format)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert a network's output of lower precision to float32, for losses, metrics and people."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def images_to_uint8(images: Tensor) -> Tensor:
    """Convert images in [-1, 1] to bytes of the same shape, rounded; values outside are clipped."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def images_from_uint8(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert images of bytes to numbers of a dtype in [-1, 1]."""
    return pixels.to(dtype) / 127.5 - 1.0
