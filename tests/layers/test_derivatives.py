"""The operations of `layers.derivatives` against torch's own in float64, and training steps with a penalty likewise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pggan_kit.layers.derivatives import conv2d, expect_second_derivatives, leaky_relu
from pggan_kit.runs.state import TrainState
from pggan_kit.testing.support import draw_noise
from pggan_kit.testing.tiny_runs import make_tiny_experiment
from pggan_kit.testing.toys import ToyLoss, ToySampler
from pggan_kit.training.step import UpdateContext, image_gradients
from pggan_plugins.architectures import PGGAN
from pggan_plugins.penalties import GradientPenalty
from pggan_plugins.resampling import Nearest
from pggan_plugins.updates import Alternating

SHAPES = [(3, 1, 1, 5, 4), (4, 2, 1, 6, 8), (3, 2, 1, 6, 7), (1, 1, 0, 3, 3), (5, 3, 2, 9, 7)]
"""Kernel, stride, padding, height and width; in two of them windows do not reach the last row or column."""


def make_operands(kernel: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, weight and bias of a convolution from 3 to 4 channels, in float64."""
    x = draw_noise(2, 3, height, width, seed=0, dtype=torch.float64).requires_grad_()
    weight = draw_noise(4, 3, kernel, kernel, seed=1, dtype=torch.float64).requires_grad_()
    bias = draw_noise(4, seed=2, dtype=torch.float64).requires_grad_()
    return x, weight, bias


@pytest.fixture(autouse=True)
def _small_images_take_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pggan_kit.layers.derivatives.LARGEST_SIDE_FOR_TORCH", 0)


@pytest.mark.parametrize(("kernel", "stride", "padding", "height", "width"), SHAPES)
def test_convolution_has_torchs_derivatives(kernel: int, stride: int, padding: int, height: int, width: int) -> None:
    x, weight, bias = make_operands(kernel, height, width)

    def differentiate(convolve: Any) -> list[Tensor]:
        out = convolve(x, weight, bias, stride, padding)
        first = torch.autograd.grad(out.tanh().sum(), (x, weight, bias), create_graph=True)
        total = torch.stack([each.square().sum() for each in first]).sum()
        return [out, *first, *torch.autograd.grad(total, (x, weight, bias))]

    expected = differentiate(F.conv2d)
    with expect_second_derivatives():
        actual = differentiate(conv2d)
        assert torch.autograd.gradgradcheck(
            lambda *operands: conv2d(*operands, stride, padding), (x, weight, bias), fast_mode=True
        )
    for ours, torchs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-12)


