"""Layers that architectures are built from; features are (N, C, h, w)."""

from __future__ import annotations

import math
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pggan_kit import Downsample, Resampling, Stage, Upsample, at_least_float32, check_choice, conv2d, leaky_relu
from pggan_kit.components import BatchStatistic

LEAK = 0.2
"""Slope of the leaky ReLU below 0."""

EPSILON = 1e-8
"""Number added to mean squares before their root."""

ACTIVATIONS = ("leaky_relu", "relu")
GENERATOR_NORMS = ("pixel", "batch", "layer", "none")
DISCRIMINATOR_NORMS = ("none", "layer", "spectral", "batch")
OUTPUTS = ("linear", "tanh")

ALONE = "over the pixels of each image alone"
"""Meaning of the batch norm of maps with one sample in a call."""


class EqualizedConv2d(nn.Module):
    """A convolution with equalized learning rate (Karras et al. 2018, section 4.1).

    Weights are drawn from N(0, 1) and scaled by gain / sqrt(fan-in) at run time, so that all weights learn at the same
    speed. Zero padding keeps the size; the bias starts at 0 and is not scaled.

    Args:
        in_channels, out_channels: Numbers of maps.
        kernel_size: Size of the kernel, odd.
        gain: Gain of the layer: sqrt(2) suits a (leaky) ReLU behind it, 1 a linear output.
        resample: Change of size, fused with the convolution: up before it, down after it.
        bias: Whether there is a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        gain: float = math.sqrt(2),
        resample: Upsample | Downsample | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale = gain / math.sqrt(in_channels * kernel_size**2)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, h, w) to (N, out, h', w')."""
        # Read the weight once: under spectral norm each access is a step of its power iteration.
        weight = self.weight * self.scale
        if self.resample is None:
            return conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)

        x = self.resample.conv2d(x, weight)
        if self.bias is None:
            return x
        # In x's dtype, which autocast may have lowered: both paths of a fade must have the same.
        return x + self.bias.view(-1, 1, 1).to(x.dtype)


class EqualizedLinear(nn.Module):
    """A dense layer whose weights are scaled at run time: see `EqualizedConv2d`.

    Args:
        in_features, out_features: Numbers of features.
        gain: Gain of the layer: see `EqualizedConv2d`.
        bias: Whether there is a bias.
        lr_multiplier: Factor of its learning speed; its first outputs do not depend on it (Karras et al. 2019,
            appendix C: 0.01 for a mapping network).
        bias_start: Initial value of the bias.
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
        """Map (N, in) to (N, out)."""
        bias: Tensor | None = self.bias
        if self.bias_scale == 1.0:
            # Scale the inputs, mostly fewer than the weights; the gradients of the weights then need no scaling.
            return F.linear(x * self.scale, self.weight, bias)

        # Scale the weights: they are so large here that low precision would lose their gradients.
        if bias is not None:
            bias = bias * self.bias_scale
        return F.linear(x, self.weight * self.scale, bias)


class LeakyReLU(nn.Module):
    """Leaky ReLU.

    Args:
        inplace: Whether to overwrite the input, where nothing else needs it; a step of a large stage is 3 % faster so.
        leak: Slope below 0.
    """

    def __init__(self, inplace: bool = False, leak: float = LEAK) -> None:
        super().__init__()
        self.inplace = inplace
        self.leak = leak

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation; the shape stays."""
        return leaky_relu(x, self.leak, self.inplace)


class PixelNorm(nn.Module):
    """The normalisation `x / sqrt(mean over channels of x^2 + 1e-8)` (Karras et al. 2018, section 4.2).

    It takes (N, C, ...).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each pixel; the shape stays."""
        if not torch.is_grad_enabled():
            return x * compute_inverse_norm(x).to(x.dtype)
        out: Tensor = _PixelNorm.apply(x)
        return out


