"""The operations of `pggan_kit.derivatives` against torch's own in float64, and steps with a penalty likewise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from pggan_kit.layers.derivatives import conv2d, differentiated_twice, leaky_relu
from pggan_kit.runs.state import TrainState
from pggan_kit.testing.support import noise
from pggan_kit.testing.tiny_runs import tiny_experiment
from pggan_kit.testing.toys import ToyLoss, ToySampler
from pggan_kit.training.step import TrainingStep, image_gradients
from pggan_plugins.architectures import PGGAN
from pggan_plugins.penalties import GradientPenalty
from pggan_plugins.resampling import Nearest
from pggan_plugins.updates import Alternating

# kernel, stride, padding, height, width; in two of them windows do not reach the last row or column.
SHAPES = [(3, 1, 1, 5, 4), (4, 2, 1, 6, 8), (3, 2, 1, 6, 7), (1, 1, 0, 3, 3), (5, 3, 2, 9, 7)]


def operands(kernel: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((2, 3, height, width), (4, 3, kernel, kernel), (4,))
    return tuple(noise(*shape, seed=i, dtype=torch.float64).requires_grad_() for i, shape in enumerate(shapes))


@pytest.fixture(autouse=True)
def _of_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images show all that there is to see."""
    monkeypatch.setattr("pggan_kit.layers.derivatives.TORCH_UP_TO", 0)


@pytest.mark.parametrize(("kernel", "stride", "padding", "height", "width"), SHAPES)
def test_convolution_has_torchs_derivatives(kernel: int, stride: int, padding: int, height: int, width: int) -> None:
    x, weight, bias = operands(kernel, height, width)

    def derivatives(convolve: Any) -> list[Tensor]:
        out = convolve(x, weight, bias, stride, padding)
        first = torch.autograd.grad(out.tanh().sum(), (x, weight, bias), create_graph=True)
        total = torch.stack([each.square().sum() for each in first]).sum()
        return [out, *first, *torch.autograd.grad(total, (x, weight, bias))]

    wanted = derivatives(F.conv2d)
    with differentiated_twice():
        found = derivatives(conv2d)
        assert torch.autograd.gradgradcheck(lambda *given: conv2d(*given, stride, padding), (x, weight, bias))
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def test_leaky_relu_has_torchs_derivatives_and_no_zeros_behind_them() -> None:
    x = noise(50, dtype=torch.float64).requires_grad_()
    with differentiated_twice():
        out = leaky_relu(x, 0.2)
        (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
        (slope,) = torch.autograd.grad(leaky_relu(x, 0.2).sum(), x, create_graph=True)
    sloped = torch.where(x > 0, 1.0, 0.2).to(x.dtype)
    torch.testing.assert_close(out, x * sloped)
    torch.testing.assert_close(first, 2 * x * sloped**2)
    torch.testing.assert_close(torch.autograd.grad(first.sum(), x)[0], 2 * sloped**2)
    assert not slope.requires_grad


def critic(convolve: Any, activate: Any, weights: Any) -> Any:
    def score(x: Tensor) -> Tensor:
        for weight in weights:
            x = activate(convolve(x, weight, None, 1, 1), 0.2)
        return x.tanh().sum()

    return score


def test_traced() -> None:
    """What compiles a whole step; no kernel is as large as the image in the traced graph."""
    x = noise(2, 3, 6, 6, dtype=torch.float64)
    weights = [noise(4, 3, 3, 3, seed=1, dtype=torch.float64), noise(2, 4, 3, 3, seed=2, dtype=torch.float64)]

    def penalty(weights: list[Tensor], x: Tensor) -> tuple[Tensor, ...]:
        weights, x = [weight.detach().requires_grad_() for weight in weights], x.detach().requires_grad_()
        with differentiated_twice():
            score: Tensor = critic(conv2d, leaky_relu, weights)(x)
        (gradient,) = torch.autograd.grad(score, x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), weights)

    leaves = [weight.clone().requires_grad_() for weight in weights]
    image = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(F.conv2d, F.leaky_relu, leaves)(image), image, create_graph=True)
    wanted = torch.autograd.grad(gradient.square().sum(), leaves)
    traced = make_fx(penalty)(weights, x)
    for found in (penalty(weights, x), traced(weights, x)):
        for one, two in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-10)
    kernels = [
        node.args[1].meta["val"].shape[2:]
        for node in traced.graph.nodes
        if node.target is torch.ops.aten.convolution.default
    ]
    assert kernels and all(tuple(kernel) == (3, 3) for kernel in kernels)


