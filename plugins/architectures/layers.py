"""Layers that architectures share. Features are (N, C, h, w)."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pggan_kit import Downsample, Upsample, at_least_float32, check_choice, conv2d, leaky_relu
from pggan_kit.components import BatchStatistic

LEAK = 0.2
EPSILON = 1e-8

ACTIVATIONS = ("leaky_relu", "relu")
GENERATOR_NORMS = ("pixel", "batch", "layer", "none")
DISCRIMINATOR_NORMS = ("none", "layer", "spectral", "batch")
OUTPUTS = ("linear", "tanh")

ALONE = "over the pixels of each image alone"
"""What batch norm of maps is with one sample in a call."""


class EqualizedConv2d(nn.Module):
    """A convolution whose weights are N(0, 1) and scaled by gain / sqrt(fan-in) at run time, so that all learn at one
    speed (Karras et al. 2018, section 4.1). Zero padding keeps the size; the bias starts at 0 and is not scaled.

    Args:
        in_channels, out_channels, kernel_size: of the convolution; kernel_size is odd.
        gain: sqrt(2) suits a (leaky) ReLU behind it, 1 a linear output.
        up, down: fuse a change of size before or after the convolution.
        bias: whether there is one.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        gain: float = math.sqrt(2),
        up: Upsample | None = None,
        down: Downsample | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = gain / math.sqrt(in_channels * kernel_size**2)
        self.resample = up or down

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h', w')."""
        # Read the weight once: under spectral norm each reading is a step of its power iteration.
        weight = self.weight * self.scale
        if self.resample is not None:
            x = self.resample.conv2d(x, weight)
            # In x's own type, which autocast may have lowered: the two paths of a fade must have the same.
            return x if self.bias is None else x + self.bias.view(-1, 1, 1).to(x.dtype)
        return conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)


class EqualizedLinear(nn.Module):
    """A dense layer with run-time scaled weights: see `EqualizedConv2d`.

    Args:
        in_features, out_features, gain, bias: as for the convolution.
        lr_multiplier: how much faster than others it learns; its first outputs do not depend on it (Karras et al.
            2019, appendix C: 0.01 for a mapping network).
        bias_start: the bias's first value.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        gain: float = math.sqrt(2),
        bias: bool = True,
        lr_multiplier: float = 1.0,
        bias_start: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_start / lr_multiplier)) if bias else None
        self.scale = gain * lr_multiplier / math.sqrt(in_features)
        self.bias_scale = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        bias: Tensor | None = self.bias
        if bias is not None and self.bias_scale != 1.0:
            bias = bias * self.bias_scale
        if self.bias_scale != 1.0:  # weights so large that low precision would lose their gradients
            return F.linear(x, self.weight * self.scale, bias)
        # The inputs, which are mostly fewer than the weights; and the weights' gradients need no scaling then.
        return F.linear(x * self.scale, self.weight, bias)