def test_leaky_relu_has_torchs_derivatives_and_no_zeros_behind_them() -> None:
    x = draw_noise(50, dtype=torch.float64).requires_grad_()
    with expect_second_derivatives():
        out = leaky_relu(x, 0.2)
        (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        (slope,) = torch.autograd.grad(leaky_relu(x, 0.2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    slopes = torch.where(x > 0, 1.0, 0.2).to(x.dtype)
    torch.testing.assert_close(out, x * slopes)
    torch.testing.assert_close(first, 2 * x * slopes**2)
    torch.testing.assert_close(second, 2 * slopes**2)
    assert not slope.requires_grad


def make_critic(convolve: Any, activate: Any, weights: Any) -> Any:
    """Return a function that scores images by convolutions and activations of a kind."""

    def score(x: Tensor) -> Tensor:
        for weight in weights:
            x = activate(convolve(x, weight, None, 1, 1), 0.2)
        return x.tanh().sum()

    return score


def test_a_traced_step_has_torchs_derivatives_and_small_kernels() -> None:
    """The compiler traces a whole step: no kernel in its graph may be as large as the image."""
    x = draw_noise(2, 3, 6, 6, dtype=torch.float64)
    weights = [draw_noise(4, 3, 3, 3, seed=1, dtype=torch.float64), draw_noise(2, 4, 3, 3, seed=2, dtype=torch.float64)]

    def differentiate_penalty(weights: list[Tensor], x: Tensor) -> tuple[Tensor, ...]:
        leaves = [weight.detach().requires_grad_() for weight in weights]
        image = x.detach().requires_grad_()
        with expect_second_derivatives():
            score: Tensor = make_critic(conv2d, leaky_relu, leaves)(image)
        (gradient,) = torch.autograd.grad(score, image, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), leaves)

    # The same by torch's own operations.
    leaves = [weight.clone().requires_grad_() for weight in weights]
    image = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(make_critic(F.conv2d, F.leaky_relu, leaves)(image), image, create_graph=True)
    expected = torch.autograd.grad(gradient.square().sum(), leaves)

    traced = make_fx(differentiate_penalty)(weights, x)
    for gradients in (differentiate_penalty(weights, x), traced(weights, x)):
        for ours, torchs in zip(gradients, expected, strict=True):
            torch.testing.assert_close(ours, torchs, rtol=1e-10, atol=1e-10)

    kernels = [
        node.args[1].meta["val"].shape[2:]
        for node in traced.graph.nodes
        if node.target is torch.ops.aten.convolution.default
    ]
    assert kernels
    assert all(tuple(kernel) == (3, 3) for kernel in kernels)


def test_the_mode_ends_with_its_block_also_by_an_error() -> None:
    x, weight, _ = make_operands(3, 4, 4)
    with pytest.raises(RuntimeError), expect_second_derivatives():
        conv2d(x, weight[:, :1])
    operation = type(conv2d(x, weight).grad_fn).__name__
    assert "Convolution" in operation
    assert "_Convolution" not in operation


def test_autocast_lowers_both_derivatives() -> None:
    x = draw_noise(4, 8, 8, 8).requires_grad_()
    weight = draw_noise(8, 8, 3, 3, seed=1).requires_grad_()

    def differentiate() -> tuple[torch.dtype, Tensor]:
        with torch.autocast("cpu", torch.bfloat16), expect_second_derivatives():
            out = conv2d(x, weight, padding=1)
            (first,) = torch.autograd.grad(out.float().tanh().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weight)
        return out.dtype, second

    dtype, low = differentiate()
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    (first,) = torch.autograd.grad(exact.tanh().sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), weight)
    assert dtype is torch.bfloat16
    assert low.dtype is torch.float32
    assert float((low - expected).norm() / expected.norm()) < 0.05


@pytest.fixture
def double() -> Iterator[None]:
    """Compute everything in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_state(pool: str) -> TrainState:
    """Return the state at the start of the second stage, of an experiment with a gradient penalty."""
    experiment = make_tiny_experiment(
        {
            "architecture": PGGAN(channels=8, pool=pool),
            "resampling": Nearest(),
            "loss": ToyLoss([GradientPenalty()]),
            "update": Alternating(),
        }
    )
    state = TrainState(experiment, experiment.schedule.resolve(16, 1, 0), torch.device("cpu"))
    state.grow({"generator": True, "discriminator": True})
    state.renew_optimizers()
    return state


def take_step(state: TrainState) -> dict[str, Tensor]:
    """Take one training step in mid-fade and return its losses."""
    alphas = dict.fromkeys(("generator", "discriminator", "reals"), torch.tensor(0.3))
    ctx = UpdateContext(state.experiment, state, state.stage, ToySampler(state.stage), alphas)
    losses = state.experiment.update.step(ctx)
    state.images += ctx.drawn
    return losses


@pytest.mark.parametrize("pool", ["after_activation", "before_activation"])
def test_training_steps_are_those_of_torchs_own_operations(pool: str, double: None) -> None:
    """Losses, gradients and weights of five steps in mid-fade, up to rounding in float64."""
    fast = make_state(pool)
    plain = make_state(pool)
    for _ in range(5):
        losses = take_step(fast)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pggan_kit.training.step.expect_second_derivatives", contextlib.nullcontext)
            expected = take_step(plain)
        assert losses["Loss/discriminator/GradientPenalty"] > 0
        for name, value in expected.items():
            torch.testing.assert_close(losses[name], value, rtol=1e-9, atol=1e-9)
        for name in ("generator", "discriminator"):
            pairs = zip(fast.network(name).parameters(), plain.network(name).parameters(), strict=True)
            for ours, torchs in pairs:
                torch.testing.assert_close(ours.grad, torchs.grad, rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(ours, torchs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("largest_for_torch", "operation"), [(3, "_ConvolutionBackward"), (4, "ConvolutionBackward0")])
def test_penalties_use_the_fast_operation_above_the_limit(
    monkeypatch: pytest.MonkeyPatch, largest_for_torch: int, operation: str
) -> None:
    monkeypatch.setattr("pggan_kit.layers.derivatives.LARGEST_SIDE_FOR_TORCH", largest_for_torch)
    x = draw_noise(2, 3, 4, 4)
    weight = draw_noise(1, 3, 4, 4, seed=1).requires_grad_()
    operations: list[str] = []

    class ToyScores:
        def __init__(self, score: Tensor) -> None:
            self.score = score

    def judge(images: Tensor) -> Any:
        out = conv2d(images, weight)
        operations.append(type(out.grad_fn).__name__)
        return ToyScores(out.flatten())

    torch.testing.assert_close(image_gradients(judge, x), weight.expand(2, -1, -1, -1))
    assert operations == [operation]
