"""Adam against its formula, and the conformance suite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.variants import train_once
from torch import nn

from pggan_kit import hookimpl
from pggan_kit.growth.learning_rates import set_learning_factor
from pggan_kit.runs.state import TrainState
from pggan_kit.testing import OptimizerSuite, make_stages
from pggan_kit.testing.support import draw_noise
from pggan_kit.testing.tiny_runs import make_tiny_experiment
from pggan_kit.testing.toys import ToyLoss, ToySampler
from pggan_kit.training.step import UpdateContext
from pggan_plugins.architectures import PGGAN
from pggan_plugins.curves import Linear
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


@train_once
class TestAdam(OptimizerSuite):
    bad_arguments = (
        *({"lr": 0.0}, {"lr": {4: -1.0}}, {"beta1": 1.0}, {"beta2": -0.1}, {"eps": 0.0}),
        *({"beta1": {4: 1.5}}, {"beta2": {4: 0.5, 8: -0.5}}),
        *({"lazy_interval": 0}, {"lazy_interval": -16}, {"lazy_interval": 1.5}),
    )

    def make(self) -> Adam:
        return Adam()


class TestMovingAdam(OptimizerSuite):
    def make(self) -> Adam:
        beta2 = {4: 0.9, 8: Linear(0.9, 0.99)}
        return Adam(lr=Linear(1e-3, 1e-4, start_images=-16), beta1=Linear(0.0, 0.5), beta2=beta2)


@train_once
class TestSharedAdam(OptimizerSuite):
    def make(self) -> SharedAdam:
        return SharedAdam()


@train_once
class TestMovingSharedAdam(OptimizerSuite):
    def make(self) -> SharedAdam:
        return SharedAdam(lr=Linear(1e-3, 1e-4), beta1=Linear(0.5, 0.0))


class Watch:
    """Notes the settings of an optimizer of each step, by the clock at which it began.

    Args:
        name: Name of the optimizer.
    """

    def __init__(self, name: str) -> None:
        self.__name__ = f"watch of {name}"
        self.name = name
        self.seen: dict[int, dict[str, Any]] = {}
        self.clock = 0

    @hookimpl
    def before_stage(self, state: TrainState) -> None:
        self.clock = state.images

    @hookimpl
    def after_step(self, state: TrainState) -> None:
        (group,) = state.optimizers[self.name].param_groups
        self.seen[self.clock] = {name: group[name] for name in ("lr", "betas")}
        self.clock = state.images


FALLING = (
    "optimizers.Adam.lr = {4: @curves.Linear(), 16: @late/curves.Linear()}",
    "curves.Linear.begin = 2e-3",
    "late/curves.Linear.begin = 8e-3",
    "curves.Linear.end = 1e-3",
    "curves.Linear.start_images = -24",
)
"""The rate falls over the last 24 of 40 images, from another value in the last stage, which begins at 24."""


def test_a_rate_moves_per_stage_and_in_new_optimizers(train: Callable[..., Any]) -> None:
    watch = Watch("generator")
    train(*FALLING, "optimizers.Adam.lazy_interval = 1", plugins=(watch,))  # which halves the rate
    for began, group in watch.seen.items():
        base = 8e-3 if began >= 24 else 2e-3
        share = max(0.0, (began - 16) / 24)
        assert group["lr"] == pytest.approx((base + (1e-3 - base) * share) / 2), began
    assert list(watch.seen) == list(range(0, 40, 4))


@pytest.mark.parametrize("optimizer", ["Adam", "SharedAdam"])
def test_betas_move(train: Callable[..., Any], optimizer: str) -> None:
    """Of Adam, and of the one optimizer that another component than the experiment holds."""
    lines = (f"optimizers.{optimizer}.beta1 = @curves.Linear()", "curves.Linear.begin = 0.0", "curves.Linear.end = 0.5")
    if optimizer == "SharedAdam":
        joint = ("train.update = @updates.JointBatch()", "updates.JointBatch.optimizer = @optimizers.SharedAdam()")
        unused = ("train.generator_optimizer = None", "train.discriminator_optimizer = None")
        lines = (*lines, *joint, *unused)
    watch = Watch("both" if optimizer == "SharedAdam" else "discriminator")
    train(*lines, plugins=(watch,))
    beta2 = 0.999 if optimizer == "SharedAdam" else 0.99
    assert [group["betas"] for group in watch.seen.values()] == [
        (pytest.approx(0.5 * images / 40), beta2) for images in range(0, 40, 4)
    ]


def test_a_moving_rate_leaves_other_optimizers_alone(train: Callable[..., Any]) -> None:
    watches = [Watch("generator"), Watch("discriminator")]
    lines = ("g/optimizers.Adam.lr = @curves.Linear()", "curves.Linear.begin = 1e-3", "curves.Linear.end = 0.0")
    train(*lines, plugins=tuple(watches))
    falling, constant = ([group["lr"] for group in watch.seen.values()] for watch in watches)
    assert falling == pytest.approx([1e-3 * (1 - images / 40) for images in range(0, 40, 4)])
    assert constant == [1e-3] * 10


def test_a_growth_policys_factor_stays_as_the_rate_moves(train: Callable[..., Any]) -> None:
    class Slow:
        @hookimpl
        def before_stage(self, state: TrainState) -> None:
            for group in state.optimizers["generator"].param_groups:
                set_learning_factor(group, 0.25)

    watch = Watch("generator")
    train(*FALLING, plugins=(watch, Slow()))
    assert watch.seen[0]["lr"] == pytest.approx(0.25 * 2e-3)
    assert watch.seen[28]["lr"] == pytest.approx(0.25 * (8e-3 - 7e-3 * 12 / 24))


def test_a_rate_that_leaves_its_range_is_found_before_training(rejected: Callable[..., str]) -> None:
    lines = ("curves.Linear.begin = 1e-3", "curves.Linear.end = -1e-3", "g/optimizers.Adam.lr = @curves.Linear()")
    # It is 0 at image 20, where the last step of 8x8 begins.
    rejected(r"the optimizer generator: lr must be at least 0, and is -\S+, at images 24 \(16x16, fade\)", *lines)


def test_a_beta_that_leaves_its_range_is_found_before_training(rejected: Callable[..., str]) -> None:
    lines = ("curves.Linear.begin = 0.9", "curves.Linear.end = 1.5", "d/optimizers.Adam.beta2 = @curves.Linear()")
    rejected(r"the optimizer discriminator: beta2 must be in \[0, 1\), and is 1\.02, at images 8 \(8x8", *lines)
