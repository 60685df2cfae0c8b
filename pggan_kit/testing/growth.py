"""Test that growth policies keep their contract."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pggan_kit.components import MOMENTS, GrowthPolicy
from pggan_kit.errors import TrainingError
from pggan_kit.growth.fade import NETS
from pggan_kit.growth.learning import ask_factors, name_pieces
from pggan_kit.growth.networks import GrowingNetwork
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Position, ScheduleSettings
from pggan_kit.testing.suite import StepSuite, start_fade
from pggan_kit.testing.support import are_equal, require
from pggan_kit.testing.tiny_runs import make_run
from pggan_kit.testing.toys import ToySampler
from pggan_kit.training.step import UpdateContext

SIZES = (4, 8, 16)
"""Sizes of the stages in which the policy is asked."""


class GrowthPolicySuite(StepSuite):
    """Growth policies say how fast each piece learns.

    The tiny run grows once, from 4x4 to 8x8 at images 8, fades until images 20 and ends at 28. Let `make` return a
    policy that does something in it.
    """

    kind = "growth"
    # Where other pieces learn, steps are captured from the start.
    captured_steps = 16

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as `train.growth`."""
        return {"growth": component}

    def list_places(self) -> Iterator[Position]:
        """Yield the places on the clock at which the policy is asked: each step of three stages, and their ends."""
        schedule = ScheduleSettings(SIZES, fade_images=12, stable_images=8, batch_size=4).resolve(16, 1, 0)
        for stage in schedule.stages:
            starts = schedule.planned_starts()[: stage.index + 1]
            for images in range(starts[-1], schedule.end(starts) + 1, stage.batch_size):
                yield schedule.at(images, starts)

    def _list_answers(self, policy: GrowthPolicy, name: str) -> list[list[float]]:
        answers = []
        for position in self.list_places():
            try:
                answers.append(ask_factors(policy, name_pieces(position.stage), position))
            except TrainingError as error:
                raise AssertionError(f"{name}: {error}") from error
        return answers

    def test_moments(self) -> None:
        """Require one of the known values of `moments`."""
        component, name = self.make_named()
        require(
            component.moments in MOMENTS,
            f"{name}.moments is {component.moments!r}; it must be one of {', '.join(MOMENTS)}",
        )

    def test_factors_are_numbers_and_something_learns(self) -> None:
        """Require finite factors of at least 0, some of which are above 0 in each network, in each step of a run."""
        component, name = self.make_named()
        self._list_answers(component, name)

    def test_factors_depend_on_their_arguments_alone(self) -> None:
        """Require the same factors again: of the same object, of a new one, and of one that has trained."""
        component, name = self.make_named()
        answers = self._list_answers(component, name)

        # Whatever may answer after a run was stopped.
        others = {
            "asked twice": component,
            "made again": self.make(),
            "used in a run": self.first_run().component,
        }
        for how, other in others.items():
            require(
                self._list_answers(other, name) == answers,
                f"{name} gives other factors for the same pieces and places when it is {how}: they must depend on the "
                "arguments alone, since a resumed run asks again",
            )

    def test_frozen_pieces_stay_equal(self) -> None:
        """Require frozen pieces to keep their weights and buffers bit for bit, also in the average, and no moments."""
        component, name = self.make_named()
        with tempfile.TemporaryDirectory() as folder:
            run = make_run(component, name, Path(folder), self.choose_arguments(component))
        state = run.state

        # Take a step of each part of a run, with the hooks that may change weights after it.
        for alpha in walk_through_run(state):
            before = copy_frozen(state)
            context = UpdateContext(state.experiment, state, state.stage, ToySampler(state.stage), alpha)
            torch.manual_seed(state.images)
            losses = state.experiment.update.step(context)
            state.images += context.drawn
            state.update_averages(context.drawn)
            run.hooks.call("after_step", run=run, stage=state.stage, state=state, losses=losses)
            place = f"in the step that ended at images {state.images}"
            require(
                are_equal(copy_frozen(state), before),
                f"with {name} a frozen piece changed {place}: only `ctx.minimise` may change weights",
            )

            # No optimizer may hold what it would apply when the piece learns again.
            for optimizer in state.optimizers.values():
                held = {param for group in optimizer.param_groups for param in group["params"]} | set(optimizer.state)
                for net in NETS:
                    frozen = set(state.network(net).weights()) - set(state.network(net).learning_weights())
                    require(
                        not held & frozen and not any(param.grad is not None for param in frozen),
                        f"with {name} a frozen piece of the {net} has gradients or moments {place}",
                    )
            state.set_learning_factors()


def walk_through_run(state: TrainState) -> Iterator[dict[str, Tensor]]:
    """Yield alpha before each step of the tiny run, with the networks grown to where it is; the caller takes the step.

    Args:
        state: A new state.
    """
    alpha: dict[str, Tensor] = {}
    while state.images < state.schedule.total:
        if alpha and state.position.phase != state.phase:
            state.end_fade()
            state.phase = state.position.phase
            state.renew_optimizers()
            alpha = {}
        if state.images >= state.schedule.end(state.starts):
            alpha = start_fade(state)
        yield alpha


def copy_frozen(state: TrainState) -> dict[str, Tensor]:
    """Return copies of the weights and buffers of all frozen pieces: of both networks and of the average."""
    copies: dict[str, Tensor] = {}
    nets: dict[str, GrowingNetwork] = {**{net: state.network(net) for net in NETS}, "average": state.ema}
    for name, net in nets.items():
        for built in net.pieces():
            if built.piece in net.frozen:
                for key, value in built.module.state_dict().items():
                    copies[f"{name}: {built.piece} {key}"] = value.clone()
    return copies
