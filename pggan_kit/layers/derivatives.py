"""Operations whose second derivatives are as fast as their first: what networks under a gradient penalty are made of.

They are torch's own operations with the same numbers and derivatives. Only inside `differentiated_twice`, where
`image_gradients` runs the discriminator, may their derivatives take another way; elsewhere torch's own is the fastest.
`torch.func`'s transforms do not go through that other way.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TORCH_UP_TO = 8
"""Larger side of an image up to which torch's own second derivative of a convolution is the faster one."""


class _Mode(threading.local):
    twice = False


_mode = _Mode()


@contextlib.contextmanager
def differentiated_twice() -> Iterator[None]:
    """What is computed inside will be differentiated with respect to its input, and the result of that once more."""
    before, _mode.twice = _mode.twice, True
    try:
        yield
    finally:
        _mode.twice = before


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """`torch.nn.functional.conv2d`, without groups or dilation.

    torch differentiates the gradient to the features with respect to the weight by a convolution with a kernel as
    large as the image: for images that are not small, 2 to 7 times as slow on a CPU as the gradient to the weight of
    a convolution, which it equals.
    Where that gradient to the features is a transposed convolution instead, torch finds the fast way by itself.
    """
    if not _mode.twice or max(x.shape[-2:]) <= TORCH_UP_TO:
        return F.conv2d(x, weight, bias, stride, padding)
    if torch.is_autocast_enabled(x.device.type):
        # As autocast would, but before what is kept for the derivatives.
        low = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(low), weight.to(low), None if bias is None else bias.to(low)
    out: Tensor = _Convolution.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return out


def leaky_relu(x: Tensor, slope: float, inplace: bool = False) -> Tensor:
    """`torch.nn.functional.leaky_relu`; `inplace` may be ignored.

    Its second derivative is zero, which torch writes out, pixel by pixel, and sends back through all layers before.
    """
    if not _mode.twice:
        return F.leaky_relu(x, slope, inplace)
    out: Tensor = _LeakyReLU.apply(x, slope)  # type: ignore[no-untyped-call]
    return out


# What keeps its context within `forward`, and not in a `setup_context`, is called twice as fast.


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        to_x, to_weight, to_bias, *_ = ctx.needs_input_grad
        grad_x = grad_weight = None
        if to_x:
            # Rows and columns at the far end that no window reached.
            rest = [(x.shape[i] + 2 * padding - weight.shape[i]) % stride for i in (2, 3)]
            grad_x = F.conv_transpose2d(grad, weight, None, stride, padding, rest)
        if to_weight:
            _, grad_weight, _ = torch.ops.aten.convolution_backward(
                *(grad, x, weight, None, [stride, stride], [padding, padding], [1, 1], False, [0, 0], 1),
                [False, True, False],
            )
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if to_bias else None, None, None


class _LeakyReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return F.leaky_relu(x, slope)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.leaky_relu_backward(grad, x.detach(), ctx.slope, False), None
