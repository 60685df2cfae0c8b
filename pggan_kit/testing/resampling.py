"""The suite of resampling pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pggan_kit.layers.resampling import Downsample, Upsample
from pggan_kit.testing.base import TrainedSuite
from pggan_kit.testing.support import difference, noise, require, require_gradients


class ResamplingSuite(TrainedSuite):
    """A pair of modules that change the size of features.

    Attributes:
        factors: growth factors to try.
        channels: numbers of maps to try.
        kernels: sizes of the convolutions that may be fused.
        tolerance: between fused and composed, in float64, relative to the largest value.
    """

    kind = "resampling"
    factors: Sequence[int] = (2, 3, 4)
    channels: Sequence[int] = (1, 4)
    kernels: Sequence[int] = (1, 3, 5)
    tolerance = 1e-10

    def chosen(self, part: Any) -> dict[str, Any]:
        """As `train.resampling`."""
        return {"resampling": part}

    def cases(self) -> Iterator[tuple[Any, int, int, str]]:
        """A new part with each number of channels and factor, and words for it."""
        for channels in self.channels:
            for factor in self.factors:
                torch.manual_seed(0)
                yield self.make(), channels, factor, f"with factor {factor} and {channels} channels"

    def test_sizes(self) -> None:
        """`up` multiplies height and width by the factor, `down` divides them, at any size and batch size."""
        for part, channels, factor, where in self.cases():
            up, down = part.up(channels, factor), part.down(channels, factor)
            for count, height, width in ((1, 1, 1), (2, 3, 5), (3, 4, 4)):
                small = noise(count, channels, height, width)
                large = noise(count, channels, factor * height, factor * width)
                for name, found, wanted in (("up", up(small), large), ("down", down(large), small)):
                    require(
                        found.shape == wanted.shape and found.dtype == torch.float32,
                        f"{name} {where} makes {found.dtype} {tuple(found.shape)} where float32 "
                        f"{tuple(wanted.shape)} is wanted",
                    )

    def test_is_a_module_with_conv2d(self) -> None:
        """`up` and `down` build an `Upsample` and a `Downsample`, so that convolutions can be fused with them."""
        for part, channels, factor, where in self.cases():
            for name, module, wanted in (
                ("up", part.up(channels, factor), Upsample),
                ("down", part.down(channels, factor), Downsample),
            ):
                require(isinstance(module, wanted), f"{name} {where} builds no pggan_kit.resampling.{wanted.__name__}")
                require(module.factor == factor, f"{name} {where} builds a module whose factor is {module.factor}")

    def test_gradients_flow(self) -> None:
        """To the features and to every parameter."""
        for part, channels, factor, where in self.cases():
            for name in ("up", "down"):
                module = getattr(part, name)(channels, factor)
                x = noise(2, channels, 2 * factor, 3 * factor).requires_grad_(True)
                output = module(x)
                (output * noise(*output.shape, seed=1)).sum().backward()
                require(
                    x.grad is not None and bool((x.grad.abs().amax((0, 2, 3)) > 0).all()),
                    f"no gradient flows through {name} {where} to some of the features",
                )
                require_gradients(module, f"{name} {where}")

    def test_same_input_same_output(self) -> None:
        """Nothing is random or remembered."""
        for part, channels, factor, where in self.cases():
            for name in ("up", "down"):
                module = getattr(part, name)(channels, factor).eval()
                x = noise(2, channels, 2 * factor, 2 * factor)
                require(torch.equal(module(x), module(x)), f"{name} {where} gives two outputs for one input")

    def test_fused_convolution(self) -> None:
        """`conv2d` equals the convolution after `up`, or before `down`, with gradients of first and second order."""
        for part, channels, factor, where in self.cases():
            up, down = part.up(channels, factor).double(), part.down(channels, factor).double()
            for kernel in self.kernels:
                # `up` precedes the convolution and `down` follows it: each has as many channels as it is given.
                widen = noise(3, channels, kernel, kernel, dtype=torch.float64)
                narrow = noise(channels, 3, kernel, kernel, dtype=torch.float64)
                small = noise(2, channels, 3, 2, seed=1, dtype=torch.float64)
                large = noise(2, 3, 3 * factor, 2 * factor, seed=1, dtype=torch.float64)
                case = f"{where} and a {kernel}x{kernel} kernel"
                for name, module, x, weight in (("up", up, small, widen), ("down", down, large, narrow)):
                    fused, composed = (_derivatives(module, x, weight, fused) for fused in (True, False))
                    for order, (found, wanted) in enumerate(zip(fused, composed, strict=True)):
                        what = ORDERS[order]
                        require(found.shape == wanted.shape, f"{name}.conv2d {case} has another size than composed")
                        change = difference(found, wanted)
                        require(
                            change <= self.tolerance,
                            f"{name}.conv2d {case} differs from {name} and convolution one after the other in {what}, "
                            f"by {change:.2g}",
                        )


ORDERS = (
    "its output",
    "its gradient to the features",
    "its gradient to the weight",
    "the gradient of its gradient to the features",
    "the gradient of its gradient to the weight",
)


def _derivatives(module: Any, x: Tensor, weight: Tensor, fused: bool) -> list[Tensor]:
    """The output, and what `ORDERS` names after it."""
    x, weight = x.clone().requires_grad_(True), weight.clone().requires_grad_(True)
    if fused:
        output = module.conv2d(x, weight)
    elif isinstance(module, Upsample):
        output = F.conv2d(module(x), weight, padding=weight.shape[-1] // 2)
    else:
        output = module(F.conv2d(x, weight, padding=weight.shape[-1] // 2))
    direction = noise(*output.shape, seed=2, dtype=torch.float64)
    first = torch.autograd.grad((output.tanh() * direction).sum(), (x, weight), create_graph=True)
    second = torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), (x, weight))
    return [output, *first, *second]