class _PixelNorm(torch.autograd.Function):
    """Pixel norm with its derivative written out.

    torch's derivative of the composed formula takes up to 15 times as long in channels_last, where a factor for each
    pixel is spread over neighbours in memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * compute_inverse_norm(x).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        inverse = compute_inverse_norm(x)
        along = (at_least_float32(grad) * x).mean(1, keepdim=True) * inverse.square()
        return torch.addcmul(grad, x, along.to(x.dtype), value=-1) * inverse.to(x.dtype)


def compute_inverse_norm(x: Tensor) -> Tensor:
    """Return `1 / sqrt(mean over channels of x^2 + 1e-8)` in float32 or better: (N, C, ...) -> (N, 1, ...)."""
    norm = torch.linalg.vector_norm(at_least_float32(x), dim=1, keepdim=True)
    return torch.rsqrt(norm.square() / x.shape[1] + EPSILON)


class Residual(nn.Module):
    """A residual block: `(branch(x) + shortcut(x)) * gain`."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, gain: float = 1.0) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the output of the branch and of the shortcut."""
        total: Tensor = self.branch(x) + self.shortcut(x)
        if self.gain == 1.0:
            return total
        return total * self.gain


class HasImage(Protocol):
    """Features that hold an image (N, image channels, h, w)."""

    @property
    def image(self) -> Tensor:
        """The image."""


class SummedImage(nn.Module):
    """The layer to images of a generator whose blocks add up the image themselves."""

    def forward(self, features: HasImage) -> Tensor:
        """Return the image (N, image channels, h, w) of the features."""
        return features.image


Layer = TypeVar("Layer", EqualizedConv2d, EqualizedLinear)


class Layers:
    """The layers of one network, all with the same activation, normalisation and scaling of weights.

    Args:
        activation: `leaky_relu` or `relu`.
        norm: `pixel`; `batch` (Ioffe and Szegedy 2015) or `layer` (Ba et al. 2016: over channels and pixels, with a
            gain and an offset for each channel); `spectral` (Miyato et al. 2018): each weight, seen as a matrix with
            a row for each output, is divided by its largest singular value, and so are those of a learned resampling;
            or `none`.
        equalized_lr: Whether to scale weights at run time. Otherwise they are drawn with the scale that they would have
            had (He et al. 2015), so that the first outputs are the same. Under spectral norm weights have no scale of
            their own.
        leak: Slope of the leaky ReLU below 0.
    """

    def __init__(self, activation: str, norm: str, equalized_lr: bool, leak: float = LEAK) -> None:
        self.kind = activation
        self.leak = leak
        self.norm = norm
        self.equalized_lr = equalized_lr

    @property
    def conv_has_bias(self) -> bool:
        """Whether a convolution before a normalisation has a bias: batch norm would subtract it again."""
        return self.norm != "batch"

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        gain: float = math.sqrt(2),
        resample: Upsample | Downsample | None = None,
        bias: bool = True,
    ) -> nn.Module:
        """Return a convolution: see `EqualizedConv2d`."""
        return self._scale_weight(EqualizedConv2d(in_channels, out_channels, kernel_size, gain, resample, bias))

    def dense(self, in_features: int, out_features: int, gain: float = math.sqrt(2), bias: bool = True) -> nn.Module:
        """Return a dense layer: see `EqualizedLinear`."""
        return self._scale_weight(EqualizedLinear(in_features, out_features, gain, bias))

    def down(self, resampling: Resampling, channels: int, factor: int) -> Downsample:
        """Return a pair's module that makes features smaller; under spectral norm, its weights are divided as all are.

        Args:
            resampling: The pair, which may be learned. Where its modules scale weights at run time, they do so by
                `scale`.
            channels: Number of maps.
            factor: Factor of reduction.
        """
        down = resampling.down(channels, factor)
        if self.norm != "spectral":
            return down
        for module in list(down.modules()):
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter.dim() > 1:
                    spectral_norm(module, name)
                    module.scale = 1.0  # type: ignore[assignment]
        return down

    def activation(self, inplace: bool = False) -> nn.Module:
        """Return the activation; `inplace` only directly behind a layer, whose output nothing else reads."""
        if self.kind == "leaky_relu":
            return LeakyReLU(inplace, self.leak)
        return nn.ReLU(inplace)

    def norm_and_activation_after(self, channels: int, flat: bool = False) -> nn.Module:
        """Return the normalisation and activation that follow a layer.

        Batch and layer norm come before the activation, pixel norm behind it as in Karras et al. 2018, table 2.

        Args:
            channels: Number of outputs of the layer.
            flat: Whether the layer is dense; otherwise it is a convolution.
        """
        if self.norm == "pixel":
            return nn.Sequential(self.activation(inplace=True), PixelNorm())
        return self.norm_and_activation_before(channels, flat, inplace=True)

    def norm_and_activation_before(self, channels: int, flat: bool = False, inplace: bool = False) -> nn.Module:
        """Return the normalisation and activation that precede a layer of a pre-activation network (He et al. 2016).

        Args:
            channels: Number of inputs of the layer.
            flat: Whether the input is (N, C); otherwise it is (N, C, h, w).
            inplace: Whether the activation may overwrite its input where there is no normalisation.
        """
        # Nothing else reads the output of a normalisation, so the activation behind it may overwrite that.
        if self.norm == "pixel":
            return nn.Sequential(PixelNorm(), self.activation(inplace=True))
        if self.norm == "batch":
            batch_norm = nn.BatchNorm1d(channels) if flat else nn.BatchNorm2d(channels)
            return nn.Sequential(batch_norm, self.activation(inplace=True))
        if self.norm == "layer":
            return nn.Sequential(nn.GroupNorm(1, channels), self.activation(inplace=True))
        return self.activation(inplace)

    def _scale_weight(self, layer: Layer) -> nn.Module:
        if self.equalized_lr and self.norm != "spectral":
            return layer
        with torch.no_grad():
            layer.weight.mul_(layer.scale)
        layer.scale = 1.0
        if self.norm == "spectral":
            return spectral_norm(layer)
        return layer


