"""The switches: their curves, and the conformance suite."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import STUB, TINY
from helpers.variants import train_once

from pggan_kit import hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import ConfigError, Interrupted
from pggan_kit.testing import SwitchSuite, make_stages
from pggan_plugins import switches
from pggan_plugins.switches.nudged import nudge_first_weight

POINTS = (0.0, 0.2, 0.25, 0.5, 0.75, 0.999)


def test_linear_is_the_progress() -> None:
    stages = make_stages((4, 8, 16))
    for path in ("generator", "discriminator", "reals"):
        assert [switches.Linear().fade_alpha(stages[1], p, path) for p in POINTS] == list(POINTS)

    # D may begin to fade later.
    alpha = switches.Linear(discriminator_from=16).fade_alpha
    assert [alpha(stages[1], 0.25, path) for path in ("generator", "discriminator", "reals")] == [0.25, 1.0, 0.25]
    assert alpha(stages[2], 0.25, "discriminator") == 0.25


def test_hard_is_1_throughout() -> None:
    for path in ("generator", "discriminator", "reals"):
        assert switches.Hard().fade_alpha(0.25, path) == 1.0


def test_hard_may_leave_the_reals_their_fade() -> None:
    alpha = switches.Hard(fade_reals=True).fade_alpha
    assert [alpha(0.25, path) for path in ("generator", "discriminator", "reals")] == [1.0, 1.0, 0.25]


def test_smooth_curves_are_symmetric_and_flat_at_the_ends() -> None:
    for switch in (switches.Cosine(), switches.Smoothstep()):
        for p in POINTS:
            assert switch.fade_alpha(p) + switch.fade_alpha(1 - p) == pytest.approx(1.0)
        assert switch.fade_alpha(1e-3) < 1e-5
        assert switch.fade_alpha(0.5) == pytest.approx(0.5)
    assert switches.Cosine().fade_alpha(1 / 3) == pytest.approx(0.25)
    assert switches.Smoothstep().fade_alpha(1 / 3) == pytest.approx(7 / 27)


def test_staircase_rises_in_equal_steps() -> None:
    curve = [switches.Staircase(4).fade_alpha(i / 100) for i in range(100)]
    assert sorted(set(curve)) == [0.0, 0.25, 0.5, 0.75]
    assert [curve.count(value) for value in (0.0, 0.25, 0.5, 0.75)] == [25, 25, 25, 25]


@pytest.mark.parametrize("fade", [1000, 6400, 60_000])
def test_staircase_takes_each_step_at_its_place(fade: int) -> None:
    """Where the products of floats fall short of whole numbers, too: 50 * 0.58 is 28.999999999999996."""
    for steps in range(1, 101):
        switch = switches.Staircase(steps)
        for images in {fade * step // steps for step in range(1, steps)} | {fade - 1}:
            assert switch.fade_alpha(images / fade) == steps * images // fade / steps, (steps, images)


def test_generator_first_fades_one_network_after_the_other() -> None:
    alpha = switches.GeneratorFirst().fade_alpha
    assert [alpha(p, "generator") for p in (0.0, 0.25, 0.5, 0.75)] == [0.0, 0.5, 1.0, 1.0]
    assert [alpha(p, "discriminator") for p in (0.0, 0.25, 0.5, 0.75)] == [0.0, 0.0, 0.0, 0.5]


class TestLinear(SwitchSuite):
    bad_arguments = ({"discriminator_from": -1},)

    def make(self) -> switches.Linear:
        return switches.Linear()


class TestHard(SwitchSuite):
    def make(self) -> switches.Hard:
        return switches.Hard()


@train_once
class TestHardWithFadedReals(SwitchSuite):
    def make(self) -> switches.Hard:
        return switches.Hard(fade_reals=True)


@train_once
class TestNudged(SwitchSuite):
    def make(self) -> switches.Nudged:
        return switches.Nudged()


@train_once
class TestCosine(SwitchSuite):
    def make(self) -> switches.Cosine:
        return switches.Cosine()


@train_once
class TestSmoothstep(SwitchSuite):
    def make(self) -> switches.Smoothstep:
        return switches.Smoothstep()


@train_once
class TestStaircase(SwitchSuite):
    bad_arguments = ({"steps": 0},)

    def make(self) -> switches.Staircase:
        return switches.Staircase(3)


class TestGeneratorFirst(SwitchSuite):
    def make(self) -> switches.GeneratorFirst:
        return switches.GeneratorFirst()


class TestPlateau(SwitchSuite):
    bad_arguments = (
        {"watch": "", "window": 12, "tolerance": 0.1},
        {"window": 0, "watch": "Loss/generator", "tolerance": 0.1},
        {"tolerance": -1.0, "watch": "Loss/generator", "window": 12},
    )

    def make(self) -> switches.Plateau:
        return switches.Plateau("Loss/generator", window=8, tolerance=1e9)

    def choose_arguments(self, part: Any) -> dict[str, Any]:
        """Choose a tick at each step, so that the first stage ends early and the last one spends what it saved."""
        return {"switch": part, "tick": 4}


def test_nudged_moves_one_weight_by_the_least_that_bfloat16_sees_once(train: Callable[..., Any]) -> None:
    """At the first growth, of the generator alone; a run that was saved just then and goes on is not nudged again."""
    seen: dict[str, list[torch.Tensor]] = {}

    class Look:
        def __init__(self, name: str, stop: bool = False) -> None:
            self.name = name
            self.stop = stop

        @hookimpl
        def before_fade(self, run: Any, stage: Any, state: Any) -> None:
            if stage.index == 1:
                nets = (*state.generator.parameters(), *state.ema.parameters(), *state.discriminator.parameters())
                seen[self.name] = [param.detach().clone() for param in nets]
                if self.stop:
                    os.kill(os.getpid(), signal.SIGTERM)

    nudged = "train.switch = @switches.Nudged()"
    train(run_dir="linear", plugins=(Look("linear"),))
    with pytest.raises(Interrupted):
        train(nudged, run_dir="nudged", plugins=(Look("nudged", stop=True),))
    resume("nudged", plugins=[str(STUB), Look("again")])
    moved = [(a, b) for a, b in zip(seen["linear"], seen["nudged"], strict=True) if not torch.equal(a, b)]
    assert len(moved) == 1 and int((moved[0][0] != moved[0][1]).sum()) == 1
    index = tuple(int(i) for i in (moved[0][0] != moved[0][1]).nonzero()[0])
    before, after = (np.float32(side[index].item()) for side in moved[0])
    # bfloat16 has 8 significant bits: its numbers lie 2^-7 of the power of two below a number apart.
    step = 2.0 ** (np.floor(np.log2(abs(before))) - 7)
    assert (after / step).is_integer() and step / 2 <= after - before <= 3 * step / 2
    assert all(torch.equal(a, b) for a, b in zip(seen["nudged"], seen["again"], strict=True))


SMALL = {
    "PGGAN": {"channels": 4},
    "SkipPGGAN": {"channels": 4},
    "R3GAN": {"channels": 4, "group_size": 4},
    "ResNet": {"channels": 4},
    "StyleGAN2": {"channels": 4, "style_size": 8, "mapping_layers": 1},
    "Tutorial": {"generator_channels": 4, "discriminator_channels": 4},
}
"""Settings that make each architecture small."""


@pytest.mark.parametrize("architecture", SMALL)
@pytest.mark.usefixtures("few_calibrations")
def test_nudged_runs_drift_apart_in_bfloat16_too(architecture: str, train: Callable[..., Any]) -> None:
    """A control that changes no bit of what is computed would say that chance does nothing.

    Four steps after the nudge, it is in more than the one weight.
    """
    low = ("train.precision = 'bfloat16'", "schedule.total_images = 24")
    settings = [f"architectures.{architecture}.{name} = {value}" for name, value in SMALL[architecture].items()]
    low = (*low, f"train.architecture = @architectures.{architecture}()", *settings)
    base = "\n".join(line for line in TINY.splitlines() if "architectures." not in line)
    linear = train(*low, run_dir="linear", base=base).state.generator.state_dict()
    low = (*low, "train.switch = @switches.Nudged()")
    nudged = train(*low, run_dir="nudged", base=base).state.generator.state_dict()
    moved = [name for name in linear if not torch.equal(linear[name], nudged[name])]
    assert len(moved) > 1


def test_nudged_needs_a_weight_that_is_not_0() -> None:
    net = torch.nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[1, 0] = -1.0
    nudge_first_weight(net)
    assert net.weight.tolist() == [[0.0, 0.0], [-1 + 2.0**-8, 0.0]]
    for param in net.parameters():
        param.detach().zero_()
    with pytest.raises(ConfigError, match="a weight of the generator that is not 0"):
        nudge_first_weight(net)
