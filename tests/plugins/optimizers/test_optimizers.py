"""Adam against its formula, and the conformance suite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pggan_kit import hookimpl
from pggan_kit.runs.state import TrainState
from pggan_kit.testing import OptimizerSuite, make_stages
from pggan_kit.testing.support import draw_noise
from pggan_kit.testing.tiny_runs import make_tiny_experiment
from pggan_kit.testing.toys import ToyLoss, ToySampler
from pggan_kit.training.step import UpdateContext
from pggan_plugins.architectures import PGGAN
from pggan_plugins.optimizers import Adam, SharedAdam
from pggan_plugins.penalties import GradientPenalty
from pggan_plugins.resampling import Nearest
from pggan_plugins.updates import Alternating

STAGE = make_stages()[0]
GRADIENTS = np.random.default_rng(0).normal(size=(6, 3))


def test_adam_against_its_formula() -> None:
    """Kingma and Ba 2015, algorithm 1, in float64."""
    param = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    optimizer = Adam(lr=0.1, beta1=0.3, beta2=0.9, eps=1e-4).build([param], STAGE)
    theta = np.array([1.0, -2.0, 3.0])
    m = np.zeros(3)
    v = np.zeros(3)
    for t, gradient in enumerate(GRADIENTS, start=1):
        m = 0.3 * m + 0.7 * gradient
        v = 0.9 * v + 0.1 * gradient**2
        theta = theta - 0.1 * (m / (1 - 0.3**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-4)
        param.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        np.testing.assert_allclose(param.detach().numpy(), theta, rtol=1e-9)


def test_gradients_of_another_memory_format() -> None:
    """The fused kernel would take them in the order in which they lie in memory."""
    start = draw_noise(4, 3, 3, 3)
    gradient = draw_noise(4, 3, 3, 3, seed=1)
    moved = []
    for memory_format in (torch.channels_last, torch.contiguous_format):
        param = nn.Parameter(start.clone().contiguous(memory_format=memory_format))
        optimizer = Adam(lr=0.1).build([param], STAGE)
        for factor in (1.0, -3.0):
            param.grad = factor * gradient
            optimizer.step()
        moved.append(param)
    torch.testing.assert_close(*moved, rtol=0, atol=0)


def test_a_backward_pass_makes_gradients_in_their_parameters_format() -> None:
    """So none is copied, in D under a penalty and in G."""
    chosen = {"architecture": PGGAN(channels=8), "resampling": Nearest(), "loss": ToyLoss([GradientPenalty()])}
    experiment = make_tiny_experiment({**chosen, "update": Alternating(), "generator_optimizer": Adam()})
    state = TrainState(experiment, experiment.schedule.resolve(16, 1, 0), torch.device("cpu"))
    state.grow({"generator": True, "discriminator": True})
    state.renew_optimizers()
    alphas = dict.fromkeys(("generator", "discriminator", "reals"), torch.tensor(0.3))
    experiment.update.step(UpdateContext(experiment, state, state.stage, ToySampler(state.stage), alphas))
    for net in (state.generator, state.discriminator):
        for name, param in net.named_parameters():
            assert param.grad is not None and param.grad.stride() == param.stride(), name
    assert any(param.stride(1) == 1 for param in state.generator.parameters() if param.dim() == 4)


def test_moments_of_another_memory_format() -> None:
    """A run from the checkpoint of a `contiguous` one goes on as that one does."""
    chosen = {"architecture": PGGAN(channels=8), "generator_optimizer": Adam(), "discriminator_optimizer": Adam()}
    runs = []
    for memory_format in ("contiguous", "channels_last"):
        experiment = make_tiny_experiment({**chosen, "update": Alternating(), "memory_format": memory_format})
        runs.append(TrainState(experiment, experiment.schedule.resolve(16, 1, 0), torch.device("cpu")))
    run_step(runs[0])
    runs[1].load_snapshot(runs[0].take_snapshot(), other_optimizers=True)
    for state in runs:
        run_step(state)
    for name in ("generator", "discriminator"):
        for one, two in zip(*(state.network(name).parameters() for state in runs), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def run_step(state: TrainState) -> None:
    ctx = UpdateContext(state.experiment, state, state.stage, ToySampler(state.stage), {})
    state.experiment.update.step(ctx)
    state.images += ctx.drawn


def test_the_papers_defaults() -> None:
    group = Adam().build([nn.Parameter(torch.ones(1))], STAGE).param_groups[0]
    assert (group["lr"], group["betas"], group["eps"]) == (1e-3, (0.0, 0.99), 1e-8)


def test_shared_counter_goes_on_for_parameters_that_are_added_late() -> None:
    """Keras' form: eps beside the uncorrected root, one counter for all; a late parameter gets the correction of t."""
    early, late = (nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2))
    optimizer = SharedAdam(lr=0.1, beta1=0.5, beta2=0.9, eps=1e-4).build([early, late], STAGE)
    theta = np.zeros((2, 3))
    moments = np.zeros((2, 2, 3))
    for t, gradient in enumerate(GRADIENTS, start=1):
        moving = [0] if t <= 3 else [0, 1]
        early.grad = torch.from_numpy(gradient.copy())
        late.grad = torch.from_numpy(2 * gradient) if 1 in moving else None
        optimizer.step()
        for which in moving:
            g = gradient * (which + 1)
            moments[which] = 0.5 * moments[which][0] + 0.5 * g, 0.9 * moments[which][1] + 0.1 * g**2
            rate = 0.1 * np.sqrt(1 - 0.9**t) / (1 - 0.5**t)
            theta[which] -= rate * moments[which][0] / (np.sqrt(moments[which][1]) + 1e-4)
        np.testing.assert_allclose(early.detach().numpy(), theta[0], rtol=1e-9)
        np.testing.assert_allclose(late.detach().numpy(), theta[1], rtol=1e-9)


