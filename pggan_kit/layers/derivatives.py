"""Operations whose second derivatives are as fast as their first, for networks under a gradient penalty.

They are torch's own operations, with the same values and derivatives. Only within `expect_second_derivatives`, where
`image_gradients` runs the discriminator, may their derivatives be computed differently; elsewhere torch's own way is
the fastest. `torch.func`'s transforms do not support that other way.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_SIDE_FOR_TORCH = 8
"""Maximum of an image's larger side, in pixels, at which torch's own second derivative of a convolution is faster."""


class _Mode(threading.local):
    twice = False


_mode = _Mode()


@contextlib.contextmanager
def expect_second_derivatives() -> Iterator[None]:
    """Prepare operations, within a block, for derivatives by their input that are themselves differentiated."""
    twice_before = _mode.twice
    _mode.twice = True
    try:
        yield
    finally:
        _mode.twice = twice_before


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve as `torch.nn.functional.conv2d` does, without groups or dilation.

    torch differentiates the gradient by the features with respect to the weight as a convolution whose kernel is as
    large as the image. Unless the image is small, that is 2 to 7 times as slow on a CPU as the gradient of a
    convolution by its weight, which has the same value. Where the gradient by the features is computed as a
    transposed convolution, torch takes the fast way by itself.
    """
    if not _mode.twice or max(x.shape[-2:]) <= LARGEST_SIDE_FOR_TORCH:
        return F.conv2d(x, weight, bias, stride, padding)

    # As autocast would, but before what is kept for the derivatives.
    if torch.is_autocast_enabled(x.device.type):
        low = torch.get_autocast_dtype(x.device.type)
        x = x.to(low)
        weight = weight.to(low)
        if bias is not None:
            bias = bias.to(low)
    out: Tensor = _Convolution.apply(x, weight, bias, stride, padding)  # type: ignore[no-untyped-call]
    return out


def leaky_relu(x: Tensor, slope: float, inplace: bool = False) -> Tensor:
    """Apply `torch.nn.functional.leaky_relu`; `inplace` may be ignored.

    The second derivative is zero. torch writes these zeros out, pixel by pixel, and propagates them through all layers
    before.
    """
    if not _mode.twice:
        return F.leaky_relu(x, slope, inplace)
    out: Tensor = _LeakyReLU.apply(x, slope)  # type: ignore[no-untyped-call]
    return out


# A function that saves its context within `forward`, and not in a `setup_context`, is called twice as fast.


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        ctx.padding = padding
        return F.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride = ctx.stride
        padding = ctx.padding
        needs_x, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_x = None
        grad_weight = None
        grad_bias = None

        if needs_x:
            # A transposed convolution is differentiated fast. No window reached some rows and columns at the far end.
            unreached = [(x.shape[i] + 2 * padding - weight.shape[i]) % stride for i in (2, 3)]
            grad_x = F.conv_transpose2d(grad, weight, None, stride, padding, unreached)

        # By the weight alone: this operation's gradient by x would be differentiated slowly.
        if needs_weight:
            _, grad_weight, _ = torch.ops.aten.convolution_backward(
                *(grad, x, weight, None, [stride, stride], [padding, padding], [1, 1], False, [0, 0], 1),
                [False, True, False],
            )

        if needs_bias:
            grad_bias = grad.sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None, None


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
