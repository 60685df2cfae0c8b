"""The switches: their curves, and the conformance suite."""

from __future__ import annotations

from typing import Any

import pytest

from pggan_kit.testing import SwitchSuite
from pggan_plugins import switches

POINTS = (0.0, 0.2, 0.25, 0.5, 0.75, 0.999)


def test_linear_is_the_progress() -> None:
    assert [switches.Linear().fade_alpha(p) for p in POINTS] == list(POINTS)


def test_hard_is_1_throughout() -> None:
    assert switches.Hard().fade_alpha() == 1.0


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


def test_generator_first_fades_one_network_after_the_other() -> None:
    alpha = switches.GeneratorFirst().fade_alpha
    assert [alpha(p, "generator") for p in (0.0, 0.25, 0.5, 0.75)] == [0.0, 0.5, 1.0, 1.0]
    assert [alpha(p, "discriminator") for p in (0.0, 0.25, 0.5, 0.75)] == [0.0, 0.0, 0.0, 0.5]


class TestLinear(SwitchSuite):
    def make(self) -> switches.Linear:
        return switches.Linear()


class TestHard(SwitchSuite):
    def make(self) -> switches.Hard:
        return switches.Hard()


class TestCosine(SwitchSuite):
    def make(self) -> switches.Cosine:
        return switches.Cosine()


class TestSmoothstep(SwitchSuite):
    def make(self) -> switches.Smoothstep:
        return switches.Smoothstep()


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

    def chosen(self, part: Any) -> dict[str, Any]:
        """With a tick at each step, so that the first stage ends early and the last one spends what it saved."""
        return {"switch": part, "tick": 4}
