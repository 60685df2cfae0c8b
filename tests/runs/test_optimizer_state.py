"""Test that a run without what its optimizers do not read goes on bit for bit, with smaller checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.killing import StopAt, assert_same_run, last
from helpers.paths import STUB_PLUGIN
from torch import nn

from pggan_kit import Position
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted
from pggan_kit.runs.optimizer_state import leave_out, load_optimizer, save_without
from pggan_kit.schedule import ScheduleSettings
from pggan_kit.testing.support import are_equal
from pggan_plugins.optimizers import Adam, SharedAdam

STAGE = ScheduleSettings((4,), 0, 100, 4).resolve(10, 1, 0).stages[0]


class FusedAdam(Adam):
    """The Adam that is shipped."""


class ForeachAdam(Adam):
    """Adam over lists of tensors."""

    def make_optimizer(self, params: Any, rate: float, betas: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, rate, betas, self.eps, foreach=True)


class LoopAdam(Adam):
    """Adam, one tensor after the other."""

    def make_optimizer(self, params: Any, rate: float, betas: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, rate, betas, self.eps, foreach=False)


class MaximumAdam(Adam):
    """Adam that divides by the largest second moment so far."""

    def make_optimizer(self, params: Any, rate: float, betas: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(params, rate, betas, self.eps, amsgrad=True)


class DecayingAdam(Adam):
    """Adam with decoupled weight decay, whose step is compiled."""

    def make_optimizer(self, params: Any, rate: float, betas: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, rate, betas, self.eps)


def take_steps(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for param in net.parameters():
            # The first kernels must not divide by gradients of 0, and -0.0 is a gradient too.
            param.grad = torch.randn(param.shape, generator=generator) * (step % 3 - 1)
        optimizer.step()


@pytest.mark.parametrize("component", [FusedAdam, ForeachAdam, LoopAdam, MaximumAdam, DecayingAdam, SharedAdam])
def test_a_first_moment_that_is_not_read_need_not_be_saved(component: type[Adam]) -> None:
    nets = [nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)]
    whole, first, second = nets
    for net in (first, second):
        net.load_state_dict(whole.state_dict())
    optimizers = [component(lr=0.1, beta1=0.0).build(net.parameters(), STAGE) for net in nets]
    take_steps(whole, optimizers[0], range(10))

    take_steps(first, optimizers[1], range(4))
    saved = leave_out(optimizers[1], optimizers[1].state_dict())
    assert all("exp_avg" not in kept and "exp_avg_sq" in kept for kept in saved["state"].values())
    assert all("exp_avg" in kept for kept in optimizers[1].state.values()), "the optimizer itself still has it"
    second.load_state_dict(first.state_dict())
    load_optimizer(optimizers[2], saved)
    take_steps(second, optimizers[2], range(4, 10))
    assert are_equal(whole.state_dict(), second.state_dict())
    assert are_equal(optimizers[0].state_dict()["state"], optimizers[2].state_dict()["state"])


class Rising:
    """A curve that is 0 at first."""

    def at(self, position: Position) -> float:
        return 0.0 if position.images < 50 else 0.5


@pytest.mark.parametrize("beta1", [0.5, {4: 0.0}, Rising()])
def test_a_first_moment_that_may_be_read_later_is_saved(beta1: Any) -> None:
    net = nn.Linear(3, 2)
    optimizer = Adam(beta1=beta1).build(net.parameters(), STAGE)
    take_steps(net, optimizer, range(2))
    assert leave_out(optimizer, optimizer.state_dict()) == optimizer.state_dict()


def test_other_optimizers_may_say_what_they_do_not_read() -> None:
    net = nn.Linear(3, 2)
    optimizer = save_without(torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), "momentum_buffer")
    take_steps(net, optimizer, range(2))
    assert all(kept == {} for kept in leave_out(optimizer, optimizer.state_dict())["state"].values())


def test_a_resumed_run_is_equal_and_its_checkpoint_smaller(train: Callable[..., Any]) -> None:
    """Also where a new beta1 needs the moment from the checkpoint on: it begins with 0."""
    train(run_dir="whole")
    with pytest.raises(Interrupted):
        train(run_dir="run", plugins=(StopAt(28),))
    for optimizer in last(Path("run"))["optimizers"].values():
        assert optimizer["state"] and all("exp_avg" not in kept for kept in optimizer["state"].values())
    with pytest.raises(Interrupted):
        resume("run", plugins=[str(STUB_PLUGIN), StopAt(32)])
    resume("run", plugins=[str(STUB_PLUGIN)])
    assert_same_run(Path("run"), Path("whole"))

    with pytest.raises(Interrupted):
        train(run_dir="other", plugins=(StopAt(28),))
    run = resume("other", ["optimizers.Adam.beta1 = 0.5"], plugins=[str(STUB_PLUGIN)])
    assert all("exp_avg" in kept for kept in run.state.save_optimizers()["generator"]["state"].values())
