"""Test that optimizers keep their contract."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pggan_kit.growth.moving_settings import set_to_clock
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.testing.suite import StepSuite
from pggan_kit.testing.support import are_equal, draw_noise, make_stages, require, save_and_load

RATE_TOLERANCE = 1e-6
"""Relative tolerance of a learning rate, which may be a tensor of single precision."""


class OptimizerSuite(StepSuite):
    """Components that build torch optimizers.

    Attributes:
        steps: Steps within which a quadratic must have become smaller.
        lr_name: Name of the argument that takes a learning rate per stage; empty where there is none.
    """

    kind = "optimizers"
    steps = 50
    lr_name = "lr"

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as the optimizer of both networks."""
        return {"generator_optimizer": component, "discriminator_optimizer": component}

    def stage(self) -> Stage:
        """Return the stage that optimizers are built for."""
        return make_stages()[0]

    def build(self, component: Any, params: Iterable[nn.Parameter], stage: Stage | None = None) -> Any:
        """Return what the component builds, with the settings that it has at the start of a run or of a stage."""
        stage = stage or self.stage()
        built = component.build(params, stage)
        schedule = Schedule(make_stages(), total=40)
        if isinstance(built, torch.optim.Optimizer):
            set_to_clock("under test", built, schedule.at(20 * stage.index, [0, 20][: stage.index + 1]))
        return built

    def test_holds_all_parameters(self) -> None:
        """Require every given parameter in one of the groups, also where the parameters came from a generator.

        One component builds an optimizer at the start of a run, and others as the networks grow.
        """
        component = self.make()
        for call in ("the first call", "a second call, with other parameters,"):
            params = [nn.Parameter(draw_noise(3, seed=i)) for i in range(3)]
            built = self.build(component, (param for param in params))
            require(
                isinstance(built, torch.optim.Optimizer),
                f"build() returns a {type(built).__name__}, no torch Optimizer",
            )
            held = {id(param) for group in built.param_groups for param in group["params"]}
            require(
                held == {id(param) for param in params},
                f"the optimizer that {call} builds does not hold the parameters that it was given: some would never "
                "learn",
            )

    def test_descends(self) -> None:
        """Require a quadratic to become smaller."""
        params = [nn.Parameter(torch.ones(3)), nn.Parameter(-torch.ones(2, 2))]
        descend(self.build(self.make(), params), params, self.steps)
        size = sum(float(param.detach().square().sum()) for param in params)
        require(size < 7.0, f"after {self.steps} steps a quadratic has not become smaller ({size:.4g}, from 7)")

    def test_state_can_be_carried_over(self) -> None:
        """Require a new optimizer with the old one's state of each parameter to continue as the old one."""
        ends = []
        for renews in (False, True):
            params = [nn.Parameter(torch.linspace(0.5, 1.0, 3))]
            component = self.make()
            optimizer = self.build(component, params)
            descend(optimizer, params, 3)

            # A run does this where the networks grow.
            if renews:
                renewed = self.build(component, params)
                for param in params:
                    renewed.state[param] = optimizer.state[param]
                optimizer = renewed
            descend(optimizer, params, 3)
            ends.append(params[0].detach())
        require(
            torch.equal(*ends),
            "a new optimizer with the old one's state per parameter does not go on as the old one: it keeps state "
            "elsewhere, which is lost when a network grows",
        )

    def test_state_survives_a_file(self) -> None:
        """Require a `state_dict` of data that an optimizer loads bit for bit."""
        params = [nn.Parameter(torch.linspace(0.5, 1.0, 3))]
        component = self.make()
        optimizer = self.build(component, params)
        descend(optimizer, params, 3)
        saved = save_and_load(optimizer.state_dict(), "the optimizer")
        other = self.build(component, [nn.Parameter(params[0].detach().clone())])
        other.load_state_dict(saved)
        require(
            are_equal(other.state_dict()["state"], saved["state"]),
            "the optimizer does not load the state that it saved",
        )

        # The loaded one goes on as the saved one does.
        for built in (optimizer, other):
            descend(built, built.param_groups[0]["params"], 3)
        ends = [built.param_groups[0]["params"][0].detach() for built in (optimizer, other)]
        require(
            torch.equal(*ends),
            "an optimizer that has loaded a state_dict does not go on as the one that saved it: the state or a setting "
            "of a group is lost or rounded in the file",
        )

    def test_learning_rate_per_stage(self) -> None:
        """Require a dict keyed by image height to give each stage its own learning rate."""
        if not self.lr_name:
            return
        small, large = make_stages((4, 8))
        component = self.make_with(**{self.lr_name: {4: 1e-3, 8: 5e-4}})
        for stage, wanted in ((small, 1e-3), (large, 5e-4)):
            built = self.build(component, [nn.Parameter(torch.ones(1))], stage)
            rate = float(built.param_groups[0]["lr"])
            require(
                math.isclose(rate, wanted, rel_tol=RATE_TOLERANCE),
                f"with {self.lr_name} = {{4: 0.001, 8: 0.0005}} the learning rate at {stage.size} is {rate}",
            )


def descend(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: int) -> None:
    """Take steps down the sum of squares."""
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        torch.stack([param.square().sum() for param in params]).sum().backward()
        optimizer.step()