@pytest.mark.parametrize(("interval", "share"), [(16, 16 / 17), (1, 1 / 2)])
def test_a_lazy_interval_adapts_rate_and_betas(interval: int, share: float) -> None:
    """Karras et al. 2020 (StyleGAN2), appendix B: c = k / (k + 1), lr * c, beta ** c; in Adam's formula, float64."""
    param = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
    optimizer = Adam(lr={4: 0.1, 8: 0.2}, beta1=0.3, beta2=0.9, eps=1e-4, lazy_interval=interval).build([param], STAGE)
    theta = np.array([1.0, -2.0, 3.0])
    m = np.zeros(3)
    v = np.zeros(3)
    beta1 = 0.3**share
    beta2 = 0.9**share
    for t, gradient in enumerate(GRADIENTS, start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        theta = theta - 0.1 * share * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + 1e-4)
        param.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        np.testing.assert_allclose(param.detach().numpy(), theta, rtol=1e-9)


def test_stylegan2s_numbers() -> None:
    """lr 0.002, betas 0 and 0.99, R1 every 16th time: lr 0.00188 and beta2 0.9906."""
    built = Adam(lr=2e-3, beta1=0.0, beta2=0.99, lazy_interval=16).build([nn.Parameter(torch.ones(1))], STAGE)
    group = built.param_groups[0]
    wanted = (2e-3 * 16 / 17, 0.0, math.exp(16 / 17 * math.log(0.99)))
    assert (group["lr"], *group["betas"]) == pytest.approx(wanted, rel=1e-12)


class TestAdam(OptimizerSuite):
    bad_arguments = (
        *({"lr": 0.0}, {"lr": {4: -1.0}}, {"beta1": 1.0}, {"beta2": -0.1}, {"eps": 0.0}),
        *({"decay_images": -1}, {"decay_to": 2.0}),
        *({"lazy_interval": 0}, {"lazy_interval": -16}),
    )

    def make(self) -> Adam:
        return Adam()


class TestDecayingAdam(OptimizerSuite):
    def make(self) -> Adam:
        return Adam(decay_images=16, decay_to=0.1)


class TestSharedAdam(OptimizerSuite):
    def make(self) -> SharedAdam:
        return SharedAdam()


def test_the_learning_rate_falls_at_the_end(train: Callable[..., Any]) -> None:
    """lr * (to + (1 - to) * left / decay_images) over the last images, per stage, also in a new optimizer."""
    seen: dict[int, float] = {}

    class Watch:
        @hookimpl
        def after_step(self, state: TrainState) -> None:
            seen[state.images] = state.optimizers["generator"].param_groups[0]["lr"]

    lines = ("optimizers.Adam.lr = {4: 2e-3, 16: 8e-3}", "optimizers.Adam.decay_images = 24")
    more = ("optimizers.Adam.decay_to = 0.5", "optimizers.Adam.lazy_interval = 1")  # which halves the rate
    train(*lines, *more, plugins=(Watch(),))
    total = 40
    for images, lr in seen.items():
        began = images - 4  # a plugin's hook runs before Adam sets the next step's rate
        base = 4e-3 if began >= 24 else 1e-3
        assert lr == pytest.approx(base * min(1.0, 0.5 + 0.5 * (total - began) / 24)), images
    assert len(seen) == 10


def test_a_decaying_adam_leaves_other_optimizers_alone(train: Callable[..., Any]) -> None:
    run = train("g/optimizers.Adam.decay_images = 40", "g/optimizers.Adam.decay_to = 0.0")
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in run.state.optimizers.items()}
    assert rates == {"generator": 0.0, "discriminator": 1e-3}