def describe_batch_norm(net: str, layers: Layers, stage: Stage, samples: int) -> list[BatchStatistic]:
    """Return the batch norm of a network's layers, if they have one.

    Args:
        net: `generator`, `discriminator` or `encoder`.
        layers: Layers of that network, some of which are at the base size.
        stage: Stage of the network.
        samples: Number of samples of a call.

    Raises:
        ValueError: A map of the base size has one pixel, and there is only one sample.
    """
    if layers.norm != "batch":
        return []

    base = stage
    while base.previous is not None:
        base = base.previous
    if samples * base.height * base.width == 1:
        setting = "generator_norm" if net == "generator" else "discriminator_norm"
        raise ValueError(
            f"{setting} = 'batch' needs at least 2 samples in a call: at the base size {base.size} each sample has a "
            "single value per map"
        )
    return [BatchStatistic(net, "batch norm", samples, ALONE)]


def add_output_activation(conv: nn.Module, output: str) -> nn.Module:
    """Return a convolution to images, alone (`linear`) or with a `tanh` behind it."""
    if output == "tanh":
        return nn.Sequential(conv, nn.Tanh())
    return conv


def check_layers(
    activations: dict[str, str], generator_norm: str, discriminator_norm: str, output: str | None = None
) -> None:
    """Check the options that `Layers` takes, and the output of G.

    Args:
        activations: Activations by parameter name.
        generator_norm, discriminator_norm: Normalisations.
        output: Output of G; None for an architecture without this option.

    Raises:
        SettingError: A value is unknown; the message begins with the parameter's name.
    """
    for name, value in activations.items():
        check_choice(name, value, ACTIVATIONS)
    check_choice("generator_norm", generator_norm, GENERATOR_NORMS)
    check_choice("discriminator_norm", discriminator_norm, DISCRIMINATOR_NORMS)
    if output is not None:
        check_choice("output", output, OUTPUTS)