class LeakyReLU(nn.Module):
    """Leaky ReLU with slope 0.2.

    Args:
        inplace: write over the input, where nothing else needs it: a large stage's step gains 3 % by it.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return leaky_relu(x, LEAK, self.inplace)


class PixelNorm(nn.Module):
    """`x / sqrt(mean over channels of x^2 + 1e-8)` (Karras et al. 2018, section 4.2), for (N, C, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        if not torch.is_grad_enabled():
            return x * inverse_size(x).to(x.dtype)
        out: Tensor = _PixelNorm.apply(x)
        return out


class _PixelNorm(torch.autograd.Function):
    """With its derivative written out: what torch makes of the composed one takes up to 15 times as long in
    channels_last, where a factor for each pixel is spread over neighbours in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * inverse_size(x).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        scale = inverse_size(x)
        along = (at_least_float32(grad) * x).mean(1, keepdim=True) * scale.square()
        return torch.addcmul(grad, x, along.to(x.dtype), value=-1) * scale.to(x.dtype)


def inverse_size(x: Tensor) -> Tensor:
    """(N, C, ...) -> (N, 1, ...): `1 / sqrt(mean over channels of x^2 + 1e-8)`, in float32 or better."""
    size = torch.linalg.vector_norm(at_least_float32(x), dim=1, keepdim=True)
    return torch.rsqrt(size.square() / x.shape[1] + EPSILON)


class Residual(nn.Module):
    """`(branch(x) + shortcut(x)) * gain`."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, gain: float = 1.0) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """What branch and shortcut make of (N, C, h, w)."""
        total: Tensor = self.branch(x) + self.shortcut(x)
        return total if self.gain == 1.0 else total * self.gain


Layer = TypeVar("Layer", EqualizedConv2d, EqualizedLinear)


class Layers:
    """Makes the layers of one network, all with the same activation, normalisation and scaling of weights.

    Args:
        activation: `leaky_relu` (slope 0.2) or `relu`.
        norm: `pixel`; `batch` (Ioffe and Szegedy 2015) or `layer` (Ba et al. 2016: over channels and pixels, with a
            gain and an offset for each channel); `spectral` (Miyato et al. 2018): each weight, seen as a matrix with
            a row for each output, is divided by its largest singular value; or `none`.
        equalized_lr: scale weights at run time; else they are drawn with the scale that they would have had (He et al.
            2015), so that the first outputs are the same. Under spectral norm weights have no scale of their own.
    """

    def __init__(self, activation: str, norm: str, equalized_lr: bool) -> None:
        self.kind = activation
        self.norm = norm
        self.equalized_lr = equalized_lr

    @property
    def biased(self) -> bool:
        """Whether a convolution before a normalisation has a bias: batch norm would take it out again."""
        return self.norm != "batch"

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        gain: float = math.sqrt(2),
        up: Upsample | None = None,
        down: Downsample | None = None,
        bias: bool = True,
    ) -> nn.Module:
        """A convolution: see `EqualizedConv2d`."""
        return self._scaled(EqualizedConv2d(in_channels, out_channels, kernel_size, gain, up, down, bias))

    def dense(self, in_features: int, out_features: int, gain: float = math.sqrt(2), bias: bool = True) -> nn.Module:
        """A dense layer: see `EqualizedLinear`."""
        return self._scaled(EqualizedLinear(in_features, out_features, gain, bias))

    def activation(self, inplace: bool = False) -> nn.Module:
        """The activation alone; `inplace` only right behind a layer, whose output nothing else reads."""
        return LeakyReLU(inplace) if self.kind == "leaky_relu" else nn.ReLU(inplace)

    def after(self, channels: int, flat: bool = False) -> nn.Module:
        """What follows a convolution (or, `flat`, a dense layer) with `channels` outputs.

        Batch and layer norm come before the activation, pixel norm behind it as in Karras et al. 2018, table 2.
        """
        if self.norm == "pixel":
            return nn.Sequential(self.activation(True), PixelNorm())
        return self.before(channels, flat, inplace=True)

    def before(self, channels: int, flat: bool = False, inplace: bool = False) -> nn.Module:
        """What precedes a convolution of a pre-activation network: normalisation, activation (He et al. 2016)."""
        if self.norm == "pixel":
            return nn.Sequential(PixelNorm(), self.activation(True))
        if self.norm == "batch":
            return nn.Sequential(nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels), self.activation(True))
        if self.norm == "layer":
            return nn.Sequential(nn.GroupNorm(1, channels), self.activation(True))
        return self.activation(inplace)

    def _scaled(self, layer: Layer) -> nn.Module:
        if self.equalized_lr and self.norm != "spectral":
            return layer
        with torch.no_grad():
            layer.weight.mul_(layer.scale)
        layer.scale = 1.0
        return spectral_norm(layer) if self.norm == "spectral" else layer


def describe_batch_norm(net: str, layers: Layers, samples: int) -> list[BatchStatistic]:
    """Return the batch norm of a network's layers, where they have one."""
    if layers.norm != "batch":
        return []
    return [BatchStatistic(net, "batch norm", samples, ALONE)]


def to_image_layer(conv: nn.Module, output: str) -> nn.Module:
    """A convolution to images, alone (`linear`) or with a `tanh` behind it."""
    return nn.Sequential(conv, nn.Tanh()) if output == "tanh" else conv


def check_layers(
    activations: dict[str, str], generator_norm: str, discriminator_norm: str, output: str | None = None
) -> None:
    """Check the options that `Layers` takes, and the output of G.

    Raises:
        ValueError: an unknown value; the message begins with the parameter's name.
    """
    for name, value in activations.items():
        check_choice(name, value, ACTIVATIONS)
    check_choice("generator_norm", generator_norm, GENERATOR_NORMS)
    check_choice("discriminator_norm", discriminator_norm, DISCRIMINATOR_NORMS)
    if output is not None:
        check_choice("output", output, OUTPUTS)