def test_the_mode_ends_with_its_block_also_by_an_error() -> None:
    x, weight, _ = operands(3, 4, 4)
    with pytest.raises(RuntimeError), differentiated_twice():
        conv2d(x, weight[:, :1])
    assert "Convolution" in type(conv2d(x, weight).grad_fn).__name__
    assert "_Convolution" not in type(conv2d(x, weight).grad_fn).__name__


def test_autocast_lowers_both_derivatives() -> None:
    x, weight = noise(4, 8, 8, 8).requires_grad_(), noise(8, 8, 3, 3, seed=1).requires_grad_()

    def derivatives() -> tuple[torch.dtype, Tensor]:
        with torch.autocast("cpu", torch.bfloat16), differentiated_twice():
            out = conv2d(x, weight, padding=1)
            (first,) = torch.autograd.grad(out.float().tanh().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), weight)
        return out.dtype, second

    dtype, low = derivatives()
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    (first,) = torch.autograd.grad(exact.tanh().sum(), x, create_graph=True)
    (wanted,) = torch.autograd.grad(first.square().sum(), weight)
    assert dtype is torch.bfloat16 and low.dtype is torch.float32
    assert float((low - wanted).norm() / wanted.norm()) < 0.05


@pytest.fixture
def double() -> Iterator[None]:
    """Everything in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def penalised(pool: str) -> TrainState:
    """The second stage, with its bridges."""
    chosen = {"architecture": PGGAN(channels=8, pool=pool), "resampling": Nearest()}
    experiment = tiny_experiment({**chosen, "loss": ToyLoss([GradientPenalty()]), "update": Alternating()})
    state = TrainState(experiment, experiment.schedule.resolve(16, 1, 0), torch.device("cpu"))
    state.grow({"generator": True, "discriminator": True})
    state.renew_optimizers(reset=True)
    return state


def iterate(state: TrainState) -> dict[str, Tensor]:
    alphas = dict.fromkeys(("generator", "discriminator", "reals"), torch.tensor(0.3))
    ctx = TrainingStep(state.experiment, state, state.stage, ToySampler(state.stage), alphas)
    losses = state.experiment.update.step(ctx)
    state.images += ctx.drawn
    return losses


@pytest.mark.parametrize("pool", ["after_activation", "before_activation"])
def test_training_steps_are_those_of_torchs_own_operations(pool: str, double: None) -> None:
    """Losses, gradients and weights of five steps in mid-fade, up to rounding in float64."""
    fast, plain = (penalised(pool) for _ in range(2))
    for _ in range(5):
        found = iterate(fast)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pggan_kit.layers.derivatives.differentiated_twice", contextlib.nullcontext)
            wanted = iterate(plain)
        assert found["Loss/discriminator/GradientPenalty"] > 0
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
        for name in ("generator", "discriminator"):
            for one, two in zip(fast.network(name).parameters(), plain.network(name).parameters(), strict=True):
                torch.testing.assert_close(one.grad, two.grad, rtol=1e-9, atol=1e-9)
                torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("largest_for_torch", "taken"), [(3, "_ConvolutionBackward"), (4, "ConvolutionBackward0")])
def test_penalties_take_the_fast_way(monkeypatch: pytest.MonkeyPatch, largest_for_torch: int, taken: str) -> None:
    monkeypatch.setattr("pggan_kit.layers.derivatives.TORCH_UP_TO", largest_for_torch)
    x, weight = noise(2, 3, 4, 4), noise(1, 3, 4, 4, seed=1).requires_grad_()
    seen: list[str] = []

    class Said:
        def __init__(self, score: Tensor) -> None:
            self.score = score

    def judge(images: Tensor) -> Any:
        out = conv2d(images, weight)
        seen.append(type(out.grad_fn).__name__)
        return Said(out.flatten())

    torch.testing.assert_close(image_gradients(judge, x), weight.expand(2, -1, -1, -1))
    assert seen == [taken]
