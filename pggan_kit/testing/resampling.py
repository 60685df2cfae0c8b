"""Test that resampling pairs keep their contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pggan_kit.layers.resampling import Downsample, Upsample
from pggan_kit.testing.suite import StepSuite
from pggan_kit.testing.support import (
    draw_noise,
    measure_difference,
    require,
    require_gradients,
    require_sample_by_sample,
)

SMALL = 16
"""Height and width of the smaller maps on which brightness and place are measured."""

GAIN_TOLERANCE = 1e-4
"""Tolerance between what a constant 1 becomes, away from the border, and 1."""

SHIFT_TOLERANCE = 0.1
"""Tolerance of the place of a blob, in pixels of the smaller map."""

ORDERS = (
    "its output",
    "its gradient to the features",
    "its gradient to the weight",
    "the gradient of its gradient to the features",
    "the gradient of its gradient to the weight",
)
"""Tensors in which a fused convolution is compared with a composed one."""


class Case(NamedTuple):
    """A new pair with a number of channels and a factor, and words for these."""

    pair: Any
    channels: int
    factor: int
    where: str


class ResamplingSuite(StepSuite):
    """Pairs of modules that change the size of features.

    Attributes:
        factors: Growth factors to try.
        channels: Numbers of maps to try.
        kernels: Sizes of the convolutions that may be fused.
        keeps_picture: Whether a new pair keeps brightness and place; False where its weights begin at random.
        tolerance: Tolerance between fused and composed, in float64, relative to the largest value.
    """

    kind = "resampling"
    factors: Sequence[int] = (2, 3, 4)
    channels: Sequence[int] = (1, 4)
    kernels: Sequence[int] = (1, 3, 5)
    keeps_picture = True
    tolerance = 1e-10

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as `train.resampling`."""
        return {"resampling": component}

    def iterate_cases(self) -> Iterator[Case]:
        """Yield a new pair with each number of channels and factor."""
        for channels in self.channels:
            for factor in self.factors:
                torch.manual_seed(0)
                yield Case(self.make(), channels, factor, f"with factor {factor} and {channels} channels")

    def test_sizes(self) -> None:
        """Require `up` to multiply height and width by the factor, and `down` to divide them, at any size."""
        for pair, channels, factor, where in self.iterate_cases():
            up = pair.up(channels, factor)
            down = pair.down(channels, factor)
            for count, height, width in ((1, 1, 1), (2, 3, 5), (3, 4, 4)):
                small = draw_noise(count, channels, height, width)
                large = draw_noise(count, channels, factor * height, factor * width)
                _require_like(up(small), large, f"up {where}")
                _require_like(down(large), small, f"down {where}")

    def test_is_a_module_with_conv2d(self) -> None:
        """Require an `Upsample` and a `Downsample`, so that convolutions can be fused with them."""
        for pair, channels, factor, where in self.iterate_cases():
            for name, module, wanted in (
                ("up", pair.up(channels, factor), Upsample),
                ("down", pair.down(channels, factor), Downsample),
            ):
                require(isinstance(module, wanted), f"{name} {where} builds no pggan_kit.{wanted.__name__}")
                require(module.factor == factor, f"{name} {where} builds a module whose factor is {module.factor}")

    def test_gradients_flow(self) -> None:
        """Require gradients to the features and to every parameter."""
        for pair, channels, factor, where in self.iterate_cases():
            for name in ("up", "down"):
                module = getattr(pair, name)(channels, factor)
                x = draw_noise(2, channels, 2 * factor, 3 * factor).requires_grad_(True)
                output = module(x)
                (output * draw_noise(*output.shape, seed=1)).sum().backward()
                require(
                    x.grad is not None and bool((x.grad.abs().amax((0, 2, 3)) > 0).all()),
                    f"no gradient flows through {name} {where} to some of the features",
                )
                require_gradients(module, f"{name} {where}")

    def test_same_input_same_output(self) -> None:
        """Require that nothing is random or remembered."""
        for pair, channels, factor, where in self.iterate_cases():
            for name in ("up", "down"):
                module = getattr(pair, name)(channels, factor).eval()
                x = draw_noise(2, channels, 2 * factor, 2 * factor)
                require(torch.equal(module(x), module(x)), f"{name} {where} gives two outputs for one input")

    @torch.no_grad()
    def test_keeps_brightness(self) -> None:
        """Require a constant to stay as it is, except near the border, where there may be zeros outside."""
        if not self.keeps_picture:
            return
        for pair, channels, factor, where in self.iterate_cases():
            for name, size, new_size in (("up", SMALL, SMALL * factor), ("down", SMALL * factor, SMALL)):
                module = getattr(pair, name)(channels, factor).double().eval()
                output = module(torch.ones(1, channels, size, size, dtype=torch.float64))
                middle = slice(new_size // 4, 3 * new_size // 4)
                inside = output[:, :, middle, middle]
                change = float((inside - 1).abs().max())
                require(
                    change <= GAIN_TOLERANCE,
                    f"{name} {where} turns a constant 1 into numbers from {inside.min():.3g} to {inside.max():.3g}: it "
                    "must leave brightness as it is (a pair whose weights begin at random sets keeps_picture = False)",
                )

    @torch.no_grad()
    def test_keeps_place(self) -> None:
        """Require a smooth blob to stay where it is, relative to the size: a shift would jump at each growth."""
        if not self.keeps_picture:
            return
        for pair, channels, factor, where in self.iterate_cases():
            for name, size in (("up", SMALL), ("down", SMALL * factor)):
                module = getattr(pair, name)(channels, factor).double().eval()
                blob = _draw_blob(size).expand(1, channels, size, size)
                moved = (_find_centroid(module(blob)) - _find_centroid(blob)) * SMALL
                require(
                    float(moved.abs().max()) <= SHIFT_TOLERANCE,
                    f"{name} {where} shifts what it shows by {moved[0]:.2g} rows and {moved[1]:.2g} columns of the "
                    "smaller map, or mirrors it (a pair whose weights begin at random sets keeps_picture = False)",
                )

    @torch.no_grad()
    def test_samples_stay_apart(self) -> None:
        """Require the features of a sample to depend on that sample alone."""
        for pair, channels, factor, where in self.iterate_cases():
            for name in ("up", "down"):
                module = getattr(pair, name)(channels, factor).eval()
                batch = draw_noise(3, channels, 2 * factor, 2 * factor)
                require_sample_by_sample(module, batch, f"{name} {where}: the map")

    def test_fused_convolution(self) -> None:
        """Require `conv2d` to equal the convolution after `up`, or before `down`, and its gradients to second order."""
        for pair, channels, factor, where in self.iterate_cases():
            up = pair.up(channels, factor).double()
            down = pair.down(channels, factor).double()
            small = draw_noise(2, channels, 3, 2, seed=1, dtype=torch.float64)
            large = draw_noise(2, 3, 3 * factor, 2 * factor, seed=1, dtype=torch.float64)
            for kernel in self.kernels:
                # `up` precedes the convolution and `down` follows it: each has as many channels as it is given.
                widen = draw_noise(3, channels, kernel, kernel, dtype=torch.float64)
                narrow = draw_noise(channels, 3, kernel, kernel, dtype=torch.float64)
                case = f"{where} and a {kernel}x{kernel} kernel"
                self._check_fusion("up", up, small, widen, case)
                self._check_fusion("down", down, large, narrow, case)

    def _check_fusion(self, name: str, module: Any, x: Tensor, weight: Tensor, case: str) -> None:
        """Compare a module's fused convolution with module and convolution one after the other."""

        def compose(x: Tensor, weight: Tensor) -> Tensor:
            padding = weight.shape[-1] // 2
            if isinstance(module, Upsample):
                return F.conv2d(module(x), weight, padding=padding)
            return _call(module, F.conv2d(x, weight, padding=padding))

        # The output, and gradients up to second order.
        fused = _differentiate_twice(module.conv2d, x, weight)
        composed = _differentiate_twice(compose, x, weight)
        for order, value, wanted in zip(ORDERS, fused, composed, strict=True):
            require(value.shape == wanted.shape, f"{name}.conv2d {case} has another size than composed")
            change = measure_difference(value, wanted)
            require(
                change <= self.tolerance,
                f"{name}.conv2d {case} differs from {name} and convolution one after the other in {order}, "
                f"by {change:.2g}",
            )


def _require_like(output: Tensor, wanted: Tensor, name: str) -> None:
    require(
        output.shape == wanted.shape and output.dtype == torch.float32,
        f"{name} makes {output.dtype} {tuple(output.shape)} where float32 {tuple(wanted.shape)} is wanted",
    )


def _draw_blob(size: int) -> Tensor:
    """Return a Gaussian beside the middle of a map (size, size), in float64."""
    places = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    rows, columns = (torch.exp(-(((places - centre) / 0.1) ** 2)) for centre in (0.45, 0.6))
    return torch.outer(rows, columns)


def _find_centroid(maps: Tensor) -> Tensor:
    """Return the row and the column of the centroid of maps (1, C, size, size), in [0, 1]."""
    total = maps.sum((0, 1))
    places = (torch.arange(len(total), dtype=total.dtype) + 0.5) / len(total)
    return torch.stack([(total.sum(1) * places).sum(), (total.sum(0) * places).sum()]) / total.sum()


def _call(module: nn.Module, x: Tensor) -> Tensor:
    output: Tensor = module(x)
    return output


def _differentiate_twice(function: Any, x: Tensor, weight: Tensor) -> list[Tensor]:
    """Return a function's output, and its gradients in the order of `ORDERS`."""
    x = x.clone().requires_grad_(True)
    weight = weight.clone().requires_grad_(True)
    output = function(x, weight)
    direction = draw_noise(*output.shape, seed=2, dtype=torch.float64)

    first = torch.autograd.grad((output.tanh() * direction).sum(), (x, weight), create_graph=True)
    squares = torch.stack([gradient.square().sum() for gradient in first])
    second = torch.autograd.grad(squares.sum(), (x, weight))
    return [output, *first, *second]
